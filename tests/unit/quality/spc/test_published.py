"""Worked examples as they are printed: NIST/SEMATECH e-Handbook and Montgomery, 7th edition.

Tolerances are half a unit of the last printed place, unless a comment says what the source rounded.
"""

from __future__ import annotations

import numpy as np
import pytest

from airflow_provider_xops.quality.spc import Baseline, ChartSpec, Series, judge
from airflow_provider_xops.quality.spc.cusum import cusum
from airflow_provider_xops.quality.spc.estimate import D2, binomial_sigma, estimate
from airflow_provider_xops.quality.spc.ewma import ewma, ewma_limits
from airflow_provider_xops.records import Outcome
from tests.unit.quality.spc.helpers import day, points_of

FLOWRATE = [49.6, 47.6, 49.9, 51.3, 47.8, 51.2, 52.6, 52.4, 53.6, 52.1]
"""NIST 6.3.2.2."""

EWMA_DATA = [52.0, 47.0, 53.0, 49.3, 50.1, 47.0, 51.0, 50.1, 51.2, 50.5, *FLOWRATE]
EWMA_PRINTED = [
    *(50.60, 49.52, 50.56, 50.18, 50.16, 49.21, 49.75, 49.85, 50.26, 50.33),
    *(50.11, 49.36, 49.52, 50.05, 49.38, 49.92, 50.73, 51.23, 51.94, 51.99),
]
"""NIST 6.3.2.4."""

CUSUM_DATA = [
    *(324.925, 324.675, 324.725, 324.350, 325.350, 325.225, 324.125, 324.525, 325.225, 324.600),
    *(324.625, 325.150, 328.325, 327.250, 327.825, 328.500, 326.675, 327.775, 326.875, 328.350),
]
CUSUM_HIGH = [0, 0, 0, 0, 0.03, *[0] * 7, 3.01, 4.94, 7.45, 10.63, 11.99, 14.44, 16.00, 19.04]
CUSUM_LOW = [0, 0.01, 0, 0.33, 0, 0, 0.56, 0.72, 0.17, 0.25, 0.31, *[0] * 9]
"""NIST 6.3.2.3: target 325, k = 0.3175, h = 4.1959, standard deviation of the means 0.635."""

VISCOSITY = [
    *(9.45, 7.99, 9.29, 11.66, 12.16, 10.18, 8.04, 11.46, 9.20, 10.34),
    *(9.03, 11.47, 10.51, 9.40, 10.08, 9.37, 10.62, 10.31, 8.52, 10.84),
    *(10.90, 9.33, 12.29, 11.50, 10.60, 11.08, 10.38, 11.62, 11.31, 10.52),
]
"""Montgomery, table 9.1: the last ten from a process whose mean moved from 10 to 11."""

JUICE = [
    *(12, 15, 8, 10, 4, 7, 16, 9, 14, 10, 5, 6, 17, 12, 22),
    *(8, 10, 5, 13, 11, 20, 18, 24, 15, 9, 12, 7, 13, 9, 6),
]
"""Montgomery, table 7.1: cans that leak in samples of 50."""


def test_individuals_of_nist_flow_rates() -> None:
    # Given the ten batches
    found = estimate(ChartSpec(metric="m"), np.array([FLOWRATE]))
    # Then center, average moving range and limits are NIST's, and no batch is outside.
    center, scale = found.center[0], found.scale[0]
    assert center == pytest.approx(50.81, abs=5e-3)
    assert scale * D2 == pytest.approx(1.8778, abs=5e-5)
    # NIST takes MR-bar as printed, 1.8778.
    assert center + 3 * scale == pytest.approx(55.8041, abs=2e-4)
    assert center - 3 * scale == pytest.approx(45.8159, abs=2e-4)
    assert found.used.all()
    assert found.stable.all()


def test_ewma_of_nist() -> None:
    z = (np.array(EWMA_DATA) - 50.0) / 2.0539
    assert ewma(z, lambda_=0.3) * 2.0539 + 50.0 == pytest.approx(np.array(EWMA_PRINTED), abs=5e-3)
    # NIST uses the limits that hold from some points on, with sqrt(0.3 / 1.7) rounded to 0.4201.
    limits = ewma_limits(z, lambda_=0.3, limit=3.0, time_varying=False) * 2.0539
    assert limits[0] == pytest.approx(52.5884 - 50.0, abs=2e-4)
    assert limits[0] == pytest.approx(50.0 - 47.4115, abs=2e-4)


def test_ewma_chart_of_nist_does_not_signal() -> None:
    spec = ChartSpec(metric="m", chart="ewma", lambda_=0.3, ewma_limit=3.0, target=50.0, sigma=2.0539)
    verdict = judge(spec, points_of(EWMA_DATA))
    assert verdict.all_signals == ()
    assert verdict.outcome is Outcome.PASSED
    assert _numbers(verdict.statistics[0]) == pytest.approx(EWMA_PRINTED, abs=5e-3)
    assert verdict.upper == pytest.approx(52.5884, abs=1e-2)


