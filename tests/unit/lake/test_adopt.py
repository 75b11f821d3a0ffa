"""Adopting a Delta table: it works like the lake's own for readers, and stays its owner's."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from airflow_provider_xops.errors import (
    ArgumentError,
    ConflictError,
    DataError,
    LakeError,
    NotFoundError,
    UnavailableError,
)
from airflow_provider_xops.lake import adopt as module
from airflow_provider_xops.lake.adopt import adopt_table
from airflow_provider_xops.lake.digest import table_digest
from airflow_provider_xops.lake.history import stored_record
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import (
    WHOLE,
    content_digest,
    count_rows,
    partition_digests,
    partitions,
    scan,
    verify_version,
)
from airflow_provider_xops.lake.tables import head, list_tables, resolve_ref, table_exists
from airflow_provider_xops.records import DatasetVersion
from tests.unit.lake.helpers import AS_OF, put, segment, untouchable, user

ROWS = pa.table({"day": ["a", "a", "b"], "n": [1, 2, 3]})


def adopt(lake: Lake, uri: object, table: str = "orders") -> DatasetVersion:
    return adopt_table(lake, str(uri), table=table, actor=user(), as_of=AS_OF)


def test_an_adopted_table_is_read_digested_and_recorded_in_place(lake: Lake, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "warehouse", ROWS, partition_by=["day"])
    before = sorted((tmp_path / "warehouse").rglob("*"))

    record = adopt(lake, tmp_path / "warehouse")

    ref = resolve_ref(lake, "orders")
    assert record.ref == ref == head(lake, "orders")
    assert stored_record(lake, ref) == record
    assert (record.rows, record.partitions) == (3, (WHOLE,))
    assert sorted(scan(lake, ref).read_all()["n"].to_pylist()) == [1, 2, 3]
    assert scan(lake, ref, with_partition=True).read_all()["_xops_partition"].to_pylist() == [WHOLE] * 3
    assert record.partition_digests == (table_digest(scan(lake, ref)),)
    assert partitions(lake, ref) == [WHOLE]
    assert count_rows(lake, ref, [WHOLE]) == 3
    assert content_digest(lake, ref) == record.digest
    assert verify_version(lake, ref) == []
    assert list_tables(lake) == ["orders"]
    assert sorted((tmp_path / "warehouse").rglob("*")) == before


def test_a_table_inside_the_lake_keeps_its_place_when_the_lake_moves(lake: Lake) -> None:
    write_deltalake(f"{lake.uri}/legacy", ROWS)

    record = adopt(lake, f"file://{lake.uri}/legacy", table="legacy")

    assert b'"legacy"' in (lake.storage.get("_xops/adopted/legacy.json") or b"")
    assert lake.uri.encode() not in (lake.storage.get("_xops/adopted/legacy.json") or b"")
    assert scan(lake, record.ref).read_all().num_rows == 3


def test_adopting_again_is_idempotent_and_records_new_versions(lake: Lake, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "w", ROWS)
    first = adopt(lake, tmp_path / "w")

    assert adopt(lake, tmp_path / "w") == first
    write_deltalake(tmp_path / "w", ROWS.slice(0, 1), mode="append")
    second = adopt(lake, tmp_path / "w")

    assert (second.version, second.rows) == (1, 4)
    assert partition_digests(lake, first.ref) == {WHOLE: first.partition_digests[0]}


def test_a_version_without_a_record_gets_a_computed_digest(lake: Lake, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "w", ROWS)
    adopt(lake, tmp_path / "w")
    write_deltalake(tmp_path / "w", ROWS, mode="overwrite")

    ref = head(lake, "orders")

    assert partition_digests(lake, ref) == {WHOLE: table_digest(ROWS.to_reader())}
    assert verify_version(lake, ref) == ["orders@1 has no record to compare with"]


def test_a_change_to_adopted_data_is_found(lake: Lake, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "w", ROWS)
    record = adopt(lake, tmp_path / "w")
    import pyarrow.parquet as pq

    pq.write_table(ROWS.set_column(1, "n", pa.array([1, 2, 4])), DeltaTable(tmp_path / "w").file_uris()[0])

    assert len(verify_version(lake, record.ref)) == 1


def test_an_adopted_table_is_not_written(lake: Lake, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "w", ROWS)
    adopt(lake, tmp_path / "w")

    with pytest.raises(LakeError) as caught:
        put(lake, "orders", untouchable("p", "1"))

    assert caught.value.code == "lake.adopted"
    assert DeltaTable(tmp_path / "w").version() == 0


def test_a_table_of_a_lake_is_not_adopted(lake: Lake) -> None:
    put(lake, "own", segment("p", "1", {"a": [1]}))

    with pytest.raises(ArgumentError) as caught:
        adopt(lake, f"{lake.uri}/own", table="alias")

    assert caught.value.code == "argument.adopt"
    assert not table_exists(lake, "alias")


def test_features_that_cannot_be_read_are_refused(lake: Lake, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "w", ROWS, configuration={"delta.enableDeletionVectors": "true"})

    with pytest.raises(LakeError) as caught:
        adopt(lake, tmp_path / "w")

    assert caught.value.code == "lake.unsupported_features"
    assert not table_exists(lake, "orders")


def test_names_that_are_taken_are_refused(lake: Lake, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "w", ROWS)
    write_deltalake(tmp_path / "x", ROWS)
    put(lake, "own", segment("p", "1", {"a": [1]}))
    adopt(lake, tmp_path / "w")

    for name in ("own", "t__raw", "_xops"):
        with pytest.raises(ArgumentError):
            adopt(lake, tmp_path / "w", table=name)
    with pytest.raises(ConflictError) as caught:
        adopt(lake, tmp_path / "x")
    assert not caught.value.retryable


def test_what_is_no_table_or_cannot_be_digested_is_refused(lake: Lake, tmp_path: Path) -> None:
    from datetime import datetime

    with pytest.raises(NotFoundError):
        adopt(lake, tmp_path / "nothing")
    write_deltalake(tmp_path / "naive", pa.table({"t": pa.array([datetime(2013, 1, 1)], pa.timestamp("us"))}))  # noqa: DTZ001
    with pytest.raises(DataError) as caught:
        adopt(lake, tmp_path / "naive", table="naive")

    assert caught.value.code == "data.naive_timestamp"
    assert not table_exists(lake, "naive")


def test_an_address_with_credentials_is_refused_and_not_repeated(lake: Lake) -> None:
    with pytest.raises(ArgumentError) as caught:
        adopt(lake, "s3://AKIAEXAMPLE:verysecret@bucket/orders")
    assert caught.value.code == "argument.uri_credentials"
    assert "verysecret" not in str(caught.value)


def test_storage_that_does_not_answer_is_not_a_missing_table(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> object:
        raise DeltaError("Generic S3 error: HTTP error: error sending request")

    monkeypatch.setattr(module, "DeltaTable", unreachable)
    with pytest.raises(UnavailableError) as caught:
        adopt(lake, tmp_path / "orders")
    assert caught.value.retryable
