"""The statistics behind suggested limits: shares with confidence, natural limits, values not seen yet.

For suggestions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

__all__ = ["CONFIDENCE", "natural_limits", "outward", "share_at_least", "share_at_most", "unseen_share"]

CONFIDENCE = 0.999
# Shewhart's constant for charts of single values and moving ranges of two: 3 / d2, d2 = 1.128 (Montgomery,
# Introduction to Statistical Quality Control, 6.4).
XMR = 2.66


def share_at_most(count: int, of: int, *, confidence: float = CONFIDENCE) -> float:
    """The upper limit of a share, seen ``count`` times of ``of`` (Clopper and Pearson 1934, one-sided).

    >>> round(share_at_most(0, 1000), 5), share_at_most(5, 5)
    (0.00688, 1.0)
    """
    if count >= of:
        return 1.0
    from scipy.stats import beta

    return float(beta.ppf(confidence, count + 1, of - count))


def share_at_least(count: int, of: int, *, confidence: float = CONFIDENCE) -> float:
    """The lower limit of a share; see :func:`share_at_most`."""
    return 1 - share_at_most(of - count, of, confidence=confidence) if of else 0.0


def natural_limits(values: Sequence[float]) -> tuple[float, float]:
    """Where single values of a process that does not change lie: mean and mean moving range (XmR chart).

    >>> natural_limits([10.0, 12.0, 10.0, 12.0, 11.0])
    (6.345, 15.655)
    """
    center = sum(values) / len(values)
    moves = [abs(after - before) for before, after in itertools.pairwise(values)]
    reach = XMR * sum(moves) / len(moves)
    return center - reach, center + reach


def unseen_share(once: int, of: int) -> float:
    """The share of values to come that were never seen, from those seen once (Good 1953, after Turing).

    >>> unseen_share(2, 1000)
    0.002
    """
    return once / of if of else 1.0


def outward(lower: float, upper: float, *, whole: bool) -> tuple[float, float]:
    """Limits rounded outward to two digits of their distance, so that a reader sees no false precision.

    >>> outward(-58.73, 71.26, whole=False), outward(0.2, 9.5, whole=True)
    ((-59.0, 72.0), (0, 10))
    """
    spread = upper - lower
    digits = 0 if whole or not spread > 0 or not math.isfinite(spread) else 1 - math.floor(math.log10(spread))
    if whole:
        return math.floor(lower), math.ceil(upper)
    if not spread > 0 or not math.isfinite(spread) or abs(digits) > 300:
        return lower, upper
    step = 10.0**-digits
    low, high = (
        round(math.floor(lower / step) * step, max(digits, 0)),
        round(math.ceil(upper / step) * step, max(digits, 0)),
    )
    # Rounding of very large numbers may fall inside.
    return min(low, lower), max(high, upper)
