"""Great Expectations on DuckDB: what falls back and is noted, and the rows that break a check."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_xops.quality.duckdb_engine import DuckDBEngine
from airflow_provider_xops.quality.engine import EngineRun
from airflow_provider_xops.quality.frames import FileFrame
from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import Outcome
from tests.unit.quality.frames import frame


def check(kind: str, **kwargs: Any) -> Check:
    return Check(type=f"expect_{kind}", kwargs=kwargs)


def run(columns: Any, *checks: Check, examples: int = 0) -> EngineRun:
    return DuckDBEngine().run(checks, frame(columns), examples=examples)


def test_what_duckdb_computes_leaves_no_note() -> None:
    found = run(
        {"n": [1, 2, None], "s": ["a", "b", "b"]},
        check("column_values_to_be_between", column="n", max_value=1),
        check("column_values_to_be_unique", column="s"),
        check("column_mean_to_be_between", column="n", min_value=0),
        check("column_median_to_be_between", column="n", min_value=0),
    )
    assert found.notes == ()
    assert [one.unexpected_count for one in found.results] == [1, 2, None, None]
    assert [one.observed for one in found.results] == [None, None, 1.5, 1.5]


def test_a_regular_expression_beyond_re2_falls_back_alone_and_is_noted() -> None:
    found = run(
        {"s": ["ab", "ac"]},
        check("column_values_to_match_regex", column="s", regex="a(?=b)"),
        check("column_values_to_match_regex", column="s", regex="^a"),
    )
    assert [one.unexpected_count for one in found.results] == [1, 0]
    assert len(found.notes) == 1
    assert "column_values.match_regex.condition of s was computed on pandas" in found.notes[0]


def test_metrics_of_one_column_that_fell_back_for_one_reason_are_one_note() -> None:
    found = run(
        {"price": pa.array([Decimal("1.5"), Decimal("2.5")])},
        check("column_mean_to_be_between", column="price", min_value=0),
        check("column_stdev_to_be_between", column="price", min_value=0),
        check("column_value_lengths_to_equal", column="price", value=1),
    )
    about = [note.partition(" of price ")[0] for note in found.notes]
    assert about[0] == "column.mean, column.standard_deviation"
    assert about[1:] == ["column_values.value_length.map"]


def test_a_check_that_errors_under_its_row_condition_breaks_no_row() -> None:
    # given: the library counts this one's rows under the condition, and judges all of them
    one = check(
        "column_pair_values_to_be_in_set",
        column_A="x",
        column_B="y",
        ignore_row_if="neither",
        value_pairs_set=[[1, 1]],
        row_condition="x > 3",
        condition_parser="pandas",
    )
    data = frame({"x": [0.0, 1.0, 5.0, 6.0], "y": [1.0, 1.0, 1.0, 2.0]})
    # when / then
    (result,) = DuckDBEngine().run([one], data).results
    assert result.outcome is Outcome.ERRORED
    assert "without the row_condition" in result.message
    (rows,) = DuckDBEngine().unexpected_rows([one], data)
    assert rows.tolist() == []


def test_a_nested_column_is_refused_and_the_rest_runs() -> None:
    found = run(
        {"list": [[1], None], "n": [1, 2]},
        check("column_values_to_be_unique", column="list"),
        check("column_values_to_not_be_null", column="list"),
        check("column_values_to_be_unique", column="n"),
    )
    assert [one.outcome for one in found.results] == [Outcome.ERRORED, Outcome.FAILED, Outcome.PASSED]
    assert found.results[0].message == "the column 'list' is nested: its values cannot be judged"


def test_nan_is_missing_and_infinity_is_a_value() -> None:
    found = run(
        {"x": pa.array([float("nan"), float("inf"), None, 1.0])},
        check("column_values_to_not_be_null", column="x"),
        check("column_values_to_be_between", column="x", max_value=5),
    )
    assert [one.unexpected_count for one in found.results] == [2, 1]


def test_examples_are_given_only_when_asked_for_and_never_in_the_document() -> None:
    one = check("column_values_to_be_in_set", column="s", value_set=["a"])
    columns = {"s": ["secret-1", "a", "secret-2", "secret-3"]}
    assert run(columns, one).results[0].examples == ()
    found = run(columns, one, examples=2)
    assert found.results[0].examples == ("secret-1", "secret-2")
    assert "secret" not in str(found.document)
    assert found.document is not None
    assert found.document["statistics"]["unsuccessful_expectations"] == 1


def test_rows_are_found_in_scan_order_over_several_files(tmp_path: Path) -> None:
    # given: 300,000 rows in three files of many row groups, and every thousandth is wrong
    values = np.arange(300_000)
    for part in range(3):
        chosen = values[part * 100_000 : (part + 1) * 100_000]
        table = pa.table({"n": np.where(chosen % 1_000 == 7, -1, chosen), "s": chosen.astype(str)})
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=3_000)
    data = FileFrame([tmp_path / f"{part}.parquet" for part in range(3)])
    checks = [
        check("column_values_to_be_between", column="n", min_value=0),
        check("column_values_to_be_unique", column="n"),
        check("column_values_to_be_increasing", column="n"),
        check("table_row_count_to_be_between", min_value=1),
        check("column_values_to_be_unique", column="nobody"),
    ]
    # when
    found = DuckDBEngine().unexpected_rows(checks, data)
    # then
    wrong = values[values % 1_000 == 7].tolist()
    assert [rows.tolist() for rows in found] == [wrong, wrong, wrong, [], []]
    assert {rows.dtype for rows in found} == {np.dtype(np.int64)}


def test_memory_can_be_limited(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": np.arange(200_000)}), tmp_path / "n.parquet")
    engine = DuckDBEngine(memory_limit="64MB")
    (result,) = engine.run(
        [check("column_values_to_be_unique", column="n")], FileFrame(tmp_path / "n.parquet")
    ).results
    assert result.outcome is Outcome.PASSED
