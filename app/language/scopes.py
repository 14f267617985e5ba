"""What templates may refer to where they stand: parameters, vars, tasks that may have run, `item`.

Runs last, when the graph is known. The templates themselves are checked by `expressions`, texts for a shell
by `shelltext`; here their findings are put to a place in the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from app.language import expressions, handles, names, secret_places, shelltext
from app.language.graph import Draft, Graph
from app.language.model import Mark, Parameter
from app.language.races import published
from app.language.reading import Reading, Use
from app.language.source import Node
from app.language.template_syntax import expression_end

SYSTEM = ("execution_id", "timestamp", "identity")
RESULT_KEYS = (
    "result",
    "status",
    "error",
    "total_count",
    "succeeded_count",
    "failed_count",
    "items",
    "skipped_nodes",
)

Chain = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What stands at the top of the workflow: its root, declared parameters, and templates outside tasks. `ref` names
    the pack whose configuration it sees."""

    root: Node
    parameters: tuple[Parameter, ...]
    uses: list[Use]
    ref: str = names.INLINE_REF


@dataclass(slots=True)
class _Scope:
    """What is there at one place. `tasks` is the bitset of tasks that may have run, None where none has;
    `where` says in a message why a task cannot be referred to."""

    tasks: int | None
    variables: frozenset[str]
    item: bool = False
    where: str = ""
    draft: Draft | None = None


@dataclass(slots=True)
class _Checker:
    r: Reading
    graph: Graph
    parameters: frozenset[str]
    variables: frozenset[str]
    secret: dict[Chain, str]
    pack: str = ""
    found: dict[str, frozenset[Chain]] = field(default_factory=dict)


def check(r: Reading, graph: Graph, known: Known) -> None:
    """Note every problem of every template that was met."""
    declared = known.root.value.get("vars")
    first = list(declared.value) if declared is not None and declared.kind == "map" else []
    written = {name for draft in graph.drafts for name, _ in published(draft)}
    declared_names = frozenset(one.name for one in known.parameters)
    pack = "" if known.ref == names.INLINE_REF else known.ref.partition(".")[0]
    c = _Checker(
        r,
        graph,
        declared_names,
        frozenset({*first, *written}),
        handles.secret_chains(known.parameters, r.known.secret_config(pack)),
        pack,
    )
    every = (1 << len(graph.drafts)) - 1
    outside = {
        "vars": "no task has run when `vars` are set",
        "delegate_to": "this holds for every task; write it on the task itself",
    }
    for use in known.uses:
        top, name = _path(use.node, known.root)
        tasks = every if top == "output_map" else None
        earlier = frozenset(first[: first.index(name)]) if top == "vars" and name in first else c.variables
        _use(c, use, _Scope(tasks, earlier, where=outside.get(top, "")))
    for draft in graph.drafts:
        _task(c, draft, every)


def _path(node: Node, root: Node) -> tuple[str, str]:
    """The first two keys on the way from the workflow's root to the node."""
    steps = []
    at: Node | None = node
    while at is not None and at is not root:
        steps.append(str(at.step))
        at = at.parent
    return steps[-1], steps[-2] if steps[1:] else ""


def _task(c: _Checker, draft: Draft, every: int) -> None:
    before = c.graph.before[draft.number] if c.graph.before else every
    own = 1 << draft.number
    for child in draft.children:
        own |= 1 << child.number
    loop = "with_items" in draft.node.value
    for use in draft.uses:
        tasks = before | own if use.after else before
        _use(c, use, _Scope(tasks, c.variables, use.item and loop, draft=draft))


def _use(c: _Checker, use: Use, scope: _Scope) -> None:
    text = use.node.text
    if not use.shell:
        if _too_long(c, use, text):
            return
        if text not in c.found:
            problems = expressions.check(text)
            for problem in problems:
                _report(
                    c, use, problem.code, problem.message, Mark(problem.line, problem.column), problem.hint
                )
            if problems:
                return
            c.found[text] = expressions.references(text)
        _references(c, use, scope, c.found[text], text)
        _secrets(c, use, scope, text)
        return
    try:
        bound = shelltext.bind(text, use.shell)
    except shelltext.BindError as error:
        _report(c, use, error.code, error.message, Mark(error.line, error.column), error.hint)
        return
    if bound.whole:
        message = "the whole command is a template: whoever gives the value decides what runs"
        hint = "write the command here and let the value be an argument; else it must pass the allowlist"
        c.r.error(use.node, "whole-command", message, hint, level="warning")
    for source in [text] if bound.whole else [expression for _, expression in bound.bindings]:
        at = _offset(text, source)
        if _too_long(c, use, source):
            return
        for problem in expressions.check(source):
            column = problem.column + (at.column - 1 if problem.line == 1 else 0)
            place = Mark(at.line + problem.line - 1, column)
            _report(c, use, problem.code, problem.message, place, problem.hint)
        _references(c, use, scope, expressions.references(source), text)
        _secrets(c, use, scope, source, bound=not bound.whole)


