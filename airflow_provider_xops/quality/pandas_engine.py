"""Great Expectations on pandas, with its sharp edges covered.

For validation. Purpose: one trustworthy word a check. How it works: checks that name a missing column are
errored before the run; text bounds on times and dates are converted to the column's type first (pandas
refuses to compare them); the suite runs as one, and if the library crashes as a whole, check by check, so
that one crash errors one check. From each result only figures are taken, by name.

What it does not do: stream. The selected rows are in memory, with the copies that Great Expectations makes.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.quality._great_expectations import ephemeral_context, great_expectations_version
from airflow_provider_xops.quality.engine import CheckResult, Frame, looks_at_shape
from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import Outcome

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PandasEngine"]

log = logging.getLogger(__name__)

# Without the partial list no value of a row is in the result to begin with.
RESULT_FORMAT = {"result_format": "SUMMARY", "partial_unexpected_count": 0}
BOUNDS = ("min_value", "max_value")
POSITION = "xops_position"
CONDITION = ("row_condition", "condition_parser")
IS_NULL = "expect_column_values_to_be_null"
ALL_MISSING = "every value is missing"
NO_ROWS = "there are no rows to look at"

_EXCEPTION_NAME = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Warning)?)(?::|$)")


class PandasEngine:
    """See the module."""

    name = "pandas"

    @property
    def version(self) -> str:
        """Great Expectations' version."""
        return great_expectations_version()

    def run(self, checks: Sequence[Check], frame: Frame) -> list[CheckResult]:
        """One result for each check, in their order."""
        results: dict[int, CheckResult] = {}
        runnable: dict[int, Check] = {}
        for position, check in enumerate(checks):
            if not frame.rows and not looks_at_shape(check):
                results[position] = CheckResult(
                    check=check, outcome=Outcome.NO_DATA, message="there are no rows"
                )
            elif missing := _missing_columns(check, frame):
                results[position] = _errored(
                    check, f"the dataset has no column {', '.join(map(repr, missing))}"
                )
            else:
                try:
                    runnable[position] = _with_typed_bounds(check, frame.schema)
                except ValueError as error:
                    results[position] = _errored(check, str(error))
        if runnable:
            data = frame.pandas()
            log.info("Running %d checks over %d rows with Great Expectations.", len(runnable), len(data))
            for position, result in _run(runnable, data).items():
                results[position] = dataclasses.replace(result, check=checks[position])
        return [results[position] for position in range(len(checks))]


def _run(checks: Mapping[int, Check], data: pd.DataFrame) -> dict[int, CheckResult]:
    batch = (
        ephemeral_context()
        .data_sources.add_pandas("xops")
        .add_dataframe_asset("frame")
        .add_batch_definition_whole_dataframe("frame")
        .get_batch({"dataframe": data})
    )
    try:
        return _without_vacuous(batch, _run_together(batch, checks))
    except MemoryError:
        raise
    except Exception as error:
        if len(checks) == 1:
            (position,) = checks
            return {position: _errored(checks[position], f"Great Expectations raised {type(error).__name__}")}
        log.warning(
            "Great Expectations raised %s for the whole suite: running check by check.", type(error).__name__
        )
    results: dict[int, CheckResult] = {}
    for position, check in checks.items():
        results |= _run({position: check}, data)
    return results


def _without_vacuous(batch: Any, results: dict[int, CheckResult]) -> dict[int, CheckResult]:
    """Aggregates over no value at all said again as *no data*.

    The library gives no counts for them, and one word or another: the sum of nothing passes, its mean fails,
    on text it raises. So the values of such a check are counted by one more check, under the same condition.
    """
    counting: dict[int, tuple[int, Check]] = {}
    for position, result in results.items():
        check = result.check
        if result.element_count is None and not looks_at_shape(check) and not _about_types(check):
            condition = {key: check.kwargs[key] for key in CONDITION if key in check.kwargs}
            for column in check.columns:
                kwargs = {"column": column, **condition}
                counting[len(counting)] = (position, Check(type=IS_NULL, kwargs=kwargs))
    if not counting:
        return results
    counted = _run_together(batch, {number: check for number, (_, check) in counting.items()})
    for number, (position, _) in counting.items():
        count = counted[number]
        present = count.element_count if "null" in results[position].check.type else count.unexpected_count
        if count.outcome is not Outcome.ERRORED and not present:
            results[position] = CheckResult(
                check=results[position].check,
                outcome=Outcome.NO_DATA,
                element_count=count.element_count,
                missing_count=count.element_count,
                message=ALL_MISSING if count.element_count else NO_ROWS,
            )
    return results


