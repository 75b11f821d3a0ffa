"""What the tests of deployment targets have in common: a lake with rows, models trained on them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import Actor, ModelVersion
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.settings import LakeSettings
from airflow_provider_xops.training.fit import train

AS_OF = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
FEATURES = ["x", "n", "carrier", "at"]
_ROWS = 60


def someone(key: str) -> Actor:
    return Actor.user("tester", key=key, fence=1)


def lake_with_rows(folder: str) -> Lake:
    """A local lake with a table ``flights`` of four partitions: numbers and text with gaps, and a time."""
    settings = LakeSettings(uri=folder, storage_options={}, credentials=None)
    init_lake(settings, actor=someone("init"), as_of=AS_OF)
    lake = open_lake(settings)
    segments = [Segment(f"2013-01-0{day}", str(day), _rows(day).to_reader) for day in range(1, 5)]
    commit(lake, "flights", segments, actor=someone("rows"), as_of=AS_OF)
    return lake


def a_version(lake: Lake, client: RegistryClient, name: str, **changes: Any) -> ModelVersion:
    """A trained version of ``name`` with golden predictions."""
    arguments: dict[str, Any] = {
        "dataset": head(lake, "flights"),
        "estimator": "tests.integration.target_models:words",
        "target": "word",
        "features": FEATURES,
        "split": {"kind": "time", "holdout_partitions": 1},
        "model_name": name,
        "actor": someone(uuid.uuid4().hex),
        "as_of": AS_OF,
    }
    return train(lake, client, **(arguments | changes))


def _rows(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=_ROWS)
    carrier = rng.choice(["UA", "DL", 'Ñandú "x"'], _ROWS).tolist()
    seconds = rng.integers(0, 86_400, _ROWS) * np.timedelta64(1, "s")
    return pa.table(
        {
            "x": pa.array(x, mask=rng.random(_ROWS) < 0.1),
            "n": pa.array(rng.integers(0, 9, _ROWS), mask=rng.random(_ROWS) < 0.5),
            "carrier": pa.array(carrier, pa.string(), mask=rng.random(_ROWS) < 0.1),
            "at": pa.array(np.datetime64("2013-01-01T05:00:00.123456") + seconds, pa.timestamp("us", "UTC")),
            "late": pa.array((x + rng.normal(size=_ROWS) > 0).astype(np.int64)),
            "word": pa.array(np.select([x > 0.5, x < -0.5], ["late", "early"], "on time").tolist()),
            "delay": pa.array(x * 1000),
        }
    )
