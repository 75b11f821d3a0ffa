"""Frames for the tests of profiles."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_xops.quality.frames import ArrowFrame
from airflow_provider_xops.quality.profiling.compute import profile_frame

START = datetime(2013, 1, 1, tzinfo=UTC)


def flights(rows: int = 600, *, seed: int = 7) -> pa.Table:
    """A table of every kind of column, with missing values, a key and a gap of two days."""
    random = np.random.default_rng(seed)
    hours = [hour + (48 if hour > 300 else 0) for hour in range(rows)]
    return pa.table(
        {
            "id": pa.array(np.arange(rows), pa.int64()),
            "delay": pa.array(random.normal(10, 5, rows), mask=random.random(rows) < 0.05),
            "seats": pa.array(random.integers(50, 300, rows), pa.int32()),
            "carrier": pa.array(random.choice(["AA", "UA", "DL"], rows)),
            "tail": pa.array([f"N{number:05d}" for number in random.integers(0, 99_999, rows)]),
            "late": pa.array(random.random(rows) < 0.3),
            "at": pa.array([START + timedelta(hours=hour) for hour in hours], pa.timestamp("us", "UTC")),
            "day": pa.array([date(2013, 1, 1) + timedelta(days=hour // 24) for hour in hours]),
            "source": pa.array(["file"] * rows),
        }
    )


def profiled(table: pa.Table | dict[str, Any], **options: Any) -> dict[str, Any]:
    """The document of a table's profile."""
    return profile_frame(ArrowFrame(table if isinstance(table, pa.Table) else pa.table(table)), **options)


def column(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The figures of one column."""
    (found,) = (one for one in document["columns"] if one["name"] == name)
    return found
