"""Operators for aliases that answer nobody: give one to a version, take one away.

For :mod:`airflow_provider_xops.operators.model`, their public place.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now

if TYPE_CHECKING:
    from airflow_provider_xops.version_compat import Context

__all__ = ["NominateModelOperator", "RetireAliasOperator"]


class NominateModelOperator(RegistryOperator):
    """Gives an alias that answers nobody (challenger, shadow) to a model version, without gates.

    :param model: the output of a training task, or of one that evaluated or chose a model; or a record id.
    :param alias: the alias; one that was ever promoted to, or begins with ``champion``, is refused.
    :param reason: why; it stands in the ledger.
    :param valid_for: how long the nomination counts; ``xops reconcile`` retires it afterwards. None: until
        somebody nominates another version or retires the alias.
    :raises RegistryError: the alias is a champion's, or somebody moved it by hand.

    Returns the record of the ledger entry, with ``applied`` and ``reused``.

    Example::

        NominateModelOperator(
            task_id="shadow",
            model=train.output,
            alias="shadow",
            reason="a week beside the champion",
            valid_for=timedelta(days=7),
        )

    What it does not do: it sends the version no requests; a server's traffic split or settings do.
    """

    required = ("model", "alias", "reason")
    template_fields = (*RegistryOperator.template_fields, "model", "alias", "reason")
    operator_extra_links = (EvidenceLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        model: Any,
        alias: str = "challenger",
        reason: str,
        valid_for: timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.alias = alias
        self.reason = reason
        self.valid_for = valid_for

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.registry.nominate import nominate

        lake, registry, as_of = self.lake(), self.registry(), now()
        model = self.model_given(lake, self.model)
        result = nominate(
            lake,
            registry,
            model=model,
            alias=self.alias,
            reason=self.reason,
            expires_at=None if self.valid_for is None else as_of + self.valid_for,
            actor=actor_of(context),
            as_of=as_of,
        )
        self.link_model(registry, model.name, model.version, model.run_id, model.experiment_id)
        return self.hand_over(context, lake, result.decision, reused=result.reused, applied=result.applied)


class RetireAliasOperator(RegistryOperator):
    """Takes an alias away: it stands for nothing afterwards, in the ledger and in MLflow.

    :param model_name: the registered model.
    :param alias: the alias. A champion's may be retired too; who serves it has nothing to answer with then.
    :param reason: why; it stands in the ledger.
    :raises RegistryError: the alias stands for nothing already.

    Returns the record of the ledger entry, with ``applied`` and ``reused``.

    Example::

        RetireAliasOperator(task_id="end", model_name="late", alias="shadow", reason="compared")

    What it does not do: it deletes and blocks no version.
    """

    required = ("model_name", "alias", "reason")
    template_fields = (*RegistryOperator.template_fields, "model_name", "alias", "reason")
    operator_extra_links = (EvidenceLink(),)

    def __init__(self, *, model_name: str, alias: str, reason: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.alias = alias
        self.reason = reason

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.registry.nominate import retire

        lake, registry = self.lake(), self.registry()
        result = retire(
            lake,
            registry,
            model_name=self.model_name,
            alias=self.alias,
            reason=self.reason,
            actor=actor_of(context),
            as_of=now(),
        )
        return self.hand_over(context, lake, result.decision, reused=result.reused, applied=result.applied)
