"""Great Expectations on pandas: one trustworthy word a check, and no row value anywhere."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.quality import _gx_run
from airflow_provider_xops.quality.engine import CheckResult, get_engine
from airflow_provider_xops.quality.pandas_engine import PandasEngine
from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import Outcome, Severity
from tests.unit.quality.frames import frame

PASSED, FAILED, ERRORED, NO_DATA = Outcome.PASSED, Outcome.FAILED, Outcome.ERRORED, Outcome.NO_DATA


def check(kind: str, **kwargs: Any) -> Check:
    return Check(type=f"expect_{kind}", kwargs=kwargs)


def run(columns: Any, *checks: Check) -> list[CheckResult]:
    return list(PandasEngine().run(checks, frame(columns)).results)


def run_one(columns: Any, kind: str, **kwargs: Any) -> CheckResult:
    (result,) = run(columns, check(kind, **kwargs))
    return result


def test_results_come_in_the_order_of_the_checks_with_their_figures() -> None:
    checks = [
        check("column_values_to_be_between", column="n", min_value=2),
        check("table_row_count_to_be_between", min_value=1),
        check("column_values_to_not_be_null", column="s"),
        check("column_values_to_be_between", column="n", min_value=2),
        check("column_mean_to_be_between", column="n", min_value=0),
    ]
    results = run({"n": [1, 2, 3, 4], "s": ["a", None, "b", "c"]}, *checks)
    assert [result.check for result in results] == checks
    assert [result.outcome for result in results] == [FAILED, PASSED, FAILED, FAILED, PASSED]
    assert (results[0].unexpected_count, results[0].unexpected_percent) == (1, 25.0)
    assert (results[1].observed, results[4].observed) == (4, 2.5)


def test_a_missing_column_is_errored_and_not_failed() -> None:
    wrong, right = run(
        {"n": [1]},
        check("column_values_to_not_be_null", column="gate"),
        check("column_values_to_not_be_null", column="n"),
    )
    assert (wrong.outcome, right.outcome) == (ERRORED, PASSED)
    assert wrong.message == "the dataset has no column 'gate'"


def test_a_missing_column_fails_the_check_that_asks_for_it() -> None:
    assert run_one({"n": [1]}, "column_to_exist", column="gate").outcome is FAILED


MOMENTS = pa.table(
    {
        "at": pa.array([datetime(2013, 1, day, tzinfo=UTC) for day in (1, 2, 3)], pa.timestamp("us", "UTC")),
        "day": [date(2013, 1, day) for day in (1, 2, 3)],
    }
)


@pytest.mark.parametrize("column", ["at", "day"])
@pytest.mark.parametrize(
    ("kind", "kwargs", "outcome", "unexpected"),
    [
        ("column_values_to_be_between", {"min_value": "2013-01-01", "max_value": "2013-01-03"}, PASSED, 0),
        ("column_values_to_be_between", {"min_value": "2013-01-02"}, FAILED, 1),
        ("column_min_to_be_between", {"min_value": "2013-01-01", "max_value": "2013-01-01"}, PASSED, None),
        ("column_max_to_be_between", {"max_value": "2013-01-02"}, FAILED, None),
        ("column_values_to_be_in_set", {"value_set": ["2013-01-01", "2013-01-02"]}, FAILED, 1),
        (
            "column_values_to_be_in_set",
            {"value_set": ["2013-01-01", "2013-01-02", "2013-01-03"]},
            PASSED,
            0,
        ),
    ],
)
def test_text_bounds_of_times_and_dates_are_times_and_dates(
    column: str, kind: str, kwargs: dict[str, Any], outcome: Outcome, unexpected: int | None
) -> None:
    result = run_one(MOMENTS, kind, column=column, **kwargs)
    assert (result.outcome, result.unexpected_count) == (outcome, unexpected)
    assert result.observed is None  # the minimum of a time column is a value of a row


def test_a_bound_that_is_no_time_is_errored() -> None:
    result = run_one(MOMENTS, "column_values_to_be_between", column="at", min_value="yesterday-ish")
    assert result.outcome is ERRORED
    assert result.message == "min_value 'yesterday-ish' is not a time"


def test_a_check_that_raises_is_errored_with_the_first_line_and_no_value() -> None:
    result = run_one(
        {"s": ["alice@example.org", "b"]}, "column_values_to_be_between", column="s", min_value=1
    )
    assert result.outcome is ERRORED
    assert result.message.startswith("Great Expectations raised TypeError: Column values, min_value, and")
    assert "alice" not in result.message


@pytest.mark.parametrize(
    ("values", "kind", "outcome"),
    [
        ([None, None], "column_values_to_be_in_set", NO_DATA),
        ([None, None], "column_values_to_not_be_null", FAILED),
        ([None, None], "column_values_to_be_null", PASSED),
        ([None, "a"], "column_values_to_be_in_set", PASSED),
    ],
)
def test_a_check_with_nothing_to_look_at_says_so(
    values: list[str | None], kind: str, outcome: Outcome
) -> None:
    kwargs = {"value_set": ["a"]} if "set" in kind else {}
    assert run_one({"s": pa.array(values, pa.string())}, kind, column="s", **kwargs).outcome is outcome


AGGREGATES = [
    ("column_mean_to_be_between", {"min_value": 0}),
    ("column_max_to_be_between", {"min_value": 0}),
    ("column_sum_to_be_between", {"min_value": 0}),
    ("column_unique_value_count_to_be_between", {"min_value": 1}),
    ("column_distinct_values_to_be_in_set", {"value_set": [1]}),
    ("column_most_common_value_to_be_in_set", {"value_set": [1]}),
]


@pytest.mark.parametrize(("kind", "kwargs"), AGGREGATES)
@pytest.mark.parametrize("type_", [pa.float64(), pa.string(), pa.decimal128(6, 2)])
def test_an_aggregate_of_missing_values_has_nothing_to_look_at(
    kind: str, kwargs: dict[str, Any], type_: pa.DataType
) -> None:
    result = run_one({"x": pa.array([None, None], type_)}, kind, column="x", **kwargs)
    assert (result.outcome, result.message) == (NO_DATA, "every value is missing")
    assert result.observed is None


@pytest.mark.parametrize(
    ("kind", "kwargs"), [*AGGREGATES, ("column_values_to_not_be_null", {}), ("column_values_to_be_null", {})]
)
def test_a_condition_that_no_row_meets_leaves_nothing_to_look_at(kind: str, kwargs: dict[str, Any]) -> None:
    condition = {"row_condition": 's == "nobody"', "condition_parser": "pandas"}
    result = run_one({"x": [1, 2], "s": ["a", "b"]}, kind, column="x", **kwargs, **condition)
    assert (result.outcome, result.message) == (NO_DATA, "there are no rows to look at")


@pytest.mark.parametrize(("value", "outcome"), [("a", PASSED), ("b", FAILED)])
def test_a_condition_chooses_the_rows_of_a_check(value: str, outcome: Outcome) -> None:
    condition = {"row_condition": f's == "{value}"', "condition_parser": "pandas"}
    table = {"x": [1, 2, 50], "s": ["a", "a", "b"]}
    assert run_one(table, "column_max_to_be_between", column="x", max_value=9, **condition).outcome is outcome
    assert (
        run_one(table, "column_values_to_be_between", column="x", max_value=9, **condition).outcome is outcome
    )


def test_a_condition_on_a_missing_column_is_errored_for_an_aggregate_too() -> None:
    condition = {"row_condition": "gate == 1", "condition_parser": "pandas"}
    result = run_one({"x": [1]}, "column_mean_to_be_between", column="x", min_value=0, **condition)
    assert result.outcome is ERRORED


@pytest.mark.parametrize(("mostly", "outcome"), [(0.75, PASSED), (0.76, FAILED)])
def test_mostly_counts_among_the_values_that_are_there(mostly: float, outcome: Outcome) -> None:
    # three of four values are small; the missing one does not count
    table = {"n": pa.array([1, 2, 3, 99, None], pa.int64())}
    result = run_one(table, "column_values_to_be_between", column="n", max_value=9, mostly=mostly)
    assert (result.outcome, result.unexpected_percent) == (outcome, 25.0)


def test_a_share_of_values_that_are_there_fails_on_a_column_without_any() -> None:
    kind, kwargs = "column_proportion_of_non_null_values_to_be_between", {"min_value": 0.5}
    assert run_one({"x": pa.array([None, None], pa.int64())}, kind, column="x", **kwargs).outcome is FAILED


def test_without_rows_only_checks_of_the_shape_run() -> None:
    results = run(
        {"n": pa.array([], pa.int64())},
        check("column_values_to_not_be_null", column="n"),
        check("column_values_to_not_be_null", column="gate"),
        check("table_row_count_to_be_between", min_value=1),
        check("column_to_exist", column="n"),
    )
    assert [result.outcome for result in results] == [NO_DATA, NO_DATA, FAILED, PASSED]


def test_a_crash_of_the_whole_run_errors_one_check_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # given: a library that crashes whenever the mean is among the checks
    together = _gx_run.run_together

    def crashing(engine: Any, checks: dict[int, Check], result_format: Any) -> dict[int, Any]:
        if any("mean" in one.type for one in checks.values()):
            raise TypeError("Object of type bool is not JSON serializable")
        return together(engine, checks, result_format)

    monkeypatch.setattr(_gx_run, "run_together", crashing)
    # when
    results = run(
        {"n": [1, 2]},
        check("column_values_to_not_be_null", column="n"),
        check("column_mean_to_be_between", column="n", min_value=0),
        check("column_values_to_be_between", column="n", max_value=1),
    )
    # then
    assert [result.outcome for result in results] == [PASSED, ERRORED, FAILED]
    assert (
        results[1].message
        == "Great Expectations raised TypeError: Object of type bool is not JSON serializable"
    )


SECRETS = {
    "email": ["alice@example.org", "bob@example.org", "alice@example.org", None],
    "card": [4111_1111_1111_1111, 5500_0000_0000_0004, 4111_1111_1111_1111, 3400_0000_0000_009],
}


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        ("column_values_to_be_in_set", {"column": "email", "value_set": ["x"]}),
        ("column_values_to_be_unique", {"column": "email"}),
        ("column_values_to_match_regex", {"column": "email", "regex": "^x"}),
        ("column_distinct_values_to_be_in_set", {"column": "email", "value_set": ["x"]}),
        ("column_distinct_values_to_contain_set", {"column": "card", "value_set": [1]}),
        ("column_most_common_value_to_be_in_set", {"column": "email", "value_set": ["x"]}),
        ("compound_columns_to_be_unique", {"column_list": ["email", "card"]}),
        ("column_values_to_be_between", {"column": "card", "max_value": 1}),
        ("column_values_to_be_between", {"column": "email", "max_value": 1}),
        ("column_pair_values_to_be_equal", {"column_A": "email", "column_B": "card"}),
    ],
)
def test_no_value_of_a_row_is_in_a_result(kind: str, kwargs: dict[str, Any]) -> None:
    result = run_one(SECRETS, kind, **kwargs)
    assert result.outcome in (FAILED, ERRORED)
    text = json.dumps(vars(result), default=str)
    for value in ("alice", "bob", "4111", "5500", "3400"):
        assert value not in text


def test_figures_are_plain_numbers() -> None:
    decimals = pa.table({"price": pa.array([Decimal("1.50"), Decimal("2.50")], pa.decimal128(6, 2))})
    assert run_one(decimals, "column_max_to_be_between", column="price", min_value=0).observed == 2.5
    assert run_one({"n": [1, 2]}, "column_unique_value_count_to_be_between", column="n").observed == 2
    nothing = run_one(
        {"x": pa.array([None, None], pa.float64())}, "column_mean_to_be_between", column="x", min_value=0
    )
    assert nothing.observed is None


def test_the_severity_of_a_check_is_in_its_summary() -> None:
    warning = Check(
        type="expect_column_values_to_not_be_null", kwargs={"column": "n"}, severity=Severity.WARNING
    )
    (result,) = run({"n": pa.array([None], pa.int64())}, warning)
    assert result.summary().severity is Severity.WARNING
    assert result.summary().column == "n"


def test_the_engine_names_the_librarys_version() -> None:
    engine = get_engine("pandas")
    assert engine.name == "pandas"
    assert engine.version.split(".")[0] == "1"
