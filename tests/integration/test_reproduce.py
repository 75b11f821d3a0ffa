"""Models trained again from their records, against a real MLflow server, and `xops reproduce`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.cli import main
from airflow_provider_xops.errors import ArgumentError, DataError, ModelError, TrainingError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, ModelVersion, Outcome, Reproduction
from airflow_provider_xops.registry.adopt import adopt_model
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.training import reproduce as room
from airflow_provider_xops.training.fit import train
from airflow_provider_xops.training.reproduce import reproduce
from tests import servers

TREES = "sklearn.ensemble:HistGradientBoostingClassifier"
MODELS = "tests.integration.smoke_models"
ROWS = 60


@pytest.fixture
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def dataset(lake: Lake, actor: Actor, as_of: datetime) -> DatasetRef:
    return load(lake, actor, as_of)


def load(lake: Lake, actor: Actor, as_of: datetime, *, seed: int = 0) -> DatasetRef:
    def day(number: int) -> pa.Table:
        rng = np.random.default_rng([number, seed])
        x = rng.normal(size=ROWS)
        return pa.table(
            {
                "x": x,
                "n": rng.integers(0, 9, ROWS),
                "weight": rng.random(ROWS) + 0.5,
                "late": (x + rng.normal(size=ROWS) > 0).astype(np.int64),
                "word": np.where(x > 0, "late", "early").tolist(),
                "delay": x * 1000,
            }
        )

    segments = [Segment(f"d{number}", f"{number}/{seed}", day(number).to_reader) for number in range(4)]
    return commit(lake, "flights", segments, actor=actor, as_of=as_of).record.ref


@pytest.fixture
def fit(
    lake: Lake, client: RegistryClient, dataset: DatasetRef, actor: Actor, as_of: datetime
) -> Callable[..., ModelVersion]:
    def fit(estimator: str = TREES, **changes: Any) -> ModelVersion:
        arguments: dict[str, Any] = {
            "dataset": dataset, "estimator": estimator, "target": "late", "features": ["x", "n"],
            "split": {"kind": "random", "fraction": 0.25, "seed": 4},
            "model_name": f"again-{uuid.uuid4().hex[:8]}", "seed": 3, "actor": actor, "as_of": as_of,
            **changes,
        }  # fmt: skip
        return train(lake, client, **arguments)

    return fit


@pytest.fixture
def again(lake: Lake, client: RegistryClient, actor: Actor, as_of: datetime) -> Callable[..., Reproduction]:
    def again(model: ModelVersion, **changes: Any) -> Reproduction:
        return reproduce(lake, client, model, **{"actor": actor, "as_of": as_of, **changes})

    return again


@pytest.mark.parametrize(
    ("estimator", "changes"),
    [
        (TREES, {"params": {"max_iter": 10}, "class_weight": "balanced", "sample": 0.5}),
        ("sklearn.ensemble:RandomForestRegressor", {"params": {"n_estimators": 5}, "target": "delay"}),
        ("sklearn.linear_model:LogisticRegression", {"target": "word", "sample_weight": "weight"}),
        ("sklearn.linear_model:SGDClassifier", {"batch_rows": 50, "epochs": 2}),
    ],
    ids=["sampled and weighted by class", "regression", "text labels and row weights", "in batches"],
)
def test_trained_again_it_says_the_same_to_the_last_bit(
    lake: Lake,
    fit: Callable[..., ModelVersion],
    again: Callable[..., Reproduction],
    estimator: str,
    changes: dict[str, Any],
) -> None:
    model = fit(estimator, **changes)
    found = again(model, tolerance=0.0)
    assert (found.outcome, found.message) == (Outcome.PASSED, "")
    assert (found.max_difference, found.same_digest, found.differences) == (0.0, True, ())
    assert model.holdout is not None
    assert found.rows == model.holdout.rows
    assert found.labels_changed == (None if model.task == "regression" else 0)
    assert found.environment["scikit-learn"]
    assert lake.evidence.get(Reproduction.kind, found.record_id) == found


def test_a_model_that_cannot_be_repeated_fails_and_the_command_exits_1(
    lake: Lake,
    fit: Callable[..., ModelVersion],
    again: Callable[..., Reproduction],
    mlflow_server: servers.MlflowServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = fit(f"{MODELS}:Unsteady", target="delay")
    found = again(model)
    assert found.outcome is Outcome.FAILED
    assert found.max_difference is not None
    assert 1e-9 < found.max_difference < 1.5
    assert "predictions differ by up to" in found.message

    command = ["reproduce", model.name, "1", "--lake", lake.uri, "--mlflow", mlflow_server.url]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert f"{model.name} v1: failed" in said
    assert "(tolerance 1e-09)" in said
    assert main([*command, "--tolerance", "1.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "passed"


def test_other_libraries_and_code_are_named(
    fit: Callable[..., ModelVersion], again: Callable[..., Reproduction], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fit(params={"max_iter": 5})
    now = {**model.environment, "numpy": "9.9", "newcomer": "1.0"}
    monkeypatch.setattr(room, "environment_of", lambda *_: now)
    monkeypatch.setattr(room, "code_version", lambda _: "git:other")
    found = again(model)
    assert found.outcome is Outcome.PASSED
    assert found.differences == (
        "newcomer: none at training, 1.0 now",
        f"numpy: {model.environment['numpy']} at training, 9.9 now",
        f"code: {model.code_version} at training, git:other now",
    )


def test_done_again_later_it_is_another_record(
    lake: Lake, fit: Callable[..., ModelVersion], again: Callable[..., Reproduction], as_of: datetime
) -> None:
    model = fit(params={"max_iter": 5})
    first, same, later = again(model), again(model), again(model, as_of=as_of + timedelta(days=30))
    assert first.record_id == same.record_id != later.record_id
    assert len(list(lake.evidence.all(Reproduction.kind))) == 2


def test_what_was_not_trained_here_says_why_it_cannot_be_trained_again(
    lake: Lake,
    client: RegistryClient,
    fit: Callable[..., ModelVersion],
    again: Callable[..., Reproduction],
    actor: Actor,
    as_of: datetime,
) -> None:
    model = fit(params={"max_iter": 5})
    adopted = adopt_model(
        lake, client, name=f"{model.name}-adopted", run_id=model.run_id, actor=actor, as_of=as_of
    )
    with pytest.raises(TrainingError, match="it was adopted") as caught:
        again(adopted)
    assert caught.value.code == "training.not_repeatable"
    with pytest.raises(ArgumentError):
        again(model, tolerance=float("nan"))
    assert list(lake.evidence.all(Reproduction.kind)) == []


def test_a_changed_original_or_changed_rows_are_refused_and_nothing_is_recorded(
    lake: Lake,
    fit: Callable[..., ModelVersion],
    again: Callable[..., Reproduction],
    mlflow_server: servers.MlflowServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = fit(params={"max_iter": 5})
    with monkeypatch.context() as patch:
        patch.setattr(room.selections, "_scan", lambda *args: other_rows(SCAN(*args)))
        with pytest.raises(DataError) as changed:
            again(model)
    assert changed.value.code == "data.selection_changed"
    folder = mlflow_server.process.folder
    (file,) = folder.rglob(f"{model.source_uri.removeprefix('models:/')}/**/model.skops")
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ModelError) as caught:
        again(model)
    assert caught.value.code == "model.digest_mismatch"
    assert list(lake.evidence.all(Reproduction.kind)) == []


SCAN = room.selections._scan


def other_rows(table: pa.Table) -> pa.Table:
    """The same rows, but for one number in the last of them."""
    x = table["x"].to_pylist()
    return table.set_column(table.column_names.index("x"), "x", pa.array([*x[:-1], 0.0]))
