"""Loading a version to serve it: proved before it is executed, asked what it answered, kept on this disk."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_provider_xops.errors import ArgumentError, ModelError, NotFoundError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ModelVersion, ServingSession, Variant
from airflow_provider_xops.registry.adopt import adopt_model
from airflow_provider_xops.registry.artifacts import artifact_digest
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.serving.online import variants
from airflow_provider_xops.serving.online.model_files import ModelFiles
from airflow_provider_xops.serving.online.variants import FeatureKind
from airflow_provider_xops.settings import MlflowSettings
from tests import servers
from tests.integration.served_models import AS_OF, MODELS, Registry, make_lake, part, somebody

pytestmark = pytest.mark.server

PIPELINE = "tests.integration.smoke_models:pipeline"
MARKS = "tests.integration.smoke_models:Marks"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return make_lake(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def registry(lake: Lake, client: RegistryClient) -> Registry:
    return Registry(lake, client)


@pytest.fixture(scope="module")
def steady(lake: Lake, client: RegistryClient) -> tuple[Registry, ModelVersion]:
    """A version that several tests load, and none changes."""
    made = Registry(lake, client)
    return made, made.fit()


@pytest.fixture
def nowhere() -> RegistryClient:
    """A client of an MLflow that is not there."""
    (port,) = servers.free_ports(1)
    return RegistryClient(MlflowSettings(f"http://127.0.0.1:{port}", timeout_s=2, max_retries=0))


@pytest.fixture
def tampered(mlflow_server: servers.MlflowServer) -> Callable[[ModelVersion], None]:
    """Changes a model's file where the server keeps its artifacts."""

    def change(model: ModelVersion) -> None:
        (found,) = mlflow_server.process.folder.rglob(
            f"{model.source_uri.removeprefix('models:/')}/**/MLmodel"
        )
        found.write_text(found.read_text() + "\n# changed\n")

    return change


def test_a_loaded_model_answers_as_the_recorded_one_and_knows_its_columns(registry: Registry) -> None:
    model = registry.fit(PIPELINE, target="late", features=["x", "n", "carrier", "at"])

    loaded = registry.loader(log_table="delay_log")(registry.name, whole(model))

    assert loaded.golden.rows == len(model.golden.rows) > 0
    assert loaded.golden.apart == 0.0
    assert [(each.name, each.kind) for each in loaded.features] == [
        ("x", FeatureKind.NUMBER), ("n", FeatureKind.NUMBER), ("carrier", FeatureKind.TEXT),
        ("at", FeatureKind.TIME),
    ]  # fmt: skip
    assert loaded.classes == (0, 1)
    rows = pd.DataFrame(
        {
            "x": [0.5, np.nan],
            "n": [np.nan, 3.0],
            "carrier": pd.Series(["UA", np.nan], dtype=object),
            "at": pd.Series(pd.to_datetime(["2013-01-01T05:00Z", "2013-01-01T17:00Z"])).astype(
                "datetime64[us, UTC]"
            ),
        }
    )
    theirs = load_model(registry.client, registry.lake, model)
    said = loaded.predict(rows)
    assert said.labels.tolist() == theirs.predict(rows).tolist()
    assert said.probabilities.tolist() == theirs.predict_proba(rows).tolist()
    session = registry.lake.evidence.get(ServingSession.kind, loaded.session.record_id)
    assert (session.model, session.alias, session.log_table) == (model.ref, "champion", "delay_log")
    assert loaded.next_ids(2) == [f"{session.record_id[:24]}-0", f"{session.record_id[:24]}-1"]


def test_changed_files_are_not_executed(
    registry: Registry, tampered: Callable[[ModelVersion], None], tmp_path: Path
) -> None:
    mark = tmp_path / "executed"
    model = registry.fit(MARKS, params={"mark": str(mark)})
    mark.unlink(missing_ok=True)
    tampered(model)

    for files in (ModelFiles(), ModelFiles(tmp_path / "kept")):
        with pytest.raises(ModelError) as raised:
            registry.loader(files=files)(registry.name, whole(model))
        assert raised.value.code == "model.digest_mismatch"
    assert not mark.exists()
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_model_that_answers_otherwise_than_at_training_is_not_served(registry: Registry) -> None:
    model = registry.fit(f"{MODELS}:Drifts")

    with pytest.raises(ModelError) as raised:
        registry.loader()(registry.name, whole(model))

    assert raised.value.code == "model.golden_mismatch"
    assert sessions_of(registry, model) == []


def test_where_the_holdout_is_gone_the_model_is_served_and_says_that_it_was_not_compared(
    registry: Registry, tmp_path: Path
) -> None:
    own = Registry(make_lake(tmp_path), registry.client)
    model = own.fit()
    for file in (tmp_path / "lake" / "flights").rglob("*.parquet"):
        file.unlink()

    loaded = own.loader()(own.name, whole(model))

    assert (loaded.golden.rows, loaded.golden.why[:30]) == (0, "the holdout rows cannot be rea")


def test_an_adopted_model_has_nothing_to_be_compared_with(registry: Registry, tmp_path: Path) -> None:
    model = registry.fit(
        "sklearn.ensemble:HistGradientBoostingRegressor",
        features=["x"],
        split={"kind": "time", "holdout_partitions": 1},
        target="late",
    )
    elsewhere = Registry(make_lake(tmp_path), registry.client, name=registry.name)
    adopted = adopt_model(
        elsewhere.lake, registry.client, name=registry.name, version=model.version,
        actor=somebody("adopt"), as_of=AS_OF,
    )  # fmt: skip

    loaded = elsewhere.loader()(registry.name, whole(adopted))

    assert loaded.golden.rows == 0
    assert "adopted" in loaded.golden.why
    assert [(each.name, each.kind) for each in loaded.features] == [("x", FeatureKind.NUMBER)]


