"""Where rows stand on their way: places of a raw version, what was made of each, and which of two is newer.

For publishing and the quarantine. A *place* is what is replaced as one whole: a partition, or in an append
table one batch of it. What stands at a place of the accepted and quarantine tables says in its input
fingerprint (a :class:`Mark`) from which raw rows, by which checks and with which releases it came, so that
the tables themselves, after a crash or a lost record too, say what has been done.

:func:`raw_fence` puts everything that descends from raw data into one order: by the raw version, then by the
number of releases. A commit under it is refused once one that is later in that order has been made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from airflow_provider_xops.errors import LakeError
from airflow_provider_xops.lake._delta import typed_batches
from airflow_provider_xops.lake.data_files import FileSegment, files_dataset, own_schema
from airflow_provider_xops.lake.digest import SegmentDigest, version_digest
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import cast_batch, fit_batch
from airflow_provider_xops.lake.tables import open_table
from airflow_provider_xops.records import DatasetRef, WriteMode

__all__ = [
    "MAX_RELEASES",
    "Mark",
    "Place",
    "open_version",
    "places_of",
    "raw_fence",
    "said_of",
    "verified_rows",
]

# How the fence's whole number is divided: per millisecond of the raw table's age a million, of these a
# thousand a version. A table made anew, a version or a release later thus always has the higher fence.
_PER_MILLISECOND = 1_000_000
_PER_VERSION = 1_000
MAX_RELEASES = _PER_VERSION - 1

# Read ahead of a slow consumer: enough to keep it busy, and no more of a long table than that in memory.
_AHEAD = {"batch_readahead": 4, "fragment_readahead": 1}

_MARK = "split"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A partition, or one batch of an appended one, with the files that hold it in one version.

    :param batch: the raw batch's 16 digits in an append table; "" where the partition is the place.
    """

    partition: str
    batch: str
    files: tuple[FileSegment, ...]

    @property
    def name(self) -> tuple[str, str]:
        """What identifies the place in every table on the way."""
        return self.partition, self.batch

    @property
    def rows(self) -> int:
        """How many rows stand there."""
        return sum(file.rows for file in self.files)

    @property
    def content(self) -> str:
        """What stands there: the digest of the rows, with the version that brought them.

        With the version, because rows that come back after a correction are another delivery of the same.
        """
        found = {file.batch16: f"{file.digest}@{file.since}" for file in self.files}
        return next(iter(found.values())) if len(found) == 1 else version_digest(found)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What an accepted or quarantined place was made from, as its input fingerprint says it.

    :param origin: UUID of the raw table and content of the raw place.
    :param checks: digest of the checks that decided which rows go.
    :param releases: how many releases of mended rows are in it, ``released`` identifies them.
    """

    origin: str
    checks: str
    releases: int = 0
    released: str = ""

    @property
    def text(self) -> str:
        """The fingerprint.

        >>> Mark.read(Mark(origin="u/d@0", checks="c", releases=1, released="r").text).releases
        1
        """
        return "|".join((_MARK, self.origin, self.checks, str(self.releases), self.released))

    @classmethod
    def read(cls, fingerprint: str) -> Mark | None:
        """The mark that a fingerprint is; None if it is another kind of fingerprint."""
        parts = fingerprint.split("|")
        if len(parts) != 5 or parts[0] != _MARK:
            return None
        return cls(origin=parts[1], checks=parts[2], releases=int(parts[3]), released=parts[4])


def raw_fence(created_ms: int | None, version: int, releases: int = 0) -> int:
    """The place of something made from a raw version in the order of all that is.

    :param created_ms: when the raw table was made, in milliseconds since 1970.

    >>> raw_fence(1, 0) < raw_fence(1, 0, releases=1) < raw_fence(1, 1) < raw_fence(2, 0)
    True
    """
    return int(created_ms or 0) * _PER_MILLISECOND + version * _PER_VERSION + releases


def open_version(lake: Lake, ref: DatasetRef) -> Any:
    """A handle on exactly the version ``ref``.

    :raises LakeError: ``lake.other_table``: the table was made anew since.
    :raises NotFoundError: there is no such table or version.
    """
    handle = open_table(lake, ref.table, ref.version)
    if str(handle.metadata().id) != ref.table_uuid:
        raise LakeError(
            f"{ref} is a version of another table of that name", code="lake.other_table",
            why="the table was made anew since", todo="ingest and validate again",
        )  # fmt: skip
    return handle


def places_of(
    files: Iterable[FileSegment], mode: WriteMode, partitions: Sequence[str] | None = None
) -> list[Place]:
    """The places of a version (or of some of its partitions), in canonical order.

    :param files: its active files, in canonical order.
    :param mode: the table's; an appended batch is a place of its own.
    """
    by_partition: dict[str, list[FileSegment]] = {}
    for file in files:
        by_partition.setdefault(file.partition, []).append(file)
    places = []
    for name in sorted(by_partition) if partitions is None else partitions:
        found = by_partition.get(name, [])
        if mode is WriteMode.APPEND:
            places += [
                Place(partition=name, batch=batch, files=tuple(group))
                for batch, group in groupby(found, _batch)
            ]
        else:
            places.append(Place(partition=name, batch="", files=tuple(found)))
    return places


def said_of(metadata: Mapping[str, Any], file: FileSegment) -> Mapping[str, Any]:
    """What a commit says of the place that ``file`` is of: its batch id and its fingerprint, among others."""
    wanted = (file.partition, file.batch16, file.fingerprint32)
    said: Mapping[str, Any] = next(
        each
        for each in metadata["segments"]
        if (each["partition"], each["batch16"], each["fingerprint32"]) == wanted
    )
    return said


def verified_rows(
    lake: Lake, ref: DatasetRef, schema: pa.Schema, files: Sequence[FileSegment]
) -> Iterator[pa.RecordBatch]:
    """The rows of the files, hashed on the way: each batch must have the digest that was recorded.

    :raises LakeError: ``lake.digest_mismatch``, after the last row of a batch whose rows are others.
    """
    for batch16, group in groupby(files, _batch):
        parts = list(group)
        own = own_schema(schema, parts[0])  # without the columns that the table got later
        digest = SegmentDigest(own)
        try:
            batches = files_dataset(lake, ref.table, own, parts).to_batches(**_AHEAD)
            for found in typed_batches(batches, f"cannot read {ref}"):
                rows = cast_batch(found, own)
                digest.update(rows)
                yield fit_batch(rows, schema)
            actual = digest.hexdigest()
        finally:
            digest.close()
        if actual != parts[0].digest:
            raise LakeError(
                f"the rows of {ref}, partition {parts[0].partition}, are not those that were written",
                code="lake.digest_mismatch",
                why="their digest differs from the one recorded when they were committed",
                todo="someone changed files of the lake: run `xops lake verify` and restore them",
                context={"table": ref.table, "version": ref.version, "batch": batch16},
            )


def _batch(file: FileSegment) -> str:
    return file.batch16
