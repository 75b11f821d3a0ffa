"""Digests: over values only, independent of batches and files, sensitive to every cell."""

from __future__ import annotations

import struct
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.lake import digest as module
from airflow_provider_xops.lake.digest import SegmentDigest, table_digest, version_digest

SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("s", pa.string()),
        ("b", pa.bool_()),
        ("y", pa.binary()),
        ("d", pa.decimal128(9, 2)),
        ("t", pa.timestamp("us", "UTC")),
        ("l", pa.list_(pa.field("element", pa.string()))),
        ("r", pa.struct([("x", pa.int32()), ("y", pa.list_(pa.field("element", pa.float32())))])),
        ("m", pa.map_(pa.string(), pa.int64())),
    ]
)

_TEXT = st.text(alphabet="aβ\x00 z", max_size=4)
_ROW = st.fixed_dictionaries(
    {
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "f": st.none() | st.floats(),
        "s": st.none() | _TEXT,
        "b": st.none() | st.booleans(),
        "y": st.none() | st.binary(max_size=4),
        "d": st.none() | st.integers(-(10**8), 10**8).map(lambda n: Decimal(n) / 100),
        "t": st.none() | st.integers(-(2**40), 2**40),
        "l": st.none() | st.lists(st.none() | _TEXT, max_size=3),
        "r": st.none()
        | st.fixed_dictionaries(
            {"x": st.none() | st.integers(-5, 5), "y": st.none() | st.lists(st.floats(width=32), max_size=2)}
        ),
        "m": st.none()
        | st.dictionaries(_TEXT, st.none() | st.integers(-5, 5), max_size=2).map(lambda m: list(m.items())),
    }
)
_ROWS = st.lists(_ROW, max_size=8)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _digest(batches: list[pa.RecordBatch], schema: pa.Schema = SCHEMA, threads: int = 0) -> str:
    digest = SegmentDigest(schema, threads=threads)
    for batch in batches:
        digest.update(batch)
    return digest.hexdigest()


def _pieces(table: pa.Table, cuts: list[int]) -> list[pa.RecordBatch]:
    whole = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    bounds = [0, *sorted(min(cut, table.num_rows) for cut in cuts), table.num_rows]
    return [whole[0].slice(start, end - start) for start, end in pairwise(bounds)]


@given(rows=_ROWS, cuts=st.lists(st.integers(0, 8), max_size=4))
def test_batch_boundaries_do_not_matter(rows: list[dict[str, Any]], cuts: list[int]) -> None:
    table = _table(rows)

    assert _digest(_pieces(table, cuts)) == table_digest(table.to_reader())


@given(rows=_ROWS, data=st.data())
@settings(max_examples=200)
def test_any_change_of_any_cell_changes_it(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    rows = rows or [data.draw(_ROW)]
    index = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.sampled_from(SCHEMA.names))
    other = data.draw(_ROW)[column]
    changed = [dict(row) for row in rows]
    changed[index][column] = other
    before, after = _table(rows), _table(changed)

    # repr tells NaN from null and keeps nested values apart; both zeros are one value.
    same = repr(before.to_pylist()).replace("-0.0", "0.0") == repr(after.to_pylist()).replace("-0.0", "0.0")

    assert (table_digest(before.to_reader()) == table_digest(after.to_reader())) == same


@given(rows=st.lists(_ROW, min_size=2, max_size=6, unique_by=lambda row: row["i"]))
def test_the_order_of_rows_is_part_of_it(rows: list[dict[str, Any]]) -> None:
    assert table_digest(_table(rows).to_reader()) != table_digest(_table(rows[::-1]).to_reader())


