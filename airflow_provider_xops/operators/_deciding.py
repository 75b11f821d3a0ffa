"""Which version a deployment is about, and how the ledger's entry comes about on the way.

For the deployment operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.operators._arguments import is_empty
from airflow_provider_xops.operators._base import actor_of, now

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.operators._deployment import DeployModelOperator
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.version_compat import Context

__all__ = ["Meant", "meant_by"]


@dataclass(frozen=True, kw_only=True)
class Meant:
    """The version, what makes or confirms its entry (None: nothing does), and a decision that says no."""

    model: records.ModelVersion
    decide: Callable[[], records.PromotionDecision] | None = None
    held: records.PromotionDecision | None = None


def meant_by(operator: DeployModelOperator, context: Context, lake: Lake, registry: RegistryClient) -> Meant:
    """What an operator's arguments mean.

    :raises ArgumentError: not exactly one of evaluation, decision and model was given (``argument.basis``),
        or an approval or a gate report without an evaluation.
    """
    if len(operator.basis) != 1:
        raise ArgumentError(
            f"task {operator.task_id} is given {' and '.join(operator.basis) or 'nothing'} to deploy",
            code="argument.basis",
            todo="give exactly one of evaluation (promote on the way), decision (promoted before) and model"
            " (try out)",
        )
    (basis,) = operator.basis
    if basis != "evaluation" and (operator.asks_people or not is_empty(operator.gate_report)):
        raise ArgumentError(
            f"task {operator.task_id} is given an approval or a gate report with a {basis}",
            code="argument.basis",
            why="they belong to a promotion, and this task makes none",
            todo="give the evaluation instead, or leave them out",
        )
    if basis == "evaluation":
        return _by_evaluation(operator, context, lake, registry)
    if basis == "decision":
        return _by_decision(operator, context, lake, registry)
    return Meant(model=operator.record(lake, operator.model, records.ModelVersion, argument="model"))


def _by_evaluation(
    operator: DeployModelOperator, context: Context, lake: Lake, registry: RegistryClient
) -> Meant:
    from airflow_provider_xops.evaluation.gates import ask_deferred
    from airflow_provider_xops.registry.loading import get_model
    from airflow_provider_xops.registry.promote import check_evaluation, promote

    evaluation = operator.record(lake, operator.evaluation, records.Evaluation, argument="evaluation")
    of = evaluation.model
    model = get_model(lake, of.name, of.version, created_at_ms=of.created_at_ms)
    # Before anything is loaded anywhere.
    check_evaluation(evaluation, model, operator.alias)
    report: Any = None
    if not is_empty(operator.gate_report):
        report = operator.record(lake, operator.gate_report, records.GateReport, argument="gate_report")
    approval: Any = None
    if operator.asks_people or not is_empty(operator.approval):
        approval = operator.record(lake, operator.approval, records.ApprovalResult, argument="approval")

    def decide() -> records.PromotionDecision:
        actor, as_of = actor_of(context), now()
        return promote(
            lake,
            registry,
            model=model,
            alias=operator.alias,
            expected=evaluation.champion.version if evaluation.champion else None,
            evaluation=evaluation,
            gate_report=ask_deferred(lake, model, evaluation, report, actor=actor, as_of=as_of),
            approval=approval,
            allow_new_inputs=operator.allow_new_inputs,
            actor=actor,
            as_of=as_of,
        ).decision

    return Meant(model=model, decide=decide)


def _by_decision(
    operator: DeployModelOperator, context: Context, lake: Lake, registry: RegistryClient
) -> Meant:
    from airflow_provider_xops.registry.loading import model_of
    from airflow_provider_xops.serving.targets.rollout import confirm_decision

    decision = operator.record(lake, operator.decision, records.PromotionDecision, argument="decision")
    if decision.alias != operator.alias:
        raise ArgumentError(
            f"the decision is about {decision.alias}, the task deploys {operator.alias}",
            code="argument.alias",
            todo="name the same alias in both tasks",
        )
    model = model_of(lake, decision)
    if decision.outcome not in (records.PromotionOutcome.PROMOTED, records.PromotionOutcome.ROLLED_BACK):
        return Meant(model=model, held=decision)

    def decide() -> records.PromotionDecision:
        return confirm_decision(lake, registry, decision, actor=actor_of(context), as_of=now())

    return Meant(model=model, decide=decide)
