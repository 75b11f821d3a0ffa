"""What each task of the loop asks of the lake and of MLflow: the budgets that do not depend on the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.loop import COMMITS_A_TASK, MLFLOW_CALLS_A_TASK, Costs, measure_tasks
from tests import servers

# Training makes a run, its inputs, a logged model and a registered version, which is more calls than the
# budget has; this holds the number where it is (docs/benchmarks.md lists the steps).
MLFLOW_CALLS_OF_TRAINING = 12


@pytest.fixture(scope="module")
def costs(
    tmp_path_factory: pytest.TempPathFactory, mlflow_server: servers.MlflowServer, airflow_db: Path
) -> Costs:
    with pytest.MonkeyPatch.context() as patch:
        # Set by the measurement; named here so that they are taken back.
        patch.setenv("AIRFLOW_CONN_XOPS_LAKE_DEFAULT", "")
        patch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", "")
        return measure_tasks(tmp_path_factory.mktemp("loop"), mlflow_server.url, days=1)


def test_every_step_was_measured(costs: Costs) -> None:
    assert list(costs) == [
        "noop", "ingest", "transform", "validate", "publish", "train", "evaluate", "promote", "score",
    ]  # fmt: skip
    assert costs["noop"][0]["lake_commits"] == costs["noop"][0]["mlflow_calls"] == 0
    assert costs["ingest"][0]["lake_commits"] == 1
    assert costs["promote"][0]["lake_commits"] == 2


def test_no_task_commits_to_the_lake_more_often_than_its_budget_says(costs: Costs) -> None:
    over = {
        task: entry["lake_commits"]
        for task, (entry,) in costs.items()
        if entry["lake_commits"] > COMMITS_A_TASK
    }
    assert over == {}


def test_no_task_calls_mlflow_more_often_than_its_budget_says(costs: Costs) -> None:
    calls = {task: entry["mlflow_calls"] for task, (entry,) in costs.items()}
    assert calls.pop("train") <= MLFLOW_CALLS_OF_TRAINING
    assert {task: count for task, count in calls.items() if count > MLFLOW_CALLS_A_TASK} == {}
