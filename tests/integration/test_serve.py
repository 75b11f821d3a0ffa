"""`xops serve` as a process: real lake, real MLflow, real connections, and its end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import Actor, ModelVersion
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.settings import LakeSettings
from airflow_provider_xops.training.fit import train
from airflow_provider_xops.training.frames import feature_frame
from benchmarks import _load
from tests import servers
from tests.integration.serve_models import SLOW_ABOVE
from tests.integration.serve_steps import AS_OF, put_in_force, split_body

FEATURES = ["x", "y"]
KEY, ADMIN = "a-key-for-scoring-1", "a-key-for-managing-1"
FAST = ["--poll-seconds", "0.2", "--shutdown-seconds", "10"]


class Stack:
    """A lake with rows, models trained on them, and the MLflow they are in."""

    def __init__(self, folder: Path, mlflow: servers.MlflowServer) -> None:
        self.mlflow = mlflow
        self.settings = LakeSettings(uri=str(folder / "lake"), storage_options={}, credentials=None)
        init_lake(self.settings, actor=_actor("init"), as_of=AS_OF)
        self.lake: Lake = open_lake(self.settings)
        self.client = RegistryClient(mlflow.settings())
        rng = np.random.default_rng(3)
        values = rng.normal(size=(400, 2))
        label = (values.sum(axis=1) + rng.normal(size=400) > 0).astype(np.int64)
        self.rows = pa.table({"x": values[:, 0], "y": values[:, 1], "late": label, "delay": values[:, 0]})
        commit(
            self.lake, "flights", [Segment("all", "rows", self.rows.to_reader)], actor=_actor("rows"),
            as_of=AS_OF,
        )  # fmt: skip
        self.linear = self.model("serve-late", "tests.integration.serve_models:linear", "late")
        self.slow = self.model("serve-slow", "tests.integration.serve_models:Slow", "delay")
        for each in (self.linear, self.slow):
            put_in_force(self.lake, self.client, each, key=f"promote {each.name}")

    def model(self, name: str, estimator: str, target: str, key: str = "first") -> ModelVersion:
        return train(
            self.lake, self.client, dataset=head(self.lake, "flights"), estimator=estimator, target=target,
            features=FEATURES, split={"kind": "random"}, model_name=name, actor=_actor(f"train {name} {key}"),
            as_of=AS_OF,
        )  # fmt: skip

    def serve(self, *models: str, options: list[str], **more: Any) -> Any:
        return servers.xops_server(
            list(models), lake=self.settings, mlflow_url=self.mlflow.url, options=[*FAST, *options], **more
        )


def _actor(key: str) -> Actor:
    return Actor.user("tester", key=key, fence=1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, mlflow_server: servers.MlflowServer) -> Stack:
    return Stack(tmp_path_factory.mktemp("serve"), mlflow_server)


@pytest.fixture(scope="module")
def both(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.XopsServer]:
    """One server of both models with keys and tight limits, for the tests that end nothing."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text(KEY)
    options = [
        "--keys", str(folder / "keys"), "--header-seconds", "1", "--body-seconds", "1", "--max-body-mib",
        "0.01", "--request-seconds", "1", "--threads", "1", "--queue", "1",
    ]  # fmt: skip
    environment = {"XOPS_SERVE_ADMIN_KEYS": ADMIN}
    with stack.serve("serve-late", "serve-slow", options=options, environment=environment) as server:
        yield server


def test_answers_are_the_models_own_in_both_protocols(stack: Stack, both: servers.XopsServer) -> None:
    frame = feature_frame(stack.rows, FEATURES).head(50)
    estimator = load_model(stack.client, stack.lake, stack.linear)
    key = {"X-API-Key": KEY}
    status, headers, content = both.ask("/models/serve-late/invocations", split_body(frame), headers=key)
    assert (status, content) == (200, {"predictions": estimator.predict(frame).tolist()})
    assert headers["x-model-version"] == str(stack.linear.version)
    tensors = [
        {"name": name, "shape": [50], "datatype": "FP64", "data": frame[name].tolist()} for name in FEATURES
    ]
    status, _, content = both.ask("/v2/models/serve-late/infer", {"inputs": tensors}, headers=key)
    labels, probabilities = content["outputs"]
    assert labels["data"] == estimator.predict(frame).tolist()
    np.testing.assert_array_equal(
        np.reshape(probabilities["data"], probabilities["shape"]), estimator.predict_proba(frame)
    )


