"""Reading a version: its rows in order, its digests, and whether they agree."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from airflow_provider_xops.errors import ArgumentError, LakeError, NotFoundError
from airflow_provider_xops.lake.digest import version_digest
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import (
    arrow_dataset,
    content_digest,
    count_rows,
    partition_digests,
    partitions,
    read_pandas,
    rebuild_version_record,
    scan,
    schema_of,
    verify_version,
)
from airflow_provider_xops.lake.tables import head, open_table, segments_of
from airflow_provider_xops.records import DatasetRef, WriteMode
from tests.unit.lake.helpers import put, segment, user


@pytest.fixture
def ref(lake: Lake) -> DatasetRef:
    """Two partitions of two columns."""
    put(lake, "t", segment("q", "1", {"a": [3, 4], "s": ["c", None]}))
    return put(lake, "t", segment("p", "1", {"a": [1, 2], "s": ["a", "b"]})).record.ref


def test_rows_come_in_canonical_order(lake: Lake, ref: DatasetRef) -> None:
    assert scan(lake, ref).read_all().to_pydict() == {"a": [1, 2, 3, 4], "s": ["a", "b", "c", None]}


def test_partitions_columns_and_filters_select(lake: Lake, ref: DatasetRef) -> None:
    found = scan(
        lake, ref, partitions=["q"], columns=["s"], filter=pc.field("a") > 3, with_partition=True
    ).read_all()

    assert found.to_pylist() == [{"s": None, "_xops_partition": "q"}]
    assert scan(lake, ref, columns=["s", "a"]).schema.names == ["s", "a"]
    assert arrow_dataset(lake, ref, ["p"]).count_rows() == 2
    assert list(read_pandas(lake, ref, partitions=["q"])["a"]) == [3, 4]
    assert schema_of(lake, ref) == pa.schema([("a", pa.int64()), ("s", pa.string())])


def test_an_old_version_is_read_as_it_was(lake: Lake, ref: DatasetRef) -> None:
    put(lake, "t", segment("p", "2", {"a": [9], "s": ["z"]}), actor=user(2))

    assert scan(lake, ref, partitions=["p"]).read_all()["a"].to_pylist() == [1, 2]
    assert count_rows(lake, ref) == 4
    assert count_rows(lake, head(lake, "t"), ["p"]) == 1
    assert verify_version(lake, ref) == []


def test_digests_depend_on_the_rows_and_not_on_the_table(lake: Lake, ref: DatasetRef) -> None:
    copy = put(lake, "copy", segment("p", "x", {"a": [1, 2], "s": ["a", "b"]})).record

    assert copy.partition_digests == (partition_digests(lake, ref)["p"],)
    assert content_digest(lake, ref, ["p"]) == copy.digest
    assert content_digest(lake, ref) == version_digest(partition_digests(lake, ref))
    assert content_digest(lake, ref) == rebuild_version_record(lake, ref).digest
    assert partitions(lake, ref) == ["p", "q"]


def test_batches_of_one_partition_have_one_digest_together(lake: Lake) -> None:
    for table, order in (("one", "ab"), ("other", "ba")):
        for batch in order:
            put(lake, table, segment("p", "1", {"a": [ord(batch)]}, batch), mode=WriteMode.APPEND)

    assert partition_digests(lake, head(lake, "one")) == partition_digests(lake, head(lake, "other"))
    assert scan(lake, head(lake, "one")).read_all() == scan(lake, head(lake, "other")).read_all()


def test_what_is_not_there_is_named(lake: Lake, ref: DatasetRef) -> None:
    for call in (scan, arrow_dataset, count_rows, content_digest):
        with pytest.raises(NotFoundError) as missing:
            call(lake, ref, partitions=["p", "never"])  # type: ignore[operator]
        assert missing.value.code == "not_found.partition"
        assert "never" in str(missing.value)
    with pytest.raises(ArgumentError) as caught:
        scan(lake, ref, columns=["a", "zzz"])
    assert caught.value.code == "argument.column"
    with pytest.raises(NotFoundError):
        scan(lake, DatasetRef(lake_id=lake.lake_id, table="t", table_uuid=ref.table_uuid, version=99))


def test_a_table_that_was_made_again_is_not_the_same(lake: Lake, ref: DatasetRef) -> None:
    other = DatasetRef(lake_id=lake.lake_id, table="t", table_uuid="another", version=0)
    foreign = DatasetRef(lake_id="another", table="t", table_uuid=ref.table_uuid, version=0)

    with pytest.raises(NotFoundError):
        scan(lake, other)
    with pytest.raises(NotFoundError):
        rebuild_version_record(lake, other)
    with pytest.raises(LakeError):
        scan(lake, foreign)


def test_a_record_is_rebuilt_from_the_table_when_evidence_is_lost(lake: Lake, ref: DatasetRef) -> None:
    stored = rebuild_version_record(lake, ref)
    Path(lake.evidence.uri(stored)).unlink()

    assert rebuild_version_record(lake, ref) == stored


def test_a_changed_or_missing_file_is_found(lake: Lake, ref: DatasetRef) -> None:
    first, second = segments_of(open_table(lake, "t"))
    changed, gone = (Path(lake.uri) / "t" / file.path for file in (first, second))
    pq.write_table(pa.table({"a": [1, 999], "s": ["a", "b"]}), changed)
    gone.unlink()

    problems = verify_version(lake, ref)

    assert len(problems) == 2
    assert first.digest in problems[0]
    assert "partition q" in problems[1]
    assert "missing" in problems[1]


def test_a_changed_record_is_found(lake: Lake, ref: DatasetRef) -> None:
    record = rebuild_version_record(lake, ref)
    path = Path(lake.evidence.uri(record))
    path.write_text(path.read_text().replace(record.digest, "0" * 64))

    problems = verify_version(lake, ref)

    assert len(problems) == 1
    assert "record" in problems[0]
