"""`settings.parallel`: how the children of parallel blocks run, and on which hosts those that are flows.

A flow is one child of a block, run on another machine by `muster run --entry-point CHILD` over SSH. So a child can be
one only if it needs nothing of the server: no people, no keys, no secrets, no node, no other workflow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.language import names
from app.language.fields import Choice, Flag, Key, Kind, ListOf, Number, Schema, Table, Text, no_template
from app.language.graph import Draft
from app.language.model import Parallel, Remote, Retry, Workflow
from app.language.needs_server import Chain, needs
from app.language.reading import BAD, Reading, label
from app.language.source import Node

REMOTE: Final = "remote"
STRATEGIES: Final = ("thread", "process", REMOTE)
STRATEGY: Final = Choice(STRATEGIES)
METHODS: Final = ("auto", "parallel", "ssh")

MOST_HOSTS: Final = 500
HOST: Final = (
    r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,63}@)?"
    r"(\[[0-9A-Fa-f:.]{2,45}\]|"
    # No name of DNS, and none that Python looks up: parts that are empty or longer than 63 characters.
    r"(?![A-Za-z0-9._-]*(\.\.|[A-Za-z0-9_-]{64}))[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?)"
    r"(:[0-9]{1,5})?$(?!\n)"
)
HOST_RULE: Final = (
    "`user@host` or `user@host:port`; parts of names have 1 to 63 characters, IPv6 stands in brackets"
)
WORKDIR: Final = r"^(/(?!\.\.?(/|$))[A-Za-z0-9._+-]{1,100}){1,20}/?$(?!\n)"
WORKDIR_RULE: Final = "an absolute path below `/`, of letters, digits and `._+-`, without `..`"
BASEFILE: Final = r"^(\./)?[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$(?!\n)"
BASEFILE_RULE: Final = "the name of a file in the directory MUSTER_FLOW_BASEFILES of the control side"
DEFAULT_WORKDIR: Final = "/tmp/tea-jobs"
DEFAULT_BASEFILE: Final = "muster.pyz"
MOST_FLOW_RETRIES: Final = 20


@dataclass(frozen=True)
class Host(Kind):
    """Who is asked for on which machine: `user@host:port`."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind != "scalar" or not isinstance(node.value, str):
            return r.wrong(node, "a host", HOST_RULE)
        if not no_template(r, node):
            return BAD
        text = Text(HOST, HOST_RULE, code="bad-host").read(r, node)
        port = "" if text is BAD else text.rpartition("]")[2].partition(":")[2]
        if port and not 0 < int(port) < 65536:
            return r.error(node, "bad-host", f"{label(node)} has the port {port}", "ports are 1 to 65535")
        return text

    def schema(self) -> Schema:
        return {"type": "string", "pattern": HOST}


_NUMBER: Final = Number(0, names.DAYS_30, templates=False, seconds=True)
_RETRY: Final = Table(
    "`retry` of `parallel`",
    [
        Key(
            "count",
            Number(0, MOST_FLOW_RETRIES, whole=True, templates=False),
            "How many times a flow is tried again.",
            required=True,
        ),
        Key("delay", _NUMBER, "Seconds to wait before a retry."),
        Key(
            "backoff",
            Choice(("constant", "linear", "exponential")),
            "How the wait grows; constant if not given.",
        ),
        Key("max_delay", _NUMBER, "The longest wait, in seconds."),
    ],
    elsewhere={"on_error": "a flow is tried again after every failure that another try may mend"},
)
_REMOTE: Final = Table(
    "`remote`",
    [
        Key("hosts", ListOf(Host(), least=1, most=MOST_HOSTS), "Where flows run, in turn.", required=True),
        Key("basefile", Text(BASEFILE, BASEFILE_RULE), "The tool that is copied; muster.pyz if not given."),
        Key("workdir", Text(WORKDIR, WORKDIR_RULE, most=400), "Where flows have their directories there."),
        Key("cleanup", Flag(), "Whether a flow's directory is removed after it; true if not given."),
        Key("method", Choice(METHODS), "How flows get there; auto takes GNU Parallel where it is installed."),
    ],
)
_PARALLEL: Final = Table(
    "`parallel`",
    [
        Key("strategy", STRATEGY, "thread and process: here, as ever; remote: each child as a flow by SSH."),
        Key("remote", _REMOTE, "Where flows run and how they get there."),
        Key(
            "timeout",
            Number(0, names.DAYS_30, templates=False, above=True, seconds=True),
            "Seconds of one try.",
        ),
        Key("retry", _RETRY, "When and how a flow is tried again."),
    ],
    {
        "hosts": "`hosts` belongs under `remote`",
        "basefile": "`basefile` belongs under `remote`",
        "workdir": "`workdir` belongs under `remote`",
        "cleanup": "`cleanup` belongs under `remote`",
        "timeout_seconds": "did you mean `timeout`?",
    },
)
SETTINGS: Final = Table(
    "`settings`",
    [Key("parallel", _PARALLEL, "How the children of parallel blocks run.")],
    {"parallel_strategy": "write `parallel: {strategy: …}`"},
)


