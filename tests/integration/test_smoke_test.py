"""Smoke tests with real processes: MLflow's scoring server, a real registry, and every way to go wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.records import Actor, ModelVersion, Outcome, SmokeTest
from airflow_provider_xops.registry.adopt import adopt_model
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.serving import smoke
from airflow_provider_xops.settings import LakeSettings
from airflow_provider_xops.training.fit import train
from tests import servers

MODELS = "tests.integration.smoke_models"
AS_OF = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
TEXT = pa.string()
ROWS = 120


CHECKS = [
    "signature", "digest", "load", "server", "predictions", "probabilities", "requests", "wrong_input",
]  # fmt: skip


def rows_of(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=ROWS)
    seconds = rng.integers(0, 86_400, ROWS) * np.timedelta64(1, "s")
    moments = np.datetime64("2013-01-01T05:00:00.123456") + seconds
    return pa.table(
        {
            "x": pa.array(x, mask=rng.random(ROWS) < 0.1),
            "n": pa.array(rng.integers(0, 9, ROWS), mask=rng.random(ROWS) < 0.5),
            "carrier": pa.array(rng.choice(["UA", "DL", 'Ñandú "x"'], ROWS).tolist(), TEXT),
            "at": pa.array(moments, pa.timestamp("us", "UTC")),
            "late": pa.array((x + rng.normal(size=ROWS) > 0).astype(np.int64)),
            "word": pa.array(np.select([x > 0.5, x < -0.5], ["late", "early"], "on time").tolist(), TEXT),
            "delay": pa.array(x * 1000),
        }
    )


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """One lake for the module: smoke tests change nothing but the evidence."""
    settings = LakeSettings(
        uri=str(tmp_path_factory.mktemp("smoke") / "lake"), storage_options={}, credentials=None
    )
    actor = Actor.user("tester", key="init", fence=1)
    init_lake(settings, actor=actor, as_of=AS_OF)
    found = open_lake(settings)
    segments = [Segment(f"2013-01-0{day}", str(day), rows_of(day).to_reader) for day in range(1, 5)]
    commit(found, "flights", segments, actor=actor, as_of=AS_OF)
    return found


@pytest.fixture(scope="module")
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture(scope="module")
def fit(lake: Lake, client: RegistryClient) -> Callable[..., ModelVersion]:
    from airflow_provider_xops.lake.tables import head

    def fit(estimator: str, **changes: Any) -> ModelVersion:
        name = f"smoke-{uuid.uuid4().hex[:8]}"
        arguments: dict[str, Any] = {
            "dataset": head(lake, "flights"), "estimator": estimator, "target": "delay",
            "features": ["x", "n"], "split": {"kind": "time", "holdout_partitions": 1}, "model_name": name,
            "actor": Actor.user("tester", key=name, fence=1), "as_of": AS_OF, **changes,
        }  # fmt: skip
        return train(lake, client, **arguments)

    return fit


@pytest.fixture(scope="module")
def ask(lake: Lake, client: RegistryClient) -> Callable[..., SmokeTest]:
    def ask(model: ModelVersion, **changes: Any) -> SmokeTest:
        arguments = {
            "requests": 20, "timeout_seconds": 120, "actor": Actor.user("tester", key="smoke", fence=1),
            "as_of": AS_OF, **changes,
        }  # fmt: skip
        return smoke.smoke_test(lake, client, model, **arguments)

    return ask


@pytest.fixture(scope="module")
def pipeline(fit: Callable[..., ModelVersion]) -> ModelVersion:
    return fit(f"{MODELS}:pipeline", target="late", features=["x", "n", "carrier", "at"])


@pytest.fixture(scope="module")
def passed(pipeline: ModelVersion, ask: Callable[..., SmokeTest]) -> SmokeTest:
    """One good smoke test, looked at by several tests."""
    return ask(pipeline)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process and no file of a smoke test outlives it."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield
    assert processes_with(str(place)) == []
    assert list(place.glob("xops-smoke-*")) == []


def processes_with(text: str) -> list[int]:
    """The processes whose command line or environment holds ``text``, but for this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            said = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            if text.encode() in said and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def outcomes(test: SmokeTest) -> dict[str, Outcome]:
    return {check.check: check.outcome for check in test.checks}


