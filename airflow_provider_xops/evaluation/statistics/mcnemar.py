"""Two classifiers on the same rows: is one right more often?

For comparisons of ``accuracy``. Only the rows on which exactly one of the two is right say anything: ``only
first`` and ``only second`` of ``rows``. Sources: McNemar (1947); the mid-p version as recommended by
Fagerland, Lydersen and Laake (2013), BMC Medical Research Methodology 13; the score test and interval of
Tango (1998), Statistics in Medicine 17, for differences other than zero.
"""

from __future__ import annotations

import math

from scipy import optimize, special, stats

__all__ = ["mid_p", "score_interval", "score_p"]


def mid_p(only_first: int, only_second: int) -> float:
    """One-sided: that the first is right no more often than the second. 1 where they never differ.

    >>> round(mid_p(12, 4), 5)
    0.02452
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    more = float(stats.binom.sf(only_first, discordant, 0.5))
    return min(1.0, more + float(stats.binom.pmf(only_first, discordant, 0.5)) / 2)


def score_p(only_first: int, only_second: int, rows: int, bar: float) -> float:
    """One-sided: that the difference (first minus second share of right rows) is at most ``bar``.

    >>> round(score_p(0, 1, 44, -0.1), 4)  # Tango (1998): disinfection of contact lenses, z = 1.709
    0.0438
    """
    return float(special.ndtr(-_score(only_first, only_second, rows, bar)))


def score_interval(only_first: int, only_second: int, rows: int, confidence: float) -> tuple[float, float]:
    """The two-sided interval of the difference that Tango's test does not reject.

    >>> [round(bound, 3) for bound in score_interval(0, 1, 44, 0.90)]  # Tango (1998)
    [-0.096, 0.037]
    """
    z = float(special.ndtri((1 + confidence) / 2))
    observed = (only_first - only_second) / rows

    def solve(low: float, high: float, target: float) -> float:
        def gap(bar: float) -> float:
            return _score(only_first, only_second, rows, bar) - target

        if gap(low) * gap(high) > 0:  # the interval reaches the end of what is possible
            return low if target > 0 else high
        return float(optimize.brentq(gap, low, high, xtol=1e-12))

    tiny = 1e-12
    lower = -1.0 if observed <= -1 else solve(-1 + tiny, observed, z)
    upper = 1.0 if observed >= 1 else solve(observed, 1 - tiny, -z)
    return max(-1.0, lower), min(1.0, upper)


def _score(only_first: int, only_second: int, rows: int, bar: float) -> float:
    """Tango's statistic: the difference in standard errors above ``bar``, given that ``bar`` is true."""
    above = only_first - only_second - rows * bar
    if above == 0:
        return 0.0
    b = -only_first - only_second + (2 * rows - only_first + only_second) * bar
    c = -only_second * bar * (1 - bar)
    # The most likely share of rows on which only the second is right, if the difference is ``bar``.
    second = (math.sqrt(max(0.0, b * b - 8 * rows * c)) - b) / (4 * rows)
    variance = rows * (2 * second + bar * (1 - bar))
    return math.copysign(math.inf, above) if variance <= 0 else above / math.sqrt(variance)
