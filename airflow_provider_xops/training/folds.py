"""Which rows of a training judge the others: folds declared as data.

For :mod:`airflow_provider_xops.training.cross_validation`. Like a split, a rule travels as JSON and its
random order comes from a hash of its own, so the same rows have the same folds in any process, years later.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from airflow_provider_xops.errors import ArgumentError, TrainingError
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.training.splits import (
    MICROSECONDS_A_DAY,
    column_axis,
    group_codes,
    group_hash,
    random_order,
)

__all__ = [
    "FOLDS",
    "Folds",
    "GroupFolds",
    "RandomFolds",
    "StratifiedFolds",
    "TimeSeriesFolds",
    "folds_from",
]

Pairs = list[tuple[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Folds(ABC):
    """A rule that parts rows into training and validation several times."""

    kind: ClassVar[str]

    folds: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.folds, bool) or not isinstance(self.folds, int) or self.folds < 2:
            raise _argument(f"{self.folds!r} folds are impossible", "ask for 2 or more")

    @property
    def columns(self) -> tuple[str, ...]:
        """The data columns the rule looks at, beside the target."""
        return ()

    def check(self, task: Task) -> None:
        """Refuse a task that the rule does not fit.

        :raises ArgumentError: ``argument.folds``.
        """
        return

    @abstractmethod
    def pairs(self, table: pa.Table, partitions: Any, truth: Any) -> Pairs:
        """Positions of the rows that train and of those that judge, in ascending order, fold by fold.

        :param table: the rows, with at least :attr:`columns`.
        :param partitions: the partition of each row (an Arrow column), or None where it is not known.
        :param truth: the target of each row.
        :raises TrainingError: ``training.folds`` when the rule cannot be applied to these rows.
        """

    def to_json(self) -> dict[str, Any]:
        """The rule as plain JSON, which :func:`folds_from` reads."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"kind": self.kind, **{name: value for name, value in given.items() if value is not None}}


@dataclass(frozen=True, kw_only=True)
class RandomFolds(Folds):
    """Every row judges once, in one of ``folds`` equal parts drawn at random."""

    kind: ClassVar[str] = "k_fold"

    seed: int = 0

    def pairs(self, table: pa.Table, partitions: Any, truth: Any) -> Pairs:
        _enough(table.num_rows, self.folds, "rows")
        part = np.empty(table.num_rows, dtype=np.int64)
        part[random_order(table.num_rows, self.seed)] = np.arange(table.num_rows) % self.folds
        return _by_part(part, self.folds)


@dataclass(frozen=True, kw_only=True)
class StratifiedFolds(Folds):
    """As ``k_fold``, with the rows of each class dealt evenly to the folds."""

    kind: ClassVar[str] = "stratified_k_fold"

    seed: int = 0

    def check(self, task: Task) -> None:
        if task is not Task.CLASSIFICATION:
            raise _argument("stratified folds are for classes", "use k_fold for a regression")

    def pairs(self, table: pa.Table, partitions: Any, truth: Any) -> Pairs:
        _enough(len(truth), self.folds, "rows")
        _, codes, counts = np.unique(truth, return_inverse=True, return_counts=True)
        if counts.min() < 2:
            raise _unusable("a class has a single row", "read more partitions, or use k_fold")
        order = random_order(len(truth), self.seed)
        # Classes one after the other and dealt like cards: no fold gets the remainder of every class.
        dealt = order[np.argsort(codes[order], kind="stable")]
        part = np.empty(len(truth), dtype=np.int64)
        part[dealt] = np.arange(len(truth)) % self.folds
        return _by_part(part, self.folds)


@dataclass(frozen=True, kw_only=True)
class GroupFolds(Folds):
    """Rows with one value of ``column`` stay together; without a column, rows of one partition do.

    The largest group goes first, each to the fold with the fewest rows; among groups of one size a hash of
    the seed decides. Rows without a value are one group of their own.
    """

    kind: ClassVar[str] = "group_k_fold"

    column: str | None = None
    seed: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    def pairs(self, table: pa.Table, partitions: Any, truth: Any) -> Pairs:
        column = _partitions(partitions) if self.column is None else _column(table, self.column)
        codes, names = group_codes(column)
        _enough(len(names), self.folds, "groups")
        sizes = np.bincount(codes, minlength=len(names))
        fold_of, load = np.empty(len(names), dtype=np.int64), np.zeros(self.folds, dtype=np.int64)
        ordered = sorted(
            range(len(names)), key=lambda code: (-sizes[code], group_hash(self.seed, names[code]))
        )
        for code in ordered:
            fold_of[code] = np.argmin(load)
            load[fold_of[code]] += sizes[code]
        return _by_part(fold_of[codes], self.folds)


