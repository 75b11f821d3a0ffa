"""How scoring says how far it is: often enough, and never a thousand lines."""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.serving._progress import LINES_BY_SHARE, Progress, ProgressLines


def lines_of(steps: list[tuple[int, float]], total: int) -> list[str]:
    """The lines of steps (rows, seconds since the one before)."""
    now, rows, said = [0.0], 0, []  # type: tuple[list[float], int, list[str]]
    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    lines = ProgressLines(said.append, clock=clock)
    for count, seconds in steps:
        rows, now[0] = rows + count, now[0] + seconds
        lines(Progress(partition="d", number=1, partitions=1, rows=rows, total=total, predicted=rows))
    return said


def test_a_fast_run_says_little_and_a_slow_one_says_what_is_done() -> None:
    assert lines_of([(50_000, 0.1)] * 20, 1_000_000) == []
    slow = lines_of([(50_000, 30.0)] * 20, 1_000_000)
    assert len(slow) == 20
    assert slow[0] == "Scored 50,000 of 1,000,000 rows (5%), 1,667 rows a second; partition 1 of 1 (d)."
    assert "(100%)" in slow[-1]


def test_within_one_twentieth_the_lines_become_rarer() -> None:
    assert len(lines_of([(1, 1.0)] * 3600, 1_000_000_000)) == math.ceil(math.log2(3600 / 10))


@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.floats(0, 1e5)), max_size=200), st.integers(1, 10_000_000)
)
def test_lines_are_bounded_by_the_rows_and_the_logarithm_of_the_time(
    steps: list[tuple[int, float]], total: int
) -> None:
    scale = max(total, sum(rows for rows, _ in steps))
    seconds = sum(each for _, each in steps)
    most = LINES_BY_SHARE + max(0, math.ceil(math.log2(max(seconds, 1) / 10)) + 1)
    assert len(lines_of(steps, scale)) <= most


def test_an_empty_dataset_divides_by_nothing() -> None:
    assert lines_of([(0, 100.0)], 0) == ["Scored 0 of 0 rows (0%), 0 rows a second; partition 1 of 1 (d)."]
