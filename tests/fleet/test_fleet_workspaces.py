"""Files of an execution over a whole fleet: made on one node, changed on the other, read here, and brought back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from fleet_files import Files
from fleet_processes import BIN
from waiting import wait_until

pytestmark = pytest.mark.fleet

RELAY = """\
parameters: {gate: {type: string}, effects: {type: string}}
workspace: {mode: sync, exclude: ["**/*.tmp"]}
output_map: {seen: "{{ task.read.result.stdout }}"}
tasks:
  - name: make
    action: core.shell
    delegate_to: web-1
    input:
      script: |
        echo $MUSTER_JOB >> {{ parameters.effects }}
        cat given > out/made; echo from web-1 >> out/made; echo scrap > scrap.tmp; chmod 755 given
        head -c 9000000 /dev/urandom > large
    on_success: change
  - name: change
    action: core.shell
    delegate_to: web-2
    artifacts: "out/*"
    input:
      cwd: out
      script: |
        echo $MUSTER_JOB >> {{ parameters.effects }}
        while [ ! -e {{ parameters.gate }} ]; do sleep 0.05; done
        ls ..; echo from web-2 >> made; sha256sum < ../large > sum; rm ../old
    on_success: read
  - name: read
    action: core.shell
    input: {command: "cat out/made; sha256sum < large | cmp - out/sum && ls"}
"""


def start(files: Files, directory: Path, gate: Path) -> subprocess.Popen[str]:
    fleet = files.fleet
    file = fleet.directory / "relay.yaml"
    file.write_text(RELAY)
    words = ["run", str(file), "--workspace", str(directory), "--bring-back"]
    words += ["-p", f"gate={gate}", "-p", f"effects={fleet.effects}"]
    given = fleet.environment(MUSTER_URL=files.api.url, MUSTER_TOKEN=files.api.tokens["author"])
    return subprocess.Popen(
        [str(BIN / "muster"), *words], env=given, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.parametrize("killed", [False, True], ids=["whole", "killed"])
def test_files_go_from_node_to_node_and_back(files: Files, tmp_path: Path, killed: bool) -> None:
    """Also where the worker of a node is killed under its script."""
    fleet = files.fleet
    gate = fleet.directory / f"gate-{killed}"
    (tmp_path / "out").mkdir()
    (tmp_path / "given").write_text("given\n")
    (tmp_path / "old").write_text("old\n")
    (tmp_path / "mine.tmp").write_text("mine\n")
    before = len(fleet.effects.read_text().split())
    run = start(files, tmp_path, gate)
    try:
        ran = wait_until(lambda: (found := fleet.effects.read_text().split()[before:])[1:] and found)
        if killed:
            fleet.kill("web-2")
        gate.touch()
        said = run.communicate(timeout=120)[0]
    finally:
        run.kill()
    assert run.returncode == 0, said
    assert len(ran) == len(fleet.effects.read_text().split()) - before == 2
    made = "given\nfrom web-1\nfrom web-2\n"
    assert (tmp_path / "out" / "made").read_text() == made
    assert (tmp_path / "given").stat().st_mode & 0o777 == 0o755
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["given", "large", "mine.tmp", "out/made", "out/sum"]
    execution = ran[0].partition(".")[0]
    assert fleet.tasks(execution)["read"].result["stdout"] == f"{made}given\nlarge\nout"
    kept = files.api.get(f"/workflow-executions/{execution}/artifacts").data["items"]
    assert sorted(one["path"] for one in kept) == ["out/made", "out/sum"]
    files.wait_nothing_left()
