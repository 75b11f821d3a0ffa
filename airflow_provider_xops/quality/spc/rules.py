"""The run rules of Shewhart charts: which points end, with the newest one, in a pattern that is rare.

The rules read standardized residuals ``z``: distance from the center in sigma, oldest first, without gaps.
Each is a small function that returns the positions of the pattern which ends at the last point, oldest first,
or nothing. A pattern is as long as it lasts: nine points on one side are a signal, and when it is the
twelfth, all twelve are named, so that the first says since when.

Sources: Western Electric Company (1956), Statistical Quality Control Handbook, 25-28; Nelson (1984), The
Shewhart control chart: tests for special causes, Journal of Quality Technology 16(4), 237-239; Montgomery,
Introduction to Statistical Quality Control, 7th ed., 5.3.5 and 5.3.6.

=============================  ======================================  =========================
pattern                        Nelson                                  Western Electric
=============================  ======================================  =========================
a point beyond 3 sigma         1                                       1
k in a row on one side         2 (nine)                                4 (eight)
k in a row up or down          3 (six)
k in a row up, down, up, ...   4 (fourteen)
2 of 3 beyond 2 sigma          5                                       2
4 of 5 beyond 1 sigma          6                                       3
k in a row within 1 sigma      7 (fifteen)
k in a row beyond 1 sigma      8 (eight)
=============================  ======================================  =========================

What they do not do: rules 4, 7 and 8 have no side, so charts of one side do not use them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

__all__ = [
    "alternation",
    "beyond_limits",
    "fires",
    "k_of_n",
    "outside_zone_c",
    "pattern",
    "run_on_one_side",
    "trend",
    "within_zone_c",
]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_ONE_SIDE = {"nelson_2": 9, "western_electric_4": 8}
_K_OF_N = {
    "nelson_5": (2, 3, 2.0),
    "nelson_6": (4, 5, 1.0),
    "western_electric_2": (2, 3, 2.0),
    "western_electric_3": (4, 5, 1.0),
}
_TREND, _ALTERNATION, _WITHIN, _OUTSIDE = 6, 14, 15, 8
LONGEST = 15
"""Points that any rule needs to decide whether it fires."""


def beyond_limits(z: Floats, *, width: float = 3.0, sides: str = "both") -> tuple[int, ...]:
    """The last point, when it lies more than ``width`` sigma from the center (Nelson 1, Western Electric 1).

    >>> beyond_limits(np.array([0.1, 3.2]))
    (1,)
    """
    return (len(z) - 1,) if len(z) and any(sign * z[-1] > width for sign in _signs(sides)) else ()


def run_on_one_side(z: Floats, *, length: int = 9, sides: str = "both") -> tuple[int, ...]:
    """``length`` or more points in a row on one side of the center (Nelson 2: nine, WE 4: eight).

    A point on the center line ends the run.

    >>> run_on_one_side(np.array([-1.0, *[0.5] * 10]))
    (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    """
    return _first(_tail(sign * z > 0, length) for sign in _signs(sides))


def trend(z: Floats, *, length: int = _TREND, sides: str = "both") -> tuple[int, ...]:
    """``length`` or more points in a row, each above (or each below) the one before (Nelson 3: six).

    >>> trend(np.array([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    (1, 2, 3, 4, 5, 6)
    """
    with np.errstate(invalid="ignore"):
        steps = np.diff(z)
    return _first(_grown(_tail(sign * steps > 0, length - 1)) for sign in _signs(sides))


def alternation(z: Floats, *, length: int = _ALTERNATION) -> tuple[int, ...]:
    """``length`` or more points in a row, up and down in turn (Nelson 4: fourteen).

    >>> len(alternation(np.array([0.0, 1.0] * 8)))
    16
    """
    with np.errstate(invalid="ignore"):
        turns = np.sign(np.diff(z))
    return _grown(_grown(_tail(turns[1:] * turns[:-1] < 0, length - 2)))


def k_of_n(z: Floats, *, k: int, n: int, zone: float, sides: str = "both") -> tuple[int, ...]:
    """At least ``k`` of the last ``n`` points beyond ``zone`` sigma on one side, the last one among them.

    Two of three beyond two sigma: Nelson 5, Western Electric 2. Four of five beyond one sigma: Nelson 6,
    Western Electric 3. The pattern is the points that lie beyond.

    >>> k_of_n(np.array([0.0, 2.5, 0.1, 2.2]), k=2, n=3, zone=2.0)
    (1, 3)
    """
    first = max(0, len(z) - n)
    for sign in _signs(sides):
        beyond = sign * z[first:] > zone
        if len(beyond) and beyond[-1] and beyond.sum() >= k:
            return tuple(int(first + at) for at in np.flatnonzero(beyond))
    return ()


def within_zone_c(z: Floats, *, length: int = _WITHIN) -> tuple[int, ...]:
    """``length`` or more points in a row within one sigma of the center (Nelson 7: fifteen).

    Too good: limits from a noisier time, or strata mixed in every point.

    >>> len(within_zone_c(np.zeros(15)))
    15
    """
    return _tail(np.abs(z) < 1.0, length)


def outside_zone_c(z: Floats, *, length: int = _OUTSIDE) -> tuple[int, ...]:
    """``length`` or more points in a row beyond one sigma, on either side (Nelson 8: eight): a mixture.

    >>> len(outside_zone_c(np.array([1.5, -1.5] * 4)))
    8
    """
    return _tail(np.abs(z) > 1.0, length)


def pattern(rule: str, z: Floats, *, width: float = 3.0, sides: str = "both") -> tuple[int, ...]:
    """Positions of the pattern of the named rule that ends at the last point of ``z``."""
    if rule in ("nelson_1", "western_electric_1"):
        return beyond_limits(z, width=width, sides=sides)
    if rule in _ONE_SIDE:
        return run_on_one_side(z, length=_ONE_SIDE[rule], sides=sides)
    if rule in _K_OF_N:
        k, n, zone = _K_OF_N[rule]
        return k_of_n(z, k=k, n=n, zone=zone, sides=sides)
    if rule == "nelson_3":
        return trend(z, sides=sides)
    sideless: dict[str, Callable[[Floats], tuple[int, ...]]] = {
        "nelson_4": alternation,
        "nelson_7": within_zone_c,
        "nelson_8": outside_zone_c,
    }
    return sideless[rule](z) if rule in sideless and sides == "both" else ()


def fires(rule: str, z: Floats, *, width: float = 3.0, sides: str = "both") -> Flags:
    """Whether the rule fires at the last column, for every row of ``z`` (series x points) at once."""
    rows, columns = z.shape
    if not columns or (sides != "both" and rule in ("nelson_4", "nelson_7", "nelson_8")):
        return np.zeros(rows, dtype=bool)
    if rule in ("nelson_1", "western_electric_1"):
        return _any_side(sides, lambda sign: sign * z[:, -1] > width)
    if rule in _ONE_SIDE:
        length = _ONE_SIDE[rule]
        return _any_side(sides, lambda sign: _all_last(sign * z[:, -length:] > 0, length))
    if rule in _K_OF_N:
        k, n, zone = _K_OF_N[rule]

        def beyond(sign: int) -> Flags:
            outside = sign * z[:, -n:] > zone
            return np.asarray(outside[:, -1] & (outside.sum(axis=1) >= k))

        return _any_side(sides, beyond)
    with np.errstate(invalid="ignore"):
        if rule == "nelson_3":
            steps = np.diff(z[:, -_TREND:], axis=1)
            return _any_side(sides, lambda sign: _all_last(sign * steps > 0, _TREND - 1))
        if rule == "nelson_4":
            turns = np.sign(np.diff(z[:, -_ALTERNATION:], axis=1))
            return _all_last(turns[:, 1:] * turns[:, :-1] < 0, _ALTERNATION - 2)
    if rule == "nelson_7":
        return _all_last(np.abs(z[:, -_WITHIN:]) < 1.0, _WITHIN)
    if rule == "nelson_8":
        return _all_last(np.abs(z[:, -_OUTSIDE:]) > 1.0, _OUTSIDE)
    return np.zeros(rows, dtype=bool)


def _signs(sides: str) -> tuple[int, ...]:
    return {"both": (1, -1), "upper": (1,), "lower": (-1,)}[sides]


def _tail(flags: Flags, length: int) -> tuple[int, ...]:
    """Positions of the flags at the end that are all true, when there are ``length`` or more."""
    misses = np.flatnonzero(~flags)
    start = int(misses[-1]) + 1 if len(misses) else 0
    return tuple(range(start, len(flags))) if len(flags) - start >= length else ()


def _grown(positions: tuple[int, ...]) -> tuple[int, ...]:
    """Positions of steps as positions of the points that they are between."""
    return (*positions, positions[-1] + 1) if positions else ()


def _first(found: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return next((positions for positions in found if positions), ())


def _any_side(sides: str, test: Callable[[int], Flags]) -> Flags:
    first, *others = _signs(sides)
    result = test(first)
    for sign in others:
        result = result | test(sign)
    return result


def _all_last(flags: Flags, length: int) -> Flags:
    return np.asarray(flags.all(axis=1) & (flags.shape[1] >= length))
