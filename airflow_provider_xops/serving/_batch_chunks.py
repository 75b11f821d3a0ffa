"""The partitions of a dataset version shared out among tasks, by their size.

Private to the operator that plans mapped scoring tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from airflow_provider_xops.data.ingest import expand_partitions
from airflow_provider_xops.errors import ArgumentError

__all__ = ["chunks_of", "spec_of"]


def chunks_of(rows: Mapping[str, int], *, rows_per_chunk: int, max_chunks: int) -> list[tuple[str, ...]]:
    """The partitions in their order, cut into chunks of at most ``rows_per_chunk`` rows.

    A partition that is larger is a chunk of its own. Where that made more than ``max_chunks``, the chunks
    are larger, as little as possible.

    :param rows: how many each partition has.
    :raises ArgumentError: ``argument.rows_per_task``, ``argument.max_tasks``.

    >>> chunks_of({"d1": 60, "d2": 30, "d3": 70}, rows_per_chunk=100, max_chunks=9)
    [('d1', 'd2'), ('d3',)]
    """
    for name, value in (("rows_per_task", rows_per_chunk), ("max_tasks", max_chunks)):
        if value < 1:
            raise ArgumentError(f"{name} is {value}", code=f"argument.{name}", todo="give 1 or more")
    low, high = rows_per_chunk, max(rows_per_chunk, sum(rows.values()))
    if len(_cut(rows, low)) > max_chunks:
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if len(_cut(rows, middle)) <= max_chunks else (middle + 1, high)
    return _cut(rows, low)


def spec_of(partitions: Sequence[str]) -> str | list[str]:
    """Partition names as briefly as can be: the name of one, a range of days without a gap, else the list.

    >>> spec_of(["2013-01-30", "2013-01-31", "2013-02-01"]), spec_of(["north", "south"])
    ('2013-01-30..2013-02-01', ['north', 'south'])
    """
    names = list(partitions)
    if len(names) == 1 and ".." not in names[0]:
        return names[0]
    if len(names) > 2:
        spec = f"{names[0]}..{names[-1]}"
        try:
            if list(expand_partitions(spec)) == names:
                return spec
        except ArgumentError:  # they are no days
            pass
    return names


def _cut(rows: Mapping[str, int], most: float) -> list[tuple[str, ...]]:
    chunks: list[list[str]] = []
    room = -math.inf
    for name, count in rows.items():
        if count > room:
            chunks.append([])
            room = most
        chunks[-1].append(name)
        room -= count
    return [tuple(chunk) for chunk in chunks]
