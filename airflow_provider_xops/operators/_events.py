"""Which dataset version a run is about: from the asset events that started it, a parameter, or the head.

For the operators that consume a table. Airflow queues several asset events into one run: of one table, all
distinct partitions count, at the highest version named.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError, DataError, NotFoundError

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = ["TriggeringVersion", "triggering_versions"]

log = logging.getLogger(__name__)

# What the Airflow UI's "create asset event" sends: somebody started the run by hand.
_BY_HAND = {"from_rest_api"}


@dataclass(frozen=True, kw_only=True)
class TriggeringVersion:
    """One table's version that a run is about.

    :param ref: the highest version of the table among the events (or the one named, or the head).
    :param partitions: the distinct partitions the events name; None: the run was not started by events, all
        count.
    :param records: the record ids of the events' versions.
    :param resolved: how it was found: ``event``, ``parameter`` or ``head``.
    """

    ref: records.DatasetRef
    partitions: tuple[str, ...] | None
    records: tuple[str, ...] = ()
    resolved: str


def triggering_versions(
    context: Context, *, lake: Lake, table: str | None = None, parameter: str = "dataset_version"
) -> list[TriggeringVersion]:
    """The dataset versions this run is about, one entry a table, sorted by table.

    :param table: only this table; None: every table that the events name.
    :param parameter: the DAG parameter by which a hand-started run names a version: a number, or
        ``TABLE@VERSION``.
    :raises DataError: an event's extra is not a record (``data.event_unreadable``).
    :raises ArgumentError: the parameter is malformed, or neither events, parameter nor ``table`` name a
        table.
    :raises NotFoundError: the named version or table does not exist.

    Example::

        for version in triggering_versions(context, lake=lake, table="flights"):
            score(lake, ..., dataset=version.ref, partitions=version.partitions)

    What it does not do: it never looks at the data, and never skips versions between two events.
    """
    found = _from_events(context, lake, table)
    if not found:
        found = [_by_hand(context, lake, table, parameter)]
    for version in found:
        log.info("This run is about %s, %s (from the %s).", version.ref, _scope(version), version.resolved)
    return found


def _from_events(context: Context, lake: Lake, table: str | None) -> list[TriggeringVersion]:
    by_table: dict[str, list[records.DatasetVersion]] = {}
    for name, extra in _extras(context):
        record = _version_in(extra, asset=name, lake=lake)
        if record is not None and table in (None, record.table):
            by_table.setdefault(record.table, []).append(record)
    found = []
    for _, versions in sorted(by_table.items()):
        highest = max(versions, key=lambda record: record.version)
        same_table = [record for record in versions if record.table_uuid == highest.table_uuid]
        found.append(
            TriggeringVersion(
                ref=highest.ref,
                partitions=tuple(
                    sorted({partition for record in same_table for partition in record.partitions})
                ),
                records=tuple(sorted({record.record_id for record in same_table})),
                resolved="event",
            )
        )
    return found


def _extras(context: Context) -> Iterator[tuple[str, Mapping[str, Any]]]:
    events = context.get("triggering_asset_events") or {}
    for asset in list(events):
        for event in events[asset]:
            yield getattr(asset, "name", str(asset)), event.extra or {}


def _version_in(extra: Mapping[str, Any], *, asset: str, lake: Lake) -> records.DatasetVersion | None:
    """The dataset version an event carries; None for another kind of record and for an event made by hand."""
    content: Any = extra.get("payload") if extra.get("from_trigger") else extra
    if isinstance(content, Mapping) and set(content) <= _BY_HAND:
        return None
    kind = content.get("kind") if isinstance(content, Mapping) else None
    if kind in records.RECORD_TYPES and kind != records.DatasetVersion.kind:
        return None
    try:
        record = lake.evidence.resolve(content, records.DatasetVersion.kind)
        if not isinstance(record, records.DatasetVersion):
            raise DataError(f"the extra holds a {type(record).__name__}", code="data.record_kind")
    except (DataError, NotFoundError, ArgumentError) as error:
        raise DataError(
            f"an event of the asset {asset!r} carries no readable dataset version",
            code="data.event_unreadable",
            why=f"{error.code}: {error.what}",
            todo="let an XOps operator emit the asset, or start the run by hand and name the version",
        ) from error
    if record.lake_id != lake.lake_id:
        raise DataError(
            f"an event of the asset {asset!r} is about the lake {record.lake_id}",
            code="data.event_other_lake",
            why=f"this task's connection opens the lake {lake.lake_id}",
            todo="use one lake for producer and consumer, or correct the connection",
        )
    return record


def _by_hand(context: Context, lake: Lake, table: str | None, parameter: str) -> TriggeringVersion:
    from airflow_provider_xops.lake.tables import resolve_ref

    given = (context.get("params") or {}).get(parameter)
    version: int | None = None
    if given not in (None, ""):
        named, version = parse_version(given, what=f"the parameter {parameter}")
        if named is not None and table is not None and named != table:
            raise ArgumentError(
                f"the parameter {parameter} names {named}@{version}, this task works on {table}",
                code="argument.dataset_version", todo=f"name a version of {table}",
            )  # fmt: skip
        table = named or table
    if table is None:
        raise ArgumentError(
            "no asset event started this run, and nothing names its table",
            code="argument.dataset",
            todo=f"start it with the parameter {parameter}=TABLE@VERSION, or give the operator a table",
        )
    ref = resolve_ref(lake, table, version=version)
    return TriggeringVersion(ref=ref, partitions=None, resolved="head" if version is None else "parameter")


def parse_version(given: Any, *, what: str) -> tuple[str | None, int]:
    """``(table or None, version)`` from ``7``, ``"7"`` or ``"flights@7"``.

    :raises ArgumentError: none of these forms (``argument.dataset_version``).
    """
    table, _, number = str(given).strip().rpartition("@")
    if isinstance(given, bool) or not number.isdecimal():
        raise ArgumentError(
            f"{what} is {str(given)[:80]!r}", code="argument.dataset_version",
            todo="give a version number, or TABLE@VERSION",
        )  # fmt: skip
    return table or None, int(number)


def _scope(version: TriggeringVersion) -> str:
    if version.partitions is None:
        return "all partitions"
    return f"{len(version.partitions)} partition(s)"
