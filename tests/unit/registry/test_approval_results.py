"""Answers become words, and words one result: enough different people, no refusal, or it is a no."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    ActorKind,
    Approval,
    ApprovalResult,
    ApprovalStatus,
    ModelVersion,
    Producer,
    compact,
)
from airflow_provider_xops.registry.approval_results import conclude, people_behind, record_answer
from airflow_provider_xops.registry.approvals import approve, words_on
from tests.unit.registry.builders import AS_OF, a_model, an_actor

MODEL = a_model()
NUMBERS = itertools.count(100)
APPROVED, REJECTED, EXPIRED = ApprovalStatus.APPROVED, ApprovalStatus.REJECTED, ApprovalStatus.EXPIRED


def service(task: str = "ask_1") -> Actor:
    producer = Producer(kind=ActorKind.SERVICE, id=f"airflow:dag/run/{task}", dag_id="dag", run_id="run")
    return Actor(producer=producer, idempotency_key="k", fence=1)


def moment(after: float) -> datetime:
    return AS_OF + timedelta(minutes=after)


def answer(
    lake: Lake, person: str = "ana", *, after: float = 0, model: ModelVersion = MODEL, **changes: Any
) -> Approval:
    values: dict[str, Any] = {
        "approved": True,
        "reason": "looks good",
        "actor": service(),
        "said_at": moment(after),
        "as_of": moment(after),
    }
    return record_answer(lake, model, person=person, **(values | changes))


def concluded(
    lake: Lake, *words: Approval, after: float = 100, model: ModelVersion = MODEL, **changes: Any
) -> ApprovalResult:
    values: dict[str, Any] = {
        "evaluation": "e" * 32, "alias": "champion", "request": "dag/run/approve#1",
        "words": [word.record_id for word in words], "actor": an_actor(), "as_of": moment(after),
    }  # fmt: skip
    return conclude(lake, model, **(values | changes))


def test_two_different_people_approve(lake: Lake) -> None:
    words = [answer(lake, "ana"), answer(lake, "bob", after=1)]

    result = concluded(lake, *words, people=2, asked=["ana", "bob", "cid"])

    assert (result.status, result.reason) == (APPROVED, "approved by ana, bob")
    assert result.words == tuple(word.record_id for word in words)
    assert lake.evidence.get(ApprovalResult.kind, result.record_id) == result
    assert set(people_behind(lake, MODEL, result, as_of=moment(100))) == {"ana", "bob"}


def test_one_person_answering_twice_counts_once(lake: Lake) -> None:
    words = [answer(lake, "ana"), answer(lake, " Ana ", after=1)]

    result = concluded(lake, *words, people=2)

    assert result.status is EXPIRED
    assert "approved by 1 of 2" in result.reason
    assert "answers twice counts once" in result.reason


def test_one_no_outweighs_every_yes_and_its_reason_is_told(lake: Lake) -> None:
    words = [answer(lake, "ana"), answer(lake, "bob", after=1, approved=False, reason="not before Monday")]

    result = concluded(lake, *words)

    assert (result.status, result.reason) == (REJECTED, "rejected by bob: not before Monday")


def test_refusal_of_somebody_who_was_not_asked_counts(lake: Lake) -> None:
    given_word = answer(lake, "ana")
    approve(lake, MODEL, approved=False, reason="unlawful", actor=an_actor(), as_of=moment(2))

    assert concluded(lake, given_word).reason == "rejected by tester: unlawful"


def test_silence_is_a_no(lake: Lake) -> None:
    result = concluded(lake, unanswered=["nobody answered in time"], deadline=moment(60))

    assert (result.status, result.words, result.deadline) == (EXPIRED, (), moment(60))
    assert result.reason == "approved by 0 of 1; nobody answered in time"


def test_approval_that_nobody_asked_for_answers_no_question(lake: Lake) -> None:
    approve(lake, MODEL, reason="fine", actor=an_actor(), as_of=AS_OF)

    assert concluded(lake).status is EXPIRED


def test_the_trainers_word_counts_only_if_allowed(lake: Lake) -> None:
    own = answer(lake, "Tester")

    result = concluded(lake, own)
    assert result.status is EXPIRED
    assert "Tester trained it" in result.reason
    assert concluded(lake, own, request="another", trainer_counts=True).status is APPROVED


def test_who_takes_the_word_back_before_the_end_has_not_approved(lake: Lake) -> None:
    said = answer(lake, "ana")
    approve(
        lake, MODEL, approved=False, reason="I misread it", person="ana", actor=service(), as_of=moment(1)
    )

    assert concluded(lake, said).status is REJECTED


def test_word_that_has_expired_no_longer_counts(lake: Lake) -> None:
    said = answer(lake, "ana", expires_at=moment(10))

    assert concluded(lake, said, after=9).status is APPROVED
    late = concluded(lake, said, after=11)
    assert late.status is EXPIRED
    assert "the word of ana no longer counts" in late.reason


def test_same_answer_recorded_again_is_the_same_word(lake: Lake) -> None:
    first = answer(lake, expires_at=moment(60))

    assert answer(lake, expires_at=moment(60)) == first
    assert len(words_on(lake, MODEL)) == 1


def test_same_words_at_another_time_are_another_word(lake: Lake) -> None:
    # given an approval that has expired, and one that its person took back
    answer(lake, "ana", expires_at=moment(1))
    answer(lake, "bob")
    answer(lake, "bob", after=1, approved=False, reason="wait")

    # when both say again what they had said
    again = [answer(lake, "ana", after=5, expires_at=moment(60)), answer(lake, "bob", after=5)]

    assert [word.recorded_at for word in again] == [moment(5)] * 2
    assert all(word.reason.startswith("looks good (said again on 2026-01-15 at 12:05") for word in again)
    assert concluded(lake, *again, people=2, after=6).status is APPROVED
    assert [answer(lake, "bob", after=5)] == again[1:]


def test_reason_is_one_line_of_bounded_length(lake: Lake) -> None:
    assert answer(lake, reason="  two\n lines ").reason == "two lines"
    assert answer(lake, "bob", reason=" ").reason == "no reason given"
    assert len(answer(lake, "cid", reason="x" * 5000).reason) == 1000


@pytest.mark.parametrize("kind", [ActorKind.TASK, ActorKind.USER])
def test_only_a_service_records_what_others_said(lake: Lake, kind: ActorKind) -> None:
    actor = Actor(producer=Producer(kind=kind, id="eve"), idempotency_key="k", fence=1)

    with pytest.raises(ArgumentError) as raised:
        answer(lake, "ana", actor=actor)
    assert raised.value.code == "argument.person"
    assert words_on(lake, MODEL) == []


def test_word_about_another_version_is_refused(lake: Lake) -> None:
    other = answer(lake, model=a_model(2))

    with pytest.raises(ArgumentError) as raised:
        concluded(lake, other)
    assert raised.value.code == "argument.words"


def test_concluding_again_gives_the_same_record_until_words_change(lake: Lake) -> None:
    said = answer(lake)
    first = concluded(lake, said)
    assert concluded(lake, said, after=200) == first

    answer(lake, after=150, approved=False, reason="stop")
    again = concluded(lake, said, after=300)

    assert (again.status, again.record_id == first.record_id) == (REJECTED, False)
    assert again.request.startswith(first.request + "@")
    assert concluded(lake, said, after=300) == again


def test_answer_from_a_clock_that_is_ahead_counts(lake: Lake) -> None:
    assert concluded(lake, answer(lake, after=5), after=4).status is APPROVED


def test_nobody_is_not_a_number_of_people(lake: Lake) -> None:
    with pytest.raises(ArgumentError) as raised:
        concluded(lake, people=0)
    assert raised.value.code == "argument.people"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    said=st.lists(
        st.tuples(st.sampled_from(["ana", "ANA", "bob", "cid", "tester"]), st.booleans(), st.booleans()),
        max_size=6,
    ),
    people=st.integers(1, 3),
    trainer_counts=st.booleans(),
)
def test_approved_is_exactly_enough_different_people_and_no_refusal(
    lake: Lake, said: list[tuple[str, bool, bool]], people: int, trainer_counts: bool
) -> None:
    # given people's words in order, some in answer to the request, some freely
    model = a_model(next(NUMBERS))
    answered: list[Approval] = []
    for place, (person, approved, asked) in enumerate(said):
        word = answer(
            lake, person, after=place, model=model, approved=approved, reason=f"word {place} of {person}"
        )
        answered += [word] if asked else []

    result = concluded(
        lake, *answered, model=model, people=people, trainer_counts=trainer_counts, request="r"
    )

    last = {person.casefold(): approved for person, approved, _ in said}
    yes = {p.casefold() for p, approved, asked in said if asked and approved and last[p.casefold()]}
    counting = yes if trainer_counts else yes - {"tester"}
    expected = REJECTED if not all(last.values()) else APPROVED if len(counting) >= people else EXPIRED
    assert result.status is expected


def test_no_after_a_yes_of_a_clock_that_was_ahead_stays_a_no_and_one_record(lake: Lake) -> None:
    yes = answer(lake, "ana", after=60, reason="fine")
    no, again, third = (
        answer(lake, "ana", after=5, approved=False, reason="a leak", as_of=moment(later))
        for later in (5, 6, 7)
    )

    assert no == again == third
    for minutes in (8, 61, 500):
        assert concluded(lake, yes, no, after=minutes, request=f"r{minutes}").status is REJECTED


def test_a_no_that_is_written_late_does_not_take_back_what_was_said_since(lake: Lake) -> None:
    """The lake was away when the answer came, and back when its person approved at a command line."""
    approve(lake, MODEL, reason="mended", actor=Actor.user("ana", key="k", fence=1), as_of=moment(10))
    answer(lake, "ana", after=1, approved=False, as_of=moment(20))

    assert [word.approved for word in words_on(lake, MODEL)] == [True, False]


def test_many_long_refusals_fit_between_tasks(lake: Lake) -> None:
    """Their words are records of their own; the ledger must hear of the no all the same."""
    for number in range(8):
        answer(lake, f"person {number}", after=number, approved=False, reason="否" * 1_000)

    result = concluded(lake)

    assert result.status is REJECTED
    assert "person 0" in result.reason
    assert result.reason.endswith("and by 3 more")
    assert compact(result)["reason"] == result.reason
