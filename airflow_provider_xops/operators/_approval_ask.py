"""The operator that asks one person: Airflow's own approval, whose answer becomes a word in the evidence.

For :mod:`airflow_provider_xops.operators.approval`, its public place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError, UnavailableError, XOpsError
from airflow_provider_xops.hooks.lake import LakeHook
from airflow_provider_xops.operators._approval_people import Answer, people_asked
from airflow_provider_xops.operators._arguments import is_empty, mapping_of, number, one_of
from airflow_provider_xops.operators._base import actor_of, as_airflow_error, now
from airflow_provider_xops.version_compat import AirflowSkipException, response_timeout_argument

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.records import Approval
    from airflow_provider_xops.version_compat import Context

__all__ = ["Answer", "AskApprovalOperator", "people_asked"]

# A word that cannot be written is said in vain: the lake may be away for about a minute.
RECORD_PAUSES_S = (1, 2, 4, 8, 15, 30)
ANSWER_KEY = "xops_answer"
REASON = "reason"
REASON_LIMIT = 1_000
# Airflow itself looks only now and then whether the time is over, and the task needs some to begin.
LATE_S = 60


class AskApprovalOperator(ApprovalOperator):
    """Asks one person whether a model version may be promoted, in Airflow's UI or through its REST API.

    Whoever answers is signed in to Airflow, and their word is written into the lake's evidence before
    anything else happens: who, what, why, when, on which records. No answer within ``response_timeout`` is
    nobody's word, and neither is an approval that Airflow took later than that; a refusal counts whenever it
    comes. Neither a no nor silence fails the task or skips what follows: what the answers come to is for
    ``ConcludeApprovalOperator``.

    :param form: the output of a ``ShowEvidenceOperator``: what is shown.
    :param approvers: ids of the Airflow users who may answer, or mappings with ``id`` and ``name``; empty:
        anybody who may edit the DAG's runs. Whoever answers without being among them has not answered.
    :param role: the function in which the person speaks, such as ``risk``.
    :param valid_for: how long an approval counts: a timedelta, or seconds; None: for good. A refusal stands
        until that person approves.
    :param person_by: what names the person: their ``id``, or their ``name``, for auth managers whose ids say
        nothing to people.
    :param before: outputs of questions asked before this one: somebody's no, or silence, ends the asking, and
        whoever has answered is not asked again.
    :param lake_conn_id: the Airflow connection of the lake.
    :param response_timeout: how long the question waits; None: for ever.
    :param retries: how often a question whose task has failed is asked again. Neither a no nor silence is a
        failure.
    :param subject: the headline; empty: the form's. :param body: the text in Markdown, likewise.

    Further arguments are those of Airflow's ``ApprovalOperator``, ``notifiers`` for example; one that fails
    does not keep the question from being asked. Its ``defaults`` is always ``Reject``.

    Returns the answer: ``person``, ``approved``, ``word`` (id of the record), ``why`` there is none.

    Example::

        AskApprovalOperator(task_id="ask", form=show.output, approvers=["ana"])

    What it does not do: an answered question is not asked again by a retry, but is by a clear. On Airflow
    3.1 and 3.2, which keep no state between attempts, also by a retry, where the lake was away for more than
    a minute when the answer came.
    """

    template_fields: Sequence[str] = (
        "form", "approvers", "role", "before", "lake_conn_id", "subject", "body",
    )  # fmt: skip
    ui_color = "#e8f1ee"

    def __init__(
        self,
        *,
        form: Any,
        approvers: Sequence[Any] | str = (),
        role: str = "",
        valid_for: timedelta | float | None = None,
        person_by: Literal["id", "name"] = "id",
        before: Sequence[Any] = (),
        lake_conn_id: str = LakeHook.default_conn_name,
        response_timeout: timedelta | None = None,
        retries: int = 2,
        subject: str = "",
        body: str | None = None,
        **kwargs: Any,
    ) -> None:
        # What is here came from the DAG's own params, which are no fields of this form.
        kwargs.pop("params", None)
        super().__init__(
            subject=subject,
            body=body,
            retries=retries,
            params={REASON: _reason_field()},
            defaults=ApprovalOperator.REJECT,
            **response_timeout_argument(HITLOperator, response_timeout),
            **kwargs,
        )
        self.params = ParamsDict({REASON: self.params.get_param(REASON)})
        self.form = form
        self.approvers = approvers
        self.role = role
        self.valid_for = valid_for
        self.person_by = person_by
        self.before = before
        self.lake_conn_id = lake_conn_id

    def execute(self, context: Context) -> Any:
        """Ask, unless an attempt before this one has heard the answer and could not write it down."""
        try:
            # Before anybody is asked in vain.
            _duration(self.valid_for)
            self._wait()
            form = self._form()
            heard = self._remembered(context)
            if heard is not None:
                return self._record(context, heard)
            asked: Any = self._asked_now()
        except XOpsError as error:
            raise as_airflow_error(error) from error
        self.subject = self.subject or str(form["subject"])
        self.body = self.body or str(form["body"])
        self.assigned_users = asked or None
        notifiers: Any = [_told(notifier, self.log.warning) for notifier in self.notifiers]
        self.notifiers = notifiers
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Write the person's word down; called by Airflow when the question is over."""
        # Not ApprovalOperator's, which would skip what follows after a no: the ledger is to hear of it.
        given = HITLOperator.execute_complete(self, context, self._as_asked(event))
        try:
            answer = self._heard(context, given)
            self._remember(context, answer)
            return self._record(context, answer)
        except XOpsError as error:
            raise as_airflow_error(error) from error

    def _form(self) -> Mapping[str, Any]:
        one_of(self.person_by, ("id", "name"), argument="person_by")
        if is_empty(self.form):
            raise ArgumentError(
                f"form of task {self.task_id} is empty", code="argument.empty",
                why="the task it comes from was skipped or has failed",
                todo="pass the output of a ShowEvidenceOperator",
            )  # fmt: skip
        return mapping_of(self.form, argument="form")

    def _asked_now(self) -> list[dict[str, str]]:
        """Whom to ask: without those who have answered already.

        :raises AirflowSkipException: a question before has not been answered with a yes.
        """
        from airflow_provider_xops.registry.approvals import person_key

        asked = people_asked(self.approvers)
        if not self.before:
            return asked
        earlier = [Answer.of(given) for given in self.before]
        heard = [answer for answer in earlier if answer is not None and answer.word and answer.approved]
        if len(heard) < len(earlier):
            raise AirflowSkipException("nobody else is asked: a question before was not answered with a yes")
        spoken = {person_key(answer.person or "") for answer in heard}
        left = [one for one in asked if not {person_key(one["id"]), person_key(one["name"])} & spoken]
        if asked and not left:
            raise AirflowSkipException("nobody else is left to be asked")
        return left

    def _as_asked(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event with the form's own fields alone: one too many, or too long, does not undo an answer."""
        if "error" in event:
            return event
        given = event.get("params_input") or {}
        return {**event, "params_input": {REASON: _text(given.get(REASON))[:REASON_LIMIT]}}

    def _heard(self, context: Context, given: Mapping[str, Any]) -> dict[str, Any]:
        """The answer as plain values: who, what, why, when, and whether the time for it was over."""
        user = given.get("responded_by_user")
        at = given.get("responded_at") or now()
        moment = datetime.fromisoformat(at) if isinstance(at, str) else at
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        # The API server's clock may be ahead of this machine's.
        moment = min(moment, now())
        return {
            "id": str(user["id"]) if user else None,
            "name": str(user["name"]) if user else None,
            "approved": list(given["chosen_options"]) == [self.APPROVE],
            "reason": _text((given.get("params_input") or {}).get(REASON)),
            "at": moment.isoformat(),
            "late": self._is_late(context, moment),
        }

    def _is_late(self, context: Context, answered: datetime) -> bool:
        """Whether the question's time was over. While its scheduler is away, Airflow takes answers all the
        same."""
        ti: Any = context["ti"]
        asked, wait = ti.start_date, self._wait()  # begun by the attempt that asked, not by what resumed it
        return bool(asked and wait and answered > asked + wait + timedelta(seconds=LATE_S))

    def _wait(self) -> timedelta | None:
        """How long the question waits; None: for ever."""
        wait: timedelta | None = getattr(self, "response_timeout", None)
        wait = wait if wait is not None else self.execution_timeout
        if wait is not None and wait <= timedelta(0):
            raise ArgumentError(
                f"response_timeout of task {self.task_id} is {wait}", code="argument.timeout",
                why="nobody could answer, and Airflow takes no time at all for all the time there is",
                todo="give a longer time, or None to wait for ever",
            )  # fmt: skip
        return wait

    def _record(self, context: Context, heard: Mapping[str, Any]) -> dict[str, Any]:
        ti: Any = context["ti"]
        person = heard["id"] if self.person_by == "id" else heard["name"]
        if person is None:
            self.log.info("Nobody answered in time: that is nobody's word.")
            why = "nobody answered in time"
            return asdict(Answer(word=None, person=None, approved=False, round=ti.try_number, why=why))
        if heard.get("late") and heard["approved"]:
            self.log.warning("%s approved when the time was over: that is a no.", person)
            why = f"{person} approved when the time was over"
            return asdict(Answer(word=None, person=person, approved=False, round=ti.try_number, why=why))
        asked = people_asked(self.approvers)
        if asked and _key(heard["id"]) not in {_key(one["id"]) for one in asked}:
            self.log.warning("%s answered and was not asked: that does not count.", person)
            why = f"{person} answered and was not asked"
            return asdict(Answer(word=None, person=person, approved=False, round=ti.try_number, why=why))
        word = self._write(context, person, heard)
        self._forget(context)
        return asdict(
            Answer(word=word.record_id, person=word.person, approved=word.approved, round=ti.try_number)
        )

    def _write(self, context: Context, person: str, heard: Mapping[str, Any]) -> Approval:
        from airflow_provider_xops.registry.approval_results import record_answer
        from airflow_provider_xops.registry.loading import get_model

        form, said_at = self._form(), datetime.fromisoformat(heard["at"])
        valid_for = _duration(self.valid_for)
        expires_at = said_at + valid_for if valid_for and heard["approved"] else None

        def write(lake: Lake) -> Approval:
            evaluation = lake.evidence.get(records.Evaluation.kind, str(form["evaluation"]))
            assert isinstance(evaluation, records.Evaluation)
            of = evaluation.model
            return record_answer(
                lake,
                get_model(lake, of.name, of.version, created_at_ms=of.created_at_ms),
                person=person,
                approved=heard["approved"],
                reason=heard["reason"],
                role="" if is_empty(self.role) else self.role,
                evidence=[str(record) for record in form["evidence"]],
                expires_at=expires_at,
                actor=_service(context),
                said_at=said_at,
                as_of=now(),
            )

        return self._patiently(write)

    def _patiently(self, write: Callable[[Lake], Approval]) -> Approval:
        for pause in (*RECORD_PAUSES_S, None):
            try:
                return write(LakeHook(self.lake_conn_id).get_lake())
            except UnavailableError as error:
                if pause is None:
                    raise
                self.log.warning("The answer is not written yet, trying again in %d s: %s", pause, error)
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    # Airflow 3.3 keeps values of a task from attempt to attempt, and over a clear, which asks anew: a clear
    # raises the number of attempts that are allowed.
    def _remember(self, context: Context, heard: Mapping[str, Any]) -> None:
        store = context.get("task_state_store")
        if store is not None and heard["id"] is not None:
            store.set(ANSWER_KEY, {**heard, "tries": _tries(context)})

    def _remembered(self, context: Context) -> dict[str, Any] | None:
        store = context.get("task_state_store")
        heard: Any = store.get(ANSWER_KEY) if store is not None else None
        if not isinstance(heard, Mapping) or heard.get("tries") != _tries(context):
            return None
        self.log.info("The question was answered before, and the answer is written down now.")
        return dict(heard)

    def _forget(self, context: Context) -> None:
        store = context.get("task_state_store")
        if store is not None:
            store.delete(ANSWER_KEY)


def _service(context: Context) -> records.Actor:
    """Airflow, which has signed the person in, speaking for them in this task."""
    task = actor_of(context)
    producer = records.Producer(
        kind=records.ActorKind.SERVICE, id=f"airflow:{task.producer.id}", dag_id=task.producer.dag_id,
        run_id=task.producer.run_id, task_id=task.producer.task_id, map_index=task.producer.map_index,
        try_number=task.producer.try_number,
    )  # fmt: skip
    return records.Actor(producer=producer, idempotency_key=task.idempotency_key, fence=task.fence)


def _reason_field() -> Param:
    return Param(
        "",
        type=["string", "null"],
        title="Reason",
        description="Why, in a sentence: it is recorded with your answer.",
        maxLength=REASON_LIMIT,
    )


def _told(notifier: Any, warn: Callable[..., None]) -> Callable[[Any], None]:
    """A notifier that cannot keep the question from being asked."""

    def tell(context: Any) -> None:
        try:
            notifier(context)
        except Exception as error:  # whatever a service of other people's does
            warn("A notifier failed, the question is asked all the same: %s", type(error).__name__)

    return tell


def _text(given: Any) -> str:
    # Airflow 3.1 gives a field's value inside its declaration.
    value = given.get("value") if isinstance(given, Mapping) else given
    return "" if value is None else str(value)


def _duration(given: timedelta | float | None) -> timedelta | None:
    found = given if isinstance(given, timedelta) else None
    if found is None and not is_empty(given):
        seconds = number(given, argument="valid_for")
        found = None if seconds is None else timedelta(seconds=seconds)
    if found is not None and found <= timedelta(0):
        raise ArgumentError(
            "an approval would never count", code="argument.valid_for",
            why="valid_for is not above zero", todo="give a longer time, or None for good",
        )  # fmt: skip
    return found


def _tries(context: Context) -> int:
    ti: Any = context["ti"]
    return int(getattr(ti, "max_tries", 0) or 0)


def _key(name: str) -> str:
    return name.strip().casefold()
