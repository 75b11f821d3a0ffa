"""Operators around a question to people: showing the evidence before it, concluding after it.

For :mod:`airflow_provider_xops.operators.approval`, their public place.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.links.evidence import EvaluationReportLink, EvidenceLink, ModelCardLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink
from airflow_provider_xops.operators._approval_ask import Answer, people_asked
from airflow_provider_xops.operators._arguments import is_empty, mapping_of, whole_number
from airflow_provider_xops.operators._base import RegistryOperator, XOpsOperator, actor_of, now
from airflow_provider_xops.version_compat import AirflowSkipException, conf

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.version_compat import Context

__all__ = ["ConcludeApprovalOperator", "ShowEvidenceOperator"]


class ShowEvidenceOperator(RegistryOperator):
    """Makes the form that people are asked with, from what the lake holds of an evaluation.

    :param evaluation: the output of an ``EvaluateModelOperator`` or ``ChooseModelOperator``, or an
        evaluation's record id.
    :param gate_report: the output of a ``CheckGatesOperator`` for this evaluation; empty: the form names the
        gates that are asked at promotion.
    :param card: the output of a ``WriteModelCardOperator``; empty: the newest card of this version, if any.
    :param alias: what the version would become.
    :param people: how many must approve.
    :param timeout: how long people have, for the form's deadline; None: no deadline.
    :raises ArgumentError: the evaluation, or the gate report, is not in the evidence, or they are of two
        evaluations; the alias is none, or the evaluation was made for another one.

    Returns ``subject`` and ``body`` of the form, the ids of the records it shows (``evidence``), and its
    ``deadline``.

    What it does not do: it asks nobody.
    """

    required = ("evaluation", "alias", "people")
    template_fields = (
        *RegistryOperator.template_fields, "evaluation", "gate_report", "card", "alias", "people",
    )  # fmt: skip
    operator_extra_links = (EvaluationReportLink(), EvidenceLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        evaluation: Any,
        gate_report: Any = None,
        card: Any = None,
        alias: str = "champion",
        people: int | str = 1,
        timeout: timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation
        self.gate_report = gate_report
        self.card = card
        self.alias = alias
        self.people = people
        self.timeout = timeout

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.evaluation.approval_form import approval_form
        from airflow_provider_xops.registry import ledger
        from airflow_provider_xops.registry.aliases import check_alias
        from airflow_provider_xops.registry.loading import get_model
        from airflow_provider_xops.registry.promote import check_evaluation
        from airflow_provider_xops.registry.recorded import recorded

        check_alias(self.alias)
        lake, registry = self.lake(), self.registry()
        evaluation = recorded(
            lake,
            self.record(lake, self.evaluation, records.Evaluation, argument="evaluation"),
            argument="evaluation",
        )
        report = self._gate_report(lake, evaluation)
        of = evaluation.model
        model = get_model(lake, of.name, of.version, created_at_ms=of.created_at_ms)
        check_evaluation(evaluation, model, self.alias)
        smoke_test, card = _newest_smoke_test(lake, model), self._card(lake, model)
        people = whole_number(self.people, argument="people")
        deadline = None if self.timeout is None else now() + self.timeout
        now_there = ledger.current(lake, model.name, self.alias)
        self.evidence_uri, self.report_uri = lake.evidence.uri(evaluation), evaluation.report_uri
        self.link_model(registry, model.name, model.version, model.run_id, model.experiment_id)
        form = approval_form(
            evaluation,
            model=model,
            alias=self.alias,
            gate_report=report,
            smoke_test=smoke_test,
            champion_now=now_there.to_version if now_there else None,
            inputs=_other_inputs(lake, model, now_there),
            people=people or 1,
            deadline=deadline,
            links=self._links(registry, model, card),
        )
        self.log.info("%s", form.subject)
        shown: tuple[records.Record | None, ...] = (evaluation, report, smoke_test, card)
        return {
            "subject": form.subject,
            "body": form.body,
            "alias": self.alias,
            "evaluation": evaluation.record_id,
            "evidence": [record.record_id for record in shown if record is not None],
            "deadline": None if deadline is None else deadline.isoformat(),
        }

    def _gate_report(self, lake: Lake, evaluation: records.Evaluation) -> records.GateReport | None:
        from airflow_provider_xops.registry.recorded import recorded

        if is_empty(self.gate_report):
            return None
        given = self.record(lake, self.gate_report, records.GateReport, argument="gate_report")
        report = recorded(lake, given, argument="gate_report")
        if report.evaluation != evaluation.record_id:
            raise ArgumentError(
                f"the gate report is of evaluation {report.evaluation}, shown is {evaluation.record_id}",
                code="argument.gate_report",
                todo="pass the report that was made of this evaluation",
            )
        return report

    def _card(self, lake: Lake, model: records.ModelVersion) -> records.ModelCard | None:
        if not is_empty(self.card):
            return self.record(lake, self.card, records.ModelCard, argument="card")
        found = [
            one
            for one in lake.evidence.all(records.ModelCard.kind)
            if isinstance(one, records.ModelCard) and one.model == model.ref
        ]
        return max(found, key=lambda one: one.recorded_at, default=None)

    def _links(
        self, registry: RegistryClient, model: records.ModelVersion, card: records.ModelCard | None
    ) -> list[tuple[str, str]]:
        pages = [
            ("evaluation report", _page(self, EvaluationReportLink(), report_uri=self.report_uri)),
            ("model card", _page(self, ModelCardLink(), report_uri=card.report_uri) if card else ""),
            ("record of the evaluation", _page(self, EvidenceLink(), evidence_uri=self.evidence_uri)),
            ("version in MLflow", registry.version_url(model.name, model.version)),
        ]
        return [(words, address) for words, address in pages if address]


class ConcludeApprovalOperator(XOpsOperator):
    """Says what the answers of the people who were asked come to, and records it.

    It runs however the questions ended (its trigger rule is ``all_done``). *Rejected*: somebody refuses the
    version. *Approved*: ``people`` different people approve. *Expired*: everything else, so silence, a failed
    question and one person's two answers are all a no.

    :param evaluation: what people were asked about, as it was given to ``ShowEvidenceOperator``.
    :param form: the output of ``ShowEvidenceOperator``.
    :param answers: the outputs of the ``AskApprovalOperator`` tasks, in a list; an answer that is missing
        counts for nothing.
    :param alias: what the version would become.
    :param people: how many different people must approve.
    :param approvers: who could answer.
    :param request: the name of this request within the run; default: the task's group.
    :param trainer_counts: whether the word of whoever trained the model counts.

    Returns the record of the approval's result, for ``PromoteModelOperator(approval=...)``. Its asset event
    is emitted only if it was approved.

    What it does not do: it promotes nothing. Nor does it make an approval out of anything but words that this
    group's own questions wrote into the evidence.
    """

    required = ("evaluation", "alias", "people")
    template_fields = (
        *XOpsOperator.template_fields, "evaluation", "form", "answers", "alias", "people", "approvers",
    )  # fmt: skip
    operator_extra_links = (EvidenceLink(),)

    def __init__(
        self,
        *,
        evaluation: Any,
        form: Any,
        answers: Sequence[Any],
        alias: str = "champion",
        people: int | str = 1,
        approvers: Sequence[Any] | str = (),
        request: str = "",
        trainer_counts: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("trigger_rule", "all_done")
        super().__init__(**kwargs)
        self.evaluation = evaluation
        self.form = form
        self.answers = answers
        self.alias = alias
        self.people = people
        self.approvers = approvers
        self.request = request
        self.trainer_counts = trainer_counts

    def execute(self, context: Context) -> dict[str, Any]:
        # Before the arguments are looked at: where what comes before was skipped, they are empty.
        if is_empty(self.form):
            self._leave_if_skipped(context)
        return super().execute(context)

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.registry.approval_results import conclude
        from airflow_provider_xops.registry.loading import get_model
        from airflow_provider_xops.registry.recorded import recorded

        if is_empty(self.form):
            raise ArgumentError(
                f"nobody was asked before task {self.task_id}", code="argument.empty",
                why="the task that shows the evidence has not succeeded",
                todo="look at its log, clear it, and what follows runs again",
            )  # fmt: skip
        form = mapping_of(self.form, argument="form")
        lake = self.lake()
        evaluation = recorded(
            lake,
            self.record(lake, self.evaluation, records.Evaluation, argument="evaluation"),
            argument="evaluation",
        )
        if form.get("evaluation") != evaluation.record_id:
            raise ArgumentError(
                f"people were shown evaluation {form.get('evaluation')}, asked about is"
                f" {evaluation.record_id}",
                code="argument.form",
                todo="clear the whole group, so that people are asked again",
            )
        if form.get("alias") != self.alias:
            raise ArgumentError(
                f"people were asked about {form.get('alias')}, the result would be about {self.alias}",
                code="argument.form",
                todo="give the same alias to all tasks of one request",
            )
        of = evaluation.model
        model = get_model(lake, of.name, of.version, created_at_ms=of.created_at_ms)
        actor, group = actor_of(context), self.task_id.rpartition(".")[0] or self.task_id
        producer = actor.producer
        answers = [Answer.of(given) for given in self.answers or ()]
        heard = [answer for answer in answers if answer is not None]
        result = conclude(
            lake,
            model,
            evaluation=evaluation.record_id,
            alias=self.alias,
            request=_request(f"{producer.dag_id}/{producer.run_id}/{self.request or group}", answers),
            people=whole_number(self.people, argument="people") or 0,
            asked=[person["id"] for person in people_asked(self.approvers)],
            words=[answer.word for answer in heard if answer.word and self._is_ours(lake, answer, context)],
            trainer_counts=self.trainer_counts,
            unanswered=_unanswered(answers),
            deadline=datetime.fromisoformat(form["deadline"]) if form.get("deadline") else None,
            actor=actor,
            as_of=now(),
        )
        return self.hand_over(context, lake, result, emit=result.status is records.ApprovalStatus.APPROVED)

    def _is_ours(self, lake: Lake, answer: Answer, context: Context) -> bool:
        """Whether a word was written by a question of this run about this evaluation.

        An XCom can be edited by whoever may edit XComs; the evidence cannot.
        """
        ti: Any = context["ti"]
        evaluation = mapping_of(self.form, argument="form")["evaluation"]
        try:
            word = lake.evidence.get(records.Approval.kind, str(answer.word))
        except (NotFoundError, ArgumentError):
            word = None
        if isinstance(word, records.Approval) and evaluation in word.evidence:
            by = word.produced_by
            here = (by.kind, by.dag_id, by.run_id) == (records.ActorKind.SERVICE, ti.dag_id, ti.run_id)
            if here and by.task_id in self.upstream_task_ids:
                return True
        self.log.warning("Word %s was not said in answer to this request: not counted.", answer.word)
        return False

    def _leave_if_skipped(self, context: Context) -> None:
        """Be skipped where the form's task was: there was nothing to ask about."""
        ti: Any = context["ti"]
        before = sorted(name for name in self.upstream_task_ids if name.endswith("show_evidence"))
        if not before or not hasattr(ti, "get_task_states"):
            return
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=before, run_ids=[ti.run_id])
        found = [str(state) for state in states.get(ti.run_id, {}).values()]
        if found and all(state.endswith("skipped") for state in found):
            raise AirflowSkipException("there was nothing to ask about: what comes before was skipped")


