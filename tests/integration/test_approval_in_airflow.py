"""A promotion that waits for people, answered through Airflow's REST API, and what the ledger says of it.

A real scheduler, API server and triggerer with users of their own, a real MLflow; one boot for all of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from airflow_provider_xops.errors import NotFoundError
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

    def ask(self, dag_id: str) -> ModelVersion:
        """Start a DAG about a version that has just been evaluated."""
        # The run is called as the model, and not every name of a model can be one of a run.
        model = bare_version(self.client, self.lake, fresh_name(dag_id).replace(" ", "-"))
        evaluation = a_recorded_evaluation(self.lake, model)
        conf = {"evaluation": evaluation.record_id}
        self.airflow.start(dag_id, model.name, conf)
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
        return self.airflow.answer(user, dag_of(model), model.name, f"approve.{task}", yes=yes, reason=reason)

    def open_question(self, model: ModelVersion, task: str = "ask_1") -> None:
        self.airflow.parked(dag_of(model), model.name, f"approve.{task}")

    def decided(self, model: ModelVersion) -> PromotionDecision:
        """The ledger's entry about the version, once the run is over."""
        dag_id = dag_of(model)
        run = self.airflow.ended(dag_id, model.name)
        assert run["state"] == "success", self.airflow.why_failed(dag_id, model.name)
        made = [
            entry
            for entry in ledger.entries(self.lake, model.name, "champion")
            if entry.outcome is not PromotionOutcome.APPLIED
        ]
        assert len(made) == 1
        return made[0]

    def result_of(self, model: ModelVersion) -> ApprovalResult:
        found = [
            one
            for one in self.lake.evidence.all(ApprovalResult.kind)
            if isinstance(one, ApprovalResult) and one.model == model.ref
        ]
        assert len(found) == 1
        return found[0]


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
        server.dags_are_there("two", "anybody", "one", "silence", "follow", "wait")
        yield Stage(server, lake, client, watched)


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
    api = stage.airflow.api()
    stage.airflow.start("wait", "w")
    stage.airflow.parked("wait", "w", "wait")
    # what the watcher saw first is kept with the asset where this Airflow keeps anything
    before = {run["dag_run_id"] for run in api.runs("follow")}
    stage.airflow.until(lambda: _cursor(stage) in (None, 1), "the first look of the watcher")

    point(stage.client, stage.watched, 2)

    stage.airflow.until(lambda: api.run("wait", "w")["state"] == "success", "the end of the wait")
    found = api.xcom("wait", "w", "wait")
    assert (found["version"], found["alias"], found["model"]) == (2, "champion", stage.watched)
    # Airflow 3.3 answers 500 about the events of a run that is queued: it has no start_date yet.
    started = stage.airflow.until(
        lambda: [run for run in api.runs("follow") if run["dag_run_id"] not in before and run["start_date"]],
        "the DAG that follows",
    )
    path = f"/dags/follow/dagRuns/{started[0]['dag_run_id'].replace('+', '%2B')}/upstreamAssetEvents"
    (event,) = api.call("GET", path)["asset_events"]
    payload = event["extra"]["payload"]
    assert (payload["version"], payload["previous"]) == (2, 1)


def _cursor(stage: Stage) -> int | None:
    """The version that the watcher has seen, as Airflow 3.3 keeps it; 1 where it cannot be asked."""
    api = stage.airflow.api()
    (asset,) = [one for one in api.call("GET", "/assets")["assets"] if one["name"] == "champion"]
    try:
        kept = api.call("GET", f"/assets/{asset['id']}/state-store")
    except NotFoundError:
        return 1
    text = json.dumps(kept)
    return 1 if '"version": 1' in text.replace("\\", "") else 0