def test_keys_are_asked_for_and_the_state_is_told_to_who_may_know(both: servers.XopsServer) -> None:
    body = {"inputs": [[1, 2]]}
    assert both.ask("/models/serve-late/invocations", body)[0] == 401
    assert both.ask("/xops/status", headers={"X-API-Key": KEY})[0] == 403
    status, _, content = both.ask("/xops/status", headers={"Authorization": f"Bearer {ADMIN}"})
    assert status == 200
    assert set(content["models"]) == {"serve-late", "serve-slow"}
    part = content["models"]["serve-late"]
    assert (part["fleet"]["ready"], part["fleet"]["whole"], part["follower"]["failing"]) == (True, True, 0)
    assert part["fleet"]["loaded"][0]["golden_rows"] > 0
    figures = both.ask("/metrics")[2]
    assert 'xops_ready{model="serve-late"} 1.0' in figures
    for secret in (KEY, ADMIN):
        assert secret not in json.dumps(content) + figures + both.process.tail(1000)


def test_time_and_queue_are_bounded_over_real_connections(both: servers.XopsServer) -> None:
    slow = {"inputs": [[SLOW_ABOVE + 1, 0]]}
    statuses: list[int] = []

    def ask() -> None:
        path = "/models/serve-slow/invocations"
        statuses.append(both.ask(path, slow, headers={"X-API-Key": KEY})[0])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(statuses)[-1] == 504
    assert 429 in statuses
    deadline = time.monotonic() + 20
    while "xops_inflight_requests 0.0" not in both.ask("/metrics")[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    body = {"inputs": [[1, 2]]}
    assert both.ask("/models/serve-slow/invocations", body, headers={"X-API-Key": KEY})[0] == 200


def _said(server: servers.XopsServer, *pieces: bytes) -> bytes:
    """What a server says to these bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_connections_that_send_too_slowly_or_too_much_are_ended(both: servers.XopsServer) -> None:
    assert _said(both).startswith(b"HTTP/1.1 408")
    assert _said(both, b"POST /invocations HTTP/1.1\r\nHost: x\r\nX-A: ").startswith(b"HTTP/1.1 408")
    large = b"GET /ping HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 70_000
    assert _said(both, large).startswith(b"HTTP/1.1 431")
    head = f"POST /models/serve-late/invocations HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n".encode()
    assert _said(both, head + b"Content-Length: 100\r\n\r\n{").startswith(b"HTTP/1.1 408")
    assert _said(both, head + b"Content-Length: 99999999\r\n\r\n{").startswith(b"HTTP/1.1 413")
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    assert _said(both, head + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk).startswith(b"HTTP/1.1 413")
    assert both.ready()


def test_a_new_champion_answers_after_a_look_and_an_end_loses_nothing(stack: Stack) -> None:
    name = "serve-swap"
    first = stack.model(name, "tests.integration.serve_models:linear", "late")
    put_in_force(stack.lake, stack.client, first, key="promote swap 1")
    options = ["--log-table", "{model}_log".replace("-", "_").format(model="serve_swap"), "--log-column", "*"]
    asked = {"inputs": [[0.5, 0.5], [-2, 0], [3, 1]]}
    ids: list[str] = []
    with stack.serve(name, options=options) as server:
        for _ in range(3):
            status, headers, _ = server.ask("/invocations", asked, headers={"X-Request-Key": "customer"})
            assert (status, headers["x-model-version"]) == (200, str(first.version))
            ids.append(headers["x-prediction-id"])
        second = stack.model(name, "tests.integration.serve_models:linear", "late", key="second")
        put_in_force(stack.lake, stack.client, second, key="promote swap 2")
        status, _, content = server.ask("/xops/refresh?wait=60", {})
        assert status == 200
        assert content["models"][name]["fleet"]["whole"]
        _, headers, _ = server.ask("/invocations", asked)
        assert headers["x-model-version"] == str(second.version)
        ids.append(headers["x-prediction-id"])
        process = server.process._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    logged = read.scan(stack.lake, head(stack.lake, "serve_swap_log")).read_all()
    assert logged.num_rows == 12
    assert set(ids) <= set(logged.column("prediction_id").to_pylist())
    assert sorted(set(logged.column("model_version").to_pylist())) == [first.version, second.version]
    assert logged.column("x").to_pylist().count(0.5) == 4


def test_a_second_signal_ends_it_at_once(stack: Stack) -> None:
    with stack.serve("serve-slow", options=["--drain-seconds", "600"]) as server:
        process = server.process._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        _until(lambda: server.ask("/v2/health/ready")[0] == 503)
        assert server.ask("/invocations", {"inputs": [[1, 2]]})[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM


def test_told_to_end_under_load_it_answers_everything(stack: Stack) -> None:
    body = json.dumps({"inputs": [[1, 2]]}).encode()
    slow: list[tuple[int, Any]] = []
    with stack.serve(
        "serve-late", "serve-slow", options=["--drain-seconds", "3", "--threads", "2", "--access-log"]
    ) as server:

        def ask() -> None:
            status, headers, _ = server.ask(
                "/models/serve-slow/invocations", {"inputs": [[SLOW_ABOVE + 1, 0]]}
            )
            slow.append((status, headers.get("connection")))

        process = server.process._process
        assert process is not None
        path = "/models/serve-late/invocations"
        with _load.load(server.url, path, [body], connections=4, seconds=2, warmup_seconds=0) as running:
            time.sleep(0.8)
            thread = threading.Thread(target=ask)
            thread.start()
            _until(lambda: "xops_stuck_requests 0" in server.ask("/metrics")[2] and not slow)
            time.sleep(0.4)
            process.send_signal(signal.SIGTERM)
            _until(lambda: server.ask("/v2/health/ready")[0] == 503)
            result = running.result()
        thread.join(30)
        assert process.wait(30) == 0
        told = server.process.log_path.read_text()
    assert slow == [(200, "close")]
    assert (result.failures, set(result.statuses), set(result.versions)) == (0, {200}, {"1"})
    assert result.requests > 0
    # Every answer has its line, the last ones too.
    lines = [json.loads(line) for line in told.splitlines() if line.startswith('{"time"')]
    lines = [line for line in lines if line["route"] == "/models/{model}/invocations"]
    assert len(lines) == result.requests + 1
    assert {(line["status"], line["rows"]) for line in lines} == {(200, 1)}
    assert len({line["prediction_id"] for line in lines}) == len(lines)


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["late", "--host", "0.0.0.0"], "argument.insecure"),
        (["late@"], "argument.served"),
        (["late", "late"], "argument.served"),
        (["late", "early", "--version", "1"], "argument.version"),
        (["late", "early", "--log-table", "log"], "argument.prediction_log"),
        (["late", "--queue", "-1"], "argument.limit"),
        (["late", "--max-bodies-mib", "1"], "argument.limit"),
        (["late", "--max-body-mib", "nan"], "argument.limit"),
        (["late", "--shutdown-seconds", "inf"], "argument.limit"),
        (["late", "--keys", "/nowhere/keys"], "argument.key_file"),
        (["late", "--tls-cert", "x"], "argument.certificate"),
        (["late", "--port", "TAKEN"], "argument.address"),
    ],
)
def test_what_cannot_be_served_is_told_at_once(arguments: list[str], code: str, tmp_path: Path) -> None:
    from airflow_provider_xops.cli import main

    common = ["--lake", str(tmp_path), "--mlflow", "http://127.0.0.1:1", "--json"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        given = [port if each == "TAKEN" else each for each in arguments]
        if "--port" not in given:
            given += ["--port", "0"]
        assert _code(main, ["serve", *given, *common]) == code


def _code(main: Any, arguments: list[str]) -> str:
    import contextlib
    import io

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert main(arguments) == 1
    text = errors.getvalue()
    return str(json.loads(text[text.index("{") :])["error"]["code"])


def test_the_command_imports_nothing_of_the_server_until_it_serves() -> None:
    program = (
        "import sys, airflow_provider_xops.cli\n"
        "servers = {'fastapi', 'uvicorn', 'orjson', 'prometheus_client', 'mlflow', 'sklearn'}\n"
        "heavy = servers & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
