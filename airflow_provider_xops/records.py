"""What tasks hand to each other: small, frozen, JSON in and out.

For operators (XCom and asset events carry these), for the evidence in the lake, and for a task in another
language: every record's JSON Schema is published by :func:`json_schema`.

A record says one fact about one thing and is never changed. ``record_id`` is computed from the fields that
identify the fact (not from when it was written), so the same fact written twice is one record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self

from airflow_provider_xops.errors import DataError

__all__ = [
    "RECORD_TYPES",
    "XCOM_LIMIT_BYTES",
    "Actor",
    "ActorKind",
    "CheckSummary",
    "Comparison",
    "DatasetRef",
    "DatasetVersion",
    "DriftReport",
    "Evaluation",
    "GateResult",
    "Incident",
    "ModelRef",
    "ModelVersion",
    "Outcome",
    "PerformanceReport",
    "Pin",
    "Producer",
    "PromotionDecision",
    "PromotionOutcome",
    "Record",
    "RetrainingDecision",
    "ScoringRun",
    "Selection",
    "Severity",
    "SourceFile",
    "ValidationReport",
    "WriteMode",
    "compact",
    "digest_of",
    "json_schema",
    "record_from_json",
]

XCOM_LIMIT_BYTES = 16 * 1024


class Outcome(StrEnum):
    """How a check ended. *Failed*, *errored* and *no data* are three different words."""

    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    NO_DATA = "no_data"


class Severity(StrEnum):
    """How much a failed check matters; Great Expectations' own three levels."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class WriteMode(StrEnum):
    """What a commit does to what is there: a property of the table, fixed when it is created."""

    REPLACE = "replace"
    APPEND = "append"
    MERGE = "merge"


class PromotionOutcome(StrEnum):
    """What a ledger entry says."""

    PROMOTED = "promoted"
    HELD = "held"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    APPLIED = "applied"
    RELEASED = "released"


class ActorKind(StrEnum):
    """Who acts: a task of a DAG, a person at a command line, or a program."""

    TASK = "task"
    USER = "user"
    SERVICE = "service"


@dataclass(frozen=True, kw_only=True)
class Producer:
    """Who wrote a record: a DAG's task attempt, or a person."""

    kind: ActorKind
    id: str
    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None


@dataclass(frozen=True, kw_only=True)
class Actor:
    """On whose behalf a mutating function acts.

    :param producer: what records and ledger entries name.
    :param idempotency_key: the same for every try of the same piece of work; MLflow writes are found by it.
    :param fence: rises with every attempt (microseconds since 1970 of the attempt's start); of two attempts
        at the same batch the lower one is refused.
    """

    producer: Producer
    idempotency_key: str
    fence: int

    @classmethod
    def user(cls, name: str, *, key: str, fence: int) -> Actor:
        """A person at a command line or in a notebook."""
        return cls(producer=Producer(kind=ActorKind.USER, id=name), idempotency_key=key, fence=fence)


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file a batch was read from. ``uri`` has no credentials; ``sha256`` is over its bytes."""

    uri: str
    name: str
    sha256: str
    size_bytes: int
    modified_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, order=True)
class DatasetRef:
    """Identity of one version of one table: never a URI, because buckets move."""

    lake_id: str
    table: str
    table_uuid: str
    version: int

    def __str__(self) -> str:
        return f"{self.table}@{self.version}"


@dataclass(frozen=True, kw_only=True, order=True)
class ModelRef:
    """Identity of one registered model version. ``created_at_ms`` tells a re-created model from its
    namesake."""

    name: str
    version: int
    created_at_ms: int
    run_id: str | None = None

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Rows of one dataset version: which partitions, how many rows, and the digest of exactly those rows.

    :param rule: JSON of how the rows were chosen from the partitions read, so that they can be chosen again;
        empty where every row of ``partitions`` belongs to it.
    """

    dataset: DatasetRef
    partitions: tuple[str, ...]
    rows: int
    digest: str
    row_ids_digest: str | None = None
    description: str = ""
    rule: str = ""


