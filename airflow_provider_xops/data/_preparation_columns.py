"""Steps that change values: casts, gaps, bounds and bins, as SQL.

Private to :mod:`airflow_provider_xops.data.preparation`. Each gives the step's SELECT and the columns it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from airflow_provider_xops.data._preparation_steps import Bin, Bounds, Cast, Clip, Gap, Impute
from airflow_provider_xops.data._preparation_values import converted, family, missing, present, text_sql
from airflow_provider_xops.data._preparation_work import (
    NUMERIC,
    ORDERED,
    Work,
    column_sql,
    of,
    ordered,
    quantile,
    select_from,
    values_of,
)  # fmt: skip

__all__ = ["bin_column", "cast", "clip", "impute"]


def cast(work: Work) -> tuple[str, Iterable[str]]:
    step, values = of(work, Cast), values_of(work.lane.columns)
    for name, target in step.columns:
        kind, value = work.kind(name), column_sql(name)
        expression, goal = converted(value, kind, target, column=name, fail=work.error)
        bad = f"NOT {missing(value, kind)} AND ({expression}) IS NULL"
        if not step.null_on_error:
            # Counted before; the query itself does not let one through either.
            refusal = f"CAST(error('a value does not convert') AS {goal})"
            expression = f"CASE WHEN {bad} THEN {refusal} ELSE {expression} END"
        values[name] = expression
        work.measure("not converted", bad, name, fatal=not step.null_on_error)
    return select_from(work, values)


def impute(work: Work) -> tuple[str, Iterable[str]]:
    step, columns = of(work, Impute), work.lane.columns
    values, added = values_of(columns), {}
    for gap in step.columns:
        kind, value = work.kind(gap.column), column_sql(gap.column)
        gone = missing(value, kind)
        filling = _filling(work, gap, kind)
        values[gap.column] = f"CASE WHEN {gone} THEN {filling} ELSE {value} END"
        if gap.method == "forward_fill":
            work.measure("missing before", gone, gap.column)
        else:
            work.measure("filled", gone, gap.column)
        if step.indicator is not None:
            added[gap.column + step.indicator] = gone
    return select_from(work, values, added)


def _filling(work: Work, gap: Gap, kind: str) -> str:
    value = column_sql(gap.column)
    if gap.method is None:
        return work.literal(gap.value, kind, gap.column)
    if gap.method == "forward_fill":
        for name in (*gap.group_by, *(order.column for order in gap.order_by)):
            work.kind(name)
        group = ", ".join(column_sql(name) for name in gap.group_by)
        over = (
            f"PARTITION BY {group} " if group else ""
        ) + f"ORDER BY {ordered(gap.order_by, work.lane.columns)}"
        known = " AND ".join(
            f"NOT {missing(column_sql(order.column), work.lane.columns[order.column])}"
            for order in gap.order_by
        )
        last = (
            f"last_value({present(value, kind)} IGNORE NULLS) OVER ({over} ROWS BETWEEN UNBOUNDED PRECEDING"
            " AND CURRENT ROW)"
        )
        return f"CASE WHEN {known} THEN {last} END"
    if gap.method == "most_frequent":
        counts = (
            f"(SELECT {value} FROM {work.fit_source} AS s WHERE NOT {missing(value, kind)} GROUP BY {value}"
            f" ORDER BY count(*) DESC, {value} LIMIT 1)"
        )
        figure = work.learn(counts, kind)
    elif gap.method == "median":
        work.kind(gap.column, ORDERED)
        figure = work.learn(quantile(value, kind, 0.5), kind)
    else:
        if family(kind) != "float":
            raise work.error(
                f"the mean of column {gap.column!r} is not of its type {kind}",
                todo="cast it to float64 first, use the median, or write the figure",
            )
        work.kind(gap.column, NUMERIC)
        figure = work.learn(f"favg({present(value, kind)})", kind)
    work.require("nothing to learn from", f"{figure} IS NOT NULL", gap.column)
    return figure


def clip(work: Work) -> tuple[str, Iterable[str]]:
    step, values = of(work, Clip), values_of(work.lane.columns)
    for bounds in step.columns:
        kind, value = work.kind(bounds.column, ORDERED), column_sql(bounds.column)
        low = _bound(work, bounds, kind, bounds.lower, bounds.lower_quantile)
        high = _bound(work, bounds, kind, bounds.upper, bounds.upper_quantile)
        there = f"NOT {missing(value, kind)}"
        below, above = f"{there} AND {value} < {low}", f"{there} AND {value} > {high}"
        cases = [
            *([f"WHEN {below} THEN {low}"] if low else []), *([f"WHEN {above} THEN {high}"] if high else [])
        ]  # fmt: skip
        values[bounds.column] = f"CASE {' '.join(cases)} ELSE {value} END"
        moved = " OR ".join(f"({side})" for side, bound in ((below, low), (above, high)) if bound)
        work.measure("clipped", moved, bounds.column)
        if low and high:
            work.require("bounds the wrong way round", f"{low} <= {high}", bounds.column)
    return select_from(work, values)


def _bound(work: Work, bounds: Bounds, kind: str, given: Any, share: float | None) -> str:
    if share is not None:
        figure = work.learn(quantile(column_sql(bounds.column), kind, share), kind)
        work.require("nothing to learn from", f"{figure} IS NOT NULL", bounds.column)
        return figure
    return "" if given is None else work.literal(given, kind, bounds.column)


def bin_column(work: Work) -> tuple[str, Iterable[str]]:
    step = of(work, Bin)
    kind, value = work.kind(step.column, ORDERED), column_sql(step.column)
    if step.quantiles is not None:
        edges = [work.learn(quantile(value, kind, share), kind) for share in step.quantiles]
    else:
        # A bin of whole numbers may end between two of them.
        wide = "DOUBLE" if family(kind) in ("int", "decimal") and any(
            isinstance(edge, float) for edge in step.edges or ()
        ) else kind  # fmt: skip
        edges = ["" if edge is None else work.literal(edge, wide, step.column) for edge in step.edges or ()]
    known = [edge for edge in edges if edge]
    rising = " AND ".join(f"{a} < {b}" for a, b in pairwise(known))
    if rising:
        work.require("edges that do not rise", rising, step.column)
    cases = []
    for number, (low, high) in enumerate(pairwise(edges)):
        closed = not step.right or (step.include_lowest and number == 0)
        inside = [f"{value} {'>=' if closed else '>'} {low}"] if low else []
        inside += [f"{value} {'<=' if step.right else '<'} {high}"] if high else []
        result = str(number) if step.labels is None else text_sql(step.labels[number])
        cases.append(f"WHEN {' AND '.join(inside) or 'TRUE'} THEN {result}")
    gone = missing(value, kind)
    found = f"CASE WHEN {gone} THEN NULL {' '.join(cases)} END"
    number_or_text = "INTEGER" if step.labels is None else "VARCHAR"
    work.measure("outside all bins", f"NOT {gone} AND ({found}) IS NULL", step.column)
    values = values_of(work.lane.columns)
    if step.into == step.column:
        return select_from(work, {**values, step.into: f"CAST({found} AS {number_or_text})"})
    return select_from(work, values, {step.into: f"CAST({found} AS {number_or_text})"})
