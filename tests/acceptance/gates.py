"""Workflows that are held in their middle until a file is there, to be looked at and acted on meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from running import Running
from waiting import wait_until

GATED = """\
ref: acceptance.gated
label: Held at a gate
description: Goes on when somebody opens it.
version: "2"
tags: [slow]
parameters:
  gate: {type: string, required: true}
  code: {type: integer, default: 0, description: How the middle ends.}
output: {type: object, properties: {seen: {type: string}}}
vars: {seen: nothing}
tasks:
  - name: first
    action: core.shell
    delegate_to: web-1
    input: {command: echo one}
    publish: [{seen: "{{ task.first.result.stdout }}"}]
    on_success: held
  - name: held
    action: core.shell
    delegate_to: web-2
    timeout: 120
    input:
      script: |
        echo $MUSTER_TASK >> {{ parameters.gate }}.ran
        until [ -e {{ parameters.gate }} ]; do sleep 0.02; done
        test -e {{ parameters.gate }}.mended || exit {{ parameters.code }}
    publish: [{seen: two}]
    on_success: last
    on_complete: noop
  - name: last
    action: core.shell
    delegate_to: web-3
    input: {command: 'echo $MUSTER_TASK >> {{ parameters.gate }}.ran'}
output_map: {seen: "{{ vars.seen }}"}
"""
_FINALLY = """\
finally:
  - name: tidy
    action: core.shell
    input: {command: 'echo $MUSTER_TASK >> {{ parameters.gate }}.ran'}
output_map:"""
TIDY = (
    GATED.replace("acceptance.gated", "acceptance.tidy")
    .replace("on_complete: noop", "on_complete: last")
    .replace("output_map:", _FINALLY)
)
CALLER = """\
ref: acceptance.caller
parameters: {gate: {type: string, required: true}}
tasks: [{name: call, type: workflow, action: acceptance.tidy, input: {gate: "{{ parameters.gate }}"}}]
"""


class Gates:
    """Workflows that are held in their middle by a file, each execution by its own."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.count = 0
        for text in (GATED, TIDY, CALLER):
            stored = running.post("/packs/acceptance/workflows", {"definition": text}, "author")
            assert stored.status == 201, stored.data

    def begin(self, ref: str = "acceptance.gated", **parameters: Any) -> tuple[str, Path]:
        """An execution that is held, and the file that lets it go on."""
        self.count += 1
        gate = self.running.effects / f"gate-{self.count}"
        given = {"gate": str(gate), **parameters}
        begun = self.running.post(f"/workflows/{ref}/execute", {"parameters": given})
        assert begun.status == 201, begun.data
        id = str(begun.data["id"])
        wait_until(lambda: self.ran(gate) and not self._reported(id), lambda: self.running.units(id))
        return id, gate

    def _reported(self, id: str) -> list[str]:
        """Statuses of units that their node has taken, and whose start control has not heard of."""
        rows = self.running.units(id)
        return [row["status"] for row in rows if row["status"] in ("dispatched", "accepted")]

    def ran(self, gate: Path) -> list[str]:
        """What ran of the tasks behind the gate, each time."""
        file = Path(f"{gate}.ran")
        return file.read_text().split() if file.exists() else []

    def ask(self, id: str, verb: str, role: str = "operator", **body: Any) -> Any:
        return self.running.post(f"/workflow-executions/{id}/{verb}", body, role)

    def open_all(self) -> None:
        """Nothing stays held."""
        for number in range(self.count):
            (self.running.effects / f"gate-{number + 1}").touch()

    def becomes(self, id: str, status: str) -> None:
        """Waits for a status, by which it is also found in the list."""
        running = self.running
        wait_until(lambda: running.execution(id)["status"] == status, lambda: running.execution(id))
        listed = running.get(f"/workflow-executions?status={status}&limit=200").data["items"]
        assert id in {one["id"] for one in listed}
