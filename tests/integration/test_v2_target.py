"""The V2 target with MLServer in its own environment: two servers, one repository, callers all the while."""

from __future__ import annotations

import ast
import collections
import contextlib
import http.client
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from airflow_provider_xops.errors import ModelError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ModelVersion, Outcome
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.rollback import rollback
from airflow_provider_xops.serving.targets._v2_protocol import as_infer_request
from airflow_provider_xops.serving.targets.golden import GoldenRows, ask_golden
from airflow_provider_xops.serving.targets.rollout import Patience
from airflow_provider_xops.serving.targets.v2 import V2Backend
from tests import servers
from tests.integration import target_steps as steps
from tests.integration.rollout_world import World
from tests.unit.serving.targets.builders import a_deployment

pytestmark = pytest.mark.server
PATIENT = Patience(load_s=60, settle_s=30, requests_s=30, poll_s=0.1)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return steps.lake_with_rows(str(tmp_path_factory.mktemp("v2") / "lake"))


@pytest.fixture(scope="module")
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings(timeout_s=120, max_retries=3))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def pair(repository: Path) -> Iterator[list[servers.MlServer]]:
    """Two servers over one repository: one predicts in a process of its own, as is MLServer's default."""
    try:
        with servers.mlserver(repository) as one, servers.mlserver(repository, parallel_workers=0) as other:
            yield [one, other]
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def versions(lake: Lake, client: RegistryClient) -> list[ModelVersion]:
    """Two versions that predict words, and numbers."""
    name = f"late {uuid.uuid4().hex[:8]}"
    return [steps.a_version(lake, client, name), steps.a_version(lake, client, name, target="late")]


@pytest.fixture(scope="module")
def backend(lake: Lake, client: RegistryClient, pair: list[servers.MlServer], repository: Path) -> V2Backend:
    return V2Backend(
        lake,
        client,
        urls=[server.url for server in pair],
        repository=repository,
        metrics_urls=[server.metrics_url for server in pair],
        timeout_s=60,
    )


@dataclass
class Callers:
    """Callers of two servers, who hardly pause; what they were answered, in order, by server."""

    heard: dict[str, list[Any]] = field(default_factory=lambda: collections.defaultdict(list))
    stop: threading.Event = field(default_factory=threading.Event)

    def ask(self, url: str, name: str, body: bytes) -> None:
        """Ask one server until told to stop, on one connection."""
        path, headers = f"/v2/models/{quote(name)}/infer", {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        with contextlib.closing(connection):
            while not self.stop.is_set():
                said: Any
                try:
                    connection.request("POST", path, body, headers)
                    answer = connection.getresponse()
                    content = answer.read()
                    said = answer.status
                    if answer.status == 200:
                        said = json.loads(content)["outputs"][0]["data"]
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    said = type(error).__name__
                self.heard[url].append(said)
                self.stop.wait(0.05)


@contextlib.contextmanager
def asked_all_the_while(pair: list[servers.MlServer], name: str, frame: Any) -> Iterator[Callers]:
    """Two callers a server while the block runs."""
    callers, body = Callers(), json.dumps(as_infer_request(frame)).encode()
    threads = [
        threading.Thread(target=callers.ask, args=(server.url, name, body))
        for server in pair
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        callers.stop.set()
        for thread in threads:
            thread.join(30)


def test_a_rollout_and_a_rollback_without_one_failed_request(
    lake: Lake, client: RegistryClient, backend: V2Backend, pair: list[servers.MlServer],
    versions: list[ModelVersion],
) -> None:  # fmt: skip
    world = World(lake, client, versions[0].name, versions)
    first = world.deploy(backend, 1, key="one", steps=(1.0,), patience=PATIENT)
    assert (first.outcome, first.served) == (Outcome.PASSED, {1: 6})
    frame = GoldenRows.of(lake, versions[0]).frame.iloc[:5]
    with asked_all_the_while(pair, world.name, frame) as callers:
        second = world.deploy(backend, 2, key="two", steps=(1.0,), patience=PATIENT)
        back = rollback(
            lake, client, model_name=world.name, reason="a test", actor=world.actor("back"),
            as_of=datetime.now(UTC),
        )  # fmt: skip
        third = world.deploy(
            backend, 1, key="three", steps=(1.0,), patience=PATIENT, decide=lambda: back.decision
        )
    assert (second.outcome, second.served) == (Outcome.PASSED, {2: 6})
    assert (third.outcome, third.served) == (Outcome.PASSED, {1: 6})
    assert world.outcomes() == [("promoted", 1), ("promoted", 2), ("rolled_back", 1)]
    golden = versions[0].golden
    assert golden is not None
    words = [ast.literal_eval(label) for label in golden.labels[:5]]
    for server in pair:
        heard = callers.heard[server.url]
        failed = [each for each in heard if not isinstance(each, list)]
        assert failed == []
        kinds = [
            "words" if each == words else "numbers" for each in heard if each == words or set(each) <= {0, 1}
        ]
        assert len(kinds) == len(heard)
        assert {"words", "numbers"} == set(kinds)
        assert kinds[0] == kinds[-1] == "words"
    assert backend.serving(world.name, "champion") == {1: 1.0}


def test_a_candidate_is_asked_while_no_caller_reaches_it_and_is_gone_after_an_abort(
    lake: Lake, backend: V2Backend, versions: list[ModelVersion], repository: Path
) -> None:
    one, two = versions
    served = a_deployment(one, target="v2", endpoint=backend.endpoint, key="a", alias="champion-eu")
    backend.prepare(served, one)
    backend.shift(served, one, 1.0)
    backend.finish(served, one, keep_previous=True)
    before = {path for path in repository.rglob("*") if path.is_file()}
    work = a_deployment(
        two, target="v2", endpoint=backend.endpoint, key="b", alias="champion-eu", previous=one.ref
    )
    backend.prepare(work, two)
    assert backend.ready(work, two).replicas == 2
    rows = GoldenRows.of(lake, two)
    judged = ask_golden(backend, rows, two, alias="champion-eu", version=2, tolerance=1e-9)
    assert (judged.outcome, judged.served) == (Outcome.PASSED, {2: 2})
    plain = backend.ask(two, rows.frame, alias="champion-eu", version=None)
    assert [answer.version for answer in plain] == [1, 1]
    backend.abort(work, two)
    gone = backend.ask(two, rows.frame, alias="champion-eu", version=2)
    assert [answer.status for answer in gone] == [404, 404]
    assert {path for path in repository.rglob("*") if path.is_file()} == before
    assert backend.serving(two.name, "champion-eu") == {1: 1.0}
    backend.abort(served, one)


def test_wrong_rows_are_an_answer_without_their_values(
    lake: Lake, backend: V2Backend, versions: list[ModelVersion]
) -> None:
    frame = GoldenRows.of(lake, versions[0]).frame.drop(columns=["x"])
    work = a_deployment(versions[0], target="v2", endpoint=backend.endpoint, key="wrong")
    backend.prepare(work, versions[0])
    for answer in backend.ask(versions[0], frame, alias="champion", version=1):
        assert answer.status >= 400
        assert (answer.predictions, answer.scores) == (None, None)
        assert "UA" not in repr(answer)
    backend.abort(work, versions[0])


def test_a_version_that_the_servers_environment_cannot_load(
    lake: Lake, client: RegistryClient, backend: V2Backend, pair: list[servers.MlServer], repository: Path
) -> None:
    # Its class is importable here, and nowhere in MLServer's environment.
    name = f"marks {uuid.uuid4().hex[:8]}"
    model = steps.a_version(
        lake, client, name, estimator="tests.integration.smoke_models:Marks", target="delay",
        features=["x", "n"],
    )  # fmt: skip
    work = a_deployment(model, target="v2", endpoint=backend.endpoint, key="marks")
    with pytest.raises(ModelError) as refused:
        backend.prepare(work, model)
    assert refused.value.code == "model.not_loaded"
    assert "Traceback" not in str(refused.value)
    assert not [path for path in repository.rglob("model-settings.json") if "marks" in str(path)]
    backend.abort(work, model)
    assert backend.serving(name, "champion") == {}


def test_a_server_that_was_away_comes_back_with_what_was_deployed_meanwhile(
    lake: Lake, client: RegistryClient, versions: list[ModelVersion], tmp_path: Path
) -> None:
    one, two = versions
    try:
        with servers.mlserver(tmp_path, parallel_workers=0) as server:
            backend = V2Backend(lake, client, urls=[server.url], repository=tmp_path, timeout_s=60)
            first = a_deployment(one, target="v2", endpoint=backend.endpoint, key="1")
            backend.prepare(first, one)
            backend.shift(first, one, 1.0)
            backend.finish(first, one, keep_previous=True)
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))
    work = a_deployment(two, target="v2", endpoint=backend.endpoint, key="2", previous=one.ref)
    with pytest.raises(UnavailableError):
        backend.prepare(work, two)
    with pytest.raises(UnavailableError):
        backend.shift(work, two, 1.0)
    with servers.mlserver(tmp_path, parallel_workers=0, ports=server.ports):
        assert backend.serving(two.name, "champion") == {2: 1.0}
        assert backend.settled(work, two, 1.0).ready
        backend.abort(work, two)
        assert backend.serving(two.name, "champion") == {1: 1.0}


