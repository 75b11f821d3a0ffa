"""``@task.train_model`` in a real DAG file, run by Airflow: trained, refused, killed and tried again."""

from __future__ import annotations

import signal
import textwrap
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators._base import TaskKilled
from airflow_provider_xops.records import Actor, ModelVersion
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from tests.integration.dag_runs import Run, dag_bag, events_of, tries, xcoms
from tests.servers import MlflowServer

pytestmark = pytest.mark.usefixtures("airflow_db", "mlflow_connection")

DAG_FILE = """
    from datetime import timedelta
    from airflow.sdk import DAG, Asset, task

    def prepared(features):
        return features[["x"]]

    with DAG("{dag}", schedule=None, default_args={{"retries": 1, "retry_delay": timedelta(0)}}) as dag:

        @task.train_model(
            table="features", target="late", model_name="{model}", sample_weight="w",
            split={{"kind": "random", "seed": 1}}, features=["x"], task="classification",
            cross_validation={{"kind": "k_fold", "folds": 2}}, outlets=[Asset("{dag}")],
        )
        def learn(features, target, sample_weight, seed, *, depth):
            from sklearn.tree import DecisionTreeClassifier

            {line}
            model = DecisionTreeClassifier(max_depth=depth, random_state=seed)
            return model.fit(prepared(features), target, sample_weight=sample_weight)

        @task
        def depths():
            return {depth}

        {call}
"""
ROWS = 90


@pytest.fixture
def name() -> str:
    return f"decorated_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client(mlflow_server: MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def features(lake_connection: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> Lake:
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    table = pa.table({"x": x, "w": rng.integers(1, 4, ROWS), "late": (x > 0).astype(np.int64)})
    commit(lake_connection, "features", [Segment("d", "d", table.to_reader)], actor=make_actor(), as_of=as_of)
    return lake_connection


def parsed(
    folder: Path, name: str, *, line: str = "pass", depth: str = "2", call: str = "learn(depth=depths())"
) -> Any:
    """The DAG of a file as Airflow's DAG processor loads it."""
    (folder / "training.py").write_text(
        textwrap.dedent(DAG_FILE).format(dag=name, model=name, line=line, depth=depth, call=call)
    )
    bag = dag_bag(folder)
    assert not bag.import_errors
    return bag.dags[name]


def test_a_function_in_a_dag_file_trains_a_registered_model(
    features: Lake, client: RegistryClient, run: Run, tmp_path: Path, name: str
) -> None:
    dag_run = run(parsed(tmp_path, name))
    assert tries(dag_run) == {"depths": ("success", 1), "learn": ("success", 1)}
    returned = xcoms(dag_run, "learn")
    record = features.evidence.get(ModelVersion.kind, returned["return_value"]["record_id"])
    assert isinstance(record, ModelVersion)
    assert (record.name, record.version, record.task) == (name, 1, "classification")
    assert record.estimator == "training:learn"
    assert record.params_digest
    assert record.settings["params"] == {"depth": 2}
    assert record.code_version == record.settings["function"]["source_digest"]
    assert record.metrics["accuracy"] == 1.0
    assert record.cross_validation["accuracy_mean"] > 0.9
    # the event, the links and the model are those of any training
    (extra,) = events_of(name)
    assert extra["record_id"] == record.record_id
    assert "_link_MlflowRunLink" in returned
    assert load_model(client, features, record).get_params()["max_depth"] == 2

    # another run is other work, and so is each instance of a mapped task
    mapped = run(parsed(tmp_path, name, depth="[2, 3]", call="learn.expand(depth=depths())"))
    assert str(mapped.state) == "success"
    with client.session("reading versions in a test") as mlflow:
        versions = mlflow.search_model_versions(f"name = '{name}'")
        depths = [mlflow.get_run(each.run_id).data.params["depth"] for each in versions]
    assert sorted(depths) == ["2", "2", "3"]


def test_a_function_that_raises_fails_once_and_leaves_no_version(
    features: Lake, client: RegistryClient, run: Run, tmp_path: Path, name: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    dag_run = run(parsed(tmp_path, name, line="raise ValueError(f'no {features.iloc[0, 0]}')"))
    assert tries(dag_run)["learn"] == ("failed", 1)
    text = "".join(capfd.readouterr())
    assert "[training.fit_failed] training:learn could not be fitted on" in text
    with client.session("reading runs in a test") as mlflow:
        assert not mlflow.search_model_versions(f"name = '{name}'")
        experiment = mlflow.get_experiment_by_name(name)
        statuses = [each.info.status for each in mlflow.search_runs([experiment.experiment_id])]
    assert statuses == ["FAILED"]


def test_a_killed_decorated_training_closes_its_run(
    features: Lake, client: RegistryClient, run: Run, tmp_path: Path, name: str
) -> None:
    # given: the first attempt is ended from outside while the function runs; the second goes through
    flag = tmp_path / "killed"
    line = (
        f"import os, pathlib, signal, time; flag = pathlib.Path({str(flag)!r}); first = not flag.exists(); "
        "flag.touch(); first and (os.kill(os.getpid(), signal.SIGTERM), time.sleep(30))"
    )
    task = parsed(tmp_path, name, line=line).get_task("learn")
    task.op_kwargs, task.outlets = {"depth": 2}, []

    def attempt(number: int) -> dict[str, Any]:
        ti = SimpleNamespace(
            dag_id=name, run_id="r", task_id="learn", map_index=-1, try_number=number,
            start_date=datetime.now().astimezone(),
        )  # fmt: skip
        found: dict[str, Any] = task.execute({"ti": ti})
        return found

    before = signal.signal(signal.SIGTERM, lambda *_: task.on_kill())
    try:
        with pytest.raises(TaskKilled):
            attempt(1)
        returned = attempt(2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert returned["version"] == 1
    with client.session("reading runs in a test") as mlflow:
        experiment = mlflow.get_experiment_by_name(name)
        statuses = sorted(each.info.status for each in mlflow.search_runs([experiment.experiment_id]))
    assert statuses == ["FAILED", "FINISHED"]
