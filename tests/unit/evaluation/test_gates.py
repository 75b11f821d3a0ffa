"""An exception, a missing figure or an odd answer is never passed; what was asked is recorded."""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError, DataError, UnavailableError
from airflow_provider_xops.evaluation.gates import (
    GATES,
    Approved,
    Case,
    Gate,
    MetricThreshold,
    Policy,
    SizeBudget,
    ask,
    ask_deferred,
    check_gates,
    gates_digest,
    gates_from,
    outcome_of,
)
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import GateReport, GateResult, Outcome, Record
from airflow_provider_xops.registry.approvals import approve
from tests.unit.evaluation.gates.cases import CHALLENGER, SMALLEST, a_case, evaluated
from tests.unit.registry.builders import AS_OF, a_model, an_actor, an_evaluation

AUC = MetricThreshold(metric="roc_auc", minimum=0.6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given(Gate):
    """A gate of one's own that does what it is told."""

    kind: ClassVar[str] = "given"

    what: str

    def check(self, case: Case) -> GateResult:
        answer: Any = {
            "passed": GateResult(gate="given", outcome=Outcome.PASSED, observed=1.0),
            "passed_without": GateResult(gate="given", outcome=Outcome.PASSED),
            "passed_nan": GateResult(gate="given", outcome=Outcome.PASSED, observed=math.nan),
            "failed_nan": GateResult(
                gate="given", outcome=Outcome.FAILED, observed=math.nan, threshold=math.inf
            ),
            "text": GateResult(gate="given", outcome="passed", observed=1.0),  # type: ignore[arg-type]
            "other_name": GateResult(gate="holdout_unseen", outcome=Outcome.PASSED, observed=0.0),
            "none": None,
            "true": True,
        }.get(self.what)
        if self.what == "raises":
            raise ValueError("4111 1111 1111 1111 is no number")
        if self.what == "domain":
            raise DataError("the rows are gone", code="data.gone")
        if self.what == "down":
            raise UnavailableError("the storage does not answer")
        return answer


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("passed", Outcome.PASSED),
        ("passed_without", Outcome.NO_DATA),
        ("passed_nan", Outcome.NO_DATA),
        ("failed_nan", Outcome.FAILED),
        ("text", Outcome.ERRORED),
        ("none", Outcome.ERRORED),
        ("true", Outcome.ERRORED),
        ("raises", Outcome.ERRORED),
        ("domain", Outcome.ERRORED),
    ],
)
def test_nothing_but_a_passed_answer_with_a_figure_passes(what: str, expected: Outcome) -> None:
    (result,) = ask([Given(what=what)], a_case())
    assert result.outcome is expected
    assert result.observed is None or math.isfinite(result.observed)
    assert result.threshold is None or math.isfinite(result.threshold)


def test_an_answer_passes_under_its_own_name_alone() -> None:
    (result,) = ask([Given(what="other_name")], a_case())
    assert result.gate == "given"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LenientApproval(Approved):
    """Would be read back from its JSON as the gate it was made from."""

    def check(self, case: Case) -> GateResult:
        return self.passed(1.0, 1.0, "everybody agrees")


class CallsItselfUnseen(Given):
    kind: ClassVar[str] = "holdout_unseen"


@pytest.mark.parametrize("gate", [LenientApproval(), CallsItselfUnseen(what="passed")])
def test_a_gate_of_ones_own_does_not_take_the_name_of_another(gate: Gate) -> None:
    with pytest.raises(ArgumentError, match="that is another gate's name"):
        gates_from([gate])
    with pytest.raises(ArgumentError, match=r"argument\.gate"):
        Policy(name="p", gates=(gate,))


def test_the_text_of_a_foreign_error_is_not_recorded_and_the_code_of_our_own_is() -> None:
    foreign, own = ask([Given(what="raises"), Given(what="domain")], a_case())
    assert (foreign.message, "data.gone" in own.message) == ("it raised a ValueError", True)


def test_a_storage_that_does_not_answer_is_no_answer_about_the_model() -> None:
    with pytest.raises(UnavailableError):
        ask([Given(what="passed"), Given(what="down")], a_case())


