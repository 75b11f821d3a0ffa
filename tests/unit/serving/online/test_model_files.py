"""Kept model files: nobody else's files are used, and what cannot be read just now is not thrown away."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import ModelError, UnavailableError
from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.registry.artifacts import artifact_digest
from airflow_provider_xops.serving.online import model_files as module
from airflow_provider_xops.serving.online.model_files import ModelFiles
from tests.unit.registry.builders import a_model


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    """A version whose files can be brought once: MLflow is down afterwards."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "MLmodel").write_text("flavors: {}")
    brought: list[str] = []

    def download(client: Any, uri: str, into: Path) -> Path:
        if brought:
            raise UnavailableError("MLflow did not answer", code="unavailable.mlflow")
        brought.append(uri)
        return Path(shutil.copytree(source, into))

    monkeypatch.setattr(module, "download", download)
    return a_model(1, artifact_digest=artifact_digest(source))


def content(path: Path) -> str:
    return (path / "MLmodel").read_text()


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_what_others_may_write_to_is_used_as_a_copy_that_they_cannot_exchange(
    tmp_path: Path, record: ModelVersion, mode: int
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)

    with ModelFiles(folder).of(None, record) as path:  # type: ignore[arg-type]
        for kept in folder.rglob("MLmodel"):
            kept.write_text("flavors: {exchanged}")
        assert content(path) == "flavors: {}"
    assert not path.exists()


def test_files_that_are_exchanged_before_they_are_copied_are_refused(
    tmp_path: Path, record: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    plain = shutil.copytree

    def exchanged(source: Path, to: Path, *more: Any, **options: Any) -> Any:
        if folder in Path(source).parents:
            (source / "MLmodel").write_text("flavors: {exchanged}")
        return plain(source, to, *more, **options)

    monkeypatch.setattr(module.shutil, "copytree", exchanged)
    with pytest.raises(ModelError) as refused, ModelFiles(folder).of(None, record):  # type: ignore[arg-type]
        pass
    assert refused.value.code == "model.digest_mismatch"


def test_a_folder_of_ones_own_is_used_in_place(tmp_path: Path, record: ModelVersion) -> None:
    folder = tmp_path / "mine"
    with ModelFiles(folder).of(None, record) as path:  # type: ignore[arg-type]
        assert path.parent == folder
    assert os.stat(folder).st_mode & 0o077 == 0


def test_a_disk_that_fails_for_a_moment_costs_no_files(
    tmp_path: Path, record: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ModelFiles(tmp_path / "mine")
    with files.of(None, record):  # type: ignore[arg-type]
        pass

    def failing(path: Path) -> str:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(module, "artifact_digest", failing)
        with pytest.raises(OSError), files.of(None, record):  # type: ignore[arg-type]
            pass

    with files.of(None, record) as path:  # type: ignore[arg-type]
        assert content(path) == "flavors: {}"
