"""What `muster validate` does. Nothing in here needs click: the same verb is in `muster.pyz`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.cli import folder
from app.cli.files import read_text
from app.cli.plain import as_json, safe, say
from app.language import parse, problems


def check(files: Sequence[str], form: str, folders: Sequence[str]) -> int:
    """Tell every problem of workflow files as `form`, text, json or github; what the process exits with.

    `folders` hold packs that the files may speak of. Raises InvalidInput for a file that cannot be read.
    """
    shown: list[dict[str, Any]] = []
    failed = False
    for file in files:
        known = folder.known_for(file, folders)
        loaded = parse.load(read_text(file), "<stdin>" if file == "-" else file, known=known)
        failed = failed or loaded.workflow is None
        if form == "json":
            shown.append(_told(file, loaded))
        elif form == "github" and loaded.problems:
            say(problems.render_github(loaded.problems))
        elif form == "text":
            _tell(file, loaded)
    if form == "json":
        say(as_json({"ok": not failed, "files": shown}))
    return 2 if failed else 0


def _told(file: str, loaded: parse.Loaded) -> dict[str, Any]:
    found = [problems.as_json(problem) for problem in loaded.problems]
    ref = loaded.workflow.ref if loaded.workflow else None
    return {"file": file, "ok": loaded.workflow is not None, "ref": ref, "problems": found}


def _tell(file: str, loaded: parse.Loaded) -> None:
    if loaded.problems:
        say(safe(problems.render_text(loaded.problems), keep="\n"))
    if loaded.workflow is not None:
        top = (*loaded.workflow.tasks, *loaded.workflow.finally_)
        count = len(top) + sum(len(task.tasks) for task in top)
        say(f"{safe(file)}: ok ({loaded.workflow.ref}, {count} {'task' if count == 1 else 'tasks'})")
