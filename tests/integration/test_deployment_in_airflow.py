"""Deployment tasks in a real Airflow that are ended by a person, or wait without a worker.

A real scheduler, API server and triggerer, a real MLflow, a real scoring server; one boot for all of it. What
a rollout itself does when it is ended or comes back is in ``test_rollout.py``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.records import Actor, Outcome
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.targets.own import OwnServers
from airflow_provider_xops.serving.targets.rollout import Deployed, list_deployments
from airflow_provider_xops.settings import LakeSettings
from tests.airflow_server import AirflowServer, airflow, patiently
from tests.integration.rollout_world import World, make_world, shown, utc_now
from tests.servers import MlflowServer, XopsServer, xops_server

pytestmark = [pytest.mark.server, pytest.mark.timeout(1500)]

DAGS = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_xops.operators.model import DeployModelOperator

# On a busy machine a worker may be killed before it has begun.
AGAIN = {"retries": 3, "retry_delay": timedelta(0)}
for name, steps, seconds in (("held", [0.5], 900), ("away", [0.3, 0.5], 40)):
    with DAG(dag_id=name, schedule=None, params={"model": ""}, default_args=AGAIN) as dag:
        DeployModelOperator(
            task_id="deploy", model="{{ params.model }}", alias=name, steps=steps, soak_seconds=seconds,
            poll_seconds=1, deferrable=name == "away",
        )
    globals()[name] = dag
"""
ALIASES = ("held", "away")
HALF, OLD_ALONE = {1: 0.5, 2: 0.5}, {1: 1.0}


@dataclass(frozen=True)
class Stage:
    """An Airflow, a server, and a model whose first version is every alias."""

    airflow: AirflowServer
    world: World
    server: XopsServer

    def shares(self, alias: str) -> dict[int, float]:
        """Which versions the server answers with, and how often."""
        actor = self.world.actor("look")
        target = OwnServers(self.world.lake, [self.server.url], actor=actor, clock=utc_now)
        return target.serving(self.world.name, alias)

    def until_shares(self, alias: str, wanted: dict[int, float]) -> None:
        self.airflow.until(lambda: self.shares(alias) == wanted, f"{wanted} as {alias}")

    def start(self, dag_id: str) -> None:
        self.airflow.start(dag_id, "run", {"model": self.world.versions[1].record_id})

    def deployed(self, alias: str) -> Deployed:
        (found,) = list_deployments(self.world.lake, model=self.world.name, alias=alias)
        return found

    def until_it_waits(self, alias: str, shares: dict[int, float]) -> None:
        """Until the triggerer has the task, at these shares: a task ended before that is told to nobody."""
        self.until_shares(alias, shares)
        folder = self.airflow.home / "logs" / f"dag_id={alias}"

        def begun() -> bool:
            logs = [log.read_text(errors="replace") for log in folder.rglob("*.trigger.*.log")]
            latest = [text.rpartition(" starting")[2] for text in logs if " starting" in text]
            return bool(latest) and not any("fired event" in text for text in latest)

        self.airflow.until(begun, f"the triggerer's word on {alias}")
        assert self.airflow.state(alias, "run", "deploy") == "deferred"

    def has_ended(self, alias: str) -> bool:
        return self.deployed(alias).state != "under way"

    def mark_failed(self, dag_id: str) -> None:
        """As a person does it in the UI."""
        path = f"/dags/{dag_id}/dagRuns/run/taskInstances/deploy"
        patiently(lambda: self.airflow.api().call("PATCH", path, {"new_state": "failed"}))


@pytest.fixture(scope="module")
def stage(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("deployment")
    settings = LakeSettings(uri=str(folder / "lake"))
    init_lake(settings, actor=Actor.user("tester", key="init", fence=1), as_of=utc_now())
    lake = open_lake(settings)
    world = make_world(lake, RegistryClient(mlflow_server.settings()))
    for alias in ALIASES:
        world.promote(1, alias=alias, key=alias)
    served = [f"{world.name}@{alias}" for alias in ALIASES]
    with xops_server(served, lake=settings, mlflow_url=mlflow_server.url) as server:
        connections = {
            "LAKE": {"conn_type": "xops_lake", "host": lake.uri},
            "MLFLOW": {"conn_type": "xops_mlflow", "host": mlflow_server.url},
            "SERVING": {"conn_type": "xops_serving", "host": server.url},
        }
        environment = {
            f"AIRFLOW_CONN_XOPS_{name}_DEFAULT": json.dumps(fields) for name, fields in connections.items()
        }
        with airflow({"deployments.py": DAGS}, users={}, environment=environment) as made:
            made.dags_are_there(*ALIASES)
            yield Stage(made, world, server)


def test_a_task_that_a_person_ends_gives_the_old_version_its_requests_back(stage: Stage) -> None:
    # given versions at half of the requests: a worker looks after one, the other waits without a worker, and
    # has been back once
    for alias in ALIASES:
        stage.start(alias)
    stage.until_shares("held", HALF)
    stage.until_it_waits("away", {1: 0.7, 2: 0.3})
    stage.until_it_waits("away", HALF)
    assert stage.airflow.state("held", "run", "deploy") == "running"

    # when a person marks both as failed
    for alias in ALIASES:
        stage.mark_failed(alias)

    # then the task in its worker gets SIGTERM, the trigger of the other is told; both leave the same behind
    whys = {"held": "the process was ended", "away": "the task was ended while it waited (failed)"}
    for alias, why in whys.items():
        stage.until_shares(alias, OLD_ALONE)
        stage.airflow.until(functools.partial(stage.has_ended, alias), f"{alias}'s last step")
        deployed = stage.deployed(alias)
        assert (deployed.state, deployed.message) == ("cancelled", why)
        assert shown(deployed)[-2:] == [("shift", "passed", 0.5), ("abort", "errored", 0.0)]
        assert stage.airflow.state(alias, "run", "deploy") == "failed"

    # and the window from which the one came back was one window
    windows = [step for step in stage.deployed("away").steps if step.step == "health"]
    assert [window.outcome for window in windows] == [Outcome.PASSED]
    assert windows[0].details["seconds"] >= 40
