"""What can be learned from a model that was made elsewhere, without executing any of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from airflow_provider_xops.errors import ArgumentError, ModelError, NotFoundError
from airflow_provider_xops.registry.artifacts import artifact_digest
from airflow_provider_xops.registry.client import RegistryClient, quoted
from airflow_provider_xops.registry.saving import all_trustworthy

__all__ = ["Inspected", "inspect_model", "run_facts", "source_of_run", "version_of_source"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """A model folder as it is: digest, flavor, the features of its signature, the types a load needs."""

    digest: str
    flavor: str
    features: tuple[str, ...]
    trusted_types: tuple[str, ...]


def inspect_model(path: Path, *, subject: str, trust: Sequence[str] = ()) -> Inspected:
    """Read a downloaded model's description and digest; nothing of the model is loaded.

    :param trust: type names, beside scikit-learn's, NumPy's and SciPy's, that whoever adopts it vouches for.
    :raises ModelError: ``model.not_mlflow`` (no MLmodel file), ``model.untrusted`` (it holds other types).
    """
    description = path / "MLmodel"
    if not description.exists():
        raise ModelError(
            f"{subject} is not an MLflow model",
            code="model.not_mlflow",
            why="its folder has no MLmodel file",
            todo="log it with mlflow.<flavor>.log_model, then adopt it",
        )
    content = yaml.safe_load(description.read_text())
    flavors = content.get("flavors", {})
    flavor = next((name for name in flavors if name != "python_function"), "python_function")
    return Inspected(
        digest=artifact_digest(path),
        flavor=flavor,
        features=_signature_inputs(content),
        trusted_types=_trusted_types(path, flavors.get("sklearn"), subject, trust),
    )


def source_of_run(client: RegistryClient, run_id: str, artifact_path: str | None) -> str:
    """The address of the model that a run logged.

    :param artifact_path: for runs of MLflow 2, or to choose among several.
    :raises NotFoundError: ``not_found.run`` or ``not_found.run_model``.
    :raises ArgumentError: the run logged several models (``argument.artifact_path``).
    """
    try:
        with client.session(f"reading run {run_id}") as mlflow:
            found = mlflow.get_run(run_id)
            outputs = getattr(found.outputs, "model_outputs", None) or []
            names = {mlflow.get_logged_model(output.model_id).name: output.model_id for output in outputs}
            folders = [] if names else [item.path for item in mlflow.list_artifacts(run_id) if item.is_dir]
    except NotFoundError as error:
        raise NotFoundError(
            f"there is no run {run_id} in MLflow",
            code="not_found.run",
            why=error.why,
            todo="check the run id",
        ) from None
    wanted = [name for name in names or folders if artifact_path in (None, name)]
    if not wanted:
        raise NotFoundError(
            f"run {run_id} logged no model" + (f" called {artifact_path}" if artifact_path else ""),
            code="not_found.run_model",
            todo="log a model in the run, or name the artifact path of the one there is",
        )
    if len(wanted) > 1:
        raise ArgumentError(
            f"run {run_id} logged {len(wanted)} models",
            code="argument.artifact_path",
            todo=f"say which: {', '.join(sorted(wanted)[:10])}",
        )
    return f"models:/{names[wanted[0]]}" if names else f"{found.info.artifact_uri.rstrip('/')}/{wanted[0]}"


def version_of_source(client: RegistryClient, name: str, source: str) -> Any | None:
    """The version of model ``name`` that already stands for ``source``; the lowest of several."""
    with client.session(f"searching model {name} for {source}") as mlflow:
        found = [
            each for each in mlflow.search_model_versions(f"name = {quoted(name)}") if each.source == source
        ]
    return min(found, key=lambda each: int(each.version), default=None)


def run_facts(
    client: RegistryClient, run_id: str | None
) -> tuple[dict[str, float], dict[str, str], str, str | None]:
    """A run's metrics and parameters, its code version, and its experiment; empty for a version without a
    run."""
    if not run_id:
        return {}, {}, "unknown", None
    try:
        with client.session(f"reading run {run_id}") as mlflow:
            run = mlflow.get_run(run_id)
    except NotFoundError:
        log.warning("Run %s is gone: the model is adopted without its metrics and parameters.", run_id)
        return {}, {}, "unknown", None
    commit = run.data.tags.get("mlflow.source.git.commit")
    code = f"git:{commit}" if commit else "unknown"
    return dict(run.data.metrics), dict(run.data.params), code, str(run.info.experiment_id)


def _signature_inputs(content: dict[str, Any]) -> tuple[str, ...]:
    inputs = (content.get("signature") or {}).get("inputs")
    columns = json.loads(inputs) if isinstance(inputs, str) else inputs or []
    return tuple(str(column["name"]) for column in columns if isinstance(column, dict) and "name" in column)


def _trusted_types(
    path: Path, sklearn: dict[str, Any] | None, subject: str, trust: Sequence[str]
) -> tuple[str, ...]:
    if not sklearn or sklearn.get("serialization_format") != "skops":
        log.info("%s is a pickle or of another library: loading it runs what its maker put in it.", subject)
        return ()
    import skops.io

    needed = sorted(skops.io.get_untrusted_types(file=path / str(sklearn["pickled_model"])))
    unknown = [name for name in needed if name not in trust and not all_trustworthy([name])]
    if unknown:
        raise ModelError(
            f"{subject} holds types that nobody trusted",
            code="model.untrusted",
            why=f"it needs {', '.join(unknown[:5])}; a type may run code when it is loaded",
            todo="look at them, and name them in `trust` if they are yours",
        )
    return tuple(needed)