@given(rows=_ROWS)
def test_a_parquet_round_trip_does_not_change_it(rows: list[dict[str, Any]]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(_table(rows), sink, row_group_size=3)
    back = pq.ParquetFile(pa.BufferReader(sink.getvalue()))

    batches = pa.RecordBatchReader.from_batches(back.schema_arrow, back.iter_batches(batch_size=2))

    assert table_digest(batches) == table_digest(_table(rows).to_reader())


def test_values_cannot_move_between_neighboring_cells() -> None:
    one = pa.table({"s": ["ab", "c"]})
    other = pa.table({"s": ["a", "bc"]})

    assert table_digest(one.to_reader()) != table_digest(other.to_reader())


def test_names_types_and_columns_are_part_of_it() -> None:
    digests = {
        table_digest(pa.table({name: pa.array([1, 2], kind)}).to_reader())
        for name in ("a", "b")
        for kind in (pa.int32(), pa.int64())
    }
    empty = table_digest(pa.table({"a": pa.array([], pa.int64())}).to_reader())

    assert len(digests | {empty}) == 5


def test_null_is_not_zero_and_not_empty() -> None:
    for kind, value in (
        (pa.int64(), 0),
        (pa.string(), ""),
        (pa.float64(), float("nan")),
        (pa.bool_(), False),
    ):
        present = pa.table({"c": pa.array([value], kind)})
        missing = pa.table({"c": pa.array([None], kind)})

        assert table_digest(present.to_reader()) != table_digest(missing.to_reader())


def test_bytes_under_nulls_do_not_count() -> None:
    valid = pa.py_buffer(b"\x05")  # rows 0 and 2
    for first, second in (([1, 2, 3], [1, 99, 3]),):
        one, other = (
            pa.Array.from_buffers(
                pa.int64(), 3, [valid, pa.py_buffer(np.array(values, np.int64))], null_count=1
            )
            for values in (first, second)
        )
        assert table_digest(pa.table({"c": one}).to_reader()) == table_digest(
            pa.table({"c": other}).to_reader()
        )
    offsets = pa.py_buffer(np.array([0, 1, 4, 5], np.int32))
    text = [
        pa.Array.from_buffers(pa.string(), 3, [valid, offsets, pa.py_buffer(data)], null_count=1)
        for data in (b"aXXXb", b"aYYYb")
    ]
    plain = pa.array(["a", None, "b"])
    assert len({table_digest(pa.table({"c": array}).to_reader()) for array in [*text, plain]}) == 1


def test_there_is_one_zero_and_one_not_a_number() -> None:
    payloads = [
        struct.pack("<Q", bits) for bits in (0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001)
    ]
    numbers = [np.frombuffer(payload, np.float64) for payload in payloads]

    assert len({table_digest(pa.table({"c": pa.array(values)}).to_reader()) for values in numbers}) == 1
    assert table_digest(pa.table({"c": [0.0]}).to_reader()) == table_digest(
        pa.table({"c": [-0.0]}).to_reader()
    )


def test_threads_give_the_same_as_none() -> None:
    rng = np.random.default_rng(7)
    count = 3 * module.INLINE_ROWS
    table = pa.table(
        {"a": rng.normal(size=count), "b": rng.integers(0, 9, count).astype(str), "c": np.arange(count)}
    )
    batches = table.to_batches(max_chunksize=module.INLINE_ROWS + 1)

    assert _digest(batches, table.schema, threads=2) == _digest(batches, table.schema, threads=0)


def test_a_digest_is_a_format_that_stays() -> None:
    """Digests are compared over years: this one must never change."""
    table = pa.table({"n": pa.array([1, None], pa.int64()), "s": ["x", ""], "f": [0.5, None]})

    assert (
        table_digest(table.to_reader()) == "68328f9cfb6915c3e4a0f79463dd1df36754226aded6c46a1f4783fe9091dcba"
    )


@given(st.dictionaries(_TEXT, _TEXT, min_size=1, max_size=4))
def test_a_version_digest_is_over_sorted_pairs(digests: dict[str, str]) -> None:
    backwards = dict(reversed(list(digests.items())))
    changed = {**digests, next(iter(digests)): "other"}

    assert version_digest(digests) == version_digest(backwards)
    assert version_digest(digests) != version_digest(changed)
