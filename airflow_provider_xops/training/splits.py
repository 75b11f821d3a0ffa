"""Which rows train and which are held out: by time, at random, or by group.

For :func:`airflow_provider_xops.training.fit.train`. A split is a small description (it travels as JSON
inside the selection it made), so the same rows can be chosen again years later, on any version of the
libraries: random order comes from a hash of its own, not from a library's generator.

What it does not do: it does not find leaks inside the features; a feature known only after the label leaks
under every split.
"""

from __future__ import annotations

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.errors import ArgumentError, TrainingError

__all__ = [
    "SPLITS",
    "GroupSplit",
    "RandomSplit",
    "Split",
    "TimeSplit",
    "column_axis",
    "group_codes",
    "group_hash",
    "random_order",
    "split_from",
]

MICROSECONDS_A_DAY = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class Split(ABC):
    """A rule that puts each row into training, into the holdout, or into neither."""

    kind: ClassVar[str]

    @property
    def columns(self) -> tuple[str, ...]:
        """The data columns the rule looks at."""
        return ()

    @abstractmethod
    def masks(self, table: pa.Table, partitions: pa.ChunkedArray) -> tuple[Any, Any]:
        """Two boolean arrays, one entry a row: in training, in the holdout. Never both.

        :param table: the rows in canonical order, with at least :attr:`columns`.
        :param partitions: the partition of each row.
        :raises TrainingError: ``training.split`` when the rule cannot be applied to these rows.
        """

    def intervals(self, table: pa.Table) -> tuple[str, str] | None:
        """Times of training and holdout as ``time[COLUMN]:[FROM,TO)`` (UTC), where the rule is about time."""
        return None

    def to_json(self) -> dict[str, Any]:
        """The rule as plain JSON, which :func:`split_from` reads."""
        given = {f.name: _json(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"kind": self.kind, **{key: value for key, value in given.items() if value is not None}}


@dataclass(frozen=True, kw_only=True)
class TimeSplit(Split):
    """The later rows are the holdout, the earlier ones train, those in the gap between belong to neither.

    By partition (``column`` None; partitions sort as text, as ISO dates do): ``holdout_partitions`` is how
    many of the last ones are held out, or their names; ``gap`` is how many partitions before them are left
    out. Where names are given, later partitions that are not among them belong to neither side.

    By column (a timestamp, a date or a number): rows at or after ``cutoff`` are held out; without a cutoff,
    about the last ``fraction`` of the rows, rows of the same moment together. ``gap`` is days (or a
    timedelta) for times, and the column's own unit for numbers. Every holdout row is later than every
    training row plus the gap. Rows without a value belong to neither side. A cutoff without zone is UTC.

    >>> TimeSplit(holdout_partitions=7, gap=1).to_json()
    {'kind': 'time', 'holdout_partitions': 7, 'gap': 1}
    """

    kind: ClassVar[str] = "time"

    column: str | None = None
    cutoff: str | float | datetime | date | None = None
    holdout_partitions: int | Sequence[str] | None = None
    fraction: float | None = None
    gap: float | timedelta = 0

    def __post_init__(self) -> None:
        ways = [self.cutoff is not None, self.holdout_partitions is not None, self.fraction is not None]
        if sum(ways) != 1:
            raise _argument("a time split needs exactly one of cutoff, holdout_partitions and fraction")
        if self.column is None and self.fraction is not None:
            raise _argument("a time split by fraction needs the column that holds the time")
        if self.column is not None and self.holdout_partitions is not None:
            raise _argument("a time split is by column or by holdout_partitions, not by both")
        if isinstance(self.holdout_partitions, int) and self.holdout_partitions < 1:
            raise _argument("holdout_partitions is at least 1")
        if self.fraction is not None:
            _check_fraction(self.fraction)
        if (self.gap < timedelta(0)) if isinstance(self.gap, timedelta) else self.gap < 0:
            raise _argument("a gap is not negative")
        if self.column is None and (isinstance(self.gap, timedelta) or self.gap != int(self.gap)):
            raise _argument("the gap of a split by partition is a whole number of partitions")

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    def masks(self, table: pa.Table, partitions: pa.ChunkedArray) -> tuple[Any, Any]:
        return self._by_partition(partitions) if self.column is None else self._by_column(table)

    def _by_partition(self, partitions: pa.ChunkedArray) -> tuple[Any, Any]:
        codes, names = group_codes(partitions)
        ordered = sorted(names)
        if isinstance(self.holdout_partitions, int):
            held = ordered[-self.holdout_partitions :]
        elif self.holdout_partitions is not None:
            held = [name for name in ordered if name in set(self.holdout_partitions)]
        else:
            held = [name for name in ordered if name >= _json(self.cutoff)]
        earlier = [name for name in ordered if not held or name < held[0]]
        kept = earlier[: max(0, len(earlier) - int(self._gap_number()))]
        return _among(codes, names, kept), _among(codes, names, held)

    def _by_column(self, table: pa.Table) -> tuple[Any, Any]:
        values, valid, until, since, _ = self._bounds(table)
        return valid & (values < until), valid & (values >= since)

    def intervals(self, table: pa.Table) -> tuple[str, str] | None:
        if self.column is None:
            return None
        _, _, until, since, temporal = self._bounds(table)
        if not temporal:
            return None
        return f"time[{self.column}]:[,{_iso(until)})", f"time[{self.column}]:[{_iso(since)},)"

    def _bounds(self, table: pa.Table) -> tuple[Any, Any, Any, Any, bool]:
        """Values, which are there, where training ends, where the holdout begins, whether these are times."""
        assert self.column is not None
        values, valid, temporal = column_axis(table, self.column)
        gap = self._gap_number() * (MICROSECONDS_A_DAY if temporal else 1)
        if self.cutoff is not None:
            cutoff = _moment(self.cutoff) if temporal else _number(self.cutoff)
        else:
            present = np.sort(values[valid])
            if not len(present):
                raise _unusable(f"column {self.column!r} has no values", "choose another column")
            # The first moment of the last `fraction` of the rows; equal moments stay together.
            cutoff = present[min(len(present) - 1, round(len(present) * (1 - (self.fraction or 0))))]
        return values, valid, cutoff - gap, cutoff, temporal

    def _gap_number(self) -> float:
        return self.gap / timedelta(days=1) if isinstance(self.gap, timedelta) else self.gap


@dataclass(frozen=True, kw_only=True)
class RandomSplit(Split):
    """About ``fraction`` of the rows are the holdout; with ``stratify``, of the rows of each of its values.

    The choice depends on the seed and on the rows' positions in canonical order, nothing else. A stratum of
    one row trains.
    """

    kind: ClassVar[str] = "random"

    fraction: float = 0.2
    seed: int = 0
    stratify: str | None = None

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.stratify is None else (self.stratify,)

    def masks(self, table: pa.Table, partitions: pa.ChunkedArray) -> tuple[Any, Any]:
        order = random_order(table.num_rows, self.seed)
        holdout = np.zeros(table.num_rows, dtype=bool)
        if self.stratify is None:
            strata = [order]
        else:
            codes, names = group_codes(_column(table, self.stratify))
            shuffled = codes[order]
            strata = [order[shuffled == code] for code in range(len(names))]
        for rows in strata:
            if len(rows) > 1:
                holdout[rows[: min(max(round(self.fraction * len(rows)), 1), len(rows) - 1)]] = True
        return ~holdout, holdout


@dataclass(frozen=True, kw_only=True)
class GroupSplit(Split):
    """Whole groups (all rows with one value of ``column``) are held out, about ``fraction`` of the rows.

    Groups are taken in the order of a hash of the seed and their value until the fraction is reached; rows
    without a value are one group of their own.
    """

    kind: ClassVar[str] = "group"

    column: str
    fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def masks(self, table: pa.Table, partitions: pa.ChunkedArray) -> tuple[Any, Any]:
        codes, names = group_codes(_column(table, self.column))
        if len(names) < 2:
            raise _unusable(
                f"column {self.column!r} has {len(names)} group(s), a grouped split needs two",
                "group by another column or read more partitions",
            )
        sizes = np.bincount(codes, minlength=len(names))
        held: list[int] = []
        rows = 0
        for code in sorted(range(len(names)), key=lambda code: group_hash(self.seed, names[code])):
            if held and (rows >= self.fraction * table.num_rows or len(held) == len(names) - 1):
                break
            held.append(code)
            rows += int(sizes[code])
        holdout = np.isin(codes, held)
        return ~holdout, holdout


SPLITS: dict[str, type[Split]] = {cls.kind: cls for cls in (TimeSplit, RandomSplit, GroupSplit)}


def split_from(value: Split | Mapping[str, Any]) -> Split:
    """A split from its JSON form (``{"kind": "time", "holdout_partitions": 7}``), or the split itself.

    :raises ArgumentError: ``argument.split`` for an unknown kind or field (the known ones are listed).

    >>> split_from({"kind": "random", "fraction": 0.25, "seed": 3})
    RandomSplit(fraction=0.25, seed=3, stratify=None)
    """
    if isinstance(value, Split):
        return value
    if not isinstance(value, Mapping) or value.get("kind") not in SPLITS:
        kind = value.get("kind") if isinstance(value, Mapping) else value
        raise _argument(f"unknown split {kind!r}", f"use one of the kinds {', '.join(sorted(SPLITS))}")
    cls = SPLITS[value["kind"]]
    known = [f.name for f in dataclasses.fields(cls)]
    fields = {key: item for key, item in value.items() if key != "kind"}
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise _argument(f"a {cls.kind} split has no {', '.join(unknown)}", f"it takes {', '.join(known)}")
    if isinstance(fields.get("gap"), Mapping):
        fields["gap"] = timedelta(**fields["gap"])
    try:
        return cls(**fields)
    except TypeError as error:
        raise _argument(
            f"a {cls.kind} split cannot be made: {error}", f"it takes {', '.join(known)}"
        ) from None


def random_order(count: int, seed: int | str) -> Any:
    """Positions 0..count-1 in an order fixed by the seed (SplitMix64 of the position; Steele et al. 2014)."""
    state = np.arange(1, count + 1, dtype=np.uint64)
    start = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:8], "little")
    state = state * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(state ^ (state >> np.uint64(31)), kind="stable")


