"""The records and file names that a trace reads, each once.

For :mod:`airflow_provider_xops.lake._lineage_walk`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TypeVar

from airflow_provider_xops.errors import DataError, NotFoundError, XOpsError
from airflow_provider_xops.lake.history import find_commit, version_record
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import open_table, ref_of, segments_of
from airflow_provider_xops.records import (
    DatasetRef,
    DatasetVersion,
    Evaluation,
    ModelVersion,
    PromotionDecision,
    QuarantineReport,
    Record,
    ScoringRun,
    ServingSession,
    WriteMode,
)

__all__ = ["Decisions", "Records"]

log = logging.getLogger(__name__)

Decisions = Iterable[PromotionDecision] | Callable[[str], Iterable[PromotionDecision]]
R = TypeVar("R", bound=Record)


class Records:
    """Evidence of one lake, for the length of one trace."""

    def __init__(self, lake: Lake, decisions: Decisions) -> None:
        self.lake = lake
        self._decisions = decisions if callable(decisions) else tuple(decisions)
        self._entries: dict[str, list[PromotionDecision]] = {}
        self._versions: dict[DatasetRef, DatasetVersion | None] = {}
        self._holders: dict[tuple[DatasetRef, tuple[str, ...] | None], dict[int, tuple[str, ...]]] = {}

    @cached_property
    def versions(self) -> list[DatasetVersion]:
        """Every dataset version, in the order of their commits."""
        return sorted(self._all(DatasetVersion), key=lambda each: (each.recorded_at, each.ref))

    @cached_property
    def models(self) -> list[ModelVersion]:
        """Every model version, in the order of their registration."""
        return sorted(self._all(ModelVersion), key=lambda each: (each.name, each.created_at_ms, each.version))

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """Every evaluation, the oldest first."""
        return sorted(self._all(Evaluation), key=lambda each: each.recorded_at)

    @cached_property
    def scoring_runs(self) -> list[ScoringRun]:
        """Every scoring run, by partition."""
        return sorted(
            self._all(ScoringRun), key=lambda each: (each.output_table, each.partition, each.recorded_at)
        )

    @cached_property
    def sessions(self) -> list[ServingSession]:
        """Every serving session, the oldest first."""
        return sorted(self._all(ServingSession), key=lambda each: (each.started_at, each.record_id))

    @cached_property
    def partings(self) -> dict[DatasetRef, list[QuarantineReport]]:
        """What was set aside or brought back, by the accepted version that it made; the oldest first."""
        found: dict[DatasetRef, list[QuarantineReport]] = {}
        for report in sorted(self._all(QuarantineReport), key=lambda each: each.recorded_at):
            found.setdefault(report.accepted, []).append(report)
        return found

    def get(self, cls: type[R], record_id: str) -> R | None:
        """One record; None if it is not there or cannot be read."""
        try:
            record = self.lake.evidence.get(cls.kind, record_id)
        except NotFoundError:
            return None
        except DataError as error:
            log.warning("Left out of the trace: %s", error)
            return None
        return record if isinstance(record, cls) else None

    def version(self, ref: DatasetRef) -> DatasetVersion | None:
        """The record of a dataset version: from evidence, else rebuilt from its commit, else None."""
        if ref not in self._versions:
            try:
                self._versions[ref] = version_record(self.lake, ref)
            except XOpsError as error:
                if error.retryable:  # a storage that is down must not read as "missing"
                    raise
                log.info("No record of %s (%s).", ref, error.code)
                self._versions[ref] = None
        return self._versions[ref]

    def entries(self, model: str) -> list[PromotionDecision]:
        """The ledger's entries of one model, by alias and sequence."""
        if model not in self._entries:
            given = self._decisions(model) if callable(self._decisions) else self._decisions
            self._entries[model] = sorted(
                (entry for entry in given if entry.model == model),
                key=lambda entry: (entry.alias, entry.sequence),
            )
        return self._entries[model]

    def holders(self, ref: DatasetRef, partitions: tuple[str, ...] | None) -> dict[int, tuple[str, ...]]:
        """Version -> the partitions its commit wrote and ``ref`` still holds, of those asked for."""
        key = (ref, partitions)
        if key not in self._holders:
            try:
                self._holders[key] = self._files_of(ref, partitions)
            except XOpsError as error:
                if error.retryable:
                    raise
                # The table was dropped, re-created, adopted or lost its log: the records are what is left.
                log.info("The files of %s do not tell who wrote them (%s).", ref, error.code)
                self._holders[key] = self._recorded(ref, partitions)
        return self._holders[key]

    def _files_of(self, ref: DatasetRef, partitions: tuple[str, ...] | None) -> dict[int, tuple[str, ...]]:
        handle = open_table(self.lake, ref.table, ref.version)
        if ref_of(self.lake, ref.table, handle) != ref:
            raise NotFoundError(f"{ref} is a version of another table of that name", code="not_found.version")
        held: dict[int, set[str]] = {}
        batches = {(file.partition, file.batch16, file.fingerprint32): file for file in segments_of(handle)}
        for file in batches.values():
            if partitions is None or file.partition in partitions:
                version, _metadata = find_commit(self.lake, handle, table=ref.table, file=file)
                held.setdefault(version, set()).add(file.partition)
        return {version: tuple(sorted(names)) for version, names in held.items()}

    def _recorded(self, ref: DatasetRef, partitions: tuple[str, ...] | None) -> dict[int, tuple[str, ...]]:
        """What :meth:`_files_of` tells, as far as the records of the table's versions do."""
        held: dict[int, set[str]] = {}
        replaced: set[str] = set()
        table = (ref.lake_id, ref.table, ref.table_uuid)
        records = [each for each in self.versions if (each.lake_id, each.table, each.table_uuid) == table]
        for record in sorted(records, key=lambda each: -each.version):
            if record.version <= ref.version:
                wrote = {name for name in record.partitions if partitions is None or name in partitions}
                if wrote - replaced:
                    held[record.version] = wrote - replaced
                if record.mode is WriteMode.REPLACE:
                    replaced |= wrote
        return {version: tuple(sorted(names)) for version, names in held.items()}

    def _all(self, cls: type[R]) -> Sequence[R]:
        return [record for record in self.lake.evidence.all(cls.kind) if isinstance(record, cls)]
