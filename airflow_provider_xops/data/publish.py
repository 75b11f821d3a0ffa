"""What passed becomes visible: exactly the partitions that a report names, and exactly those rows.

For the publish operator, the only writer of a published table that has a raw one. The rows are those of the
*version* that was validated (a raw one, or what a suite accepted of one), whatever arrived since; their
digest is computed again on the way, and a difference stops the commit.

What comes from an older raw version never replaces what comes from a newer one, nor the data before a release
of mended rows those after it: the commit's fence is the raw version and the number of releases in it.

What it does not do: look at the data. The report decides, and it is read from the evidence, not from the
caller.
"""

from __future__ import annotations

import dataclasses
import logging
from datetime import datetime
from typing import Any

import pyarrow as pa

from airflow_provider_xops.data.places import (
    Mark,
    Place,
    open_version,
    places_of,
    raw_fence,
    said_of,
    verified_rows,
)
from airflow_provider_xops.errors import ArgumentError, LakeError, Superseded, ValidationError
from airflow_provider_xops.lake.commit import CommitResult, Segment, commit
from airflow_provider_xops.lake.data_files import short_batch, short_fingerprint
from airflow_provider_xops.lake.history import find_commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import SchemaPolicy, added_columns
from airflow_provider_xops.lake.tables import (
    ACCEPTED_SUFFIX,
    RAW_SUFFIX,
    base_name,
    open_table,
    own_table,
    segments_of,
    table_info,
    table_schema,
)
from airflow_provider_xops.records import Actor, DatasetRef, Outcome, Severity, ValidationReport, WriteMode

__all__ = ["publish"]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Origin:
    """Where a place comes from: its raw version, the raw batch it is, and its place in the order."""

    raw: DatasetRef
    batch: str
    fence: int


def publish(
    lake: Lake,
    report: ValidationReport,
    *,
    allow_warning: bool = True,
    allow_empty: bool = False,
    actor: Actor,
    as_of: datetime,
) -> CommitResult:
    """Copy the validated partitions of a raw or accepted version to its published table.

    :param report: of a raw or accepted version; it must be in the lake's evidence, and what is there counts.
    :param allow_warning: publish too what failed only checks below critical severity.
    :param allow_empty: publish too what had no rows, which empties those partitions.
    :return: the published version; ``reused`` if it holds these rows already. Partitions that were accepted
        from several raw versions are as many commits; the last one's version, which holds all, is returned.
    :raises ValidationError: ``validation.not_published``: the report does not let it pass.
    :raises NotFoundError: the lake has no such report, or the raw version is gone.
    :raises ArgumentError: ``argument.not_raw``: the report is about neither a raw nor an accepted table.
    :raises LakeError: ``lake.digest_mismatch``: the rows are not those that were validated.
    :raises Superseded: a newer raw version of a partition has been published, or mended rows of this one.
    """
    stored = lake.evidence.get(ValidationReport.kind, report.record_id)
    assert isinstance(stored, ValidationReport)
    ref = stored.dataset
    if not ref.table.endswith((RAW_SUFFIX, ACCEPTED_SUFFIX)):
        raise ArgumentError(
            f"{ref} is not a version of a raw table", code="argument.not_raw",
            why="only raw tables, and what a suite accepted of them, are published",
            todo="validate the version that an ingestion returned",
        )  # fmt: skip
    _check_outcome(stored, allow_warning=allow_warning, allow_empty=allow_empty)
    handle = open_version(lake, ref)
    info = table_info(handle)
    mode = WriteMode.APPEND if info is not None and info.mode is WriteMode.APPEND else WriteMode.REPLACE
    schema = table_schema(handle)
    by_fence: dict[int, list[Segment]] = {}
    origins = _origins(lake, ref, handle, places_of(segments_of(handle), mode, stored.partitions))
    segments = [(origin, _segment(lake, ref, schema, place, origin)) for place, origin in origins]
    _check_older(lake, ref, segments, mode)
    for origin, segment in segments:
        by_fence.setdefault(origin.fence, []).append(segment)
    if not by_fence:
        raise ArgumentError(
            f"{ref} has no partition to publish", code="argument.empty", why="the version is empty",
            todo="ingest something first",
        )  # fmt: skip
    results = [
        commit(
            lake,
            base_name(ref.table),
            by_fence[fence],
            mode=mode,
            keys=info.keys if info is not None else (),
            order_by=(),  # the order is the canonical one already
            schema=schema,
            evolve=_evolution(lake, ref),
            parents=[ref],
            parent_partitions=[stored.partitions],
            parent_records=[stored.record_id],
            actor=dataclasses.replace(actor, fence=fence),
            as_of=as_of,
        )
        for fence in sorted(by_fence)
    ]
    newest = max(results, key=lambda result: result.record.version)
    return CommitResult(newest.record, reused=all(result.reused for result in results))


