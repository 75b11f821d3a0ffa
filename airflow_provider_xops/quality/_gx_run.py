"""A suite run by Great Expectations on any execution engine, with the library's sharp edges covered.

For the engines, which share everything but the execution engine. Purpose: one trustworthy word a check. How
it works: checks that name a missing column or ask about values of a nested one are errored before the run;
text bounds on times and dates are converted to the column's type first (pandas refuses to compare them); the
suite runs as one, and if the library crashes as a whole, check by check, so that one crash errors one check.
From each result only figures are taken, by name.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from airflow_provider_xops.quality._great_expectations import great_expectations, great_expectations_version
from airflow_provider_xops.quality._messages import safe_line
from airflow_provider_xops.quality.engine import CheckResult, EngineRun, Frame, looks_at_shape
from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import Outcome

__all__ = ["BATCH", "prepare", "run_checks", "run_together", "unexpected_positions"]

log = logging.getLogger(__name__)

BATCH = "xops"
BOUNDS = ("min_value", "max_value")
# It counts the rows under a condition and judges all of them: its figures do not add up, or are wrong.
CONDITION_IGNORED = ("expect_column_pair_values_to_be_in_set",)
POSITION = "xops_position"
CONDITION = ("row_condition", "condition_parser")
IS_NULL = "expect_column_values_to_be_null"
ALL_MISSING = "every value is missing"
NO_ROWS = "there are no rows to look at"

FIGURES_ONLY = {"result_format": "BASIC", "return_unexpected_index_query": False}

# Whether a value is there can be said of any type.
_ABOUT_PRESENCE = {
    "expect_column_values_to_be_null",
    "expect_column_values_to_not_be_null",
    "expect_column_proportion_of_non_null_values_to_be_between",
}
_ABOUT_TYPES = {
    "expect_column_values_to_be_of_type",
    "expect_column_values_to_be_in_type_list",
    "expect_column_type_to_be",
}
_FIGURES = (
    "element_count",
    "missing_count",
    "missing_percent",
    "unexpected_count",
    "unexpected_percent",
    "unexpected_percent_total",
    "unexpected_percent_nonmissing",
)


def run_checks(
    checks: Sequence[Check], frame: Frame, *, open_engine: Callable[[], Any], examples: int
) -> EngineRun:
    """Run them and say how each ended.

    :param open_engine: gives Great Expectations' execution engine with the frame loaded as :data:`BATCH`;
        called only when there is something to run.
    """
    results, runnable = prepare(checks, frame)
    document = None
    if runnable:
        engine = open_engine()
        ended, items = _run(engine, runnable, examples)
        for position, result in ended.items():
            results[position] = dataclasses.replace(result, check=checks[position])
        document = _document(items, checks, results)
    return EngineRun(results=tuple(results[position] for position in range(len(checks))), document=document)


def prepare(checks: Sequence[Check], frame: Frame) -> tuple[dict[int, CheckResult], dict[int, Check]]:
    """What can be said of the checks before any row is read, and the checks that are left to run."""
    results: dict[int, CheckResult] = {}
    runnable: dict[int, Check] = {}
    for position, check in enumerate(checks):
        if not frame.rows and not looks_at_shape(check):
            results[position] = CheckResult(check=check, outcome=Outcome.NO_DATA, message="there are no rows")
        elif missing := _missing_columns(check, frame):
            results[position] = _errored(check, f"the dataset has no column {', '.join(map(repr, missing))}")
        elif nested := _nested_columns(check, frame):
            results[position] = _errored(
                check, f"the column {', '.join(map(repr, nested))} is nested: its values cannot be judged"
            )
        elif check.type in CONDITION_IGNORED and check.kwargs.get("row_condition"):
            results[position] = _errored(
                check, "Great Expectations judges its rows without the row_condition: remove the condition"
            )
        else:
            try:
                runnable[position] = _with_typed_bounds(check, frame.schema)
            except ValueError as error:
                results[position] = _errored(check, str(error))
    return results, runnable


def run_together(
    engine: Any, checks: Mapping[int, Check], result_format: Mapping[str, Any]
) -> dict[int, Any]:
    """Great Expectations' own result of each check, by its position."""
    great_expectations()
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.validator.validator import Validator

    validator = Validator(execution_engine=engine)
    validator.metrics_calculator.show_progress_bars = False
    configurations = [
        ExpectationConfiguration(
            type=check.type,
            kwargs={**check.kwargs, "batch_id": BATCH},
            meta={POSITION: position},
            severity=check.severity.value,
        )
        for position, check in checks.items()
    ]
    items = validator.graph_validate(
        configurations, runtime_configuration={"result_format": dict(result_format)}
    )
    return {item.expectation_config.meta[POSITION]: item for item in items}


