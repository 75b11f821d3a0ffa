"""Sessions, requests and clocks for the tests of the prediction log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import Actor, ModelVersion, ServingSession, VariantRole
from airflow_provider_xops.serving.online.prediction_log import LoggedBatch, PredictionLog
from airflow_provider_xops.serving.online.sessions import PredictionIds

NOON = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
ACTOR = Actor.user("gate-1", key="serve", fence=1)


@dataclass
class Clock:
    """A clock that a test moves."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def move(self, **time: float) -> None:
        self.now += timedelta(**time)


@dataclass
class Switch:
    """Opens a lake, or does not while ``down`` is set."""

    lake: Lake
    down: bool = False
    tried: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> Lake:
        self.tried.set()
        if self.down:
            raise UnavailableError("the storage did not answer", code="unavailable.storage")
        return self.lake


def model_version(version: int = 1, **changed: Any) -> ModelVersion:
    """A registered model without training data."""
    facts: dict[str, Any] = {
        "recorded_at": NOON, "produced_by": ACTOR.producer, "name": "delay", "version": version,
        "created_at_ms": 1_700_000_000_000 + version, "run_id": f"run{version}",
        "source_uri": "runs:/x/model", "training": None, "holdout": None,
        "features": ("carrier", "distance"), "target": "late", "task": "classification",
        "estimator": "sklearn.linear_model:LogisticRegression", "code_version": "git:abc",
        "params_digest": "8" * 64, "artifact_digest": "9" * 64, "metrics": {},
    }  # fmt: skip
    return ModelVersion(**{**facts, **changed})


def session_of(version: int = 1, *, server: str = "gate-1", alias: str = "champion") -> ServingSession:
    """A session that is in no lake."""
    model = model_version(version)
    return ServingSession(
        recorded_at=NOON, produced_by=ACTOR.producer, server=server, model=model.ref, alias=alias,
        model_record=model.record_id, started_at=NOON, log_table="delay_log",
    )  # fmt: skip


@dataclass
class Caller:
    """Makes the batches of one session's requests."""

    session: ServingSession = field(default_factory=session_of)
    clock: Callable[[], datetime] = field(default_factory=Clock)
    ids: PredictionIds = field(init=False)

    def __post_init__(self) -> None:
        self.ids = PredictionIds(self.session)

    def request(self, labels: Sequence[Any] = (0, 1), **changed: Any) -> LoggedBatch:
        """One request; ``scores`` follow from the labels."""
        rows = len(labels)
        facts: dict[str, Any] = {
            "session": self.session, "variant": VariantRole.PRIMARY, "first": self.ids.take(rows),
            "rows": rows, "at": self.clock(), "predictions": np.array(labels),
            "scores": np.linspace(0.1, 0.9, rows), "duration_ms": 2.5,
        }  # fmt: skip
        return LoggedBatch(**{**facts, **changed})


def make_log(lake_factory: Callable[[], Lake], **changed: Any) -> PredictionLog:
    """A log that writes only when it is told to, unless its bounds are changed."""
    facts: dict[str, Any] = {
        "server": "gate-1", "flush_rows": 1_000, "max_rows": 1_000, "flush_seconds": 3_600,
        "clock": Clock(), "actor": ACTOR,
    }  # fmt: skip
    return PredictionLog(lake_factory, "delay_log", **{**facts, **changed})


def logged(lake: Lake, *columns: str, table: str = "delay_log") -> list[Any]:
    """The rows of the log (of one column, its values)."""
    found = scan(lake, head(lake, table), columns=list(columns) or None).read_all()
    return found.column(0).to_pylist() if len(columns) == 1 else found.to_pylist()
