"""The operator that brings a version into service.

For :mod:`airflow_provider_xops.operators.model`, its public place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops import records
from airflow_provider_xops.errors import GateError, ModelError
from airflow_provider_xops.hooks.serving import ServingHook
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink
from airflow_provider_xops.links.serving import ServingLink
from airflow_provider_xops.operators._arguments import (
    is_empty,
    list_of,
    mapping_of,
    number,
    one_of,
)
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.operators._deciding import Meant, meant_by
from airflow_provider_xops.operators._serving import ServingOperator
from airflow_provider_xops.version_compat import AirflowSkipException

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.serving.targets.base import ServingBackend
    from airflow_provider_xops.serving.targets.rollout import Deployed
    from airflow_provider_xops.version_compat import Context

__all__ = ["DeployModelOperator"]


class DeployModelOperator(ServingOperator):
    """Brings a version into service step by step; every step's failure leaves the old one serving.

    It is loaded beside what serves, on every replica; asked rows whose predictions were recorded at training;
    entered in the ledger; given its share of the requests in steps, each followed by a window in which it
    must stay healthy; and confirmed from answers. Give one of ``evaluation``, ``decision`` and ``model``.

    A task that was killed goes on after its last step when it is tried again. Ended from outside (a kill, a
    timeout) before the ledger's entry, it unloads the version; after it, everything stays as it is. So does a
    task that was deferred, from Airflow 3.3 on, where the triggerer reaches the lake and the target.

    :param evaluation: the output of an ``EvaluateModelOperator``: the version is promoted on the way, by its
        gates, as ``PromoteModelOperator`` would.
    :param gate_report: of a ``CheckGatesOperator``, and
    :param approval: of ``approve_promotion``; both as for ``PromoteModelOperator``, with ``evaluation`` only.
    :param decision: the output of a ``PromoteModelOperator`` or ``RollbackModelOperator``: the ledger has
        decided already. Servers of ``xops serve`` have swapped to it by themselves then; other targets are
        brought to it.
    :param model: the output of a training task, or a record id: the version is tried out on a share of the
        requests (``steps`` below 1.0), and the ledger stays as it is.
    :param alias: what the version is to serve as.
    :param serving_conn_id: the Airflow connection of the target.
    :param steps: its shares of the requests, rising; ends with 1.0 unless ``model`` is given. Default: 0.1,
        0.5 and 1.0; 1.0 where the target cannot share requests; 0.1 with ``model``.
    :param role: with ``model``: ``canary`` answers its share, ``shadow`` is only asked beside the one that
        answers.
    :param soak_seconds: the length of the window after each step.
    :param health: what must hold in it: ``max_error_rate`` (0.01), ``max_p99_ms``, ``max_p99_ratio`` (against
        the previous version), ``min_requests`` (0), ``golden`` (True), ``tolerance`` (1e-9).
    :param golden: whether right answers to the golden rows are needed before the decision; an adopted model
        has none.
    :param keep_previous: keep the previous version loaded at the end.
    :param allow_new_inputs: whether it may need other columns than the version that serves; what callers
        send today would be refused.
    :param on_failure: what a failure after the ledger's entry does there, once the previous version has its
        requests back: ``rollback``, or ``hold`` (a person decides).
    :param on_held: what a decision other than *promoted* does to the task: ``skip`` (it and what follows),
        ``fail`` (without retries) or ``succeed``.
    :param supersede: end another deployment of this alias that is under way, instead of being refused.
    :param timeout_seconds: how long loading, and the requests that ``min_requests`` needs, are waited for.
    :param poll_seconds: between two looks at the target; 30 at least where the task is deferred meanwhile.
    :param deferrable: wait without a worker: of each wait the first 10 seconds are in the worker, the rest in
        the triggerer, with a look every 30 seconds; None: as ``[operators] default_deferrable`` says.
    :raises ModelError: ``model.deployment_failed``: the previous version serves.
    :raises GateError: it was not promoted, and ``on_held`` is ``fail``.
    :raises ConflictError: ``conflict.deployment``: another deployment of this alias is under way.

    Returns the record of the deployment, with ``outcome``, ``message``, ``served`` (the versions that
    answered at the end, with how often), ``decision`` (the entry's sequence) and ``reused``. Its asset event
    is emitted only if the version is in service.

    Example::

        DeployModelOperator(task_id="deploy", evaluation=judge.output, steps=[0.05, 0.25, 1.0],
                            soak_seconds=300, health={"min_requests": 500, "max_p99_ratio": 1.5})

    What it does not do: it starts no servers. An execution timeout does not count the time in the triggerer.
    """

    required = ("alias", "role", "on_failure", "on_held")
    template_fields = (
        *RegistryOperator.template_fields, "evaluation", "gate_report", "approval", "decision", "model",
        "alias", "serving_conn_id", "steps", "role", "soak_seconds", "health", "on_failure", "on_held",
        "timeout_seconds", "poll_seconds",
    )  # fmt: skip
    operator_extra_links = (EvidenceLink(), MlflowModelVersionLink(), ServingLink())

    def __init__(
        self,
        *,
        evaluation: Any = None,
        gate_report: Any = None,
        approval: Any = None,
        decision: Any = None,
        model: Any = None,
        alias: str = "champion",
        serving_conn_id: str = ServingHook.default_conn_name,
        steps: Sequence[float] | str | None = None,
        role: Literal["canary", "shadow"] = "canary",
        soak_seconds: float = 60.0,
        health: Mapping[str, Any] | str | None = None,
        golden: bool = True,
        keep_previous: bool = True,
        allow_new_inputs: bool = False,
        on_failure: Literal["rollback", "hold"] = "rollback",
        on_held: Literal["skip", "fail", "succeed"] = "skip",
        supersede: bool = False,
        timeout_seconds: float = 600.0,
        poll_seconds: float = 2.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation
        self.gate_report = gate_report
        self.approval = approval
        # The rendered arguments cannot tell "none" from "nothing came".
        self.asks_people = approval is not None
        self.basis = tuple(
            name
            for name, given in (("evaluation", evaluation), ("decision", decision), ("model", model))
            if given is not None
        )
        self.decision = decision
        self.model = model
        self.alias = alias
        self.serving_conn_id = serving_conn_id
        self.steps = steps
        self.role = role
        self.soak_seconds = soak_seconds
        self.health = health
        self.golden = golden
        self.keep_previous = keep_previous
        self.allow_new_inputs = allow_new_inputs
        self.on_failure = on_failure
        self.on_held = on_held
        self.supersede = supersede
        self.timeout_seconds = timeout_seconds
        self.poll_seconds = poll_seconds
        self.deferrable = deferrable

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.serving.targets.health import HealthCondition
        from airflow_provider_xops.serving.targets.rollout import ComeBack, deploy

        one_of(self.on_failure, ("rollback", "hold"), argument="on_failure")
        one_of(self.on_held, ("skip", "fail", "succeed"), argument="on_held")
        health = mapping_of(self.health, argument="health") if not is_empty(self.health) else None
        lake, registry = self.lake(), self.registry()
        meant = meant_by(self, context, lake, registry)
        if meant.held is not None:
            self._not_decided(f"{meant.held.outcome.value}: {meant.held.reason}")
            return self._nothing(context, lake, meant)
        target = self.target(context, lake, registry)
        self.link_model(registry, meant.model.name, meant.model.version)
        self.served = (meant.model.name, self.alias)
        try:
            deployed = deploy(
                lake,
                registry,
                target,
                model=meant.model,
                alias=self.alias,
                steps=self._steps(target, whole=meant.decide is not None),
                decide=meant.decide,
                role=self.role,
                health=HealthCondition.of(health),
                soak_seconds=number(self.soak_seconds, argument="soak_seconds") or 0.0,
                golden=self.golden,
                keep_previous=self.keep_previous,
                allow_new_inputs=self.allow_new_inputs,
                on_failure=self.on_failure,
                supersede=self.supersede,
                last_try=_is_last_try(context),
                patience=self.patience(),
                actor=actor_of(context),
                clock=now,
                away_s=self.away_s(),
                memory=self._memory,
            )
        except ComeBack as later:
            self.go_away(later, deployment=later.memory["deployment"])
        return self._said(context, lake, deployed)

    def on_kill(self) -> None:
        """Leave the rollout: before the ledger's entry the version is unloaded, after it all stays."""
        self.leave_when_killed()

    def _steps(self, target: ServingBackend, *, whole: bool) -> tuple[float, ...]:
        given = list_of(self.steps, argument="steps")
        if given is not None:
            found = [number(each, argument="steps") for each in given]
            return tuple(float(each) for each in found if each is not None)
        if not whole:
            return (0.1,)
        return (0.1, 0.5, 1.0) if target.supports_weights else (1.0,)

    def _said(self, context: Context, lake: Lake, deployed: Deployed) -> dict[str, Any]:
        passed = deployed.outcome is records.Outcome.PASSED
        returned = self.hand_over(
            context,
            lake,
            deployed.deployment,
            reused=deployed.reused,
            emit=passed,
            outcome=deployed.outcome.value,
            message=deployed.message[:500],
            served={str(version): times for version, times in deployed.served.items()},
            decision=deployed.decision.sequence if deployed.decision else None,
        )
        if passed:
            return returned
        asked = next((each for each in deployed.steps if each.step == "decide"), None)
        if asked is not None and asked.outcome is records.Outcome.FAILED:
            self._not_decided(asked.message)
            return returned
        raise ModelError(
            f"{deployed.deployment.model} was not brought into service as {self.alias}",
            code="model.deployment_failed",
            why=deployed.message,
            todo=f"the previous version serves; see `xops deployments {deployed.deployment.model.name}`",
            context={"deployment": deployed.deployment.record_id},
        )

    def _not_decided(self, decision: str) -> None:
        said = f"not deployed, the decision is {decision}"
        if self.on_held == "skip":
            raise AirflowSkipException(said)
        if self.on_held == "fail":
            raise GateError(
                f"the version was not promoted to {self.alias}",
                code="gate.not_promoted",
                why=decision,
                todo="look at the evaluation's gates; train or evaluate again if the champion changed",
            )
        self.log.info("%s.", said)

    def _nothing(self, context: Context, lake: Lake, meant: Meant) -> dict[str, Any]:
        assert meant.held is not None
        return self.hand_over(context, lake, meant.held, emit=False)


def _is_last_try(context: Context) -> bool:
    ti: Any = context["ti"]
    most = getattr(ti, "max_tries", None)
    return most is not None and ti.try_number > most
