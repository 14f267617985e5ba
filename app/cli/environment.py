"""The environment of the children of `muster up`: ours, and of the caller's what cannot mislead them.

A broker or database that runs on this machine is never touched by accident: their URLs are passed on only
where the caller said `--external`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import app
from app.allow.policy import AUDIT
from app.cli.home import TEMPORARY
from app.errors import InvalidInput
from app.settings import Settings, environment_name, from_environment

URLS = tuple(environment_name(name) for name in ("database_url", "redis_url", "broker_url"))
_OWNED = tuple(
    environment_name(name)
    for name in (
        *("data_dir", "node", "node_dir", "node_address", "node_patience", "url", "token"),
        *("api_bind", "api_url", "control_name", "local_node"),
        *("flower_bind", "flower_auth"),
    )
)
_CONTROL_ONLY = tuple(environment_name(name) for name in ("database_url", "secret_keys", "secret_keys_file"))
# Celery, Flower, Flask and gunicorn read options from these.
_FOREIGN = ("CELERY_", "FLOWER_", "FLASK_", "GUNICORN_", "C_FORCE_ROOT")
_ROOT = str(Path(app.__file__ or ".").resolve().parent.parent)


@dataclass(frozen=True, slots=True)
class Environments:
    """Makes the environment of each child. `redis_url` "" means that the caller's services are used.

    `api_url` is where the API of this fleet is.
    """

    given: Mapping[str, str]
    data_dir: Path
    redis_url: str = ""
    api_url: str = ""

    def control(self, **settings: str) -> dict[str, str]:
        """For the parts on the control side."""
        found = self._plain() | {"TMPDIR": str(self.data_dir / TEMPORARY)} | self.broker()
        if not self.redis_url:
            found |= {name: self.given[name] for name in URLS if name in self.given}
        if self.api_url:
            found[environment_name("api_url")] = self.api_url
        return found | {environment_name(name): value for name, value in settings.items()}

    def broker(self) -> dict[str, str]:
        """Where the fleet's messages and output are."""
        if self.redis_url:
            return {environment_name("redis_url"): self.redis_url}
        names = map(environment_name, ("redis_url", "broker_url"))
        return {name: self.given[name] for name in names if name in self.given}

    def flower(self, bind: str) -> dict[str, str]:
        """For Flower, which alone sees its password."""
        found = self.control(flower_bind=bind)
        name = environment_name("flower_auth")
        return found | ({name: self.given[name]} if name in self.given else {})

    def node(self, name: str, directory: Path, **settings: str) -> dict[str, str]:
        """For a node's worker: it has no business with the database."""
        found = self.control(node=name, node_dir=str(directory), **settings)
        # Scripts inherit TMPDIR, and the control side's is none of theirs.
        for theirs in (*_CONTROL_ONLY, "TMPDIR"):
            found.pop(theirs, None)
        return found | ({"TMPDIR": self.given["TMPDIR"]} if "TMPDIR" in self.given else {})

    def settings(self) -> Settings:
        """The settings as the control side will have them."""
        return from_environment(self.control())

    def _plain(self) -> dict[str, str]:
        found = {
            name: value
            for name, value in self.given.items()
            if name not in URLS and name not in _OWNED and not name.startswith(_FOREIGN)
        }
        paths = [_ROOT, *filter(None, [found.get("PYTHONPATH")])]
        found |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        # Whoever starts a fleet of their own is its administrator: what is not allowed is told, and runs.
        found.setdefault(environment_name("allowlist_mode"), AUDIT)
        found.setdefault(environment_name("log_format"), "console")
        return found | {environment_name("data_dir"): str(self.data_dir)}


def external(given: Mapping[str, str], data_dir: Path) -> Environments:
    """For `--external`. Raises InvalidInput where no Redis is named."""
    if environment_name("redis_url") not in given:
        raise InvalidInput(
            "--external needs REDIS_URL", hint="for example REDIS_URL=redis://127.0.0.1:6379/0"
        )
    return Environments(dict(given), data_dir)
