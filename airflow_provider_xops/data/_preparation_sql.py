"""The steps of a preparation as one SELECT: a common table expression a step, every column by its name.

Private to :mod:`airflow_provider_xops.data.preparation`. A *lane* is the rows of one input on their way
through the steps: the main input's, and those of every input that figures are learned from. Each step is
described by DuckDB over empty tables as soon as it is compiled, so that types are known and what is wrong is
said of the step that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_xops.data._preparation_columns import bin_column, cast, clip, impute
from airflow_provider_xops.data._preparation_rows import (
    as_of_join,
    deduplicate,
    derive,
    drop,
    filter_rows,
    rename,
    select_columns,
)  # fmt: skip
from airflow_provider_xops.data._preparation_steps import (
    AsOfJoin,
    Bin,
    Cast,
    Clip,
    Deduplicate,
    Derive,
    Drop,
    Filter,
    Impute,
    Rename,
    Select,
    Step,
    step_error,
)  # fmt: skip
from airflow_provider_xops.data._preparation_values import name_sql
from airflow_provider_xops.data._preparation_work import Columns, Describe, Lane, Measure, Work, all_of
from airflow_provider_xops.errors import ArgumentError

__all__ = ["Compiled", "Measure", "compile_steps"]

_FIT = '"_xops_fit_'


@dataclass(frozen=True)
class Compiled:
    """``select`` gives the rows, ``counts`` one row with the value of each of ``measures``."""

    select: str
    counts: str
    measures: tuple[Measure, ...]
    columns: Columns


_BODIES: dict[type[Step], Callable[[Work], tuple[str, Iterable[str]]]] = {
    Cast: cast, Deduplicate: deduplicate, Impute: impute, Clip: clip, Bin: bin_column, AsOfJoin: as_of_join,
    Filter: filter_rows, Derive: derive, Rename: rename, Select: select_columns, Drop: drop,
}  # fmt: skip


def compile_steps(
    steps: Sequence[Step], inputs: Mapping[str, Columns], main: str, describe: Describe
) -> Compiled:
    """One SELECT of all steps over the input ``main``.

    :param inputs: the columns of each input.
    :raises ArgumentError: ``argument.step``, naming the step.
    """
    names = [main, *dict.fromkeys(fit for step in steps if (fit := getattr(step, "fit", None)))]
    lanes = {name: _lane(name, inputs, steps) for name in names}
    last_fit = {getattr(step, "fit", None): index for index, step in enumerate(steps)}
    tables: dict[str, str] = {}
    costly: list[str] = []
    counted: list[tuple[list[tuple[Measure, str]], str]] = []
    rows = Measure(0, "read", "rows")
    counted.append(([(rows, "count(*)")], lanes[main].source))
    for index, step in enumerate(steps):
        fit = getattr(step, "fit", None)
        before = lanes[fit] if fit else None
        moved: dict[str, Lane] = {}
        for position, (name, lane) in enumerate(lanes.items()):
            if name != main and last_fit.get(name, -1) <= index:
                continue  # nothing is learned from it any more
            work = Work(step, lane, inputs, before.source if before is not None else "", position == 0)
            if before is not None:
                _check_fit(work, before)
            body, expected = _BODIES[type(step)](work)
            if position == 0 and before is not None:
                fitted = name_sql(f"_xops_fit_{step.number}")
                tables[fitted] = _fit_body(work, before)
            table = name_sql(f"_xops_{step.number}_{position}")
            tables[table] = body
            moved[name] = Lane(name, table, _described(work, tables, table, expected, describe))
            if position == 0:
                if isinstance(step, Deduplicate | AsOfJoin):
                    costly.append(table)
                measured, origin = work.measured, work.measured_from or f"{lane.source} AS s"
                if measured:
                    counted.append((measured, origin))
                if isinstance(step, Filter | Deduplicate):
                    kept = Measure(step.number, step.kind, "rows")
                    counted.append(([(kept, "count(*)")], table))
        lanes.update(moved)
    ones = [
        f"(SELECT {', '.join(f'{sql} AS m{i}_{j}' for j, (_, sql) in enumerate(measured))} FROM {origin})"
        for i, (measured, origin) in enumerate(counted)
    ]
    columns = lanes[main].columns
    return Compiled(
        select=f"{_with(tables)}SELECT {all_of(columns)} FROM {lanes[main].source} AS s",
        # Every step is counted over the ones before it; sorts and joins are not done again for each.
        counts=f"{_with(tables, keep=costly)}SELECT * FROM {', '.join(ones)}",
        measures=tuple(measure for measured, _ in counted for measure, _ in measured),
        columns=columns,
    )


def _lane(name: str, inputs: Mapping[str, Columns], steps: Sequence[Step]) -> Lane:
    if name not in inputs:
        step = next((step for step in steps if getattr(step, "fit", None) == name), None)
        number, kind = (step.number, step.kind) if step is not None else (0, "read")
        raise step_error(number, kind, f"there is no input {name!r}", todo=f"use one of {', '.join(inputs)}")
    reserved = next((column for column in inputs[name] if column.lower().startswith("_xops_")), None)
    if reserved is not None:
        raise step_error(
            0,
            "read",
            f"the column {reserved!r} of input {name!r} has a reserved name",
            todo="rename it before",
        )
    return Lane(name, name_sql(name), dict(inputs[name]))


def _described(
    work: Work, tables: Mapping[str, str], table: str, expected: Iterable[str], describe: Describe
) -> Columns:
    try:
        found = describe(f"{_with(tables)}SELECT * FROM {table}")
    except ArgumentError as error:
        raise work.error("it cannot be run", why=error.why or error.what) from None
    if list(found) != list(expected):
        raise work.error("an expression gives several columns", todo="write one expression for each column")
    lowered = [name.lower() for name in found]
    twice = next((name for name in found if lowered.count(name.lower()) > 1), None)
    if twice is not None:
        raise work.error(f"there would be two columns {twice!r}", todo="rename one of them")
    return found


def _check_fit(work: Work, fit: Lane) -> None:
    """The columns figures are learned for must be the same in the input they are learned from."""
    step = work.step
    names = [step.column] if isinstance(step, Bin) else [item.column for item in step.columns]  # type: ignore[attr-defined]
    for name in names:
        kind = work.kind(name)
        if fit.columns.get(name) != kind:
            raise work.error(
                f"input {fit.alias!r} has no column {name!r} of type {kind} at this step",
                why=f"it is {fit.columns[name]} there" if name in fit.columns else "",
                todo="name an input with the same columns",
            )


def _with(tables: Mapping[str, str], *, keep: Sequence[str] = ()) -> str:
    """The tables as common table expressions; those to ``keep`` are computed once, the others inlined."""
    listed = [
        f"{name} AS {'' if name in keep or name.startswith(_FIT) else 'NOT '}MATERIALIZED ({body})"
        for name, body in tables.items()
    ]
    return f"WITH {', '.join(listed)} " if listed else ""


def _fit_body(work: Work, fit: Lane) -> str:
    # The count makes it an aggregate, and so one row, whatever the figures are.
    figures = ", ".join(["count(*) AS n", *(f"{expression} AS {name}" for name, expression in work.learned)])
    return f"SELECT {figures} FROM {fit.source} AS s"