def group_hash(seed: int, value: Any) -> str:
    return hashlib.sha256(f"{seed}\x00{type(value).__name__}\x00{value}".encode()).hexdigest()


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise _unusable(f"there is no column {name!r}", "name a column of the dataset")
    return table.column(name)


def group_codes(column: pa.ChunkedArray) -> tuple[Any, list[Any]]:
    """Each row's group number, and the groups' values (None is one of them where values are missing)."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return np.asarray(encoded.indices), encoded.dictionary.to_pylist()


def _among(codes: Any, names: list[Any], chosen: Sequence[Any]) -> Any:
    return np.isin(codes, [names.index(name) for name in chosen])


def column_axis(table: pa.Table, name: str) -> tuple[Any, Any, bool]:
    """The column as numbers in the order of its values, which of them are there, and whether it is a time."""
    column = _column(table, name)
    temporal = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not temporal and not numeric and not pa.types.is_decimal(column.type):
        raise _unusable(
            f"column {name!r} is {column.type}, not a time, a date or a number", "choose another column"
        )
    if temporal:
        zone = column.type.tz if pa.types.is_timestamp(column.type) else None
        column = column.cast(pa.timestamp("us", zone)).cast(pa.int64())
    elif not pa.types.is_integer(column.type):
        column = column.cast(pa.float64())
    valid = np.asarray(pc.is_valid(column))
    values = np.asarray(pc.fill_null(column, 0))
    if values.dtype.kind == "f":
        valid = valid & ~np.isnan(values)
    return values, valid, temporal


def _moment(value: Any) -> int:
    """A cutoff in microseconds since 1970 UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _argument(
                f"the cutoff {value!r} is not an ISO date or time", "for example 2013-04-01"
            ) from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 (the zone is set below)
    if not isinstance(value, datetime):
        raise _argument("the cutoff of a time column is a date or a time", "for example 2013-04-01")
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _iso(microseconds: Any) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds))).isoformat()


def _number(value: Any) -> float:
    if isinstance(value, int | float):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _argument(
            "the cutoff of a number column is a number", "pass a number, or name a time column"
        ) from None


def _json(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return {"days": value.days, "seconds": value.seconds, "microseconds": value.microseconds}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise _argument(f"a holdout fraction of {fraction} is impossible", "pass a number between 0 and 1")


def _argument(what: str, todo: str = "see the documentation of the split") -> ArgumentError:
    return ArgumentError(what, code="argument.split", todo=todo)


def _unusable(why: str, todo: str) -> TrainingError:
    return TrainingError("the split cannot be made", code="training.split", why=why, todo=todo)
