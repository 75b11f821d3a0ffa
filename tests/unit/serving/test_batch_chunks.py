"""Partitions shared out among tasks: all of them, once each, in order, and not too many tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.data.ingest import expand_partitions
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.serving._batch_chunks import chunks_of, spec_of

_ROWS = st.lists(st.integers(0, 1000), min_size=1, max_size=60)


@given(_ROWS, st.integers(1, 2000), st.integers(1, 20))
def test_every_partition_is_in_one_share_and_shares_are_no_larger_than_they_must_be(
    rows: list[int], most: int, tasks: int
) -> None:
    sizes = {f"p{number:03d}": count for number, count in enumerate(rows)}
    shares = chunks_of(sizes, rows_per_chunk=most, max_chunks=tasks)
    assert [name for share in shares for name in share] == list(sizes)
    assert 1 <= len(shares) <= tasks
    heavy = [share for share in shares if sum(sizes[name] for name in share) > most and len(share) > 1]
    if heavy:  # only because there would be too many tasks
        assert len(chunks_of(sizes, rows_per_chunk=most, max_chunks=len(rows))) > tasks


@pytest.mark.parametrize(("rows", "tasks", "code"), [(0, 1, "rows_per_task"), (1, 0, "max_tasks")])
def test_no_rows_or_no_tasks_are_refused(rows: int, tasks: int, code: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        chunks_of({"a": 1}, rows_per_chunk=rows, max_chunks=tasks)
    assert caught.value.code == f"argument.{code}"


@given(st.dates(), st.integers(1, 40), st.booleans())
def test_a_spec_means_exactly_its_partitions(first: object, days: int, gap: bool) -> None:
    from datetime import date, timedelta

    assert isinstance(first, date)
    start = min(first, date(9000, 1, 1))
    names = [(start + timedelta(days=number)).isoformat() for number in range(days)]
    if gap and days > 3:
        del names[1]
    spec = spec_of(names)
    assert list(expand_partitions(spec)) == names
    assert isinstance(spec, list) == ((gap and days > 3) or days == 2)
