"""Where a rollout waits: the first seconds here, the rest elsewhere, never longer than there is to wait."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from airflow_provider_xops.serving.targets._time import Cancelled, ComeBack, Memory, Time
from tests.unit.registry.builders import AS_OF


class Waiting:
    """A wait of so many seconds, looked at again and again, on a clock that only waiting moves."""

    def __init__(self, away_s: float | None, *, cancelled: bool = False) -> None:
        self.now, self.naps = AS_OF, [0.0]
        self.time = Time(clock=lambda: self.now, wait=self.sleep, cancelled=lambda: cancelled, away_s=away_s)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += timedelta(seconds=seconds)

    def run(self, poll: float, seconds: float, *, since: datetime | None = AS_OF) -> float | None:
        """When the caller is to come back, in seconds from the beginning; None: it was all waited for."""
        end = AS_OF + timedelta(seconds=seconds)
        while self.now < end:
            try:
                self.time.nap(poll, since=since, left=(end - self.now).total_seconds())
            except ComeBack as later:
                return (later.at - AS_OF).total_seconds()
        return None


@pytest.mark.parametrize(
    ("away_s", "poll", "seconds", "back", "here"),
    [
        (None, 2, 100, None, 100),  # nobody said that it may go away
        (30, 2, 100, 40, 10),
        (30, 60, 100, 70, 10),  # looks are rarer than that anyway
        (30, 2, 25, 25, 10),  # no later than there is to wait
        (30, 2, 15, None, 15),  # what is left is not worth it
        (30, 2, 8, None, 8),
    ],
)
def test_the_first_seconds_are_waited_for_here(
    away_s: float | None, poll: float, seconds: float, back: float | None, here: float
) -> None:
    waiting = Waiting(away_s)

    assert waiting.run(poll, seconds) == back
    assert sum(waiting.naps) == here


def test_who_comes_back_to_a_wait_goes_away_again_at_once() -> None:
    memory = Memory()
    assert memory.begun("window", AS_OF) == AS_OF
    later = Memory(json.loads(json.dumps(memory))).begun("window", AS_OF + timedelta(seconds=40))
    waiting = Waiting(30)
    waiting.now += timedelta(seconds=40)

    assert waiting.run(2, 100, since=later) == 70
    assert waiting.naps == [0.0]


def test_what_cannot_wait_is_waited_for_here() -> None:
    waiting = Waiting(30)

    assert waiting.run(2, 100, since=None) is None
    assert sum(waiting.naps) == 100


def test_cancelled_it_neither_waits_nor_goes_away() -> None:
    with pytest.raises(Cancelled):
        Waiting(30, cancelled=True).run(2, 100)
