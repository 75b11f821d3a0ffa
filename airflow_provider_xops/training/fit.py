"""Training: from a dataset version to a registered model version, once for each piece of work.

For the training operator and notebooks. :func:`train` reads the selected columns, splits, fits, judges the
model on the holdout, logs the run and registers the version. It can be killed at any instant and run again:
what an earlier attempt registered is found by its key and returned. The key is made of the data's digest, the
settings and the source of the estimator's module; modules which that one imports are not seen.
"""

from __future__ import annotations

import inspect
import json
import logging
import platform
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from airflow_provider_xops.errors import ArgumentError, TrainingError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, GoldenPredictions, ModelVersion, digest_of
from airflow_provider_xops.registry import models, runs
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.frames import default_features, feature_frame, target_values
from airflow_provider_xops.training.metrics import Predictions, Task, compute
from airflow_provider_xops.training.predicting import predict, task_of
from airflow_provider_xops.training.selections import Chosen
from airflow_provider_xops.training.splits import Split, split_from
from airflow_provider_xops.training.user_errors import describe
from airflow_provider_xops.usercode import code_version, reference_of, resolve_callable, source_digest

__all__ = ["build", "environment_of", "golden_of", "train"]

log = logging.getLogger(__name__)

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "mlflow", "deltalake")
MAX_LOGGED_PARAMETERS = 100
# How many predictions on the holdout are kept for the smoke test.
GOLDEN_ROWS = 20
SIMPLE = str | int | float | bool | None


def train(
    lake: Lake,
    client: RegistryClient,
    *,
    dataset: DatasetRef,
    estimator: str,
    target: str,
    split: Split | Mapping[str, Any],
    model_name: str,
    partitions: Sequence[str] | None = None,
    params: Mapping[str, Any] | None = None,
    features: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    sample: float | None = None,
    seed: int = 0,
    experiment: str | None = None,
    actor: Actor,
    as_of: datetime,
) -> ModelVersion:
    """Fit an estimator on a dataset version and register it as a new version of ``model_name``.

    :param estimator: class or factory by import path (``sklearn.ensemble:HistGradientBoostingClassifier``);
        it is called with ``params`` (JSON-able) and gives an object with ``fit`` and ``predict``. A factory
        that takes ``seed`` gets it; every ``random_state`` left open is set to it.
    :param partitions: what is read; None: all of the version.
    :param features: columns the model sees; None: all but the target, ``drop`` and the split's own columns.
    :param split: a split, or its JSON form (``{"kind": "time", "holdout_partitions": 14}``).
    :param sample: at most so many training rows (below 1: that fraction); the holdout stays whole.
    :param experiment: the MLflow experiment; by default the model's name.
    :raises TrainingError: ``training.fit_failed`` (the estimator raised; the run is closed as failed,
        nothing is registered), ``training.empty``, ``training.one_class``, ``training.no_target``,
        ``training.split``, ``training.partitions``, ``training.estimator``.
    :raises UserCodeError: the estimator cannot be named or imported.
    :raises DataError: a feature is missing or of a type that no estimator takes.

    >>> train(lake, client, dataset=ref, estimator="sklearn.linear_model:LogisticRegression", target="late",
    ...       split={"kind": "random"}, model_name="late", actor=actor, as_of=now)  # doctest: +SKIP

    What it does not do: it does not search parameters, and it does not promote.
    """
    reference, rule, given = reference_of(estimator), split_from(split), _json_params(params or {})
    columns = _features(lake, dataset, features, target=target, drop=drop, split=rule)
    model = build(reference, given, seed)
    settings = {
        "estimator": reference,
        "params": given,
        "target": target,
        "features": list(columns),
        "split": rule.to_json(),
        "sample": sample,
        "seed": seed,
    }
    content = read.content_digest(lake, dataset, partitions)
    # The source and not the commit: a commit elsewhere in the repository is no reason to train again.
    key = runs.work_key(actor, model_name, dataset.table_uuid, content, settings, source_digest(reference))
    mlflow_experiment = experiment or model_name
    earlier = runs.earlier_attempts(client, experiment=mlflow_experiment, key=key)
    existing = models.find_model(client, lake, name=model_name, key=key) if earlier.begun else None
    if existing is not None:
        log.info("%s was trained by an earlier attempt at this work: nothing to do.", existing.ref)
        return existing
    chosen = selections.choose(
        lake, dataset=dataset, partitions=partitions, columns=[*columns, target], target=target, split=rule,
        sample=sample, seed=seed,
    )  # fmt: skip
    truth = target_values(chosen.training_rows, target)
    task = task_of(model, truth)
    code = code_version(reference)
    _check_classes(task, chosen, target)
    with runs.run(
        client,
        experiment=mlflow_experiment,
        key=key,
        actor=actor,
        run_name=model_name,
        earlier=earlier,
    ) as run:
        _fit(model, feature_frame(chosen.training_rows, columns), truth, reference)
        frame = feature_frame(chosen.holdout_rows, columns)
        said = predict(model, frame, task=task, name=reference)
        figures = compute(task, target_values(chosen.holdout_rows, target), said)
        measured = {name: value for name, value in figures.items() if value is not None}
        facts = models.ModelFacts(
            training=chosen.training,
            holdout=chosen.holdout,
            features=columns,
            target=target,
            task=task.value,
            estimator=reference,
            code_version=code,
            params_digest=digest_of(settings),
            metrics=measured,
            settings=settings,
            environment=environment_of(reference),
            golden=golden_of(said),
        )
        runs.log_run(
            client, run, params=_logged(model, settings, task),
            metrics={**measured, "training_rows": chosen.training.rows, "holdout_rows": chosen.holdout.rows},
            tags=_tags(dataset, chosen, reference, code),
            selections={selections.TRAINING: chosen.training, selections.HOLDOUT: chosen.holdout},
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="xops-fit-") as folder:
            saved = models.save_model(
                model,
                Path(folder) / "model",
                facts=facts,
                sample=_made_up_rows(frame),
                predictions=said.labels[:1],
                extra_requirements=_requirements(reference),
            )
            return models.register_model(
                client, lake, name=model_name, saved=saved, facts=facts, run=run, actor=actor, as_of=as_of
            )


