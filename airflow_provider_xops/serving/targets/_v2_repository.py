"""A model repository folder in MLServer's layout, written so that a server may read it at any moment.

For the V2 target. The repository is a folder that the servers read: a shared volume, or the same machine. For
each served name it holds

- ``<name>/serving/model-settings.json``: the version that answers callers;
- ``<name>/v<version>/model-settings.json``: a version loaded beside it, under a name of its own;
- ``<name>/.files/<digest>/``: the files of each version, written once. The point hides the folder from the
  server's own search for settings, so that nothing inside a model's files can be taken for a model.

Settings appear and change by renaming a finished file over the old one. They point to the files by a relative
path: the folder may be mounted elsewhere where the server runs.

What it does not do: two deployments of one served name must not write at once, which the rollout sees to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from airflow_provider_xops.errors import ArgumentError, ConflictError, ModelError, UnavailableError
from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.registry.artifacts import artifact_digest, download
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import other_files
from airflow_provider_xops.registry.saving import all_trustworthy

__all__ = ["SERVING", "ModelRepository", "beside", "is_of", "platform_of", "settings_for"]

SERVING = "serving"
SETTINGS_FILE = "model-settings.json"
MLFLOW_RUNTIME = "mlserver_mlflow.MLflowRuntime"
_FILES = ".files"
_DIGITS = 32


def beside(version: int) -> str:
    """The place of a version that is loaded beside the one that serves."""
    return f"v{version}"


def platform_of(digest: str) -> str:
    """What a server says of a loaded model's files: enough of their digest to know them again."""
    return f"mlflow_{digest[:_DIGITS]}"


def is_of(settings: Mapping[str, Any], model: ModelVersion) -> bool:
    """Whether settings name a version: its files, and its number (two versions may have the same files)."""
    wanted = (platform_of(model.artifact_digest), [str(model.version)])
    return (settings.get("platform"), settings.get("versions")) == wanted


def settings_for(
    model: ModelVersion, *, name: str, runtime: str, numbered: bool, deployment: str | None
) -> dict[str, Any]:
    """The settings that have a server load a version.

    :param name: what the server calls it.
    :param numbered: whether the server knows it by its version number too. The one that answers callers has
        none: then the server swaps it in place, where two numbers side by side would leave callers without an
        answer while the higher one is still loading.
    """
    return {
        "name": name,
        "implementation": runtime,
        "platform": platform_of(model.artifact_digest),
        "versions": [str(model.version)],
        "parameters": {
            "uri": f"../{_FILES}/{model.artifact_digest[:_DIGITS]}",
            **({"version": str(model.version)} if numbered else {}),
            "extra": {
                "xops_deployment": deployment,
                "xops_digest": model.artifact_digest,
                "xops_created_at_ms": model.created_at_ms,
            },
        },
    }


