"""A node that was taken over and lies about files: its jobs fail, and nothing is written but blobs by their names."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet_files import Files, write_tree
from fleet_items import message
from fleet_processes import ROOT
from fleet_queues import push, take
from waiting import wait_until

from app.files import bundles
from app.files.documents import canonical
from app.node.identity import KEY_FILE, load_identity
from app.node.journal import Journal
from app.transport import queues
from app.transport.keys import KeyPair
from app.transport.life import Heartbeat
from app.transport.messages import Order, Outcome
from app.transport.sealing import open_order, seal_outcome, sign_heartbeat

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(180)]

NODE = "web-2"
MINE, STRANGER = b"evil\n", b"alien"
CASES = yaml.safe_load((ROOT / "tests" / "cases" / "workspaces" / "hostile.yaml").read_text())
LOOP = f"""
workspace: {{mode: sync, exclude: [private]}}
tasks:
  - {{name: l, action: core.shell, delegate_to: {NODE}, with_items: {list(range(len(CASES)))}, tolerate: 100,
     concurrency: 100, artifacts: a, on_success: look, on_failure: look, input: {{command: "true"}}}}
  - {{name: look, action: core.shell, delegate_to: web-1,
     input: {{command: "find . -type f; cat given; printf x > seen"}}}}
output_map: {{seen: "{{{{ task.look.result.stdout }}}}"}}
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Taken:
    """The node after somebody has got hold of its keys: its worker is gone, and this one speaks in its name."""

    def __init__(self, files: Files) -> None:
        self.files = files
        directory = files.fleet.directory / "nodes" / NODE
        self.identity, self.keys = load_identity(directory), KeyPair.load(directory / KEY_FILE)
        (self.epoch,) = [row.epoch for row in files.fleet.nodes() if row.name == NODE]
        self._journal = Journal(directory)

    def close(self) -> None:
        self._journal.close()

    def beat(self) -> None:
        now = time.time()
        about = (self.identity.installation, NODE, self.epoch, self._journal.next_sequence(), now)
        said = Heartbeat(*about, (), 100, 100, ("sh",), {}, now)
        push(
            self.files.fleet, queues.HEARTBEATS, message(queues.HEARTBEAT, [sign_heartbeat(said, self.keys)])
        )

    def orders(self, execution: str, count: int) -> list[Order]:
        """Its orders for so many jobs of the execution, by unit."""
        found: dict[str, Order] = {}

        def come() -> bool:
            self.beat()
            for item in take(self.files.fleet, f"node.{NODE}"):
                order = self._open(item)
                if order.jobs[0].execution == execution:
                    found[order.jobs[0].id] = order
            return len(found) >= count

        wait_until(come, lambda: self.files.fleet.story(execution)[:3000])
        return sorted(found.values(), key=lambda order: int(order.jobs[0].id.split(".")[2]))

    def _open(self, item: bytes) -> Order:
        args = json.loads(base64.b64decode(json.loads(item)["body"]))[0]
        at: dict[str, Any] = {"installation": self.identity.installation, "node": NODE, "epoch": self.epoch}
        return open_order(args[0], self.keys, self.identity.control, **at, now=time.time())

    def ask(self, order: Order, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """A request with the pass of an order; the status, and the problem's code or the answer."""
        assert order.files is not None
        headers = {
            "Authorization": f"Pass {order.files['token']}",
            "Content-Type": "application/octet-stream",
        }
        if path.endswith(("/missing", "/fetch", "/snapshots")):
            headers["Content-Type"] = "application/json"
        url = f"{self.files.api.url}/api/v1{path}"
        try:
            asked = urllib.request.Request(url, data=body, method=method, headers=headers)
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read()).get("code")

    def put(self, order: Order, *contents: bytes) -> None:
        assert self.ask(order, "POST", "/blobs/bundle", packed(*contents))[0] == 200

    def answer(self, order: Order, files: Mapping[str, str] | None) -> None:
        """The outcome of a script that succeeded."""
        job = order.jobs[0]
        about = (job.id, job.digest, self.identity.installation, NODE, self.epoch)
        now = time.time()
        said = Outcome(*about, "succeeded", 0, started_at=now, ended_at=now, files=files)
        token = seal_outcome(said, self.keys, self.identity.control[0])
        push(self.files.fleet, queues.RESULTS, message(queues.COLLECT, [token], id=f"{job.id}.collect"))


def packed(*contents: bytes) -> bytes:
    out = io.BytesIO()
    bundles.write(out, [(sha256(one), len(one), partial(io.BytesIO, one)) for one in contents])
    return out.getvalue()


def documents_of(case: Mapping[str, Any]) -> dict[str, bytes]:
    """What the node says in a case, by the name that the outcome has for it."""
    whose = {"mine": sha256(MINE), "stranger": sha256(STRANGER), "nowhere": sha256(b"nowhere")}

    def entries(said: Mapping[str, list[Any]]) -> dict[str, Any]:
        return {path: [*entry[:-1], whose.get(str(entry[-1]), entry[-1])] for path, entry in said.items()}

    if "keeps" in case:
        return {"artifacts": canonical({"files": entries(case["keeps"]), "directories": [], "version": 1})}
    if "absent" in case:
        return {}
    if "text" in case:
        fields = {"{mine}": whose["mine"], "{digits}": "9" * 20_000, "{deep}": "[" * 100_000}
        text = str(case["text"])
        for field, value in fields.items():
            text = text.replace(field, value)
        return {"changes": text.encode()}
    said = {"put": entries(case.get("put", {})), "gone": case.get("gone", []), "made": case.get("made", [])}
    return {"changes": canonical({**said, "unmade": [], "version": 1})}


