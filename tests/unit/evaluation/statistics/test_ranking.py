"""Ranking metrics against scikit-learn and plain loops; groups are what varies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, ndcg_score

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation import ranking
from airflow_provider_xops.evaluation.plan import RankingPlan
from airflow_provider_xops.training.metrics import Predictions
from tests.unit.evaluation.statistics.samples import binary, logistic

PLAN = RankingPlan(group="query", at=(3, 10))


def _lists(
    rng: np.random.Generator, groups: int, *, digits: int | None = None, better: float = 0.0
) -> tuple[pa.Table, Any, Predictions, Predictions]:
    """Rows of queries, shuffled: graded relevance and two models' scores."""
    sizes = rng.integers(2, 15, groups)
    query = np.repeat(np.arange(groups), sizes)
    relevance = rng.integers(0, 4, len(query)).astype(float)
    relevance[np.flatnonzero(np.diff(query, prepend=-1))] = 1.0  # something relevant in each

    def model(signal: float) -> Predictions:
        scores = relevance * signal + rng.normal(size=len(query))
        return Predictions(labels=scores if digits is None else np.round(scores, digits))

    shuffled = rng.permutation(len(query))
    first, second = model(0.5 + better), model(0.5)
    table = pa.table({"query": [f"q{each}" for each in query[shuffled]]})
    said = [Predictions(labels=each.labels[shuffled]) for each in (first, second)]
    return table, relevance[shuffled], said[0], said[1]


def _groups(table: pa.Table) -> list[Any]:
    names = np.array(table["query"].to_pylist())
    return [names == name for name in dict.fromkeys(names)]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), digits=st.sampled_from([None, 0]))
def test_ndcg_equals_scikit_learn_ties_included(seed: int, digits: int | None) -> None:
    table, truth, said, _ = _lists(np.random.default_rng(seed), 6, digits=digits)
    lists = ranking.by_group(table, truth, said, PLAN)
    assert lists.groups == 6
    for length in PLAN.at:
        expected = [ndcg_score([truth[rows]], [said.labels[rows]], k=length) for rows in _groups(table)]
        assert lists.values[f"ndcg@{length}"] == pytest.approx(expected, abs=1e-12)


def _by_hand(relevant: Any, scores: Any, length: int) -> dict[str, float]:
    """One list, without ties, as the textbook has it."""
    order = np.argsort(-scores)
    hits = relevant[order].astype(float)
    places = np.flatnonzero(hits) + 1
    top = hits[:length]
    precise = sum((places <= place).sum() / place for place in places if place <= length)
    return {
        "mrr": 1 / places[0],
        f"precision@{length}": top.sum() / length,
        f"recall@{length}": top.sum() / hits.sum(),
        f"map@{length}": precise / min(hits.sum(), length),
    }


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 12))
def test_the_others_equal_the_textbook(seed: int, length: int) -> None:
    table, truth, said, _ = _lists(np.random.default_rng(seed), 5)
    lists = ranking.by_group(table, truth, said, RankingPlan(group="query", at=(length,)))
    for at, rows in enumerate(_groups(table)):
        for name, expected in _by_hand(truth[rows] > 0, said.labels[rows], length).items():
            assert lists.values[name][at] == pytest.approx(expected, abs=1e-12), name


def test_map_of_whole_lists_is_scikit_learns_average_precision() -> None:
    table, truth, said, _ = _lists(np.random.default_rng(1), 8)
    lists = ranking.by_group(table, truth, said, RankingPlan(group="query", at=(100,)))
    expected = [average_precision_score(truth[rows] > 0, said.labels[rows]) for rows in _groups(table)]
    assert lists.values["map@100"] == pytest.approx(expected, abs=1e-12)


def test_ties_are_averaged_or_the_worst_case_never_the_luck_of_the_order() -> None:
    for relevance in ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]):
        table = pa.table({"query": ["a"] * 3})
        lists = ranking.by_group(
            table, np.array(relevance), Predictions(labels=np.zeros(3)), RankingPlan(group="query", at=(1,))
        )
        figures = {name: float(values[0]) for name, values in lists.values.items()}
        assert figures["precision@1"] == figures["recall@1"] == pytest.approx(1 / 3)
        assert figures["mrr"] == pytest.approx(1 / 3)
        assert figures["map@1"] == 0.0


def test_lists_without_anything_relevant_and_rows_without_a_list_are_left_out() -> None:
    table = pa.table({"query": ["a", "a", "b", "b", None, "a"]})
    truth = np.array([1.0, 0.0, 0.0, 0.0, 3.0, 0.0])
    figures = ranking.measure(table, truth, Predictions(labels=np.arange(6.0)), PLAN)
    assert {figure.rows for figure in figures.values()} == {3}
    assert figures["mrr"].value == pytest.approx(1 / 3)
    assert figures["mrr"].lower is None  # one list says nothing of how lists vary
    none = ranking.measure(table, np.zeros(6), Predictions(labels=np.arange(6.0)), PLAN)
    assert {(figure.value, figure.lower, figure.rows) for figure in none.values()} == {(None, None, 0)}


