"""flights_release in a real Airflow: people answer by REST, and a server follows that is asked all the time.

One story in two runs of the DAG, because the second one needs the champion of the first. A real scheduler and
API server with users of their own, a real MLflow, a real scoring server.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.evaluation.evaluate import evaluate
from airflow_provider_xops.examples.flights import gates
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.quality.validate import validate
from airflow_provider_xops.records import (
    CheckSummary,
    DeploymentCheck,
    Evaluation,
    ModelVersion,
    Outcome,
    Severity,
    SmokeTest,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.targets.rollout import list_deployments
from airflow_provider_xops.settings import LakeSettings
from airflow_provider_xops.training.fit import train
from tests.airflow_server import AirflowServer, airflow
from tests.integration.release_models import COLUMNS, SECONDS, UNSEEN
from tests.integration.rollout_world import shown
from tests.integration.serve_steps import put_in_force
from tests.integration.served_models import Ask, Load, now, somebody
from tests.servers import MlflowServer, XopsServer, xops_server

pytestmark = [pytest.mark.server, pytest.mark.timeout(1500)]

DAG, MODEL = "flights_release", "flights_late_arrival"
DAG_FILE = Path(__file__).parents[2] / "dags" / "flights_release.py"
USERS = {"ana": "user", "bob": "user", "eve": "viewer"}
ADMIN_KEY = "admin-key-of-the-tests-0123456789"
ROWS = 150
# What no version has seen: the last one is slow there, and nowhere else.
BODY = json.dumps({"dataframe_split": {"columns": COLUMNS, "data": [[UNSEEN * 2, 0.1, -0.1]]}})


@dataclass(frozen=True)
class Stage:
    """An Airflow with the DAG, a server, and three versions: a champion, a better one, and a slow one."""

    airflow: AirflowServer
    lake: Lake
    client: RegistryClient
    server: XopsServer
    better: Evaluation
    slow: Evaluation

    def people_approve(self, run_id: str) -> None:
        """Both questions are answered, by those who may."""
        for task in ("approve.ask_1", "approve.ask_2"):
            self.airflow.parked(DAG, run_id, task)
        assert self.answered_by("eve", run_id, 1) == 403
        assert self.answered_by("ana", run_id, 1) == 200
        assert self.answered_by("bob", run_id, 2) == 200

    def answered_by(self, user: str, run_id: str, question: int) -> int:
        return self.airflow.answer(user, DAG, run_id, f"approve.ask_{question}", reason="seen")

    def states(self, run_id: str) -> dict[str, str]:
        """The states of the tasks about servers."""
        tasks = self.airflow.api().tasks(DAG, run_id)
        return {each["task_id"]: each["state"] for each in tasks if not each["task_id"].startswith("approve")}

    def tries(self, run_id: str, task_id: str) -> int:
        tasks = self.airflow.api().tasks(DAG, run_id)
        return next(each["try_number"] for each in tasks if each["task_id"] == task_id)

    def decided(self) -> list[tuple[str, int | None, tuple[str, ...]]]:
        """The ledger without its ``applied`` entries: outcome, version, who approved."""
        return [
            (str(each.outcome), each.to_version, each.approved_by)
            for each in ledger.entries(self.lake, MODEL, "champion")
            if str(each.outcome) != "applied"
        ]

    def told_by_the_link(self, run_id: str, user: str) -> list[tuple[str, dict[str, float]]]:
        """The servers and their shares, as a user learns them who follows the link of the task."""
        path = f"/dags/{DAG}/dagRuns/{run_id}/taskInstances/deploy/links"
        links = self.airflow.api(user).call("GET", path)["extra_links"]
        servers = self.airflow.page(links["What serves now"], user)["servers"]
        return [(each["server"], each["shares"]) for each in servers]

    def load(self) -> Load:
        """Callers who never stop."""
        return Load(lambda: caller(self.server.port), threads=2)


def caller(port: int) -> Ask:
    """Asks on one kept connection; the answer says in its header which version gave it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(key: str) -> int:
        # The processors are for the tasks.
        time.sleep(0.1)
        headers = {"Content-Type": "application/json", "X-Request-Key": key, "X-API-Key": ADMIN_KEY}
        connection.request("POST", "/invocations", BODY, headers)
        response = connection.getresponse()
        content = json.loads(response.read())
        assert response.status == 200
        assert len(content["predictions"]) == 1
        return int(response.headers["X-Model-Version"])

    return ask