@pytest.fixture
def taken(files: Files) -> Iterator[Taken]:
    files.fleet.keeper.bring_up(NODE)
    files.fleet.wait_ready()
    files.fleet.keeper.take_down(NODE)
    made = Taken(files)
    yield made
    made.close()
    files.fleet.keeper.bring_up(NODE)
    files.fleet.wait_ready()


def outside(directory: Path) -> set[str]:
    """The files of the control side that are no blobs, no rows and no log."""
    own = ("blobs", "nodes", "appendonlydir")
    found = (path.relative_to(directory) for path in directory.rglob("*") if path.parts[-1] not in own)
    kept = {str(path) for path in found if path.parts[0] not in own}
    return {name for name in kept if not name.startswith("muster.db") and not name.endswith((".log", ".pid"))}


def test_what_a_node_says_of_files_is_not_believed(files: Files, taken: Taken, tmp_path: Path) -> None:
    start = files.upload(write_tree(tmp_path / "in", {"given": "g\n"}))
    files.upload(write_tree(tmp_path / "other", {"secret": STRANGER.decode()}))
    before = outside(files.fleet.directory)
    execution = files.begin(LOOP, start)
    for case, order in zip(CASES, taken.orders(execution, len(CASES)), strict=True):
        documents = documents_of(case)
        taken.put(order, MINE, *documents.values())
        told = {name: sha256(document) for name, document in documents.items()}
        taken.answer(order, {"changes": "", "artifacts": "", **told, **_absent(case)})
    row = files.fleet.wait_for(execution)
    jobs = {job.unit: job for job in files.fleet.jobs(execution, "l")}
    for unit, case in enumerate(CASES):
        job = jobs[unit]
        kind = job.error and job.error["type"]
        assert (job.status, kind) == ("failed", case.get("type", "workspace")), (case["name"], job.error)
        assert case["says"] in job.error["message"], (case["name"], job.error)
    assert row.output == {"seen": "./given\ng"}, files.fleet.story(execution)[:3000]
    assert files.texts(execution, tmp_path / "out") == {"given": "g\n", "seen": "x"}
    kept = files.artifacts(execution, "kept") | files.artifacts(execution, "artifact")
    assert set(kept.values()) <= {MINE.decode(), "g\n", "x"}
    assert outside(files.fleet.directory) == before
    for path in (files.fleet.directory / "blobs").glob("??/*"):
        assert sha256(path.read_bytes()) == path.name


def _absent(case: Mapping[str, Any]) -> dict[str, str]:
    return {case["absent"]: sha256(b"not there")} if "absent" in case else {}


ONE = f"""
workspace: sync
tasks: [{{name: a, action: core.shell, delegate_to: {NODE}, input: {{command: "true"}}}}]
"""


def test_a_pass_opens_nothing_else(files: Files, taken: Taken, tmp_path: Path) -> None:
    other = files.upload(write_tree(tmp_path / "other", {"secret": STRANGER.decode()}))
    execution = files.begin(ONE, files.upload(write_tree(tmp_path / "in", {"given": "g\n"})))
    (order,) = taken.orders(execution, 1)
    stranger = sha256(STRANGER)
    cut = packed(MINE)[:-4]
    asked = {
        ("GET", f"/blobs/sha256:{stranger}", None): (404, "unknown-blob"),
        ("GET", f"/snapshots/{other}", None): (404, "unknown-snapshot"),
        ("POST", "/blobs/fetch", json.dumps({"digests": [stranger]}).encode()): (404, "unknown-blob"),
        ("PUT", f"/blobs/sha256:{stranger}", MINE): (422, "bad-tree"),
        ("PUT", "/blobs/sha256:..%2f..%2fcontrol.keys", MINE): (401, "token-required"),
        ("POST", "/blobs/bundle", cut): (422, "bad-tree"),
        ("POST", "/snapshots", b"{}"): (401, "token-required"),
        ("GET", "/workflow-executions", None): (401, "token-required"),
        ("GET", f"/workflow-executions/{execution}/workspace", None): (401, "token-required"),
    }
    found = {key: taken.ask(order, *key) for key in asked}
    assert found == asked
    missing = taken.ask(order, "POST", "/blobs/missing", json.dumps({"digests": [stranger]}).encode())
    assert json.loads(missing[1])["missing"] == [stranger], "to know a digest is not to have it"
    taken.answer(order, {"changes": "", "artifacts": ""})
    assert files.fleet.wait_for(execution).status == "completed", files.fleet.story(execution)
    assert taken.ask(order, "POST", "/blobs/bundle", packed(MINE)) == (403, "pass-over")
