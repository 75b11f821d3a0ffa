"""Records: whole through JSON, one identity for one fact, never too large for an XCom."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.errors import DataError
from airflow_provider_xops.records import (
    RECORD_TYPES,
    XCOM_LIMIT_BYTES,
    Actor,
    DatasetRef,
    DatasetVersion,
    ModelRef,
    Outcome,
    Pin,
    Record,
    Reproduction,
    WriteMode,
    compact,
    digest_of,
    json_schema,
    record_from_json,
)
from tests.unit.record_strategies import any_record, field_strategies, records_of

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
PRODUCER = Actor.user("tester", key="k", fence=1).producer
REF = DatasetRef(lake_id="lake", table="flights", table_uuid="uuid", version=3)


def pin(**changes: Any) -> Pin:
    values: dict[str, Any] = {
        "recorded_at": NOW,
        "produced_by": PRODUCER,
        "dataset": REF,
        "reason": "training",
        "holder": "delay v1",
    }
    return Pin(**(values | changes))


def dataset_version(partitions: int) -> DatasetVersion:
    names = tuple(f"2013-{number:05d}" for number in range(partitions))
    return DatasetVersion(
        recorded_at=NOW,
        produced_by=PRODUCER,
        lake_id="lake",
        table="flights",
        table_uuid="uuid",
        version=3,
        mode=WriteMode.REPLACE,
        partitions=names,
        partition_digests=tuple("d" * 64 for _ in names),
        batch_ids=tuple(f"table:uuid/partition:{name}" for name in names),
        digest="e" * 64,
        input_fingerprint="f",
        rows=1,
        total_rows=1,
    )


@given(any_record())
def test_a_record_is_the_same_after_a_round_trip_through_json(record: Record) -> None:
    text = json.dumps(record.to_json(), allow_nan=False)

    assert record_from_json(json.loads(text)) == record


@pytest.mark.parametrize("kind", sorted(RECORD_TYPES))
@settings(max_examples=15)
@given(data=st.data())
def test_every_record_is_valid_against_its_published_schema(kind: str, data: st.DataObject) -> None:
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)

    jsonschema.validate(data.draw(records_of(kind)).to_json(), schema, cls=jsonschema.Draft202012Validator)


def test_the_published_schema_refuses_another_kind_and_a_missing_field() -> None:
    schema, good = json_schema("pins"), pin().to_json()
    without_holder = {name: value for name, value in good.items() if name != "holder"}

    for bad in (good | {"kind": "models"}, without_holder, good | {"dataset": "flights@3"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("kind", sorted(RECORD_TYPES))
@settings(max_examples=15)
@given(data=st.data())
def test_the_id_depends_on_the_fields_of_the_identity_and_on_nothing_else(
    kind: str, data: st.DataObject
) -> None:
    cls, record = RECORD_TYPES[kind], data.draw(records_of(kind))
    strategies = field_strategies(cls)
    identity = (*cls.identity, *cls.identity_if_set)
    others = {name: data.draw(strategy) for name, strategy in strategies.items() if name not in identity}
    one = data.draw(st.sampled_from(identity))
    changed = data.draw(strategies[one])

    again = dataclasses.replace(record, record_id="", **others)
    different = dataclasses.replace(record, record_id="", **{one: changed})

    assert again.record_id == record.record_id
    same = digest_of(different.to_json()[one]) == digest_of(record.to_json()[one])
    assert (different.record_id == record.record_id) is same


@given(records_of("scoring_runs"))
def test_a_field_of_the_identity_that_came_later_changes_no_id_while_it_is_empty(run: Record) -> None:
    plain = dataclasses.replace(run, record_id="", purpose="")
    told = {name: plain.to_json()[name] for name in type(run).identity}

    assert plain.record_id == digest_of(["scoring_runs", *told.values()])[:32]
    assert dataclasses.replace(plain, record_id="", purpose="x").record_id != plain.record_id


@given(any_record())
def test_a_compact_record_fits_into_an_xcom_and_keeps_its_id(record: Record) -> None:
    data = compact(record, uri="s3://lake/x.json")

    assert len(json.dumps(data).encode()) <= XCOM_LIMIT_BYTES
    assert data["record_id"] == record.record_id


@given(st.integers(0, 3_000))
def test_long_lists_become_a_count_a_digest_and_a_uri(partitions: int) -> None:
    record = dataset_version(partitions)

    data = compact(record, uri="s3://lake/x.json")

    assert len(json.dumps(data).encode()) <= XCOM_LIMIT_BYTES
    for name in ("partitions", "partition_digests", "batch_ids"):
        whole = record.to_json()[name]
        shortened = {
            "shortened": True,
            "count": partitions,
            "digest": digest_of(whole),
            "uri": "s3://lake/x.json",
        }
        assert data[name] in (whole, shortened)


def test_only_as_many_lists_are_shortened_as_needed() -> None:
    data = compact(dataset_version(200))

    shortened = [name for name, value in data.items() if isinstance(value, dict) and value.get("shortened")]

    assert shortened == ["partition_digests"]


def test_a_shortened_record_cannot_be_read_as_if_it_were_whole() -> None:
    with pytest.raises(DataError) as caught:
        record_from_json(compact(dataset_version(3_000), uri="s3://lake/x.json"))

    assert caught.value.code == "data.record_shortened"
    assert "s3://lake/x.json" in str(caught.value)


def test_a_record_that_is_too_large_without_any_list_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        compact(pin(reason="x" * XCOM_LIMIT_BYTES))

    assert caught.value.code == "data.record_too_large"


@pytest.mark.parametrize("field", ["recorded_at", "event_time"])
def test_a_time_without_a_zone_is_refused(field: str) -> None:
    with pytest.raises(DataError) as caught:
        pin(**{field: datetime(2026, 1, 15)})  # noqa: DTZ001

    assert caught.value.code == "data.naive_timestamp"
    assert field in str(caught.value)


def test_a_record_changed_after_it_was_written_is_refused() -> None:
    data = pin().to_json() | {"holder": "somebody else"}

    with pytest.raises(DataError) as caught:
        record_from_json(data)

    assert caught.value.code == "data.record_id_mismatch"


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"kind": "pinns"}, "data.record_kind", "pins"),
        ({"dataset": {"table": "flights"}}, "data.record_unreadable", "dataset"),
        ({"recorded_at": "yesterday"}, "data.record_unreadable", "recorded_at"),
    ],
)
def test_what_is_not_a_record_says_which_field_is_wrong(change: dict[str, Any], code: str, told: str) -> None:
    with pytest.raises(DataError) as caught:
        record_from_json(pin().to_json() | change)

    assert caught.value.code == code
    assert told in str(caught.value)


def test_an_unreadable_record_does_not_repeat_its_values() -> None:
    with pytest.raises(DataError) as caught:
        record_from_json(pin().to_json() | {"dataset": "a-secret-value"})

    assert "a-secret-value" not in str(caught.value)


def test_fields_of_a_newer_writer_are_ignored() -> None:
    assert record_from_json(pin().to_json() | {"color": "blue"}) == pin()


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        pin().holder = "somebody else"  # type: ignore[misc]


def test_a_schema_is_published_for_known_kinds_only() -> None:
    with pytest.raises(DataError) as caught:
        json_schema("rows")

    assert caught.value.code == "data.record_kind"


def test_a_whole_number_in_a_field_of_floats_keeps_the_record_readable() -> None:
    written = Reproduction(
        recorded_at=NOW,
        produced_by=PRODUCER,
        model=ModelRef(name="late", version=1, created_at_ms=1),
        artifact_digest="d",
        outcome=Outcome.PASSED,
        tolerance=0,
        rows=3,
        max_difference=0,
    )

    assert Reproduction.from_json(json.loads(json.dumps(written.to_json()))) == written
