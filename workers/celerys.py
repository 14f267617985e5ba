"""What the environment says to Celery's own command is not meant for these workers."""

from __future__ import annotations

import logging

from app.settings import drop_foreign


def refuse_options() -> None:
    """Forgets options of `celery worker` and `celery beat` that come from variables, and names them in the log.

    Celery reads them right after it has imported the worker's module.
    """
    foreign = drop_foreign()
    if foreign:
        logging.getLogger(__name__).warning(
            "%s: Celery's own, not heeded: set MUSTER_… instead (docs/settings.md)", ", ".join(foreign)
        )
