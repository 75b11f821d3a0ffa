"""A suite run over a version: recorded once, with its documents, whatever the outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality import validate as validate_module
from airflow_provider_xops.quality.engine import EngineRun, get_engine
from airflow_provider_xops.quality.validate import LakeFrame, validate
from airflow_provider_xops.quality.validate import check as check_data
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


def with_run(monkeypatch: pytest.MonkeyPatch, run: Callable[..., EngineRun]) -> None:
    """Validation with an engine whose ``run`` is this."""

    def engine(name: str) -> Any:
        real = get_engine(name)
        return SimpleNamespace(name=real.name, version=real.version, run=run)

    monkeypatch.setattr(validate_module, "get_engine", engine)


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
    assert len(kept) == 4
    for path in kept:
        assert b"secret-carrier" not in (lake.storage.get(path) or b"")


def test_the_same_question_is_answered_once(
    check: Validate, ref: DatasetRef, make_actor: Callable[..., Actor], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = check(ref, FLIGHT_IS_SMALL, partitions=["bad"])

    def unreachable(*_: Any, **__: Any) -> EngineRun:
        raise AssertionError("the suite was run again")

    with_run(monkeypatch, unreachable)
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
    with monkeypatch.context() as broken:
        from airflow_provider_xops.quality.engine import CheckResult

        def crashing(checks: Any, frame: Any, *, examples: int = 0) -> EngineRun:
            ended = [CheckResult(check=one, outcome=Outcome.ERRORED, message="ImportError") for one in checks]
            return EngineRun(results=tuple(ended))

        with_run(broken, crashing)
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
    others: list[ValidationReport] = []

    def overtaken(checks: Any, frame: Any, *, examples: int = 0) -> EngineRun:
        monkeypatch.undo()
        others.append(check(ref, FLIGHT_IS_THERE, partitions=["good"], actor=user(7)))
        return get_engine("duckdb").run(checks, frame, examples=examples)

    with_run(monkeypatch, overtaken)
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


SECRETS = ("jane.secret@example.org", "Jane Secretdottir", "4929-1234")


@pytest.fixture
def secrets(lake: Lake) -> DatasetRef:
    """A day whose bad values nobody but the privacy policy may show."""
    rows = {"flight": [1, 49291234, 2, 3], "carrier": [*SECRETS, "AA"]}
    return put(lake, "flights__raw", segment("day", "s", rows)).record.ref


NOSY = (
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "carrier", "value_set": ["AA"]}},
    {
        "type": "expect_column_distinct_values_to_be_in_set",
        "kwargs": {"column": "carrier", "value_set": ["AA"]},
    },
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "carrier", "min_value": 1}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "flight", "max_value": 9}},
    {
        "type": "expect_column_most_common_value_to_be_in_set",
        "kwargs": {"column": "carrier", "value_set": [""]},
    },
)


@pytest.mark.parametrize("policy", ["none", "masked", "full"])
def test_bad_values_are_where_the_policy_lets_them_and_nowhere_else(
    check: Validate, secrets: DatasetRef, lake: Lake, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    report = check(secrets, *NOSY, samples=policy)

    # neither the record nor a log nor the error that tells of it has one, whatever the policy
    told = f"{lake.evidence.get('validations', report.record_id).to_json()} {report} {caplog.text}"
    told += f" {validate_module.stop_error(report)} {validate_module.stop_error(report).to_json()}"
    assert [secret for secret in SECRETS if secret in told] == []
    # and the documents have them under "full" only
    for name in ("html", "json", "data_docs.html"):
        stem = report.record_id if policy == "none" else f"{report.record_id}.{policy}"
        text = (lake.storage.get(f"_xops/reports/validations/{stem}.{name}") or b"").decode()
        assert text
        assert all((secret in text) is (policy == "full") for secret in SECRETS), name
        assert policy in text
        assert ("Aaaa Aaaaaaaaaaaa" in text) is (policy == "masked"), name


def test_other_samples_of_a_known_report_are_written_beside_it(
    check: Validate, secrets: DatasetRef, lake: Lake
) -> None:
    plain = check(secrets, *NOSY)
    masked = check(secrets, *NOSY, samples="masked")

    assert (masked.record_id, masked.outcome) == (plain.record_id, plain.outcome)
    assert masked.report_uri == f"{plain.report_uri}".replace(".html", ".masked.html")
    assert b"Aaaa Aaaaaaaaaaaa" not in (lake.storage.get(_path(plain.report_uri)) or b"")
    assert b"Aaaa Aaaaaaaaaaaa" in (lake.storage.get(_path(masked.report_uri)) or b"")
    assert check(secrets, *NOSY) == plain


def test_who_asks_for_no_samples_is_led_to_none_whatever_was_asked_before(
    check: Validate, secrets: DatasetRef, lake: Lake
) -> None:
    full = check(secrets, *NOSY, samples="full")
    plain = check(secrets, *NOSY)

    assert plain.record_id == full.record_id
    for uri in (plain.report_uri, *plain.documents.values()):
        text = (lake.storage.get(_path(uri)) or b"").decode()
        assert [secret for secret in SECRETS if secret in text] == []


def test_sample_size_bounds_the_samples(check: Validate, secrets: DatasetRef, lake: Lake) -> None:
    report = check(secrets, NOSY[0], samples="full", sample_size=1)
    (one,) = json.loads(lake.storage.get(_path(report.documents["json"])) or b"")["checks"]
    assert one["samples"] == [SECRETS[0]]


@pytest.mark.parametrize(
    ("options", "code"),
    [({"samples": "some"}, "argument.samples"), ({"sample_size": 0}, "argument.sample_size")],
)
def test_samples_that_are_no_policy_are_refused_first(
    check: Validate, ref: DatasetRef, lake: Lake, options: dict[str, Any], code: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        check(ref, FLIGHT_IS_SMALL, **options)
    assert caught.value.code == code


def test_data_docs_are_optional(check: Validate, ref: DatasetRef, lake: Lake) -> None:
    report = check(ref, FLIGHT_IS_SMALL, partitions=["bad"], data_docs=False)
    assert set(report.documents) == {"json"}


def test_a_notebook_checks_a_frame_a_table_or_a_file_without_a_lake(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = pa.table({"flight": [1, 0]})
    pq.write_table(rows, tmp_path / "day.parquet")
    (tmp_path / "day.csv").write_text("flight\n1\n0\n")
    suite = "tests.unit.quality.example_suites:small"
    for data in (rows, rows.to_pandas(), tmp_path / "day.parquet", str(tmp_path / "day.csv")):
        run = check_data(data, suite)
        assert [one.outcome for one in run.results] == [Outcome.PASSED, Outcome.FAILED]


def _path(uri: str | None) -> str:
    return f"_xops/{(uri or '').partition('/_xops/')[2]}"