def _secrets(c: _Checker, use: Use, scope: _Scope, source: str, *, bound: bool = False) -> None:
    """Where a template names secrets: what it does with them, and whether they may stand there at all."""
    named, problems = handles.named(source, c.secret)
    start = _offset(use.node.text, source)
    for one in problems:
        column = one.column + (start.column - 1 if one.line == 1 else 0)
        _report(c, use, one.code, one.message, Mark(start.line + one.line - 1, column), one.hint)
    if not named:
        return
    whole = source.startswith("{{") and expression_end(source, 0)[0] == len(source)
    refused = secret_places.problem(scope.draft, use.node, whole=whole, bound=bound)
    if refused is not None:
        needle = "kv.get_secret" if "get_secret" in source else f"parameters.{named[0].partition(':')[2]}"
        at = use.node.text.find(needle, max(use.node.text.find(source), 0))
        _report(
            c, use, "secret-not-here", refused[0], _at(use.node.text, at) if at >= 0 else start, refused[1]
        )


def _too_long(c: _Checker, use: Use, template: str) -> bool:
    most = c.r.limits.template
    if len(template) > most:
        message = f"the template has {len(template):,} characters; {most:,} are allowed"
        c.r.error(use.node, "template-too-large", message, "split it over several values")
    return len(template) > most


def _report(c: _Checker, use: Use, code: str, message: str, at: Mark, hint: str) -> None:
    place = use.node.place(max(at.line, 1), max(at.column, 1), c.r.collector.lines)
    c.r.error(use.node, code, message, hint, mark=place)


def _offset(text: str, needle: str) -> Mark:
    return _at(text, max(text.find(needle), 0))


def _at(text: str, at: int) -> Mark:
    return Mark(text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))


def _references(c: _Checker, use: Use, scope: _Scope, chains: Iterable[Chain], text: str) -> None:
    for chain in sorted(chains):
        problem = _problem(c, scope, chain)
        if problem is not None:
            code, message, hint = problem
            at = _offset(text, ".".join(chain[:2]) if ".".join(chain[:2]) in text else chain[0])
            _report(c, use, code, message, at, hint)
        elif chain[0] == "kv" and (bad := handles.bad_key(chain[2])):
            _report(c, use, "bad-key", bad, _offset(text, "kv."), "")
        elif chain[0] == "task" and len(chain) > 2 and chain[2] not in RESULT_KEYS:
            hint = c.r.collector.did_you_mean(chain[2], RESULT_KEYS)
            if hint:
                place = use.node.place(*_line_column(_offset(text, ".".join(chain[:3]))), c.r.collector.lines)
                message = f"a task's record has no `{chain[2]}`"
                c.r.error(use.node, "unknown-field", message, hint, mark=place, level="warning")


def _line_column(mark: Mark) -> tuple[int, int]:
    return mark.line, mark.column


def _problem(c: _Checker, scope: _Scope, chain: Chain) -> tuple[str, str, str] | None:
    """Code, message and hint if the chain refers to what is not there."""
    root, name = chain[0], chain[1] if chain[1:] else ""
    suggest = c.r.collector.did_you_mean
    if root in ("item", "index"):
        where = "" if scope.item else f"there is no `{root}` here"
        return (
            ("unknown-name", where, "it is there in the input of a task with `with_items`") if where else None
        )
    if root == "pack":
        return _config_problem(c, chain)
    if not name:
        return None
    if root == "parameters" and name not in c.parameters:
        hint = suggest(name, c.parameters, "declare it under `parameters:`")
        return "unknown-parameter", f"there is no parameter `{name}`", hint
    if root == "vars" and name not in scope.variables:
        if name in c.variables:
            return "unknown-var", f"`vars.{name}` is set later than this", "move it up in `vars:`"
        hint = suggest(name, scope.variables, "set it under `vars:` or `publish:`")
        return "unknown-var", f"there is no variable `{name}`", hint
    if root == "system" and name not in SYSTEM:
        hint = suggest(name, SYSTEM, f"known: {', '.join(SYSTEM)}")
        return "unknown-name", f"there is no `system.{name}`", hint
    return _task_problem(c, scope, name) if root == "task" else None


def _config_problem(c: _Checker, chain: Chain) -> tuple[str, str, str] | None:
    if chain[1:2] != ("config",):
        name = f" `pack.{chain[1]}`" if chain[1:] else " value `pack` alone"
        return "unknown-name", f"there is no{name}", "write `pack.config.<key>`"
    if not c.pack and c.r.runnable:
        return "no-pack", "the workflow belongs to no pack, so it has no configuration", "give it a `ref`"
    keys = c.r.known.configs.get(c.pack)
    if keys is None or not chain[2:] or chain[2] in {key.name for key in keys}:
        return None
    listed = [key.name for key in keys]
    hint = c.r.collector.did_you_mean(chain[2], listed, f"declare it in config.yaml of {c.pack}")
    return "unknown-config", f"the configuration of {c.pack} has no key `{chain[2]}`", hint


def _task_problem(c: _Checker, scope: _Scope, name: str) -> tuple[str, str, str] | None:
    task = c.graph.by_name.get(name)
    if task is None:
        hint = c.r.collector.did_you_mean(name, c.graph.by_name, "name one of this workflow's tasks")
        return "unknown-task", f"there is no task `{name}`", hint
    if scope.tasks is None:
        return "task-not-before", f"`{name}` has not run here", scope.where
    if not scope.tasks >> task.number & 1:
        hint = f"let a transition lead from `{name}` to this task, if only by way of others"
        return "task-not-before", f"`{name}` does not come before this, so it has no result yet", hint
    return None
