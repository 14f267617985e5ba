"""Secrets in templates: an opaque handle that a text may hold and nothing may look into.

`{{ kv.get_secret('name') }}` and `{{ parameters.x }}` of a parameter of type secret give a handle. It may stand alone
between its braces, in a text or as a whole value; then it becomes a mark (`app.marks`). Every filter, test, operator,
list and map refuses it: here where the template shows it, the handle itself while rendering.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import nodes

from app.language import names, template_syntax
from app.language.model import Parameter
from app.language.opaque import ALONE
from app.language.template_syntax import TemplateProblem
from app.marks import CONFIG, PARAMETER, SECRET

Chain = tuple[str, ...]


def secret_chains(parameters: Iterable[Parameter], config: Iterable[str]) -> dict[Chain, str]:
    """What in templates is secret beside `kv.get_secret`, with its references: see `named`.

    `config` are the secret keys of the pack's configuration.
    """
    found: dict[Chain, str] = {("pack", "config", name): f"{CONFIG}:{name}" for name in config}
    found.update(
        {("parameters", one.name): f"{PARAMETER}:{one.name}" for one in parameters if one.type == "secret"}
    )
    return found


def named(text: str, secret: Mapping[Chain, str]) -> tuple[tuple[str, ...], tuple[TemplateProblem, ...]]:
    """The references of the secrets that a template names, and where it does with one what is not allowed.

    `secret` holds the chains that are secret beside `kv.get_secret`, such as ("parameters", "token"), and their
    references. A text that `expressions.check` refuses names none.
    """
    if "get_secret" not in text and not any(chain[0] in text for chain in secret):
        return (), ()
    return _named(text, tuple(sorted(secret.items())))


@lru_cache(maxsize=512)
def _named(
    text: str, secret: tuple[tuple[Chain, str], ...]
) -> tuple[tuple[str, ...], tuple[TemplateProblem, ...]]:
    tree, refused = template_syntax.parse(text)
    if tree is None or refused:
        return (), ()
    known = dict(secret)
    roots = {chain[0] for chain in known}
    found: list[str] = []
    problems: list[TemplateProblem] = []
    todo: list[tuple[nodes.Node, bool]] = [(tree, False)]
    while todo:
        node, alone = todo.pop()
        reference, shown = _reference(node, known)
        if reference and alone:
            found.append(reference)
        if shown and not (reference and alone):
            problems.append(_problem(text, node, shown, has_parts=not reference))
        if shown:
            continue
        if isinstance(node, nodes.Name) and node.name in roots:
            one = ".".join(next(chain for chain in known if chain[0] == node.name))
            message = f"`{node.name}` as a whole holds the secret `{one}`"
            problems.append(_at(text, node, node.name, message, "name what you need, one by one"))
        todo.extend((child, isinstance(node, nodes.Output)) for child in _inner(node))
    return tuple(dict.fromkeys(found)), tuple(problems)


def _inner(node: nodes.Node) -> list[nodes.Node]:
    """What is in a node. A chain such as `parameters.a` stands for itself: its root is not `parameters` whole."""
    inner, keys = node, 0
    while isinstance(inner, nodes.Getattr) or (
        isinstance(inner, nodes.Getitem) and isinstance(inner.arg, nodes.Const)
    ):
        inner, keys = inner.node, keys + 1
    if keys and isinstance(inner, nodes.Name):
        return []
    return [inner] if keys else list(node.iter_child_nodes())


def _reference(node: nodes.Node, known: Mapping[Chain, str]) -> tuple[str, str]:
    """The reference of a secret, and how it is written; ("", how) for a part of one, ("", "") for anything else."""
    if isinstance(node, nodes.Filter) and node.name == "_kv_get_secret":
        key = node.args[0].value  # type: ignore[attr-defined]
        return f"{SECRET}:{key}", f"kv.get_secret('{key}')"
    keys: list[Any] = []
    inner = node
    while isinstance(inner, nodes.Getattr | nodes.Getitem):
        keys.append(inner.attr if isinstance(inner, nodes.Getattr) else getattr(inner.arg, "value", None))
        inner = inner.node
    if not keys or not isinstance(inner, nodes.Name):
        return "", ""
    chain = (inner.name, *reversed(keys))
    for secret, reference in known.items():
        if chain[: len(secret)] == secret:
            return (reference if chain == secret else ""), ".".join(secret)
    return "", ""


def _problem(text: str, node: nodes.Node, shown: str, *, has_parts: bool) -> TemplateProblem:
    message = f"`{shown}` is a secret: " + ("it has no parts" if has_parts else "nothing can be done with it")
    return _at(text, node, "kv" if shown.startswith("kv.") else shown.rpartition(".")[2], message, ALONE)


def _at(text: str, node: nodes.Node, needle: str, message: str, hint: str) -> TemplateProblem:
    return template_syntax.place(text, node.lineno, needle, message, "secret-misused", hint)


def bad_key(key: str) -> str:
    """Why nothing can be kept under this key; empty if something can."""
    return "" if re.search(names.KEY, key) else f"{key[:80]!r} cannot be a key: {names.KEY_RULE}"
