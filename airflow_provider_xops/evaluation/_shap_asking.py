"""What a model of any kind answers, and SHAP values made by asking it alone.

Private to :mod:`airflow_provider_xops.evaluation._shap`. A feature's absence is imitated with the values of
background rows: the model is asked about rows of which some features are the row's and the others theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.errors import ModelError
from airflow_provider_xops.training.metrics import Predictions, Task
from airflow_provider_xops.training.predicting import predict

__all__ = ["PERMUTATIONS", "answers", "as_numbers", "by_asking", "few_combinations", "shapley"]

# Of the sampled orders in which features join; each is walked both ways.
PERMUTATIONS = 10
# Up to so many model rows every combination of features is tried, and nothing is sampled.
EXACT_ROWS = 2_000_000
# That the model is asked about in one call.
ROWS_AT_ONCE = 50_000


def answers(estimator: Any, rows: pd.DataFrame, *, task: Task, name: str) -> tuple[Any, tuple[Any, ...]]:
    """The model's answers as numbers, rows x outputs, and what the outputs are.

    A regressor's one number; a classifier's probabilities (of two classes the second alone), or 1 for the
    class it says where it gives no probabilities.
    """
    return as_numbers(predict(estimator, rows, task=task, name=name), task=task, name=name)


def as_numbers(said: Predictions, *, task: Task, name: str) -> tuple[Any, tuple[Any, ...]]:
    """Predictions as numbers, rows x outputs, and what the outputs are, as :func:`answers` gives them."""
    if task is Task.REGRESSION:
        return np.asarray(said.labels, dtype=np.float64)[:, None], ("",)
    if said.classes is None:
        raise ModelError(
            f"{name} does not say which classes it knows", code="model.classes_unknown",
            todo="use a classifier with classes_",
        )  # fmt: skip
    classes = np.asarray(said.classes)
    shares = said.probabilities
    if shares is None:
        shares = np.asarray(said.labels)[:, None] == classes[None, :]
    first = 1 if len(classes) == 2 else 0
    return np.asarray(shares, dtype=np.float64)[:, first:], tuple(classes[first:].tolist())


def few_combinations(features: int, background: int, rows: int) -> bool:
    """Whether every combination of features can be tried for so many rows."""
    return features <= 20 and 2**features * background * rows <= EXACT_ROWS


def by_asking(
    estimator: Any, rows: pd.DataFrame, background: pd.DataFrame, *, task: Task, name: str, seed: int,
    exact: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """Values (rows x features x outputs) and bases (outputs).

    :param exact: try every combination of features, else sampled orders.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    code = _Code(rows, background)
    known, coded = code.numbers(background), code.numbers(rows)
    count = rows.shape[1]

    def worth(row: Any, masks: Any) -> Any:
        """The mean answer for each mask: the row's values where it is true, the background's elsewhere."""
        found = []
        step = max(1, ROWS_AT_ONCE // len(known))
        for start in range(0, len(masks), step):
            some = masks[start : start + step]
            mixed = np.where(some[:, None, :], row, known[None]).reshape(-1, count)
            said, _ = answers(estimator, code.frame(mixed), task=task, name=name)
            found.append(said.reshape(len(some), len(known), -1).mean(axis=1))
        return np.concatenate(found)

    # The model is asked often, and about few rows: threads would spend the time waiting for each other.
    with threadpool_limits(limits=1):
        made = [shapley(partial(worth, row), count, exact=exact, seed=seed) for row in coded]
        base = worth(coded[0], np.zeros((1, count), dtype=bool))[0]
    return np.stack(made), base


def shapley(worth: Callable[[Any], Any], count: int, *, exact: bool, seed: int) -> Any:
    """The features' Shapley values, features x outputs.

    :param worth: of masks over the features (masks x features), masks x outputs.
    """
    if exact:
        return _by_combinations(worth, count)
    rng = np.random.default_rng(seed)
    return _by_orders(worth, [rng.permutation(count) for _ in range(PERMUTATIONS)])


def _by_combinations(worth: Callable[[Any], Any], count: int) -> Any:
    """Shapley values (Shapley 1953) from every combination of features: features x outputs."""
    places = np.arange(2**count)
    masks = (places[:, None] >> np.arange(count)) & 1 == 1
    known = worth(masks)
    sizes = masks.sum(axis=1)
    # Of all orders, the share in which exactly this combination has joined before the feature.
    share = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    values = np.zeros((count, known.shape[1]))
    for feature in range(count):
        without = places[~masks[:, feature]]
        gains = known[without + 2**feature] - known[without]
        values[feature] = share[sizes[without]] @ gains
    return values


def _by_orders(worth: Callable[[Any], Any], orders: Sequence[Any]) -> Any:
    """Shapley values from some orders in which features join, each also walked backwards (Mitchell, Cooper,
    Frank and Holmes 2022, Sampling permutations for Shapley value estimation): features x outputs."""
    walks = [walk for order in orders for walk in (order, order[::-1])]
    count = len(walks[0])
    masks = np.zeros((len(walks), count + 1, count), dtype=bool)
    for number, walk in enumerate(walks):
        for step, feature in enumerate(walk):
            masks[number, step + 1 :, feature] = True
    known = worth(masks.reshape(-1, count)).reshape(len(walks), count + 1, -1)
    gains = np.diff(known, axis=1)
    values = np.zeros((count, known.shape[2]))
    for number, walk in enumerate(walks):
        values[walk] += gains[number]
    return values / len(walks)


class _Code:
    """Frames with text and times as matrices of numbers, and back: maskers swap numbers."""

    def __init__(self, rows: pd.DataFrame, background: pd.DataFrame) -> None:
        self._types = rows.dtypes
        self._words = {
            name: pd.concat([rows[name], background[name]]).dropna().unique()
            for name in rows.columns
            if rows[name].dtype.kind == "O"
        }

    def numbers(self, frame: pd.DataFrame) -> Any:
        columns = []
        for name in self._types.index:
            column = frame[name]
            if name in self._words:
                codes = pd.Index(self._words[name]).get_indexer(column).astype(np.float64)
                columns.append(np.where(codes < 0, np.nan, codes))
            elif self._types[name].kind == "M":
                moments = column.to_numpy(dtype="datetime64[us]")
                columns.append(np.where(np.isnat(moments), np.nan, moments.astype(np.int64)))
            else:
                columns.append(column.to_numpy(dtype=np.float64))
        return np.column_stack(columns)

    def frame(self, numbers: Any) -> pd.DataFrame:
        columns: dict[Any, Any] = {}
        for place, name in enumerate(self._types.index):
            column = numbers[:, place]
            if name in self._words:
                words = np.array([*self._words[name], np.nan], dtype=object)
                codes = np.where(np.isnan(column), len(words) - 1, column).astype(np.int64)
                columns[name] = pd.Series(words[codes], dtype=object)
            elif self._types[name].kind == "M":
                gone = np.isnan(column)
                moments = np.where(gone, 0, column).astype(np.int64).astype("datetime64[us]")
                moments[gone] = np.datetime64("NaT")
                made = pd.Series(moments)
                zone = getattr(self._types[name], "tz", None)
                columns[name] = made if zone is None else made.dt.tz_localize("UTC").dt.tz_convert(zone)
            else:
                columns[name] = pd.Series(column)
        return pd.DataFrame(columns, columns=self._types.index)
