"""Every setting, and the only reader of the environment. `docs/settings.md` lists them; a test keeps the two equal.

Names are MUSTER_ and the field in capitals, but for DATABASE_URL, REDIS_URL and CELERY_BROKER_URL, which are the
ones that hosting platforms set. Durations are seconds, sizes bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from app.errors import InvalidInput

PREFIX = "MUSTER_"
_PLAIN_NAMES = {
    "database_url": "DATABASE_URL",
    "redis_url": "REDIS_URL",
    "broker_url": "CELERY_BROKER_URL",
}


class BadSetting(InvalidInput):
    code = "bad-setting"


@dataclass(frozen=True, slots=True)
class Settings:
    """Values with their defaults. `from_environment` is how a process gets one."""

    data_dir: str = ".muster"
    database_url: str = ""
    redis_url: str = "redis://127.0.0.1:6379/0"
    broker_url: str = ""
    log_level: str = "INFO"
    log_format: str = ""
    otel_endpoint: str = ""
    task_events: bool = False
    flower_bind: str = "127.0.0.1:5555"
    flower_auth: str = ""

    # features of the automation engine
    automation_script_library: bool = True
    automation_script_exec: bool = True
    automation_script_schedule: bool = True
    automation_script_approval: bool = True

    # control
    control_name: str = "control"
    control_concurrency: int = 4
    order_lifetime: float = 300.0
    queue_timeout: float = 3600.0
    fanout_queue_timeout: float = 60.0
    fanout_window: int = 100
    child_depth: int = 10
    task_limit: int = 2000
    item_limit: int = 10_000
    retry_limit: int = 100
    template_limit: int = 16_384
    parameters_limit: int = 2_000_000
    result_limit: int = 4_000_000
    variable_limit: int = 1_000_000
    variables_limit: int = 16_000_000
    output_map_limit: int = 1_000_000
    offline_after: float = 30.0
    lost_after: float = 300.0
    cancel_patience: float = 30.0
    resend_after: float = 5.0
    retention: float = 90 * 86400.0
    output_retention: float = 30 * 86400.0
    audit_retention: float = 0.0
    local_node: bool = True
    allowlist: str = ""
    allowlist_mode: str = ""
    secret_keys: str = field(default="", repr=False)
    secret_keys_file: str = ""

    # files of workspaces
    blob_store: str = ""
    s3_endpoint: str = ""
    blob_limit: int = 268_435_456
    workspace_files: int = 20_000
    workspace_bytes: int = 536_870_912
    workspace_upload: int = 1_073_741_824
    api_url: str = ""

    # calls from the control side
    io_concurrency: int = 16
    call_limit: int = 1_000_000
    http_timeout: float = 60.0
    http_allow_private: bool = False
    http_allow: str = ""
    celery_connections: str = ""
    celery_timeout: float = 86400.0

    # machines over SSH
    ssh_config: str = ""
    ssh_leash: float = 60.0
    ssh_patience: float = 20.0
    ssh_breaker_failures: int = 3
    ssh_breaker_cooldown: float = 30.0

    # flows on other machines
    flow_basefiles: str = ""
    flow_timeout: float = 3600.0
    flow_ssh: str = ""
    flow_ssh_config: str = ""

    # words to people outside
    notify_webhook_url: str = ""
    notify_webhook_secret: str = field(default="", repr=False)
    notify_webhook_in_clear: bool = False
    notify_allow: str = ""
    notify_smtp_url: str = field(default="", repr=False)
    notify_smtp_tls: str = "starttls"
    notify_smtp_roots: str = ""
    notify_mail_from: str = ""
    notify_mail_to: str = ""
    notify_link: str = ""
    notify_tries: int = 8
    notify_timeout: float = 10.0

    # api
    api_bind: str = "127.0.0.1:8088"
    api_threads: int = 16
    body_limit: int = 1_000_000
    execute_wait: float = 60.0

    # node
    node: str = ""
    node_dir: str = ""
    node_address: str = ""
    node_slots: int = 8
    node_patience: float = 0.0
    start_runner: bool = True
    heartbeat_every: float = 10.0
    output_limit: int = 1_048_576
    grace: float = 10.0
    blob_cache: int = 1_073_741_824
    transfer_patience: float = 300.0
    node_policy: str = "/etc/muster/policy.toml"

    # clients
    url: str = ""
    token: str = ""

    @property
    def broker(self) -> str:
        """The broker's URL: CELERY_BROKER_URL, else Redis."""
        return self.broker_url or self.redis_url

    @property
    def database(self) -> str:
        """The database's URL: DATABASE_URL, else a SQLite file in the data directory."""
        return self.database_url or f"sqlite:///{Path(self.data_dir).absolute() / 'muster.db'}"

    @property
    def documents_limit(self) -> int:
        """Bytes of a request that tells of many files: a manifest, or digests."""
        return max(self.body_limit, 16_000_000)

    @property
    def files_url(self) -> str:
        """Where nodes reach the API for the files of a workspace: MUSTER_API_URL, else where the API listens."""
        return self.api_url or f"http://{self.api_bind}"

    @property
    def allowlist_file(self) -> Path:
        """What may be run on the spot: MUSTER_ALLOWLIST, else the file that comes with Muster."""
        return Path(self.allowlist or Path(__file__).resolve().parent.parent / "config" / "allowlist.yaml")

    @property
    def flow_tools(self) -> Path:
        """The directory with the tools that flows take along: MUSTER_FLOW_BASEFILES, else where `make pyz` builds."""
        return Path(self.flow_basefiles or Path(__file__).resolve().parent.parent / "dist")

    @property
    def secret_keys_path(self) -> Path:
        """The file with the keys that secrets are encrypted with, where MUSTER_SECRET_KEYS holds none."""
        return Path(self.secret_keys_file or Path(self.data_dir) / "secret.keys")

    @property
    def node_directory(self) -> Path:
        """Where a node keeps its keys, journal and spool."""
        return Path(self.node_dir or Path(self.data_dir) / "nodes" / (self.node or "local"))


