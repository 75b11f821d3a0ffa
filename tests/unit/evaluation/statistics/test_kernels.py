"""Metrics as functions of sums: on all rows, on weighted rows and with a row left out they are the metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from airflow_provider_xops.evaluation.statistics import _kernels, _scores
from airflow_provider_xops.evaluation.statistics._kernels import Kernels
from airflow_provider_xops.evaluation.statistics._sums import Kernel
from airflow_provider_xops.training.metrics import METRICS, Predictions, Task, compute
from tests.unit.evaluation.statistics.samples import binary_pair, regression, several, some

CASES = ("binary", "rounded", "several", "regression")


def _case(name: str, rng: np.random.Generator, rows: int) -> tuple[Task, Any, Predictions]:
    if name == "regression":
        return Task.REGRESSION, *regression(rng, rows)
    if name == "several":
        return Task.CLASSIFICATION, *several(rng, rows)
    truth, said, _ = binary_pair(rng, rows, rate=0.3, digits=2 if name == "rounded" else None)
    return Task.CLASSIFICATION, truth, said


def _weighted(kernel: Kernel, weights: Any) -> float:
    """The kernel's value when each row counts ``weights`` times."""
    lines = []
    for part in kernel.parts:
        rows = part.sums.by_unit(None, len(weights))
        lines.append(np.asarray(rows.T @ weights)[None])
    return float(kernel.value(lines)[0])


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 60))
def test_on_all_rows_a_kernel_gives_the_metric(name: str, seed: int, rows: int) -> None:
    task, truth, said = _case(name, np.random.default_rng(seed), rows)
    kernels = Kernels(truth, said)
    values = {metric: value for metric, value in compute(task, truth, said).items() if value is not None}
    assert values
    for metric, value in values.items():
        kernel = kernels.of(metric)
        total = kernel.value([part.sums.total()[None] for part in kernel.parts])
        assert total[0] == pytest.approx(value, abs=1e-10), metric


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(30, 60))
def test_counting_rows_gives_what_repeating_them_gives(name: str, seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    task, truth, said = _case(name, rng, rows)
    chosen = rng.integers(0, rows, rows)
    counts = np.bincount(chosen, minlength=rows).astype(np.float64)
    resampled = compute(task, truth[chosen], some(said, chosen))
    kernels = Kernels(truth, said)
    for metric, value in compute(task, truth, said).items():
        if value is not None and resampled[metric] is not None:
            assert _weighted(kernels.of(metric), counts) == pytest.approx(resampled[metric], abs=1e-10), (
                metric
            )


@pytest.mark.parametrize("name", CASES)
def test_leaving_a_row_out_gives_the_metric_of_the_others(name: str) -> None:
    task, truth, said = _case(name, np.random.default_rng(11), 40)
    kernels = Kernels(truth, said)
    for metric, value in compute(task, truth, said).items():
        if value is None or not kernels.of(metric).smooth:
            continue
        expected = [
            compute(task, np.delete(truth, row), some(said, np.arange(40) != row), [metric])[metric]
            for row in range(40)
        ]
        assert kernels.of(metric).without_each() == pytest.approx(expected, abs=1e-10), metric


def test_every_metric_has_a_kernel() -> None:
    seen = set()
    for name in CASES:
        task, truth, said = _case(name, np.random.default_rng(0), 50)
        seen |= {metric for metric, value in compute(task, truth, said).items() if value is not None}
    assert seen == set(METRICS)


def test_where_a_resample_lacks_a_class_the_metric_is_not_a_number() -> None:
    _, truth, said = _case("binary", np.random.default_rng(1), 50)
    kernels = Kernels(truth, said)
    for metric in ("roc_auc", "average_precision", "recall", "matthews_corrcoef"):
        assert np.isnan(_weighted(kernels.of(metric), (truth == 0).astype(float))), metric
    assert np.isnan(_weighted(Kernels(*_case("regression", np.random.default_rng(1), 50)[1:]).of("r2"),
                              np.eye(50)[0] * 50))  # fmt: skip


@pytest.mark.parametrize("rate", [0.5, 0.02])
def test_scores_in_bins_lose_next_to_nothing(rate: float) -> None:
    """The error of a resample's value is below a hundredth of a standard error, rare positives included."""
    rng = np.random.default_rng(4)
    rows, draws = 20_000, 60
    truth, said, _ = binary_pair(rng, rows, rate=rate)
    assert len(np.unique(said.scores)) > 4 * _scores.BINS
    kernels = Kernels(truth, said)
    peers = {"roc_auc": sk.roc_auc_score, "average_precision": sk.average_precision_score}
    exact: dict[str, list[float]] = {name: [] for name in peers}
    ours: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(draws):
        counts = np.bincount(rng.integers(0, rows, rows), minlength=rows).astype(np.float64)
        for name, peer in peers.items():
            exact[name].append(peer(truth, said.scores, sample_weight=counts))
            ours[name].append(_weighted(kernels.of(name), counts))
    for name in peers:
        error = np.subtract(ours[name], exact[name])
        spread = np.std(exact[name])
        assert np.abs(error.mean()) < 0.01 * spread, name
        assert error.std() < 0.02 * spread, name


def test_the_median_of_many_rows_is_exact_to_a_few_ranks() -> None:
    rng = np.random.default_rng(5)
    rows = 30_000
    _, said = regression(rng, rows)
    truth = np.zeros(rows)
    said = Predictions(labels=rng.normal(size=rows))
    assert rows > 2 * _kernels.MEDIAN_BINS
    kernel = Kernels(truth, said).of("median_absolute_error")
    spread = []
    for _ in range(30):
        counts = np.bincount(rng.integers(0, rows, rows), minlength=rows)
        exact = np.median(np.repeat(np.abs(said.labels), counts))
        spread.append(exact)
        assert _weighted(kernel, counts.astype(float)) == pytest.approx(exact, abs=2e-4)
    assert np.std(spread) > 10 * 2e-4
