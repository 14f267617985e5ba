"""Files for the tests of the API: trees as manifests, bundles, passes, and jobs that have them."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from api_world import World
from sqlalchemy import func, insert, select, update

from app.files import bundles
from app.files.changes import difference
from app.files.documents import Entry
from app.files.limits import Limits
from app.files.manifest import Manifest
from app.ids import ulid
from app.services import installation
from app.services.people import create_token, create_user
from app.store import snapshots
from app.store.tables import Artifact, Execution, WorkspaceStep, table
from app.transport.keys import KeyPair
from app.transport.passes import Pass, sign_pass

HELLO_BYTES = b"hello\n"
TASK = "tasks: [{name: go, action: core.shell, input: {command: 'true'}}]\n"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


HELLO_DIGEST = sha256(HELLO_BYTES)


def packed(*contents: bytes) -> bytes:
    """A bundle of these."""
    out = io.BytesIO()
    bundles.write(out, [(sha256(one), len(one), partial(io.BytesIO, one)) for one in contents])
    return out.getvalue()


def unpacked(bundle: bytes) -> dict[str, bytes]:
    found = bundles.read(io.BytesIO(bundle), Limits())
    return {digest: blob.read() for digest, blob in found}


def tree(files: Mapping[str, bytes], mode: int = 0o644) -> Manifest:
    return Manifest.of({path: Entry(mode, len(one), sha256(one)) for path, one in files.items()})


def upload(world: World, files: Mapping[str, bytes], **headers: Any) -> str:
    """Post a tree and what is missing of it, as the operator unless headers say otherwise; its digest."""
    options = {"headers": headers} if headers else {}
    role = "" if headers else "operator"
    answer = world.ask("POST", "/api/v1/snapshots", role, data=tree(files).to_bytes(), **options)
    assert answer.status_code == 200, answer.text
    found = answer.get_json()
    by_digest = {sha256(one): one for one in files.values()}
    if found["missing"]:
        body = packed(*(by_digest[digest] for digest in found["missing"]))
        put = world.ask("POST", "/api/v1/blobs/bundle", role, data=body, **options)
        assert put.status_code == 200, put.text
    return str(found["digest"])


def job_of(world: World) -> tuple[str, str]:
    """A new execution with a job that is open, on the node `local`: their ids."""
    execution = world.run(TASK)
    (job,) = world.open_jobs(execution)
    return execution, job


def pass_for(
    world: World, execution_: str, job_: str, /, *, snapshot: str = "", **claims: Any
) -> dict[str, str]:
    """The header that a node shows."""
    now = world.control.clock()
    installed = installation.read(world.control.store)
    made = Pass(installed.id, "local", execution_, job_, snapshot, 1_000_000, now, now + 900)
    keys = KeyPair.load(installation.key_path(world.control.settings.data_dir))
    return {"Authorization": f"Pass {sign_pass(replace(made, **claims), keys)}"}


def bounded(world: World, login: str, *grants: dict[str, Any]) -> dict[str, str]:
    """The header of a person whose role is bounded."""
    create_user(world.control, login, None, "admin", grants=list(grants))
    return {"Authorization": f"Bearer {create_token(world.control, login, '', None, 'admin').token}"}


def stepped(world: World, execution: str, job: str, before: Manifest, after: Manifest) -> None:
    """As if the job had made the one state of the other."""
    now = world.control.clock()
    place = {"execution": execution, "task": "go", "job": job, "node": "local"}
    with world.control.store.write() as connection:
        for state in (before, after):
            snapshots.keep(connection, state, now)
        steps, executions = table(WorkspaceStep), table(Execution)
        last = connection.execute(select(func.count()).where(steps.c.execution == execution)).scalar_one()
        done = zlib.compress(difference(before, after).to_bytes())
        own = {"seq": last + 1, "changes": done, "created_at": now}
        step = insert(steps).values(**place, **own, base=before.digest, snapshot=after.digest)
        connection.execute(step)
        connection.execute(
            update(executions).where(executions.c.id == execution).values(workspace=after.digest)
        )


def kept(world: World, execution: str, job: str, files: dict[str, bytes], kind: str = "artifact") -> None:
    upload(world, files)
    place = {"execution": execution, "task": "go", "job": job, "node": "local"}
    with world.control.store.write() as connection:
        now = world.control.clock()
        for path, entry in tree(files).files.items():
            own = {"id": ulid(now), "path": path, "kind": kind, "created_at": now, **entry._asdict()}
            connection.execute(insert(table(Artifact)).values(**place, **own))
