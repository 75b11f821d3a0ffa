"""A past range scored afterwards: with a version of one's choice, or with the champion of each day.

For the scoring operator and `xops score`. Back-scored predictions say so (``purpose``), have ids of their own
and stand beside those that were made to be used; scoring a range twice writes it once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, ModelVersion
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger_state import LedgerState
from airflow_provider_xops.registry.loading import model_of
from airflow_provider_xops.serving.batch import BACK_SCORING, Progress, ScoreResult, rows_to_score, score
from airflow_provider_xops.serving.reasons import ReasonPlan

__all__ = ["BackScored", "PlannedScoring", "back_score", "champions_of_the_days", "plan_with_champions"]

log = logging.getLogger(__name__)

_DAY = re.compile(r"(\d{4}-\d{2}-\d{2})(?!\d)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class PlannedScoring:
    """The partitions that one model version scores.

    :param partitions: in the order given.
    """

    model: ModelVersion
    partitions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BackScored:
    """What was scored by which version.

    :param scored: in the order in which the versions were first champion of a day.
    :param without: days that had no champion and were left out.
    """

    scored: tuple[tuple[ModelVersion, ScoreResult], ...]
    without: tuple[str, ...] = ()

    @property
    def reused(self) -> bool:
        """Everything had been scored before."""
        return all(result.reused for _, result in self.scored)

    @property
    def rows(self) -> int:
        """Predictions there are of it."""
        return sum(run.rows for _, result in self.scored for run in result.runs)


def back_score(
    lake: Lake,
    client: RegistryClient,
    *,
    plan: Sequence[PlannedScoring],
    without: Sequence[str] = (),
    dataset: DatasetRef,
    output_table: str,
    keep_columns: Sequence[str] = (),
    batch_rows: int = 50_000,
    reasons: ReasonPlan | Mapping[str, Any] | int | None = None,
    progress: Callable[[Progress], object] | None = None,
    actor: Actor,
    as_of: datetime,
) -> BackScored:
    """Score what was planned, one version after the other, each exactly once; killed, it is simply run again.

    :param plan: what :func:`plan_with_champions` gave, or one version with its partitions.
    :param output_table: the table of the production predictions, or another.
    :param progress: called after every batch, in this thread, with where the whole plan stands.
    :raises ArgumentError: ``argument.empty``: nothing is planned; and as :func:`.batch.score` does.

    >>> back_score(lake, client, plan=[PlannedScoring(model=v3, partitions=days)], dataset=ref,
    ...            output_table="predictions", actor=actor, as_of=now).rows  # doctest: +SKIP
    842

    What it does not do: it predicts from the dataset version that it is given. What a partition held on the
    day itself is another version, if it was corrected since.
    """
    if not plan:
        raise ArgumentError(
            "there is nothing to score", code="argument.empty", why="no day has a champion",
            todo="name a version instead",
        )  # fmt: skip
    done: list[tuple[ModelVersion, ScoreResult]] = []
    tell = None
    if progress is not None:
        rows = [sum(rows_to_score(lake, dataset, each.partitions).values()) for each in plan]
        tell = _of_the_plan(progress, rows, [len(each.partitions) for each in plan])
    for place, each in enumerate(plan):
        log.info("Back-scoring %d partition(s) of %s with %s.", len(each.partitions), dataset, each.model.ref)
        result = score(
            lake, client, model=each.model, dataset=dataset, partitions=each.partitions,
            output_table=output_table, keep_columns=keep_columns, batch_rows=batch_rows, reasons=reasons,
            purpose=BACK_SCORING, progress=None if tell is None else partial(tell, place), actor=actor,
            as_of=as_of,
        )  # fmt: skip
        done.append((each.model, result))
    return BackScored(scored=tuple(done), without=tuple(without))


def plan_with_champions(
    lake: Lake,
    *,
    model_name: str,
    alias: str = "champion",
    dataset: DatasetRef,
    partitions: Sequence[str] | None = None,
    time_zone: str = "UTC",
    on_no_champion: str = "fail",
) -> tuple[list[PlannedScoring], tuple[str, ...]]:
    """The partitions of a range by the version that was champion when their day ended.

    :param partitions: days (names that begin with ``2013-01-31``); None: all of the dataset version.
    :param time_zone: in which the days begin and end. :param on_no_champion: what happens where a day had
        none: ``fail``, or ``skip`` it.
    :returns: the plan, and the days left out.
    :raises NotFoundError: ``not_found.champion``, ``not_found.partition``, ``not_found.model_record``.
    :raises ArgumentError: ``argument.partition_day``, ``argument.time_zone``, ``argument.on_no_champion``.
    """
    if on_no_champion not in ("fail", "skip"):
        raise ArgumentError(
            f"on_no_champion is {str(on_no_champion)[:40]!r}", code="argument.on_no_champion",
            todo="use fail or skip",
        )  # fmt: skip
    there = read.partitions(lake, dataset)
    chosen = sorted(there) if partitions is None else list(dict.fromkeys(partitions))
    missing = sorted(set(chosen) - set(there))
    if missing:
        raise NotFoundError(
            f"{dataset} has no partition {', '.join(missing[:5])}", code="not_found.partition",
            why=f"it has {len(there)} partitions", todo="name another range",
        )  # fmt: skip
    days = champions_of_the_days(lake, model_name, chosen, alias=alias, time_zone=time_zone)
    without = tuple(name for name, model in days.items() if model is None)
    if without and on_no_champion == "fail":
        raise NotFoundError(
            f"{model_name} had no {alias} on {len(without)} of {len(days)} days, among them {without[0]}",
            code="not_found.champion", why="the ledger's first decision came later, or the alias was retired",
            todo="leave these days out (skip), or name a version",
        )  # fmt: skip
    groups: dict[str, tuple[ModelVersion, list[str]]] = {}
    for name, model in days.items():
        if model is not None:
            groups.setdefault(model.record_id, (model, []))[1].append(name)
    plan = [PlannedScoring(model=model, partitions=tuple(names)) for model, names in groups.values()]
    return plan, without


def champions_of_the_days(
    lake: Lake, model_name: str, days: Sequence[str], *, alias: str = "champion", time_zone: str = "UTC"
) -> dict[str, ModelVersion | None]:
    """The version that was champion when each day ended, by the ledger; None: none was.

    A promotion or rollback of the day itself counts, whatever the hour.

    :param days: partition names that begin with an ISO date.
    :raises ArgumentError: ``argument.partition_day`` (a name that is no day), ``argument.time_zone``.
    """
    zone = _zone(time_zone)
    entries = ledger.state(lake, model_name, alias).entries
    known: dict[int, ModelVersion] = {}
    found: dict[str, ModelVersion | None] = {}
    for name in days:
        ended = _ended(name, zone)
        # Entries are in the order of their decisions: what was decided before another stays before it.
        made = tuple(entry for entry in entries if entry.recorded_at < ended)
        decision = LedgerState(model_name, alias, made).current
        if decision is None or decision.to_version is None:
            found[name] = None
            continue
        if decision.sequence not in known:
            known[decision.sequence] = model_of(lake, decision)
        found[name] = known[decision.sequence]
    return found


def _of_the_plan(
    progress: Callable[[Progress], object], rows: Sequence[int], partitions: Sequence[int]
) -> Callable[[int, Progress], None]:
    """Tells the steps of each part of a plan as steps of the whole.

    :param rows: of each part. :param partitions: how many each part has.
    """
    predicted = [0] * len(rows)

    def tell(place: int, step: Progress) -> None:
        predicted[place] = step.predicted
        progress(
            replace(
                step, number=sum(partitions[:place]) + step.number, partitions=sum(partitions),
                rows=sum(rows[:place]) + step.rows, total=sum(rows), predicted=sum(predicted),
            )
        )  # fmt: skip

    return tell


def _ended(partition: str, zone: ZoneInfo) -> datetime:
    """When a partition's day ended."""
    match = _DAY.match(partition)
    try:
        day = date.fromisoformat(match[1] if match else "")
        return datetime.combine(day + timedelta(days=1), time(), tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentError(
            f"partition {partition[:40]!r} is no day", code="argument.partition_day",
            why="the champion of a day needs one", todo="name a version, or partitions that are dates",
        ) from None  # fmt: skip


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ArgumentError(
            f"{str(name)[:40]!r} is no time zone", code="argument.time_zone",
            todo="give a name such as America/New_York",
        ) from None  # fmt: skip
