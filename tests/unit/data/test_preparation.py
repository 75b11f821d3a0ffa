"""Preparation steps: what they do, compared with pandas, and what they cannot be talked into."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_xops.data.column_types import ConversionFailed, parse_type
from airflow_provider_xops.data.preparation import Preparation, StepChange, parse_steps, prepare, read_steps
from airflow_provider_xops.errors import ArgumentError, DataError, UserCodeError

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
PLAIN = settings(max_examples=20)


def run(
    steps: Any, rows: pa.Table, *, partition: str = "all", **others: pa.Table
) -> tuple[pa.Table, tuple[StepChange, ...]]:
    """The prepared rows of ``rows``, and what each step says it changed."""
    tables = {"rows": rows, **others}
    plan = prepare(steps, {name: table.schema for name, table in tables.items()}, main="rows")
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in tables.items():
            connection.register(name, table)

        def ask(sql: str) -> Any:
            uses = connection.extract_statements(sql)[0].named_parameters
            return connection.sql(sql, params=dict.fromkeys(uses, partition) or None)

        changes = plan.changes(ask(plan.compiled.counts).fetchall()[0])
        return ask(plan.compiled.select).to_arrow_table(), changes


def prepared(steps: Any, rows: Mapping[str, Any] | pa.Table, **others: pa.Table) -> dict[str, list[Any]]:
    """The prepared columns, in the order of the first of them."""
    table = rows if isinstance(rows, pa.Table) else pa.table(rows)
    found, _ = run(steps, table, **others)
    key = found.column_names[0]
    return dict(found.sort_by(key).to_pydict())


def refused(steps: Any, schema: pa.Schema | None = None, **others: pa.Schema) -> ArgumentError:
    schema = schema or pa.schema([("a", pa.int64()), ("x", pa.float64()), ("s", pa.string())])
    with pytest.raises(ArgumentError) as caught:
        prepare(steps, {"rows": schema, **others}, main="rows")
    return caught.value


def same(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Equal, where NaN, NaT, NA and None are all missing."""
    return len(found) == len(expected) and all(
        (pd.isna(a) and pd.isna(b)) or (not pd.isna(a) and not pd.isna(b) and a == b)
        for a, b in zip(found, expected, strict=True)
    )


floats = st.one_of(st.none(), st.floats(-100, 100, width=32), st.just(math.nan))
small = st.one_of(st.none(), st.integers(-3, 3))