@dataclass(frozen=True, kw_only=True)
class CheckSummary:
    """One check of a validation: figures only, never values of rows. Text has no place in ``observed``."""

    check: str
    column: str | None
    outcome: Outcome
    severity: Severity
    observed: float | int | None = None
    unexpected_count: int | None = None
    unexpected_percent: float | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """One promotion gate's answer with its figures. A missing or NaN figure is never *passed*."""

    gate: str
    outcome: Outcome
    observed: float | None = None
    threshold: float | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Challenger against champion on one metric, both computed on the same rows."""

    metric: str
    greater_is_better: bool
    challenger: float | None
    champion: float | None
    difference: float | None


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON-serializable value in canonical form (sorted keys, no spaces).

    >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_json_default, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of every record.

    Subclasses name their ``kind`` (the evidence folder) and ``identity`` (the fields the id is computed
    from).

    :param recorded_at: when it was written, UTC.
    :param produced_by: the task attempt or person that wrote it.
    :param event_time: when it happened in the data, UTC; None where the data carry no time.
    """

    kind: ClassVar[str]
    identity: ClassVar[tuple[str, ...]]
    current_schema_version: ClassVar[int] = 1

    recorded_at: datetime
    produced_by: Producer
    event_time: datetime | None = None
    schema_version: int = 1
    record_id: str = field(default="")

    def __post_init__(self) -> None:
        for name in ("recorded_at", "event_time"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise DataError(
                    f"{type(self).__name__}.{name} has no time zone",
                    code="data.naive_timestamp",
                    todo="pass a timezone-aware UTC datetime",
                )
        identity = digest_of([self.kind, *(_plain(getattr(self, name)) for name in self.identity)])[:32]
        if self.record_id and self.record_id != identity:
            raise DataError(
                f"{type(self).__name__} carries record_id {self.record_id}, its content says {identity}",
                code="data.record_id_mismatch",
                why="the record was changed after it was written",
                todo="read it again from the lake's evidence",
            )
        object.__setattr__(self, "record_id", identity)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON types, with its ``kind``."""
        plain: dict[str, Any] = _plain(self)
        return {"kind": self.kind, **plain}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; unknown fields of a newer writer are ignored.

        :raises DataError: a field is missing or has the wrong type, or a list was shortened for XCom
            (``data.record_shortened``): read the whole record from the lake by its ``record_id``.
        """
        for name, value in data.items():
            if isinstance(value, Mapping) and value.get("shortened") is True:
                raise DataError(
                    f"{cls.__name__} {data.get('record_id')} was shortened for XCom: field {name!r} has"
                    f" {value.get('count')} entries",
                    code="data.record_shortened",
                    todo=f"read it whole from the lake's evidence ({value.get('uri', 'by its record_id')})",
                )
        try:
            record: Self = _adapter(cls).validate_python({k: v for k, v in data.items() if k != "kind"})
        except ValueError as error:
            raise DataError(
                f"this is not a {cls.__name__}",
                code="data.record_unreadable",
                why=_first_problem(error),
                todo=f"pass a record as `xops schema {cls.kind}` describes it",
            ) from None
        return record


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
    """A suite run over a dataset version (all of it, or some partitions)."""

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


@dataclass(frozen=True, kw_only=True)
class ModelVersion(Record):
    """A registered model version and everything needed to trust it: data, code, parameters, bytes.

    :param artifact_digest: SHA-256 over the model's files, checked before anything is unpickled.
    :param training: the rows it was fitted on; ``holdout`` the rows kept from it.
    :param origin: ``trained`` here, ``adopted`` from MLflow, or ``external`` (handed back by
        :func:`record_training`).
    """

    kind: ClassVar[str] = "models"
    identity: ClassVar[tuple[str, ...]] = ("name", "version", "created_at_ms", "artifact_digest")

    name: str
    version: int
    created_at_ms: int
    run_id: str | None
    source_uri: str
    training: Selection | None
    holdout: Selection | None
    features: tuple[str, ...]
    target: str | None
    task: str
    estimator: str
    code_version: str
    params_digest: str
    artifact_digest: str
    metrics: dict[str, float]
    trusted_types: tuple[str, ...] = ()
    experiment_id: str | None = None
    origin: str = "trained"

    @property
    def ref(self) -> ModelRef:
        """The version's identity."""
        return ModelRef(
            name=self.name, version=self.version, created_at_ms=self.created_at_ms, run_id=self.run_id
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """Challenger and champion scored on the same rows of the same dataset version."""

    kind: ClassVar[str] = "evaluations"
    identity: ClassVar[tuple[str, ...]] = ("model", "champion", "selection", "gates_digest")

    model: ModelRef
    champion: ModelRef | None
    selection: Selection
    gates_digest: str
    metrics: dict[str, float | None]
    champion_metrics: dict[str, float | None]
    comparisons: tuple[Comparison, ...]
    gates: tuple[GateResult, ...]
    slices: tuple[dict[str, Any], ...] = ()
    report_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class PromotionDecision(Record):
    """One entry of the promotion ledger of one model.

    :param sequence: 1, 2, 3, ... per alias, without gaps.
    :param expected: the champion's version the decider had seen (None: no champion).
    :param previous_hash: ``entry_hash`` of the entry before (of the same alias), so that the chain shows any
        tampering.
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


@dataclass(frozen=True, kw_only=True)
class ScoringRun(Record):
    """One partition scored by one model version. Its ``record_id`` is the first half of every prediction
    id."""

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


RECORD_TYPES: dict[str, type[Record]] = {
    cls.kind: cls
    for cls in (
        DatasetVersion,
        ValidationReport,
        ModelVersion,
        Evaluation,
        PromotionDecision,
        ScoringRun,
        DriftReport,
        PerformanceReport,
        RetrainingDecision,
        Incident,
        Pin,
    )
}


def record_from_json(data: Mapping[str, Any]) -> Record:
    """Read a record of any kind by its ``kind`` field.

    :raises DataError: the kind is unknown or the content does not fit it.
    """
    kind = data.get("kind")
    if kind not in RECORD_TYPES:
        raise DataError(
            f"unknown record kind {kind!r}",
            code="data.record_kind",
            todo=f"use one of {sorted(RECORD_TYPES)}",
        )
    return RECORD_TYPES[kind].from_json(data)


def compact(record: Record, *, uri: str | None = None, limit: int = XCOM_LIMIT_BYTES) -> dict[str, Any]:
    """The record's JSON, at most ``limit`` bytes: the longest lists become a count, a digest and a URI.

    For XCom and asset-event extras. ``uri`` names where the whole record is (its evidence object).
    """
    data = record.to_json()
    lists = sorted(
        (key for key, value in data.items() if isinstance(value, list | dict)),
        key=lambda key: -len(json.dumps(data[key])),
    )
    for key in lists:
        if len(json.dumps(data)) <= limit:
            break
        value = data[key]
        data[key] = {"shortened": True, "count": len(value), "digest": digest_of(value), "uri": uri}
    if len(json.dumps(data)) > limit:
        raise DataError(
            f"{type(record).__name__} {record.record_id} does not fit into {limit} bytes without its lists",
            code="data.record_too_large",
            todo="shorten its text fields",
        )
    return data


def json_schema(kind: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of the records of one kind.

    >>> json_schema("versions")["title"]
    'DatasetVersion'
    """
    if kind not in RECORD_TYPES:
        raise DataError(
            f"unknown record kind {kind!r}",
            code="data.record_kind",
            todo=f"use one of {sorted(RECORD_TYPES)}",
        )
    schema: dict[str, Any] = _adapter(RECORD_TYPES[kind]).json_schema()
    schema["properties"]["kind"] = {"const": kind}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


_ADAPTERS: dict[type[Record], Any] = {}


def _adapter(cls: type[Record]) -> Any:
    if cls not in _ADAPTERS:
        from pydantic import TypeAdapter

        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _first_problem(error: ValueError) -> str:
    problems = getattr(error, "errors", None)
    if problems is None:
        return type(error).__name__
    first = problems(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'record'}: {first['msg']}"


def _json_default(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return value
