"""What a trial is judged by: the mean of one metric over folds of the training rows.

Private to :mod:`airflow_provider_xops.training.tuning.study`. The rows are read when the first trial needs
them: a retry that finds every trial ended reads none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import DatasetRef, Selection
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.cross_validation import CrossValidation, cross_validate
from airflow_provider_xops.training.folds import Folds, folds_from
from airflow_provider_xops.training.frames import target_values
from airflow_provider_xops.training.metrics import METRICS, Task
from airflow_provider_xops.training.recipe import Recipe
from airflow_provider_xops.training.selections import Chosen
from airflow_provider_xops.training.splits import GroupSplit, RandomSplit, Split, TimeSplit

__all__ = ["Objective", "folds_of"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The rows of a study, and how a trial learns from them.

    :param recipe: with the arguments that every trial has, and the folds.
    """

    lake: Lake
    dataset: DatasetRef
    partitions: Sequence[str] | None
    recipe: Recipe
    split: Split
    sample: float | None
    metric: str

    @property
    def folds(self) -> Folds:
        """The folds that judge every trial."""
        assert self.recipe.folds is not None
        return self.recipe.folds

    def measure(
        self, params: Mapping[str, Any], on_fold: Callable[[int, dict[str, float | None]], None]
    ) -> CrossValidation:
        """The figures of the estimator with these arguments, fold by fold.

        :raises TrainingError: as :func:`~airflow_provider_xops.training.cross_validation.cross_validate`.
        :raises ArgumentError: ``argument.metric``: the metric is for another task.
        """
        rows, recipe = self.chosen.training_rows, self.recipe
        recipe = dataclasses.replace(recipe, params={**recipe.params, **params})
        task = recipe.task_of(recipe.make(), target_values(rows, recipe.target))
        self._check_metric(task)
        with _few_words():
            return cross_validate(
                recipe.make,
                rows,
                columns=recipe.features,
                target=recipe.target,
                task=task,
                folds=self.folds,
                weights=recipe.weights_of(rows),
                class_weight=recipe.class_weight,
                on_fold=on_fold,
                name=recipe.name,
            )

    @property
    def selections(self) -> dict[str, Selection]:
        """The rows that the trials were fitted and judged on; the holdout is not among them."""
        return {selections.TRAINING: self.chosen.training}

    @cached_property
    def chosen(self) -> Chosen:
        """Both sides of the split, as training chooses them; the holdout is only kept away."""
        return selections.choose(
            self.lake, dataset=self.dataset, partitions=self.partitions, columns=self.recipe.columns,
            target=self.recipe.target, split=self.split, sample=self.sample, seed=self.recipe.seed,
            extra=self.folds.columns,
        )  # fmt: skip

    def _check_metric(self, task: Task) -> None:
        if METRICS[self.metric].task is not task:
            fitting = [name for name, metric in METRICS.items() if metric.task is task]
            raise ArgumentError(
                f"{self.metric} is no figure of a {task}", code="argument.metric",
                todo=f"use one of {', '.join(fitting)}",
            )  # fmt: skip


def folds_of(given: Folds | Mapping[str, Any] | None, split: Split, *, target: str, seed: int) -> Folds:
    """The folds that were asked for; else those that part the rows as the split does.

    After a time split, folds in time; after a grouped split, whole groups; else at random, by class where the
    split is stratified by the target.
    """
    if given is not None:
        return folds_from(given)
    if isinstance(split, TimeSplit):
        return folds_from({"kind": "time_series", "column": split.column, "gap": split._gap_number()})
    if isinstance(split, GroupSplit):
        return folds_from({"kind": "group_k_fold", "column": split.column, "seed": seed})
    stratified = isinstance(split, RandomSplit) and split.stratify == target
    return folds_from({"kind": "stratified_k_fold" if stratified else "k_fold", "seed": seed})


@contextlib.contextmanager
def _few_words() -> Iterator[None]:
    """A trial has a line of its own; one for each of its folds is too many."""
    logger = logging.getLogger("airflow_provider_xops.training.fitting")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
