"""What a verdict says: phases, gaps, causes, steps, strata, transforms, and where it refuses."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.spc import Baseline, ChartSpec, Point, SpecialCause, judge
from airflow_provider_xops.records import Outcome
from tests.unit.quality.spc.helpers import day, points_of

ORDINARY = [10.0, 10.4, 9.7, 10.1, 9.9, 10.3, 9.8, 10.2, 9.6, 10.1] * 3
SPEC = ChartSpec(metric="row_count", min_points=10, baseline=Baseline(points=30))
FROZEN = Baseline(kind="frozen", start=day(0), end=day(29))


def test_an_ordinary_point_passes() -> None:
    verdict = judge(SPEC, points_of([*ORDINARY, 10.05]))
    assert (verdict.outcome, verdict.phase, verdict.n_used) == (Outcome.PASSED, "phase_2", 30)
    assert verdict.signals == ()


def test_a_signal_says_rule_points_and_since_when() -> None:
    spec = replace(SPEC, rules="nelson", baseline=FROZEN)
    verdict = judge(spec, points_of([*ORDINARY, *[10.6, 10.5] * 5]))
    assert verdict.outcome is Outcome.FAILED
    run = next(signal for signal in verdict.signals if signal.rule == "nelson_2")
    assert run.metric == "row_count"
    assert run.points == tuple(str(number) for number in range(30, 41))
    assert run.since == "30"
    assert run.message == "11 points in a row above the center, since 30"
    assert run.lower is not None
    assert run.upper is not None
    assert run.lower < 10.0 < run.upper


def test_the_order_of_the_points_does_not_matter() -> None:
    points = points_of([*ORDINARY, 14.0])
    shuffled = random.Random(3).sample(points, len(points))
    assert judge(SPEC, shuffled) == judge(SPEC, points)


@pytest.mark.parametrize("chart", ["individuals", "ewma", "cusum"])
def test_too_few_points_are_no_data(chart: str) -> None:
    verdict = judge(replace(SPEC, chart=chart), points_of([*ORDINARY[:9], 99.0]))
    assert (verdict.outcome, verdict.phase, verdict.signals) == (Outcome.NO_DATA, "no_limits", ())
    assert verdict.notes == ("No limits: the baseline has 9 usable points, 10 are needed.",)


def test_no_points_are_no_data() -> None:
    assert judge(SPEC, []).outcome is Outcome.NO_DATA


def test_phase_one_until_the_baseline_is_complete() -> None:
    verdict = judge(SPEC, points_of([*ORDINARY[:15], 10.0]))
    assert (verdict.phase, verdict.outcome) == ("phase_1", Outcome.PASSED)
    assert judge(replace(SPEC, baseline=FROZEN), points_of(ORDINARY)).phase == "phase_1"


def test_missing_values_are_gaps() -> None:
    values = [*ORDINARY[:5], None, float("nan"), *ORDINARY[5:]]
    verdict = judge(replace(SPEC, baseline=Baseline(points=40)), points_of([*values, 10.0]))
    assert verdict.n_used == 30
    assert [(each.label, each.kind) for each in verdict.excluded] == [("6", "gap"), ("7", "gap")]
    newest = judge(SPEC, points_of([*ORDINARY, None]))
    assert newest.outcome is Outcome.NO_DATA
    assert newest.upper is not None


@pytest.mark.parametrize("chart", ["individuals", "ewma", "cusum"])
def test_a_change_after_a_constant_baseline_signals(chart: str) -> None:
    spec = replace(SPEC, chart=chart, rules="nelson" if chart == "individuals" else None)
    constant = judge(spec, points_of([0.1] * 31))
    assert (constant.outcome, constant.sigma) == (Outcome.PASSED, 0.0)
    changed = judge(spec, points_of([*[0.1] * 30, 0.1001]))
    assert [signal.rule for signal in changed.signals] == ["nelson_1" if chart == "individuals" else chart]
    assert changed.signals[0].message == "0.1001 is above the center 0.1"
    assert any("does not vary" in note for note in changed.notes)


def test_out_of_control_points_leave_the_baseline() -> None:
    values = list(ORDINARY)
    values[12] = 40.0
    verdict = judge(SPEC, points_of([*values, 12.0]))
    assert verdict.n_used == 29
    assert [(each.label, each.kind) for each in verdict.excluded] == [("13", "removed")]
    assert verdict.outcome is Outcome.FAILED
    assert judge(replace(SPEC, max_rounds=0), points_of([*values, 12.0])).outcome is Outcome.PASSED


def test_a_baseline_that_is_mostly_out_of_control_is_called_unstable() -> None:
    values = [10.0, 10.1, 10.0, 9.9, 10.1, 30.0, 30.1, 30.0, 29.9, 30.0] * 3
    verdict = judge(SPEC, points_of([*values, 20.0]))
    assert not verdict.stable
    assert verdict.n_used == 30
    assert any("not stable" in note for note in verdict.notes)


def test_special_causes_do_not_signal_and_do_not_move_the_limits() -> None:
    cause = SpecialCause(start=day(5), end=day(6), reason="airport closed")
    values = [*ORDINARY[:5], 0.0, 0.0, *ORDINARY[5:], 10.0]
    verdict = judge(replace(SPEC, baseline=Baseline(points=40)), points_of(values), [cause])
    assert [(each.label, each.reason) for each in verdict.excluded] == [
        ("6", "airport closed"),
        ("7", "airport closed"),
    ]
    assert verdict.n_used == 30
    assert all(signal.points != ("6",) for signal in verdict.all_signals)
    now = SpecialCause(start=day(30), reason="strike")
    struck = judge(SPEC, points_of([*ORDINARY, 0.0]), [now])
    assert struck.outcome is Outcome.NO_DATA
    assert struck.notes == ("The newest point was not judged: special cause (strike).",)
    other = replace(now, metrics=("null_rate",))
    assert judge(SPEC, points_of([*ORDINARY, 0.0]), [other]).outcome is Outcome.FAILED


def test_after_a_step_only_the_new_process_counts() -> None:
    step = SpecialCause(start=day(30), reason="second source", action="step")
    values = [*ORDINARY, *(value * 2 for value in ORDINARY[:15])]
    verdict = judge(SPEC, points_of([*values, 20.1]), [step])
    assert verdict.outcome is Outcome.PASSED
    assert verdict.n_used == 15
    assert {each.kind for each in verdict.excluded} == {"step"}
    assert judge(SPEC, points_of([*ORDINARY, 20.0, 20.1]), [step]).outcome is Outcome.NO_DATA


def _weeks(sunday: float, weeks: int = 12) -> list[Point]:
    first = datetime(2026, 1, 5, tzinfo=UTC)
    level = [100.0] * 5 + [60.0, sunday]
    return [
        Point(
            label=str(number),
            time=first + timedelta(days=number),
            value=level[number % 7] + (0.7, -0.4, 0.1, -0.6, 0.3)[number % 5],
        )
        for number in range(weeks * 7)
    ]


def test_a_point_is_judged_against_its_own_weekday() -> None:
    spec = ChartSpec(metric="m", strata="weekday", min_points=8, baseline=Baseline(points=10))
    points = _weeks(30.0)
    assert judge(spec, points).outcome is Outcome.PASSED
    assert judge(spec, points).stratum == "Sunday"
    workday = [*points[:-1], replace(points[-1], value=100.0)]
    assert judge(spec, workday).outcome is Outcome.FAILED
    assert judge(replace(spec, strata=None), workday).outcome is Outcome.PASSED


def test_runs_cross_strata() -> None:
    """Nine days in a row above their own weekday's center are one run, not nine weeks."""
    spec = ChartSpec(
        metric="m", strata="weekday", rules=("nelson_2",), min_points=8, baseline=Baseline(points=10, gap=9)
    )
    points = _weeks(30.0)
    shifted = [replace(point, value=(point.value or 0.0) + 1.5) for point in points[-9:]]
    verdict = judge(spec, [*points[:-9], *shifted])
    assert [signal.rule for signal in verdict.signals] == ["nelson_2"]
    assert judge(spec, points).outcome is Outcome.PASSED


