"""The kernel of every metric: what it sums over the rows, and what it makes of the sums.

Each gives on all rows what :func:`airflow_provider_xops.training.metrics.compute` gives; a test holds them
together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from airflow_provider_xops.evaluation.statistics._scores import ScoreBins
from airflow_provider_xops.evaluation.statistics._sums import Floats, Kernel, Part, Sums
from airflow_provider_xops.training.metrics import Predictions

__all__ = ["Kernels", "mean_of"]

MEDIAN_BINS = 2_048


class Kernels:
    """The kernels of one model's predictions; what several metrics need is made once.

    Only for metrics that are defined on all rows.
    """

    def __init__(self, truth: Any, said: Predictions) -> None:
        self.truth, self.said = np.asarray(truth), said

    def of(self, metric: str) -> Kernel:
        """The kernel of a metric."""
        if metric in _CONFUSION:
            value, share = _CONFUSION[metric](self)
            return Kernel((Part(self._confusion, value),), share=share)
        if metric in ("roc_auc", "average_precision"):
            bins = self._binary_bins
            return Kernel((Part(bins.sums, bins.part(metric)),))
        if metric == "roc_auc_ovr":
            return Kernel(tuple(Part(bins.sums, bins.roc_auc) for bins in self._bins_by_class))
        if metric == "median_absolute_error":
            return self._median
        return _OF_ROWS[metric](self)

    @cached_property
    def positive(self) -> npt.NDArray[np.bool_]:
        """Which rows are of the positive class of two."""
        return np.asarray(self.truth == self.said.classes[1], dtype=bool)

    @cached_property
    def errors(self) -> Floats:
        """Predicted minus true numbers."""
        return np.asarray(np.asarray(self.said.labels, dtype=np.float64) - self.truth)

    @cached_property
    def label_codes(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Any]:
        """True and predicted class of each row as numbers, and the classes that occur in either."""
        true, said = self.truth, np.asarray(self.said.labels)
        if "U" in (true.dtype.kind, said.dtype.kind) and true.dtype != said.dtype:
            # NumPy would turn numbers into text to hold both.
            true, said = true.astype(object), said.astype(object)
        both = np.concatenate([true, said])
        codes, classes = pd.factorize(both)
        return codes[: len(self.truth)], codes[len(self.truth) :], classes

    @cached_property
    def _confusion(self) -> Sums:
        """Of each class: rows that are right, rows that are of it, rows that are said to be of it."""
        true, said, classes = self.label_codes
        count = len(classes)
        cells, codes = np.unique(true * count + said, return_inverse=True)
        true_of, said_of = np.divmod(cells, count)
        cell = np.arange(len(cells))
        right = true_of == said_of
        columns = np.concatenate([true_of[right], count + true_of, 2 * count + said_of])
        added = sparse.csr_array(
            (np.ones(len(columns)), (np.concatenate([cell[right], cell, cell]), columns)),
            shape=(len(cells), 3 * count),
        )
        return Sums(codes=codes, added=added)

    @cached_property
    def positive_column(self) -> int | None:
        """Where the positive class of two stands among the classes; None for more than two, or for none."""
        known = self.said.classes if self.said.classes is not None else np.unique(self.truth)
        classes = self.label_codes[2]
        if len(known) != 2:
            return None
        at = np.flatnonzero(classes == known[1])
        return int(at[0]) if len(at) else None

    @cached_property
    def _binary_bins(self) -> ScoreBins:
        return ScoreBins.of(np.asarray(self.said.scores, dtype=np.float64), self.positive)

    @cached_property
    def _bins_by_class(self) -> tuple[ScoreBins, ...]:
        return tuple(
            ScoreBins.of(np.asarray(self.said.probabilities[:, k], dtype=np.float64), self.truth == label)
            for k, label in enumerate(self.said.classes)
        )

    @cached_property
    def _median(self) -> Kernel:
        sums, levels = _levels(np.abs(self.errors))
        return Kernel((Part(sums, lambda lines: _median_of(lines, levels)),), smooth=False)

    def log_loss_of_rows(self) -> Floats:
        """Minus the logarithm of the probability of what came, clipped as scikit-learn does."""
        probabilities = np.asarray(self.said.probabilities)
        eps = np.finfo(probabilities.dtype).eps if probabilities.dtype.kind == "f" else 1e-15
        column = pd.Index(self.said.classes).get_indexer(pd.Index(self.truth))
        chosen = probabilities[np.arange(len(self.truth)), column]
        return np.asarray(-np.log(np.clip(chosen, eps, 1 - eps)), dtype=np.float64)


def mean_of(values: Any, finish: Callable[[Floats], Floats] | None = None) -> Kernel:
    """The kernel of the rows' mean, or of a function of it."""
    sums = Sums(added=np.column_stack([np.asarray(values, dtype=np.float64), np.ones(len(values))]))

    def value(lines: Floats) -> Floats:
        mean = _ratio(lines[:, 0], lines[:, 1])
        return mean if finish is None else finish(mean)

    return Kernel((Part(sums, value),))


