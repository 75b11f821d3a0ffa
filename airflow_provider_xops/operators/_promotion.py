"""Operators that decide: promote, roll back.

For :mod:`airflow_provider_xops.operators.model`, their public place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops.errors import GateError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink
from airflow_provider_xops.operators._arguments import is_empty, one_of, whole_number
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.records import Evaluation, GateReport, PromotionOutcome
from airflow_provider_xops.version_compat import AirflowSkipException

if TYPE_CHECKING:
    from airflow_provider_xops.version_compat import Context

__all__ = ["PromoteModelOperator", "RollbackModelOperator"]


class PromoteModelOperator(RegistryOperator):
    """Decides on the evidence of an evaluation whether the challenger becomes champion, once, in the ledger.

    Of any number of promoters that saw the same champion one wins; the others' decisions are ``held:
    superseded``. Being held or rejected is an ordinary outcome: the decision is in the returned record.

    :param evaluation: the output of an ``EvaluateModelOperator``, or an evaluation's record id.
    :param gate_report: the output of a ``CheckGatesOperator`` for this evaluation, whose gates about evidence
        and time are asked once more. Empty: what the evaluation deferred (a smoke test, an approval) is
        asked now.
    :param alias: the alias to move.
    :param on_held: what a decision other than ``promoted`` does to the task: ``succeed``, ``skip`` (it and
        what follows) or ``fail`` (without retries).
    :raises GateError: it was not promoted, and ``on_held`` is ``fail``.

    Returns the record of the decision, with ``applied`` and ``reused``. Its asset event is emitted only if it
    promoted.

    Example::

        PromoteModelOperator(task_id="promote", evaluation=judge.output, outlets=[Asset("late")])

    What it does not do: it computes no metric, and never moves an alias that somebody moved by hand.
    """

    required = ("evaluation", "alias", "on_held")
    template_fields = (*RegistryOperator.template_fields, "evaluation", "gate_report", "alias", "on_held")
    operator_extra_links = (EvidenceLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        evaluation: Any,
        gate_report: Any = None,
        alias: str = "champion",
        on_held: Literal["succeed", "skip", "fail"] = "succeed",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation
        self.gate_report = gate_report
        self.alias = alias
        self.on_held = on_held

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.evaluation.gates import ask_deferred
        from airflow_provider_xops.registry.loading import get_model
        from airflow_provider_xops.registry.promote import promote

        one_of(self.on_held, ("succeed", "skip", "fail"), argument="on_held")
        lake, registry = self.lake(), self.registry()
        evaluation = self.record(lake, self.evaluation, Evaluation, argument="evaluation")
        challenger = evaluation.model
        model = get_model(lake, challenger.name, challenger.version, created_at_ms=challenger.created_at_ms)
        given = None
        if not is_empty(self.gate_report):
            given = self.record(lake, self.gate_report, GateReport, argument="gate_report")
        actor, as_of = actor_of(context), now()
        result = promote(
            lake,
            registry,
            model=model,
            alias=self.alias,
            expected=evaluation.champion.version if evaluation.champion else None,
            evaluation=evaluation,
            gate_report=ask_deferred(lake, model, evaluation, given, actor=actor, as_of=as_of),
            actor=actor,
            as_of=as_of,
        )
        decision = result.decision
        self.link_model(registry, challenger.name, challenger.version)
        promoted = decision.outcome is PromotionOutcome.PROMOTED
        returned = self.hand_over(
            context, lake, decision, reused=result.reused, emit=promoted, applied=result.applied
        )
        said = f"{challenger} as {self.alias}: {decision.outcome.value} ({decision.reason})"
        self.log.info("Decision %d: %s.", decision.sequence, said)
        if promoted or self.on_held == "succeed":
            return returned
        if self.on_held == "skip":
            raise AirflowSkipException(said)
        raise GateError(
            f"{challenger} was not promoted to {self.alias}",
            code=f"gate.{decision.outcome.value}",
            why=decision.reason,
            todo="look at the evaluation's gates; train or evaluate again if the champion changed",
            context={"decision": decision.record_id, "evaluation": evaluation.record_id},
        )


class RollbackModelOperator(RegistryOperator):
    """Makes a former champion the champion again, at once and without gates; the version left is blocked.

    :param model_name: the registered model.
    :param reason: why; it stands in the ledger.
    :param to_version: the version to return to; empty: the champion before the present one.
    :param alias: the alias to move.
    :param dry_run: say what would be done and change nothing.
    :raises RegistryError: there is nothing to roll back to, or the version is blocked or never was champion.

    Returns the record of the decision, with ``applied`` and ``reused``; for a dry run the versions alone.

    Example::

        RollbackModelOperator(task_id="rollback", model_name="late", reason="{{ params.reason }}")

    What it does not do: it deletes nothing; a blocked version stays until ``xops release`` names it.
    """

    required = ("model_name", "reason", "alias")
    template_fields = (*RegistryOperator.template_fields, "model_name", "reason", "to_version", "alias")
    operator_extra_links = (EvidenceLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        model_name: str,
        reason: str,
        to_version: int | str | None = None,
        alias: str = "champion",
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.reason = reason
        self.to_version = to_version
        self.alias = alias
        self.is_dry_run = dry_run  # BaseOperator has a method of the argument's name

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.registry.rollback import rollback

        lake, registry = self.lake(), self.registry()
        result = rollback(
            lake,
            registry,
            model_name=self.model_name,
            alias=self.alias,
            to_version=whole_number(self.to_version, argument="to_version"),
            reason=self.reason,
            actor=actor_of(context),
            as_of=now(),
            dry_run=self.is_dry_run,
        )
        self.link_model(registry, self.model_name, result.to_version)
        versions = {"from_version": result.from_version, "to_version": result.to_version}
        if result.decision is None:
            self.silence(context)
            return {"dry_run": True, **versions}
        return self.hand_over(context, lake, result.decision, reused=result.reused, applied=result.applied)
