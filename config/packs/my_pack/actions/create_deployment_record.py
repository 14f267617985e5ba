"""Writes a record of a deployment that begins."""

import json
import os
import sys
import tempfile

state = os.environ["directory"] or os.path.expanduser("~/.local/state/muster-packs")
os.makedirs(os.path.join(state, "deployments"), mode=0o700, exist_ok=True)


def drill(action):
    """A line with the name of an action in the file `fail` makes it fail: to see what a workflow does then."""
    try:
        with open(os.path.join(state, "fail")) as file:
            if action in file.read().split():
                sys.exit(f"{action} is told to fail by {state}/fail")
    except FileNotFoundError:
        pass


def write(path, value):
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False) as file:
        json.dump(value, file)
    os.replace(file.name, path)


def answer(**result):
    with open(os.environ["MUSTER_OUTPUT"], "w") as file:
        json.dump(result, file)


def named(what):
    """A name that can be part of a file's."""
    value = os.environ[what]
    if not value.replace("-", "").replace("_", "").replace(".", "").isalnum() or value.startswith("."):
        sys.exit(f"{what} must be letters, digits, `.`, `_` and `-`, not {value!r}")
    return value


drill("my_pack.create_deployment_record")
app, version, environment = named("app_name"), named("version"), os.environ["environment"]
deployment = f"{app}-{version}-{environment}-{os.environ['MUSTER_EXECUTION'][-8:].lower()}"
health = os.environ["health_url"] or f"file://{os.path.abspath(state)}/kubernetes/{app}.json"
record = {"id": deployment, "app": app, "version": version, "environment": environment, "status": "running"}
write(os.path.join(state, "deployments", f"{deployment}.json"), record)
answer(id=deployment, health_url=health, status="running")
print(f"{deployment} begins")