@dataclass(frozen=True, kw_only=True)
class TimeSeriesFolds(Folds):
    """Each fold is judged on rows later than all it is fitted on; the fitted part grows from fold to fold.

    The moments are cut into ``folds`` + 1 stretches of about equally many rows; fold *i* is fitted on the
    first *i* of them and judged on the next. Rows of one moment stay together. ``gap`` keeps the end of the
    fitted part out: days for a time, the column's own unit for a number, partitions without a ``column``.
    Rows without a value take no part.
    """

    kind: ClassVar[str] = "time_series"

    column: str | None = None
    gap: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.gap, int | float) and not isinstance(self.gap, bool)
        if not number or not 0 <= self.gap < math.inf:
            raise _argument(f"a gap of {self.gap!r} is impossible", "give 0 or more")
        if self.column is None and self.gap != int(self.gap):
            raise _argument("the gap of folds by partition is a whole number of partitions", "round it")

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    def pairs(self, table: pa.Table, partitions: Any, truth: Any) -> Pairs:
        moments, valid, gap = self._moments(table, partitions)
        ordered = np.sort(moments[valid])
        distinct = np.unique(ordered)
        _enough(len(distinct), self.folds + 1, "different moments")
        starts = _starts(ordered, distinct, self.folds)
        ends = [*starts[1:], None]
        found: Pairs = []
        for start, end in zip(starts, ends, strict=True):
            fits = valid & (moments < start - gap)
            judges = valid & (moments >= start) & (True if end is None else moments < end)
            if not fits.any():
                raise _unusable(f"the gap of {self.gap} leaves a fold nothing to be fitted on", "shorten it")
            found.append((np.flatnonzero(fits), np.flatnonzero(judges)))
        return found

    def _moments(self, table: pa.Table, partitions: Any) -> tuple[Any, Any, float]:
        if self.column is None:
            codes, names = group_codes(_partitions(partitions))
            places = {name: place for place, name in enumerate(sorted(names))}
            moments = np.array([places[name] for name in names], dtype=np.int64)[codes]
            return moments, np.ones(len(moments), dtype=bool), int(self.gap)
        _column(table, self.column)
        moments, valid, temporal = column_axis(table, self.column)
        return moments, valid, int(self.gap * MICROSECONDS_A_DAY) if temporal else self.gap


FOLDS: dict[str, type[Folds]] = {
    cls.kind: cls for cls in (RandomFolds, StratifiedFolds, GroupFolds, TimeSeriesFolds)
}


def folds_from(value: Folds | Mapping[str, Any]) -> Folds:
    """Folds from their JSON form (``{"kind": "time_series", "folds": 4}``), or the folds themselves.

    Kinds: ``k_fold``, ``stratified_k_fold``, ``group_k_fold``, ``time_series``.

    :raises ArgumentError: ``argument.folds`` for an unknown kind or field (the known ones are listed).

    >>> folds_from({"kind": "k_fold", "folds": 3, "seed": 7})
    RandomFolds(folds=3, seed=7)
    """
    if isinstance(value, Folds):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping) or kind not in FOLDS:
        raise _argument(f"unknown folds {kind!r}", f"use one of the kinds {', '.join(sorted(FOLDS))}")
    cls = FOLDS[kind]
    known = [field.name for field in dataclasses.fields(cls)]
    fields = {name: item for name, item in value.items() if name != "kind" and item is not None}
    # One form of mapping for all kinds: a seed means nothing to time, a gap of 0 nothing to the others.
    if "seed" not in known:
        fields.pop("seed", None)
    if "gap" not in known and not fields.get("gap"):
        fields.pop("gap", None)
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise _argument(f"{kind} folds have no {', '.join(unknown)}", f"they take {', '.join(known)}")
    return cls(**fields)


def _by_part(part: Any, folds: int) -> Pairs:
    return [(np.flatnonzero(part != number), np.flatnonzero(part == number)) for number in range(folds)]


def _starts(ordered: Any, distinct: Any, folds: int) -> list[Any]:
    """The first moment of each judged stretch: near the even cuts of the rows, each later than the last."""
    counts = np.searchsorted(ordered, distinct, side="left")
    starts, least = [], 1
    for number in range(1, folds + 1):
        # As many moments must be left as there are folds to come.
        most = len(distinct) - (folds - number) - 1
        wanted = int(np.argmin(np.abs(counts - number * len(ordered) / (folds + 1))))
        place = min(max(wanted, least), most)
        starts.append(distinct[place])
        least = place + 1
    return starts


def _partitions(partitions: Any) -> Any:
    if partitions is None:
        raise _unusable("the partitions of the rows are not known", "name the column to go by")
    return partitions


def _column(table: pa.Table, name: str) -> Any:
    if name not in table.column_names:
        raise _unusable(f"there is no column {name!r}", "name a column of the dataset")
    return table.column(name)


def _enough(found: int, needed: int, what: str) -> None:
    if found < needed:
        raise _unusable(f"there are {found} {what}, {needed} are needed", "use fewer folds or more rows")


def _argument(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.folds", todo=todo)


def _unusable(why: str, todo: str) -> TrainingError:
    return TrainingError("the folds cannot be made", code="training.folds", why=why, todo=todo)
