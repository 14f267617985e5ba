"""What a person may see and run on: packs bound workflows and all that comes of them, labels bound nodes.

Questions take a `Person` where somebody asks, and give conditions for the query that answers; None means no bounds.
Checks of what is run take a login: whoever asked for an execution is held to their scope as long as it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Text, and_, cast, false, or_, select, true

from app.compiler.build import static_node
from app.compiler.plan import FANOUT_ACTION, LOCAL, Plan, PlanTask
from app.errors import NotAllowed
from app.language.expressions import has_template
from app.language.pack_tables import CORE
from app.services import roles
from app.services.control import Control
from app.services.people import Person
from app.store.tables import Approval, Execution, Node, Pack, PackAction, User, WorkflowDefinition, table

executions, approvals, nodes, users = table(Execution), table(Approval), table(Node), table(User)
packs, actions, definitions = table(Pack), table(PackAction), table(WorkflowDefinition)

Condition = ColumnElement[bool] | None

MOST_TOLD = 20
_HINT = "ask an administrator: `muster user show` tells what each may"


# what a person may see


def executions_of(person: Person, role: str = "viewer") -> Condition:
    """Executions of the packs for which somebody has a role."""
    return _of_packs(executions.c.workflow_ref, roles.packs_of(person.grants, role))


def approvals_of(person: Person) -> Condition:
    """Approvals of executions of their packs, and those that name them; joined with their executions."""
    mine = _of_packs(executions.c.workflow_ref, roles.packs_of(person.grants, "viewer"))
    return None if mine is None else or_(mine, _is_named(person.login))


def workflows_of(person: Person) -> Condition:
    """Stored workflows of their packs."""
    return _in(definitions.c.pack_ref, roles.packs_of(person.grants, "viewer"))


def packs_of(person: Person) -> Condition:
    """Their packs."""
    return _in(packs.c.ref, roles.packs_of(person.grants, "viewer"))


def actions_of(person: Person, column: ColumnElement[str]) -> Condition:
    """What can be called, of their packs; `column` is its reference."""
    return _of_packs(column, roles.packs_of(person.grants, "viewer"))


def nodes_of(person: Person, role: str = "viewer", pack: str | None = None) -> Condition:
    """The nodes on which somebody has a role, for executions of `pack` if one is named."""
    held = roles.nodes_of(person.grants, role, pack)
    if held is None:
        return None
    return or_(false(), *(_has(one.labels or ()) for one in held))


def _has(labels: Iterable[tuple[str, str]]) -> ColumnElement[bool]:
    return and_(true(), *(nodes.c.labels[name].as_string() == value for name, value in labels))


def _in(column: ColumnElement[str], wanted: frozenset[str] | None) -> Condition:
    return None if wanted is None else column.in_(sorted(wanted))


def _of_packs(ref: ColumnElement[str], wanted: frozenset[str] | None) -> Condition:
    if wanted is None:
        return None
    return or_(false(), *(ref.startswith(f"{pack}.", autoescape=True) for pack in sorted(wanted)))


def _is_named(login: str) -> ColumnElement[bool]:
    """A login has nothing in it that JSON writes in another way."""
    return cast(approvals.c.approvers, Text).contains(f'"{login}"', autoescape=True)


def is_there(connection: Connection, query: Any, condition: Condition) -> bool:
    """Whether a query finds a row within a scope."""
    query = query if condition is None else query.where(condition)
    return connection.execute(query.limit(1)).first() is not None


def execution(connection: Connection, id_: str, condition: Condition) -> bool:
    """Whether there is an execution within a scope."""
    return is_there(connection, select(executions.c.id).where(executions.c.id == id_), condition)


def approval(connection: Connection, id_: str, condition: Condition) -> bool:
    """Whether there is an approval within a scope."""
    joined = select(approvals.c.id).join(executions, executions.c.id == approvals.c.execution)
    return is_there(connection, joined.where(approvals.c.id == id_), condition)


def node(connection: Connection, name: str, condition: Condition) -> bool:
    """Whether there is a node within a scope."""
    known = select(nodes.c.name).where(nodes.c.name == name, nodes.c.state != "removed")
    return is_there(connection, known, condition)


# what a person may decide


def is_named(connection: Connection, approval: str, login: str) -> bool:
    """Whether a question names somebody among those who decide it: whoever is named may, whatever their role."""
    found = connection.execute(select(approvals.c.approvers).where(approvals.c.id == approval)).scalar()
    return login in (found or ())


def pack_of_approval(connection: Connection, approval: str) -> str:
    """The pack whose execution asks; "" for a question that is not there."""
    query = select(executions.c.workflow_ref).join(approvals, approvals.c.execution == executions.c.id)
    return pack_of(connection.execute(query.where(approvals.c.id == approval)).scalar() or "")


# what a person may have run


def pack_of(ref: str) -> str:
    """The pack of a workflow or action."""
    return ref.partition(".")[0]


def check_submission(
    control: Control, connection: Connection, login: str, plan: Plan, *, origin: str, kind: str
) -> None:
    """Raises NotAllowed with pointers where a plan is outside of somebody's scope as far as its text tells.

    That is its pack; the nodes that it names; and for what is not stored, the packs that it calls. `origin` and `kind`
    are the submission's: they tell where in the request those stand.
    """
    grants = control.scoped.grants(connection, login)
    if grants is None:
        return
    at = "/definition" if origin == "inline" else ""
    pack = pack_of(plan.ref)
    role = "author" if origin == "inline" else "operator"
    if not roles.may(grants, role, pack):
        raise _outside([_error(f"{at}/ref" if at else "", f"{login} is no {role} of the pack {pack}")])
    if origin == "inline":
        _check_calls(grants, login, plan)
    labels = {one.name: one.labels for one in control.roster.nodes(connection, anew=True).values()}
    errors = [
        _error(
            f"{_LISTS[kind]}/{number}" if kind in _LISTS else at,
            f"task {task.name}: {_not_on(login, name)}",
        )
        for task in plan.tasks.values()
        if task.runs_on_nodes
        for number, name in _named(task)
        if not roles.may_run_on(grants, pack, labels.get(name, {}))
    ]
    errors += [
        _error(at, f"task {task.name}: {_not_on(login, task.flow['host'])}, for it is no node")
        for task in plan.tasks.values()
        if task.flow is not None and roles.nodes_of(grants, "operator") is not None
    ]
    if errors:
        raise _outside(errors)


_LISTS: Final = {"adhoc": "/nodes", "script": "/host_ids"}
"""Where a request names its nodes, by the kind of what it asks for."""


def _named(task: PlanTask) -> list[tuple[int, str]]:
    """The nodes that a task's text names, with their places."""
    if task.action == FANOUT_ACTION:
        given = task.input.get("nodes")
        if not isinstance(given, list | tuple):
            return []
        is_literal = "nodes" in task.literal
        return [
            (number, name)
            for number, name in enumerate(given)
            if isinstance(name, str) and (is_literal or not has_template(name))
        ]
    found = static_node(task)
    return [] if found is None else [(0, found)]