def read(r: Reading, root: Node, values: Mapping[str, Any]) -> Parallel:
    """What the workflow's `settings` say of parallel blocks; that flows have hosts is checked."""
    given = (values.get("settings") or {}).get("parallel")
    if not isinstance(given, Mapping):
        return Parallel()
    found = Parallel(
        strategy=given.get("strategy", "thread"),
        remote=_remote(given["remote"]) if given.get("remote", {}).get("hosts") else None,
        timeout=given.get("timeout"),
        retry=Retry(**given["retry"]) if "count" in given.get("retry", {}) else None,
    )
    node = root.value["settings"].value["parallel"]
    if found.strategy == REMOTE and "remote" not in node.value:
        hint = "write `remote: {hosts: [user@host, …]}` beside it"
        r.error(node.value["strategy"], "missing-key", "`strategy: remote` needs hosts", hint)
    return found


def _remote(given: Mapping[str, Any]) -> Remote:
    return Remote(
        hosts=given["hosts"],
        basefile=str(given.get("basefile", DEFAULT_BASEFILE)).removeprefix("./"),
        workdir=str(given.get("workdir", DEFAULT_WORKDIR)).rstrip("/"),
        cleanup=given.get("cleanup", True),
        method=given.get("method", "auto"),
    )


def has_flows(workflow: Workflow) -> bool:
    """Whether any task of a workflow runs as a flow."""
    tasks = (*workflow.tasks, *workflow.finally_)
    return any(task.type == "parallel" and workflow.parallel.is_remote(task) for task in tasks)


def digest_of(text: str | bytes) -> str:
    """What tells a workflow's text from every other one: the sha256 of its bytes."""
    return hashlib.sha256(
        text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    ).hexdigest()


def _says_where(root: Node) -> bool:
    """Whether `settings.parallel.remote` is written, be it right or wrong: what is wrong there has been noted."""
    node: Node | None = root
    for key in ("settings", "parallel", "remote"):
        node = node.value.get(key) if node is not None and node.kind == "map" else None
    return node is not None


def check(
    r: Reading, drafts: Sequence[Draft], found: Parallel, root: Node, secret: Mapping[Chain, str]
) -> None:
    """Note blocks of flows that have no hosts, and what needs the server in children that are flows. `secret` are the
    chains that are secret."""
    for block in drafts:
        if block.task.type != "parallel" or not found.is_remote(block.task):
            continue
        if found.remote is None and block.task.strategy == REMOTE and not _says_where(root):
            hint = "write `settings: {parallel: {remote: {hosts: [user@host, …]}}}` at the top"
            r.error(block.node.value["strategy"], "missing-key", "`strategy: remote` needs hosts", hint)
        for child in block.children:
            for need in needs(child.task, child.node, [block.node, root], secret):
                message = f"{need.message}, and it is to run as a flow on another machine"
                r.error(need.node, need.code, message, "put it before or behind the block")
