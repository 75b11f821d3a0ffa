"""Promotion: one decision in the ledger, then MLflow's alias as its projection.

For the promote operator and the command line. The decision is made on the ledger's state under
compare-and-set: of any number of promoters that saw the same champion, one promotes and the others record
``held: superseded``. *A loser does not decide again*: its evaluation was against another champion.

A killed attempt that runs again with the same key finds its own decision and finishes applying it.

**Gates.** What counts is what the evidence holds of the evaluation, not what the caller hands over. Gates
that the evaluation has deferred (it had no evidence for them yet) must be answered by a gate report of the
same model and evaluation, whose own gates are proved by its digest. One answer that is missing, or has no
figure, holds the promotion.

**Inputs.** A version that takes other columns than the champion is held unless the caller allows it, which
the ledger's reason says: a server that follows the ledger would refuse what its callers send.

**People.** Where they were asked, their answer comes first: a no rejects, silence expires, whatever the gates
say. A refusal that stands holds, asked or not.

What it does not do: it trains, evaluates and asks nobody. It cannot know rows that reached the holdout
through another table; the leak check compares selections of the same table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.pins import pin
from airflow_provider_xops.records import (
    Actor,
    ApprovalResult,
    Evaluation,
    GateReport,
    ModelVersion,
    PromotionDecision,
    PromotionOutcome,
    Record,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry._against_mlflow import check_version, moved_by_hand
from airflow_provider_xops.registry._approval_answers import (
    NOT_STANDING,
    REFUSED,
    People,
    check_approval,
    people_of,
)
from airflow_provider_xops.registry._gate_answers import judge_answers
from airflow_provider_xops.registry.aliases import CHAMPION, check_alias
from airflow_provider_xops.registry.apply import apply_decision
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.inputs import names_inputs, other_inputs
from airflow_provider_xops.registry.leaks import leak_of
from airflow_provider_xops.registry.ledger import Draft, LedgerState
from airflow_provider_xops.registry.loading import model_of
from airflow_provider_xops.registry.recorded import recorded

__all__ = ["PromotionResult", "check_evaluation", "promote"]

log = logging.getLogger(__name__)

# How the reasons begin that rest on the columns, and so are others where the caller allows them.
OTHER_INPUTS = "other inputs than "


@dataclass(frozen=True, kw_only=True)
class PromotionResult:
    """A decision, whether MLflow's alias follows it, and whether it had been made before (``reused``)."""

    decision: PromotionDecision
    applied: bool
    reused: bool


def promote(
    lake: Lake,
    client: RegistryClient,
    *,
    model: ModelVersion,
    alias: str = CHAMPION,
    expected: int | None,
    evaluation: Evaluation | None,
    gate_report: GateReport | None = None,
    approval: ApprovalResult | None = None,
    allow_new_inputs: bool = False,
    actor: Actor,
    as_of: datetime,
) -> PromotionResult:
    """Decide whether ``model`` becomes ``alias``, record the decision, and apply it.

    :param expected: the champion's version when the evaluation was made (None: there was none).
    :param evaluation: gates and figures of this very model; None, or one without gates, promotes nothing.
        What the evidence holds of it is judged.
    :param gate_report: the answers to gates that the evaluation deferred (and perhaps to more of them).
    :param approval: what came of asking people about this evaluation; None: nobody was asked. Their words are
        read again: as many different people as were needed must still stand by theirs.
    :param allow_new_inputs: whether it may take other columns than the champion: what callers send today a
        server would refuse. The reason in the ledger says that it was allowed.
    :returns: ``promoted``, ``rejected`` (a gate failed, or a person said no), ``expired`` (people were asked,
        too few answered in time) or ``held``; the reason says which of *superseded*, *leak*, *blocked*, *no
        gates*, *not measured*, *refused*, *approval does not stand*, *other files*, *other inputs*, *ledger
        mismatch* it was. It names the people whose approval stands (``approved_by``), asked or not.
    :raises ArgumentError: the alias is none (``argument.alias``); the evaluation is of another model, for
        another alias or not in the evidence (``argument.evaluation``), or the gate report
        (``argument.gate_report``) or approval (``argument.approval``) is of another model, evaluation or
        alias, or not in the evidence.
    :raises NotFoundError: the version is not in MLflow. :raises RegistryError: ``registry.model_recreated``.
    :raises UnavailableError: MLflow or the storage did not answer; nothing half-done needs anything but a
        retry.
    """
    check_alias(alias)
    if evaluation is not None:
        check_evaluation(evaluation, model, alias)
        evaluation = recorded(lake, evaluation, argument="evaluation")
    if gate_report is not None:
        _check_report(gate_report, model, evaluation)
        gate_report = recorded(lake, gate_report, argument="gate_report")
    if approval is not None:
        check_approval(approval, model, evaluation, alias)
        approval = recorded(lake, approval, argument="approval")
    # Before anything is decided: is MLflow there, and does it have this version?
    check_version(client, model.name, model.version, model.created_at_ms)
    seen_alias = client.alias_target(model.name, alias)
    champions = _Champions(lake)
    evidence = _evidence(model, evaluation, gate_report, approval)

    def decide(now: LedgerState) -> Draft | PromotionDecision:
        people = people_of(lake, model, approval, as_of=as_of)

        def against() -> tuple[str, ...]:
            inputs = "" if allow_new_inputs else _held_by_inputs(now, model, champions.of(now))
            return (*people.against, inputs)

        earlier = _same_decision(now, model, evaluation, evidence, actor, against)
        if earlier is not None:
            return earlier
        outcome, reason = judge(
            now,
            model=model,
            expected=expected,
            evaluation=evaluation,
            gate_report=gate_report,
            champion=champions.of(now),
            alias_target=lambda: moved_by_hand(client, now, seen_alias),
            people=people,
            other_files=lambda: _other_files(lake, model),
            allow_new_inputs=allow_new_inputs,
        )
        return Draft(
            outcome=outcome,
            reason=reason,
            expected=expected,
            from_version=now.current_version,
            to_version=model.version,
            to_created_at_ms=model.created_at_ms,
            artifact_digest=model.artifact_digest,
            evidence=evidence,
            approved_by=people.approved_by,
        )

    decision, written = ledger.append(lake, model.name, alias, decide, actor=actor, as_of=as_of)
    if decision.outcome is not PromotionOutcome.PROMOTED:
        return PromotionResult(decision=decision, applied=False, reused=not written)
    if evaluation is not None:
        holder = f"model:{model.name}/{model.version}"
        pin(lake, evaluation.selection.dataset, reason="evaluation", holder=holder, actor=actor, as_of=as_of)
    applied = apply_decision(lake, client, decision, checked=True, actor=actor, as_of=as_of)
    return PromotionResult(decision=decision, applied=applied, reused=not written)


