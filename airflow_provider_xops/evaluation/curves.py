"""The numbers behind the plots, from scored rows: on fixed grids and in bins, so that no row can be read.

For the evaluation report, which also writes them as JSON.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from airflow_provider_xops.evaluation.scored import Scored
from airflow_provider_xops.training.metrics import Predictions, Task

__all__ = [
    "Confusion",
    "Curves",
    "Histogram",
    "ResidualBin",
    "confusion",
    "curves_of",
    "precision_recall_points",
    "residual_bins",
    "roc_points",
]

GRID_POINTS = 101
SCORE_BINS, RESIDUAL_BINS, PREDICTED_BINS = 20, 40, 20
# At least, where quartiles or a scale follow from the rows: fewer would come close to single rows.
ROWS_A_BIN = 20
CLASSES_SHOWN = 12
OTHER = "other classes"

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often a class was said of a class: ``counts[true][said]``, in the order of ``classes``."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts in bins; one more edge than bins. Outer bins hold what lies beyond them too."""

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class ResidualBin:
    """Rows with similar predictions: their truth minus prediction, at the mean and the quartiles."""

    predicted: float
    rows: int
    mean: float
    lower_quartile: float
    upper_quartile: float


@dataclass(frozen=True, kw_only=True)
class Curves:
    """All that the plots of scored rows need; what the task or the model does not have is empty.

    :param roc: by contender (of two classes) or by class (of more, each against all others): false positive
        rate and true positive rate. :param precision_recall: by contender: recall and precision.
    :param positive: the positive class, of two; ``base_rate`` its share of the rows.
    :param scores: probabilities of the positive class, counted by the true class.
    """

    roc: dict[str, Points]
    precision_recall: dict[str, Points]
    base_rate: float | None
    confusion: Confusion | None
    scores: Histogram | None
    residuals: Histogram | None
    residual_bins: tuple[ResidualBin, ...]
    positive: str | None = None


def curves_of(scored: Scored) -> Curves:
    """The numbers of the plots of an evaluation."""
    said = scored.challenger.said
    if scored.task is Task.REGRESSION:
        truth, predicted = _both_finite(scored.truth, said.labels)
        return Curves(
            roc={}, precision_recall={}, base_rate=None, confusion=None, scores=None,
            residuals=_residual_histogram(truth - predicted), residual_bins=residual_bins(truth, predicted),
        )  # fmt: skip
    binary = said.scores is not None
    contenders = {"challenger": scored.challenger.said}
    if scored.champion is not None:
        contenders["champion"] = scored.champion.said
    roc: dict[str, Points] = {}
    recall: dict[str, Points] = {}
    base_rate, scores, positive = None, None, None
    if binary:
        positive = said.classes[1]
        events = np.asarray(scored.truth == positive, dtype=bool)
        base_rate = float(events.mean()) if len(events) else None
        scores = _score_histogram(events, said.scores, names=[_name(each) for each in said.classes])
        for name, one in contenders.items():
            if one.scores is not None and _name(one.classes[1]) == _name(positive):
                roc[name] = roc_points(events, one.scores)
                recall[name] = precision_recall_points(events, one.scores)
    elif said.probabilities is not None and said.classes is not None:
        roc = _one_against_all(scored.truth, said)
    return Curves(
        roc={name: points for name, points in roc.items() if points},
        precision_recall={name: points for name, points in recall.items() if points},
        base_rate=base_rate, confusion=confusion(scored.truth, said.labels), scores=scores, residuals=None,
        residual_bins=(), positive=_name(positive) if binary else None,
    )  # fmt: skip


def roc_points(events: Any, scores: Any) -> Points:
    """The ROC curve on a grid of false positive rates from 0 to 1; empty where a class is missing.

    Between two thresholds it runs straight, as scikit-learn's area under it assumes.

    :param events: whether the positive class came, of each row. :param scores: its probability, or a score.
    """
    true, false, positives, negatives = _cumulated(events, scores)
    if not positives or not negatives:
        return ()
    rate_false = np.concatenate([[0.0], false / negatives])
    rate_true = np.concatenate([[0.0], true / positives])
    grid = np.linspace(0.0, 1.0, GRID_POINTS)
    # Where the curve goes straight up, the grid takes the upper end.
    before = np.searchsorted(rate_false, grid, side="right") - 1
    after = np.minimum(before + 1, len(rate_false) - 1)
    step = np.where(after > before, rate_false[after] - rate_false[before], 1.0)
    drawn = rate_true[before] + (grid - rate_false[before]) / step * (rate_true[after] - rate_true[before])
    return tuple((float(x), float(y)) for x, y in zip(grid, drawn, strict=True))


def precision_recall_points(events: Any, scores: Any) -> Points:
    """Precision at the first threshold that reaches each recall of a grid from 0.01 to 1.

    It is not interpolated: a straight line between two thresholds would promise what no threshold gives.
    """
    true, false, positives, _ = _cumulated(events, scores)
    if not positives:
        return ()
    recall, precision = true / positives, true / (true + false)
    grid = np.linspace(0.0, 1.0, GRID_POINTS)[1:]
    place = np.searchsorted(recall, grid - 1e-12)
    return tuple((float(x), float(precision[at])) for x, at in zip(grid, place, strict=True))


