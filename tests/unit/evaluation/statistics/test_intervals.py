"""Intervals equal SciPy's on the same resamples, cover what they promise, and are missing where unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats.proportion import proportion_confint

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.statistics import _resampling, intervals
from airflow_provider_xops.evaluation.statistics._kernels import Kernels
from airflow_provider_xops.evaluation.statistics._resampling import Resampled, Units, bca, resample
from airflow_provider_xops.evaluation.statistics.confidence import wilson
from airflow_provider_xops.training.metrics import METRICS, Predictions, Task
from tests.unit.evaluation.statistics.samples import (
    BINARY,
    binary,
    binary_pair,
    logistic,
    regression,
    several,
    some,
)

LEVELS = [0.025, 0.975]


def _scipy(statistic: Any, columns: tuple[Any, ...], resamples: int = 800) -> Any:
    return stats.bootstrap(
        columns, statistic, paired=True, vectorized=False, n_resamples=resamples, method="BCa",
        rng=np.random.default_rng(0),
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["log_loss", "f1", "roc_auc"])
def test_bca_equals_scipy_on_the_same_resamples(metric: str) -> None:
    truth, said, _ = binary_pair(np.random.default_rng(8), 80, rate=0.4)
    function = {"log_loss": sk.log_loss, "f1": sk.f1_score, "roc_auc": sk.roc_auc_score}[metric]
    answers = said.labels if metric == "f1" else said.scores
    peer = _scipy(function, (truth, answers), 300)
    kernel = Kernels(truth, said).of(metric)
    ours = Resampled(drawn=peer.bootstrap_distribution, without=kernel.without_each())
    expected = peer.confidence_interval
    assert bca(float(function(truth, answers)), ours, LEVELS) == pytest.approx(expected, abs=1e-10)


def test_bca_of_a_difference_equals_scipy_on_the_same_resamples() -> None:
    truth, first, second = binary_pair(np.random.default_rng(8), 60)

    def ahead(truth: Any, first: Any, second: Any) -> float:
        return float(sk.average_precision_score(truth, first) - sk.average_precision_score(truth, second))

    peer = _scipy(ahead, (truth, first.scores, second.scores), 300)
    without = np.subtract(
        *(Kernels(truth, each).of("average_precision").without_each() for each in (first, second))
    )
    ours = Resampled(drawn=peer.bootstrap_distribution, without=without)
    value = ahead(truth, first.scores, second.scores)
    assert bca(value, ours, LEVELS) == pytest.approx(peer.confidence_interval, abs=1e-10)


def test_the_whole_way_agrees_with_scipy() -> None:
    truth, said = regression(np.random.default_rng(2), 300)
    peer = _scipy(sk.mean_absolute_error, (truth, said.labels), 4_000).confidence_interval
    ours = intervals(Task.REGRESSION, truth, said, metrics=["mae"], resamples=4_000)["mae"]
    assert ours.method == "bca"
    width = peer.high - peer.low
    assert ours.lower == pytest.approx(peer.low, abs=0.05 * width)
    assert ours.upper == pytest.approx(peer.high, abs=0.05 * width)


@pytest.mark.parametrize("way", ["types", "units", "blocks"])
def test_the_three_ways_to_draw_have_the_same_spread(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, said, _ = binary_pair(np.random.default_rng(3), 6_000)
    if way != "types":
        monkeypatch.setattr(_resampling, "_TYPE_COST", 1e9)
    if way == "blocks":
        monkeypatch.setattr(_resampling, "UNIT_LIMIT", 5_500)
    kernel = Kernels(truth, said).of("accuracy")
    units = Units.of(len(truth), None, 0)
    drawn = resample({"accuracy": [kernel]}, units, resamples=8_000, seed=1)["accuracy"].drawn
    share = float(np.mean(truth == said.labels))
    assert drawn.mean() == pytest.approx(share, abs=4 * drawn.std() / np.sqrt(8_000) + 1e-4)
    assert drawn.std() == pytest.approx(np.sqrt(share * (1 - share) / 6_000), rel=0.05)


def test_many_rows_in_blocks_give_the_interval_that_theory_gives() -> None:
    rows = 60_000
    rng = np.random.default_rng(6)
    truth = np.zeros(rows)
    said = Predictions(labels=rng.exponential(size=rows))
    figures = intervals(Task.REGRESSION, truth, said, metrics=["mae", "rmse", "median_absolute_error"])
    error = 1 / np.sqrt(rows)  # an exponential's mean and standard deviation are 1
    for name, center, wide in (
        ("mae", 1.0, 1.0),
        ("rmse", np.sqrt(2), np.sqrt(20) / (2 * np.sqrt(2))),
        ("median_absolute_error", np.log(2), 1.0),
    ):
        figure = figures[name]
        assert figure.lower is not None
        assert figure.upper is not None
        assert figure.upper - figure.lower == pytest.approx(2 * 1.96 * error * wide, rel=0.12), name
        assert figure.lower < center + 2 * error * wide
        assert figure.upper > center - 2 * error * wide


@pytest.mark.usefixtures("figures_by_kernels")
@pytest.mark.parametrize(("metric", "true"), [("roc_auc", stats.norm.cdf(1.2 / np.sqrt(2))), ("mae", None)])
def test_intervals_cover_the_truth_as_often_as_they_promise(metric: str, true: float | None) -> None:
    rng = np.random.default_rng(12)
    trials, covered = 600, 0
    for trial in range(trials):
        if true is not None:
            truth, said, _ = binary_pair(rng, 150)
            task, expected = Task.CLASSIFICATION, true
        else:
            truth, said = np.zeros(80), Predictions(labels=rng.normal(size=80))
            task, expected = Task.REGRESSION, np.sqrt(2 / np.pi)
        figure = intervals(task, truth, said, metrics=[metric], confidence=0.9, resamples=300, seed=trial)[
            metric
        ]
        assert figure.lower is not None
        assert figure.upper is not None
        covered += figure.lower <= expected <= figure.upper
    low, high = stats.binom.ppf([0.0005, 0.9995], trials, 0.9)
    assert low - 0.01 * trials <= covered <= high


def test_delong_and_the_bootstrap_agree_on_the_auc() -> None:
    truth, said, _ = binary_pair(np.random.default_rng(13), 2_000)
    both = [
        intervals(Task.CLASSIFICATION, truth, said, metrics=["roc_auc"], method=method)["roc_auc"]
        for method in ("auto", "bootstrap")
    ]
    assert [figure.method for figure in both] == ["delong", "bca"]
    assert both[0].lower == pytest.approx(both[1].lower, abs=2e-3)
    assert both[0].upper == pytest.approx(both[1].upper, abs=2e-3)


def test_rows_of_one_cluster_are_drawn_together() -> None:
    """Rows that only repeat others say nothing new: with clusters the interval is that of the originals."""
    truth, said, _ = binary_pair(np.random.default_rng(14), 200)
    copies = np.repeat(np.arange(200), 25)
    many = (Task.CLASSIFICATION, truth[copies], some(said, copies))
    for metric in ("roc_auc", "log_loss", "f1"):
        options: dict[str, Any] = {"metrics": [metric], "method": "bootstrap", "resamples": 3_000}
        original = intervals(Task.CLASSIFICATION, truth, said, **options)[metric]
        clustered = intervals(*many, clusters=copies, **options)[metric]
        careless = intervals(*many, **options)[metric]
        assert None not in (original.lower, clustered.lower, careless.lower)
        widths = [figure.upper - figure.lower for figure in (original, clustered, careless)]  # type: ignore[operator]
        assert widths[1] == pytest.approx(widths[0], rel=0.08), metric
        assert widths[2] < 0.3 * widths[0], metric


def test_many_clusters_become_blocks_of_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(15)
    clusters = np.repeat(np.arange(12_000), 3)
    truth = np.zeros(len(clusters))
    said = Predictions(labels=np.repeat(rng.normal(size=12_000), 3))
    exact = intervals(Task.REGRESSION, truth, said, metrics=["mae"], clusters=clusters)["mae"]
    monkeypatch.setattr(_resampling, "UNIT_LIMIT", 10_000)
    blocks = intervals(Task.REGRESSION, truth, said, metrics=["mae"], clusters=clusters)["mae"]
    assert None not in (exact.lower, blocks.lower)
    assert blocks.upper - blocks.lower == pytest.approx(exact.upper - exact.lower, rel=0.1)  # type: ignore[operator]


def test_every_metric_has_an_interval_around_its_value() -> None:
    rng = np.random.default_rng(16)
    truth, said, _ = binary_pair(rng, 400)
    cases = [
        (Task.CLASSIFICATION, truth, said, {"roc_auc_ovr"}),
        (Task.CLASSIFICATION, *several(rng, 400), {"roc_auc", "average_precision", "brier"}),
        (Task.REGRESSION, *regression(rng, 400), set()),
    ]
    for task, actual, answers, undefined in cases:
        figures = intervals(task, actual, answers, resamples=400)
        assert set(figures) == {name for name, metric in METRICS.items() if metric.task is task}
        for name, figure in figures.items():
            if name in undefined:
                assert (figure.value, figure.lower, figure.upper, figure.method) == (None, None, None, "")
                continue
            assert figure.value is not None
            assert figure.lower is not None
            assert figure.upper is not None
            assert figure.lower < figure.value < figure.upper, name
            assert (figure.confidence, figure.rows) == (0.95, 400)


def test_the_same_seed_gives_the_same_interval_whatever_else_is_asked() -> None:
    truth, said, _ = binary_pair(np.random.default_rng(17), 300)
    everything = intervals(Task.CLASSIFICATION, truth, said, resamples=200)
    for name, figure in everything.items():
        alone = intervals(Task.CLASSIFICATION, truth, said, metrics=[name], resamples=200)
        assert alone == {name: figure}
    other = intervals(Task.CLASSIFICATION, truth, said, metrics=["f1"], resamples=200, seed=1)
    assert other["f1"] != everything["f1"]


def test_a_share_that_no_resample_changes_has_wilsons_interval() -> None:
    truth = np.tile(BINARY, 20)
    figures = intervals(Task.CLASSIFICATION, truth, binary(truth, truth * 0.8 + 0.1))
    expected = proportion_confint(40, 40, method="wilson")
    assert figures["accuracy"].method == "wilson"
    assert (figures["accuracy"].lower, figures["accuracy"].upper) == pytest.approx(expected)
    assert figures["recall"].lower == pytest.approx(proportion_confint(20, 20, method="wilson")[0])
    # For what is no share of rows there is no honest interval, and none is made up.
    for name in ("f1", "roc_auc", "average_precision", "balanced_accuracy"):
        assert (figures[name].value, figures[name].lower, figures[name].confidence) == (1.0, None, None)


def test_clusters_that_are_all_right_are_one_trial_each() -> None:
    truth = np.tile(BINARY, 5_000)
    clusters = np.arange(10_000) // 500
    said = binary(truth, truth * 0.8 + 0.1)
    figure = intervals(Task.CLASSIFICATION, truth, said, metrics=["accuracy"], clusters=clusters)["accuracy"]
    assert (figure.lower, figure.upper) == pytest.approx(proportion_confint(20, 20, method="wilson"))
    # Only ten of the clusters hold positives.
    truth[5_000:] = 0
    figure = intervals(
        Task.CLASSIFICATION, truth, binary(truth, truth * 0.8 + 0.1), metrics=["recall"], clusters=clusters
    )["recall"]
    assert (figure.lower, figure.upper) == pytest.approx(proportion_confint(10, 10, method="wilson"))


def test_the_rarest_class_decides_whether_there_is_an_interval() -> None:
    rng = np.random.default_rng(20)
    for positives, known in ((9, False), (10, True)):
        truth, said, _ = binary_pair(rng, 9_000, positives=positives, signal=6.0)
        figures = intervals(Task.CLASSIFICATION, truth, said, resamples=200)
        for name, figure in figures.items():
            if name in ("accuracy", "log_loss", "brier"):
                assert figure.lower is not None, name
            elif name != "roc_auc_ovr":
                assert (figure.lower is not None) is known, name


def test_the_unit_of_the_target_changes_nothing() -> None:
    truth, said = regression(np.random.default_rng(21), 60)
    figures = [
        intervals(Task.REGRESSION, truth * unit, Predictions(labels=said.labels * unit), resamples=200)["mae"]
        for unit in (1.0, 2.0**-60)
    ]
    assert figures[1].lower == pytest.approx((figures[0].lower or 0) * 2.0**-60, rel=1e-9)


def test_lists_are_as_good_as_arrays() -> None:
    truth = ["no", "yes"] * 20
    said = binary([0, 1] * 20, np.linspace(0.1, 0.9, 40))
    named = Predictions(
        labels=np.array(["no", "yes"])[said.labels], classes=np.array(["no", "yes"]),
        probabilities=said.probabilities,
    )  # fmt: skip
    of_list = intervals(Task.CLASSIFICATION, truth, named, resamples=200)
    assert of_list == intervals(Task.CLASSIFICATION, np.array(truth), named, resamples=200)
    assert of_list["brier"].lower is not None


@pytest.mark.parametrize(("successes", "trials"), [(81, 263), (0, 20), (20, 20), (1, 29)])
def test_wilson_equals_statsmodels(successes: int, trials: int) -> None:
    expected = proportion_confint(successes, trials, method="wilson")
    assert wilson(successes, trials, 0.95) == pytest.approx(expected, abs=1e-12)


def test_few_rows_or_clusters_have_figures_but_no_interval() -> None:
    truth, said, _ = binary_pair(np.random.default_rng(18), 9)
    few = intervals(Task.CLASSIFICATION, truth, said)["accuracy"]
    assert (few.value is not None, few.lower, few.method) == (True, None, "")
    truth, said, _ = binary_pair(np.random.default_rng(18), 900)
    clusters = np.arange(900) % 9
    few = intervals(Task.CLASSIFICATION, truth, said, clusters=clusters)["roc_auc"]
    assert (few.value is not None, few.lower) == (True, None)


def test_a_metric_that_many_resamples_leave_undefined_has_no_interval() -> None:
    truth = np.zeros(50, int)
    truth[0] = 1
    said = binary(truth, logistic(np.random.default_rng(19).normal(size=50)))
    figures = intervals(Task.CLASSIFICATION, truth, said)
    # A third of the resamples miss the only positive row.
    for name in ("average_precision", "recall", "matthews_corrcoef", "roc_auc", "balanced_accuracy"):
        assert figures[name].lower is None, name
    assert figures["log_loss"].lower is not None


def test_missing_predictions_give_neither_figure_nor_interval() -> None:
    said = Predictions(labels=np.full(50, np.nan))
    figures = intervals(Task.REGRESSION, np.arange(50.0), said)
    assert {(each.value, each.lower) for each in figures.values()} == {(None, None)}
    assert intervals(Task.REGRESSION, np.empty(0), Predictions(labels=np.empty(0)))["mae"].value is None


@pytest.mark.parametrize(
    "wrong",
    [{"confidence": 1.0}, {"confidence": 0.2}, {"resamples": 10}, {"clusters": np.zeros(3)}],
)
def test_arguments_without_meaning_are_refused(wrong: dict[str, Any]) -> None:
    truth, said = regression(np.random.default_rng(0), 20)
    with pytest.raises(ArgumentError) as caught:
        intervals(Task.REGRESSION, truth, said, **wrong)
    assert caught.value.code == "argument.statistics"
    with pytest.raises(ArgumentError):
        intervals(Task.REGRESSION, truth[1:], said)
