"""Rows on their way through a quarantine: which are bad, which were mended, and the two streams of them.

Private to :mod:`airflow_provider_xops.quality.quarantine` and :mod:`~airflow_provider_xops.quality.release`.
The position of a row in its raw place, counted from 0, is its identity. Mended rows stand in for the raw rows
of their positions. Nothing here writes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.data.places import Place, verified_rows
from airflow_provider_xops.errors import DataError, LakeError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import DatasetRef

__all__ = [
    "BATCH",
    "ORIGIN",
    "OWN_COLUMNS",
    "RAW_VERSION",
    "REASONS",
    "RELEASE",
    "ROW",
    "SUITE",
    "Bad",
    "Mended",
    "accepted_rows",
    "any_of",
    "check_names",
    "count_reasons",
    "found_bad",
    "no_mended",
    "quarantine_schema",
    "quarantined_rows",
    "released_schema",
    "standing_rows",
]

ROW = "_xops_row"
BATCH = "_xops_batch"
REASONS = "_xops_reasons"
RAW_VERSION = "_xops_raw_version"
SUITE = "_xops_suite"
ORIGIN = "_xops_origin"
RELEASE = "_xops_release"
OWN_COLUMNS = (ROW, BATCH, REASONS, RAW_VERSION, SUITE, ORIGIN, RELEASE)


@dataclass(frozen=True, kw_only=True)
class Bad:
    """The rows of one place that do not go on: positions (sorted), and for each its reasons as JSON text."""

    positions: np.ndarray
    reasons: pa.Array

    def __len__(self) -> int:
        return len(self.positions)

    def without(self, positions: np.ndarray) -> Bad:
        """The same without the rows at these positions."""
        kept = ~np.isin(self.positions, positions)
        return Bad(positions=self.positions[kept], reasons=self.reasons.filter(pa.array(kept)))


@dataclass(frozen=True, kw_only=True)
class Mended:
    """Rows that people mended, of one place: positions (sorted) and the user's columns.

    :param releases: how many releases they came in; ``digest`` identifies these releases ("" if none).
    :param names: the digests of the releases; ``brought_by`` the one that brought each row.
    :param source: the version of the table that keeps them.
    """

    positions: np.ndarray
    rows: pa.Table
    releases: int = 0
    digest: str = ""
    names: frozenset[str] = frozenset()
    brought_by: tuple[str, ...] = ()
    source: DatasetRef | None = None

    def __len__(self) -> int:
        return len(self.positions)


def quarantine_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of a quarantine table: the user's, and ours.

    :raises DataError: ``data.reserved_column``.
    """
    return pa.schema(
        [
            *_free(schema),
            pa.field(ROW, pa.int64()),
            pa.field(BATCH, pa.string()),
            pa.field(REASONS, pa.string()),
            pa.field(RAW_VERSION, pa.int64()),
            pa.field(SUITE, pa.string()),
        ]
    )


def released_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of a table of mended rows: the user's, and ours.

    :raises DataError: ``data.reserved_column``.
    """
    ours = (ROW, pa.int64()), (BATCH, pa.string()), (ORIGIN, pa.string()), (RELEASE, pa.string())
    return pa.schema([*_free(schema), *(pa.field(name, kind) for name, kind in ours)])


def check_names(checks: Sequence[Check]) -> list[str]:
    """What a row's reasons call the checks: type and columns, numbered where several are alike."""
    plain = [f"{check.type}({check.column})" if check.column else check.type for check in checks]
    seen: Counter[str] = Counter()
    names = []
    for name in plain:
        seen[name] += 1
        names.append(f"{name} #{seen[name]}" if plain.count(name) > 1 else name)
    return names


def found_bad(names: Sequence[str], rows: Sequence[np.ndarray], places: Sequence[Place]) -> list[Bad]:
    """What an engine found, by place.

    :param names: of the checks; ``rows`` their positions over all places, one after the other.
    """
    found, start = [], 0
    for place in places:
        end = start + place.rows
        here = [each[np.searchsorted(each, start) : np.searchsorted(each, end)] - start for each in rows]
        positions = any_of(here, place.rows)
        found.append(Bad(positions=positions, reasons=_reasons(names, here, positions)))
        start = end
    return found


