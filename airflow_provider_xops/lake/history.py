"""What a commit says about itself, and the record rebuilt from it.

For the commit path and the readers. Every commit of this package carries, in the Delta log, everything that
its :class:`~airflow_provider_xops.records.DatasetVersion` needs, so that a record lost between commit and
evidence is rebuilt exactly. Single log files are read by their number; nothing here walks the whole
history.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import LakeError, NotFoundError
from airflow_provider_xops.lake._commit_job import batch_fence
from airflow_provider_xops.lake.data_files import FileSegment
from airflow_provider_xops.lake.digest import version_digest
from airflow_provider_xops.lake.tables import open_table, ref_of, segments_of
from airflow_provider_xops.records import DatasetRef, DatasetVersion, digest_of

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = [
    "METADATA_KEY",
    "commit_of",
    "find_commit",
    "partition_digests_of",
    "read_commit",
    "record_of",
    "stored_record",
    "stream_position",
    "version_record",
]

METADATA_KEY = "xops"


def read_commit(lake: Lake, table: str, version: int) -> dict[str, Any] | None:
    """What this package wrote into commit ``version`` of ``table``; None if there is none of ours."""
    raw = lake.storage.get(f"{table}/_delta_log/{version:020d}.json")
    for line in (raw or b"").splitlines():
        if line.startswith(b'{"commitInfo"'):
            text = json.loads(line)["commitInfo"].get(METADATA_KEY)
            return json.loads(text) if text else None
    return None


def commit_of(lake: Lake, table: str, token: str, *, after: int) -> int | None:
    """The version above ``after`` whose commit carries ``token``; None if the log does not have it."""
    version = after
    while True:
        version += 1
        metadata = read_commit(lake, table, version)
        if metadata is not None and metadata.get("token") == token:
            return version
        if metadata is None and not lake.storage.exists(f"{table}/_delta_log/{version:020d}.json"):
            return None


def find_commit(
    lake: Lake,
    handle: Any,
    *,
    table: str,
    file: FileSegment,
    known: dict[int, dict[str, Any] | None] | None = None,
) -> tuple[int, dict[str, Any]]:
    """The version (and metadata) whose commit brought the batch that ``file`` belongs to.

    Begins at the first version that can hold the file, which is almost always the one.

    :param known: commits read so far; pass one to several calls, so that the commit of a load of ninety days
        is read once and not ninety times.

    :raises LakeError: ``lake.history_missing``: the log before the table's head was removed.
    """
    known = {} if known is None else known
    for version in range(file.since, handle.version() + 1):
        if version not in known:
            known[version] = read_commit(lake, table, version)
        metadata = known[version]
        for segment in (metadata or {}).get("segments", ()):
            if (segment["partition"], segment["batch16"], segment["fingerprint32"]) == (
                file.partition,
                file.batch16,
                file.fingerprint32,
            ):
                return version, metadata or {}
    raise LakeError(
        f"table {table} does not say which commit wrote partition {file.partition}",
        code="lake.history_missing",
        why=f"no commit from version {file.since} on names it",
        todo="restore the table's _delta_log folder from a backup",
    )


def partition_digests_of(files: Iterable[FileSegment]) -> dict[str, str]:
    """Digest by partition: its batch's own, or over the digests of its batches if it has several."""
    batches: dict[str, dict[str, str]] = {}
    for file in files:
        batches.setdefault(file.partition, {})[file.batch16] = file.digest
    return {
        partition: next(iter(digests.values())) if len(digests) == 1 else version_digest(digests)
        for partition, digests in sorted(batches.items())
    }


def record_of(ref: DatasetRef, files: Iterable[FileSegment], metadata: Mapping[str, Any]) -> DatasetVersion:
    """The record of version ``ref``, from its active files and its commit's metadata."""
    files = list(files)
    digests = partition_digests_of(files)
    written = sorted({segment["partition"] for segment in metadata["segments"]})
    fingerprints = sorted([segment["partition"], segment["fingerprint"]] for segment in metadata["segments"])
    return DatasetVersion.from_json(
        {
            "lake_id": ref.lake_id,
            "table": ref.table,
            "table_uuid": ref.table_uuid,
            "version": ref.version,
            "mode": metadata["mode"],
            "partitions": written,
            "partition_digests": [digests[p] for p in written],
            "batch_ids": [segment["batch_id"] for segment in metadata["segments"]],
            "digest": version_digest(digests),
            "input_fingerprint": fingerprints[0][1] if len(fingerprints) == 1 else digest_of(fingerprints),
            "rows": sum(file.rows for file in files if file.partition in set(written)),
            "total_rows": sum(file.rows for file in files),
            "parents": metadata["parents"],
            "parent_partitions": metadata["parent_partitions"],
            "parent_records": metadata["parent_records"],
            "sources": metadata["sources"],
            "note": metadata["note"],
            "recorded_at": metadata["recorded_at"],
            "produced_by": metadata["produced_by"],
        }
    )


def stored_record(lake: Lake, ref: DatasetRef) -> DatasetVersion | None:
    """The record of ``ref`` that the evidence holds; None if it holds none."""
    identity = [DatasetVersion.kind, ref.lake_id, ref.table, ref.table_uuid, ref.version]
    try:
        record = lake.evidence.get(DatasetVersion.kind, digest_of(identity)[:32])
    except NotFoundError:
        return None
    return record if isinstance(record, DatasetVersion) else None


def stream_position(lake: Lake, table: str, *, partition: str, stream: str) -> int | None:
    """The number of the newest batch of a stream that ``table`` has got; None: none.

    For a writer that was not told whether its commit landed, and whose files may have been compacted since.

    :raises NotFoundError: there is no such table.
    """
    position = open_table(lake, table).transaction_version(batch_fence(partition, stream))
    return None if position is None else int(position)


def version_record(lake: Lake, ref: DatasetRef) -> DatasetVersion:
    """The record of ``ref``: from evidence, else rebuilt from the table itself (and not stored).

    :raises NotFoundError: no such version, or (``not_found.record``) a version this package did not commit.
    """
    record = stored_record(lake, ref)
    if record is not None:
        return record
    handle = open_table(lake, ref.table, ref.version)
    metadata = read_commit(lake, ref.table, ref.version)
    if metadata is None or ref_of(lake, ref.table, handle) != ref:
        raise NotFoundError(
            f"there is no record of {ref}",
            code="not_found.record",
            why="that version was not committed by this package, or is of another table of that name",
            todo="name a version that a commit returned",
        )
    return record_of(ref, segments_of(handle), metadata)