class TestCast:
    @pytest.mark.parametrize("kind", ["int8", "int64", "float64", "bool", "date", "decimal(6,2)"])
    @given(text=st.lists(st.one_of(
        st.none(),
        st.sampled_from(["1", " -7 ", "1.5", "1.50", "1e3", "", "x", "300", "true", "FALSE", "2013-02-28"]),
        st.sampled_from(["2013-02-30", "2013/1/1", "1_000", "nan", "+5", "99999.99", "2013-01-01 10:00"]),
        st.text(max_size=4),
    ), min_size=1, max_size=6))  # fmt: skip
    @settings(max_examples=15)
    def test_text_converts_as_an_ingestion_would_convert_it(self, kind: str, text: list[str | None]) -> None:
        # given: what ingestion makes of each value
        def ingested(value: str | None) -> Any:
            try:
                return parse_type(kind).from_text(pa.array([value], pa.string()))[0].as_py()
            except ConversionFailed:
                return None

        if "\x00" in "".join(value or "" for value in text):
            return
        rows = pa.table({"n": range(len(text)), "v": pa.array(text, pa.string())})
        found = prepared([{"step": "cast", "columns": {"v": kind}, "on_error": "null"}], rows)
        for value, mine in zip(text, found["v"], strict=True):
            theirs = ingested(value)
            # the same, or stricter: a text that is not plainly a value is none
            assert mine == theirs or (mine is None and not _plainly(kind, value)), value

    def test_values_that_do_not_convert_are_counted_and_refused_without_being_quoted(self) -> None:
        rows = pa.table({"v": ["1", "4711-secret", None, "x"]})
        with pytest.raises(DataError) as caught:
            run([{"step": "cast", "columns": {"v": "int64"}}], rows)
        assert caught.value.code == "data.cast"
        assert caught.value.context == {"step": 1, "column": "v", "count": 2}
        assert "secret" not in str(caught.value)

    def test_or_become_missing_and_are_counted(self) -> None:
        found, changes = run(
            [{"step": "cast", "columns": {"v": "int64"}, "on_error": None}], pa.table({"v": ["1", "x"]})
        )
        assert found.to_pydict() == {"v": [1, None]}
        assert [str(change) for change in changes] == ["1 cast: 1 not converted in v"]

    @pytest.mark.parametrize(
        ("values", "kind", "expected"),
        [
            (pa.array([1.0, 1.5, math.nan, None, 1e30]), "int64", [1, None, None, None, None]),
            (pa.array([2**53, 2**53 + 1, 2**63 - 1]), "float64", [2.0**53, None, None]),
            (pa.array([127, 128]), "int8", [127, None]),
            (pa.array([0.5, 0.125]), "decimal(4,2)", [Decimal("0.50"), None]),
            (pa.array([Decimal("2.00"), Decimal("2.50")], pa.decimal128(5, 2)), "int32", [2, None]),
            (pa.array([0.1, 1e300]), "float32", [pytest.approx(0.1), None]),
            (pa.array([True, None]), "int64", [1, None]),
            (pa.array([1, None]), "string", ["1", None]),
            (pa.array(["2013-01-01T10:00:00+02:00", "2013-01-01 10:00"]), "timestamp",
             [datetime(2013, 1, 1, 8, tzinfo=UTC), None]),
            (pa.array([date(2013, 7, 1)]), "timestamp[Europe/Paris]",
             [datetime(2013, 6, 30, 22, tzinfo=UTC)]),
        ],
    )  # fmt: skip
    def test_nothing_is_rounded_or_guessed(self, values: Any, kind: str, expected: list[Any]) -> None:
        steps = [{"step": "cast", "columns": {"v": kind}, "on_error": "null"}]
        found, _ = run(steps, pa.table({"v": values}))
        assert found.to_pydict()["v"] == expected

    def test_an_hour_that_a_clock_shows_twice_is_the_first_and_one_it_skips_is_none(self) -> None:
        text = ["2013-11-03 01:30", "2013-03-10 02:30", "2013-07-01 00:00:00.5"]
        kind = parse_type("timestamp[America/New_York]")
        found, _ = run(
            [{"step": "cast", "columns": {"v": kind.text}, "on_error": "null"}], pa.table({"v": text})
        )
        first, third = kind.from_text(pa.array([text[0], text[2]])).to_pylist()
        assert found["v"].to_pylist() == [first, None, third]

    @pytest.mark.parametrize("kind", ["bool", "date", "timestamp", "binary", "list<int64>", "strin"])
    def test_what_has_no_meaning_is_refused(self, kind: str) -> None:
        error = refused([{"step": "cast", "columns": {"a": kind}}])
        assert error.code in ("argument.step", "argument.type")
        assert error.todo


class TestDeduplicate:
    @given(rows=st.lists(st.tuples(small, small, floats), max_size=12), last=st.booleans())
    @PLAIN
    def test_it_keeps_what_pandas_keeps(self, rows: list[tuple[Any, ...]], last: bool) -> None:
        # given: rows in the order of everything, so that pandas breaks ties as we do
        frame = pd.DataFrame(rows, columns=["k", "o", "v"]).astype(
            {"k": "Int64", "o": "Int64", "v": "float64"}
        )
        frame = frame.sort_values(["o", "k", "v"], na_position="first" if last else "last")
        kept = frame.drop_duplicates("k", keep="last" if last else "first")
        step = {"step": "deduplicate", "keys": ["k"], "order_by": ["o"], "keep": "last" if last else "first"}
        table = pa.Table.from_pandas(frame, preserve_index=False)
        found, changes = run([step], table)
        # then: the same keys with the same order column; the rest is a tie
        ours = found.select(["k", "o"]).to_pandas(types_mapper=lambda _: pd.Int64Dtype())
        expected = kept[["k", "o"]].sort_values("k").reset_index(drop=True)
        pd.testing.assert_frame_equal(
            ours.sort_values("k").reset_index(drop=True), expected, check_dtype=False
        )
        assert (changes[0].rows_before, changes[0].rows) == (len(frame), len(kept))

    @given(order=st.permutations(range(6)))
    @PLAIN
    def test_ties_do_not_depend_on_the_order_of_the_rows(self, order: list[int]) -> None:
        rows = [
            (1, "a", 2.0),
            (1, "a", None),
            (1, "b", 1.0),
            (2, "z", math.nan),
            (2, "z", 0.0),
            (2, "y", 1.0),
        ]
        table = pa.Table.from_pylist(
            [dict(zip(("k", "s", "v"), rows[i], strict=True)) for i in order],
            schema=pa.schema([("k", pa.int64()), ("s", pa.string()), ("v", pa.float64())]),
        )
        found = prepared([{"step": "deduplicate", "keys": ["k"]}], table)
        assert found == {"k": [1, 2], "s": ["a", "y"], "v": [None, 1.0]}

    def test_missing_keys_are_one_key_unless_they_are_nobodys_duplicates(self) -> None:
        rows = {"v": [1, 2, 3, 4], "k": [None, None, 5, 5]}
        assert prepared([{"step": "deduplicate", "keys": ["k"]}], rows)["v"] == [1, 3]
        step = {"step": "deduplicate", "keys": ["k"], "null_keys": "keep"}
        assert prepared([step], rows)["v"] == [1, 2, 3]

    def test_a_missing_order_never_wins_whichever_end_is_kept(self) -> None:
        rows = {"k": [1, 1, 1], "o": [None, 3, 7]}
        for step, expected in (
            ({"order_by": ["o"]}, 3), ({"order_by": ["o desc"]}, 7), ({"order_by": "o", "keep": "last"}, 7)
        ):  # fmt: skip
            found = prepared([{"step": "deduplicate", "keys": ["k"], **step}], rows)
            assert found["o"] == [expected]

    def test_without_keys_equal_rows_are_one(self) -> None:
        rows = {"a": [1, 1, 2, 2], "b": [None, None, math.nan, 1.0]}
        assert same(prepared([{"step": "deduplicate"}], rows)["a"], [1, 2, 2])


