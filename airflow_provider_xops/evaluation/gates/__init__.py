"""Promotion gates: rules about a model version, and their answers with the figures they looked at.

For evaluation, which asks the gates about its figures; for :func:`check_gates`, which asks all of a policy;
and for promotion, which reads the answers. A gate passes only on a figure that exists: a missing one is *no
data*, which holds the promotion, and never *passed*.
"""

from __future__ import annotations

from airflow_provider_xops.evaluation.gates.ask import ask, ask_deferred, check_gates, outcome_of
from airflow_provider_xops.evaluation.gates.base import Case, Gate
from airflow_provider_xops.evaluation.gates.catalog import GATES
from airflow_provider_xops.evaluation.gates.data import DataFresh, DataValidated, NoPersonalData
from airflow_provider_xops.evaluation.gates.evidence import (
    Approved,
    LatencyBudget,
    Reproducible,
    SizeBudget,
    SmokeTested,
)
from airflow_provider_xops.evaluation.gates.figures import (
    BetterThanChampion,
    MetricThreshold,
    NotWorseThanChampion,
)
from airflow_provider_xops.evaluation.gates.parts import (
    CalibrationError,
    FairnessGap,
    NoWeakSlice,
    NoWorseSlice,
    RobustnessLoss,
)
from airflow_provider_xops.evaluation.gates.policy import (
    Policy,
    gates_digest,
    gates_from,
    gates_schema,
    policy_from,
)

__all__ = [
    "GATES",
    "Approved",
    "BetterThanChampion",
    "CalibrationError",
    "Case",
    "DataFresh",
    "DataValidated",
    "FairnessGap",
    "Gate",
    "LatencyBudget",
    "MetricThreshold",
    "NoPersonalData",
    "NoWeakSlice",
    "NoWorseSlice",
    "NotWorseThanChampion",
    "Policy",
    "Reproducible",
    "RobustnessLoss",
    "SizeBudget",
    "SmokeTested",
    "ask",
    "ask_deferred",
    "check_gates",
    "gates_digest",
    "gates_from",
    "gates_schema",
    "outcome_of",
    "policy_from",
]
