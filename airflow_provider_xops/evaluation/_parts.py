"""The parts of an evaluation one after the other, each measured by its own room.

For :func:`airflow_provider_xops.evaluation.evaluate.evaluate`. A part that cannot be measured becomes a note
in the record and leaves its field empty, so that its gate has no data; the other parts stand. What would be
different at the next attempt (storage that does not answer) or by the person's own correction (an argument, a
missing extra) is raised: an evaluation is recorded once, so a passing failure must not be recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_provider_xops.errors import ArgumentError, XOpsError
from airflow_provider_xops.evaluation import (
    explanation,
    fairness,
    learning_curve,
    ranking,
    robustness,
    skew,
    slices,
)
from airflow_provider_xops.evaluation.plan import EvaluationPlan, MetricTest
from airflow_provider_xops.evaluation.scored import Contender, Scored
from airflow_provider_xops.evaluation.statistics import calibration, choose_threshold, compare, intervals
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Comparison, FeatureImportance, MetricFigure
from airflow_provider_xops.training.metrics import METRICS, Task

__all__ = ["Parts", "headline_metric"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# What one figure says of a model where nothing was tested: the first of these that was measured.
HEADLINES: Mapping[Task | None, tuple[str, ...]] = {
    Task.CLASSIFICATION: ("roc_auc", "log_loss", "accuracy"),
    Task.REGRESSION: ("rmse", "mae"),
    None: ("roc_auc", "log_loss", "accuracy", "rmse", "mae"),
}


def headline_metric(
    task: Task | None, measured: Mapping[str, float | None], *, plan: EvaluationPlan | None = None
) -> str:
    """The metric that stands for the model: of the plan's first test, else its first, else a usual one.

    >>> headline_metric(Task.CLASSIFICATION, {"roc_auc": None, "log_loss": 0.4})
    'log_loss'
    """
    tested = [test.metric for test in plan.tests] if plan else []
    named = list(plan.metrics or ()) if plan else []
    usual = HEADLINES[task]
    order = [*tested, *named, *usual]
    return next((metric for metric in order if measured.get(metric) is not None), usual[0])


@dataclass
class Parts:
    """Measures a plan on scored rows; :meth:`measured` gives the fields of the record.

    :param notes: what was not measured, and why, filled while measuring.
    """

    lake: Lake
    scored: Scored
    plan: EvaluationPlan
    notes: list[str] = field(default_factory=list)

    def measured(self) -> dict[str, Any]:
        """All fields of the evaluation's record that are figures."""
        plan, scored = self.plan, self.scored
        figures = self._figures(scored.challenger)
        champion = self._figures(scored.champion) if scored.champion else ()
        metrics = {each.metric: each.value for each in figures}
        wanted = [*(plan.metrics or ()), *(test.metric for test in plan.tests)]
        for metric in dict.fromkeys(wanted):
            if metrics.get(metric) is None:
                self.notes.append(f"metrics: {metric} is not defined for these rows and predictions")
        headline = headline_metric(scored.task, metrics, plan=plan)
        sliced = self.part("slices", self._slices, slices.Sliced(()))
        self.notes += sliced.notes
        return {
            "task": scored.task.value,
            "metrics": metrics,
            "champion_metrics": {each.metric: each.value for each in champion},
            "figures": figures,
            "champion_figures": champion,
            "comparisons": self._comparisons(),
            "calibration": self.part("calibration", self._calibration, None),
            "threshold": self.part("threshold", self._threshold, None),
            "slices": sliced.slices,
            "fairness": self.part("fairness", self._fairness, ()),
            "importances": self._importances(headline),
            "robustness": self.part("robustness", lambda: self._robustness(headline), ()),
            "skew": self.part("skew", self._skew, ()),
            "learning_curve": self.part("learning curve", lambda: self._learning_curve(headline), ()),
        }

    def part(self, name: str, measure: Callable[[], T], otherwise: T) -> T:
        """What ``measure`` gives, or ``otherwise`` with a note.

        :raises XOpsError: a retryable one, or one that an argument or a missing extra caused.
        :raises MemoryError: or OSError, as they come.
        """
        try:
            return measure()
        except (MemoryError, OSError):
            raise  # no memory, no space, no connection: another attempt may have it
        except XOpsError as error:
            if error.retryable or isinstance(error, ArgumentError):
                raise
            reason = f"{error.what} [{error.code}]"
        except Exception as error:
            # The text of a foreign error may hold values of rows: its type is all that is told.
            reason = f"it raised a {type(error).__name__}"
            log.warning("The %s raised a %s.", name, type(error).__name__)
        self.notes.append(f"{name}: not measured: {reason}")
        return otherwise

    @property
    def _resampling(self) -> dict[str, Any]:
        return {
            "confidence": self.plan.confidence,
            "resamples": self.plan.resamples,
            "seed": self.plan.seed,
        }

    def _metrics(self) -> tuple[str, ...] | None:
        """Those of the plan that are about this task; a gate on another one has no data."""
        if self.plan.metrics is None:
            return None
        return tuple(name for name in self.plan.metrics if METRICS[name].task is self.scored.task)

    def _tests(self) -> tuple[MetricTest, ...]:
        return tuple(test for test in self.plan.tests if METRICS[test.metric].task is self.scored.task)

    def _figures(self, contender: Contender) -> tuple[MetricFigure, ...]:
        scored = self.scored
        measured = intervals(
            scored.task, scored.truth, contender.said, metrics=self._metrics(), clusters=scored.clusters,
            **self._resampling,
        )  # fmt: skip
        if self.plan.ranking is not None:
            measured = {**measured, **self._ranked(contender)}
        return tuple(measured.values())

    def _ranked(self, contender: Contender) -> dict[str, MetricFigure]:
        plan, scored = self.plan.ranking, self.scored
        assert plan is not None
        return self.part(
            "ranking",
            lambda: ranking.measure(scored.table, scored.truth, contender.said, plan, **self._resampling),
            {},
        )

    def _comparisons(self) -> tuple[Comparison, ...]:
        scored, plan = self.scored, self.plan
        if scored.champion is None:
            return ()
        compared = compare(
            scored.task, scored.truth, scored.challenger.said, scored.champion.said, tests=self._tests(),
            metrics=self._metrics(), correction=plan.correction, candidates=plan.candidates,
            clusters=scored.clusters, **self._resampling,
        )  # fmt: skip
        none: tuple[Comparison, ...] = ()
        return (*compared, *self.part("ranking against the champion", self._ranked_against, none))

    def _ranked_against(self) -> tuple[Comparison, ...]:
        plan, scored = self.plan.ranking, self.scored
        if plan is None or scored.champion is None:
            return ()
        return ranking.compare(
            scored.table, scored.truth, scored.challenger.said, scored.champion.said, plan, **self._resampling
        )

    def _calibration(self) -> Any:
        scored = self.scored
        if scored.task is not Task.CLASSIFICATION:
            return None
        found = calibration(
            scored.task, scored.truth, scored.challenger.said, bins=self.plan.calibration_bins,
            clusters=scored.clusters, **self._resampling,
        )  # fmt: skip
        if found is None:
            self.notes.append("calibration: not measured: it needs probabilities of two classes")
        return found

    def _threshold(self) -> Any:
        scored, costs = self.scored, self.plan.costs
        if costs is None:
            return None
        found = choose_threshold(
            scored.task, scored.truth, scored.challenger.said, costs, clusters=scored.clusters,
            **self._resampling,
        )  # fmt: skip
        if found is None:
            self.notes.append("threshold: not chosen: it needs probabilities of two classes")
        return found

    def _slices(self) -> slices.Sliced:
        return slices.measure(
            self.scored, self.plan.slices, correction=self.plan.correction, **self._resampling
        )

    def _fairness(self) -> Any:
        plan = self.plan.fairness
        return () if plan is None else fairness.measure(self.scored, plan, **self._resampling)

    def _importances(self, headline: str) -> Any:
        plan, scored, seed = self.plan.explanation, self.scored, self.plan.seed
        none: tuple[FeatureImportance, ...] = ()
        permuted = self.part(
            "permutation importance",
            lambda: explanation.permutation(
                scored, plan, metric=headline, seed=seed, confidence=self.plan.confidence
            ),
            none,
        )
        return (*permuted, *self.part("SHAP values", self._shap, none)) if plan.shap else permuted

    def _shap(self) -> Any:
        plan, model, seed = self.plan.explanation, self.scored.challenger.model, self.plan.seed
        if model.training is None:
            self.notes.append(
                "SHAP values: not measured: the rows that the model was trained on are not known"
            )
            return ()
        background = explanation.background_of(self.lake, model, rows=plan.background, seed=seed)
        return explanation.shap_values(
            self.scored, background, plan, seed=seed, confidence=self.plan.confidence
        )

    def _robustness(self, headline: str) -> Any:
        plan = self.plan.robustness
        if plan is None:
            return ()
        return robustness.curves(
            self.scored, plan, metric=headline, seed=self.plan.seed, confidence=self.plan.confidence
        )

    def _skew(self) -> Any:
        plan = self.plan.skew
        return () if plan is None else skew.measure(self.lake, self.scored.challenger.model, plan)

    def _learning_curve(self, headline: str) -> Any:
        plan = self.plan.learning_curve
        if plan is None:
            return ()
        return learning_curve.measure(self.lake, self.scored, plan, metric=headline, **self._resampling)
