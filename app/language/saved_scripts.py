"""`script_ref`: a saved script in a workflow, the newest version or one that is named, and its values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.errors import InvalidInput
from app.language import parameters, script_parameters
from app.language.fields import TEMPLATE_SCHEMA, Anything, Kind, Schema, Text, is_template, looks_whole
from app.language.model import PinnedScript
from app.language.problems import shown
from app.language.reading import BAD, Reading, label
from app.language.script_parameters import ScriptParameter
from app.language.source import Node

SCRIPT_REF: Final = r"^[a-z][a-z0-9_-]{0,63}(@[1-9][0-9]{0,8})?$(?!\n)"
SCRIPT_REF_RULE: Final = "the name of a saved script, or one of its versions as `deploy@3`"

_TEXT: Final = Text(SCRIPT_REF, SCRIPT_REF_RULE, code="bad-name")
_TEXTS: Final = ("string", "secret")
_NOT_BESIDE: Final = {
    "shell": "remove it: a saved script says itself what runs it",
    "env": "remove it: what a saved script is to be told, it declares as a parameter",
    "cwd": "remove it: declare a parameter, and go there in the script",
}
"""What a workflow must not say of a script that somebody else saved, and may be all that it is allowed to run."""


@dataclass(frozen=True)
class ScriptRef(Kind):
    """The saved script that is to run."""

    def read(self, r: Reading, node: Node) -> Any:
        ref = _TEXT.read(r, node)
        if ref is BAD:
            return BAD
        beside = node.parent.value if node.parent is not None else {}
        for key, hint in _NOT_BESIDE.items():
            if key in beside:
                message = f"`{key}` does not go with `script_ref`"
                r.error(beside[key], "bad-combination", message, hint, mark=beside[key].key)
        script = r.known.scripts.get(ref)
        if script is None:
            return _unknown(r, node, ref)
        if script.requires_approval:
            return r.error(
                node,
                "needs-approval",
                f"the script {script.name} requires an approval, for which a workflow cannot ask by itself",
                "put a task with core.approval before it, and save the script without requires_approval",
            )
        _required(r, node, script, beside.get("parameters"))
        return ref

    def schema(self) -> Schema:
        return _TEXT.schema()


def _unknown(r: Reading, node: Node, ref: str) -> Any:
    name, at, version = ref.partition("@")
    if r.known.complete:
        if at and name in r.known.script_names:
            hint = f"`muster script versions {name}` lists them"
            return r.error(node, "unknown-script", f"the script {name} has no version {version}", hint)
        hint = r.collector.did_you_mean(name, r.known.script_names, "`muster script list` names them all")
        return r.error(node, "unknown-script", f"there is no saved script {shown(name)}", hint)
    if r.runnable:
        message = f"nothing here tells what the script {shown(name)} is, or what it takes"
        r.error(node, "unchecked-script", message, "the server checks it when it is stored", level="warning")
    return ref


def _required(r: Reading, node: Node, script: PinnedScript, given: Node | None) -> None:
    if given is not None and given.kind != "map":
        return
    there = {} if given is None else given.value
    for one in declared(script):
        if one.required and not one.has_default and one.name not in there:
            hint = one.description or f"write `parameters: {{{one.name}: …}}` beside it"
            r.error(node, "missing-key", f"the script {script.name} needs the parameter `{one.name}`", hint)


def declared(script: PinnedScript) -> Iterator[ScriptParameter]:
    """Its declared parameters."""
    return (script_parameters.from_json(one) for one in script.parameters)


@dataclass(frozen=True)
class ScriptValues(Kind):
    """Values for the parameters that the saved script declares: literals and templates."""

    def read(self, r: Reading, node: Node) -> Any:
        if node.kind != "map":
            return r.wrong(node, "a map of values by the names of parameters")
        ref = node.parent.value.get("script_ref") if node.parent is not None else None
        if ref is None:
            message = "`parameters` needs `script_ref` beside it"
            hint = "in the text of a script `{{ … }}` is bound; variables go into `env`"
            return r.error(node, "missing-key", message, hint, mark=node.key)
        script = r.known.scripts.get(ref.text) if ref.kind == "scalar" else None
        known = None if script is None else {one.name: one for one in declared(script)}
        found = {}
        for name, child in node.value.items():
            value = _any(r, child) if known is None else _value(r, child, name, known, script)
            if value is not BAD:
                found[name] = value
        return found

    def schema(self) -> Schema:
        values = [{"type": ["string", "number", "boolean", "null"]}, TEMPLATE_SCHEMA]
        return {"type": "object", "additionalProperties": {"anyOf": values}}


def _any(r: Reading, node: Node) -> Any:
    """A value for a parameter of which nothing is known."""
    if is_template(node):
        r.template(node)
        return node.text
    return Anything().read(r, node)


def _value(
    r: Reading, node: Node, name: str, known: Mapping[str, ScriptParameter], script: PinnedScript | None
) -> Any:
    one = known.get(name)
    assert script is not None
    if one is None:
        listed = f"known here: {', '.join(sorted(known))}" if known else "it takes none"
        hint = r.collector.did_you_mean(name, known, listed)
        message = f"the script {script.name} has no parameter {shown(name)}"
        return r.error(node, "unknown-key", message, hint, mark=node.key)
    if is_template(node):
        if one.type not in _TEXTS and not looks_whole(node.text):
            wanted = parameters.wanted(one.type)
            message = f"{label(node)} must be {wanted} or exactly one `{{{{ … }}}}`"
            return r.error(node, "wrong-type", message)
        r.template(node)
        return node.text
    value = Anything(texts=one.type in _TEXTS and node.kind == "scalar").read(r, node)
    if value is BAD:
        return BAD
    try:
        return script_parameters.bind((one,), {name: value}, shell=script.shell)[name]
    except InvalidInput as problem:
        return r.error(node, "bad-value", problem.message, problem.hint)


def with_own(
    script: PinnedScript | None, action: str, given: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The input and the keys of a task that runs a saved script: its shell, and its timeout where none is said."""
    if script is None:
        return given, values
    given = {**given, "shell": script.shell}
    if "timeout" in values or "timeout" in given:
        return given, values
    if action == "core.distributed_shell":
        return {**given, "timeout": script.timeout}, values
    return given, {**values, "timeout": script.timeout}
