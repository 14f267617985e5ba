"""What a workflow may refer to beside itself: actions of packs, other workflows, the configuration of its pack.

Whoever loads a text says what there is; the loader asks nobody.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from app.language.model import Action, Parameter, PinnedScript


@dataclass(frozen=True, slots=True)
class Setting(Parameter):
    """One key of a pack's configuration. That of a `secret` one names a secret, whose value is never shown."""

    secret: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What there is beside the text.

    `configs` are the keys of each pack's configuration, by pack. Where it is `complete`, what is not in here does not
    exist; else nobody can say. `names` are further references, for `did you mean`. `broken` are those that are there
    and cannot be read, which was told where they stand. `scripts` are saved ones, by name or `name@version` as a text
    says it; `script_names` those that there are, for `did you mean`.
    """

    actions: Mapping[str, Action] = field(default_factory=dict)
    workflows: frozenset[str] = frozenset()
    configs: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)
    complete: bool = False
    names: tuple[str, ...] = ()
    broken: frozenset[str] = frozenset()
    scripts: Mapping[str, PinnedScript] = field(default_factory=dict)
    script_names: tuple[str, ...] = ()

    @property
    def references(self) -> Iterator[str]:
        """Everything that a task may call."""
        yield from self.actions
        yield from self.workflows
        yield from self.names

    def secret_config(self, pack: str) -> tuple[str, ...]:
        """The secret keys of a pack's configuration."""
        return tuple(key.name for key in self.configs.get(pack, ()) if key.secret)

    def over(self, other: Known) -> Known:
        """Both together; this one wins, and says whether it is complete."""
        return Known(
            {**other.actions, **self.actions},
            other.workflows | self.workflows,
            {**other.configs, **self.configs},
            self.complete,
            (*self.names, *other.names),
            self.broken | other.broken,
            {**other.scripts, **self.scripts},
            (*self.script_names, *other.script_names),
        )


NOTHING: Final = Known()


def parameter_to_json(parameter: Parameter) -> dict[str, Any]:
    """The parameter without its place, as JSON."""
    data = asdict(parameter)
    del data["mark"]
    return data if parameter.enum is None else {**data, "enum": list(parameter.enum)}


def parameter_from_json(data: Mapping[str, Any]) -> Parameter:
    """What `parameter_to_json` gave, once it was JSON."""
    return Parameter(**{**data, "enum": None if data["enum"] is None else tuple(data["enum"])})


def setting_from_json(data: Mapping[str, Any]) -> Setting:
    """The same of a key of a configuration."""
    return Setting(**{**data, "enum": None if data["enum"] is None else tuple(data["enum"])})


def action_to_json(action: Action) -> dict[str, Any]:
    """All of an action but its revision, as JSON."""
    data = {name: getattr(action, name) for name in _FIELDS}
    return {
        **data,
        "parameters": [parameter_to_json(one) for one in action.parameters],
        "ok_codes": list(action.ok_codes),
    }


def action_from_json(data: Mapping[str, Any], revision: int) -> Action:
    """What `action_to_json` gave, once it was JSON."""
    parameters = tuple(parameter_from_json(one) for one in data["parameters"])
    more = {"parameters": parameters, "ok_codes": tuple(data["ok_codes"]), "revision": revision}
    return Action(**{**data, **more})


def script_to_json(script: PinnedScript) -> dict[str, Any]:
    """All of it, as JSON."""
    return {**asdict(script), "parameters": [dict(one) for one in script.parameters]}


def digest_of(action: Action) -> str:
    """sha256 over what an action does; what is for people does not count."""
    data = {name: value for name, value in action_to_json(action).items() if name not in _FOR_PEOPLE}
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


_FIELDS: Final = (
    "ref",
    "runner",
    "script",
    "calls",
    "label",
    "description",
    "entry",
    "parameters",
    "output",
    "timeout",
    "idempotent",
    "ok_codes",
)
_FOR_PEOPLE: Final = frozenset({"label", "description", "entry"})
