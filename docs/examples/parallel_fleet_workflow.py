#!/usr/bin/env python3
"""Three shell steps at the same time, each on a machine of its own, through Muster's HTTP API.

    MUSTER_URL=http://127.0.0.1:8088 MUSTER_TOKEN=mst_… python3 parallel_fleet_workflow.py web-1 web-2 web-3

It stores a workflow, executes it, follows its events until the end, and prints what every node answered. Standard
library only. The token needs the role `author`. Exits with 0 if every step succeeded.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

PACK, NAME = "examples", "parallel_fleet"
STEPS = {
    "system": 'uname -s -r; echo "I am $MUSTER_NODE"',
    "disk": "df -P / | tail -n 1",
    "memory": "head -n 2 /proc/meminfo",
}
SILENCE = 35
"""Seconds without a byte after which a connection is dead: the server sends a comment every ten."""
ATTEMPTS = 20


def workflow(nodes: list[str]) -> dict[str, Any]:
    """A parallel block: its children start together, and it is over when all of them are."""
    children = [
        {
            "name": name,
            "action": "core.shell",
            "delegate_to": node,
            "timeout": 30,
            "input": {"script": script, "shell": "sh"},
        }
        for (name, script), node in zip(STEPS.items(), nodes, strict=True)
    ]
    return {
        "ref": f"{PACK}.{NAME}",
        "label": "Three shell steps on three nodes",
        "tasks": [{"name": "everywhere", "type": "parallel", "tasks": children}],
    }


def request(method: str, path: str, body: Any = None, **headers: str) -> urllib.request.Request:
    made = urllib.request.Request(os.environ["MUSTER_URL"].rstrip("/") + "/api/v1" + path, method=method)
    made.add_header("Authorization", f"Bearer {os.environ['MUSTER_TOKEN']}")
    for name, value in headers.items():
        made.add_header(name.replace("_", "-"), value)
    if body is not None:
        made.add_header("Content-Type", "application/json")
        made.data = json.dumps(body).encode()
    return made


def call(method: str, path: str, body: Any = None) -> dict[str, Any]:
    with urllib.request.urlopen(request(method, path, body), timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def events(execution: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every event of the execution, and `end`. A connection that breaks is opened again after the last event."""
    last = "0"
    for _ in range(ATTEMPTS):
        path = f"/workflow-executions/{execution}/events"
        asked = request("GET", path, Accept="text/event-stream", Last_Event_ID=last)
        name = ""
        try:
            with urllib.request.urlopen(asked, timeout=SILENCE) as lines:
                for line in lines:
                    key, _, value = line.decode().rstrip("\n").partition(": ")
                    if key == "id":
                        last = value
                    elif key == "event":
                        name = value
                    elif key == "data":
                        yield name, json.loads(value)
                        if name == "end":
                            return
        except urllib.error.HTTPError:
            raise
        except OSError as error:
            print(f"the stream broke ({error}); going on after event {last}", file=sys.stderr)
    raise SystemExit(f"the events of {execution} could not be followed to their end")


def main(nodes: list[str]) -> int:
    if len(nodes) != len(STEPS):
        raise SystemExit(f"usage: {sys.argv[0]} NODE NODE NODE")
    stored = call("POST", f"/packs/{PACK}/workflows", {"definition": workflow(nodes)})
    body = {"version": stored["revision"]}
    execution = call("POST", f"/workflows/{stored['ref']}/execute", body)["id"]
    print(f"execution {execution} of {stored['ref']}, revision {stored['revision']}")
    end: dict[str, Any] = {}
    for name, data in events(execution):
        for entry in data.get("log", ()):
            if entry["what"] == "task":
                print(f"  {entry['task']}: {entry['status']}")
        end = data if name == "end" else end
    for row in call("GET", f"/workflow-executions/{execution}/tasks")["items"]:
        if row["node"] is not None:
            result = row["result"] or {}
            print(f"{row['node']}  {row['task']}  {row['status']}  exit code {row['exit_code']}")
            for line in (result.get("stdout", "") + "\n" + result.get("stderr", "")).strip().splitlines():
                print(f"    {line}")
    print(f"execution {execution}: {end['status']}")
    return 0 if end["status"] == "completed" else 1


if __name__ == "__main__":
    if not {"MUSTER_URL", "MUSTER_TOKEN"} <= os.environ.keys():
        sys.exit("MUSTER_URL and MUSTER_TOKEN are not set: `client.env` of the fleet has both")
    try:
        sys.exit(main(sys.argv[1:]))
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        lines = [problem["detail"], problem.get("hint", "")]
        lines += [f"{one.get('pointer', '')}: {one['detail']}" for one in problem.get("errors", ())]
        sys.exit("\n".join(filter(None, lines)))
    except urllib.error.URLError as error:
        sys.exit(f"{os.environ['MUSTER_URL']} cannot be reached: {error.reason}")