def test_two_classes_are_relevance_too() -> None:
    table, truth, said, _ = _lists(np.random.default_rng(2), 20)
    classes = binary(truth > 0, logistic(said.labels))
    as_classes = ranking.measure(table, (truth > 0).astype(int), classes, PLAN)
    as_numbers = ranking.measure(table, (truth > 0).astype(float), said, PLAN)
    assert {name: figure.value for name, figure in as_classes.items()} == pytest.approx(
        {name: figure.value for name, figure in as_numbers.items()}
    )


def test_intervals_are_over_lists() -> None:
    table, truth, said, _ = _lists(np.random.default_rng(3), 120)
    figures = ranking.measure(table, truth, said, PLAN)
    values = ranking.by_group(table, truth, said, PLAN).values
    for name, figure in figures.items():
        assert figure.value == pytest.approx(values[name].mean())
        assert figure.lower is not None
        assert figure.upper is not None
        peer = stats.bootstrap((values[name],), np.mean, method="BCa", rng=np.random.default_rng(0))
        low, high = peer.confidence_interval
        assert figure.lower == pytest.approx(low, abs=0.08 * (high - low))
        assert figure.upper == pytest.approx(high, abs=0.08 * (high - low))


def test_a_better_ranking_is_found_and_equals_are_not() -> None:
    table, truth, first, second = _lists(np.random.default_rng(4), 150, better=0.8)
    tested = ["ndcg@10", "mrr"]
    compared = {
        each.metric: each for each in ranking.compare(table, truth, first, second, PLAN, tested=tested)
    }
    assert compared["ndcg@10"].significant is True
    assert compared["ndcg@10"].comparisons == 2
    assert (compared["ndcg@10"].lower or 0) > 0
    assert (compared["map@3"].hypothesis, compared["map@3"].p_value) == ("", None)
    turned = {each.metric: each for each in ranking.compare(table, truth, second, first, PLAN, tested=tested)}
    assert turned["ndcg@10"].significant is False
    same = {each.metric: each for each in ranking.compare(table, truth, first, first, PLAN, tested=tested)}
    assert (same["mrr"].difference, same["mrr"].lower, same["mrr"].upper) == (0.0, 0.0, 0.0)
    assert (same["mrr"].p_value, same["mrr"].significant) == (1.0, False)


def test_rankings_of_equals_are_told_apart_as_rarely_as_promised() -> None:
    rng = np.random.default_rng(5)
    trials = 500
    found = 0
    for trial in range(trials):
        table, truth, first, second = _lists(rng, 60)
        plan = RankingPlan(group="query", at=(5,))
        compared = ranking.compare(
            table, truth, first, second, plan, tested=["ndcg@5"], resamples=300, seed=trial
        )
        found += any(each.significant for each in compared)
    low, high = stats.binom.ppf([0.0005, 0.9995], trials, 0.05)
    assert low <= found <= high


@pytest.mark.parametrize(("plan", "truth", "labels"), [
    (RankingPlan(group="nothing"), [1.0, 0.0], [1.0, 2.0]),
    (RankingPlan(group="query"), [-1.0, 0.0], [1.0, 2.0]),
    (RankingPlan(group="query"), [1.0, 0.0], [np.nan, 2.0]),
    (RankingPlan(group="query"), ["high", "low"], [1.0, 2.0]),
])  # fmt: skip
def test_what_cannot_be_ranked_is_refused(plan: RankingPlan, truth: Any, labels: Any) -> None:
    kind = object if isinstance(truth[0], str) else float
    with pytest.raises(ArgumentError) as caught:
        ranking.measure(pa.table({"query": ["a", "a"]}), np.array(truth, dtype=kind),
                        Predictions(labels=np.array(labels)), plan)  # fmt: skip
    assert caught.value.code == "argument.ranking"


def test_models_that_mean_other_rows_by_relevant_are_not_compared() -> None:
    table, truth, said, _ = _lists(np.random.default_rng(7), 30)
    first = binary(truth > 0, logistic(said.labels))
    turned = Predictions(
        labels=first.labels, classes=first.classes[::-1], probabilities=first.probabilities[:, ::-1]
    )
    with pytest.raises(ArgumentError) as caught:
        ranking.compare(table, (truth > 0).astype(int), first, turned, PLAN)
    assert caught.value.code == "argument.ranking"


def test_a_metric_of_another_plan_cannot_be_tested() -> None:
    table, truth, first, second = _lists(np.random.default_rng(6), 12)
    with pytest.raises(ArgumentError):
        ranking.compare(table, truth, first, second, PLAN, tested=["ndcg@5"])
