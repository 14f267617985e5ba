"""The OpenAPI document, made when it is first asked for: it takes longer than all the rest of the API's start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from apispec import APISpec
from flask_smorest import Blueprint

from app.api.problems import ProblemApi


class DescribedApi(ProblemApi):
    """Routes are there as soon as they are registered; their description is put into `spec` when that is read next."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Whoever writes a part of the document reads `spec` while it is made.
        self._describing = threading.RLock()
        self._undescribed: list[Callable[[], None]] = []
        self._spec: APISpec | None = None
        super().__init__(*args, **kwargs)

    @property
    def spec(self) -> APISpec:
        with self._describing:
            undescribed, self._undescribed = self._undescribed, []
            for describe in undescribed:
                describe()
        assert self._spec is not None, "there is an application by now"
        return self._spec

    @spec.setter
    def spec(self, spec: APISpec | None) -> None:
        self._spec = spec

    def register_blueprint(
        self, blueprint: Blueprint, *, parameters: list[Any] | None = None, **options: Any
    ) -> None:
        """As flask-smorest's, but for the time of the description."""
        name = options.get("name", blueprint.name)
        self._app.extensions["flask-smorest"]["blp_name_to_api"][name] = self
        self._app.register_blueprint(blueprint, **options)
        self._undescribed.append(partial(self._describe, blueprint, name, parameters))

    def _describe(self, blueprint: Blueprint, name: str, parameters: list[Any] | None) -> None:
        blueprint.register_views_in_doc(self, self._app, self.spec, name=name, parameters=parameters)
        self.spec.tag({"name": name, "description": blueprint.description})
