"""Shadows: asked beside, compared, logged; what they do changes no answer."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError, ModelError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ServingSession
from airflow_provider_xops.serving.online.sessions import PredictionIds
from airflow_provider_xops.serving.online.shadow import (
    ShadowComparison,
    ShadowRequest,
    ShadowRunner,
    compare,
)
from airflow_provider_xops.training.metrics import Predictions
from tests.unit.serving.online.log_cases import NOON, logged, make_log, session_of

SECONDS = 60.0
CLASSES = np.array([0, 1])


def said(scores: list[float]) -> Predictions:
    values = np.array(scores)
    return Predictions(
        labels=(values > 0.5).astype(int),
        classes=CLASSES,
        probabilities=np.column_stack([1 - values, values]),
    )


@dataclass
class Model:
    """A loaded model that answers what it is told to."""

    scores: list[float] = field(default_factory=lambda: [0.9, 0.1])
    error: Exception | None = None
    gate: threading.Event | None = None
    session: ServingSession = field(default_factory=lambda: session_of(2))
    asked: list[Any] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._ids = PredictionIds(self.session)

    def predict(self, frame: Any) -> Predictions:
        self.asked.append(frame)
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(SECONDS)
        if self.error is not None:
            raise self.error
        return said(self.scores)

    def next_ids(self, rows: int) -> list[str]:
        return self._ids.texts(rows)


def request(shadow: Model, scores: tuple[float, ...] = (0.9, 0.8), **changed: Any) -> ShadowRequest:
    facts: dict[str, Any] = {
        "shadow": shadow, "frame": pd.DataFrame({"x": range(len(scores))}), "answered": said(list(scores)),
        "answered_id": f"{'a' * 24}-40", "at": NOON,
    }  # fmt: skip
    return ShadowRequest(**{**facts, **changed})


def test_a_shadow_is_compared_with_the_answer_and_logged_beside_it(lake: Lake) -> None:
    log, seen = make_log(lambda: lake), []
    runner, shadow = ShadowRunner(log, on_compared=seen.append), Model()

    assert runner.offer(request(shadow, key="customer 7", weight=0.5))
    assert runner.close(SECONDS) == 0
    assert log.close(SECONDS) == 0

    stats = runner.stats()["delay", 2]
    assert (stats.requests, stats.rows, stats.agreement, stats.dropped, stats.failed) == (1, 2, 0.5, 0, 0)
    assert stats.difference == pytest.approx(0.35)
    (comparison,) = seen
    assert isinstance(comparison, ShadowComparison)
    assert (comparison.version, comparison.agreeing, comparison.error) == (2, 1, "")
    rows = logged(lake, "shadow_of", "variant", "weight", "model_version", "prediction", "score")
    assert [tuple(row.values()) for row in rows] == [
        (f"{'a' * 24}-40", "shadow", 0.5, 2, 1, 0.9),
        (f"{'a' * 24}-41", "shadow", 0.5, 2, 0, 0.1),
    ]


def test_a_slow_shadow_delays_nobody_and_what_it_misses_is_counted() -> None:
    gate = threading.Event()
    runner, shadow, done = ShadowRunner(None, max_waiting=2), Model(gate=gate), []
    first = request(shadow, done=lambda: done.append("first"))
    assert runner.offer(first)
    assert shadow.entered.wait(SECONDS)

    # The shadow stands still; were an offer to wait for it, this thread would never open the gate.
    taken = [runner.offer(request(shadow, done=lambda: done.append("other"))) for _ in range(5)]

    assert taken == [True, True, False, False, False]
    assert done == ["other"] * 3
    assert runner.stats()["delay", 2].dropped == 3
    gate.set()
    assert runner.close(SECONDS) == 0
    assert runner.stats()["delay", 2].requests == 3
    assert sorted(done) == ["first", *["other"] * 5]


def test_rows_that_wait_are_bounded_too() -> None:
    gate = threading.Event()
    runner, shadow = ShadowRunner(None, max_rows=3), Model(gate=gate)
    runner.offer(request(shadow))
    assert shadow.entered.wait(SECONDS)

    assert [runner.offer(request(shadow)) for _ in range(2)] == [True, False]
    gate.set()
    runner.close(SECONDS)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelError("cannot predict", code="model.predict_failed"), "model.predict_failed"),
        (ZeroDivisionError("17 / 0"), "model.ZeroDivisionError"),
    ],
)
def test_a_shadow_that_fails_is_counted_logged_and_asked_again(
    lake: Lake, error: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    log, done = make_log(lambda: lake), []
    runner, shadow = ShadowRunner(log), Model(error=error)
    for _ in range(2):
        runner.offer(request(shadow, done=lambda: done.append(1)))
    assert runner.wait(SECONDS)
    shadow.error = None
    runner.offer(request(shadow))
    runner.close(SECONDS)
    log.close(SECONDS)

    stats = runner.stats()["delay", 2]
    assert (stats.failed, stats.requests, len(done)) == (2, 1, 2)
    assert logged(lake, "error") == [code, code, None, None]
    assert "17 / 0" not in caplog.text


def test_a_shadow_is_given_its_own_columns() -> None:
    shadow = Model()
    shadow.features = [SimpleNamespace(name="b"), SimpleNamespace(name="a")]  # type: ignore[attr-defined]
    runner = ShadowRunner(None)

    runner.offer(request(shadow, frame=pd.DataFrame({"a": [1, 2], "b": [3, 4], "c": [5, 6]})))
    runner.offer(request(shadow, frame=pd.DataFrame({"a": [1, 2]})))
    runner.close(SECONDS)

    assert [list(frame.columns) for frame in shadow.asked] == [["b", "a"]]
    assert runner.stats()["delay", 2].failed == 1


def test_after_the_end_nothing_is_asked() -> None:
    runner, shadow = ShadowRunner(None), Model()
    runner.close(SECONDS)

    assert not runner.offer(request(shadow))
    assert (shadow.asked, runner.stats()["delay", 2].dropped) == ([], 1)


def test_an_end_that_takes_too_long_leaves_requests_unasked() -> None:
    gate, done = threading.Event(), []
    runner, shadow = ShadowRunner(None), Model(gate=gate)
    for _ in range(3):
        runner.offer(request(shadow, done=lambda: done.append(1)))
    assert shadow.entered.wait(SECONDS)

    assert runner.close(0.05) == 2
    assert len(done) == 2
    gate.set()
    assert runner.wait(SECONDS)
    assert runner.stats()["delay", 2].dropped == 2


def test_a_runner_without_room_is_refused() -> None:
    with pytest.raises(ArgumentError) as caught:
        ShadowRunner(None, max_waiting=0)

    assert caught.value.code == "argument.shadow"


def test_numbers_have_a_difference_and_no_agreement() -> None:
    one, other = Predictions(labels=np.array([1.0, 2.0])), Predictions(labels=np.array([1.5, 2.5]))

    assert compare(one, other) == (None, 0.5)


def test_missing_agrees_with_nothing() -> None:
    values = Predictions(labels=np.array([float("nan"), 1.0]), classes=CLASSES)

    assert compare(values, values) == (1, None)
    missing = Predictions(labels=np.array([float("nan")]))
    assert compare(missing, missing) == (None, None)


@given(scores=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20))
def test_a_comparison_is_symmetric_and_a_version_agrees_with_itself(
    scores: list[tuple[float, float]],
) -> None:
    one, other = said([each for each, _ in scores]), said([each for _, each in scores])

    assert compare(one, other) == compare(other, one)
    assert compare(one, one) == (len(scores), 0.0)


@pytest.mark.parametrize("error", [RuntimeError("row 4711"), KeyboardInterrupt()])
def test_what_goes_wrong_beside_the_model_does_not_end_the_thread(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[ShadowComparison] = []

    def look(made: ShadowComparison) -> None:
        seen.append(made)
        if len(seen) == 1:
            raise error

    runner, shadow = ShadowRunner(None, on_compared=look), Model()
    runner.offer(request(shadow))
    runner.offer(request(shadow))

    assert runner.wait(SECONDS)

    assert len(seen) == 2
    assert "4711" not in caplog.text
    assert runner.close(SECONDS) == 0


def test_a_shadow_that_was_asked_is_not_kept_in_memory() -> None:
    runner, shadow = ShadowRunner(None), Model()
    gone = weakref.ref(shadow)
    runner.offer(request(shadow))
    assert runner.wait(SECONDS)

    del shadow
    gc.collect()

    assert gone() is None
    runner.close(SECONDS)
