"""`SmokeTestModelOperator` inside Airflow: what it takes, what it returns, when the task fails."""

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
from airflow_provider_xops.operators._smoke import SmokeTestModelOperator
from airflow_provider_xops.records import Actor, Evaluation, ModelVersion, Outcome, SmokeTest
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.training.fit import train
from tests.integration.dag_runs import Run, tries
from tests.servers import MlflowServer

pytestmark = pytest.mark.usefixtures("lake_connection", "mlflow_connection")


@pytest.fixture
def fit(
    lake: Lake, mlflow_server: MlflowServer, make_actor: Callable[..., Actor], as_of: datetime
) -> Callable[..., ModelVersion]:
    x = np.random.default_rng(0).normal(size=100)
    table = pa.table({"x": x, "late": (x > 0).astype(np.int64)})
    segments = [Segment("d", "f", table.to_reader)]
    dataset = commit(lake, "flights", segments, actor=make_actor(), as_of=as_of).record.ref

    def fit() -> ModelVersion:
        name = f"smoke-{uuid.uuid4().hex[:8]}"
        return train(
            lake,
            RegistryClient(mlflow_server.settings()),
            dataset=dataset,
            estimator="sklearn.linear_model:LogisticRegression",
            target="late",
            split={"kind": "random", "fraction": 0.3},
            model_name=name,
            actor=make_actor(key=name),
            as_of=as_of,
        )

    return fit


def evaluated(lake: Lake, model: ModelVersion) -> Evaluation:
    """The record that an evaluation of the model would have left."""
    assert model.holdout is not None
    evaluation = Evaluation(
        recorded_at=model.recorded_at, produced_by=model.produced_by, model=model.ref, champion=None,
        selection=model.holdout, gates_digest="0", metrics={}, champion_metrics={}, comparisons=(), gates=(),
    )  # fmt: skip
    lake.evidence.put(evaluation)
    return evaluation


def test_a_task_takes_an_evaluation_returns_the_record_and_fails_as_it_is_told(
    lake: Lake, mlflow_server: MlflowServer, fit: Callable[..., ModelVersion], run: Run
) -> None:
    from airflow.sdk import DAG

    good, bad = fit(), fit()
    folder = mlflow_server.process.folder
    (file,) = folder.rglob(f"{bad.source_uri.removeprefix('models:/')}/**/model.skops")
    file.write_bytes(file.read_bytes() + b" ")
    arguments: dict[str, Any] = {"requests": "{{ 20 }}", "rows_per_request": "[1, 10]", "retries": 2}
    with DAG(dag_id=f"smoke_{uuid.uuid4().hex[:8]}", schedule=None) as dag:
        SmokeTestModelOperator(task_id="good", model=evaluated(lake, good).record_id, **arguments)
        SmokeTestModelOperator(task_id="bad", model=bad.record_id, **arguments)
        SmokeTestModelOperator(
            task_id="left_to_the_gates", model=evaluated(lake, bad).to_json(), on_failure="succeed",
            **arguments,
        )  # fmt: skip
    done = run(dag)
    # A failed smoke test is no reason to try again.
    assert tries(done) == {
        "good": ("success", 1),
        "bad": ("failed", 1),
        "left_to_the_gates": ("success", 1),
    }
    passed = SmokeTest.from_json(done.get_task_instance("good").xcom_pull(task_ids="good"))
    assert (passed.outcome, passed.model) == (Outcome.PASSED, good.ref)
    assert "latency_p99_ms_10_rows" in passed.figures
    recorded = [each for each in lake.evidence.all(SmokeTest.kind) if isinstance(each, SmokeTest)]
    assert passed in recorded
    failed = SmokeTest.from_json(
        done.get_task_instance("left_to_the_gates").xcom_pull(task_ids="left_to_the_gates")
    )
    assert (failed.outcome, failed.model) == (Outcome.FAILED, bad.ref)
    assert {each.outcome for each in recorded if each.model == bad.ref} == {Outcome.FAILED}