def test_one_word_for_all_answers() -> None:
    def word(*outcomes: Outcome) -> Outcome:
        return outcome_of([GateResult(gate="g", outcome=each, observed=1.0) for each in outcomes])

    assert word(Outcome.PASSED, Outcome.PASSED) is Outcome.PASSED
    assert word(Outcome.PASSED, Outcome.NO_DATA) is Outcome.NO_DATA
    assert word(Outcome.NO_DATA, Outcome.ERRORED, Outcome.PASSED) is Outcome.ERRORED
    assert word(Outcome.ERRORED, Outcome.FAILED) is Outcome.FAILED
    assert word() is Outcome.NO_DATA
    assert outcome_of([GateResult(gate="g", outcome=Outcome.PASSED)]) is Outcome.NO_DATA


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("evaluation", [None, evaluated(), evaluated(champion=False)])
def test_no_gate_of_the_catalog_passes_on_nothing(lake: Lake, kind: str, evaluation: Any) -> None:
    model = dataclasses.replace(CHALLENGER, training=None, holdout=None, features=(), size_bytes=None)
    (gate,) = gates_from([{"gate": kind, **SMALLEST.get(kind, {})}])
    (result,) = ask([gate], a_case(evaluation, lake=lake, model=model))
    assert result.outcome in (Outcome.NO_DATA, Outcome.ERRORED)


@pytest.mark.parametrize("kind", GATES)
def test_every_gate_survives_json_and_says_when_it_is_asked(kind: str) -> None:
    (gate,) = gates_from([{"gate": kind, **SMALLEST.get(kind, {})}])
    again = gates_from([gate.to_json()])
    assert again == (gate,)
    assert gates_digest(again) == gates_digest([gate])
    about_figures = {
        "metric_threshold", "better_than_champion", "not_worse_than_champion", "no_worse_slice",
        "no_weak_slice", "fairness_gap", "calibration_error", "robustness_loss",
    }  # fmt: skip
    assert gate.needs_evidence is (kind not in about_figures)


def test_a_gate_made_in_python_is_the_one_that_is_read_back_from_its_json() -> None:
    whole = SizeBudget(maximum_mib=50)
    assert gates_digest(gates_from([whole.to_json()])) == gates_digest([whole])


def put(lake: Lake, *records: Record) -> None:
    for record in records:
        lake.evidence.put(record)


def test_figures_that_were_edited_on_the_way_are_not_looked_at(lake: Lake) -> None:
    small = SizeBudget(maximum_mib=2)
    evaluation = evaluated(metrics={"roc_auc": 0.5})
    model = dataclasses.replace(CHALLENGER, size_bytes=3 * 2**20)
    put(lake, model, evaluation)
    better = dataclasses.replace(evaluation, metrics={"roc_auc": 0.9})
    smaller = dataclasses.replace(model, size_bytes=1)
    assert (better.record_id, smaller.record_id) == (evaluation.record_id, model.record_id)

    report = check_gates(
        lake, smaller, better, Policy(name="p", gates=(AUC, small)), actor=an_actor(), as_of=AS_OF
    )

    assert [result.outcome for result in report.results] == [Outcome.FAILED, Outcome.FAILED]


def test_what_the_evidence_does_not_hold_is_not_asked_about(lake: Lake) -> None:
    policy = Policy(name="p", gates=(AUC,))
    made_up = evaluated(metrics={"roc_auc": 0.9})
    with pytest.raises(ArgumentError, match=r"argument\.model"):
        check_gates(lake, CHALLENGER, None, policy, actor=an_actor(), as_of=AS_OF)
    put(lake, CHALLENGER)
    with pytest.raises(ArgumentError, match=r"argument\.evaluation"):
        check_gates(lake, CHALLENGER, made_up, policy, actor=an_actor(), as_of=AS_OF)
    put(lake, made_up)
    report = check_gates(lake, CHALLENGER, made_up, policy, actor=an_actor(), as_of=AS_OF)
    other = dataclasses.replace(report, record_id="", results=())
    with pytest.raises(ArgumentError, match=r"argument\.gate_report"):
        ask_deferred(lake, CHALLENGER, made_up, other, actor=an_actor(), as_of=AS_OF)


def test_a_report_is_asked_again_when_promotion_is_decided(lake: Lake) -> None:
    approved, own = Approved(people=1), Given(what="passed")
    deferred = (approved.to_json(), own.to_json())
    evaluation = dataclasses.replace(evaluated(), deferred_gates=deferred)
    put(lake, CHALLENGER, evaluation)
    approve(
        lake, CHALLENGER, reason="for today", expires_at=AS_OF + timedelta(days=1),
        actor=dataclasses.replace(an_actor(), producer=dataclasses.replace(an_actor().producer, id="ann")),
        as_of=AS_OF,
    )  # fmt: skip
    policy = Policy(name="p", gates=(approved, own))
    report = check_gates(lake, CHALLENGER, evaluation, policy, actor=an_actor(), as_of=AS_OF)
    assert report.outcome is Outcome.PASSED
    act: dict[str, Any] = {"actor": an_actor("promote")}

    at_once = ask_deferred(lake, CHALLENGER, evaluation, report, **act, as_of=AS_OF + timedelta(hours=1))
    late = ask_deferred(lake, CHALLENGER, evaluation, report, **act, as_of=AS_OF + timedelta(days=2))

    assert at_once == report
    assert late is not None
    # The approval has expired; the gate of one's own keeps its answer.
    assert [result.outcome for result in late.results] == [Outcome.NO_DATA, Outcome.PASSED]
    assert (late.outcome, late.gates, late.policy_digest) == (
        Outcome.NO_DATA, report.gates, report.policy_digest,
    )  # fmt: skip
    assert report.record_id in late.consulted
    assert lake.evidence.get(GateReport.kind, late.record_id) == late


