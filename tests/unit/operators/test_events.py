"""Which dataset version a run is about."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, DataError, NotFoundError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators._events import triggering_versions
from airflow_provider_xops.records import DatasetVersion, Incident, Severity, compact

MakeContext = Callable[..., dict[str, Any]]


@pytest.fixture
def publish(lake: Lake, make_actor: Any, as_of: datetime) -> Callable[..., DatasetVersion]:
    """A maker of versions of published tables: ``publish("flights", "2013-01-01")``."""
    import pyarrow as pa

    def make(table: str, *partitions: str, value: int = 1) -> DatasetVersion:
        rows = pa.table({"n": [value]})
        segments = [
            Segment(partition=name, fingerprint=f"{value}", data=lambda: rows.to_reader())
            for name in partitions
        ]
        return commit(lake, table, segments, actor=make_actor(), as_of=as_of).record

    return make


def test_events_of_one_table_are_all_partitions_at_the_highest_version(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion]
) -> None:
    # given three publications queued into one run, not in their order
    versions = [publish("flights", day) for day in ("2013-01-01", "2013-01-02", "2013-01-03")]
    events = [("flights", compact(versions[place])) for place in (2, 0, 1)]

    found = triggering_versions(make_context(events=events), lake=lake, table="flights")

    assert [(one.ref, one.partitions, one.resolved) for one in found] == [
        (versions[2].ref, ("2013-01-01", "2013-01-02", "2013-01-03"), "event")
    ]
    assert found[0].records == tuple(sorted(version.record_id for version in versions))


def test_the_same_partition_twice_counts_once(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion]
) -> None:
    events = [("flights", compact(publish("flights", "d", value=value))) for value in (1, 2)]

    found = triggering_versions(make_context(events=events), lake=lake, table="flights")

    assert found[0].partitions == ("d",)


def test_several_tables_are_several_entries_and_a_named_one_is_one(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion]
) -> None:
    events = [(table, compact(publish(table, "d"))) for table in ("weather", "flights")]
    context = make_context(events=events)

    assert [one.ref.table for one in triggering_versions(context, lake=lake)] == ["flights", "weather"]
    assert [one.ref.table for one in triggering_versions(context, lake=lake, table="weather")] == ["weather"]


def test_events_of_a_table_made_anew_count_only_with_their_own_table(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion]
) -> None:
    new = publish("flights", "new")
    old = {**compact(new), "table_uuid": "gone", "version": 0, "partitions": ["old"], "record_id": ""}
    context = make_context(events=[("flights", old), ("flights", compact(publish("flights", "newer")))])

    assert triggering_versions(context, lake=lake)[0].partitions == ("newer",)


def test_shortened_extra_is_read_whole_from_the_evidence(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion]
) -> None:
    version = publish("flights", *(f"p{number:03d}" for number in range(60)))
    extra = compact(version, limit=1_300)
    assert extra["partitions"]["shortened"] is True

    found = triggering_versions(make_context(events=[("flights", extra)]), lake=lake)

    assert found[0].partitions is not None
    assert len(found[0].partitions) == 60


def test_a_watchers_payload_is_unwrapped(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion]
) -> None:
    version = publish("flights", "d")
    extra = {"from_trigger": True, "payload": compact(version)}

    assert triggering_versions(make_context(events=[("flights", extra)]), lake=lake)[0].ref == version.ref


def test_records_of_other_kinds_are_not_about_a_dataset(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion], actor: Any, as_of: datetime
) -> None:
    version = publish("flights", "d")
    incident = Incident(
        recorded_at=as_of,
        produced_by=actor.producer,
        incident="i",
        subject="s",
        severity=Severity.INFO,
        message="m",
    )

    found = triggering_versions(
        make_context(events=[("incidents", compact(incident))]), lake=lake, table="flights"
    )

    assert (found[0].ref, found[0].partitions, found[0].resolved) == (version.ref, None, "head")


@pytest.mark.parametrize("extra", [{}, {"from_rest_api": True}])
def test_event_made_by_hand_means_the_head(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion], extra: dict[str, Any]
) -> None:
    version = publish("flights", "d")

    found = triggering_versions(make_context(events=[("flights", extra)]), lake=lake, table="flights")

    assert (found[0].ref, found[0].resolved) == (version.ref, "head")


@pytest.mark.parametrize(
    "extra",
    [
        {"rows": 3},
        {"kind": "versions", "table": "flights"},
        {"kind": "nonsense"},
        {"from_trigger": True, "payload": "text"},
        {"kind": "versions", "record_id": "0" * 32, "partitions": {"shortened": True, "count": 1}},
    ],
)
def test_unreadable_extra_is_a_typed_error(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion], extra: dict[str, Any]
) -> None:
    publish("flights", "d")

    with pytest.raises(DataError, match="asset 'flights'") as caught:
        triggering_versions(make_context(events=[("flights", extra)]), lake=lake, table="flights")

    assert caught.value.code == "data.event_unreadable"


def test_event_of_another_lake_is_a_typed_error(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion]
) -> None:
    extra = {**compact(publish("flights", "d")), "lake_id": "another", "record_id": ""}

    with pytest.raises(DataError) as caught:
        triggering_versions(make_context(events=[("flights", extra)]), lake=lake)

    assert caught.value.code == "data.event_other_lake"


@pytest.mark.parametrize(("given", "expected"), [(0, 0), ("0", 0), ("flights@0", 0), (None, 1), ("", 1)])
def test_hand_started_run_names_its_version_or_takes_the_head(
    lake: Lake,
    make_context: MakeContext,
    publish: Callable[..., DatasetVersion],
    caplog: pytest.LogCaptureFixture,
    given: Any,
    expected: int,
) -> None:
    caplog.set_level(logging.INFO)
    first = publish("flights", "d").version
    publish("flights", "e")
    given = (
        given
        if given is None or given == ""
        else (first if given == 0 else str(given).replace("0", str(first)))
    )

    found = triggering_versions(make_context(params={"dataset_version": given}), lake=lake, table="flights")

    assert found[0].ref.version == first + expected
    assert found[0].partitions is None
    assert f"from the {found[0].resolved}" in caplog.text
    assert found[0].resolved == ("head" if expected else "parameter")


@pytest.mark.parametrize("given", ["latest", "flights@x", "-1", True])
def test_malformed_parameter_is_an_argument_error(lake: Lake, make_context: MakeContext, given: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        triggering_versions(make_context(params={"dataset_version": given}), lake=lake, table="flights")

    assert caught.value.code == "argument.dataset_version"


def test_parameter_of_another_table_is_refused(lake: Lake, make_context: MakeContext) -> None:
    with pytest.raises(ArgumentError, match="names weather@3"):
        triggering_versions(make_context(params={"dataset_version": "weather@3"}), lake=lake, table="flights")


def test_nothing_to_go_by_is_an_argument_error(lake: Lake, context: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        triggering_versions(context, lake=lake)

    assert caught.value.code == "argument.dataset"


def test_unknown_version_and_table_are_not_found(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion]
) -> None:
    publish("flights", "d")

    with pytest.raises(NotFoundError):
        triggering_versions(make_context(params={"dataset_version": 99}), lake=lake, table="flights")
    with pytest.raises(NotFoundError):
        triggering_versions(make_context(), lake=lake, table="nowhere")


def test_context_without_events_key_is_a_hand_started_run(
    lake: Lake, make_context: MakeContext, publish: Callable[..., DatasetVersion], tmp_path: Path
) -> None:
    version = publish("flights", "d")
    context = make_context()
    del context["triggering_asset_events"]

    assert triggering_versions(context, lake=lake, table="flights")[0].ref == version.ref
