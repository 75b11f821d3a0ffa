"""What counts as passed: a served model is held against the record, whatever the tolerance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import GoldenPredictions, ModelVersion, Outcome
from airflow_provider_xops.serving._smoke_checks import Exercise, Findings, Rows, Stopped
from airflow_provider_xops.serving._smoke_requests import Answer, Client
from airflow_provider_xops.serving.smoke import _settings

ROWS = 5
WORDS = GoldenPredictions(rows=(0, 1), labels=("'late'", "'early'"))
NUMBERS = GoldenPredictions(rows=(0, 1), labels=("0.0", "1.0"))


class Server:
    """Answers each row by ``say(row, request)``; wrong input is refused."""

    def __init__(self, say: Callable[[int, int], Any]) -> None:
        self.say, self.requests = say, 0

    def post(self, path: str, body: bytes) -> Answer:
        self.requests += 1
        try:
            rows = [int(row[0]) for row in json.loads(body)["dataframe_split"]["data"]]
        except ValueError:
            rows = []
        if not rows:
            return Answer(status=400, predictions=None, seconds=0.001)
        said = [self.say(row, self.requests) for row in rows]
        return Answer(status=200, predictions=said, seconds=0.001)

    def ping(self) -> int:
        return 200


def exercised(
    say: Callable[[int, int], Any],
    *,
    task: str,
    golden: GoldenPredictions | None,
    tolerance: float = 1e-9,
    sizes: Sequence[int] = (1, 3),
) -> Findings:
    """All that is found of a server that answers so; the check that ended the test is the last."""
    model = cast(ModelVersion, SimpleNamespace(task=task, golden=golden, origin="adopted"))
    rows = Rows(
        frame=pd.DataFrame({"x": [float(row) for row in range(ROWS)]}),
        golden=() if golden is None else (0, 1),
    )
    found = Findings()
    found.passed("signature")
    settings = _settings("current", 20, sizes, tolerance, 60)
    try:
        Exercise(model, rows, cast(Client, Server(say)), found, settings).run()
    except Stopped as stopped:
        found.add(stopped.check, stopped.outcome, message=stopped.message)
    return found


def outcome(found: Findings) -> Outcome:
    model = cast(ModelVersion, SimpleNamespace(golden=None, origin="adopted"))
    return found.outcome(model)[0]


def word(row: int, request: int) -> str:
    return ("late", "early")[row % 2]


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1e6])
def test_a_class_is_the_recorded_one_whatever_the_tolerance(tolerance: float) -> None:
    right = exercised(word, task="classification", golden=WORDS, tolerance=tolerance)
    assert outcome(right) is Outcome.PASSED

    other = exercised(lambda *_: "late", task="classification", golden=WORDS, tolerance=tolerance)
    assert outcome(other) is Outcome.FAILED
    assert "1 of 2 rows" in other.checks[-1].message

    later = exercised(
        lambda row, request: word(row, request) if request < 10 else "late",
        task="classification", golden=WORDS, tolerance=tolerance,
    )  # fmt: skip
    assert (later.checks[-1].check, outcome(later)) == ("requests", Outcome.FAILED)


@pytest.mark.parametrize(
    "say",
    [
        lambda row, request: float(row) if row < 2 else float(request),
        lambda row, request: float(row) if row < 2 else None if request % 2 else 1.0,
    ],
    ids=["numbers", "now and then none"],
)
def test_rows_without_a_record_must_be_answered_alike_too(say: Callable[[int, int], Any]) -> None:
    found = exercised(say, task="regression", golden=NUMBERS)
    assert (found.checks[-1].check, outcome(found)) == ("requests", Outcome.FAILED)
    assert "otherwise than in a request before" in found.checks[-1].message


def test_noise_within_the_tolerance_is_alike() -> None:
    found = exercised(lambda row, request: row + 1e-12 * request, task="regression", golden=NUMBERS)
    assert outcome(found) is Outcome.PASSED


def test_without_a_record_nothing_passes() -> None:
    assert outcome(exercised(word, task="classification", golden=None)) is Outcome.NO_DATA
    assert outcome(Findings()) is Outcome.NO_DATA


@pytest.mark.parametrize(
    "given",
    [
        {"environment": "other"}, {"requests": 19}, {"sizes": []}, {"sizes": [0]}, {"seconds": 0},
        {"tolerance": -1.0}, {"tolerance": math.nan}, {"tolerance": math.inf}, {"seconds": math.inf},
    ],
)  # fmt: skip
def test_settings_that_would_measure_nothing_or_let_everything_pass_are_refused(given: Any) -> None:
    good = {"environment": "current", "requests": 20, "sizes": [1], "tolerance": 0.0, "seconds": 1.0}
    assert _settings(**good)["requests"] == 20
    with pytest.raises(ArgumentError) as caught:
        _settings(**{**good, **given})
    assert caught.value.code == "argument.smoke_test"
