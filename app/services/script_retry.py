"""A script is tried again on the nodes where it failed; those where it succeeded keep their result."""

from __future__ import annotations

from sqlalchemy import select

from app.engine.status import SUCCEEDED
from app.errors import Conflict
from app.services import again, features, script_results
from app.services.control import Control
from app.services.scripted import TASK
from app.store.tables import Task, table

tasks = table(Task)


def retry(control: Control, execution: str, person: str, reason: str = "") -> str:
    """Reset the nodes that failed, were cancelled or not reached, and go on. Returns the status after it.

    Failures that were put up with (`max_failures`) count too. Raises FeatureOff, NotFound, and Conflict where it is
    not over, was rejected, or nothing of it failed.
    """
    features.need(control.settings, features.EXEC)
    with control.store.read() as connection:
        script_results.check(connection, execution)
        query = select(tasks.c.status, tasks.c.failed)
        status, failed = connection.execute(
            query.where(tasks.c.execution == execution, tasks.c.name == TASK)
        ).one()
    # It is over or `again` refuses; and what is over stays as it is until somebody tries it again.
    units = (TASK,) if status == SUCCEEDED and failed else ()
    try:
        return again.retry(control, execution, person, again.Wanted(units=units, reason=reason))
    except Conflict as error:
        if error.code == "nothing-to-retry":
            error.hint = "it failed on no node; execute it anew to run it again"
        raise
