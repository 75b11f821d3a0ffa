"""Asking people: what they are shown, whose answer counts, and that nothing but an answer does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators import _approval_ask
from airflow_provider_xops.operators.approval import (
    AskApprovalOperator,
    ConcludeApprovalOperator,
    ShowEvidenceOperator,
    approve_promotion,
)
from airflow_provider_xops.records import (
    ActorKind,
    ApprovalResult,
    ApprovalStatus,
    Evaluation,
    GateReport,
    ModelVersion,
    Outcome,
    SmokeTest,
)
from airflow_provider_xops.registry import approval_results
from airflow_provider_xops.registry.approvals import approve, words_on
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.version_compat import (
    AirflowFailException,
    AirflowSkipException,
    response_timeout_argument,
)
from tests.unit.operators.conftest import MakeContext
from tests.unit.registry.builders import AS_OF, a_model, a_recorded_evaluation, an_actor
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models

ANSWERED = datetime(2026, 1, 16, 8, 0, tzinfo=UTC)
ASK, RESULT = "approve.ask_1", "approve.result"


class Asked(BaseException):
    """Airflow parks the task here."""


@pytest.fixture(autouse=True)
def mlflow_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that nobody answers at: showing evidence asks MLflow nothing."""
    fields = {"conn_type": "xops_mlflow", "host": "http://127.0.0.1:9"}
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(fields))
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example:8443/base")


@pytest.fixture
def model(lake: Lake) -> ModelVersion:
    made = a_model()
    lake.evidence.put(made)
    return made


@pytest.fixture
def evaluation(lake: Lake, model: ModelVersion) -> Evaluation:
    return a_recorded_evaluation(lake, model)