def _evolution(lake: Lake, ref: DatasetRef) -> SchemaPolicy:
    """Columns that the raw table got on purpose, the published one gets too; other changes are refused."""
    raw = open_table(lake, f"{base_name(ref.table)}{RAW_SUFFIX}")
    columns = pa.schema(raw.schema().to_arrow())
    return SchemaPolicy(added="evolve", removed="fill_null") if added_columns(columns) else SchemaPolicy()


def _check_outcome(report: ValidationReport, *, allow_warning: bool, allow_empty: bool) -> None:
    if report.outcome is Outcome.PASSED or (report.outcome is Outcome.NO_DATA and allow_empty):
        return
    warned = report.outcome is Outcome.FAILED and report.severity is not Severity.CRITICAL
    if warned and allow_warning:
        log.warning("Publishing %s although checks of severity %s failed.", report.dataset, report.severity)
        return
    if report.outcome is Outcome.NO_DATA:
        why, todo = (
            "it has no rows, and would empty what is published",
            "skip it, or publish with allow_empty",
        )
    else:
        counts = ", ".join(f"{count} {name}" for name, count in report.counts.items() if count)
        why, todo = f"checks: {counts}", "correct the data or the suite, then ingest and validate again"
    raise ValidationError(
        f"{report.dataset} is not published: suite {report.suite} says {report.outcome.value}",
        code="validation.not_published", why=why,
        todo=todo + (f"; the report is at {report.report_uri}" if report.report_uri else ""),
        context={"record_id": report.record_id, "outcome": report.outcome.value},
    )  # fmt: skip


def _origins(lake: Lake, ref: DatasetRef, handle: Any, places: list[Place]) -> list[tuple[Place, _Origin]]:
    """Each place with what it comes from."""
    if ref.table.endswith(RAW_SUFFIX):
        created = handle.metadata().created_time
        return [
            (place, _Origin(raw=ref, batch=place.batch, fence=raw_fence(created, ref.version)))
            for place in places
        ]
    commits: dict[int, dict[str, Any] | None] = {}
    created_at: dict[DatasetRef, int | None] = {}
    found = []
    for place in places:
        _version, metadata = find_commit(lake, handle, table=ref.table, file=place.files[0], known=commits)
        said = said_of(metadata, place.files[0])
        mark = Mark.read(str(said["fingerprint"]))
        raw = DatasetRef(**metadata["parents"][0]) if mark is not None and metadata["parents"] else None
        if mark is None or raw is None:
            raise LakeError(
                f"{ref} does not say what raw data partition {place.partition} was accepted from",
                code="lake.no_origin",
                why="the partition was emptied when newer raw data passed, or another program wrote it",
                todo="validate and publish the raw version",
            )
        if raw not in created_at:
            created_at[raw] = open_version(lake, raw).metadata().created_time
        fence = raw_fence(created_at[raw], raw.version, mark.releases)
        found.append((place, _Origin(raw=raw, batch=str(said["batch_id"]).rpartition("/")[2], fence=fence)))
    return found


def _check_older(
    lake: Lake, ref: DatasetRef, segments: list[tuple[_Origin, Segment]], mode: WriteMode
) -> None:
    """Refuse what an earlier release of this package has published a newer raw version of.

    Its fences counted versions one by one; under them alone ours would look newer than they are.
    """
    handle = own_table(lake, base_name(ref.table))
    if handle is None:
        return
    commits: dict[int, dict[str, Any] | None] = {}
    append = mode is WriteMode.APPEND
    held = {(file.partition, file.batch16 if append else ""): file for file in segments_of(handle)}
    for origin, segment in segments:
        file = held.get((segment.partition, short_batch(segment.batch_id or "") if append else ""))
        if file is None or file.fingerprint32 == short_fingerprint(segment.fingerprint):
            continue
        _version, metadata = find_commit(lake, handle, table=base_name(ref.table), file=file, known=commits)
        for parent in metadata["parents"]:
            same = (parent["table"], parent["table_uuid"]) == (origin.raw.table, origin.raw.table_uuid)
            if same and parent["version"] > origin.raw.version:
                raise Superseded(
                    f"a newer raw version of partition {segment.partition} of table {base_name(ref.table)}"
                    " has been published",
                    code="superseded.commit",
                    why=f"version {parent['version']}, this is made from version {origin.raw.version}",
                    todo="nothing: the newer version's data are in the table",
                )


def _segment(lake: Lake, ref: DatasetRef, schema: pa.Schema, place: Place, origin: _Origin) -> Segment:
    # The content names the version that brought it: rows that come back after a correction are published
    # again, so that their fence rises too, and a late publication of the correction is superseded.
    accepted = "accepted:" if ref.table.endswith(ACCEPTED_SUFFIX) else ""
    return Segment(
        partition=place.partition,
        fingerprint=accepted + place.content,
        data=lambda: pa.RecordBatchReader.from_batches(schema, verified_rows(lake, ref, schema, place.files)),
        # By the raw table and batch, so that a batch is the same one whether all of it went on or a part.
        batch_id=f"publish:{origin.raw.table_uuid}/{place.partition}/{origin.batch}",
    )
