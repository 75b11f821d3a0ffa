"""The records, one class a kind.

Private to :mod:`airflow_provider_xops.records`, which gives them to everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from airflow_provider_xops._record_base import Record
from airflow_provider_xops._record_values import (
    CheckSummary,
    DatasetRef,
    ModelRef,
    Outcome,
    PromotionOutcome,
    Selection,
    Severity,
    SourceFile,
    WriteMode,
)

__all__ = [
    "DatasetVersion",
    "DriftReport",
    "Incident",
    "PerformanceReport",
    "Pin",
    "PromotionDecision",
    "RetrainingDecision",
    "ScoringRun",
    "ValidationReport",
]


@dataclass(frozen=True, kw_only=True)
class DatasetVersion(Record):
    """One commit to one table: what was written, from what, and the digest of the whole version.

    :param partitions: the partitions this commit wrote; ``partition_digests`` are theirs, in the same order.
    :param digest: SHA-256 over the sorted (segment, digest) pairs of the *whole* version.
    :param rows: rows in the partitions this commit wrote; ``total_rows`` in the whole version.
    :param input_fingerprint: what the commit was made from; the same fingerprint is never committed twice.
    :param parent_partitions: the partitions read of each of ``parents``, in their order (None: all of it;
        empty: not recorded), so that a trace follows exactly these.
    """

    kind: ClassVar[str] = "versions"
    identity: ClassVar[tuple[str, ...]] = ("lake_id", "table", "table_uuid", "version")

    lake_id: str
    table: str
    table_uuid: str
    version: int
    mode: WriteMode
    partitions: tuple[str, ...]
    partition_digests: tuple[str, ...]
    batch_ids: tuple[str, ...]
    digest: str
    input_fingerprint: str
    rows: int
    total_rows: int
    parents: tuple[DatasetRef, ...] = ()
    parent_partitions: tuple[tuple[str, ...] | None, ...] = ()
    parent_records: tuple[str, ...] = ()
    sources: tuple[SourceFile, ...] = ()
    note: str = ""

    @property
    def ref(self) -> DatasetRef:
        """The version's identity."""
        return DatasetRef(
            lake_id=self.lake_id, table=self.table, table_uuid=self.table_uuid, version=self.version
        )


@dataclass(frozen=True, kw_only=True)
class ValidationReport(Record):
    """A suite run over a dataset version (all of it, or some partitions).

    :param engine_notes: what the engine computed another way than its own, and why.
    :param documents: further documents beside ``report_uri``: name (``data_docs``) to URI.
    """

    kind: ClassVar[str] = "validations"
    identity: ClassVar[tuple[str, ...]] = (
        "dataset",
        "partitions",
        "suite",
        "suite_digest",
        "engine",
        "content_digest",
        "outcome",
    )

    dataset: DatasetRef
    partitions: tuple[str, ...] | None
    partition_digests: tuple[str, ...]
    content_digest: str
    suite: str
    suite_digest: str
    engine: str
    outcome: Outcome
    severity: Severity | None
    counts: dict[str, int]
    rows: int
    checks: tuple[CheckSummary, ...] = ()
    report_uri: str | None = None
    engine_notes: tuple[str, ...] = ()
    documents: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PromotionDecision(Record):
    """One entry of the promotion ledger of one model.

    :param sequence: 1, 2, 3, ... per alias, without gaps.
    :param expected: the champion's version the decider had seen (None: no champion).
    :param previous_hash: ``entry_hash`` of the entry before (of the same alias), so that the chain shows any
        tampering.
    :param approved_by: the people whose approval stood when it was decided.
    :param expires_at: until when a nomination counts; None: until another entry ends it.
    """

    kind: ClassVar[str] = "decisions"
    identity: ClassVar[tuple[str, ...]] = ("model", "alias", "sequence", "entry_hash")

    model: str
    alias: str
    sequence: int
    outcome: PromotionOutcome
    reason: str
    expected: int | None
    from_version: int | None
    to_version: int | None
    to_created_at_ms: int | None
    artifact_digest: str | None
    evidence: tuple[str, ...]
    idempotency_key: str
    previous_hash: str
    entry_hash: str
    decides: int | None = None
    approved_by: tuple[str, ...] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ScoringRun(Record):
    """One partition scored by one model version. Its ``record_id`` is the first half of every prediction
    id.

    :param purpose: empty: made to be used; ``back_scoring``: made afterwards, to look at.
    """

    kind: ClassVar[str] = "scoring_runs"
    identity: ClassVar[tuple[str, ...]] = (
        "model_name",
        "model_version",
        "model_created_at_ms",
        "input_table_uuid",
        "partition",
        "input_digest",
        "output_table",
    )
    identity_if_set: ClassVar[tuple[str, ...]] = ("purpose",)

    model_name: str
    model_version: int
    model_created_at_ms: int
    model_record: str
    input_table_uuid: str
    partition: str
    input_digest: str
    output_table: str
    dataset_in: DatasetRef
    dataset_out: DatasetRef
    rows: int
    purpose: str = ""


@dataclass(frozen=True, kw_only=True)
class DriftReport(Record):
    """Distribution of one dataset's columns against a reference's."""

    kind: ClassVar[str] = "drift"
    identity: ClassVar[tuple[str, ...]] = ("reference", "current", "method")

    reference: Selection
    current: Selection
    method: str
    outcome: Outcome
    columns: tuple[dict[str, Any], ...]
    report_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class PerformanceReport(Record):
    """A model's metrics on labeled predictions."""

    kind: ClassVar[str] = "performance"
    identity: ClassVar[tuple[str, ...]] = ("model", "predictions", "labels")

    model: ModelRef
    predictions: Selection
    labels: Selection
    metrics: dict[str, float | None]
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class RetrainingDecision(Record):
    """Whether to retrain, why, and on which evidence."""

    kind: ClassVar[str] = "retraining"
    identity: ClassVar[tuple[str, ...]] = ("model", "evidence", "policy_digest")

    model: ModelRef
    retrain: bool
    reason: str
    evidence: tuple[str, ...]
    policy_digest: str


@dataclass(frozen=True, kw_only=True)
class Incident(Record):
    """Something a person must look at: a ledger mismatch, a deleted champion, bad data at the door."""

    kind: ClassVar[str] = "incidents"
    identity: ClassVar[tuple[str, ...]] = ("incident", "subject", "evidence")

    incident: str
    subject: str
    severity: Severity
    message: str
    evidence: tuple[str, ...] = ()
    next_step: str = ""


@dataclass(frozen=True, kw_only=True)
class Pin(Record):
    """A dataset version that vacuum must keep, and for whom (a model, a decision, a legal hold)."""

    kind: ClassVar[str] = "pins"
    identity: ClassVar[tuple[str, ...]] = ("dataset", "reason", "holder")

    dataset: DatasetRef
    reason: str
    holder: str
