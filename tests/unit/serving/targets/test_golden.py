"""Answers to golden rows held against the record: of the version meant, on every replica."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_xops.records import GoldenPredictions, ModelVersion, Outcome
from airflow_provider_xops.serving.targets.base import Answer
from airflow_provider_xops.serving.targets.golden import judge_answers
from tests.unit.registry.builders import a_model

CLASSES = GoldenPredictions(
    rows=(0, 1, 2),
    labels=("0", "1", "1"),
    classes=("0", "1"),
    scores=((0.9, 0.1), (0.2, 0.8), (0.4, 0.6)),
)
NUMBERS = GoldenPredictions(rows=(0, 1), labels=("1.5", "-2.0"))


def classifier() -> ModelVersion:
    return a_model(2, golden=CLASSES)


def regressor() -> ModelVersion:
    return a_model(2, golden=NUMBERS, task="regression")


def answered(said: Any, *, version: int | None = 2, status: int = 200, scores: Any = None) -> Answer:
    return Answer(
        replica="http://a", status=status, seconds=0.02, version=version, predictions=said, scores=scores
    )


def outcomes(answers: list[Answer], model: ModelVersion, tolerance: float = 1e-9) -> dict[str, str]:
    return {
        gate.gate: gate.outcome.value for gate in judge_answers(answers, model, tolerance=tolerance).gates
    }


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ([0, 1, 1], "passed"),
        ([0, 1, 0], "failed"),
        ([0.0, 1.0, 1.0], "failed"),
        ([0, 1], "failed"),
        (None, "failed"),
    ],
)
def test_a_class_is_the_recorded_one_or_it_is_not(said: Any, outcome: str) -> None:
    found = outcomes([answered([0, 1, 1]), answered(said)], classifier())

    assert found["golden_predictions"] == outcome


def test_numbers_may_be_apart_by_the_tolerance() -> None:
    assert outcomes([answered([1.5, -2.0 + 1e-12])], regressor())["golden_predictions"] == "passed"
    assert outcomes([answered([1.5, -2.01])], regressor())["golden_predictions"] == "failed"
    assert outcomes([answered([1.5, -2.01])], regressor(), 0.1)["golden_predictions"] == "passed"
    assert outcomes([answered([1.5, float("nan")])], regressor(), 0.1)["golden_predictions"] == "failed"
    assert outcomes([answered([1.5, None])], regressor(), 0.1)["golden_predictions"] == "failed"


def test_probabilities_count_where_a_target_gives_them() -> None:
    right = [list(row) for row in CLASSES.scores]
    wrong = [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]

    assert "golden_scores" not in outcomes([answered([0, 1, 1])], classifier())
    assert outcomes([answered([0, 1, 1], scores=right)], classifier())["golden_scores"] == "passed"
    assert outcomes([answered([0, 1, 1], scores=wrong)], classifier())["golden_scores"] == "failed"


def test_another_version_behind_the_address_is_found_also_when_it_answers_alike() -> None:
    judged = judge_answers([answered([0, 1, 1]), answered([0, 1, 1], version=1)], classifier(), tolerance=0.0)

    assert judged.outcome is Outcome.FAILED
    assert judged.message == "served_version: answered by v1, not v2"
    assert judged.served == {2: 1, 1: 1}
    unnamed = judge_answers([answered([0, 1, 1], version=None)], classifier(), tolerance=0.0)
    assert (unnamed.outcome, unnamed.served) == (Outcome.PASSED, {})


def test_nothing_answered_and_nothing_recorded_are_no_data_and_not_passed() -> None:
    assert judge_answers([], classifier(), tolerance=0.0).outcome is Outcome.NO_DATA
    assert judge_answers([answered([0])], a_model(2), tolerance=0.0).outcome is Outcome.NO_DATA
    refused = judge_answers([answered(None, status=500)], classifier(), tolerance=0.0)
    assert refused.outcome is Outcome.FAILED
    assert "answered 3 rows with 500" in refused.message
