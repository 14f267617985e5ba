"""The executor of `strategy: remote`: by GNU Parallel where it is installed, else over SSH, as the workflow asks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import InvalidInput
from app.flows import by_asyncssh, gnu_parallel
from app.flows.breakers import Breakers
from app.flows.by_asyncssh import AsyncSsh
from app.flows.gnu_parallel import GnuParallel
from app.flows.lines import Connect
from app.flows.model import Executor, Flow, Result, Terms, Watch, failed
from app.flows.openssh import OpenSsh
from app.flows.over_ssh import OverSsh
from app.flows.seats import Access

log = logging.getLogger(__name__)

BACKENDS = ("", "asyncssh", "openssh")


def connect_by(backend: str, config: str = "") -> Connect:
    """What opens lines: `asyncssh`, `openssh`, or "" for the first of them that is installed. `config` is a file that
    is read instead of the user's own ssh_config. Raises InvalidInput."""
    if backend not in BACKENDS:
        raise InvalidInput(
            f"MUSTER_FLOW_SSH={backend!r:.60} is none of asyncssh and openssh",
            hint="unset it",
            code="bad-setting",
        )
    if backend == "openssh" or (not backend and not by_asyncssh.is_there()):
        return OpenSsh(config)
    if not by_asyncssh.is_there():
        hint = "install the extra `ssh`, or set MUSTER_FLOW_SSH=openssh"
        raise InvalidInput("the package asyncssh is not installed", hint=hint, code="bad-setting")
    return AsyncSsh(config)


@dataclass(frozen=True, slots=True)
class RemoteExecutor:
    """`method` is auto, parallel or ssh; `most` are the bytes that a result may have; `config` is a file for
    `ssh -F`."""

    method: str
    connect: Connect
    breakers: Breakers
    most: int
    config: str = ""

    def execute(self, flows: Sequence[Flow], terms: Terms, watch: Watch) -> list[Result]:
        """As `model.Executor` says. A tool that is not there fails every flow."""
        if not terms.basefile.is_file():
            return _all_failed(flows, watch, _no_tool(terms))
        if self.method == "parallel" and not gnu_parallel.is_there():
            message = "GNU Parallel (`parallel`) and `rsync` are not both on the PATH of the io worker"
            return _all_failed(
                flows, watch, failed("preflight", message, hint="install them, or write `method: auto`")
            )
        return self._chosen(flows).execute(flows, terms, watch)

    def _chosen(self, flows: Sequence[Flow]) -> Executor:
        access = Access(self.connect, self.breakers)
        ssh = OverSsh(access, self.most)
        if self.method == "ssh":
            log.info("%d flows go by SSH: the workflow says so", len(flows))
            return ssh
        if not gnu_parallel.is_there():
            log.info("%d flows go by SSH: `parallel` and `rsync` are not both on the PATH", len(flows))
            return ssh
        if self.method == "auto" and not gnu_parallel.can_name([flow.host for flow in flows], self.config):
            log.info("%d flows go by SSH: GNU Parallel cannot name their hosts", len(flows))
            return ssh
        why = "the workflow says so" if self.method == "parallel" else "`parallel` is on the PATH"
        log.info("%d flows go by GNU Parallel: %s", len(flows), why)
        return GnuParallel(access, self.most, self.config, ssh if self.method == "auto" else None)


def _no_tool(terms: Terms) -> Result:
    return failed(
        "no_basefile",
        f"the tool {terms.basefile.name} that flows take with them is not in {terms.basefile.parent}",
        hint="`make pyz` builds dist/muster.pyz; MUSTER_FLOW_BASEFILES names the directory that such tools are in",
    )


def _all_failed(flows: Sequence[Flow], watch: Watch, result: Result) -> list[Result]:
    for flow in flows:
        watch.tell(flow, result)
    return [result for _ in flows]
