"""Ledgers, plans and small loaded models for the tests of what serves."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.records import (
    ModelVersion,
    PromotionDecision,
    PromotionOutcome,
    ServingSession,
    TrafficSplit,
    Variant,
    VariantRole,
)
from airflow_provider_xops.registry.ledger_state import LedgerState
from airflow_provider_xops.serving.online.variants import Feature, FeatureKind, GoldenCheck, LoadedModel
from airflow_provider_xops.serving.plan import ServingPlan
from airflow_provider_xops.training.metrics import Task
from tests.unit.registry.builders import AS_OF, a_model, an_actor

MODEL, ALIAS = "late", "champion"
PROMOTED, ROLLED_BACK, APPLIED = (
    PromotionOutcome.PROMOTED, PromotionOutcome.ROLLED_BACK, PromotionOutcome.APPLIED,
)  # fmt: skip
HELD, RELEASED, RETIRED, NOMINATED = (
    PromotionOutcome.HELD, PromotionOutcome.RELEASED, PromotionOutcome.RETIRED, PromotionOutcome.NOMINATED,
)  # fmt: skip
ROWS = pd.DataFrame({"a": [0.0, 1.0], "b": [1.0, 0.0]})


def entry(sequence: int, outcome: PromotionOutcome, version: int | None) -> PromotionDecision:
    return PromotionDecision(
        recorded_at=AS_OF, produced_by=an_actor().producer, model=MODEL, alias=ALIAS, sequence=sequence,
        outcome=outcome, to_version=version, to_created_at_ms=None if version is None else 1000 + version,
        reason="in a test", idempotency_key=f"key {sequence}", previous_hash="", entry_hash=str(sequence),
        expected=None, from_version=None, artifact_digest=None, evidence=(),
    )  # fmt: skip


def state_of(*events: tuple[PromotionOutcome, int | None]) -> LedgerState:
    """A ledger with these entries, numbered from 1."""
    found = tuple(entry(number, outcome, version) for number, (outcome, version) in enumerate(events, 1))
    return LedgerState(MODEL, ALIAS, found)


def part(version: int, role: str, weight: float = 0.0) -> Variant:
    return Variant(version=version, created_at_ms=1000 + version, role=VariantRole(role), weight=weight)


def primary(version: int, weight: float = 1.0) -> Variant:
    return part(version, "primary", weight)


def canary(version: int, weight: float) -> Variant:
    return part(version, "canary", weight)


def split_of(
    *variants: Variant, basis: int, sequence: int = 1, rollout: bool = False, key: str = "split"
) -> TrafficSplit:
    return TrafficSplit(
        recorded_at=AS_OF, produced_by=an_actor().producer, model=MODEL, alias=ALIAS, sequence=sequence,
        variants=variants, basis=basis, rollout=rollout, reason="in a test", idempotency_key=key,
    )  # fmt: skip


def plan(*variants: Variant, standby: int | None = None) -> ServingPlan:
    return ServingPlan(
        model=MODEL, alias=ALIAS, variants=variants,
        standby=None if standby is None else part(standby, "standby"),
    )  # fmt: skip


class Constant:
    """An estimator whose every answer is its version."""

    def __init__(self, version: int) -> None:
        self.version = version
        # Something to see in memory.
        self.ballast = np.zeros(1000)

    def predict(self, frame: pd.DataFrame) -> Any:
        return np.full(len(frame), float(self.version))


def loaded_model(version: int, **changes: Any) -> LoadedModel:
    record: ModelVersion = a_model(version, name=MODEL, task="regression")
    session = ServingSession(
        recorded_at=AS_OF, produced_by=an_actor().producer, server="gate-1", model=record.ref, alias=ALIAS,
        model_record=record.record_id, started_at=AS_OF + timedelta(microseconds=time.monotonic_ns() % 10**9),
    )  # fmt: skip
    values: dict[str, Any] = {
        "record": record, "session": session, "estimator": Constant(version), "task": Task.REGRESSION,
        "classes": None, "features": tuple(Feature(name=each, kind=FeatureKind.NUMBER) for each in "ab"),
        "golden": GoldenCheck(rows=0, why="in a test"), "loaded_at": AS_OF, "load_seconds": 0.0,
    }  # fmt: skip
    return LoadedModel(**(values | changes))


@dataclass
class Shelf:
    """Loads versions, or refuses those that are broken; remembers what it was asked for.

    :ivar gate: where it waits before it hands a version over.
    """

    broken: dict[int, Exception] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    gate: threading.Event | None = None
    waiting: threading.Event = field(default_factory=threading.Event)

    def __call__(self, model: str, variant: Variant) -> LoadedModel:
        self.asked.append(variant.version)
        if self.gate is not None:
            self.waiting.set()
            assert self.gate.wait(30)
        if variant.version in self.broken:
            raise self.broken[variant.version]
        return loaded_model(variant.version)


def broken(code: str = "model.digest_mismatch") -> XOpsError:
    return XOpsError("these files are others", code=code)


def answered(fleet: Any, keys: Sequence[str | None] = (None,)) -> set[int]:
    """The versions that answer requests with these keys, as their own predictions say."""
    found = set()
    for key in keys:
        with fleet.lease(key) as lease:
            (said,) = {float(value) for value in lease.loaded.predict(ROWS).labels}
            assert lease.loaded.version == said == lease.variant.version
            found.add(int(said))
    return found
