"""The tables of a quarantine: what stands in them, and the two commits that part a raw version.

Private to :mod:`airflow_provider_xops.quality.quarantine` and :mod:`~airflow_provider_xops.quality.release`.

Everything is made from three things that are committed once and never change: the raw version, the checks
that decide, and the mended rows in ``<table>__released``. So parting is a function that can be run again at
any time, by anybody, and gives the same: the quarantine is committed first, the accepted rows are those it
does not hold. What is committed stands in the order of :func:`~airflow_provider_xops.data.places.raw_fence`,
so that of two at once the one that knows of fewer releases is refused, looks again and does it with all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from airflow_provider_xops.data.places import MAX_RELEASES, Mark, Place
from airflow_provider_xops.errors import ArgumentError, Superseded
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.schema import SchemaPolicy
from airflow_provider_xops.lake.tables import ACCEPTED_SUFFIX, QUARANTINE_SUFFIX
from airflow_provider_xops.quality._quarantine_rows import (
    Bad,
    Mended,
    accepted_rows,
    quarantine_schema,
    quarantined_rows,
)
from airflow_provider_xops.quality._quarantine_way import (
    Held,
    Name,
    Way,
    held_places,
    mended_rows,
    waiting_rows,
)
from airflow_provider_xops.records import Actor, DatasetVersion

__all__ = ["AS_RAW", "Settled", "countable", "settle", "withdraw"]

log = logging.getLogger(__name__)

# Each further look follows a release, or a split by other checks, that was made meanwhile.
MAX_LOOKS = 16
# The tables on the way have the columns of the raw one, whatever that was allowed to become.
AS_RAW = SchemaPolicy(added="evolve", removed="fill_null")


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A parted raw version: where the rows are, and what was known of them then."""

    accepted: DatasetVersion
    quarantine: DatasetVersion
    bad: Mapping[Name, Bad]
    mended: Mapping[Name, Mended]


def settle(
    way: Way,
    *,
    checks: Callable[[Place, Held | None], str],
    find: Callable[[Mapping[Name, Mended]], Mapping[Name, Bad]] | None,
    guard: Callable[[Mapping[Name, Bad]], None],
    suite: str,
    reports: Sequence[str],
    actor: Actor,
    as_of: datetime,
    note: str = "",
) -> Settled:
    """Part the raw version: bad rows into the quarantine, then the others into the accepted table.

    :param checks: digest of the checks that decide at a place, given what the quarantine holds there.
    :param find: the bad rows by place, for places that were not parted by these checks before; None: every
        place was parted, by whatever checks, and what waits there is bad.
    :param guard: raises if there are too many.
    :raises Superseded: newer raw data have been parted.
    """
    mended = mended_rows(way)
    for _ in range(MAX_LOOKS):
        held = held_places(way, QUARANTINE_SUFFIX)
        marks = {
            place.name: Mark(
                origin=way.origin(place),
                checks=checks(place, held.get(place.name)),
                releases=countable(mended[place.name].releases, place.partition),
                released=mended[place.name].digest,
            )
            for place in way.places
        }
        bad = _bad(way, held, marks, mended, find)
        guard(bad)
        try:
            quarantine = _commit(
                way, QUARANTINE_SUFFIX, marks, mended, bad, suite, reports, actor, as_of, note
            )
            accepted = _commit(way, ACCEPTED_SUFFIX, marks, mended, bad, suite, reports, actor, as_of, note)
        except Superseded:
            before, mended = mended, mended_rows(way)
            if all(mended[name].releases == each.releases for name, each in before.items()):
                raise
            log.info("Rows of %s were released meanwhile; parting it again with them.", way.raw)
            continue
        # Another one, of the same raw version by other checks, has the same fence: both tables must be ours.
        held = held_places(way, QUARANTINE_SUFFIX)
        if any(held[name].mark != mark for name, mark in marks.items()):
            mended = mended_rows(way)
            log.info("%s was parted by other checks meanwhile; parting it again by these.", way.raw)
            continue
        return Settled(accepted=accepted, quarantine=quarantine, bad=bad, mended=mended)
    raise Superseded(
        f"{way.raw} was parted by others {MAX_LOOKS} times while this was parting it",
        code="superseded.release",
        todo="nothing: the last of them parted it",
    )


