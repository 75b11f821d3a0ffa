"""The model repository: proved files, settings that change in one instant, nothing left over."""

from __future__ import annotations

import glob
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_xops.errors import ArgumentError, ModelError
from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.registry.artifacts import artifact_digest
from airflow_provider_xops.serving.targets import _v2_repository as module
from airflow_provider_xops.serving.targets._v2_repository import (
    SERVING,
    ModelRepository,
    beside,
    settings_for,
)
from tests.unit.registry.builders import a_model

RUNTIME = "mlserver_mlflow.MLflowRuntime"


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    (tmp_path / "models").mkdir()
    return ModelRepository(tmp_path / "models")


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A model's files as they were logged, among them one that a server would take for settings."""
    folder = tmp_path / "logged"
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": {}}}))
    (folder / "model.skops").write_bytes(b"a model")
    (folder / "code" / "model-settings.json").write_text('{"name": "intruder"}')
    return folder


@pytest.fixture
def model(logged: Path) -> ModelVersion:
    return a_model(7, artifact_digest=artifact_digest(logged))


@pytest.fixture(autouse=True)
def store(logged: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The artifact store is a folder here; gives what was brought from it."""
    import shutil

    brought: list[str] = []

    def download(client: Any, uri: str, into: Path) -> Path:
        brought.append(uri)
        return Path(shutil.copytree(logged, into / "model"))

    monkeypatch.setattr(module, "download", download)
    return brought


def settings(model: ModelVersion, name: str = "late", *, numbered: bool = False) -> dict[str, Any]:
    return settings_for(model, name=name, runtime=RUNTIME, numbered=numbered, deployment="d" * 64)


def seen_by_a_server(repository: ModelRepository) -> set[str]:
    """The settings that MLServer's own search finds."""
    found = glob.glob(str(repository.folder / "**" / "model-settings.json"), recursive=True)
    return {json.loads(Path(file).read_text())["name"] for file in found}


def test_a_server_finds_the_settings_and_nothing_of_what_lies_beside_them(
    repository: ModelRepository, model: ModelVersion
) -> None:
    repository.bring_files(None, "late", model)  # type: ignore[arg-type]
    repository.write("late", SERVING, settings(model))
    repository.write("late", beside(7), settings(model, "late:v7", numbered=True))
    repository.remember("late", "d" * 64, None)
    assert seen_by_a_server(repository) == {"late", "late:v7"}


def test_the_settings_lead_to_the_files_wherever_the_folder_is_mounted(
    repository: ModelRepository, model: ModelVersion, tmp_path: Path
) -> None:
    files = repository.bring_files(None, "late", model)  # type: ignore[arg-type]
    repository.write("late", SERVING, settings(model))
    elsewhere = tmp_path / "mnt"
    repository.folder.rename(elsewhere)
    (found,) = elsewhere.glob("*/serving/model-settings.json")
    uri = json.loads(found.read_text())["parameters"]["uri"]
    assert artifact_digest((found.parent / uri).resolve()) == model.artifact_digest
    assert files.name == Path(uri).name


def test_the_one_that_answers_has_no_number_and_the_one_beside_has(model: ModelVersion) -> None:
    assert "version" not in settings(model)["parameters"]
    assert settings(model, numbered=True)["parameters"]["version"] == "7"


def test_files_are_brought_once_and_proved_every_time(
    repository: ModelRepository, model: ModelVersion, store: list[str]
) -> None:
    for _ in range(3):
        files = repository.bring_files(None, "late", model)  # type: ignore[arg-type]
    assert store == ["models:/m-7"]
    (files / "model.skops").write_bytes(b"another model")
    with pytest.raises(ModelError) as refused:
        repository.bring_files(None, "late", model)  # type: ignore[arg-type]
    assert refused.value.code == "model.digest_mismatch"


def test_other_files_in_the_store_never_reach_the_repository(
    repository: ModelRepository, model: ModelVersion, logged: Path
) -> None:
    (logged / "model.skops").write_bytes(b"another model")
    with pytest.raises(ModelError) as refused:
        repository.bring_files(None, "late", model)  # type: ignore[arg-type]
    assert refused.value.code == "model.digest_mismatch"
    assert [path for path in repository.folder.rglob("*") if path.is_file()] == []


def test_files_that_ask_for_types_nobody_trusted_are_refused(
    repository: ModelRepository, logged: Path
) -> None:
    flavor = {"sklearn": {"skops_trusted_types": ["sklearn.tree._tree.Tree", "evil.Type", "known.Type"]}}
    (logged / "MLmodel").write_text(yaml.safe_dump({"flavors": flavor}))
    asked = a_model(7, artifact_digest=artifact_digest(logged), trusted_types=("known.Type",))
    with pytest.raises(ModelError) as refused:
        repository.bring_files(None, "late", asked)  # type: ignore[arg-type]
    assert refused.value.code == "model.untrusted"
    assert "evil.Type" in str(refused.value)
    assert "known.Type" not in str(refused.value)


def test_the_servers_account_can_read_the_files(repository: ModelRepository, model: ModelVersion) -> None:
    before = os.umask(0o077)
    try:
        repository.bring_files(None, "late", model)  # type: ignore[arg-type]
        repository.write("late", SERVING, settings(model))
    finally:
        os.umask(before)
    below = list(repository.folder.rglob("*"))
    assert len(below) > 6
    for path in below:
        mode = path.stat().st_mode
        assert mode & stat.S_IROTH, path
        assert path.is_file() or mode & stat.S_IXOTH, path


def test_the_first_word_about_what_served_before_counts(
    repository: ModelRepository, model: ModelVersion
) -> None:
    assert repository.before("late", "d" * 64) == (False, None)
    repository.remember("late", "d" * 64, None)
    repository.remember("late", "d" * 64, settings(model))
    assert repository.before("late", "d" * 64) == (True, None)
    assert repository.before("late", "e" * 64) == (False, None)
    repository.forget("late", "d" * 64)
    assert repository.before("late", "d" * 64) == (False, None)


def test_cleaning_keeps_what_settings_point_to(repository: ModelRepository, model: ModelVersion) -> None:
    files = repository.bring_files(None, "late", model)  # type: ignore[arg-type]
    repository.write("late", SERVING, settings(model))
    (files.parent / ".new-left-by-a-killed-process").mkdir()
    (files.parent / "0123").mkdir()
    repository.clean("late")
    assert [path.name for path in files.parent.iterdir()] == [files.name]
    repository.remove("late", SERVING)
    repository.clean("late")
    assert list(files.parent.iterdir()) == []


def test_names_that_differ_have_folders_that_differ(repository: ModelRepository, model: ModelVersion) -> None:
    names = ["late", "late:eu", "late-eu", "late eu", "late/eu", "läte", "..", "late:v7"]
    for name in names:
        repository.write(name, SERVING, settings(model, name))
    folders = [path for path in repository.folder.iterdir() if path.is_dir()]
    assert len(folders) == len(names)
    assert all(repository.read(name, SERVING)["name"] == name for name in names)  # type: ignore[index]


@pytest.mark.parametrize("folder", ["relative", "/nowhere/at/all", ""])
def test_a_folder_that_cannot_be_written_is_refused(folder: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        ModelRepository(folder).check()
    assert refused.value.code == "argument.model_repository"
