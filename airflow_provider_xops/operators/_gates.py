"""The operator that puts a policy to everything that is known about a model version.

For :mod:`airflow_provider_xops.operators.model`, its public place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError, GateError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink
from airflow_provider_xops.operators._arguments import is_empty, list_of, mapping_of, one_of
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.version_compat import AirflowSkipException

if TYPE_CHECKING:
    from airflow_provider_xops.version_compat import Context

__all__ = ["CheckGatesOperator", "policy_argument"]


class CheckGatesOperator(RegistryOperator):
    """Asks every gate of a policy about a model version, and records the answers with what they rest on.

    :param gates: the policy: a YAML or JSON file, a function by import path, or a list of gates such as
        ``[{"gate": "smoke_tested"}, {"gate": "approved", "people": 2}]``. Promotion takes the report for the
        gates that the evaluation deferred, so it is the policy that the model was evaluated under.
    :param evaluation: the output of an ``EvaluateModelOperator`` or ``ChooseModelOperator``, or an
        evaluation's record id: where figures come from, and which model is meant.
    :param model: instead of an evaluation: a model version, for policies without gates about figures.
    :param on_failure: what an outcome other than *passed* does to the task: ``succeed`` (promotion decides),
        ``skip`` (it and what follows) or ``fail`` (without retries).
    :raises GateError: a gate did not pass, and ``on_failure`` is ``fail``.

    Returns the record of the gate report.

    Example::

        check = CheckGatesOperator(task_id="check", evaluation=best.output, gates="my_project.gates:policy")
        PromoteModelOperator(task_id="promote", evaluation=best.output, gate_report=check.output)

    What it does not do: it promotes nothing, and it makes no evidence but the search for personal data.
    """

    required = ("gates", "on_failure")
    user_code = ("gates",)
    template_fields = (*RegistryOperator.template_fields, "gates", "evaluation", "model", "on_failure")
    operator_extra_links = (EvidenceLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        gates: Sequence[Mapping[str, Any]] | Mapping[str, Any] | str | Callable[[], Any],
        evaluation: Any = None,
        model: Any = None,
        on_failure: Literal["succeed", "skip", "fail"] = "succeed",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.gates = gates
        self.evaluation = evaluation
        self.model = model
        self.on_failure = on_failure

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.evaluation.gates import check_gates, policy_from
        from airflow_provider_xops.registry.loading import get_model

        one_of(self.on_failure, ("succeed", "skip", "fail"), argument="on_failure")
        policy = policy_from(policy_argument(self.gates))
        if is_empty(self.evaluation) == is_empty(self.model):
            raise ArgumentError(
                f"task {self.task_id} needs evaluation or model, one of them", code="argument.empty",
                why="a template rendered to nothing, or the task it comes from was skipped"
                if is_empty(self.evaluation)
                else "an evaluation says which model it is of",
                todo="pass the output of the task that evaluated the model",
            )  # fmt: skip
        lake, registry = self.lake(), self.registry()
        evaluation = None
        if is_empty(self.evaluation):
            model = self.record(lake, self.model, records.ModelVersion, argument="model")
        else:
            evaluation = self.record(lake, self.evaluation, records.Evaluation, argument="evaluation")
            of = evaluation.model
            model = get_model(lake, of.name, of.version, created_at_ms=of.created_at_ms)
        report = check_gates(lake, model, evaluation, policy, actor=actor_of(context), as_of=now())
        self.link_model(registry, model.name, model.version, model.run_id, model.experiment_id)
        for result in report.results:
            self.log.info("%s: %s (%s)", result.gate, result.outcome.value, result.message)
        returned = self.hand_over(context, lake, report, emit=report.outcome is records.Outcome.PASSED)
        if report.outcome is records.Outcome.PASSED or self.on_failure == "succeed":
            return returned
        closed = [result for result in report.results if result.outcome is not records.Outcome.PASSED]
        why = "; ".join(f"{result.gate} {result.outcome.value} ({result.message})" for result in closed)
        if self.on_failure == "skip":
            raise AirflowSkipException(f"gates of {report.policy} for {model.ref}: {why}")
        raise GateError(
            f"{model.ref} does not pass the gates of {report.policy}",
            code=f"gate.{report.outcome.value}",
            why=why,
            todo="look at the gate report; what is missing can be made and the task run again",
            context={"gate_report": report.record_id},
        )


def policy_argument(given: Any) -> Any:
    """A policy as a template may leave it: JSON or Python text of a list or mapping, or what it was."""
    if isinstance(given, str) and given.strip()[:1] == "[":
        return list_of(given, argument="gates")
    if isinstance(given, str) and given.strip()[:1] == "{":
        return mapping_of(given, argument="gates")
    return given
