"""Training's options against a real MLflow server: folds, weights, batches, functions, other libraries."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, ModelVersion
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.registry.runs import work_key
from airflow_provider_xops.serving.batch import score
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.cross_validation import cross_validate
from airflow_provider_xops.training.fit import refit, train
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.functions import TrainingFunction
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.usercode import source_digest
from tests import servers
from tests.unit.training import learners

FOREST = "sklearn.ensemble:RandomForestClassifier"
SGD = "sklearn.linear_model:SGDClassifier"
NEIGHBORS = "sklearn.neighbors:KNeighborsClassifier"
RIDGE = "sklearn.linear_model:Ridge"
FORGETFUL = TrainingFunction(function=learners.forgets_to_return)
ROWS = 150
Train = Callable[..., ModelVersion]


@pytest.fixture
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def dataset(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> DatasetRef:
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    noisy = x + rng.normal(size=ROWS) / 2
    table = pa.table(
        {
            "x": x,
            "z": rng.normal(size=ROWS),
            "weight": rng.integers(1, 5, ROWS),
            "plane": pa.array([f"N{n % 9}" for n in range(ROWS)]),
            "late": (noisy > 0.3).astype(np.int64),
            "size": np.where(noisy < -0.5, "small", np.where(noisy < 0.5, "medium", "very large")),
            "delay": noisy * 30,
        }
    )
    return commit(
        lake, "flights", [Segment("d", "d", table.to_reader)], actor=make_actor(), as_of=as_of
    ).record.ref


@pytest.fixture
def fit(
    lake: Lake, client: RegistryClient, dataset: DatasetRef, make_actor: Callable[..., Actor], as_of: datetime
) -> Train:
    name = f"options-{uuid.uuid4().hex[:8]}"

    def fit(**changes: Any) -> ModelVersion:
        arguments = {
            "dataset": dataset, "estimator": FOREST, "params": {"n_estimators": 10}, "target": "late",
            "features": ["x", "z"], "split": {"kind": "random", "seed": 1}, "model_name": name,
            "actor": make_actor(key="train"), "as_of": as_of, **changes,
        }  # fmt: skip
        return train(lake, client, **arguments)

    return fit


def holdout_of(lake: Lake, model: ModelVersion) -> Any:
    assert model.holdout is not None
    return feature_frame(selections.materialize(lake, model.holdout, columns=model.features), model.features)


def test_folds_are_of_the_training_rows_and_their_figures_are_recorded(
    lake: Lake, client: RegistryClient, fit: Train
) -> None:
    folds = {"kind": "group_k_fold", "folds": 3, "column": "plane"}
    model = fit(cross_validation=folds, features=None, drop=["size", "delay", "weight"])
    # then: what the folds go by is no feature, and everything is there to be repeated
    assert model.features == ("x", "z")
    assert model.settings["cross_validation"] == {**folds, "seed": 0}
    assert model.training is not None
    rows = selections.materialize(lake, model.training, columns=["x", "z", "late", "plane"])
    again = cross_validate(
        lambda: refitted(), rows, columns=["x", "z"], target="late", task=Task.CLASSIFICATION, folds=folds
    )
    assert model.cross_validation == again.to_record()
    assert 0.5 < model.cross_validation["roc_auc_mean"] <= 1
    with client.session("reading a run in a test") as mlflow:
        run = mlflow.get_run(model.run_id)
        history = mlflow.get_metric_history(model.run_id, "cv.roc_auc")
    assert run.data.metrics["cv.roc_auc_mean"] == model.cross_validation["roc_auc_mean"]
    assert [(each.step, each.value) for each in sorted(history, key=lambda each: each.step)] == [
        (number, figures["roc_auc"]) for number, figures in enumerate(again.folds)
    ]
    assert '"group_k_fold"' in run.data.params["xops.cross_validation"]


def refitted() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=10, random_state=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_weight": "weight", "class_weight": "balanced"},
        {"estimator": SGD, "params": {"loss": "log_loss"}, "batch_rows": 30, "epochs": 3},
        {"estimator": TrainingFunction(function=learners.tree, arguments={"depth": 3}), "params": {}},
    ],
    ids=["weights", "batches", "function"],
)  # fmt: skip
def test_what_was_registered_is_what_its_settings_give_again(
    lake: Lake, client: RegistryClient, fit: Train, changes: dict[str, Any]
) -> None:
    model = fit(**changes)
    assert model.training is not None
    again = refit(lake, model.settings, model.training)
    frame = holdout_of(lake, model)
    loaded = load_model(client, lake, model)
    assert (loaded.predict_proba(frame) == again.estimator.predict_proba(frame)).all()
    assert model.golden is not None
    assert model.golden.labels == tuple(repr(int(label)) for label in loaded.predict(frame)[:20])
    # A retry of the same work gives what is there.
    assert fit(**changes) == model


def test_other_options_are_other_work(
    lake: Lake, client: RegistryClient, fit: Train, make_actor: Callable[..., Actor], dataset: DatasetRef
) -> None:
    first = fit()
    # What was not asked for is no part of the key: an attempt of an older release is found by it.
    settings = {
        "estimator": FOREST, "params": {"n_estimators": 10}, "target": "late", "features": ["x", "z"],
        "split": {"kind": "random", "fraction": 0.2, "seed": 1}, "sample": None, "seed": 0,
    }  # fmt: skip
    key = work_key(
        make_actor(key="train"), first.name, dataset.table_uuid, read.content_digest(lake, dataset, None),
        settings, source_digest(FOREST),
    )  # fmt: skip
    with client.session("reading a run in a test") as mlflow:
        assert mlflow.get_run(first.run_id).data.tags["xops.key"] == key
    versions = [
        first.version,
        fit(class_weight="balanced").version,
        fit(sample_weight="weight").version,
        fit(cross_validation={"kind": "k_fold", "folds": 2}).version,
        fit().version,
    ]
    assert versions == [1, 2, 3, 4, 1]


def test_a_function_is_trained_again_when_its_text_changes(
    fit: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = TrainingFunction(function=learners.ridge)
    first = fit(estimator=function, params={}, target="delay")
    assert (first.estimator, first.task) == ("tests.unit.training.learners:ridge", "regression")
    assert first.code_version == function.source_digest() == first.settings["function"]["source_digest"]
    monkeypatch.setattr(TrainingFunction, "source_digest", lambda _: "sha256:changed")
    second = fit(estimator=function, params={}, target="delay")
    assert (first.version, second.version) == (1, 2)


@pytest.mark.parametrize(
    ("library", "kind", "target"),
    [
        ("xgboost", "XGBClassifier", "late"),
        ("xgboost", "XGBClassifier", "size"),
        ("xgboost", "XGBRegressor", "delay"),
        ("lightgbm", "LGBMClassifier", "late"),
        ("lightgbm", "LGBMClassifier", "size"),
        ("lightgbm", "LGBMRegressor", "delay"),
    ],
)
def test_gradient_boosting_libraries_are_saved_loaded_and_scored(
    lake: Lake, client: RegistryClient, fit: Train, make_actor: Callable[..., Actor], as_of: datetime,
    dataset: DatasetRef, library: str, kind: str, target: str,
) -> None:  # fmt: skip
    params = {"n_estimators": 20, "n_jobs": 1} | ({"verbose": -1} if library == "lightgbm" else {})
    weighed = {} if target == "delay" else {"class_weight": "balanced"}
    model = fit(
        estimator=f"{library}:{kind}", params=params, target=target, sample_weight="weight",
        cross_validation={"kind": "k_fold", "folds": 2}, **weighed,
    )  # fmt: skip
    assert model.task == ("regression" if target == "delay" else "classification")
    assert any(name.startswith(library) for name in model.environment)
    frame = holdout_of(lake, model)
    loaded = load_model(client, lake, model)
    if target == "delay":
        assert model.metrics["r2"] > 0
        assert model.cross_validation["r2_mean"] is not None
    else:
        classes = {"late": [0, 1], "size": ["medium", "small", "very large"]}[target]
        assert list(loaded.classes_) == classes
        assert set(loaded.predict(frame)) <= set(classes)
        assert loaded.predict_proba(frame).sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert model.metrics["accuracy"] > 0.5
    assert model.training is not None
    again = refit(lake, model.settings, model.training).estimator
    assert list(again.predict(frame)) == list(loaded.predict(frame))
    result = score(
        lake, client, model=model, dataset=dataset, partitions=["d"], output_table="scores",
        actor=make_actor(key="score"), as_of=as_of,
    )  # fmt: skip
    assert result is not None


def test_the_model_folder_names_the_library_it_needs(
    lake: Lake, client: RegistryClient, fit: Train, tmp_path: Any
) -> None:
    from airflow_provider_xops.registry.artifacts import download

    model = fit(estimator="xgboost:XGBClassifier", params={"n_estimators": 3, "n_jobs": 1}, target="size")
    text = (download(client, model.source_uri, tmp_path / "model") / "requirements.txt").read_text()
    assert "xgboost" in text
    # Text labels need no code of ours where the model is loaded.
    assert "airflow-provider-xops" not in text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"estimator": NEIGHBORS, "params": {}, "class_weight": "balanced"}, "training.no_sample_weight"),
        ({"estimator": RIDGE, "params": {}, "class_weight": "balanced"}, "argument.class_weight"),
        ({"batch_rows": 20}, "training.no_partial_fit"),
        ({"batch_rows": 20, "cross_validation": {"kind": "k_fold"}}, "argument.batch_rows"),
        ({"task": "ranking"}, "argument.task"),
        ({"cross_validation": {"kind": "group_k_fold", "column": "carrier"}}, "data.columns_missing"),
        ({"sample_weight": "plane"}, "training.weights"),
        ({"estimator": FORGETFUL, "params": {}, "target": "delay"}, "training.estimator"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_leaves_nothing(
    client: RegistryClient, fit: Train, changes: dict[str, Any], code: str
) -> None:
    experiment = f"refused-{uuid.uuid4().hex[:8]}"
    with pytest.raises(XOpsError) as caught:
        fit(**changes, experiment=experiment)
    assert caught.value.code == code
    assert not caught.value.retryable
    with client.session("reading runs in a test") as mlflow:
        found = mlflow.get_experiment_by_name(experiment)
        runs = [] if found is None else mlflow.search_runs([found.experiment_id])
    assert all(run.info.status == "FAILED" for run in runs)


def test_the_task_can_be_said(fit: Train) -> None:
    # A regressor of 0 and 1 has the figures of a regression, unless somebody knows better.
    assert (
        "mae" in fit(task="regression", estimator="tests.unit.training.learners:Constant", params={}).metrics
    )
    model = fit(task="classification", estimator="tests.unit.training.learners:Constant", params={})
    assert (model.task, set(model.metrics) & {"accuracy", "mae"}) == ("classification", {"accuracy"})