def test_a_version_the_lake_does_not_know_is_not_loaded(registry: Registry) -> None:
    with pytest.raises(NotFoundError):
        registry.loader()(registry.name, Variant(version=3, created_at_ms=1, role="primary", weight=1.0))


def test_the_files_that_were_promoted_are_served_not_those_adopted_later(registry: Registry) -> None:
    promoted, candidate = registry.fit(), registry.fit()
    registry.promote(promoted)
    for model in (promoted, candidate):
        later = AS_OF + timedelta(days=1)
        fields = {**fields_of(model), "artifact_digest": "f" * 64, "recorded_at": later, "origin": "adopted"}
        assert registry.lake.evidence.put(ModelVersion(**fields))

    loaded = registry.loader()(registry.name, whole(promoted))
    assert loaded.record.artifact_digest == promoted.artifact_digest
    with pytest.raises(ModelError) as raised:
        registry.loader()(registry.name, whole(candidate))
    assert raised.value.code == "model.other_files"


def test_kept_files_serve_while_mlflow_is_down(
    steady: tuple[Registry, ModelVersion], nowhere: RegistryClient, tmp_path: Path
) -> None:
    registry, model = steady
    with pytest.raises(UnavailableError):
        registry.loader(client=nowhere, files=ModelFiles(tmp_path))(registry.name, whole(model))

    registry.loader(files=ModelFiles(tmp_path))(registry.name, whole(model))
    loaded = registry.loader(client=nowhere, files=ModelFiles(tmp_path))(registry.name, whole(model))

    assert loaded.predict(pd.DataFrame({"x": [0.0], "n": [0.0]})).labels.tolist() == [1.0]
    assert artifact_digest(tmp_path / model.artifact_digest) == model.artifact_digest
    assert (tmp_path / model.artifact_digest).parent.stat().st_mode & 0o077 == 0 or os.name != "posix"


def test_kept_files_that_were_changed_are_brought_anew_or_not_used(
    steady: tuple[Registry, ModelVersion], nowhere: RegistryClient, tmp_path: Path
) -> None:
    registry, model = steady
    registry.loader(files=ModelFiles(tmp_path))(registry.name, whole(model))
    for change in (lambda path: (path / "MLmodel").write_text("x"), lambda path: (path / "extra").touch()):
        change(tmp_path / model.artifact_digest)

        with pytest.raises(UnavailableError):
            registry.loader(client=nowhere, files=ModelFiles(tmp_path))(registry.name, whole(model))
        assert registry.loader(files=ModelFiles(tmp_path))(registry.name, whole(model)).golden.rows > 0


def test_only_the_models_used_last_are_kept_and_nothing_unfinished(
    registry: Registry, tmp_path: Path
) -> None:
    models = [registry.fit() for _ in range(3)]
    loader = registry.loader(files=ModelFiles(tmp_path, keep=2))

    for model in (models[0], models[1], models[0], models[2]):
        loader(registry.name, whole(model))

    assert {each.name for each in tmp_path.iterdir()} == {
        models[0].artifact_digest, models[2].artifact_digest
    }  # fmt: skip


def test_what_a_killed_process_left_behind_goes_after_a_day(
    steady: tuple[Registry, ModelVersion], tmp_path: Path
) -> None:
    registry, model = steady
    old, young = tmp_path / ".part-old", tmp_path / ".part-young"
    for folder in (old, young):
        (folder / "model").mkdir(parents=True)
    os.utime(old, (0, 0))

    registry.loader(files=ModelFiles(tmp_path))(registry.name, whole(model))

    assert {each.name for each in tmp_path.iterdir()} == {model.artifact_digest, young.name}


def test_processes_that_share_the_folder_do_not_disturb_each_other(
    steady: tuple[Registry, ModelVersion], tmp_path: Path
) -> None:
    registry, model = steady
    problems: list[str] = []

    def load() -> None:
        try:
            with ModelFiles(tmp_path).of(registry.client, model) as path:
                assert artifact_digest(path) == model.artifact_digest
        except Exception as error:
            problems.append(repr(error))

    for _ in range(3):
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [each.name for each in tmp_path.iterdir()] == [model.artifact_digest]
        shutil.rmtree(tmp_path / model.artifact_digest)
    assert problems == []


def test_threads_take_short_turns_while_a_model_is_loaded_and_the_usual_ones_after(
    steady: tuple[Registry, ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, model = steady
    usual, seen = sys.getswitchinterval(), []
    real = variants.read_model

    def watched(*arguments: Any) -> Any:
        seen.append(sys.getswitchinterval())
        return real(*arguments)

    monkeypatch.setattr(variants, "read_model", watched)
    threads = [threading.Thread(target=registry.loader(), args=(registry.name, whole(model))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with pytest.raises(NotFoundError):
        registry.loader()(registry.name, Variant(version=9, created_at_ms=1, role="primary", weight=1.0))

    assert seen == pytest.approx([variants.SHORT_TURN_S] * 2)
    assert sys.getswitchinterval() == pytest.approx(usual) != variants.SHORT_TURN_S


def test_fewer_than_two_models_cannot_be_kept() -> None:
    with pytest.raises(ArgumentError) as raised:
        ModelFiles(Path("/nowhere"), keep=1)
    assert raised.value.code == "argument.keep"


def fields_of(record: Any) -> dict[str, Any]:
    names = [each.name for each in dataclasses.fields(record) if each.name != "record_id"]
    return {name: getattr(record, name) for name in names}


def whole(model: ModelVersion) -> Variant:
    return part(model, "primary", 1.0)


def sessions_of(registry: Registry, model: ModelVersion) -> list[Any]:
    return [each for each in registry.lake.evidence.all(ServingSession.kind) if each.model == model.ref]
