"""How much a job's node may put: counted in the database, set aside in steps before the bytes are taken."""

from __future__ import annotations

from sqlalchemy import update

from app.errors import TooLarge
from app.services.bearers import Bearer
from app.services.control import Control
from app.store.statements import insert_into
from app.store.tables import JobUpload, table

uploads = table(JobUpload)

STEP = 16 << 20
"""Bytes that are set aside at once, so that a bundle of small files costs few transactions."""


class Allowance:
    """One request's part of what a pass lets its bearer put; for people nothing is counted.

    What was set aside and not taken is given back at the end, so that several requests at once stay within the pass.
    """

    def __init__(self, control: Control, bearer: Bearer) -> None:
        self._control = control
        self._given = bearer.given
        self._left = 0

    def __enter__(self) -> Allowance:
        return self

    def __exit__(self, *_: object) -> None:
        if self._given is not None and self._left:
            self._add(-self._left)
            self._left = 0

    def take(self, count: int) -> None:
        """So many bytes are about to come. Raises TooLarge where the job may not put as many."""
        if self._given is None:
            return
        lacking = count - self._left
        if lacking > 0:
            if self._add(lacking + STEP):
                self._left += lacking + STEP
            elif self._add(lacking):
                self._left += lacking
            else:
                raise TooLarge(
                    f"job {self._given.job} may put {self._given.bytes} bytes in all, and this would be more",
                    hint="keep fewer files: `exclude`, `artifacts`; or raise MUSTER_WORKSPACE_UPLOAD",
                    code="upload-limit",
                )
        self._left -= count

    def give_back(self, count: int) -> None:
        """So many of those did not come."""
        if self._given is not None:
            self._left += count

    def _add(self, count: int) -> bool:
        """Whether the sum stays within the pass."""
        assert self._given is not None
        job, most = self._given.job, self._given.bytes
        with self._control.store.write() as connection:
            connection.execute(
                insert_into(connection, uploads).values(job=job, bytes=0).on_conflict_do_nothing()
            )
            grown = update(uploads).where(uploads.c.job == job, uploads.c.bytes + count <= most)
            return bool(connection.execute(grown.values(bytes=uploads.c.bytes + count)).rowcount)
