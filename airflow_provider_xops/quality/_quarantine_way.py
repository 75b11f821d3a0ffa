"""A raw version on its way through a quarantine, and what stands in the tables beside it.

Private to :mod:`airflow_provider_xops.quality.quarantine` and :mod:`~airflow_provider_xops.quality.release`.
It reads only; :mod:`~airflow_provider_xops.quality._quarantine_tables` writes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.data.places import (
    Mark,
    Place,
    open_version,
    places_of,
    raw_fence,
    said_of,
)
from airflow_provider_xops.lake.data_files import FileSegment, short_batch
from airflow_provider_xops.lake.history import find_commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.schema import PARTITION_COLUMN, fit_batch
from airflow_provider_xops.lake.tables import (
    RELEASED_SUFFIX,
    base_name,
    own_table,
    ref_of,
    segments_of,
    table_info,
    table_schema,
)
from airflow_provider_xops.quality._quarantine_rows import (
    BATCH,
    ORIGIN,
    REASONS,
    RELEASE,
    ROW,
    Bad,
    Mended,
    no_mended,
    quarantine_schema,
)
from airflow_provider_xops.records import Actor, DatasetRef, WriteMode, digest_of

__all__ = [
    "Held",
    "Name",
    "Way",
    "held_places",
    "known_releases",
    "mended_rows",
    "open_way",
    "parent_of",
    "release_batch",
    "waiting_rows",
]

# Partition and batch: what identifies a place.
Name = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A raw version with the places of it that are to be parted.

    :param created: when the raw table was made, in milliseconds since 1970.
    :param mode: of the tables on the way: an appended raw table's batches stay apart, else partitions are
        replaced.
    """

    lake: Lake
    raw: DatasetRef
    created: int | None
    mode: WriteMode
    keys: tuple[str, ...]
    schema: pa.Schema
    places: tuple[Place, ...]

    @property
    def table(self) -> str:
        """The published table's name."""
        return base_name(self.raw.table)

    @property
    def partitions(self) -> tuple[str, ...]:
        """The partitions of the places."""
        return tuple(sorted({place.partition for place in self.places}))

    @property
    def rows(self) -> int:
        """Rows of all places."""
        return sum(place.rows for place in self.places)

    def origin(self, place: Place) -> str:
        """What identifies the raw rows of a place."""
        return f"{self.raw.table_uuid}/{place.content}"

    def batch_id(self, kind: str, place: Place) -> str:
        """The batch id under which a place stands in a table on the way."""
        return f"{kind}:{self.raw.table_uuid}/{place.partition}/{place.batch}"

    def fenced(self, actor: Actor, releases: int) -> Actor:
        """The actor, at this raw version's place in the order."""
        return dataclasses.replace(actor, fence=raw_fence(self.created, self.raw.version, releases))


@dataclass(frozen=True, kw_only=True)
class Held:
    """What stands at a place of a table on the way.

    :param mark: what it was made from; None if it was emptied.
    :param table: the version it was found in; ``raw`` the raw version it was parted from, on the strength of
        ``reports``; ``released`` the mended rows that were known then.
    """

    table: DatasetRef
    raw: DatasetRef | None
    released: DatasetRef | None
    reports: tuple[str, ...]
    mark: Mark | None
    rows: int


def open_way(lake: Lake, raw: DatasetRef, partitions: Sequence[str] | None) -> Way:
    """The places of a raw version, checked: no column of it has a name of ours.

    :raises DataError: ``data.reserved_column``; :raises LakeError: ``lake.other_table``.
    """
    handle = open_version(lake, raw)
    info = table_info(handle)
    mode = WriteMode.APPEND if info is not None and info.mode is WriteMode.APPEND else WriteMode.REPLACE
    schema = table_schema(handle)
    quarantine_schema(schema)
    names = sorted(partitions) if partitions is not None else None
    return Way(
        lake=lake,
        raw=raw,
        created=handle.metadata().created_time,
        mode=mode,
        keys=info.keys if info is not None else (),
        schema=schema,
        places=tuple(places_of(segments_of(handle), mode, names)),
    )


