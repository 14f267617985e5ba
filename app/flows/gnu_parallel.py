"""Flows by GNU Parallel: one command for all of a block, which copies, runs, fetches and cleans up by itself.

Each flow is pinned to its host, by a hostgroup of its own. Before the command every host is asked, as `over_ssh` asks,
whether it is ready, and gets the directory of the block; what goes wrong there fails the flows of that host alone.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.flows import failures, far_side, hosts, openssh, outcome
from app.flows.model import ACTIONS, WORKFLOW, Executor, Flow, Result, Terms, Watch, failed
from app.flows.over_ssh import LATE
from app.flows.ready import NO_RSYNC, Readiness
from app.flows.seats import AT_ONCE, Access
from app.flows.state import NotJson, to_json

log = logging.getLogger(__name__)

PROGRAM = "parallel"
_LOOK = 0.2
_SSH_FAILED = 255
_PLAIN = re.compile(r"[A-Za-z0-9._/+-]*")
_LEASH = """
exec 3<&0
"$@" </dev/null 3<&- &
job=$!
(cat <&3; kill -TERM $job; sleep 1; kill -TERM $job) >/dev/null 2>&1 &
leash=$!
wait $job
status=$?
[ $status -le 128 ] || wait $job
kill $leash 2>/dev/null
exit $status
"""
"""GNU Parallel ends its jobs at the second TERM. This shell sends both when its stdin ends, with us at the latest."""


def is_there() -> bool:
    """Whether GNU Parallel can be used from here: it copies by rsync."""
    return shutil.which(PROGRAM) is not None and shutil.which("rsync") is not None


def can_name(wanted: Iterable[str], config: str) -> bool:
    """Whether its list of logins can hold these hosts: it takes colons and commas for its own."""
    return _PLAIN.fullmatch(config) is not None and not any(":" in hosts.read(host).name for host in wanted)


def command(flows: Sequence[Flow], terms: Terms, directory: str, *, config: str = "") -> list[str]:
    """The one command for these flows, which runs in the local directory that `lay_out` filled; `directory` is that of
    the block on every host.

    The tool and the workflow go to each host once, the input of a flow (`NAME/ENTRY.json`) to its own.
    """
    numbers = {host: number for number, host in enumerate(dict.fromkeys(flow.host for flow in flows))}
    logins = ",".join(f"@h{number}/{_login(host, config)}" for host, number in numbers.items())
    tool = terms.basefile.name
    words = [
        *(PROGRAM, "--plain", "--will-cite", "--hostgroups", "--sshlogin", logins),
        *("--jobs", str(AT_ONCE), "--workdir", directory),
        *("--basefile", tool, "--basefile", WORKFLOW),
        *([] if terms.actions is None else ["--basefile", ACTIONS]),
        *("--transferfile", "{}", "--return", "{.}.result.json"),
        *(["--cleanup"] if terms.cleanup else []),
        *([] if terms.timeout is None else ["--timeout", f"{terms.timeout:g}"]),
        *("--termseq", f"TERM,{terms.grace * 1000},KILL,100"),
        *("--joblog", "joblog", "--results", "said/{#}/"),
        _run(flows[0], terms),
    ]
    return [*words, ":::", *(f"{input_of(flow)}@h{numbers[flow.host]}" for flow in flows)]


def _login(host: str, config: str) -> str:
    where = hosts.read(host)
    port = ["-p", str(where.port)] if where.port else []
    return " ".join(["ssh", *openssh.options(config), *port, where.login])


def _run(flow: Flow, terms: Terms) -> str:
    """The command on a host, in the directory of the flow: `{/.}` is its entry point."""
    tool = terms.basefile.name
    start = f"python3 ../{tool}" if far_side.needs_python(tool) else f"../{tool}"
    exit_ = f" --exit-point {shlex.quote(flow.exit_point)}" if flow.exit_point else ""
    files = "--input {/} --output {/.}.result.json"
    files += "" if terms.actions is None else f" --actions ../{ACTIONS}"
    return f"cd {{//}} && exec {start} run ../{WORKFLOW} --entry-point {{/.}}{exit_} {files}"


def input_of(flow: Flow) -> str:
    """The path of a flow's input, here and there."""
    return f"{flow.name}/{flow.entry_point}.json"


def result_of(flow: Flow) -> str:
    """The path of what a flow comes to, here and there."""
    return f"{flow.name}/{flow.entry_point}.result.json"


@dataclass(frozen=True, slots=True)
class GnuParallel:
    """`config` is a file for `ssh -F`, `most` are the bytes that a result may have. Flows of a host without rsync go to
    `otherwise`; they fail where that is None."""

    access: Access
    most: int
    config: str = ""
    otherwise: Executor | None = None

    def execute(self, flows: Sequence[Flow], terms: Terms, watch: Watch) -> list[Result]:
        """As `model.Executor` says."""
        return _Block(self, list(flows), terms, watch).through()


