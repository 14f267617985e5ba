"""The messages between control and nodes, as frozen values with a JSON form: one door in, one door out.

Every message is bounded and checked at its door: `from_json` raises `BadMessage` and never anything else. What a
message claims is believed only after `app.transport.sealing` has verified who signed it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.errors import InvalidInput
from app.transport import deploy
from app.transport.deploy import BadPlan, Command, Deployment, File
from app.transport.workspace import BadWorkspace, Workspace

ORDER_VERSION = 2
READABLE_VERSIONS = (1, ORDER_VERSION)
"""What a node finds in its own journal after an upgrade. Out of its queue it takes nothing but `ORDER_VERSION`."""
OUTCOME_VERSION = 1

SHARED = "shared"
"""What a node's heartbeat says under `orders` among its versions where it takes orders with several jobs."""

_OF_VERSION_1 = ("argv", "script", "shell", "timeout")
"""What an order of version 1 said of a job in place of its files and commands."""

NODE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
JOB_ID = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.-]{1,200}")

ENDED = frozenset({"succeeded", "failed", "timed_out", "cancelled", "unknown"})
"""What an outcome may say of its job. `refused` travels as `failed` with `error.type=refused`."""


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class BadMessage(InvalidInput):
    """A message that does not have the form it must have."""

    code = "bad-message"


def canonical(value: Any) -> bytes:
    """The one byte form of a JSON value, for digests."""
    return _CANONICAL.encode(value).encode()