def unexpected_positions(engine: Any, check: Check) -> Any:
    """The positions of the rows that break a row-level check, by Great Expectations' own list of them."""
    import numpy as np

    complete = {
        "result_format": "COMPLETE",
        "return_unexpected_index_query": False,
        "include_unexpected_rows": False,
    }
    item = run_together(engine, {0: check}, complete).get(0)
    found = (item.result or {}).get("unexpected_index_list") if item is not None else None
    return np.sort(np.asarray(found or [], dtype=np.int64))


def _run(
    engine: Any, checks: Mapping[int, Check], examples: int
) -> tuple[dict[int, CheckResult], dict[int, Any]]:
    # Without the partial list no value of a row is in the result to begin with.
    result_format = {**FIGURES_ONLY, "partial_unexpected_count": examples}
    try:
        items = run_together(engine, checks, result_format)
        results = {
            position: _result_of(check, items[position], examples)
            if position in items
            else _errored(check, "Great Expectations gave no result for it")
            for position, check in checks.items()
        }
        return _without_vacuous(engine, results), items
    except MemoryError:
        raise
    except Exception as error:
        if len(checks) == 1:
            (position,) = checks
            return {
                position: _errored(
                    checks[position],
                    "Great Expectations raised "
                    + safe_line(f"{type(error).__name__}: {error}", columns=checks[position].columns),
                )
            }, {}
        log.warning(
            "Great Expectations raised %s for the whole suite: running check by check.", type(error).__name__
        )
    ended: dict[int, CheckResult] = {}
    every: dict[int, Any] = {}
    for position, check in checks.items():
        one, items = _run(engine, {position: check}, examples)
        ended |= one
        every |= items
    return ended, every


def _without_vacuous(engine: Any, results: dict[int, CheckResult]) -> dict[int, CheckResult]:
    """Aggregates over no value at all said again as *no data*.

    The library gives no counts for them, and one word or another: the sum of nothing passes, its mean fails,
    on text it raises. So the values of such a check are counted by one more check, under the same condition.
    """
    counting: dict[str, tuple[int, Check]] = {}
    asked: list[tuple[int, str]] = []
    for position, result in results.items():
        check = result.check
        if result.element_count is None and not looks_at_shape(check) and check.type not in _ABOUT_TYPES:
            condition = {key: check.kwargs[key] for key in CONDITION if key in check.kwargs}
            for column in check.columns:
                kwargs = {"column": column, **condition}
                counting.setdefault(
                    repr(sorted(kwargs.items())), (len(counting), Check(type=IS_NULL, kwargs=kwargs))
                )
                asked.append((position, repr(sorted(kwargs.items()))))
    if not counting:
        return results
    counts = _counted(engine, [check for _, check in counting.values()])
    for position, key in asked:
        count = counts[counting[key][0]]
        if count is None:
            continue
        elements, missing = count
        # Of a check about nulls the rows are what is looked at.
        if not (elements if "null" in results[position].check.type else elements - missing):
            results[position] = CheckResult(
                check=results[position].check,
                outcome=Outcome.NO_DATA,
                element_count=elements,
                missing_count=elements,
                message=ALL_MISSING if elements else NO_ROWS,
            )
    return results


def _counted(engine: Any, checks: Sequence[Check]) -> list[tuple[int, int] | None]:
    """Rows and missing values of each check's column under its condition; None where that cannot be said."""
    found: list[tuple[int, int] | None] = [None for _ in checks]
    if hasattr(engine, "rows_and_missing"):
        found = engine.rows_and_missing(checks)
    left = {place: check for place, check in enumerate(checks) if found[place] is None}
    items = run_together(engine, left, {**FIGURES_ONLY, "partial_unexpected_count": 0}) if left else {}
    for place, item in items.items():
        count = _result_of(left[place], item, 0)
        if count.outcome is not Outcome.ERRORED and count.element_count is not None:
            found[place] = (count.element_count, count.element_count - (count.unexpected_count or 0))
    return found


def _result_of(check: Check, item: Any, examples: int) -> CheckResult:
    raised = _exception_in(item.exception_info, check)
    if raised is not None:
        return _errored(
            check, f"Great Expectations raised {raised}" if raised else "Great Expectations could not run it"
        )
    figures: Mapping[str, Any] = item.result or {}
    elements, missing = _number(figures.get("element_count")), _number(figures.get("missing_count"))
    about_nulls = "null" in check.type
    looked_at = None if elements is None else elements - (0 if about_nulls else missing or 0)
    nothing = looked_at == 0
    outcome = Outcome.NO_DATA if nothing else Outcome.PASSED if item.success else Outcome.FAILED
    found = figures.get("partial_unexpected_list")
    return CheckResult(
        check=check,
        outcome=outcome,
        observed=_number(figures.get("observed_value")),
        unexpected_count=_whole(figures.get("unexpected_count")),
        unexpected_percent=_number(figures.get("unexpected_percent")),
        element_count=_whole(elements),
        missing_count=_whole(missing),
        message="" if not nothing else ALL_MISSING if elements else NO_ROWS,
        examples=tuple(found[:examples]) if examples and isinstance(found, list) else (),
    )


