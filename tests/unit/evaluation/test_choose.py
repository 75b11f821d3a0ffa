"""The best of several challengers: by rules fixed beforehand, whatever the order they arrive in."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.choose import choose
from airflow_provider_xops.evaluation.plan import EvaluationPlan, MetricTest
from airflow_provider_xops.records import Comparison, Evaluation, GateResult, Outcome
from tests.unit.registry import builders

FAILED = GateResult(gate="g", outcome=Outcome.FAILED, observed=0.1, threshold=0.8)
NO_DATA = GateResult(gate="g", outcome=Outcome.NO_DATA)
HOLDOUT = builders.selection("2013-02")
PLAN = EvaluationPlan(candidates=3, tests=(MetricTest(metric="log_loss"),))


def judged(version: int, *, gates: tuple[GateResult, ...] = (builders.PASSED,), **changes: Any) -> Evaluation:
    """An evaluation of one version; figures by keyword."""
    known = {field.name for field in dataclasses.fields(Evaluation)}
    figures = {name: value for name, value in changes.items() if name not in known}
    others = {name: value for name, value in changes.items() if name in known}
    made = builders.an_evaluation(builders.a_model(version), gates=gates, on=HOLDOUT)
    return dataclasses.replace(
        made, **{"metrics": figures, "task": "classification", "record_id": "", "plan": {}, **others}
    )


def versions(evaluations: Any) -> list[int]:
    return [each.model.version for each in evaluations]


def test_those_that_passed_all_gates_come_first_then_the_better_figure() -> None:
    given = [
        judged(1, roc_auc=0.99, gates=(builders.PASSED, FAILED)),
        judged(2, roc_auc=0.7),
        judged(3, roc_auc=0.8),
        judged(4, roc_auc=0.95, gates=(NO_DATA,)),
        judged(5, roc_auc=None),
    ]
    for order in itertools.permutations(given):
        choice = choose(order)
        assert versions(choice.ranking) == [3, 2, 5, 1, 4]
        assert (choice.best, choice.metric) == (given[2], "roc_auc")


def test_candidates_for_two_aliases_are_not_compared() -> None:
    given = [judged(1, roc_auc=0.9, alias="champion"), judged(2, roc_auc=0.8, alias="champion-eu")]

    with pytest.raises(ArgumentError, match="not made of one alias"):
        choose(given)

    # a release before has not written the alias down
    assert versions(choose([given[0], judged(2, roc_auc=0.8)]).ranking) == [1, 2]


def test_a_metric_that_gets_better_downwards() -> None:
    given = [judged(1, log_loss=0.5, roc_auc=0.9), judged(2, log_loss=0.4, roc_auc=0.8)]
    assert versions(choose(given).ranking) == [1, 2]
    assert versions(choose(given, metric="log_loss").ranking) == [2, 1]


def test_the_metric_of_the_first_test_decides() -> None:
    given = [
        judged(version, roc_auc=auc, log_loss=loss, plan=PLAN.to_json())
        for version, auc, loss in ((1, 0.9, 0.5), (2, 0.8, 0.4))
    ]
    assert choose(given).metric == "log_loss"
    assert choose(given).best == given[1]


def test_a_tie_is_broken_by_the_records_id() -> None:
    given = [judged(version, roc_auc=0.8) for version in range(1, 6)]
    assert choose(given).best.record_id == min(each.record_id for each in given)
    assert choose(given).ranking == choose(given[::-1]).ranking


def test_one_evaluation_twice_is_one_candidate() -> None:
    one = judged(1, roc_auc=0.8)
    assert choose([one, one]).ranking == (one,)


def test_a_figure_of_ranked_lists_may_decide() -> None:
    given = [judged(1, **{"ndcg@10": 0.4}), judged(2, **{"ndcg@10": 0.6})]
    assert choose(given, metric="ndcg@10").best == given[1]


def test_every_candidates_figure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        choose([judged(1, roc_auc=0.8), judged(2, roc_auc=None), judged(3, roc_auc=0.7, gates=(FAILED,))])
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(", gates")[0] for line in lines] == [
        "Candidate 1 of 3: late v1, roc_auc 0.8",
        "Candidate 2 of 3: late v2, roc_auc not measured",
        "Candidate 3 of 3: late v3, roc_auc 0.7",
        "Chose late v1 of 3 by roc_auc.",
    ]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"selection": builders.selection("2013-03")}, "the same rows"),
        ({"champion": builders.a_model(9).ref}, "the same champion"),
        ({"gates_digest": "others"}, "the same gates and plan"),
        ({"model": builders.a_model(2, name="early").ref}, "models of one name"),
    ],
)
def test_what_was_judged_otherwise_cannot_be_compared(others: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said) as caught:
        choose([judged(1, roc_auc=0.8), judged(2, roc_auc=0.9, **others)])
    assert caught.value.code == "argument.evaluations"


def test_models_of_other_features_were_judged_on_the_same_rows() -> None:
    one, two = (dataclasses.replace(HOLDOUT, digest=digest, row_ids_digest="places") for digest in ("a", "b"))
    assert versions(
        choose([judged(1, roc_auc=0.8, selection=one), judged(2, roc_auc=0.9, selection=two)]).ranking
    ) == [2, 1]


def test_tests_that_were_not_corrected_for_the_candidates_are_refused() -> None:
    compared = Comparison(
        metric="log_loss", greater_is_better=False, challenger=0.4, champion=0.5, difference=-0.1,
        hypothesis="superiority", p_value=0.01, adjusted_p_value=0.03,
    )  # fmt: skip
    given = [
        judged(version, log_loss=0.4, comparisons=(compared,), plan=PLAN.to_json()) for version in range(1, 5)
    ]
    assert len(choose(given[:3]).ranking) == 3
    with pytest.raises(ArgumentError, match="corrected for 3 candidates, and there are 4") as caught:
        choose(given)
    assert "candidates=4" in caught.value.todo


@pytest.mark.parametrize(
    ("given", "metric", "said"),
    [
        ([], None, "no evaluation"),
        ([judged(1, roc_auc=0.8)], "niceness", "'niceness' is unknown"),
        ([judged(1, roc_auc=0.8)], "mae", "mae was measured for no candidate"),
        ([judged(1, roc_auc=None)], None, "was measured for no candidate"),
    ],
)
def test_nothing_to_choose_by(given: list[Evaluation], metric: str | None, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        choose(given, metric=metric)


@given(
    st.lists(
        st.tuples(st.booleans(), st.none() | st.sampled_from([0.1, 0.5, 0.9])), min_size=1, max_size=6
    ).filter(lambda each: any(value is not None for _, value in each)),
    st.randoms(),
)
def test_the_choice_does_not_depend_on_the_order(given: list[tuple[bool, float | None]], random: Any) -> None:
    evaluations = [
        judged(number, roc_auc=value, gates=(builders.PASSED if passed else FAILED,))
        for number, (passed, value) in enumerate(given, 1)
    ]
    shuffled = evaluations.copy()
    random.shuffle(shuffled)
    choice = choose(evaluations, metric="roc_auc")
    assert choose(shuffled, metric="roc_auc") == choice
    passed = [each for each in evaluations if each.gates == (builders.PASSED,)]
    assert not passed or choice.best in passed


def test_a_figure_that_is_no_number_never_comes_first() -> None:
    given = [judged(1, roc_auc=float("nan")), judged(2, roc_auc=0.6), judged(3, roc_auc=float("inf"))]
    for order in itertools.permutations(given):
        assert choose(order).best == given[1]
