"""The operator that writes a model's card.

For :mod:`airflow_provider_xops.operators.model`, their public place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.links.evidence import EvidenceLink, ModelCardLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_provider_xops.operators._arguments import list_of
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now, resolved

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = ["WriteModelCardOperator"]


class WriteModelCardOperator(RegistryOperator):
    """Writes the card of a model version from its records: into the lake, onto its MLflow run and version.

    :param model: which version: the output of a training, evaluation, smoke test, reproduction, gate check or
        promotion, or a model record's id.
    :param intended_use: what the model is for, and what not: plain text, an empty line between paragraphs.
    :param limits: when not to trust it, likewise.
    :param contacts: who answers for it: a list, or JSON text of one.
    :raises NotFoundError: the lake has no record of the version, or MLflow has not got it any more.
    :raises ArgumentError: ``argument.model``: a decision that left an alias without a version.

    Returns the record of the card. The task links to its page.

    Example::

        WriteModelCardOperator(
            task_id="card",
            model=promote.output,
            intended_use="Which flights to call ahead about.",
            limits="Not for pricing; nothing is known about airports outside New York.",
            contacts=["ml-team@example.org"],
        )

    What it does not do: it measures nothing. What has no record is named as missing.
    """

    required = ("model",)
    template_fields = (*RegistryOperator.template_fields, "model", "intended_use", "limits", "contacts")
    operator_extra_links = (ModelCardLink(), EvidenceLink(), MlflowRunLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        model: Any,
        intended_use: str = "",
        limits: str = "",
        contacts: Sequence[str] | str = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.intended_use = intended_use
        self.limits = limits
        self.contacts = contacts

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.evaluation.card import write_card

        lake, registry = self.lake(), self.registry()
        model = self._version(lake)
        card = write_card(
            lake,
            registry,
            model,
            intended_use=self.intended_use,
            limits=self.limits,
            contacts=list_of(self.contacts, argument="contacts") or (),
            actor=actor_of(context),
            as_of=now(),
        )
        self.report_uri = card.report_uri
        self.link_model(registry, model.name, model.version, model.run_id, model.experiment_id)
        self.log.info("Wrote the card of %s: %s", model.ref, card.report_uri)
        return self.hand_over(context, lake, card)

    def _version(self, lake: Lake) -> records.ModelVersion:
        from airflow_provider_xops.registry.loading import get_model

        given = self.model
        kind = given.get("kind") if isinstance(given, Mapping) else getattr(given, "kind", None)
        if kind == records.PromotionDecision.kind:
            decision = resolved(lake, given, kind, argument="model")
            assert isinstance(decision, records.PromotionDecision)
            if decision.to_version is None:
                raise ArgumentError(
                    f"the decision about {decision.model} names no version", code="argument.model",
                    why=f"after it the alias {decision.alias} stood on none",
                    todo="give the output of the task that made the model",
                )  # fmt: skip
            return get_model(
                lake, decision.model, decision.to_version, created_at_ms=decision.to_created_at_ms
            )
        # What tasks before this one hand over; each of these names one model version.
        for record_type in (
            records.Evaluation,
            records.SmokeTest,
            records.Reproduction,
            records.GateReport,
        ):
            if kind == record_type.kind:
                of: Any = resolved(lake, given, kind, argument="model")
                ref = of.model
                return get_model(lake, ref.name, ref.version, created_at_ms=ref.created_at_ms)
        return self.record(lake, given, records.ModelVersion, argument="model")
