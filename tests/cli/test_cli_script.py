"""`muster script save`, `check`, `list`, `show`, `versions`, `diff`, `rollback` and `delete` against the real API."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import migrated
import pytest
import yaml
from speaking_server import Server
from werkzeug.serving import make_server

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))

import api_world
from api_world import World

from app.cli.main import main

CASES = Path(__file__).parent / "cases"
REFUSED = yaml.safe_load((CASES / "script_save.yaml").read_text("utf-8"))
WRONG = yaml.safe_load((CASES / "script_wrong.yaml").read_text("utf-8"))
SCRIPTS = "/api/v1/automation/scripts"
DEPLOY = """\
#!/bin/bash
# ---
# name: deploy
# description: Brings a release to a machine.
# tags: [web]
# timeout: 120
# parameters:
#   - {name: release, required: true, pattern: 'v[0-9]+', description: The release}
#   - {name: keep, type: integer, default: 3, min: 1, max: 10}
#   - {name: dry_run, type: boolean, default: false}
#   - {name: level, choices: [low, high], default: low}
# ---
set -eu
echo "${release} ${keep}"
"""
BODY = '#!/bin/bash\nset -eu\necho "${release} ${keep}"\n'
UNQUOTED = DEPLOY.replace('"${release} ', '${release}" ')
WARNED = "deploy.sh:14:6: warning: `$release` stands outside of quotes"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str]]:
    """The API over HTTP, and its URL."""
    directory = tmp_path_factory.mktemp("served")
    url = migrated.sqlite(directory / "muster.db")
    made = api_world.build(url, directory)
    server = make_server("127.0.0.1", 0, made.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    made.control.store.close()


@pytest.fixture
def world(served: tuple[World, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The API with no script in it; the environment points at it, as an author, in a directory with `deploy.sh`."""
    made, url = served
    monkeypatch.setenv("MUSTER_URL", url)
    monkeypatch.setenv("MUSTER_TOKEN", made.tokens["author"])
    monkeypatch.chdir(tmp_path)
    Path("deploy.sh").write_text(DEPLOY)
    yield made
    for one in made.get("/automation/scripts")["items"]:
        assert made.ask("DELETE", f"{SCRIPTS}/{one['id']}").status_code == 204


