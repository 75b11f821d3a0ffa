"""SIGKILL between each pair of steps of a rollout over two real servers; the rerun ends as if never killed.

A process of its own imports everything once and opens nothing; for each attempt it forks a child that is
killed right before its n-th step. Steps are what leaves the process: each evidence object (the deployment,
its steps, the traffic splits), each commit to the ledger, each alias set in MLflow. Meanwhile callers ask
both servers without a pause: no request may fail, and each answer is of a version that may answer then.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake, open_lake
from airflow_provider_xops.records import DeploymentStep
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import get_model
from airflow_provider_xops.serving.targets.health import HealthCondition
from airflow_provider_xops.serving.targets.own import OwnServers
from airflow_provider_xops.settings import LakeSettings, MlflowSettings
from tests import servers
from tests.integration.rollout_world import World, make_world, utc_now
from tests.processes import CONTEXT

pytestmark = pytest.mark.server

NEVER = -1
GOOD = HealthCondition()
# No answer is that fast, and callers do ask: this window always fails.
SICK = HealthCondition(max_p99_ms=1e-6, min_requests=1)


def step_points() -> list[tuple[Any, str]]:
    """Everything that changes something outside the process."""
    from mlflow import MlflowClient

    from airflow_provider_xops.lake.evidence import EvidenceStore

    return [
        (EvidenceStore, "put"),
        (ledger, "_commit"),
        (MlflowClient, "set_registered_model_alias"),
        (MlflowClient, "set_model_version_tag"),
    ]


def kill_before(step: int, report: Path) -> None:
    """From now on, count the steps in ``report``, and die by SIGKILL right before the given one."""
    done: list[str] = []

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if len(done) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(str(getattr(args[1], "kind", name)) if name == "put" else name)
            report.write_text(json.dumps(done))
            return original(*args, **kwargs)

        setattr(owner, name, watched)

    for owner, name in step_points():
        watch(owner, name)


def attempt(order: dict[str, Any]) -> None:
    """One try of the rollout under test."""
    client = RegistryClient(MlflowSettings(order["mlflow"], timeout_s=30))
    lake = open_lake(LakeSettings(order["lake"]))
    versions = [get_model(lake, order["name"], number) for number in (1, 2)]
    world = World(lake=lake, client=client, name=order["name"], versions=versions)
    key, version = order["key"], order["version"]
    target = OwnServers(lake, order["hosts"], actor=world.actor(key), clock=utc_now)
    world.deploy(
        target,
        version,
        key=key,
        decide=lambda: world.promote(version, key=key),
        health=HealthCondition.of(order["health"]),
    )


def forker(pipe: Connection) -> None:
    """Fork a child for each order; children die at will, this process stays."""
    while True:
        order = pipe.recv()
        if order is None:
            return
        child = os.fork()
        if child == 0:
            status = 1
            try:
                kill_before(order["step"], Path(order["report"]))
                attempt(order)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        pipe.send(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


class Callers:
    """Threads that ask each server again and again, and note what they got."""

    def __init__(self, hosts: Sequence[servers.XopsServer], body: dict[str, Any]) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []
        self._body = body
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(host,), daemon=True) for host in hosts]
        for thread in self._threads:
            thread.start()

    def _run(self, host: servers.XopsServer) -> None:
        while not self._end.wait(0.1):
            try:
                status, headers, _ = host.ask("/invocations", self._body)
            except OSError as error:
                self.failures.append(type(error).__name__)
                continue
            self.statuses[status] += 1
            self.versions[headers.get("x-model-version", "none")] += 1

    def begin_anew(self) -> None:
        self.versions.clear()

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)


class Stage:
    """Two servers, callers, and the forker that attempts rollouts."""

    def __init__(
        self, world: World, mlflow_url: str, hosts: Sequence[servers.XopsServer], folder: Path
    ) -> None:
        self.world, self.hosts, self.mlflow_url = world, hosts, mlflow_url
        self.report = folder / "steps.json"
        self.callers = Callers(
            hosts, {"dataframe_split": {"columns": ["x", "y"], "data": [[0.1, 0.2], [1.5, -1.0]]}}
        )
        self.pipe, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=forker, args=(other,), daemon=True)
        self.process.start()

    def target(self) -> OwnServers:
        return OwnServers(
            self.world.lake, [host.url for host in self.hosts], actor=self.world.actor("look"), clock=utc_now
        )

    def run(
        self, key: str, version: int, health: HealthCondition, *, step: int = NEVER
    ) -> tuple[int, list[str]]:
        """The child's exit status (negative: the signal), and the steps it has begun."""
        self.report.write_text("[]")
        self.pipe.send(
            {
                "step": step,
                "report": str(self.report),
                "mlflow": self.mlflow_url,
                "lake": self.world.lake.storage.uri,
                "name": self.world.name,
                "hosts": [host.url for host in self.hosts],
                "key": key,
                "version": version,
                "health": health.to_json(),
            }
        )
        assert self.pipe.poll(180), "the attempt did not end"
        return self.pipe.recv(), json.loads(self.report.read_text())

    def what_is_left(self, key: str, entries: int) -> dict[str, Any]:
        """What a rollout has left, without what differs from one to the next."""
        lake, name = self.world.lake, self.world.name
        key = self.world.actor(key).idempotency_key
        mine = [each for each in lake.evidence.all("deployments") if getattr(each, "key", "") == key]
        steps = [
            each
            for each in lake.evidence.all(DeploymentStep.kind)
            if isinstance(each, DeploymentStep) and each.deployment in {one.record_id for one in mine}
        ]
        written = ledger.entries(lake, name)[entries:]
        first = written[0].to_version if written else None
        champion = self.champion()
        return {
            "deployments": len(mine),
            "steps": [
                (each.step, str(each.outcome), each.weight)
                for each in sorted(steps, key=lambda each: each.number)
            ],
            "ledger": [(str(each.outcome), each.to_version == first) for each in written],
            "undone": [str(each.details.get("ledger", ""))[:14] for each in steps if each.step == "abort"],
            "problems": ledger.verify_chain(lake, name),
            "alias": self.world.client.aliases(name) == {"champion": champion},
            "served": self.settled_shares(champion) == {champion: 1.0},
        }

    def champion(self) -> int:
        """The version that the ledger names."""
        now = ledger.current(self.world.lake, self.world.name, "champion")
        assert now is not None
        assert now.to_version is not None
        return now.to_version

    def settled_shares(self, wanted: int) -> dict[int, float]:
        """The shares, once both servers have looked."""
        target = self.target()
        for _ in range(400):
            shares = target.serving(self.world.name, "champion")
            if shares == {wanted: 1.0}:
                break
            time.sleep(0.05)
        return shares

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()
        self.callers.stop()