def model_file(model: ModelVersion, server: servers.MlflowServer, name: str) -> Path:
    """A file of the model where the server's artifacts are."""
    folder = server.process.folder
    (found,) = folder.rglob(f"{model.source_uri.removeprefix('models:/')}/**/{name}")
    return found


def test_a_model_that_is_as_it_was_passes_every_check_and_is_measured(
    lake: Lake, passed: SmokeTest, pipeline: ModelVersion
) -> None:
    assert (passed.outcome, passed.message) == (Outcome.PASSED, "")
    assert outcomes(passed) == dict.fromkeys(CHECKS, Outcome.PASSED)
    assert (passed.rows, passed.max_difference, passed.tolerance) == (20, 0.0, 1e-9)
    # Twice 20 and 3 to warm up, the golden rows twice, 3 kinds of wrong input and one right one after them.
    assert passed.requests == 2 * 23 + 2 + 4
    for size in ("", "_1_rows", "_100_rows"):
        low, middle, high = (passed.figures[f"latency_p{percent}_ms{size}"] for percent in (50, 95, 99))
        assert 0 < low <= middle <= high
    assert passed.figures["latency_p95_ms"] == passed.figures["latency_p95_ms_1_rows"]
    assert 0 < passed.figures["load_seconds"] < passed.figures["start_seconds"]
    assert 50 < passed.figures["peak_memory_mib"] < 2000
    assert passed.figures["size_mib"] * 2**20 == pipeline.size_bytes
    assert passed.server.startswith("mlflow 3.")
    assert lake.evidence.get(SmokeTest.kind, passed.record_id) == passed
    assert (passed.model, passed.artifact_digest) == (pipeline.ref, pipeline.artifact_digest)


@pytest.mark.parametrize("first_look", ["sees it", "misses it"])
def test_a_changed_model_is_never_executed(
    fit: Callable[..., ModelVersion],
    ask: Callable[..., SmokeTest],
    lake: Lake,
    client: RegistryClient,
    mlflow_server: servers.MlflowServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first_look: str,
) -> None:
    mark = tmp_path / "executed"
    model = fit(f"{MODELS}:Marks", params={"mark": str(mark)})
    load_model(client, lake, model)
    assert mark.exists(), "the mark says nothing unless loading this model leaves one"
    mark.unlink()
    file = model_file(model, mlflow_server, "model.pkl")
    file.write_bytes(file.read_bytes() + b" ")
    if first_look == "misses it":
        # The process that loads looks for itself.
        monkeypatch.setattr(smoke, "artifact_digest", lambda _: model.artifact_digest)
    found = ask(model)
    assert found.outcome is Outcome.FAILED
    assert outcomes(found)["digest"] is Outcome.FAILED
    assert "was executed" in found.message
    assert found.requests == 0
    assert not mark.exists()


def test_other_predictions_than_at_training_fail(
    fit: Callable[..., ModelVersion], ask: Callable[..., SmokeTest]
) -> None:
    model = fit(f"{MODELS}:Fickle")
    found = ask(model)
    assert found.outcome is Outcome.FAILED
    assert outcomes(found)["predictions"] is Outcome.FAILED
    assert "20 of 20 rows are not predicted as at training" in found.message
    assert found.max_difference is not None
    assert found.max_difference > 1e-6
    assert "latency_p50_ms" not in found.figures


@pytest.mark.soak
def test_an_adopted_model_is_exercised_and_does_not_pass(
    fit: Callable[..., ModelVersion], ask: Callable[..., SmokeTest], lake: Lake, client: RegistryClient
) -> None:
    trained = fit("sklearn.linear_model:BayesianRidge", features=["delay"], target="late", task="regression")
    adopted = adopt_model(
        lake, client, name=f"adopted-{trained.name}", run_id=trained.run_id, holdout=trained.holdout,
        actor=Actor.user("tester", key="adopt", fence=1), as_of=AS_OF,
    )  # fmt: skip
    found = ask(adopted, rows_per_request=[5])
    assert found.outcome is Outcome.NO_DATA
    assert "the model was adopted" in found.message
    assert outcomes(found) == {
        **dict.fromkeys([each for each in CHECKS if each != "probabilities"], Outcome.PASSED),
        "predictions": Outcome.NO_DATA,
    }
    assert (found.rows, found.max_difference) == (0, None)
    assert found.figures["latency_p95_ms"] == found.figures["latency_p95_ms_5_rows"] > 0


