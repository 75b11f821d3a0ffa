"""People's words on a model version: the last one of each counts, and a refusal stands until taken back."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ActorKind, Approval, Producer
from airflow_provider_xops.registry.approvals import approve, standing_of, words_on
from tests.unit.registry.builders import AS_OF, a_model

MODEL = a_model()


def someone(name: str = "ann", kind: ActorKind = ActorKind.USER) -> Actor:
    return Actor(producer=Producer(kind=kind, id=name), idempotency_key="k", fence=1)


def say(lake: Lake, name: str = "ann", *, after: float = 0, **changes: Any) -> Approval:
    values: dict[str, Any] = {
        "reason": f"at {after}",
        "actor": someone(name),
        "as_of": AS_OF + timedelta(hours=after),
    }
    return approve(lake, MODEL, **(values | changes))


def standing(lake: Lake, *, after: float = 100) -> tuple[list[str], list[str]]:
    found = standing_of(words_on(lake, MODEL), as_of=AS_OF + timedelta(hours=after))
    return sorted(word.person for word in found.approvals), sorted(word.person for word in found.refusals)


def test_each_persons_last_word_counts(lake: Lake) -> None:
    say(lake, "ann")
    say(lake, "bob", after=1)
    say(lake, "ann", after=2, approved=False)
    assert standing(lake) == (["bob"], ["ann"])
    say(lake, "ann", after=3)
    assert standing(lake) == (["ann", "bob"], [])


def test_nobody_elses_approval_takes_a_refusal_back(lake: Lake) -> None:
    say(lake, "ann", approved=False)
    say(lake, "bob", after=1)
    say(lake, "cid", after=2)
    assert standing(lake)[1] == ["ann"]


def test_one_person_is_one_voice_however_they_write_their_name(lake: Lake) -> None:
    say(lake, "Ann", role="risk")
    say(lake, " ann", after=1, role="model_owner")
    assert len(standing(lake)[0]) == 1


def test_a_word_of_another_version_or_of_a_namesake_says_nothing(lake: Lake) -> None:
    for other in (a_model(2), a_model(1, created_at_ms=9)):
        approve(lake, other, reason="fine", actor=someone(), as_of=AS_OF)
    assert standing(lake) == ([], [])


def test_a_word_that_expired_does_not_count_and_revives_no_older_one(lake: Lake) -> None:
    say(lake, "ann")
    say(lake, "ann", after=1, approved=False, expires_at=AS_OF + timedelta(hours=2))
    assert standing(lake, after=1.5) == ([], ["ann"])
    assert standing(lake, after=2) == ([], [])


def test_an_approval_from_the_future_does_not_count_but_a_refusal_does(lake: Lake) -> None:
    say(lake, "ann", after=5)
    say(lake, "bob", after=5, approved=False)
    assert standing(lake, after=1) == ([], ["bob"])


def test_of_two_words_at_one_moment_the_refusal_is_the_last(lake: Lake) -> None:
    say(lake, "ann", reason="yes")
    say(lake, "ann", reason="no", approved=False)
    assert standing(lake, after=0) == ([], ["ann"])


def test_the_same_word_again_is_the_same_record(lake: Lake) -> None:
    first = say(lake, reason="reviewed")
    assert say(lake, after=1, reason="reviewed ") == first
    assert len(words_on(lake, MODEL)) == 1


@pytest.mark.parametrize("changes", [{}, {"expires_at": AS_OF + timedelta(days=9)}])
def test_a_word_that_would_count_as_an_older_one_is_refused(lake: Lake, changes: dict[str, Any]) -> None:
    say(lake, reason="reviewed")
    if not changes:
        say(lake, after=1, approved=False)
    with pytest.raises(ArgumentError, match=r"argument\.same_words"):
        say(lake, after=2, reason="reviewed", **changes)
    assert standing(lake)[1] == ([] if changes else ["ann"])


def test_a_task_has_no_say(lake: Lake) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.person"):
        say(lake, actor=someone("dag/run/task", ActorKind.TASK))
    word = say(lake)
    forged = dataclasses.replace(
        word, record_id="", person="bob", produced_by=someone("t", ActorKind.TASK).producer
    )
    lake.evidence.put(forged)
    assert standing(lake) == (["ann"], [])


def test_only_a_service_speaks_for_somebody_else(lake: Lake) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.person"):
        say(lake, "ann", person="bob")
    said = say(lake, person="bob", actor=someone("web", ActorKind.SERVICE))
    assert (said.person, said.produced_by.id) == ("bob", "web")
    with pytest.raises(ArgumentError, match=r"argument\.person"):
        say(lake, person=" ", actor=someone("web", ActorKind.SERVICE))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"reason": "  "}, "argument.reason"),
        ({"expires_at": AS_OF}, "argument.expires_at"),
        ({"expires_at": (AS_OF + timedelta(days=1)).replace(tzinfo=None)}, "argument.expires_at"),
    ],
)
def test_words_that_could_not_count_are_refused(lake: Lake, changes: dict[str, Any], code: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        say(lake, **changes)
    assert caught.value.code == code
    assert words_on(lake, MODEL) == []


def test_a_refusal_is_not_taken_back_by_the_time_of_a_clock_that_was_ahead(lake: Lake) -> None:
    """Approved where the clock is an hour ahead, refused five minutes later where it is right."""
    say(lake, "ann", after=1)
    refused = say(lake, "ann", after=0.1, approved=False)

    assert refused.recorded_at >= AS_OF + timedelta(hours=1)
    for hours in (0.2, 1, 50):
        assert standing(lake, after=hours) == ([], ["ann"])
    assert say(lake, "ann", after=2).approved
    assert standing(lake, after=2) == (["ann"], [])


def test_an_approval_replaces_a_refusal_of_a_clock_that_was_ahead(lake: Lake) -> None:
    """On the safe side: it counts when that clock's time has come."""
    say(lake, "ann", after=1, approved=False)
    say(lake, "ann", after=0.1)

    assert standing(lake, after=0.2) == ([], ["ann"])
    assert standing(lake, after=1.1) == (["ann"], [])


def test_an_approval_of_now_counts_beside_one_of_a_clock_that_was_ahead(lake: Lake) -> None:
    say(lake, "ann", after=1, reason="early")
    say(lake, "ann", after=0.1)

    assert standing(lake, after=0.2) == (["ann"], [])
