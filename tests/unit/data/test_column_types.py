"""The type language of declared schemas, and the conversion of values into it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.data.column_types import ConversionFailed, declare, from_arrow, parse_type, text_of
from airflow_provider_xops.errors import ArgumentError

NEW_YORK = "timestamp[America/New_York]"


def convert(kind: str, *texts: str | None) -> list[object]:
    return list(parse_type(kind).from_text(pa.array(texts, pa.string())).to_pylist())


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int64", " 42 ", 42),
        ("int8", "-128", -128),
        ("float64", "1e3", 1000.0),
        ("bool", "TRUE", True),
        ("string", " kept ", " kept "),
        ("date", "2013-01-31", date(2013, 1, 31)),
        ("decimal(6,2)", "12.30", Decimal("12.30")),
        ("timestamp", "2013-01-01T10:00:00Z", datetime(2013, 1, 1, 10, tzinfo=UTC)),
        ("timestamp", "2013-01-01 10:00:00+02:00", datetime(2013, 1, 1, 8, tzinfo=UTC)),
        (NEW_YORK, "2013-01-01 10:00:00", datetime(2013, 1, 1, 15, tzinfo=UTC)),
        (NEW_YORK, "2013-07-01 10:00", datetime(2013, 7, 1, 14, tzinfo=UTC)),
    ],
)
def test_text_becomes_the_declared_type(kind: str, text: str, value: object) -> None:
    assert convert(kind, text, None) == [value, None]


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("int64", "1.0", "not an int64"),
        ("int8", "128", "not an int8"),
        ("bool", "yes", "not a bool"),
        ("date", "2013-01-01T00:00", "not a date"),
        ("decimal(6,2)", "1.234", "more digits"),
        ("timestamp", "2013-01-01T10:00:00", "declare the column as timestamp[ZONE]"),
        (NEW_YORK, "2013-01-01T10:00:00Z", "declare the column as timestamp"),
        (NEW_YORK, "2013-03-10 02:30:00", "skipped"),
    ],
)
def test_a_value_of_another_type_is_refused_by_position_and_never_quoted(
    kind: str, text: str, why: str
) -> None:
    good = convert(kind, *[None] * 3)
    assert good == [None] * 3
    with pytest.raises(ConversionFailed) as caught:
        convert(kind, None, None, None, text, text)
    assert caught.value.index == 3
    assert why in caught.value.why
    assert text not in caught.value.why


def test_the_hour_that_clocks_show_twice_is_its_first_pass() -> None:
    assert convert(NEW_YORK, "2013-11-03 01:30:00") == [datetime(2013, 11, 3, 5, 30, tzinfo=UTC)]


@given(values=st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=30))
def test_every_int64_survives_its_text(values: list[int | None]) -> None:
    assert convert("int64", *[None if value is None else str(value) for value in values]) == values


@pytest.mark.parametrize(
    "kind",
    ["int64", "decimal(10,2)", NEW_YORK, "timestamp", "list<string>", "struct<a: int64, b: list<timestamp>>"],
)
def test_a_type_reads_back_from_its_text(kind: str) -> None:
    assert parse_type(kind).text == kind
    assert parse_type(parse_type(kind).text) == parse_type(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "integer",
        "",
        "decimal(10)",
        "decimal(99,2)",
        "timestamp[Mars/Base]",
        "list<int64",
        "int64 int64",
        "list<timestamp[UTC]>",
    ],
)
def test_text_that_is_no_type_is_refused_with_the_column(kind: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        declare({"price": kind})
    assert caught.value.code == "argument.type"
    assert "'price'" in str(caught.value)
    assert "decimal(p,s)" in caught.value.todo


def test_a_schema_without_columns_is_refused() -> None:
    with pytest.raises(ArgumentError) as caught:
        declare({})
    assert caught.value.code == "argument.empty"


def test_an_arrow_schema_becomes_types_that_delta_holds() -> None:
    schema = pa.schema(
        [
            ("small", pa.uint16()),
            ("huge", pa.uint64()),
            ("code", pa.dictionary(pa.int8(), pa.large_string())),
            ("when", pa.timestamp("ns", "Europe/Paris")),
            ("tags", pa.large_list(pa.string_view())),
        ]
    )
    assert text_of(declare(schema)) == {
        "small": "int32",
        "huge": "decimal(20,0)",
        "code": "string",
        "when": "timestamp",
        "tags": "list<string>",
    }


def test_a_timestamp_without_a_zone_is_refused_with_what_to_write() -> None:
    with pytest.raises(ArgumentError) as caught:
        from_arrow(pa.timestamp("us"), column="sold_at")
    assert caught.value.code == "argument.naive_timestamp"
    assert "'sold_at': 'timestamp[Area/City]'" in caught.value.todo


def test_typed_values_are_widened_but_never_reinterpreted() -> None:
    assert parse_type("int64").from_typed(pa.array([1, None], pa.int16())).type == pa.int64()
    assert parse_type("float64").from_typed(pa.array([1.5], pa.float32())).to_pylist() == [1.5]
    local = pa.array([datetime(2013, 1, 1, 10)], pa.timestamp("ms"))  # noqa: DTZ001
    assert parse_type(NEW_YORK).from_typed(local).to_pylist() == [datetime(2013, 1, 1, 15, tzinfo=UTC)]
    for kind, values in (
        ("int64", pa.array(["1"])),
        ("float32", pa.array([1.0])),
        ("timestamp", local),
        ("string", pa.array([1])),
        ("date", pa.array([1])),
    ):
        with pytest.raises(ConversionFailed) as caught:
            parse_type(kind).from_typed(values)
        assert caught.value.index is None


def test_a_typed_value_that_does_not_fit_is_found_by_position() -> None:
    with pytest.raises(ConversionFailed) as caught:
        parse_type("int8").from_typed(pa.array([1, 2, 300, 4]))
    assert caught.value.index == 2
