"""The records of a model's life before it is promoted: trained, tuned, evaluated, exercised, approved.

Private to :mod:`airflow_provider_xops.records`, which gives them to everybody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from airflow_provider_xops._record_base import Record
from airflow_provider_xops._record_figures import (
    Calibration,
    Comparison,
    FairnessFigure,
    FeatureImportance,
    GoldenPredictions,
    LearningPoint,
    MetricFigure,
    RobustnessFigure,
    SkewFigure,
    SliceFigure,
    ThresholdChoice,
)
from airflow_provider_xops._record_values import (
    CheckSummary,
    DatasetRef,
    GateResult,
    ModelRef,
    Outcome,
    Selection,
)

__all__ = [
    "Approval",
    "Evaluation",
    "GateReport",
    "ModelCard",
    "ModelVersion",
    "PersonalDataReport",
    "Reproduction",
    "SmokeTest",
    "TuningStudy",
]


@dataclass(frozen=True, kw_only=True)
class ModelVersion(Record):
    """A registered model version and everything needed to trust it: data, code, parameters, bytes.

    :param artifact_digest: SHA-256 over the model's files, checked before anything is unpickled.
    :param training: the rows it was fitted on; ``holdout`` the rows kept from it.
    :param origin: ``trained`` here, ``adopted`` from MLflow, or ``external`` (handed back by
        :func:`record_training`).
    :param settings: what training was asked to do, enough to do it again: estimator, params, features, split,
        seed and so on; empty for models that were not trained here.
    :param environment: Python and library versions at training.
    :param cross_validation: figures over folds inside the training rows: ``roc_auc_mean``, ``roc_auc_std``.
    :param golden: what it predicted for some holdout rows, for the smoke test.
    :param tuning: record id of the study its parameters came from.
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
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    cross_validation: dict[str, float] = field(default_factory=dict)
    golden: GoldenPredictions | None = None
    size_bytes: int | None = None
    tuning: str | None = None

    @property
    def ref(self) -> ModelRef:
        """The version's identity."""
        return ModelRef(
            name=self.name, version=self.version, created_at_ms=self.created_at_ms, run_id=self.run_id
        )


@dataclass(frozen=True, kw_only=True)
class TuningStudy(Record):
    """A search for parameters: how many were tried, and the best, by cross-validation on training rows only.

    :param study: its name, unique in the storage. :param search: what was searched, and how, as JSON.
    :param trials: how many ended each way: ``complete``, ``pruned``, ``failed``.
    :param best_value: the mean of ``metric`` over the folds.
    :param parent_run_id: the MLflow run that the trials' runs are nested in.
    """

    kind: ClassVar[str] = "tunings"
    identity: ClassVar[tuple[str, ...]] = ("study", "dataset", "search_digest", "trials", "best_value")

    study: str
    model_name: str
    dataset: DatasetRef
    search: dict[str, Any]
    search_digest: str
    metric: str
    greater_is_better: bool
    trials: dict[str, int]
    best_value: float | None
    best_params: dict[str, Any]
    best_trial: int | None = None
    stopped: str = ""
    seconds: float | None = None
    parent_run_id: str | None = None
    experiment_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation(Record):
    """Challenger and champion scored on the same rows of the same dataset version.

    :param alias: whose champion it met; empty: nobody said (an evaluation of an older release).
    :param gates_digest: of everything that was asked: the gates and the plan.
    :param metrics: the plain values; ``figures`` the same with their intervals.
    :param deferred_gates: gates (as JSON) that need evidence which did not exist yet, such as a smoke test;
        promotion asks them.
    :param plan: how it was evaluated, as JSON.
    :param documents: further documents beside ``report_uri``: name to URI.
    :param notes: what was not measured, and why.
    """

    kind: ClassVar[str] = "evaluations"
    identity: ClassVar[tuple[str, ...]] = ("model", "champion", "selection", "gates_digest")
    identity_if_set: ClassVar[tuple[str, ...]] = ("alias",)

    model: ModelRef
    champion: ModelRef | None
    selection: Selection
    gates_digest: str
    metrics: dict[str, float | None]
    champion_metrics: dict[str, float | None]
    comparisons: tuple[Comparison, ...]
    gates: tuple[GateResult, ...]
    slices: tuple[SliceFigure, ...] = ()
    report_uri: str | None = None
    task: str = ""
    figures: tuple[MetricFigure, ...] = ()
    champion_figures: tuple[MetricFigure, ...] = ()
    calibration: Calibration | None = None
    threshold: ThresholdChoice | None = None
    fairness: tuple[FairnessFigure, ...] = ()
    importances: tuple[FeatureImportance, ...] = ()
    robustness: tuple[RobustnessFigure, ...] = ()
    skew: tuple[SkewFigure, ...] = ()
    learning_curve: tuple[LearningPoint, ...] = ()
    deferred_gates: tuple[dict[str, Any], ...] = ()
    plan: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    alias: str = ""