def _features(
    lake: Lake,
    dataset: DatasetRef,
    features: Sequence[str] | None,
    *,
    target: str,
    drop: Sequence[str],
    split: Split,
) -> tuple[str, ...]:
    schema = read.schema_of(lake, dataset)
    columns = (
        default_features(schema, without={target, *drop, *split.columns})
        if features is None
        else tuple(name for name in dict.fromkeys(features) if name not in set(drop))
    )
    if target in columns:
        raise ArgumentError(
            f"the target {target!r} is among the features", code="argument.features",
            why="a model that sees the answer learns nothing else", todo="take it out of features",
        )  # fmt: skip
    if not columns:
        raise ArgumentError("no feature is left", code="argument.features", todo="name at least one column")
    return columns


def _json_params(params: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(params), allow_nan=False))
    except (TypeError, ValueError):
        bad = [name for name, value in params.items() if not _is_json(value)]
        raise ArgumentError(
            f"the estimator's parameters {', '.join(bad) or '(their names)'} are not JSON",
            code="argument.params",
            why="parameters travel between tasks and are recorded",
            todo="pass numbers, text, booleans, lists, dictionaries; build all else in a factory function",
        ) from None
    return plain


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def build(reference: str, params: Mapping[str, Any], seed: int) -> Any:
    """An unfitted estimator from a class or factory, its randomness fixed by ``seed``.

    :raises TrainingError: ``training.estimator`` when the callable raises, or gives no estimator.
    """
    make = resolve_callable(reference)
    arguments = dict(params)
    try:
        if "seed" in inspect.signature(make).parameters:
            arguments.setdefault("seed", seed)
    except ValueError:  # a callable of an extension module without a signature
        pass
    try:
        model = make(**arguments)
        if hasattr(model, "get_params") and hasattr(model, "set_params"):
            left_open = [
                name
                for name, value in model.get_params(deep=True).items()
                if name.rpartition("__")[2] == "random_state" and value is None
            ]
            model.set_params(**dict.fromkeys(left_open, seed))
    except Exception as error:
        raise TrainingError(
            f"{reference} cannot be made with the parameters {', '.join(arguments) or '(none)'}",
            code="training.estimator", why=describe(error), todo="correct the parameters",
        ) from None  # fmt: skip
    if not callable(getattr(model, "fit", None)) or not callable(getattr(model, "predict", None)):
        raise TrainingError(
            f"{reference} gave a {type(model).__name__}, which is no estimator", code="training.estimator",
            why="it has no fit and predict", todo="name a class or factory of an object with fit and predict",
        )  # fmt: skip
    return model


