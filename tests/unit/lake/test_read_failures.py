"""Files that are gone, damaged, or on storage that does not answer: typed, by whatever reads them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from airflow_provider_xops.data.transform import transform
from airflow_provider_xops.errors import LakeError, UnavailableError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.records import Actor, DatasetRef
from tests.unit.lake.helpers import put, segment

Reading = Callable[[Lake, DatasetRef], Any]


def by_scan(lake: Lake, ref: DatasetRef) -> Any:
    return scan(lake, ref).read_all()


def by_small_batches(lake: Lake, ref: DatasetRef) -> Any:
    return scan(lake, ref, batch_rows=1).read_all()


def by_sql(lake: Lake, ref: DatasetRef) -> Any:
    from tests.unit.lake.helpers import AS_OF, user

    return transform(lake, {"t": ref}, table="out", sql="SELECT a FROM t", actor=user(), as_of=AS_OF)


@pytest.fixture
def version(lake: Lake) -> tuple[DatasetRef, Path]:
    """A version and its one data file."""
    ref = put(lake, "t", segment("p", "1", {"a": [1, 2, 3]})).record.ref
    (file,) = (Path(lake.uri) / "t").rglob("*.parquet")
    return ref, file


@pytest.mark.parametrize("reading", [by_scan, by_small_batches, by_sql])
def test_a_data_file_that_was_removed_is_named_as_such(
    lake: Lake, version: tuple[DatasetRef, Path], reading: Reading
) -> None:
    version[1].unlink()
    with pytest.raises(LakeError) as caught:
        reading(lake, version[0])
    assert caught.value.code == "lake.missing_file"
    assert not caught.value.retryable


@pytest.mark.parametrize("reading", [by_scan, by_small_batches, by_sql])
def test_a_data_file_that_was_cut_is_damaged_and_not_a_fault_of_the_query(
    lake: Lake, version: tuple[DatasetRef, Path], reading: Reading
) -> None:
    content = version[1].read_bytes()
    version[1].write_bytes(content[: len(content) // 2])
    with pytest.raises(LakeError) as caught:
        reading(lake, version[0])
    assert caught.value.code == "lake.damaged_file"


class _Broken:
    """A dataset whose storage stops to answer in the middle."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def scanner(self, **_options: Any) -> _Broken:
        return self

    def to_batches(self) -> Any:
        yield from self._batches
        raise OSError("Generic S3 error: error sending request for url (http://s3/b/t)")


def test_storage_that_stops_to_answer_while_rows_are_read_is_retryable(
    lake: Lake, version: tuple[DatasetRef, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = scan(lake, version[0], with_partition=True).read_all().to_batches()
    monkeypatch.setattr(read._View, "dataset", lambda *_: _Broken(batches))
    with pytest.raises(UnavailableError) as caught:
        scan(lake, version[0], with_partition=True).read_all()
    assert caught.value.retryable


def test_storage_that_stops_to_answer_under_sql_is_retryable(
    lake: Lake,
    version: tuple[DatasetRef, Path],
    monkeypatch: pytest.MonkeyPatch,
    actor: Actor,
    as_of: datetime,
) -> None:
    # given: a lake that DuckDB reads through Arrow, as it does on S3
    from airflow_provider_xops.data import sql

    def broken() -> Any:
        yield pa.record_batch({"a": [1], "_xops_partition": ["p"]})
        raise OSError("Generic S3 error: error sending request for url (http://s3/b/t)")

    schema = pa.schema([("a", pa.int64()), ("_xops_partition", pa.string())])
    monkeypatch.setattr(sql, "_local_files", lambda *_: [])
    monkeypatch.setattr(sql, "arrow_dataset", lambda *_: pa.RecordBatchReader.from_batches(schema, broken()))
    # then
    with pytest.raises(UnavailableError) as caught:
        transform(lake, {"t": version[0]}, table="out", sql="SELECT a FROM t", actor=actor, as_of=as_of)
    assert caught.value.retryable


@pytest.mark.parametrize("batch_rows", [None, 1])
def test_a_filter_that_does_not_fit_the_columns_is_not_called_damage(
    lake: Lake, version: tuple[DatasetRef, Path], batch_rows: int | None
) -> None:
    with pytest.raises(pa.ArrowException):
        scan(
            lake, version[0], filter=pc.match_substring(pc.field("a"), "x"), batch_rows=batch_rows
        ).read_all()