def test_the_timezone_decides_the_weekday() -> None:
    spec = ChartSpec(metric="m", strata="weekday", timezone="America/New_York", min_points=8)
    point = Point(label="x", time=datetime(2026, 1, 5, 2, tzinfo=UTC), value=1.0)
    assert judge(spec, [point]).stratum == "Sunday"


def test_limits_come_back_from_the_logarithm() -> None:
    values = [100.0, 120.0, 90.0, 110.0, 105.0] * 6
    verdict = judge(replace(SPEC, transform="log"), points_of([*values, 100.0]))
    assert verdict.center == pytest.approx(104.5, abs=0.5)
    assert verdict.lower is not None
    assert verdict.upper is not None
    assert verdict.lower * verdict.upper == pytest.approx((verdict.center or 0.0) ** 2)


@pytest.mark.parametrize("chart", ["individuals", "ewma", "cusum"])
def test_zero_under_a_logarithm_signals(chart: str) -> None:
    values = [100.0, 120.0, 90.0, 110.0, 105.0] * 6
    spec = replace(SPEC, transform="log", chart=chart)
    assert judge(spec, points_of([*values, 0.0])).outcome is Outcome.FAILED
    assert judge(replace(spec, sides="upper"), points_of([*values, 0.0])).outcome is Outcome.PASSED


def test_one_side_signals_only_there() -> None:
    for value, sides, outcome in (
        (14.0, "upper", Outcome.FAILED),
        (14.0, "lower", Outcome.PASSED),
        (6.0, "lower", Outcome.FAILED),
        (6.0, "upper", Outcome.PASSED),
    ):
        for chart in ("individuals", "ewma", "cusum"):
            spec = replace(SPEC, chart=chart, sides=sides)
            assert judge(spec, points_of([*ORDINARY, value])).outcome is outcome, (value, sides, chart)