def _check_classes(task: Task, chosen: Chosen, target: str) -> None:
    if task is not Task.CLASSIFICATION:
        return
    for side, rows in (
        (selections.TRAINING, chosen.training_rows),
        (selections.HOLDOUT, chosen.holdout_rows),
    ):
        if len(pd.unique(target_values(rows, target))) < 2:
            raise TrainingError(
                f"the {side} rows of {chosen.training.dataset} have one class only",
                code="training.one_class",
                why=f"all {rows.num_rows} of them have the same {target!r}",
                todo="read more partitions, stratify a random split, or check how the target is made",
            )


def _fit(model: Any, frame: pd.DataFrame, truth: Any, reference: str) -> None:
    log.info("Fitting %s on %d rows of %d features.", reference, *frame.shape)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(frame, truth)
    except Exception as error:
        raise TrainingError(
            f"{reference} could not be fitted on {frame.shape[0]} rows of {frame.shape[1]} features",
            code="training.fit_failed", why=describe(error, frame),
            todo="check the features' types and missing values against what the estimator takes",
            context={"exception": type(error).__name__, "rows": frame.shape[0], "features": frame.shape[1]},
        ) from None  # fmt: skip
    # Their texts may quote data, so only their kinds are told.
    for kind, count in Counter(warning.category.__name__ for warning in caught).items():
        log.info("The estimator warned while fitting: %s (%d times).", kind, count)


def _logged(model: Any, settings: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """What the run page shows: our settings, and the estimator's own simple parameters."""
    own = model.get_params(deep=True) if hasattr(model, "get_params") else {}
    simple = sorted((name, value) for name, value in own.items() if isinstance(value, SIMPLE))
    shown = dict(simple[: MAX_LOGGED_PARAMETERS - 10])
    ours = {name: settings[name] for name in ("estimator", "target", "sample", "seed")}
    return {
        **shown, **settings["params"], **{f"xops.{name}": value for name, value in ours.items()},
        "xops.task": task.value, "xops.features": ", ".join(settings["features"]),
        "xops.split": json.dumps(settings["split"], sort_keys=True),
    }  # fmt: skip


def _tags(dataset: DatasetRef, chosen: Chosen, reference: str, code: str) -> dict[str, str]:
    return {
        "xops.dataset": str(dataset),
        "xops.dataset_digest": chosen.training.digest,
        "xops.code_version": code,
        **{f"xops.env.{name}": version for name, version in environment_of(reference).items()},
    }


def environment_of(reference: str) -> dict[str, str]:
    """Versions of Python, of the libraries every model needs, and of those its estimator comes from."""
    versions = {name: _version(name) for name in (*LIBRARIES, *_distributions(reference))}
    found = {name: version for name, version in versions.items() if version}
    return {"python": platform.python_version(), **found}


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


def _exact(value: Any) -> str:
    """A label as text that no other label shares: ``repr`` of its plain Python value."""
    return repr(value.item() if hasattr(value, "item") else value)


def _made_up_rows(frame: pd.DataFrame) -> pd.DataFrame:
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


def _requirements(reference: str) -> list[str]:
    """The packages that the estimator's code comes from, pinned, beside those every model needs."""
    return [f"{name}=={_version(name)}" for name in _distributions(reference) if name not in LIBRARIES]


def _distributions(reference: str) -> list[str]:
    package = reference.partition(":")[0].partition(".")[0]
    return sorted(set(metadata.packages_distributions().get(package, [])))


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
