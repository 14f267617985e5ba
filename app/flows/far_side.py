"""What is asked of a flow's host: commands for its shell, and what their answers mean.

Two scripts for any POSIX shell do all of it: `prepare.sh` makes the flow's directory and takes its files as one tar,
`run.sh` runs the tool there. Their arguments hold names and numbers; the state travels as a file.
"""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.flows.model import ACTIONS, INPUT, OUTPUT, WORKFLOW, Flow, Result, Terms, failed

ROOM = 4
"""How often what is copied must fit into what is free on the host, for what the flow itself writes."""

_HERE = Path(__file__).parent
_ANSWER = re.compile(
    rb"^muster-flow (\d{1,3}) (over|timeout|given_up) (\d{1,9}) (\d{1,15}) (\d{1,15})\n", re.M
)
_CLEANED = b"\nmuster-flow-cleaned\n"
_REFUSED = {81: "preflight", 82: "preflight", 83: "preflight", 84: "copy"}


def needs_python(basefile: str) -> bool:
    """Whether the tool is a zipapp, which python3 runs; any other is run by itself."""
    return basefile.endswith(".pyz")


def command_of(flow: Flow, terms: Terms) -> list[str]:
    """The words that run a flow in its directory."""
    tool = terms.basefile.name
    start = ["python3", tool] if needs_python(tool) else [f"./{tool}"]
    ends = ["--exit-point", flow.exit_point] if flow.exit_point else []
    files = ["--input", INPUT, "--output", OUTPUT]
    more = [] if terms.actions is None else ["--actions", ACTIONS]
    return [*start, "run", WORKFLOW, "--entry-point", flow.entry_point, *ends, *files, *more]


def prepare(workdir: str, name: str, kilobytes: int, *, python: bool) -> str:
    """The command that makes a directory and takes files into it."""
    return _call("prepare.sh", [workdir, name, str(kilobytes), str(int(python))])


def run(flow: Flow, terms: Terms, most: int) -> str:
    """The command that runs a flow whose directory is prepared; `most` are the bytes that its result may have."""
    seconds = 0 if terms.timeout is None else terms.timeout
    directory = f"{terms.workdir}/{flow.name}"
    words = [directory, f"{seconds:g}", str(terms.grace), str(int(terms.cleanup)), str(most)]
    return _call("run.sh", [*words, *command_of(flow, terms)])


def discard(workdir: str, name: str) -> str:
    """The command that removes a flow's own directory."""
    return _call("discard.sh", [f"{workdir}/{name}"])


def _call(script: str, words: Sequence[str]) -> str:
    return shlex.join(["sh", "-c", _text(script), script, *words])


@cache
def _text(script: str) -> str:
    lines = (_HERE / script).read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#"))


def bundle(files: Sequence[tuple[str, bytes, int]]) -> bytes:
    """Files (name, content, mode) as one tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content, mode in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def kilobytes(size: int) -> int:
    """What must be free for so many bytes to be copied."""
    return size * ROOM // 1024 + 1


def not_prepared(host: str, status: int, said: bytes) -> Result:
    """Why a host was not ready, by how `prepare` ended."""
    words = said.decode("utf-8", "replace").strip()[-500:]
    kind = _REFUSED.get(status)
    if kind is None:
        return failed(
            "copy", f"the flow could not be prepared on {host} (exit code {status}): {words}", passing=True
        )
    return failed(
        kind, f"{host}: {words.splitlines()[-1] if words else 'it is not ready'}", passing=kind == "copy"
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """How `run` ended: the exit code of the tool, why (over, timeout, given_up), what it said on stderr, its result,
    None where there is none. `size` is what the result had; `cleaned`: its directory is gone."""

    status: int
    why: str
    said: str
    result: bytes | None
    size: int
    cleaned: bool


def answer_of(written: bytes) -> Answer | None:
    """What `run` wrote, whatever the host's shell wrote before it. None where it did not come to its end."""
    found = _ANSWER.search(written)
    if found is None:
        return None
    status, why, said, size, sent = found.groups()
    body = written[found.end() :]
    if len(body) < int(said) + int(sent):
        return None
    result = body[int(said) : int(said) + int(sent)]
    return Answer(
        status=int(status),
        why=why.decode(),
        said=body[: int(said)].decode("utf-8", "replace").strip(),
        result=result if int(sent) else None,
        size=int(size),
        cleaned=body.endswith(_CLEANED),
    )