@pytest.fixture(scope="module")
def stage(mlflow_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    from airflow_provider_xops.lake.lake import init_lake
    from airflow_provider_xops.records import Actor

    folder = tmp_path_factory.mktemp("rollout")
    settings = LakeSettings(uri=str(folder / "lake"), storage_options={}, credentials=None)
    init_lake(settings, actor=Actor.user("tester", key="init", fence=1), as_of=utc_now())
    lake: Lake = open_lake(settings)
    world = make_world(lake, RegistryClient(mlflow_server.settings()))
    world.promote(1)
    options = ["--poll-seconds", "0.3"]
    started: Callable[[], Any] = lambda: servers.xops_server(  # noqa: E731
        world.name, lake=settings, mlflow_url=mlflow_server.url, options=options
    )
    with started() as one, started() as two:
        made = Stage(world, mlflow_server.url, (one, two), folder)
        yield made
        made.close()


def kill_everywhere(
    stage: Stage, health: HealthCondition, points: Sequence[int] | None
) -> tuple[int, list[str]]:
    """Kill a rollout before each of these steps (None: all), run it again, and compare with one never killed.

    :returns: how many rollouts were killed, and the steps of one that was not.
    """
    world, healthy = stage.world, health == GOOD

    def candidate() -> int:
        return 2 if stage.champion() == 1 else 1

    def free(version: int) -> None:
        """A version that was rolled back from may try again: each round is a new one."""
        from airflow_provider_xops.registry.rollback import release

        if not healthy:
            release(
                world.lake, model_name=world.name, version=version, reason="next round",
                actor=world.actor(f"release-{time.monotonic_ns()}"), as_of=utc_now(),
            )  # fmt: skip

    word = "good" if healthy else "sick"
    entries, version = len(ledger.entries(world.lake, world.name)), candidate()
    status, steps = stage.run(f"{word}-undisturbed", version, health)
    assert status == 0
    expected = stage.what_is_left(f"{word}-undisturbed", entries)
    free(version)
    assert expected["problems"] == []
    assert (expected["alias"], expected["served"]) == (True, True)
    killed = 0
    for step in range(len(steps)) if points is None else [point % len(steps) for point in points]:
        key, version = f"{word}-{step}", candidate()
        entries = len(ledger.entries(world.lake, world.name))
        old = {1: 2, 2: 1}[version]
        stage.callers.begin_anew()

        status, begun = stage.run(key, version, health, step=step)
        assert (status, begun) == (-signal.SIGKILL, steps[:step])
        killed += 1
        if "_commit" not in begun:
            # Before the ledger has decided, callers get the old version only.
            assert set(stage.callers.versions) <= {str(old)}, f"killed before step {step}"
        assert stage.run(key, version, health)[0] == 0

        assert stage.what_is_left(key, entries) == expected, f"killed before step {step}, {steps[step]}"
        assert set(stage.callers.versions) <= {"1", "2"}
        free(version)
    assert set(stage.callers.statuses) == {200}
    assert stage.callers.failures == []
    return killed, steps


# Right before the alias is set in MLflow: the ledger has the entry, the deployment does not know of it.
GOOD_POINTS = (8,)
# Right before the alias is set back in MLflow: the ledger has the rollback.
SICK_POINTS = (-4,)


def test_a_rollout_killed_before_any_step_ends_as_one_never_killed(stage: Stage) -> None:
    _, steps = kill_everywhere(stage, GOOD, GOOD_POINTS)

    assert steps.count("deployments") == 1
    assert steps.count("traffic") == 3
    assert steps.count("deployment_steps") == 10
    assert steps.count("_commit") == 2


def test_a_rollout_whose_window_fails_is_undone_also_when_it_is_killed_on_the_way(stage: Stage) -> None:
    _, steps = kill_everywhere(stage, SICK, SICK_POINTS)

    assert steps.count("_commit") == 4
    assert steps[-1] == "deployment_steps"


@pytest.mark.soak
@pytest.mark.parametrize("health", [GOOD, SICK], ids=["good", "sick"])
def test_every_step(stage: Stage, health: HealthCondition) -> None:
    killed, steps = kill_everywhere(stage, health, None)

    print(
        f"{killed} rollouts killed, one before each of {len(steps)} steps;"
        f" {stage.callers.statuses[200]} requests answered, {len(stage.callers.failures)} failed"
    )
