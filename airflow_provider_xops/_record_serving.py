"""The records of a model in service: asked for, deployed, given its share of the requests, watched.

Private to :mod:`airflow_provider_xops.records`, which gives them to everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from airflow_provider_xops._record_base import Record
from airflow_provider_xops._record_values import DatasetRef, GateResult, ModelRef, Outcome

__all__ = [
    "ApprovalResult",
    "ApprovalStatus",
    "Deployment",
    "DeploymentCheck",
    "DeploymentStep",
    "LabelJoin",
    "ServingSession",
    "TrafficSplit",
    "Variant",
    "VariantRole",
]


class ApprovalStatus(StrEnum):
    """How asking people ended."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True)
class ApprovalResult(Record):
    """What came of asking people whether one evaluated version may be promoted.

    :param required: how many different people must approve. :param asked: the ids of the people who could
        answer; empty: anybody who may.
    :param words: ids of the :class:`Approval` records of those who answered; empty: nobody did.
    :param evaluation: record id of the evaluation that people were shown.
    """

    kind: ClassVar[str] = "approval_results"
    identity: ClassVar[tuple[str, ...]] = ("model", "evaluation", "alias", "request")

    model: ModelRef
    evaluation: str | None
    alias: str
    request: str
    status: ApprovalStatus
    required: int
    asked: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    reason: str = ""
    deadline: datetime | None = None


class VariantRole(StrEnum):
    """What a loaded version does: answers, answers a share, answers nobody but is asked, or only waits."""

    PRIMARY = "primary"
    CANARY = "canary"
    SHADOW = "shadow"
    STANDBY = "standby"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One version's part in serving an alias.

    :param weight: of a primary or canary, the share of requests it answers; of a shadow, the share it is
        asked beside the one that answers; of a standby 0. In 0..1.
    """

    version: int
    created_at_ms: int
    role: VariantRole
    weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrafficSplit(Record):
    """How the requests of one alias are shared among versions, until the next split or a newer champion.

    :param sequence: 1, 2, 3, ... of each model and alias; a number is written once, so of two writers that
        saw the same split one wins.
    :param basis: sequence of the ledger entry that made the champion when this was decided; 0: there was
        none.
    :param rollout: a candidate is being brought in: the split stays in force when that candidate is promoted.
    :param deployment: record id of the deployment that asked for it.
    """

    kind: ClassVar[str] = "traffic"
    identity: ClassVar[tuple[str, ...]] = ("model", "alias", "sequence")

    model: str
    alias: str
    sequence: int
    variants: tuple[Variant, ...]
    basis: int
    rollout: bool
    reason: str
    idempotency_key: str
    deployment: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServingSession(Record):
    """One model version loaded by one server process, until it is unloaded or the process ends.

    The first 24 digits of its ``record_id`` begin every prediction id that it gives.

    :param server: the server's own name, ``host:port`` unless it was given one.
    :param started_at: when the version was loaded. :param log_table: where its predictions are written; None:
        nowhere.
    """

    kind: ClassVar[str] = "serving_sessions"
    identity: ClassVar[tuple[str, ...]] = ("server", "model", "alias", "model_record", "started_at")

    server: str
    model: ModelRef
    alias: str
    model_record: str
    started_at: datetime
    log_table: str | None = None


@dataclass(frozen=True, kw_only=True)
class Deployment(Record):
    """A version on its way into service at one target; its steps are records of their own.

    :param target: kind of the serving backend (``xops``, ``v2``, ``sagemaker``). :param endpoint: where.
    :param key: idempotency key of the work that deploys; the same key finds its own deployment.
    :param previous: the version that served before. :param steps: shares of the requests, in order.
    """

    kind: ClassVar[str] = "deployments"
    identity: ClassVar[tuple[str, ...]] = ("model", "alias", "target", "endpoint", "key")

    model: ModelRef
    alias: str
    target: str
    endpoint: str
    key: str
    previous: ModelRef | None = None
    steps: tuple[float, ...] = (1.0,)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DeploymentStep(Record):
    """One step of a deployment that has ended.

    :param step: ``load``, ``ready``, ``golden``, ``decide``, ``shift``, ``health``, ``confirm``, ``finish``
        or ``abort``. :param number: place among the steps of this deployment, from 1.
    :param weight: share of the requests that the candidate has after it.
    :param details: figures of the step: counts, milliseconds, versions. Never data.
    """

    kind: ClassVar[str] = "deployment_steps"
    identity: ClassVar[tuple[str, ...]] = ("deployment", "number", "step")

    deployment: str
    number: int
    step: str
    outcome: Outcome
    weight: float
    message: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DeploymentCheck(Record):
    """What a served version was found to do, after it got requests.

    :param decision: sequence of the ledger entry that made it the alias's version; a rollback undoes that one
        only. :param served: the versions that answered, with how often.
    """

    kind: ClassVar[str] = "deployment_checks"
    identity: ClassVar[tuple[str, ...]] = ("model", "alias", "target", "endpoint", "recorded_at")

    model: ModelRef
    alias: str
    target: str
    endpoint: str
    outcome: Outcome
    results: tuple[GateResult, ...]
    decision: int | None = None
    deployment: str | None = None
    served: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LabelJoin(Record):
    """Labels that arrived after their predictions, joined by prediction id: what one partition brought.

    :param joined: predictions that have got their label. :param waiting: predictions that still have none.
    :param unmatched: labels without a prediction.
    """

    kind: ClassVar[str] = "label_joins"
    identity: ClassVar[tuple[str, ...]] = ("predictions", "labels", "partition", "dataset_out")

    predictions: DatasetRef
    labels: DatasetRef
    partition: str
    dataset_out: DatasetRef
    joined: int
    waiting: int
    unmatched: int
