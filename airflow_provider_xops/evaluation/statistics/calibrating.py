"""Whether predicted probabilities mean what they say: of the rows told 30 %, did 30 % happen?

For evaluation, the calibration gate and the report. Sources: Guo and others (2017) for the expected
calibration error; Spiegelhalter (1986) for the test; Cox (1958) for the recalibration line.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse, special

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.statistics._resampling import Units, resample
from airflow_provider_xops.evaluation.statistics._sums import Floats, Kernel, Part, Sums
from airflow_provider_xops.evaluation.statistics.confidence import bounds_of, check_arguments, wilson
from airflow_provider_xops.records import Calibration, CalibrationBin
from airflow_provider_xops.training.metrics import Predictions, Task

__all__ = ["calibration"]

LINE_LIMIT = 1e-6  # probabilities nearer to 0 or 1 count as this in the line, where a logit would be infinite


def calibration(
    task: Task, truth: Any, said: Predictions, *, bins: int = 10, confidence: float = 0.95,
    resamples: int = 2_000, seed: int = 0, clusters: Any = None,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> Calibration | None:  # fmt: skip
    """How the positive class's probabilities agree with how often it came; None where there are none.

    :param truth: the true class of each row; ``said`` the model's answers, in the same order.
    :param strategy: bins of equal width (``uniform``) or of equally many rows (``quantile``), the choice of
        ``sklearn.calibration.calibration_curve``.
    :param bins: how many, 1 or more.
    :param clusters: for each row what it belongs to, where rows that share one are not independent; then
        there is no ``p_value`` and bins have no interval, because Spiegelhalter's test and Wilson's interval
        need independent rows.
    :returns: the bins, each with Wilson's interval of what was observed; the expected calibration error (the
        mean gap weighted by rows) with a bootstrap interval; Spiegelhalter's two-sided test that every
        probability is true; and intercept and slope of the logistic regression of what came on the logit of
        what was said (a slope below 1: too sure).
    :raises ArgumentError: ``argument.statistics``.

    The calibration error is never 0 on real rows, even of perfect probabilities: noise makes gaps. Look at
    the p-value and the interval too.

    >>> calibration(Task.CLASSIFICATION, truth, said).expected_error  # doctest: +SKIP
    0.013

    What it does not do: more than two classes.
    """
    check_arguments(truth, (said,), confidence, resamples, clusters)
    if bins < 1:
        raise ArgumentError(f"{bins} bins", code="argument.statistics", todo="give 1 or more")
    truth = np.asarray(truth)
    scores = said.scores if task is Task.CLASSIFICATION else None
    if scores is None or not len(truth) or not set(np.unique(truth)) <= set(said.classes):
        return None
    chance = np.asarray(scores, dtype=np.float64)
    if not ((chance >= 0) & (chance <= 1)).all():
        return None
    came = np.asarray(truth == said.classes[1], dtype=np.float64)
    edges = _edges(chance, bins, strategy)
    place = np.searchsorted(edges[1:-1], chance)
    figures = _bins(chance, came, edges, place, confidence if clusters is None else None)
    error, maximum, bounds = _errors(
        chance, came, place, len(figures), Units.of(len(truth), clusters, seed),
        confidence=confidence, resamples=resamples, seed=seed,
    )  # fmt: skip
    line = _line(chance, came)
    p = _spiegelhalter(chance, came) if clusters is None else None
    return Calibration(
        bins=figures, expected_error=error, expected_error_lower=bounds[0], expected_error_upper=bounds[1],
        maximum_error=maximum, intercept=line[0], slope=line[1], p_value=p,
        test="spiegelhalter" if p is not None else "",
    )  # fmt: skip


def _edges(chance: Floats, bins: int, strategy: str) -> Floats:
    if strategy == "uniform":
        return np.linspace(0.0, 1.0, bins + 1)
    edges = np.unique(np.quantile(chance, np.linspace(0, 1, bins + 1)))
    return edges if len(edges) > 1 else np.array([edges[0], edges[0]])


def _bins(
    chance: Floats, came: Floats, edges: Floats, place: npt.NDArray[np.intp], confidence: float | None
) -> tuple[CalibrationBin, ...]:
    count = len(edges) - 1
    rows = np.bincount(place, minlength=count)
    told = np.bincount(place, weights=chance, minlength=count)
    happened = np.bincount(place, weights=came, minlength=count)
    figures = []
    for at in range(count):
        empty = CalibrationBin(
            lower=float(edges[at]), upper=float(edges[at + 1]), rows=int(rows[at]), predicted=None,
            observed=None,
        )  # fmt: skip
        if rows[at]:
            low, high = (
                (None, None)
                if confidence is None
                else wilson(float(happened[at]), float(rows[at]), confidence)
            )
            empty = dataclasses.replace(
                empty, predicted=float(told[at] / rows[at]), observed=float(happened[at] / rows[at]),
                observed_lower=low, observed_upper=high,
            )  # fmt: skip
        figures.append(empty)
    return tuple(figures)


def _errors(
    chance: Floats, came: Floats, place: npt.NDArray[np.intp], bins: int, units: Units, *, confidence: float,
    resamples: int, seed: int,
) -> tuple[float, float, tuple[float | None, float | None]]:  # fmt: skip
    """Expected and largest calibration error, and the interval of the first."""
    rows = np.arange(len(chance))
    # Each row adds its gap to its bin, and itself to the count.
    added = sparse.csr_array(
        (
            np.concatenate([chance - came, np.ones(len(chance))]),
            (np.concatenate([rows, rows]), np.concatenate([place, np.full(len(chance), bins)])),
        ),
        shape=(len(chance), bins + 1),
    )

    def value(lines: Floats) -> Floats:
        return np.asarray(np.abs(lines[:, :-1]).sum(axis=1) / lines[:, -1])

    kernel = Kernel((Part(Sums(added=added), value),))
    total = kernel.parts[0].sums.total()
    expected = float(value(total[None])[0])
    count = np.bincount(place, minlength=bins)
    maximum = float((np.abs(total[:-1][count > 0]) / count[count > 0]).max())
    if not units.enough:
        return expected, maximum, (None, None)
    drawn = resample({"error": (kernel,)}, units, resamples=resamples, seed=seed)["error"]
    bounds = bounds_of(expected, drawn, confidence)
    return expected, maximum, (None, None) if bounds is None else bounds[:2]


def _spiegelhalter(chance: Floats, came: Floats) -> float | None:
    """Two-sided; None where the probabilities leave nothing to chance."""
    variance = float(((1 - 2 * chance) ** 2 * chance * (1 - chance)).sum())
    if variance <= 0:
        return None
    z = float(((came - chance) * (1 - 2 * chance)).sum()) / math.sqrt(variance)
    return float(2 * special.ndtr(-abs(z)))


def _line(chance: Floats, came: Floats) -> tuple[float | None, float | None]:
    """Intercept and slope by Newton's method; None where no line is the most likely one."""
    clipped = np.clip(chance, LINE_LIMIT, 1 - LINE_LIMIT)
    design = np.column_stack([np.ones(len(clipped)), special.logit(clipped)])
    if came.min() == came.max() or np.ptp(design[:, 1]) == 0:
        return None, None
    weights = np.array([0.0, 1.0])
    for _ in range(50):
        expected = special.expit(design @ weights)
        information = design.T @ (design * (expected * (1 - expected))[:, None])
        try:
            step = np.linalg.solve(information, design.T @ (came - expected))
        except np.linalg.LinAlgError:
            return None, None
        # Far from the solution a whole step may overshoot.
        weights = weights + step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
        if float(np.abs(step).max()) < 1e-10:
            return float(weights[0]), float(weights[1])
    return None, None