def confusion(truth: Any, said: Any) -> Confusion | None:
    """Counts of true and predicted classes; of many classes the most frequent, the others together."""
    if not len(truth):
        return None
    (true, told), classes = _coded(truth, said)
    if len(classes) > CLASSES_SHOWN:
        frequency = np.bincount(true, minlength=len(classes)) + np.bincount(told, minlength=len(classes))
        kept = np.sort(np.argsort(-frequency, kind="stable")[: CLASSES_SHOWN - 1])
        place = np.full(len(classes), len(kept))
        place[kept] = np.arange(len(kept))
        true, told = place[true], place[told]
        classes = [*(classes[at] for at in kept), OTHER]
    size = len(classes)
    counts = np.bincount(true * size + told, minlength=size * size).reshape(size, size)
    return Confusion(classes=tuple(classes), counts=tuple(tuple(row) for row in counts.tolist()))


def residual_bins(truth: Any, predicted: Any) -> tuple[ResidualBin, ...]:
    """Truth minus prediction by the size of the prediction, in bins of equally many rows (20 or more)."""
    bins = min(PREDICTED_BINS, len(truth) // ROWS_A_BIN)
    if not bins:
        return ()
    order = np.argsort(predicted, kind="stable")
    residual = np.asarray(truth - predicted, dtype=float)
    found = []
    for rows in np.array_split(order, bins):
        inside = residual[rows]
        low, high = np.quantile(inside, [0.25, 0.75])
        found.append(
            ResidualBin(
                predicted=float(np.mean(predicted[rows])), rows=len(rows), mean=float(inside.mean()),
                lower_quartile=float(low), upper_quartile=float(high),
            )
        )  # fmt: skip
    return tuple(found)


def _one_against_all(truth: Any, said: Predictions) -> dict[str, Points]:
    (actual, places), names = _coded(truth, np.asarray(said.classes))
    frequency = np.bincount(actual, minlength=len(names))
    # More lines than this cannot be told apart.
    frequent = sorted(range(len(places)), key=lambda at: (-frequency[places[at]], at))[:6]
    return {
        names[places[at]]: roc_points(actual == places[at], said.probabilities[:, at])
        for at in sorted(frequent)
    }


def _coded(*several: Any) -> tuple[list[Any], list[str]]:
    """Each value as the place of its class in one list of names, which is sorted."""
    from pandas import factorize

    coded = [factorize(np.asarray(values), use_na_sentinel=False) for values in several]
    names = sorted({_name(value) for _, found in coded for value in found}, key=_natural)
    place = {name: at for at, name in enumerate(names)}
    return [
        np.array([place[_name(one)] for one in found], dtype=np.int64)[codes] for codes, found in coded
    ], names


def _name(value: Any) -> str:
    """A class as text: 1, 1.0 and True are one class."""
    whole = isinstance(value, bool | np.bool_ | float | np.floating) and float(value).is_integer()
    return str(int(value) if whole else value)


def _natural(name: str) -> tuple[float, str]:
    """Numbers in their order, before texts."""
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name


def _cumulated(events: Any, scores: Any) -> tuple[Any, Any, int, int]:
    """Events and non-events at or above each threshold, from the highest; then how many there are."""
    events, scores = np.asarray(events, dtype=bool), np.asarray(scores, dtype=float)
    usable = np.isfinite(scores)
    events, scores = events[usable], scores[usable]
    order = np.argsort(-scores, kind="stable")
    ranked, hit = scores[order], events[order]
    ends = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    true, false = np.cumsum(hit)[ends], np.cumsum(~hit)[ends]
    return true, false, int(events.sum()), int((~events).sum())


def _score_histogram(events: Any, scores: Any, *, names: list[str]) -> Histogram | None:
    if not len(events):
        return None
    edges = np.linspace(0.0, 1.0, SCORE_BINS + 1)
    return Histogram(
        edges=tuple(float(edge) for edge in edges),
        counts={
            name: tuple(int(count) for count in np.histogram(scores[chosen], edges)[0])
            for name, chosen in zip(names, (~events, events), strict=True)
        },
    )


def _residual_histogram(residual: Any) -> Histogram | None:
    if len(residual) < ROWS_A_BIN:
        return None
    # The largest residual alone must not squeeze all others into one bar, and the edges are round numbers: a
    # quantile as it is would be the residual of a row.
    low, high = np.quantile(residual, [0.01, 0.99])
    width = _round_width((high - low) / RESIDUAL_BINS or abs(high) / RESIDUAL_BINS or 1.0)
    first, last = math.floor(low / width), math.ceil(high / width)
    edges = width * np.arange(first, max(last, first + 1) + 1)
    counts, _ = np.histogram(np.clip(residual, edges[0], edges[-1]), edges)
    return Histogram(
        edges=tuple(float(edge) for edge in edges), counts={"rows": tuple(int(count) for count in counts)}
    )


def _round_width(at_least: float) -> float:
    """The next number of 1, 2, 5, 10 times a power of ten.

    >>> _round_width(0.031), _round_width(7.0)
    (0.05, 10.0)
    """
    power = 10.0 ** math.floor(math.log10(at_least))
    return float(next((power * factor for factor in (1, 2, 5) if power * factor >= at_least), power * 10))


def _both_finite(truth: Any, predicted: Any) -> tuple[Any, Any]:
    truth, predicted = np.asarray(truth, dtype=float), np.asarray(predicted, dtype=float)
    usable = np.isfinite(truth) & np.isfinite(predicted)
    return truth[usable], predicted[usable]