class _Block:
    """The flows of one block on their way. `results` are by number."""

    def __init__(self, executor: GnuParallel, flows: list[Flow], terms: Terms, watch: Watch) -> None:
        self.executor = executor
        self.flows = flows
        self.terms = terms
        self.watch = watch
        self.results: dict[int, Result] = {}
        self.name = f"{flows[0].name}.parallel"

    def through(self) -> list[Result]:
        """The results in the order of the flows."""
        ready = Readiness(self.executor.access, self.terms, self.name)
        with tempfile.TemporaryDirectory(prefix="muster-flows-") as directory:
            here = Path(directory)
            fit = [flow for flow in self.flows if self._lay_out(here, flow)]
            used = {flow.host: None for flow in fit}
            refused = ready.make(used, sum(one.stat().st_size for one in here.rglob("*") if one.is_file()))
            try:
                self._without_rsync([flow for flow in fit if _lacks_rsync(refused.get(flow.host))])
                for flow in fit:
                    if flow.host in refused and flow.number not in self.results:
                        self._over(flow, refused[flow.host])
                fit = [flow for flow in fit if flow.number not in self.results]
                if fit:
                    self._run(here, fit)
            finally:
                if self.terms.cleanup:
                    ready.discard([host for host in used if _has_directory(refused.get(host))])
        return [self.results[flow.number] for flow in self.flows]

    def _over(self, flow: Flow, result: Result) -> None:
        self.results[flow.number] = result
        self.watch.tell(flow, result)

    def _lay_out(self, here: Path, flow: Flow) -> bool:
        """Write the input of a flow, before the first the tool and the workflow. False where its state is not JSON."""
        try:
            state = to_json(flow.entry_point, flow.state)
        except NotJson as problem:
            self._over(flow, failed("not_json", problem.message))
            return False
        if not (here / WORKFLOW).exists():
            for name, content, mode in self.terms.files():
                (here / name).write_bytes(content)
                (here / name).chmod(mode)
        (here / flow.name).mkdir()
        (here / input_of(flow)).write_bytes(state)
        return True

    def _without_rsync(self, flows: list[Flow]) -> None:
        otherwise = self.executor.otherwise
        if not flows or otherwise is None:
            return
        log.info("%s: no rsync there, so these flows go by SSH", ", ".join({flow.host for flow in flows}))
        results = otherwise.execute(flows, self.terms, self.watch)
        self.results.update({flow.number: result for flow, result in zip(flows, results, strict=True)})

    def _run(self, here: Path, flows: Sequence[Flow]) -> None:
        """Until it is over, or nobody wants any of its flows."""
        words = command(flows, self.terms, f"{self.terms.workdir}/{self.name}", config=self.executor.config)
        with (here / "parallel.log").open("wb") as note:
            process = subprocess.Popen(
                ["sh", "-c", _LEASH, "sh", "env", f"PARALLEL_HOME={here}", "PARALLEL_SHELL=/bin/sh", *words],
                cwd=here,
                stdin=subprocess.PIPE,
                stdout=note,
                stderr=note,
                start_new_session=True,
            )
        assert process.stdin is not None
        by_number = dict(enumerate(flows, 1))
        with process.stdin:
            while process.poll() is None and self._is_wanted(by_number.values()):
                self._tell(here, by_number)
                time.sleep(_LOOK)
        try:
            process.wait(self.terms.grace + LATE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._tell(here, by_number)
        for number, flow in by_number.items():
            self._over(flow, self._judged(here, flow, number, _SSH_FAILED))

    def _is_wanted(self, flows: Iterable[Flow]) -> bool:
        numbers = {flow.number for flow in flows}
        return not numbers or not numbers <= self.watch.given_up

    def _tell(self, here: Path, flows: dict[int, Flow]) -> None:
        """Those that GNU Parallel's own log says are over, which then leave `flows`; these are by their place in the
        command, counted from 1."""
        for number, status in _ended(here / "joblog"):
            flow = flows.pop(number, None)
            if flow is not None:
                self._over(flow, self._judged(here, flow, number, status))

    def _judged(self, here: Path, flow: Flow, number: int, status: int) -> Result:
        """By the exit code of the flow's command, negative where it was killed for its time."""
        said = _end_of(here / "said" / str(number) / "stderr")
        result = here / result_of(flow)
        if result.is_file():
            if result.stat().st_size > self.executor.most:
                return outcome.too_large(result.stat().st_size, self.executor.most)
            return outcome.of_files(flow, status, result.read_bytes(), said)
        if flow.number in self.watch.given_up:
            return outcome.given_up(flow)
        if status < 0:
            return outcome.timed_out(self.terms)
        if status == _SSH_FAILED and failures.is_of_connection(said):
            return failed("lost", f"the connection to {flow.host} was lost while the flow ran: {said[-300:]}")
        return outcome.of_files(flow, status, None, said or _end_of(here / "parallel.log"))


def _lacks_rsync(refused: Result | None) -> bool:
    return refused is not None and (refused.error or {}).get("type") == NO_RSYNC


def _has_directory(refused: Result | None) -> bool:
    return refused is None or _lacks_rsync(refused)


def _ended(joblog: Path) -> list[tuple[int, int]]:
    """The places and exit codes of what is over."""
    try:
        lines = joblog.read_text("utf-8", "replace").split("\n")[1:-1]
    except OSError:
        return []
    columns = [line.split("\t") for line in lines]
    return [(int(one[0]), int(one[6])) for one in columns if len(one) > 8 and one[0].isdigit()]


def _end_of(path: Path) -> str:
    """The last 8 kB of a file, "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
