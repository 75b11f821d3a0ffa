"""Challenger against champion: both loaded, both scored on the same holdout rows, measured, the gates asked.

For the evaluation operator. Figures that a training run once logged are not compared: they were measured on
other rows. Here the rows are read once and each model predicts them once; everything else (intervals, tests,
slices, fairness, curves) is worked out from these predictions, by the rooms that the plan switches on. The
result is one :class:`~airflow_provider_xops.records.Evaluation` in the lake's evidence, with its report;
promotion reads it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.errors import ArgumentError, ModelError, NotFoundError
from airflow_provider_xops.evaluation import report, slices
from airflow_provider_xops.evaluation._parts import Parts
from airflow_provider_xops.evaluation.gates import Case, ask, gates_from
from airflow_provider_xops.evaluation.plan import BY_PARTITION, EvaluationPlan, plan_from
from airflow_provider_xops.evaluation.scored import Contender, Scored
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import PARTITION_COLUMN
from airflow_provider_xops.records import (
    Actor,
    Evaluation,
    GateResult,
    ModelVersion,
    Outcome,
    Selection,
    digest_of,
)
from airflow_provider_xops.registry.aliases import check_alias
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.leaks import LEAK_GATE
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.frames import feature_frame, target_values
from airflow_provider_xops.training.metrics import Task
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
    alias: str = "",
    holdout: Selection | None = None,
    gates: Any = (),
    plan: EvaluationPlan | Mapping[str, Any] | None = None,
    actor: Actor,
    as_of: datetime,
) -> Evaluation:
    """Score challenger and champion on the same rows and ask the gates; the same question is answered once.

    :param champion: None: there is none yet.
    :param alias: whose champion that is. A promotion to another alias refuses the evaluation; empty: it can
        be used for any alias that has this champion.
    :param holdout: the rows; None: the challenger's own holdout. ``training.selections.whole`` makes one of
        partitions.
    :param gates: gates, their JSON form, or a policy's file or function. Those about figures are answered
        here; those that need other evidence (a smoke test, an approval) are kept in ``deferred_gates`` and
        asked before promotion. With any gate goes ``holdout_unseen``: no holdout row is among the rows that
        either model was trained on. It goes by the models whose training rows are known, and is left out,
        with a note, where the challenger's are not.
    :param plan: what is measured, and how; None: the default plan. Gates add what they need.
    :raises ModelError: a model does not accept the rows, or predicts another target than the challenger.
    :raises ArgumentError: ``argument.alias``, ``argument.holdout``, ``argument.gate``, ``argument.plan`` (the
        plan cannot be read, or names a column that is not there), ``argument.extra_missing``.
    :raises DataError: ``data.selection_changed``: the rows read are not those recorded.

    >>> evaluate(lake, client, challenger=new, champion=old, gates=[BetterThanChampion(metric="roc_auc")],
    ...          plan={"slices": {"by": ["origin"]}}, actor=actor, as_of=now)  # doctest: +SKIP

    What it does not do: it decides nothing. A failed gate is in the record, not an error, and a part of the
    plan that cannot be measured is a note in it.
    """
    if alias:
        check_alias(alias)
    asked, wide = gates_from(gates), plan_from(plan)
    for gate in asked:
        wide = gate.widen(wide)
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
    question = Evaluation(
        recorded_at=as_of, produced_by=actor.producer, model=challenger.ref,
        champion=champion.ref if champion else None, alias=alias, selection=rows,
        gates_digest=digest_of([[gate.to_json() for gate in asked], wide.to_json()]),
        metrics={}, champion_metrics={}, comparisons=(), gates=(), plan=wide.to_json(),
        deferred_gates=tuple(gate.to_json() for gate in asked if gate.needs_evidence),
    )  # fmt: skip
    known = _known(lake, question)
    if known is not None:
        log.info("%s was evaluated on these rows before (%s).", challenger.ref, known.record_id)
        return known

    scored = _scored(lake, client, challenger, champion, rows, wide)
    parts = Parts(lake, scored, wide)
    measured = parts.measured()
    evaluation = dataclasses.replace(question, **measured, notes=tuple(parts.notes))
    case = Case(lake=lake, model=challenger, evaluation=evaluation, as_of=as_of, actor=actor)
    results = [*ask([gate for gate in asked if not gate.needs_evidence], case)]
    if asked:
        unseen = _leak_gate(lake, rows, [model for model in (challenger, champion) if model is not None])
        if not unseen:
            parts.notes.append(f"{LEAK_GATE}: not asked: the challenger's training rows are not known")
        results += unseen
    evaluation = dataclasses.replace(evaluation, gates=tuple(results))
    evaluation = _documented(lake, client, challenger, evaluation, parts)
    # The record comes last: where it is, everything else is too.
    if not lake.evidence.put(evaluation):
        log.info("%s was evaluated by another task meanwhile, whose record stays.", challenger.ref)
        return _known(lake, question) or evaluation
    _log(evaluation)
    return evaluation


def _documented(
    lake: Lake, client: RegistryClient, challenger: ModelVersion, evaluation: Evaluation, parts: Parts
) -> Evaluation:
    """The evaluation with its report, which is in the lake and on the model's MLflow run."""
    none: dict[str, str] = {}
    documents = dict(parts.part("report", lambda: report.write_report(lake, evaluation, parts.scored), none))
    written = dataclasses.replace(
        evaluation, report_uri=documents.pop("report", None), documents=documents, notes=tuple(parts.notes)
    )
    parts.part("copy in MLflow", lambda: report.attach(client, challenger, lake, written), False)
    return dataclasses.replace(written, notes=tuple(parts.notes))


