"""The packs that are shipped, registered over the API and run by three workers: probe (b), and more."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, free_port
from fleet_api import Answer, Api
from fleet_processes import ROOT
from waiting import wait_until

from app.cli import folder

pytestmark = pytest.mark.fleet

SHIPPED = ROOT / "config" / "packs"
DEPLOY = "my_pack.deploy_application"
ORDER = ("docker", "http", "kubernetes", "slack", "my_pack")
FAR = ["create_deployment", "build_image", "deploy_containers", "wait_for_ready", "health_check"]
BACK = ["rollback_deployment", "cleanup_deployment", "notify_failure"]


class Deployments:
    """A fleet with an API and a state directory of its own; `register` takes a changed copy of the shipped packs."""

    def __init__(self, fleet: Fleet, directory: Path, port: int) -> None:
        self.fleet = fleet
        self.api = Api(fleet, port=port)
        self.state = directory / ".local" / "state" / "muster-packs"
        self.state.mkdir(parents=True)
        self.copy = directory / "packs"
        shutil.copytree(SHIPPED, self.copy)

    def register(self, pack: str) -> Answer:
        files, problems = folder.read(self.copy / pack)
        assert not problems
        return self.api.post("/packs", {"files": files}, "author")

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.copy / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def fail(self, *actions: str) -> None:
        """From now on these actions fail, and no others."""
        (self.state / "fail").write_text("".join(f"{action}\n" for action in actions))

    def execute(self, ref: str, **parameters: Any) -> Any:
        answer = self.api.post(f"/workflows/{ref}/execute", {"parameters": parameters})
        assert answer.status == 201, answer.data
        return self.fleet.wait_for(answer.data["id"])

    def ran(self, execution: str) -> list[str]:
        """The tasks with a job that ran, in the order of their first start."""
        jobs = [job for job in self.fleet.jobs(execution) if job.started_at is not None]
        return list(dict.fromkeys(job.task for job in sorted(jobs, key=lambda job: job.started_at)))

    def posted(self, execution: str) -> list[str]:
        outbox = self.state / "outbox.jsonl"
        rows = map(json.loads, outbox.read_text().splitlines()) if outbox.exists() else ()
        return [row["text"] for row in rows if row["execution"] == execution]


@pytest.fixture(scope="module")
def deployments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployments]:
    home = tmp_path_factory.mktemp("home")
    # Nodes are told where the API is before it is there: one task of the complete example has files.
    port = free_port()
    with Fleet(HOME=str(home), MUSTER_API_URL=f"http://127.0.0.1:{port}") as fleet:
        made = Deployments(fleet, home, port)
        workflow = made.copy / "my_pack" / "workflows" / "deploy_application.yaml"
        names = iter(f"web-{number % 3 + 1}" for number in range(100))
        text = re.sub(
            r"(?m)^    action: .*$",
            lambda line: f"{line[0]}\n    delegate_to: {next(names)}",
            workflow.read_text(),
        )
        workflow.write_text(text.replace("delay: 10", "delay: 0"))
        for pack in ORDER:
            answer = made.register(pack)
            assert answer.status == 201, answer.data
        yield made


@pytest.mark.parametrize(
    ("failing", "status", "degraded", "order"),
    [
        ([], "completed", False, [*FAR, "update_deployment_status", "notify_success"]),
        (["my_pack.create_deployment_record"], "completed", True, [FAR[0], BACK[2]]),
        (["docker.build_and_push"], "completed", True, [*FAR[:2], *BACK[1:]]),
        (["kubernetes.apply_deployment"], "completed", True, [*FAR[:3], *BACK]),
        (["kubernetes.wait_for_ready"], "completed", True, [*FAR[:4], *BACK]),
        (["http.get"], "completed", True, [*FAR, *BACK]),
        (["my_pack.update_deployment_status"], "failed", False, [*FAR, "update_deployment_status"]),
        (["slack.post_message"], "failed", False, [*FAR, "update_deployment_status", "notify_success"]),
        (
            ["kubernetes.apply_deployment", "kubernetes.rollback_deployment"],
            "failed",
            None,
            [*FAR[:3], *BACK],
        ),
        (["docker.build_and_push", "slack.post_message"], "failed", None, [*FAR[:2], *BACK[1:]]),
    ],
    ids=[
        "none",
        "create",
        "build",
        "apply",
        "ready",
        "health",
        "update",
        "notify",
        "way-back",
        "notify-failure",
    ],
)
def test_what_runs_after_each_task_that_fails(
    deployments: Deployments, failing: list[str], status: str, degraded: bool | None, order: list[str]
) -> None:
    deployments.fail(*failing)
    row = deployments.execute(DEPLOY, app_name="shop", version="1.4")
    story = deployments.fleet.story(row.id)
    assert row.status == status, story
    assert degraded is None or row.degraded == degraded, story
    assert deployments.ran(row.id) == order, story
    used = {job.node for job in deployments.fleet.jobs(row.id)}
    assert used <= {"web-1", "web-2", "web-3"}
    said = deployments.posted(row.id)
    if "slack.post_message" not in failing and order[-1].startswith("notify"):
        assert len(said) == 1
        assert said[0].startswith("❌" if failing else "✅")
    if "kubernetes.wait_for_ready" in failing:
        assert len(deployments.fleet.jobs(row.id, "wait_for_ready")) == 4
    if not failing:
        assert used == {"web-1", "web-2", "web-3"}
        image = deployments.fleet.job(row.id, "build_image").result["image_uri"]
        assert image == "registry.example.com/apps/shop:1.4"
        record = json.loads(
            (deployments.state / "deployments" / f"{row.output['deployment_id']}.json").read_text()
        )
        assert (record["status"], row.output["status"], row.output["deployed_version"]) == (
            "success",
            "success",
            "1.4",
        )


def test_the_configuration_is_that_of_the_submission_and_stays_so_in_a_retry(
    deployments: Deployments,
) -> None:
    deployments.fail("docker.build_and_push", "my_pack.cleanup_resources")
    row = deployments.execute(DEPLOY, app_name="shop", version="2")
    assert row.status == "failed"
    known = deployments.api.get("/packs/my_pack/config")
    changed = {"config": {"docker_registry": "other.example.com"}}
    etag = {"If_Match": known.headers["ETag"]}
    assert deployments.api.ask("PUT", "/api/v1/packs/my_pack/config", changed, "author", **etag).status == 200
    deployments.fail()
    assert (
        deployments.api.post(f"/workflow-executions/{row.id}/retry", {"from": ["build_image"]}).status == 202
    )
    row = deployments.fleet.wait_for(row.id)
    assert (
        deployments.fleet.job(row.id, "build_image").result["image_uri"] == "registry.example.com/apps/shop:2"
    )
    row = deployments.execute(DEPLOY, app_name="shop", version="2")
    assert deployments.fleet.job(row.id, "build_image").result["image_uri"] == "other.example.com/shop:2"


def test_an_old_execution_runs_what_it_was_submitted_with_and_a_new_one_what_there_is(
    deployments: Deployments,
) -> None:
    deployments.fail("slack.post_message")
    old = deployments.execute(DEPLOY, app_name="shop", version="3")
    deployments.edit("slack/actions/post_message.py", 'print(text["text"])', 'print("anew: " + text["text"])')
    answer = deployments.register("slack")
    assert (answer.status, answer.data["changed"], answer.data["revision"]) == (
        200,
        ["slack.post_message"],
        2,
    )
    assert deployments.register("slack").data["changed"] == []
    deployments.fail()
    assert deployments.api.post(f"/workflow-executions/{old.id}/retry", {}).status == 202
    old = deployments.fleet.wait_for(old.id)
    assert deployments.fleet.job(old.id, "notify_success").result["stdout"].startswith("✅")
    new = deployments.execute(DEPLOY, app_name="shop", version="3")
    assert deployments.fleet.job(new.id, "notify_success").result["stdout"].startswith("anew: ✅")
    assert deployments.api.get("/actions/slack.post_message").data["revision"] == 2


def test_actions_in_loops_blocks_retries_and_calls(deployments: Deployments) -> None:
    """And the input of a script: scalars as variables, all of it as JSON, a value that means something to a shell."""
    deployments.fail()
    pack = deployments.copy / "kinds"
    (pack / "actions").mkdir(parents=True)
    (pack / "workflows").mkdir()
    (pack / "pack.yaml").write_text("ref: kinds\n")
    (pack / "actions" / "show.yaml").write_text(
        "runner: bash\nentry: show.sh\nok_codes: [0, 7]\noutput: {required: [given]}\nparameters:\n"
        "  word: {required: true}\n  count: {type: integer, default: 2}\n  flag: {type: boolean}\n"
        "  list: {type: array, default: [1, {a: b}]}\n  code: {type: integer, default: 0}\n"
    )
    (pack / "actions" / "show.sh").write_text(
        'echo "$word|$count|$flag|${list-unset}"\n'
        'printf \'{"given": %s, "exit_code": 99}\' "$(cat "$MUSTER_INPUT")" > "$MUSTER_OUTPUT"\nexit "$code"\n'
    )
    (pack / "actions" / "again.yaml").write_text(
        "runner: workflow\nentry: kinds.inner\nparameters: {word: {default: called}}\n"
    )
    (pack / "workflows" / "inner.yaml").write_text(
        "ref: kinds.inner\nparameters: {word: {required: true}}\ntasks:\n"
        "  - {name: a, action: kinds.show, delegate_to: web-2, input: {word: '{{ parameters.word }}'}}\n"
        "output_map: {said: '{{ task.a.result.stdout }}'}\n"
    )
    (pack / "workflows" / "outer.yaml").write_text(
        "ref: kinds.outer\nparameters: {odd: {default: '; reboot $(x)'}, count: {type: any, default: 3}}\ntasks:\n"
        "  - {name: one, action: kinds.show, input: {word: '{{ parameters.odd }}', count: '{{ parameters.count }}',"
        " code: 7}, on_success: [each, both, call], on_failure: noop}\n"
        "  - {name: each, action: kinds.show, with_items: [a, b, c], concurrency: 2, delegate_to: web-1,"
        " input: {word: '{{ item }}'}}\n"
        "  - name: both\n    type: parallel\n    tasks:\n"
        "      - {name: left, action: kinds.show, delegate_to: web-2, input: {word: left}}\n"
        "      - {name: right, action: kinds.show, delegate_to: web-3, input: {word: right, code: 3},"
        " retry: {count: 1, delay: 0}}\n    on_failure: noop\n"
        "  - {name: call, action: kinds.again}\n"
        "output_map: {one: '{{ task.one.result }}', each: \"{{ task.each.result | map(attribute='stdout') | list }}\","
        " call: '{{ task.call.result.said }}', left: '{{ task.left.result.stdout }}'}\n"
    )
    answer = deployments.register("kinds")
    assert answer.status == 201, answer.data
    row = deployments.execute("kinds.outer")
    story = deployments.fleet.story(row.id)
    assert (row.status, row.degraded) == ("completed", True), story
    one = row.output["one"]
    assert (one["stdout"], one["exit_code"]) == ("; reboot $(x)|3||unset", 7), story
    assert one["given"]["list"] == [1, {"a": "b"}]
    assert one["given"]["flag"] is None
    assert row.output["each"] == ["a|2||unset", "b|2||unset", "c|2||unset"]
    assert (row.output["call"], row.output["left"]) == ("called|2||unset", "left|2||unset")
    assert [job.attempt for job in deployments.fleet.jobs(row.id, "right")] == [1, 2]
    row = deployments.execute("kinds.outer", count="many")
    assert deployments.fleet.job(row.id, "one").error["type"] == "input"
    (pack / "actions" / "show.sh").write_text("echo '{}' > \"$MUSTER_OUTPUT\"\n")
    assert deployments.register("kinds").data["changed"] == ["kinds.show"]
    row = deployments.execute("kinds.inner", word="x")
    assert (row.status, deployments.fleet.job(row.id, "a").error["type"]) == ("failed", "output")


def test_a_pack_is_not_deleted_while_its_workflows_run(deployments: Deployments) -> None:
    gate = deployments.state / "gate"
    pack = deployments.copy / "gated"
    (pack / "actions").mkdir(parents=True)
    (pack / "workflows").mkdir()
    (pack / "pack.yaml").write_text("ref: gated\n")
    (pack / "actions" / "wait.yaml").write_text(
        "runner: sh\nentry: wait.sh\ntimeout: 50\nparameters: {gate: {required: true}}\n"
    )
    (pack / "actions" / "wait.sh").write_text('until [ -e "$gate" ]; do sleep 0.05; done\n')
    (pack / "workflows" / "wait.yaml").write_text(
        f"ref: gated.held\ntasks: [{{name: a, action: gated.wait, input: {{gate: '{gate}'}}}}]\n"
    )
    assert deployments.register("gated").status == 201
    execution = deployments.api.post("/workflows/gated.held/execute", {}).data["id"]
    deployments.fleet.job_is(execution, "a", "running")
    assert deployments.fleet.job(execution, "a").time_limit is not None
    refused = deployments.api.ask("DELETE", "/api/v1/packs/gated", None, "author")
    assert (refused.status, refused.data["code"]) == (409, "pack-busy")
    assert execution in refused.data["detail"]
    gate.touch()
    assert deployments.fleet.wait_for(execution).status == "completed"
    assert deployments.api.ask("DELETE", "/api/v1/packs/gated", None, "author").status == 204
    assert deployments.api.get("/actions/gated.wait").status == 404
    wait_until(lambda: deployments.fleet.is_over(execution), "the execution is kept")


def test_the_complete_example_runs(deployments: Deployments) -> None:
    """It asks twice, and people answer."""
    deployments.fail()
    text = (ROOT / "docs" / "examples" / "complete-workflow.yaml").read_text()
    body = {"definition": text, "parameters": {"app": "shop"}}
    answer = deployments.api.post("/workflow-executions", body, "author")
    assert answer.status == 201, answer.data
    execution = answer.data["id"]
    assert (
        deployments.api.post(
            f"/automation/approvals/{asked(deployments, execution)}/approve", {}, "approver"
        ).status
        == 200
    )
    said = {"answer": {"width": 2}}
    assert (
        deployments.api.post(f"/automation/approvals/{asked(deployments, execution)}/answer", said).status
        == 200
    )
    row = deployments.fleet.wait_for(execution)
    story = deployments.fleet.story(execution)
    assert (row.status, row.degraded) == ("completed", False), story
    assert row.output["image"].endswith("/shop:1.4")
    assert row.output["hosts"] == ["web-1", "web-2", "web-3"]
    assert row.output["batches"] == ["1+2", "3+4", "5"]
    assert (row.output["width"], row.output["colour"], row.output["child"]) == (2, "blue", "success")
    tasks = deployments.fleet.tasks(execution)
    ended = {name: task.status for name, task in tasks.items() if task.status != "succeeded"}
    assert ended == {
        "skipped_here": "skipped",
        "only_in_production": "skipped",
        "rollback": "not_reached",
        "give_up": "not_reached",
    }
    assert [job.status for job in deployments.fleet.jobs(execution, "build")] == ["failed", "succeeded"]


def asked(deployments: Deployments, execution: str) -> str:
    """The id of the question that the execution waits for."""

    def pending() -> list[str]:
        items = deployments.api.get("/automation/approvals?status=pending").data["items"]
        return [one["id"] for one in items if one["execution"] == execution]

    return str(wait_until(pending, lambda: deployments.fleet.story(execution))[0])