def judge(
    now: LedgerState,
    *,
    model: ModelVersion,
    expected: int | None,
    evaluation: Evaluation | None,
    champion: ModelVersion | None,
    alias_target: Callable[[], int | None],
    gate_report: GateReport | None = None,
    people: People | None = None,
    other_files: Callable[[], str] = str,
    allow_new_inputs: bool = False,
) -> tuple[PromotionOutcome, str]:
    """What the ledger's state and the evaluation say about a candidate; pure but for the functions.

    :param champion: the record of the present champion, None if there is none or it is unknown to the lake.
    :param alias_target: gives the version that somebody moved the alias to by hand, else None.
    :param people: what people say about this version; None: nothing.
    :param other_files: gives the digest of other files that were recorded as this version, else nothing.
    """
    held = PromotionOutcome.HELD
    current, people = now.current, people or People()
    if people.asked is not None and people.asked[0] is not held:
        return people.asked
    if (model.version, model.created_at_ms) in now.blocked:
        return held, f"blocked: v{model.version} was rolled back from; release it by name first"
    if current is not None and (current.to_version, current.to_created_at_ms) == (
        model.version,
        model.created_at_ms,
    ):
        return held, f"already {now.alias}: v{model.version} since entry {current.sequence}"
    if expected != now.current_version:
        return held, f"superseded: decided against {_v(expected)}, the champion is {_v(now.current_version)}"
    if evaluation is None or not (evaluation.gates or evaluation.deferred_gates or gate_report is not None):
        return held, "no gates: nothing says when this model is good enough"
    compared = evaluation.champion.version if evaluation.champion else None
    if compared != now.current_version or (
        current is not None
        and evaluation.champion is not None
        and evaluation.champion.created_at_ms != current.to_created_at_ms
    ):
        return (
            held,
            f"superseded: evaluated against {_v(compared)}, the champion is {_v(now.current_version)}",
        )
    leak = leak_of(evaluation, model, champion)
    if leak:
        return held, f"leak: {leak}"
    moved_to = alias_target()
    if moved_to is not None:
        return held, _mismatch(moved_to, now)
    outcome, reason = judge_answers(evaluation, gate_report)
    if outcome is not PromotionOutcome.PROMOTED:
        return outcome, reason
    if people.against:
        return held, people.against[-1]
    others = other_files()
    if others:
        return held, (
            f"other files: v{model.version} was recorded with files of digest {others[:12]}... too, and"
            " nothing tells which of them were evaluated and approved; register these as another version"
        )
    inputs = _held_by_inputs(now, model, champion)
    if inputs and not allow_new_inputs:
        return held, inputs
    if inputs:
        reason += f"; allowed: {inputs}"
    elif current is not None and not names_inputs(model, champion):
        reason += f"; its columns cannot be compared with those of {_v(now.current_version)}"
    if model.training is None:
        reason += "; its training data are unknown, so a leak cannot be excluded"
    return outcome, reason