def _newest_smoke_test(lake: Lake, model: records.ModelVersion) -> records.SmokeTest | None:
    found = [
        one
        for one in lake.evidence.all(records.SmokeTest.kind)
        if isinstance(one, records.SmokeTest)
        and one.model == model.ref
        and one.artifact_digest == model.artifact_digest
    ]
    return max(found, key=lambda one: one.recorded_at, default=None)


def _other_inputs(lake: Lake, model: records.ModelVersion, champion: records.PromotionDecision | None) -> str:
    """How a version's columns differ from those of the one that answers; empty if they do not."""
    from airflow_provider_xops.registry.inputs import other_inputs
    from airflow_provider_xops.registry.loading import model_of

    if champion is None:
        return ""
    try:
        others = other_inputs(model, model_of(lake, champion))
    except NotFoundError:
        return ""
    return others.how if others is not None else ""


def _page(operator: XOpsOperator, link: Any, **uris: str | None) -> str:
    """The address of a page of the lake, whole where Airflow knows its own."""
    path = link.get_link(SimpleNamespace(lake_conn_id=operator.lake_conn_id, **uris), ti_key=None)
    base = urlsplit(conf.get("api", "base_url", fallback="") or "")
    return f"{base.scheme}://{base.netloc}{path}" if path and base.netloc else str(path)


def _request(name: str, answers: Sequence[Answer | None]) -> str:
    """The request with its round: questions that were cleared and asked again are another one."""
    return f"{name}#{'.'.join(str(answer.round) if answer else '-' for answer in answers)}"


def _unanswered(answers: Sequence[Answer | None]) -> list[str]:
    """Why questions have no word, one remark for each reason."""
    reasons = [
        "a question was not asked or has failed" if answer is None else answer.why
        for answer in answers
        if answer is None or not answer.word
    ]
    return list(dict.fromkeys(reasons))
