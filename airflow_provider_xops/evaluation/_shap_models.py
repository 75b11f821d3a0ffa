"""The models whose predictions are taken apart without asking them, and how.

Private to :mod:`airflow_provider_xops.evaluation._shap` and :mod:`airflow_provider_xops.serving.reasons`.
These are trees and linear models, alone or at the end of a pipeline, as long as everything before them makes
columns of one feature each: an encoder, a scaler, a one-hot encoder. The columns made of one feature have a
row's values together, or a background row's, so the feature's contribution is that of all of them. A column
made of several features (by an imputer that looks at neighbors, a projection) is not of that kind.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.evaluation._shap_asking import answers
from airflow_provider_xops.evaluation._shap_linear import additive
from airflow_provider_xops.evaluation._shap_trees import Trees
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.training.user_errors import describe

__all__ = ["OwnMethod", "own_method"]

log = logging.getLogger(__name__)

# Boosting libraries answer in single precision.
ADDITIVE_WITHIN = 1e-4
# Rows that go through the model's steps together: an encoder may make hundreds of columns of them.
ROWS_AT_ONCE = 5_000
# What scikit-learn makes of one column, looking at that column alone (exact types: a subclass may do more).
_BY_COLUMN = {
    "OrdinalEncoder", "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "QuantileTransformer",
    "PowerTransformer", "KBinsDiscretizer", "TargetEncoder",
}  # fmt: skip


@dataclass(frozen=True)
class OwnMethod:
    """An algorithm made for a kind of models.

    :param explainer: for the columns that the model's last step sees. :param prepare: the steps before it, if
        any.
    """

    method: str
    explainer: Any
    prepare: Any

    def explain(self, frame: pd.DataFrame, answer: Any) -> tuple[Any, Any, Any]:
        """Values (rows x features x outputs), bases (rows x outputs), and which rows add up to the answer."""
        values, bases = np.zeros((*frame.shape, answer.shape[1])), np.zeros(answer.shape)
        for start in range(0, len(frame), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            values[some], bases[some] = self.explainer.explain(_prepared(self.prepare, frame.iloc[some]))
        apart = np.abs(bases + values.sum(axis=1) - answer).max(axis=1, initial=0.0)
        scale = np.maximum(1.0, np.abs(answer).max(axis=1, initial=0.0))
        return values, bases, apart <= ADDITIVE_WITHIN * scale


def own_method(
    estimator: Any, background: pd.DataFrame, *, task: Task, name: str, exact: bool, seed: int
) -> OwnMethod | None:
    """The algorithm for this model; None where there is none, or it does not add up on these rows.

    :param exact: of the models whose answer is no sum, but follows from one: every combination of features is
        tried, else orders are sampled from ``seed``.
    """
    from sklearn.pipeline import Pipeline

    prepare, last = None, estimator
    features = [str(each) for each in background.columns]
    names: list[str] | None = list(features)
    if isinstance(estimator, Pipeline) and len(estimator.steps) > 1:
        prepare, last = estimator[:-1], estimator.steps[-1][1]
    try:
        if prepare is not None:
            names = _origins(prepare, features)
        if names is None or len(set(features)) < len(features):
            return None
        known = _prepared(prepare, background)
        if known.shape[1] != len(names):
            return None
        owners = [features.index(each) for each in names]
        said, _ = answers(estimator, background, task=task, name=name)
        made: OwnMethod | None = None
        if _has_trees(last):
            made = OwnMethod("shap (tree)", _trees(last, owners, len(features), known, task), prepare)
        elif (sums := additive(last, owners, len(features), known, said, exact=exact, seed=seed)) is not None:
            made = OwnMethod(sums.method, sums, prepare)
        if made is None or not made.explain(background, said)[2].all():
            return None
    except Exception as error:  # the algorithm does not know this model, in whatever words
        log.debug("No SHAP values of a kind of their own for %s: %s", name, describe(error, background))
        return None
    return made


def _trees(last: Any, owners: Sequence[int], features: int, known: Any, task: Task) -> Trees:
    import shap  # type: ignore[import-untyped]

    # Against the background, and in probabilities: the same question that every other model is asked. Of
    # plain rows shap would take a hundred.
    masker = shap.maskers.Independent(known, max_samples=len(known))
    output = "probability" if task is Task.CLASSIFICATION else "raw"
    read = shap.TreeExplainer(last, masker, feature_perturbation="interventional", model_output=output).model
    return Trees(read, owners, features, known, logistic=read.get_transform() == "logistic")


def _has_trees(estimator: Any) -> bool:
    library = type(estimator).__module__.partition(".")[0]
    if library == "sklearn":
        return type(estimator).__module__.startswith(("sklearn.tree", "sklearn.ensemble"))
    return library in ("xgboost", "lightgbm")


def _origins(step: Any, names: Sequence[str]) -> list[str] | None:
    """The feature that each column of a fitted step's result is made of; None where that is not one each."""
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_selection import SelectorMixin
    from sklearn.pipeline import FeatureUnion, Pipeline

    if step is None or (isinstance(step, str) and step == "passthrough"):
        return list(names)
    if isinstance(step, str) and step == "drop":
        return []
    if isinstance(step, Pipeline):
        made: list[str] | None = list(names)
        for _, each in step.steps:
            made = None if made is None else _origins(each, made)
        return made
    if type(step) is FeatureUnion:
        return _side_by_side([(each, list(names)) for _, each in step.transformer_list])
    if type(step) is ColumnTransformer:
        return _side_by_side([(each, _chosen(columns, names)) for _, each, columns in step.transformers_])
    kind, ours = type(step).__name__, type(step).__module__.startswith("sklearn.")
    if ours and kind in _BY_COLUMN:
        return list(names)
    if ours and kind == "SimpleImputer":
        # A column without any value is left out; then the columns are not as many as is said here.
        return (
            [*names, *(names[int(each)] for each in step.indicator_.features_)]
            if step.indicator_
            else (list(names))
        )
    if ours and kind == "OneHotEncoder":
        return [name for name, count in zip(names, _one_hot(step), strict=True) for _ in range(count)]
    if ours and isinstance(step, SelectorMixin):
        return [names[int(each)] for each in step.get_support(indices=True)]
    if kind == "FunctionTransformer" and getattr(step, "func", 0) is None:
        return list(names)
    return None


