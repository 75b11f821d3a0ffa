"""What to learn from given rows: the settings of a training that say *how*, without saying which rows.

For training, its repetition and learning curves. A recipe is made from arguments or from the settings of a
model version, and gives a fitted estimator for rows it is handed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from airflow_provider_xops.errors import ArgumentError, TrainingError
from airflow_provider_xops.training.cross_validation import CrossValidation, cross_validate
from airflow_provider_xops.training.fitting import build, fitted
from airflow_provider_xops.training.folds import Folds, folds_from
from airflow_provider_xops.training.frames import feature_frame, target_values
from airflow_provider_xops.training.functions import FunctionEstimator, TrainingFunction, recorded_function
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.training.predicting import task_of
from airflow_provider_xops.training.weights import class_weights_from, column_weights, row_weights
from airflow_provider_xops.usercode import reference_of

__all__ = ["Recipe", "json_params", "named_estimator", "recipe_from"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to learn.

    :param estimator: a class or factory by name, or a function that trains.
    :param params: the estimator's (or the function's) arguments.
    :param task: what it predicts, where that is said; None: as the estimator says of itself.
    :param sample_weight: the column of row weights. :param class_weight: of the classes, or ``balanced``.
    :param batch_rows: learn from so many rows at a time; None: from all at once.
    :param epochs: how often batches go through all rows.
    :param folds: cross-validation inside the training rows.
    """

    estimator: str | TrainingFunction
    features: tuple[str, ...]
    target: str
    params: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    task: Task | None = None
    sample_weight: str | None = None
    class_weight: str | dict[str, float] | None = None
    batch_rows: int | None = None
    epochs: int = 1
    folds: Folds | None = None

    def __post_init__(self) -> None:
        if self.batch_rows is None and self.epochs != 1:
            raise _refused("epochs are asked for without batch_rows", "give batch_rows, or leave out epochs")
        if self.batch_rows is None:
            return
        if self.batch_rows < 1 or self.epochs < 1:
            raise _refused(
                f"{self.epochs} epochs of batches of {self.batch_rows} rows are impossible", "give 1 or more"
            )
        if isinstance(self.estimator, TrainingFunction):
            raise _refused("a training function is given all rows at once", "leave out batch_rows")
        if self.folds is not None:
            raise _refused(
                "cross-validation holds all training rows, batches of rows are for those that do not fit",
                "leave out cross_validation or batch_rows",
            )

    @property
    def name(self) -> str:
        """What the estimator is called in records and errors."""
        return self.estimator if isinstance(self.estimator, str) else self.estimator.name

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that learning reads: features, target, weights."""
        more = (self.target, *([self.sample_weight] if self.sample_weight else []))
        return tuple(dict.fromkeys((*self.features, *more)))

    def settings(self) -> dict[str, Any]:
        """The recipe as a model version's settings keep it; what was not asked for is missing.

        The names of older versions are always there, so that the same work keeps its key.
        """
        known: dict[str, Any] = {
            "estimator": self.name,
            "params": self.params,
            "target": self.target,
            "features": list(self.features),
            "seed": self.seed,
        }
        asked = {
            "task": self.task and self.task.value,
            "sample_weight": self.sample_weight,
            "class_weight": self.class_weight,
            "batch_rows": self.batch_rows,
            "epochs": self.epochs if self.batch_rows else None,
            "cross_validation": self.folds and self.folds.to_json(),
            "function": None if isinstance(self.estimator, str) else self.estimator.to_settings(),
        }
        return known | {name: value for name, value in asked.items() if value is not None}

    def make(self) -> Any:
        """A fresh unfitted estimator.

        :raises TrainingError: ``training.estimator``; :raises UserCodeError: it cannot be imported.
        """
        if isinstance(self.estimator, TrainingFunction):
            return FunctionEstimator(self.estimator, self.seed)
        return build(self.estimator, self.params, self.seed)

    def task_of(self, model: Any, truth: Any) -> Task:
        """What the model predicts: as asked for, else as it says of itself.

        :raises ArgumentError: ``argument.class_weight``: a regression has no classes.
        """
        task = task_of(model, truth, recorded=self.task or "")
        if task is not Task.CLASSIFICATION and self.class_weight is not None:
            raise ArgumentError(
                f"{self.name} is a regressor and has no classes to weigh", code="argument.class_weight",
                todo="leave out class_weight, or give the rows weights by a column: sample_weight",
            )  # fmt: skip
        return task

    def learn(self, rows: pa.Table) -> Any:
        """The estimator, fitted on all of these rows.

        :param rows: with :attr:`columns`, in canonical order, each with a target.
        :raises TrainingError: as :func:`~airflow_provider_xops.training.fitting.fitted`;
            ``training.weights``.
        """
        truth = target_values(rows, self.target)
        weights = row_weights(truth, self.weights_of(rows), self.class_weight)
        frame = feature_frame(rows, self.features)
        return fitted(self.make(), frame, truth, name=self.name, weights=weights)

    def weights_of(self, rows: pa.Table, *, whole: bool = True) -> Any:
        """The rows' own weights; None where there is no column of them.

        :param whole: whether these are all training rows, or a batch of them.
        """
        return None if self.sample_weight is None else column_weights(rows, self.sample_weight, whole=whole)

    def cross_validate(self, rows: pa.Table, task: Task) -> CrossValidation | None:
        """The figures over folds of the training rows; None where no folds were asked for."""
        if self.folds is None:
            return None
        return cross_validate(
            self.make, rows, columns=self.features, target=self.target, task=task, folds=self.folds,
            weights=self.weights_of(rows), class_weight=self.class_weight, name=self.name,
        )  # fmt: skip


def recipe_from(settings: Mapping[str, Any]) -> Recipe:
    """The recipe of a model version's settings.

    :raises TrainingError: ``training.not_repeatable``: it was not trained here, or by a function that cannot
        be imported.
    """
    missing = [name for name in ("estimator", "params", "features", "target") if name not in settings]
    if missing:
        raise TrainingError(
            "the model does not say how it was trained", code="training.not_repeatable",
            why=f"its settings lack {', '.join(missing)}: it was adopted, or trained by an older release",
            todo="train it again, or name a version that was trained here",
        )  # fmt: skip
    name, params, function = settings["estimator"], dict(settings["params"]), settings.get("function")
    folds = settings.get("cross_validation")
    return Recipe(
        estimator=name if function is None else recorded_function(name, function, params),
        params=params,
        features=tuple(settings["features"]),
        target=settings["target"],
        seed=settings.get("seed", 0),
        task=Task(settings["task"]) if settings.get("task") else None,
        sample_weight=settings.get("sample_weight"),
        class_weight=class_weights_from(settings.get("class_weight")),
        batch_rows=settings.get("batch_rows"),
        epochs=settings.get("epochs", 1),
        folds=None if folds is None else folds_from(folds),
    )


def named_estimator(
    estimator: str | TrainingFunction, params: Mapping[str, Any]
) -> tuple[str | TrainingFunction, dict[str, Any]]:
    """The estimator by its checked name, and its arguments as plain JSON."""
    if isinstance(estimator, TrainingFunction):
        plain = json_params({**params, **estimator.arguments})
        return TrainingFunction(function=estimator.function, arguments=plain), plain
    return reference_of(estimator), json_params(params)


def json_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as they come out of JSON.

    :raises ArgumentError: ``argument.params``: some of them are not JSON; they are named.
    """
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


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.batch_rows", todo=todo)