def rows_of(seed: int) -> pa.Table:
    """Rows whose label depends on all three columns alike."""
    x, y, z, noise = np.random.default_rng(seed).normal(size=(4, ROWS))
    return pa.table({"x": x, "y": y, "z": z, "late": (x + y + z + 0.3 * noise > 0).astype(np.int64)})


def a_version(lake: Lake, client: RegistryClient, number: int, *, hesitant: bool = False) -> ModelVersion:
    """A version that looks at so many columns."""
    return train(
        lake, client, dataset=head(lake, "small_flights"),
        estimator="tests.integration.release_models:seeing",
        params={"columns": number, "hesitant": hesitant}, target="late", features=list(COLUMNS),
        split={"kind": "time", "holdout_partitions": 2}, model_name=MODEL, actor=somebody(f"train {number}"),
        as_of=now(),
    )  # fmt: skip


def judged(lake: Lake, client: RegistryClient, model: ModelVersion, champion: ModelVersion) -> Evaluation:
    """What there is when people are asked: an evaluation by the DAG's policy, and a smoke test on record."""
    evaluation = evaluate(
        lake, client, challenger=model, champion=champion, gates=gates.POLICY, actor=somebody("judge"),
        as_of=now(),
    )  # fmt: skip
    check = CheckSummary(check="predictions", column=None, outcome=Outcome.PASSED, severity=Severity.CRITICAL)
    tested = SmokeTest(
        recorded_at=now(), produced_by=somebody("smoke").producer, model=model.ref,
        artifact_digest=model.artifact_digest, environment="current", server="mlflow",
        outcome=Outcome.PASSED, checks=(check,), figures={"latency_p95_ms": 5.0, "size_mib": 0.1},
        settings_digest="s", requests=20,
    )  # fmt: skip
    lake.evidence.put(tested)
    return evaluation


