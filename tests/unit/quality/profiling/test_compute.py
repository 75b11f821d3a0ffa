"""Profiles of frames: against NumPy and pandas, and on the data that break such code."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.frames import ArrowFrame, FileFrame, PandasFrame
from airflow_provider_xops.quality.profiling._columns import session
from airflow_provider_xops.quality.profiling.compute import Limits, profile_frame
from tests.unit.quality.profiling.frames import START, column, flights, profiled

PERCENTS = (1, 5, 25, 50, 75, 95, 99)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return flights()


@pytest.fixture(scope="module")
def document(table: pa.Table) -> dict[str, Any]:
    return profiled(table)


def test_figures_of_numbers_are_those_of_numpy(table: pa.Table, document: dict[str, Any]) -> None:
    for name in ("delay", "seats"):
        found, values = column(document, name), table[name].drop_null().to_numpy()

        assert found["count"] == len(values)
        assert found["nulls"] == table[name].null_count
        assert (found["min"], found["max"]) == (values.min(), values.max())
        assert math.isclose(found["mean"], values.mean(), rel_tol=1e-12)
        assert math.isclose(found["sd"], values.std(ddof=1), rel_tol=1e-12)
        expected = np.percentile(values, PERCENTS)
        assert np.allclose(list(found["quantiles"].values()), expected, rtol=1e-12)
        assert found["quantiles_exact"] is True
        assert found["distinct"] == {"value": len(np.unique(values)), "exact": True}
        assert found["negatives"] == (values < 0).sum()
        histogram = found["histogram"]
        inside = values[(values >= histogram["edges"][0]) & (values <= histogram["edges"][-1])]
        assert histogram["counts"] == np.histogram(inside, bins=histogram["edges"])[0].tolist()
        assert histogram["below"] + sum(histogram["counts"]) + histogram["above"] == len(values)


def test_histograms_of_times_count_what_lies_between_their_edges(
    table: pa.Table, document: dict[str, Any]
) -> None:
    for name in ("at", "day"):
        histogram = column(document, name)["histogram"]
        edges, values = (
            pd.to_datetime(pd.Series(times), utc=True)
            .dt.tz_localize(None)
            .to_numpy("datetime64[us]")
            .astype(float)
            for times in (histogram["edges"], table[name].to_pandas())
        )

        assert histogram["counts"] == np.histogram(values, bins=edges)[0].tolist()
        assert (histogram["below"], histogram["above"]) == (0, 0)


def test_a_statement_reads_the_columns_it_names_and_no_others() -> None:
    with session(ArrowFrame(pa.table({"one": [1], "two": [2]})), folder=None, memory_limit="1GB") as found:
        text = found.sql("SELECT max(c1) FROM {rows}")
        assert '"two"' in text
        assert '"one"' not in text
        # more aggregates than one statement is given come back in their order
        assert found.row([f"max(c1) + {number}" for number in range(450)]) == list(range(2, 452))


def test_correlations_are_those_of_pandas(table: pa.Table, document: dict[str, Any]) -> None:
    frame = table.select(["id", "delay", "seats"]).to_pandas()
    found = document["table"]["correlations"]

    assert found["columns"] == ["id", "delay", "seats"]
    assert np.allclose(found["pearson"], frame.corr().to_numpy(), atol=1e-9)
    assert np.allclose(found["spearman"], frame.corr(method="spearman").to_numpy(), atol=1e-9)
    assert found["spearman_exact"] is True


def test_texts_have_lengths_shapes_and_no_value(document: dict[str, Any]) -> None:
    tail = column(document, "tail")

    assert (tail["min_length"], tail["max_length"]) == (6, 6)
    (shape,) = tail["shapes"]["shapes"]
    assert (shape["shape"], shape["share"], shape["regex"]) == ("A99999", 1.0, "[A-Z][0-9]{5}")
    assert tail["shapes"]["exact"] is True


def test_keys_constants_and_times_of_the_table(document: dict[str, Any]) -> None:
    found = document["table"]

    assert found["keys"] == [["id"], ["at"]]
    assert found["duplicate_rows"]["value"] == 0
    assert found["constant_columns"] == ["source"]
    coverage = found["time_coverage"]
    assert (coverage["column"], coverage["unit"], coverage["empty_buckets"]) == ("at", "hour", 48)
    assert coverage["gaps"] == [
        {"from": "2013-01-13T13:00:00+00:00", "to": "2013-01-15T12:00:00+00:00", "length": 48}
    ]
    assert sum(count for _, count in coverage["buckets"]) == 600


def test_times_are_text_in_utc(document: dict[str, Any]) -> None:
    at, day = column(document, "at"), column(document, "day")

    assert at["min"] == START.isoformat()
    assert at["quantiles"]["50"] == (START + timedelta(hours=299)).isoformat()
    assert (day["min"], day["max"]) == ("2013-01-01", "2013-01-27")


@pytest.mark.parametrize(
    ("values", "shown"),
    [("none", None), ("masked", "AA (text, 1-2 characters)"), ("full", "AA")],
)
def test_values_of_rows_are_shown_as_the_policy_says(table: pa.Table, values: str, shown: str | None) -> None:
    document = profiled(table, values=values)

    top = column(document, "carrier").get("top_values")
    assert (top is None) if shown is None else shown in {one["value"] for one in top}
    text = json.dumps(document)
    assert ("N0" in text) == (values == "full")
    # How often values occur is a figure, whatever they are.
    assert sum(column(document, "carrier")["top_counts"]) == 600


def test_rare_shapes_are_only_counted_where_no_value_may_be_shown() -> None:
    texts = {"note": ["ok"] * 20 + ["Jane-Doe", "x@y.z"]}

    assert column(profiled(texts), "note")["shapes"]["others"] == 2
    assert column(profiled(texts, values="masked"), "note")["shapes"]["others"] == 0


def test_nan_and_infinities_are_counted_apart() -> None:
    found = column(profiled({"x": [1.0, math.nan, math.inf, -math.inf, None, 3.0]}), "x")

    assert (found["nulls"], found["nan"], found["infinite"], found["count"]) == (1, 1, 2, 2)
    assert (found["min"], found["max"], found["mean"], found["distinct"]["value"]) == (1.0, 3.0, 2.0, 2)


def test_a_pair_of_columns_can_be_the_key() -> None:
    rows = {"flight": [1, 2, 3] * 20, "day": [day for day in range(20) for _ in range(3)], "x": [1, 1] * 30}

    assert profiled(rows)["table"]["keys"] == [["flight", "day"]]


def test_duplicate_rows_are_counted() -> None:
    found = profiled({"a": [1, 1, 2, None, None], "b": ["x", "x", "x", None, None]})

    assert found["table"]["keys"] == []
    assert found["table"]["duplicate_rows"]["value"] == 2


def test_above_the_limits_figures_are_approximate_and_say_so() -> None:
    random = np.random.default_rng(1)
    values = np.concatenate([random.normal(size=20_000), np.zeros(5_000)])
    limits = Limits(exact_distinct=1_000, exact_quantiles=1_000, sample=2_000, top=5)

    found = column(profiled({"x": values}, limits=limits), "x")

    assert found["distinct"]["exact"] is False
    assert abs(found["distinct"]["value"] / 20_001 - 1) < 0.15
    assert found["quantiles_exact"] is False
    ranks = np.searchsorted(np.sort(values), [found["quantiles"][str(p)] for p in (5, 25, 75, 95)]) / 25_000
    assert np.abs(ranks - [0.05, 0.25, 0.75, 0.95]).max() < 0.02
    assert found["top_counts"][0] == 5_000  # found by a sketch, counted exactly


def test_a_key_is_proved_where_distinct_values_are_only_estimated() -> None:
    limits = Limits(exact_distinct=100, sample=100)
    rows = {"id": np.arange(5_000), "almost": np.minimum(np.arange(5_000), 4_998)}

    assert profiled(rows, limits=limits)["table"]["keys"] == [["id"]]


def test_every_kind_of_column_is_profiled_or_said_not_to_be() -> None:
    table = pa.table(
        {
            "decimal": [Decimal("1.50"), None, Decimal("2.50")],
            "bytes": [b"a", b"bc", None],
            "list": [[1], None, [2, 3]],
            "struct": [{"a": 1}, None, {"a": 2}],
            "time": pa.array([1, 2, None], pa.time64("us")),
            "nothing": pa.nulls(3),
            "word": pa.array(["x", "y", None]).dictionary_encode(),
            "big": pa.array([2**64 - 1, 0, None], pa.uint64()),
            "far": pa.array([date(9999, 12, 31), date(1, 1, 1), None]),
        }
    )
    document = profiled(table, values="full")

    kinds = {one["name"]: one["kind"] for one in document["columns"]}
    assert kinds == {
        "decimal": "number", "bytes": "binary", "list": "nested", "struct": "nested", "time": "other",
        "nothing": "other", "word": "text", "big": "number", "far": "date",
    }  # fmt: skip
    assert [one["nulls"] for one in document["columns"]] == [1, 1, 1, 1, 1, 3, 1, 1, 1]
    assert column(document, "decimal")["mean"] == 2.0
    assert (column(document, "bytes")["min_length"], column(document, "bytes")["max_length"]) == (1, 2)
    assert column(document, "big")["max"] == 2**64 - 1
    assert (column(document, "far")["min"], column(document, "far")["max"]) == ("0001-01-01", "9999-12-31")
    assert document["table"]["empty_columns"] == ["nothing"]
    json.dumps(document, allow_nan=False)


def test_a_pandas_column_of_mixed_types_is_named_as_not_looked_at() -> None:
    frame = PandasFrame(pd.DataFrame({"mixed": [1, "a", object()], "fine": [1, 2, 3]}))

    document = profile_frame(frame)

    assert document["table"]["skipped_columns"] == ["mixed"]
    assert [one["name"] for one in document["columns"]] == ["fine"]


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row_are_profiled(rows: int) -> None:
    document = profiled(flights().slice(0, rows))

    assert document["rows"] == rows
    assert document["table"]["keys"] == []
    json.dumps(document, allow_nan=False)


def test_a_time_column_must_be_one_of_times() -> None:
    with pytest.raises(ArgumentError) as refused:
        profiled(flights(20), time_column="seats")

    assert refused.value.code == "argument.column"
    assert profiled(flights(20), time_column="day")["table"]["time_coverage"]["column"] == "day"


def test_a_file_larger_than_the_memory_limit_is_profiled_from_disk(tmp_path: Path) -> None:
    # 40 MB of distinct values: more than the limit holds while they are grouped.
    pq.write_table(pa.table({"x": np.random.default_rng(0).random(3_000_000)}), tmp_path / "x.parquet")
    limits = Limits(exact_quantiles=0)

    document = profile_frame(
        FileFrame(tmp_path / "x.parquet"), folder=tmp_path, memory_limit="100MB", limits=limits
    )

    assert column(document, "x")["distinct"]["exact"] is True


_VALUES = st.one_of(
    st.lists(st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -0.0, 1e308, -1e308]))).map(
        lambda rows: pa.array(rows, pa.float64())
    ),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))).map(
        lambda rows: pa.array(rows, pa.int64())
    ),
    st.lists(st.one_of(st.none(), st.text(max_size=40))).map(lambda rows: pa.array(rows, pa.string())),
    st.lists(st.one_of(st.none(), st.booleans())).map(lambda rows: pa.array(rows, pa.bool_())),
    st.lists(
        st.one_of(st.none(), st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))),  # noqa: DTZ001
    ).map(lambda rows: pa.array(rows, pa.timestamp("us", "UTC"))),
)


@settings(max_examples=60)
@given(columns=st.lists(_VALUES, min_size=1, max_size=3), name=st.text(min_size=1, max_size=8))
def test_any_frame_is_profiled_and_counts_add_up(columns: list[pa.Array], name: str) -> None:
    rows = min(len(values) for values in columns)
    table = pa.table({f'"{name}" {place}': values.slice(0, rows) for place, values in enumerate(columns)})

    document = profiled(table, values="full")

    json.dumps(document, allow_nan=False)
    for values, found in zip(table.columns, document["columns"], strict=True):
        valid = [value for value in values.to_pylist() if value is not None]
        if pa.types.is_floating(values.type):
            valid = [value for value in valid if math.isfinite(value)]
        assert found["nulls"] == values.null_count
        assert found["count"] == len(valid)
        assert found["distinct"]["value"] == len(set(valid)) if rows else True
        if found["kind"] == "number" and valid:
            assert (found["min"], found["max"]) == (min(valid), max(valid))
            histogram = found["histogram"]
            assert sum(histogram["counts"]) + histogram["below"] + histogram["above"] == len(valid)
        if found["kind"] == "text" and valid:
            assert found["max_length"] == max(map(len, valid))
            assert found["shapes"]["looked_at"] == len(valid)
        if valid and found["kind"] != "boolean":
            counts = sorted((valid.count(value) for value in set(valid)), reverse=True)[:50]
            assert sorted(found["top_counts"], reverse=True) == counts
