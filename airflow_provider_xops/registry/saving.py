"""Saving a fitted estimator to a folder that MLflow, and only a careful loader, can read.

skops where it can be, cloudpickle where it must be. skops refuses types it does not know, and tree models
hold some; :func:`save_model` accepts those that come from scikit-learn, NumPy and SciPy and *records* them,
because MLflow would later believe whatever list stands in the model's own file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from airflow_provider_xops.errors import ModelError
from airflow_provider_xops.records import GoldenPredictions, Selection
from airflow_provider_xops.registry.artifacts import artifact_digest
from airflow_provider_xops.registry.client import quiet_mlflow

__all__ = ["FACTS_FILE", "ModelFacts", "SavedModel", "all_trustworthy", "save_model", "saved_facts"]

log = logging.getLogger(__name__)

FACTS_FILE = "xops.json"
TRUSTED_PREFIXES = ("sklearn.", "numpy.", "scipy.", "builtins.")
# Types a skops file could call to run code, whatever package they come from.
NEVER_TRUSTED = frozenset(
    {
        "builtins.eval",
        "builtins.exec",
        "builtins.compile",
        "builtins.__import__",
        "builtins.open",
        "builtins.getattr",
        "builtins.setattr",
        "builtins.delattr",
        "builtins.input",
        "builtins.breakpoint",
        "builtins.globals",
        "builtins.vars",
        "numpy.load",
        "numpy.save",
        "numpy.fromfile",
        "numpy.memmap",
        "numpy.loadtxt",
        "numpy.genfromtxt",
        "numpy.savetxt",
        "numpy.DataSource",
        "scipy.io.loadmat",
    }
)
_ALWAYS_NEEDED = ("mlflow", "scikit-learn", "numpy", "pandas", "scipy")


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What training knows about a model; each field means what it means in a ``ModelVersion`` record."""

    training: Selection | None
    holdout: Selection | None
    features: tuple[str, ...]
    target: str | None
    task: str
    estimator: str
    code_version: str
    params_digest: str
    metrics: dict[str, float]
    origin: str = "trained"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    cross_validation: dict[str, float] = dataclasses.field(default_factory=dict)
    golden: GoldenPredictions | None = None
    tuning: str | None = None


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A model folder on this machine: its digest, its format, and the types a load must be told to trust."""

    path: Path
    digest: str
    serialization: str
    trusted_types: tuple[str, ...]


def save_model(
    estimator: Any,
    path: Path,
    *,
    facts: ModelFacts,
    sample: Any = None,
    predictions: Any = None,
    extra_requirements: Sequence[str] = (),
) -> SavedModel:
    """Write ``estimator`` to the new folder ``path`` as an MLflow model.

    :param sample: a few rows of features (a DataFrame), for the signature; only names and types are kept.
    :param predictions: the model's predictions for them.
    :param extra_requirements: pip requirements beside scikit-learn's (``xgboost==3.1``).
    :raises ModelError: ``model.not_saved`` if it cannot be pickled.
    """
    trusted = _skops_types(estimator)
    serialization = "cloudpickle" if trusted is None else "skops"
    requirements = _requirements(estimator, serialization, extra_requirements)
    with quiet_mlflow(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.sklearn
        from mlflow.models import infer_signature

        signature = None if sample is None else infer_signature(sample, predictions)
        try:
            mlflow.sklearn.save_model(
                estimator,
                str(path),
                serialization_format=serialization,
                signature=signature,
                pip_requirements=requirements,
                skops_trusted_types=list(trusted) if trusted else None,
            )
        except Exception as error:
            raise ModelError(
                f"the fitted {type(estimator).__name__} cannot be saved",
                code="model.not_saved",
                why=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
                todo="build the estimator from importable functions and classes: no lambdas, no open files",
            ) from None
    facts_json = {"format": 1, **_facts_to_json(facts)}
    (path / FACTS_FILE).write_text(json.dumps(facts_json, indent=1, sort_keys=True))
    digest = artifact_digest(path)
    log.info("Saved the %s as %s, digest %s.", type(estimator).__name__, serialization, digest[:12])
    return SavedModel(path=path, digest=digest, serialization=serialization, trusted_types=trusted or ())


def saved_facts(file: Path) -> ModelFacts:
    """Read back the facts that :func:`save_model` has put beside the model.

    :raises ModelError: ``model.no_facts``.
    """
    from pydantic import TypeAdapter

    try:
        data = json.loads(file.read_text())
        data.pop("format")
        facts: ModelFacts = TypeAdapter(ModelFacts).validate_python(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(
            "the model does not say what it was trained on",
            code="model.no_facts",
            why=f"its file {FACTS_FILE} is missing or unreadable",
            todo="train and register it again",
        ) from None
    return facts


def all_trustworthy(types: Iterable[str]) -> bool:
    """Whether every one of these type names comes from a package whose types cannot run code when loaded.

    >>> all_trustworthy(["sklearn.tree._tree.Tree"]), all_trustworthy(["builtins.eval", "numpy.ndarray"])
    (True, False)
    """
    return all(name.startswith(TRUSTED_PREFIXES) and name not in NEVER_TRUSTED for name in types)


def _skops_types(estimator: Any) -> tuple[str, ...] | None:
    """The types a skops load of it must trust; None if it has to be cloudpickle."""
    import skops.io

    with contextlib.suppress(Exception):
        # skops raises whatever its visitors meet: any failure means that it cannot hold this estimator.
        types = tuple(sorted(skops.io.get_untrusted_types(data=skops.io.dumps(estimator))))
        if all_trustworthy(types):
            return types
    log.info("skops cannot hold this %s: it is saved as cloudpickle.", type(estimator).__name__)
    return None


def _requirements(estimator: Any, serialization: str, extra: Sequence[str]) -> list[str]:
    """Pinned requirements from what is installed; MLflow's own inference starts a process and takes 10 s."""
    names = {*_ALWAYS_NEEDED, serialization}
    package = type(estimator).__module__.partition(".")[0]
    if package not in ("sklearn", "numpy", "builtins", "__main__"):
        names.update(metadata.packages_distributions().get(package, []))
    named = {
        requirement.partition("=")[0].partition("[")[0].partition(">")[0].strip().lower()
        for requirement in extra
    }
    pinned = []
    for name in sorted(names - named):
        with contextlib.suppress(metadata.PackageNotFoundError):
            pinned.append(f"{name}=={metadata.version(name)}")
    return [*pinned, *extra]


def _facts_to_json(facts: ModelFacts) -> dict[str, Any]:
    data = dataclasses.asdict(facts)
    data["features"] = list(facts.features)
    return data
