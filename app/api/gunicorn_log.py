"""`gunicorn --logger-class app.api.gunicorn_log.Logger`: gunicorn's own lines in the form of all others."""

from __future__ import annotations

from gunicorn.config import Config
from gunicorn.glogging import Logger as GunicornLogger

from app.logs.structured import configure
from app.settings import from_environment


class Logger(GunicornLogger):
    """Hands its lines to the log of the process, before there is a worker too. Raises BadSetting."""

    def setup(self, cfg: Config) -> None:
        """As `cfg` says for levels; where lines go is ours."""
        super().setup(cfg)
        configure(from_environment(), process="api")