def test_a_model_passes_in_its_recorded_environment(
    fit: Callable[..., ModelVersion], ask: Callable[..., SmokeTest]
) -> None:
    words = fit(
        "sklearn.ensemble:HistGradientBoostingClassifier", params={"max_iter": 5}, target="word",
        features=["x", "n"],
    )  # fmt: skip
    found = ask(words, environment="recorded")
    assert (found.outcome, found.message) == (Outcome.PASSED, "")
    assert outcomes(found)["environment"] is Outcome.PASSED
    assert found.figures["install_seconds"] > 0
    assert f"python {words.environment['python']}" in found.server


@pytest.mark.soak
def test_in_its_recorded_environment_only_what_was_recorded_is_there(
    ask: Callable[..., SmokeTest], pipeline: ModelVersion
) -> None:
    # Its transformer comes from a module of this project, which its requirements do not name.
    other = ask(pipeline, environment="recorded")
    assert other.outcome is Outcome.FAILED
    assert outcomes(other)["load"] is Outcome.FAILED
    assert "No module named 'tests'" in other.message


def test_an_environment_that_cannot_be_installed_is_an_error_and_no_failure(
    ask: Callable[..., SmokeTest], pipeline: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    found = ask(pipeline, environment="recorded")
    assert found.outcome is Outcome.ERRORED
    assert outcomes(found)["environment"] is Outcome.ERRORED
    assert "uv pip ended with" in found.message


@pytest.mark.soak
def test_a_model_that_hangs_is_ended_when_the_time_is_over(
    fit: Callable[..., ModelVersion], ask: Callable[..., SmokeTest], tmp_path: Path
) -> None:
    mark = tmp_path / "asked"
    found = ask(fit(f"{MODELS}:Hangs", params={"mark": str(mark)}), timeout_seconds=30)
    assert mark.exists()
    assert found.outcome is Outcome.ERRORED
    assert "no answer within the 30 s" in found.message


KILLED = """
import sys
from tests.integration.test_smoke_test import AS_OF
from airflow_provider_xops.lake.lake import open_lake
from airflow_provider_xops.records import Actor
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import get_model
from airflow_provider_xops.serving.smoke import smoke_test
from airflow_provider_xops.settings import LakeSettings, MlflowSettings

lake = open_lake(LakeSettings(uri=sys.argv[1], storage_options={}, credentials=None))
client = RegistryClient(MlflowSettings(tracking_uri=sys.argv[2]))
model = get_model(lake, sys.argv[3], 1)
smoke_test(lake, client, model, actor=Actor.user("k", key="k", fence=1), as_of=AS_OF)
"""


def test_when_the_task_is_killed_no_process_is_left(
    fit: Callable[..., ModelVersion], lake: Lake, mlflow_server: servers.MlflowServer, tmp_path: Path
) -> None:
    mark = tmp_path / "asked"
    model = fit(f"{MODELS}:Hangs", params={"mark": str(mark)})
    command = [sys.executable, "-c", KILLED, lake.uri, mlflow_server.url, model.name]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, start_new_session=True) as task:
        wait_for(mark.exists, 120)
        # The task, the warden, the server, and what the model itself has started.
        wait_for(lambda: len(processes_with(f"TMPDIR={tmp_path}")) >= 4, 10)
        os.kill(task.pid, signal.SIGKILL)
    wait_for(lambda: not processes_with(f"TMPDIR={tmp_path}"), 20)


@pytest.mark.soak
def test_a_model_whose_process_ends_fails(
    fit: Callable[..., ModelVersion], ask: Callable[..., SmokeTest]
) -> None:
    found = ask(fit(f"{MODELS}:Dies"))
    assert found.outcome is Outcome.FAILED
    assert "the process of the model ended with exit code 7" in found.message


@pytest.mark.soak
@pytest.mark.parametrize("estimator", ["xgboost:XGBClassifier", "lightgbm:LGBMClassifier"])
def test_models_of_other_libraries_pass_in_both_environments(
    fit: Callable[..., ModelVersion], ask: Callable[..., SmokeTest], estimator: str
) -> None:
    model = fit(estimator, params={"n_estimators": 5}, target="word", features=["x", "n"])
    for environment in ("current", "recorded"):
        found = ask(model, environment=environment)
        assert (found.outcome, found.message) == (Outcome.PASSED, "")
        assert outcomes(found)["probabilities"] is Outcome.PASSED


def wait_for(happened: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
