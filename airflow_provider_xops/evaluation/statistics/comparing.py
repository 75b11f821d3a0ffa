"""Challenger against champion, row by row: differences with their intervals, and tests of statements.

For evaluation, the gates and slices. Both models answered for the same rows, so what they have in common
cancels out: a difference is known much better than either figure. ``accuracy`` is tested by McNemar and
Tango, ``roc_auc`` by DeLong, everything else (and everything with clusters) by a paired bootstrap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.plan import MetricTest
from airflow_provider_xops.evaluation.statistics import delong, mcnemar
from airflow_provider_xops.evaluation.statistics._kernels import Kernels
from airflow_provider_xops.evaluation.statistics._resampling import (
    Resampled,
    Units,
    p_value,
    resample,
)
from airflow_provider_xops.evaluation.statistics._support import Support
from airflow_provider_xops.evaluation.statistics.confidence import bounds_of, check_arguments
from airflow_provider_xops.evaluation.statistics.corrections import adjust
from airflow_provider_xops.records import Comparison
from airflow_provider_xops.training.metrics import METRICS, Predictions, Task, compute

__all__ = ["compare", "correct", "paired_difference"]


def compare(
    task: Task, truth: Any, challenger: Predictions, champion: Predictions, *,
    tests: Sequence[MetricTest] = (), metrics: Sequence[str] | None = None, confidence: float = 0.95,
    resamples: int = 2_000, seed: int = 0, correction: str = "holm", candidates: int = 1,
    clusters: Any = None,
) -> tuple[Comparison, ...]:  # fmt: skip
    """The difference of every metric with its interval, and each statement tested.

    :param truth: the true target of each row; both models' answers are in the same order.
    :param tests: statements, each one-sided in the direction in which its metric gets better.
    :param metrics: which differences are given besides those tested; None: all of the task.
    :param confidence: of the (two-sided, uncorrected) intervals; a statement is significant when its
        corrected p-value is at most 1 - ``confidence``.
    :param correction: for the number of tests, see
        :func:`~airflow_provider_xops.evaluation.statistics.corrections.adjust`.
    :param candidates: how many challengers this one is chosen from: every p-value is multiplied by it first,
        because the best of many looks good by chance.
    :param clusters: for each row what it belongs to; see
        :func:`~airflow_provider_xops.evaluation.statistics.confidence.intervals`.
    :returns: for each metric one comparison without a test, or one for each of its tests. Where something is
        not defined (a metric, an interval, a test) it is None and nothing is significant.
    :raises ArgumentError: ``argument.statistics``, ``argument.correction``.

    Two models that say the same about every row have the difference 0 with the interval 0 to 0; a
    non-inferiority statement about them has Tango's p-value for ``accuracy``, (1 - margin) ** n for the other
    metrics between 0 and 1, where n counts the rows (or clusters) of the rarest class for those that look at
    classes, and at least 1 / (n + 1) for all: so many rows cannot prove more.

    >>> compare(Task.CLASSIFICATION, truth, new, old, tests=[MetricTest(metric="roc_auc")])  # doctest: +SKIP

    What it does not do: it does not say whether a difference is large enough to matter; a margin does.
    """
    check_arguments(truth, (challenger, champion), confidence, resamples, clusters)
    truth = np.asarray(truth)
    if candidates < 1:
        raise ArgumentError(f"{candidates} candidates", code="argument.statistics", todo="give 1 or more")
    tested = {test.metric for test in tests}
    wanted = [
        name for name, metric in METRICS.items()
        if name in tested or (metric.task is task and (metrics is None or name in metrics))
    ]  # fmt: skip
    pairs = _Pairs.of(task, truth, challenger, champion, wanted, confidence, resamples, seed, clusters)
    compared: list[Comparison] = []
    for name in wanted:
        statements = [test for test in tests if test.metric == name]
        plain = pairs.difference(name)
        compared += [pairs.tested(plain, test) for test in statements] or [plain]
    return correct(compared, correction, candidates)


def paired_difference(
    task: Task, truth: Any, challenger: Predictions, champion: Predictions, *, metric: str,
    rows: Any = None, hypothesis: Literal["superiority", "non_inferiority"] = "superiority",
    margin: float = 0.0, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0,
    clusters: Any = None,
) -> Comparison:  # fmt: skip
    """One metric's difference on some of the rows, with its interval and p-value; for slices.

    :param rows: a mask or row numbers; None: all.
    :param hypothesis: what is tested, one-sided; swap the two models to test that the challenger is worse.
    :returns: the p-value is not corrected; the caller knows how many there are.
    """
    if rows is not None:
        chosen = np.asarray(rows)
        truth = np.asarray(truth)[chosen]
        challenger, champion = _some(challenger, chosen), _some(champion, chosen)
        clusters = None if clusters is None else np.asarray(clusters)[chosen]
    test = MetricTest(metric=metric, hypothesis=hypothesis, margin=margin)
    (compared,) = compare(
        task, truth, challenger, champion, tests=[test], metrics=[metric], confidence=confidence,
        resamples=resamples, seed=seed, correction="none", clusters=clusters,
    )  # fmt: skip
    return compared


def correct(compared: Sequence[Comparison], correction: str, candidates: int = 1) -> tuple[Comparison, ...]:
    """The same comparisons with their p-values corrected for how many there are, and for candidates."""
    p_values = np.array([math.nan if each.p_value is None else each.p_value for each in compared])
    adjusted = adjust(np.minimum(1.0, p_values * candidates), correction)
    count = int((~np.isnan(p_values)).sum()) * candidates
    return tuple(
        each
        if each.p_value is None or each.confidence is None
        else dataclasses.replace(
            each, adjusted_p_value=float(value), correction=correction, comparisons=count,
            significant=bool(value <= 1 - each.confidence + 1e-12),
        )
        for each, value in zip(compared, adjusted, strict=True)
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """Both models on the same rows, with everything that differences and tests are made from."""

    confidence: float
    rows: int
    clustered: bool
    values: tuple[dict[str, float | None], dict[str, float | None]]
    areas: delong.AreaCovariance | None
    discordant: tuple[int, int] | None
    resampled: dict[str, Resampled]
    support: Support

    @classmethod
    def of(
        cls, task: Task, truth: Any, challenger: Predictions, champion: Predictions, wanted: Sequence[str],
        confidence: float, resamples: int, seed: int, clusters: Any,
    ) -> _Pairs:  # fmt: skip
        units = Units.of(len(truth), clusters, seed)
        support = Support(truth, clusters, units)
        both = (challenger, champion)
        values = tuple(compute(task, truth, said, wanted) for said in both)
        kernels = [Kernels(truth, said) for said in both]
        usable = [
            name for name in wanted
            if all(each.get(name) is not None for each in values) and support.enough(name)
        ]  # fmt: skip
        areas = discordant = None
        if clusters is None and "roc_auc" in usable:
            areas = _areas(kernels)
        if clusters is None and "accuracy" in usable:
            right = [np.asarray(said.labels == truth, dtype=bool) for said in both]
            discordant = (int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
        special_ones = {"roc_auc": areas, "accuracy": discordant}
        jobs = {
            name: [each.of(name) for each in kernels] for name in usable if special_ones.get(name) is None
        }
        return cls(
            confidence=confidence, rows=len(truth), clustered=clusters is not None,
            values=(values[0], values[1]), areas=areas, discordant=discordant,
            resampled=resample(jobs, units, resamples=resamples, seed=seed), support=support,
        )  # fmt: skip

    def difference(self, name: str) -> Comparison:
        """The difference with its interval."""
        mine, theirs = (values.get(name) for values in self.values)
        known = mine is not None and theirs is not None
        ahead = mine - theirs if mine is not None and theirs is not None else None
        bounds = self._bounds(name, ahead) if ahead is not None else None
        return Comparison(
            metric=name, greater_is_better=METRICS[name].greater_is_better, challenger=mine, champion=theirs,
            difference=ahead, lower=bounds[0] if bounds else None, upper=bounds[1] if bounds else None,
            confidence=self.confidence if known and bounds else None,
        )  # fmt: skip

    def tested(self, plain: Comparison, test: MetricTest) -> Comparison:
        """The difference with the answer to one statement."""
        bar = test.margin if test.hypothesis == "superiority" else -test.margin
        named, p = self._p_value(plain, bar)
        return dataclasses.replace(
            plain, hypothesis=test.hypothesis, margin=test.margin, test=named, p_value=p,
            confidence=self.confidence,
        )  # fmt: skip

    def _bounds(self, name: str, ahead: float) -> tuple[float, float] | None:
        if name == "roc_auc" and self.areas is not None:
            _, error, degrees = delong.difference(self.areas)
            if error == 0:
                return ahead, ahead
            half = delong.quantile((1 + self.confidence) / 2, degrees) * error
            return None if math.isnan(half) else (max(-1.0, ahead - half), min(1.0, ahead + half))
        if name == "accuracy" and self.discordant is not None:
            return mcnemar.score_interval(*self.discordant, self.rows, self.confidence)
        resampled = self.resampled.get(name)
        if resampled is None:
            return None
        if resampled.usable and resampled.constant and ahead == 0:
            return 0.0, 0.0
        found = bounds_of(ahead, resampled, self.confidence)
        return None if found is None else found[:2]

    def _p_value(self, plain: Comparison, bar: float) -> tuple[str, float | None]:
        """How it was tested, and the p-value that the challenger is ahead by no more than ``bar``."""
        if plain.difference is None:
            return "", None
        sign = 1.0 if plain.greater_is_better else -1.0
        ahead = sign * plain.difference
        if plain.metric == "roc_auc" and self.areas is not None:
            _, error, degrees = delong.difference(self.areas)
            if math.isnan(error):
                return "", None
            if error == 0:
                # The two rank alike: nothing can be estimated, and so many rows cannot say more than this.
                least = self.support.least_p("roc_auc", bar, constant=True)
                return "delong", max(least, 1 / (self.support.of("roc_auc") + 1)) if ahead > bar else 1.0
            return "delong", delong.below(-(ahead - bar) / error, degrees)
        if plain.metric == "accuracy" and self.discordant is not None:
            if bar == 0:
                return "mcnemar_mid_p", mcnemar.mid_p(*self.discordant)
            return "tango_score", mcnemar.score_p(*self.discordant, self.rows, bar)
        resampled = self.resampled.get(plain.metric)
        if resampled is None or not resampled.usable:
            return "", None
        name = "cluster_bootstrap" if self.clustered else "paired_bootstrap"
        turned = dataclasses.replace(
            resampled, drawn=sign * resampled.drawn, without=sign * resampled.without
        )
        count = self.support.of(plain.metric)
        p = p_value(ahead, bar, turned, count)
        least = self.support.least_p(plain.metric, bar, constant=resampled.constant)
        # What is shown to be better is not worse: that needs no more evidence.
        return name, max(p, min(least, p_value(ahead, 0.0, turned, count)))


def _areas(kernels: Sequence[Kernels]) -> delong.AreaCovariance | None:
    # Models that mean different classes by "positive" have no common areas.
    if (kernels[0].positive != kernels[1].positive).any():
        return None
    return delong.covariance(kernels[0].positive, [each.said.scores for each in kernels])


def _some(said: Predictions, rows: Any) -> Predictions:
    probabilities = None if said.probabilities is None else np.asarray(said.probabilities)[rows]
    return Predictions(
        labels=np.asarray(said.labels)[rows], classes=said.classes, probabilities=probabilities
    )
