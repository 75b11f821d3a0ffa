"""What a part of an evaluation that goes wrong does to the whole."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, DataError, LakeError
from airflow_provider_xops.evaluation._parts import Parts
from airflow_provider_xops.evaluation.plan import EvaluationPlan, plan_from

SECRET = "N328NB"


def raising(error: BaseException) -> Any:
    def measure() -> Any:
        raise error

    return measure


@pytest.fixture
def parts() -> Parts:
    nothing: Any = None
    return Parts(nothing, nothing, EvaluationPlan())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ConnectionResetError(),
        OSError(28, "No space left on device"),
        LakeError("no answer", code="lake.unavailable", retryable=True),
        ArgumentError("no extra", code="argument.extra_missing"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_another_attempt_may_get_is_raised_and_not_recorded(parts: Parts, error: Exception) -> None:
    """An evaluation is answered once: a note would say for ever that it cannot be measured."""
    with pytest.raises(type(error)):
        parts.part("slices", raising(error), None)
    assert parts.notes == []


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (ValueError(SECRET), "slices: not measured: it raised a ValueError"),
        (DataError("too few rows", code="data.few"), "slices: not measured: too few rows [data.few]"),
    ],
)
def test_what_stays_so_is_a_note_without_values(parts: Parts, error: Exception, note: str) -> None:
    assert parts.part("slices", raising(error), ()) == ()
    assert parts.notes == [note]


@pytest.mark.parametrize(
    "plan",
    [
        {"robustness": {"repeats": 0}},
        {"robustness": {"levels": []}},
        {"robustness": {"levels": [float("nan")]}},
        {"robustness": {"max_rows": 0}},
        {"explanation": {"repeats": 0}},
        {"explanation": {"background": 0}},
        {"fairness": {"attributes": []}},
        {"costs": {"false_positive": -1, "false_negative": 1}},
        {"costs": {"false_positive": 0, "false_negative": 0}},
        {"costs": {"false_positive": float("inf"), "false_negative": 1}},
        {"ranking": {"group": "user", "at": [0]}},
        {"ranking": {"group": "user", "at": []}},
        {"skew": {"threshold": float("nan")}},
        {"skew": {"partitions": 0}},
        {"calibration_bins": 0},
        {"confidence": float("nan")},
    ],
)
def test_a_plan_that_measures_nothing_is_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        plan_from(plan)
    assert caught.value.code == "argument.plan"
