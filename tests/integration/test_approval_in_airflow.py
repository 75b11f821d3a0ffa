"""A promotion that waits for people, answered through Airflow's REST API, and what the ledger says of it.

A real scheduler, API server and triggerer with users of their own, a real MLflow; one boot for all of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_xops.errors import NotFoundError, RegistryError
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.records import (
    ApprovalResult,
    ModelVersion,
    PromotionDecision,
    PromotionOutcome,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.approvals import words_on
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.settings import LakeSettings
from tests.airflow_server import AirflowServer, airflow
from tests.integration.registry_steps import bare_version, fresh_name
from tests.servers import MlflowServer
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor

pytestmark = [pytest.mark.server, pytest.mark.timeout(1500)]

USERS = {"ana": "user", "bob": "user", "cid": "user", "eve": "viewer"}
APPROVALS = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_xops.operators.approval import approve_promotion
from airflow_provider_xops.operators.model import PromoteModelOperator

CASES = {
    "two": {"people": 2, "approvers": ["ana", "bob"], "role": "risk"},
    "anybody": {"people": 2},
    "one": {"approvers": ["ana"]},
    "silence": {"timeout": timedelta(seconds=8)},
}
# On a busy machine a worker may be killed before it has begun.
AGAIN = {"retries": 3, "retry_delay": timedelta(0)}
for name, options in CASES.items():
    with DAG(dag_id=name, schedule=None, params={"evaluation": ""}, default_args=AGAIN) as dag:
        asked = approve_promotion(evaluation="{{ params.evaluation }}", **options)
        PromoteModelOperator(
            task_id="promote", evaluation="{{ params.evaluation }}", approval=asked.output
        )
    globals()[name] = dag
"""
WATCHED = """
from airflow.sdk import DAG, Asset, AssetWatcher
from airflow_provider_xops.sensors.model import ModelAliasSensor
from airflow_provider_xops.triggers.model import ModelAliasTrigger
from airflow.providers.standard.operators.empty import EmptyOperator

champion = Asset(
    name="champion", uri="x-xops://mlflow/champion",
    watchers=[AssetWatcher(name="alias", trigger=ModelAliasTrigger(model_name={name!r}, poke_interval=0.3))],
)
with DAG(dag_id="follow", schedule=[champion]) as follow:
    EmptyOperator(task_id="nothing")
with DAG(dag_id="wait", schedule=None) as wait:
    ModelAliasSensor(
        task_id="wait", model_name={name!r}, changed_from=1, poke_interval=0.3, timeout=300, deferrable=True
    )
"""