@pytest.fixture
def muster(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `muster script …`: its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["script", *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return give


def edit(old: str, new: str) -> None:
    text = Path("deploy.sh").read_text()
    assert old in text
    Path("deploy.sh").write_text(text.replace(old, new))


# save and check


def test_a_file_is_saved_and_its_header_is_no_part_of_it(world: World, muster: Any) -> None:
    assert muster("save", "deploy.sh") == (0, "created: deploy version 1\n", "")
    kept = world.get("/automation/scripts/deploy")
    assert (kept["body"], kept["shell"], kept["timeout"], kept["tags"]) == (BODY, "bash", 120, ["web"])
    assert [one["name"] for one in kept["parameters"]] == ["release", "keep", "dry_run", "level"]
    assert muster("save", "deploy.sh") == (0, "unchanged: deploy version 1\n", "")
    edit("echo", "printf %s")
    edit("max: 10", "max: 9")
    assert muster("save", "deploy.sh") == (0, "updated: deploy version 2 changed=body, parameters\n", "")
    edit("timeout: 120", "timeout: 60")
    assert muster("save", "deploy.sh")[1] == "updated: deploy version 2 changed=timeout\n"


def test_json_is_all_that_is_printed(world: World, muster: Any) -> None:
    Path("deploy.sh").write_text(UNQUOTED)
    code, out, err = muster("save", "deploy.sh", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["result"], found["name"], found["version"]) == ("created", "deploy", 1)
    (warning,) = found["warnings"]
    assert (warning["code"], warning["line"], warning["column"]) == ("lint-unquoted", 14, 6)


def test_warnings_go_to_stderr_with_their_places(world: World, muster: Any) -> None:
    Path("deploy.sh").write_text(UNQUOTED)
    code, out, err = muster("check", "deploy.sh")
    assert (code, out) == (0, "deploy.sh: 1 warning\n")
    assert err.startswith(WARNED), err
    assert err.splitlines()[1:3] == ['    echo ${release}" ${keep}"', "         ^"]
    assert world.get("/automation/scripts")["items"] == [], "nothing is saved"
    code, out, err = muster("save", "deploy.sh")
    assert (code, out) == (0, "created: deploy version 1\n")
    assert err.startswith(WARNED)
    assert muster("check", "deploy.sh", "--name", "other")[0] == 0


def test_what_is_right_has_no_warnings(world: World, muster: Any) -> None:
    assert muster("check", "deploy.sh") == (0, "deploy.sh: no warnings\n", "")


def test_a_name_that_is_typed_wins(world: World, muster: Any) -> None:
    assert muster("save", "deploy.sh", "--name", "other")[1] == "created: other version 1\n"
    assert [one["name"] for one in world.get("/automation/scripts")["items"]] == ["other"]


def test_standard_input(world: World, muster: Any, stdin: Any) -> None:
    stdin("#!/usr/bin/env bash\necho hi\n")
    assert muster("save", "-", "--name", "hi") == (0, "created: hi version 1\n", "")
    kept = world.get("/automation/scripts/hi")
    assert (kept["shell"], kept["body"]) == ("bash", "#!/usr/bin/env bash\necho hi\n")
    stdin("echo hi\n")
    code, _, err = muster("save", "-")
    assert (code, err.splitlines()[0]) == (2, "error: <stdin> does not say what the script is called")
    stdin("# ---\n# nam: hi\n# ---\n")
    code, _, err = muster("check", "-")
    assert (code, err.splitlines()[0]) == (2, "<stdin>:2:3: error: a script has no key `nam` [unknown-key]")


@pytest.mark.parametrize("verb", ["save", "check"])
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_a_file_that_is_refused(world: World, muster: Any, case: dict[str, Any], verb: str) -> None:
    before = world.counts()
    Path("FILE").write_bytes(case["file"].encode("latin-1") * case.get("times", 1))
    code, out, err = muster(verb, "FILE")
    assert (code, out) == (2, ""), err
    lines = err.splitlines()
    assert [line for line in case.get("told", ()) if line not in lines] == [], err
    assert [
        text for text in case.get("starts", ()) if not any(one.startswith(text) for one in lines)
    ] == [], err
    assert world.counts() == before


@pytest.mark.parametrize("case", [one for one in REFUSED if "sent" not in one], ids=lambda case: case["name"])
def test_what_is_seen_here_is_not_sent(server: Server, muster: Any, case: dict[str, Any]) -> None:
    Path("FILE").write_bytes(case["file"].encode("latin-1") * case.get("times", 1))
    assert muster("save", "FILE")[0] == 2
    assert server.seen == []


@pytest.mark.parametrize(("file", "told"), [("nowhere", "No such file"), (".", "Is a directory")])
def test_a_file_that_is_not_there(world: World, muster: Any, file: str, told: str) -> None:
    code, out, err = muster("save", file)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {file}: {told}")


def test_errors_as_json_have_pointer_and_place(world: World, muster: Any) -> None:
    edit("name: deploy", "name: BAD Name")
    code, out, err = muster("save", "deploy.sh", "--json")
    (error,) = json.loads(err)["error"]["errors"]
    assert (code, out) == (2, "")
    assert (error["pointer"], error["line"], error["column"]) == ("/name", 3, 3)


def test_only_the_version_that_was_seen_is_overwritten(world: World, muster: Any) -> None:
    assert muster("save", "deploy.sh", "--if-version", "1")[0] == 4
    assert muster("save", "deploy.sh", "--if-version", "0")[1] == "created: deploy version 1\n"
    edit("echo", "printf %s")
    assert muster("save", "deploy.sh", "--if-version", "1")[1] == "updated: deploy version 2 changed=body\n"
    edit("printf %s", "cat <<<")
    for number, message, hint in (
        (0, "there is a script deploy already", "`muster script versions deploy` lists what there is"),
        (1, "deploy is at version 2, not 1", "`muster script diff deploy 1 2` tells what changed"),
        (9, "deploy is at version 2, not 9", "`muster script versions deploy` lists what there is"),
    ):
        told = muster("save", "deploy.sh", "--if-version", str(number))
        assert told == (5, "", f"error: {message}\nhint: {hint}\n")
    assert world.get("/automation/scripts/deploy")["version"] == 2


def test_who_comes_between_wins(server: Server, muster: Any) -> None:
    """It was at the version as we looked, and another one was saved before ours came."""
    Path("deploy.sh").write_text(DEPLOY)
    server.routes["GET", f"{SCRIPTS}/deploy"] = lambda one: one.answer(
        200, {"name": "deploy", "version": 3}, {"ETag": '"seen"'}
    )
    problem = {"status": 412, "code": "precondition-failed", "detail": "it was changed since you read it"}
    server.says("POST", SCRIPTS, 412, problem)
    code, out, err = muster("save", "deploy.sh", "--if-version", "3")
    assert (code, out) == (5, "")
    assert err.startswith("error: deploy was changed while this was sent\nhint: ")
    assert server.seen[-1][3]["If-Match"] == '"seen"'


def test_only_authors_save(world: World, muster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_TOKEN", world.tokens["operator"])
    assert muster("save", "deploy.sh")[0] == 3
    assert muster("list")[0] == 0


# list, show, versions, diff


def test_list(world: World, muster: Any) -> None:
    muster("save", "deploy.sh")
    muster("save", "deploy.sh", "--name", "other")
    edit("[web]", "[db]")
    muster("save", "deploy.sh", "--name", "other")
    code, out, _ = muster("list")
    head, first, second = out.splitlines()
    assert code == 0
    assert head.split()[:5] == ["name", "shell", "version", "tags", "requires_approval"]
    assert first.split()[:6] == ["deploy", "bash", "1", "web", "no", "author"]
    assert second.split()[0] == "other"
    for option, names in (
        (["--tag", "web"], ["deploy"]),
        (["--prefix", "o"], ["other"]),
        (["--limit=1"], ["deploy"]),
    ):
        code, out, _ = muster("list", *option, "--json")
        assert (code, [one["name"] for one in json.loads(out)["items"]]) == (0, names)


def test_show(world: World, muster: Any) -> None:
    muster("save", "deploy.sh")
    edit("echo", "printf %s")
    muster("save", "deploy.sh")
    code, out, _ = muster("show", "deploy")
    facts, table, body = out.split("\n\n")
    told = dict(line.split(maxsplit=1) for line in facts.splitlines())
    assert code == 0
    assert [told[name] for name in ("name", "version", "timeout", "tags")] == ["deploy", "2", "120", "web"]
    assert [line.split(maxsplit=4) for line in table.splitlines()] == [
        ["name", "type", "required", "default", "limits           description"],
        ["release", "string", "yes", "-", "pattern v[0-9]+  The release"],
        ["keep", "integer", "no", "3", "min 1, max 10    -"],
        ["dry_run", "boolean", "no", "false", "-                -"],
        ["level", "string", "no", "low", "one of low high  -"],
    ]
    assert body == BODY.replace("echo", "printf %s")
    assert muster("show", "deploy", "--version", "1", "--source") == (0, BODY, "")
    assert json.loads(muster("show", "deploy", "--json")[1])["body"] == BODY.replace("echo", "printf %s")


def test_a_body_does_nothing_to_the_terminal(world: World, muster: Any) -> None:
    Path("evil.sh").write_text("#!/bin/sh\n# ---\n# name: evil\n# ---\necho '\x1b[2J'\n")
    assert muster("save", "evil.sh")[0] == 0
    for arguments in (["show", "evil"], ["show", "evil", "--source"]):
        _, out, _ = muster(*arguments)
        assert "echo '\\x1b[2J'" in out
        assert "\x1b" not in out


def test_versions(world: World, muster: Any) -> None:
    muster("save", "deploy.sh")
    edit("echo", "printf %s")
    muster("save", "deploy.sh")
    code, out, _ = muster("versions", "deploy")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert rows[0] == ["version", "shell", "characters", "author", "created_at", "digest"]
    assert [row[:4] for row in rows[1:]] == [
        ["2", "bash", str(len(BODY) + 5), "author"],
        ["1", "bash", str(len(BODY)), "author"],
    ]
    (one,) = json.loads(muster("versions", "deploy", "--limit", "1", "--json")[1])["items"]
    assert one["version"] == 2


def test_diff(world: World, muster: Any) -> None:
    muster("save", "deploy.sh")
    edit("echo", "printf %s")
    muster("save", "deploy.sh")
    edit("max: 10", "max: 9")
    edit("#!/bin/bash", "#!/bin/sh")
    muster("save", "deploy.sh")
    code, out, err = muster("diff", "deploy", "1", "2")
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["--- deploy version 1", "+++ deploy version 2"]
    assert [line for line in out.splitlines()[2:] if line[0] in "-+"] == [
        '-echo "${release} ${keep}"',
        '+printf %s "${release} ${keep}"',
    ]
    _, out, _ = muster("diff", "deploy", "2")
    kept = '"name": "keep", "type": "integer", "required": false, "default": 3, "min": 1, "max"'
    lines = out.splitlines()
    assert 'shell: "bash" -> "sh"' in lines
    place = lines.index("parameters:")
    assert lines[place + 1 : place + 3] == [f"- {{{kept}: 10}}", f"+ {{{kept}: 9}}"]
    assert muster("diff", "deploy", "2", "2")[1] == "versions 2 and 2 run the same\n"
    found = json.loads(muster("diff", "deploy", "2", "3", "--json")[1])
    assert set(found["fields"]) == {"shell", "parameters"}


def test_parameters_in_another_order_are_told(world: World, muster: Any) -> None:
    muster("save", "deploy.sh")
    lines = DEPLOY.splitlines(keepends=True)
    lines[8], lines[9] = lines[9], lines[8]
    Path("deploy.sh").write_text("".join(lines))
    assert muster("save", "deploy.sh")[1] == "updated: deploy version 2 changed=parameters\n"
    assert muster("diff", "deploy", "1")[1] == "parameters:\n  the same ones in another order\n"


# rollback, delete


def test_rollback_is_a_new_version(world: World, muster: Any) -> None:
    muster("save", "deploy.sh")
    edit("echo", "printf %s")
    muster("save", "deploy.sh")
    assert muster("rollback", "deploy", "1") == (0, "updated: deploy version 3 changed=body\n", "")
    assert muster("rollback", "deploy", "1") == (0, "unchanged: deploy version 3\n", "")
    assert muster("show", "deploy", "--source")[1] == BODY
    assert json.loads(muster("rollback", "deploy", "2", "--json")[1])["version"] == 4


def test_delete_takes_the_history_along(world: World, muster: Any) -> None:
    muster("save", "deploy.sh")
    assert muster("delete", "deploy") == (0, "deleted: deploy\n", "")
    assert muster("show", "deploy")[0] == 4
    assert muster("versions", "deploy")[0] == 4
    muster("save", "deploy.sh")
    assert json.loads(muster("delete", "deploy", "--json")[1]) == {"name": "deploy", "deleted": True}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: " ".join(case["args"]))
def test_what_is_not_there_or_makes_no_sense(world: World, muster: Any, case: dict[str, Any]) -> None:
    muster("save", "deploy.sh")
    code, out, err = muster(*case["args"])
    assert (code, out) == (case["code"], ""), err
    assert case["told"] in err
    assert world.get("/automation/scripts/deploy")["version"] == 1
