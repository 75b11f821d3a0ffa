"""Rows as a V2 request, and predictions out of an answer."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import DataError
from airflow_provider_xops.serving.targets._v2_protocol import as_infer_request, predictions_of

numbers = st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1)


@given(numbers)
def test_numbers_arrive_to_the_last_digit_and_missing_ones_as_null(values: list[float | None]) -> None:
    frame = pd.DataFrame({"x": pd.Series(values, dtype="float64")})
    (tensor,) = json.loads(json.dumps(as_infer_request(frame), allow_nan=False))["inputs"]
    assert (tensor["shape"], tensor["datatype"]) == ([len(values)], "FP64")
    assert tensor["data"] == values


@given(st.lists(st.one_of(st.none(), st.text()), min_size=1))
def test_text_arrives_as_it_is_and_missing_text_as_null(values: list[str | None]) -> None:
    column = pd.Series([np.nan if value is None else value for value in values], dtype=object)
    (tensor,) = json.loads(json.dumps(as_infer_request(pd.DataFrame({"t": column}))))["inputs"]
    assert (tensor["datatype"], tensor["parameters"]) == ("BYTES", {"content_type": "str"})
    assert tensor["data"] == values


def test_times_go_without_a_zone_in_utc() -> None:
    here = pd.Series(pd.to_datetime(["2013-01-01T05:00:00.123456+01:00"]), name="at")
    (tensor,) = as_infer_request(pd.DataFrame({"at": here}))["inputs"]
    assert tensor["data"] == ["2013-01-01T04:00:00.123456"]
    assert tensor["parameters"] == {"content_type": "datetime"}


@pytest.mark.parametrize(
    "column",
    [pd.Series([1.5, math.inf]), pd.Series(pd.to_datetime(["2013-01-01", None]))],
    ids=["an infinite number", "a missing time"],
)
def test_what_the_protocol_cannot_say_is_refused_without_its_neighbors_values(column: Any) -> None:
    with pytest.raises(DataError) as refused:
        as_infer_request(pd.DataFrame({"delay": column}))
    assert refused.value.code == "data.v2_value"
    assert "delay" in str(refused.value)
    assert "1.5" not in str(refused.value)
    assert "2013" not in str(refused.value)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"shape": [2, 1], "datatype": "INT64", "data": [0, 1]}, [0, 1]),
        ({"shape": [2], "datatype": "BYTES", "data": ["late", "ok"]}, ["late", "ok"]),
        ({"shape": [2, 2], "datatype": "FP64", "data": [0.1, 0.9, 1, 0]}, [[0.1, 0.9], [1.0, 0.0]]),
        ({"shape": [2], "datatype": "BOOL", "data": [True, False]}, [True, False]),
    ],
)
def test_predictions_have_one_entry_a_row(output: dict[str, Any], expected: list[Any]) -> None:
    assert predictions_of({"outputs": [{"name": "output-1", **output}]}) == expected


def test_whole_numbers_of_a_float_output_stay_floats_and_null_is_nan() -> None:
    found = predictions_of({"outputs": [{"shape": [2], "datatype": "FP64", "data": [3, None]}]})
    assert found is not None
    assert (repr(found[0]), math.isnan(found[1])) == ("3.0", True)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"error": "no"},
        {"outputs": []},
        {"outputs": [{"shape": [3], "datatype": "INT64", "data": [1]}]},
        {"outputs": [{"shape": [], "datatype": "INT64", "data": [1]}]},
        {"outputs": [{"shape": [1], "data": [1]}, {"shape": [1], "data": [2]}]},
    ],
)
def test_an_answer_that_cannot_be_read_gives_no_predictions(content: Any) -> None:
    assert predictions_of(content) is None
