"""No answer, no promotion: deferred gates must be asked, by a report that proves what it asked."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.records import (
    Evaluation,
    GateReport,
    GateResult,
    Outcome,
    PromotionOutcome,
    digest_of,
)
from airflow_provider_xops.registry._gate_answers import judge_answers
from tests.unit.registry.builders import AS_OF, PASSED, a_model, an_actor, an_evaluation

HELD, PROMOTED, REJECTED = PromotionOutcome.HELD, PromotionOutcome.PROMOTED, PromotionOutcome.REJECTED
MODEL = a_model()
SMOKE: dict[str, Any] = {"gate": "smoke_tested", "environment": None, "within_days": None}
TWO: dict[str, Any] = {"gate": "approved", "people": 2, "roles": [], "trainer_counts": False}


def deferring(*deferred: dict[str, Any], gates: tuple[GateResult, ...] = (PASSED,)) -> Evaluation:
    """An evaluation whose other gates were left for promotion."""
    return dataclasses.replace(an_evaluation(MODEL, gates=gates), deferred_gates=deferred)


def answered(
    gate: dict[str, Any], outcome: Outcome = Outcome.PASSED, observed: float | None = 1.0
) -> GateResult:
    return GateResult(gate=str(gate["gate"]), outcome=outcome, observed=observed)


def a_report(evaluation: Evaluation, *gates: dict[str, Any], **changes: Any) -> GateReport:
    """A report in which every gate has passed."""
    values: dict[str, Any] = {
        "recorded_at": AS_OF, "produced_by": an_actor().producer, "model": MODEL.ref,
        "evaluation": evaluation.record_id, "policy": "production", "policy_digest": digest_of(list(gates)),
        "outcome": Outcome.PASSED, "results": tuple(answered(gate) for gate in gates), "gates": gates,
    }  # fmt: skip
    return GateReport(**(values | changes))


def test_an_evaluation_without_deferred_gates_needs_no_report() -> None:
    assert judge_answers(deferring(), None) == (PROMOTED, "all 1 gates passed")


def test_a_deferred_gate_that_nobody_asked_holds() -> None:
    outcome, reason = judge_answers(deferring(SMOKE), None)
    assert (outcome, reason) == (HELD, "not measured: smoke_tested was deferred and not asked")


def test_a_report_that_answers_every_deferred_gate_promotes() -> None:
    evaluation = deferring(SMOKE, TWO)
    assert judge_answers(evaluation, a_report(evaluation, SMOKE, TWO)) == (PROMOTED, "all 3 gates passed")
    # A report of a whole policy holds more than the deferred ones.
    metric = {"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.6}
    assert judge_answers(evaluation, a_report(evaluation, metric, TWO, SMOKE))[0] is PROMOTED


@pytest.mark.parametrize(
    ("asked", "changes", "reason"),
    [
        ((SMOKE,), {}, "approved was deferred and not asked"),
        # A weaker gate of the same name is another gate.
        ((SMOKE, TWO | {"people": 1}), {}, "approved was deferred and not asked"),
        ((), {}, "smoke_tested was deferred and not asked"),
        ((SMOKE, TWO), {"policy_digest": "0" * 64}, "does not hold the gates that its digest names"),
        ((SMOKE, TWO), {"results": (answered(SMOKE),)}, "has 1 answers to 2 gates"),
        ((SMOKE, TWO), {"results": ()}, "has 0 answers to 2 gates"),
        ((SMOKE, TWO), {"outcome": Outcome.FAILED}, "the gate report says failed"),
        ((SMOKE, TWO), {"outcome": Outcome.NO_DATA}, "the gate report says no_data"),
    ],
)
def test_a_report_that_does_not_cover_or_prove_holds(
    asked: tuple[dict[str, Any], ...], changes: dict[str, Any], reason: str
) -> None:
    evaluation = deferring(SMOKE, TWO)
    outcome, said = judge_answers(evaluation, a_report(evaluation, *asked, **changes))
    assert outcome is HELD
    assert reason in said


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answered(SMOKE, Outcome.FAILED), REJECTED),
        (answered(SMOKE, Outcome.NO_DATA), HELD),
        (answered(SMOKE, Outcome.ERRORED), HELD),
        (answered(SMOKE, observed=None), HELD),
    ],
)
def test_a_report_that_calls_itself_passed_is_not_believed(
    answer: GateResult, expected: PromotionOutcome
) -> None:
    evaluation = deferring(SMOKE)
    assert judge_answers(evaluation, a_report(evaluation, SMOKE, results=(answer,)))[0] is expected


def test_a_failed_gate_of_the_evaluation_is_not_outweighed_by_a_report() -> None:
    failed = GateResult(
        gate="auc", outcome=Outcome.FAILED, observed=0.5, threshold=0.8, message="0.5 is below 0.8"
    )
    evaluation = deferring(SMOKE, gates=(failed,))
    assert judge_answers(evaluation, a_report(evaluation, SMOKE)) == (
        REJECTED, "gate: auc failed (0.5 is below 0.8)",
    )  # fmt: skip


def test_no_answers_at_all_are_no_gates() -> None:
    evaluation = deferring(gates=())
    assert judge_answers(evaluation, None)[1].startswith("no gates")
    assert judge_answers(evaluation, a_report(evaluation))[1].startswith("no gates")


def test_gates_that_were_all_deferred_are_enough_once_answered() -> None:
    evaluation = deferring(SMOKE, gates=())
    assert judge_answers(evaluation, None)[0] is HELD
    assert judge_answers(evaluation, a_report(evaluation, SMOKE)) == (PROMOTED, "all 1 gates passed")


result = st.builds(
    GateResult,
    gate=st.sampled_from(["a", "b", "smoke_tested", "approved"]),
    outcome=st.sampled_from(list(Outcome)),
    observed=st.none() | st.floats(),
)
gate = st.sampled_from([SMOKE, TWO, TWO | {"people": 1}, SMOKE | {"environment": "recorded"}])


@given(
    st.lists(result, max_size=3), st.lists(gate, max_size=3), st.booleans(), st.lists(gate, max_size=4),
    st.lists(result, max_size=4), st.booleans(), st.sampled_from(list(Outcome)),
)  # fmt: skip
def test_whatever_is_handed_over_only_complete_passed_answers_promote(
    gates: list[GateResult], deferred: list[dict[str, Any]], reported: bool, asked: list[dict[str, Any]],
    results: list[GateResult], honest_digest: bool, said: Outcome,
) -> None:  # fmt: skip
    evaluation = dataclasses.replace(an_evaluation(MODEL, gates=tuple(gates)), deferred_gates=tuple(deferred))
    report = None
    if reported:
        # Records hold no NaN: digest_of refuses it. The judge must not rely on that.
        clean = tuple(dataclasses.replace(each, observed=None) if _odd(each) else each for each in results)
        digest = digest_of(asked) if honest_digest else "0" * 64
        report = a_report(evaluation, *asked, results=clean, policy_digest=digest, outcome=said)
    outcome, _reason = judge_answers(evaluation, report)
    if outcome is PROMOTED:
        answers = [*gates, *(report.results if report else ())]
        assert answers
        assert all(each.outcome is Outcome.PASSED for each in answers)
        assert all(each.observed is not None and math.isfinite(each.observed) for each in answers)
        assert all(each in (report.gates if report else ()) for each in deferred)
        assert report is None or (honest_digest and len(asked) == len(results) and said is Outcome.PASSED)


def _odd(answer: GateResult) -> bool:
    return answer.observed is not None and not math.isfinite(answer.observed)