@dataclass(frozen=True, kw_only=True)
class SmokeTest(Record):
    """A model version loaded and exercised in a fresh process, through a real scoring server.

    :param environment: ``current`` (this machine's packages) or ``recorded`` (the model's own requirements).
    :param checks: digest, load, signature, predictions, server, each with its outcome.
    :param figures: ``load_seconds``, ``latency_p50_ms``, ``latency_p95_ms``, ``latency_p99_ms``,
        ``peak_memory_mib``, ``size_mib``; what was not measured is missing.
    :param requests: how many requests were sent to the server.
    """

    kind: ClassVar[str] = "smoke_tests"
    # The same end at another time is another fact: gates go by the newest.
    identity: ClassVar[tuple[str, ...]] = (
        "model", "artifact_digest", "environment", "outcome", "settings_digest", "figures", "recorded_at",
    )  # fmt: skip

    model: ModelRef
    artifact_digest: str
    environment: str
    server: str
    outcome: Outcome
    checks: tuple[CheckSummary, ...]
    figures: dict[str, float]
    settings_digest: str
    rows: int = 0
    requests: int = 0
    max_difference: float | None = None
    tolerance: float | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Reproduction(Record):
    """A model version trained again from its record, and how far its predictions are from the original's.

    :param max_difference: the largest difference of a probability (or predicted number) over ``rows`` holdout
        rows, absolute up to 1, beyond that relative; ``labels_changed`` the rows whose predicted class is
        another.
    :param same_digest: whether the predictions are the same to the last bit.
    :param differences: what was not the same as at training: library versions, code version.
    """

    kind: ClassVar[str] = "reproductions"
    # Done again later it is another fact: a gate asks how old the newest one is.
    identity: ClassVar[tuple[str, ...]] = (
        "model", "artifact_digest", "outcome", "tolerance", "environment", "recorded_at",
    )  # fmt: skip

    model: ModelRef
    artifact_digest: str
    outcome: Outcome
    tolerance: float
    rows: int
    max_difference: float | None
    labels_changed: int | None = None
    same_digest: bool | None = None
    environment: dict[str, str] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class PersonalDataReport(Record):
    """Which columns of some rows look like personal data, by their names and by their values.

    :param columns: one check a column that looks personal; ``observed`` is the share of its values.
    """

    kind: ClassVar[str] = "personal_data"
    identity: ClassVar[tuple[str, ...]] = ("dataset", "partitions", "searched", "detectors_digest")

    dataset: DatasetRef
    partitions: tuple[str, ...] | None
    searched: tuple[str, ...]
    detectors_digest: str
    columns: tuple[CheckSummary, ...]
    rows: int


@dataclass(frozen=True, kw_only=True)
class Approval(Record):
    """A person's word on a model version: approved or refused, why, and until when.

    :param person: who; never a task. :param approved: False is a refusal, which outweighs older approvals.
    :param role: in which function (``model_owner``, ``risk``), free text.
    """

    kind: ClassVar[str] = "approvals"
    identity: ClassVar[tuple[str, ...]] = ("model", "person", "approved", "reason", "role", "evidence")

    model: ModelRef
    person: str
    approved: bool
    reason: str
    role: str = ""
    evidence: tuple[str, ...] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class GateReport(Record):
    """A policy's answers about one model version, before it may enter the ledger.

    :param policy: its name. :param policy_digest: of the gates it held, which are in ``gates`` as JSON.
    :param results: the answers, in the order of ``gates``.
    :param evaluation: record id of the evaluation that was asked.
    :param consulted: ids of all records that the answers rest on.
    """

    kind: ClassVar[str] = "gate_reports"
    # Asked again later it is another fact, also with the same answers: the newest counts.
    identity: ClassVar[tuple[str, ...]] = ("model", "evaluation", "policy_digest", "results", "recorded_at")

    model: ModelRef
    evaluation: str | None
    policy: str
    policy_digest: str
    outcome: Outcome
    results: tuple[GateResult, ...]
    gates: tuple[dict[str, Any], ...] = ()
    consulted: tuple[str, ...] = ()
    report_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelCard(Record):
    """The card of a model version: a document for people, made from the records it names.

    :param documents: ``markdown`` and ``html`` to URIs. :param made_from: ids of the records it tells of.
    """

    kind: ClassVar[str] = "model_cards"
    identity: ClassVar[tuple[str, ...]] = ("model", "content_digest")

    model: ModelRef
    content_digest: str
    documents: dict[str, str]
    made_from: tuple[str, ...]
    report_uri: str | None = None
