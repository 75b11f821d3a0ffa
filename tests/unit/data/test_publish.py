"""Only what a report let pass becomes visible, exactly that, and never an older version after a newer one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_xops.data.publish import publish
from airflow_provider_xops.errors import (
    ArgumentError,
    DataError,
    LakeError,
    NotFoundError,
    Superseded,
    ValidationError,
)
from airflow_provider_xops.lake.commit import CommitResult
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import content_digest, partition_digests
from airflow_provider_xops.lake.tables import open_table, segments_of, table_exists
from airflow_provider_xops.records import (
    XCOM_LIMIT_BYTES,
    Actor,
    DatasetRef,
    Outcome,
    Severity,
    ValidationReport,
    WriteMode,
    compact,
)
from tests.unit.lake.helpers import put, rows_of, segment, user

Publish = Callable[..., CommitResult]


@pytest.fixture
def reported(lake: Lake, actor: Actor, as_of: datetime) -> Callable[..., ValidationReport]:
    """A report on (partitions of) a version, in the evidence."""

    def reported(
        ref: DatasetRef,
        *partitions: str,
        outcome: Outcome = Outcome.PASSED,
        severity: Severity | None = None,
        stored: bool = True,
    ) -> ValidationReport:
        names = partitions or None
        digests = partition_digests(lake, ref)
        report = ValidationReport(
            recorded_at=as_of,
            produced_by=actor.producer,
            dataset=ref,
            partitions=names,
            partition_digests=tuple(digests[name] for name in names or digests),
            content_digest=content_digest(lake, ref, names),
            suite="flights",
            suite_digest="ab" * 32,
            engine="test/1",
            outcome=outcome,
            severity=severity,
            counts={outcome.value: 1},
            rows=1,
        )
        if stored:
            lake.evidence.put(report)
        return report

    return reported


@pytest.fixture
def publishing(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> Publish:
    def publishing(report: ValidationReport, **options: Any) -> CommitResult:
        return publish(lake, report, **{"actor": make_actor(), "as_of": as_of, **options})

    return publishing


def raw(lake: Lake, day: str, *flights: int, fence: int = 1, **options: Any) -> DatasetRef:
    """A raw version in which ``day`` has these flights."""
    rows = {"flight": list(flights), "carrier": ["AA"] * len(flights)}
    part = segment(day, f"input {flights}", rows, options.pop("batch_id", None))
    return put(lake, "flights__raw", part, actor=user(fence), **options).record.ref


def test_exactly_the_reported_partitions_are_published(
    lake: Lake, reported: Any, publishing: Publish
) -> None:
    raw(lake, "2013-01-01", 1, 2)
    ref = raw(lake, "2013-01-02", 3)
    result = publishing(reported(ref, "2013-01-01"))
    assert rows_of(lake, "flights") == {"2013-01-01": [(1, "AA"), (2, "AA")]}
    assert result.record.partitions == ("2013-01-01",)


def test_the_published_rows_have_the_digest_of_the_raw_ones_and_name_their_report(
    lake: Lake, reported: Any, publishing: Publish
) -> None:
    ref = raw(lake, "2013-01-01", 2, 1, keys=["flight"])
    report = reported(ref)
    record = publishing(report).record
    assert record.partition_digests == report.partition_digests
    assert record.parents == (ref,)
    assert record.parent_records == (report.record_id,)


def test_the_version_that_was_validated_is_published_whatever_arrived_since(
    lake: Lake, reported: Any, publishing: Publish
) -> None:
    report = reported(raw(lake, "2013-01-01", 1), "2013-01-01")
    raw(lake, "2013-01-01", 666, fence=2)
    publishing(report)
    assert rows_of(lake, "flights") == {"2013-01-01": [(1, "AA")]}


def test_publishing_again_commits_nothing(lake: Lake, reported: Any, publishing: Publish) -> None:
    report = reported(raw(lake, "2013-01-01", 1))
    first = publishing(report)
    again = publishing(report)
    assert again.reused
    assert again.record == first.record


def test_an_older_raw_version_never_replaces_a_newer_one(
    lake: Lake, reported: Any, publishing: Publish, make_actor: Callable[..., Actor]
) -> None:
    # given: two versions of a day, validated in order, the newer one published first
    older = reported(raw(lake, "2013-01-01", 1), "2013-01-01")
    newer = reported(raw(lake, "2013-01-01", 2, fence=2), "2013-01-01")
    publishing(newer)
    # then: even a later attempt does not go back
    with pytest.raises(Superseded):
        publishing(older, actor=make_actor(fence=10**9))
    assert rows_of(lake, "flights") == {"2013-01-01": [(2, "AA")]}


def test_rows_that_came_back_do_not_open_the_door_for_an_older_version(
    lake: Lake, reported: Any, publishing: Publish
) -> None:
    # given: a day that was corrected, and whose correction was taken back
    first = reported(raw(lake, "2013-01-01", 1), "2013-01-01")
    wrong = reported(raw(lake, "2013-01-01", 2, fence=2), "2013-01-01")
    back = reported(raw(lake, "2013-01-01", 1, fence=3), "2013-01-01")
    publishing(first)
    publishing(back)
    # then: the publication of the version in between, late, changes nothing
    with pytest.raises(Superseded):
        publishing(wrong)
    assert rows_of(lake, "flights") == {"2013-01-01": [(1, "AA")]}


def test_a_partition_that_did_not_change_is_not_published_again(
    lake: Lake, reported: Any, publishing: Publish
) -> None:
    published = publishing(reported(raw(lake, "2013-01-01", 1), "2013-01-01"))
    later = raw(lake, "2013-01-02", 2)
    assert publishing(reported(later, "2013-01-01")).record == published.record
    assert publishing(reported(later)).record.partitions == ("2013-01-02",)


def test_zeros_with_a_sign_and_numbers_that_are_none_keep_their_digest(
    lake: Lake, reported: Any, publishing: Publish
) -> None:
    rows = {"flight": [2, 1, 3], "delay": [float("nan"), -0.0, None]}
    report = reported(put(lake, "flights__raw", segment("all", "1", rows), keys=["flight"]).record.ref)
    assert publishing(report).record.partition_digests == report.partition_digests


class TestOutcomes:
    @pytest.mark.parametrize(
        ("outcome", "severity"),
        [
            (Outcome.FAILED, Severity.CRITICAL),
            (Outcome.ERRORED, Severity.CRITICAL),
            (Outcome.ERRORED, Severity.INFO),
            (Outcome.NO_DATA, None),
        ],
    )
    def test_what_did_not_pass_is_not_published(
        self, lake: Lake, reported: Any, publishing: Publish, outcome: Outcome, severity: Severity | None
    ) -> None:
        report = reported(raw(lake, "2013-01-01", 1), outcome=outcome, severity=severity)
        with pytest.raises(ValidationError) as caught:
            publishing(report)
        assert caught.value.code == "validation.not_published"
        assert caught.value.context["outcome"] == outcome.value
        assert not caught.value.retryable
        assert not table_exists(lake, "flights")

    def test_warnings_pass_unless_they_are_refused(
        self, lake: Lake, reported: Any, publishing: Publish
    ) -> None:
        report = reported(raw(lake, "2013-01-01", 1), outcome=Outcome.FAILED, severity=Severity.WARNING)
        with pytest.raises(ValidationError):
            publishing(report, allow_warning=False)
        assert publishing(report).record.rows == 1

    def test_no_rows_are_published_only_on_demand(
        self, lake: Lake, reported: Any, publishing: Publish
    ) -> None:
        publishing(reported(raw(lake, "2013-01-01", 1)))
        report = reported(raw(lake, "2013-01-01", fence=2), outcome=Outcome.NO_DATA)
        assert publishing(report, allow_empty=True).record.rows == 0
        assert rows_of(lake, "flights") == {}

    def test_what_the_evidence_says_counts_and_not_the_caller(
        self, lake: Lake, reported: Any, publishing: Publish
    ) -> None:
        report = reported(raw(lake, "2013-01-01", 1), outcome=Outcome.FAILED, severity=Severity.CRITICAL)
        forged = dataclasses.replace(report, severity=Severity.INFO)
        with pytest.raises(ValidationError):
            publishing(forged)
        with pytest.raises(DataError, match=r"data\.record_id_mismatch"):
            dataclasses.replace(report, outcome=Outcome.PASSED)

    def test_a_report_that_the_lake_does_not_have_is_refused(
        self, lake: Lake, reported: Any, publishing: Publish
    ) -> None:
        with pytest.raises(NotFoundError):
            publishing(reported(raw(lake, "2013-01-01", 1), stored=False))


def test_only_raw_versions_are_published(lake: Lake, reported: Any, publishing: Publish) -> None:
    ref = put(lake, "daily", segment("all", "x", {"n": [1]})).record.ref
    with pytest.raises(ArgumentError) as caught:
        publishing(reported(ref))
    assert caught.value.code == "argument.not_raw"


def test_what_an_earlier_release_of_this_package_published_keeps_its_order(
    lake: Lake, reported: Any, publishing: Publish
) -> None:
    # given: a newer version that was published under a fence that counted versions one by one (of version 0
    # the fences are alike)
    raw(lake, "2012-12-31", 9)
    older = reported(raw(lake, "2013-01-01", 1), "2013-01-01")
    newer = raw(lake, "2013-01-01", 2, fence=2)
    created = int(open_table(lake, "flights__raw").metadata().created_time)
    part = segment("2013-01-01", "as it was then", {"flight": [2], "carrier": ["AA"]})
    put(lake, "flights", part, parents=[newer], actor=user(created * 1_000_000 + newer.version))
    # then
    with pytest.raises(Superseded):
        publishing(older)
    assert rows_of(lake, "flights") == {"2013-01-01": [(2, "AA")]}
    # and: what is newer still goes on
    newest = raw(lake, "2013-01-01", 3, fence=3)
    assert publishing(reported(newest, "2013-01-01")).record.rows == 1


def test_a_batch_that_an_earlier_release_of_this_package_appended_keeps_its_order_too(
    lake: Lake, reported: Any, publishing: Publish
) -> None:
    # given: a corrected batch, published under a fence that counted versions one by one, and another batch
    options = {"mode": WriteMode.APPEND}
    raw(lake, "other", 9, batch_id="z", **options)
    older = reported(raw(lake, "all", 1, batch_id="a", **options), "all")
    newer = raw(lake, "all", 2, batch_id="a", fence=2, **options)
    handle = open_table(lake, "flights__raw")
    created, uuid = int(handle.metadata().created_time), handle.metadata().id
    (batch,) = {file.batch16 for file in segments_of(handle) if file.partition == "all"}
    rows = {"flight": [2], "carrier": ["AA"]}
    part = segment("all", "as it was then", rows, f"publish:{uuid}/all/{batch}")
    put(lake, "flights", part, parents=[newer], actor=user(created * 1_000_000 + newer.version), **options)
    # then
    with pytest.raises(Superseded):
        publishing(older)
    assert rows_of(lake, "flights") == {"all": [(2, "AA")]}
    # and: another batch goes on
    publishing(reported(raw(lake, "all", 5, batch_id="b", fence=3, **options), "all"))
    assert sorted(rows_of(lake, "flights")["all"]) == [(2, "AA"), (5, "AA")]


def test_an_accepted_version_that_no_raw_one_stands_behind_is_refused(
    lake: Lake, reported: Any, publishing: Publish
) -> None:
    ref = put(lake, "flights__accepted", segment("all", "by hand", {"flight": [1]})).record.ref
    with pytest.raises(LakeError) as caught:
        publishing(reported(ref))
    assert caught.value.code == "lake.no_origin"


def test_rows_that_were_changed_in_the_lake_are_not_published(
    lake: Lake, reported: Any, publishing: Publish
) -> None:
    # given: somebody rewrote a data file in place
    report = reported(raw(lake, "2013-01-01", 1, 2))
    (path,) = (path for path in lake.storage.list("flights__raw/") if path.endswith(".parquet"))
    pq.write_table(pa.table({"flight": [1, 3], "carrier": ["AA", "AA"]}), Path(lake.uri) / path)
    before = set(lake.storage.list(""))
    # then
    with pytest.raises(LakeError) as caught:
        publishing(report)
    assert caught.value.code == "lake.digest_mismatch"
    assert set(lake.storage.list("")) == before


class TestModes:
    def test_appended_batches_are_published_one_by_one(
        self, lake: Lake, reported: Any, publishing: Publish
    ) -> None:
        options = {"mode": WriteMode.APPEND}
        publishing(reported(raw(lake, "all", 1, batch_id="a", **options)))
        files = set(lake.storage.list("flights/_xops_partition"))
        result = publishing(reported(raw(lake, "all", 2, batch_id="b", **options)))
        assert sorted(rows_of(lake, "flights")["all"]) == [(1, "AA"), (2, "AA")]
        assert result.record.rows == 2
        assert files < set(lake.storage.list("flights/_xops_partition"))

    def test_a_merged_partition_is_published_whole(
        self, lake: Lake, reported: Any, publishing: Publish
    ) -> None:
        options = {"mode": WriteMode.MERGE, "keys": ["flight"]}
        raw(lake, "all", 1, 2, batch_id="a", **options)
        publishing(reported(raw(lake, "all", 2, 3, batch_id="b", fence=2, **options)))
        assert sorted(rows_of(lake, "flights")["all"]) == [(1, "AA"), (2, "AA"), (3, "AA")]


def test_a_history_of_ninety_days_is_one_commit_that_fits_between_tasks(
    lake: Lake, reported: Any, publishing: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: January to March loaded and validated at once
    days = [(datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat() for day in range(90)]
    parts = [segment(day, f"input {day}", {"flight": [1], "carrier": ["AA"]}) for day in days]
    report = reported(put(lake, "flights__raw", *parts).record.ref)
    # when
    record = publishing(report).record
    # then
    assert (record.version, record.partitions, record.total_rows) == (0, tuple(days), 90)
    for each in (report, record):
        assert len(json.dumps(compact(each, uri="file:///lake/record.json"))) <= XCOM_LIMIT_BYTES
    # and: finding it again reads its commit once, not once a day
    reads: list[str] = []
    get = lake.storage.get
    monkeypatch.setattr(lake.storage, "get", lambda path: reads.append(path) or get(path))
    assert publishing(report).record == record
    assert sum("flights/_delta_log" in path for path in reads) == 1