def _log(evaluation: Evaluation) -> None:
    against = f"against {evaluation.champion}" if evaluation.champion else "without a champion"
    against += f" for {evaluation.alias}" if evaluation.alias else ""
    deferred = [str(gate["gate"]) for gate in evaluation.deferred_gates]
    log.info(
        "Evaluated %s %s on %d rows of %s: %s%s.", evaluation.model, against, evaluation.selection.rows,
        evaluation.selection.dataset,
        ", ".join(f"{gate.gate} {gate.outcome.value}" for gate in evaluation.gates) or "no gates were asked",
        f"; asked before promotion: {', '.join(deferred)}" if deferred else "",
    )  # fmt: skip
    for note in evaluation.notes:
        log.info("Note: %s.", note)


def _scored(
    lake: Lake, client: RegistryClient, challenger: ModelVersion, champion: ModelVersion | None,
    rows: Selection, plan: EvaluationPlan,
) -> Scored:  # fmt: skip
    """The rows, read once, with the answers of both models, each asked once."""
    contenders = [model for model in (challenger, champion) if model is not None]
    there = read.schema_of(lake, rows.dataset).names
    for model in contenders:
        check_columns(there, model.features, name=str(model.ref), data=str(rows.dataset))
    target = str(challenger.target)
    table = selections.materialize(lake, rows, columns=_columns(plan, contenders, target, there))
    truth = target_values(table, target)
    loaded = [_load(lake, client, model, table, truth) for model in contenders]
    if len({task for _, task in loaded}) > 1:
        raise _other_target(challenger, contenders[1])
    return Scored(
        task=loaded[0][1], table=table, truth=truth, challenger=loaded[0][0],
        champion=loaded[1][0] if champion else None, clusters=_clusters(table, plan.cluster),
    )  # fmt: skip


def _check_champion(challenger: ModelVersion, champion: ModelVersion | None) -> None:
    if champion is None:
        return
    # What an adopted model does not say cannot contradict.
    other_target = champion.target not in (None, challenger.target)
    other_task = UNKNOWN_TASK not in (champion.task, challenger.task) and champion.task != challenger.task
    if other_target or other_task:
        raise _other_target(challenger, champion)


def _other_target(challenger: ModelVersion, champion: ModelVersion) -> ModelError:
    return ModelError(
        f"{challenger.ref} and {champion.ref} cannot be compared", code="model.other_target",
        why=f"one is a {challenger.task} of {challenger.target!r}, the other a {champion.task} of"
        f" {champion.target!r}",
        todo="register the new kind of model under another name",
    )  # fmt: skip


def _known(lake: Lake, question: Evaluation) -> Evaluation | None:
    """The evaluation of the same models on the same rows under the same gates and plan, if there is one."""
    with contextlib.suppress(NotFoundError):
        record = lake.evidence.get(Evaluation.kind, question.record_id)
        if isinstance(record, Evaluation):
            return record
    return None


def _load(
    lake: Lake, client: RegistryClient, model: ModelVersion, table: pa.Table, truth: Any
) -> tuple[Contender, Task]:
    estimator = load_model(client, lake, model)
    task = task_of(estimator, truth, recorded=model.task)
    said = predict(estimator, feature_frame(table, model.features), task=task, name=str(model.ref))
    return Contender(model=model, estimator=estimator, said=said), task


def _columns(
    plan: EvaluationPlan, contenders: Sequence[ModelVersion], target: str, there: Sequence[str]
) -> tuple[str, ...]:
    """What is read: the features of both, the target, and the columns that the plan names."""
    named = {
        "cluster": [plan.cluster] if plan.cluster not in (None, BY_PARTITION) else [],
        "fairness.attributes": list(plan.fairness.attributes) if plan.fairness else [],
        "ranking.group": [plan.ranking.group] if plan.ranking else [],
    }
    for place, names in named.items():
        missing = [name for name in names if name not in there]
        if missing:
            raise ArgumentError(
                f"the plan's {place} names {', '.join(missing)}, which the dataset has not",
                code="argument.plan",
                why=f"its columns are {', '.join(there)}", todo=f"correct {place}",
            )  # fmt: skip
    features = [name for model in contenders for name in model.features]
    wanted = [*features, target, *slices.columns_of(plan.slices, there)]
    wanted += [name for names in named.values() for name in names]
    wanted += [PARTITION_COLUMN] if plan.cluster == BY_PARTITION else []
    return tuple(dict.fromkeys(wanted))


def _clusters(table: pa.Table, column: str | None) -> Any:
    """A whole number for each row, the same for the rows of one cluster; those without one are one more."""
    if column is None:
        return None
    values = table.column(PARTITION_COLUMN if column == BY_PARTITION else column).combine_chunks()
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    return np.asarray(pc.fill_null(encoded.indices, len(encoded.dictionary)), dtype=np.int64)


def _leak_gate(lake: Lake, rows: Selection, contenders: Sequence[ModelVersion]) -> list[GateResult]:
    """Whether a model was trained on rows that judge it now.

    Nothing where that cannot be said: the challenger's training rows are unknown, and the champion has seen
    none of these.
    """
    seen = {
        str(model.ref): selections.overlap(lake, rows, model.training)
        for model in contenders
        if model.training is not None
    }
    worst = max(seen.values(), default=0)
    if contenders[0].training is None and not worst:
        return []
    leaky = ", ".join(f"{name} was trained on {count} of them" for name, count in seen.items() if count)
    return [
        GateResult(
            gate=LEAK_GATE, outcome=Outcome.FAILED if worst else Outcome.PASSED,
            observed=float(worst), threshold=0.0,
            message=f"of {rows.rows} holdout rows {leaky}" if worst else "no holdout row was trained on",
        )
    ]  # fmt: skip