def _about_types(check: Check) -> bool:
    """Whether it asks what a column is, not what is in it."""
    return check.type in ("expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list")


def _run_together(batch: Any, checks: Mapping[int, Check]) -> dict[int, CheckResult]:
    from great_expectations.core.expectation_suite import ExpectationSuite
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    expectations = [
        ExpectationConfiguration(
            type=check.type,
            kwargs=dict(check.kwargs),
            meta={POSITION: position},
            severity=check.severity.value,
        ).to_domain_obj()
        for position, check in checks.items()
    ]
    suite = ExpectationSuite(name="xops")
    for expectation in expectations:
        # add_expectation() drops one that equals another; the results are found by position.
        suite.expectations.append(expectation)
    outcome = batch.validate(suite, result_format=RESULT_FORMAT)
    results = {}
    for item in outcome.results:
        position = item.expectation_config.meta[POSITION]
        results[position] = _result_of(checks[position], item)
    for position in checks.keys() - results.keys():
        results[position] = _errored(checks[position], "Great Expectations gave no result for it")
    return results


def _result_of(check: Check, item: Any) -> CheckResult:
    raised = _exception_in(item.exception_info)
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
    return CheckResult(
        check=check,
        outcome=outcome,
        observed=_number(figures.get("observed_value")),
        unexpected_count=_whole(figures.get("unexpected_count")),
        unexpected_percent=_number(figures.get("unexpected_percent")),
        element_count=_whole(elements),
        missing_count=_whole(missing),
        message="" if not nothing else ALL_MISSING if elements else NO_ROWS,
    )


def _missing_columns(check: Check, frame: Frame) -> list[str]:
    if looks_at_shape(check):
        return []
    return [name for name in check.columns if name not in frame.schema.names]


def _errored(check: Check, message: str) -> CheckResult:
    return CheckResult(check=check, outcome=Outcome.ERRORED, message=message)


def _exception_in(info: Any) -> str | None:
    """The type of the first exception in a result, if any. Messages may quote values: never used."""
    if not isinstance(info, Mapping):
        return None
    parts = (
        [info]
        if "raised_exception" in info
        else [part for part in info.values() if isinstance(part, Mapping)]
    )
    for part in parts:
        if part.get("raised_exception"):
            lines = [
                line for line in str(part.get("exception_traceback") or "").splitlines() if line[:1].strip()
            ]
            # The first "Name: message" line that stands at the margin is the exception that began it.
            for line in lines:
                found = _EXCEPTION_NAME.match(line)
                if found and not line.startswith("Traceback"):
                    return found[1].rpartition(".")[2]
            return ""
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
    convert = _to_time if pa.types.is_timestamp(kind) else _to_date
    kwargs = dict(check.kwargs)
    for key in BOUNDS:
        if isinstance(kwargs.get(key), str):
            kwargs[key] = convert(key, kwargs[key])
    if isinstance(kwargs.get("value_set"), list):
        kwargs["value_set"] = [
            convert("value_set", item) if isinstance(item, str) else item for item in kwargs["value_set"]
        ]
    return Check(type=check.type, kwargs=kwargs, severity=check.severity)


def _to_time(key: str, text: str) -> Any:
    import pandas as pd

    try:
        moment = pd.Timestamp(text)
    except ValueError:
        raise ValueError(f"{key} {text!r} is not a time") from None
    return (moment.tz_localize("UTC") if moment.tz is None else moment.tz_convert("UTC")).to_pydatetime()


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
