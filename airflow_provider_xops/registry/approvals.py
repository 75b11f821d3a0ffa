"""People's words on a model version: approved or refused, by whom, why, and until when.

For the gate ``approved``, for promotion, and for ``xops approve`` and ``xops refuse``. Each word is a record
of its own and is never changed; what a person says later replaces what the same person said before. A refusal
stands until that person approves: nobody else's word takes it back, and promotion is held while it stands,
whatever gates were asked.

What it does not do: it cannot tell who really sits at the keyboard. Who a person is comes from whoever lets
them act: the account at the command line, or the service that signed them in. Whoever may write to the lake
may write a record.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, ActorKind, Approval, ModelVersion

__all__ = ["Standing", "approve", "in_short", "person_key", "same_person", "standing_of", "words_on"]

log = logging.getLogger(__name__)

# What a decision or a result repeats of people's words, which are records of their own: it travels between
# tasks, where there is no place for all that somebody may write.
PEOPLE_TOLD = 5
REASON_TOLD = 200


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The words that count at one moment, one a person at most, the newest first."""

    approvals: tuple[Approval, ...]
    refusals: tuple[Approval, ...]


def approve(
    lake: Lake,
    model: ModelVersion,
    *,
    approved: bool = True,
    reason: str,
    role: str = "",
    evidence: Sequence[str] = (),
    expires_at: datetime | None = None,
    person: str | None = None,
    said_at: datetime | None = None,
    actor: Actor,
    as_of: datetime,
) -> Approval:
    """Record that a person approves a model version, or (``approved=False``) refuses it.

    :param reason: why; it stands in the record. :param role: in which function the person speaks, such as
        ``risk``.
    :param evidence: ids of the records they looked at.
    :param expires_at: the word counts until then; None: for good.
    :param person: who; default: the actor. Only a service that has signed people in may name another.
    :param said_at: when it was said, if that was before ``as_of``. What replaces a word that another
        machine's clock has dated after ``as_of`` is dated after that word.
    :return: the record; the same word of the same person again is the same record.
    :raises ArgumentError: ``argument.person`` (a task, or somebody else's name), ``argument.reason``,
        ``argument.expires_at``; ``argument.same_words``: the person has said exactly this before and
        something else since, so that the old record would go on counting as old.
    """
    speaker = _speaker(person, actor)
    if not reason.strip():
        raise ArgumentError(
            "an approval or a refusal needs a reason", code="argument.reason", todo="say why, in a sentence"
        )
    at = said_at or as_of
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= at):
        raise ArgumentError(
            "the word would never count", code="argument.expires_at",
            why="it has no time zone" if expires_at.tzinfo is None else "it expires before it is given",
            todo="give a moment in the future, with its time zone",
        )  # fmt: skip
    word = Approval(
        recorded_at=_after_what_was_said(lake, model, speaker, approved, at, as_of),
        produced_by=actor.producer,
        model=model.ref,
        person=speaker,
        approved=approved,
        reason=reason.strip(),
        role=role.strip(),
        evidence=tuple(evidence),
        expires_at=expires_at,
    )
    if not lake.evidence.put(word):
        # The record that is there keeps its time and expiry, so it must still be the person's last word.
        last = max((each for each in words_on(lake, model) if same_person(each.person, speaker)), key=_order)
        if last.record_id != word.record_id or last.expires_at != expires_at:
            raise ArgumentError(
                f"{speaker} has said exactly this about {model.ref} before", code="argument.same_words",
                why="a record is never changed, and the earlier one would count with its own time",
                todo="say it in other words, for example with today's date in the reason",
            )  # fmt: skip
        return last
    log.info("%s %s %s: %s.", speaker, "approves" if approved else "refuses", model.ref, word.reason)
    return word


def words_on(lake: Lake, model: ModelVersion) -> list[Approval]:
    """Everything people have said about this very version, the newest first."""
    found = [
        word
        for word in lake.evidence.all(Approval.kind)
        if isinstance(word, Approval) and word.model == model.ref
    ]
    return sorted(found, key=_order, reverse=True)


def standing_of(words: Iterable[Approval], *, as_of: datetime) -> Standing:
    """Which of these words count at ``as_of``: the last one of each person, while it has not expired.

    An approval from after ``as_of`` does not count yet; a refusal does, because holding is the safe side.
    What a task says does not count.

    >>> standing_of([], as_of=datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    Standing(approvals=(), refusals=())
    """
    last: dict[str, Approval] = {}
    for word in sorted(words, key=_order):
        by_task = word.produced_by.kind is ActorKind.TASK
        if not by_task and not (word.approved and word.recorded_at > as_of):
            last[person_key(word.person)] = word
    standing = [
        word
        for word in sorted(last.values(), key=_order, reverse=True)
        if word.expires_at is None or word.expires_at > as_of
    ]
    return Standing(
        approvals=tuple(word for word in standing if word.approved),
        refusals=tuple(word for word in standing if not word.approved),
    )


def in_short(words: Sequence[Approval], form: str = "by {}: {}") -> str:
    """Who said what, for a reason of bounded length; each in the given form.

    >>> in_short([])
    ''
    """
    told = [
        form.format(word.person, word.reason[:REASON_TOLD] + "..." * (len(word.reason) > REASON_TOLD))
        for word in words[:PEOPLE_TOLD]
    ]
    more = len(words) - len(told)
    return "; ".join(told + [f"and by {more} more"] * bool(more))


def _speaker(person: str | None, actor: Actor) -> str:
    producer = actor.producer
    if producer.kind is ActorKind.TASK:
        raise ArgumentError(
            f"task {producer.id} cannot approve or refuse a model", code="argument.person",
            why="an approval is a person's word", todo="let a person run `xops approve`",
        )  # fmt: skip
    speaker = (person if person is not None else producer.id).strip()
    other = not same_person(speaker, producer.id)
    if not person_key(speaker) or (other and producer.kind is not ActorKind.SERVICE):
        raise ArgumentError(
            f"{producer.id} cannot speak for {speaker or 'nobody'}", code="argument.person",
            todo="let each person speak under their own account",
        )  # fmt: skip
    return speaker


def _after_what_was_said(
    lake: Lake, model: ModelVersion, speaker: str, approved: bool, at: datetime, as_of: datetime
) -> datetime:
    """``at``, unless this person's word before this one carries the time of a clock that is ahead.

    Dated by its own time, a refusal would be taken back when that clock's time has come, and an approval
    would never replace the refusal before it.
    """
    ahead = [
        word.recorded_at
        for word in words_on(lake, model)
        if word.recorded_at > as_of and same_person(word.person, speaker) and not (approved and word.approved)
    ]
    # At one moment a refusal is the later word already.
    return max([at, *(moment + timedelta(microseconds=1) * approved for moment in ahead)])


def person_key(person: str) -> str:
    """What a person is told apart by, however the name is written.

    Case, spaces, invisible characters, and the different code points of one letter make no second person.

    >>> person_key("Ana  B") == person_key(" ana b"), person_key("Jos\u00e9") == person_key("Jose\u0301")
    (True, True)

    What it does not do: letters of other alphabets that only look alike stay different, as do two accounts
    of one person.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", person).casefold())
    # Format characters (Cf) are not seen: zero-width spaces and joiners, marks of direction.
    seen = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    return " ".join(seen.split())


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's, as :func:`person_key` tells them apart."""
    return person_key(one) == person_key(other)


def _order(word: Approval) -> tuple[datetime, bool, str]:
    # Of two words of one moment the refusal is the later one.
    return word.recorded_at, not word.approved, word.record_id
