"""Uploading a model's files to where the logged model says they belong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.models import upload_files
from airflow_provider_xops.settings import MlflowSettings

NOBODY = "http://127.0.0.1:9"


def client() -> RegistryClient:
    return RegistryClient(MlflowSettings(tracking_uri=NOBODY))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}")
    return tmp_path / "model"


def test_files_go_straight_to_their_place(tmp_path: Path, model: Path) -> None:
    logged = SimpleNamespace(model_id="m-1", artifact_location=str(tmp_path / "store"))
    upload_files(None, client(), logged, model)
    assert (tmp_path / "store" / "MLmodel").read_text() == "flavors: {}"


def test_a_storage_that_does_not_answer_is_tried_again_and_tells_no_key(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "MLFLOW_S3_ENDPOINT_URL": NOBODY, "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    logged = SimpleNamespace(model_id="m-1", artifact_location="s3://bucket/m-1")
    with pytest.raises(UnavailableError) as caught:
        upload_files(None, client(), logged, model)
    assert caught.value.code == "unavailable.artifacts"
    assert caught.value.retryable
    assert "hush-hush" not in str(caught.value)
