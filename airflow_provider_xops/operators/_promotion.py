"""Operators that decide: promote, roll back.

For :mod:`airflow_provider_xops.operators.model`, their public place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError, GateError, RegistryError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink
from airflow_provider_xops.operators._arguments import is_empty, one_of, whole_number
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.version_compat import AirflowSkipException

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = ["PromoteModelOperator", "RollbackModelOperator"]


class PromoteModelOperator(RegistryOperator):
    """Decides on the evidence of an evaluation whether the challenger becomes champion, once, in the ledger.

    Of any number of promoters that saw the same champion one wins; the others' decisions are ``held:
    superseded``. Being held, rejected or expired is an ordinary outcome: the decision is in the returned
    record.

    :param evaluation: the output of an ``EvaluateModelOperator``, or an evaluation's record id.
    :param gate_report: the output of a ``CheckGatesOperator`` for this evaluation, whose gates about evidence
        and time are asked once more. Empty: what the evaluation deferred (a smoke test, an approval) is
        asked now.
    :param approval: what came of asking people about this evaluation (the output of ``approve_promotion``),
        or its record id. Their words are read again: a no rejects, silence expires, and whoever has taken
        their word back does not count. Nothing given: nobody is asked; given and rendered to nothing: the
        task fails.
    :param alias: the alias to move: ``champion``, or one of its own for a region or segment; the one that the
        evaluation was made for.
    :param allow_new_inputs: whether it may take other columns than the champion; what callers send today a
        server would refuse. It is held otherwise, and the ledger's reason says that it was allowed.
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
    template_fields = (
        *RegistryOperator.template_fields, "evaluation", "gate_report", "approval", "alias", "on_held",
    )  # fmt: skip
    operator_extra_links = (EvidenceLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        evaluation: Any,
        gate_report: Any = None,
        approval: Any = None,
        alias: str = "champion",
        allow_new_inputs: bool = False,
        on_held: Literal["succeed", "skip", "fail"] = "succeed",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation
        self.gate_report = gate_report
        self.approval = approval
        # The rendered argument cannot tell "nobody is to be asked" from "nothing came of it".
        self.asks_people = approval is not None
        self.alias = alias
        self.allow_new_inputs = allow_new_inputs
        self.on_held = on_held

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.evaluation.gates import ask_deferred
        from airflow_provider_xops.registry.loading import get_model
        from airflow_provider_xops.registry.promote import promote

        one_of(self.on_held, ("succeed", "skip", "fail"), argument="on_held")
        lake, registry = self.lake(), self.registry()
        evaluation = self.record(lake, self.evaluation, records.Evaluation, argument="evaluation")
        challenger = evaluation.model
        model = get_model(lake, challenger.name, challenger.version, created_at_ms=challenger.created_at_ms)
        given = None
        if not is_empty(self.gate_report):
            given = self.record(lake, self.gate_report, records.GateReport, argument="gate_report")
        approval = None
        if self.asks_people or not is_empty(self.approval):
            approval = self.record(lake, self.approval, records.ApprovalResult, argument="approval")
        actor, as_of = actor_of(context), now()
        result = promote(
            lake,
            registry,
            model=model,
            alias=self.alias,
            expected=evaluation.champion.version if evaluation.champion else None,
            evaluation=evaluation,
            gate_report=ask_deferred(lake, model, evaluation, given, actor=actor, as_of=as_of),
            approval=approval,
            allow_new_inputs=self.allow_new_inputs,
            actor=actor,
            as_of=as_of,
        )
        decision = result.decision
        self.link_model(registry, challenger.name, challenger.version)
        promoted = decision.outcome is records.PromotionOutcome.PROMOTED
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

    Its files are proved by their digest and loaded before anything is decided. With ``check`` it undoes what
    a check of a deployment has found bad, and that only: where the check did not fail, or somebody has
    decided since, the task is skipped and says why.

    :param model_name: the registered model; with ``check`` it may be left out.
    :param reason: why; it stands in the ledger. With ``check`` it may be left out: the check says why.
    :param to_version: the version to return to; empty: the champion before the present one.
    :param alias: the alias to move; with ``check`` it must be the checked one.
    :param check: the output of a ``CheckDeploymentOperator``, or its record id; None: roll back in any case.
    :param verify: prove and load the target's files first; False is for emergencies, and the ledger says so.
    :param dry_run: say what would be done and change nothing.
    :raises RegistryError: there is nothing to roll back to, or the version is blocked or never was champion.
    :raises ModelError: the target's files are not those that were registered, or do not load here.

    Returns the record of the decision, with ``applied`` and ``reused``; for a dry run the versions alone.

    Example::

        RollbackModelOperator(task_id="rollback", model_name="late", reason="{{ params.reason }}")
        RollbackModelOperator(task_id="undo", check=check_deployment.output)

    What it does not do: it deletes nothing; a blocked version stays until ``xops release`` names it. A retry
    does not undo what somebody else has decided since the run began; clear the task if that is meant.
    """

    required = ("alias",)
    template_fields = (
        *RegistryOperator.template_fields, "model_name", "reason", "to_version", "alias", "check",
    )  # fmt: skip
    operator_extra_links = (EvidenceLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        model_name: str = "",
        reason: str = "",
        to_version: int | str | None = None,
        alias: str = "champion",
        check: Any = None,
        verify: bool = True,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.reason = reason
        self.to_version = to_version
        self.alias = alias
        self.check = check
        # The rendered argument cannot tell "in any case" from "nothing came of the check".
        self.is_conditional = check is not None
        self.verify = verify
        self.is_dry_run = dry_run  # BaseOperator has a method of the argument's name

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.registry.rollback import rollback

        lake, registry = self.lake(), self.registry()
        check = self._failed_check(lake)
        model_name, reason = self._model_name(check), self._reason(check)
        try:
            result = rollback(
                lake,
                registry,
                model_name=model_name,
                alias=self.alias,
                to_version=whole_number(self.to_version, argument="to_version"),
                reason=reason,
                verify=self.verify,
                expected_sequence=check.decision if check else self._seen(lake, context, model_name),
                evidence=(check.record_id,) if check else (),
                actor=actor_of(context),
                as_of=now(),
                dry_run=self.is_dry_run,
            )
        except RegistryError as error:
            if check is None or error.code != "registry.not_standing":
                raise
            raise AirflowSkipException(
                f"the failed check is about entry {check.decision}, and {error.why}"
            ) from error
        self.link_model(registry, model_name, result.to_version)
        versions = {"from_version": result.from_version, "to_version": result.to_version}
        if result.decision is None:
            self.silence(context)
            return {"dry_run": True, **versions}
        return self.hand_over(context, lake, result.decision, reused=result.reused, applied=result.applied)

    def _failed_check(self, lake: Lake) -> records.DeploymentCheck | None:
        """The check that is the reason, as the evidence holds it; skips where there is no reason."""
        from airflow_provider_xops.registry.recorded import recorded

        if not self.is_conditional and is_empty(self.check):
            return None
        given = self.record(lake, self.check, records.DeploymentCheck, argument="check")
        check = recorded(lake, given, argument="check")
        named = (self.model_name if not is_empty(self.model_name) else check.model.name, self.alias)
        if named != (check.model.name, check.alias):
            raise ArgumentError(
                f"the check is of {check.model.name}/{check.alias}, to be rolled back is {'/'.join(named)}",
                code="argument.check",
                todo="pass the check of this model and alias",
            )
        if check.outcome is not records.Outcome.FAILED:
            raise AirflowSkipException(f"the check of {check.model} {check.outcome.value.replace('_', ' ')}")
        if check.decision is None:
            raise AirflowSkipException(f"the check of {check.model} does not say which decision it is about")
        return check

    def _seen(self, lake: Lake, context: Context, model_name: str) -> int | None:
        """In a retry: the last entry about the alias that is not somebody else's since the run began.

        The first attempt may have failed before it decided, and somebody may have rolled back by hand
        meanwhile: leaving *that* champion is not what was asked for. A clear begins the run anew.
        """
        from airflow_provider_xops.registry import ledger
        from airflow_provider_xops.registry.ledger_state import MOVING

        ti: Any = context["ti"]
        began = getattr(context.get("dag_run"), "start_date", None)
        if ti.try_number < 2 or began is None:
            return None
        moves = [each for each in ledger.entries(lake, model_name, self.alias) if each.outcome in MOVING]
        here = (ti.dag_id, ti.run_id)
        seen = [
            each
            for each in moves
            if each.recorded_at <= began or (each.produced_by.dag_id, each.produced_by.run_id) == here
        ]
        if not moves:
            return None
        return seen[-1].sequence if seen else 0

    def _model_name(self, check: records.DeploymentCheck | None) -> str:
        if not is_empty(self.model_name):
            return self.model_name
        if check is None:
            raise self._missing("model_name")
        return check.model.name

    def _reason(self, check: records.DeploymentCheck | None) -> str:
        if check is None:
            if is_empty(self.reason):
                raise self._missing("reason")
            return self.reason
        failed = [each for each in check.results if each.outcome is records.Outcome.FAILED]
        found = "; ".join(dict.fromkeys(f"{each.gate} ({each.message})" for each in failed))
        said = f"check of {check.model} failed: {found or 'no figure of it says more'}"
        return said if is_empty(self.reason) else f"{self.reason}: {said}"

    def _missing(self, name: str) -> ArgumentError:
        return ArgumentError(
            f"{name} of task {self.task_id} is empty",
            code="argument.empty",
            why="its template rendered to nothing, or the task it comes from was skipped",
            todo=f"give {name} a value",
        )
