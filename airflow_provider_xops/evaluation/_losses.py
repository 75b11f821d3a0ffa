"""By how much a metric gets worse when the input is changed, with an interval over the rows.

Private to :mod:`airflow_provider_xops.evaluation.explanation` and :mod:`.robustness`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.scored import Contender, Scored
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.metrics import METRICS, Predictions, Task
from airflow_provider_xops.training.predicting import predict

__all__ = ["Loss", "Study", "answers_to", "sampled_rows", "study_of", "value_of"]

# Groups of rows that are left out in turn. More give a steadier interval and cost as many metrics.
BLOCKS = 10
# Of a model that is asked about several repeats in one call.
ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Loss:
    """The mean metric over the repeats, and by how much it is worse than before (positive is worse)."""

    value: float | None
    loss: float | None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Study:
    """Some rows as the challenger sees them, and the metric that is watched on them."""

    frame: Any
    truth: Any
    task: Task
    metric: str
    blocks: Any
    before: tuple[float | None, ...]
    confidence: float

    @property
    def baseline(self) -> float | None:
        """The metric on the rows as they are."""
        return self.before[0]

    def against(self, after: Sequence[Predictions]) -> Loss:
        """What the model lost when it said ``after`` (one for each repeat) about the same rows.

        The interval is Student's over the jackknife with groups of rows left out (Efron and Tibshirani
        1993, An introduction to the bootstrap, chapter 11): it covers which rows were drawn and how chance
        changed them.
        """
        values = _mean([value_of(self.metric, self.truth, said) for said in after])
        loss = _worse(self.metric, self.baseline, values)
        if loss is None:
            return Loss(values, None)
        count = len(self.before) - 1
        without = []
        for block in range(count):
            kept = self.blocks != block
            there = _mean([value_of(self.metric, self.truth[kept], _of(said, kept)) for said in after])
            without.append(_worse(self.metric, self.before[block + 1], there))
        if count < 2 or any(each is None for each in without):
            return Loss(values, loss)
        from scipy.stats import t

        spread = np.asarray(without, dtype=np.float64)
        error = math.sqrt((count - 1) / count * float(np.sum((spread - spread.mean()) ** 2)))
        reach = float(t.ppf((1 + self.confidence) / 2, count - 1)) * error
        return Loss(values, loss, loss - reach, loss + reach)


def study_of(scored: Scored, *, metric: str, max_rows: int | None, seed: int, confidence: float) -> Study:
    """The challenger's rows, at most ``max_rows`` of them drawn by ``seed``, with the metric as it is.

    :raises ArgumentError: ``argument.metric``: not a metric of this task.
    """
    known = [name for name, each in METRICS.items() if each.task is scored.task]
    if metric not in known:
        raise ArgumentError(
            f"{metric!r} is no metric of {scored.task.value}", code="argument.metric",
            todo=f"use one of {', '.join(known)}",
        )  # fmt: skip
    contender = scored.challenger
    rows = sampled_rows(scored.rows, max_rows, seed)
    table = scored.table if rows is None else scored.table.take(rows)
    truth = scored.truth if rows is None else scored.truth[rows]
    said = contender.said if rows is None else _of(contender.said, rows)
    clusters = None if scored.clusters is None else np.asarray(scored.clusters)
    clusters = clusters if clusters is None or rows is None else clusters[rows]
    blocks = _blocks(len(truth), clusters, seed)
    before = [value_of(metric, truth, said)]
    for block in range(int(blocks.max()) + 1 if len(blocks) else 0):
        kept = blocks != block
        before.append(value_of(metric, truth[kept], _of(said, kept)))
    frame = feature_frame(table, contender.model.features)
    return Study(frame, truth, scored.task, metric, blocks, tuple(before), confidence)


def sampled_rows(count: int, most: int | None, seed: int) -> Any:
    """The places of ``most`` rows in rising order; None for all of them."""
    if most is None or count <= most:
        return None
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def value_of(metric: str, truth: Any, said: Predictions) -> float | None:
    """One figure; None where it is not defined for these rows."""
    if not len(truth):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = METRICS[metric].function(truth, said)
        except ValueError:
            return None
    return None if value is None or not math.isfinite(value) else float(value)


def answers_to(
    study: Study, contender: Contender, make: Callable[[int], pd.DataFrame], repeats: int
) -> list[Predictions]:
    """What the model says about each repeat's frame; small ones go to it together, large ones singly.

    :param make: the changed frame of one repeat, with as many rows as the study's.
    """
    rows = max(len(study.frame), 1)
    together = max(1, ROWS_AT_ONCE // rows)
    said: list[Predictions] = []
    for start in range(0, repeats, together):
        frames = [make(repeat) for repeat in range(start, min(start + together, repeats))]
        whole = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        found = predict(contender.estimator, whole, task=study.task, name=str(contender.model.ref))
        said += [_of(found, slice(at, at + rows)) for at in range(0, len(whole), rows)]
    return said


def _of(said: Predictions, rows: Any) -> Predictions:
    chosen = None if said.probabilities is None else said.probabilities[rows]
    return Predictions(labels=said.labels[rows], classes=said.classes, probabilities=chosen)


def _worse(metric: str, before: float | None, after: float | None) -> float | None:
    if before is None or after is None:
        return None
    return before - after if METRICS[metric].greater_is_better else after - before


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _blocks(count: int, clusters: Any, seed: int) -> Any:
    """The block of each row; rows of a cluster share one."""
    rng = np.random.default_rng([seed, 1])
    if clusters is None:
        return rng.permutation(np.arange(count) % min(BLOCKS, max(count, 1)))
    names, near = np.unique(clusters, return_inverse=True)
    return rng.permutation(np.arange(len(names)) % min(BLOCKS, len(names)))[near]
