"""Flows without processes: an exchange, a real sshd, and a tool that does as it is told.

with opened(tmp_path) as yard:
    execution = yard.submit(a={"sleep": 60})  # a block of a, b and c, each told something else
    yard.exchange.make()
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from desk import jobs
from exchange import Exchange
from odd_server import odd_server
from site_of_flows import Site
from sqlalchemy import select
from sshd import Sshd
from waiting import wait_until

from app.services import calling

WORKFLOW = """
parameters:
  pids: {type: string, required: true}
  only: {type: object, default: {}}
  token: {type: secret}
vars: {first: 1}
settings:
  parallel:
    strategy: remote
    SETTINGS
    remote: {hosts: [HOSTS], workdir: WORKDIR, basefile: ./tool.pyz, method: ssh}
tasks:
  - {name: before, action: core.noop, on_success: many, publish: {said: "before"}}
  - {name: beside, action: core.noop, delay: 50, publish: {late: true}}
  - name: many
    type: parallel
    on_success: after
    tasks:
      - {name: a, action: core.shell, input: {command: "echo {{ vars.said }}"}}
      - {name: b, action: core.shell, input: {command: "false"}, when: "{{ false }}", OPTIONS}
      - {name: c, action: core.shell, input: {command: "true"}, with_items: [1, 2]}
  - {name: after, action: core.noop}
output_map: {many: "{{ task.many.result }}"}
"""


class Yard:
    """An exchange whose flows go to a site."""

    def __init__(self, directory: Path, site: Site, exchange: Exchange) -> None:
        self.site, self.exchange = site, exchange
        office = exchange.office
        settings = replace(
            office.control.settings, flow_basefiles=str(site.tools), flow_ssh_config=str(site.config)
        )
        office.control = replace(office.control, settings=settings)
        exchange.caller = exchange.life()

    def text(self, settings: str = "", options: str = "") -> str:
        hosts = ", ".join(self.site.hosts)
        found = WORKFLOW.replace("SETTINGS", settings).replace(", OPTIONS", options and f", {options}")
        return found.replace("HOSTS", hosts).replace("WORKDIR", str(self.site.workdir))

    def submit(self, settings: str = "", options: str = "", **only: Any) -> str:
        return self.exchange.submit(self.text(settings, options), pids=str(self.site.pids), only=only)

    def jobs(self, execution: str) -> dict[str, Any]:
        """The flows' jobs by task and attempt."""
        with self.exchange.office.store.read() as connection:
            found = connection.execute(select(jobs).where(jobs.c.execution == execution, jobs.c.node == "io"))
            return {f"{row.task}{row.attempt}": row for row in found}


@contextmanager
def opened(directory: Path) -> Iterator[Yard]:
    """A yard with two hosts."""
    with Sshd(directory, addresses=("127.0.0.2", "127.0.0.3")) as sshd, odd_server() as server:
        exchange = Exchange(directory, server)
        yield Yard(directory, Site(directory, sshd), exchange)
        exchange.office.store.close()


def carried(yard: Yard) -> threading.Thread:
    """Flows on their way, with another thread at them."""
    rung, yard.exchange.rung[:] = yard.exchange.rung[:], []
    thread = threading.Thread(target=calling.look, args=(yard.exchange.caller, rung[0]))
    thread.start()
    wait_until(yard.site.running)
    return thread


def real_tool(yard: Yard) -> None:
    """The tool `here`, which is this Muster."""
    tool = yard.site.tools / "here"
    tool.write_text(
        f'#!/bin/sh\nPYTHONPATH={Path(__file__).parents[2]} exec {sys.executable} -m app.cli.main "$@"\n'
    )
