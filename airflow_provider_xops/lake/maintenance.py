"""Upkeep of a lake: fold evidence into tables, remove data files that no kept version needs.

For the maintenance DAG and the ``xops`` command. Both run beside every other writer, and can be killed at any
instant and run again.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from airflow_provider_xops.errors import ArgumentError, ConflictError, DataError, LakeError
from airflow_provider_xops.lake._delta import delta_errors
from airflow_provider_xops.lake._folded import Folded, folded_path
from airflow_provider_xops.lake.evidence import EVIDENCE, decode_record
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.pins import pins
from airflow_provider_xops.lake.storage import Storage
from airflow_provider_xops.records import Actor, Record

__all__ = ["FoldResult", "VacuumResult", "fold_evidence", "vacuum"]

log = logging.getLogger(__name__)

ATTEMPTS = 8
SCRATCH_AGE = timedelta(days=1)  # no write takes so long; older scratch files are a killed process's
_TRANSACTION = "xops:fold"
_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("recorded_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("json", pa.string(), nullable=False),
    ]
)
_CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.dataSkippingStatsColumns": "record_id",  # no value of a record is copied into the log's statistics
}


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """What a fold did: records added to the table, objects removed, objects left (younger, or unreadable)."""

    kind: str
    folded: int
    removed: int
    left: int


@dataclass(frozen=True, kw_only=True)
class VacuumResult:
    """The data files a vacuum removed (or would remove), and the pinned versions it kept whole."""

    table: str
    files: tuple[str, ...]
    kept_versions: tuple[int, ...]
    dry_run: bool


def fold_evidence(
    lake: Lake, kind: str, *, older_than: datetime, actor: Actor, as_of: datetime
) -> FoldResult:
    """Move the evidence objects of one kind that were recorded before ``older_than`` into its Delta table.

    Objects go only after the table, read again from the storage, has them. Readers see every record once
    throughout. Of several folds at once one adds; the others find its rows and add the rest.

    :param older_than: keep younger objects as they are (aware, UTC); a day or more is a good distance.
    :raises ConflictError: other folds won eight times in a row.

    An object that cannot be read as a record is left where it is, with a warning.
    """
    lake.storage.check_writable()
    storage, folded = lake.storage, Folded.read(lake.storage, kind)
    paths = {
        path.rpartition("/")[2].removesuffix(".json"): path for path in storage.list(f"{EVIDENCE}/{kind}/")
    }
    ripe = {record.record_id: text for record, text in _readable(storage, kind, paths, folded, older_than)}
    added = _append(storage, kind, ripe, f"{actor.producer.id} at {as_of.isoformat()}") if ripe else 0
    stored = Folded.read(storage, kind)
    gone = [path for record_id, path in paths.items() if record_id in stored]
    for path in gone:
        storage.delete(path)
    result = FoldResult(kind=kind, folded=added, removed=len(gone), left=len(paths) - len(gone))
    log.info(
        "Folded %d records of kind %s; %d objects removed, %d left.", added, kind, len(gone), result.left
    )
    return result


def vacuum(
    lake: Lake, table: str, *, retention: timedelta, dry_run: bool, actor: Actor, as_of: datetime
) -> VacuumResult:
    """Remove the files of ``table`` that left it more than ``retention`` ago and that no pin needs.

    Versions older than ``retention`` that nobody pinned can no longer be read afterwards; their commit
    metadata and their evidence stay. The table's version number does not change.

    :param retention: how long every version stays readable, by the wall clock; rounded up to whole hours. It
        must be longer than the longest write: files of a commit in progress are told from orphans by age.
    :param dry_run: only tell what would go.
    :raises ArgumentError: a negative retention; :raises LakeError: an adopted table (``lake.adopted``): its
        owner vacuums it; :raises NotFoundError: there is no such table.
    """
    if retention < timedelta(0):
        raise ArgumentError(
            f"cannot vacuum {table} with a negative retention",
            code="argument.retention",
            todo="give 0 hours or more",
        )
    if lake.storage.exists(f"_xops/adopted/{table}.json"):
        raise LakeError(
            f"{table} is adopted, so this lake does not remove its files", code="lake.adopted",
            todo="vacuum it where it is written, keeping the versions that `xops lake pins` lists",
        )  # fmt: skip
    hours = math.ceil(retention / timedelta(hours=1))
    with delta_errors(f"cannot vacuum {table} in the lake at {lake.uri}"):
        handle = DeltaTable(lake.storage.table_uri(table), storage_options=lake.storage.delta_options())
        table_uuid = str(handle.metadata().id)
        kept = sorted(
            {each.dataset.version for each in pins(lake, table) if each.dataset.table_uuid == table_uuid}
        )
        # Only asked what to remove: its own removal would add two commits, and versions without a record.
        unneeded = sorted(
            handle.vacuum(
                hours, dry_run=True, enforce_retention_duration=False, full=True, keep_versions=kept
            )
        )
    if not dry_run:
        for path in unneeded:
            lake.storage.delete(f"{table}/{unquote(path)}")
        lake.storage.clean_scratch(older_than=as_of - max(retention, SCRATCH_AGE))
    log.info(
        "Vacuum of %s by %s at %s: %d files %s; pinned versions kept: %s.", table, actor.producer.id,
        as_of.isoformat(), len(unneeded), "would go" if dry_run else "removed", kept or "none",
    )  # fmt: skip
    return VacuumResult(table=table, files=tuple(unneeded), kept_versions=tuple(kept), dry_run=dry_run)


def _readable(
    storage: Storage, kind: str, paths: dict[str, str], folded: Folded, older_than: datetime
) -> Iterator[tuple[Record, str]]:
    wanted = [path for record_id, path in paths.items() if record_id not in folded]
    for path, raw in storage.get_many(wanted):
        if raw is None:  # another fold took it
            continue
        try:
            record = decode_record(raw, kind, path)
        except DataError as error:
            log.warning("Left %s where it is: %s", path, error)
            continue
        if record.recorded_at < older_than:
            yield record, json.dumps(json.loads(raw), sort_keys=True, ensure_ascii=False)


def _append(storage: Storage, kind: str, texts: dict[str, str], note: str) -> int:
    for _attempt in range(ATTEMPTS):
        with delta_errors(f"cannot fold evidence of kind {kind} in the lake at {storage.uri}"):
            folded, handle = Folded.open(storage, kind)
            if handle is None:
                _create(storage, kind)
                continue
            missing = {
                record_id: text for record_id, text in sorted(texts.items()) if record_id not in folded
            }
            if not missing:
                return 0
            turn = (handle.transaction_version(_TRANSACTION) or 0) + 1
            rows = [
                {"record_id": record_id, "recorded_at": _moment(text), "json": text}
                for record_id, text in missing.items()
            ]
            try:
                write_deltalake(
                    handle, pa.Table.from_pylist(rows, schema=_SCHEMA), mode="append",
                    commit_properties=CommitProperties(
                        custom_metadata={"xops": json.dumps({"fold": kind, "by": note})},
                        app_transactions=[Transaction(_TRANSACTION, turn)],
                    ),
                )  # fmt: skip
            except CommitFailedError:
                continue
            return len(rows)
    raise ConflictError(
        f"could not fold evidence of kind {kind}: other folds won {ATTEMPTS} times", code="conflict.commit",
        todo="run it again when they are done",
    )  # fmt: skip


def _create(storage: Storage, kind: str) -> None:
    try:
        DeltaTable.create(
            storage.table_uri(folded_path(kind)),
            schema=_SCHEMA,
            mode="ignore",
            configuration=_CONFIGURATION,
            storage_options=storage.delta_options(),
            # With retries two creations that race can both succeed.
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    except CommitFailedError:
        log.info("Another process makes the folded table of %s.", kind)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(json.loads(text)["recorded_at"])
