"""What the answers of all gates together say: promoted, rejected or held.

Private to :mod:`airflow_provider_xops.registry.promote`. Nothing here takes anybody's word for an outcome:
each answer is looked at, a report's gates are proved by its digest, and each deferred gate must be among
them.
"""

from __future__ import annotations

import math

from airflow_provider_xops.records import (
    Evaluation,
    GateReport,
    GateResult,
    Outcome,
    PromotionOutcome,
    digest_of,
)

__all__ = ["judge_answers"]


def judge_answers(evaluation: Evaluation, report: GateReport | None) -> tuple[PromotionOutcome, str]:
    """The outcome and its reason; ``promoted`` only if there is an answer, and each one passed with a figure.

    :param report: of this very evaluation; None: nobody has asked the deferred gates.
    """
    answers = [*evaluation.gates, *(report.results if report is not None else ())]
    failed = [gate for gate in answers if gate.outcome is Outcome.FAILED]
    if failed:
        return PromotionOutcome.REJECTED, "gate: " + "; ".join(
            dict.fromkeys(f"{gate.gate} failed ({gate.message})" for gate in failed)
        )
    missing = _unproved(report) + _unanswered(evaluation, report)
    missing += [
        f"{gate.gate} {gate.outcome} ({gate.message or 'no figure'})" for gate in answers if not _met(gate)
    ]
    if missing:
        return PromotionOutcome.HELD, f"not measured: {'; '.join(dict.fromkeys(missing))}"
    if not answers:
        return PromotionOutcome.HELD, "no gates: nothing says when this model is good enough"
    return PromotionOutcome.PROMOTED, f"all {_count(evaluation, report)} gates passed"


def _met(answer: GateResult) -> bool:
    observed = answer.observed
    return answer.outcome is Outcome.PASSED and observed is not None and math.isfinite(observed)


def _unproved(report: GateReport | None) -> list[str]:
    """Why a report's answers cannot be told to belong to its gates; empty if they can."""
    if report is None:
        return []
    if report.policy_digest != digest_of(list(report.gates)):
        return ["the gate report does not hold the gates that its digest names"]
    if len(report.gates) != len(report.results):
        return [f"the gate report has {len(report.results)} answers to {len(report.gates)} gates"]
    if report.outcome is not Outcome.PASSED and all(_met(answer) for answer in report.results):
        return [f"the gate report says {report.outcome}"]
    return []


def _unanswered(evaluation: Evaluation, report: GateReport | None) -> list[str]:
    """The deferred gates that no report has asked with exactly their fields."""
    asked = {digest_of(gate) for gate in report.gates} if report is not None else set()
    return [
        f"{_name(gate)} was deferred and not asked"
        for gate in evaluation.deferred_gates
        if digest_of(gate) not in asked
    ]


def _count(evaluation: Evaluation, report: GateReport | None) -> int:
    """How many gates there are: a report may repeat those that the evaluation has answered."""
    if report is None:
        return len(evaluation.gates)
    return len({_key(gate) for gate in (*evaluation.gates, *report.results)})


def _key(answer: GateResult) -> tuple[str, float | None, str]:
    return answer.gate, answer.threshold, answer.message


def _name(gate: dict[str, object]) -> str:
    return str(gate.get("gate", "a gate"))
