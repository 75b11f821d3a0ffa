"""Gates about slices, groups, calibration and robustness: measured and within bounds, or not passed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.gates import (
    CalibrationError,
    FairnessGap,
    NoWeakSlice,
    NoWorseSlice,
    RobustnessLoss,
)
from airflow_provider_xops.evaluation.plan import (
    EvaluationPlan,
    FairnessPlan,
    NamedSlice,
    RobustnessPlan,
    SlicePlan,
)
from airflow_provider_xops.records import (
    Calibration,
    FairnessFigure,
    GroupFigure,
    Outcome,
    RobustnessFigure,
    SliceFigure,
)
from tests.unit.evaluation.gates.cases import answer, evaluated

PASSED, FAILED, NO_DATA = Outcome.PASSED, Outcome.FAILED, Outcome.NO_DATA


def a_slice(**changes: Any) -> SliceFigure:
    values: dict[str, Any] = {
        "name": "origin = JFK", "conditions": "origin = 'JFK'", "metric": "accuracy", "rows": 500,
        "share": 0.1, "value": 0.8, "rest": 0.82, "p_value": 0.2, "adjusted_p_value": 0.4,
        "champion": 0.81, "champion_difference": -0.01,
        "champion_difference_lower": -0.03, "champion_difference_upper": 0.01,
    }  # fmt: skip
    return SliceFigure(**(values | changes))


@pytest.mark.parametrize(
    ("gate", "changes", "expected"),
    [
        ({}, {}, PASSED),
        ({"beyond_chance": False}, {}, FAILED),
        ({"beyond_chance": False, "margin": 0.01}, {}, PASSED),
        ({}, {"champion_difference": -0.05, "champion_difference_upper": -0.02}, FAILED),
        ({"margin": 0.03}, {"champion_difference": -0.05, "champion_difference_upper": -0.02}, PASSED),
        # For a loss the other end of the interval is the favorable one.
        ({}, {"metric": "log_loss", "champion_difference_lower": 0.02}, FAILED),
        ({}, {"metric": "log_loss"}, PASSED),
        ({}, {"value": None}, NO_DATA),
        ({}, {"value": math.nan}, NO_DATA),
        ({}, {"champion": None}, NO_DATA),
        ({}, {"champion_difference": None}, NO_DATA),
        ({}, {"champion_difference_upper": None}, NO_DATA),
        ({}, {"champion_difference_upper": math.nan}, NO_DATA),
        ({}, {"metric": "unheard_of"}, NO_DATA),
        ({}, {"rows": 99}, NO_DATA),
        ({"min_rows": 99}, {"rows": 99}, PASSED),
    ],
)
def test_no_worse_slice(gate: dict[str, Any], changes: dict[str, Any], expected: Outcome) -> None:
    result = answer(NoWorseSlice(**gate), evaluated(slices=(a_slice(**changes),)))
    assert result.outcome is expected


def test_one_worse_slice_of_many_closes_and_is_named() -> None:
    bad = a_slice(name="origin = EWR", champion_difference=-0.2, champion_difference_upper=-0.1)
    result = answer(NoWorseSlice(), evaluated(slices=(a_slice(), bad, a_slice(rows=10, value=None))))
    assert (result.outcome, result.observed) == (FAILED, -0.1)
    assert "origin = EWR" in result.message


def test_a_slice_that_the_gate_names_must_have_been_measured() -> None:
    there = evaluated(slices=(a_slice(),))
    assert answer(NoWorseSlice(by=("origin",)), there).outcome is PASSED
    assert answer(NoWorseSlice(by=("carrier",)), there).outcome is NO_DATA
    night = NamedSlice(name="night", where="hour < 5")
    assert answer(NoWorseSlice(named=(night,)), there).outcome is NO_DATA
    assert answer(NoWorseSlice(named=(night,)), evaluated(slices=(a_slice(name="night"),))).outcome is PASSED


@pytest.mark.parametrize("gate", [NoWorseSlice(), NoWeakSlice()])
def test_no_slices_are_no_data(gate: Any) -> None:
    assert answer(gate, evaluated()).outcome is NO_DATA
    assert answer(gate, None).outcome is NO_DATA


def test_without_a_champion_slices_only_need_a_figure() -> None:
    alone = a_slice(champion=None, champion_difference=None)
    assert answer(NoWorseSlice(), evaluated(champion=False, slices=(alone,))).outcome is PASSED
    unmeasured = a_slice(value=None)
    assert answer(NoWorseSlice(), evaluated(champion=False, slices=(unmeasured,))).outcome is NO_DATA


@pytest.mark.parametrize(
    ("margin", "changes", "expected"),
    [
        (0.0, {}, PASSED),
        (0.0, {"weak": True}, FAILED),
        (0.05, {"weak": True}, PASSED),
        (0.0, {"weak": True, "metric": "log_loss", "value": 0.5, "rest": 0.4}, FAILED),
        (0.0, {"rest": None}, NO_DATA),
        (0.0, {"value": math.nan}, NO_DATA),
    ],
)
def test_no_weak_slice(margin: float, changes: dict[str, Any], expected: Outcome) -> None:
    result = answer(NoWeakSlice(margin=margin), evaluated(slices=(a_slice(**changes),)))
    assert result.outcome is expected


def test_a_slice_that_is_worse_and_was_not_tested_is_no_proof() -> None:
    untested = a_slice(value=0.5, rest=0.9, p_value=None, adjusted_p_value=None)
    assert answer(NoWeakSlice(), evaluated(slices=(untested,))).outcome is NO_DATA
    assert answer(NoWeakSlice(margin=0.5), evaluated(slices=(untested,))).outcome is PASSED


@pytest.mark.parametrize(("rows", "expected"), [(50 * 150 + 99, PASSED), (50 * 150 + 100, NO_DATA)])
def test_values_that_were_too_many_to_be_measured_are_no_data(rows: int, expected: Outcome) -> None:
    slices = tuple(a_slice(name=f"carrier = {number}", rows=150) for number in range(50))
    evaluation = evaluated(slices=slices)
    of_rows = dataclasses.replace(
        evaluation, record_id="", selection=dataclasses.replace(evaluation.selection, rows=rows)
    )
    result = answer(NoWorseSlice(by=("carrier",)), of_rows)
    assert result.outcome is expected
    assert ("only the 50 most frequent values" in result.message) is (expected is NO_DATA)


def test_slices_that_a_gate_judges_are_measured_whatever_the_plan_calls_small() -> None:
    def support(of_plan: int, of_gate: int) -> int:
        plan = EvaluationPlan(slices=SlicePlan(min_rows=of_plan))
        return NoWorseSlice(by=("origin",), min_rows=of_gate).widen(plan).slices.min_rows

    assert [support(1000, 100), support(50, 100), support(1000, 1)] == [100, 50, 2]


def fairness(**changes: Any) -> FairnessFigure:
    values: dict[str, Any] = {
        "attribute": "black", "metric": "selection_rate", "criterion": "demographic_parity",
        "groups": (
            GroupFigure(group="no", rows=900, value=0.9), GroupFigure(group="yes", rows=100, value=0.8)
        ),
        "gap": 0.1, "gap_lower": 0.05, "gap_upper": 0.18, "ratio": 0.89,
    }  # fmt: skip
    return FairnessFigure(**(values | changes))


@pytest.mark.parametrize(
    ("gate", "changes", "expected"),
    [
        ({"maximum": 0.1}, {}, PASSED),
        ({"maximum": 0.09}, {}, FAILED),
        ({"maximum": 0.1, "bound": "upper"}, {}, FAILED),
        ({"maximum": 0.2, "bound": "upper"}, {}, PASSED),
        ({"maximum": 0.2, "bound": "upper"}, {"gap_upper": None}, NO_DATA),
        ({"minimum_ratio": 0.8}, {}, PASSED),
        ({"minimum_ratio": 0.9}, {}, FAILED),
        ({"maximum": 0.2, "minimum_ratio": 0.9}, {}, FAILED),
        ({"minimum_ratio": 0.8}, {"ratio": None}, NO_DATA),
        ({"maximum": 1}, {"gap": None}, NO_DATA),
        ({"maximum": 1}, {"gap": math.nan}, NO_DATA),
        ({"maximum": 1}, {"attribute": "age"}, NO_DATA),
        ({"maximum": 1}, {"groups": (GroupFigure(group="no", rows=900, value=0.9),)}, NO_DATA),
        ({"maximum": 1, "metric": "equal_opportunity"}, {}, NO_DATA),
        ({"maximum": 1, "metric": "selection_rate"}, {}, PASSED),
    ],
)
def test_fairness_gap(gate: dict[str, Any], changes: dict[str, Any], expected: Outcome) -> None:
    made = FairnessGap(**({"attribute": "black", "metric": "demographic_parity"} | gate))
    assert answer(made, evaluated(fairness=(fairness(**changes),))).outcome is expected


def test_every_metric_of_a_criterion_must_meet_it_and_groups_left_out_are_counted() -> None:
    gate = FairnessGap(attribute="black", metric="equalized_odds", maximum=0.1)
    both = tuple(
        fairness(metric=metric, criterion="equalized_odds", gap=gap, left_out=("other",))
        for metric, gap in (("true_positive_rate", 0.02), ("false_positive_rate", 0.3))
    )
    result = answer(gate, evaluated(fairness=both))
    assert (result.outcome, result.observed) == (FAILED, 0.3)
    assert "1 with too few rows" in result.message
    assert "other" not in result.message


@pytest.mark.parametrize(
    ("gate", "changes", "expected"),
    [
        ({"maximum": 0.05}, {}, PASSED),
        ({"maximum": 0.03}, {}, FAILED),
        ({"maximum": 0.05, "bound": "upper"}, {}, FAILED),
        ({"maximum": 0.05, "bound": "upper"}, {"expected_error_upper": None}, NO_DATA),
        ({"maximum": 0.05, "of": "maximum"}, {}, FAILED),
        ({"maximum": 0.5, "of": "maximum"}, {"maximum_error": None}, NO_DATA),
        ({"maximum": 0.05}, {"expected_error": None}, NO_DATA),
        ({"maximum": 0.05}, {"expected_error": math.nan}, NO_DATA),
    ],
)
def test_calibration_error(gate: dict[str, Any], changes: dict[str, Any], expected: Outcome) -> None:
    values = {"bins": (), "expected_error": 0.04, "expected_error_upper": 0.06, "maximum_error": 0.2}
    figures = Calibration(**(values | changes))
    assert answer(CalibrationError(**gate), evaluated(calibration=figures)).outcome is expected


def test_calibration_that_was_not_measured_is_no_data() -> None:
    assert answer(CalibrationError(maximum=1), evaluated()).outcome is NO_DATA


def disturbed(**changes: Any) -> RobustnessFigure:
    values: dict[str, Any] = {
        "perturbation": "missing", "level": 0.1, "metric": "roc_auc", "value": 0.66, "baseline": 0.7,
        "loss": 0.04,
    }  # fmt: skip
    return RobustnessFigure(**(values | changes))


@pytest.mark.parametrize(
    ("gate", "figures", "expected"),
    [
        ({"maximum": 0.05}, [{}], PASSED),
        ({"maximum": 0.03}, [{}], FAILED),
        ({"maximum": 0.05}, [{}, {"feature": "x", "loss": 0.2}], FAILED),
        ({"maximum": 0.05}, [{}, {"loss": None}], NO_DATA),
        ({"maximum": 0.05}, [{"loss": math.nan}], NO_DATA),
        ({"maximum": 0.05}, [{"level": 0.0}], NO_DATA),
        ({"maximum": 0.05}, [{"perturbation": "noise"}], NO_DATA),
        ({"maximum": 0.05, "metric": "accuracy"}, [{}], NO_DATA),
        ({"maximum": 0.05}, [], NO_DATA),
    ],
)
def test_robustness_loss(gate: dict[str, Any], figures: list[dict[str, Any]], expected: Outcome) -> None:
    made = RobustnessLoss(**({"perturbation": "missing", "level": 0.1} | gate))
    evaluation = evaluated(robustness=tuple(disturbed(**each) for each in figures))
    assert answer(made, evaluation).outcome is expected


def test_the_plan_is_widened_by_what_the_gates_need_and_keeps_what_it_had() -> None:
    plan = EvaluationPlan(
        fairness=FairnessPlan(attributes=("age",), min_rows=20),
        robustness=RobustnessPlan(perturbations=("noise",), levels=(0.2,)),
    )
    night = NamedSlice(name="night", where="hour < 5")
    for gate in (
        NoWorseSlice(by=("origin",), named=(night,)),
        NoWeakSlice(by=("origin", "carrier")),
        FairnessGap(attribute="black", metric="demographic_parity", maximum=0.1),
        FairnessGap(attribute="age", metric="equal_opportunity", maximum=0.1),
        RobustnessLoss(perturbation="missing", level=0.1, maximum=0.1),
        CalibrationError(maximum=0.1),
    ):
        plan = gate.widen(plan)

    assert (plan.slices.by, plan.slices.named) == (("origin", "carrier"), (night,))
    assert plan.fairness == FairnessPlan(attributes=("age", "black"), min_rows=20)
    assert plan.robustness == RobustnessPlan(perturbations=("noise", "missing"), levels=(0.1, 0.2))
    alone = RobustnessLoss(perturbation="shift", level=0.3, maximum=0.1).widen(EvaluationPlan()).robustness
    assert alone == RobustnessPlan(perturbations=("shift",), levels=(0.3,))


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoWorseSlice(margin=-0.1),
        lambda: NoWorseSlice(min_rows=0),
        lambda: NoWorseSlice(by="origin"),
        lambda: NoWeakSlice(margin=math.nan),
        lambda: FairnessGap(attribute="a", metric="m"),
        lambda: FairnessGap(attribute="a", metric="m", maximum=-1),
        lambda: FairnessGap(attribute="a", metric="m", minimum_ratio=1.1),
        lambda: FairnessGap(attribute="a", metric="m", maximum=1, bound="lower"),
        lambda: CalibrationError(maximum=math.inf),
        lambda: CalibrationError(maximum=0.1, of="maximum", bound="upper"),
        lambda: RobustnessLoss(perturbation="noise", level=0, maximum=1),
        lambda: RobustnessLoss(perturbation="nois", level=1, maximum=1),
        lambda: RobustnessLoss(perturbation="noise", level=1, maximum=1, metric="auc"),
    ],
)
def test_an_unusable_gate_is_refused_when_it_is_made(make: Any) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.gate"):
        make()
