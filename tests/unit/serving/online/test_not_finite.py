"""Predictions that are no finite number: told as null, counted, and an error of the version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.serving.online.edge_cases import Desk, Noted
from tests.unit.serving.online.test_edge import metric

PART = '{model="late",variant="primary",version="1"}'
ASKED = {"inputs": [[1, 2], [3, 4], [5, 6], [7, 8]]}
TENSOR = {"inputs": [{"name": "rows", "shape": [4, 2], "datatype": "FP64", "data": list(range(8))}]}


class Answers:
    """A regressor that always answers the same."""

    def __init__(self, *values: Any, dtype: Any = np.float64) -> None:
        self.values = np.array(values, dtype=dtype)

    def predict(self, frame: Any) -> Any:
        return self.values


class Unsure:
    """A classifier whose probabilities are those given."""

    def __init__(self, *positive: float) -> None:
        self.classes_ = np.array([0, 1])
        self.positive = np.array(positive)

    def predict_proba(self, frame: Any) -> Any:
        return np.column_stack([1 - self.positive, self.positive])

    def predict(self, frame: Any) -> Any:
        return (np.nan_to_num(self.positive) > 0.5).astype(int)


@pytest.mark.parametrize(
    ("estimator", "told", "count"),
    [
        (Answers(1.5, np.nan, np.inf, -np.inf), [1.5, None, None, None], 3),
        (Answers(1.5, np.nan, 2, 3, dtype=np.float32), [1.5, None, 2, 3], 1),
        (Answers(1.5, None, 2.0, np.nan, dtype=object), [1.5, None, 2, None], 2),
        (Unsure(0.9, 0.2, np.nan, 0.4), [1, 0, 0, 0], 1),
        (Answers(1.5, 2.5, 0, -1), [1.5, 2.5, 0, -1], 0),
        (Answers(1, 2, 3, 4, dtype=np.int64), [1, 2, 3, 4], 0),
    ],
)
def test_they_are_null_in_valid_json_and_an_error_of_the_version(
    estimator: Any, told: list[Any], count: int
) -> None:
    noted = Noted()
    desk = Desk(estimator=estimator, log=noted)
    reply = desk.ask("/invocations", ASKED)
    assert (reply.status, reply.json) == (200, {"predictions": told})
    v2 = desk.ask("/v2/models/late/infer", TENSOR)
    assert v2.status == 200
    assert v2.json["outputs"][0]["data"] == told
    assert v2.json["outputs"][0]["datatype"] in ("FP64", "INT64")
    assert metric(desk, "xops_rows_not_finite_total") == {PART: 2 * count}
    assert metric(desk, "xops_rows_total") == {PART: 8}
    figures = desk.ask("/xops/status").json["models"]["late"]["figures"]["1"]
    wrong = 2 if count else 0
    assert (figures["requests"], figures["errors"], figures["refused"]) == (2, wrong, 0)
    assert figures["within_seconds"]["inf"] == 2 - wrong
    # It was answered, so it is logged: as it is, not as JSON can tell it.
    for entry in noted.entries:
        assert list(map(repr, entry.predictions)) == list(map(repr, estimator.predict(None)))


def test_null_probabilities_are_null_in_their_tensor_too() -> None:
    desk = Desk(estimator=Unsure(0.75, np.nan, 0.25, 0.5))
    labels, probabilities = desk.ask("/v2/models/late/infer", TENSOR).json["outputs"]
    assert labels["datatype"] == "INT64"
    assert probabilities["data"] == [0.25, 0.75, None, None, 0.75, 0.25, 0.5, 0.5]
    asked = {**ASKED, "params": {"probabilities": True}}
    assert desk.ask("/invocations", asked).json["probabilities"][1] == [None, None]
