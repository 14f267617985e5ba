"""`muster setup`: what an installation needs before its processes start, each part only where it is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from app import settings as environment
from app.cli import own_node, private
from app.cli.node import labels_of
from app.cli.options import wants_json
from app.cli.own_node import OneTimeToken
from app.cli.plain import as_json as json_text
from app.cli.plain import safe
from app.cli.prepare import database
from app.compiler.plan import LOCAL
from app.errors import InvalidInput, MusterError, NotAllowed
from app.services import blob_store, fleet, installation, onetime, people, rotation
from app.services.control import Control
from app.settings import Settings
from app.store import migrate
from app.store.blobs import open_blobs
from app.transport.keys import Public

NODE_FIELD = "{node}"
"""What stands for a node's name in --token-file."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller asked for. `lifetime` is seconds."""

    nodes: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    lifetime: float = fleet.LIFETIME
    token_file: str = ""
    admin_file: Path | None = None
    url: str = ""
    another_token: bool = False


@dataclass(frozen=True, slots=True)
class Admin:
    """`made`: there is a new token. It is empty where a file has it."""

    login: str
    made: bool
    token: str = field(default="", repr=False)
    file: str = ""


@dataclass(frozen=True, slots=True)
class NodeToken:
    """`state` is that of the node, or `token` where there is none yet and a one-time token waits for it."""

    node: str
    state: str
    token: str = field(default="", repr=False)
    file: str = ""
    expires_at: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """What is there now; `control` is the fingerprint of the control keys, `secret_keys` and `blob_store` tell where
    other keys and the files of workspaces are."""

    installation: str
    schema: str
    keys: str
    control: str
    secret_keys: str
    blob_store: str
    admin: Admin
    nodes: list[NodeToken]


@click.command(short_help="Make what an installation needs: schema, keys, first token, nodes' tokens.")
@click.option(
    "--admin-file",
    type=click.Path(path_type=Path),
    help="Write the first administrator's token there, for clients, instead of printing it.",
)
@click.option("--url", default="", help="The API's URL, for that file.")
@click.option(
    "--another-token", is_flag=True, help="The first administrator's token was lost: make another one."
)
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="A node to be; may be repeated.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label of these nodes; may be repeated."
)
@click.option(
    "--token-file",
    default="",
    metavar="FILE",
    help="Write a node's one-time token there; {node} in it stands for the name.",
)
@click.option(
    "--lifetime", type=click.IntRange(1), default=900, show_default=True, help="Seconds that they are valid."
)
@wants_json
def setup(
    admin_file: Path | None,
    url: str,
    another_token: bool,
    nodes: Sequence[str],
    labels: Sequence[str],
    token_file: str,
    lifetime: int,
    as_json: bool,
) -> None:
    """Make what an installation needs before its processes start: the database's schema, the control keys, the
    first administrator with a token, and one-time tokens for nodes; and the store for files is tried. What is there
    already stays as it is, so it may run at every start.

    It runs on the control side, with the settings that control workers have. A token is told once.
    """
    given = environment.from_environment()
    wanted = Wanted(nodes, labels_of(labels), lifetime, token_file, admin_file, url, another_token)
    done = set_up(given, wanted)
    click.echo(json_text(asdict(done)) if as_json else _told(done))


def set_up(settings: Settings, wanted: Wanted) -> Done:
    """Makes what is missing. Raises InvalidInput before anything is changed, Unavailable where the database
    or the store for files does not answer, NotAllowed where a file cannot be written, Conflict for keys that
    are another's."""
    _check(settings, wanted)
    with _data_dir(settings), database(settings) as store:
        schema = migrate.head()
        control = Control(settings, store)
        installed = installation.ensure(store, settings.data_dir, control.clock())
        rotation.ensure(control)
        blobs = blob_store.ensure(control)
        admin = _admin(control, wanted)
        nodes = [_node(control, wanted, name) for name in wanted.nodes]
    return Done(
        installed.id,
        schema,
        str(installation.key_path(settings.data_dir).absolute()),
        Public.from_json(installed.public).fingerprint,
        "MUSTER_SECRET_KEYS" if settings.secret_keys else str(settings.secret_keys_path.absolute()),
        blobs,
        admin,
        nodes,
    )


