"""Thousands of series at once: what is refused, and what has no answer (agreement: test_invariants)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.spc import Baseline, ChartSpec, judge_many
from tests.unit.quality.spc.helpers import day

SPEC = ChartSpec(metric="m")
VALUES = np.tile([10.0, 10.4, 9.7, 10.1, 9.9, 10.3], (3, 6))[:, :31] * np.array([[1.0], [3.0], [0.1]])


def test_gaps_of_one_series_do_not_touch_the_others() -> None:
    values = np.vstack([VALUES, VALUES])
    values[3:, 4] = np.nan
    values[1, -1] = values[4, -1] = 50.0
    found = judge_many(values, SPEC)
    assert found.rules == ("nelson_1",)
    assert found.failed.tolist() == [False, True, False] * 2
    assert np.array_equal(found.center[:3], judge_many(values[:3], SPEC).center)


@pytest.mark.parametrize("chart", ["individuals", "ewma", "cusum"])
@pytest.mark.parametrize("gaps", [False, True])
def test_the_number_of_series_does_not_matter(chart: str, gaps: bool) -> None:
    values = np.random.default_rng(2).normal(size=(1_100, 31))
    if gaps:
        values[::3, 5] = np.nan
    spec = replace(SPEC, chart=chart, min_points=10)
    found = judge_many(values, spec)
    for rows in (slice(0, 40), slice(500, 530), slice(1_080, 1_100)):
        assert np.array_equal(found.signals[rows], judge_many(values[rows], spec).signals)
        assert np.array_equal(found.sigma[rows], judge_many(values[rows], spec).sigma)
    assert found.failed.any()
    assert found.judged.all()


def test_no_value_and_too_few_points_are_not_judged() -> None:
    values = VALUES.copy()
    values[0, -1] = np.nan
    values[1, :20] = np.nan
    found = judge_many(values, SPEC)
    assert found.judged.tolist() == [False, False, True]
    assert np.isnan(found.upper).tolist() == [False, True, False]


def test_no_series_and_no_points() -> None:
    assert judge_many(np.empty((0, 31)), SPEC).failed.shape == (0,)
    assert judge_many(np.empty((2, 0)), SPEC).judged.tolist() == [False, False]


@pytest.mark.parametrize(
    ("values", "changes", "arguments", "why"),
    [
        (VALUES[0], {}, {}, "dimensions"),
        (VALUES, {"strata": "weekday"}, {}, "need the times"),
        (VALUES, {"baseline": Baseline(kind="frozen", start=day(0), end=day(9))}, {}, "need the times"),
        (VALUES, {}, {"times": [day(0)]}, "1 times for 31 points"),
        (VALUES, {}, {"times": [day(-at) for at in range(31)]}, "ascend"),
        (VALUES, {"chart": "p"}, {}, "sizes"),
    ],
)
def test_what_does_not_fit_is_refused(
    values: np.ndarray, changes: dict[str, object], arguments: dict[str, object], why: str
) -> None:
    with pytest.raises(ArgumentError, match=why) as caught:
        judge_many(values, replace(SPEC, **changes), **arguments)  # type: ignore[arg-type]
    assert caught.value.code == "argument.control_chart"
