"""How long charts run until they signal, against the published averages (fixed seeds, wide intervals)."""

from __future__ import annotations

import numpy as np
import pytest

from airflow_provider_xops.quality.spc import NELSON, WESTERN_ELECTRIC, ChartSpec, judge_many
from airflow_provider_xops.quality.spc.cusum import cusum
from airflow_provider_xops.quality.spc.ewma import ewma, ewma_limits
from airflow_provider_xops.quality.spc.rules import LONGEST, fires


def _normal(rows: int, columns: int, *, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(20260115).normal(loc=shift, size=(rows, columns))


def _average_run_length(beyond: np.ndarray) -> float:
    """From flags (series x points): points until the first signal, or as far as a series went.

    Time at risk over signals: right for run lengths whose tail is exponential, as these are.
    """
    signaled = beyond.any(axis=1)
    lengths = np.where(signaled, beyond.argmax(axis=1) + 1, beyond.shape[1])
    return float(lengths.sum() / signaled.sum())


def _rule_set(rules: tuple[str, ...], z: np.ndarray) -> np.ndarray:
    found = np.zeros(z.shape, dtype=bool)
    for end in range(1, z.shape[1] + 1):
        window = z[:, max(0, end - LONGEST) : end]
        for rule in rules:
            found[:, end - 1] |= fires(rule, window)
    return found


def test_three_sigma_limits_signal_once_in_370_points() -> None:
    spec = ChartSpec(metric="m", target=0.0, sigma=1.0)
    share = judge_many(_normal(1_500_000, 1), spec).failed.mean()
    # Montgomery 5.3.3: 1 / 0.0027; the standard error of the simulation is 1.6%.
    assert 1 / share == pytest.approx(370.4, rel=0.05)


@pytest.mark.parametrize(
    ("h", "shift", "published"), [(4.0, 0.0, 168.0), (5.0, 0.0, 465.0), (4.0, 1.0, 8.38), (5.0, 1.0, 10.4)]
)
def test_cusum_runs_as_long_as_montgomery_says(h: float, shift: float, published: float) -> None:
    """Table 9.3: two-sided, k = 0.5."""
    sums = cusum(_normal(3_000, 60 if shift else 800, shift=shift), k=0.5, h=h)
    assert _average_run_length((sums.upper > h) | (sums.lower > h)) == pytest.approx(published, rel=0.06)


@pytest.mark.parametrize(
    ("lambda_", "limit", "shift", "published"), [(0.2, 2.962, 0.0, 500.0), (0.25, 3.0, 1.0, 11.154)]
)
def test_ewma_runs_as_long_as_published(lambda_: float, limit: float, shift: float, published: float) -> None:
    """Lucas and Saccucci (1990): 500 in control; 11.154 is the integral equation's answer (Crowder, 1987)."""
    z = _normal(3_000, 120 if shift else 800, shift=shift)
    edge = ewma_limits(z[0], lambda_=lambda_, limit=limit, time_varying=False)
    beyond = np.abs(ewma(z, lambda_=lambda_)) > edge
    assert _average_run_length(beyond) == pytest.approx(published, rel=0.06)


def test_western_electric_rules_together_signal_once_in_92_points() -> None:
    """Champ and Woodall (1987), Technometrics 29(4): 91.75 for all four rules."""
    beyond = _rule_set(WESTERN_ELECTRIC, _normal(3_000, 400))
    assert _average_run_length(beyond) == pytest.approx(91.75, rel=0.06)


def test_all_eight_nelson_rules_signal_often() -> None:
    """No published figure: this pins what the documentation says of them."""
    beyond = _rule_set(NELSON, _normal(3_000, 400))
    assert _average_run_length(beyond) == pytest.approx(75.0, rel=0.06)
