"""The models whose predictions are explained exactly and fast, and how.

Private to :mod:`airflow_provider_xops.serving.reasons`. A tree or linear regression at the end of a pipeline
is explained by shap's own algorithm, as long as everything before it makes of each feature one column: then
the columns are the features, and what a column adds is what its feature adds. A column made of several
features (an imputer that looks at neighbors), or several of one (one-hot), are not of that kind.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.evaluation import _shap
from airflow_provider_xops.training.metrics import Predictions, Task
from airflow_provider_xops.training.user_errors import describe

__all__ = ["EXACT_FEATURES", "OwnMethod", "as_numbers", "own_method"]

log = logging.getLogger(__name__)

# So many features have fewer combinations than ten orders and their reverses have steps, or not many more.
EXACT_FEATURES = 8
# shap draws a progress bar into the log of whoever explains rows for ten seconds in one call.
AT_ONCE = 50
# What scikit-learn makes of one column, looking at that column alone (exact types: a subclass may do more).
_BY_COLUMN = {
    "OrdinalEncoder", "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "SimpleImputer",
    "QuantileTransformer", "PowerTransformer",
}  # fmt: skip


@dataclass(frozen=True)
class OwnMethod:
    """shap's own algorithm for a model.

    :param explainer: for the columns that the model's last step sees. :param prepare: the steps before it, if
        any. :param places: for each of those columns the place of its feature.
    """

    method: str
    explainer: Any
    prepare: Any
    places: tuple[int, ...]

    def explain(self, frame: pd.DataFrame, answer: Any) -> tuple[Any, Any, Any]:
        """Values (rows x features x outputs), bases (rows x outputs), and which rows add up to the answer."""
        columns = self.prepared(frame)
        options = {"check_additivity": False} if "tree" in self.method else {}
        parts = [
            _shap._shaped(self.explainer(some, **options), len(some), self.method)
            for some in (columns[start : start + AT_ONCE] for start in range(0, len(frame), AT_ONCE))
        ]
        made, base = np.concatenate([part[0] for part in parts]), parts[0][1]
        values = np.zeros((len(frame), frame.shape[1], made.shape[2]))
        values[:, list(self.places)] = made
        bases = np.tile(base, (len(frame), 1))
        if bases.shape != answer.shape:
            return (
                np.zeros((*frame.shape, answer.shape[1])),
                np.zeros(answer.shape),
                np.zeros(len(frame), bool),
            )
        apart = np.abs(bases + values.sum(axis=1) - answer).max(axis=1, initial=0.0)
        scale = np.maximum(1.0, np.abs(answer).max(axis=1, initial=0.0))
        return values, bases, apart <= _shap.ADDITIVE_WITHIN * scale

    def prepared(self, frame: pd.DataFrame) -> Any:
        """What the model's last step is given."""
        return _numbers(frame if self.prepare is None else self.prepare.transform(frame))


def own_method(estimator: Any, background: pd.DataFrame, *, task: Task, name: str) -> OwnMethod | None:
    """shap's own algorithm for this model; None where there is none, or it does not add up on these rows."""
    from sklearn.pipeline import Pipeline

    prepare, last = None, estimator
    names: list[str] | None = [str(each) for each in background.columns]
    if isinstance(estimator, Pipeline) and len(estimator.steps) > 1:
        prepare, last = estimator[:-1], estimator.steps[-1][1]
        names = _origins(prepare, names or [])
    if names is None or len(set(names)) < len(names):
        return None
    try:
        known = _numbers(background if prepare is None else prepare.transform(background))
        explained = _explainer(last, known, task)
        if explained is None or known.shape[1] != len(names):
            return None
        order = [str(each) for each in background.columns]
        made = OwnMethod(explained[1], explained[0], prepare, tuple(order.index(each) for each in names))
        answer, _ = _shap.answers(estimator, background, task=task, name=name)
        right = made.explain(background, answer)[2]
    except Exception as error:  # the algorithm does not know this model, in whatever words
        log.debug("No SHAP values of a kind of their own for %s: %s", name, describe(error, background))
        return None
    return made if right.all() else None


def as_numbers(said: Predictions, *, task: Task, name: str) -> tuple[Any, tuple[Any, ...]]:
    """Predictions as numbers, rows x outputs, and what the outputs are (as in :func:`._shap.answers`)."""
    if task is Task.REGRESSION:
        return np.asarray(said.labels, dtype=np.float64)[:, None], ("",)
    return _shap._of_classes(said, name)


def _explainer(last: Any, known: Any, task: Task) -> tuple[Any, str] | None:
    import shap  # type: ignore[import-untyped]
    from sklearn.linear_model._base import LinearModel

    # Of plain rows shap would take a hundred.
    masker = shap.maskers.Independent(known, max_samples=len(known))
    if _shap._has_trees(last):
        # Against the background, and in probabilities: the same question that every other model is asked.
        output = "probability" if task is Task.CLASSIFICATION else "raw"
        return (
            shap.TreeExplainer(last, masker, feature_perturbation="interventional", model_output=output),
            "shap (tree)",
        )
    if task is Task.REGRESSION and isinstance(last, LinearModel):
        return shap.LinearExplainer(last, masker), "shap (linear)"
    return None


def _origins(step: Any, names: Sequence[str]) -> list[str] | None:
    """The feature that each column of a fitted step's result is made of; None where that is not one each."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    if step is None or (isinstance(step, str) and step == "passthrough"):
        return list(names)
    if isinstance(step, str) and step == "drop":
        return []
    if isinstance(step, Pipeline):
        made: list[str] | None = list(names)
        for _, each in step.steps:
            made = None if made is None else _origins(each, made)
        return made
    if type(step) is ColumnTransformer:
        found: list[str] = []
        for _, each, columns in step.transformers_:
            chosen = _chosen(columns, names)
            part = None if chosen is None else _origins(each, chosen)
            if part is None:
                return None
            found += part
        return found
    if type(step).__name__ in _BY_COLUMN and type(step).__module__.startswith("sklearn."):
        return list(names) if not getattr(step, "add_indicator", False) else None
    if type(step).__name__ == "FunctionTransformer" and getattr(step, "func", 0) is None:
        return list(names)
    return None


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


def _numbers(columns: Any) -> Any:
    """A dense matrix; shap's algorithms read nothing else."""
    if hasattr(columns, "toarray"):
        columns = columns.toarray()
    return np.asarray(columns, dtype=np.float64)