def held_places(way: Way, suffix: str) -> dict[Name, Held]:
    """What the head of the accepted or quarantine table holds at the places of ``way``."""
    table = f"{way.table}{suffix}"
    handle = own_table(way.lake, table)
    if handle is None:
        return {}
    ref = ref_of(way.lake, table, handle)
    kind = suffix.strip("_")
    files: dict[Name, list[FileSegment]] = {}
    for file in segments_of(handle):
        files.setdefault((file.partition, file.batch16 if way.mode is WriteMode.APPEND else ""), []).append(
            file
        )
    found: dict[Name, Held] = {}
    commits: dict[int, dict[str, Any] | None] = {}
    for place in way.places:
        batch = short_batch(way.batch_id(kind, place)) if way.mode is WriteMode.APPEND else ""
        here = files.get((place.partition, batch))
        if here is None:
            continue
        _version, metadata = find_commit(way.lake, handle, table=table, file=here[0], known=commits)
        found[place.name] = Held(
            table=ref,
            raw=parent_of(metadata, way.raw.table),
            released=parent_of(metadata, f"{way.table}{RELEASED_SUFFIX}"),
            reports=tuple(metadata["parent_records"]),
            mark=Mark.read(said_of(metadata, here[0])["fingerprint"]),
            rows=sum(file.rows for file in here),
        )
    return found


def parent_of(metadata: Mapping[str, Any], table: str) -> DatasetRef | None:
    """The version of ``table`` that a commit was made from; None if it was not."""
    found = next((parent for parent in metadata["parents"] if parent["table"] == table), None)
    return DatasetRef(**found) if found else None


def waiting_rows(way: Way, held: Held, place: Place, mended: Mended) -> Bad:
    """The rows of a place that the quarantine holds, without those that were mended since.

    A row that was mended *before* is there because it breaks a check as it is now: it waits again.
    """
    found = scan(
        way.lake,
        held.table,
        partitions=[place.partition],
        columns=[ROW, REASONS],
        filter=pc.field(BATCH) == place.batch,
    ).read_all()
    bad = Bad(positions=found.column(ROW).to_numpy(), reasons=found.column(REASONS).combine_chunks())
    assert held.mark is not None
    if held.mark.released == mended.digest:
        return bad
    known = known_releases(way.lake, held.released)
    since = [release_batch(name) not in known for name in mended.brought_by]
    return bad.without(mended.positions[np.array(since, dtype=bool)])


def known_releases(lake: Lake, released: DatasetRef | None) -> frozenset[str]:
    """The releases (as :func:`release_batch` names them) in a version of the table of mended rows."""
    if released is None:
        return frozenset()
    return frozenset(file.batch16 for file in segments_of(open_version(lake, released)))


def release_batch(name: str) -> str:
    """How the files of the table of mended rows call a release."""
    return short_batch(f"release:{name}")


def mended_rows(way: Way) -> dict[Name, Mended]:
    """The rows that were released of the places of ``way``: of these raw rows, not of other deliveries."""
    found = {place.name: no_mended(way.schema) for place in way.places}
    handle = own_table(way.lake, f"{way.table}{RELEASED_SUFFIX}")
    if handle is None:
        return found
    files = segments_of(handle)
    partitions = sorted({file.partition for file in files} & set(way.partitions))
    if not partitions:
        return found
    ref = ref_of(way.lake, f"{way.table}{RELEASED_SUFFIX}", handle)
    origins = [way.origin(place) for place in way.places]
    table = scan(
        way.lake, ref, partitions=partitions, filter=pc.field(ORIGIN).isin(origins), with_partition=True
    ).read_all()
    for place in way.places if table.num_rows else ():
        mine = table.filter(
            (pc.field(ORIGIN) == way.origin(place))
            & (pc.field(PARTITION_COLUMN) == place.partition)
            & (pc.field(BATCH) == place.batch)
        )
        if mine.num_rows:
            found[place.name] = _mended(mine, way.schema, ref, {file.batch16: file.since for file in files})
    return found


def _mended(table: pa.Table, schema: pa.Schema, source: DatasetRef, since: Mapping[str, int]) -> Mended:
    names = frozenset(table.column(RELEASE).unique().to_pylist())
    # Of a row that was released twice, the later release counts; of two at the same time, one of them.
    age = {name: since[release_batch(name)] for name in names}
    ages = np.array([age[name] for name in table.column(RELEASE).to_pylist()])
    table = table.take(pa.array(np.argsort(ages, kind="stable")))
    positions, last = np.unique(table.column(ROW).to_numpy()[::-1], return_index=True)
    rows = table.take(pa.array(table.num_rows - 1 - last))
    # Of columns that the raw table got later, they have nothing.
    fitted = [fit_batch(batch, schema) for batch in rows.to_batches()]
    return Mended(
        positions=positions,
        rows=pa.Table.from_batches(fitted, schema).combine_chunks(),
        releases=len(names),
        digest=digest_of(sorted(names))[:32],
        names=names,
        brought_by=tuple(rows.column(RELEASE).to_pylist()),
        source=source,
    )
