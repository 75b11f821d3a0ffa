"""The DuckDB engine against Great Expectations on pandas: the same success and the same figures, everywhere.

Every core expectation with its options runs on both engines, over hand-made tables with what usually goes
wrong, and over generated ones. Compared is Great Expectations' own result, as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality._great_expectations import great_expectations
from airflow_provider_xops.quality.duckdb_engine import DuckDBEngine
from airflow_provider_xops.quality.engine import Frame, is_row_level
from airflow_provider_xops.quality.frames import ArrowFrame, FileFrame, LakeFrame, PandasFrame
from airflow_provider_xops.quality.pandas_engine import PandasEngine
from airflow_provider_xops.quality.suites import Check
from tests.unit.lake.helpers import put, segment

FORMATS: list[dict[str, Any]] = [
    {"result_format": "COMPLETE", "partial_unexpected_count": 3},
    {"result_format": "SUMMARY", "partial_unexpected_count": 0},
    {"result_format": "BASIC", "partial_unexpected_count": 2},
    {"result_format": "BOOLEAN_ONLY"},
    {"result_format": "COMPLETE", "unexpected_index_column_names": ["id"], "include_unexpected_rows": True},
]


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


HARD = pa.table(
    {
        "id": pa.array(range(8), pa.int64()),
        "n": pa.array([1, 2, 2, None, -5, 7, 100, 0], pa.int64()),
        "m": pa.array([1, 2, 3, 4, -5, 7, 99, 0], pa.int32()),
        "tiny": pa.array([1, 2, 3, None, -5, 7, 100, 0], pa.int8()),
        "wide": pa.array([2**62, -(2**62), 2**53 + 1, 2**53, 2**53 + 2, 0, 1, 1], pa.int64()),
        "wide_gaps": pa.array([2**62, None, 2**53 + 1, 2**53, 2**53 + 2, 0, 1, 1], pa.int64()),
        "unsigned": pa.array([2**64 - 1, 0, 1, 2, 3, 4, 5, 5], pa.uint64()),
        "x": pa.array([1.5, math.nan, math.inf, -math.inf, -0.0, 0.0, None, 1e-3], pa.float64()),
        "y": pa.array([0.1, 0.2, 0.30000000000000004, 0.1, 2.5, -1.0, 10.0, None], pa.float64()),
        "z": pa.array([0.1, 0.2, 0.3, 0.1, 2.5, -1.0, 10.0, 1e6], pa.float64()),
        "single": pa.array([0.1, 0.2, None, 0.1, 2.5, -1.0, 10.0, 1e6], pa.float32()),
        "s": pa.array(["a", "b", None, "ä", "日本", "a\nb", "", "2026-01-02"], pa.string()),
        "t": pa.array(["a", "B", None, "ä", "x", "b", "c", '{"k": 1}'], pa.string()),
        "flag": pa.array([True, False, True, True, False, True, False, True], pa.bool_()),
        "flag_gaps": pa.array([True, None, True, True, False, True, False, True], pa.bool_()),
        "price": pa.array(
            [Decimal("1.10"), None, *map(Decimal, ("0.10", "2.50", "2.50", "-3.00", "0.30", "9"))],
            pa.decimal128(8, 2),
        ),
        "cost": pa.array(
            [Decimal(one) for one in ("1.10", "2.00", "0.10", "2.50", "2.50", "-3.00", "0.30", "9")],
            pa.decimal128(8, 2),
        ),
        "day": pa.array([date(2026, 1, one) for one in (1, 2, 3, 3, 5, 6, 7, 8)], pa.date32()),
        "day_gaps": pa.array(
            [date(2026, 1, 1), None, *(date(2026, 1, one) for one in (3, 3, 5, 6, 7, 8))], pa.date32()
        ),
        "when": pa.array(
            [at(1), None, at(2, 3), at(2), at(5), at(6), at(6), at(9)], pa.timestamp("us", "UTC")
        ),
        "local": pa.array(
            [at(one).replace(tzinfo=None) for one in (1, 2, 3, 3, 5, 6, 7, 8)], pa.timestamp("us")
        ),
        "exact": pa.array([1, 2, 3, 4, 5, 6, 7, None], pa.timestamp("ns")),
        "raw": pa.array([b"a", b"\x00", None, b"a", b"b", b"c", b"d", b"e"], pa.binary()),
        "nothing": pa.array([None] * 8, pa.int64()),
        'quo"ted name': pa.array([1, 2, 3, 4, 5, 6, 7, 7], pa.int64()),
        "k": pa.array([3, 1, 2, 3, 4, 5, 6, None], pa.int64()),
        "select": pa.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], pa.float64()),
        "list": pa.array([[1], [2], None, [1], [1], [1], [1], [1]], pa.list_(pa.int64())),
        "struct": pa.array([{"a": 1}] * 8, pa.struct([("a", pa.int64())])),
        "word": pa.array(["a", "b", "a", "b", "c", None, "a", "a"], pa.string()).dictionary_encode(),
    }
)

CONDITIONS: list[dict[str, Any]] = [
    {"row_condition": "m > 1", "condition_parser": "pandas"},
    {"row_condition": 's == "a" or (n >= 2 and not z < 0)', "condition_parser": "pandas"},
    {"row_condition": "s != 'a' & y.notnull()", "condition_parser": "pandas"},
    {"row_condition": 'm in [1, 2, 7] and `quo"ted name` < 6', "condition_parser": "pandas"},
    {"row_condition": "m % 2 == 1", "condition_parser": "pandas"},
    {"row_condition": "s.str.len() > 1", "condition_parser": "pandas"},
    {"row_condition": "m > 1000", "condition_parser": "pandas"},
    {"row_condition": "nobody > 1", "condition_parser": "pandas"},
    {"row_condition": 'col("m") > 1', "condition_parser": "great_expectations"},
]
PARTITION = {"values": ["a", "b"], "weights": [0.5, 0.5]}
BINS = {"bins": [-10.0, 0.0, 1.0, 5.0, 100.0], "weights": [0.1, 0.2, 0.3, 0.4]}

# What each core expectation is asked of one column, beside the column itself.
OF_A_COLUMN: dict[str, list[dict[str, Any]]] = {
    "ExpectColumnDistinctValuesToBeInSet": [{"value_set": [1, 2, 7]}, {"value_set": ["a", "b"]}],
    "ExpectColumnDistinctValuesToContainSet": [{"value_set": [1, 2]}, {"value_set": ["a", "zz"]}],
    "ExpectColumnDistinctValuesToEqualSet": [{"value_set": [1, 2]}, {"value_set": ["a", "b"]}],
    "ExpectColumnKLDivergenceToBeLessThan": [
        {"partition_object": PARTITION, "threshold": 0.5},
        {
            "partition_object": BINS,
            "threshold": 0.9,
            "internal_weight_holdout": 0.01,
            "tail_weight_holdout": 0.01,
        },
    ],
    "ExpectColumnMaxToBeBetween": [{"min_value": 0, "max_value": 7}, {"max_value": 7, "strict_max": True}],
    "ExpectColumnMeanToBeBetween": [{"min_value": 0, "max_value": 5}, {"min_value": 1.0, "strict_min": True}],
    "ExpectColumnMedianToBeBetween": [{"min_value": 0, "max_value": 5}],
    "ExpectColumnMinToBeBetween": [{"min_value": -5, "strict_min": True}, {"min_value": "2026-01-02"}],
    "ExpectColumnMostCommonValueToBeInSet": [{"value_set": [1, 2]}, {"value_set": ["a"], "ties_okay": True}],
    "ExpectColumnProportionOfNonNullValuesToBeBetween": [{"min_value": 0.5}],
    "ExpectColumnProportionOfUniqueValuesToBeBetween": [{"min_value": 0.9}],
    "ExpectColumnQuantileValuesToBeBetween": [
        {
            "quantile_ranges": {"quantiles": [0.0, 0.1, 0.5, 0.77, 1.0], "value_ranges": [[None, 5]] * 5},
            "allow_relative_error": method,
        }
        for method in (False, "linear", "lower", "higher", "midpoint", "nearest")
    ],
    "ExpectColumnStdevToBeBetween": [{"min_value": 0, "max_value": 5}],
    "ExpectColumnSumToBeBetween": [{"min_value": 0, "max_value": 10}],
    "ExpectColumnToExist": [{}, {"column_index": 2}],
    "ExpectColumnTypeToBe": [{"type_": "int64"}, {"type_": "float64"}],
    "ExpectColumnUniqueValueCountToBeBetween": [{"min_value": 3, "max_value": 6}],
    "ExpectColumnValueLengthsToBeBetween": [
        {"min_value": 1, "max_value": 2},
        {"max_value": 2, "strict_max": True},
    ],
    "ExpectColumnValueLengthsToEqual": [{"value": 1}],
    "ExpectColumnValuesToBeBetween": [
        {"min_value": 0, "max_value": 5},
        {"min_value": 0, "strict_min": True, "mostly": 0.5},
        {"max_value": 0.1},
        {"min_value": 0.3},
        {"max_value": 2.5, "strict_max": True},
        {"min_value": "2026-01-02", "max_value": "2026-01-05", "strict_max": True},
        {"min_value": float(2**53), "max_value": float(2**62)},
        {"min_value": 5, "max_value": 1},
    ],
    "ExpectColumnValuesToBeDateutilParseable": [{}],
    "ExpectColumnValuesToBeDecreasing": [{}, {"strictly": True}],
    "ExpectColumnValuesToBeIncreasing": [{}, {"strictly": True, "mostly": 0.7}],
    "ExpectColumnValuesToBeInSet": [
        {"value_set": [1, 2, 2.5]},
        {"value_set": [0.1, 1e6, 9]},
        {"value_set": ["a", "ä"]},
        {"value_set": []},
        {"value_set": [1, None]},
        {"value_set": ["2026-01-02", "2026-01-03"], "mostly": 0.2},
        {"value_set": [True]},
    ],
    "ExpectColumnValuesToBeInTypeList": [{"type_list": ["int64", "float64", "str"]}],
    "ExpectColumnValuesToBeJsonParseable": [{"mostly": 0.1}],
    "ExpectColumnValuesToBeNull": [{}, {"mostly": 0.1}],
    "ExpectColumnValuesToBeOfType": [{"type_": "int64"}, {"type_": "str"}],
    "ExpectColumnValuesToBeUnique": [{}, {"mostly": 0.5}],
    "ExpectColumnValuesToMatchJsonSchema": [{"json_schema": {"type": "object"}}],
    "ExpectColumnValuesToMatchLikePattern": [{"like_pattern": "a%"}],
    "ExpectColumnValuesToMatchLikePatternList": [{"like_pattern_list": ["a%"]}],
    "ExpectColumnValuesToMatchRegex": [
        {"regex": pattern}
        for pattern in (
            "^a",
            "b$",
            r"^\w$",
            "a.b",
            "a(?=b)",
            "",
            r"(?i)^A$",
            r"\bb",
            "[ä-ö]",
            "(",
            r"(a)\1",
            r"a\Z",
            "a{1,2}",
        )
    ],
    "ExpectColumnValuesToMatchRegexList": [
        {"regex_list": ["^a", "b$"]},
        {"regex_list": ["a", "b"], "match_on": "all"},
        {"regex_list": ["a", "(?<!x)b"], "mostly": 0.5},
    ],
    "ExpectColumnValuesToMatchStrftimeFormat": [{"strftime_format": "%Y-%m-%d", "mostly": 0.1}],
    "ExpectColumnValuesToNotBeInSet": [
        {"value_set": [1, 2]},
        {"value_set": ["a"]},
        {"value_set": ["2026-01-02"]},
    ],
    "ExpectColumnValuesToNotBeNull": [{}, {"mostly": 0.5}],
    "ExpectColumnValuesToNotBeOutliers": [
        {"method": "iqr", "multiplier": 1.5},
        {"method": "std", "multiplier": 1.0, "mostly": 0.5},
    ],
    "ExpectColumnValuesToNotMatchLikePattern": [{"like_pattern": "a%"}],
    "ExpectColumnValuesToNotMatchLikePatternList": [{"like_pattern_list": ["a%"]}],
    "ExpectColumnValuesToNotMatchRegex": [{"regex": "^a"}, {"regex": "a(?!b)"}],
    "ExpectColumnValuesToNotMatchRegexList": [{"regex_list": ["^a", "b$"]}],
    "ExpectColumnValueZScoresToBeLessThan": [
        {"threshold": 1.0, "double_sided": True},
        {"threshold": 0.5, "double_sided": False, "mostly": 0.5},
    ],
}

PAIRS = [
    ("n", "m"),
    ("s", "t"),
    ("y", "z"),
    ("n", "y"),
    ("price", "cost"),
    ("day", "day_gaps"),
    ("day", "when"),
    ("when", "when"),
    ("wide", "wide_gaps"),
    ("flag", "flag_gaps"),
    ("s", "n"),
    ("k", "n"),
    ("x", "y"),
    ("word", "s"),
]
LISTS = [
    ["n", "m"],
    ["n", "m", "y"],
    ["s", "t"],
    ["y", "z"],
    ["flag", "flag_gaps"],
    ["x", "y", "z"],
    ["price", "cost"],
    ["wide", "wide_gaps"],
    ["day", "day_gaps"],
    ["s", "n"],
    ["when", "when"],
    ["nothing", "n"],
]
OF_A_PAIR: dict[str, list[dict[str, Any]]] = {
    "ExpectColumnPairValuesAToBeGreaterThanB": [{}, {"or_equal": True, "mostly": 0.5}],
    "ExpectColumnPairValuesToBeEqual": [{}, {"mostly": 0.3}],
    "ExpectColumnPairValuesToBeInSet": [
        {"value_pairs_set": [[1, 1], [2, 2], [None, 4]]},
        {"value_pairs_set": [["a", "a"], ["b", "B"]]},
    ],
}
OF_A_LIST: dict[str, list[dict[str, Any]]] = {
    "ExpectCompoundColumnsToBeUnique": [{}, {"mostly": 0.5}],
    "ExpectMulticolumnSumToEqual": [{"sum_total": 4}, {"sum_total": 0.2}],
    "ExpectMulticolumnValuesToBeEqual": [{}],
    "ExpectSelectColumnValuesToBeUniqueWithinRecord": [{}],
}
OF_THE_TABLE: dict[str, list[dict[str, Any]]] = {
    "ExpectMulticolumnValuesToBeUnique": [],  # Great Expectations exports it and does not know it
    "ExpectQueryResultsToMatchComparison": [],  # compares two data sources: neither engine is one
    "ExpectTableColumnCountToBeBetween": [{"min_value": 1, "max_value": 100}],
    "ExpectTableColumnCountToEqual": [{"value": 3}],
    "ExpectTableColumnsToMatchOrderedList": [{"column_list": ["id", "n"]}],
    "ExpectTableColumnsToMatchSet": [{"column_set": ["id", "n"], "exact_match": False}],
    "ExpectTableRowCountToBeBetween": [{"min_value": 1, "max_value": 7}],
    "ExpectTableRowCountToEqual": [{"value": 8}],
    "ExpectTableRowCountToEqualOtherTable": [{"other_table_name": "other"}],
    "UnexpectedRowsExpectation": [{"unexpected_rows_query": "SELECT * FROM {batch}"}],
}
# Of types the library asks before it catches what a condition raises: one such check ends the whole run.
NO_CONDITION = {
    "ExpectColumnToExist",
    "ExpectColumnTypeToBe",
    "ExpectColumnValuesToBeInTypeList",
    "ExpectColumnValuesToBeOfType",
}


@cache
def kinds() -> dict[str, str]:
    """Great Expectations' name (``expect_...``) of each core expectation's class."""
    great_expectations()
    from great_expectations import expectations
    from great_expectations.util import camel_to_snake

    exported = [name for name in dir(expectations) if name.startswith("Expect") and name != "Expectation"]
    return {name: camel_to_snake(name) for name in [*exported, "UnexpectedRowsExpectation"]}


def check(name: str, **kwargs: Any) -> Check:
    return Check(type=kinds()[name], kwargs=kwargs)


def checks_of(frame: Frame, *, pairs: Sequence[Any] = PAIRS, lists: Sequence[Any] = LISTS) -> list[Check]:
    """Every core expectation of every column, pair and list, without a row condition."""
    found = [
        check(name, column=column, **kwargs)
        for column in frame.schema.names
        for name, variants in OF_A_COLUMN.items()
        for kwargs in variants
    ]
    found += [
        check(name, column_A=a, column_B=b, ignore_row_if=ignored, **kwargs)
        for a, b in pairs
        for name, variants in OF_A_PAIR.items()
        for kwargs in variants
        for ignored in ("both_values_are_missing", "either_value_is_missing", "neither")
    ]
    found += [
        check(name, column_list=names, ignore_row_if=ignored, **kwargs)
        for names in lists
        for name, variants in OF_A_LIST.items()
        for kwargs in variants
        for ignored in ("all_values_are_missing", "any_value_is_missing", "never")
        if len(set(names)) > 1
    ]
    return found + [check(name, **kwargs) for name, variants in OF_THE_TABLE.items() for kwargs in variants]


def differences(checks: Sequence[Check], frame: Frame, result_format: Mapping[str, Any]) -> list[str]:
    """One sentence for each result that is not the same."""
    found = []
    # The library starts a level again for every metric that raises: few checks at a time are much faster.
    for start in range(0, len(checks), 20):
        found += _differences(checks[start : start + 20], frame, result_format)
    return found


def _differences(checks: Sequence[Check], frame: Frame, result_format: Mapping[str, Any]) -> list[str]:
    ours = DuckDBEngine().great_expectations_results(checks, frame, result_format=result_format)
    theirs = PandasEngine().great_expectations_results(checks, frame, result_format=result_format)
    found = []
    for one, mine, other in zip(checks, ours, theirs, strict=True):
        problem = _difference(_plain(mine), _plain(other))
        if problem:
            found.append(f"{one.type} {dict(one.kwargs)}: {problem}")
    return found


def _plain(item: Any) -> Any:
    if item is None:
        return None
    shown = item.to_json_dict()
    raised = _raised(shown["exception_info"])
    return {"success": shown["success"], "raised": raised, "result": {} if raised else shown["result"]}


def _raised(info: Mapping[str, Any]) -> bool:
    parts = [info] if "raised_exception" in info else list(info.values())
    return any(part.get("raised_exception") for part in parts if isinstance(part, Mapping))


def _difference(mine: Any, other: Any, where: str = "") -> str:
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        if set(mine) != set(other):
            return f"{where}: keys {sorted(set(mine) ^ set(other))}"
        return next(
            (one for key in mine if (one := _difference(mine[key], other[key], f"{where}.{key}"))), ""
        )
    if isinstance(mine, list) and isinstance(other, list):
        if len(mine) != len(other):
            return f"{where}: {len(mine)} against {len(other)}: {mine} against {other}"
        pairs = enumerate(zip(mine, other, strict=True))
        return next((one for place, (a, b) in pairs if (one := _difference(a, b, f"{where}[{place}]"))), "")
    if isinstance(mine, float) or isinstance(other, float):
        same_type = type(mine) is type(other)
        close = same_type and (
            mine == other
            or (math.isnan(mine) and math.isnan(other))
            or math.isclose(mine, other, rel_tol=1e-9, abs_tol=1e-12)
        )
        return "" if close else f"{where}: {mine!r} against {other!r}"
    return "" if mine == other and type(mine) is type(other) else f"{where}: {mine!r} against {other!r}"


def test_every_core_expectation_is_compared() -> None:
    named = {**OF_A_COLUMN, **OF_A_PAIR, **OF_A_LIST, **OF_THE_TABLE}
    assert set(kinds()) == set(named)


@pytest.mark.parametrize("number", range(len(FORMATS)))
def test_both_engines_agree_on_the_hard_table(number: int) -> None:
    # A share of the checks for each form; ``-m soak`` runs all of them.
    frame = ArrowFrame(HARD)
    assert differences(checks_of(frame)[number :: (11 if not number else 67)], frame, FORMATS[number]) == []


@pytest.mark.soak
def test_both_engines_agree_on_every_check_of_the_hard_table() -> None:
    frame = ArrowFrame(HARD)
    assert differences(checks_of(frame), frame, FORMATS[0]) == []


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda one: one["row_condition"])
def test_both_engines_agree_under_a_row_condition(condition: dict[str, Any]) -> None:
    frame = ArrowFrame(HARD)
    place = CONDITIONS.index(condition)
    without = {kinds()[name] for name in (*NO_CONDITION, *OF_THE_TABLE)}
    takes = [
        Check(type=one.type, kwargs={**one.kwargs, **condition})
        for one in checks_of(frame)
        if one.type not in without
    ]
    assert differences(takes[place::83], frame, FORMATS[0]) == []


@pytest.mark.parametrize("rows", [0, 1])
def test_both_engines_agree_on_an_empty_table_and_on_one_row(rows: int) -> None:
    frame = ArrowFrame(HARD.slice(0, rows))
    assert differences(checks_of(frame)[rows::61], frame, FORMATS[0]) == []


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.int8()])
def test_both_engines_agree_on_quantiles_between_values_farther_apart_than_their_type_reaches(
    kind: pa.DataType,
) -> None:
    end = 2 ** (kind.bit_width - 2)
    frame = ArrowFrame(pa.table({"n": pa.array([end, -end], kind)}))
    name = "ExpectColumnQuantileValuesToBeBetween"
    checks = [check(name, column="n", **kwargs) for kwargs in OF_A_COLUMN[name]]
    assert differences(checks, frame, FORMATS[0]) == []


def test_both_engines_agree_on_a_data_frame_with_its_own_types() -> None:
    data = pd.DataFrame(
        {
            "id": [1, 2, 3],
            "n": pd.array([1, None, 3], dtype="Int64"),
            "x": [0.5, np.nan, 2.0],
            "c": pd.Categorical(["a", "b", "a"]),
            "mixed": [1, "a", None],
            "when": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
        }
    )
    frame = PandasFrame(data)
    assert differences(checks_of(frame, pairs=[("n", "x")], lists=[["n", "x"]])[::7], frame, FORMATS[0]) == []


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=4)
whole = st.integers(-(2**63), 2**63 - 1) | st.integers(-4, 4)
floats = st.floats(-1e6, 1e6, width=64) | st.sampled_from([math.nan, 0.0, -0.0, 1.5])


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A few rows of the common types, with gaps."""
    rows = draw(st.integers(1, 12))

    def column(values: st.SearchStrategy[Any], kind: pa.DataType) -> pa.Array:
        gaps = draw(st.booleans())
        return pa.array(
            draw(st.lists(values | st.none() if gaps else values, min_size=rows, max_size=rows)), kind
        )

    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "n": column(whole, pa.int64()),
            "m": column(st.integers(-100, 100), pa.int32()),
            "x": column(floats, pa.float64()),
            "s": column(texts | st.sampled_from(["a", "b"]), pa.string()),
            "price": column(st.decimals(-99, 99, places=2), pa.decimal128(8, 2)),
            "when": column(
                st.datetimes(at(1).replace(tzinfo=None), at(28).replace(tzinfo=None)),
                pa.timestamp("us", "UTC"),
            ),
        }
    )


