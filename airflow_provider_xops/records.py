"""What tasks hand to each other: small, frozen, JSON in and out.

For operators (XCom and asset events carry these), for the evidence in the lake, and for a task in another
language: every record's JSON Schema is published by :func:`json_schema`.

A record says one fact about one thing and is never changed. ``record_id`` is computed from the fields that
identify the fact (not from when it was written), so the same fact written twice is one record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_xops._record_base import Record, adapter_of, digest_of
from airflow_provider_xops._record_figures import (
    Calibration,
    CalibrationBin,
    Comparison,
    FairnessFigure,
    FeatureImportance,
    GoldenPredictions,
    GroupFigure,
    LearningPoint,
    MetricFigure,
    RobustnessFigure,
    SkewFigure,
    SliceFigure,
    ThresholdChoice,
)
from airflow_provider_xops._record_kinds import (
    DatasetVersion,
    DriftReport,
    Incident,
    PerformanceReport,
    Pin,
    PromotionDecision,
    RetrainingDecision,
    ScoringRun,
    ValidationReport,
)
from airflow_provider_xops._record_models import (
    Approval,
    Evaluation,
    GateReport,
    ModelCard,
    ModelVersion,
    PersonalDataReport,
    Reproduction,
    SmokeTest,
    TuningStudy,
)
from airflow_provider_xops._record_quality import (
    ControlChartReport,
    DatasetProfile,
    QualityMetrics,
    QuarantineReport,
    SpecialCauseNote,
)
from airflow_provider_xops._record_serving import (
    ApprovalResult,
    ApprovalStatus,
    Deployment,
    DeploymentCheck,
    DeploymentStep,
    LabelJoin,
    ServingSession,
    TrafficSplit,
    Variant,
    VariantRole,
)
from airflow_provider_xops._record_values import (
    Actor,
    ActorKind,
    CheckSummary,
    ControlSignal,
    DatasetRef,
    GateResult,
    ModelRef,
    Outcome,
    Producer,
    PromotionOutcome,
    SchemaChange,
    Selection,
    Severity,
    SourceFile,
    WriteMode,
)
from airflow_provider_xops.errors import DataError

__all__ = [
    "RECORD_TYPES",
    "XCOM_LIMIT_BYTES",
    "Actor",
    "ActorKind",
    "Approval",
    "ApprovalResult",
    "ApprovalStatus",
    "Calibration",
    "CalibrationBin",
    "CheckSummary",
    "Comparison",
    "ControlChartReport",
    "ControlSignal",
    "DatasetProfile",
    "DatasetRef",
    "DatasetVersion",
    "Deployment",
    "DeploymentCheck",
    "DeploymentStep",
    "DriftReport",
    "Evaluation",
    "FairnessFigure",
    "FeatureImportance",
    "GateReport",
    "GateResult",
    "GoldenPredictions",
    "GroupFigure",
    "Incident",
    "LabelJoin",
    "LearningPoint",
    "MetricFigure",
    "ModelCard",
    "ModelRef",
    "ModelVersion",
    "Outcome",
    "PerformanceReport",
    "PersonalDataReport",
    "Pin",
    "Producer",
    "PromotionDecision",
    "PromotionOutcome",
    "QualityMetrics",
    "QuarantineReport",
    "Record",
    "Reproduction",
    "RetrainingDecision",
    "RobustnessFigure",
    "SchemaChange",
    "ScoringRun",
    "Selection",
    "ServingSession",
    "Severity",
    "SkewFigure",
    "SliceFigure",
    "SmokeTest",
    "SourceFile",
    "SpecialCauseNote",
    "ThresholdChoice",
    "TrafficSplit",
    "TuningStudy",
    "ValidationReport",
    "Variant",
    "VariantRole",
    "WriteMode",
    "compact",
    "digest_of",
    "json_schema",
    "record_from_json",
]

XCOM_LIMIT_BYTES = 16 * 1024

RECORD_TYPES: dict[str, type[Record]] = {
    cls.kind: cls
    for cls in (
        DatasetVersion,
        ValidationReport,
        QualityMetrics,
        DatasetProfile,
        ControlChartReport,
        QuarantineReport,
        SpecialCauseNote,
        PersonalDataReport,
        ModelVersion,
        TuningStudy,
        Evaluation,
        SmokeTest,
        Reproduction,
        Approval,
        GateReport,
        ModelCard,
        ApprovalResult,
        PromotionDecision,
        Deployment,
        DeploymentStep,
        DeploymentCheck,
        TrafficSplit,
        ServingSession,
        ScoringRun,
        LabelJoin,
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
    schema: dict[str, Any] = adapter_of(RECORD_TYPES[kind]).json_schema()
    schema["properties"]["kind"] = {"const": kind}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
