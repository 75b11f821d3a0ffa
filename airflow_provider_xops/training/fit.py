"""Training: from a dataset version to a registered model version, once for each piece of work.

For the training operator and notebooks. :func:`train` reads the selected columns, splits, fits, judges the
model on the holdout, logs the run and registers the version. It can be killed at any instant and run again:
what an earlier attempt registered is found by its key and returned. The key is made of the data's digest, the
settings and the source of the estimator's module; modules which that one imports are not seen.

:func:`refit` is the middle of it alone: the same estimator fitted again on recorded rows, in memory.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from airflow_provider_xops.errors import ArgumentError, TrainingError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, ModelVersion, Selection, TuningStudy, digest_of
from airflow_provider_xops.registry import models, runs
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.training import batches, facts, selections
from airflow_provider_xops.training.cross_validation import CrossValidation
from airflow_provider_xops.training.facts import environment_of, golden_of
from airflow_provider_xops.training.fitting import build
from airflow_provider_xops.training.folds import Folds, folds_from
from airflow_provider_xops.training.frames import default_features, feature_frame, target_values
from airflow_provider_xops.training.functions import TrainingFunction
from airflow_provider_xops.training.metrics import Predictions, Task, compute
from airflow_provider_xops.training.predicting import predict
from airflow_provider_xops.training.recipe import Recipe, named_estimator, recipe_from
from airflow_provider_xops.training.splits import Split, split_from
from airflow_provider_xops.training.studies import params_of_study, read_of
from airflow_provider_xops.training.weights import class_weights_from
from airflow_provider_xops.usercode import code_version, source_digest

__all__ = ["Refitted", "build", "environment_of", "features_of", "golden_of", "refit", "train"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Refitted:
    """An estimator fitted again, outside MLflow.

    :param columns: the features it takes, in their order. :param rows: how many rows it was fitted on.
    """

    estimator: Any
    columns: tuple[str, ...]
    task: Task
    rows: int


@dataclass(frozen=True, kw_only=True)
class _Learned:
    """A fitted estimator, what it was fitted on, and what it says of the holdout."""

    model: Any
    task: Task
    training: Selection
    holdout: Selection
    said: Predictions
    truth: Any
    sample: pd.DataFrame
    validation: CrossValidation | None = None


def refit(lake: Lake, settings: Mapping[str, Any], training: Selection) -> Refitted:
    """Fit an estimator again as a model version's settings say, on the rows that its record names.

    :param settings: :attr:`ModelVersion.settings`. :param training: :attr:`ModelVersion.training`; its rows
        are read again and proved by their digest.
    :raises TrainingError: ``training.not_repeatable`` (the settings are empty, or the function that trained
        cannot be imported), or as :func:`train`.
    :raises DataError: ``data.selection_changed``: the lake has other rows now.

    >>> again = refit(lake, model.settings, model.training)  # doctest: +SKIP
    >>> again.estimator.predict(feature_frame(holdout, again.columns))  # doctest: +SKIP

    What it does not do: it takes nothing from MLflow, registers nothing, and does not look at the holdout.
    """
    recipe = recipe_from(settings)
    if recipe.batch_rows is not None:
        stream = batches.stream_of(lake, training, target=recipe.target)
        stream.verify(recipe.batch_rows)
        model, truth = batches.learn_in_batches(recipe, stream), stream.truth
    else:
        table = selections.materialize(lake, training, columns=recipe.columns)
        truth = target_values(table, recipe.target)
        model = recipe.learn(table)
    return Refitted(
        estimator=model, columns=recipe.features, task=recipe.task_of(model, truth), rows=len(truth)
    )


def train(
    lake: Lake,
    client: RegistryClient,
    *,
    dataset: DatasetRef,
    estimator: str | TrainingFunction,
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
    task: Task | str | None = None,
    cross_validation: Folds | Mapping[str, Any] | None = None,
    sample_weight: str | None = None,
    class_weight: str | Mapping[Any, float] | None = None,
    batch_rows: int | None = None,
    epochs: int = 1,
    tuning: TuningStudy | None = None,
    actor: Actor,
    as_of: datetime,
) -> ModelVersion:
    """Fit an estimator on a dataset version and register it as a new version of ``model_name``.

    :param estimator: class or factory by import path (``sklearn.ensemble:HistGradientBoostingClassifier``);
        it is called with ``params`` (JSON-able) and gives an object with ``fit`` and ``predict``. A factory
        that takes ``seed`` gets it; every ``random_state`` left open is set to it. Or a function that trains
        (:class:`~airflow_provider_xops.training.functions.TrainingFunction`).
    :param partitions: what is read; None: all of the version.
    :param features: columns the model sees; None: all but the target, ``drop``, the weights and the columns
        that the split and the folds go by.
    :param split: a split, or its JSON form (``{"kind": "time", "holdout_partitions": 14}``).
    :param sample: at most so many training rows (below 1: that fraction); the holdout stays whole.
    :param experiment: the MLflow experiment; by default the model's name.
    :param task: ``classification`` or ``regression``; None: as the estimator says of itself.
    :param cross_validation: folds inside the training rows (``{"kind": "k_fold", "folds": 5}``), whose
        figures are logged and recorded; the model is fitted on all training rows.
    :param sample_weight: a column that says how much each training row counts.
    :param class_weight: ``balanced``, or a weight for each class.
    :param batch_rows: learn with ``partial_fit`` from so many rows at a time, ``epochs`` times over all.
    :param tuning: a search whose best parameters are used, beneath ``params``.
    :raises TrainingError: ``training.fit_failed`` (the estimator raised; the run is closed as failed,
        nothing is registered), ``training.empty``, ``training.one_class``, ``training.no_target``,
        ``training.split``, ``training.folds``, ``training.partitions``, ``training.estimator``,
        ``training.weights``, ``training.no_sample_weight``, ``training.no_partial_fit``, ``training.tuning``.
    :raises UserCodeError: the estimator cannot be named or imported.
    :raises DataError: a feature is missing or of a type that no estimator takes.

    >>> train(lake, client, dataset=ref, estimator="sklearn.linear_model:LogisticRegression", target="late",
    ...       split={"kind": "random"}, model_name="late", actor=actor, as_of=now)  # doctest: +SKIP

    What it does not do: it searches no parameters, and it does not promote.
    """
    named, given = named_estimator(estimator, params or {})
    rule, folds = split_from(split), None if cross_validation is None else folds_from(cross_validation)
    if tuning is not None:
        given = params_of_study(
            tuning, given, estimator=named, target=target, dataset=dataset, split=rule,
            rows=read_of(lake, dataset, partitions),
        )  # fmt: skip
    recipe = Recipe(
        estimator=named,
        params=given,
        features=features_of(
            lake, dataset, features, target=target, drop=drop, split=rule, folds=folds,
            sample_weight=sample_weight,
        ),
        target=target,
        seed=seed,
        task=_task(task),
        sample_weight=sample_weight,
        class_weight=class_weights_from(class_weight),
        batch_rows=batch_rows,
        epochs=epochs,
        folds=folds,
    )  # fmt: skip
    recipe.make()  # what cannot be made is refused before anything is read
    settings = {**recipe.settings(), "split": rule.to_json(), "sample": sample}
    if tuning is not None:
        settings["tuning"] = tuning.record_id
    content = read.content_digest(lake, dataset, partitions)
    # The source and not the commit: a commit elsewhere in the repository is no reason to train again.
    source = source_digest(named) if isinstance(named, str) else named.source_digest()
    key = runs.work_key(actor, model_name, dataset.table_uuid, content, settings, source)
    mlflow_experiment = experiment or model_name
    earlier = runs.earlier_attempts(client, experiment=mlflow_experiment, key=key)
    existing = models.find_model(client, lake, name=model_name, key=key) if earlier.begun else None
    if existing is not None:
        log.info("%s was trained by an earlier attempt at this work: nothing to do.", existing.ref)
        return existing
    rows = _Rows(lake, dataset, partitions, recipe, rule, sample)
    code = code_version(named) if isinstance(named, str) else source
    with runs.run(
        client,
        experiment=mlflow_experiment,
        key=key,
        actor=actor,
        run_name=model_name,
        earlier=earlier,
    ) as run:
        learned = rows.learn()
        figures = compute(learned.task, learned.truth, learned.said)
        measured = {name: value for name, value in figures.items() if value is not None}
        validated = learned.validation.to_record() if learned.validation else {}
        environment = environment_of(recipe.name, learned.model)
        known = models.ModelFacts(
            training=learned.training,
            holdout=learned.holdout,
            features=recipe.features,
            target=target,
            task=learned.task.value,
            estimator=recipe.name,
            code_version=code,
            params_digest=digest_of(settings),
            metrics=measured,
            settings=settings,
            environment=environment,
            cross_validation=validated,
            golden=golden_of(learned.said),
            tuning=None if tuning is None else tuning.record_id,
        )
        runs.log_run(
            client, run, params=facts.logged_params(learned.model, settings, learned.task),
            metrics={
                **measured, **{f"cv.{name}": value for name, value in validated.items()},
                "training_rows": learned.training.rows, "holdout_rows": learned.holdout.rows,
            },
            steps=learned.validation.by_fold("cv.") if learned.validation else {},
            tags=facts.tags_of(dataset, learned.training, code=code, environment=environment),
            selections={selections.TRAINING: learned.training, selections.HOLDOUT: learned.holdout},
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="xops-fit-") as folder:
            saved = models.save_model(
                learned.model,
                Path(folder) / "model",
                facts=known,
                sample=facts.made_up_rows(learned.sample),
                predictions=learned.said.labels[:1],
                extra_requirements=facts.requirements_of(recipe.name, learned.model),
            )
            return models.register_model(
                client, lake, name=model_name, saved=saved, facts=known, run=run, actor=actor, as_of=as_of
            )


class _Rows:
    """The rows of one training, held whole or read in batches, and how a recipe learns from them.

    They are chosen when this is made, before a run is opened; refused there is what no estimator could learn.
    """

    def __init__(
        self,
        lake: Lake,
        dataset: DatasetRef,
        partitions: Sequence[str] | None,
        recipe: Recipe,
        split: Split,
        sample: float | None,
    ) -> None:
        self.recipe, self.dataset = recipe, dataset
        asked: dict[str, Any] = {
            "dataset": dataset, "partitions": partitions, "columns": list(recipe.columns),
            "target": recipe.target, "split": split, "sample": sample, "seed": recipe.seed,
        }  # fmt: skip
        if recipe.batch_rows is not None:
            self.streams = batches.choose_streams(lake, batch_rows=recipe.batch_rows, **asked)
            self.training_truth, self.holdout_truth = (stream.truth for stream in self.streams)
        else:
            extra = recipe.folds.columns if recipe.folds else ()
            self.chosen = selections.choose(lake, extra=extra, **asked)
            self.training_truth = target_values(self.chosen.training_rows, recipe.target)
            self.holdout_truth = target_values(self.chosen.holdout_rows, recipe.target)
        if isinstance(recipe.estimator, str) or recipe.task is not None:
            self.task_of(recipe.make())

    def task_of(self, model: Any) -> Task:
        """What the model predicts; rows of one class are refused where it is a classifier."""
        task = self.recipe.task_of(model, self.training_truth)
        if task is Task.CLASSIFICATION:
            for side, truth in (("training", self.training_truth), ("holdout", self.holdout_truth)):
                _refuse_one_class(self.dataset, side, truth, self.recipe.target)
        return task

    def learn(self) -> _Learned:
        """Fit, cross-validate where that was asked for, and predict the holdout."""
        recipe = self.recipe
        if recipe.batch_rows is not None:
            training, holdout = self.streams
            model = batches.learn_in_batches(recipe, training)
            task = self.task_of(model)
            said, sample = batches.predict_in_batches(recipe, model, holdout, task=task)
            return _Learned(
                model=model, task=task, training=training.selection, holdout=holdout.selection, said=said,
                truth=holdout.truth, sample=sample,
            )  # fmt: skip
        model = recipe.learn(self.chosen.training_rows)
        task = self.task_of(model)
        frame = feature_frame(self.chosen.holdout_rows, recipe.features)
        return _Learned(
            model=model,
            task=task,
            training=self.chosen.training,
            holdout=self.chosen.holdout,
            said=predict(model, frame, task=task, name=recipe.name),
            truth=self.holdout_truth,
            sample=frame,
            validation=recipe.cross_validate(self.chosen.training_rows, task),
        )


def features_of(
    lake: Lake,
    dataset: DatasetRef,
    features: Sequence[str] | None,
    *,
    target: str,
    drop: Sequence[str] = (),
    split: Split,
    folds: Folds | None = None,
    sample_weight: str | None = None,
) -> tuple[str, ...]:
    """The columns a model sees: those named, else all that training does not use for something else.

    :raises ArgumentError: ``argument.features``: none is left, or the target is among them.
    """
    used = {target, *drop, *split.columns, *(folds.columns if folds else ())}
    used |= {sample_weight} if sample_weight else set()
    columns = (
        default_features(read.schema_of(lake, dataset), without=used)
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


def _task(task: Task | str | None) -> Task | None:
    if task is None or task in set(Task):
        return None if task is None else Task(task)
    raise ArgumentError(
        f"the task {task!r} is unknown", code="argument.task", todo=f"use one of {', '.join(Task)}"
    )


def _refuse_one_class(dataset: DatasetRef, side: str, truth: Any, target: str) -> None:
    if len(pd.unique(truth)) < 2:
        raise TrainingError(
            f"the {side} rows of {dataset} have one class only",
            code="training.one_class",
            why=f"all {len(truth)} of them have the same {target!r}",
            todo="read more partitions, stratify a random split, or check how the target is made",
        )