class TestImpute:
    @given(values=st.lists(floats, min_size=1, max_size=10), fill=st.integers(-5, 5))
    @PLAIN
    def test_a_literal_fills_what_pandas_fills(self, values: list[Any], fill: int) -> None:
        rows = pa.table({"n": range(len(values)), "x": pa.array(values, pa.float64())})
        found = prepared([{"step": "impute", "columns": {"x": {"value": fill}}, "indicator": True}], rows)
        expected = pd.Series(values, dtype="float64")
        assert found["x"] == expected.fillna(fill).tolist()
        assert found["x_missing"] == expected.isna().tolist()

    @pytest.mark.parametrize("method", ["mean", "median", "most_frequent"])
    @given(history=st.lists(floats, min_size=1, max_size=10))
    @PLAIN
    def test_a_learned_figure_is_that_of_the_fit_input_and_of_no_other(
        self, method: str, history: list[Any]
    ) -> None:
        series = pd.Series(history, dtype="float64")
        steps = [{"step": "impute", "columns": {"x": {"method": method}}, "fit": "past"}]
        tables = {"past": pa.table({"x": pa.array(history, pa.float64())})}
        rows = pa.table({"x": pa.array([None], pa.float64())})
        if series.notna().sum() == 0:
            with pytest.raises(DataError) as caught:
                run(steps, rows, **tables)
            assert caught.value.code == "data.fit"
            return
        expected = series.mode().min() if method == "most_frequent" else getattr(series, method)()
        found, _ = run(steps, rows, **tables)
        assert found["x"].to_pylist() == [pytest.approx(expected)]

    @given(
        rows=st.lists(st.tuples(st.integers(0, 1), floats), min_size=1, max_size=12),
        order=st.randoms(use_true_random=False),
    )
    @PLAIN
    def test_the_last_value_before_is_that_of_pandas(self, rows: list[tuple[int, Any]], order: Any) -> None:
        frame = pd.DataFrame(rows, columns=["g", "x"]).astype({"x": "float64"})
        frame["t"] = range(len(frame))
        expected = frame.groupby("g")["x"].ffill()
        shuffled = list(range(len(frame)))
        order.shuffle(shuffled)
        table = pa.Table.from_pandas(frame[["t", "g", "x"]], preserve_index=False).take(shuffled)
        spec = {"method": "forward_fill", "order_by": ["t"], "group_by": ["g"]}
        found = prepared([{"step": "impute", "columns": {"x": spec}}], table)
        assert same(found["x"], expected.tolist())

    def test_the_steps_before_are_applied_to_what_is_learned_from(self) -> None:
        past = pa.table({"v": ["10", "20", "bad"]})
        steps = [
            {"step": "cast", "columns": {"v": "float64"}, "on_error": "null"},
            {"step": "rename", "columns": {"v": "x"}},
            {"step": "filter", "where": "x IS NULL OR x > 10"},
            {"step": "impute", "columns": {"x": {"method": "mean"}}, "fit": "past"},
        ]
        assert prepared(steps, {"v": ["?"]}, past=past) == {"x": [20.0]}

    def test_the_median_of_whole_numbers_and_times_occurs(self) -> None:
        times = [NOON, NOON + timedelta(hours=1)]
        rows = pa.table({"n": pa.array([None], pa.int64()), "t": pa.array([None], pa.timestamp("us", "UTC"))})
        past = pa.table({"n": [1, 2], "t": pa.array(times, pa.timestamp("us", "UTC"))})
        spec = {"n": {"method": "median"}, "t": {"method": "median"}}
        found, _ = run([{"step": "impute", "columns": spec, "fit": "past"}], rows, past=past)
        assert found.to_pylist() == [{"n": 1, "t": NOON}]

    @pytest.mark.parametrize(
        ("step", "word"),
        [
            ({"columns": {"x": {"method": "mean"}}}, "learns a figure"),
            ({"columns": {"x": {"value": 0}}, "fit": "past"}, "nothing is learned"),
            ({"columns": {"x": {"method": "mode"}}}, "method"),
            ({"columns": {"a": {"method": "mean"}}, "fit": "past"}, "mean"),
            ({"columns": {"a": {"value": 0.5}}}, "no value"),
            ({"columns": {"a": {"value": "0"}}}, "no value"),
            ({"columns": {"a": {"value": True}}}, "no value"),
            ({"columns": {"s": {"value": 0}}}, "no value"),
            ({"columns": {"x": {"value": None}}}, "by nothing"),
            ({"columns": {"x": {"method": "forward_fill"}}}, "order_by"),
            ({"columns": {"x": {"method": "mean"}}, "fit": "future"}, "no input"),
            ({"columns": {"y": {"value": 0}}}, "no column 'y'"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, step: dict[str, Any], word: str) -> None:
        past = pa.schema([("a", pa.int64()), ("x", pa.float64())])
        error = refused([{"step": "filter", "where": "x > 0"}, {"step": "impute", **step}], past=past)
        assert error.code == "argument.step"
        assert error.context["step"] == 2
        assert word in str(error)


class TestClip:
    @given(values=st.lists(floats, min_size=1, max_size=10), a=st.integers(-50, 50), b=st.integers(-50, 50))
    @PLAIN
    def test_literal_bounds_clip_as_pandas_does(self, values: list[Any], a: int, b: int) -> None:
        low, high = sorted((a, b))
        series = pd.Series(values, dtype="float64")
        rows = pa.table({"n": range(len(values)), "x": pa.array(values, pa.float64())})
        if low == high:
            high += 1
        step = {"step": "clip", "columns": {"x": {"lower": low, "upper": high}}}
        assert same(prepared([step], rows)["x"], series.clip(low, high).tolist())
        _, changes = run([step], rows)
        assert changes[0].counts[0][2] == int(((series < low) | (series > high)).sum())

    @given(history=st.lists(st.floats(-100, 100), min_size=1, max_size=20), share=st.floats(0, 0.5))
    @PLAIN
    def test_quantiles_of_the_fit_input_are_those_of_pandas(self, history: list[float], share: float) -> None:
        series = pd.Series(history)
        step = {"step": "clip", "columns": {"x": {"lower_quantile": share}}, "fit": "past"}
        found, _ = run([step], pa.table({"x": [-1000.0]}), past=pa.table({"x": pa.array(history)}))
        assert found["x"].to_pylist() == [pytest.approx(series.quantile(share), abs=1e-9)]

    def test_times_can_be_clipped(self) -> None:
        rows = {"t": pa.array([NOON, NOON + timedelta(days=9)], pa.timestamp("us", "UTC"))}
        step = {"step": "clip", "columns": {"t": {"upper": "2013-01-02T00:00:00Z"}}}
        assert prepared([step], rows)["t"] == [NOON, datetime(2013, 1, 2, tzinfo=UTC)]

    @pytest.mark.parametrize("bounds", [{}, {"lower": 1, "lower_quantile": 0.1}, {"lower": "a"}])
    def test_bounds_that_are_none_are_refused(self, bounds: dict[str, Any]) -> None:
        assert refused([{"step": "clip", "columns": {"x": bounds}}]).code == "argument.step"

    def test_bounds_the_wrong_way_round_stop_the_task(self) -> None:
        with pytest.raises(DataError) as caught:
            run([{"step": "clip", "columns": {"x": {"lower": 2, "upper": 1}}}], pa.table({"x": [1.0]}))
        assert caught.value.code == "data.fit"


class TestBin:
    @given(
        values=st.lists(floats, min_size=1, max_size=12),
        edges=st.lists(st.integers(-100, 100), min_size=2, max_size=6, unique=True).map(sorted),
        right=st.booleans(),
        lowest=st.booleans(),
    )
    @example(values=[1.0, 2.0, 3.0], edges=[1, 2, 3], right=True, lowest=False)
    @PLAIN
    def test_bins_are_those_of_pandas_cut(
        self, values: list[Any], edges: list[int], right: bool, lowest: bool
    ) -> None:
        rows = pa.table({"n": range(len(values)), "x": pa.array(values, pa.float64())})
        step = {
            "step": "bin", "column": "x", "edges": edges, "labels": False, "right": right,
            "include_lowest": lowest,
        }  # fmt: skip
        series = pd.Series(values, dtype="float64")
        expected = pd.cut(series, edges, right=right, include_lowest=lowest, labels=False)
        assert same(prepared([step], rows)["x_bin"], expected.tolist())

    @given(history=st.lists(st.integers(-20, 20), min_size=4, max_size=20, unique=True))
    @PLAIN
    def test_bins_by_quantiles_are_those_of_pandas_qcut(self, history: list[int]) -> None:
        values = [float(value) for value in history]
        rows = pa.table({"n": range(len(values)), "x": values})
        step = {
            "step": "bin", "column": "x", "quantiles": [0, 0.25, 0.5, 0.75, 1], "fit": "past",
            "labels": False,
        }  # fmt: skip
        expected = pd.qcut(pd.Series(values), 4, labels=False)
        assert prepared([step], rows, past=rows)["x_bin"] == expected.tolist()

    def test_labels_are_the_intervals_as_pandas_writes_them(self) -> None:
        rows = {"x": [1, 10, 11, None]}
        found = prepared([{"step": "bin", "column": "x", "edges": [0, 10, None]}], rows)
        assert found["x_bin"] == ["(0, 10]", "(0, 10]", "(10, inf]", None]
        step = {"step": "bin", "column": "x", "edges": [0, 10.5, 20], "labels": ["few", "many"], "into": "x"}
        assert sorted(filter(None, prepared([step], rows)["x"])) == ["few", "few", "many"]

    @pytest.mark.parametrize(
        "step",
        [
            {"edges": [1]}, {"edges": [0, None, 2]}, {"edges": [0, 1], "labels": ["a", "b"]},
            {"quantiles": [0, 1], "fit": "past"}, {"quantiles": [0, 2], "labels": False, "fit": "past"},
            {"quantiles": [0, 1], "labels": False}, {"edges": [0, 1], "into": "a"}, {},
        ],
    )  # fmt: skip
    def test_bins_that_are_none_are_refused(self, step: dict[str, Any]) -> None:
        schema = pa.schema([("a", pa.int64()), ("x", pa.float64()), ("s", pa.string())])
        assert refused([{"step": "bin", "column": "x", **step}], past=schema).code == "argument.step"

    def test_edges_that_fall_together_stop_the_task(self) -> None:
        step = {"step": "bin", "column": "x", "quantiles": [0, 0.5, 1], "labels": False, "fit": "past"}
        with pytest.raises(DataError) as caught:
            run([step], pa.table({"x": [1.0]}), past=pa.table({"x": [1.0, 1.0]}))
        assert "do not rise" in str(caught.value)


class TestAsOfJoin:
    left = st.lists(st.tuples(small, st.one_of(st.none(), st.integers(0, 50))), min_size=1, max_size=12)
    right = st.lists(st.tuples(small, st.one_of(st.none(), st.integers(0, 50)), floats), max_size=12)

    @given(left=left, right=right, exact=st.booleans(), tolerance=st.one_of(st.none(), st.integers(0, 20)))
    @PLAIN
    def test_it_finds_what_merge_asof_finds_and_never_a_later_row(
        self, left: list[Any], right: list[Any], exact: bool, tolerance: int | None
    ) -> None:
        # given: pandas refuses missing times and matches missing keys; here they match nothing
        mine = pd.DataFrame(left, columns=["k", "t"]).astype("Int64")
        theirs = pd.DataFrame(right, columns=["k", "u", "v"]).astype(
            {"k": "Int64", "u": "Int64", "v": "float64"}
        )
        mine["n"] = range(len(mine))
        known = mine.dropna().astype({"k": "int64", "t": "int64"}).sort_values("t")
        usable = theirs.dropna(subset=["k", "u"]).astype({"k": "int64", "u": "int64"})
        merged = pd.merge_asof(
            known, usable.sort_values(["u", "v"], na_position="first"), left_on="t", right_on="u", by="k",
            allow_exact_matches=exact, tolerance=tolerance,
        ).set_index("n")  # fmt: skip
        expected = merged["v"].reindex(range(len(mine))).tolist()
        # when
        step = {
            "step": "as_of_join", "with": "other", "on": {"t": "u"}, "by": ["k"], "columns": ["v", "u"],
            "allow_exact_matches": exact, "tolerance": tolerance,
        }  # fmt: skip
        found = prepared(
            [step], pa.Table.from_pandas(mine[["n", "k", "t"]], preserve_index=False),
            other=pa.Table.from_pandas(theirs, preserve_index=False),
        )  # fmt: skip
        # then: each row once, in its place
        assert same(found["v"], expected)
        for t, u in zip(found["t"], found["u"], strict=True):
            assert u is None or u < t or (exact and u == t)

    def test_a_tolerance_is_a_duration_and_includes_its_end(self) -> None:
        moments = [NOON, NOON + timedelta(hours=2), NOON + timedelta(hours=2, microseconds=1)]
        kind = pa.timestamp("us", "UTC")
        rows = pa.table({"t": pa.array(moments, kind), "temp": [1, 2, 3]})
        other = pa.table({"t": pa.array([NOON], kind), "temp": [5.0]})
        step = {"step": "as_of_join", "with": "w", "on": "t", "tolerance": "2 hours", "suffix": "_w"}
        found, changes = run([step], rows, w=other)
        assert sorted(found["temp_w"].to_pylist(), key=str) == [5.0, 5.0, None]
        assert [str(change) for change in changes] == ["1 as_of_join: 1 without a match"]

    @pytest.mark.parametrize(
        ("step", "word"),
        [
            ({"direction": "forward"}, "what came after"),
            ({"direction": "nearest"}, "what came after"),
            ({"with": "nobody"}, "no input"),
            ({"on": "s"}, "cast"),
            ({"on": {"a": "x"}, "by": {"a": "s"}}, "one type"),
            ({"tolerance": "soon"}, "duration"),
            ({"tolerance": "2 hours"}, "does not go with"),
            ({}, "already"),
        ],
    )
    def test_what_could_look_ahead_or_is_unclear_is_refused(self, step: dict[str, Any], word: str) -> None:
        other = pa.schema([("a", pa.int64()), ("x", pa.float64()), ("s", pa.string())])
        error = refused([{"step": "as_of_join", "with": "w", "on": "a", **step}], w=other)
        assert word in str(error)


class TestColumns:
    def test_expressions_see_the_columns_before_the_step(self) -> None:
        step = {"step": "derive", "columns": {"a": "a + 1", "b": "a * 10", "day": "$partition"}}
        found, _ = run([step], pa.table({"a": [1]}), partition="2013-01-01")
        assert found.to_pylist() == [{"a": 2, "b": 10, "day": "2013-01-01"}]

    def test_an_expression_may_look_at_the_other_rows_of_the_partition(self) -> None:
        step = {"step": "derive", "columns": {"n": "count(*) OVER ()"}}
        assert prepared([step], {"a": [1, 2]}) == {"a": [1, 2], "n": [2, 2]}

    def test_names_can_be_swapped_chosen_and_dropped(self) -> None:
        steps = [
            {"step": "rename", "columns": {"a": "b", "b": "a"}},
            {"step": "select", "columns": ["b", "c"]},
            {"step": "drop", "columns": ["c"]},
        ]
        assert prepared(steps, {"a": [1], "b": [2], "c": [3]}) == {"b": [1]}

    def test_only_rows_for_which_it_is_true_stay(self) -> None:
        found, changes = run([{"step": "filter", "where": "a > 1"}], pa.table({"a": [1, 2, None]}))
        assert found.to_pydict() == {"a": [2]}
        assert str(changes[0]) == "1 filter: 3 -> 1 rows"

    @pytest.mark.parametrize(
        "steps",
        [
            [{"step": "rename", "columns": {"a": "x"}}], [{"step": "rename", "columns": {"a": "X"}}],
            [{"step": "drop", "columns": ["a", "x", "s"]}], [{"step": "select", "columns": ["b"]}],
            [{"step": "derive", "columns": {"A": "1"}}], [{"step": "drop", "columns": ["_xops_partition"]}],
            [{"step": "filter", "where": "nobody > 1"}], [{"step": "filter", "where": "count(*) > 1"}],
            [{"step": "derive", "columns": {"y": "COLUMNS(*)"}}], [{"step": "derive", "columns": {"y": ""}}],
        ],
    )  # fmt: skip
    def test_what_leaves_no_table_is_refused(self, steps: list[Any]) -> None:
        error = refused(steps)
        assert (error.code, error.context["step"]) == ("argument.step", 1)


NASTY = [
    'a"', "a'; DROP TABLE rows; --", 'x" FROM rows; --', "a\\", "{source}", "$partition", "?", "a\nb", "ä ß",
    "/*", "--", "''", '"";', "s", "rows", "select",
]  # fmt: skip


class TestInjection:
    @pytest.mark.parametrize("name", NASTY)
    def test_a_name_is_a_name_wherever_it_stands(self, name: str) -> None:
        rows = pa.table({"n": [1, 2, 2], name: [1.0, None, 9.0]})
        steps = [
            {
                "step": "impute",
                "columns": {name: {"method": "most_frequent"}},
                "fit": "past",
                "indicator": "?",
            },
            {"step": "clip", "columns": {name: {"upper": 5, "lower_quantile": 0}}, "fit": "past"},
            {"step": "bin", "column": name, "edges": [0, 3, 6], "labels": [name, "o'clock"], "into": "bin"},
            {
                "step": "as_of_join",
                "with": "past",
                "on": name,
                "by": ["n"],
                "columns": [name],
                "suffix": "'_r\"",
            },
            {"step": "deduplicate", "keys": ["n", name], "order_by": [name]},
            {"step": "cast", "columns": {name: "int64"}},
            {"step": "rename", "columns": {name: "out"}},
        ]
        found = prepared(steps, rows, past=rows)
        assert found["n"] == [1, 2, 2]
        assert sorted(found["out"]) == [1, 1, 5]
        assert sorted(found["bin"]) == sorted([name, name, "o'clock"])

    @pytest.mark.parametrize("text", [*NASTY, "' || (SELECT 1) || '", "\u2028", "%s", "{0}"])
    def test_a_value_is_a_value(self, text: str) -> None:
        found = prepared(
            [{"step": "impute", "columns": {"s": {"value": text}}}], {"s": pa.nulls(1, pa.string())}
        )
        assert found["s"] == [text]

    @pytest.mark.parametrize(
        "text",
        [
            "1=1) UNION SELECT * FROM (SELECT 1", "1=1); DROP TABLE rows; --", "1 --", "1 /*",
            "1, 2) AS t, (3",
            "1) AS a FROM rows WHERE (1=1", "?", "$other", "1) ORDER BY (1", "a\x00", ") OR (",
            "(SELECT count(*) FROM read_csv('/etc/passwd'))", "getenv('HOME') IS NOT NULL",
            "(SELECT count(*) FROM duckdb_settings()) > 0 AND nobody", "EXISTS (FROM '/etc/passwd')",
        ],
    )  # fmt: skip
    def test_an_expression_is_one_expression_and_reaches_no_file(self, text: str) -> None:
        if text == "1 --":  # a comment ends with its line
            assert prepared([{"step": "filter", "where": "a = 1 --"}], {"a": [1]}) == {"a": [1]}
            return
        for step in ({"step": "filter", "where": text}, {"step": "derive", "columns": {"y": text}}):
            assert refused([step]).code == "argument.step"


class TestReading:
    @pytest.mark.parametrize(
        ("step", "word"),
        [
            ("drop", "not a step"), ({}, "no such step"), ({"step": "casts"}, "'cast'"),
            ({"step": "drop"}, "'columns'"),
            ({"step": "drop", "column": ["a"], "columns": ["a"]}, "'columns'"),
            ({"step": "drop", "columns": []}, "names no columns"), ({"step": "drop", "columns": [1]}, "name"),
            ({"step": "drop", "columns": ["a", "A"]}, "twice"),
            ({"step": "deduplicate", "keep": "any"}, "first or last"),
            ({"step": "impute", "columns": {"x": {"value": math.inf}}}, "finite"),
            ({"step": "impute", "columns": {"x": {"value": [1]}}}, "literal"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_named_by_its_step_before_any_work(self, step: Any, word: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            parse_steps([{"step": "drop", "columns": ["b"]}, step])
        assert (caught.value.code, caught.value.context["step"]) == ("argument.step", 2)
        assert "step 2" in caught.value.what
        assert word in str(caught.value)

    def test_steps_come_from_a_file_a_function_or_a_list(self, tmp_path: Path) -> None:
        steps = [{"step": "drop", "columns": ["a"], "reason": "constant in profile 3f2a"}]
        (tmp_path / "s.json").write_text(json.dumps({"steps": steps}))
        (tmp_path / "s.yaml").write_text("- {step: drop, columns: [a], reason: constant in profile 3f2a}")
        for given_as in (
            steps, str(tmp_path / "s.json"), str(tmp_path / "s.yaml"), f"{__name__}:example_steps",
            example_steps, json.dumps(steps), str(steps),
        ):  # fmt: skip
            assert read_steps(given_as) == steps

    @pytest.mark.parametrize("given_as", [[], "", {}, None, "nowhere.yaml", "[oops", {"steps": "a"}, 7])
    def test_what_gives_no_steps_is_refused(self, given_as: Any) -> None:
        with pytest.raises((ArgumentError, UserCodeError)) as caught:
            read_steps(given_as)
        assert caught.value.todo

    def test_reasons_decide_nothing_and_everything_else_does(self) -> None:
        schemas = {"rows": pa.schema([("a", pa.int64())])}

        def digest(step: dict[str, Any]) -> str:
            return prepare([step], schemas).digest

        step = {"step": "impute", "columns": {"a": {"value": 1}}}
        assert digest(step) == digest({**step, "reason": "because"})
        assert digest(step) != digest({**step, "columns": {"a": {"value": 2}}})
        assert digest(step) != digest({**step, "indicator": True})

    def test_the_input_that_no_step_names_is_prepared(self) -> None:
        schema = pa.schema([("a", pa.int64())])
        step = {"step": "as_of_join", "with": "b", "on": "a", "columns": []}
        steps = [{**step, "columns": ["a"], "suffix": "_b"}]

        def main(*names: str, **options: Any) -> Preparation:
            return prepare(steps, dict.fromkeys(names, schema), **options)

        assert main("b", "c").main == "c"
        assert main("a", "b", "c", main="a").main == "a"
        for names, options in ((("a", "b", "c"), {}), (("b", "c"), {"main": "x"})):
            with pytest.raises(ArgumentError) as caught:
                main(*names, **options)
            assert caught.value.code == "argument.input"

    def test_what_the_steps_need_in_the_input_they_learn_from_is_said_of_that_input(self) -> None:
        steps = [
            {"step": "drop", "columns": ["s"]},
            {"step": "impute", "columns": {"x": {"method": "mean"}}, "fit": "past"},
        ]
        error = refused(steps, past=pa.schema([("x", pa.float64())]))
        assert error.context["step"] == 1
        assert "'past'" in error.what

    def test_names_of_this_package_are_refused(self) -> None:
        schema = pa.schema([("_xops_rank", pa.int64())])
        assert "reserved" in refused([{"step": "deduplicate"}], schema).what

    def test_the_rows_at_hand_cannot_be_learned_from(self) -> None:
        step = {"step": "clip", "columns": {"a": {"upper_quantile": 0.9}}, "fit": "rows"}
        assert refused([step]).code == "argument.input"


def example_steps() -> list[dict[str, Any]]:
    """Steps by a function."""
    return [{"step": "drop", "columns": ["a"], "reason": "constant in profile 3f2a"}]


def _plainly(kind: str, value: str | None) -> bool:
    """Whether nobody would doubt that a text is a value of the type."""
    try:
        text = (value or "").strip(" \t\r\n")
        if kind.startswith("int"):
            return text.lstrip("+-").isascii() and text.lstrip("+-").isdigit() and abs(int(text)) < 128
        if kind == "date":
            return len(text) == 10 and bool(date.fromisoformat(text))
        if kind == "bool":
            return text.lower() in ("true", "false")
        return math.isfinite(float(text)) and "_" not in text and text.isascii() and "e" not in text.lower()
    except ValueError:
        return False
