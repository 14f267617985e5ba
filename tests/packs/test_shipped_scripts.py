"""The scripts of the shipped packs where Docker, Kubernetes, a webhook or a web server is there.

Each of these is a small stand-in that notes what it was asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.cli import folder
from app.language.parameters import bind
from app.language.shelltext import value_text

PACKS = Path(__file__).parents[2] / "config" / "packs"
ACTIONS = folder.known_in([PACKS]).actions


class Node:
    """A directory as a node has it: a home, a PATH with stand-ins, and what they were asked."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.home.mkdir()
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.asked = directory / "asked"
        self.asked.touch()
        self.output = directory / "output.json"

    @property
    def state(self) -> Path:
        return self.home / ".local" / "state" / "muster-packs"

    def has(self, program: str, *, fails_at: str = "nothing") -> None:
        """A program that notes its arguments, and fails where they begin with `fails_at`."""
        file = self.bin / program
        lines = (
            "#!/bin/sh",
            f'echo "{program} $*" >> "{self.asked}"',
            f'case "$*" in {fails_at}*) exit 1;; esac',
            "cat > /dev/null",
        )
        file.write_text("".join(f"{line}\n" for line in lines))
        file.chmod(0o755)

    def run(self, ref: str, **given: Any) -> tuple[int, dict[str, Any], str]:
        """As a node runs it: exit code, what it wrote to MUSTER_OUTPUT, and what it printed."""
        action = ACTIONS[ref]
        values = bind(action.parameters, given)
        variables = {
            name: value_text(value) for name, value in values.items() if not isinstance(value, list | dict)
        }
        environment = {
            **variables,
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "MUSTER_OUTPUT": str(self.output),
            "MUSTER_EXECUTION": "01J0000000000000000000000A",
        }
        self.output.unlink(missing_ok=True)
        runner = [sys.executable] if action.runner == "python" else [action.runner]
        done = subprocess.run(
            [*runner, str(PACKS / ref.partition(".")[0] / "actions" / action.entry)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        written = json.loads(self.output.read_text()) if self.output.exists() else {}
        return done.returncode, written, done.stdout + done.stderr


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


class Web(BaseHTTPRequestHandler):
    """Answers /<status>, and keeps what was posted."""

    posted: list[Any]

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.end_headers()
        self.wfile.write(b"well")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).posted.append(json.loads(body))
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    Web.posted = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


IMAGE = {"app_name": "shop", "version": "1.4", "registry": "registry.test/apps"}


def test_docker_builds_and_pushes_where_it_is_there(node: Node, tmp_path: Path) -> None:
    code, written, _ = node.run("docker.build_and_push", **IMAGE)
    assert (code, written) == (0, {"image_uri": "registry.test/apps/shop:1.4", "pushed": False})
    node.has("docker")
    code, written, _ = node.run("docker.build_and_push", **IMAGE, context=str(tmp_path))
    assert (code, written["pushed"]) == (0, True)
    assert node.asked.read_text().splitlines() == [
        f"docker build --tag registry.test/apps/shop:1.4 -- {tmp_path}",
        "docker push registry.test/apps/shop:1.4",
    ]
    node.has("docker", fails_at="push")
    code, written, _ = node.run("docker.build_and_push", **IMAGE, context=str(tmp_path))
    assert (code, written) == (1, {})


def test_kubectl_is_asked_where_it_has_a_context(node: Node) -> None:
    node.has("kubectl")
    applied = node.run(
        "kubernetes.apply_deployment", app_name="shop", image="r/shop:1", replicas=3, namespace="web"
    )
    assert applied[:2] == (0, {"image": "r/shop:1", "replicas": 3})
    assert node.run("kubernetes.wait_for_ready", deployment="shop", timeout=7)[:2] == (0, {"ready": True})
    assert node.run("kubernetes.rollback_deployment", app_name="shop")[:2] == (0, {"rolled_back": True})
    # The two ends of a pipe write in either order.
    asked = sorted(line for line in node.asked.read_text().splitlines() if "current-context" not in line)
    assert asked == [
        "kubectl --namespace default rollout status deployment/shop --timeout 7s",
        "kubectl --namespace default rollout undo deployment/shop",
        "kubectl --namespace web apply --filename -",
        "kubectl --namespace web create deployment shop --image r/shop:1 --replicas 3 --dry-run=client --output yaml",
    ]
    assert list((node.state / "kubernetes").iterdir()) == []


def test_a_kubectl_without_a_context_is_left_alone(node: Node) -> None:
    node.has("kubectl", fails_at="config")
    assert node.run("kubernetes.apply_deployment", app_name="shop", image="r/shop:1", replicas=2)[0] == 0
    assert node.asked.read_text() == "kubectl config current-context\n"
    assert node.run("kubernetes.wait_for_ready", deployment="shop", timeout=0)[:2] == (0, {"ready": True})


def test_a_rollback_brings_back_what_was_there_before(node: Node) -> None:
    tool = {"tool": "files"}
    file = node.state / "kubernetes" / "shop.json"
    back = ("kubernetes.rollback_deployment", {"app_name": "shop", **tool})
    assert node.run(back[0], **back[1])[:2] == (0, {"rolled_back": False})
    for image in ("r/shop:1", "r/shop:2"):
        assert node.run("kubernetes.apply_deployment", app_name="shop", image=image, **tool)[0] == 0
    assert json.loads(file.read_text())["image"] == "r/shop:2"
    assert node.run(back[0], **back[1])[:2] == (0, {"rolled_back": True})
    assert json.loads(file.read_text())["image"] == "r/shop:1"
    assert node.run(back[0], **back[1])[:2] == (0, {"rolled_back": True})
    assert not file.exists()
    code, _, said = node.run("kubernetes.wait_for_ready", deployment="shop", timeout=0, **tool)
    assert (code, said) == (1, "shop is not ready after 0 s\n")


@pytest.mark.parametrize(
    ("ref", "given"),
    [
        ("docker.build_and_push", {**IMAGE, "app_name": "../x"}),
        ("docker.build_and_push", {**IMAGE, "version": 'a"b'}),
        ("kubernetes.apply_deployment", {"app_name": "a b", "image": "x"}),
        ("kubernetes.rollback_deployment", {"app_name": ""}),
        ("my_pack.create_deployment_record", {"app_name": "../../x", "version": "1"}),
        ("my_pack.create_deployment_record", {"app_name": "x", "version": "1\n2"}),
    ],
)
def test_what_cannot_be_a_name_is_refused_before_anything_is_written(
    node: Node, ref: str, given: dict[str, Any]
) -> None:
    code, written, _ = node.run(ref, **given)
    assert code != 0
    assert written == {}
    assert [path for path in node.home.rglob("*") if path.is_file()] == []


def test_a_get_looks_at_the_status(node: Node, web: str, tmp_path: Path) -> None:
    assert node.run("http.get", url=f"{web}/200")[:2] == (0, {"status": 200, "body": "well"})
    assert node.run("http.get", url=f"{web}/404", expected_status=404)[:2] == (
        0,
        {"status": 404, "body": "well"},
    )
    assert node.run("http.get", url=f"{web}/500")[:2] == (1, {"status": 500, "body": "well"})
    assert node.run("http.get", url="http://127.0.0.1:1/")[0] == 1
    assert node.run("http.get", url="ftp://127.0.0.1/")[0] == 1
    (tmp_path / "health").write_text("fine")
    assert node.run("http.get", url=f"file://{tmp_path}/health")[1] == {"status": 200, "body": "fine"}
    assert node.run("http.get", url=f"file://{tmp_path}/none")[0] == 1


def test_a_message_goes_to_the_webhook_or_the_outbox(node: Node, web: str) -> None:
    message = {"channel": "#a", "message": 'it is "done" ✅'}
    assert node.run("slack.post_message", **message)[:2] == (0, {"delivered": "outbox"})
    (line,) = (node.state / "outbox.jsonl").read_text().splitlines()
    assert json.loads(line)["text"] == message["message"]
    hook = {"webhook_url": f"{web}/200"}
    assert node.run("slack.post_message", **message, **hook)[:2] == (0, {"delivered": "webhook"})
    assert Web.posted == [{"channel": "#a", "text": message["message"]}]
    code, written, said = node.run("slack.post_message", **message, webhook_url=f"{web}/500")
    assert (code, written) == (1, {})
    assert web not in said, "the URL is a secret"


def test_a_drill_fails_the_actions_that_it_names(node: Node) -> None:
    node.state.mkdir(parents=True)
    (node.state / "fail").write_text("".join(f"{ref}\n" for ref in ACTIONS))
    given = {
        "docker.build_and_push": IMAGE,
        "http.get": {"url": "file:///etc/passwd"},
        "kubernetes.apply_deployment": {"app_name": "x", "image": "x"},
        "kubernetes.rollback_deployment": {"app_name": "x"},
        "kubernetes.wait_for_ready": {"deployment": "x"},
        "my_pack.cleanup_resources": {},
        "my_pack.create_deployment_record": {"app_name": "x", "version": "1"},
        "my_pack.update_deployment_status": {"deployment_id": "x", "status": "success"},
        "slack.post_message": {"channel": "#a", "message": "x"},
    }
    assert given.keys() == ACTIONS.keys()
    for ref, values in given.items():
        code, written, said = node.run(ref, **values)
        assert (code, written) == (1, {}), ref
        assert f"{ref} is told to fail by {node.state}{os.sep}fail" in said
