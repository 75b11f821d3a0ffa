"""Challenger against champion: both loaded, both scored on the same holdout rows, the gates asked.

For the evaluation operator. Figures that a training run once logged are not compared: they were measured on
other rows. The result is one :class:`~airflow_provider_xops.records.Evaluation` in the lake's evidence;
promotion reads it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_provider_xops.errors import ArgumentError, ModelError, NotFoundError
from airflow_provider_xops.evaluation.gates import Figures, Gate, gates_digest, gates_from
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    Comparison,
    Evaluation,
    GateResult,
    ModelVersion,
    Outcome,
    Selection,
)
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.leaks import LEAK_GATE
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.frames import feature_frame, target_values
from airflow_provider_xops.training.metrics import METRICS, compute
from airflow_provider_xops.training.predicting import check_columns, predict, task_of

__all__ = ["LEAK_GATE", "evaluate"]

log = logging.getLogger(__name__)

UNKNOWN_TASK = "unknown"


def evaluate(
    lake: Lake,
    client: RegistryClient,
    *,
    challenger: ModelVersion,
    champion: ModelVersion | None,
    holdout: Selection | None = None,
    gates: Sequence[Gate | Mapping[str, Any]] = (),
    actor: Actor,
    as_of: datetime,
) -> Evaluation:
    """Score challenger and champion on the same rows and ask the gates; the same question is answered once.

    :param champion: None: there is none yet.
    :param holdout: the rows; None: the challenger's own holdout. ``training.selections.whole`` makes one of
        partitions.
    :param gates: gates, or their JSON form. With any of them goes ``holdout_unseen``: no holdout row is
        among the rows that either model was trained on (left out where a model's training rows are not
        known).
    :raises ModelError: a model does not accept the rows, or predicts another target than the challenger.
    :raises ArgumentError: ``argument.holdout``, ``argument.gate``.
    :raises DataError: ``data.selection_changed``: the rows read are not those recorded.

    >>> evaluate(lake, client, challenger=new, champion=old, gates=[BetterThanChampion(metric="roc_auc")],
    ...          actor=actor, as_of=now)  # doctest: +SKIP

    What it does not do: it decides nothing. A failed gate is in the record, not an error.
    """
    asked = gates_from(gates)
    rows = holdout or challenger.holdout
    if rows is None:
        raise ArgumentError(
            f"{challenger.ref} has no holdout to be evaluated on", code="argument.holdout",
            why="it was adopted, or trained elsewhere, without naming one",
            todo="name the dataset version and partitions to evaluate it on",
        )  # fmt: skip
    if challenger.target is None:
        raise ArgumentError(
            f"{challenger.ref} names no target", code="argument.target",
            todo="adopt it again with the column that it predicts",
        )  # fmt: skip
    _check_champion(challenger, champion)
    digest = gates_digest(asked)
    known = _known(lake, challenger, champion, rows, digest, actor, as_of)
    if known is not None:
        log.info("%s was evaluated on these rows before (%s).", challenger.ref, known.record_id)
        return known

    contenders = [model for model in (challenger, champion) if model is not None]
    features = [name for model in contenders for name in model.features]
    columns = list(dict.fromkeys([*features, challenger.target]))
    there = read.schema_of(lake, rows.dataset).names
    for model in contenders:
        check_columns(there, model.features, name=str(model.ref), data=str(rows.dataset))
    table = selections.materialize(lake, rows, columns=columns)
    truth = target_values(table, challenger.target)
    measured = [_measure(lake, client, model, table, truth) for model in contenders]
    figures = Figures(challenger=measured[0], champion=measured[1] if champion else None)
    results = [gate.check(figures) for gate in asked]
    if asked:
        results += _leak_gate(lake, rows, contenders)
    evaluation = Evaluation(
        recorded_at=as_of, produced_by=actor.producer, model=challenger.ref,
        champion=champion.ref if champion else None, selection=rows, gates_digest=digest,
        metrics=dict(figures.challenger), champion_metrics=dict(figures.champion or {}),
        comparisons=_comparisons(figures), gates=tuple(results),
    )  # fmt: skip
    lake.evidence.put(evaluation)
    against = f"against {champion.ref}" if champion else "without a champion"
    log.info(
        "Evaluated %s %s on %d rows of %s: %s.", challenger.ref, against, rows.rows, rows.dataset,
        ", ".join(f"{gate.gate} {gate.outcome.value}" for gate in results) or "no gates were asked",
    )  # fmt: skip
    return evaluation


def _check_champion(challenger: ModelVersion, champion: ModelVersion | None) -> None:
    if champion is None:
        return
    # What an adopted model does not say cannot contradict.
    other_target = champion.target not in (None, challenger.target)
    other_task = UNKNOWN_TASK not in (champion.task, challenger.task) and champion.task != challenger.task
    if other_target or other_task:
        raise ModelError(
            f"{challenger.ref} and {champion.ref} cannot be compared", code="model.other_target",
            why=f"one is a {challenger.task} of {challenger.target!r}, the other a {champion.task} of"
            f" {champion.target!r}",
            todo="register the new kind of model under another name",
        )  # fmt: skip


def _known(
    lake: Lake, challenger: ModelVersion, champion: ModelVersion | None, rows: Selection, digest: str,
    actor: Actor, as_of: datetime,
) -> Evaluation | None:  # fmt: skip
    """The evaluation of the same models on the same rows under the same gates, if the lake has it."""
    question = Evaluation(
        recorded_at=as_of, produced_by=actor.producer, model=challenger.ref,
        champion=champion.ref if champion else None, selection=rows, gates_digest=digest, metrics={},
        champion_metrics={}, comparisons=(), gates=(),
    )  # fmt: skip
    with contextlib.suppress(NotFoundError):
        record = lake.evidence.get(Evaluation.kind, question.record_id)
        if isinstance(record, Evaluation):
            return record
    return None


def _measure(
    lake: Lake, client: RegistryClient, model: ModelVersion, table: Any, truth: Any
) -> dict[str, float | None]:
    estimator = load_model(client, lake, model)
    task = task_of(estimator, truth, recorded=model.task)
    said = predict(estimator, feature_frame(table, model.features), task=task, name=str(model.ref))
    return compute(task, truth, said)


def _comparisons(figures: Figures) -> tuple[Comparison, ...]:
    champion = figures.champion
    if champion is None:
        return ()

    def minus(mine: float | None, theirs: float | None) -> float | None:
        return None if mine is None or theirs is None else mine - theirs

    return tuple(
        Comparison(
            metric=name, greater_is_better=METRICS[name].greater_is_better, challenger=value,
            champion=champion.get(name), difference=minus(value, champion.get(name)),
        )
        for name, value in figures.challenger.items()
    )  # fmt: skip


def _leak_gate(lake: Lake, rows: Selection, contenders: Sequence[ModelVersion]) -> list[GateResult]:
    """Whether a model was trained on rows that judge it now; nothing where its training rows are unknown."""
    seen = {
        str(model.ref): selections.overlap(lake, rows, model.training)
        for model in contenders
        if model.training is not None
    }
    if len(seen) < len(contenders):
        return []
    worst = max(seen.values())
    leaky = ", ".join(f"{name} was trained on {count} of them" for name, count in seen.items() if count)
    return [
        GateResult(
            gate=LEAK_GATE, outcome=Outcome.FAILED if worst else Outcome.PASSED,
            observed=float(worst), threshold=0.0,
            message=f"of {rows.rows} holdout rows {leaky}" if worst else "no holdout row was trained on",
        )
    ]  # fmt: skip