class _Measured:
    """Room for what was found out about an unchanging value: no field of it."""

    __slots__ = ("_measured",)

    _measured: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Job(_Measured):
    """What a node is to run: one task x unit x attempt.

    `files` and `commands` are its deploy plan (`app.transport.deploy`): a script, or a program with its arguments.
    `input` is the JSON value that the process finds in the file named by MUSTER_INPUT. Seconds for `grace`; bytes for
    `output_limit`, per stream. `action` and `trace_id` (32 hexadecimal digits, or "") are for reading only. `workspace`
    says which files the job finds and leaves; None: none.
    """

    id: str
    execution: str
    task: str
    unit: int
    attempt: int
    action: str
    files: tuple[File, ...]
    commands: tuple[Command, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    stdin: str | None = None
    input: Any = None
    grace: float = 10.0
    output_limit: int = 1_048_576
    ok_codes: tuple[int, ...] = (0,)
    trace_id: str = ""
    workspace: Workspace | None = None

    def to_json(self) -> dict[str, Any]:
        own = {**shallow(self), **Deployment(self.files, self.commands).to_json()}
        # Left out where there is none: jobs that were journalled before there were workspaces keep their digest.
        if self.workspace is None:
            del own["workspace"]
        else:
            own["workspace"] = self.workspace.to_json()
        return own

    @property
    def script(self) -> str | None:
        """The text of the script; None where a program is run."""
        return self.files[0].content if self.files else None

    @property
    def shell(self) -> str:
        """By which shell the script is run; empty where a program is run."""
        return self.commands[0].argv[0] if self.files else ""

    @property
    def argv(self) -> tuple[str, ...] | None:
        """The program and its arguments; None where a script is run."""
        return None if self.files else self.commands[0].argv

    @property
    def timeout(self) -> float | None:
        """Seconds that it may run; None: no limit."""
        return self.commands[0].timeout

    @property
    def digest(self) -> str:
        """sha256 over all that is to be run: a known id with another digest is refused by a node."""
        return self._measure()[0]

    @property
    def size(self) -> int:
        """Bytes of the job as canonical JSON."""
        return self._measure()[1]

    def _measure(self) -> tuple[str, int]:
        # Asked for several times on each side, and each time as dear as a signature's payload.
        try:
            return self._measured
        except AttributeError:
            body = canonical(self.to_json())
            found = hashlib.sha256(body).hexdigest(), len(body)
            object.__setattr__(self, "_measured", found)
            return found

    @classmethod
    def from_json(cls, data: Any) -> Job:
        fields = fields_of(data, cls)
        try:
            plan = deploy.read(fields["files"], fields["commands"])
            codes = tuple(fields.get("ok_codes", (0,)))
            files = fields.get("workspace")
            workspace = None if files is None else Workspace.from_json(files)
            job = cls(**{**fields, **plan._asdict(), "ok_codes": codes, "workspace": workspace})
        except BadWorkspace as wrong:
            raise BadMessage(f"a job's workspace: {wrong}") from None
        except (TypeError, KeyError) as error:
            raise BadMessage(f"a job lacks a field: {error}") from None
        except BadPlan as wrong:
            raise BadMessage(f"a job's deploy plan: {wrong}") from None
        if not isinstance(job.id, str) or not JOB_ID.fullmatch(job.id):
            raise BadMessage("a job's id must be letters, digits, `_`, `.` and `-`, 200 at the most")
        if not isinstance(job.env, dict):
            raise BadMessage(f"job {job.id}: env must be a map")
        texts = [*job.env.keys(), *job.env.values()]
        if not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise BadMessage(f"job {job.id}: env must be texts without NUL")
        _check_measurable(job)
        return job

    @classmethod
    def from_version_1(cls, data: Any) -> Job:
        """A job as orders of version 1 have it: the same job, which keeps the digest that it was journalled under."""
        if not isinstance(data, dict):
            raise BadMessage("Job must be a JSON object")
        rest = {name: value for name, value in data.items() if name not in _OF_VERSION_1}
        argv, script, shell, timeout = (data.get(name) for name in _OF_VERSION_1)
        if isinstance(argv, list) and script is None:
            plan = deploy.of_command(argv, timeout)
        elif isinstance(script, str) and argv is None:
            plan = deploy.of_script(str(shell), script, timeout)
        else:
            raise BadMessage("a job of version 1 must have exactly one of argv, a list, and script, a text")
        job = cls.from_json({**rest, **plan.to_json()})
        try:
            body = canonical(data)
        except (ValueError, RecursionError) as error:
            raise BadMessage(f"job {job.id} has no canonical form: {error}") from None
        object.__setattr__(job, "_measured", (hashlib.sha256(body).hexdigest(), len(body)))
        return job


@dataclass(frozen=True, slots=True)
class Order:
    """A signed and sealed message to one node, about jobs.

    `kind` is `run` (jobs, all `at_once`, or each as soon as the one before it has succeeded), `cancel`, `hold`
    (begin no job behind these in their orders), `ask` (report on these job ids) or `spool` (send kept output again).
    `jobs` holds Job values for `run`, `job_ids` names them for the other kinds. `secrets` are the values of the
    marks in the jobs, by reference (`app.marks`): no digest is over them. `files` tells where the files of
    a workspace are had and by which right: {url, token}; no digest is over it either. Times are Unix seconds.
    """

    id: str
    installation: str
    node: str
    epoch: str
    kind: str
    issued_at: float
    expires_at: float
    jobs: tuple[Job, ...] = ()
    job_ids: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] | None = field(default=None, repr=False)
    at_once: bool = False
    order_version: int = ORDER_VERSION

    def to_json(self) -> dict[str, Any]:
        jobs = [job.to_json() for job in self.jobs]
        own = {**shallow(self), "jobs": jobs, "digests": [job.digest for job in self.jobs]}
        if self.files is None:
            del own["files"]
        if not self.at_once:
            del own["at_once"]
        return own

    @classmethod
    def from_json(cls, data: Any) -> Order:
        data = dict(data) if isinstance(data, dict) else data
        version = data.get("order_version", ORDER_VERSION) if isinstance(data, dict) else None
        read = Job.from_version_1 if version == 1 else Job.from_json
        digests = data.pop("digests", None) if isinstance(data, dict) else None
        fields = fields_of(data, cls)
        try:
            order = cls(
                **{
                    **fields,
                    "jobs": tuple(read(job) for job in fields.get("jobs", ())),
                    "job_ids": tuple(fields.get("job_ids", ())),
                }
            )
        except TypeError as error:
            raise BadMessage(f"an order lacks a field: {error}") from None
        if order.order_version not in READABLE_VERSIONS:
            raise BadMessage(f"order_version {order.order_version} is not known here")
        if order.kind not in ("run", "cancel", "hold", "ask", "spool"):
            raise BadMessage(f"an order of kind {order.kind!r} is not known")
        if (order.kind == "run") != bool(order.jobs) or len(order.jobs) > 64 or len(order.job_ids) > 1000:
            raise BadMessage("an order to run carries 1 to 64 jobs, any other none and at most 1000 ids")
        if len({job.id for job in order.jobs}) != len(order.jobs):
            raise BadMessage("an order names a job twice")
        if digests != [job.digest for job in order.jobs]:
            raise BadMessage("an order's digests do not match its jobs")
        return order


