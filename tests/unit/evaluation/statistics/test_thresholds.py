"""The threshold of least cost: found where it is known, judged on rows that did not choose it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.evaluation.plan import CostPlan
from airflow_provider_xops.evaluation.statistics import choose_threshold
from airflow_provider_xops.evaluation.statistics.thresholds import NEVER, _cheapest
from airflow_provider_xops.records import ThresholdChoice
from airflow_provider_xops.training.metrics import Predictions, Task
from tests.unit.evaluation.statistics.samples import binary, binary_pair, several

COSTS = CostPlan(false_positive=1.0, false_negative=4.0)


def _chosen(truth: Any, said: Predictions, costs: CostPlan = COSTS, **asked: Any) -> ThresholdChoice:
    found = choose_threshold(Task.CLASSIFICATION, truth, said, costs, **{"resamples": 200, **asked})
    assert found is not None
    return found


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 40), wrong=st.floats(0.1, 9),
    missed=st.floats(0.1, 9),
)  # fmt: skip
def test_no_other_threshold_costs_less_on_the_rows_that_choose(
    seed: int, rows: int, wrong: float, missed: float
) -> None:
    rng = np.random.default_rng(seed)
    scores, positive = np.round(rng.random(rows), 1), rng.random(rows) < 0.5

    def cost(threshold: float) -> float:
        acted = scores >= threshold
        return float(wrong * (acted & ~positive).sum() + missed * (~acted & positive).sum())

    found = _cheapest(scores, positive, wrong, missed)
    assert cost(found) <= min(cost(each) for each in np.linspace(-0.05, 1.05, 221)) + 1e-9


def test_of_true_probabilities_it_is_elkans_threshold() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    truth = (rng.random(200_000) < scores).astype(int)
    assert _chosen(truth, binary(truth, scores)).threshold == pytest.approx(1 / (1 + 4), abs=0.02)


def test_costs_are_measured_on_the_other_half_with_an_interval() -> None:
    truth, said, _ = binary_pair(np.random.default_rng(1), 2_000)
    found = _chosen(truth, said, resamples=1_000)
    assert (found.rows_chosen_on, found.rows_measured_on) == (1_000, 1_000)
    assert (found.false_positive_cost, found.false_negative_cost) == (1.0, 4.0)
    everywhere = float(
        1.0 * ((said.scores >= found.threshold) & (truth == 0)).mean()
        + 4.0 * ((said.scores < found.threshold) & (truth == 1)).mean()
    )
    assert found.cost is not None
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower < found.cost < found.upper
    assert found.cost == pytest.approx(everywhere, rel=0.15)
    assert found.cost < (found.default_cost or 0)
    assert found.cost <= (found.best_constant_cost or 0)


def test_scores_of_pure_noise_promise_no_gain() -> None:
    """On the rows that chose it, the best of many thresholds would look better than acting never."""
    rng = np.random.default_rng(2)
    gains = []
    for seed in range(60):
        truth = rng.integers(0, 2, 200)
        found = _chosen(truth, binary(truth, rng.random(200)), CostPlan(false_positive=1, false_negative=1),
                        seed=seed)  # fmt: skip
        gains.append((found.best_constant_cost or 0) - (found.cost or 0))
    assert np.mean(gains) < 2 * np.std(gains) / np.sqrt(60)


def test_where_nothing_is_worth_it_the_answer_is_never_or_always() -> None:
    rng = np.random.default_rng(3)
    scores = rng.random(400)
    truth = (rng.random(400) < 0.5).astype(int)
    # Neither end of the scores is free of mistakes.
    truth[scores > 0.9], truth[scores < 0.1] = 0, 1
    said = binary(truth, scores)
    assert _chosen(truth, said, CostPlan(false_positive=1_000, false_negative=0.001)).threshold == NEVER
    assert _chosen(truth, said, CostPlan(false_positive=0.001, false_negative=1_000)).threshold == 0.0
    assert not (np.array([1.0]) >= NEVER).any()


def test_a_cluster_is_never_parted() -> None:
    truth, said, _ = binary_pair(np.random.default_rng(4), 1_000)
    found = _chosen(truth, said, clusters=np.repeat(np.arange(40), 25))
    assert found.rows_chosen_on == found.rows_measured_on == 500
    uneven = np.concatenate([np.zeros(700), np.arange(1, 301)])
    assert {_chosen(truth, said, clusters=uneven, seed=seed).rows_chosen_on for seed in range(6)} <= {
        151,
        850,
    }


def test_the_same_seed_gives_the_same_choice() -> None:
    truth, said, _ = binary_pair(np.random.default_rng(5), 300)
    assert _chosen(truth, said, seed=3) == _chosen(truth, said, seed=3)
    assert len({_chosen(truth, said, seed=seed).threshold for seed in range(5)}) > 1


def test_without_two_classes_there_is_no_choice() -> None:
    truth, said = several(np.random.default_rng(6), 60)
    assert choose_threshold(Task.CLASSIFICATION, truth, said, COSTS) is None
    number = Predictions(labels=np.arange(20.0))
    assert choose_threshold(Task.REGRESSION, np.arange(20.0), number, COSTS) is None
    ones = np.ones(20, int)
    assert choose_threshold(Task.CLASSIFICATION, ones, binary(ones, ones * 0.5), COSTS) is None
