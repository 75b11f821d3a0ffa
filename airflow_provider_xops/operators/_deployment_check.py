"""The operator that looks at a version in service.

For :mod:`airflow_provider_xops.operators.model`, its public place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError, ModelError, XOpsError
from airflow_provider_xops.hooks.serving import ServingHook
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink
from airflow_provider_xops.links.serving import ServingLink
from airflow_provider_xops.operators._arguments import is_empty, mapping_of, number, one_of, optional
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.operators._serving import ServingOperator

if TYPE_CHECKING:
    from airflow_provider_xops.version_compat import Context

__all__ = ["CheckDeploymentOperator"]


class CheckDeploymentOperator(ServingOperator):
    """Looks at what serves an alias: does it answer as at training, and is it well under real requests?

    The result is a record. A ``RollbackModelOperator(check=...)`` after it undoes exactly the decision that
    was checked, if the check failed.

    :param model_name: the registered model; empty: that of ``deployment``.
    :param alias: the alias; with ``deployment``, its alias counts.
    :param deployment: the output of a ``DeployModelOperator``, for the record.
    :param serving_conn_id: the Airflow connection of the target.
    :param seconds: how long requests are watched.
    :param health: what must hold, as for ``DeployModelOperator`` (there is no version to compare with here:
        give ``max_p99_ms``).
    :param on_failure: what an outcome other than *passed* does to the task: ``succeed`` (whoever follows
        decides), or ``fail`` (an errored check, such as a target that did not answer, is tried again).
    :param timeout_seconds: how long the requests that ``min_requests`` needs are waited for.
    :param poll_seconds: between two looks at the target; 30 at least where the task is deferred meanwhile.
    :param deferrable: watch without a worker, as for ``DeployModelOperator``.
    :raises ModelError: ``model.check_failed``, ``model.check_errored``, ``model.check_no_data``, where
        ``on_failure`` is ``fail``.

    Returns the record of the check. Its asset event is emitted only if it passed.

    Example::

        check = CheckDeploymentOperator(task_id="check", deployment=deploy.output, seconds=600,
                                        health={"min_requests": 1000, "max_error_rate": 0.001})
        RollbackModelOperator(task_id="undo", model_name="late", check=check.output,
                              reason="the check after deployment failed")

    What it does not do: it changes nothing, and it knows no labels: whether predictions were right is found
    out later.
    """

    required = ("alias", "on_failure")
    template_fields = (
        *RegistryOperator.template_fields, "model_name", "alias", "deployment", "serving_conn_id", "seconds",
        "health", "on_failure", "timeout_seconds", "poll_seconds",
    )  # fmt: skip
    operator_extra_links = (EvidenceLink(), MlflowModelVersionLink(), ServingLink())

    def __init__(
        self,
        *,
        model_name: str | None = None,
        alias: str = "champion",
        deployment: Any = None,
        serving_conn_id: str = ServingHook.default_conn_name,
        seconds: float = 300.0,
        health: Mapping[str, Any] | str | None = None,
        on_failure: Literal["succeed", "fail"] = "succeed",
        timeout_seconds: float = 600.0,
        poll_seconds: float = 2.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.alias = alias
        self.deployment = deployment
        self.is_of_deployment = deployment is not None
        self.serving_conn_id = serving_conn_id
        self.seconds = seconds
        self.health = health
        self.on_failure = on_failure
        self.timeout_seconds = timeout_seconds
        self.poll_seconds = poll_seconds
        self.deferrable = deferrable

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.serving.targets.check import ComeBack, check_deployment
        from airflow_provider_xops.serving.targets.health import HealthCondition

        one_of(self.on_failure, ("succeed", "fail"), argument="on_failure")
        health = mapping_of(self.health, argument="health") if not is_empty(self.health) else None
        lake, registry = self.lake(), self.registry()
        deployment, name, alias = None, optional(self.model_name), self.alias
        if self.is_of_deployment:
            deployment = self.record(lake, self.deployment, records.Deployment, argument="deployment")
            name, alias = name or deployment.model.name, deployment.alias
        if name is None:
            raise ArgumentError(
                f"task {self.task_id} is not told which model to check", code="argument.empty",
                todo="give model_name or deployment",
            )  # fmt: skip
        self.served = (name, alias)
        try:
            check = check_deployment(
                lake,
                self.target(context, lake, registry),
                model_name=name,
                alias=alias,
                health=HealthCondition.of(health),
                seconds=number(self.seconds, argument="seconds") or 0.0,
                deployment=deployment.record_id if deployment is not None else None,
                patience=self.patience(),
                actor=actor_of(context),
                clock=now,
                away_s=self.away_s(),
                memory=self._memory,
            )
        except ComeBack as later:
            self.go_away(later)
        self.link_model(registry, check.model.name, check.model.version)
        for gate in check.results:
            self.log.info("%s: %s%s", gate.gate, gate.outcome.value, gate.message and f" ({gate.message})")
        returned = self.hand_over(context, lake, check, emit=check.outcome is records.Outcome.PASSED)
        if check.outcome is records.Outcome.PASSED or self.on_failure == "succeed":
            return returned
        raise _check_error(check)

    def on_kill(self) -> None:
        """Leave: a check holds nothing open."""
        self.leave_when_killed()


def _check_error(check: records.DeploymentCheck) -> XOpsError:
    wrong = [gate for gate in check.results if gate.outcome is not records.Outcome.PASSED]
    return ModelError(
        f"the check of {check.model} as {check.alias} {check.outcome.value.replace('_', ' ')}",
        code=f"model.check_{check.outcome.value}",
        why="; ".join(f"{gate.gate}: {gate.message}" for gate in wrong[:3]),
        todo="look at the record's results; `xops rollback` undoes the decision",
        retryable=check.outcome is records.Outcome.ERRORED,
        context={"check": check.record_id},
    )