def any_of(rows: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The positions, of ``count``, that are in one of ``rows`` at least; sorted."""
    found = np.zeros(count, dtype=bool)
    for each in rows:
        found[each] = True
    return np.flatnonzero(found)


def _reasons(names: Sequence[str], rows: Sequence[np.ndarray], positions: np.ndarray) -> pa.Array:
    if not len(positions):
        return pa.array([], pa.string())
    # A row's broken checks as the bits of a few bytes: of many rows and checks that is what fits in memory.
    bits = np.zeros((len(positions), -(-len(rows) // 8)), dtype=np.uint8)
    for number, each in enumerate(rows):
        bits[np.searchsorted(positions, each), number // 8] |= np.uint8(128 >> number % 8)
    kinds, kind_of = np.unique(bits, axis=0, return_inverse=True)
    texts = [
        json.dumps([name for name, breaks in zip(names, kind, strict=False) if breaks], ensure_ascii=False)
        for kind in np.unpackbits(kinds, axis=1)
    ]
    return pa.array(texts, pa.string()).take(pa.array(kind_of.reshape(-1)))


def count_reasons(reasons: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """Check to rows that broke it; a row that broke several counts for each."""
    counted: Counter[str] = Counter()
    for each in pc.value_counts(reasons).to_pylist():
        for name in json.loads(each["values"]):
            counted[name] += each["counts"]
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def standing_rows(
    lake: Lake, raw: DatasetRef, schema: pa.Schema, place: Place, mended: Mended
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a raw place with the mended ones in their places, and where each batch begins."""
    start = 0
    for batch in verified_rows(lake, raw, schema, place.files):
        first, last = np.searchsorted(mended.positions, [start, start + batch.num_rows])
        if first < last:
            chosen = np.arange(batch.num_rows)
            chosen[mended.positions[first:last] - start] = batch.num_rows + np.arange(last - first)
            both = pa.concat_tables([pa.Table.from_batches([batch]), mended.rows.slice(first, last - first)])
            (batch,) = both.take(pa.array(chosen)).combine_chunks().to_batches()
        yield start, batch
        start += batch.num_rows


def accepted_rows(
    lake: Lake, raw: DatasetRef, schema: pa.Schema, place: Place, mended: Mended, bad: Bad
) -> Iterator[pa.RecordBatch]:
    """What goes on.

    :raises LakeError: ``lake.rows_lost``: they and the bad ones do not add up to the raw rows.
    """
    given = 0
    for start, batch in standing_rows(lake, raw, schema, place, mended):
        first, last = np.searchsorted(bad.positions, [start, start + batch.num_rows])
        if first < last:
            kept = np.ones(batch.num_rows, dtype=bool)
            kept[bad.positions[first:last] - start] = False
            batch = batch.filter(pa.array(kept))
        given += batch.num_rows
        yield batch
    _add_up(raw, place, given + len(bad))


def quarantined_rows(
    lake: Lake, raw: DatasetRef, schema: pa.Schema, place: Place, mended: Mended, bad: Bad, *, suite: str
) -> Iterator[pa.RecordBatch]:
    """What does not, with why. A place where nothing is bad is not read.

    :param schema: the user's columns.
    :raises LakeError: ``lake.rows_lost``: a bad row is not in the raw data.
    """
    given, full = 0, quarantine_schema(schema)
    for start, batch in standing_rows(lake, raw, schema, place, mended) if len(bad) else ():
        first, last = np.searchsorted(bad.positions, [start, start + batch.num_rows])
        if first == last:
            continue
        positions = bad.positions[first:last]
        rows = batch.take(pa.array(positions - start))
        count = last - first
        ours = [
            pa.array(positions, pa.int64()),
            pa.repeat(pa.scalar(place.batch), count),
            _array(bad.reasons[first:last]),
            pa.repeat(pa.scalar(raw.version, pa.int64()), count),
            pa.repeat(pa.scalar(suite), count),
        ]
        yield pa.RecordBatch.from_arrays([*rows.columns, *ours], schema=full)
        given += count
    _add_up(raw, place, place.rows - len(bad) + given)


def _add_up(raw: DatasetRef, place: Place, rows: int) -> None:
    if rows != place.rows:
        raise LakeError(
            f"parting {raw}, partition {place.partition}, gave {rows} rows of {place.rows}",
            code="lake.rows_lost",
            why="accepted and quarantined rows must add up to the raw ones",
            todo="report this; nothing was written",
        )


def _array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _free(schema: pa.Schema) -> Iterator[pa.Field]:
    for field in schema:
        if field.name.lower() in OWN_COLUMNS:
            raise DataError(
                f"the column name {field.name!r} is reserved for the quarantine",
                code="data.reserved_column",
                todo="rename the column at the source",
                context={"column": field.name},
            )
        yield field


def no_mended(schema: pa.Schema) -> Mended:
    """No mended rows."""
    return Mended(positions=np.empty(0, np.int64), rows=schema.empty_table())
