"""Real `xops serve` processes as a deployment target: by Airflow tasks, by the command line, and by hand."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.cli import main
from airflow_provider_xops.errors import ArgumentError, ConflictError, NotFoundError, Superseded
from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.records import (
    Actor,
    Deployment,
    DeploymentCheck,
    Outcome,
    PromotionDecision,
    Variant,
    VariantRole,
)
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.targets.health import HealthCondition
from airflow_provider_xops.serving.targets.own import OwnServers
from airflow_provider_xops.serving.targets.rollout import Patience, abort_deployment
from airflow_provider_xops.serving.traffic import last_split, split_traffic
from airflow_provider_xops.settings import LakeSettings
from tests import servers
from tests.integration.dag_runs import Run, run_dag, tries
from tests.integration.rollout_world import World, make_world, shown, utc_now
from tests.unit.registry.builders import a_recorded_evaluation

pytestmark = pytest.mark.server

ALIASES = ("champion", "first", "tried", "shadowed", "mixed", "airflow", "cli")
ADMIN_KEY = "admin-key-of-the-tests-0123456789"
BODY = {"dataframe_split": {"columns": ["x", "y"], "data": [[0.1, 0.2], [1.5, -1.0]]}}


class Place:
    """One server with every alias of one model."""

    def __init__(self, world: World, server: servers.XopsServer, mlflow: servers.MlflowServer) -> None:
        self.world, self.server, self.mlflow = world, server, mlflow

    def target(self, key: str = "look", *, api_key: str = ADMIN_KEY) -> OwnServers:
        return OwnServers(
            self.world.lake, [self.server.url], api_key=api_key, actor=self.world.actor(key), clock=utc_now
        )

    def ask(self, alias: str) -> tuple[int, str]:
        """Ask as a caller does: the status and the version that answered."""
        status, headers, _ = self.server.ask(
            f"/v2/models/{self.world.name}@{alias}/infer",
            {"inputs": [{"name": each, "shape": [1], "datatype": "FP64", "data": [0.5]} for each in "xy"]},
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
        )
        return status, headers.get("x-model-version", "")

    def deploy(self, version: int, alias: str, **changes: Any) -> Any:
        key = changes.pop("key", f"{alias}-{version}")
        decide: Callable[[], PromotionDecision] = lambda: self.world.promote(version, alias=alias, key=key)  # noqa: E731
        values: dict[str, Any] = {"alias": alias, "decide": decide, "key": key}
        return self.world.deploy(self.target(key), version, **(values | changes))


@pytest.fixture(scope="module")
def place(mlflow_server: servers.MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("own")
    settings = LakeSettings(uri=str(folder / "lake"), storage_options={}, credentials=None)
    init_lake(settings, actor=Actor.user("tester", key="init", fence=1), as_of=utc_now())
    world = make_world(open_lake(settings), RegistryClient(mlflow_server.settings()))
    (folder / "admin").write_text(ADMIN_KEY)
    # Seven aliases look at the lake by themselves; a deployment tells them when.
    options = ["--poll-seconds", "30", "--admin-keys", str(folder / "admin"), "--threads", "2"]
    with servers.xops_server(
        [f"{world.name}@{alias}" for alias in ALIASES], lake=settings, mlflow_url=mlflow_server.url,
        options=options, wait="live",
    ) as server:  # fmt: skip
        yield Place(world, server, mlflow_server)


def part(world: World, version: int, role: VariantRole, weight: float) -> Variant:
    model = world.versions[version - 1]
    return Variant(version=version, created_at_ms=model.created_at_ms, role=role, weight=weight)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_first_version_is_loaded_and_asked_before_it_becomes_the_champion(place: Place) -> None:
    seen: list[tuple[int, str]] = []

    def decide() -> PromotionDecision:
        # The golden answers were right by now, and no caller got any.
        seen.append(place.ask("first"))
        return place.world.promote(1, alias="first")

    deployed = place.deploy(1, "first", decide=decide, steps=(1.0,))

    assert seen == [(503, "")]
    assert (deployed.state, deployed.served) == ("in service", {1: 3})
    assert place.ask("first") == (200, "1")


def test_a_version_is_tried_out_on_a_share_and_promoted_from_there(place: Place) -> None:
    place.world.promote(1, alias="tried")
    tried = place.deploy(2, "tried", decide=None, steps=(0.4,), key="try")
    target = place.target()
    assert tried.state == "tried out"
    assert target.serving(place.world.name, "tried") == {1: 0.6, 2: 0.4}
    assert {place.ask("tried")[1] for _ in range(40)} == {"1", "2"}

    # Another version is not brought in beside it: nobody could tell which one did what.
    # The same one is: it keeps its share until it has more.
    deployed = place.deploy(2, "tried", steps=(0.2, 0.8, 1.0))

    assert deployed.state == "in service"
    assert next(each.message for each in deployed.steps if each.step == "shift") == "it has them already"
    assert target.serving(place.world.name, "tried") == {2: 1.0}
    assert place.world.outcomes("tried") == [("promoted", 1), ("promoted", 2)]

    # Who ends the trial now does not take the champion that came of it out of service.
    place.world.promote(1, alias="tried", key="back-by-hand")
    place.world.promote(2, alias="tried", key="again-by-hand")
    before = last_split(place.world.lake, place.world.name, "tried")
    ended = abort_deployment(
        place.world.lake, place.world.client, place.target("late"), tried.deployment, reason="was promoted",
        actor=place.world.actor("late"), clock=utc_now,
    )  # fmt: skip
    assert ended.state == "ended"
    assert last_split(place.world.lake, place.world.name, "tried") == before
    wait_until(lambda: target.serving(place.world.name, "tried") == {2: 1.0})


def test_a_shadow_answers_nobody_and_goes_when_it_is_ended(place: Place) -> None:
    place.world.promote(1, alias="shadowed")
    shadow = place.deploy(2, "shadowed", decide=None, role="shadow", steps=(1.0,))
    assert (shadow.state, shadow.message) == ("tried out", "")
    split = last_split(place.world.lake, place.world.name, "shadowed")
    assert split is not None
    assert {each.version: str(each.role) for each in split.variants} == {1: "primary", 2: "shadow"}
    assert {place.ask("shadowed")[1] for _ in range(20)} == {"1"}

    ended = abort_deployment(
        place.world.lake, place.world.client, place.target("end"), shadow.deployment, reason="seen enough",
        actor=place.world.actor("end"), clock=utc_now,
    )  # fmt: skip
    assert ended.state == "ended"
    split = last_split(place.world.lake, place.world.name, "shadowed")
    assert split is not None
    assert [each.version for each in split.variants] == [1]


def test_who_shares_the_requests_anew_is_not_overruled(place: Place) -> None:
    world = place.world
    world.promote(1, alias="mixed")
    one = part(world, 1, VariantRole.PRIMARY, 1.0)
    target = place.target("mixed")

    def by_hand() -> PromotionDecision:
        split_traffic(
            world.lake, model=world.name, alias="mixed", variants=[one], reason="an emergency", expected=None,
            actor=world.actor("hand"), as_of=utc_now(),
        )  # fmt: skip
        return world.promote(2, alias="mixed")

    # The split by hand is about the champion of its time; the promotion ends it, so the rollout goes on.
    assert place.deploy(2, "mixed", decide=by_hand).state == "in service"
    again = place.deploy(2, "mixed", key="again", decide=lambda: world.promote(2, alias="mixed"))
    about = again.deployment
    two = part(world, 2, VariantRole.PRIMARY, 1.0)
    split_traffic(
        world.lake, model=world.name, alias="mixed", variants=[two], reason="an emergency", expected=None,
        actor=world.actor("hand-2"), as_of=utc_now(),
    )  # fmt: skip
    with pytest.raises(Superseded):
        target.shift(about, world.versions[1], 0.5)


def test_a_wrong_key_an_unknown_alias_and_another_canary_are_told_apart(place: Place) -> None:
    world = place.world
    with pytest.raises(ArgumentError) as raised:
        place.target(api_key="not-the-key-of-the-tests").serving(world.name, "first")
    assert raised.value.code == "argument.serving_key"
    with pytest.raises(NotFoundError) as unknown:
        place.target().serving(world.name, "nobody")
    assert unknown.value.code == "not_found.served_alias"
    world.promote(1, alias="champion")
    world.promote(2, alias="champion")
    canary = part(world, 1, VariantRole.CANARY, 0.2)
    primary = part(world, 2, VariantRole.PRIMARY, 0.8)
    split_traffic(
        world.lake, model=world.name, alias="champion", variants=[primary, canary], reason="try the old one",
        expected=None, actor=world.actor("canary"), as_of=utc_now(),
    )  # fmt: skip
    about = Deployment(
        recorded_at=utc_now(), produced_by=world.actor("c").producer, model=world.versions[1].ref,
        alias="champion", target="xops", endpoint="lake", key="c",
    )  # fmt: skip
    stranger = dataclasses.replace(world.versions[1], version=9, record_id="")

    with pytest.raises(ConflictError) as conflict:
        place.target("c").prepare(about, stranger)
    assert conflict.value.code == "conflict.canary"


@pytest.fixture
def connections(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = {"conn_type": "xops_lake", "host": place.world.lake.uri}
    mlflow = {"conn_type": "xops_mlflow", "host": place.mlflow.url, "extra": {"timeout": 30}}
    extra = {"kind": "xops"}
    serving = {
        "conn_type": "xops_serving", "host": place.server.url, "password": ADMIN_KEY, "extra": extra,
    }  # fmt: skip
    for name, fields in (("LAKE", lake), ("MLFLOW", mlflow), ("SERVING", serving)):
        monkeypatch.setenv(f"AIRFLOW_CONN_XOPS_{name}_DEFAULT", json.dumps(fields))


@pytest.fixture
def run(airflow_db: Path) -> Run:
    return run_dag


@pytest.mark.usefixtures("connections")
def test_tasks_deploy_check_and_undo(place: Place, run: Run) -> None:
    from airflow.sdk import DAG

    from airflow_provider_xops.hooks.serving import ServingHook
    from airflow_provider_xops.operators.model import (
        CheckDeploymentOperator,
        DeployModelOperator,
        RollbackModelOperator,
    )

    world, alias = place.world, "airflow"
    world.promote(1, alias=alias)
    evaluation = a_recorded_evaluation(world.lake, world.versions[1], world.versions[0])
    assert ServingHook().test_connection() == (True, "All 1 servers answer.")
    quick: dict[str, Any] = {"alias": alias, "poll_seconds": 0.2, "timeout_seconds": 60}
    with DAG(dag_id=f"deploy_{uuid.uuid4().hex[:8]}", schedule=None) as dag:
        deploy = DeployModelOperator(
            task_id="deploy", evaluation=evaluation.record_id, steps="[0.5, 1.0]", soak_seconds=0.2,
            health={"max_error_rate": 0.5}, **quick,
        )  # fmt: skip
        well = CheckDeploymentOperator(task_id="well", deployment=deploy.output, seconds=0.2, **quick)
        kept = RollbackModelOperator(
            task_id="kept", model_name=world.name, alias=alias, check=well.output, reason="the check failed"
        )
        ill = CheckDeploymentOperator(
            task_id="ill", model_name=world.name, seconds=0.2,
            health='{"max_p99_ms": 1e-6, "min_requests": 1}', trigger_rule="all_done", **quick,
        )  # fmt: skip
        undone = RollbackModelOperator(
            task_id="undone", model_name=world.name, alias=alias, check=ill.output, reason="the check failed"
        )
        kept >> ill >> undone
    callers = threading.Event()

    def call() -> None:
        while not callers.wait(0.2):
            place.ask(alias)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    try:
        done = run(dag)
    finally:
        callers.set()
        thread.join(20)

    assert {task: state for task, (state, _) in tries(done).items()} == {
        "deploy": "success", "well": "success", "kept": "skipped", "ill": "success", "undone": "success",
    }  # fmt: skip
    pulled = {
        task: done.get_task_instance(task).xcom_pull(task_ids=task) for task in ("deploy", "well", "ill")
    }
    assert (pulled["deploy"]["outcome"], pulled["deploy"]["served"]) == ("passed", {"2": 3})
    assert pulled["deploy"]["decision"] == 3
    assert DeploymentCheck.from_json(pulled["well"]).outcome is Outcome.PASSED
    assert DeploymentCheck.from_json(pulled["well"]).deployment == pulled["deploy"]["record_id"]
    assert DeploymentCheck.from_json(pulled["ill"]).outcome is Outcome.FAILED
    assert world.outcomes(alias) == [("promoted", 1), ("promoted", 2), ("rolled_back", 1)]


def test_the_command_line_deploys_checks_lists_and_ends(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = place.world
    world.promote(1, alias="cli")
    a_recorded_evaluation(world.lake, world.versions[1], world.versions[0])
    monkeypatch.setenv("XOPS_SERVING_HOSTS", place.server.url)
    monkeypatch.setenv("XOPS_SERVING_API_KEY", ADMIN_KEY)
    common = ["--lake", world.lake.uri, "--mlflow", place.mlflow.url]
    pace = ["--alias", "cli", "--timeout-seconds", "60", "--poll-seconds", "0.2"]

    def xops(*args: str) -> tuple[int, str]:
        code = main([*args, *common])
        return code, capsys.readouterr().out.strip()

    code, said = xops(
        "deploy", world.name, "2", "--try-out", "--steps", "0.3", "--soak-seconds", "0.1", *pace
    )
    assert (code, said.split(":")[0]) == (0, "tried out")
    listed = json.loads(xops("deployments", world.name, "--alias", "cli", "--json")[1])
    first = listed[0]["deployment"]["record_id"][:12]
    code, said = xops("deploy", "--abort", first, "--reason", "done", *pace)
    assert (code, said[:16]) == (0, "ended deployment")

    code, said = xops("deploy", world.name, "2", "--steps", "0.5,1", "--soak-seconds", "0.1", *pace)
    assert (code, said.split(":")[0]) == (0, "in service")
    assert world.outcomes("cli") == [("promoted", 1), ("promoted", 2)]
    code, said = xops("check-deployment", world.name, "--seconds", "0.1", *pace)
    assert (code, said.splitlines()[0]) == (0, f"passed: {world.name} v2 as cli (decision 3)")
    code, said = xops("deployments", world.name, "--alias", "cli", "--steps")
    assert code == 0
    assert [line.rpartition(": ")[2] for line in said.splitlines() if line[0].isdigit()] == [
        "ended (done)", "in service",
    ]  # fmt: skip
    assert " 10 finish" in said


def test_a_replica_that_is_away_is_waited_for_and_the_old_version_goes_on(place: Place) -> None:
    world = place.world
    (port,) = servers.free_ports(1)
    target = OwnServers(
        world.lake, [place.server.url, f"127.0.0.1:{port}"], api_key=ADMIN_KEY, actor=world.actor("away"),
        clock=utc_now,
    )  # fmt: skip
    before = place.ask("first")

    deployed = world.deploy(
        target, 2, key="away", alias="first", decide=lambda: world.promote(2, alias="first"),
        patience=Patience(load_s=1.0, settle_s=1.0, poll_s=0.2), health=HealthCondition(),
    )  # fmt: skip

    assert shown(deployed)[1:] == [("ready", "failed", 0.0), ("abort", "failed", 0.0)]
    assert "did not answer" in deployed.message
    assert world.outcomes("first")[-1] == ("promoted", 1)
    assert place.ask("first") == before