def test_cusum_of_nist() -> None:
    spec = ChartSpec(metric="m", chart="cusum", target=325.0, sigma=0.635, k=0.5, h=4.1959 / 0.635)
    verdict = judge(spec, points_of(CUSUM_DATA))
    high, low = verdict.statistics
    assert (high.name, low.name, high.unit) == ("C+", "C-", "value")
    # The printed table rounds ties (14.445, 19.035) either way.
    assert _numbers(high) == pytest.approx(CUSUM_HIGH, abs=5e-3 + 1e-9)
    assert _numbers(low) == pytest.approx(CUSUM_LOW, abs=5e-3 + 1e-9)
    # NIST stars groups 14 to 20.
    assert [signal.points[-1] for signal in verdict.all_signals] == [str(group) for group in range(14, 21)]
    assert {signal.since for signal in verdict.all_signals} == {"13"}


def test_cusum_of_montgomery_says_since_when() -> None:
    spec = ChartSpec(metric="viscosity", chart="cusum", target=10.0, sigma=1.0, k=0.5, h=5.0)
    # When the 29th point comes, the upper sum passes 5 and has been above zero for seven points
    verdict = judge(spec, points_of(VISCOSITY[:29]))
    # Then the shift began between points 22 and 23.
    (signal,) = verdict.signals
    assert signal.points == tuple(str(point) for point in range(23, 30))
    assert signal.since == "23"
    assert signal.message == "C+ 5.28 is above 5, since 23"
    assert judge(spec, points_of(VISCOSITY[:28])).outcome is Outcome.PASSED
    sums = cusum(np.array(VISCOSITY) - 10.0, k=0.5, h=5.0)
    assert sums.n_upper[28] == 7
    assert sums.upper[28:] == pytest.approx([5.28, 5.30], abs=5e-3)
    assert sums.lower[:3] == pytest.approx([0.05, 1.56, 1.77], abs=5e-3)


def test_ewma_limits_of_montgomery_widen() -> None:
    """Example 9.2: lambda 0.10, L 2.7, the data of table 9.1; limits of equations 9.25 and 9.26."""
    spec = ChartSpec(metric="m", chart="ewma", lambda_=0.1, ewma_limit=2.7, target=10.0, sigma=1.0)
    verdict = judge(spec, points_of(VISCOSITY))
    (average,) = verdict.statistics
    assert _numbers(average)[:3] == pytest.approx([9.945, 9.7495, 9.70355], abs=5e-6)
    assert average.upper[0] == pytest.approx(10.27, abs=5e-3)
    assert average.upper[1] == pytest.approx(10.36, abs=5e-3)
    assert average.upper[-1] == pytest.approx(10.62, abs=5e-3)
    assert average.lower[-1] == pytest.approx(9.38, abs=5e-3)


def test_p_chart_of_montgomery_trial_and_revised_limits() -> None:
    proportions, sizes = np.array([JUICE]) / 50, np.full((1, 30), 50.0)

    def limits(rounds: int) -> tuple[float, float, float, list[int]]:
        spec = ChartSpec(metric="m", chart="p", laney=False, max_rounds=rounds)
        found = estimate(spec, proportions, sizes)
        center, sigma = found.center[0], binomial_sigma(found.center, sizes)[0, 0]
        return center, center - 3 * sigma, center + 3 * sigma, list(np.flatnonzero(~found.used[0]) + 1)

    # Trial limits: two samples are outside.
    center, lower, upper, removed = limits(0)
    assert (center, lower, upper) == pytest.approx((0.2313, 0.0524, 0.4102), abs=6e-5)
    assert removed == []
    # Revised limits: without samples 15 (new cardboard) and 23 (new operator).
    center, lower, upper, removed = limits(1)
    assert removed == [15, 23]
    assert (center, lower, upper) == pytest.approx((0.2150, 0.0407, 0.3893), abs=6e-5)
    # The book finds no cause for 21, now outside too, and keeps it: people decide. Another round drops it.
    assert limits(2)[3] == [15, 21, 23]


def test_p_chart_judges_against_a_frozen_baseline_of_varying_sizes() -> None:
    sizes = [50.0] * 30 + [200.0]
    points = points_of([*(count / 50 for count in JUICE), 0.32], sizes)
    baseline = Baseline(kind="frozen", start=day(0), end=day(29))
    verdict = judge(ChartSpec(metric="m", chart="p", laney=False, max_rounds=1, baseline=baseline), points)
    # 0.32 of 50 would be ordinary; of 200 the limit is half as far.
    assert verdict.phase == "phase_2"
    assert verdict.upper == pytest.approx(0.2150 + (0.3893 - 0.2150) / 2, abs=1e-4)
    assert [signal.rule for signal in verdict.signals] == ["nelson_1"]


def test_laney_without_overdispersion_is_the_p_chart() -> None:
    """sigma_z is 1 where points vary as binomial ones do; with large sizes and real variation, far above."""
    random = np.random.default_rng(7)
    binomial = random.binomial(1_000, 0.1, size=(1, 5_000)) / 1_000
    spec = ChartSpec(metric="m", chart="p")
    assert estimate(spec, binomial, np.full((1, 5_000), 1_000.0)).scale[0] == pytest.approx(1.0, abs=0.04)
    rates = random.normal(0.1, 0.01, size=(1, 5_000))
    binomial = random.binomial(100_000, rates) / 100_000
    sigma_z = estimate(spec, binomial, np.full((1, 5_000), 100_000.0)).scale[0]
    # sqrt(1 + (0.01 / sigma_p) ** 2) with sigma_p = sqrt(0.1 * 0.9 / 100,000)
    assert sigma_z == pytest.approx(10.6, rel=0.05)


def _numbers(series: Series) -> list[float]:
    return [value for value in series.values if value is not None]
