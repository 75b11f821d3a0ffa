"""What each feature adds to a prediction: SHAP values, in the unit of the prediction itself.

For :mod:`airflow_provider_xops.evaluation.explanation` and :mod:`airflow_provider_xops.serving.explain`. A
prediction is taken apart into a base (the mean answer over background rows) and one contribution a feature;
together they are the prediction (Lundberg and Lee 2017, A unified approach to interpreting model
predictions). Features are the columns that the model is given, so a pipeline that encodes them is taken as a
whole.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.errors import ModelError
from airflow_provider_xops.evaluation._extras import needs
from airflow_provider_xops.training.metrics import Predictions, Task
from airflow_provider_xops.training.predicting import predict
from airflow_provider_xops.training.user_errors import describe

__all__ = ["Contributions", "ablation", "answers", "contributions"]

log = logging.getLogger(__name__)

# Of the sampled orders in which features join; each is walked both ways.
PERMUTATIONS = 10
# Up to so many model rows every combination of features is tried, and nothing is sampled.
EXACT_ROWS = 2_000_000
# That the model is asked about in one call.
ROWS_AT_ONCE = 50_000
# Boosting libraries answer in single precision.
ADDITIVE_WITHIN = 1e-4


@dataclass(frozen=True)
class Contributions:
    """Predictions taken apart.

    :param values: rows x features x outputs. :param base: one a output. :param said: rows x outputs, what the
        model answers. :param outputs: the classes (the second of two alone), or one empty word.
    :param method: ``shap`` with the algorithm in parentheses, or ``ablation``.
    :param additive: base and values sum up to ``said``.
    """

    values: Any
    base: Any
    said: Any
    outputs: tuple[Any, ...]
    method: str
    additive: bool


def contributions(
    estimator: Any, rows: pd.DataFrame, background: pd.DataFrame, *, task: Task, name: str, seed: int = 0
) -> Contributions:
    """SHAP values of each row against the background.

    Trees and linear regressions by shap's own exact algorithms for them; every other model by trying which
    features are the row's and which a background row's: all combinations where they are few enough, else
    ``PERMUTATIONS`` sampled orders.

    :raises ArgumentError: ``argument.extra_missing``; :raises ModelError: ``model.predict_failed``.
    """
    needs("shap", extra="explain", what="SHAP values")
    said, outputs = answers(estimator, rows, task=task, name=name)
    for own in (_trees, _linear):
        found = _trusted(own, estimator, rows, background, task, said)
        if found is not None:
            values, base, method = found
            return Contributions(values, base, said, outputs, method, additive=True)
    return _any_model(estimator, rows, background, said, outputs, task=task, name=name, seed=seed)


def ablation(
    estimator: Any, rows: pd.DataFrame, background: pd.DataFrame, *, task: Task, name: str
) -> Contributions:
    """How the answer differs, on average, from what it is with one feature taken from a background row.

    It needs no extra. The differences do not sum up to anything: what two features do together counts for
    both of them.
    """
    said, outputs = answers(estimator, rows, task=task, name=name)
    base = answers(estimator, background, task=task, name=name)[0].mean(axis=0)
    values = np.zeros((len(rows), rows.shape[1], said.shape[1]))
    for place in range(len(rows)):
        alike = rows.iloc[[place] * len(background)].reset_index(drop=True)
        for column, feature in enumerate(rows.columns):
            other = alike.copy()
            other[feature] = background[feature].to_numpy()
            there = answers(estimator, other, task=task, name=name)[0]
            values[place, column] = said[place] - there.mean(axis=0)
    return Contributions(values, base, said, outputs, "ablation", additive=False)


def answers(estimator: Any, rows: pd.DataFrame, *, task: Task, name: str) -> tuple[Any, tuple[Any, ...]]:
    """The model's answers as numbers, rows x outputs, and what the outputs are.

    A regressor's one number; a classifier's probabilities (of two classes the second alone), or 1 for the
    class it says where it gives no probabilities.
    """
    said = predict(estimator, rows, task=task, name=name)
    if task is Task.REGRESSION:
        return np.asarray(said.labels, dtype=np.float64)[:, None], ("",)
    return _of_classes(said, name)


def _of_classes(said: Predictions, name: str) -> tuple[Any, tuple[Any, ...]]:
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


def _trusted(
    explain: Callable[..., Any], estimator: Any, rows: pd.DataFrame, background: pd.DataFrame, task: Task,
    said: Any,
) -> tuple[Any, Any, str] | None:  # fmt: skip
    """A specialized algorithm's answer, if there is one and it adds up to what the model really says."""
    numbers = all(frame.dtypes.map(lambda kind: kind.kind == "f").all() for frame in (rows, background))
    if not numbers:
        return None
    try:
        found = explain(estimator, rows, background, task)
    except Exception as error:  # the algorithm does not know this model, in whatever words
        log.debug("No specialized SHAP values: %s", describe(error, rows))
        return None
    if found is None:
        return None
    values, base, method = found
    if values.shape != (*rows.shape, said.shape[1]) or base.shape != (said.shape[1],):
        return None
    scale = max(1.0, float(np.abs(said).max(initial=0.0)))
    apart = float(np.abs(base + values.sum(axis=1) - said).max(initial=0.0))
    return (values, base, method) if apart <= ADDITIVE_WITHIN * scale else None


