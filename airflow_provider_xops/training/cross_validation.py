"""Cross-validation inside the training rows: folds as data, and the figures of each of them.

For training (how stable is this estimator?) and for the search of parameters. It is given the training rows
of a selection and nothing else, so the holdout cannot take part. Folds depend on the seed and on the rows in
canonical order, nothing else: the same rows have the same folds on any version of the libraries.

What it does not do: it gives no model; the one that is registered is fitted on all training rows. Its figures
are no unbiased estimate once parameters were chosen by them; the holdout's are.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_provider_xops.errors import TrainingError
from airflow_provider_xops.lake.schema import PARTITION_COLUMN
from airflow_provider_xops.training.fitting import fitted
from airflow_provider_xops.training.folds import FOLDS, Folds, TimeSeriesFolds, folds_from
from airflow_provider_xops.training.frames import feature_frame, target_values
from airflow_provider_xops.training.metrics import Task, compute
from airflow_provider_xops.training.predicting import predict
from airflow_provider_xops.training.weights import row_weights

__all__ = ["FOLDS", "CrossValidation", "Folds", "TimeSeriesFolds", "cross_validate", "folds_from"]

Figures = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """What cross-validation has measured.

    :param folds: the figures of each fold; None: not defined there.
    :param mean: over the folds; None where one of them has no figure.
    :param std: standard deviation over the folds (divided by folds - 1); None likewise, and for one fold.
    :param rows: training and validation rows of each fold.
    """

    folds: tuple[Figures, ...]
    mean: Figures
    std: Figures
    rows: tuple[tuple[int, int], ...] = ()

    def to_record(self) -> dict[str, float]:
        """As a model version's record keeps it: ``roc_auc_mean``, ``roc_auc_std``; a None is left out."""
        given = {f"{name}_mean": value for name, value in self.mean.items()}
        given |= {f"{name}_std": value for name, value in self.std.items()}
        return {name: value for name, value in given.items() if value is not None}

    def by_fold(self, prefix: str = "") -> dict[str, list[float | None]]:
        """Each figure's values, fold by fold, under its name with a prefix."""
        return {f"{prefix}{name}": [figures[name] for figures in self.folds] for name in self.mean}


def cross_validate(
    make: Callable[[], Any],
    rows: pa.Table,
    *,
    columns: Any,
    target: str,
    task: Task,
    folds: Folds | Mapping[str, Any],
    weights: Any = None,
    class_weight: Any = None,
    on_fold: Callable[[int, Figures], None] | None = None,
    name: str = "the estimator",
) -> CrossValidation:
    """Fit a fresh estimator on each fold's training part and judge it on the fold's other part.

    :param make: gives an unfitted estimator each time it is called.
    :param rows: the training rows of a selection, in canonical order, with the features, the target and what
        the folds look at (the partition column where they go by partition).
    :param columns: the features.
    :param weights: how much each row counts in fitting; None: all alike. Figures are not weighted.
    :param class_weight: from :func:`~airflow_provider_xops.training.weights.class_weights_from`; ``balanced``
        counts each fold's training part.
    :param on_fold: is called after each fold with its number (from 0) and its figures. What it raises ends
        the whole, which is how a search stops a hopeless trial.
    :raises TrainingError: ``training.folds`` (the rows cannot be parted so, or a fold names rows that are not
        there), ``training.one_class``, ``training.fit_failed``, ``training.no_sample_weight``.
    :raises ModelError: ``model.predict_failed``.

    >>> cross_validate(lambda: LogisticRegression(), chosen.training_rows, columns=["x"], target="late",
    ...                task=Task.CLASSIFICATION, folds={"kind": "k_fold"}).mean["roc_auc"]  # doctest: +SKIP
    """
    rule = folds_from(folds)
    truth = target_values(rows, target)
    rule.check(task)
    partitions = rows.column(PARTITION_COLUMN) if PARTITION_COLUMN in rows.schema.names else None
    pairs = _checked(rule.pairs(rows, partitions, truth), rows.num_rows)
    frame = feature_frame(rows, columns)
    measured: list[Figures] = []
    for number, (training, validation) in enumerate(pairs):
        if task is Task.CLASSIFICATION and len(pd.unique(truth[training])) < 2:
            raise _unusable(
                f"the training part of fold {number + 1} has one class only",
                "use stratified_k_fold, fewer folds, or more rows", code="training.one_class",
            )  # fmt: skip
        part = None if weights is None else weights[training]
        model = fitted(
            make(), _rows_of(frame, training), truth[training], name=name,
            weights=row_weights(truth[training], part, class_weight),
        )  # fmt: skip
        said = predict(model, _rows_of(frame, validation), task=task, name=name)
        figures = compute(task, truth[validation], said)
        measured.append(figures)
        if on_fold is not None:
            on_fold(number, figures)
    names = list(measured[0])
    return CrossValidation(
        folds=tuple(measured),
        mean={each: _mean([figures[each] for figures in measured]) for each in names},
        std={each: _deviation([figures[each] for figures in measured]) for each in names},
        rows=tuple((len(training), len(validation)) for training, validation in pairs),
    )


def _rows_of(frame: pd.DataFrame, positions: Any) -> pd.DataFrame:
    return frame.take(positions).reset_index(drop=True)


def _checked(pairs: list[tuple[Any, Any]], count: int) -> list[tuple[Any, Any]]:
    """The folds, proved: rows of ours only, none of them on both sides, no side empty."""
    if not pairs:
        raise _unusable("there are no folds", "ask for two or more")
    for number, pair in enumerate(pairs, 1):
        training, validation = (np.asarray(side) for side in pair)
        if not len(training) or not len(validation):
            raise _unusable(f"a side of fold {number} has no rows", "use fewer folds or more rows")
        both = np.concatenate([training, validation])
        if both.min() < 0 or both.max() >= count:
            raise _unusable(
                f"fold {number} names rows that are not among the {count} training rows",
                "correct the folds: the holdout takes no part in cross-validation",
            )
        if len(np.unique(both)) < len(both):
            raise _unusable(
                f"fold {number} has a row twice, or on both of its sides",
                "correct the folds: a model must not be judged on rows it was fitted on",
            )
    return pairs


def _mean(values: list[float | None]) -> float | None:
    known = _known(values)
    return None if known is None else math.fsum(known) / len(known)


def _deviation(values: list[float | None]) -> float | None:
    known = _known(values)
    return None if known is None or len(known) < 2 else statistics.stdev(known)


def _known(values: list[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _unusable(why: str, todo: str, *, code: str = "training.folds") -> TrainingError:
    return TrainingError("the rows cannot be cross-validated so", code=code, why=why, todo=todo)
