"""What a model rests on: how much worse it gets without a feature, and what each feature adds.

For :func:`airflow_provider_xops.evaluation.evaluate.evaluate`. Permutation importance works for every
estimator with ``predict``; SHAP values need the extra ``explain``. One prediction is explained by
:mod:`airflow_provider_xops.serving.explain`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.errors import ArgumentError, ModelError
from airflow_provider_xops.evaluation import _shap
from airflow_provider_xops.evaluation._losses import answers_to, sampled_rows, study_of
from airflow_provider_xops.evaluation.plan import ExplanationPlan
from airflow_provider_xops.evaluation.scored import Scored
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import FeatureImportance, ModelVersion
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.frames import feature_frame

__all__ = ["background_of", "permutation", "shap_values"]

log = logging.getLogger(__name__)


def permutation(
    scored: Scored, plan: ExplanationPlan, *, metric: str, seed: int = 0, confidence: float = 0.95
) -> tuple[FeatureImportance, ...]:
    """By how much the challenger's metric gets worse when a feature's values change rows; worst first.

    Breiman 2001, Random forests, for any model (Fisher, Rudin and Dominici 2019). The value is the mean over
    ``plan.repeats`` shuffles, positive where the model needs the feature; the interval covers the shuffles
    and which rows were drawn. A feature whose metric is not defined is left out.

    :param metric: one of the task's :data:`~airflow_provider_xops.training.metrics.METRICS`.
    :raises ArgumentError: ``argument.metric``.
    :raises ModelError: ``model.predict_failed``.

    >>> permutation(scored, ExplanationPlan(), metric="roc_auc")[0].feature  # doctest: +SKIP
    'dep_delay'

    What it does not do: of features that say the same, each alone looks unimportant, because the others
    remain; and shuffled rows may be such as never occur.
    """
    study = study_of(scored, metric=metric, max_rows=plan.max_rows, seed=seed, confidence=confidence)
    contender, count = scored.challenger, len(study.truth)
    found = []
    for place, feature in enumerate(study.frame.columns):
        rng = np.random.default_rng([seed, place, 2])
        values = study.frame[feature]

        def shuffled(_: int, feature: Any = feature, values: Any = values, rng: Any = rng) -> pd.DataFrame:
            made: pd.DataFrame = study.frame.copy()
            made[feature] = values.take(rng.permutation(count)).to_numpy()
            return made

        loss = study.against(answers_to(study, contender, shuffled, plan.repeats))
        if loss.loss is not None:
            found.append(
                FeatureImportance(
                    feature=str(feature), method="permutation", value=loss.loss, lower=loss.lower,
                    upper=loss.upper, metric=metric,
                )
            )  # fmt: skip
    log.info("Measured the importance of %d features on %d rows.", len(found), count)
    return _sorted(found)


def shap_values(
    scored: Scored,
    background: pd.DataFrame,
    plan: ExplanationPlan,
    *,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[FeatureImportance, ...]:
    """The mean absolute SHAP value of each feature over ``plan.shap_rows`` holdout rows; largest first.

    In the unit of the prediction: the probability of the positive class (with more classes: the mean over
    them), or the predicted number. The interval is that of the mean over the rows.

    :param background: rows of the training data that a feature's absence is imitated with, from
        :func:`background_of`; the first ``plan.background`` of them are used.
    :raises ArgumentError: ``argument.extra_missing``, ``argument.explanation``.

    The model is asked about rows x background rows x features some twenty times over, unless shap has an
    algorithm of its own for it (trees, linear regression).
    """
    features = list(scored.challenger.model.features)
    if not len(background) or list(background.columns) != features:
        raise _refused(
            "the background rows are not the model's features", "take them from background_of(lake, model)"
        )
    rows = sampled_rows(scored.rows, plan.shap_rows, seed)
    table = scored.table if rows is None else scored.table.take(rows)
    made = _shap.contributions(
        scored.challenger.estimator, feature_frame(table, features), background.head(plan.background),
        task=scored.task, name=str(scored.challenger.model.ref), seed=seed,
    )  # fmt: skip
    sizes = np.abs(made.values).mean(axis=2)
    clusters = None if scored.clusters is None else np.asarray(scored.clusters)
    near = clusters if clusters is None or rows is None else clusters[rows]
    found = []
    for place, feature in enumerate(features):
        value, reach = _mean_and_reach(sizes[:, place], near, confidence)
        ends = (None, None) if reach is None else (max(value - reach, 0.0), value + reach)
        found.append(
            FeatureImportance(feature=feature, method="shap", value=value, lower=ends[0], upper=ends[1])
        )
    log.info("Made SHAP values of %d rows: %s.", len(sizes), made.method)
    return _sorted(found)


def background_of(lake: Lake, model: ModelVersion, *, rows: int, seed: int = 0) -> pd.DataFrame:
    """A sample of the rows that a model was trained on, as it sees them, proved to be those rows.

    :raises ModelError: ``model.training_unknown`` (an adopted model).
    :raises DataError: ``data.selection_changed``.
    """
    if model.training is None:
        raise ModelError(
            f"the rows that {model.ref} was trained on are not known", code="model.training_unknown",
            todo="adopt it again naming them, or train it here",
        )  # fmt: skip
    table = selections.materialize(lake, model.training, columns=list(model.features))
    chosen = sampled_rows(table.num_rows, rows, seed)
    return feature_frame(table if chosen is None else table.take(chosen), model.features)


def _mean_and_reach(values: Any, clusters: Any, confidence: float) -> tuple[float, float | None]:
    from scipy.stats import t

    mean, apart = float(values.mean()), values - values.mean()
    if clusters is not None:
        apart = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=apart)
    count = len(apart)
    if count < 2:
        return mean, None
    error = math.sqrt(float(np.sum(apart**2)) * count / (count - 1)) / len(values)
    return mean, float(t.ppf((1 + confidence) / 2, count - 1)) * error


def _sorted(found: Sequence[FeatureImportance]) -> tuple[FeatureImportance, ...]:
    return tuple(sorted(found, key=lambda each: (-each.value, each.feature)))


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.explanation", todo=todo)