@pytest.fixture
def form(evaluation: Evaluation, make_context: MakeContext) -> dict[str, Any]:
    show = ShowEvidenceOperator(task_id="show", evaluation=evaluation.record_id, timeout=timedelta(days=1))
    return show.execute(make_context(task_id="approve.show_evidence"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What Airflow was asked to show; the task stops where it would wait."""
    from airflow.providers.standard.operators import hitl

    shown: list[dict[str, Any]] = []

    def upsert(**given: Any) -> None:
        shown.append(given)

    monkeypatch.setattr(hitl, "upsert_hitl_detail", upsert)
    return shown


def ask(form: Any, **options: Any) -> AskApprovalOperator:
    options.setdefault("task_id", "ask_1")
    return AskApprovalOperator(form=form, **options)


def park(operator: AskApprovalOperator, context: dict[str, Any]) -> None:
    """Run until the task waits for people, whichever way this Airflow waits."""
    context["task_instance"] = SimpleNamespace(id="0" * 32)
    with pytest.raises(BaseException) as raised:
        operator.execute(context)
    assert type(raised.value).__name__ in ("TaskAwaitingInput", "TaskDeferred"), raised.value


def event(
    person: str | None = "ana", *, yes: bool = True, reason: str | None = "looks good", **changes: Any
) -> dict[str, Any]:
    return {
        "chosen_options": ["Approve" if yes else "Reject"],
        "params_input": {} if reason is None else {"reason": reason},
        "responded_at": ANSWERED,
        "responded_by_user": None if person is None else {"id": person, "name": f"{person} anders"},
        **changes,
    }


def answered(
    form: Any,
    make_context: MakeContext,
    *args: Any,
    task_id: str = ASK,
    options: Any = None,
    **event_changes: Any,
) -> dict[str, Any]:
    operator = ask(form, **(options or {}))
    found: dict[str, Any] = operator.execute_complete(
        make_context(task_id=task_id), event(*args, **event_changes)
    )
    return found


def conclude(
    form: Any, evaluation: Evaluation, context: dict[str, Any], *answers: Any, **options: Any
) -> dict[str, Any]:
    operator = ConcludeApprovalOperator(
        task_id=RESULT, evaluation=evaluation.record_id, form=form, answers=list(answers), **options
    )
    # As in a DAG: the questions are upstream.
    operator.upstream_task_ids |= {ASK, "approve.ask_2", "approve.show_evidence"}
    return operator.execute(context)


# -- showing ------------------------------------------------------------------------------------------------


def test_form_names_its_evidence_and_links_whole_addresses(
    lake: Lake, model: ModelVersion, evaluation: Evaluation, make_context: MakeContext
) -> None:
    test = SmokeTest(
        recorded_at=AS_OF, produced_by=an_actor().producer, model=model.ref,
        artifact_digest=model.artifact_digest, environment="current", server="s", outcome=Outcome.PASSED,
        checks=(), figures={}, settings_digest="s",
    )  # fmt: skip
    other = dataclasses.replace(test, artifact_digest="f" * 64, record_id="")
    for record in (test, other):
        lake.evidence.put(record)
    operator = ShowEvidenceOperator(
        task_id="show", evaluation=evaluation.to_json(), people="2", timeout=timedelta(hours=3)
    )

    form = operator.execute(make_context())

    assert form["subject"] == "Promote late v1 to champion?"
    assert form["evidence"] == [evaluation.record_id, test.record_id]
    assert datetime.fromisoformat(form["deadline"]) > datetime.now(UTC)
    assert "2 different people must approve by" in form["body"]
    record = f"/xops/lakes/xops_lake_default/evidence/evaluations/{evaluation.record_id}"
    assert f"[record of the evaluation](<https://airflow.example:8443/base{record}>)" in form["body"]
    assert "[version in MLflow](<http://127.0.0.1:9/#/models/late/versions/1>)" in form["body"]
    assert operator.version_url == "http://127.0.0.1:9/#/models/late/versions/1"
    assert len(json.dumps(form)) < 16_384


def test_evaluation_that_the_lake_does_not_hold_is_not_shown(
    model: ModelVersion, evaluation: Evaluation, make_context: MakeContext
) -> None:
    made_up = dataclasses.replace(evaluation, gates_digest="other", record_id="").to_json()

    with pytest.raises(AirflowFailException, match=r"argument\.evaluation"):
        ShowEvidenceOperator(task_id="show", evaluation=made_up).execute(make_context())


def test_gate_report_of_another_evaluation_is_not_shown(
    lake: Lake, model: ModelVersion, evaluation: Evaluation, make_context: MakeContext
) -> None:
    report = GateReport(
        recorded_at=AS_OF, produced_by=an_actor().producer, model=model.ref, evaluation="0" * 32, policy="p",
        policy_digest="d", outcome=Outcome.PASSED, results=(),
    )  # fmt: skip
    lake.evidence.put(report)

    with pytest.raises(AirflowFailException, match=r"argument\.gate_report"):
        ShowEvidenceOperator(
            task_id="show", evaluation=evaluation.record_id, gate_report=report.to_json()
        ).execute(make_context())


def test_nobody_is_asked_about_an_evaluation_for_another_alias(
    lake: Lake, evaluation: Evaluation, make_context: MakeContext
) -> None:
    other = dataclasses.replace(evaluation, alias="champion-eu", record_id="")
    lake.evidence.put(other)

    with pytest.raises(AirflowFailException, match=r"argument\.evaluation.*evaluated for champion-eu"):
        ShowEvidenceOperator(task_id="show", evaluation=other.record_id).execute(make_context())
    shown = ShowEvidenceOperator(task_id="show", evaluation=other.record_id, alias="champion-eu")
    assert shown.execute(make_context())["evaluation"] == other.record_id


def test_people_are_told_of_columns_that_are_not_the_champions(lake: Lake, make_context: MakeContext) -> None:
    (champion,) = recorded_models(lake, 1)
    takes = ("a", "b", "rain_*mm*")
    wider = dataclasses.replace(
        champion, version=2, created_at_ms=1002, features=takes, artifact_digest="e" * 64, record_id=""
    )
    same = dataclasses.replace(
        champion, version=3, created_at_ms=1003, artifact_digest="d" * 64, record_id=""
    )
    promote(
        lake, FakeRegistry(), model=champion, expected=None, evaluation=a_recorded_evaluation(lake, champion),
        actor=an_actor("first"), as_of=AS_OF,
    )  # fmt: skip

    def shown(model: ModelVersion) -> str:
        lake.evidence.put(model)
        evaluation = a_recorded_evaluation(lake, model, champion)
        show = ShowEvidenceOperator(task_id="show", evaluation=evaluation.record_id)
        body: str = show.execute(make_context())["body"]
        return body

    assert r"Its columns are not those of v1: it needs rain\_\*mm\*: requests as they come" in shown(wider)
    assert "columns" not in shown(same)


def test_nobody_is_asked_about_what_cannot_be_an_alias(
    evaluation: Evaluation, make_context: MakeContext
) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.alias"):
        ShowEvidenceOperator(task_id="show", evaluation=evaluation.record_id, alias="v3").execute(
            make_context()
        )


# -- asking -------------------------------------------------------------------------------------------------


def test_question_shows_the_form_to_those_who_may_answer(
    form: dict[str, Any], make_context: MakeContext, asked: list[dict[str, Any]]
) -> None:
    operator = ask(form, approvers=["ana", {"id": "7", "name": "Bob"}], response_timeout=timedelta(hours=1))

    park(operator, make_context(task_id=ASK))

    (shown,) = asked
    assert (shown["subject"], shown["body"]) == (form["subject"], form["body"])
    assert shown["options"] == ["Approve", "Reject"]
    # silence is a no
    assert shown["defaults"] == ["Reject"]
    assert shown["assigned_users"] == [{"id": "ana", "name": "ana"}, {"id": "7", "name": "Bob"}]
    assert list(shown["params"]) == ["reason"]


def test_yes_becomes_the_word_of_who_is_signed_in(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext
) -> None:
    found = answered(form, make_context, options={"role": "risk", "valid_for": timedelta(days=2)})

    (word,) = words_on(lake, model)
    assert (word.person, word.approved, word.reason, word.role) == ("ana", True, "looks good", "risk")
    assert (word.recorded_at, word.expires_at) == (ANSWERED, ANSWERED + timedelta(days=2))
    assert list(word.evidence) == form["evidence"]
    producer = word.produced_by
    assert (producer.kind, producer.dag_id, producer.task_id) == (ActorKind.SERVICE, "dag", ASK)
    assert found == {"word": word.record_id, "person": "ana", "approved": True, "round": 1, "why": ""}


def test_no_is_a_word_too_and_never_expires(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext
) -> None:
    found = answered(form, make_context, yes=False, options={"valid_for": 60})

    (word,) = words_on(lake, model)
    assert (word.approved, word.expires_at, found["approved"]) == (False, None, False)


def test_answer_is_written_again_by_nobody(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext
) -> None:
    assert answered(form, make_context) == answered(form, make_context)
    assert len(words_on(lake, model)) == 1


@pytest.mark.parametrize("given", [None, {"reason": None}, {"other": 1}, {"reason": {"value": " "}}])
def test_answer_without_a_reason_is_an_answer(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext, given: Any
) -> None:
    answered(form, make_context, params_input=given)

    assert words_on(lake, model)[0].reason == "no reason given"


def test_reason_longer_than_the_form_allows_is_cut(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext
) -> None:
    answered(form, make_context, reason="x" * 3000)

    assert words_on(lake, model)[0].reason == "x" * 1000


def test_silence_is_nobodys_word(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext
) -> None:
    found = answered(form, make_context, None, yes=False, timedout=True)

    assert words_on(lake, model) == []
    assert (found["word"], found["person"], found["why"]) == (None, None, "nobody answered in time")


def test_default_of_a_question_that_was_changed_to_yes_is_nobodys_word(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext
) -> None:
    assert answered(form, make_context, None, yes=True)["word"] is None
    assert words_on(lake, model) == []


@pytest.mark.parametrize(
    ("minutes", "yes", "counts"), [(59, True, True), (60 * 5, True, False), (60 * 5, False, True)]
)
def test_yes_that_airflow_took_when_the_time_was_over_is_a_no(
    lake: Lake, model: ModelVersion, evaluation: Evaluation, form: dict[str, Any], make_context: MakeContext,
    minutes: int, yes: bool, counts: bool,
) -> None:  # fmt: skip
    """Its API takes answers while its scheduler, which ends the question, is away."""
    context = make_context(task_id=ASK)
    at = context["ti"].start_date + timedelta(minutes=minutes)

    found = ask(form, response_timeout=timedelta(hours=1)).execute_complete(
        context, event(yes=yes, responded_at=at)
    )

    assert [word.approved for word in words_on(lake, model)] == ([yes] if counts else [])
    result = conclude(form, evaluation, make_context(task_id=RESULT), found)
    assert result["status"] == ("rejected" if not yes else "approved" if counts else "expired")
    assert ("ana approved when the time was over" in result["reason"]) == (not counts)


def test_answer_that_is_none_is_an_argument_and_no_accident(
    form: dict[str, Any], evaluation: Evaluation, make_context: MakeContext
) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.answers"):
        conclude(form, evaluation, make_context(task_id=RESULT), {"word": "w", "person": "ana"})


def test_who_was_not_asked_has_not_answered(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext
) -> None:
    # given an auth manager that lets everybody answer
    found = answered(form, make_context, "eve", options={"approvers": ["ana"]})

    assert words_on(lake, model) == []
    assert (found["word"], found["why"]) == (None, "eve answered and was not asked")


def test_ledger_may_name_people_by_name(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext
) -> None:
    answered(form, make_context, "7", options={"approvers": ["7"], "person_by": "name"})

    assert words_on(lake, model)[0].person == "7 anders"


def test_no_skips_nothing(form: dict[str, Any], make_context: MakeContext) -> None:
    class Downstream(AskApprovalOperator):
        def skip(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("what follows is skipped")

    operator = Downstream(task_id="ask_1", form=form)
    operator.downstream_task_ids.add("approve.result")

    assert operator.execute_complete(make_context(task_id=ASK), event(yes=False))["approved"] is False


def test_failing_notifier_does_not_keep_the_question_back(
    form: dict[str, Any], make_context: MakeContext, asked: list[dict[str, Any]]
) -> None:
    told: list[str] = []

    def broken(context: Any) -> None:
        raise ConnectionError("no mail today")

    def works(context: Any) -> None:
        told.append(context["ti"].task_id)

    notifiers: Any = [broken, works]
    park(ask(form, notifiers=notifiers), make_context(task_id=ASK))

    assert (len(asked), told) == (1, [ASK])


class Store(dict[str, Any]):
    """What Airflow 3.3 keeps of a task over its attempts."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


@pytest.fixture
def silent_lake(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A lake that is away; gives the attempts to write, which end when one is appended below zero."""
    attempts: list[int] = []
    real = approval_results.record_answer

    def away(*args: Any, **kwargs: Any) -> Any:
        attempts.append(len(attempts))
        if attempts[0] < 0:
            return real(*args, **kwargs)
        raise UnavailableError("the storage did not answer", code="unavailable.storage")

    monkeypatch.setattr(approval_results, "record_answer", away)
    monkeypatch.setattr(_approval_ask.time, "sleep", lambda seconds: None)
    return attempts


def test_answer_waits_for_the_lake_and_is_not_asked_for_again(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext,
    asked: list[dict[str, Any]], silent_lake: list[int],
) -> None:  # fmt: skip
    # given an answer that came while the lake was away for longer than the task waits
    store = Store()
    first = make_context(task_id=ASK) | {"task_state_store": store}
    with pytest.raises(Exception, match=r"unavailable\.storage"):
        ask(form).execute_complete(first, event())
    assert len(silent_lake) == len(_approval_ask.RECORD_PAUSES_S) + 1

    # when the task is tried again, and the lake is back
    silent_lake.insert(0, -1)
    found = ask(form).execute(make_context(task_id=ASK, try_number=2) | {"task_state_store": store})

    # then the word is written as it was said, nobody was asked, and nothing is kept
    (word,) = words_on(lake, model)
    assert (word.person, word.recorded_at, found["word"]) == ("ana", ANSWERED, word.record_id)
    assert (asked, store) == ([], {})


def test_cleared_question_is_asked_again(
    form: dict[str, Any], make_context: MakeContext, asked: list[dict[str, Any]], silent_lake: list[int]
) -> None:
    store = Store()
    with pytest.raises(Exception, match=r"unavailable\.storage"):
        ask(form).execute_complete(make_context(task_id=ASK) | {"task_state_store": store}, event())

    cleared = make_context(task_id=ASK, try_number=2) | {"task_state_store": store}
    cleared["ti"].max_tries = 1
    park(ask(form), cleared)

    assert len(asked) == 1


def test_in_turn_the_next_is_asked_without_those_who_answered(
    form: dict[str, Any], make_context: MakeContext, asked: list[dict[str, Any]]
) -> None:
    first = answered(form, make_context, "ana")

    park(ask(form, approvers=["ana", "bob"], before=[first]), make_context(task_id="approve.ask_2"))

    assert asked[0]["assigned_users"] == [{"id": "bob", "name": "bob"}]


@pytest.mark.parametrize("first", ["no", "silence", "nothing"])
def test_in_turn_nobody_is_asked_after_a_no(
    form: dict[str, Any], make_context: MakeContext, asked: list[dict[str, Any]], first: str
) -> None:
    before = {
        "no": lambda: answered(form, make_context, yes=False),
        "silence": lambda: answered(form, make_context, None, yes=False),
        "nothing": lambda: None,
    }[first]()

    with pytest.raises(AirflowSkipException):
        ask(form, before=[before]).execute(make_context())
    assert asked == []


def test_question_without_a_form_is_not_asked(make_context: MakeContext) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.empty"):
        ask(None).execute(make_context())


# -- concluding ---------------------------------------------------------------------------------------------


def test_result_of_two_peoples_approval(
    lake: Lake, evaluation: Evaluation, form: dict[str, Any], make_context: MakeContext
) -> None:
    answers = [
        answered(form, make_context, "ana"),
        answered(form, make_context, "bob", task_id="approve.ask_2"),
    ]

    found = conclude(
        form, evaluation, make_context(task_id=RESULT), *answers, people="2", approvers="['ana', 'bob']"
    )

    assert (found["status"], found["reason"]) == ("approved", "approved by ana, bob")
    assert (found["asked"], found["required"]) == (["ana", "bob"], 2)
    assert found["request"] == "dag/run_1/approve#1.1"
    assert found["deadline"] == form["deadline"]
    recorded = lake.evidence.get(ApprovalResult.kind, found["record_id"])
    assert isinstance(recorded, ApprovalResult)
    assert recorded.produced_by.kind is ActorKind.TASK


def test_question_that_failed_answers_nothing(
    evaluation: Evaluation, form: dict[str, Any], make_context: MakeContext
) -> None:
    found = conclude(
        form, evaluation, make_context(task_id=RESULT), answered(form, make_context), None, people=2
    )

    assert found["status"] == "expired"
    assert found["reason"] == "approved by 1 of 2 (ana); a question was not asked or has failed"
    assert found["request"].endswith("#1.-")


def test_word_that_this_request_did_not_ask_for_does_not_count(
    lake: Lake, model: ModelVersion, evaluation: Evaluation, form: dict[str, Any], make_context: MakeContext
) -> None:
    # given answers as somebody may write them into an XCom: words of others, of another run, and none at all
    free = approve(lake, model, reason="fine", person="bob", actor=an_actor_of("service"), as_of=AS_OF)
    other = ask(form).execute_complete(make_context(task_id=ASK, run_id="another"), event("cid"))
    own = answered(form, make_context, "dan", task_id="somewhere.else")
    forged = [
        {"word": word, "person": "bob", "approved": True, "round": 1, "why": ""}
        for word in (free.record_id, other["word"], own["word"], "0" * 32, "not an id")
    ]

    found = conclude(form, evaluation, make_context(task_id=RESULT), *forged)

    assert (found["status"], found["words"]) == (ApprovalStatus.EXPIRED, [])


def an_actor_of(kind: str) -> Any:
    producer = dataclasses.replace(an_actor().producer, kind=ActorKind(kind))
    return dataclasses.replace(an_actor(), producer=producer)


def test_form_of_another_evaluation_is_not_concluded(
    lake: Lake, model: ModelVersion, form: dict[str, Any], make_context: MakeContext
) -> None:
    newer = dataclasses.replace(a_recorded_evaluation(lake, model), gates_digest="newer", record_id="")
    lake.evidence.put(newer)

    with pytest.raises(AirflowFailException, match=r"argument\.form"):
        conclude(form, newer, make_context(task_id=RESULT), answered(form, make_context))


@pytest.mark.parametrize("valid_for", [0, timedelta(0), -60.0, timedelta(days=-1)])
def test_approval_that_would_never_count_is_not_asked_for(
    form: dict[str, Any], make_context: MakeContext, asked: list[dict[str, Any]], valid_for: Any
) -> None:
    """Nothing is not for good."""
    with pytest.raises(AirflowFailException, match=r"argument\.valid_for"):
        ask(form, valid_for=valid_for).execute(make_context(task_id=ASK))
    assert asked == []


def test_form_about_another_alias_is_not_concluded(
    lake: Lake, evaluation: Evaluation, form: dict[str, Any], make_context: MakeContext
) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.form.*champion-eu"):
        conclude(
            form, evaluation, make_context(task_id=RESULT), answered(form, make_context), alias="champion-eu"
        )
    assert list(lake.evidence.all(ApprovalResult.kind)) == []


@pytest.mark.parametrize(
    ("state", "error"), [("skipped", AirflowSkipException), ("failed", AirflowFailException)]
)
def test_nothing_shown_is_skipped_or_failed_as_what_came_before(
    evaluation: Evaluation, make_context: MakeContext, state: str, error: type[Exception]
) -> None:
    context = make_context(task_id=RESULT)

    def states(*, dag_id: str, task_ids: list[str], run_ids: list[str]) -> dict[str, dict[str, str]]:
        return {run_ids[0]: dict.fromkeys(task_ids, state)}

    context["ti"].get_task_states = states
    with pytest.raises(error):
        conclude(None, evaluation, context)


def test_only_an_approval_emits(
    evaluation: Evaluation, form: dict[str, Any], make_context: MakeContext
) -> None:
    from airflow_provider_xops.version_compat import Asset

    def emitted(*answers: Any, **options: Any) -> bool:
        outlet, context = Asset(name="approved", uri="x-xops://lake/approved"), make_context(task_id=RESULT)
        conclude(form, evaluation, context, *answers, outlets=[outlet], **options)
        return bool(context["outlet_events"][outlet].extra)

    assert emitted(answered(form, make_context))
    assert not emitted(people=3)


# -- the group ----------------------------------------------------------------------------------------------


def group_of(**options: Any) -> Any:
    from airflow.sdk import DAG

    with DAG(dag_id="d", schedule=None, params={"evaluation": "", "reason": 7}) as dag:
        group = approve_promotion(evaluation="{{ params.evaluation }}", **options)
    return dag, group


def test_group_asks_one_question_a_person() -> None:
    dag, group = group_of(people=2, approvers=["ana", "bob"], default_args={"retries": 4})

    assert set(dag.task_ids) == {f"approve.{name}" for name in ("show_evidence", "ask_1", "ask_2", "result")}
    result = dag.get_task("approve.result")
    assert result.trigger_rule == "all_done"
    assert result.upstream_task_ids == {"approve.show_evidence", "approve.ask_1", "approve.ask_2"}
    assert group.output.operator is result
    assert {task.retries for task in dag.tasks} == {4}
    assert dag.get_task("approve.ask_2").upstream_task_ids == {"approve.show_evidence"}


def test_question_whose_task_failed_is_asked_again_unless_the_dag_says_otherwise() -> None:
    dag, _ = group_of()
    assert dag.get_task("approve.ask_1").retries == 2
    dag, _ = group_of(default_args={"retries": 0})
    assert dag.get_task("approve.ask_1").retries == 0


def test_form_has_its_own_field_whatever_params_the_dag_has() -> None:
    dag, _ = group_of()
    fields = dag.get_task("approve.ask_1").serialized_params

    assert list(fields) == ["reason"]
    assert "string" in json.dumps(fields)
    # the ledger's entry has the reason of a no alone
    assert "it is recorded with your answer" in json.dumps(fields)


def test_in_turn_each_question_follows_the_one_before() -> None:
    dag, _ = group_of(people=3, in_turn=True)

    assert dag.get_task("approve.ask_3").upstream_task_ids == {
        "approve.show_evidence", "approve.ask_1", "approve.ask_2",
    }  # fmt: skip


def test_group_survives_serialization() -> None:
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized

    dag, _ = group_of(people=2)
    data = json.loads(json.dumps(Serialized.to_dict(dag)))

    again = Serialized.from_dict(data)
    assert set(again.task_ids) == set(dag.task_ids)
    assert "approve" in again.task_group_dict if hasattr(again, "task_group_dict") else True


@pytest.mark.parametrize(
    "options", [{"people": 0}, {"people": "2"}, {"people": 2, "approvers": ["ana", "ana"]}]
)
def test_group_that_could_never_approve_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as raised:
        group_of(**options)
    assert raised.value.code == "argument.people"


@pytest.mark.parametrize("seconds", [0, -1])
def test_question_without_time_to_answer_is_refused(
    form: dict[str, Any], make_context: MakeContext, asked: list[Any], seconds: float
) -> None:
    """For Airflow no seconds are no timeout: silence would never be a no."""
    with pytest.raises(ArgumentError, match=r"argument\.timeout"):
        group_of(timeout=timedelta(seconds=seconds))
    with pytest.raises(AirflowFailException, match=r"argument\.timeout"):
        ask(form, response_timeout=timedelta(seconds=seconds)).execute(make_context(task_id=ASK))
    assert asked == []


def test_approvers_may_come_from_a_template() -> None:
    dag, _ = group_of(people=2, approvers="{{ var.json.approvers }}")

    assert dag.get_task("approve.ask_1").approvers == "{{ var.json.approvers }}"


def test_timeout_goes_by_the_name_that_the_operator_knows() -> None:
    class Early:
        def __init__(self, *, subject: str, **kwargs: Any) -> None: ...

    class Late:
        def __init__(self, *, response_timeout: Any = None) -> None: ...

    assert response_timeout_argument(Early, 1) == {"execution_timeout": 1}
    assert response_timeout_argument(Late, 1) == {"response_timeout": 1}