def _r2(of: Kernels) -> Kernel:
    centered = of.truth - of.truth.mean()
    columns = [of.errors**2, centered, centered**2, np.ones(len(centered))]

    def value(lines: Floats) -> Floats:
        residual, total, squares, rows = lines.T
        # Without the tolerance a resample of one value repeated would divide by what rounding leaves.
        spread = squares - _ratio(total**2, rows)
        spread = np.where(spread > 1e-12 * np.maximum(squares, 1e-300), spread, np.nan)
        return np.asarray(1 - residual / spread)

    return Kernel((Part(Sums(added=np.column_stack(columns)), value),))


_OF_ROWS: dict[str, Callable[[Kernels], Kernel]] = {
    "log_loss": lambda of: mean_of(of.log_loss_of_rows()),
    "brier": lambda of: mean_of((np.asarray(of.said.scores) - of.positive) ** 2),
    "mae": lambda of: mean_of(np.abs(of.errors)),
    "rmse": lambda of: mean_of(of.errors**2, np.sqrt),
    "mape": lambda of: mean_of(np.abs(of.errors / of.truth)),
    "r2": _r2,
}


Confusion = Callable[[Floats], Floats]
Share = Callable[[Floats], tuple[float, float]]


def _accuracy(of: Kernels) -> tuple[Confusion, Share | None]:
    def parts(lines: Floats) -> tuple[Floats, Floats]:
        right, true, _ = _split(lines)
        return right.sum(axis=1), true.sum(axis=1)

    return (lambda lines: _ratio(*parts(lines))), lambda total: _first(parts(total[None]))


def _balanced(of: Kernels) -> tuple[Confusion, Share | None]:
    def value(lines: Floats) -> Floats:
        right, true, _ = _split(lines)
        return _mean_of_defined(_ratio(right, true))

    return value, None


def _by_class(below: Callable[[Floats, Floats], Floats], factor: float, *, share: bool) -> Any:
    """Precision, recall and F1: of the positive class of two, else the mean over the classes."""

    def metric(of: Kernels) -> tuple[Confusion, Share | None]:
        binary = len(of.said.classes if of.said.classes is not None else np.unique(of.truth)) == 2
        column = of.positive_column

        def parts(lines: Floats) -> tuple[Floats, Floats]:
            right, true, said = _split(lines)
            return factor * right, below(true, said)

        def value(lines: Floats) -> Floats:
            each = _ratio(*parts(lines))
            if not binary:
                return _mean_of_defined(each)
            return each[:, column] if column is not None else np.full(len(lines), np.nan)

        def counts(total: Floats) -> tuple[float, float]:
            above, under = parts(total[None])
            return float(above[0, column]), float(under[0, column])  # type: ignore[index]

        return value, counts if share and binary and column is not None else None

    return metric


def _matthews(of: Kernels) -> tuple[Confusion, Share | None]:
    """Gorodkin (2004), which for two classes is Matthews' own."""

    def value(lines: Floats) -> Floats:
        right, true, said = _split(lines)
        rows = true.sum(axis=1)
        # Of shares, so that squares of millions of rows keep their digits.
        right, true, said = (part / rows[:, None] for part in (right, true, said))
        together = right.sum(axis=1) - (true * said).sum(axis=1)
        spread = (1 - (true**2).sum(axis=1)) * (1 - (said**2).sum(axis=1))
        return _ratio(together, np.sqrt(np.where(spread > 1e-15, spread, 0)))

    return value, None


_CONFUSION: dict[str, Callable[[Kernels], tuple[Confusion, Share | None]]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced,
    "precision": _by_class(lambda true, said: said, 1.0, share=True),
    "recall": _by_class(lambda true, said: true, 1.0, share=True),
    "f1": _by_class(lambda true, said: true + said, 2.0, share=False),
    "matthews_corrcoef": _matthews,
}


def _split(lines: Floats) -> tuple[Floats, Floats, Floats]:
    right, true, said = np.split(lines, 3, axis=1)
    return right, true, said


def _first(pair: tuple[Floats, Floats]) -> tuple[float, float]:
    return float(pair[0][0]), float(pair[1][0])


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0))


def _mean_of_defined(values: Floats) -> Floats:
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def _levels(values: Floats) -> tuple[Sums, Floats]:
    """Each row's place among the distinct values, finest around the median, where a median can fall."""
    distinct, level, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(distinct) > 2 * MEDIAN_BINS:
        rank = np.cumsum(counts)
        window = 4 * np.sqrt(len(values))  # eight standard errors of a median's rank on either side
        fine = np.floor(np.clip((rank - len(values) / 2) / window, -1, 1) * MEDIAN_BINS / 2)
        coarse = np.floor(rank / len(values) * MEDIAN_BINS)
        starts = np.flatnonzero((np.diff(fine, prepend=np.nan) != 0) | (np.diff(coarse, prepend=np.nan) != 0))
        bins = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(distinct)))
        level = bins[level]
        ends = np.append(starts[1:], len(distinct)) - 1
        distinct = distinct[(starts + ends) // 2]
    added = sparse.eye_array(len(distinct), format="csr")
    return Sums(codes=level.astype(np.intp), added=added), distinct


def _median_of(lines: Floats, levels: Floats) -> Floats:
    up_to = np.cumsum(lines, axis=1)
    rows = up_to[:, -1:]
    low = np.argmax(up_to > np.floor((rows - 1) / 2), axis=1)
    high = np.argmax(up_to > np.floor(rows / 2), axis=1)
    return np.asarray((levels[low] + levels[high]) / 2)
