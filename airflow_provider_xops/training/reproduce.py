"""A model version trained again from its record, and its predictions held against the original's.

For auditors, and for the gate ``reproducible``. A record that cannot be repeated is a claim; this turns it
into a measurement.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from airflow_provider_xops.errors import ArgumentError, TrainingError, XOpsError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ModelVersion, Outcome, Reproduction
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model, recorded_version
from airflow_provider_xops.training import selections
from airflow_provider_xops.training._apart import apart
from airflow_provider_xops.training.fit import environment_of, refit
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.metrics import Predictions, Task
from airflow_provider_xops.training.predicting import predict
from airflow_provider_xops.usercode import code_version

__all__ = ["reproduce"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """Two models' answers for the same rows.

    :param worst: the largest distance; None where an answer is no number, or the classes are others.
    """

    worst: float | None
    labels_changed: int | None
    identical: bool
    why: str = ""


def reproduce(
    lake: Lake,
    client: RegistryClient,
    model: ModelVersion,
    *,
    tolerance: float = 1e-9,
    actor: Actor,
    as_of: datetime,
) -> Reproduction:
    """Train a model version again from its record and compare predictions on its holdout; record the result.

    The rows are read from the recorded dataset version and proved by their digest; estimator, parameters,
    features, weights and seed are those of the record; libraries and code are those installed here, and what
    is another one than at training is named in ``differences``. The original is loaded from MLflow with its
    digest checked. Nothing is registered.

    :param tolerance: how far a probability, or a predicted number, may be from the original's: absolutely up
        to 1, beyond that relative to it. Predicted classes must be the same.
    :returns: the record: ``passed`` within the tolerance, else ``failed``. Where a classifier gives no
        probabilities, ``max_difference`` is 0 or, if a class changed, 1.
    :raises TrainingError: ``training.not_repeatable``: the record does not say how to train it (it was
        adopted, handed back by another job, or trained by an older release); or as
        :func:`~airflow_provider_xops.training.fit.train`.
    :raises ModelError: the original cannot be loaded (``model.digest_mismatch`` and others).
    :raises DataError: ``data.selection_changed``: the lake has other rows now.
    :raises ArgumentError: ``argument.tolerance``.

    >>> reproduce(lake, client, model, actor=actor, as_of=now).outcome  # doctest: +SKIP
    <Outcome.PASSED: 'passed'>

    What it does not do: it does not rebuild the environment of the training, nor check out its code. Run it
    where those are, or read in ``differences`` what was another.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ArgumentError(
            f"a tolerance of {tolerance} is impossible", code="argument.tolerance", todo="give 0 or more"
        )
    recorded = recorded_version(lake, model)
    if not recorded.settings or recorded.training is None or recorded.holdout is None:
        raise _not_repeatable(recorded)
    # First, because it is quick and says whether the original is there and untouched.
    original = load_model(client, lake, recorded)
    rows = selections.materialize(lake, recorded.holdout, columns=recorded.features)
    frame = feature_frame(rows, recorded.features)
    again = refit(lake, recorded.settings, recorded.training)
    task = Task(recorded.task) if recorded.task in set(Task) else again.task
    before = predict(original, frame, task=task, name=f"the original of {recorded.ref}")
    after = predict(
        again.estimator, frame[list(again.columns)], task=task, name=f"the repetition of {recorded.ref}"
    )
    found = _compare(task, after, before)
    within = found.worst is not None and found.worst <= tolerance and not found.labels_changed
    environment = environment_of(recorded.estimator, again.estimator)
    record = Reproduction(
        recorded_at=as_of,
        produced_by=actor.producer,
        model=recorded.ref,
        artifact_digest=recorded.artifact_digest,
        outcome=Outcome.PASSED if within else Outcome.FAILED,
        tolerance=float(tolerance),
        rows=len(frame),
        max_difference=found.worst,
        labels_changed=found.labels_changed,
        same_digest=found.identical,
        environment=environment,
        differences=_differences(recorded, environment),
        message="" if within else found.why or _beyond(found, tolerance, len(frame)),
    )
    lake.evidence.put(record)
    log.info(
        "Trained %s again on %d rows: %s, predictions of %d rows differ by at most %s.",
        recorded.ref, again.rows, record.outcome.value, record.rows, record.max_difference,
    )  # fmt: skip
    return record


def _compare(task: Task, after: Predictions, before: Predictions) -> _Compared:
    if task is not Task.CLASSIFICATION:
        return _numbers(after.labels, before.labels, changed=None)
    changed = int(np.sum(np.asarray(after.labels) != np.asarray(before.labels)))
    if before.probabilities is None or after.probabilities is None:
        if (before.probabilities is None) != (after.probabilities is None):
            return _Compared(
                worst=None,
                labels_changed=changed,
                identical=False,
                why="only one of the two gives probabilities",
            )
        return _Compared(worst=1.0 if changed else 0.0, labels_changed=changed, identical=not changed)
    if list(after.classes) != list(before.classes):
        return _Compared(
            worst=None, labels_changed=changed, identical=False, why="the two know other classes"
        )
    return _numbers(after.probabilities, before.probabilities, changed=changed)


def _numbers(after: Any, before: Any, *, changed: int | None) -> _Compared:
    one, other = (np.asarray(each, dtype=np.float64) for each in (after, before))
    worst = float(np.max(apart(one, other))) if one.size else math.nan
    if not math.isfinite(worst):
        return _Compared(
            worst=None, labels_changed=changed, identical=False, why="some predictions are no numbers"
        )
    return _Compared(worst=worst, labels_changed=changed, identical=bool(np.array_equal(one, other)))


def _beyond(found: _Compared, tolerance: float, rows: int) -> str:
    parts = []
    if found.worst is not None and found.worst > tolerance:
        parts.append(f"predictions differ by up to {found.worst:.3g}, more than {tolerance:g}")
    if found.labels_changed:
        parts.append(f"{found.labels_changed} of {rows} predicted classes are others")
    return "; ".join(parts)


def _differences(model: ModelVersion, environment: Mapping[str, str]) -> tuple[str, ...]:
    """What is not as it was at training, library by library, and the code."""
    names = sorted(set(model.environment) | set(environment))
    libraries = [
        f"{name}: {model.environment.get(name, 'none')} at training, {environment.get(name, 'none')} now"
        for name in names
        if model.environment and model.environment.get(name) != environment.get(name)
    ]
    if not model.environment:
        libraries = ["the libraries at training are not on record"]
    try:
        code = code_version(model.estimator)
    except XOpsError:
        # A function of a DAG file has no name to import; its source is in the settings and was used.
        return tuple(libraries)
    return (
        *libraries,
        *([f"code: {model.code_version} at training, {code} now"] if code != model.code_version else []),
    )


def _not_repeatable(model: ModelVersion) -> TrainingError:
    if model.origin != "trained":
        why = f"it was {model.origin}: how it was trained is not in the lake"
    elif not model.settings:
        why = "it was trained by a release that did not record the settings"
    else:
        why = "the rows it was trained on, or those kept from it, are not on record"
    return TrainingError(
        f"model {model.name} v{model.version} cannot be trained again",
        code="training.not_repeatable",
        why=why,
        todo="train it through this lake (TrainModelOperator), and reproduce that version",
    )
