"""Small cases to put to gates: a model of nothing in particular, and an evaluation with chosen figures."""

from __future__ import annotations

import dataclasses
from typing import Any

from airflow_provider_xops.evaluation.gates import Case, Gate, ask
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Evaluation, GateResult
from tests.unit.registry.builders import AS_OF, a_model, an_actor, an_evaluation

CHALLENGER, CHAMPION = a_model(2), a_model(1)

# The fields that a gate of each kind cannot do without.
SMALLEST: dict[str, dict[str, Any]] = {
    "metric_threshold": {"metric": "roc_auc", "minimum": 0.6},
    "better_than_champion": {"metric": "roc_auc", "confidence": 0.95},
    "not_worse_than_champion": {"metric": "roc_auc", "margin": 0.01},
    "fairness_gap": {"attribute": "black", "metric": "demographic_parity", "maximum": 0.1},
    "calibration_error": {"maximum": 0.1},
    "robustness_loss": {"perturbation": "noise", "level": 0.1, "maximum": 0.1},
    "latency_budget": {"maximum_ms": 10},
    "size_budget": {"maximum_mib": 10},
    "data_fresh": {"maximum_days": 10},
}


def evaluated(*, champion: bool = True, **figures: Any) -> Evaluation:
    """An evaluation of the challenger with exactly these figures, and no others."""
    plain = an_evaluation(CHALLENGER, CHAMPION if champion else None, gates=())
    return dataclasses.replace(plain, record_id="", **({"metrics": {}} | figures))


def a_case(evaluation: Evaluation | None = None, *, lake: Lake | None = None, **changes: Any) -> Case:
    """The case of an evaluation; gates about figures look at no lake."""
    values = {
        "model": CHALLENGER,
        "as_of": AS_OF,
        "actor": an_actor(),
        "evaluation": evaluation,
        "lake": lake,
    }
    return Case(**(values | changes))


def answer(gate: Gate, evaluation: Evaluation | None) -> GateResult:
    """What a gate about figures says."""
    (result,) = ask([gate], a_case(evaluation))
    return result
