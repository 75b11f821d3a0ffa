"""How far two samples of one column are apart.

Private to :mod:`airflow_provider_xops.evaluation.skew`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

__all__ = ["Distance", "of", "psi"]

MIN_VALUES = 50
BINS = 10
# Values of a category to be expected in the smaller sample, below which it is put with others.
MIN_EXPECTED = 20


@dataclass(frozen=True)
class Distance:
    """A statistic with its p-value; None, with the reason, where there are too few values."""

    statistic: float | None
    p_value: float | None = None
    message: str = ""


def of(kind: str, training: Any, scored: Any) -> dict[str, Distance]:
    """The distances that fit a column of this kind, by method."""
    here, there = _present(training), _present(scored)
    found = {
        "missing_rate": _missing(
            len(training) - len(here), len(training), len(scored) - len(there), len(scored)
        )
    }
    if kind == "time":
        return found
    if kind == "text":
        found["unseen_categories"] = _unseen(here, there)
    few = min(len(here), len(there))
    if few < MIN_VALUES:
        nothing = Distance(None, message=f"{few} values are too few, {MIN_VALUES} are needed")
        return {**found, "psi": nothing, **({"ks": nothing} if kind == "number" else {})}
    if kind == "number":
        # Not a safe cast: its error would say the number that does not fit.
        one, two = (np.asarray(each.cast(pa.float64(), safe=False)) for each in (here, there))
        found["psi"] = _stability(*_binned(one, two))
        found["ks"] = _kolmogorov(one, two)
    else:
        found["psi"] = _stability(*_by_category(here, there))
    return found


def psi(training: Any, scored: Any) -> float:
    """The population stability index of two rows of counts, with half a value added to each count.

    What neither side has says nothing, and is left out.

    >>> round(psi([50, 50], [90, 10]), 2)
    0.85
    """
    counts = np.asarray([training, scored], dtype=np.float64)
    one, two = counts[:, counts.any(axis=0)] + 0.5
    one, two = one / one.sum(), two / two.sum()
    return float(np.sum((two - one) * np.log(two / one)))


def _present(column: Any) -> Any:
    """The values that are there: neither null nor NaN."""
    column = column.drop_null()
    if pt.is_floating(column.type):
        column = column.filter(pc.invert(pc.is_nan(column)))
    return column


def _missing(gone: int, of: int, gone_now: int, of_now: int) -> Distance:
    if not of or not of_now:
        return Distance(None, message="one side has no rows")
    apart = abs(gone / of - gone_now / of_now)
    return Distance(apart, _chi_squared([[gone, of - gone], [gone_now, of_now - gone_now]]))


def _unseen(training: Any, scored: Any) -> Distance:
    if not len(training) or not len(scored):
        return Distance(None, message="one side has no values")
    known = pc.is_in(scored.cast(pa.string()), value_set=training.cast(pa.string()).unique())
    return Distance(1 - pc.sum(known).as_py() / len(scored))


def _stability(training: Any, scored: Any) -> Distance:
    message = "" if np.count_nonzero(np.asarray(training) + scored) > 1 else "all values lie in one bin"
    return Distance(psi(training, scored), _chi_squared([training, scored]), message)


def _kolmogorov(one: Any, two: Any) -> Distance:
    from scipy.stats import ks_2samp

    result = ks_2samp(one, two, method="asymp")
    return Distance(float(result.statistic), _known(result.pvalue))


def _binned(one: Any, two: Any) -> tuple[Any, Any]:
    """Counts in the quantile bins of training; fewer bins where there are few values, for a PSI of two
    samples of the same kind grows with the bins and shrinks with the values."""
    bins = int(np.clip(min(len(one), len(two)) // MIN_VALUES, 2, BINS))
    # An edge is a value that occurs: between two infinite ones there is none to be computed.
    edges, times = np.unique(
        np.quantile(one, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf"), return_counts=True
    )
    # A value that is several edges at once is so frequent that it is a bin by itself: of a column that is
    # mostly 0, else, all values would lie on one side of the only edge.
    frequent = edges[times > 1]
    inner = np.union1d(edges, np.nextafter(frequent, np.inf))
    # A value at an edge lies right of it.
    counts = [
        np.bincount(np.searchsorted(inner, each, side="right"), minlength=len(inner) + 1)
        for each in (one, two)
    ]
    return counts[0], counts[1]


def _by_category(here: Any, there: Any) -> tuple[Any, Any]:
    """Counts of each category; those too rare to be counted by themselves together."""
    one, two = (
        {str(pair["values"]): pair["counts"] for pair in each.value_counts().to_pylist()}
        for each in (here, there)
    )
    names = sorted(one.keys() | two.keys())
    counts = np.array([[side.get(name, 0) for name in names] for side in (one, two)], dtype=np.int64)
    # By both sides together: what was frequent in one of two equal samples by chance is less so in the other.
    share = counts.sum(axis=0) / counts.sum()
    rare = share * min(len(here), len(there)) < MIN_EXPECTED
    rest = counts[:, rare].sum(axis=1, keepdims=True)
    counts = np.hstack([counts[:, ~rare], rest] if rest.any() else [counts[:, ~rare]])
    return counts[0], counts[1]


def _chi_squared(counts: Any) -> float | None:
    from scipy.stats import chi2_contingency

    table = np.asarray(counts)
    table = table[:, table.sum(axis=0) > 0]
    return None if table.shape[1] < 2 else _known(chi2_contingency(table, correction=False).pvalue)


def _known(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
