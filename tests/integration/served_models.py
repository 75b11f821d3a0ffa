"""A lake with a table, and models trained on it through a real MLflow: what the tests of serving serve."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import Actor, ModelVersion, PromotionOutcome, Variant, VariantRole
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger import Draft
from airflow_provider_xops.serving.online.model_files import ModelFiles
from airflow_provider_xops.serving.online.variants import Loader
from airflow_provider_xops.serving.traffic import split_traffic
from airflow_provider_xops.settings import LakeSettings
from airflow_provider_xops.training.fit import train

AS_OF = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
MODELS = "tests.integration.served_models"
ROWS = 150


class Steady:
    """A regressor whose every answer is the number it was made with: an answer tells its version."""

    def __init__(self, answer: float = 0.0, ballast: int = 0) -> None:
        self.answer = answer
        self.ballast = ballast

    def fit(self, rows: Any, target: Any) -> Steady:
        self.weights_ = np.random.default_rng(int(self.answer)).random(self.ballast)
        return self

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), self.answer)


class Drifts(Steady):
    """It answers otherwise once it was loaded."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.answer += 1.0


def rows_of(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=ROWS)
    return pa.table(
        {
            "x": pa.array(x, mask=rng.random(ROWS) < 0.1),
            "n": pa.array(rng.integers(0, 9, ROWS), mask=rng.random(ROWS) < 0.5),
            "carrier": pa.array(rng.choice(["UA", "DL", "AA"], ROWS).tolist(), pa.string()),
            "at": pa.array(np.datetime64("2013-01-01T05:00:00") + np.arange(ROWS), pa.timestamp("us", "UTC")),
            "late": pa.array((x + rng.normal(size=ROWS) > 0).astype(np.int64)),
            "delay": pa.array(x * 1000),
        }
    )


def make_lake(folder: Path) -> Lake:
    """A lake with one table of four partitions."""
    settings = LakeSettings(uri=str(folder / "lake"), storage_options={}, credentials=None)
    init_lake(settings, actor=somebody("init"), as_of=AS_OF)
    lake = open_lake(settings)
    segments = [Segment(f"2013-01-0{day}", str(day), rows_of(day).to_reader) for day in range(1, 5)]
    commit(lake, "flights", segments, actor=somebody("load"), as_of=AS_OF)
    return lake


def somebody(key: str) -> Actor:
    return Actor.user("tester", key=key, fence=1)


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Registry:
    """One model of its own on a lake and an MLflow server; decides without the ceremony of gates."""

    lake: Lake
    client: RegistryClient
    name: str = field(default_factory=lambda: f"served-{uuid.uuid4().hex[:8]}")
    alias: str = "champion"
    made: int = 0

    def fit(self, estimator: str = f"{MODELS}:Steady", **changes: Any) -> ModelVersion:
        """One more version, trained and registered."""
        self.made += 1
        steady = estimator.startswith(MODELS)
        arguments: dict[str, Any] = {
            "dataset": head(self.lake, "flights"), "estimator": estimator, "target": "delay",
            "features": ["x", "n"], "split": {"kind": "time", "holdout_partitions": 1},
            "model_name": self.name, "actor": somebody(f"train {self.made}"), "as_of": AS_OF,
            "params": {"answer": float(self.made)} if steady else {}, **changes,
        }  # fmt: skip
        return train(self.lake, self.client, **arguments)

    def promote(self, model: ModelVersion) -> None:
        """The decision alone, as it stands in the ledger."""
        self._decide(PromotionOutcome.PROMOTED, model)

    def roll_back(self, model: ModelVersion) -> None:
        """The decision alone, as it stands in the ledger."""
        self._decide(PromotionOutcome.ROLLED_BACK, model)

    def share(self, *variants: Variant, rollout: bool = False) -> None:
        """Share the requests anew."""
        split_traffic(
            self.lake, model=self.name, alias=self.alias, variants=variants, rollout=rollout, reason="a test",
            expected=None, actor=somebody(f"share {variants}"), as_of=AS_OF,
        )  # fmt: skip

    def loader(self, **changes: Any) -> Loader:
        """What a server loads with."""
        arguments: dict[str, Any] = {
            "lake_factory": lambda: open_lake(self.lake.settings), "client": self.client, "server": "gate-1",
            "alias": self.alias, "clock": now, "actor": somebody("serve"), "files": ModelFiles(), **changes,
        }  # fmt: skip
        return Loader(**arguments)

    def _decide(self, outcome: PromotionOutcome, model: ModelVersion) -> None:
        draft = Draft(
            outcome=outcome, reason="in a test", to_version=model.version,
            to_created_at_ms=model.created_at_ms, artifact_digest=model.artifact_digest,
        )  # fmt: skip
        actor = somebody(f"{outcome} {model.version} {uuid.uuid4().hex}")
        ledger.append(self.lake, self.name, self.alias, lambda state: draft, actor=actor, as_of=AS_OF)


Ask = Callable[[str], int]


class Load:
    """Threads that ask, one question after the other, until the block ends.

    :param make: makes for each thread what asks: given a key, it gives the version that answered, or raises.
    :ivar answers: begin, end (``time.monotonic()``) and version of each. :ivar problems: what was raised.
    """

    def __init__(self, make: Callable[[], Ask], threads: int = 3) -> None:
        self.answers: list[tuple[float, float, int]] = []
        self.problems: list[str] = []
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(make(), n)) for n in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, ask: Ask, number: int) -> None:
        mine, count = [], 0
        while not self._done.is_set():
            begun, count = time.monotonic(), count + 1
            try:
                version = ask(f"customer {number}/{count}")
                mine.append((begun, time.monotonic(), version))
            except Exception as error:
                self.problems.append(repr(error))
            # Threads that never rest would leave nothing of two cores to the one that loads.
            time.sleep(0.002)
        self.answers += mine


def in_force(champions: list[tuple[float, float, int]], begun: float, ended: float) -> set[int]:
    """The versions that may answer a request of this time: decided before its end, not replaced before it."""
    after = [*champions[1:], (0.0, ended, 0)]
    return {
        version
        for (decided, _, version), (_, replaced, _) in zip(champions, after, strict=True)
        if decided <= ended and replaced >= begun
    }


def part(model: ModelVersion, role: VariantRole | str, weight: float = 0.0) -> Variant:
    return Variant(
        version=model.version, created_at_ms=model.created_at_ms, role=VariantRole(role), weight=weight
    )