def _trees(estimator: Any, rows: pd.DataFrame, background: pd.DataFrame, task: Task) -> Any:
    if not _has_trees(estimator):
        return None
    import shap  # type: ignore[import-untyped]

    # Against the background, and in probabilities: the same question that every other model is asked.
    output = "probability" if task is Task.CLASSIFICATION else "raw"
    masker = shap.maskers.Independent(background, max_samples=len(background))  # of plain rows, a hundred
    explainer = shap.TreeExplainer(
        estimator, data=masker, feature_perturbation="interventional", model_output=output
    )
    found = explainer(rows, check_additivity=False)
    return _shaped(found, len(rows), "shap (tree)")


def _linear(estimator: Any, rows: pd.DataFrame, background: pd.DataFrame, task: Task) -> Any:
    from sklearn.linear_model._base import LinearModel

    # A logistic regression is linear in log-odds only; its probabilities are explained like any model's.
    if task is not Task.REGRESSION or not isinstance(estimator, LinearModel):
        return None
    import shap

    masker = shap.maskers.Independent(background, max_samples=len(background))
    return _shaped(shap.LinearExplainer(estimator, masker)(rows), len(rows), "shap (linear)")


def _has_trees(estimator: Any) -> bool:
    library = type(estimator).__module__.partition(".")[0]
    if library == "sklearn":
        return type(estimator).__module__.startswith(("sklearn.tree", "sklearn.ensemble"))
    return library in ("xgboost", "lightgbm")


def _shaped(found: Any, rows: int, method: str) -> tuple[Any, Any, str]:
    """rows x features x outputs, the second of two classes alone."""
    values, base = np.asarray(found.values, dtype=np.float64), np.asarray(found.base_values, dtype=np.float64)
    values = values[:, :, None] if values.ndim == 2 else values
    base = np.broadcast_to(base.reshape(base.shape[0], -1) if base.ndim else base, (rows, values.shape[2]))[0]
    first = 1 if values.shape[2] == 2 else 0
    return values[:, :, first:], base[first:], method


def _any_model(
    estimator: Any, rows: pd.DataFrame, background: pd.DataFrame, said: Any, outputs: tuple[Any, ...], *,
    task: Task, name: str, seed: int, exact: bool | None = None,
) -> Contributions:  # fmt: skip
    """:param exact: try every combination of features; None: where they are few enough for these rows."""
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

    # Combinations x background rows x rows explained: what an exact answer asks the model.
    if exact is None:
        exact = count <= 20 and 2**count * len(known) * len(rows) <= EXACT_ROWS
    # The model is asked often, and about few rows: threads would spend the time waiting for each other.
    with threadpool_limits(limits=1):
        if exact:
            made = [_by_combinations(partial(worth, row), count) for row in coded]
        else:
            rng = np.random.default_rng(seed)
            orders = [rng.permutation(count) for _ in range(PERMUTATIONS)]
            made = [_by_orders(partial(worth, row), orders) for row in coded]
        base = worth(coded[0], np.zeros((1, count), dtype=bool))[0]
    method = "shap (exact)" if exact else "shap (permutation)"
    return Contributions(np.stack(made), base, said, outputs, method, additive=True)


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
