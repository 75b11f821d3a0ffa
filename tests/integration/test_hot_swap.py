"""Hot swaps of real models under load: promoted, shared, rolled back, and with MLflow down."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airflow_provider_xops.lake.lake import Lake, open_lake
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.online.fleet import Fleet
from airflow_provider_xops.serving.online.follower import EventKind, Follower, FollowEvent
from airflow_provider_xops.serving.online.model_files import ModelFiles
from tests import servers
from tests.integration.served_models import Ask, Load, Registry, in_force, make_lake, now, part

pytestmark = pytest.mark.server

SWAPS = 5
ROWS = pd.DataFrame({"x": [0.0, 1.0], "n": [0.0, 1.0]})


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return make_lake(tmp_path_factory.mktemp("served"))


@pytest.fixture
def registry(lake: Lake, mlflow_server: servers.MlflowServer) -> Registry:
    return Registry(lake, RegistryClient(mlflow_server.settings()))


@dataclass
class Server:
    """What one server process has for one alias, without the HTTP around it."""

    registry: Registry
    files: ModelFiles
    client: RegistryClient
    events: list[FollowEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        registry = self.registry
        self.fleet = Fleet(registry.loader(files=self.files, client=self.client), clock=now)
        self.follower = Follower(
            lambda: open_lake(registry.lake.settings), registry.name, registry.alias, self.fleet,
            interval=0.05, clock=now, on_event=self.events.append,
        )  # fmt: skip

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, self.fleet.status()
            time.sleep(0.01)

    def serves(self, *versions: int) -> bool:
        serving = self.fleet.status()["serving"]["variants"]
        return {each["version"] for each in serving if each["weight"] > 0} == set(versions)


@pytest.fixture
def start(registry: Registry, mlflow_server: servers.MlflowServer) -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as running:

        def start(files: ModelFiles | None = None, *, patience_s: float = 30) -> Server:
            settings = mlflow_server.settings(timeout_s=patience_s, max_retries=0)
            server = Server(registry, files or ModelFiles(), RegistryClient(settings))
            server.follower.start()
            running.callback(server.follower.stop)
            return server

        yield start


def leased(fleet: Fleet) -> Callable[[], Ask]:
    """Asks by a lease, each answer held against the version that the lease names."""

    def ask(key: str) -> int:
        with fleet.lease(key) as lease:
            said = lease.loaded.predict(ROWS).labels.tolist()
            assert said == [float(lease.loaded.version)] * 2
            return lease.loaded.version

    return lambda: ask


def test_swaps_under_load_fail_no_request_and_each_answer_was_in_force(
    registry: Registry, start: Callable[..., Server]
) -> None:
    models = [registry.fit() for _ in range(4)]
    registry.promote(models[0])
    server = start()
    server.wait_for(lambda: server.serves(1))
    # When each champion was decided on, and since when it is served.
    champions = [(0.0, time.monotonic(), 1)]

    with Load(leased(server.fleet)) as load:
        for number in range(1, SWAPS + 1):
            model = models[number % len(models)]
            decided = time.monotonic()
            registry.promote(model)
            server.wait_for(lambda version=model.version: server.serves(version))
            champions.append((decided, time.monotonic(), model.version))

    assert load.problems == []
    assert server.fleet.swaps == SWAPS + 1
    assert {version for _, _, version in load.answers} == {model.version for model in models}
    for begun, ended, version in load.answers:
        assert version in in_force(champions, begun, ended)
    assert [each.kind for each in server.events] == [EventKind.SWAPPED] * (SWAPS + 1)
    last = {version for _, _, version in champions[-2:]}
    assert set(server.fleet.versions) == last, "the champion before stays loaded, and no other"


def test_a_rollback_under_load_is_served_from_memory_while_mlflow_is_down(
    registry: Registry, start: Callable[..., Server], mlflow_server: servers.MlflowServer
) -> None:
    first, second, third = (registry.fit() for _ in range(3))
    registry.promote(first)
    registry.promote(second)
    registry.share(part(second, "primary", 0.5), part(third, "canary", 0.5))
    server = start(patience_s=2)
    server.wait_for(lambda: server.serves(2, 3) and server.fleet.whole)

    with stopped(mlflow_server), Load(leased(server.fleet)) as load:
        time.sleep(0.1)
        decided = time.monotonic()
        registry.roll_back(first)
        server.wait_for(lambda: server.serves(1))
        served = time.monotonic()
        time.sleep(0.1)

    assert load.problems == []
    assert {version for begun, _, version in load.answers if begun > served} == {1}
    assert {version for _, ended, version in load.answers if ended < decided} == {2, 3}
    assert server.fleet.whole
    assert server.fleet.failures == ()


def test_while_mlflow_is_down_the_last_good_version_serves_and_the_new_one_comes_when_it_is_back(
    registry: Registry, start: Callable[..., Server], mlflow_server: servers.MlflowServer
) -> None:
    first, second = (registry.fit() for _ in range(2))
    registry.promote(first)
    server = start(patience_s=2)
    server.wait_for(lambda: server.serves(1))

    with Load(leased(server.fleet), threads=1) as load:
        with stopped(mlflow_server):
            registry.promote(second)
            server.wait_for(lambda: bool(server.fleet.failures))
            assert server.serves(1)
            (failure,) = server.fleet.failures
            assert failure.code.startswith("unavailable.mlflow")
        server.follower.refresh()
        server.wait_for(lambda: server.serves(2))

    assert load.problems == []
    assert Counter(each.kind for each in server.events)[EventKind.LOAD_FAILED] >= 1


def test_a_server_that_starts_while_mlflow_is_down_says_so_or_serves_what_it_has_kept(
    registry: Registry,
    start: Callable[..., Server],
    mlflow_server: servers.MlflowServer,
    tmp_path: Path,
) -> None:
    champion = registry.fit()
    registry.promote(champion)
    before = start(ModelFiles(tmp_path))
    before.wait_for(lambda: before.fleet.whole)
    before.follower.stop()

    with stopped(mlflow_server):
        kept = start(ModelFiles(tmp_path), patience_s=2)
        kept.wait_for(lambda: kept.serves(1))
        cold = start(patience_s=2)
        cold.wait_for(lambda: bool(cold.fleet.failures))
        assert not cold.fleet.ready
        assert cold.fleet.status()["failed"][0]["code"].startswith("unavailable.mlflow")
    cold.follower.refresh()
    cold.wait_for(lambda: cold.serves(1))


@contextlib.contextmanager
def stopped(server: servers.MlflowServer) -> Iterator[Any]:
    """An MLflow that accepts connections and never answers."""
    server.process.signal_group(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.signal_group(signal.SIGCONT)
