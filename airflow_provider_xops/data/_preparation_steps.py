"""What the steps of a preparation are.

Private to :mod:`airflow_provider_xops.data.preparation`, whose docstring is the grammar.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from airflow_provider_xops.data.column_types import ColumnType
from airflow_provider_xops.errors import ArgumentError

__all__ = [
    "AsOfJoin", "Bin", "Bounds", "Cast", "Clip", "Deduplicate", "Derive", "Drop", "Filter", "Gap", "Impute",
    "Order", "Rename", "Select", "Step", "step_error",
]  # fmt: skip


@dataclass(frozen=True)
class Order:
    """A column to order by; missing values come last either way."""

    column: str
    descending: bool = False


@dataclass(frozen=True)
class Step:
    """One step. ``number`` counts from 1, for people."""

    number: int
    kind: ClassVar[str]

    def canonical(self) -> list[Any]:
        """What decides the result, as plain JSON: no reason, no number."""
        return [self.kind, *(_plain(getattr(self, f.name)) for f in fields(self) if f.name != "number")]


@dataclass(frozen=True)
class Cast(Step):
    kind: ClassVar[str] = "cast"
    columns: tuple[tuple[str, ColumnType], ...]
    null_on_error: bool


@dataclass(frozen=True)
class Deduplicate(Step):
    kind: ClassVar[str] = "deduplicate"
    keys: tuple[str, ...] | None
    order_by: tuple[Order, ...]
    last: bool
    keep_null_keys: bool


@dataclass(frozen=True)
class Gap:
    """How one column is imputed: by ``value`` where ``method`` is None."""

    column: str
    method: str | None
    value: Any = None
    order_by: tuple[Order, ...] = ()
    group_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Impute(Step):
    kind: ClassVar[str] = "impute"
    columns: tuple[Gap, ...]
    fit: str | None
    indicator: str | None


@dataclass(frozen=True)
class Bounds:
    """Where one column is clipped: at literals or at quantiles."""

    column: str
    lower: Any = None
    upper: Any = None
    lower_quantile: float | None = None
    upper_quantile: float | None = None


@dataclass(frozen=True)
class Clip(Step):
    kind: ClassVar[str] = "clip"
    columns: tuple[Bounds, ...]
    fit: str | None


@dataclass(frozen=True)
class Bin(Step):
    """``labels`` None: bin numbers. An open end of ``edges`` is None."""

    kind: ClassVar[str] = "bin"
    column: str
    edges: tuple[Any, ...] | None
    quantiles: tuple[float, ...] | None
    fit: str | None
    into: str
    right: bool
    include_lowest: bool
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class AsOfJoin(Step):
    """``tolerance``: seconds where ``is_duration``, else in the unit of the column."""

    kind: ClassVar[str] = "as_of_join"
    input: str
    on: tuple[str, str]
    by: tuple[tuple[str, str], ...]
    columns: tuple[str, ...] | None
    tolerance: float | int | None
    is_duration: bool
    exact: bool
    suffix: str


@dataclass(frozen=True)
class Filter(Step):
    kind: ClassVar[str] = "filter"
    where: str


@dataclass(frozen=True)
class Derive(Step):
    kind: ClassVar[str] = "derive"
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rename(Step):
    kind: ClassVar[str] = "rename"
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Select(Step):
    kind: ClassVar[str] = "select"
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Drop(Step):
    kind: ClassVar[str] = "drop"
    columns: tuple[str, ...]


def step_error(number: int, kind: str, what: str, *, why: str = "", todo: str = "") -> ArgumentError:
    """The error of one step: every one names it by number and kind."""
    return ArgumentError(
        f"step {number} ({kind}): {what}",
        code="argument.step",
        why=why,
        todo=todo or "correct the step; the grammar is in docs/preparation.md",
        context={"step": number, "kind": kind},
    )


def _plain(value: Any) -> Any:
    if isinstance(value, ColumnType):
        return value.text
    if isinstance(value, Order | Gap | Bounds):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