def withdraw(way: Way, *, reports: Sequence[str], actor: Actor, as_of: datetime) -> int:
    """Empty the places of ``way`` in both tables: all of its raw rows go on by themselves.

    :return: how many rows left the quarantine.
    """
    left = 0
    for suffix in (QUARANTINE_SUFFIX, ACCEPTED_SUFFIX):
        held = held_places(way, suffix)
        places = [place for place in way.places if place.name in held and held[place.name].rows]
        if not places:
            continue
        schema = quarantine_schema(way.schema) if suffix == QUARANTINE_SUFFIX else way.schema
        kind = suffix.strip("_")
        commit(
            way.lake,
            f"{way.table}{suffix}",
            [
                Segment(
                    partition=place.partition,
                    fingerprint=f"passed|{way.origin(place)}",
                    data=schema.empty_table().to_reader,
                    batch_id=way.batch_id(kind, place),
                )
                for place in places
            ],
            mode=way.mode,
            order_by=(),
            schema=schema,
            evolve=AS_RAW,
            parents=[way.raw],
            parent_partitions=[sorted({place.partition for place in places})],
            parent_records=reports,
            actor=way.fenced(actor, 0),
            as_of=as_of,
            note="the raw rows passed whole",
        )
        if suffix == QUARANTINE_SUFFIX:
            left = sum(held[place.name].rows for place in places)
            log.info("%d rows left the quarantine of %s: what replaced them passed.", left, way.table)
    return left


def countable(releases: int, partition: str) -> int:
    """``releases``, if the fence can hold so many.

    :raises ArgumentError: ``argument.too_many_releases``.
    """
    if releases > MAX_RELEASES:
        raise ArgumentError(
            f"partition {partition} has {releases} releases",
            code="argument.too_many_releases",
            why=f"at most {MAX_RELEASES} releases of one delivery can be told apart",
            todo="load a corrected file instead",
        )
    return releases


def _bad(
    way: Way,
    held: Mapping[Name, Held],
    marks: Mapping[Name, Mark],
    mended: Mapping[Name, Mended],
    find: Callable[[Mapping[Name, Mended]], Mapping[Name, Bad]] | None,
) -> dict[Name, Bad]:
    """The bad rows of each place: where these checks have parted it before, those that are still there."""
    bad: dict[Name, Bad] = {}
    for place in way.places:
        here = held.get(place.name)
        wanted = marks[place.name]
        if here is None or here.mark is None or here.mark.origin != wanted.origin:
            continue
        if find is None or here.mark.checks == wanted.checks:
            bad[place.name] = waiting_rows(way, here, place, mended[place.name])
    if find is not None and len(bad) < len(way.places):
        found = find(mended)
        bad = {name: bad.get(name, found[name]) for name in marks}
    return bad


def _commit(
    way: Way,
    suffix: str,
    marks: Mapping[Name, Mark],
    mended: Mapping[Name, Mended],
    bad: Mapping[Name, Bad],
    suite: str,
    reports: Sequence[str],
    actor: Actor,
    as_of: datetime,
    note: str,
) -> DatasetVersion:
    quarantine = suffix == QUARANTINE_SUFFIX
    schema = quarantine_schema(way.schema) if quarantine else way.schema

    def data(place: Place) -> Callable[[], pa.RecordBatchReader]:
        def read() -> pa.RecordBatchReader:
            given = (way.lake, way.raw, way.schema, place, mended[place.name], bad[place.name])
            rows: Iterator[pa.RecordBatch] = (
                quarantined_rows(*given, suite=suite) if quarantine else accepted_rows(*given)
            )
            return pa.RecordBatchReader.from_batches(schema, rows)

        return read

    # A commit has one fence: places with as many releases go together.
    by_releases: dict[int, list[Place]] = {}
    for place in way.places:
        by_releases.setdefault(marks[place.name].releases, []).append(place)
    records = []
    for releases, places in sorted(by_releases.items()):
        released = {source for place in places if (source := mended[place.name].source)}
        parents = [way.raw, *sorted(released)]
        partitions = sorted({place.partition for place in places})
        result = commit(
            way.lake,
            f"{way.table}{suffix}",
            [
                Segment(
                    partition=place.partition,
                    fingerprint=marks[place.name].text,
                    data=data(place),
                    batch_id=way.batch_id(suffix.strip("_"), place),
                )
                for place in places
            ],
            mode=way.mode,
            keys=() if quarantine else way.keys,
            order_by=(),  # the raw order
            schema=schema,
            evolve=AS_RAW,
            parents=parents,
            parent_partitions=[partitions] * len(parents),
            parent_records=reports,
            actor=way.fenced(actor, releases),
            as_of=as_of,
            note=note,
        )
        records.append(result.record)
    return max(records, key=lambda record: record.version)
