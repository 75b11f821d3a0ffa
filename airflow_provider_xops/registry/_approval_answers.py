"""What people say about a version that is to be promoted: who approves, who refuses, how a request ended.

Private to :mod:`airflow_provider_xops.registry.promote`. A request's result is not taken at its word: the
words it rests on are read again when the promotion is decided, because a person may have taken theirs back,
or it has expired since.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    ActorKind,
    Approval,
    ApprovalResult,
    ApprovalStatus,
    Evaluation,
    ModelVersion,
    PromotionOutcome,
)
from airflow_provider_xops.registry.approval_results import people_behind
from airflow_provider_xops.registry.approvals import in_short, person_key, standing_of, words_on

__all__ = ["People", "check_approval", "people_of"]

# How the reasons of decisions begin that rest on what people said, and so may be others at the next try.
REFUSED = "refused: "
NOT_STANDING = "approval does not stand: "


@dataclass(frozen=True, kw_only=True)
class People:
    """Whose words count at one moment, and what follows from them.

    :param approved_by: the people whose approval stands. :param asked: how a request ended, unless it was
        approved and still is; None: nothing speaks against. :param refused: the reason of a refusal, or
        nothing.
    """

    approved_by: tuple[str, ...] = ()
    asked: tuple[PromotionOutcome, str] | None = None
    refused: str = ""

    @property
    def against(self) -> tuple[str, ...]:
        """The reasons that people's words give against the promotion."""
        return tuple(each for each in (self.asked[1] if self.asked else "", self.refused) if each)


def check_approval(
    approval: ApprovalResult, model: ModelVersion, evaluation: Evaluation | None, alias: str
) -> None:
    """See that people were asked about this version, on this evaluation, for this alias.

    :raises ArgumentError: ``argument.approval``.
    """
    of = evaluation.record_id if evaluation is not None else None
    if (approval.model, approval.evaluation, approval.alias) != (model.ref, of, alias):
        raise ArgumentError(
            f"people were asked about {approval.model} as {approval.alias}, evaluation"
            f" {approval.evaluation}; to be decided is {model.ref} as {alias}, evaluation {of}",
            code="argument.approval",
            todo="pass the result of asking about this evaluation and alias",
        )


def people_of(lake: Lake, model: ModelVersion, approval: ApprovalResult | None, *, as_of: datetime) -> People:
    """What people say about a version at ``as_of``, and what came of asking them.

    :param approval: as the evidence holds it; None: nobody was asked, and words given freely still count.
    """
    # Another machine's clock may have been ahead when people answered.
    as_of = as_of if approval is None else max(as_of, approval.recorded_at)
    standing = standing_of(words_on(lake, model), as_of=as_of)
    return People(
        approved_by=tuple(sorted({word.person for word in standing.approvals})),
        asked=None if approval is None else _answer(lake, model, approval, as_of),
        refused=REFUSED + in_short(standing.refusals, "by {} ({})") if standing.refusals else "",
    )


def _answer(
    lake: Lake, model: ModelVersion, approval: ApprovalResult, as_of: datetime
) -> tuple[PromotionOutcome, str] | None:
    said = approval.reason
    if approval.status is ApprovalStatus.EXPIRED:
        return PromotionOutcome.EXPIRED, f"approval expired: {said or 'nobody answered in time'}"
    if approval.status is not ApprovalStatus.APPROVED:
        return PromotionOutcome.REJECTED, said if said.startswith("rejected") else f"rejected: {said}"
    # Concluded with enough people beside whoever trained it, it did not need that person's word.
    answered = {word.person for word in _words(lake, approval) if word.approved}
    others_were_enough = len({person_key(each) for each in answered} - _trainer(model)) >= approval.required
    still = {person_key(person) for person in people_behind(lake, model, approval, as_of=as_of)}
    count = len(still - _trainer(model) if others_were_enough else still)
    needed = max(1, approval.required)
    if count >= needed:
        return None
    return PromotionOutcome.HELD, f"{NOT_STANDING}{count} of {needed} people who were asked still approve"


def _words(lake: Lake, approval: ApprovalResult) -> list[Approval]:
    found = [lake.evidence.get(Approval.kind, word) for word in approval.words]
    return [word for word in found if isinstance(word, Approval)]


def _trainer(model: ModelVersion) -> set[str]:
    producer = model.produced_by
    return set() if producer.kind is ActorKind.TASK else {person_key(producer.id)}