def test_a_jump_between_neighbors_breaks_the_moving_range() -> None:
    spec = replace(SPEC, rules=("moving_range",))
    verdict = judge(spec, points_of([*ORDINARY, 11.0, 9.0]))
    (signal,) = verdict.signals
    assert signal.points == ("31", "32")


def test_a_cusum_that_resets_signals_once() -> None:
    spec = ChartSpec(metric="m", chart="cusum", target=0.0, sigma=1.0, h=4.0)
    values = [2.0] * 6
    assert [each.points[-1] for each in judge(spec, points_of(values)).all_signals] == ["3", "4", "5", "6"]
    reset = judge(replace(spec, reset=True), points_of(values))
    assert [(each.points[-1], each.since) for each in reset.all_signals] == [("3", "1"), ("6", "4")]


def test_the_sums_start_after_a_frozen_baseline() -> None:
    spec = replace(SPEC, chart="cusum", baseline=FROZEN)
    verdict = judge(spec, points_of([*ORDINARY, 10.0, 10.1]))
    assert [value is not None for value in verdict.statistics[0].values] == [False] * 30 + [True] * 2


def test_a_gap_keeps_a_shift_out_of_the_rolling_baseline() -> None:
    spec = replace(SPEC, baseline=Baseline(points=20, gap=10), rules=("nelson_2",))
    values = [*ORDINARY, *[10.35] * 9]
    assert judge(spec, points_of(values)).outcome is Outcome.FAILED
    assert judge(spec, points_of(values)).baseline[-1] == "28"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"chart": "xbar"}, "chart"),
        ({"rules": ("nelson_9",)}, "rules"),
        ({"chart": "ewma", "rules": ("nelson_1",)}, "rules"),
        ({"strata": "month"}, "strata"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"lambda_": 0.0}, "lambda_"),
        ({"min_points": 31}, "min_points"),
        ({"sigma": -1.0}, "sigma"),
        ({"max_removed": 0.7}, "max_removed"),
        ({"chart": "p", "transform": "log"}, "p chart"),
    ],
)
def test_a_chart_that_cannot_work_is_refused(change: dict[str, object], what: str) -> None:
    with pytest.raises(ArgumentError, match=what) as caught:
        replace(SPEC, **change)  # type: ignore[arg-type]
    assert caught.value.code == "argument.control_chart"


def test_values_that_do_not_fit_the_chart_are_refused() -> None:
    with pytest.raises(ArgumentError, match="proportions"):
        judge(ChartSpec(metric="m", chart="p"), points_of([1.5], [10.0]))
    with pytest.raises(ArgumentError, match="0 or more"):
        judge(replace(SPEC, transform="log"), points_of([-1.0]))


def test_times_need_a_time_zone() -> None:
    with pytest.raises(ArgumentError, match="time zone"):
        Point(label="x", time=datetime(2026, 1, 1), value=1.0)  # noqa: DTZ001


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
def test_floating_points_keep_the_weekday_of_their_own_calendar(zone: str) -> None:
    # given partitions called after local dates: a Sunday is a Sunday wherever the chart is
    spec = ChartSpec(metric="row_count", strata="weekday", timezone=zone, min_points=5)
    sunday = Point(label="2013-03-31", time=datetime(2013, 3, 31, tzinfo=UTC), value=1.0, floating=True)

    assert judge(spec, [sunday]).stratum == "Sunday"
    moment = judge(spec, [replace(sunday, floating=False)])
    assert moment.stratum == ("Saturday" if zone == "America/New_York" else "Sunday")


def test_value_on_the_limit_is_not_beyond_it() -> None:
    # given limits whose floats are a little off: (10.3 - 10) / 0.1 is above 3
    spec = ChartSpec(metric="row_count", target=10.0, sigma=0.1, rules="nelson")

    assert judge(spec, points_of([10.3])).signals == ()
    assert judge(spec, points_of([10.0, 10.2, 10.2])).signals == ()
    assert judge(spec, points_of([10.3001])).outcome is Outcome.FAILED


@pytest.mark.parametrize("moving_range", ["average", "median"])
def test_runs_and_moving_ranges_go_over_gaps(moving_range: str) -> None:
    spec = replace(SPEC, rules="nelson", moving_range=moving_range)
    whole = judge(spec, points_of([*ORDINARY, *[10.2] * 9]))
    gaps = judge(spec, points_of([*ORDINARY, *[10.2, None] * 8, 10.2]))

    assert (gaps.sigma, gaps.center) == (whole.sigma, whole.center)
    assert [one.rule for one in gaps.signals] == [one.rule for one in whole.signals] == ["nelson_2"]