def environment_name(field: str) -> str:
    """The variable that sets a field."""
    return _PLAIN_NAMES.get(field, PREFIX + field.upper())


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment. Raises BadSetting on an unknown MUSTER_ name or a value of the wrong kind."""
    given = os.environ if environment is None else environment
    known = {environment_name(one.name): one for one in fields(Settings)}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name in known:
            values[known[name].name] = _convert(name, text, known[name].default)
        elif name.startswith(PREFIX) and not name.startswith(PREFIX + "TEST_"):
            raise BadSetting(
                f"{name} is not a setting of Muster", hint="`docs/settings.md` lists every setting"
            )
    return Settings(**values)


def drop_foreign(environment: MutableMapping[str, str] | None = None) -> list[str]:
    """Takes out of the environment what Celery's own command would read as its options: CELERY_WORKER_QUEUES,
    CELERY_WORKER_PURGE and the like, which somebody set for another app. The names, sorted.

    A worker calls it before Celery looks at the options of `worker` or `beat`. Raises BadSetting for BROKER_URL: the
    command has put that in the place of CELERY_BROKER_URL already.
    """
    given = os.environ if environment is None else environment
    if "BROKER_URL" in given:
        raise BadSetting(
            "BROKER_URL takes the place of CELERY_BROKER_URL for `celery`, and for nothing else of Muster",
            hint="unset it for Muster's processes, and set CELERY_BROKER_URL or REDIS_URL for all of them",
        )
    foreign = sorted(
        name for name in given if name.startswith("CELERY_") and name not in _PLAIN_NAMES.values()
    )
    for name in foreign:
        del given[name]
    return foreign


def _convert(name: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                text.lower()
            ]
        if isinstance(default, int | float):
            value = type(default)(text)
            if value < 0:
                raise ValueError(text)
            return value
    except (KeyError, ValueError):
        raise BadSetting(
            f"{name}={text!r} is not a valid {type(default).__name__}", hint=f"for example {name}={default}"
        ) from None
    return text
