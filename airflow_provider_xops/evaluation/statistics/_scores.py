"""Areas under curves as functions of counts in bins of the score.

Up to ``BINS`` distinct scores, every one is its own bin and the counts say everything. With more, neighbors
share a bin, each with at most about one ``BINS``-th of either class. Pairs from different bins are counted
exactly; those inside one bin keep the share in order that they have among all rows. What that loses is far
below a standard error; a test measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from airflow_provider_xops.evaluation.statistics._sums import Floats, Sums

__all__ = ["BINS", "ScoreBins"]

BINS = 2_048


@dataclass(frozen=True, eq=False)
class ScoreBins:
    """Counts of negatives and positives by score, lowest first.

    :param sums: of each row its place: negatives' bins first, then the positives'.
    :param inside: of the pairs inside each bin, the share in order (ties count half).
    :param precision_ratio: the mean precision at the positives of each bin, over that at the bin's end.
    """

    sums: Sums
    inside: Floats
    precision_ratio: Floats

    @classmethod
    def of(cls, scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> ScoreBins:
        """Bins of these scores; both classes must be there."""
        order = np.argsort(scores)
        ordered = scores[order]
        first = np.empty(len(ordered), dtype=bool)
        first[0] = True
        np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
        starts = np.flatnonzero(first)
        positives = np.add.reduceat(positive[order].astype(np.float64), starts)
        negatives = np.diff(starts, append=len(ordered)) - positives

        bin_of_level = _bins(negatives, positives)
        edges = np.flatnonzero(np.diff(bin_of_level, prepend=-1))
        bins = len(edges)
        bin_of_level = np.repeat(np.arange(bins), np.diff(edges, append=len(starts)))
        inside, ratio = _within(negatives, positives, edges, bin_of_level)

        codes = np.empty(len(scores), dtype=np.intp)
        codes[order] = np.repeat(bin_of_level, np.diff(starts, append=len(ordered)))
        codes += bins * positive
        return cls(
            sums=Sums(codes=codes, added=sparse.eye_array(2 * bins, format="csr")),
            inside=inside, precision_ratio=ratio,
        )  # fmt: skip

    def roc_auc(self, lines: Floats) -> Floats:
        """The share of pairs of a positive and a negative in which the positive scores higher."""
        negatives, positives = self._split(lines)
        below = np.cumsum(negatives, axis=1) - negatives
        in_order = np.einsum("ij,ij->i", positives, below + self.inside * negatives)
        return _divide(in_order, negatives.sum(axis=1) * positives.sum(axis=1))

    def average_precision(self, lines: Floats) -> Floats:
        """The mean over the positives of the precision at their score."""
        negatives, positives = self._split(lines)
        caught = np.cumsum(positives[:, ::-1], axis=1)[:, ::-1]
        flagged = caught + np.cumsum(negatives[:, ::-1], axis=1)[:, ::-1]
        precision = np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)
        # A bin's mean precision is close to that at its end, and never above 1.
        total = np.einsum("ij,ij->i", positives, np.minimum(precision * self.precision_ratio, 1.0))
        return _divide(total, positives.sum(axis=1))

    def part(self, metric: str) -> Callable[[Floats], Floats]:
        """The function of one of the two metrics."""
        return self.average_precision if metric == "average_precision" else self.roc_auc

    def _split(self, lines: Floats) -> tuple[Floats, Floats]:
        bins = len(self.inside)
        return lines[:, :bins], lines[:, bins:]


def _bins(negatives: Floats, positives: Floats) -> npt.NDArray[np.intp]:
    """The bin of each distinct score: so cut that none has much of the negatives or of the positives."""
    if len(negatives) <= BINS:
        return np.arange(len(negatives))
    mass = np.cumsum(negatives / negatives.sum() + positives / positives.sum()) / 2
    return np.minimum((mass - 1e-12) * BINS, BINS - 1).astype(np.intp)


def _within(
    negatives: Floats, positives: Floats, edges: npt.NDArray[np.intp], bin_of_level: npt.NDArray[np.intp]
) -> tuple[Floats, Floats]:
    below = np.cumsum(negatives) - negatives
    in_order = np.add.reduceat(positives * (below + negatives / 2), edges)
    bin_positives, bin_negatives = np.add.reduceat(positives, edges), np.add.reduceat(negatives, edges)
    pairs = bin_positives * bin_negatives
    inside = np.divide(
        in_order - bin_positives * below[edges], pairs, out=np.full(len(edges), 0.5), where=pairs > 0
    )
    caught = np.cumsum(positives[::-1])[::-1]
    precision = caught / (caught + np.cumsum(negatives[::-1])[::-1])
    reached = np.add.reduceat(positives * precision, edges)
    ratio = np.divide(reached, bin_positives * precision[edges], out=np.ones(len(edges)), where=reached > 0)
    return inside, ratio


def _divide(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0))
