"""What all operators do alike: errors by cause, the actor, records, silence."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_xops.errors import (
    ArgumentError,
    ConflictError,
    SourceError,
    Superseded,
    UnavailableError,
    XOpsError,
)
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators import data, model
from airflow_provider_xops.operators._arguments import is_empty
from airflow_provider_xops.operators._base import TaskKilled, XOpsOperator, actor_of, as_airflow_error
from airflow_provider_xops.records import XCOM_LIMIT_BYTES, Incident, Severity
from airflow_provider_xops.version_compat import (
    AirflowException,
    AirflowFailException,
    Asset,
    AssetAlias,
)

MakeContext = Callable[..., dict[str, Any]]
OPERATORS = [getattr(module, name) for module in (data, model) for name in module.__all__]


class Entity:
    """A lineage entity, as OpenLineage users put them beside assets."""


class Stub(XOpsOperator):
    """Raises what it is told to."""

    required = ("thing",)
    template_fields = (*XOpsOperator.template_fields, "thing")

    def __init__(self, *, thing: Any = "x", error: Exception | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.thing = thing
        self.error = error

    def perform(self, context: Any) -> dict[str, Any]:
        if self.error:
            raise self.error
        return {"thing": self.thing}


@pytest.fixture
def incident(as_of: datetime, actor: Any) -> Callable[..., Incident]:
    def make(**fields: Any) -> Incident:
        given = {
            "incident": "i",
            "subject": "s",
            "severity": Severity.INFO,
            "message": "m",
            "produced_by": actor.producer,
        }
        return Incident(recorded_at=as_of, **(given | fields))

    return make


@pytest.mark.parametrize(
    "error", [UnavailableError("down"), ConflictError("race"), SourceError("x", retryable=True)]
)
def test_retryable_errors_let_airflow_retry(error: XOpsError, context: dict[str, Any]) -> None:
    with pytest.raises(AirflowException) as caught:
        Stub(task_id="t", error=error).execute(context)

    assert not isinstance(caught.value, AirflowFailException)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [SourceError("bad"), ArgumentError("bad"), Superseded("older")])
def test_other_errors_fail_at_once_with_the_whole_message(error: XOpsError, context: dict[str, Any]) -> None:
    with pytest.raises(AirflowFailException) as caught:
        Stub(task_id="t", error=error).execute(context)

    assert str(caught.value) == str(error)
    assert caught.value.__cause__ is error


def test_message_has_what_why_and_next_step() -> None:
    text = str(
        as_airflow_error(
            SourceError("the file is cut", code="source.truncated", why="no footer", todo="send it again")
        )
    )

    assert text == "[source.truncated] the file is cut. Why: no footer. Next step: send it again."


def test_foreign_errors_pass_unchanged(context: dict[str, Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        Stub(task_id="t", error=ZeroDivisionError()).execute(context)


@pytest.mark.parametrize("value", [None, "", "  ", "None", [], {}, ()])
def test_what_renders_to_nothing_is_an_error(value: Any, context: dict[str, Any]) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.empty.*thing of task t"):
        Stub(task_id="t", thing=value).execute(context)


@pytest.mark.parametrize("value", [0, False, "x", ["x"]])
def test_zero_and_false_are_values(value: Any) -> None:
    assert not is_empty(value)


def test_template_that_renders_to_nothing_is_refused(context: dict[str, Any]) -> None:
    operator = Stub(task_id="t", thing="{{ params.nothing or '' }}")
    operator.render_template_fields({"params": {"nothing": None}})

    with pytest.raises(AirflowFailException, match=r"argument\.empty"):
        operator.execute(context)


def test_function_as_user_code_is_not_called_by_the_templating(context: dict[str, Any]) -> None:
    class Takes(Stub):
        user_code = ("thing",)

    operator = Takes(task_id="t", thing=actor_of)
    operator.render_template_fields({"params": {}})

    assert operator.execute(context)["thing"] is actor_of


def test_actor_has_one_key_for_all_tries_and_a_rising_fence(make_context: MakeContext) -> None:
    first, second = (actor_of(make_context(try_number=number)) for number in (1, 2))

    assert first.idempotency_key == second.idempotency_key == "dag/run_1/task"
    assert first.fence < second.fence
    assert first.producer.try_number == 1
    assert first.producer.map_index is None


def test_mapped_tasks_have_keys_of_their_own(make_context: MakeContext) -> None:
    keys = {actor_of(make_context(map_index=index)).idempotency_key for index in (0, 1, -1)}

    assert keys == {"dag/run_1/task/0", "dag/run_1/task/1", "dag/run_1/task"}


def test_fence_is_the_start_of_the_try_in_microseconds(context: dict[str, Any]) -> None:
    context["ti"].start_date = datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC)

    assert actor_of(context).fence == 1_000_005


def test_record_goes_to_xcom_and_to_every_outlet(lake: Lake, context: dict[str, Any], incident: Any) -> None:
    # an alias names no asset, and a lineage entity (any object) is none
    one, other = Asset("one"), Asset("other")
    operator = Stub(task_id="t", outlets=[one, other, AssetAlias("alias"), Entity()])

    returned = operator.hand_over(context, lake, incident(), reused=False, rows=3)

    assert returned == {**incident().to_json(), "rows": 3, "reused": False}
    assert (
        context["outlet_events"][one].extra == context["outlet_events"][other].extra == incident().to_json()
    )
    assert operator.evidence_uri == lake.evidence.uri(incident())


def test_what_travels_stays_below_the_limit(lake: Lake, context: dict[str, Any], incident: Any) -> None:
    long = incident(evidence=tuple(f"{number:032x}" for number in range(2_000)))

    returned = Stub(task_id="t").hand_over(context, lake, long, reused=True, more=["x" * 1000])

    assert len(json.dumps(returned)) <= XCOM_LIMIT_BYTES
    assert returned["evidence"]["count"] == 2_000


def test_work_that_another_run_did_emits_nothing(lake: Lake, context: dict[str, Any], incident: Any) -> None:
    operator = Stub(task_id="t", outlets=[Asset("a")])

    operator.hand_over(context, lake, incident(), reused=True)

    # Airflow builds the events from what is left in outlets after execute
    assert operator.outlets == []
    assert not dict(context["outlet_events"]._dict)


def test_silence_keeps_what_is_no_asset(lake: Lake, context: dict[str, Any], incident: Any) -> None:
    entity = Entity()
    operator = Stub(task_id="t", outlets=[Asset("a"), AssetAlias("b"), Asset.ref(name="c"), entity])

    operator.hand_over(context, lake, incident(), reused=True)

    assert operator.outlets == [entity]


def test_kill_leaves_the_work_once_and_only_while_it_is_done(context: dict[str, Any]) -> None:
    class Held(Stub):
        def perform(self, context: Any) -> dict[str, Any]:
            try:
                self.leave_when_killed()
            except TaskKilled:
                self.leave_when_killed()  # a second SIGTERM does not interrupt the closing
                raise
            raise AssertionError

    operator = Held(task_id="t")

    with pytest.raises(TaskKilled, match="task t was ended from outside"):
        operator.execute(context)
    operator.leave_when_killed()  # after an execution timeout: nothing is held any more


def test_emit_when_reused_emits_all_the_same(lake: Lake, context: dict[str, Any], incident: Any) -> None:
    operator = Stub(task_id="t", outlets=[Asset("a")], emit_when_reused=True)

    operator.hand_over(context, lake, incident(), reused=True)

    assert operator.outlets == [Asset("a")]


def test_retry_after_a_crash_between_commit_and_success_still_emits(
    lake: Lake, make_context: MakeContext, incident: Any
) -> None:
    # given a try that recorded its work and died before Airflow heard of it
    done = incident(produced_by=actor_of(make_context()).producer)
    operator = Stub(task_id="t", outlets=[Asset("a")])

    # when its retry finds the work done
    operator.hand_over(make_context(try_number=2), lake, done, reused=True)

    # then the event is not lost
    assert operator.outlets == [Asset("a")]


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda cls: cls.__name__)
def test_constructors_are_keyword_only_and_store_arguments_unchanged(operator: type[XOpsOperator]) -> None:
    own = {
        name: parameter
        for cls in operator.__mro__
        if issubclass(cls, XOpsOperator)
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if name not in ("self", "kwargs") and parameter.kind is not parameter.VAR_KEYWORD
    }
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in own.values())

    given = {name: object() for name in own}
    built = operator(task_id="t", **given)

    stored = {name: vars(built).get("is_dry_run" if name == "dry_run" else name) for name in own}
    assert stored == given


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda cls: cls.__name__)
def test_template_fields_are_arguments_and_required_ones_are_among_them(operator: type[XOpsOperator]) -> None:
    built = operator(task_id="t", **dict.fromkeys(operator.required, "x"))

    assert all(hasattr(built, name) for name in operator.template_fields)
    assert set(operator.required) <= set(operator.template_fields)
    assert "lake_conn_id" in operator.template_fields


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda cls: cls.__name__)
def test_docstrings_have_parameters_an_example_and_what_it_does_not_do(operator: type[XOpsOperator]) -> None:
    text = inspect.getdoc(operator) or ""
    own = [name for name in inspect.signature(operator.__init__).parameters if name not in ("self", "kwargs")]

    assert [name for name in own if f":param {name}:" not in text] == []
    assert "Example::" in text
    assert "What it does not do:" in text
    assert "Returns" in text


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda cls: cls.__name__)
def test_every_required_argument_rendered_to_nothing_is_a_typed_error(
    operator: type[XOpsOperator], make_context: MakeContext
) -> None:
    for name in operator.required:
        given = dict.fromkeys(operator.required, "x") | {name: ""}
        with pytest.raises(AirflowFailException, match=rf"argument\.empty\] {name} of task t"):
            operator(task_id="t", **given).execute(make_context())


def test_no_secret_is_in_template_fields_or_reprs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    words = ("password", "secret", "token", "credential", "login")

    for operator in OPERATORS:
        assert not [field for field in operator.template_fields if any(word in field for word in words)]
