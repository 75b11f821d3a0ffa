"""Steps that choose rows and columns, and the join as of a time, as SQL.

Private to :mod:`airflow_provider_xops.data.preparation`. Each gives the step's SELECT and the columns it has.
"""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_xops.data._preparation_steps import (
    AsOfJoin,
    Deduplicate,
    Derive,
    Drop,
    Filter,
    Rename,
    Select,
)
from airflow_provider_xops.data._preparation_values import (
    check_expression,
    family,
    missing,
    name_sql,
    present,
)
from airflow_provider_xops.data._preparation_work import (
    ORDERED,
    Work,
    all_of,
    column_sql,
    of,
    ordered,
    same_kind,
    select_from,
    values_of,
)  # fmt: skip

__all__ = ["as_of_join", "deduplicate", "derive", "drop", "filter_rows", "rename", "select_columns"]


def deduplicate(work: Work) -> tuple[str, Iterable[str]]:
    step, columns = of(work, Deduplicate), work.lane.columns
    keys = list(step.keys or columns)
    for name in (*keys, *(order.column for order in step.order_by)):
        work.kind(name)
    if step.keys is None and not step.keep_null_keys:
        return f"SELECT DISTINCT {all_of(columns)} FROM {work.lane.source} AS s", columns
    order = ordered(step.order_by, columns, reverse=step.last)
    same = ", ".join(column_sql(name) for name in keys)
    rank = f"row_number() OVER (PARTITION BY {same} ORDER BY {order})"
    alone = "".join(f" OR {missing(column_sql(name), columns[name])}" for name in keys if step.keep_null_keys)
    ranked = f"SELECT {all_of(columns)}, {rank} AS _xops_rank FROM {work.lane.source} AS s"
    return f"SELECT {all_of(columns)} FROM ({ranked}) AS s WHERE _xops_rank = 1{alone}", columns


def as_of_join(work: Work) -> tuple[str, Iterable[str]]:
    step = of(work, AsOfJoin)
    if step.input not in work.inputs:
        raise work.error(f"there is no input {step.input!r}", todo=f"use one of {', '.join(work.inputs)}")
    other = work.inputs[step.input]
    on, other_on = step.on
    kind, other_kind = work.kind(on, ORDERED), work.kind(other_on, ORDERED, other)
    if not same_kind(kind, other_kind):
        raise work.error(
            f"{on!r} is {kind} and {other_on!r} of {step.input!r} is {other_kind}", todo="cast one"
        )
    for mine, theirs in step.by:
        if not same_kind(work.kind(mine), work.kind(theirs, (), other)):
            raise work.error(
                f"{mine!r} and {theirs!r} of {step.input!r} are not of one type", todo="cast one"
            )
    keys = {other_on, *(theirs for _, theirs in step.by)}
    taken = step.columns if step.columns is not None else tuple(name for name in other if name not in keys)
    for name in taken:
        work.kind(name, (), other)
    # Of several rows of the input with one key and time, the greatest by what is taken: the order of rows is
    # no property of a table.
    known_on = f"NOT {missing(column_sql(other_on), other_kind)}"
    same = ", ".join(column_sql(name) for name in (*(theirs for _, theirs in step.by), other_on))
    order = ordered((), {name: other[name] for name in taken}, reverse=True)
    ranked = (
        f"SELECT s.*, row_number() OVER (PARTITION BY {same} ORDER BY {order}) AS _xops_rank"
        f" FROM {name_sql(step.input)} AS s WHERE {known_on}"
    )
    matched = f"(SELECT * FROM ({ranked}) WHERE _xops_rank = 1) AS r"
    any_match = f"(SELECT {same} FROM {name_sql(step.input)} AS s WHERE {known_on}) AS r"
    mine_on, their_on = present(column_sql(on), kind), f"r.{name_sql(other_on)}"
    conditions = [f"s.{name_sql(mine)} = r.{name_sql(theirs)}" for mine, theirs in step.by]
    conditions.append(f"{mine_on} {'>=' if step.exact else '>'} {their_on}")
    found = f"({their_on} IS NOT NULL{_within(work, step, kind, column_sql(on), their_on)})"
    on_these = " AND ".join(conditions)
    joined = f"{work.lane.source} AS s ASOF LEFT JOIN {matched} ON {on_these}"
    known = {name.lower() for name in work.lane.columns}
    added = {}
    for name in taken:
        new = name + step.suffix if name.lower() in known else name
        added[new] = f"CASE WHEN {found} THEN r.{name_sql(name)} END"
    work.measured_from = f"{work.lane.source} AS s ASOF LEFT JOIN {any_match} ON {on_these}"
    work.measure("without a match", f"NOT {found}")
    return select_from(work, values_of(work.lane.columns), added, joined)


def _within(work: Work, step: AsOfJoin, kind: str, mine: str, theirs: str) -> str:
    if step.tolerance is None:
        return ""
    is_time = family(kind) in ("date", "timestamp")
    if is_time is not step.is_duration:
        raise work.error(
            f"the tolerance does not go with {kind}",
            todo="write a duration ('2 hours')" if is_time else "write a number",
        )
    if family(kind) == "timestamp":
        return f" AND epoch_us({mine}) - epoch_us({theirs}) <= {round(step.tolerance * 1_000_000)}"
    if family(kind) == "date":
        return f" AND ({mine} - {theirs}) * 86400 <= {step.tolerance!r}"
    wide = "HUGEINT" if family(kind) == "int" else "DOUBLE"
    return f" AND CAST({mine} AS {wide}) - CAST({theirs} AS {wide}) <= {step.tolerance!r}"


def filter_rows(work: Work) -> tuple[str, Iterable[str]]:
    where = check_expression(of(work, Filter).where, what="'where'", fail=work.error)
    columns = work.lane.columns
    return f"SELECT {all_of(columns)} FROM {work.lane.source} AS s WHERE {where}", columns


def derive(work: Work) -> tuple[str, Iterable[str]]:
    step, columns = of(work, Derive), work.lane.columns
    # Under names that nobody has: an expression must not see another one's result.
    new = {
        name: (f"_xops_new_{number}", check_expression(text, what=f"column {name!r}", fail=work.error))
        for number, (name, text) in enumerate(step.columns)
    }
    inner = ", ".join([all_of(columns), *(f"{text} AS {hidden}" for hidden, text in new.values())])
    values = {name: f"s.{new[name][0]}" if name in new else column_sql(name) for name in columns}
    added = {name: f"s.{hidden}" for name, (hidden, _) in new.items() if name not in columns}
    return select_from(work, values, added, f"(SELECT {inner} FROM {work.lane.source} AS s) AS s")


def rename(work: Work) -> tuple[str, Iterable[str]]:
    names = dict(of(work, Rename).columns)
    for old in names:
        work.kind(old)
    return select_from(
        work,
        {names.get(name, name): column_sql(name) for name in work.lane.columns},
        count=len(work.lane.columns),
    )


def select_columns(work: Work) -> tuple[str, Iterable[str]]:
    step = of(work, Select)
    for name in step.columns:
        work.kind(name)
    return select_from(work, {name: column_sql(name) for name in step.columns})


def drop(work: Work) -> tuple[str, Iterable[str]]:
    step = of(work, Drop)
    for name in step.columns:
        work.kind(name)
    left = [name for name in work.lane.columns if name not in step.columns]
    if not left:
        raise work.error("no column is left", todo="keep at least one")
    return select_from(work, {name: column_sql(name) for name in left})