class ModelRepository:
    """The folder, from the side that writes it.

    :param folder: exists and can be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def check(self) -> None:
        """See that the folder is there.

        :raises ArgumentError: ``argument.model_repository``.
        """
        if not self.folder.is_absolute() or not self.folder.is_dir() or not os.access(self.folder, os.W_OK):
            raise ArgumentError(
                f"the model repository {self.folder} cannot be written",
                code="argument.model_repository",
                why="it must be an existing folder, by its absolute path, that the model servers read too",
                todo="mount the servers' model repository here, or correct its path in the connection",
            )

    def bring_files(self, client: RegistryClient, name: str, model: ModelVersion) -> Path:
        """Have the proved files of a version in the repository; what is there already is proved again.

        :param model: the version's record as the lake has it.
        :raises ModelError: ``model.digest_mismatch`` (here or in the artifact store; nothing was handed to a
            server), ``model.untrusted`` (the files ask the server to trust types that nobody trusted),
            ``model.no_artifacts``.
        """
        place = self._of(name) / _FILES / model.artifact_digest[:_DIGITS]
        if not place.is_dir():
            _make_folder(place.parent)
            arriving = place.parent / f".new-{uuid.uuid4().hex}"
            try:
                found = download(client, model.source_uri, arriving)
                _prove(found, model)
                _flush(found)
                with contextlib.suppress(OSError):
                    # Another attempt may have put the same files there meanwhile: they are proved below.
                    found.rename(place)
            finally:
                shutil.rmtree(arriving, ignore_errors=True)
        _prove(place, model)
        return place

    def read(self, name: str, place: str) -> dict[str, Any] | None:
        """The settings at a place; None: there are none.

        :raises UnavailableError: ``unavailable.model_repository``: the folder could not be read just now.
        :raises ConflictError: ``conflict.served_name``: something else is in their file.
        """
        return _read(self._settings(name, place))

    def write(self, name: str, place: str, settings: dict[str, Any]) -> None:
        """Put settings at a place, in one instant."""
        _write(self._settings(name, place), settings)

    def remove(self, name: str, place: str) -> None:
        """Take the settings from a place, and then the place."""
        file = self._settings(name, place)
        file.unlink(missing_ok=True)
        shutil.rmtree(file.parent, ignore_errors=True)

    def places(self, name: str) -> Iterator[str]:
        """The places that hold settings."""
        for file in sorted(self._of(name).glob(f"*/{SETTINGS_FILE}")):
            yield file.parent.name

    def remember(self, name: str, deployment: str, settings: dict[str, Any] | None) -> None:
        """Keep what answered callers before a deployment; the first word about it counts."""
        file = self._before(name, deployment)
        if not file.exists():
            _write(file, {"before": settings})

    def before(self, name: str, deployment: str) -> tuple[bool, dict[str, Any] | None]:
        """Whether a deployment has changed what answers, and what answered before it (None: nothing)."""
        found = _read(self._before(name, deployment))
        return found is not None, (found or {}).get("before")

    def forget(self, name: str, deployment: str) -> None:
        """The deployment has ended."""
        self._before(name, deployment).unlink(missing_ok=True)

    def clean(self, name: str) -> None:
        """Remove the files that no settings point to any more."""
        pointed: set[str] = set()
        for place in self.places(name):
            settings = self.read(name, place) or {}
            pointed.add(Path(str((settings.get("parameters") or {}).get("uri", ""))).name)
        for folder in (self._of(name) / _FILES).glob("*"):
            if folder.name not in pointed:
                shutil.rmtree(folder, ignore_errors=True)

    def _of(self, name: str) -> Path:
        return self.folder / _folder_name(name)

    def _settings(self, name: str, place: str) -> Path:
        return self._of(name) / place / SETTINGS_FILE

    def _before(self, name: str, deployment: str) -> Path:
        return self._of(name) / f".before-{deployment[:_DIGITS]}.json"


def _folder_name(name: str) -> str:
    """A folder for a name, whatever characters that has.

    >>> _folder_name("late_arrival"), _folder_name("late arrival")
    ('late_arrival', 'late-arrival-480fc765')
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-")[:80]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _prove(folder: Path, model: ModelVersion) -> None:
    found = artifact_digest(folder)
    if found != model.artifact_digest:
        raise other_files(model, found)
    named = _types_in(folder) - set(model.trusted_types)
    untrusted = sorted(each for each in named if not all_trustworthy([each]))
    if untrusted:
        # The server believes this list; our own loading believes the record.
        raise ModelError(
            f"the files of model {model.name} v{model.version} ask for types that nobody trusted",
            code="model.untrusted",
            why=f"they name {', '.join(untrusted[:5])}, and the model server would believe them",
            todo="adopt it again naming the types you trust, or train it here",
        )


def _types_in(folder: Path) -> set[str]:
    file = folder / "MLmodel"
    flavors = (yaml.safe_load(file.read_text()) or {}).get("flavors", {}) if file.exists() else {}
    return {str(each) for each in (flavors.get("sklearn") or {}).get("skops_trusted_types") or ()}


def _flush(folder: Path) -> None:
    """Make files last before a name points to them, and readable for the account of the server."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def _read(file: Path) -> dict[str, Any] | None:
    """The content of a file; None: there is none. One that cannot be read is not taken for that: what answers
    callers would be taken away when a deployment goes back."""
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UnavailableError(
            f"the model repository did not give {file.parent.name}/{file.name}",
            code="unavailable.model_repository",
            why=error.strerror or type(error).__name__,
            todo="look whether the volume is mounted and can be read here",
        ) from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConflictError(
            f"{file.parent.name}/{file.name} in the model repository is not what was written there",
            code="conflict.served_name",
            why="its content is no JSON object",
            todo=f"see what {file.parent} is, and remove or correct it",
            retryable=False,
        )
    return found


def _write(file: Path, content: dict[str, Any]) -> None:
    _make_folder(file.parent)
    arriving = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    with arriving.open("w") as stream:
        json.dump(content, stream, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    arriving.chmod(0o644)
    arriving.replace(file)


def _make_folder(folder: Path) -> None:
    """Make a folder that the account of the server can enter, and those above it that are missing."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