def _check(settings: Settings, wanted: Wanted) -> None:
    open_blobs(settings)
    for name in wanted.nodes:
        fleet.check(name, wanted.labels, wanted.lifetime, by_control=True)
        if wanted.nodes.count(name) > 1:
            raise InvalidInput(f"--node {name} stands there twice", hint="name every node once")
    if LOCAL in wanted.nodes and not settings.local_node:
        raise InvalidInput(
            "--node local: that node is switched off", hint="leave it out, or MUSTER_LOCAL_NODE=1"
        )
    if len(wanted.nodes) > 1 and wanted.token_file and NODE_FIELD not in wanted.token_file:
        raise InvalidInput(
            f"--token-file {wanted.token_file}: one file cannot hold the tokens of {len(wanted.nodes)} nodes",
            hint=f"put {NODE_FIELD} where the name belongs, for example /etc/muster/{NODE_FIELD}.token",
        )


@contextmanager
def _data_dir(settings: Settings) -> Iterator[None]:
    """The data directory, private and this user's own. Raises NotAllowed for what cannot be done there."""
    directory = Path(settings.data_dir)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = directory.stat().st_uid
        if owner != os.geteuid():
            # Root could write there, but control could not read what root has written.
            raise NotAllowed(
                f"the data directory {directory} belongs to the user with the id {owner}, not to this one",
                hint="run it as the user that runs control: `sudo -u …`",
                code="data-dir",
            )
        yield
    except OSError as error:
        raise NotAllowed(
            f"the data directory {settings.data_dir} cannot be used: {error.filename}: {error.strerror}",
            hint="let the user that runs control own it, or set MUSTER_DATA_DIR to another",
            code="data-dir",
        ) from None


def _admin(control: Control, wanted: Wanted) -> Admin:
    file = wanted.admin_file
    keep = None if file is None else partial(_keep, file, wanted.url or _url(control.settings))
    token = people.bootstrap_admin(control.store, control.clock(), keep)
    if token is None:
        if not wanted.another_token:
            return Admin(people.FIRST_ADMIN, False)
        token = people.create_token(control, people.FIRST_ADMIN, "setup", None, people.FIRST_ADMIN).token
        if keep is not None:
            keep(token)
    return Admin(people.FIRST_ADMIN, True, *(("", str(file)) if file else (token,)))


def _keep(file: Path, url: str, token: str) -> None:
    private.write(file, private.client_file(url, token))


def _url(settings: Settings) -> str:
    return settings.url or f"http://{settings.api_bind}"


def _node(control: Control, wanted: Wanted, name: str) -> NodeToken:
    """A token for a node that never was one. A removed one stays removed: somebody wanted it so."""
    state = fleet.state_of(control, name)
    if state is not None:
        return NodeToken(name, state)
    file = wanted.token_file.replace(NODE_FIELD, name)
    waiting = _until(control, name, file)
    if waiting is not None:
        return NodeToken(name, "token", file=file, expires_at=_instant(waiting))
    made = fleet.create_token(
        control,
        name,
        people.FIRST_ADMIN,
        labels={} if name == LOCAL else wanted.labels,
        lifetime=wanted.lifetime,
        by_control=True,
    )
    expires_at = _instant(made.expires_at)
    if not file:
        return NodeToken(name, "token", made.token, expires_at=expires_at)
    own_node.write_token(Path(file), OneTimeToken(name, made.token, made.control), expires_at)
    return NodeToken(name, "token", file=file, expires_at=expires_at)


def _until(control: Control, name: str, file: str) -> float | None:
    """When the token that an earlier run left in the file ends; None if it is of no use any more."""
    try:
        return (
            onetime.valid_until(control, own_node.read_token(Path(file), name).token, name) if file else None
        )
    except MusterError:
        return None


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _told(done: Done) -> str:
    lines = [
        f"installation {done.installation}, schema {done.schema}",
        f"control keys {done.control} in {done.keys}",
        f"keys for secrets in {done.secret_keys}",
        f"files of workspaces in {done.blob_store}",
    ]
    admin = done.admin
    if admin.made:
        where = f"its token is in {admin.file}" if admin.file else f"its token, told this once: {admin.token}"
        lines.append(f"administrator {admin.login}: {where}")
    else:
        lines.append(
            "administrator: there are people already, no token is made; `muster token create LOGIN` makes more"
        )
    lines += [f"node {one.node}: {_told_node(one)}" for one in done.nodes]
    return safe("\n".join(lines), keep="\n")


def _told_node(one: NodeToken) -> str:
    if one.state != "token":
        again = "" if one.state != "removed" else f"; to have it again: `muster node token {one.node}`"
        return f"{one.state}, nothing to do{again}"
    where = f"in {one.file}" if one.file else one.token
    return f"one-time token until {one.expires_at}: {where}"
