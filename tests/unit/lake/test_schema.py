"""Canonical types: what a column becomes, and what is refused with its name."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import DataError
from airflow_provider_xops.lake.schema import cast_batch, check_schema, to_delta_schema, type_name


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        (pa.int8(), pa.int8()),
        (pa.uint8(), pa.int16()),
        (pa.uint16(), pa.int32()),
        (pa.uint32(), pa.int64()),
        (pa.uint64(), pa.decimal128(20, 0)),
        (pa.float16(), pa.float32()),
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string()),
        (pa.binary(4), pa.binary()),
        (pa.date64(), pa.date32()),
        (pa.timestamp("ns", "America/New_York"), pa.timestamp("us", "UTC")),
        (pa.decimal256(20, 3), pa.decimal128(20, 3)),
        (pa.large_list(pa.uint8()), pa.list_(pa.field("element", pa.int16()))),
        (pa.struct([("a", pa.large_string())]), pa.struct([("a", pa.string())])),
        (pa.map_(pa.large_string(), pa.uint8()), pa.map_(pa.string(), pa.int16())),
    ],
)
def test_a_type_has_one_canonical_form_and_stays_there(given: pa.DataType, canonical: pa.DataType) -> None:
    once = to_delta_schema(pa.schema([("c", given)]))

    assert once.field("c").type == canonical
    assert to_delta_schema(once) == once


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (pa.timestamp("us"), "data.naive_timestamp"),
        (pa.null(), "data.null_type"),
        (pa.duration("s"), "data.unsupported_type"),
        (pa.time64("us"), "data.unsupported_type"),
        (pa.list_(pa.timestamp("s")), "data.naive_timestamp"),
    ],
)
def test_what_delta_cannot_keep_is_refused_by_name(kind: pa.DataType, code: str) -> None:
    with pytest.raises(DataError) as caught:
        to_delta_schema(pa.schema([("good", pa.int64()), ("bad", kind)]))

    assert caught.value.code == code
    assert "'bad'" in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["a", "A"], "data.duplicate_column"),
        (["_xops_partition"], "data.reserved_column"),
        ([""], "data.reserved_column"),
    ],
)
def test_names_that_delta_would_confuse_are_refused(names: list[str], code: str) -> None:
    with pytest.raises(DataError) as caught:
        to_delta_schema(pa.schema([(name, pa.int64()) for name in names]))

    assert caught.value.code == code


def test_casting_keeps_every_value() -> None:
    moment = datetime(2013, 1, 1, 5, tzinfo=UTC)
    batch = pa.record_batch(
        {
            "u": pa.array([1, None, 2**64 - 1], pa.uint64()),
            "s": pa.array(["a", None, "a"]).dictionary_encode(),
            "t": pa.array([moment, None, moment], pa.timestamp("ns", "UTC")),
            "d": pa.array([date(2013, 1, 1), None, date(1969, 1, 1)], pa.date64()),
        }
    )

    rows = cast_batch(batch, to_delta_schema(batch.schema)).to_pydict()

    assert rows["u"] == [Decimal(1), None, Decimal(2**64 - 1)]
    assert rows["s"] == ["a", None, "a"]
    assert rows["t"] == [moment, None, moment]
    assert rows["d"] == [date(2013, 1, 1), None, date(1969, 1, 1)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([300], pa.int64()), pa.int8()),
        (pa.array([1_234_567_891], pa.timestamp("ns", "UTC")), pa.timestamp("us", "UTC")),
        (pa.array(["4711-secret"]), pa.int64()),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_that_does_not_quote_it(values: Any, kind: pa.DataType) -> None:
    with pytest.raises(DataError) as caught:
        cast_batch(pa.record_batch({"c": values}), pa.schema([("c", kind)]))

    assert caught.value.code == "data.cast"
    assert "'c'" in str(caught.value)
    assert str(values[0].as_py()) not in str(caught.value)


def test_a_mismatch_names_every_column_that_differs() -> None:
    table = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.date32())])
    data = pa.schema([("a", pa.float64()), ("b", pa.large_string()), ("d", pa.int64())])

    with pytest.raises(DataError) as caught:
        check_schema(data, table, subject="table flights")

    assert caught.value.code == "data.schema_mismatch"
    assert caught.value.context["missing"] == ["c"]
    assert caught.value.context["extra"] == ["d"]
    assert caught.value.context["changed"] == ["a (int64 expected, double found)"]


def test_another_order_and_untyped_columns_are_no_mismatch() -> None:
    table = pa.schema([("a", pa.int64()), ("b", pa.string())])
    data = pa.schema([("b", pa.null()), ("a", pa.int64())])

    check_schema(data, table, subject="table flights")
    batch = cast_batch(pa.record_batch({"b": pa.nulls(1), "a": [1]}), table)

    assert batch.schema == table
    assert batch.to_pylist() == [{"a": 1, "b": None}]


def test_type_names_do_not_depend_on_the_names_inside_lists() -> None:
    assert type_name(pa.list_(pa.field("item", pa.int64()))) == type_name(
        pa.list_(pa.field("element", pa.int64()))
    )
    assert type_name(pa.struct([("x", pa.int64())])) != type_name(pa.struct([("y", pa.int64())]))
