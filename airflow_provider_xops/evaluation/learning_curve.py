"""Whether more data would help: the model is fitted again on growing shares of its training rows.

For evaluation. Every point is measured on the same holdout rows. If the last points of the curve still rise,
more rows of the same kind are worth getting; if they lie within each other's intervals, they are not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_xops.errors import ModelError, TrainingError
from airflow_provider_xops.evaluation.plan import LearningCurvePlan
from airflow_provider_xops.evaluation.scored import Scored
from airflow_provider_xops.evaluation.statistics import intervals
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import LearningPoint, MetricFigure, ModelVersion
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.metrics import Predictions
from airflow_provider_xops.training.predicting import predict
from airflow_provider_xops.training.recipe import Recipe, recipe_from
from airflow_provider_xops.training.splits import random_order

__all__ = ["measure"]

log = logging.getLogger(__name__)


def measure(
    lake: Lake,
    scored: Scored,
    plan: LearningCurvePlan,
    *,
    metric: str,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> tuple[LearningPoint, ...]:
    """One point for each share, in growing order; the share 1 is the challenger itself.

    :param seed: of the order in which rows are added: of one repeat, a smaller share is part of every larger.
    :raises TrainingError: ``training.not_repeatable``: it was not trained here, or by what cannot be
        imported; ``training.streamed``: it learns in batches because its rows are too many to be held.
    :raises DataError: ``data.selection_changed``: the training rows are not those recorded.

    With several repeats a point is the mean of fits on different rows of the same number, and its interval
    holds their spread beside the holdout's. A share on which the model cannot be fitted (all rows of one
    class, say) has no value.

    >>> measure(lake, scored, LearningCurvePlan(shares=(0.1, 1.0)), metric="roc_auc")  # doctest: +SKIP

    What it does not do: it does not foresee the curve beyond the rows there are.
    """
    model = scored.challenger.model
    recipe = recipe_from(model.settings)
    if model.training is None:
        raise _not_possible("training.not_repeatable", model, "the rows that it was trained on are not known")
    if recipe.batch_rows is not None:
        raise _not_possible("training.streamed", model, "its rows are too many to be held at once")
    shares = sorted(set(plan.shares))
    rows = None
    if shares[0] < 1:
        rows = selections.materialize(lake, model.training, columns=recipe.columns)
    asked = _Asked(scored, recipe, metric, confidence, resamples, seed)
    points = []
    for share in shares:
        count = max(1, round(share * model.training.rows))
        if rows is None or share == 1:
            figures: list[MetricFigure | None] = [asked.figure(scored.challenger.said)]
        else:
            orders = [random_order(rows.num_rows, seed + repeat) for repeat in range(plan.repeats)]
            figures = [asked.refitted(rows, order[:count]) for order in orders]
        value, lower, upper = _together(figures, confidence)
        points.append(
            LearningPoint(rows=count, share=share, metric=metric, value=value, lower=lower, upper=upper)
        )
        log.info("After %d rows: %s %s.", count, metric, "not measured" if value is None else f"{value:.6g}")
    return tuple(points)


@dataclass(frozen=True)
class _Asked:
    scored: Scored
    recipe: Recipe
    metric: str
    confidence: float
    resamples: int
    seed: int

    def figure(self, said: Predictions) -> MetricFigure:
        scored = self.scored
        return intervals(
            scored.task, scored.truth, said, metrics=[self.metric], confidence=self.confidence,
            resamples=self.resamples, seed=self.seed, clusters=scored.clusters,
        )[self.metric]  # fmt: skip

    def refitted(self, rows: pa.Table, places: Any) -> MetricFigure | None:
        """The figure after fitting on these rows, in their original order; None where that fails."""
        scored, model = self.scored, self.scored.challenger.model
        try:
            estimator = self.recipe.learn(rows.take(pa.array(np.sort(places))))
            frame = feature_frame(scored.table, model.features)
            return self.figure(predict(estimator, frame, task=scored.task, name=str(model.ref)))
        except (TrainingError, ModelError) as error:
            log.warning("%s could not be fitted on %d rows: %s", model.ref, len(places), error.code)
            return None


def _not_possible(code: str, model: ModelVersion, why: str) -> TrainingError:
    return TrainingError(
        f"{model.ref} cannot be fitted again on fewer rows", code=code, why=why,
        todo="leave the learning curve out of the plan",
    )  # fmt: skip


def _together(
    figures: Sequence[MetricFigure | None], confidence: float
) -> tuple[float | None, float | None, float | None]:
    """The mean of several fits; its interval from the mean of theirs and from how far they lie apart."""
    known = [each for each in figures if each is not None and each.value is not None]
    if len(known) < len(figures):
        return None, None, None
    values = [float(each.value) for each in known if each.value is not None]
    value = float(np.mean(values))
    ends = [(each.lower, each.upper) for each in known]
    if any(None in pair for pair in ends):
        return value, None, None
    below, above = (float(side) for side in np.abs(np.array(ends).T - values).mean(axis=1))
    if len(known) > 1:
        from scipy.stats import t

        spread = float(np.std(values, ddof=1)) / np.sqrt(len(known))
        spread *= float(t.ppf((1 + confidence) / 2, len(known) - 1))
        below, above = float(np.hypot(below, spread)), float(np.hypot(above, spread))
    return value, value - below, value + above
