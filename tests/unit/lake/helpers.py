"""Small tables and commits for the tests of the lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from airflow_provider_xops.lake import commit as commit_module
from airflow_provider_xops.lake.commit import CommitResult, Segment
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.schema import PARTITION_COLUMN
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import Actor, ActorKind, Producer

AS_OF = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)

Rows = Mapping[str, Sequence[Any]] | pa.Table


def segment(partition: str, fingerprint: str, rows: Rows, batch_id: str | None = None) -> Segment:
    """A segment with these rows."""
    table = rows if isinstance(rows, pa.Table) else pa.table(rows)
    return Segment(partition, fingerprint, table.to_reader, batch_id)


def untouchable(partition: str, fingerprint: str, batch_id: str | None = None) -> Segment:
    """A segment whose data must not be read."""

    def data() -> pa.RecordBatchReader:
        raise AssertionError("the data were read although the table holds them")

    return Segment(partition, fingerprint, data, batch_id)


def user(fence: int = 1) -> Actor:
    """Somebody whose attempt began at ``fence``."""
    return Actor.user("tester", key="test", fence=fence)


def attempt(
    *, run: str = "scheduled__2026-01-15", try_number: int = 1, started: int, map_index: int = -1
) -> Actor:
    """A task attempt as Airflow describes it: the key names the work, the fence is its start time."""
    producer = Producer(
        kind=ActorKind.TASK,
        id=f"flights/load/{run}",
        dag_id="flights",
        run_id=run,
        task_id="load",
        map_index=map_index,
        try_number=try_number,
    )
    return Actor(producer=producer, idempotency_key=f"flights/{run}/load/{map_index}", fence=started)


def put(lake: Lake, table: str, *segments: Segment, **options: Any) -> CommitResult:
    """``commit`` with the usual arguments filled in."""
    options.setdefault("actor", user())
    options.setdefault("as_of", AS_OF)
    return commit_module.commit(lake, table, segments, **options)


def rows_of(lake: Lake, table: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows at the head by partition, in canonical order."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in scan(lake, head(lake, table), with_partition=True).read_all().to_pylist():
        partition = row.pop(PARTITION_COLUMN)
        found.setdefault(partition, []).append(tuple(row.values()))
    return found
