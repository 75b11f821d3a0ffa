"""A suite run over a version: recorded once, with its documents, whatever the outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality import pandas_engine
from airflow_provider_xops.quality.validate import LakeFrame, validate
from airflow_provider_xops.records import Actor, DatasetRef, Outcome, Severity, ValidationReport
from tests.unit.lake.helpers import put, segment, user

Validate = Callable[..., ValidationReport]

FLIGHT_IS_THERE = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "flight"}}
FLIGHT_IS_SMALL = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "flight", "max_value": 100},
}
GATE_IS_THERE = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "gate"}}


@pytest.fixture
def ref(lake: Lake) -> DatasetRef:
    """A good day, a bad day, and a day without flights."""
    return put(
        lake,
        "flights__raw",
        segment("good", "a", {"flight": [1, 2], "carrier": ["AA", "UA"]}),
        segment("bad", "b", {"flight": [1, 999], "carrier": ["secret-carrier", None]}),
        segment(
            "empty", "c", pa.table({"flight": pa.array([], pa.int64()), "carrier": pa.array([], pa.string())})
        ),
    ).record.ref


@pytest.fixture
def check(lake: Lake, actor: Actor, as_of: datetime, tmp_path: Path) -> Validate:
    """``validate`` with the given expectations."""

    def check(ref: DatasetRef, *expectations: dict[str, Any], **options: Any) -> ValidationReport:
        path = tmp_path / "suite.json"
        path.write_text(json.dumps({"name": "flights", "expectations": expectations}))
        return validate(lake, ref, **{"suite": str(path), "actor": actor, "as_of": as_of, **options})

    return check


@pytest.mark.parametrize(
    ("partition", "expectations", "outcome", "severity"),
    [
        ("good", [FLIGHT_IS_THERE, FLIGHT_IS_SMALL], Outcome.PASSED, None),
        ("bad", [FLIGHT_IS_THERE, FLIGHT_IS_SMALL], Outcome.FAILED, Severity.CRITICAL),
        ("bad", [FLIGHT_IS_THERE, {**FLIGHT_IS_SMALL, "severity": "info"}], Outcome.FAILED, Severity.INFO),
        ("bad", [GATE_IS_THERE, FLIGHT_IS_SMALL], Outcome.ERRORED, Severity.CRITICAL),
        ("empty", [FLIGHT_IS_THERE, FLIGHT_IS_SMALL], Outcome.NO_DATA, None),
    ],
)
def test_the_report_says_how_it_ended(
    check: Validate,
    ref: DatasetRef,
    partition: str,
    expectations: list[dict[str, Any]],
    outcome: Outcome,
    severity: Severity | None,
) -> None:
    report = check(ref, *expectations, partitions=[partition])
    assert (report.outcome, report.severity) == (outcome, severity)
    assert report.partitions == (partition,)
    assert sum(report.counts.values()) == len(report.checks) == len(expectations)


def test_a_suite_naming_a_missing_column_is_errored_and_says_which(check: Validate, ref: DatasetRef) -> None:
    report = check(ref, GATE_IS_THERE, partitions=["good"])
    assert report.outcome is Outcome.ERRORED
    assert report.checks[0].message == "the dataset has no column 'gate'"


def test_without_partitions_the_whole_version_is_looked_at(check: Validate, ref: DatasetRef) -> None:
    report = check(ref, FLIGHT_IS_SMALL)
    assert report.partitions is None
    assert report.rows == 4
    assert len(report.partition_digests) == 3
    assert report.checks[0].unexpected_count == 1


def test_the_report_is_evidence_with_a_page_and_its_json(
    check: Validate, ref: DatasetRef, lake: Lake
) -> None:
    report = check(ref, FLIGHT_IS_SMALL, partitions=["bad"])
    assert lake.evidence.get("validations", report.record_id) == report
    stored = f"_xops/reports/validations/{report.record_id}"
    assert report.report_uri == f"{lake.uri}/{stored}.html"
    assert b"flights__raw@0" in (lake.storage.get(f"{stored}.html") or b"")
    assert json.loads(lake.storage.get(f"{stored}.json") or b"")["report"]["record_id"] == report.record_id


def test_no_row_value_is_in_anything_that_is_kept(check: Validate, ref: DatasetRef, lake: Lake) -> None:
    check(
        ref,
        {
            "type": "expect_column_values_to_be_in_set",
            "kwargs": {"column": "carrier", "value_set": ["AA"]},
        },
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "carrier", "min_value": 1}},
        partitions=["bad"],
    )
    kept = [path for path in lake.storage.list("_xops/") if "validations" in path]
    assert len(kept) == 3
    for path in kept:
        assert b"secret-carrier" not in (lake.storage.get(path) or b"")


def test_the_same_question_is_answered_once(
    check: Validate, ref: DatasetRef, make_actor: Callable[..., Actor], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = check(ref, FLIGHT_IS_SMALL, partitions=["bad"])

    def unreachable(*_: Any) -> None:
        raise AssertionError("the suite was run again")

    monkeypatch.setattr(pandas_engine.PandasEngine, "run", unreachable)
    assert check(ref, FLIGHT_IS_SMALL, partitions=["bad"], actor=make_actor(fence=9)) == first


def test_another_suite_or_other_rows_are_another_question(
    check: Validate, ref: DatasetRef, lake: Lake
) -> None:
    first = check(ref, FLIGHT_IS_SMALL, partitions=["bad"])
    changed = segment("bad", "corrected", {"flight": [1, 2], "carrier": ["AA", "AA"]})
    newer = put(lake, "flights__raw", changed, actor=user(2)).record.ref
    reports = [
        first,
        check(ref, FLIGHT_IS_SMALL, FLIGHT_IS_THERE, partitions=["bad"]),
        check(ref, FLIGHT_IS_SMALL, partitions=["good"]),
        check(newer, FLIGHT_IS_SMALL, partitions=["bad"]),
    ]
    assert len({report.record_id for report in reports}) == 4
    assert reports[-1].outcome is Outcome.PASSED


def test_a_report_killed_before_its_record_is_written_is_written_by_the_next_run(
    check: Validate, ref: DatasetRef, lake: Lake
) -> None:
    report = check(ref, FLIGHT_IS_SMALL, partitions=["bad"])
    lake.storage.delete(f"_xops/evidence/validations/{report.record_id}.json")
    assert check(ref, FLIGHT_IS_SMALL, partitions=["bad"]) == report
    assert lake.evidence.get("validations", report.record_id) == report


@pytest.mark.parametrize("partitions", [[], [""], ""])
def test_partitions_that_rendered_to_nothing_are_refused(
    check: Validate, ref: DatasetRef, partitions: Any
) -> None:
    with pytest.raises(ArgumentError) as caught:
        check(ref, FLIGHT_IS_SMALL, partitions=partitions)
    assert caught.value.code == "argument.empty"


def test_a_partition_that_is_not_there_is_refused(check: Validate, ref: DatasetRef) -> None:
    with pytest.raises(NotFoundError) as caught:
        check(ref, FLIGHT_IS_SMALL, partitions=["good", "missing"])
    assert caught.value.code == "not_found.partition"


def test_an_unknown_engine_leaves_nothing_behind(check: Validate, ref: DatasetRef, lake: Lake) -> None:
    with pytest.raises(ArgumentError):
        check(ref, FLIGHT_IS_SMALL, engine="spark")
    assert list(lake.storage.list("_xops/evidence/validations")) == []


def test_a_frame_counts_without_reading_and_has_the_users_columns_only(lake: Lake, ref: DatasetRef) -> None:
    frame = LakeFrame(lake, ref, ["good"])
    assert frame.rows == 2
    assert frame.schema.names == ["flight", "carrier"]
    assert frame.pandas()["flight"].tolist() == [1, 2]


def test_a_suite_that_errored_is_run_again_and_may_pass(
    check: Validate, ref: DatasetRef, monkeypatch: pytest.MonkeyPatch, lake: Lake
) -> None:
    # given: a library that could not run for a reason outside of suite and data
    def crashing(*_: Any) -> Any:
        raise ImportError("No module named 'something'")

    with monkeypatch.context() as broken:
        broken.setattr(pandas_engine, "_run_together", crashing)
        errored = check(ref, FLIGHT_IS_THERE, partitions=["good"])
    # when: the reason is gone
    passed = check(ref, FLIGHT_IS_THERE, partitions=["good"])
    # then: both are evidence
    assert (errored.outcome, passed.outcome) == (Outcome.ERRORED, Outcome.PASSED)
    assert {report.record_id for report in lake.evidence.all("validations")} == {
        errored.record_id,
        passed.record_id,
    }


def test_of_two_validations_at_once_both_give_the_report_that_is_kept(
    check: Validate, ref: DatasetRef, monkeypatch: pytest.MonkeyPatch, lake: Lake
) -> None:
    # given: another attempt that finishes while this one runs
    run = pandas_engine.PandasEngine.run
    others: list[ValidationReport] = []

    def overtaken(self: Any, checks: Any, frame: Any) -> Any:
        monkeypatch.setattr(pandas_engine.PandasEngine, "run", run)
        others.append(check(ref, FLIGHT_IS_THERE, partitions=["good"], actor=user(7)))
        return run(self, checks, frame)

    monkeypatch.setattr(pandas_engine.PandasEngine, "run", overtaken)
    # then
    later = datetime(2030, 1, 1, tzinfo=UTC)
    assert check(ref, FLIGHT_IS_THERE, partitions=["good"], as_of=later) == others[0]


def test_big_whole_numbers_beside_missing_ones_are_not_rounded(lake: Lake, check: Validate) -> None:
    # given: two numbers that are one number as 64-bit floats
    rows = pa.table({"id": pa.array([2**53, 2**53 + 1, None], pa.int64()), "n": pa.array([1, 2, None])})
    ref = put(lake, "t__raw", segment("all", "1", rows)).record.ref
    # then
    report = check(
        ref,
        {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "id", "mostly": 0.6}},
        {"type": "expect_column_max_to_be_between", "kwargs": {"column": "id", "max_value": 2**53}},
    )
    assert [one.outcome for one in report.checks] == [Outcome.PASSED, Outcome.PASSED, Outcome.FAILED]
    assert str(LakeFrame(lake, ref, None).pandas()["n"].dtype) == "float64"
