"""Several candidates in Airflow: trained and judged by mapped tasks, the best of them chosen and promoted."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, Evaluation, PromotionDecision
from airflow_provider_xops.registry import ledger
from tests.integration.dag_runs import Run, tries, xcoms

pytestmark = pytest.mark.usefixtures("airflow_db", "mlflow_connection")

DAYS = [f"2013-01-{day:02d}" for day in range(1, 5)]
SMALL = {"resamples": 100, "slices": {"find": False}, "explanation": {"repeats": 1}}


def policy() -> list[dict[str, Any]]:
    """The gates of every candidate."""
    return [
        {"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.5},
        {"gate": "better_than_champion", "metric": "roc_auc", "confidence": 0.95},
    ]


def candidates_dag(name: str, gates: str) -> Any:
    from airflow.sdk import DAG

    from airflow_provider_xops.operators.model import (
        ChooseModelOperator,
        EvaluateModelOperator,
        PromoteModelOperator,
        TrainModelOperator,
    )

    with DAG(dag_id=name, schedule=None, params={"depths": [1, 2, 4]}) as dag:
        train = TrainModelOperator.partial(
            task_id="train", table="features", model_name=name, target="late",
            estimator="sklearn.tree:DecisionTreeClassifier", split={"kind": "time", "holdout_partitions": 1},
        ).expand(estimator_params=[{"max_depth": 1}, {"max_depth": 2}, {"max_depth": 4}])  # fmt: skip
        judge = EvaluateModelOperator.partial(
            task_id="judge", gates=gates, plan=SMALL, candidates="{{ params.depths | length }}"
        ).expand(model=train.output)
        best = ChooseModelOperator(task_id="choose", evaluations=judge.output)
        PromoteModelOperator(task_id="promote", evaluation=best.output)
    return dag


@pytest.fixture
def features(lake_connection: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> Lake:
    for number, day in enumerate(DAYS):
        rng = np.random.default_rng(number)
        x, y = rng.normal(size=150), rng.normal(size=150)
        rows = pa.table({"x": x, "y": y, "late": ((x > 0) ^ (y > 0)).astype(np.int64)})
        segment = Segment(partition=day, fingerprint=day, data=rows.to_reader)
        commit(lake_connection, "features", [segment], actor=make_actor(), as_of=as_of)
    return lake_connection


def test_the_best_of_three_mapped_candidates_becomes_champion_with_corrected_tests(
    features: Lake, run: Run
) -> None:
    name = f"late_{uuid.uuid4().hex[:8]}"
    dag = candidates_dag(name, f"{__name__}:policy")

    first = run(dag)

    assert first.state == "success"
    assert tries(first)["choose"] == ("success", 1)
    chosen = xcoms(first, "choose")["return_value"]
    judged = [record for record in features.evidence.all(Evaluation.kind) if isinstance(record, Evaluation)]
    assert len(judged) == 3
    assert {each.plan["candidates"] for each in judged} == {3}
    best = max(judged, key=lambda each: each.metrics["roc_auc"] or 0)
    assert chosen["record_id"] == best.record_id
    assert "/reports/" in xcoms(first, "choose")["_link_EvaluationReportLink"]
    decision = ledger.current(features, name, "champion")
    assert isinstance(decision, PromotionDecision)
    assert decision.to_version == best.model.version

    # a second run finds the same models, and none is better than the champion beyond chance
    second = run(dag)
    assert second.state == "success"
    again = [record for record in features.evidence.all(Evaluation.kind) if isinstance(record, Evaluation)]
    tests = [each for record in again for each in record.comparisons if each.hypothesis]
    assert tests
    assert {each.comparisons for each in tests} == {3}
    assert not any(each.significant for each in tests)
    kept = ledger.current(features, name, "champion")
    assert kept is not None
    assert kept.to_version == best.model.version