def check_evaluation(evaluation: Evaluation, model: ModelVersion, alias: str) -> None:
    """See that an evaluation is of this version, and against the champion of this alias.

    :raises ArgumentError: ``argument.evaluation``.

    What it does not do: one that does not say for which alias it was made passes; promotion holds it unless
    the alias has the champion that it met.
    """
    if evaluation.model != model.ref:
        raise ArgumentError(
            f"the evaluation is of {evaluation.model}, not of {model.ref}",
            code="argument.evaluation",
            todo="pass the evaluation of the model that is to be promoted",
        )
    if evaluation.alias not in ("", alias):
        raise ArgumentError(
            f"{model.ref} was evaluated for {evaluation.alias}, asked about is {alias}",
            code="argument.evaluation",
            why=f"its gates are those of {evaluation.alias}, and what they said is no answer for {alias}",
            todo=f"evaluate it for {alias}: give the same alias to the task that evaluates",
        )


def _held_by_inputs(now: LedgerState, model: ModelVersion, champion: ModelVersion | None) -> str:
    """The reason not to promote a version that takes other columns than the champion; empty if none."""
    others = other_inputs(model, champion) if champion is not None else None
    return f"{OTHER_INPUTS}{_v(now.current_version)}: {others.how}" if others is not None else ""


class _Champions:
    """Records of champions, read at most once each however often the ledger changes under us."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.known: dict[int, ModelVersion | None] = {}

    def of(self, now: LedgerState) -> ModelVersion | None:
        """The champion's record; None if there is no champion or the lake does not know it."""
        decision = now.current
        if decision is None or decision.to_version is None:
            return None
        if decision.sequence not in self.known:
            try:
                found: ModelVersion | None = model_of(self.lake, decision)
            except NotFoundError:
                log.warning(
                    "The lake has no record of champion v%d: its data cannot be checked.", decision.to_version
                )
                found = None
            self.known[decision.sequence] = found
        return self.known[decision.sequence]


def _same_decision(
    now: LedgerState,
    model: ModelVersion,
    evaluation: Evaluation | None,
    evidence: tuple[str, ...],
    actor: Actor,
    against: Callable[[], tuple[str, ...]],
) -> PromotionDecision | None:
    """What this piece of work has decided before about this model on this evidence.

    A retry asks the deferred gates again, and gets other figures (an age, a latency) in another report: its
    own promotion is found by model and evaluation alone. What was held or rejected is decided again when the
    answers are others, or the words of people that held it, or the columns that held it are allowed now.

    :param against: gives what people's words and the columns say against it now.
    """
    basis = _evidence(model, evaluation)
    outcomes = (
        PromotionOutcome.PROMOTED,
        PromotionOutcome.HELD,
        PromotionOutcome.REJECTED,
        PromotionOutcome.EXPIRED,
    )
    for entry in now.by_key(actor.idempotency_key, *outcomes):
        same = (entry.to_version, entry.to_created_at_ms) == (model.version, model.created_at_ms)
        promoted = entry.outcome is PromotionOutcome.PROMOTED
        known = (entry.evidence[:2] if promoted else entry.evidence) == (basis if promoted else evidence)
        if same and known and entry.reason.startswith((REFUSED, NOT_STANDING, OTHER_INPUTS)):
            known = entry.reason in against()
        if same and known:
            log.info("This work has decided before: entry %d, %s.", entry.sequence, entry.outcome)
            return entry
    return None


def _evidence(*records: Record | None) -> tuple[str, ...]:
    return tuple(record.record_id for record in records if record is not None)


def _other_files(lake: Lake, model: ModelVersion) -> str:
    """The digest of other files that were recorded as this version; empty if there are none.

    An evaluation or an approval names a version, not its files. Training registers each version once, but
    whoever changes a version's files in MLflow can adopt it again.
    """
    if model.origin == "trained":
        return ""
    return next(
        (
            each.artifact_digest
            for each in lake.evidence.all(ModelVersion.kind)
            if isinstance(each, ModelVersion)
            and (each.name, each.version) == (model.name, model.version)
            and each.created_at_ms == model.created_at_ms
            and each.artifact_digest != model.artifact_digest
        ),
        "",
    )


def _check_report(report: GateReport, model: ModelVersion, evaluation: Evaluation | None) -> None:
    of = evaluation.record_id if evaluation is not None else None
    if report.model != model.ref or report.evaluation != of or of is None:
        raise ArgumentError(
            f"the gate report is of {report.model} and evaluation {report.evaluation}, asked about are"
            f" {model.ref} and evaluation {of}",
            code="argument.gate_report",
            todo="pass the report that was made of this evaluation",
        )


def _mismatch(moved_to: int, now: LedgerState) -> str:
    if now.current is None:
        return f"ledger mismatch: the alias points to v{moved_to}, unknown to the ledger; adopt it first"
    return (
        f"ledger mismatch: the alias was moved to v{moved_to} outside the ledger, perhaps in an emergency;"
        f" `xops rollback {now.model} --to {moved_to}` (or --to {now.current_version}) makes them agree"
    )


def _v(version: int | None) -> str:
    return "no champion" if version is None else f"v{version}"
