"""`muster pack` against folders as they lie on a disk, and against the real API."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import migrated
import pytest
from werkzeug.serving import make_server

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))

import api_world
from api_world import World

from app.cli import folder
from app.cli.main import main

SHIPPED = Path(__file__).parents[2] / "config" / "packs"


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """A copy of the shipped packs."""
    shutil.copytree(SHIPPED, tmp_path / "packs")
    return tmp_path / "packs"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The API over HTTP; the environment points at it, as an author."""
    url = migrated.sqlite(tmp_path / "muster.db")
    made = api_world.build(url, tmp_path)
    server = make_server("127.0.0.1", 0, made.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("MUSTER_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MUSTER_TOKEN", made.tokens["author"])
    yield made
    server.shutdown()
    thread.join()
    server.server_close()
    made.control.store.close()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_folder_of_packs_is_registered_in_the_right_order(
    world: World, packs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", "register", str(packs)]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out.splitlines()
    names = [line.split()[1] for line in out]
    assert sorted(names) == ["docker", "http", "kubernetes", "my_pack", "slack"]
    assert names[-1] == "my_pack", "it uses all others"
    assert out[-1].startswith("registered: my_pack revision 1 (new or changed: ")
    assert main(["pack", "register", str(packs / "slack")]) == 0
    assert capsys.readouterr().out == "registered: slack revision 1 (nothing changed)\n"
    assert main(["pack", "list"]) == 0
    assert "kubernetes" in capsys.readouterr().out
    assert main(["pack", "show", "my_pack"]) == 0
    shown = capsys.readouterr().out
    assert "my_pack.cleanup_resources" in shown
    assert "my_pack.deploy_application" in shown
    for path in ("config.yaml", "actions/cleanup_resources.py"):
        assert main(["pack", "show", "my_pack", "--file", path]) == 0
        assert capsys.readouterr().out == (SHIPPED / "my_pack" / path).read_text()
    assert main(["pack", "show", "my_pack", "--file", "../pack.yaml"]) == 4
    capsys.readouterr()
    assert main(["pack", "delete", "slack"]) == 0
    assert capsys.readouterr().out == "deleted: slack\n"
    assert main(["pack", "show", "slack"]) == 4


def test_what_the_server_refuses_is_told_of_the_files_here(
    world: World, packs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", "register", str(packs / "my_pack")]) == 2
    err = capsys.readouterr().err
    path = packs / "my_pack" / "workflows" / "deploy_application.yaml"
    line = next(
        n for n, text in enumerate(path.read_text().splitlines(), 1) if "docker.build_and_push" in text
    )
    assert f"{path}:{line}:13: error: there is no action and no workflow `docker.build_and_push`" in err
    assert "    action: docker.build_and_push\n" in err.replace("        ", "    ")
    assert "hint: register the pack docker with it, or store the workflow" in err
    assert main(["pack", "register", str(packs / "core")]) == 2
    assert "built in" in capsys.readouterr().err


def test_the_configuration_is_changed_key_by_key(
    world: World, packs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        packs / "slack" / "config.yaml",
        "a: {default: x}\nb: {type: integer}\nc: {type: array}\nd: {secret: true}\n",
    )
    assert main(["pack", "register", str(packs / "slack")]) == 0
    assert main(["pack", "config", "slack", "a=yes", "b=7", "c=[1, 2]", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert found["config"] == {"a": "yes", "b": 7, "c": [1, 2]}
    (tmp_path / "values.json").write_text('{"b": 8}')
    words = ["pack", "config", "slack", "--unset", "a", "--file", str(tmp_path / "values.json")]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"] == {"b": 8, "c": [1, 2]}
    assert main(["pack", "config", "slack", "d=hunter2"]) == 2
    told = capsys.readouterr().err
    assert "it holds the name of a secret" in told
    assert "hunter2" not in told
    (tmp_path / "value").write_text("hunter2")
    assert main(["secret", "set", "slack/d", "--file", str(tmp_path / "value")]) == 0
    assert main(["pack", "config", "slack", "d=slack/d"]) == 0
    assert "slack/d" in capsys.readouterr().out
    assert main(["pack", "config", "slack", "e=1"]) == 2
    assert "there is no key `e`" in capsys.readouterr().err
    assert main(["pack", "config", "slack", "e"]) == 2


def test_check_tells_every_problem_and_runs_the_tests(
    packs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", "check", str(packs / "slack"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["packs"][0]["ref"], len(told["tests"]["files"])) == (True, "slack", 1)
    assert main(["pack", "check", str(packs / "slack"), "--no-tests"]) == 0
    assert "tests" not in capsys.readouterr().out.replace(str(packs), "")
    write(packs / "slack" / "actions" / "spare.sh", "true\n")
    for words, code in (([], 0), (["--strict"], 2)):
        assert main(["pack", "check", str(packs / "slack"), "--no-tests", *words]) == code
        assert "[unused-file]" in capsys.readouterr().out
    suite = packs / "slack" / "tests" / "post_message.yaml"
    suite.write_text(suite.read_text().replace("status: completed", "status: failed"))
    assert main(["pack", "check", str(packs / "slack")]) == 1
    capsys.readouterr()
    write(packs / "slack" / "actions" / "post_message.yaml", "runner: fish\n")
    write(packs / "slack" / "pack.yaml", "ref: slack\nlabel: [x]\n")
    assert main(["pack", "check", str(packs / "slack")]) == 2
    out = capsys.readouterr().out
    assert f"{packs}/slack/actions/post_message.yaml:1:9: error:" in out
    assert f"{packs}/slack/pack.yaml:2:8: error:" in out
    assert main(["pack", "check", str(packs.parent / "nothing")]) == 2


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda at: at.symlink_to("/etc/passwd"), "is a symbolic link"),
        (lambda at: at.symlink_to("get.py"), "is a symbolic link"),
        (lambda at: at.symlink_to("/etc", target_is_directory=True), "is a symbolic link"),
        (os.mkfifo, "is no regular file"),
        (lambda at: at.write_bytes(b"\xff\xfe"), "is no text"),
        (lambda at: at.write_bytes(b"x" * 200_000), "has more than 131072 bytes"),
    ],
    ids=["link", "link-inside", "link-to-folder", "pipe", "bytes", "large"],
)
def test_what_is_no_file_of_a_pack_is_refused_by_name(
    packs: Path, capsys: pytest.CaptureFixture[str], make: object, told: str
) -> None:
    assert callable(make)
    make(packs / "http" / "actions" / "odd.sh")
    assert main(["pack", "check", str(packs / "http")]) == 2
    out = capsys.readouterr().out
    assert f"{packs}/http/actions/odd.sh:1:1: error:" in out
    assert told in out


def test_what_is_left_out_and_what_is_too_much(packs: Path) -> None:
    for name in (".git/config", "__pycache__/get.pyc", "actions/.get.py.swp"):
        write(packs / "http" / name, "x")
    files, problems = folder.read(packs / "http")
    assert problems == []
    assert not [path for path in files if path.startswith((".", "__")) or "/." in path]
    write(packs / "http" / "rules/a/b/c/d/e/f/g.yaml", "x")
    files, _ = folder.read(packs / "http")
    assert max(path.count("/") for path in files) == 6, "one too deep, as the reader will say"
    for number in range(400):
        write(packs / "http" / "rules" / f"{number}.yaml", "x")
    assert len(folder.read(packs / "http")[0]) == 301


def test_offline_verbs_know_the_packs_that_they_are_told_of(
    packs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy = str(packs / "my_pack" / "workflows" / "deploy_application.yaml")
    for verb in ("validate", "compile", "graph"):
        assert main([verb, deploy]) == 0, "a file of a pack knows those beside it"
    complete = SHIPPED.parents[1] / "docs" / "examples" / "complete-workflow.yaml"
    assert main(["compile", str(complete), "--packs", str(packs)]) == 0
    out = capsys.readouterr().out
    assert "engine  choose  core.inquiry\n" in out
    assert "engine  only_in_production  core.noop\n" in out
    alone = tmp_path / "alone" / "x.yaml"
    write(alone, "ref: my_pack.x\ntasks: [{name: a, action: http.get, input: {ur: x}}]\n")
    assert main(["validate", str(alone)]) == 0
    assert "[unchecked-action]" in capsys.readouterr().out
    for verb in ("validate", "compile"):
        assert main([verb, str(alone), "--packs", str(packs)]) == 2
        told = capsys.readouterr()
        assert "the input of http.get has no key `ur`" in told.out + told.err
    write(alone, "ref: my_pack.x\ntasks: [{name: a, action: http.gte, input: {url: x}}]\n")
    assert main(["validate", str(alone), "--packs", str(packs / "http")]) == 2
    assert "did you mean `http.get`?" in capsys.readouterr().out
    assert main(["validate", str(alone), "--packs", str(tmp_path / "alone")]) == 2
    assert "there is no pack.yaml in it" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["workflow", "pack", "config", "action"])
def test_schemas_are_printed(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--of", what]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"].endswith("2020-12/schema")