def _one_hot(step: Any) -> list[int]:
    """How many columns a fitted one-hot encoder makes of each of its own."""
    found = []
    rare = getattr(step, "infrequent_categories_", None)
    for place, categories in enumerate(step.categories_):
        count = len(categories)
        if rare is not None and rare[place] is not None:
            count -= len(rare[place]) - 1
        dropped = step.drop_idx_ is not None and step.drop_idx_[place] is not None
        found.append(count - dropped)
    return found


def _side_by_side(steps: Sequence[tuple[Any, list[str] | None]]) -> list[str] | None:
    found: list[str] = []
    for step, names in steps:
        part = None if names is None else _origins(step, names)
        if part is None:
            return None
        found += part
    return found


def _chosen(columns: Any, names: Sequence[str]) -> list[str] | None:
    if isinstance(columns, str):
        return [columns]
    if isinstance(columns, slice) or not hasattr(columns, "__iter__"):
        return None
    found = []
    for each in columns:
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, int | np.integer) and not isinstance(each, bool | np.bool_):
            found.append(names[int(each)])
        else:
            return None
    return found


def _prepared(prepare: Any, frame: pd.DataFrame) -> Any:
    """What the model's last step is given, as a dense matrix."""
    columns: Any = frame if prepare is None else prepare.transform(frame)
    if hasattr(columns, "toarray"):
        columns = columns.toarray()
    return np.asarray(columns, dtype=np.float64)