def check_nodes(
    control: Control, connection: Connection, person: Person, names: Sequence[str], pack: str, at: str
) -> None:
    """Raises NotAllowed with a pointer `at`/N for each node on which somebody may have nothing of a pack run.

    A node that is not there is refused in the same words, so nothing is told of what is out of sight.
    """
    if not person.is_scoped:
        return
    if not person.may("operator", pack):
        raise _outside([_error("", f"{person.login} is no operator of the pack {pack}")])
    labels = {one.name: one.labels for one in control.roster.nodes(connection, anew=True).values()}
    errors = [
        _error(f"{at}/{number}", _not_on(person.login, name))
        for number, name in enumerate(names)
        if name not in labels or not roles.may_run_on(person.grants, pack, labels[name])
    ]
    if errors:
        raise _outside(errors)


def check_calls(control: Control, connection: Connection, login: str, plan: Plan) -> None:
    """Raises NotAllowed where somebody would store a workflow that calls what they may not run themselves."""
    grants = control.scoped.grants(connection, login)
    if grants is not None:
        _check_calls(grants, login, plan)


def _check_calls(grants: roles.Grants, login: str, plan: Plan) -> None:
    called = sorted({task.action for task in plan.tasks.values() if task.has_child} | plan.actions.keys())
    errors = [
        _error("/definition", f"{ref} is called, and {login} may run nothing of the pack {pack_of(ref)}")
        for ref in called
        if pack_of(ref) != CORE and not roles.may(grants, "operator", pack_of(ref))
    ]
    if errors:
        raise _outside(errors)


def check_again(control: Control, connection: Connection, login: str, requester: str) -> None:
    """Raises NotAllowed where somebody would have jobs of another one started again on nodes that are not theirs.

    Jobs are held to the scope of who asked for them; so who is held to nodes does this for their own only.
    """
    grants = control.scoped.grants(connection, login)
    if grants is None or login == requester or roles.nodes_of(grants, "operator") is None:
        return
    raise NotAllowed(
        f"{requester} asked for this, and {login} may run on some nodes only",
        hint=f"ask {requester} or somebody who may run on all nodes, or execute it anew",
        code="out-of-scope",
    )


def check_newer(connection: Connection, login: str, requester: str) -> None:
    """Raises NotAllowed where somebody would have a newer text run with another one's rights and secrets.

    Whoever asked for an execution asked for its text as it was; an administrator may do all that they may.
    """
    admin = select(users.c.login).where(
        users.c.login == login, users.c.role == "admin", users.c.enabled.is_(True)
    )
    if login == requester or connection.execute(admin).first() is not None:
        return
    raise NotAllowed(
        f"{requester} asked for this by the text that it had, and a newer one would run on their behalf",
        hint="execute it anew, or try it again without a version",
        code="not-requester",
    )


def check_job(control: Control, connection: Connection, login: str, ref: str, node: str) -> None:
    """Raises NotAllowed where a job of a workflow may not go to a node, for whoever asked for it may not run there."""
    grants = control.scoped.grants(connection, login)
    if grants is None:
        return
    known = control.roster.nodes(connection).get(node)
    if not roles.may_run_on(grants, pack_of(ref), {} if known is None else known.labels):
        raise NotAllowed(_not_on(login, node), hint=_HINT, code="out-of-scope")


def check_host(control: Control, connection: Connection, login: str, host: str) -> None:
    """Raises NotAllowed where a flow may not go to a host, for whoever asked for it may run on some nodes only."""
    grants = control.scoped.grants(connection, login)
    if grants is not None and roles.nodes_of(grants, "operator") is not None:
        raise NotAllowed(f"{_not_on(login, host)}, for it is no node", hint=_HINT, code="out-of-scope")


def _not_on(login: str, node: str) -> str:
    shown = "the control side's own node `local`" if node == LOCAL else node[:63]
    return f"{login} may run nothing on {shown}"


def _error(pointer: str, detail: str) -> Mapping[str, str]:
    return {"pointer": pointer, "detail": detail}


def _outside(errors: Sequence[Mapping[str, str]]) -> NotAllowed:
    more = f" (and {len(errors) - 1} more)" if errors[1:] else ""
    return NotAllowed(
        errors[0]["detail"] + more, hint=_HINT, code="out-of-scope", errors=[*errors[:MOST_TOLD]]
    )
