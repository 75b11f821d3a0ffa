"""MLflow's registry as far as aliases, versions and tags go, in a dictionary: for tests of orders of events.

What really happens at a server is tested in ``tests/integration``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from airflow_provider_xops.errors import NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ModelVersion
from tests.unit.registry.builders import a_model, dataset, selection

__all__ = ["FakeRegistry", "recorded_models"]


class FakeRegistry:
    """One model with some versions; made at 1000 + their number, as :func:`.builders.a_model` makes them.

    ``before_alias`` is called with the version before each alias is set: whoever else decides in between.
    Another ``made_ms`` makes the model anew under its name.
    """

    def __init__(self, versions: int = 5) -> None:
        self.tags: dict[int, dict[str, str]] = {number: {} for number in range(1, versions + 1)}
        self.pointed: dict[str, int] = {}
        self.history: list[int | None] = []
        self.before_alias: Callable[[int], None] = lambda _version: None
        self.made_ms = 1000

    @contextlib.contextmanager
    def session(self, _doing: str, **_: Any) -> Iterator[FakeRegistry]:
        yield self

    def aliases(self, _name: str) -> dict[str, int]:
        return dict(self.pointed)

    def alias_target(self, _name: str, alias: str) -> int | None:
        return self.pointed.get(alias)

    def get_version(self, name: str, version: int) -> Any:
        if version not in self.tags:
            raise NotFoundError(f"model {name} has no version {version}", code="not_found.model_version")
        return SimpleNamespace(
            name=name,
            version=str(version),
            creation_timestamp=self.made_ms + version,
            tags=self.tags[version],
        )

    def set_registered_model_alias(self, _name: str, alias: str, version: str) -> None:
        self.before_alias(int(version))
        self.pointed[alias] = int(version)
        self.history.append(int(version))

    def delete_registered_model_alias(self, _name: str, alias: str) -> None:
        self.pointed.pop(alias, None)
        self.history.append(None)

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.get_version(name, int(version)).tags[key] = value


def recorded_models(lake: Lake, count: int = 3, **changes: Any) -> list[ModelVersion]:
    """Versions 1 to ``count``, trained on this lake's data, in its evidence."""
    ref = dataset(lake_id=lake.lake_id)
    sides = {"training": selection("2013-01", ref=ref), "holdout": selection("2013-02", ref=ref)}
    made = [a_model(number, **(sides | changes)) for number in range(1, count + 1)]
    for each in made:
        lake.evidence.put(each)
    return made
