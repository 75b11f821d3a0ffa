"""Tuning as tasks: mapped workers on one database, the training after them, kills, and arguments refused."""

from __future__ import annotations

import json
import signal
import uuid
from collections import Counter
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators._base import TaskKilled
from airflow_provider_xops.operators.model import TrainModelOperator, TuneModelOperator
from airflow_provider_xops.records import ModelVersion, TuningStudy
from airflow_provider_xops.registry.client import RegistryClient
from tests.integration.dag_runs import Run, tries
from tests.integration.test_tuning import CLOSED, TREE, make_dataset, runs_of
from tests.servers import MlflowServer, PostgresServer

pytestmark = pytest.mark.server

PASSWORD = "hunter2-of-the-tuning-database"
LEARNING = {
    "table": "flights", "target": "late", "features": ["x", "z"], "estimator": TREE,
    "split": {"kind": "time", "holdout_partitions": 2},
}  # fmt: skip
SEARCH = {
    "space": {"max_depth": {"int": [1, 6]}, "min_samples_leaf": {"int": [1, 40], "log": True}},
    "metric": "roc_auc", "trials": "{{ params.trials }}", "heartbeat_seconds": 2,
    "cross_validation": {"kind": "stratified_k_fold", "folds": 3},
}  # fmt: skip


@pytest.fixture
def client(mlflow_server: MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def name() -> str:
    return f"air-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def flights(lake_connection: Lake, mlflow_connection: MlflowServer, actor: Any, as_of: datetime) -> Lake:
    make_dataset(lake_connection, actor, as_of)
    return lake_connection


def outputs(dag_run: Any, task_id: str) -> list[dict[str, Any]]:
    """What each mapped instance of a task has returned."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(
            select(XComModel)
            .where(
                XComModel.dag_id == dag_run.dag_id, XComModel.run_id == dag_run.run_id,
                XComModel.task_id == task_id, XComModel.key == "return_value",
            )
            .order_by(XComModel.map_index)
        )  # fmt: skip
        return [XComModel.deserialize_value(row) for row in found]


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_mapped_workers_share_a_study_and_the_training_takes_its_best(
    kind: str, flights: Lake, client: RegistryClient, run: Run, name: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # given
    import sqlalchemy as sa
    from airflow.sdk import DAG

    if kind == "sqlite":
        fields: dict[str, Any] = {"conn_type": "sqlite", "host": str(tmp_path / "tuning.db")}
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        address = sa.make_url(server.create_database(name))
        fields = {
            "conn_type": "postgres", "host": address.host, "port": address.port, "login": address.username,
            "password": PASSWORD, "schema": address.database,
        }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_TUNING_DB", json.dumps(fields))
    with DAG(dag_id=f"tune_{kind}_{name}", schedule=None, params={"trials": 5}) as dag:
        tune = TuneModelOperator.partial(
            task_id="tune", model_name=name, storage_conn_id="tuning_db", seed=1, **LEARNING, **SEARCH
        ).expand(worker=[0, 1, 2])
        TrainModelOperator(task_id="train", model_name=name, tuning=tune.output, seed=1, **LEARNING)

    # when
    dag_run = run(dag)

    # then
    assert dag_run.state == "success"
    studies = [TuningStudy.from_json(_record(each)) for each in outputs(dag_run, "tune")]
    assert len(studies) == 3
    assert {each.record_id for each in studies} == {studies[0].record_id}
    assert sum(studies[0].trials.values()) == 5
    parents, children = runs_of(client, name)
    assert len([each for each in parents if each.info.run_id == studies[0].parent_run_id]) == 1
    assert len(children) == 5
    assert {each.info.status for each in [*parents, *children]} == {"FINISHED"}
    model = ModelVersion.from_json(_record(outputs(dag_run, "train")[0]))
    assert model.tuning == studies[0].record_id
    assert model.settings["params"] == studies[0].best_params
    assert PASSWORD not in "".join(capfd.readouterr()) + str(outputs(dag_run, "tune"))


def _record(returned: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in returned.items() if key != "reused"}


@pytest.mark.parametrize("storage", [None, "sqlite"])
def test_a_task_that_is_ended_from_outside_closes_its_runs_and_its_next_try_goes_on(
    storage: str | None, flights: Lake, client: RegistryClient, name: str, tmp_path: Path
) -> None:
    # given the handler that Airflow's task runner installs (dag.test() has none)
    markers = tmp_path / "markers"
    markers.mkdir()
    operator = TuneModelOperator(
        task_id="tune", table="flights", model_name=name, target="delay", features=["x"], task="regression",
        estimator="tests.integration.tuning_worker:KilledOnce", estimator_params={"folder": str(markers)},
        split={"kind": "random"}, space={"x": {"float": [-1, 1]}}, metric="mae", trials=3, sampler="random",
        cross_validation={"kind": "k_fold", "folds": 2},
        storage_uri=storage and f"sqlite:///{tmp_path / 'tuning.db'}",
    )  # fmt: skip

    def attempt(number: int) -> dict[str, Any]:
        ti = SimpleNamespace(
            dag_id=name, run_id="r", task_id="tune", map_index=-1, try_number=number,
            start_date=datetime.now().astimezone(),
        )  # fmt: skip
        return operator.execute({"ti": ti})

    before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        with pytest.raises(TaskKilled):
            attempt(1)
        parents, children = runs_of(client, name)
        assert [each.info.status for each in parents] == ["KILLED"]
        assert Counter(each.info.status for each in children) == {"FINISHED": 1, "KILLED": 1}
        study = TuningStudy.from_json(attempt(2))
    finally:
        signal.signal(signal.SIGTERM, before)

    # then the first trial was not tried again
    assert study.trials["complete"] == 3
    parents, children = runs_of(client, name)
    assert [each.info.status for each in parents] == ["FINISHED"]
    assert {each.info.status for each in children} <= CLOSED
    assert len(list(markers.iterdir())) == 3 * 2 + 1
    assert operator.run_url is not None
    assert study.parent_run_id in operator.run_url


def test_mapped_workers_without_a_database_are_refused(
    flights: Lake, run: Run, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from airflow.sdk import DAG

    with DAG(dag_id=f"alone_{name}", schedule=None, params={"trials": 5}) as dag:
        TuneModelOperator.partial(task_id="tune", model_name=name, **LEARNING, **SEARCH).expand(worker=[0])

    assert tries(run(dag))["tune"] == ("failed", 1)
    assert "[argument.storage]" in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"storage_uri": "postgresql://me:secret@somewhere/db"}, "holds a password"),
        ({"storage_uri": "sqlite:////tmp/a.db", "storage_conn_id": "x"}, "one storage"),
        ({"space": ""}, "space of task tune is empty"),
        ({"trials": "many"}, "argument.number"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(
    flights: Lake, name: str, given: dict[str, Any], said: str
) -> None:
    from airflow.exceptions import AirflowFailException

    arguments = {"task_id": "tune", "model_name": name, **LEARNING, **SEARCH, "trials": 5, **given}
    operator = TuneModelOperator(**arguments)
    ti = SimpleNamespace(
        dag_id=name, run_id="r", task_id="tune", map_index=-1, try_number=1,
        start_date=datetime.now().astimezone(),
    )  # fmt: skip
    context = {"ti": ti, "dag_run": SimpleNamespace(conf={}), "params": {}}

    with pytest.raises(AirflowFailException) as caught:
        operator.execute(context)

    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