@pytest.fixture(scope="module")
def stage(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("release")
    settings = LakeSettings(uri=str(folder / "lake"), storage_options={}, credentials=None)
    init_lake(settings, actor=somebody("init"), as_of=now())
    lake, client = open_lake(settings), RegistryClient(mlflow_server.settings())
    segments = [Segment(f"2013-01-0{day}", str(day), rows_of(day).to_reader) for day in range(1, 5)]
    made = commit(lake, "small_flights", segments, actor=somebody("load"), as_of=now()).record
    validate(
        lake, made.ref, suite="tests.integration.release_models:suite", data_docs=False,
        actor=somebody("validate"), as_of=now(),
    )  # fmt: skip
    with contextlib.ExitStack() as opened:
        # The server outlives this lake: an alias without its ledger is a mismatch to whoever comes after.
        opened.callback(forget, client)
        first, second, third = (a_version(lake, client, number, hesitant=number == 3) for number in (1, 2, 3))
        put_in_force(lake, client, first, key="first")
        better, slow = judged(lake, client, second, first), judged(lake, client, third, second)
        (folder / "admin").write_text(ADMIN_KEY)
        options = ["--poll-seconds", "5", "--admin-keys", str(folder / "admin"), "--threads", "2"]
        serving = opened.enter_context(
            xops_server(MODEL, lake=settings, mlflow_url=mlflow_server.url, options=options)
        )
        connections: dict[str, dict[str, Any]] = {
            "LAKE": {"conn_type": "xops_lake", "host": lake.uri},
            "MLFLOW": {"conn_type": "xops_mlflow", "host": mlflow_server.url},
            "SERVING": {
                "conn_type": "xops_serving", "host": serving.url, "password": ADMIN_KEY,
                "extra": {"kind": "xops"},
            },
        }  # fmt: skip
        environment = {
            f"AIRFLOW_CONN_XOPS_{name}_DEFAULT": json.dumps(fields) for name, fields in connections.items()
        }
        server = opened.enter_context(
            airflow(
                {DAG_FILE.name: DAG_FILE.read_text()}, users=USERS, environment=environment, triggerer=False
            )
        )
        server.dags_are_there(DAG)
        yield Stage(server, lake, client, serving, better, slow)


def forget(client: RegistryClient) -> None:
    with client.session("cleaning up after a test") as mlflow:
        mlflow.delete_registered_model(MODEL)


def test_a_better_version_goes_into_service_and_one_that_is_slow_to_callers_comes_back_by_itself(
    stage: Stage,
) -> None:
    with stage.load() as load:
        # Two people say yes: promoted on the way into service, step by step.
        conf = {"approvers": ["ana", "bob"], "soak_seconds": 1}
        health = {"max_error_rate": 0.01, "min_requests": 5}
        conf_of = {"evaluation": stage.better.record_id, "health": health}
        stage.airflow.start(DAG, "good", {**conf, **conf_of})
        stage.people_approve("good")
        assert stage.decided() == [("promoted", 1, ())]
        run = stage.airflow.ended(DAG, "good")
        assert run["state"] == "success", stage.airflow.why_failed(DAG, "good")
        in_service = time.monotonic()

        # The same for one that is slow where callers ask, and was quick wherever it was tested.
        conf_of = {"evaluation": stage.slow.record_id, "health": {**health, "max_p99_ms": SECONDS * 500}}
        stage.airflow.start(DAG, "bad", {**conf, **conf_of})
        stage.people_approve("bad")
        asked = time.monotonic()
        assert stage.airflow.ended(DAG, "bad")["state"] == "failed"
        went_back = time.monotonic()
        time.sleep(0.5)

    assert load.problems == []
    versions = [version for _, _, version in load.answers]
    assert set(versions) == {1, 2, 3}
    between = {version for begun, ended, version in load.answers if begun > in_service and ended < asked}
    assert between == {2}
    assert {version for begun, _, version in load.answers if begun > went_back} == {2}

    # The first run: every step, every person, one entry.
    assert stage.states("good") == {
        "check_gates": "success", "deploy": "success", "watch": "success", "roll_back_if_unwell": "skipped",
    }  # fmt: skip
    good, bad = list_deployments(stage.lake, model=MODEL)
    assert good.state == "in service"
    assert shown(good) == [
        ("load", "passed", 0.0), ("ready", "passed", 0.0), ("golden", "passed", 0.0),
        ("decide", "passed", 0.0), ("shift", "passed", 0.1), ("health", "passed", 0.1),
        ("shift", "passed", 0.5), ("health", "passed", 0.5), ("shift", "passed", 1.0),
        ("health", "passed", 1.0), ("confirm", "passed", 1.0), ("finish", "passed", 1.0),
    ]  # fmt: skip
    (check,) = stage.lake.evidence.all(DeploymentCheck.kind)
    assert isinstance(check, DeploymentCheck)
    assert (check.outcome, check.deployment) == (Outcome.PASSED, good.deployment.record_id)

    # The second: nobody got more than its first share, and it went back without a retry and without a person.
    assert stage.states("bad") == {
        "check_gates": "success", "deploy": "failed", "watch": "upstream_failed",
        "roll_back_if_unwell": "upstream_failed",
    }  # fmt: skip
    # Retries are for workers that die: an unwell version does not use them up.
    assert stage.tries("bad", "deploy") < 3
    assert bad.state == "failed"
    assert shown(bad)[3:] == [
        ("decide", "passed", 0.0), ("shift", "passed", 0.1), ("health", "failed", 0.1),
        ("abort", "failed", 0.0),
    ]  # fmt: skip
    assert "p99_ms" in bad.message
    assert stage.decided() == [
        ("promoted", 1, ()), ("promoted", 2, ("ana", "bob")), ("promoted", 3, ("ana", "bob")),
        ("rolled_back", 2, ()),
    ]  # fmt: skip
    assert stage.told_by_the_link("bad", "eve") == [(stage.server.url, {"2": 1.0})]
    state = ledger.state(stage.lake, MODEL, "champion")
    assert {version for version, _ in state.blocked} == {3}
    assert state.unapplied is None
    assert stage.client.alias_target(MODEL, "champion") == 2
    assert ledger.verify_chain(stage.lake, MODEL) == []
