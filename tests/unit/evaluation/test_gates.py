"""A gate passes only on a figure that exists and meets it; what is missing is no data, never passed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.gates import (
    BetterThanChampion,
    Figures,
    Gate,
    MetricThreshold,
    gates_digest,
    gates_from,
)
from airflow_provider_xops.records import Outcome
from airflow_provider_xops.training.metrics import METRICS

figure = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


def answer(gate: Gate, challenger: float | None, champion: float | str | None = "none") -> Outcome:
    theirs = None if isinstance(champion, str) else {gate.metric: champion}
    return gate.check(Figures(challenger={gate.metric: challenger}, champion=theirs)).outcome


@pytest.mark.parametrize(
    ("observed", "outcome"),
    [
        (0.6, Outcome.PASSED),
        (0.7, Outcome.PASSED),
        (0.9, Outcome.PASSED),
        (0.5999, Outcome.FAILED),
        (0.9001, Outcome.FAILED),
        (None, Outcome.NO_DATA),
        (math.nan, Outcome.NO_DATA),
        (math.inf, Outcome.NO_DATA),
    ],
)
def test_a_threshold_includes_its_bounds(observed: float | None, outcome: Outcome) -> None:
    assert answer(MetricThreshold(metric="roc_auc", minimum=0.6, maximum=0.9), observed) is outcome


def test_a_threshold_reports_its_figures() -> None:
    result = MetricThreshold(metric="mae", maximum=5).check(Figures(challenger={"mae": 7.5}, champion=None))
    assert (result.gate, result.observed, result.threshold) == ("metric_threshold:mae", 7.5, 5)
    assert "7.5 is above 5" in result.message


@pytest.mark.parametrize(
    ("metric", "margin", "challenger", "champion", "outcome"),
    [
        ("roc_auc", 0.0, 0.75, 0.5, Outcome.PASSED),
        ("roc_auc", 0.0, 0.5, 0.5, Outcome.FAILED),
        ("roc_auc", 0.25, 0.75, 0.5, Outcome.FAILED),
        ("roc_auc", -0.25, 0.375, 0.5, Outcome.PASSED),
        ("log_loss", 0.0, 0.25, 0.5, Outcome.PASSED),
        ("log_loss", 0.0, 0.75, 0.5, Outcome.FAILED),
        ("log_loss", 0.125, 0.25, 0.5, Outcome.PASSED),
        ("roc_auc", 0.0, None, 0.5, Outcome.NO_DATA),
        ("roc_auc", 0.0, 0.5, None, Outcome.NO_DATA),
        ("roc_auc", 0.0, 0.5, math.nan, Outcome.NO_DATA),
        ("roc_auc", 0.0, 0.5, "none", Outcome.PASSED),
        ("roc_auc", 0.0, None, "none", Outcome.NO_DATA),
        ("roc_auc", 0.0, math.nan, "none", Outcome.NO_DATA),
    ],
)
def test_better_means_by_more_than_the_margin_in_the_metrics_direction(
    metric: str, margin: float, challenger: float | None, champion: Any, outcome: Outcome
) -> None:
    assert answer(BetterThanChampion(metric=metric, margin=margin), challenger, champion) is outcome


def test_a_first_challenger_passes_with_its_own_figure() -> None:
    result = BetterThanChampion(metric="roc_auc").check(Figures(challenger={"roc_auc": 0.7}, champion=None))
    assert result.observed == 0.7
    assert "no champion" in result.message


def test_better_than_champion_reports_the_bar() -> None:
    figures = Figures(challenger={"log_loss": 0.5}, champion={"log_loss": 0.75})
    assert BetterThanChampion(metric="log_loss", margin=0.125).check(figures).threshold == 0.625


@given(st.sampled_from(sorted(METRICS)), figure, figure, st.floats(-1, 1))
def test_nothing_that_was_not_measured_ever_passes(
    metric: str, challenger: float | None, champion: float | None, margin: float
) -> None:
    gates: list[Gate] = [
        MetricThreshold(metric=metric, minimum=-1e300, maximum=1e300),
        BetterThanChampion(metric=metric, margin=margin),
    ]
    for gate in gates:
        result = gate.check(Figures(challenger={metric: challenger}, champion={metric: champion}))
        if challenger is None or not math.isfinite(challenger):
            assert result.outcome is Outcome.NO_DATA
        if result.outcome is Outcome.PASSED:
            assert result.observed is not None
            assert math.isfinite(result.observed)


def test_a_metric_nobody_measured_is_no_data() -> None:
    figures = Figures(challenger={}, champion={})
    for gate in (MetricThreshold(metric="r2", minimum=0), BetterThanChampion(metric="r2")):
        assert gate.check(figures).outcome is Outcome.NO_DATA


def test_gates_survive_json_and_have_one_digest() -> None:
    gates = (
        MetricThreshold(metric="roc_auc", minimum=0.6),
        BetterThanChampion(metric="roc_auc", margin=0.01),
    )
    again = gates_from(json.loads(json.dumps([gate.to_json() for gate in gates])))
    assert again == gates
    assert gates_digest(again) == gates_digest(gates)
    assert gates_digest(gates) != gates_digest(gates[:1])
    assert gates_from(gates) == gates


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ([{"gate": "beter_than_champion", "metric": "roc_auc"}], "better_than_champion"),
        ([{"metric": "roc_auc"}], "metric_threshold"),
        (["roc_auc"], "metric_threshold"),
        ([{"gate": "metric_threshold", "metric": "auc", "minimum": 1}], "roc_auc"),
        ([{"gate": "metric_threshold", "minimum": 1}], "names no metric"),
        ([{"gate": "metric_threshold", "metric": "roc_auc"}], "minimum"),
        ([{"gate": "metric_threshold", "metric": "roc_auc", "minimum": "0.5"}], "as numbers"),
        ([{"gate": "metric_threshold", "metric": "roc_auc", "minimum": math.nan}], "as numbers"),
        ([{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.9, "maximum": 0.1}], "never pass"),
        ([{"gate": "metric_threshold", "metric": "roc_auc", "min": 0.9}], "minimum"),
        ([{"gate": "better_than_champion", "metric": "roc_auc", "margin": None}], "margin"),
        ({"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.9}, "list"),
        ("metric_threshold", "list"),
    ],
)
def test_an_unusable_gate_is_refused_and_the_known_ones_are_listed(value: Any, hint: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        gates_from(value)
    assert caught.value.code == "argument.gate"
    assert hint in str(caught.value)