class Stage:
    """One Airflow with its lake and MLflow, and short words for what tests do to them."""

    def __init__(self, airflow: AirflowServer, lake: Lake, client: RegistryClient, watched: str) -> None:
        self.airflow, self.lake, self.client, self.watched = airflow, lake, client, watched
        self.apis = {name: airflow.api(name) for name in ("admin", *USERS)}

    def ask(self, dag_id: str) -> ModelVersion:
        """Start a DAG about a version that has just been evaluated."""
        # The run is called as the model, and not every name of a model can be one of a run.
        model = bare_version(self.client, self.lake, fresh_name(dag_id).replace(" ", "-"))
        evaluation = a_recorded_evaluation(self.lake, model)
        conf = {"evaluation": evaluation.record_id}
        patiently(lambda: self.apis["admin"].trigger(dag_id, model.name, conf))
        return model

    def answer(
        self,
        user: str,
        model: ModelVersion,
        task: str = "ask_1",
        *,
        yes: bool = True,
        reason: str | None = None,
    ) -> int:
        """Answer a question through the REST API; gives the status of the API's answer."""
        path = f"/dags/{dag_of(model)}/dagRuns/{model.name}/taskInstances/approve.{task}/-1/hitlDetails"
        body: dict[str, Any] = {"chosen_options": ["Approve" if yes else "Reject"], "params_input": {}}
        if reason is not None:
            body["params_input"] = {"reason": reason}
        try:
            patiently(lambda: self.apis[user].call("PATCH", path, body))
        except RegistryError as error:
            return int(error.context["status"])
        return 200

    def state(self, dag_id: str, run_id: str, task_id: str) -> str | None:
        tasks = self.apis["admin"].tasks(dag_id, run_id)
        return next((task["state"] for task in tasks if task["task_id"] == task_id), None)

    def until(self, true: Callable[[], Any], what: str, seconds: float = 600) -> Any:
        """Wait for something that real processes do.

        :raises AssertionError: it did not come, with what the servers said.
        """
        deadline = time.monotonic() + seconds
        while not (found := patiently(true)):
            assert time.monotonic() < deadline, f"{what} did not come\n{self.airflow.logs()}"
            time.sleep(0.5)
        return found

    def parked(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Wait until a task waits, and the scheduler has heard that its worker is gone.

        A task that goes on before that is failed by Airflow 3.3, which takes the end of the worker that asked
        for the end of one that never began. People are slower.
        """
        self.until(
            lambda: self.state(dag_id, run_id, task_id) in ("awaiting_input", "deferred"),
            f"{task_id} of {run_id}",
        )
        log = self.airflow.home / "airflow-scheduler.log"
        heard = f"Finished: dag_id={dag_id}, task_id={task_id}, run_id={run_id},"
        self.until(lambda: heard in log.read_text(errors="replace"), f"the scheduler's word on {task_id}")

    def open_question(self, model: ModelVersion, task: str = "ask_1") -> None:
        self.parked(dag_of(model), model.name, f"approve.{task}")

    def decided(self, model: ModelVersion) -> PromotionDecision:
        """The ledger's entry about the version, once the run is over."""
        dag_id = dag_of(model)
        run = self.until(
            lambda: (
                (found := self.apis["admin"].run(dag_id, model.name))["state"] in ("success", "failed")
                and found
            ),
            f"the end of {model.name}",
        )
        assert run["state"] == "success", self.why_failed(dag_id, model.name)
        made = [
            entry
            for entry in ledger.entries(self.lake, model.name, "champion")
            if entry.outcome is not PromotionOutcome.APPLIED
        ]
        assert len(made) == 1
        return made[0]

    def why_failed(self, dag_id: str, run_id: str) -> str:
        api = self.apis["admin"]
        return "\n".join(
            f"{task['task_id']}: {task['state']}\n{api.task_log(dag_id, run_id, task)[-3000:]}"
            for task in api.tasks(dag_id, run_id)
            if task["state"] not in ("success", "upstream_failed")
        )

    def result_of(self, model: ModelVersion) -> ApprovalResult:
        found = [
            one
            for one in self.lake.evidence.all(ApprovalResult.kind)
            if isinstance(one, ApprovalResult) and one.model == model.ref
        ]
        assert len(found) == 1
        return found[0]


def patiently(ask: Callable[[], Any]) -> Any:
    """What a request gives; repeated where Airflow's SQLite was busy (HTTP 500, and nothing was changed)."""
    for _ in range(20):
        try:
            return ask()
        except RegistryError as error:
            if error.context.get("status") != 500:
                raise
            time.sleep(0.5)
    return ask()


def dag_of(model: ModelVersion) -> str:
    return model.name.partition("-")[0]


@pytest.fixture(scope="module")
def stage(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    settings = LakeSettings(uri=str(tmp_path_factory.mktemp("approval") / "lake"))
    init_lake(settings, actor=an_actor(), as_of=AS_OF)
    lake, client = open_lake(settings), RegistryClient(mlflow_server.settings())
    watched = fresh_name("watched")
    for _ in range(3):
        bare_version(client, lake, watched)
    point(client, watched, 1)
    connections = {
        "AIRFLOW_CONN_XOPS_LAKE_DEFAULT": json.dumps({"conn_type": "xops_lake", "host": lake.uri}),
        "AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT": json.dumps(
            {"conn_type": "xops_mlflow", "host": mlflow_server.url}
        ),
    }
    dags = {"approvals.py": APPROVALS, "watched.py": WATCHED.format(name=watched)}
    with airflow(dags, users=USERS, environment=connections) as server:
        made = Stage(server, lake, client, watched)

        def there() -> bool:
            return {"two", "anybody", "one", "silence", "follow", "wait"} <= set(made.apis["admin"].dags())

        made.until(there, "the DAGs")
        assert made.apis["admin"].import_errors() == []
        yield made


def point(client: RegistryClient, name: str, version: int) -> None:
    with client.session("moving an alias by hand") as mlflow:
        mlflow.set_registered_model_alias(name, "champion", str(version))


def test_people_decide_through_the_rest_api_and_the_ledger_knows(stage: Stage) -> None:
    # given five requests at once: the scheduler works while people think
    two, twice, no, silence = (stage.ask(name) for name in ("two", "anybody", "one", "silence"))

    # the right two people: of those who may not answer, one is no approver and one may not edit runs
    stage.open_question(two)
    assert words_on(stage.lake, two) == []
    assert (stage.answer("cid", two), stage.answer("eve", two)) == (403, 403)
    assert stage.answer("ana", two, reason="figures are fine") == 200
    assert stage.answer("bob", two) == 409
    stage.open_question(two, "ask_2")
    assert stage.answer("bob", two, "ask_2", reason="risk agrees") == 200

    # one person answers both questions, where anybody may
    for task in ("ask_1", "ask_2"):
        stage.open_question(twice, task)
        assert stage.answer("cid", twice, task) == 200

    # one person says no
    stage.open_question(no)
    assert stage.answer("ana", no, yes=False, reason="not before the audit") == 200

    # then each of them is in the ledger, with the names of those who answered
    promoted = stage.decided(two)
    assert (promoted.outcome, promoted.approved_by) == (PromotionOutcome.PROMOTED, ("ana", "bob"))
    assert stage.client.alias_target(two.name, "champion") == two.version
    words = {word.person: word for word in words_on(stage.lake, two)}
    assert {name: (word.reason, word.role) for name, word in words.items()} == {
        "ana": ("figures are fine", "risk"), "bob": ("risk agrees", "risk"),
    }  # fmt: skip
    result = stage.result_of(two)
    assert set(result.words) == {word.record_id for word in words.values()}
    assert result.record_id in promoted.evidence

    refused = stage.decided(no)
    assert refused.outcome is PromotionOutcome.REJECTED
    assert "rejected by ana: not before the audit" in refused.reason

    once = stage.decided(twice)
    assert once.outcome is PromotionOutcome.EXPIRED
    assert "approved by 1 of 2 (cid)" in once.reason

    nobody = stage.decided(silence)
    assert nobody.outcome is PromotionOutcome.EXPIRED
    assert "nobody answered in time" in nobody.reason
    assert words_on(stage.lake, silence) == []
    for model in (twice, no, silence):
        assert stage.client.alias_target(model.name, "champion") is None


def test_moved_alias_starts_a_dag_and_ends_a_wait(stage: Stage) -> None:
    api = stage.apis["admin"]
    patiently(lambda: api.trigger("wait", "w", {}))
    stage.parked("wait", "w", "wait")
    # what the watcher saw first is kept with the asset where this Airflow keeps anything
    before = {run["dag_run_id"] for run in api.runs("follow")}
    stage.until(lambda: _cursor(stage) in (None, 1), "the first look of the watcher")

    point(stage.client, stage.watched, 2)

    stage.until(lambda: api.run("wait", "w")["state"] == "success", "the end of the wait")
    found = api.xcom("wait", "w", "wait")
    assert (found["version"], found["alias"], found["model"]) == (2, "champion", stage.watched)
    started = stage.until(
        lambda: [run for run in api.runs("follow") if run["dag_run_id"] not in before], "the DAG that follows"
    )
    path = f"/dags/follow/dagRuns/{started[0]['dag_run_id'].replace('+', '%2B')}/upstreamAssetEvents"
    (event,) = api.call("GET", path)["asset_events"]
    payload = event["extra"]["payload"]
    assert (payload["version"], payload["previous"]) == (2, 1)


def _cursor(stage: Stage) -> int | None:
    """The version that the watcher has seen, as Airflow 3.3 keeps it; 1 where it cannot be asked."""
    api = stage.apis["admin"]
    (asset,) = [one for one in api.call("GET", "/assets")["assets"] if one["name"] == "champion"]
    try:
        kept = api.call("GET", f"/assets/{asset['id']}/state-store")
    except NotFoundError:
        return 1
    text = json.dumps(kept)
    return 1 if '"version": 1' in text.replace("\\", "") else 0
