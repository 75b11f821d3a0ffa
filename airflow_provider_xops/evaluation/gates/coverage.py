"""Whether the content of a partition has passed a validation: itself, or what it was made from.

For the gate ``data_validated`` and the model card. A partition is known by the digest of its rows, so a
report proves what it is about whatever the version is called. Where no report is about the partition itself,
the commit that wrote it says what it was published or computed from, and the question is asked there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_xops.errors import LakeError, NotFoundError
from airflow_provider_xops.lake.data_files import FileSegment
from airflow_provider_xops.lake.history import find_commit, partition_digests_of
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import partition_digests
from airflow_provider_xops.lake.tables import base_name, open_table, segments_of, table_info
from airflow_provider_xops.records import DatasetRef, Outcome, Severity, ValidationReport

__all__ = ["Coverage"]

COVERED = "covered"
NEVER = "no validation of it"
FAILED = "its newest validation failed"


@dataclass
class _Version:
    """One version of a table, opened once."""

    handle: Any
    files: dict[str, list[FileSegment]]
    digests: Mapping[str, str]
    commits: dict[int, dict[str, Any] | None]


class Coverage:
    """Answers for many partitions of many versions, looking at each once.

    :param suite: only its reports count; None: those of any suite.
    """

    def __init__(self, lake: Lake, *, suite: str | None = None, allow_warning: bool = False) -> None:
        self.lake = lake
        self.used: list[ValidationReport] = []
        self._allow_warning = allow_warning
        self._reports: dict[tuple[str, str], dict[str, ValidationReport]] = {}
        self._by_id: dict[str, ValidationReport] = {}
        self._versions: dict[DatasetRef, _Version | str] = {}
        self._known: dict[tuple[str, str, str], str] = {}
        every = [
            report
            for report in lake.evidence.all(ValidationReport.kind)
            if isinstance(report, ValidationReport) and suite in (None, report.suite)
        ]
        for report in sorted(every, key=lambda each: (each.recorded_at, each.record_id)):
            self._by_id[report.record_id] = report
            for digest in report.partition_digests:
                # The newest report of each suite about this content.
                of_content = self._reports.setdefault((base_name(report.dataset.table), digest), {})
                of_content[report.suite] = report

    def uncovered(self, ref: DatasetRef, partitions: Iterable[str]) -> dict[str, str]:
        """The partitions whose content has not passed a validation, each with the reason."""
        reasons = {name: self._reason(ref, name, frozenset()) for name in dict.fromkeys(partitions)}
        return {name: reason for name, reason in reasons.items() if reason}

    def contradicted(self, reason: str) -> bool:
        """Whether a reason says that a validation failed, not that there was none."""
        return FAILED in reason

    def _reason(self, ref: DatasetRef, partition: str, above: frozenset[tuple[str, str, str]]) -> str:
        """Why a partition is not covered; empty if it is."""
        version = self._version(ref)
        if isinstance(version, str):
            return version
        digest = version.digests.get(partition)
        if digest is None:
            return f"{ref} has no such partition"
        files = version.files.get(partition)
        if files and not any(file.rows for file in files):
            return ""  # nothing is in it that could be wrong
        key = (ref.table_uuid, partition, digest)
        if key in above:
            return NEVER
        if key not in self._known:
            self._known[key] = self._of_content(ref, digest) or self._of_origin(
                ref, version, partition, above | {key}
            )
            if self._known[key] == COVERED:
                self._known[key] = ""
        return self._known[key]

    def _of_content(self, ref: DatasetRef, digest: str) -> str:
        """COVERED, why not, or empty where no report is about this content."""
        reports = list(self._reports.get((base_name(ref.table), digest), {}).values())
        return self._verdict(reports)

    def _verdict(self, reports: Sequence[ValidationReport]) -> str:
        bad = [report for report in reports if _closes(report)]
        if bad:
            self.used += [report for report in bad if report not in self.used]
            return f"{FAILED} ({bad[0].suite}: {bad[0].outcome.value})"
        good = [report for report in reports if self._passes(report)]
        self.used += [report for report in good[:1] if report not in self.used]
        return COVERED if good else ""

    def _passes(self, report: ValidationReport) -> bool:
        warned = report.outcome is Outcome.FAILED and report.severity is not Severity.CRITICAL
        return report.outcome is Outcome.PASSED or (warned and self._allow_warning)

    def _of_origin(
        self, ref: DatasetRef, version: _Version, partition: str, above: frozenset[tuple[str, str, str]]
    ) -> str:
        """Whether everything that the partition's rows were made from is covered."""
        files = version.files.get(partition, [])
        batches = {file.key: file for file in files}
        if not files:
            return NEVER
        for file in batches.values():
            try:
                _number, metadata = find_commit(
                    self.lake, version.handle, table=ref.table, file=file, known=version.commits
                )
            except LakeError as error:
                return f"{NEVER}, and its history is gone ({error.code})"
            reason = self._of_commit(metadata, partition, above)
            if reason:
                return reason
        return COVERED

    def _of_commit(
        self, metadata: Mapping[str, Any], partition: str, above: frozenset[tuple[str, str, str]]
    ) -> str:
        # A publication names the report that let it pass: it is about the partitions that were published.
        named = [self._by_id[each] for each in metadata["parent_records"] if each in self._by_id]
        about = [each for each in named if each.partitions is None or partition in each.partitions]
        verdict = self._verdict(about)
        if verdict:
            return "" if verdict == COVERED else verdict
        parents = [DatasetRef(**parent) for parent in metadata["parents"]]
        if not parents:
            return NEVER
        read = list(metadata["parent_partitions"])
        for number, parent in enumerate(parents):
            opened = self._version(parent)
            if isinstance(opened, str):
                return opened
            # None: all of it; not recorded: nothing less than all of it is known to be enough.
            names = (read[number] if number < len(read) else None) or sorted(opened.digests)
            for name in names:
                reason = self._reason(parent, name, above)
                if reason:
                    return f"{parent} partition {name}: {reason}" if "partition " not in reason else reason
        return ""

    def _version(self, ref: DatasetRef) -> _Version | str:
        if ref not in self._versions:
            try:
                self._versions[ref] = self._opened(ref)
            except (LakeError, NotFoundError) as error:
                if error.retryable:
                    raise
                self._versions[ref] = f"{ref} cannot be opened ({error.code})"
        return self._versions[ref]

    def _opened(self, ref: DatasetRef) -> _Version | str:
        handle = open_table(self.lake, ref.table, ref.version)
        if str(handle.metadata().id) != ref.table_uuid:
            return f"{ref} is another table of that name"
        if table_info(handle) is None:
            return _Version(handle, {}, partition_digests(self.lake, ref), {})
        files: dict[str, list[FileSegment]] = {}
        for file in segments_of(handle):
            files.setdefault(file.partition, []).append(file)
        every = [file for each in files.values() for file in each]
        return _Version(handle, files, partition_digests_of(every), {})


def _closes(report: ValidationReport) -> bool:
    """Whether a report speaks against the content: its checks could not run, or critical ones failed."""
    critical = report.outcome is Outcome.FAILED and report.severity is Severity.CRITICAL
    return report.outcome is Outcome.ERRORED or critical
