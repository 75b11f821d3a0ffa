"""What is recorded about a fitted model beside its rows: libraries, what its run shows, predictions to keep.

For :mod:`airflow_provider_xops.training.fit`.
"""

from __future__ import annotations

import functools
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import pandas as pd

from airflow_provider_xops.records import DatasetRef, GoldenPredictions, Selection
from airflow_provider_xops.training.metrics import Predictions, Task

__all__ = ["environment_of", "golden_of", "logged_params", "made_up_rows", "requirements_of", "tags_of"]

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "mlflow", "deltalake")
MAX_LOGGED_PARAMETERS = 100
# How many predictions on the holdout are kept for the smoke test.
GOLDEN_ROWS = 20
SIMPLE = str | int | float | bool | None
SHOWN = ("estimator", "target", "sample", "seed")


def environment_of(reference: str, model: Any = None) -> dict[str, str]:
    """Versions of Python, of the libraries every model needs, and of those its estimators come from.

    :param reference: the estimator's name. :param model: the estimator, whose parts are looked at too.
    """
    versions = {name: _version(name) for name in (*LIBRARIES, *_distributions(reference, model))}
    found = {name: version for name, version in versions.items() if version}
    return {"python": platform.python_version(), **found}


def requirements_of(reference: str, model: Any = None) -> list[str]:
    """The packages that the estimator's code comes from, pinned, beside those every model needs."""
    return [f"{name}=={_version(name)}" for name in _distributions(reference, model) if name not in LIBRARIES]


def golden_of(said: Predictions) -> GoldenPredictions:
    """What the model said about the first rows of its holdout, exact to the last digit."""
    labels = said.labels[:GOLDEN_ROWS]
    scores = [] if said.probabilities is None else said.probabilities[:GOLDEN_ROWS].tolist()
    classes = () if said.classes is None else tuple(_exact(value) for value in said.classes)
    return GoldenPredictions(
        rows=tuple(range(len(labels))),
        labels=tuple(_exact(label) for label in labels),
        classes=classes,
        scores=tuple(tuple(float(value) for value in row) for row in scores),
    )


def made_up_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """One row of the frame's types with made-up values: the signature needs types, and gets no data."""
    values: dict[str, Any] = {}
    for name in frame.columns:
        if frame[name].dtype.kind == "O":
            values[str(name)] = pd.Series(["text"], dtype=object)
        elif frame[name].dtype.kind == "f":
            values[str(name)] = pd.Series([0.5])
        else:
            values[str(name)] = pd.Series([pd.Timestamp(2000, 1, 1)]).astype("datetime64[us]")
    return pd.DataFrame(values)


def logged_params(model: Any, settings: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """What the run page shows: our settings, and the estimator's own simple parameters."""
    own = _own_params(model)
    simple = sorted((name, value) for name, value in own.items() if isinstance(value, SIMPLE))
    more = {
        name: value if isinstance(value, SIMPLE) else json.dumps(value, sort_keys=True)
        for name, value in settings.items()
        if name not in ("params", "features", "task")
    }
    ours = {**{name: settings[name] for name in SHOWN}, **more}
    shown = dict(simple[: MAX_LOGGED_PARAMETERS - 10 - max(0, len(ours) - 5)])
    return {
        **shown, **settings["params"], **{f"xops.{name}": value for name, value in ours.items()},
        "xops.task": task.value, "xops.features": ", ".join(settings["features"]),
    }  # fmt: skip


def tags_of(
    dataset: DatasetRef, training: Selection, *, code: str, environment: Mapping[str, str]
) -> dict[str, str]:
    """The tags of the run: data, code and libraries."""
    return {
        "xops.dataset": str(dataset),
        "xops.dataset_digest": training.digest,
        "xops.code_version": code,
        **{f"xops.env.{name}": version for name, version in environment.items()},
    }


def _exact(value: Any) -> str:
    """A label as text that no other label shares: ``repr`` of its plain Python value."""
    return repr(value.item() if hasattr(value, "item") else value)


def _distributions(reference: str, model: Any = None) -> list[str]:
    packages = {reference.partition(":")[0].partition(".")[0]}
    if model is not None:
        own = _own_params(model).values()
        parts = [model, *(part for part in own if hasattr(part, "fit") or hasattr(part, "transform"))]
        packages |= {type(part).__module__.partition(".")[0] for part in parts}
    known = _packages()
    return sorted({name for package in packages for name in known.get(package, ())})


def _own_params(model: Any) -> Mapping[str, Any]:
    """What the estimator says of its parameters; nothing where it cannot be asked as scikit-learn's can."""
    try:
        return dict(model.get_params(deep=True))
    except Exception:  # any code of the user's; the run page does without
        return {}


@functools.cache
def _packages() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
