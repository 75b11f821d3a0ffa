"""A target that is a file: real state outside the process, and faults to order. For tests of the rollout."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_xops.records import Deployment, ModelVersion
from airflow_provider_xops.serving.targets.base import (
    Answer,
    Observation,
    Readiness,
    ServingBackend,
    VersionFigures,
)


class FolderTarget(ServingBackend):
    """Versions are loaded and given shares in a JSON file; answers are the recorded golden predictions.

    :param fault: called with the name of each method and its model before it acts; what it raises is raised.
    :param answer: gives a version's predictions instead of the recorded ones.
    :param figures: gives what callers got in a window, by version.
    """

    kind = "folder"
    supports_shadow = True

    def __init__(
        self,
        path: Path,
        *,
        serves: int | None = None,
        fault: Callable[[str, ModelVersion | None], None] = lambda name, model: None,
        answer: Callable[[ModelVersion], list[Any]] | None = None,
        figures: Callable[[], dict[int, VersionFigures]] = dict,
        replicas: int = 2,
    ) -> None:
        self.path, self.fault, self.figures, self.replicas = path, fault, figures, replicas
        self.answer = answer or (lambda model: [ast.literal_eval(label) for label in model.golden.labels])  # type: ignore[union-attr]
        self.calls: list[str] = []
        if not path.exists():
            first = {} if serves is None else {str(serves): 1.0}
            self._write({"loaded": [int(each) for each in first], "shares": first, "shadows": {}})

    @property
    def endpoint(self) -> str:
        return str(self.path)

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    def _write(self, state: dict[str, Any]) -> None:
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(state))
        beside.replace(self.path)

    def _begin(self, name: str, model: ModelVersion | None = None) -> dict[str, Any]:
        self.calls.append(name)
        self.fault(name, model)
        return self.state

    def prepare(self, deployment: Deployment, model: ModelVersion) -> None:
        state = self._begin("prepare", model)
        state["loaded"] = sorted({*state["loaded"], model.version})
        self._write(state)

    def ready(self, deployment: Deployment, model: ModelVersion) -> Readiness:
        state = self._begin("ready", model)
        return Readiness(ready=model.version in state["loaded"], reason="not loaded", replicas=self.replicas)

    def ask(self, model: ModelVersion, frame: Any, *, alias: str, version: int | None) -> tuple[Answer, ...]:
        state = self._begin("ask", model)
        serving = max(state["shares"], key=state["shares"].get, default=None)
        chosen = version if version is not None else serving
        if chosen is None or int(chosen) not in state["loaded"]:
            return tuple(self._answer(each, 404, None, None) for each in range(self.replicas))
        said = self.answer(model)
        return tuple(self._answer(each, 200, int(chosen), said) for each in range(self.replicas))

    def _answer(self, replica: int, status: int, version: int | None, said: list[Any] | None) -> Answer:
        return Answer(
            replica=f"replica-{replica}", status=status, seconds=0.01, version=version, predictions=said
        )

    def shift(self, deployment: Deployment, model: ModelVersion, weight: float) -> None:
        state = self._begin("shift", model)
        if deployment.settings.get("role") == "shadow":
            state["shadows"] = {str(model.version): weight}
        else:
            state["shares"] = {str(model.version): weight}
            if weight < 1 and deployment.previous is not None:
                state["shares"][str(deployment.previous.version)] = 1 - weight
        self._write(state)

    def settled(self, deployment: Deployment, model: ModelVersion, weight: float) -> Readiness:
        state = self._begin("settled", model)
        where = "shadows" if deployment.settings.get("role") == "shadow" else "shares"
        share = state[where].get(str(model.version), 0.0)
        return Readiness(ready=abs(share - weight) < 1e-9, reason="not yet", replicas=self.replicas)

    def serving(self, model: str, alias: str) -> dict[int, float]:
        return {int(version): share for version, share in self._begin("serving")["shares"].items()}

    def mark(self, deployment: Deployment, *, as_of: datetime) -> Any:
        self._begin("mark")
        return as_of.isoformat()

    def observe(self, deployment: Deployment, *, since: Any, as_of: datetime) -> Observation | None:
        self._begin("observe")
        begin = datetime.fromisoformat(since)
        return Observation(versions=self.figures(), seconds=(as_of - begin).total_seconds())

    def finish(self, deployment: Deployment, model: ModelVersion, *, keep_previous: bool) -> None:
        state = self._begin("finish", model)
        if not keep_previous:
            state["loaded"] = [model.version]
        self._write(state)

    def abort(self, deployment: Deployment, model: ModelVersion) -> None:
        state = self._begin("abort", model)
        previous = deployment.previous.version if deployment.previous is not None else None
        state["loaded"] = [each for each in state["loaded"] if each != model.version]
        state["shares"] = {} if previous is None else {str(previous): 1.0}
        state["shadows"] = {}
        self._write(state)
