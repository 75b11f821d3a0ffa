"""Metrics written as functions of sums over rows, so that a resample costs a sum and not a pass over rows.

For resampling. A :class:`Sums` says what each row adds; a :class:`Kernel` turns many sums (one line a
resample) into many values at once. Rows that add the same share a *type*, and resampling then draws how many
of each type, which is the same as drawing rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = ["Floats", "Kernel", "Part", "Sums"]

Floats = npt.NDArray[np.float64]
CHUNK = 4_000_000  # numbers held at once


@dataclass(frozen=True, eq=False)
class Sums:
    """What the rows add: row ``i`` adds ``added[codes[i]]``, or ``added[i]`` where there are no codes.

    :param added: one line a type (sparse), or one line a row (dense or sparse).
    """

    added: Any
    codes: Any = None

    @property
    def width(self) -> int:
        """How many numbers are added up."""
        return int(self.added.shape[1])

    @property
    def types(self) -> int:
        """How many different lines there are."""
        return int(self.added.shape[0])

    def total(self) -> Floats:
        """The sums over all rows."""
        if self.codes is None:
            return np.asarray(self.added.sum(axis=0)).ravel()
        return np.asarray(self.added.T @ np.bincount(self.codes, minlength=self.types).astype(np.float64))

    def by_unit(self, unit: Any, units: int) -> Any:
        """The sums of each unit: one line a unit. ``unit`` is the unit of each row; None: each row is one."""
        if self.codes is None:
            if unit is None:
                return self.added
            if sparse.issparse(self.added):
                return _indicator(unit, np.arange(len(unit)), (units, len(unit))) @ self.added
            columns = [np.bincount(unit, weights=column, minlength=units) for column in self.added.T]
            return np.column_stack(columns)
        rows = np.arange(units) if unit is None else unit
        return _indicator(rows, self.codes, (units, self.types)) @ self.added


@dataclass(frozen=True, eq=False)
class Part:
    """A function of some sums: lines of sums in, a value for each line out, NaN where it is not defined."""

    sums: Sums
    value: Callable[[Floats], Floats]

    def without_each(self) -> Floats:
        """The value with each row left out once: one value a row."""
        left_out = without_each_line(self.value, self.sums.total(), self.sums.added)
        return left_out if self.sums.codes is None else left_out[self.sums.codes]


@dataclass(frozen=True, eq=False)
class Kernel:
    """One metric of one model: the mean of its parts, which is nearly always one.

    :param smooth: it changes little with each row; a median does not, and the jackknife fails on it.
    :param share: it is a share of rows, for which there is an interval even where all are alike.
    """

    parts: tuple[Part, ...]
    smooth: bool = True
    share: Callable[[Floats], tuple[float, float]] | None = None

    def value(self, lines: Sequence[Floats]) -> Floats:
        """The metric of each line of sums, given for each part."""
        values = [part.value(each) for part, each in zip(self.parts, lines, strict=True)]
        return values[0] if len(values) == 1 else np.asarray(np.mean(values, axis=0))

    def on_all(self) -> float:
        """The metric of all rows."""
        return float(self.value([part.sums.total()[None] for part in self.parts])[0])

    def without_each(self) -> Floats:
        """The metric with each row left out once."""
        return np.asarray(np.mean([part.without_each() for part in self.parts], axis=0))


def _indicator(rows: Any, columns: Any, shape: tuple[int, int]) -> Any:
    """How often each place is named."""
    return sparse.csr_array((np.ones(len(columns)), (rows, columns)), shape=shape)


def without_each_line(value: Callable[[Floats], Floats], total: Floats, lines: Any) -> Floats:
    """``value(total - line)`` for each line, dense or sparse, without holding all of them at once."""
    count = lines.shape[0]
    step = max(1, CHUNK // max(1, lines.shape[1]))
    result = np.empty(count)
    for start in range(0, count, step):
        some = lines[start : start + step]
        result[start : start + step] = value(total - (some.toarray() if sparse.issparse(some) else some))
    return result
