"""Loading a registered model, with its provenance checked before anything of it is executed.

For evaluation and scoring. A model file is a program. Loading checks, in this order: the lake has evidence of
this very version; the files that MLflow serves have the recorded digest; and only then are they read, with
exactly the types that were recorded as trusted when the model was made (MLflow would believe the list in the
model's own file).
"""

from __future__ import annotations

import logging
import pickle
import tempfile
from pathlib import Path
from typing import Any

import yaml

from airflow_provider_xops.errors import ModelError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ModelVersion, PromotionDecision
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.artifacts import artifact_digest, download
from airflow_provider_xops.registry.client import RegistryClient, quiet_mlflow
from airflow_provider_xops.registry.models import known_version

__all__ = [
    "get_model",
    "load_model",
    "model_of",
    "other_files",
    "read_model",
    "recorded_version",
    "resolve_model",
]

log = logging.getLogger(__name__)


def load_model(client: RegistryClient, lake: Lake, model: ModelVersion) -> Any:
    """The fitted estimator of a model version (whatever was registered, with its ``predict``).

    :raises ModelError: ``model.unknown`` (the lake has no evidence of it), ``model.digest_mismatch`` (the
        files are not those that were registered; nothing was unpickled), ``model.untrusted`` (it holds types
        that were not trusted when it was made), ``model.load_failed`` (a library is missing or another
        version).
    """
    recorded = recorded_version(lake, model)
    with tempfile.TemporaryDirectory(prefix="xops-model-") as folder:
        return read_model(download(client, recorded.source_uri, Path(folder) / "model"), recorded)


def read_model(path: Path, recorded: ModelVersion) -> Any:
    """The fitted estimator in the files at ``path``, which are proved to be the recorded ones first.

    :param recorded: the version's record as the lake has it.
    :raises ModelError: as :func:`load_model`.
    """
    found = artifact_digest(path)
    if found != recorded.artifact_digest:
        raise other_files(recorded, found)
    estimator = _read(path, recorded)
    log.info("Loaded model %s v%d, digest %s.", recorded.name, recorded.version, found[:12])
    return estimator


def other_files(recorded: ModelVersion, found: str) -> ModelError:
    """The error for files of another digest than the recorded one."""
    return ModelError(
        f"the files of model {recorded.name} v{recorded.version} are not those that were registered",
        code="model.digest_mismatch",
        why=f"their SHA-256 is {found[:12]}..., recorded is {recorded.artifact_digest[:12]}...:"
        " somebody changed them in MLflow's artifact store; nothing of them was executed",
        todo="find out who; roll back to another version with `xops rollback`, or train again",
        context={"found": found, "recorded": recorded.artifact_digest},
    )


def get_model(lake: Lake, name: str, version: int, *, created_at_ms: int | None = None) -> ModelVersion:
    """The record of a model version from the lake's evidence.

    :param created_at_ms: tells versions of re-created models apart; None takes the newest.
    :raises NotFoundError: ``not_found.model_record``.
    """
    found = [
        record
        for record in lake.evidence.all(ModelVersion.kind)
        if isinstance(record, ModelVersion)
        and (record.name, record.version) == (name, version)
        and created_at_ms in (None, record.created_at_ms)
    ]
    if not found:
        raise NotFoundError(
            f"the lake has no evidence of model {name} v{version}",
            code="not_found.model_record",
            why="it was not trained through this lake, or it was registered by other means",
            todo=f"bring it in with `xops adopt model {name} --version {version}`, or name another version",
        )
    return max(found, key=lambda record: (record.created_at_ms, record.recorded_at))


def resolve_model(
    lake: Lake, name: str, *, alias: str | None = None, version: int | None = None
) -> ModelVersion | None:
    """The model version an alias stands for, or the one named by number; None if the alias has no champion
    yet.

    The ledger decides what an alias stands for; MLflow's alias is its projection.

    :param alias: default ``champion`` if no version is given.
    :raises NotFoundError: ``not_found.model_record``.
    """
    if version is not None:
        return get_model(lake, name, version)
    decision = ledger.current(lake, name, alias or "champion")
    return None if decision is None or decision.to_version is None else model_of(lake, decision)


def model_of(lake: Lake, decision: PromotionDecision) -> ModelVersion:
    """The record of the version that a ledger entry names.

    :raises NotFoundError: ``not_found.model_record``.
    """
    name, version, created_at_ms = decision.model, decision.to_version or 0, decision.to_created_at_ms
    if created_at_ms is not None and decision.artifact_digest is not None:
        # The entry says all that the record's id is made of: no search through the records of all models.
        record = known_version(
            lake, name=name, version=version, created_at_ms=created_at_ms, digest=decision.artifact_digest
        )
        if record is not None:
            return record
    return get_model(lake, name, version, created_at_ms=created_at_ms)


def recorded_version(lake: Lake, model: ModelVersion) -> ModelVersion:
    """The record as the lake has it: what travelled between tasks may have been changed on the way.

    :raises ModelError: ``model.unknown``: the lake has no evidence of it.
    """
    try:
        record = lake.evidence.get(ModelVersion.kind, model.record_id)
    except NotFoundError as error:
        raise ModelError(
            f"the lake has no evidence of model {model.name} v{model.version}",
            code="model.unknown",
            why=error.what,
            todo="bring it in with `xops adopt model`, or name a version that was trained through this lake",
        ) from None
    if not isinstance(record, ModelVersion):
        raise ModelError(f"record {model.record_id} is not a model version", code="model.unknown")
    return record


def _read(path: Path, model: ModelVersion) -> Any:
    flavors = (
        yaml.safe_load((path / "MLmodel").read_text()).get("flavors", {})
        if (path / "MLmodel").exists()
        else {}
    )
    try:
        if "sklearn" in flavors:
            return _read_sklearn(path, flavors["sklearn"], model)
        with quiet_mlflow():
            import mlflow.pyfunc

            return mlflow.pyfunc.load_model(str(path))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"model {model.name} v{model.version} does not load here",
            code="model.load_failed",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            todo="install what the model's requirements.txt names (its page in MLflow shows it)",
        ) from None


def _read_sklearn(path: Path, flavor: dict[str, Any], model: ModelVersion) -> Any:
    file = path / str(flavor["pickled_model"])
    if flavor.get("code"):
        from mlflow.utils.model_utils import _add_code_from_conf_to_system_path

        _add_code_from_conf_to_system_path(str(path), flavor)
    if flavor.get("serialization_format") != "skops":
        with file.open("rb") as stream:
            # cloudpickle writes plain pickles; its bytes were just checked against the recorded digest.
            return pickle.load(stream)
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.load(file, trusted=list(model.trusted_types))
    except UntrustedTypesFoundException:
        needed = sorted(set(skops.io.get_untrusted_types(file=file)) - set(model.trusted_types))
        raise ModelError(
            f"model {model.name} v{model.version} holds types that nobody trusted",
            code="model.untrusted",
            why=f"it needs {', '.join(needed[:5])}",
            todo="adopt it again naming the types you trust, or train it here",
        ) from None
