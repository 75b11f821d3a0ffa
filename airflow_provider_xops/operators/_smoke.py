"""The operator that loads a model as production would and exercises it.

For :mod:`airflow_provider_xops.operators.model`, its public place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops import records
from airflow_provider_xops.errors import ModelError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink
from airflow_provider_xops.operators._arguments import list_of, number, one_of, whole_number
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now

if TYPE_CHECKING:
    from airflow_provider_xops.version_compat import Context

__all__ = ["SmokeTestModelOperator"]


class SmokeTestModelOperator(RegistryOperator):
    """Loads a model version in a fresh process and asks it through MLflow's scoring server.

    The files' digest is checked before anything is unpickled. Rows of the holdout whose predictions were
    recorded at training are sent as requests, and the answers must be those predictions. Latency, memory,
    load time and size are measured, for the gates ``latency_budget`` and ``size_budget``.

    :param model: the output of a training task, or of one that evaluated or chose a model; or a record id.
    :param environment: ``current``: this worker's Python and packages; ``recorded``: the Python version and
        requirements that were saved with the model, installed by ``uv``.
    :param requests: how many requests of each size are sent, at least 20.
    :param rows_per_request: the sizes.
    :param tolerance: how far a probability or predicted number may be from the recorded one.
    :param timeout_seconds: for the whole test.
    :param on_failure: what an outcome other than *passed* does: ``fail`` the task (an errored test, such as
        an environment that was not installed, is tried again as often as ``retries`` says, a failed one is
        not), or ``succeed``: a promotion gate decides.
    :raises ModelError: ``model.smoke_test_failed``, ``model.smoke_test_errored``,
        ``model.smoke_test_no_data``, where ``on_failure`` is ``fail``.

    Returns the record of the smoke test.

    Example::

        SmokeTestModelOperator(task_id="smoke_test", model=train.output, environment="recorded")

    What it does not do: it is no load test, and it deploys nothing.
    """

    required = ("model", "environment", "on_failure")
    template_fields = (
        *RegistryOperator.template_fields,
        "model",
        "environment",
        "requests",
        "rows_per_request",
        "tolerance",
        "timeout_seconds",
        "on_failure",
    )
    operator_extra_links = (EvidenceLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        model: Any,
        environment: Literal["current", "recorded"] = "current",
        requests: int = 100,
        rows_per_request: Sequence[int] = (1, 100),
        tolerance: float = 1e-9,
        timeout_seconds: float = 300.0,
        on_failure: Literal["fail", "succeed"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.environment = environment
        self.requests = requests
        self.rows_per_request = rows_per_request
        self.tolerance = tolerance
        self.timeout_seconds = timeout_seconds
        self.on_failure = on_failure

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.serving.smoke import CURRENT, RECORDED, smoke_test

        one_of(self.on_failure, ("fail", "succeed"), argument="on_failure")
        given: dict[str, Any] = {
            "environment": one_of(self.environment, (CURRENT, RECORDED), argument="environment"),
            "requests": whole_number(self.requests, argument="requests"),
            "rows_per_request": self._sizes(),
            "tolerance": number(self.tolerance, argument="tolerance"),
            "timeout_seconds": number(self.timeout_seconds, argument="timeout_seconds"),
        }
        lake, registry = self.lake(), self.registry()
        model = self.model_given(lake, self.model)
        self.link_model(registry, model.name, model.version, model.run_id, model.experiment_id)
        test = smoke_test(
            lake,
            registry,
            model,
            actor=actor_of(context),
            as_of=now(),
            **{name: value for name, value in given.items() if value is not None},
        )
        for check in test.checks:
            self.log.info(
                "%s: %s%s", check.check, check.outcome.value, check.message and f" ({check.message})"
            )
        returned = self.hand_over(context, lake, test, emit=test.outcome is records.Outcome.PASSED)
        if test.outcome is records.Outcome.PASSED or self.on_failure == "succeed":
            return returned
        raise ModelError(
            f"the smoke test of {model.ref} {test.outcome.value.replace('_', ' ')}",
            code=f"model.smoke_test_{test.outcome.value}",
            why=test.message,
            todo="look at the record's checks; on_failure='succeed' leaves the decision to the gates",
            retryable=test.outcome is records.Outcome.ERRORED,
            context={"smoke_test": test.record_id},
        )

    def on_kill(self) -> None:
        """End the model's process now; after a SIGKILL of this one it ends by itself."""
        self.leave_when_killed()

    def _sizes(self) -> list[int] | None:
        found = list_of(self.rows_per_request, argument="rows_per_request")
        sizes = [whole_number(each, argument="rows_per_request") for each in found or ()]
        return [size for size in sizes if size is not None] or None
