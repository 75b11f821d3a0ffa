"""The frame an estimator sees depends on the columns' types, never on the values of a batch."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_provider_xops.errors import DataError
from airflow_provider_xops.training.frames import (
    default_features,
    feature_frame,
    has_target,
    target_values,
    unusable_columns,
)

EVERYTHING = pa.schema(
    [
        ("whole", pa.int64()),
        ("small", pa.int16()),
        ("number", pa.float64()),
        ("half", pa.float32()),
        ("money", pa.decimal128(9, 2)),
        ("yes", pa.bool_()),
        ("text", pa.string()),
        ("words", pa.dictionary(pa.int32(), pa.string())),
        ("when", pa.timestamp("us", "UTC")),
        ("day", pa.date32()),
    ]
)
FULL = pa.Table.from_pylist(
    [
        {
            "whole": 7,
            "small": 8,
            "number": 0.5,
            "half": 0.25,
            "money": Decimal("1.25"),
            "yes": True,
            "text": "a",
            "words": "b",
            "when": datetime(2013, 1, 1, 6, tzinfo=UTC),
            "day": date(2013, 1, 1),
        }
    ],
    schema=EVERYTHING,
)
MISSING = pa.Table.from_pylist([{}], schema=EVERYTHING)


def test_a_column_has_one_dtype_whether_values_are_missing_or_not() -> None:
    types = [
        feature_frame(table, EVERYTHING.names).dtypes.astype(str).tolist()
        for table in (FULL, MISSING, FULL.slice(0, 0))
    ]
    assert types[0] == types[1] == types[2]
    assert types[0] == ["float64"] * 6 + ["object"] * 2 + ["datetime64[us, UTC]", "datetime64[us]"]


def test_values_arrive_and_missing_ones_are_missing() -> None:
    row = feature_frame(FULL, EVERYTHING.names).iloc[0]
    assert row.tolist()[:8] == [7.0, 8.0, 0.5, 0.25, 1.25, 1.0, "a", "b"]
    assert row["when"] == pd.Timestamp("2013-01-01T06:00Z")
    assert feature_frame(MISSING, EVERYTHING.names).iloc[0].isna().all()


def test_rows_and_columns_keep_the_order_asked_for_across_chunks() -> None:
    table = pa.concat_tables(
        [pa.table({"x": [1, 2], "c": ["a", None]}), pa.table({"x": [None, 4], "c": ["b", "a"]})]
    )
    frame = feature_frame(table, ["c", "x"])
    assert list(frame.columns) == ["c", "x"]
    assert frame.index.tolist() == [0, 1, 2, 3]
    assert frame["c"].tolist()[0::2] == ["a", "b"]
    assert np.isnan(frame["c"].tolist()[1])
    np.testing.assert_array_equal(frame["x"], [1, 2, np.nan, 4])


def test_scikit_learn_encodes_the_text_as_it_is() -> None:
    from sklearn.preprocessing import OneHotEncoder

    frame = feature_frame(pa.table({"c": ["a", None, "b"]}), ["c"])
    assert OneHotEncoder(sparse_output=False).fit_transform(frame).sum(axis=1).tolist() == [1, 1, 1]


def test_a_batch_gives_the_frame_of_its_table() -> None:
    batch = FULL.to_batches()[0]
    pd.testing.assert_frame_equal(
        feature_frame(batch, ["text", "whole"]), feature_frame(FULL, ["text", "whole"])
    )


def test_types_that_no_estimator_takes_are_refused_by_name() -> None:
    table = pa.table({"tags": [["a"]], "raw": pa.array([b"x"]), "x": [1]})
    assert unusable_columns(table.schema, ["x"]) == []
    with pytest.raises(DataError, match=r"tags \(list<.*raw \(binary\)") as caught:
        feature_frame(table, ["tags", "raw", "x"])
    assert caught.value.code == "data.feature_type"


def test_targets_have_one_kind_each() -> None:
    table = pa.table({"b": [True, False], "i": [1, 2], "f": [0.5, 1.5], "t": ["x", "y"], "bad": [[1], [2]]})
    assert target_values(table, "b").tolist() == [1, 0]
    assert target_values(table, "b").dtype == target_values(table, "i").dtype == np.int64
    assert target_values(table, "f").dtype == np.float64
    assert target_values(table, "t").dtype == object
    with pytest.raises(DataError) as caught:
        target_values(table, "bad")
    assert caught.value.code == "data.target_type"


def test_a_missing_target_is_null_or_nan() -> None:
    table = pa.table({"f": [1.0, float("nan"), None], "i": pa.array([1, None, 3])})
    assert has_target(table, "f").tolist() == [True, False, False]
    assert has_target(table, "i").tolist() == [True, False, True]


def test_default_features_are_all_other_columns_in_order() -> None:
    assert default_features(EVERYTHING, without={"number", "day"})[:3] == ("whole", "small", "half")


def test_whole_numbers_beyond_what_a_float_holds_lose_digits_and_raise_nothing() -> None:
    frame = feature_frame(pa.table({"x": [2**53 + 1, None]}), ["x"])

    assert frame["x"].iloc[0] == 2.0**53
    assert frame["x"].isna().tolist() == [False, True]
