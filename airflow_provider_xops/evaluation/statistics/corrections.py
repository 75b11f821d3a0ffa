"""What p-values are worth when several statements are tested at once.

For comparisons of models and for slices. Sources: Holm (1979); Benjamini and Hochberg (1995).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from airflow_provider_xops.errors import ArgumentError

__all__ = ["CORRECTIONS", "Correction", "adjust"]

Correction = Literal["holm", "bonferroni", "benjamini_hochberg", "none"]
CORRECTIONS: tuple[Correction, ...] = ("holm", "bonferroni", "benjamini_hochberg", "none")


def adjust(p_values: Any, method: str = "holm") -> Any:
    """The p-values, each raised so that it can be compared with alpha as if it were the only one.

    :param p_values: one a statement; NaN (not tested) stays NaN and does not count.
    :param method: ``holm`` and ``bonferroni`` bound the chance of any false statement,
        ``benjamini_hochberg`` the share of false ones among those made; ``none`` leaves them.
    :raises ArgumentError: ``argument.correction``: an unknown method, or values outside 0 to 1.

    >>> adjust([0.01, 0.04, 0.03], "holm").tolist()
    [0.03, 0.06, 0.06]
    """
    if method not in CORRECTIONS:
        raise ArgumentError(
            f"the correction {method!r} is unknown", code="argument.correction",
            todo=f"use one of {', '.join(CORRECTIONS)}",
        )  # fmt: skip
    given = np.asarray(p_values, dtype=np.float64)
    tested = ~np.isnan(given)
    p = given[tested]
    if ((p < 0) | (p > 1)).any():
        raise ArgumentError(
            "a p-value lies outside 0 to 1", code="argument.correction", todo="give probabilities"
        )
    adjusted = given.copy()
    adjusted[tested] = _METHODS[method](p)
    return adjusted


def _holm(p: Any) -> Any:
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    return _back(np.minimum(raised, 1.0), order)


def _bonferroni(p: Any) -> Any:
    return np.minimum(p * p.size, 1.0)


def _benjamini_hochberg(p: Any) -> Any:
    order = np.argsort(p, kind="stable")
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    raised = np.minimum.accumulate(scaled[::-1])[::-1]
    return _back(np.minimum(raised, 1.0), order)


def _back(values: Any, order: Any) -> Any:
    result = np.empty_like(values)
    result[order] = values
    return result


_METHODS: dict[str, Callable[[Any], Any]] = {
    "holm": _holm,
    "bonferroni": _bonferroni,
    "benjamini_hochberg": _benjamini_hochberg,
    "none": np.copy,
}