@settings(max_examples=12, suppress_health_check=list(HealthCheck), derandomize=True)
@given(table=tables(), start=st.integers(0, 40))
def test_both_engines_agree_on_generated_tables(table: pa.Table, start: int) -> None:
    frame = ArrowFrame(table)
    checks = checks_of(frame, pairs=[("n", "m"), ("m", "x")], lists=[["n", "m"], ["m", "x"]])
    assert differences(checks[start::41], frame, FORMATS[start % 2]) == []


@pytest.mark.parametrize("table", [HARD, pa.concat_tables([HARD] * 3)])
def test_both_engines_find_the_same_rows(table: pa.Table) -> None:
    frame = ArrowFrame(table)
    checks = [one for one in checks_of(frame) if is_row_level(one)][::47]
    ours, theirs = (engine.unexpected_rows(checks, frame) for engine in (DuckDBEngine(), PandasEngine()))
    for one, mine, other in zip(checks, ours, theirs, strict=True):
        assert mine.dtype == np.int64
        assert mine.tolist() == other.tolist(), one


@pytest.mark.parametrize("form", ["file", "lake"])
def test_a_nan_that_parquet_statistics_leave_out_is_missing_to_both_engines(
    form: str, lake: Lake, tmp_path: Path
) -> None:
    # given: row groups of five, one of them with a NaN, and a file that says its minimum and maximum
    values = [math.nan if one == 7 else float(one) for one in range(50)]
    table = pa.table({"id": range(50), "x": values})
    if form == "file":
        pq.write_table(table, tmp_path / "x.parquet", row_group_size=5)
        frame: Frame = FileFrame(tmp_path / "x.parquet")
    else:
        frame = LakeFrame(lake, put(lake, "t__raw", segment("all", "1", table)).record.ref, None)
    asked: list[dict[str, Any]] = [
        {},
        *({"row_condition": text, "condition_parser": "pandas"} for text in ("x > 3", "x.isnull()")),
    ]
    checks = [
        check(name, column="x", **kwargs, **condition)
        for condition in asked
        for name, kwargs in (
            ("ExpectColumnValuesToNotBeNull", {}),
            ("ExpectColumnValuesToBeBetween", {"min_value": 2, "max_value": 47}),
            ("ExpectColumnMeanToBeBetween", {"min_value": 0}),
            ("ExpectColumnMaxToBeBetween", {"min_value": 0}),
            ("ExpectColumnMedianToBeBetween", {"min_value": 0}),
            ("ExpectColumnUniqueValueCountToBeBetween", {"min_value": 0}),
        )
    ]
    # when / then
    assert differences(checks, frame, FORMATS[0]) == []
    assert [rows.tolist() for rows in DuckDBEngine().unexpected_rows(checks[:2], frame)] == [
        [7],
        [0, 1, 48, 49],
    ]