def _document(
    items: Mapping[int, Any], checks: Sequence[Check], results: Mapping[int, CheckResult]
) -> dict[str, Any]:
    """Great Expectations' result of the suite as JSON types, with figures only."""
    ran = [_shown(items.get(position), check, results[position]) for position, check in enumerate(checks)]
    passed = sum(one["success"] for one in ran)
    return {
        "success": passed == len(ran),
        "results": ran,
        "suite_name": BATCH,
        "suite_parameters": {},
        "statistics": {
            "evaluated_expectations": len(ran),
            "successful_expectations": passed,
            "unsuccessful_expectations": len(ran) - passed,
            "success_percent": passed / len(ran) * 100 if ran else None,
        },
        "meta": {"great_expectations_version": great_expectations_version()},
    }


def _shown(item: Any, check: Check, result: CheckResult) -> dict[str, Any]:
    errored = result.outcome is Outcome.ERRORED
    found = {} if item is None or errored else dict(item.to_json_dict().get("result") or {})
    about_shape = looks_at_shape(check) or check.type in _ABOUT_TYPES
    figures = {key: found[key] for key in _FIGURES if key in found}
    if "observed_value" in found and (about_shape or _number(found["observed_value"]) is not None):
        figures["observed_value"] = found["observed_value"]
    if about_shape and "details" in found:
        figures["details"] = found["details"]
    return {
        "success": bool(item is not None and item.success and not errored),
        "expectation_config": {
            "type": check.type,
            "kwargs": {**check.kwargs, "batch_id": BATCH},
            "meta": dict(check.meta),
            "severity": check.severity.value,
        },
        "result": figures,
        "meta": {},
        "exception_info": {
            "raised_exception": errored,
            "exception_message": result.message if errored else None,
            "exception_traceback": None,
        },
    }


def _missing_columns(check: Check, frame: Frame) -> list[str]:
    if looks_at_shape(check):
        return []
    return [name for name in check.columns if name not in frame.schema.names]


def _nested_columns(check: Check, frame: Frame) -> list[str]:
    import pyarrow as pa

    if looks_at_shape(check) or check.type in _ABOUT_PRESENCE:
        return []
    return [name for name in check.columns if pa.types.is_nested(frame.schema.field(name).type)]


def _errored(check: Check, message: str) -> CheckResult:
    return CheckResult(check=check, outcome=Outcome.ERRORED, message=message)


def _exception_in(info: Any, check: Check) -> str | None:
    """The first exception in a result, if any: its type and what may be said of its message."""
    if not isinstance(info, Mapping):
        return None
    parts = (
        [info]
        if "raised_exception" in info
        else [part for part in info.values() if isinstance(part, Mapping)]
    )
    for part in parts:
        if part.get("raised_exception"):
            said = part.get("exception_traceback") or part.get("exception_message") or ""
            return safe_line(str(said), columns=check.columns)
    return None


def _with_typed_bounds(check: Check, schema: Any) -> Check:
    """The check with bounds and value sets of a time or date column as times or dates.

    :raises ValueError: a bound is not one.
    """
    import pyarrow as pa

    names = check.columns
    if len(names) != 1 or names[0] not in schema.names:
        return check
    kind = schema.field(names[0]).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return check
    convert = _to_date if pa.types.is_date(kind) else _to_time if kind.tz else _to_naive_time
    kwargs = dict(check.kwargs)
    for key in BOUNDS:
        if isinstance(kwargs.get(key), str):
            kwargs[key] = convert(key, kwargs[key])
    if isinstance(kwargs.get("value_set"), list):
        kwargs["value_set"] = [
            convert("value_set", item) if isinstance(item, str) else item for item in kwargs["value_set"]
        ]
    return dataclasses.replace(check, kwargs=kwargs)


def _to_time(key: str, text: str) -> Any:
    import pandas as pd

    try:
        moment = pd.Timestamp(text)
    except ValueError:
        raise ValueError(f"{key} {text!r} is not a time") from None
    return (moment.tz_localize("UTC") if moment.tz is None else moment.tz_convert("UTC")).to_pydatetime()


def _to_naive_time(key: str, text: str) -> Any:
    """For a column without a zone; a bound with one means that moment in UTC."""
    return _to_time(key, text).replace(tzinfo=None)


def _to_date(key: str, text: str) -> date:
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise ValueError(f"{key} {text!r} is not a date") from None


def _number(value: Any) -> float | int | None:
    """A finite number as Python has it (NumPy's and decimals too); everything else is no figure."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal) or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