@dataclass(frozen=True, slots=True)
class Stream:
    """What was kept of stdout or stderr.

    `bytes` counts all that was written; `kept` what was kept (head and tail); `sha256` is over the kept bytes with
    the cut mark, as `text()` in the spool gives them. `head` and `tail` are the first and last 8 kB of the kept
    bytes, base64; `tail` is empty where `head` holds everything.
    """

    bytes: int = 0
    kept: int = 0
    sha256: str = hashlib.sha256(b"").hexdigest()
    head: str = ""
    tail: str = ""
    truncated: bool = False

    def to_json(self) -> dict[str, Any]:
        return shallow(self)

    @classmethod
    def from_json(cls, data: Any) -> Stream:
        try:
            return cls(**fields_of(data, cls))
        except TypeError as error:
            raise BadMessage(f"a stream lacks a field: {error}") from None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a node answers for one job: signed by the node, sealed to control.

    `status` is one of `ENDED`; `error` is {type, message} where it did not succeed. `output` is the JSON object that
    the process wrote to MUSTER_OUTPUT, or None. `files` names two documents that the node has left with control, by
    their sha256 or "": `changes`, what the job did to its workspace, and `artifacts`, a manifest of what is to be kept.
    `then` is the job behind it in its order that the node has gone on with, `after` the one before it that it follows;
    "" for none. Times are Unix seconds by the node's clock.
    """

    job: str
    digest: str
    installation: str
    node: str
    epoch: str
    status: str
    exit_code: int | None = None
    signal: int | None = None
    error: Mapping[str, Any] | None = None
    started_at: float | None = None
    ended_at: float | None = None
    stdout: Stream = field(default_factory=Stream)
    stderr: Stream = field(default_factory=Stream)
    output: Mapping[str, Any] | None = None
    files: Mapping[str, str] | None = None
    after: str = ""
    then: str = ""
    outcome_version: int = OUTCOME_VERSION

    def to_json(self) -> dict[str, Any]:
        own = {**shallow(self), "stdout": self.stdout.to_json(), "stderr": self.stderr.to_json()}
        if self.files is None:
            del own["files"]
        for name in ("after", "then"):
            if not own[name]:
                del own[name]
        return own

    @classmethod
    def from_json(cls, data: Any) -> Outcome:
        fields = fields_of(data, cls)
        try:
            outcome = cls(
                **{
                    **fields,
                    "stdout": Stream.from_json(fields.get("stdout", {})),
                    "stderr": Stream.from_json(fields.get("stderr", {})),
                }
            )
        except TypeError as error:
            raise BadMessage(f"an outcome lacks a field: {error}") from None
        if outcome.outcome_version != OUTCOME_VERSION:
            raise BadMessage(f"outcome_version {outcome.outcome_version} is not known here")
        if not isinstance(outcome.status, str) or outcome.status not in ENDED:
            raise BadMessage(f"an outcome may not say {outcome.status!r}")
        return outcome


def shallow(message: Any) -> dict[str, Any]:
    """The fields as they are: `dataclasses.asdict` copies every value, and costs more than signing."""
    return {name: getattr(message, name) for name in message.__slots__}


def _check_measurable(job: Job) -> None:
    """That there can be a digest: JSON may hold halves of characters, which no text is made of."""
    try:
        job._measure()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadMessage(f"job {job.id} has no canonical form: {error}") from None


def fields_of(data: Any, cls: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise BadMessage(f"{cls.__name__} must be a JSON object")
    known = cls.__dataclass_fields__.keys()
    if not data.keys() <= known:
        raise BadMessage(f"{cls.__name__} does not know the field {min(data.keys() - known)!r}")
    return data
