"""Parts of the rows looked at on their own: named ones, the values of a column, and weak ones that are found.

For evaluation. :func:`measure` gives each slice the metric with its interval, the metric on the rest, whether
it is worse than the rest beyond chance, and how the champion does on it. Conditions are SQL over the
dataset's columns, also those of found slices, so that what the search found today is named in the plan of
tomorrow.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation._slice_columns import (
    code_column,
    column_sql,
    has_values,
    plain_column,
    value_sql,
)
from airflow_provider_xops.evaluation._slice_losses import (
    metric_of_slices,
    row_losses,
    worse_by_clusters,
    worse_than_rest,
)
from airflow_provider_xops.evaluation._slice_search import search
from airflow_provider_xops.evaluation.plan import NamedSlice, SlicePlan
from airflow_provider_xops.evaluation.scored import Scored
from airflow_provider_xops.evaluation.statistics import adjust, intervals, paired_difference
from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.records import SliceFigure
from airflow_provider_xops.training.metrics import Predictions, compute

__all__ = ["Sliced", "columns_of", "measure", "rows_where"]

log = logging.getLogger(__name__)

# Of a column in ``by``, so many of its most frequent values.
VALUES = 50


@dataclass(frozen=True)
class Sliced:
    """The slices that were measured, and what of the plan was not, in sentences.

    :param looked_at: how many slices the search tested.
    """

    slices: tuple[SliceFigure, ...]
    notes: tuple[str, ...] = ()
    looked_at: int = 0


@dataclass(frozen=True)
class _Part:
    """A slice before it is measured; the p-values are those of a search, or still to be computed."""

    name: str
    conditions: str
    rows: Any
    p_value: float | None = None
    adjusted: float | None = None
    found: bool = False


def columns_of(plan: SlicePlan, names: Sequence[str]) -> tuple[str, ...]:
    """The dataset's columns that a plan's slices look at, of those that there are.

    A column whose name occurs in a condition is taken for needed: one too many costs memory, nothing else.

    :raises ArgumentError: ``argument.plan``: ``by`` or ``columns`` name a column that is not there.

    >>> columns_of(SlicePlan(named=(NamedSlice(name="night", where="Hour < 5"),)), ["hour", "origin"])
    ('hour',)
    """
    missing = [name for name in (*plan.by, *plan.columns) if name not in set(names)]
    if missing:
        raise ArgumentError(
            f"the slices' columns {', '.join(missing)} are not in the dataset", code="argument.plan",
            why=f"its columns are {', '.join(names)}", todo="correct slices.by and slices.columns",
        )  # fmt: skip
    text = " ".join(each.where for each in plan.named).lower()
    in_conditions = [name for name in names if name.lower() in text]
    return tuple(dict.fromkeys([*plan.by, *plan.columns, *in_conditions]))


def measure(
    scored: Scored,
    plan: SlicePlan,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
    correction: str = "holm",
) -> Sliced:
    """Every slice of the plan with its figures: named first, then by value, then found.

    :param correction: for the number of slices. The declared slices and those searched are two families that
        share 1 - ``confidence`` equally, so that a search does not weaken what is said of the named ones.
        ``none`` holds for the declared ones alone: a search without a correction always finds something.
    :raises ArgumentError: ``argument.plan``: a condition is no SQL over the dataset's columns.

    A slice is *weak* if the mean loss of its rows is larger than that of the rest beyond chance: the loss is
    the metric's own where it has one for each row, else the log loss (or 0 and 1), or the squared error. The
    champion's differences have simultaneous intervals: all of them together hold at ``confidence``.

    >>> measure(scored, SlicePlan(by=("origin",))).slices[0].conditions  # doctest: +SKIP
    "origin = 'JFK'"

    What it does not do: it says where a model is weak, not why; where the outcome is harder to foresee, every
    model is.
    """
    said = scored.challenger.said
    notes: list[str] = []
    metric = metric_of_slices(scored.task, said, wanted=plan.metric)
    if plan.metric not in (None, metric):
        notes.append(f"slices: {plan.metric} is no figure of a {scored.task.value}, so {metric} is shown")
    losses = row_losses(scored.task, scored.truth, said, metric=metric)
    declared = [*_named(scored.table, plan.named), *_by_value(scored.table, plan, notes)]
    alpha, families = 1 - confidence, bool(declared) + bool(plan.find)
    found: list[_Part] = []
    looked_at = 0
    if losses is None:
        notes.append("slices: a prediction is missing, so no slice was tested against the rest")
    else:
        declared = _tested(declared, losses, scored.clusters, correction, families)
        if plan.find:
            found, looked_at = _search(scored, plan, losses, alpha, correction, families, notes)
    parts = [*declared, *found]
    slices = tuple(
        _figure(scored, part, metric, alpha=alpha, resamples=resamples, seed=seed, parts=len(parts))
        for part in parts
    )
    log.info(
        "Looked at %d named slices and searched %d: %d weak.", len(declared), looked_at,
        sum(each.weak for each in slices),
    )  # fmt: skip
    return Sliced(slices, tuple(notes), looked_at)


def rows_where(table: pa.Table, where: str, *, name: str) -> Any:
    """Which rows meet a DuckDB condition (booleans, one a row); where it is unknown, a row does not.

    NaN counts as missing. The condition sees the table as columns and nothing else: no files, no network.

    :param name: what the slice is called in an error.
    :raises ArgumentError: ``argument.plan``: it is no condition over these columns, or fails on a row.

    >>> rows_where(pa.table({"x": [1, 2, None]}), "x > 1", name="large").tolist()
    [False, True, False]
    """
    import duckdb

    clean = pa.table({each: plain_column(table.column(each)) for each in table.column_names})
    place = "__row"
    while place in clean.column_names:
        place += "_"
    numbered = clean.append_column(place, pa.array(np.arange(table.num_rows)))
    met = np.zeros(table.num_rows, dtype=bool)
    question = f'SELECT "{place}" FROM rows WHERE (\n{where}\n)'
    with open_box() as box:
        box.register("rows", numbered)
        box.execute("SET enable_external_access = false")
        try:
            if len(box.extract_statements(question)) > 1:
                raise duckdb.ParserException("several statements")
            found = box.execute(question).fetchnumpy()[place]
        except duckdb.Error as error:
            # The texts of these three speak of the condition; those of the others may quote a value.
            tellable = isinstance(
                error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException
            )
            raise ArgumentError(
                f"the condition of slice {name!r} cannot be evaluated", code="argument.plan",
                why=str(error).splitlines()[0] if tellable else f"DuckDB raised {type(error).__name__}",
                todo="write a DuckDB condition over the dataset's columns, such as origin = 'JFK'",
            ) from None  # fmt: skip
    met[np.asarray(found, dtype=np.int64)] = True
    return met


def _named(table: pa.Table, named: Sequence[NamedSlice]) -> list[_Part]:
    return [_Part(each.name, each.where, rows_where(table, each.where, name=each.name)) for each in named]


def _by_value(table: pa.Table, plan: SlicePlan, notes: list[str]) -> list[_Part]:
    parts = []
    for name in plan.by:
        if not has_values(table.schema.field(name).type):
            raise ArgumentError(
                f"the values of {name} cannot be slices", code="argument.plan",
                why=f"its type is {table.schema.field(name).type}",
                todo="take it out of slices.by: that takes text, numbers, booleans, dates and times",
            )  # fmt: skip
        column = plain_column(table.column(name))
        values, occurring = pc.value_counts(column.drop_null()).flatten()
        # Most values of an identifier are rare: only the others become Python objects.
        enough = np.asarray(occurring) >= plan.min_rows
        counts = dict(
            zip(
                values.filter(pa.array(enough)).to_pylist(),
                np.asarray(occurring)[enough].tolist(),
                strict=True,
            )
        )
        kept = sorted(sorted(counts), key=lambda value: -counts[value])[:VALUES]
        if len(kept) < len(values):
            notes.append(
                f"slices: of the {len(values)} values of {name}, {len(kept)} were looked at: those with at"
                f" least {plan.min_rows} rows, at most {VALUES}"
            )
        for value in sorted(kept):
            rows = np.asarray(pc.fill_null(pc.equal(column, pa.scalar(value, column.type)), False))
            parts.append(_Part(f"{name} = {value}", f"{column_sql(name)} = {value_sql(value)}", rows))
        missing = np.asarray(pc.is_null(column))
        if missing.sum() >= plan.min_rows:
            parts.append(_Part(f"{name} is missing", f"{column_sql(name)} is null", missing))
    return parts


def _tested(parts: list[_Part], losses: Any, clusters: Any, correction: str, families: int) -> list[_Part]:
    centered = losses - losses.mean()
    total = (float(len(centered)), float(centered.sum()), float((centered**2).sum()))
    p_values = np.full(len(parts), np.nan)
    for number, part in enumerate(parts):
        mine = centered[part.rows]
        sums = (float(len(mine)), float(mine.sum()), float((mine**2).sum()))
        p_values[number] = worse_than_rest(*sums, total=total)[0]
        if clusters is not None and np.isfinite(p_values[number]):
            by_clusters = worse_by_clusters(part.rows, ~part.rows, losses, clusters)[0]
            p_values[number] = max(p_values[number], by_clusters)
    adjusted = np.minimum(1, _adjuster(correction, families)(p_values))
    return [
        _Part(part.name, part.conditions, part.rows, _known(p_value), _known(corrected))
        for part, p_value, corrected in zip(parts, p_values, adjusted, strict=True)
    ]


def _search(
    scored: Scored, plan: SlicePlan, losses: Any, alpha: float, correction: str, families: int,
    notes: list[str],
) -> tuple[list[_Part], int]:  # fmt: skip
    names = dict.fromkeys([*scored.challenger.model.features, *plan.columns])
    coded = {name: code_column(name, scored.table.column(name), min_rows=plan.min_rows) for name in names}
    left_out = [name for name, each in coded.items() if each is None]
    if left_out:
        notes.append("slices: not searched, because they have no two groups of rows: " + ", ".join(left_out))
    method = "holm" if correction == "none" else correction
    found, looked_at = search(
        [each for each in coded.values() if each is not None], losses, min_rows=plan.min_rows,
        max_conditions=plan.max_conditions, alpha=alpha, limit=plan.limit, clusters=scored.clusters,
        adjust=lambda p_values: adjust(p_values, method), families=families,
    )  # fmt: skip
    parts = [
        _Part(f"found {number}", each.conditions, each.rows, each.p_value, each.adjusted_p_value, found=True)
        for number, each in enumerate(found, 1)
    ]
    return parts, looked_at


def _adjuster(correction: str, families: int) -> Callable[[Any], Any]:
    share = 1 if correction == "none" else max(1, families)
    return lambda p_values: np.minimum(1.0, share * adjust(p_values, correction))


def _figure(
    scored: Scored, part: _Part, metric: str, *, alpha: float, resamples: int, seed: int, parts: int
) -> SliceFigure:  # fmt: skip
    rows, count = part.rows, int(part.rows.sum())
    truth, said = scored.truth[rows], _some(scored.challenger.said, rows)
    clusters = None if scored.clusters is None else scored.clusters[rows]
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "clusters": clusters}
    measured = None
    champion: dict[str, Any] = {}
    if count:
        measured = intervals(scored.task, truth, said, metrics=[metric], confidence=1 - alpha, **settings)[
            metric
        ]
        if scored.champion is not None:
            theirs = _some(scored.champion.said, rows)
            # Bonferroni over the slices: the differences are read side by side. So far out in the tail an end
            # needs more resamples, or it would be the outermost of them, which is not far enough.
            enough = {**settings, "resamples": max(resamples, math.ceil(2 * parts / alpha))}
            compared = paired_difference(
                scored.task, truth, said, theirs, metric=metric, confidence=1 - alpha / parts, **enough
            )
            champion = {
                "champion": compared.champion,
                "champion_difference": compared.difference,
                "champion_difference_lower": compared.lower,
                "champion_difference_upper": compared.upper,
            }
    rest = compute(scored.task, scored.truth[~rows], _some(scored.challenger.said, ~rows), [metric])
    return SliceFigure(
        name=part.name, conditions=part.conditions, metric=metric, rows=count, share=count / scored.rows,
        value=measured.value if measured else None, lower=measured.lower if measured else None,
        upper=measured.upper if measured else None, rest=rest.get(metric), p_value=part.p_value,
        adjusted_p_value=part.adjusted, found=part.found,
        weak=part.adjusted is not None and part.adjusted <= alpha, **champion,
    )  # fmt: skip


def _some(said: Predictions, rows: Any) -> Predictions:
    return Predictions(
        labels=said.labels[rows], classes=said.classes,
        probabilities=None if said.probabilities is None else said.probabilities[rows],
    )  # fmt: skip


def _known(p_value: float) -> float | None:
    return float(p_value) if np.isfinite(p_value) else None
