"""What each feature adds to a prediction: SHAP values, in the unit of the prediction itself.

For :mod:`airflow_provider_xops.evaluation.explanation` and :mod:`airflow_provider_xops.serving.explain`. A
prediction is taken apart into a base (the mean answer over background rows) and one contribution a feature;
together they are the prediction (Lundberg and Lee 2017, A unified approach to interpreting model
predictions). Features are the columns that the model is given, so a pipeline that encodes them is taken as a
whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.evaluation._extras import needs
from airflow_provider_xops.evaluation._shap_asking import answers, by_asking, few_combinations
from airflow_provider_xops.evaluation._shap_models import own_method
from airflow_provider_xops.training.metrics import Task

__all__ = ["Contributions", "ablation", "contributions"]


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

    Trees and linear models by the algorithms of :mod:`._shap_models`; every other model by trying which
    features are the row's and which a background row's: all combinations where they are few enough, else
    sampled orders.

    :raises ArgumentError: ``argument.extra_missing``; :raises ModelError: ``model.predict_failed``.
    """
    needs("shap", extra="explain", what="SHAP values")
    said, outputs = answers(estimator, rows, task=task, name=name)
    exact = few_combinations(rows.shape[1], len(background), len(rows))
    own = own_method(estimator, background, task=task, name=name, exact=exact, seed=seed)
    if own is not None:
        values, bases, right = own.explain(rows, said)
        if right.all():
            return Contributions(values, bases[0], said, outputs, own.method, additive=True)
    values, base = by_asking(estimator, rows, background, task=task, name=name, seed=seed, exact=exact)
    method = f"shap ({'exact' if exact else 'permutation'})"
    return Contributions(values, base, said, outputs, method, additive=True)


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
