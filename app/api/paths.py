"""The parts of paths. What has not the form of a name is no path of ours, so nothing odd gets any further."""

from __future__ import annotations

from flask import Flask
from flask_smorest import Api
from werkzeug.routing import BaseConverter

NAME = "[a-z][a-z0-9_-]{0,63}"


class Pattern(BaseConverter):
    """A part that matches `regex` whole."""


class Ulid(Pattern):
    regex = "[0-7][0-9A-HJKMNP-TV-Z]{25}"


class Ref(Pattern):
    regex = rf"{NAME}\.{NAME}"


class PackRef(Pattern):
    regex = NAME


class TaskName(Pattern):
    regex = "[a-z][a-z0-9_]{0,63}"


class Key(Pattern):
    """Of the store of values, and a secret's name: slashes belong to it."""

    regex = "[A-Za-z0-9_][A-Za-z0-9_.\\-/]{0,254}"


class NodeName(Pattern):
    regex = "[a-z0-9][a-z0-9-]{0,62}"


class Login(Pattern):
    regex = "[a-z0-9][a-z0-9._@-]{0,63}"


class JobId(Pattern):
    regex = "[A-Za-z0-9_.-]{1,200}"


class Script(Pattern):
    """A saved script by its id or its name."""

    regex = f"(?:{Ulid.regex}|{NAME})"


class Version(Pattern):
    """The number of a version."""

    regex = "[1-9][0-9]{0,8}"

    def to_python(self, value: str) -> int:
        return int(value)


class Schedule(Pattern):
    """A schedule by its id or its name."""

    regex = f"(?:{Ulid.regex}|{NAME})"


class Sha256(Pattern):
    """A digest in hexadecimal."""

    regex = "[0-9a-f]{64}"


class Stream(Pattern):
    regex = "stdout|stderr"


_CONVERTERS = {
    "ulid": Ulid,
    "ref": Ref,
    "pack": PackRef,
    "task": TaskName,
    "key": Key,
    "node": NodeName,
    "login": Login,
    "job": JobId,
    "script": Script,
    "version": Version,
    "schedule": Schedule,
    "sha256": Sha256,
    "stream": Stream,
}


def register(app: Flask) -> None:
    """Make the converters known, and every path exact: no redirects, which would answer before the gate."""
    app.url_map.converters.update(_CONVERTERS)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False


def document(api: Api) -> None:
    """Say the form of each part in the OpenAPI document."""
    for converter in _CONVERTERS.values():
        api.register_converter(converter, _schema)


def _schema(converter: BaseConverter) -> dict[str, str]:
    return {"type": "string", "pattern": f"^({converter.regex})$"}
