"""McNemar's test against statsmodels and SciPy, Tango's against its paper, and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as peer

from airflow_provider_xops.evaluation.statistics import mcnemar

COUNTS = st.integers(0, 60)


@settings(max_examples=40)
@given(first=COUNTS, second=COUNTS)
def test_mid_p_is_the_exact_test_less_half_of_the_observed_outcome(first: int, second: int) -> None:
    discordant = first + second
    if discordant == 0:
        assert mcnemar.mid_p(first, second) == 1.0
        return
    exact = stats.binomtest(first, discordant, alternative="greater").pvalue
    half = stats.binom.pmf(first, discordant, 0.5) / 2
    assert mcnemar.mid_p(first, second) == pytest.approx(exact - half, abs=1e-12)
    assert mcnemar.mid_p(first, second) + mcnemar.mid_p(second, first) == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=40)
@given(first=COUNTS, second=COUNTS)
def test_twice_the_smaller_exact_tail_is_statsmodels_exact_test(first: int, second: int) -> None:
    discordant = first + second
    if first == second:
        return
    less, more = min(first, second), max(first, second)
    ours = 2 * (mcnemar.mid_p(more, less) + stats.binom.pmf(more, discordant, 0.5) / 2)
    assert ours == pytest.approx(peer([[10, first], [second, 5]], exact=True).pvalue, abs=1e-12)


def test_fagerlands_example_of_airway_responsiveness() -> None:
    # Fagerland, Lydersen and Laake (2013), table 1: 1 against 7 of 21; two-sided exact 0.070, mid-p 0.039.
    assert 2 * mcnemar.mid_p(7, 1) == pytest.approx(0.039, abs=5e-4)


@settings(max_examples=40)
@given(first=COUNTS, second=COUNTS, both=st.integers(1, 200), bar=st.floats(-0.3, 0.3))
def test_the_score_uses_the_likeliest_rates_under_the_bar(
    first: int, second: int, both: int, bar: float
) -> None:
    rows = first + second + both

    def unlikely(only_second: float) -> float:
        rates = np.array([only_second + bar, only_second, 1 - 2 * only_second - bar])
        counts = np.array([first, second, both])
        return -float((counts * np.log(np.maximum(rates, 1e-300))).sum())

    low, high = max(0.0, -bar), (1 - bar) / 2
    best = optimize.minimize_scalar(
        unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    variance = rows * (2 * best + bar * (1 - bar))
    if variance < 1e-3:
        return
    z = (first - second - rows * bar) / np.sqrt(variance)
    assert mcnemar.score_p(first, second, rows, bar) == pytest.approx(stats.norm.sf(z), abs=2e-4)


def test_without_a_bar_the_score_is_mcnemars_chi_square() -> None:
    chi_square = peer([[10, 25], [12, 5]], exact=False, correction=False)
    assert 2 * mcnemar.score_p(25, 12, 52, 0.0) == pytest.approx(chi_square.pvalue, abs=1e-12)


@settings(max_examples=40)
@given(first=COUNTS, second=COUNTS, both=st.integers(0, 200), confidence=st.sampled_from([0.8, 0.95]))
def test_the_interval_holds_what_the_test_does_not_reject(
    first: int, second: int, both: int, confidence: float
) -> None:
    rows = first + second + both
    if rows == 0:
        return
    low, high = mcnemar.score_interval(first, second, rows, confidence)
    assert -1 <= low <= (first - second) / rows <= high <= 1
    tail = (1 - confidence) / 2
    if low > -1 + 1e-9:
        assert mcnemar.score_p(first, second, rows, low) == pytest.approx(tail, abs=1e-6)
    if high < 1 - 1e-9:
        assert 1 - mcnemar.score_p(first, second, rows, high) == pytest.approx(tail, abs=1e-6)
    assert mcnemar.score_interval(second, first, rows, confidence) == pytest.approx((-high, -low), abs=1e-9)


def test_models_that_are_always_right_together_are_not_known_to_be_equal() -> None:
    low, high = mcnemar.score_interval(0, 0, 100, 0.95)
    assert low == pytest.approx(-high)
    assert 0.01 < high < 0.05
    assert mcnemar.score_p(0, 0, 100, -0.01) > 0.05 > mcnemar.score_p(0, 0, 1000, -0.01)
