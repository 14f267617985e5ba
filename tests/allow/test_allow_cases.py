"""The allowlist by its cases: patterns, ways around it, honest commands, files that are wrong."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from allow_cases import BYPASS, CASES, PASSES, SHIPPED, named, policy_text

from app.allow import toml
from app.allow.patterns import LONGEST_WORD, BadPattern, parse
from app.allow.policy import Asked, Policy
from app.allow.programs import UNSAFE, is_unsafe
from app.language.allowlist import load

PATTERNS: list[dict[str, Any]] = yaml.load(
    (CASES / "patterns.yaml").read_text(), type("Texts", (yaml.SafeLoader,), {"yaml_implicit_resolvers": {}})
)
FILES: list[dict[str, Any]] = yaml.safe_load((CASES / "files.yaml").read_text())


@pytest.mark.parametrize("case", PATTERNS, ids=lambda case: repr(case.get("pattern", case.get("bad"))))
def test_patterns(case: dict[str, Any]) -> None:
    if "bad" in case:
        with pytest.raises(BadPattern):
            parse(case["bad"])
        return
    pattern = parse(case["pattern"])
    assert [word for word in case["yes"] if not pattern.matches(word)] == []
    assert [word for word in case["no"] if pattern.matches(word)] == []


def policy_of(case: dict[str, Any]) -> Policy:
    loaded = load(policy_text(case), "allowlist.yaml")
    return loaded.policy or Policy(problem=loaded.problems[0].message)


def asked_of(case: dict[str, Any]) -> Asked:
    given = case["input"]
    command = given.get("command")
    argv = tuple(command) if isinstance(command, list) else None
    script = None if argv is not None else given.get("script", command)
    return Asked(argv, script, given.get("shell", "sh"), given.get("env", {}), given.get("cwd"))


@pytest.mark.parametrize("case", BYPASS, ids=named)
def test_no_way_around(case: dict[str, Any]) -> None:
    verdict = policy_of(case).judge(asked_of(case))
    assert not verdict.allowed
    assert verdict.why
    assert verdict.why.isprintable()
    assert len(verdict.why) < 1000


@pytest.mark.parametrize("case", PASSES, ids=named)
def test_honest_commands_pass(case: dict[str, Any]) -> None:
    verdict = policy_of(case).judge(asked_of(case))
    assert verdict.allowed, verdict.why
    assert verdict.entry is not None


def test_there_are_enough_ways_around() -> None:
    assert len(BYPASS) >= 120
    assert len({case["name"] for case in BYPASS}) == len(BYPASS)


@pytest.mark.parametrize("case", FILES, ids=lambda case: case["text"][-60:])
def test_files_that_are_wrong(case: dict[str, Any]) -> None:
    loaded = load(case["text"], "x.yaml")
    assert loaded.policy is None
    found = {(one.code, f"{one.line}:{one.column}") for one in loaded.problems}
    codes = {code for code, _ in found}
    for wanted in case["problems"]:
        assert (wanted["code"], wanted["at"]) in found if "at" in wanted else wanted["code"] in codes, found
    assert len(found) == len(case["problems"])


def test_the_shipped_file_is_right_and_enforces() -> None:
    loaded = load(SHIPPED, "allowlist.yaml")
    assert loaded.problems == ()
    assert loaded.policy is not None
    assert loaded.policy.mode == "enforce"
    assert not any(entry.unsafe for entry in loaded.policy.entries)


def test_toml_means_the_same_and_says_where() -> None:
    text = 'version = 1\n[[entries]]\ncommand = "df"\noptions = ["-h"]\nmore = "{path:/}"\n'
    policy, problems = toml.load(text)
    assert problems == ()
    assert policy == load(json.dumps({"version": 1, **_entries()}), "x.yaml").policy
    policy, problems = toml.load(text.replace('"df"', '"find"'))
    assert policy is None
    assert problems[0].startswith("entries 1, command: find can run any other program")
    for wrong in ("x", "[[", "version = 2", "a = " + "[" * 100_000):
        policy, problems = toml.load(wrong)
        assert policy is None
        assert problems


def _entries() -> dict[str, Any]:
    return {"entries": [{"command": "df", "options": ["-h"], "more": "{path:/}"}]}


def test_versions_and_variants_of_unsafe_programs_are_known() -> None:
    assert len(UNSAFE) > 400
    for name in (
        "python3",
        "python3.12",
        "PYTHON",
        "perl5.36",
        "gcc-13",
        "vim.basic",
        "nc.openbsd",
        "ld-linux-x86-64.so.2",
    ):
        assert is_unsafe(name), name
    for name in (
        "uptime",
        "df",
        "cat",
        "systemctl",
        "journalctl",
        "printf",
        "echo",
        "md5sum",
        "uptime.procps",
    ):
        assert not is_unsafe(name), name


def test_paths_are_followed_where_they_can_be(tmp_path: Path) -> None:
    """Control sees text only; a node sees that a link leads out."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "own").write_text("")
    (logs / "out").symlink_to("/etc/shadow")
    (logs / "in").symlink_to(logs / "own")
    pattern = parse(f"{{path:{logs}}}")
    resolve = lambda path: str(Path(path).resolve())  # noqa: E731
    assert [pattern.matches(f"{logs}/{name}") for name in ("own", "in", "out")] == [True, True, True]
    assert [pattern.matches(f"{logs}/{name}", resolve) for name in ("own", "in", "out")] == [
        True,
        True,
        False,
    ]


def test_random_words_never_pass_and_never_raise() -> None:
    """Whatever is glued to a program or an argument, a shell's characters are never the way in."""
    chance = random.Random(4711)
    policy = load(SHIPPED, "allowlist.yaml").policy
    assert policy is not None
    glue = [*";|&$`<>\n\0\t\\'\"(){}*?~#!^%=, /.-", "..", "--", "\u202e", "\u200b", "é", "$(id)"]
    for _ in range(4000):
        word = "".join(chance.choice(glue) for _ in range(chance.randint(1, 6)))
        for name in ("uptime", "systemctl", "df"):
            assert not policy.judge(Asked((name + word,))).allowed
            assert not policy.judge(Asked((word + name,))).allowed or (word + name) in (f"/bin/{name}",)
        assert not policy.judge(Asked(("cat", "/var/log/x\n" + word))).allowed
        assert not policy.judge(Asked(("cat", f"/var/log/../{word}"))).allowed


def test_judging_is_quick_for_whatever_comes() -> None:
    policy = load(SHIPPED, "allowlist.yaml").policy
    assert policy is not None
    began = time.process_time()
    for words in (
        ("ls", *["/var/log/" + "a/" * 2000] * 900),
        ("echo", *["x" * LONGEST_WORD] * 64),
        ("echo", "x" * 1_000_000),
        ("x" * 1_000_000,),
        ("df", *["-t", "a" * 128] * 20),
    ):
        policy.judge(Asked(words))
    assert time.process_time() - began < 1.0
