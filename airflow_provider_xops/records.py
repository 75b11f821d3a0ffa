"""What tasks hand to each other: small, frozen, JSON in and out.

For operators (XCom and asset events carry these), for the evidence in the lake, and for a task in another
language: every record's JSON Schema is published by :func:`json_schema`.

A record says one fact about one thing and is never changed. ``record_id`` is computed from the fields that
identify the fact (not from when it was written), so the same fact written twice is one record.

The classes are made when the first of them is asked for. DAG files import the operators, and a scheduler that
parses them has no use for records: operators write ``from airflow_provider_xops import records`` and
``records.Evaluation``. Everybody else imports the names.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import DataError

if TYPE_CHECKING:
    from airflow_provider_xops._record_base import Record, digest_of
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

    RECORD_TYPES: dict[str, type[Record]]

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

_HOMES = ("base", "values", "figures", "kinds", "models", "quality", "serving")


@cache
def _made() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for home in _HOMES:
        module = importlib.import_module(f"airflow_provider_xops._record_{home}")
        found.update({name: getattr(module, name) for name in module.__all__})
    base = found["Record"]
    kinds: list[Any] = [each for each in found.values() if isinstance(each, type) and issubclass(each, base)]
    found["RECORD_TYPES"] = {each.kind: each for each in kinds if each is not base}
    return found


if not TYPE_CHECKING:  # a type checker would take any name for one of this module's

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals().update(_made())
        return globals()[name]


def _types() -> dict[str, type[Record]]:
    types: dict[str, type[Record]] = _made()["RECORD_TYPES"]
    return types


def record_from_json(data: Mapping[str, Any]) -> Record:
    """Read a record of any kind by its ``kind`` field.

    :raises DataError: the kind is unknown or the content does not fit it.
    """
    kind, types = data.get("kind"), _types()
    if kind not in types:
        raise DataError(
            f"unknown record kind {kind!r}",
            code="data.record_kind",
            todo=f"use one of {sorted(types)}",
        )
    return types[kind].from_json(data)


def compact(record: Record, *, uri: str | None = None, limit: int = XCOM_LIMIT_BYTES) -> dict[str, Any]:
    """The record's JSON, at most ``limit`` bytes: the longest lists become a count, a digest and a URI.

    For XCom and asset-event extras. ``uri`` names where the whole record is (its evidence object).
    """
    from airflow_provider_xops._record_base import digest_of

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
    from airflow_provider_xops._record_base import adapter_of

    types = _types()
    if kind not in types:
        raise DataError(
            f"unknown record kind {kind!r}",
            code="data.record_kind",
            todo=f"use one of {sorted(types)}",
        )
    schema: dict[str, Any] = adapter_of(types[kind]).json_schema()
    schema["properties"]["kind"] = {"const": kind}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
