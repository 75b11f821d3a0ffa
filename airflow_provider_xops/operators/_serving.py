"""What the operators that look at a serving target do alike: find it, and wait for it, here or elsewhere.

For the deployment operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.hooks.serving import ServingHook
from airflow_provider_xops.operators._arguments import number
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.version_compat import conf

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.serving.targets.base import ServingBackend
    from airflow_provider_xops.serving.targets.rollout import ComeBack, Patience
    from airflow_provider_xops.version_compat import Context

__all__ = ["ServingOperator"]

# Each look costs the start of a task.
AWAY_SECONDS = 30.0


class ServingOperator(RegistryOperator):
    """What deploying and checking share: the target, how long it is waited for, and where.

    :param serving_conn_id: the Airflow connection of the target.
    :param timeout_seconds: how long it is waited for. :param poll_seconds: between two looks at it.
    :param deferrable: wait without a worker.
    """

    serving_conn_id: str
    timeout_seconds: float
    poll_seconds: float
    deferrable: bool | None

    # Model and alias, for the extra link that Airflow asks for afterwards in the same process.
    served: tuple[str, str] | None = None

    # What was known of a wait when the task went away for it.
    _memory: Mapping[str, Any] | None = None

    def target(self, context: Context, lake: Lake, registry: RegistryClient) -> ServingBackend:
        """The target of ``serving_conn_id``."""
        hook = ServingHook(self.serving_conn_id)
        return hook.get_target(lake, registry, actor=actor_of(context), clock=now)

    def patience(self) -> Patience:
        """As long as ``timeout_seconds`` says, for everything that is waited for."""
        from airflow_provider_xops.serving.targets.rollout import Patience

        seconds = number(self.timeout_seconds, argument="timeout_seconds")
        poll = number(self.poll_seconds, argument="poll_seconds")
        if seconds is None or poll is None or seconds <= 0 or poll <= 0:
            raise ArgumentError(
                "timeout_seconds and poll_seconds are positive numbers", code="argument.number",
                todo="give seconds",
            )  # fmt: skip
        return Patience(load_s=seconds, settle_s=min(seconds, 120.0), requests_s=seconds, poll_s=poll)

    def away_s(self) -> float | None:
        """Seconds between two looks for which the task goes away; None: it stays in its worker."""
        deferrable = self.deferrable
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        return AWAY_SECONDS if deferrable else None

    def go_away(self, later: ComeBack, *, deployment: str | None = None) -> NoReturn:
        """Leave the worker until the next look is due."""
        from airflow_provider_xops.triggers.deployment import NextLookTrigger

        self.log.info("Waiting without a worker: %s.", later)
        self.defer(
            trigger=NextLookTrigger(
                at=later.at.isoformat(),
                deployment=deployment,
                lake_conn_id=self.lake_conn_id,
                mlflow_conn_id=self.mlflow_conn_id,
                serving_conn_id=self.serving_conn_id,
            ),
            method_name="go_on",
            kwargs={"memory": later.memory},
        )

    def go_on(
        self, context: Context, event: Any = None, memory: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Continue when the next look is due."""
        self._memory = memory
        return self.execute(context)
