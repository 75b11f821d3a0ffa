"""Recorded profiles of a lake's versions: once, with documents, compared with what was before."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality.profiling.profile import (
    profile,
    profile_document,
    profiles_of,
    schema_error,
)
from airflow_provider_xops.quality.profiling.suggestions import put_suite, steps_of, suite_of
from airflow_provider_xops.records import Actor, DatasetProfile, DatasetRef, compact
from tests.unit.lake.helpers import put, segment
from tests.unit.quality.profiling.frames import flights

Profile = Callable[..., DatasetProfile]


def load(lake: Lake, partition: str, table: pa.Table, *, name: str = "flights") -> DatasetRef:
    return put(lake, name, segment(partition, f"{partition}/{table.num_rows}", table)).record.ref


def earlier_and_later(lake: Lake) -> tuple[DatasetRef, DatasetRef]:
    """Two tables, the later one with other columns: what one table's two versions look like to a profile."""
    renamed = flights(seed=9).rename_columns(
        ["id", "arr_delay", "seats", "carrier", "tail", "late", "at", "day", "source"]
    )
    other = renamed.drop_columns(["late"]).append_column("gate", pa.array(["x"] * 600))
    other = other.set_column(2, "seats", other["seats"].cast("int64"))
    return load(lake, "a", flights()), load(lake, "a", other, name="newer")


@pytest.fixture
def make(lake: Lake, actor: Actor, as_of: datetime) -> Profile:
    def make(ref: DatasetRef, **options: Any) -> DatasetProfile:
        return profile(lake, ref, **{"actor": actor, "as_of": as_of, **options})

    return make


def test_a_profile_is_recorded_with_its_document_and_its_page(lake: Lake, make: Profile) -> None:
    record = make(load(lake, "2013-01", flights()))

    assert lake.evidence.get("profiles", record.record_id) == record
    assert record.rows == 600
    assert record.previous is None
    assert [one["name"] for one in record.columns][:2] == ["id", "delay"]
    document = profile_document(lake, record)
    assert document["record_id"] == record.record_id
    page = Path(str(record.report_uri).removeprefix("file://")).read_text()
    assert "Profile of flights@" in page
    assert "<svg" in page
    assert "<script" not in page
    assert DatasetProfile.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert len(json.dumps(compact(record, uri="x"))) < 16_384


def test_the_same_question_is_answered_from_the_evidence(lake: Lake, make: Profile, as_of: datetime) -> None:
    ref = load(lake, "2013-01", flights())
    first = make(ref)

    assert make(ref, as_of=as_of + timedelta(days=1)) == first
    assert make(ref, values="masked").record_id != first.record_id


def test_no_value_of_a_row_is_in_the_record_or_its_page_unless_it_may_be(lake: Lake, make: Profile) -> None:
    ref = load(lake, "2013-01", pa.table({"name": ["Jane <Doe>", "John Roe"] * 50}))
    for values in ("none", "masked", "full"):
        record = make(ref, values=values)

        assert "Jane" not in json.dumps(record.to_json())
        page = Path(str(record.report_uri).removeprefix("file://")).read_text()
        assert ("Jane" in page) == (values == "full")
        assert "<Doe>" not in page


def test_partitions_are_profiled_alone(lake: Lake, make: Profile) -> None:
    load(lake, "a", flights(100))
    ref = load(lake, "b", flights(50))

    assert make(ref).rows == 150
    assert make(ref, partitions=["b"]).rows == 50
    with pytest.raises(NotFoundError):
        make(ref, partitions=["c"])
    with pytest.raises(ArgumentError):
        make(ref, partitions=[])


def test_schema_changes_are_named_with_verdicts_and_the_probable_rename(lake: Lake, make: Profile) -> None:
    before, after = earlier_and_later(lake)
    make(before)

    record = make(after, compare_with=before, policy={"added": "allow"})

    assert [(one.change, one.column, one.verdict) for one in record.schema_changes] == [
        ("renamed", "arr_delay", "warn"),
        ("widened", "seats", "warn"),
        ("removed", "late", "fail"),
        ("added", "gate", "allow"),
    ]
    error = schema_error(record)
    assert error.code == "validation.schema_changed"
    assert "late removed" in str(error)
    assert not error.retryable


def test_without_a_profile_of_before_only_the_schemas_are_compared(lake: Lake, make: Profile) -> None:
    before, after = earlier_and_later(lake)

    record = make(after, compare_with=str(before))

    assert {one.change for one in record.schema_changes} == {"added", "removed", "widened"}
    assert ("removed", "delay") in {(one.change, one.column) for one in record.schema_changes}


def test_previous_is_the_newest_profiled_version_else_the_one_before(lake: Lake, make: Profile) -> None:
    first = load(lake, "a", flights(50))
    second = load(lake, "b", flights(60))
    third = load(lake, "c", flights(70))

    assert make(third).previous == second  # none is profiled
    make(first)
    assert make(third).previous == first
    assert make(third, compare_with=None).previous is None
    with pytest.raises(ArgumentError):
        make(third, compare_with="flights")


def test_profiles_of_a_table_come_oldest_first_without_later_versions(lake: Lake, make: Profile) -> None:
    refs = [load(lake, name, flights(50)) for name in "abc"]
    for ref in reversed(refs):
        make(ref)

    assert [one.dataset for one in profiles_of(lake, refs[1])] == refs[:2]


def test_suites_and_steps_are_suggested_from_the_documents_in_the_lake(lake: Lake, make: Profile) -> None:
    records = [make(load(lake, name, flights(100 + place))) for place, name in enumerate("abc")]

    suite = suite_of(lake, records[-1], profiles=2)
    uri = put_suite(lake, records[-1], suite)

    assert suite.text.count("# " + "  flights@") == 2
    assert put_suite(lake, records[-1], suite) == uri
    assert Path(uri.removeprefix("file://")).read_text() == suite.text
    assert yaml.safe_load(suite.text)["name"] == "flights_suggested"
    steps, text = steps_of(lake, records[-1])
    assert yaml.safe_load(text) == steps
    with pytest.raises(ArgumentError):
        suite_of(lake, records[-1], profiles=0)


def test_a_lost_document_is_said_to_be_lost(lake: Lake, make: Profile) -> None:
    record = make(load(lake, "a", flights(50)))
    Path(str(record.profile_uri).removeprefix("file://")).unlink()

    with pytest.raises(NotFoundError) as lost:
        profile_document(lake, record)

    assert lost.value.code == "not_found.document"
