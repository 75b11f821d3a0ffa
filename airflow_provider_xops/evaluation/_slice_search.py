"""The search for rows on which a model is weak, over conditions on one or two columns.

For :mod:`airflow_provider_xops.evaluation.slices`. Every slice's rows, sum and sum of squares of losses come
from tables of cells (one count of the rows for each pair of columns) and small matrix products, so a hundred
thousand slices cost about as much as reading the columns once. All of them are tested, and corrected for.

A slice is kept if it says something of its own: two conditions must be worse than each of them alone, and
what a slice has beyond the slices kept before it must be weak too. Related searches: Chung et al., *Slice
Finder* (2019); Sagadeeva & Boehm, *SliceLine* (2021). What it does not do: more than two conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from airflow_provider_xops.evaluation._slice_columns import Coded
from airflow_provider_xops.evaluation._slice_losses import worse_by_clusters, worse_than_rest

__all__ = ["Found", "search"]

# How many of the significant slices are looked at for being kept, the worst first.
VISITED = 1_000


@dataclass(frozen=True)
class Found:
    """A weak slice: its SQL, its rows, and the p-value before and after the correction."""

    conditions: str
    rows: Any
    p_value: float
    adjusted_p_value: float


@dataclass(frozen=True)
class _Block:
    """All slices of one column, or of a pair: what is known of each, as arrays of one shape."""

    columns: tuple[Coded, ...]
    rows: Any
    sums: Any
    squares: Any


@dataclass(frozen=True)
class _Tested:
    """All slices with enough rows, one entry each."""

    block: Any
    place: Any
    p_values: Any
    gaps: Any
    errors: Any


def search(
    columns: Sequence[Coded],
    losses: Any,
    *,
    min_rows: int,
    max_conditions: int,
    alpha: float,
    adjust: Callable[[Any], Any],
    limit: int,
    families: int = 1,
    clusters: Any = None,
) -> tuple[list[Found], int]:
    """The weak slices, surely worst first, and how many slices were looked at.

    :param losses: of each row, larger is worse, all finite.
    :param min_rows: fewest rows of a slice, and of its rest.
    :param alpha: at most this share of searches through rows without a weak slice finds one.
    :param adjust: corrects an array of p-values for their number. :param families: among which alpha is
        shared equally; these slices are one.
    :param clusters: a whole number for each row: rows of one are not independent; None: all are.
    """
    centered = losses - losses.mean()
    total = _sums(centered)
    if total[0] < 2 * min_rows or total[2] == 0:
        return [], 0
    blocks = list(_blocks(columns, centered, max_conditions))
    tested = _test(blocks, total, min_rows)
    looked_at = len(tested.p_values)
    if not looked_at:
        return [], 0
    adjusted = np.minimum(1.0, families * adjust(tested.p_values))
    # The gap that is surely there decides, so that neither the smallest nor the largest slice is preferred.
    sure = tested.gaps - 2 * tested.errors
    significant = np.flatnonzero(adjusted <= alpha)
    significant = significant[np.argsort(-sure[significant], kind="stable")][:VISITED]
    alone = {block.columns[0].name: block for block in blocks if len(block.columns) == 1}
    found: list[Found] = []
    taken = np.zeros(len(losses), dtype=bool)
    for number in significant:
        block, place = blocks[tested.block[number]], int(tested.place[number])
        if len(block.columns) == 2 and not _says_more(block, place, alone, alpha):
            continue
        conditions, rows = _slice(block, place)
        p_value, corrected = float(tested.p_values[number]), float(adjusted[number])
        if clusters is not None:
            by_clusters = worse_by_clusters(rows, ~rows, losses, clusters)[0]
            p_value = max(p_value, by_clusters)
            corrected = max(corrected, min(1.0, by_clusters * looked_at * families))
            if corrected > alpha:
                continue
        if taken.any() and not _is_new(block, place, rows, taken, losses, alpha / len(significant)):
            continue
        taken |= rows
        found.append(Found(conditions, rows, p_value, corrected))
        if len(found) == limit:
            break
    return found, looked_at


def _blocks(columns: Sequence[Coded], losses: Any, max_conditions: int) -> Iterator[_Block]:
    squares = losses**2
    for column in columns:
        tables = _tables(column.cells, column.cell_count, losses, squares)
        yield _Block((column,), *(column.members @ table for table in tables))
    if max_conditions < 2:
        return
    for place, first in enumerate(columns):
        for second in columns[place + 1 :]:
            shape = (first.cell_count, second.cell_count)
            cells = first.cells.astype(np.int64) * shape[1] + second.cells
            tables = [table.reshape(shape) for table in _tables(cells, shape[0] * shape[1], losses, squares)]
            yield _Block((first, second), *(first.members @ table @ second.members.T for table in tables))


def _tables(cells: Any, count: int, losses: Any, squares: Any) -> list[Any]:
    cells = cells.astype(np.int64, copy=False)
    return [
        np.bincount(cells, minlength=count).astype(np.float64),
        np.bincount(cells, weights=losses, minlength=count),
        np.bincount(cells, weights=squares, minlength=count),
    ]


def _test(blocks: Sequence[_Block], total: tuple[float, float, float], min_rows: int) -> _Tested:
    parts: list[list[Any]] = [[], [], [], [], []]
    for number, block in enumerate(blocks):
        rows = np.rint(block.rows.ravel())
        kept = np.flatnonzero((rows >= min_rows) & (total[0] - rows >= min_rows))
        tested = worse_than_rest(
            rows[kept], block.sums.ravel()[kept], block.squares.ravel()[kept], total=total
        )
        for values, some in zip(parts, (np.full(len(kept), number), kept, *tested), strict=True):
            values.append(some)
    joined = [np.concatenate(part) if part else np.zeros(0) for part in parts]
    return _Tested(joined[0].astype(int), joined[1].astype(int), *joined[2:])


def _slice(block: _Block, place: int) -> tuple[str, Any]:
    numbers = np.unravel_index(place, block.rows.shape)
    parts = [(column, int(number)) for column, number in zip(block.columns, numbers, strict=True)]
    conditions = " and ".join(column.conditions[number] for column, number in parts)
    return conditions, np.logical_and.reduce([column.rows_of(number) for column, number in parts])


def _says_more(block: _Block, place: int, alone: Mapping[str, _Block], alpha: float) -> bool:
    """Whether both conditions together are worse than what is left of each without the other.

    Corrected for the slices that the same condition has within this pair of columns: the worst of many parts
    looks worse than the whole by chance.
    """
    numbers = np.unravel_index(place, block.rows.shape)
    own = [float(values.ravel()[place]) for values in (block.rows, block.sums, block.squares)]
    for column, number, others in zip(block.columns, numbers, reversed(block.rows.shape), strict=True):
        whole = alone[column.name]
        parent = tuple(float(values[number]) for values in (whole.rows, whole.sums, whole.squares))
        if parent[0] - own[0] < 2:
            return False
        p_value = worse_than_rest(own[0], own[1], own[2], total=parent)[0]  # type: ignore[arg-type]
        if not p_value <= alpha / others:
            return False
    return True


def _is_new(block: _Block, place: int, rows: Any, taken: Any, losses: Any, alpha: float) -> bool:
    """Whether the rows that no kept slice has are still weak, and not only as each condition alone is.

    :param alpha: for one such question; of many that are asked some are answered yes by chance.
    """
    new = rows & ~taken
    others = [~(rows | taken)]
    if len(block.columns) == 2:
        numbers = np.unravel_index(place, block.rows.shape)
        alone = [column.rows_of(int(number)) for column, number in zip(block.columns, numbers, strict=True)]
        others += [one & others[0] for one in alone]
    return all(_is_worse(losses[new], losses[other], alpha) for other in others)


def _is_worse(losses: Any, others: Any, alpha: float) -> bool:
    if len(losses) < 2 or len(others) < 2:
        return False
    mine, both = _sums(losses), np.add(_sums(losses), _sums(others))
    return bool(worse_than_rest(*mine, total=tuple(both))[0] <= alpha)


def _sums(losses: Any) -> tuple[float, float, float]:
    return float(len(losses)), float(losses.sum()), float((losses**2).sum())
