"""A profile of a dataset version, recorded: figures as evidence, the whole as JSON and as a page.

For the profile operator, the ``xops`` command and notebooks::

    record = profile(lake, ref, compare_with="previous", actor=me, as_of=now)
    document = profile_document(lake, record)

The record holds figures only. Its identity is what was looked at (content digest), how (settings digest) and
against which version: the same profile is made once, and asked for again it is read from the evidence.

What it does not do: judge. Whether a schema change stops anything is its verdict, and whoever calls decides;
:func:`schema_error` makes the error.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.data.schema_changes import columns_of, compare_schemas, schema_policy
from airflow_provider_xops.errors import ArgumentError, DataError, NotFoundError, ValidationError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import content_digest, partition_digests, schema_of
from airflow_provider_xops.lake.storage import LocalStorage
from airflow_provider_xops.lake.tables import resolve_ref
from airflow_provider_xops.quality.frames import BATCH_ROWS, FileFrame, LakeFrame
from airflow_provider_xops.quality.profiling.compute import FORMAT, MEMORY_LIMIT, Limits, profile_frame
from airflow_provider_xops.quality.profiling.renames import probable_renames
from airflow_provider_xops.quality.profiling.report import report_html
from airflow_provider_xops.quality.samples import sample_policy
from airflow_provider_xops.records import Actor, DatasetProfile, DatasetRef, SchemaChange, digest_of

if TYPE_CHECKING:
    from airflow_provider_xops.quality.engine import Frame

__all__ = ["PREVIOUS", "profile", "profile_document", "profiles_of", "schema_error"]

log = logging.getLogger(__name__)

PREVIOUS = "previous"
REPORTS = "_xops/reports"

# What of a column stays in the record; the document has all of it.
_RECORDED = (
    "name", "type", "kind", "count", "nulls", "null_share", "nan", "infinite", "distinct", "unique_share",
    "once", "min", "max", "mean", "sd", "zeros", "negatives", "quantiles", "quantiles_exact", "fences",
    "true_share", "blank", "min_length", "mean_length", "max_length",
)  # fmt: skip
_TABLE_FACTS = ("keys", "duplicate_rows", "constant_columns", "empty_columns", "skipped_columns")
_COVERAGE = ("column", "start", "end", "unit", "empty_buckets")


def profile(
    lake: Lake,
    ref: DatasetRef,
    *,
    partitions: Sequence[str] | None = None,
    compare_with: str | DatasetRef | None = PREVIOUS,
    policy: Mapping[str, str] | None = None,
    values: str = "none",
    time_column: str | None = None,
    limits: Limits | None = None,
    memory_limit: str = MEMORY_LIMIT,
    actor: Actor,
    as_of: datetime,
) -> DatasetProfile:
    """Profile a dataset version and record what was found, with a JSON document and a page beside it.

    :param partitions: only these; None profiles the whole version.
    :param compare_with: what schema changes are against: ``previous`` (the newest earlier version of the
        table that has a profile, else the version before), ``TABLE@VERSION``, or None.
    :param policy: see :func:`~airflow_provider_xops.data.schema_changes.schema_policy`.
    :param values: ``none``, ``masked`` or ``full``: whether texts of rows are in the documents (never in the
        record).
    :param time_column: the column whose coverage is looked at; None: one is chosen.
    :param memory_limit: of DuckDB; what does not fit spills into the lake's scratch folder.
    :param as_of: the time to record (UTC).
    :raises ArgumentError: an argument is unusable; :raises NotFoundError: there is no such version or
        partition.
    """
    chosen = _chosen(partitions)
    limits = limits or Limits()
    verdicts = schema_policy(policy)
    other = _compared(lake, ref, compare_with)
    earlier = None if other is None else _newest_profile(lake, other)
    facts: dict[str, Any] = {
        "dataset": ref,
        "partitions": chosen,
        "content_digest": content_digest(lake, ref, chosen),
        "settings_digest": digest_of(
            {
                "format": FORMAT,
                "values": sample_policy(values).value,
                "time_column": time_column,
                "limits": dataclasses.asdict(limits),
                "policy": verdicts,
                "compared_profile": earlier and earlier.record_id,
            }
        ),
        "previous": other,
        "recorded_at": as_of,
        "produced_by": actor.producer,
    }
    known = _known(lake, facts)
    if known is not None:
        log.info("These rows of %s were profiled before: %s.", ref, known.record_id)
        return known
    frame = LakeFrame(lake, ref, chosen)
    with lake.storage.scratch() as folder, _nearby(lake, frame, folder) as near:
        document = profile_frame(
            near,
            values=values,
            time_column=time_column,
            limits=limits,
            folder=folder,
            memory_limit=memory_limit,
        )
    changes: tuple[SchemaChange, ...] = ()
    if other is not None:
        before = None if earlier is None else profile_document(lake, earlier)
        changes = compare_schemas(
            columns_of(schema_of(lake, other)),
            columns_of(frame.schema),
            policy=verdicts,
            renames=probable_renames(before, document) if before else None,
        )
    record = DatasetProfile(
        **facts,
        rows=document["rows"],
        columns=tuple({key: one[key] for key in _RECORDED if key in one} for one in document["columns"]),
        table_facts=_table_facts(document["table"]),
        schema_changes=changes,
    )
    document["partition_count"] = len(chosen or partition_digests(lake, ref))
    record = _put(lake, record, document)
    log.info(
        "Profiled %s: %d rows, %d columns, %d schema changes.",
        ref,
        record.rows,
        len(record.columns),
        len(changes),
    )
    return record


def profile_document(lake: Lake, record: DatasetProfile) -> dict[str, Any]:
    """The whole profile behind a record.

    :raises NotFoundError: its document is gone.
    """
    path = f"{REPORTS}/profiles/{record.record_id}.json"
    raw = lake.storage.get(path)
    if raw is None:
        raise NotFoundError(
            f"the document of profile {record.record_id} is not in the lake",
            code="not_found.document",
            why=f"there is no {path}",
            todo="profile the version again",
        )
    document: dict[str, Any] = json.loads(raw)
    return document


def profiles_of(lake: Lake, ref: DatasetRef) -> list[DatasetProfile]:
    """The profiles of the versions of a table up to and including ``ref``, oldest first; of each version and
    selection of partitions the newest."""
    newest: dict[Any, DatasetProfile] = {}
    found = [
        record
        for record in lake.evidence.all(DatasetProfile.kind)
        if isinstance(record, DatasetProfile)
        and record.dataset.table_uuid == ref.table_uuid
        and record.dataset.version <= ref.version
    ]
    for record in sorted(found, key=lambda one: (one.dataset.version, one.recorded_at, one.record_id)):
        newest.pop((record.dataset.version, record.partitions), None)
        newest[record.dataset.version, record.partitions] = record
    return list(newest.values())


def schema_error(record: DatasetProfile) -> ValidationError:
    """The error for schema changes whose verdict is *fail*."""
    failed = [change for change in record.schema_changes if change.verdict == "fail"]
    told = "; ".join(
        f"{change.column} {change.change}"
        + (f" ({change.before} to {change.after})" if change.change in ("retyped", "widened") else "")
        for change in failed[:20]
    )
    return ValidationError(
        f"the columns of {record.dataset} changed against {record.previous}",
        code="validation.schema_changed",
        why=told,
        todo="correct the source, or allow the change in the schema policy",
        context={"record_id": record.record_id, "changes": len(failed)},
    )


def _put(lake: Lake, record: DatasetProfile, document: Mapping[str, Any]) -> DatasetProfile:
    whole = {
        "record_id": record.record_id,
        "dataset": str(record.dataset),
        "partitions": record.partitions,
        "schema_changes": [dataclasses.asdict(change) for change in record.schema_changes],
        **document,
    }
    encoded = json.dumps(whole, indent=1, default=str, allow_nan=False).encode()
    folder = f"profiles/{record.record_id}"
    record = dataclasses.replace(
        record,
        profile_uri=lake.evidence.put_report(f"{folder}.json", encoded, content_type="application/json"),
        report_uri=lake.evidence.put_report(
            f"{folder}.html", report_html(record, whole), content_type="text/html"
        ),
    )
    if lake.evidence.put(record):
        return record
    kept = lake.evidence.get(DatasetProfile.kind, record.record_id)  # another attempt was faster
    return kept if isinstance(kept, DatasetProfile) else record


def _known(lake: Lake, facts: Mapping[str, Any]) -> DatasetProfile | None:
    wanted = DatasetProfile(**facts, rows=0, columns=(), table_facts={})
    try:
        known = lake.evidence.get(DatasetProfile.kind, wanted.record_id)
    except NotFoundError:
        return None
    return known if isinstance(known, DatasetProfile) else None


def _compared(lake: Lake, ref: DatasetRef, given: str | DatasetRef | None) -> DatasetRef | None:
    if given is None or isinstance(given, DatasetRef):
        return given
    if given != PREVIOUS:
        table, _, version = given.partition("@")
        if not version.isdigit():
            raise ArgumentError(
                f"compare_with is {given[:80]!r}",
                code="argument.compare_with",
                todo="give previous, TABLE@VERSION or nothing",
            )
        return resolve_ref(lake, table, int(version), allow_raw=True)
    earlier = [one.dataset for one in profiles_of(lake, ref) if one.dataset.version < ref.version]
    if earlier:
        return earlier[-1]
    if ref.version < 1:
        return None
    before = dataclasses.replace(ref, version=ref.version - 1)
    try:
        schema_of(lake, before)
    except (NotFoundError, DataError):
        return None  # a table's first version here, or one that is gone
    return before


def _newest_profile(lake: Lake, ref: DatasetRef) -> DatasetProfile | None:
    found = [one for one in profiles_of(lake, ref) if one.dataset.version == ref.version]
    return found[-1] if found else None


def _table_facts(table: Mapping[str, Any]) -> dict[str, Any]:
    coverage = table["time_coverage"]
    return {
        **{name: table[name] for name in _TABLE_FACTS},
        "time_coverage": coverage and {name: coverage[name] for name in _COVERAGE},
    }


@contextmanager
def _nearby(lake: Lake, frame: LakeFrame, folder: Path) -> Iterator[Frame]:
    """The frame where DuckDB can scan it several times: rows from afar are fetched once."""
    if isinstance(lake.storage, LocalStorage):
        yield frame
        return
    import pyarrow.parquet as pq

    copy = folder / "rows.parquet"
    with pq.ParquetWriter(copy, frame.schema) as writer:
        for batch in frame.batches():
            writer.write_batch(batch, row_group_size=2 * BATCH_ROWS)
    yield FileFrame(copy)


def _chosen(partitions: Sequence[str] | None) -> tuple[str, ...] | None:
    if partitions is None:
        return None
    names = (partitions,) if isinstance(partitions, str) else tuple(partitions)
    if not names or not all(str(name).strip() for name in names):
        raise ArgumentError(
            "no partition to profile is named", code="argument.empty", why="a template rendered to nothing",
            todo="name partitions, or pass None for the whole version",
        )  # fmt: skip
    return tuple(sorted(set(names)))
