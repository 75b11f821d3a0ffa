"""What passed becomes visible: exactly the partitions that a report names, and exactly those rows.

For the publish operator, the only writer of a published table that has a raw one. The rows are those of the
raw *version* that was validated, whatever arrived since; their digest is computed again on the way, and a
difference stops the commit.

An older raw version never replaces a newer one: the commit's fence is the raw version itself.

What it does not do: look at the data. The report decides, and it is read from the evidence, not from the
caller.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import pyarrow as pa

from airflow_provider_xops.errors import ArgumentError, LakeError, ValidationError
from airflow_provider_xops.lake._delta import typed_batches
from airflow_provider_xops.lake.commit import CommitResult, Segment, commit
from airflow_provider_xops.lake.data_files import FileSegment, files_dataset
from airflow_provider_xops.lake.digest import SegmentDigest, version_digest
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import cast_batch
from airflow_provider_xops.lake.tables import RAW_SUFFIX, open_table, segments_of, table_info, table_schema
from airflow_provider_xops.records import Actor, DatasetRef, Outcome, Severity, ValidationReport, WriteMode

__all__ = ["publish"]

log = logging.getLogger(__name__)

# Versions per millisecond of table age that the fence has room for; a table made anew begins with a higher
# fence.
_VERSIONS = 1_000_000


def publish(
    lake: Lake,
    report: ValidationReport,
    *,
    allow_warning: bool = True,
    allow_empty: bool = False,
    actor: Actor,
    as_of: datetime,
) -> CommitResult:
    """Copy the validated partitions of a raw version to its published table.

    :param report: of a raw version; it must be in the lake's evidence, and what is there counts.
    :param allow_warning: publish too what failed only checks below critical severity.
    :param allow_empty: publish too what had no rows, which empties those partitions.
    :return: the published version; ``reused`` if it holds these rows already.
    :raises ValidationError: ``validation.not_published``: the report does not let it pass.
    :raises NotFoundError: the lake has no such report, or the raw version is gone.
    :raises ArgumentError: ``argument.not_raw``: the report is not about a raw table.
    :raises LakeError: ``lake.digest_mismatch``: the rows are not those that were validated.
    :raises Superseded: a newer raw version of a partition has been published.
    """
    stored = lake.evidence.get(ValidationReport.kind, report.record_id)
    assert isinstance(stored, ValidationReport)
    ref = stored.dataset
    if not ref.table.endswith(RAW_SUFFIX):
        raise ArgumentError(
            f"{ref} is not a version of a raw table", code="argument.not_raw",
            why="only raw tables are published", todo="validate the version that an ingestion returned",
        )  # fmt: skip
    _check_outcome(stored, allow_warning=allow_warning, allow_empty=allow_empty)
    handle = open_table(lake, ref.table, ref.version)
    if str(handle.metadata().id) != ref.table_uuid:
        raise LakeError(
            f"{ref} is a version of another table of that name", code="lake.other_table",
            why="the raw table was made anew after the validation", todo="ingest and validate again",
        )  # fmt: skip
    info = table_info(handle)
    mode = WriteMode.APPEND if info is not None and info.mode is WriteMode.APPEND else WriteMode.REPLACE
    segments = _segments(lake, stored, handle, mode)
    created = int(handle.metadata().created_time or 0)
    return commit(
        lake,
        ref.table.removesuffix(RAW_SUFFIX),
        segments,
        mode=mode,
        keys=info.keys if info is not None else (),
        order_by=(),  # the raw order is the canonical one already
        schema=table_schema(handle),
        parents=[ref],
        parent_partitions=[stored.partitions],
        parent_records=[stored.record_id],
        actor=dataclasses.replace(actor, fence=created * _VERSIONS + ref.version),
        as_of=as_of,
    )


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


def _segments(lake: Lake, report: ValidationReport, handle: Any, mode: WriteMode) -> list[Segment]:
    by_partition: dict[str, list[FileSegment]] = {}
    for file in segments_of(handle):
        by_partition.setdefault(file.partition, []).append(file)
    names = report.partitions if report.partitions is not None else tuple(sorted(by_partition))
    schema = table_schema(handle)
    segments: list[Segment] = []
    for name in names:
        files = by_partition.get(name, [])
        # An appended batch stays what it was, so batches are published one by one; what replaces or merges,
        # whole.
        whole = [files] if mode is WriteMode.REPLACE else [list(group) for _, group in groupby(files, _batch)]
        segments += [_segment(lake, report.dataset, schema, name, group, mode) for group in whole]
    if not segments:
        raise ArgumentError(
            f"{report.dataset} has no partition to publish",
            code="argument.empty",
            why="the version is empty",
            todo="ingest something first",
        )
    return segments


def _segment(
    lake: Lake, ref: DatasetRef, schema: Any, partition: str, files: Sequence[FileSegment], mode: WriteMode
) -> Segment:
    # With the version that brought it: rows that come back after a correction are published again, so that
    # their fence rises too, and a late publication of the correction is superseded.
    digests = {file.batch16: f"{file.digest}@{file.since}" for file in files}
    fingerprint = next(iter(digests.values())) if len(digests) == 1 else version_digest(digests)
    batch = "+".join(digests) if mode is WriteMode.APPEND else ""
    return Segment(
        partition=partition,
        fingerprint=fingerprint,
        data=lambda: pa.RecordBatchReader.from_batches(schema, _verified(lake, ref, schema, files)),
        batch_id=f"publish:{ref.table_uuid}/{partition}/{batch}",
    )


def _verified(lake: Lake, ref: DatasetRef, schema: Any, files: Sequence[FileSegment]) -> Iterator[Any]:
    """The rows of the files, hashed on the way: each batch must have the digest that was recorded."""
    for batch16, group in groupby(files, _batch):
        parts = list(group)
        digest = SegmentDigest(schema)
        try:
            batches = files_dataset(lake, ref.table, schema, parts).to_batches()
            for found in typed_batches(batches, f"cannot read {ref}"):
                rows = cast_batch(found, schema)
                digest.update(rows)
                yield rows
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
