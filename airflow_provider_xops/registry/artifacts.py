"""A model's files: their digest, and bringing them here.

For registering (which records the digest) and for loading (which refuses other bytes before anything is
unpickled).
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from airflow_provider_xops.errors import ModelError
from airflow_provider_xops.records import digest_of
from airflow_provider_xops.registry.client import RegistryClient

__all__ = ["artifact_digest", "download", "size_of"]

log = logging.getLogger(__name__)

# Written by MLflow beside a downloaded model; not part of what was logged.
_NOT_OURS = {"registered_model_meta"}
_CHUNK = 1 << 20


def artifact_digest(path: Path) -> str:
    """SHA-256 (hex) over the sorted (relative path, SHA-256 of the bytes) of every file below ``path``.

    :raises ModelError: ``model.no_artifacts`` if there is no file.
    """
    files = _files(path)
    if not files:
        raise ModelError(
            "the model has no files",
            code="model.no_artifacts",
            todo="log the model again: its upload never finished",
        )
    return digest_of([[name, _sha256(file)] for name, file in files])


def size_of(path: Path) -> int:
    """The bytes of a model's files."""
    return sum(file.stat().st_size for _, file in _files(path))


def download(client: RegistryClient, source_uri: str, into: Path) -> Path:
    """Bring a model's files to the folder ``into`` and return the folder that holds ``MLmodel``.

    :param source_uri: ``models:/m-<id>`` (a logged model), ``runs:/<run>/<path>``, ``mlflow-artifacts:/...``
        or any artifact URI MLflow reads.
    :raises ModelError: ``model.no_artifacts`` if nothing is there.
    """
    into.mkdir(parents=True, exist_ok=True)
    with client.session(f"downloading {source_uri}") as mlflow:
        import mlflow.artifacts as artifacts

        uri = source_uri
        if source_uri.startswith("models:/m-"):
            # The logged model's own address: `models:/` would add a file of MLflow's to the folder.
            uri = mlflow.get_logged_model(source_uri.removeprefix("models:/")).artifact_location
        found = Path(
            artifacts.download_artifacts(
                artifact_uri=uri, dst_path=str(into), tracking_uri=client.settings.tracking_uri
            )
        )
    if not found.is_dir() or not any(file.is_file() for file in found.rglob("*")):
        raise ModelError(
            f"the model at {source_uri} has no files",
            code="model.no_artifacts",
            why="its upload never finished, or somebody deleted them",
            todo="train and register it again",
        )
    log.info("Downloaded the model at %s.", source_uri)
    return found


def _files(path: Path) -> list[tuple[str, Path]]:
    """A model's own files, by their names below ``path``."""
    return sorted(
        (file.relative_to(path).as_posix(), file)
        for file in path.rglob("*")
        if file.is_file() and file.relative_to(path).as_posix() not in _NOT_OURS
    )


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
