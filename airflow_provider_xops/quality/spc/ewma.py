"""The exponentially weighted moving average: small shifts that last, at the price of large ones seen later.

``E_i = lambda z_i + (1 - lambda) E_(i-1)``, ``E_0 = 0``, on standardized residuals; limits
``L sqrt(lambda / (2 - lambda) (1 - (1 - lambda)^(2i)))`` (Montgomery, 7th ed., equations 9.22, 9.25 and 9.26;
NIST/SEMATECH e-Handbook 6.3.2.4). Designs: Lucas and Saccucci (1990), Technometrics 32(1), 1-12.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["ewma", "ewma_last", "ewma_limits"]

Floats = npt.NDArray[np.float64]


def ewma(z: Floats, *, lambda_: float) -> Floats:
    """The statistic at every point of ``z`` (points, or series x points); infinite points do not move it.

    >>> ewma(np.array([1.0, 0.0]), lambda_=0.5).tolist()
    [0.5, 0.25]
    """
    columns = _by_point(z)
    found = np.empty_like(columns)
    state = np.zeros(columns.shape[1:])
    for position, column in enumerate(columns):
        state = _step(state, column, lambda_)
        found[position] = state
    return found[:, 0] if z.ndim == 1 else found.T


def ewma_last(z: Floats, *, lambda_: float) -> Floats:
    """The statistic at the last point of every row of ``z`` (series x points)."""
    state, columns = np.zeros(len(z)), _by_point(z)
    finite = np.isfinite(columns)
    counts = None if finite.all() else finite
    for position, column in enumerate(columns):
        step = column - state
        step *= lambda_
        if counts is None:
            state += step
        else:
            np.add(state, step, out=state, where=counts[position])
    return state


def ewma_limits(z: Floats, *, lambda_: float, limit: float, time_varying: bool = True) -> Floats:
    """The upper limit (the lower is its mirror) at every point of one series, in sigma.

    :param time_varying: False: what they tend to, from the first point on.
    """
    counted = np.cumsum(np.isfinite(z))
    grown = 1.0 - (1.0 - lambda_) ** (2 * counted) if time_varying else np.ones(len(z))
    return np.asarray(limit * np.sqrt(lambda_ / (2.0 - lambda_) * grown))


def _by_point(z: Floats) -> Floats:
    return np.ascontiguousarray(np.atleast_2d(z).T)


def _step(state: Floats, column: Floats, lambda_: float) -> Floats:
    moved = state + lambda_ * (column - state)
    finite = np.isfinite(column)
    return moved if finite.all() else np.where(finite, moved, state)
