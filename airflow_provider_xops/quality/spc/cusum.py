"""The tabular cumulative sum: the chart for a shift of known size, and the one that says since when.

``C+_i = max(0, C+_(i-1) + z_i - k)``, ``C-_i = max(0, C-_(i-1) - z_i - k)``, a signal beyond ``h``; the
counters ``N+`` and ``N-`` say for how many points each sum has been above zero, so a signal at point i with N
points back means that the shift began after point i - N (Montgomery, 7th ed., 9.1.2, equations 9.2 and 9.3;
Page, 1954, Biometrika 41, 100-115). On standardized residuals; ``k`` and ``h`` are in sigma.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Cusum", "cusum", "cusum_last"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Cusum:
    """Both sums and their counters at every point."""

    upper: Floats
    lower: Floats
    n_upper: Integers
    n_lower: Integers


def cusum(z: Floats, *, k: float, h: float, reset: bool = False) -> Cusum:
    """The sums of one series (points) or of several (series x points); infinite points do not move them.

    :param reset: start again at zero after a point beyond ``h``.

    >>> found = cusum(np.array([1.0, 2.0, -3.0]), k=0.5, h=5.0)
    >>> found.upper.tolist(), found.n_upper.tolist()
    ([0.5, 2.0, 0.0], [1, 2, 0])
    """
    columns = np.ascontiguousarray(np.atleast_2d(z).T)
    upper, lower = np.empty_like(columns), np.empty_like(columns)
    n_upper, n_lower = np.empty(columns.shape, dtype=np.int64), np.empty(columns.shape, dtype=np.int64)
    high, low = np.zeros(columns.shape[1:]), np.zeros(columns.shape[1:])
    ups, downs = np.zeros(columns.shape[1:], dtype=np.int64), np.zeros(columns.shape[1:], dtype=np.int64)
    for position, column in enumerate(columns):
        if reset:
            over_high, over_low = high > h, low > h
            high, ups = np.where(over_high, 0.0, high), np.where(over_high, 0, ups)
            low, downs = np.where(over_low, 0.0, low), np.where(over_low, 0, downs)
        high, low = _step(high, column, k), _step(low, -column, k)
        ups, downs = np.where(high > 0, ups + 1, 0), np.where(low > 0, downs + 1, 0)
        upper[position], lower[position], n_upper[position], n_lower[position] = high, low, ups, downs
    if z.ndim == 1:
        return Cusum(upper=upper[:, 0], lower=lower[:, 0], n_upper=n_upper[:, 0], n_lower=n_lower[:, 0])
    return Cusum(upper=upper.T, lower=lower.T, n_upper=n_upper.T, n_lower=n_lower.T)


def cusum_last(z: Floats, *, k: float, h: float, reset: bool = False) -> tuple[Floats, Floats]:
    """Both sums at the last point of every row of ``z`` (series x points)."""
    columns = np.ascontiguousarray(z.T)
    finite = np.isfinite(columns)
    counts = None if finite.all() else finite
    return _sum_last(columns, counts, k, h, reset), _sum_last(-columns, counts, k, h, reset)


def _sum_last(
    columns: Floats, counts: npt.NDArray[np.bool_] | None, k: float, h: float, reset: bool
) -> Floats:
    """The upper sum at the last of ``columns`` (points x series); in place, for millions of numbers."""
    state = np.zeros(columns.shape[1])
    steps = columns - k
    for position, step in enumerate(steps):
        if reset:
            state[state > h] = 0.0
        if counts is None:
            state += step
        else:
            np.add(state, step, out=state, where=counts[position])
        np.maximum(state, 0.0, out=state)
    return state


def _step(state: Floats, column: Floats, k: float) -> Floats:
    moved = np.maximum(0.0, state + (column - k))
    finite = np.isfinite(column)
    return moved if finite.all() else np.where(finite, moved, state)
