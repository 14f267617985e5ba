"""How workflows and executions look, and why a task ran, waits, or will never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, jsonify
from flask_smorest import Blueprint

from app.api import asked, shown_graph, within
from app.api.gate import needs
from app.api.strict import Parser
from app.api.wiring import control, reading
from app.compiler import drawing
from app.services import explain, library

graphs = Blueprint("graphs", __name__, description="Graphs of workflows and executions, and explanations.")
graphs.ARGUMENTS_PARSER = Parser()

_shown = shown_graph.GraphSchema()
_DRAWN = {"mermaid": drawing.mermaid, "dot": drawing.dot}
_TEXT: dict[str, Any] = {"schema": {"type": "string"}, "content_type": "text/plain", "success": True}


@graphs.route("/workflow-executions/<ulid:id>/graph", methods=["GET"])
@needs("viewer", within.EXECUTION)
@graphs.arguments(asked.GraphQuery, location="query")
@graphs.response(200, shown_graph.GraphSchema)
@graphs.alt_response(200, **_TEXT)
def graph_of_execution(query: dict[str, Any], id: str) -> Response:
    """Tasks with how they went, edges with where they stand; as JSON, or as a text to be drawn."""
    with reading() as connection:
        return _answer(explain.graph_of(connection, id), query["format"])


@graphs.route("/workflows/<ref:ref>/graph", methods=["GET"])
@needs("viewer", within.WORKFLOW)
@graphs.arguments(asked.DefinitionGraphQuery, location="query")
@graphs.response(200, shown_graph.GraphSchema)
@graphs.alt_response(200, **_TEXT)
def graph_of_workflow(query: dict[str, Any], ref: str) -> Response:
    """The graph of a stored workflow, at its newest revision or the one asked for."""
    with reading() as connection:
        return _answer(library.graph(connection, ref, query["revision"]), query["format"])


@graphs.route("/workflow-executions/<ulid:id>/explain", methods=["GET"])
@needs("viewer", within.EXECUTION)
@graphs.response(200, shown_graph.ExplanationsSchema)
def explain_all(id: str) -> dict[str, Any]:
    """Why each task ran, waits, or will never run."""
    wired = control()
    with reading() as connection:
        items = explain.explanations(connection, wired.settings, id, wired.clock())
        return {"items": items, "parent": explain.parent_of(connection, id)}


@graphs.route("/workflow-executions/<ulid:id>/tasks/<task:name>/explain", methods=["GET"])
@needs("viewer", within.EXECUTION)
@graphs.response(200, shown_graph.ExplanationSchema)
def explain_task(id: str, name: str) -> dict[str, Any]:
    """Why one task ran, waits, or will never run: in sentences, and as data."""
    wired = control()
    with reading() as connection:
        return explain.explanations(connection, wired.settings, id, wired.clock(), name)[0]


def _answer(graph: Mapping[str, Any], form: str) -> Response:
    draw = _DRAWN.get(form)
    if draw is None:
        return jsonify(_shown.dump(graph))
    return Response(draw(graph), content_type="text/plain; charset=utf-8")
