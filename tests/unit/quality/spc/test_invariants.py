"""What holds for every series: units do not matter, causes leave no trace, and many answer as one does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.quality.spc import (
    Baseline,
    ChartSpec,
    ChartVerdict,
    SpecialCause,
    judge,
    judge_many,
)
from airflow_provider_xops.records import Outcome
from tests.unit.quality.spc.helpers import day, points_of

seeds = st.integers(min_value=0, max_value=10_000)
charts = st.sampled_from(["individuals", "ewma", "cusum"])


def _series(seed: int, count: int = 60) -> np.ndarray:
    """Normal points with a few wild ones and, sometimes, a shift at the end."""
    random = np.random.default_rng(seed)
    values = random.normal(size=count)
    values[random.integers(0, count, 2)] += random.choice([-6.0, 6.0], 2)
    values[count - random.integers(1, 15) :] += random.choice([0.0, 1.5, -2.5])
    return values


def _spec(chart: str, **changes: object) -> ChartSpec:
    spec = ChartSpec(metric="m", chart=chart, rules="nelson" if chart == "individuals" else None)
    return replace(spec, **changes)  # type: ignore[arg-type]


def _patterns(verdict: ChartVerdict) -> list[tuple[str, tuple[str, ...]]]:
    return [(signal.rule, signal.points) for signal in verdict.all_signals]


@settings(max_examples=60, deadline=None)
@given(seeds, charts, st.sampled_from([0.001, 0.5, 3.0, 1e6]), st.sampled_from([-1e3, 0.0, 7.0]))
def test_units_do_not_matter(seed: int, chart: str, factor: float, offset: float) -> None:
    values, spec = _series(seed), _spec(chart)
    moved = values * factor + offset * factor
    assert _patterns(judge(spec, points_of(moved))) == _patterns(judge(spec, points_of(values)))


@settings(max_examples=40, deadline=None)
@given(seeds, charts)
def test_a_chart_turned_upside_down_gives_the_same_signals(seed: int, chart: str) -> None:
    values, spec = _series(seed), _spec(chart)
    # Both sums can be beyond at once: which is named first does not matter.
    turned = sorted(_patterns(judge(spec, points_of(-values))))
    assert turned == sorted(_patterns(judge(spec, points_of(values))))


@settings(max_examples=40, deadline=None)
@given(seeds, charts, st.integers(min_value=0, max_value=58), st.sampled_from([0.0, 1e9, -1e9]))
def test_a_point_in_a_special_cause_changes_nothing(seed: int, chart: str, at: int, value: float) -> None:
    values, spec = _series(seed), _spec(chart)
    cause = [SpecialCause(start=day(at), end=day(at), reason="known")]
    other = values.copy()
    other[at] = value
    assert _patterns(judge(spec, points_of(other), cause)) == _patterns(judge(spec, points_of(values), cause))


@settings(max_examples=60, deadline=None)
@given(
    seeds,
    st.sampled_from(["individuals", "ewma", "cusum", "p"]),
    st.sampled_from(["both", "upper", "lower"]),
    st.sampled_from([None, "weekday"]),
    st.sampled_from(["rolling", "gap", "frozen"]),
    st.sampled_from(["average", "median"]),
    st.booleans(),
    st.sampled_from([None, "log"]),
)
def test_many_answer_as_one_does(
    seed: int,
    chart: str,
    sides: str,
    strata: str | None,
    kind: str,
    moving_range: str,
    caused: bool,
    transform: str | None,
) -> None:
    # Given four series: ordinary, with gaps, constant, and with a zero that a logarithm cannot take
    random = np.random.default_rng(seed)
    values = np.abs(np.vstack([_series(seed), _series(seed + 1), np.full(60, 0.1), _series(seed + 2)])) + 0.1
    values[1, random.integers(0, 60, 5)] = np.nan
    values[3, random.choice([20, 58, 59])] = 0.0
    if chart == "p":
        values, transform = values / 20.0, None
    sizes = random.integers(50, 5_000, values.shape).astype(float)
    baseline = {
        "rolling": Baseline(points=40),
        "gap": Baseline(points=30, gap=5),
        "frozen": Baseline(kind="frozen", start=day(2), end=day(50)),
    }[kind]
    rules = ("nelson_1", "nelson_2", "nelson_3", "nelson_5", "western_electric_3")
    spec = ChartSpec(
        metric="m",
        chart=chart,
        sides=sides,
        strata=strata,
        baseline=baseline,
        transform=transform,
        moving_range=moving_range,
        min_points=5,
        rules=None if chart in ("ewma", "cusum") else rules if chart == "p" else (*rules, "moving_range"),
    )
    causes = [SpecialCause(start=day(30), end=day(33), reason="known")] if caused else []
    # When all are judged at once and one by one
    together = judge_many(
        values,
        spec,
        times=[day(at) for at in range(60)],
        sizes=sizes if chart == "p" else None,
        causes=causes,
    )
    for row, series in enumerate(values):
        alone = judge(spec, points_of(series, list(sizes[row])), causes)
        # Then the answers are the same.
        fired = {rule for rule, flag in zip(together.rules, together.signals[row], strict=True) if flag}
        assert fired == {signal.rule for signal in alone.signals}, row
        assert bool(together.judged[row]) == (alone.outcome is not Outcome.NO_DATA)
        if alone.sigma is not None:
            assert together.sigma[row] == alone.sigma
            assert together.center[row] == alone.center
        if chart in ("individuals", "p") and sides == "both" and alone.upper is not None:
            assert (together.lower[row], together.upper[row]) == (alone.lower, alone.upper)
