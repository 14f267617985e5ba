"""The machines of the fleet."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask_smorest import Blueprint

from app.api import asked, within
from app.api import shown_nodes as shown
from app.api.gate import OPEN, needs, person
from app.api.strict import Parser
from app.api.wiring import control, reading
from app.services import fleet, scope, ssh_nodes

nodes = Blueprint("nodes", __name__, description="The machines of the fleet.")
nodes.ARGUMENTS_PARSER = Parser()


@nodes.route("/nodes", methods=["GET"])
@needs("viewer", within.ANYTHING)
@nodes.response(200, shown.NodesSchema)
def list_nodes() -> dict[str, Any]:
    """Every node that was not removed."""
    with reading() as connection:
        return {"items": fleet.list_nodes(control(), connection, within=scope.nodes_of(person()))}


@nodes.route("/nodes/<node:name>", methods=["GET"])
@needs("viewer", within.NODE)
@nodes.response(200, shown.NodeSchema)
def get_node(name: str) -> dict[str, Any]:
    """One node."""
    with reading() as connection:
        return fleet.get_node(control(), connection, name)


@nodes.route("/nodes/tokens", methods=["POST"])
@needs("admin")
@nodes.arguments(asked.NodeTokenSchema)
@nodes.response(201, shown.NewNodeTokenSchema)
def create_token(body: dict[str, Any]) -> fleet.NewToken:
    """Make a one-time token that enrols one node."""
    return fleet.create_token(
        control(),
        body["node"],
        person().login,
        labels=body["labels"],
        lifetime=body["lifetime"],
        replace=body["replace"],
    )


@nodes.route("/nodes/enroll", methods=["POST"])
@needs(OPEN)
@nodes.arguments(asked.EnrollSchema)
@nodes.response(201, shown.EnrolledSchema)
def enroll(body: dict[str, Any]) -> fleet.Enrolled:
    """Become a node. The one-time token in the body is what allows it; no other is needed."""
    return fleet.enroll(control(), fleet.Enrolment(**body))


@nodes.route("/nodes", methods=["POST"])
@needs("admin")
@nodes.arguments(asked.SshNodeSchema)
@nodes.response(201, shown.NodeSchema)
def add(body: dict[str, Any]) -> dict[str, Any]:
    """Add a machine that has only an SSH server. It gets work once its host key is trusted."""
    made = {name: value for name, value in body.items() if name not in ("transport", "replace")}
    ssh_nodes.add(control(), ssh_nodes.NewNode(**made), person().login, replace=body["replace"])
    with reading() as connection:
        return fleet.get_node(control(), connection, body["name"])


@nodes.route("/nodes/<node:name>/trust", methods=["POST"])
@needs("admin")
@nodes.arguments(asked.TrustSchema)
@nodes.response(200, shown.NodeSchema)
def trust(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Trust the host key that an SSH node was seen with, from now on."""
    ssh_nodes.trust(control(), name, body["fingerprint"], person().login)
    with reading() as connection:
        return fleet.get_node(control(), connection, name)


@nodes.route("/nodes/<node:name>/drain", methods=["POST"])
@needs("operator", within.NODE)
@nodes.arguments(asked.DrainSchema)
@nodes.response(200, shown.NodeStateSchema)
def drain(body: dict[str, Any], name: str) -> dict[str, str]:
    """Give a node nothing new, or work again."""
    return {"name": name, "state": fleet.drain(control(), name, person().login, wanted=body["drain"])}


@nodes.route("/nodes/<node:name>", methods=["DELETE"])
@needs("admin")
@nodes.arguments(asked.ForceQuery, location="query")
@nodes.response(204)
def remove(query: dict[str, Any], name: str) -> Response:
    """Take a node out of the fleet; refused while it holds jobs, unless by force."""
    fleet.remove(control(), name, person().login, force=query["force"])
    return Response(status=204)
