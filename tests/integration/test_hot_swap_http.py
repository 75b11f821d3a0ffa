"""Hot swaps of the whole server, asked over HTTP all the while: no failed request, no wrong version."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from airflow_provider_xops.registry.client import RegistryClient
from tests import servers
from tests.integration.served_models import Ask, Load, Registry, in_force, make_lake, part

pytestmark = pytest.mark.server

SWAPS = 10
BODY = json.dumps({"dataframe_split": {"columns": ["x", "n"], "data": [[0.0, 1.0]]}})


@pytest.fixture
def registry(mlflow_server: servers.MlflowServer, tmp_path: Path) -> Registry:
    return Registry(make_lake(tmp_path), RegistryClient(mlflow_server.settings()))


@pytest.fixture
def serve(
    registry: Registry, mlflow_server: servers.MlflowServer
) -> Callable[[], AbstractContextManager[servers.XopsServer]]:
    return lambda: servers.xops_server(
        registry.name, lake=registry.lake.settings, mlflow_url=mlflow_server.url,
        options=["--poll-seconds", "0.1"],
    )  # fmt: skip


def connected(server: servers.XopsServer) -> Callable[[], Ask]:
    """Asks on one kept connection; the answer says in its header which version gave it, and is held to it."""

    def make() -> Ask:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

        def ask(key: str) -> int:
            headers = {"Content-Type": "application/json", "X-Request-Key": key}
            connection.request("POST", "/invocations", BODY, headers)
            response = connection.getresponse()
            content = json.loads(response.read())
            assert response.status == 200
            version = int(response.headers["X-Model-Version"])
            assert content == {"predictions": [float(version)]}
            return version

        return ask

    return make


def wait_for(server: servers.XopsServer, versions: set[int]) -> float:
    """Wait until exactly these versions answer; gives the moment when it was seen."""
    end = time.monotonic() + 120
    while True:
        fleet = next(iter(server.ask("/xops/status")[2]["models"].values()))["fleet"]
        if {each["version"] for each in fleet["serving"]["variants"] if each["weight"]} == versions:
            return time.monotonic()
        assert time.monotonic() < end, fleet
        time.sleep(0.05)


def test_ten_swaps_a_canary_and_a_rollback_fail_no_request(
    registry: Registry, serve: Callable[[], AbstractContextManager[servers.XopsServer]]
) -> None:
    models = [registry.fit() for _ in range(4)]
    registry.promote(models[0])
    with serve() as server:
        champions = [(0.0, time.monotonic(), 1)]
        with Load(connected(server), threads=2) as load:
            for number in range(1, SWAPS + 1):
                model, decided = models[number % len(models)], time.monotonic()
                registry.promote(model)
                champions.append((decided, wait_for(server, {model.version}), model.version))
        status = next(iter(server.ask("/xops/status")[2]["models"].values()))

        with Load(connected(server), threads=2) as shared:
            registry.share(part(models[2], "primary", 0.5), part(models[3], "canary", 0.5))
            wait_for(server, {3, 4})
            time.sleep(0.3)
            registry.roll_back(models[1])
            rolled_back = wait_for(server, {2})
            time.sleep(0.3)

        ask = connected(server)()
        assert {ask(f"customer {number}") for number in range(20)} == {2}

    assert load.problems == []
    for begun, ended, version in load.answers:
        assert version in in_force(champions, begun, ended)
    assert {version for _, _, version in load.answers} == {1, 2, 3, 4}
    assert status["fleet"]["swaps"] == SWAPS + 1
    assert status["follower"]["failures"] == 0
    assert status["fleet"]["failed"] == []
    assert shared.problems == []
    assert {version for _, _, version in shared.answers} == {2, 3, 4}
    assert {version for begun, _, version in shared.answers if begun > rolled_back} == {2}
