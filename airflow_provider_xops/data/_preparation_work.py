"""What the compilation of a step knows of its rows, and the pieces of SQL that every step is made of.

Private to :mod:`airflow_provider_xops.data.preparation`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_xops.data._preparation_steps import Order, Step, step_error
from airflow_provider_xops.data._preparation_values import family, literal, name_sql, present
from airflow_provider_xops.errors import ArgumentError

__all__ = [
    "NUMERIC", "ORDERED", "Columns", "Describe", "Lane", "Measure", "Work", "all_of", "column_sql", "of",
    "ordered", "quantile", "same_kind", "select_from", "values_of",
]  # fmt: skip

Columns = dict[str, str]
# Columns of a query over the tables known so far: {name: DuckDB type}.
Describe = Callable[[str], Columns]

NUMERIC = ("int", "float", "decimal")
ORDERED = (*NUMERIC, "date", "timestamp")


@dataclass(frozen=True)
class Measure:
    """One count over a step, of a ``column``; where a ``fatal`` one is not 0, nothing is written."""

    number: int
    kind: str
    what: str
    column: str = ""
    fatal: bool = False


@dataclass
class Lane:
    """``source``: the quoted name of the rows before the next step."""

    alias: str
    source: str
    columns: Columns


@dataclass
class Work:
    """What one step has to know, and what it leaves for counting."""

    step: Step
    lane: Lane
    inputs: Mapping[str, Columns]
    fit_source: str = ""
    is_main: bool = True
    learned: list[tuple[str, str]] = field(default_factory=list)
    measured: list[tuple[Measure, str]] = field(default_factory=list)
    measured_from: str = ""

    def error(self, what: str, *, why: str = "", todo: str = "") -> ArgumentError:
        where = "" if self.is_main else f" (in {self.lane.alias!r}, which a later step learns from)"
        return step_error(self.step.number, self.step.kind, what + where, why=why, todo=todo)

    def kind(self, column: str, among: Sequence[str] = (), columns: Columns | None = None) -> str:
        """The type of a column that must be there (and of one of these families)."""
        known = self.lane.columns if columns is None else columns
        if column not in known:
            close = difflib.get_close_matches(column, known, 1)
            raise self.error(
                f"there is no column {column!r}",
                todo=f"write {close[0]!r}" if close else f"use one of {', '.join(list(known)[:20])}",
            )
        if among and family(known[column]) not in among:
            raise self.error(f"column {column!r} is {known[column]}", todo="cast it first")
        return known[column]

    def literal(self, value: Any, kind: str, column: str) -> str:
        return literal(value, kind, column=column, fail=self.error)

    def learn(self, expression: str, kind: str) -> str:
        """A figure of the ``fit`` lane, as a value of this one."""
        name = f"f{len(self.learned)}"
        self.learned.append((name, expression))
        table = name_sql(f"_xops_fit_{self.step.number}")
        return f"CAST((SELECT {name} FROM {table}) AS {kind})"

    def measure(self, what: str, condition: str, column: str = "", *, fatal: bool = False) -> None:
        """Count the rows for which ``condition`` (over ``s``) is true."""
        measure = Measure(self.step.number, self.step.kind, what, column, fatal)
        self.measured.append((measure, f"count(*) FILTER (WHERE {condition})"))

    def require(self, what: str, condition: str, column: str) -> None:
        """A condition over learned figures alone."""
        measure = Measure(self.step.number, self.step.kind, what, column, fatal=True)
        self.measured.append((measure, f"CASE WHEN coalesce({condition}, FALSE) THEN 0 ELSE 1 END"))


def of(work: Work, kind: type[Any]) -> Any:
    assert isinstance(work.step, kind)
    return work.step


def column_sql(name: str) -> str:
    return f"s.{name_sql(name)}"


def values_of(columns: Iterable[str]) -> dict[str, str]:
    return {name: column_sql(name) for name in columns}


def all_of(columns: Iterable[str]) -> str:
    return ", ".join(column_sql(name) for name in columns)


def select_from(
    work: Work,
    values: Mapping[str, str],
    added: Mapping[str, str] | None = None,
    source: str = "",
    count: int | None = None,
) -> tuple[str, Iterable[str]]:
    known = {name.lower() for name in values}
    for name in added or {}:
        if name.lower() in known:
            raise work.error(f"there is a column {name!r} already", todo="name the new one differently")
        known.add(name.lower())
    if count is not None and len(known) != count:
        raise work.error("two columns would have one name", todo="rename one of them")
    both = {**values, **(added or {})}
    listed = ", ".join(f"{sql} AS {name_sql(name)}" for name, sql in both.items())
    return f"SELECT {listed} FROM {source or f'{work.lane.source} AS s'}", list(both)


def ordered(order_by: Sequence[Order], columns: Columns, *, reverse: bool = False) -> str:
    """An ORDER BY without ties: what is missing comes last, then all other columns decide."""
    parts = [
        f"{present(column_sql(order.column), columns[order.column])} "
        f"{'DESC' if order.descending is not reverse else 'ASC'} NULLS LAST"
        for order in order_by
    ]
    way = "DESC NULLS LAST" if reverse else "ASC NULLS FIRST"
    parts += [f"{_sortable(name, kind)} {way}" for name, kind in columns.items()]
    return ", ".join(parts)


def _sortable(name: str, kind: str) -> str:
    return f"CAST({column_sql(name)} AS VARCHAR)" if "MAP(" in kind else column_sql(name)


def quantile(value: str, kind: str, share: float) -> str:
    """As pandas interpolates; of whole numbers, decimals and times a value that occurs."""
    how = "quantile_cont" if family(kind) == "float" else "quantile_disc"
    return f"{how}({present(value, kind)}, {share!r})"


def same_kind(one: str, other: str) -> bool:
    return family(one) == family(other) or {family(one), family(other)} <= set(NUMERIC)