def test_the_metrics_pages_count_what_callers_asked(
    lake: Lake, backend: V2Backend, versions: list[ModelVersion]
) -> None:
    one = versions[0]
    work = a_deployment(one, target="v2", endpoint=backend.endpoint, key="m", alias="champion-m")
    backend.prepare(work, one)
    backend.shift(work, one, 1.0)
    rows = GoldenRows.of(lake, one)
    mark = backend.mark(work, as_of=steps.AS_OF)
    for _ in range(3):
        ask_golden(backend, rows, one, alias="champion-m", version=None, tolerance=1e-9)
    backend.ask(one, rows.frame.drop(columns=["x"]), alias="champion-m", version=None)
    found = backend.observe(work, since=mark, as_of=steps.AS_OF)
    assert found is not None
    assert (found.versions[1].requests, found.versions[1].errors) == (8, 2)
    backend.abort(work, one)


@pytest.mark.soak
def test_forty_swaps_without_one_failed_request(
    lake: Lake, backend: V2Backend, pair: list[servers.MlServer], versions: list[ModelVersion]
) -> None:
    name, frame = versions[0].name, GoldenRows.of(lake, versions[0]).frame
    callers_heard = 0
    for number in range(41):
        model, other = versions[number % 2], versions[(number + 1) % 2]
        work = a_deployment(
            model, target="v2", endpoint=backend.endpoint, key=f"soak-{number}", alias="soak",
            previous=other.ref if number else None,
        )  # fmt: skip
        backend.prepare(work, model)
        if number == 0:
            backend.shift(work, model, 1.0)
            backend.finish(work, model, keep_previous=True)
            continue
        with asked_all_the_while(pair, f"{name}:soak", frame) as callers:
            backend.shift(work, model, 1.0)
            assert backend.settled(work, model, 1.0).ready
            backend.finish(work, model, keep_previous=True)
        answers = [each for heard in callers.heard.values() for each in heard]
        assert [each for each in answers if not isinstance(each, list)] == [], f"at swap {number}"
        callers_heard += len(answers)
    print(f"40 swaps, {callers_heard} requests, none failed")
    assert callers_heard > 400