def test_a_report_is_recorded_with_its_gates_and_what_it_rests_on(lake: Lake) -> None:
    evaluation = evaluated(metrics={"roc_auc": 0.7})
    model = dataclasses.replace(CHALLENGER, size_bytes=2**20)
    policy = Policy(name="production", gates=(AUC, SizeBudget(maximum_mib=2)))
    put(lake, model, evaluation)

    report = check_gates(lake, model, evaluation, policy, actor=an_actor(), as_of=AS_OF)

    assert (report.outcome, report.policy, report.evaluation) == (
        Outcome.PASSED, "production", evaluation.record_id,
    )  # fmt: skip
    assert report.policy_digest == policy.digest
    assert [gate["gate"] for gate in report.gates] == ["metric_threshold", "size_budget"]
    assert report.consulted == (evaluation.record_id,)
    assert lake.evidence.get(GateReport.kind, report.record_id) == report


def test_a_report_needs_gates_and_an_evaluation_of_the_model(lake: Lake) -> None:
    def checked(model: Any, evaluation: Any, gates: tuple[Gate, ...]) -> None:
        check_gates(lake, model, evaluation, Policy(name="p", gates=gates), actor=an_actor(), as_of=AS_OF)

    with pytest.raises(ArgumentError, match=r"argument\.evaluation"):
        checked(CHALLENGER, an_evaluation(a_model(7)), (AUC,))
    with pytest.raises(ArgumentError, match=r"argument\.gate"):
        checked(CHALLENGER, evaluated(), ())


def test_promotion_asks_only_what_was_deferred_and_takes_a_report_that_covers_it(lake: Lake) -> None:
    model = dataclasses.replace(CHALLENGER, size_bytes=2**20)
    small = SizeBudget(maximum_mib=2)
    plain = evaluated(metrics={"roc_auc": 0.7})
    deferring = dataclasses.replace(
        plain, record_id="", gates_digest="others", deferred_gates=(small.to_json(),)
    )
    act: dict[str, Any] = {"actor": an_actor(), "as_of": AS_OF}
    put(lake, model, plain, deferring)

    assert ask_deferred(lake, model, plain, **act) is None
    made = ask_deferred(lake, model, deferring, **act)
    assert made is not None
    assert [result.gate for result in made.results] == ["size_budget"]
    whole = check_gates(lake, model, deferring, Policy(name="all", gates=(AUC, small)), **act)
    assert ask_deferred(lake, model, deferring, whole, **act) == whole
    other = check_gates(lake, model, deferring, Policy(name="p", gates=(SizeBudget(maximum_mib=9),)), **act)
    with pytest.raises(ArgumentError, match=r"argument\.gate_report"):
        ask_deferred(lake, model, deferring, other, **act)


def test_a_deferred_gate_of_ones_own_can_only_be_asked_by_its_policy(lake: Lake) -> None:
    own = dataclasses.replace(evaluated(), deferred_gates=(Given(what="passed").to_json(),))
    put(lake, CHALLENGER, own)
    with pytest.raises(ArgumentError, match="unknown gate 'given'"):
        ask_deferred(lake, CHALLENGER, own, actor=an_actor(), as_of=AS_OF)
    policy = Policy(name="own", gates=(Given(what="passed"),))
    report = check_gates(lake, CHALLENGER, own, policy, actor=an_actor(), as_of=AS_OF)
    assert ask_deferred(lake, CHALLENGER, own, report, actor=an_actor(), as_of=AS_OF) == report


@given(st.sampled_from(sorted(GATES)), st.data())
def test_gates_of_arbitrary_json_are_read_or_refused_never_guessed(kind: str, data: Any) -> None:
    value = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.text(max_size=3))
    )
    names = st.sampled_from(
        ["metric", "minimum", "maximum", "margin", "by", "bound", "level", "people", "roles"]
    )
    fields = data.draw(st.dictionaries(names, value, max_size=3))
    try:
        (gate,) = gates_from([{"gate": kind, **SMALLEST.get(kind, {}), **fields}])
    except ArgumentError:
        return
    held = gate.to_json()
    assert all(held[name] == value or held[name] == list(value) for name, value in fields.items())
