"""Which group each row belongs to, by the values of some columns.

Private to :mod:`airflow_provider_xops.evaluation.fairness`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from airflow_provider_xops.errors import ArgumentError

__all__ = ["MISSING", "groups_of"]

MISSING = "(missing)"
# Whole numbers that a float holds to the last digit.
EXACT = 2**53
MAX_GROUPS = 50
# Of several columns together. Every two groups are compared, so that twice as many take four times as long.
MAX_COMBINED = 500


def groups_of(
    table: pa.Table, columns: Sequence[str], *, cuts: Mapping[str, Sequence[float]]
) -> tuple[list[str], Any]:
    """The groups' names, and for each row the place of its group among them; only groups that have rows.

    Rows without a value are a group of their own. Several columns give the groups of their combinations.

    :param cuts: where numbers are cut; the number at a cut belongs to the upper group.
    :raises ArgumentError: ``argument.fairness``: no such column, cuts that cannot be made, or more values
        than groups make sense for.

    >>> names, codes = groups_of(pa.table({"age": [20, 30, None]}), ["age"], cuts={"age": [25]})
    >>> names, codes.tolist()
    (['age < 25', 'age >= 25', '(missing)'], [0, 1, 2])
    """
    parts = [_one(table, column, cuts.get(column)) for column in columns]
    names, codes = _occurring(*parts[0])
    for more, other in parts[1:]:
        pairs, codes = np.unique(codes * len(more) + other, return_inverse=True)
        if len(pairs) > MAX_COMBINED:
            raise _refused(
                f"the columns {', '.join(columns)} together have more than {MAX_COMBINED} groups",
                "leave out intersections, or cut numbers at fewer places",
            )
        names = [f"{names[pair // len(more)]} & {more[pair % len(more)]}" for pair in pairs]
    return names, codes


def _occurring(names: Sequence[str], codes: Any) -> tuple[list[str], Any]:
    there, codes = np.unique(codes, return_inverse=True)
    return [names[place] for place in there], codes


def _one(table: pa.Table, column: str, cuts: Sequence[float] | None) -> tuple[list[str], Any]:
    if column not in table.column_names:
        raise _refused(f"the dataset has no column {column!r} to tell groups by", "name one of its columns")
    values = table.column(column)
    if pt.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    values = values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if pt.is_nested(values.type):
        raise _refused(
            f"the column {column!r} is {values.type}, which is no group", "name one of plain values"
        )
    number = pt.is_integer(values.type) or pt.is_floating(values.type) or pt.is_decimal(values.type)
    if pt.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if cuts:
        if not number:
            raise _refused(f"the column {column!r} is {values.type} and cannot be cut", "cut numbers only")
        return _cut(values, column, cuts)
    encoded = values.dictionary_encode()
    distinct = len(encoded.dictionary)
    if distinct > MAX_GROUPS:
        raise _refused(
            f"the column {column!r} has {distinct} values, at most {MAX_GROUPS} groups are compared",
            "cut its numbers (cuts), or name a column of fewer values",
        )
    words = [_word(value) for value in encoded.dictionary.to_pylist()]
    # Named in one order whatever row comes first.
    order = sorted(range(distinct), key=lambda place: words[place])
    rank = np.empty(distinct + 1, dtype=np.int64)
    rank[order] = np.arange(distinct)
    rank[distinct] = distinct
    codes = rank[np.asarray(pc.fill_null(encoded.indices.cast(pa.int64()), distinct))]
    return [*(words[place] for place in order), MISSING], codes


def _cut(values: Any, column: str, cuts: Sequence[float]) -> tuple[list[str], Any]:
    edges = list(cuts)
    if not np.isfinite(edges).all() or sorted(set(edges)) != edges:
        raise _refused(f"the cuts of {column!r} do not rise", "give numbers from small to large")
    numbers = np.asarray(values.cast(pa.float64(), safe=False).fill_null(np.nan))
    words = [_word(float(edge)) for edge in edges]
    inner = [f"{low} <= {column} < {high}" for low, high in itertools.pairwise(words)]
    names = [f"{column} < {words[0]}", *inner, f"{column} >= {words[-1]}", MISSING]
    codes = np.where(np.isnan(numbers), len(edges) + 1, np.digitize(numbers, edges))
    return names, codes


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    # A text that says what missing values are called is another group, so it has another name.
    return repr(value) if value == MISSING else str(value)


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.fairness", todo=todo)
