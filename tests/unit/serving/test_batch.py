"""What scoring refuses before it reads a row, and how it cuts rows into batches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import table_exists
from airflow_provider_xops.records import Actor, ActorKind, DatasetRef, ModelVersion, Producer
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.batch import score, tables_of
from airflow_provider_xops.settings import MlflowSettings


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 10))
def test_batches_are_cut_to_size_without_losing_or_moving_a_row(sizes: list[int], rows: int) -> None:
    values = list(range(sum(sizes)))
    batches, start = [], 0
    for size in sizes:
        batches.append(pa.record_batch({"n": pa.array(values[start : start + size], pa.int64())}))
        start += size
    reader = pa.RecordBatchReader.from_batches(pa.schema([("n", pa.int64())]), batches)
    tables = list(tables_of(reader, rows))
    assert [value for table in tables for value in table.column("n").to_pylist()] == values
    assert [table.num_rows for table in tables[:-1]] == [rows] * (len(tables) - 1)
    assert all(0 < table.num_rows <= rows for table in tables)


@pytest.fixture
def dataset(lake: Lake, actor: Actor, as_of: datetime) -> DatasetRef:
    table = pa.table({"x": [1.0], "plane": ["N328NB"], "tags": [["a"]], "score": [1.0]})
    return commit(
        lake, "features", [Segment("d1", "f", table.to_reader)], actor=actor, as_of=as_of
    ).record.ref


def model(*features: str) -> ModelVersion:
    return ModelVersion(
        recorded_at=datetime.fromisoformat("2026-01-01T00:00:00+00:00"),
        produced_by=Producer(kind=ActorKind.USER, id="t"),
        name="delays",
        version=3,
        created_at_ms=1,
        run_id=None,
        source_uri="models:/m-1",
        training=None,
        holdout=None,
        features=features,
        target="late",
        task="regression",
        estimator="e",
        code_version="c",
        params_digest="p",
        artifact_digest="a",
        metrics={},
    )


@pytest.mark.parametrize(
    ("features", "change", "code", "hint"),
    [
        (("x", "distance", "origin"), {}, "model.columns_missing", "distance, origin"),
        (("x", "tags"), {}, "model.columns_type", "tags (list"),
        ((), {}, "model.features_unknown", "signature"),
        (("x",), {"output_table": "features"}, "argument.output_table", "features"),
        (("x",), {"keep_columns": ["gate"]}, "argument.keep_columns", "gate"),
        (("x",), {"keep_columns": ["score"]}, "argument.keep_columns", "taken"),
        (("x",), {"keep_columns": ["plane", "plane"]}, "argument.keep_columns", "twice"),
        (("x",), {"batch_rows": 0}, "argument.batch_rows", "one row"),
        (("x",), {"partitions": ["d2"]}, "not_found.partition", "d2"),
        (("x",), {"partitions": []}, "not_found.partition", "no partition"),
    ],
)
def test_scoring_refuses_what_it_cannot_do_and_writes_nothing(
    lake: Lake,
    make_actor: Callable[..., Actor],
    as_of: datetime,
    dataset: DatasetRef,
    features: tuple[str, ...],
    change: dict[str, Any],
    code: str,
    hint: str,
) -> None:
    # given: a registry that nobody answers at; none of this may need it
    nobody = RegistryClient(MlflowSettings(tracking_uri="http://127.0.0.1:9", max_retries=0, timeout_s=1))
    arguments = {"output_table": "predictions", "partitions": None, **change}
    with pytest.raises(XOpsError) as caught:
        score(
            lake,
            nobody,
            model=model(*features),
            dataset=dataset,
            actor=make_actor(),
            as_of=as_of,
            **arguments,
        )
    assert caught.value.code == code
    assert hint in str(caught.value)
    assert caught.value.todo
    assert not caught.value.retryable
    assert "N328NB" not in str(caught.value)
    assert not table_exists(lake, "predictions")


def test_reading_in_small_batches_gives_the_same_rows(
    lake: Lake, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    import pyarrow.compute as pc

    from airflow_provider_xops.lake import read

    tables = {
        name: pa.table({"n": pa.array(range(count), pa.int64())})
        for name, count in (("a", 25), ("b", 0), ("c", 7))
    }
    segments = [Segment(name, name, table.to_reader) for name, table in tables.items()]
    ref = commit(lake, "t", segments, actor=make_actor(), as_of=as_of).record.ref
    for options in ({}, {"partitions": ["c", "a"]}, {"filter": pc.field("n") > 3}, {"columns": []}):
        plain = read.scan(lake, ref, with_partition=True, **options).read_all()
        batches = list(read.scan(lake, ref, with_partition=True, batch_rows=4, **options))
        assert pa.Table.from_batches(batches, plain.schema).equals(plain)
        assert max(batch.num_rows for batch in batches) <= 4
