"""The owner of a node's scripts where they run on the machine itself: its runner."""

from __future__ import annotations

from pathlib import Path

from app.node.runner_client import RunnerClient
from app.node.scripts import Events, MakeScripts, Scripts
from app.settings import Settings


def local_scripts(settings: Settings, node: str) -> MakeScripts:
    """Makes the client of the runner in the node's directory."""

    def make(events: Events) -> Scripts:
        return RunnerClient(
            Path(settings.node_directory),
            node,
            may_start=settings.start_runner,
            on_started=events.started,
            on_output=events.output,
            on_exited=events.exited,
        )

    return make
