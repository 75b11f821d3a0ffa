"""Rows judged as ranked lists: one list a group, ordered by the model's score.

For evaluation of models that order things: search results of a query, flights to look at on a day. Groups are
what is independent, so intervals are over groups. Sources: Järvelin and Kekäläinen (2002) for NDCG; McSherry
and Najork (2008) for ties.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.plan import RankingPlan
from airflow_provider_xops.evaluation.statistics._kernels import mean_of
from airflow_provider_xops.evaluation.statistics._resampling import Resampled, Units, p_value, resample
from airflow_provider_xops.evaluation.statistics._sums import Floats
from airflow_provider_xops.evaluation.statistics.comparing import correct
from airflow_provider_xops.evaluation.statistics.confidence import bounds_of, check_arguments
from airflow_provider_xops.records import Comparison, MetricFigure
from airflow_provider_xops.training.metrics import Predictions

__all__ = ["by_group", "compare", "measure"]


def measure(
    table: pa.Table, truth: Any, said: Predictions, plan: RankingPlan, *, confidence: float = 0.95,
    resamples: int = 2_000, seed: int = 0,
) -> dict[str, MetricFigure]:  # fmt: skip
    """The mean over the groups of every ranking metric, with its interval.

    :param table: has the column ``plan.group``; rows where it is missing belong to no list.
    :param truth: the relevance of each row: numbers of 0 or more, or two classes, of which the second is
        relevant. :param said: the score is the probability of the second class, or the predicted number.
    :param plan: ``at`` are the lengths of list that are judged.
    :returns: ``mrr``, and ``ndcg@k``, ``map@k``, ``precision@k``, ``recall@k`` for each k. Groups without
        anything relevant say nothing and are left out; ``rows`` counts the rows of the others.
    :raises ArgumentError: ``argument.ranking``: no such column, or relevances that are no numbers of 0 or
        more.

    NDCG (with the relevance itself as gain), precision and recall are means over the orders of tied scores;
    MAP and MRR take the worst of those orders.

    >>> measure(table, truth, said, RankingPlan(group="query"))["ndcg@10"].value  # doctest: +SKIP
    0.71

    What it does not do: judge rows that were never shown; it only knows the rows of the table.
    """
    check_arguments(truth, (said,), confidence, resamples, None)
    lists = by_group(table, truth, said, plan)
    units = Units.of(lists.groups, None, seed)
    figures = {}
    jobs = {name: (mean_of(values),) for name, values in lists.values.items() if lists.groups}
    drawn = resample(jobs, units, resamples=resamples, seed=seed) if units.enough else {}
    for name, values in lists.values.items():
        value = float(values.mean()) if lists.groups else None
        figures[name] = MetricFigure(metric=name, value=value, rows=lists.rows)
        bounds = bounds_of(value, drawn[name], confidence) if value is not None and name in drawn else None
        if bounds is not None:
            figures[name] = dataclasses.replace(
                figures[name], lower=bounds[0], upper=bounds[1], confidence=confidence, method=bounds[2]
            )
    return figures


def compare(
    table: pa.Table, truth: Any, challenger: Predictions, champion: Predictions, plan: RankingPlan, *,
    tested: Sequence[str] = (), confidence: float = 0.95, resamples: int = 2_000, seed: int = 0,
    correction: str = "holm", candidates: int = 1,
) -> tuple[Comparison, ...]:  # fmt: skip
    """The difference of every ranking metric over the same groups, with its interval.

    :param tested: metrics on which the challenger is tested to be better, by a paired bootstrap of groups;
        corrected as in :func:`airflow_provider_xops.evaluation.statistics.comparing.compare`.
    :raises ArgumentError: ``argument.ranking``, ``argument.correction``.
    """
    check_arguments(truth, (challenger, champion), confidence, resamples, None)
    both = [by_group(table, truth, said, plan) for said in (challenger, champion)]
    unknown = [name for name in tested if name not in both[0].values]
    if unknown:
        raise _refused(
            f"{unknown[0]!r} is no ranking metric of this plan", f"use one of {', '.join(both[0].values)}"
        )
    if not np.array_equal(both[0].members, both[1].members):
        raise _refused("the two models mean different rows by relevant", "compare models of the same classes")
    units = Units.of(both[0].groups, None, seed)
    jobs = {name: [mean_of(each.values[name]) for each in both] for name in both[0].values if units.enough}
    drawn = resample(jobs, units, resamples=resamples, seed=seed)
    compared = []
    for name in both[0].values:
        mine, theirs = (float(each.values[name].mean()) if each.groups else None for each in both)
        one = Comparison(
            metric=name, greater_is_better=True, challenger=mine, champion=theirs, difference=None,
            hypothesis="superiority" if name in tested else "", confidence=confidence,
        )  # fmt: skip
        if mine is not None and theirs is not None:
            one = dataclasses.replace(one, difference=mine - theirs)
            if name in drawn:
                one = _tested(one, mine - theirs, drawn[name], units, confidence)
        compared.append(one)
    return correct(compared, correction, candidates)


def _tested(one: Comparison, ahead: float, drawn: Resampled, units: Units, confidence: float) -> Comparison:
    """The comparison with its interval and, where it states something, its p-value."""
    bounds = bounds_of(ahead, drawn, confidence)
    same = drawn.constant and ahead == 0
    lower, upper = bounds[:2] if bounds else (0.0, 0.0) if same else (None, None)
    one = dataclasses.replace(one, lower=lower, upper=upper)
    if not one.hypothesis:
        return one
    p = p_value(ahead, 0.0, drawn, units.independent)
    return dataclasses.replace(one, test="paired_bootstrap", p_value=p)


@dataclass(frozen=True, eq=False)
class Lists:
    """Every ranking metric of each group that has something relevant.

    :param groups: how many those are. :param rows: how many rows they have.
    :param members: how many relevant rows each group of the table has.
    """

    values: dict[str, Floats]
    groups: int
    rows: int
    members: Floats


def by_group(table: pa.Table, truth: Any, said: Predictions, plan: RankingPlan) -> Lists:
    """The metrics of each list, in the order in which the groups first appear.

    :raises ArgumentError: ``argument.ranking``.
    """
    group, relevance, score = _columns(table, truth, said, plan)
    order = np.lexsort((-score, group))
    group, relevance, score = group[order], relevance[order], score[order]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    sizes = np.diff(starts, append=len(group))
    if not len(group):
        return Lists(values={name: np.empty(0) for name in _names(plan)}, groups=0, rows=0,
                     members=np.empty(0))  # fmt: skip
    of_group = np.repeat(np.arange(len(starts)), sizes)
    rank = np.arange(len(group)) - np.repeat(starts, sizes)
    relevant = (relevance > 0).astype(np.float64)
    found = np.add.reduceat(relevant, starts)
    kept = found > 0

    # Rows of one list with one score: each stands for the mean of them.
    tied = np.cumsum((np.diff(of_group, prepend=-1) != 0) | (np.diff(score, prepend=np.nan) != 0)) - 1
    tie_sizes = np.bincount(tied)
    gain = (np.bincount(tied, weights=relevance) / tie_sizes)[tied]
    hits = (np.bincount(tied, weights=relevant) / tie_sizes)[tied]
    worst = np.lexsort((relevant, tied))
    worst_relevant = relevant[worst]
    before = np.cumsum(worst_relevant)
    caught = before - np.repeat(before[starts] - worst_relevant[starts], sizes)
    ideal = relevance[np.lexsort((-relevance, of_group))]
    discount = 1 / np.log2(rank + 2.0)

    def total(values: Floats, length: int | None = None) -> Floats:
        counted = values if length is None else np.where(rank < length, values, 0.0)
        return np.asarray(np.add.reduceat(counted, starts))[kept]

    first = np.where(worst_relevant * (caught == 1) > 0, 1 / (rank + 1.0), 0.0)
    values = {"mrr": total(first)}
    for length in plan.at:
        values[f"ndcg@{length}"] = total(gain * discount, length) / total(ideal * discount, length)
        values[f"map@{length}"] = total(worst_relevant * caught / (rank + 1.0), length) / np.minimum(
            found[kept], length
        )
        values[f"precision@{length}"] = total(hits, length) / length
        values[f"recall@{length}"] = total(hits, length) / found[kept]
    return Lists(values=values, groups=int(kept.sum()), rows=int(sizes[kept].sum()), members=found)


def _names(plan: RankingPlan) -> list[str]:
    return ["mrr", *(f"{name}@{k}" for k in plan.at for name in ("ndcg", "map", "precision", "recall"))]


def _columns(
    table: pa.Table, truth: Any, said: Predictions, plan: RankingPlan
) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Group number, relevance and score of the rows that belong to a list."""
    if plan.group not in table.column_names:
        raise _refused(f"there is no column {plan.group!r} to group lists by", "name a column of the dataset")
    column = table.column(plan.group).combine_chunks()
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    group = np.asarray(pc.fill_null(encoded.indices, -1), dtype=np.int64)
    binary = said.classes is not None and len(said.classes) == 2
    relevance = np.asarray(truth == said.classes[1] if binary else truth)
    score = said.scores if said.scores is not None else said.labels
    if relevance.dtype == object or np.asarray(score).dtype == object:
        raise _refused("the relevance or the score is text", "predict a number, or one of two classes")
    relevance, score = relevance.astype(np.float64), np.asarray(score, dtype=np.float64)
    belongs = group >= 0
    if not (np.isfinite(relevance) & (relevance >= 0) & np.isfinite(score))[belongs].all():
        raise _refused("a relevance is below 0, or it or a score is missing", "give numbers of 0 or more")
    return group[belongs], relevance[belongs], score[belongs]


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.ranking", todo=todo)
