"""Operators that judge: evaluate a challenger, choose among several.

For :mod:`airflow_provider_xops.operators.model`, their public place.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_xops import records
from airflow_provider_xops.links.evidence import EvaluationReportLink, EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_provider_xops.operators._arguments import is_empty, list_of, mapping_of, optional, whole_number
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.operators._training import selection_of

if TYPE_CHECKING:
    from airflow_provider_xops.evaluation.plan import EvaluationPlan
    from airflow_provider_xops.version_compat import Context

__all__ = ["ChooseModelOperator", "EvaluateModelOperator"]

log = logging.getLogger(__name__)


class EvaluateModelOperator(RegistryOperator):
    """Scores a challenger and the present champion on the same held-out rows, measures them, asks the gates.

    :param model: the challenger: the output of a training task, or a model record's id.
    :param gates: such as ``{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.7}`` and ``{"gate":
        "better_than_champion", "metric": "roc_auc", "confidence": 0.95}``; or a policy: a YAML file, or a
        function by import path. Those that need other evidence than figures (a smoke test, an approval) are
        asked before promotion. Without gates nothing is promoted.
    :param plan: what is measured and how, as JSON: see
        :class:`~airflow_provider_xops.evaluation.plan.EvaluationPlan`. Gates add what they need.
    :param candidates: how many challengers compete, or the list of them: tests are corrected for it; takes
        the place of the plan's.
    :param alias: whose champion is the opponent. It stands in the record, and a promotion to another alias
        refuses the evaluation.
    :param holdout: other rows than the challenger's own holdout, as a ``Selection`` in JSON.
    :raises ModelError: a model cannot be loaded, or does not accept the rows.

    Returns the record of the evaluation.

    Example::

        EvaluateModelOperator(
            task_id="judge",
            model=train.output,
            gates=[{"gate": "better_than_champion", "metric": "roc_auc", "confidence": 0.95}],
            plan={"cluster": "__partition__", "slices": {"by": ["origin"]}},
        )

    What it does not do: it decides nothing. A failed gate is in the record, not an error.
    """

    required = ("model", "alias")
    user_code = ("gates",)
    template_fields = (
        *RegistryOperator.template_fields, "model", "gates", "plan", "candidates", "alias", "holdout",
    )  # fmt: skip
    operator_extra_links = (EvaluationReportLink(), EvidenceLink(), MlflowRunLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        model: Any,
        gates: Sequence[Mapping[str, Any]] | Mapping[str, Any] | str | Callable[[], Any] = (),
        plan: Mapping[str, Any] | str | None = None,
        candidates: int | str | Sequence[Any] | None = None,
        alias: str = "champion",
        holdout: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.gates = gates
        self.plan = plan
        self.candidates = candidates
        self.alias = alias
        self.holdout = holdout

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.evaluation.evaluate import evaluate
        from airflow_provider_xops.registry.loading import resolve_model

        gates, plan = _gates(self.gates), _plan(self.plan, self.candidates)
        lake, registry = self.lake(), self.registry()
        challenger = self.record(lake, self.model, records.ModelVersion, argument="model")
        evaluation = evaluate(
            lake,
            registry,
            challenger=challenger,
            champion=resolve_model(lake, challenger.name, alias=self.alias),
            alias=self.alias,
            holdout=selection_of(self.holdout, argument="holdout"),
            gates=gates,
            plan=plan,
            actor=actor_of(context),
            as_of=now(),
        )
        self.link_model(
            registry, challenger.name, challenger.version, challenger.run_id, challenger.experiment_id
        )
        self.report_uri = evaluation.report_uri
        tested = any(each.hypothesis for each in evaluation.comparisons)
        if tested and evaluation.plan.get("candidates") == 1 and _is_mapped(context):
            log.warning(
                "This task is mapped and its tests are corrected for one candidate. If one of several is"
                " chosen, say how many there are (candidates): the best of several looks better than it is."
            )
        return self.hand_over(context, lake, evaluation)


class ChooseModelOperator(RegistryOperator):
    """Chooses the best of several evaluated challengers, by rules fixed beforehand.

    Those that passed all gates come first, then the better figure, then the record's id.

    :param evaluations: the output of a mapped ``EvaluateModelOperator``, or a list of evaluations or of their
        record ids. All were judged on the same rows, against the same champion, under the same gates.
    :param metric: the figure that decides; empty: that of the first test, else a usual one of the task.
    :param alias: whose champion the best one would replace, where the evaluations do not say; a warning is
        logged if it has changed since.
    :raises ArgumentError: ``argument.evaluations``: they cannot be compared, or their tests were not
        corrected for so many candidates.

    Returns the record of the best one's evaluation, for the smoke test, the gates and the promotion.

    Example::

        judge = EvaluateModelOperator.partial(
            task_id="judge", gates=GATES, candidates="{{ params.candidates | length }}"
        ).expand(model=train.output)
        best = ChooseModelOperator(task_id="choose", evaluations=judge.output)

    What it does not do: it rejects nobody. If no challenger passed its gates the best of them is returned,
    and promotion holds it.
    """

    required = ("evaluations", "alias")
    template_fields = (*RegistryOperator.template_fields, "evaluations", "metric", "alias")
    operator_extra_links = (EvaluationReportLink(), EvidenceLink(), MlflowModelVersionLink())

    def __init__(
        self, *, evaluations: Any, metric: str | None = None, alias: str = "champion", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.evaluations = evaluations
        self.metric = metric
        self.alias = alias

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.evaluation.choose import choose, warn_if_superseded
        from airflow_provider_xops.registry.loading import resolve_model

        lake = self.lake()
        given = [
            self.record(lake, each, records.Evaluation, argument="evaluations")
            for each in list_of(self.evaluations, argument="evaluations") or ()
        ]
        choice = choose(given, metric=optional(self.metric))
        best = choice.best
        warn_if_superseded(best, resolve_model(lake, best.model.name, alias=best.alias or self.alias))
        self.link_model(self.registry(), best.model.name, best.model.version)
        self.report_uri = best.report_uri
        return self.hand_over(context, lake, best, candidates=len(choice.ranking), chosen_by=choice.metric)


def _is_mapped(context: Context) -> bool:
    index = context["ti"].map_index
    return index is not None and index >= 0


def _gates(given: Any) -> Any:
    """Gates, or a policy, as an argument or a template gives them."""
    if is_empty(given):
        return ()
    if isinstance(given, str):
        start = given.strip()[:1]
        if start == "{":
            return mapping_of(given, argument="gates")
        return list_of(given, argument="gates") if start in ("[", "(") else given.strip()
    return given if callable(given) or isinstance(given, Mapping) else list_of(given, argument="gates")


def _plan(given: Any, candidates: Any) -> EvaluationPlan:
    from airflow_provider_xops.evaluation.plan import plan_from

    plan = plan_from(None if is_empty(given) else mapping_of(given, argument="plan"))
    count = _count(candidates)
    return plan if count is None else dataclasses.replace(plan, candidates=count)


def _count(candidates: Any) -> int | None:
    if isinstance(candidates, int) and not isinstance(candidates, bool):
        return candidates
    if isinstance(candidates, str) and candidates.strip()[:1] not in ("[", "("):
        return whole_number(candidates, argument="candidates")
    found = list_of(candidates, argument="candidates")
    return None if found is None else len(found)
