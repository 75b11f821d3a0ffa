"""The small values that records are made of: words, identities, figures.

Private to :mod:`airflow_provider_xops.records`, which gives them to everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = [
    "Actor",
    "ActorKind",
    "CheckSummary",
    "ControlSignal",
    "DatasetRef",
    "GateResult",
    "ModelRef",
    "Outcome",
    "Producer",
    "PromotionOutcome",
    "SchemaChange",
    "Selection",
    "Severity",
    "SourceFile",
    "WriteMode",
]


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
    """What a ledger entry says.

    ``nominated``: a version got an alias that answers nobody (challenger, shadow), without gates.
    ``retired``: the alias stands for nothing any more. ``expired``: people were asked, none answered in time.
    """

    PROMOTED = "promoted"
    HELD = "held"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    APPLIED = "applied"
    RELEASED = "released"
    NOMINATED = "nominated"
    RETIRED = "retired"
    EXPIRED = "expired"


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
class ControlSignal:
    """One rule of one control chart that fired at the newest point.

    :param rule: its name with its source, ``nelson_2`` for example.
    :param points: the partitions that make the pattern, oldest first; ``since`` is the first of them.
    """

    metric: str
    chart: str
    rule: str
    points: tuple[str, ...]
    since: str
    value: float | None
    center: float | None
    lower: float | None
    upper: float | None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class SchemaChange:
    """One difference between the columns of two versions.

    :param change: ``added``, ``removed``, ``retyped``, ``widened`` (to a type that holds every old value) or
        ``renamed`` (probably: the content looks the same).
    :param verdict: what the policy says of it: ``allow``, ``warn`` or ``fail``.
    """

    change: str
    column: str
    before: str | None = None
    after: str | None = None
    verdict: str = "warn"
    message: str = ""
