"""Gates about training rows: what was validated is proved by content, through every step the rows came by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.data.publish import publish
from airflow_provider_xops.data.transform import TransformInput, transform
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.gates import DataFresh, DataValidated, Gate, NoPersonalData, ask
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import content_digest, partition_digests
from airflow_provider_xops.records import (
    DatasetRef,
    GateResult,
    ModelVersion,
    Outcome,
    PersonalDataReport,
    Severity,
    ValidationReport,
)
from tests.unit.evaluation.gates.cases import a_case
from tests.unit.lake.helpers import put, segment, user
from tests.unit.registry.builders import AS_OF, a_model, an_actor, selection

PASSED, FAILED, ERRORED, NO_DATA = Outcome.PASSED, Outcome.FAILED, Outcome.ERRORED, Outcome.NO_DATA
DAYS = ("2013-01-01", "2013-01-02")
CRITICAL, WARNING = Severity.CRITICAL, Severity.WARNING


def trained_on(ref: DatasetRef, *partitions: str, **changes: Any) -> ModelVersion:
    return a_model(training=selection(*partitions, ref=ref), **changes)


def answer(lake: Lake, gate: Gate, model: ModelVersion, **changes: Any) -> GateResult:
    (result,) = ask([gate], a_case(lake=lake, model=model, **changes))
    return result


def raw(lake: Lake, day: str, *flights: int, fence: int = 1, table: str = "flights__raw") -> DatasetRef:
    rows = pa.table({"flight": pa.array(flights, pa.int64()), "carrier": ["AA"] * len(flights)},
                    schema=pa.schema([("flight", pa.int64()), ("carrier", pa.string())]))  # fmt: skip
    return put(lake, table, segment(day, f"input {flights}", rows), actor=user(fence)).record.ref


@pytest.fixture
def reported(lake: Lake) -> Callable[..., ValidationReport]:
    """A report on (partitions of) a version, in the evidence; each later than the one before."""
    hours = iter(range(1, 100))

    def reported(
        ref: DatasetRef, *partitions: str, outcome: Outcome = PASSED, **changes: Any
    ) -> ValidationReport:
        digests = partition_digests(lake, ref)
        names = partitions or None
        severity = CRITICAL if outcome is FAILED else None
        values: dict[str, Any] = {
            "recorded_at": AS_OF + timedelta(hours=next(hours)), "produced_by": an_actor().producer,
            "dataset": ref, "partitions": names,
            "partition_digests": tuple(digests[name] for name in names or digests),
            "content_digest": content_digest(lake, ref, names), "suite": "flights", "suite_digest": "ab" * 32,
            "engine": "test/1", "outcome": outcome, "severity": severity, "counts": {outcome.value: 1},
            "rows": 1,
        }  # fmt: skip
        report = ValidationReport(**(values | changes))
        assert lake.evidence.put(report)
        return report

    return reported


def published(lake: Lake, report: ValidationReport) -> DatasetRef:
    return publish(lake, report, actor=user(1), as_of=AS_OF).record.ref


def derived(
    lake: Lake, ref: DatasetRef, *days: str, sql: str = "SELECT flight * 2 AS x FROM f"
) -> DatasetRef:
    """A table computed day by day from the same day of ``ref``."""
    for day in days:
        made = transform(
            lake, {"f": TransformInput(ref, partitions=(day,))}, table="features", sql=sql, partitions=(day,),
            actor=user(1), as_of=AS_OF,
        )  # fmt: skip
    return made.record.ref


def test_a_report_about_the_training_partitions_themselves(lake: Lake, reported: Any) -> None:
    ref = raw(lake, DAYS[0], 1)
    assert answer(lake, DataValidated(), trained_on(ref, DAYS[0])).outcome is NO_DATA
    report = reported(ref)
    case = a_case(lake=lake, model=trained_on(ref, DAYS[0]))
    (result,) = ask([DataValidated()], case)
    assert (result.outcome, result.observed) == (PASSED, 0.0)
    assert case.consulted == [report.record_id]


def test_every_training_partition_must_be_covered(lake: Lake, reported: Any) -> None:
    raw(lake, DAYS[0], 1)
    ref = raw(lake, DAYS[1], 2)
    reported(ref, DAYS[0])
    result = answer(lake, DataValidated(), trained_on(ref, *DAYS))
    assert (result.outcome, result.observed) == (NO_DATA, 1.0)
    assert "first 2013-01-02" in result.message
    assert answer(lake, DataValidated(), trained_on(ref, DAYS[0])).outcome is PASSED


def test_a_report_about_other_rows_of_the_partition_does_not_count(lake: Lake, reported: Any) -> None:
    reported(raw(lake, DAYS[0], 1))
    newer = raw(lake, DAYS[0], 1, 2, fence=2)
    assert answer(lake, DataValidated(), trained_on(newer, DAYS[0])).outcome is NO_DATA


def test_a_later_version_that_holds_the_same_rows_is_covered(lake: Lake, reported: Any) -> None:
    reported(raw(lake, DAYS[0], 1))
    later = raw(lake, DAYS[1], 2)
    assert answer(lake, DataValidated(), trained_on(later, DAYS[0])).outcome is PASSED


def test_the_same_rows_in_a_table_of_another_name_are_other_content(lake: Lake, reported: Any) -> None:
    reported(raw(lake, DAYS[0], 1))
    other = raw(lake, DAYS[0], 1, table="trains__raw")
    assert answer(lake, DataValidated(), trained_on(other, DAYS[0])).outcome is NO_DATA


def test_published_and_computed_rows_are_covered_by_what_they_were_made_from(
    lake: Lake, reported: Any
) -> None:
    raw(lake, DAYS[0], 1)
    ref = raw(lake, DAYS[1], 2)
    public = published(lake, reported(ref, DAYS[0]))
    assert answer(lake, DataValidated(), trained_on(public, DAYS[0])).outcome is PASSED
    features = derived(lake, public, DAYS[0])
    assert answer(lake, DataValidated(), trained_on(features, DAYS[0])).outcome is PASSED
    # The second day is computed from rows that nobody validated.
    both = derived(lake, ref, DAYS[1])
    assert answer(lake, DataValidated(), trained_on(both, DAYS[0])).outcome is PASSED
    result = answer(lake, DataValidated(), trained_on(both, *DAYS))
    assert (result.outcome, result.observed) == (NO_DATA, 1.0)


def test_a_join_needs_both_sides(lake: Lake, reported: Any) -> None:
    good = raw(lake, DAYS[0], 1)
    reported(good)
    other = raw(lake, DAYS[0], 1, table="weather__raw")
    made = transform(
        lake, {"f": good, "w": other}, table="features", partitions=(DAYS[0],), actor=user(1), as_of=AS_OF,
        sql="SELECT f.flight FROM f JOIN w ON f.flight = w.flight",
    ).record.ref  # fmt: skip
    assert answer(lake, DataValidated(), trained_on(made, DAYS[0])).outcome is NO_DATA
    reported(other)
    assert answer(lake, DataValidated(), trained_on(made, DAYS[0])).outcome is PASSED


@pytest.mark.parametrize(
    ("reports", "gate", "expected"),
    [
        ([{"outcome": FAILED}], {}, FAILED),
        ([{"outcome": ERRORED}], {}, FAILED),
        ([{"outcome": NO_DATA}], {}, NO_DATA),
        ([{"outcome": FAILED, "severity": WARNING}], {}, NO_DATA),
        ([{"outcome": FAILED, "severity": WARNING}], {"allow_warning": True}, PASSED),
        # The newest word of each suite counts.
        ([{}, {"outcome": FAILED}], {}, FAILED),
        ([{"outcome": FAILED}, {}], {}, PASSED),
        ([{}, {"suite": "other", "outcome": FAILED}], {}, FAILED),
        ([{}, {"suite": "other", "outcome": FAILED}], {"suite": "flights"}, PASSED),
        ([{}], {"suite": "other"}, NO_DATA),
    ],
)
def test_what_reports_say(
    lake: Lake, reported: Any, reports: list[dict[str, Any]], gate: dict[str, Any], expected: Outcome
) -> None:
    ref = raw(lake, DAYS[0], 1)
    for changes in reports:
        reported(ref, **changes)
    assert answer(lake, DataValidated(**gate), trained_on(ref, DAYS[0])).outcome is expected


def test_rows_published_with_a_warning_count_only_where_the_gate_says_so(lake: Lake, reported: Any) -> None:
    ref = published(lake, reported(raw(lake, DAYS[0], 1), outcome=FAILED, severity=WARNING))
    assert answer(lake, DataValidated(), trained_on(ref, DAYS[0])).outcome is NO_DATA
    assert answer(lake, DataValidated(allow_warning=True), trained_on(ref, DAYS[0])).outcome is PASSED


def test_a_partition_without_rows_has_nothing_to_validate_but_a_missing_one_has(
    lake: Lake, reported: Any
) -> None:
    empty = raw(lake, DAYS[0])
    assert answer(lake, DataValidated(), trained_on(empty, DAYS[0])).outcome is PASSED
    assert answer(lake, DataValidated(), trained_on(empty, DAYS[1])).outcome is NO_DATA


@pytest.mark.parametrize("changes", [{"table_uuid": "another"}, {"version": 99}, {"table": "nothing__raw"}])
def test_a_version_that_is_not_there_is_not_covered(
    lake: Lake, reported: Any, changes: dict[str, Any]
) -> None:
    ref = raw(lake, DAYS[0], 1)
    reported(ref)
    gone = dataclasses.replace(ref, **changes)
    assert answer(lake, DataValidated(), trained_on(gone, DAYS[0])).outcome is NO_DATA


@pytest.mark.parametrize(
    ("partitions", "days", "expected"),
    [
        (("2026-01-13", "2026-01-14"), 1.5, PASSED),
        (("2026-01-14",), 1.4, FAILED),
        (("2026-01-14T23",), 0.55, PASSED),
        (("2026-01",), 15, PASSED),
        (("2026-01-14", "eu-west"), 99, NO_DATA),
        (("all",), 99, NO_DATA),
        ((), 99, NO_DATA),
        (("2026-01-16",), 1, PASSED),
        (("9999-12-31",), 1, FAILED),
    ],
)
def test_the_newest_training_partition_counts(
    lake: Lake, partitions: tuple[str, ...], days: float, expected: Outcome
) -> None:
    # AS_OF is 2026-01-15, noon.
    ref = DatasetRef(lake_id="l", table="t", table_uuid="u", version=1)
    assert answer(lake, DataFresh(maximum_days=days), trained_on(ref, *partitions)).outcome is expected


def test_freshness_by_the_commit_of_the_training_version(lake: Lake, as_of: datetime) -> None:
    ref = raw(lake, "all", 1)
    gate = DataFresh(maximum_days=1, by="commit")
    for hours, expected in ((24, PASSED), (25, FAILED)):
        case = {"as_of": _committed(lake, ref) + timedelta(hours=hours)}
        assert answer(lake, gate, trained_on(ref, "all"), **case).outcome is expected


def _committed(lake: Lake, ref: DatasetRef) -> datetime:
    from airflow_provider_xops.lake.history import version_record

    return version_record(lake, ref).recorded_at


def test_unknown_training_rows_are_no_data(lake: Lake) -> None:
    for gate in (DataValidated(), DataFresh(maximum_days=1), NoPersonalData()):
        assert answer(lake, gate, a_model(training=None)).outcome is NO_DATA


@pytest.fixture
def people(lake: Lake) -> DatasetRef:
    rows = pa.table({"x": [1, 2], "phone": ["a", "b"], "note": ["none", "jane@example.com"], "late": [0, 1]})
    segments = [
        segment(DAYS[0], "a", rows.slice(0, 1)), segment(DAYS[1], "b", rows.slice(1)),
        segment("empty", "c", rows[:0]),
    ]  # fmt: skip
    return put(lake, "people", *segments).record.ref


@pytest.mark.parametrize(
    ("features", "partitions", "approved", "expected"),
    [
        (("x",), DAYS, (), PASSED),
        (("x", "phone"), DAYS, (), FAILED),
        (("x", "phone"), DAYS, ("phone",), PASSED),
        (("x", "note"), DAYS, ("phone",), FAILED),
        (("x", "note"), DAYS[:1], (), PASSED),
        (("x",), ("empty",), (), NO_DATA),
        ((), DAYS, (), NO_DATA),
        (("gone",), DAYS, (), ERRORED),
    ],
)
def test_features_that_look_personal_must_be_approved_by_name(
    lake: Lake, people: DatasetRef, features: tuple[str, ...], partitions: tuple[str, ...],
    approved: tuple[str, ...], expected: Outcome,
) -> None:  # fmt: skip
    model = trained_on(people, *partitions, features=features)
    result = answer(lake, NoPersonalData(approved=approved), model)
    assert result.outcome is expected
    assert "jane" not in result.message


def test_the_search_for_personal_data_is_recorded_and_needs_somebody_who_asks(
    lake: Lake, people: DatasetRef
) -> None:
    model = trained_on(people, *DAYS, features=("x",))
    case = a_case(lake=lake, model=model)
    ask([NoPersonalData()], case)
    (report,) = lake.evidence.all(PersonalDataReport.kind)
    assert case.consulted == [report.record_id]
    assert answer(lake, NoPersonalData(), model, actor=None).outcome is ERRORED
    with pytest.raises(ArgumentError):
        NoPersonalData(approved="phone")  # type: ignore[arg-type]
