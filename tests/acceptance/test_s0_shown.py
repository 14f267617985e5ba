"""Seed 000 as people see it: on the command line, in the guide, in Flower."""

from __future__ import annotations

import base64
import json
import urllib.request

import pytest
from guide import Example, examples, gist, sessions, settled
from running import GUIDE, REMOTE_SHELL, WEB, Running
from waiting import wait_until

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]


def test_S0_03_the_command_line_keeps_them_apart_too(running: Running) -> None:
    done = running.muster("exec", "web-2", "--shell", "sh", "--", "echo out; echo err >&2", role="operator")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


@pytest.mark.parametrize("session", sessions(REMOTE_SHELL), ids=lambda session: " ".join(session[0])[:40])
def test_S0_03_the_guide_to_the_remote_shell_shows_what_comes(
    running: Running, session: tuple[list[str], list[str]]
) -> None:
    words, lines = session
    done = running.muster(*words, role="operator")
    assert settled((done.stdout + done.stderr).splitlines()) == settled(lines)


@pytest.fixture(scope="module")
def labelled(running: Running) -> Running:
    """The guide chooses a node by its label, and runs the third version of a saved script."""
    running.enrol("web-4", label="role=web")
    declared = [{"name": "target", "type": "string"}]
    for number in (1, 2, 3):
        body = f'echo "{number}: $target"\n'
        script = {"name": "deploy", "shell": "sh", "body": body, "parameters": declared}
        assert running.post("/automation/scripts", script, "author").status in (200, 201)
    return running


@pytest.mark.parametrize("example", examples(GUIDE), ids=lambda example: example.ref)
def test_S0_11_the_workflows_of_the_guide_do_what_it_shows(labelled: Running, example: Example) -> None:
    file = labelled.directory / f"{example.ref}.yaml"
    file.write_text(example.source)
    done = labelled.muster("run", str(file))
    assert (done.returncode, "status=completed" in done.stdout) == (0, True), done.stdout + done.stderr
    if example.shown:
        assert gist(done.stdout) == gist(example.shown)


def test_S0_13_flower_shows_the_nodes_and_whose_password_it_wants(running: Running) -> None:
    auth = (running.data / "flower.auth").read_text().strip()
    header = {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"}
    request = urllib.request.Request(f"{running.flower}/api/workers?status=1", headers=header)

    def seen() -> set[str]:
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = json.load(answer)
        return {name.partition("@")[0] for name, is_online in found.items() if is_online}

    wait_until(lambda: {f"node-{node}" for node in WEB} <= seen(), "three nodes")
