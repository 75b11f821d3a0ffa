"""What came of asking people: their answers become words in the evidence, and the words one result.

For the operators that ask (:mod:`airflow_provider_xops.operators.approval`) and for promotion, which reads
the result. A question is answered by somebody whom a service has signed in; :func:`record_answer` writes that
person's word. When every question is over, :func:`conclude` says what it comes to: approved, rejected or
expired.

What it does not do: it asks nobody and waits for nobody, and it does not promote. A result says what was true
when it was made; whoever acts on it later asks :func:`people_behind` whether the words still stand.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    ActorKind,
    Approval,
    ApprovalResult,
    ApprovalStatus,
    ModelVersion,
)
from airflow_provider_xops.registry.approvals import (
    approve,
    in_short,
    person_key,
    same_person,
    standing_of,
    words_on,
)

__all__ = ["conclude", "people_behind", "record_answer"]

log = logging.getLogger(__name__)

REASON_LIMIT = 1_000
NO_REASON = "no reason given"


def record_answer(
    lake: Lake,
    model: ModelVersion,
    *,
    person: str,
    approved: bool,
    reason: str = "",
    role: str = "",
    evidence: Sequence[str] = (),
    expires_at: datetime | None = None,
    actor: Actor,
    said_at: datetime,
    as_of: datetime,
) -> Approval:
    """The word of a person who has answered a question, written once for each answer.

    :param person: who, as the service that signed them in names them.
    :param reason: what they wrote; nothing becomes ``no reason given``, more than 1,000 characters are cut.
    :param evidence: ids of the records they were shown.
    :param actor: the service. :param said_at: when they answered. The same answer recorded again (by a retry)
        is the same record; the same words at another time are another one, and their reason says so.
    :param as_of: when it is recorded.
    :raises ArgumentError: ``argument.person``: the actor is no service, or nobody is named;
        ``argument.expires_at``.
    """
    if actor.producer.kind is not ActorKind.SERVICE:
        raise ArgumentError(
            f"{actor.producer.id} cannot record what somebody else answered", code="argument.person",
            why="only a service that has signed people in can name them",
            todo="let each person speak under their own account: xops approve",
        )  # fmt: skip
    words = " ".join(reason.split())[:REASON_LIMIT] or NO_REASON
    last = next((word for word in words_on(lake, model) if same_person(word.person, person)), None)
    for said in (words, f"{words} (said again on {said_at.astimezone(UTC):%Y-%m-%d at %H:%M:%S.%f} UTC)"):
        earlier = _same_words(lake, model, person, approved, said, role, evidence)
        # Dated after a word from a clock that is ahead, an answer carries another time than its own.
        dated = earlier is not None and earlier == last and earlier.recorded_at > as_of
        if earlier is not None and earlier.recorded_at != said_at and not dated:
            continue
        if earlier is not None:
            return earlier
        return approve(
            lake, model, approved=approved, reason=said, role=role, evidence=evidence,
            expires_at=expires_at, person=person, said_at=said_at, actor=actor, as_of=as_of,
        )  # fmt: skip
    raise AssertionError("the moment is part of the words")


def conclude(
    lake: Lake,
    model: ModelVersion,
    *,
    evaluation: str | None,
    alias: str,
    request: str,
    people: int = 1,
    asked: Sequence[str] = (),
    words: Sequence[str] = (),
    trainer_counts: bool = False,
    unanswered: Sequence[str] = (),
    deadline: datetime | None = None,
    actor: Actor,
    as_of: datetime,
) -> ApprovalResult:
    """What the answers to one request come to, recorded.

    *Rejected*: somebody refuses this version, whether they were asked or not. *Approved*: ``people``
    different people have answered with an approval that still is their word. *Expired*: everything else. A
    person who answers twice counts once.

    :param evaluation: record id of the evaluation that people were shown.
    :param request: which request it was, unique among those for this model, evaluation and alias.
    :param asked: ids of those who could answer; empty: anybody who may.
    :param words: ids of the words that the answers became. One of another model is refused.
    :param trainer_counts: whether the word of whoever trained the model counts. A model that a task trained
        has no such person.
    :param unanswered: why questions ended without an answer, for the reason.
    :return: the record; concluded again with the same words and outcome, it is the same one.
    :raises ArgumentError: ``argument.people`` (nobody is needed), ``argument.words`` (a word of another
        model).
    """
    if people < 1:
        raise ArgumentError(
            "an approval asks nobody", code="argument.people", todo="give people of 1 or more"
        )
    answers = [_word(lake, model, word) for word in dict.fromkeys(words)]
    # The clock of the machine that heard an answer may be ahead of this one's.
    as_of = max([as_of, *(word.recorded_at for word in answers)])
    status, reason = _outcome(
        model, answers, words_on(lake, model), people=people, trainer_counts=trainer_counts,
        unanswered=unanswered, as_of=as_of,
    )  # fmt: skip
    made = ApprovalResult(
        recorded_at=as_of,
        produced_by=actor.producer,
        model=model.ref,
        evaluation=evaluation,
        alias=alias,
        request=request,
        status=status,
        required=people,
        asked=tuple(asked),
        words=tuple(word.record_id for word in answers),
        reason=reason,
        deadline=deadline,
    )
    if not lake.evidence.put(made):
        there = lake.evidence.get(ApprovalResult.kind, made.record_id)
        assert isinstance(there, ApprovalResult)
        if (there.status, there.words, there.reason) == (made.status, made.words, made.reason):
            return there
        # Somebody has taken their word back (or given it) since: that is another fact about this request.
        made = dataclasses.replace(made, request=f"{request}@{as_of.isoformat()}", record_id="")
        lake.evidence.put(made)
    log.info("%s as %s: %s.", model.ref, alias, made.reason)
    return made


def people_behind(
    lake: Lake, model: ModelVersion, result: ApprovalResult, *, as_of: datetime
) -> tuple[str, ...]:
    """The different people who approved in answer to a request and whose word still is an approval.

    Sorted by when they said it, the newest first. A refusal by anybody, or a word that has expired, is not
    looked away from: ask :func:`~airflow_provider_xops.registry.approvals.standing_of` for refusals.

    :raises ArgumentError: ``argument.words``: the result is of another model, or names a word that is.
    """
    if result.model != model.ref:
        raise ArgumentError(
            f"the approval is of {result.model}, not of {model.ref}", code="argument.words",
            todo="pass the result of asking about this version",
        )  # fmt: skip
    answers = [_word(lake, model, word) for word in result.words]
    return _approving(answers, standing_of(words_on(lake, model), as_of=as_of).approvals)


def _outcome(
    model: ModelVersion,
    answers: Sequence[Approval],
    every: Iterable[Approval],
    *,
    people: int,
    trainer_counts: bool,
    unanswered: Sequence[str],
    as_of: datetime,
) -> tuple[ApprovalStatus, str]:
    standing = standing_of(every, as_of=as_of)
    if standing.refusals:
        return ApprovalStatus.REJECTED, f"rejected {in_short(standing.refusals[::-1])}"
    approving = _approving(answers, standing.approvals)
    counting = [person for person in approving if trainer_counts or not _trained(person, model)]
    remarks = [f"{person} trained it and does not count" for person in approving if person not in counting]
    if len(counting) >= people:
        return ApprovalStatus.APPROVED, f"approved by {', '.join(sorted(counting, key=str.casefold))}"
    gone = {word.person.strip() for word in answers if word.approved} - {*approving}
    remarks += [
        f"the word of {person} no longer counts"
        for person in sorted(gone)
        if not any(same_person(person, other) for other in approving)
    ]
    if len(answers) > len({person_key(word.person) for word in answers}):
        remarks.append("who answers twice counts once")
    remarks += unanswered
    said = f"approved by {len(counting)} of {people}"
    if counting:
        said += f" ({', '.join(sorted(counting, key=str.casefold))})"
    return ApprovalStatus.EXPIRED, "; ".join([said, *remarks])


def _approving(answers: Iterable[Approval], standing: Iterable[Approval]) -> tuple[str, ...]:
    """Who approved in answer and still approves, under the name of their standing word."""
    approved = {person_key(word.person) for word in answers if word.approved}
    return tuple(word.person for word in standing if person_key(word.person) in approved)


def _word(lake: Lake, model: ModelVersion, record_id: str) -> Approval:
    word = lake.evidence.get(Approval.kind, record_id)
    if not isinstance(word, Approval) or word.model != model.ref:
        raise ArgumentError(
            f"word {record_id[:12]} is not about {model.ref}", code="argument.words",
            todo="pass the words that were said in answer to this request",
        )  # fmt: skip
    return word


def _same_words(
    lake: Lake, model: ModelVersion, person: str, approved: bool, reason: str, role: str,
    evidence: Sequence[str],
) -> Approval | None:  # fmt: skip
    said = (person.strip(), approved, reason, role.strip(), tuple(evidence))
    return next(
        (
            word
            for word in words_on(lake, model)
            if (word.person, word.approved, word.reason, word.role, word.evidence) == said
        ),
        None,
    )


def _trained(person: str, model: ModelVersion) -> bool:
    return model.produced_by.kind is not ActorKind.TASK and same_person(person, model.produced_by.id)
