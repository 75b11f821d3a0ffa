"""The small language in which a source's columns are declared, and the conversion of values into it.

For ingestion: a schema is a mapping from column name to type text, small enough to stand in a DAG file::

    {"flight": "int64", "time_hour": "timestamp[America/New_York]", "price": "decimal(10,2)"}

Scalars: ``int8 int16 int32 int64 float32 float64 bool string binary date decimal(p,s)``. Time:
``timestamp`` (every value carries its own UTC offset) and ``timestamp[ZONE]`` (values are local times of that
IANA zone); both are stored in UTC microseconds. Nested: ``list<T>`` and ``struct<name: T, ...>``.

What it does not do: guess. A local time without a zone is refused, text that is not exactly the declared type
is refused, and no value is ever clipped or rounded (timestamps finer than a microsecond in typed files
excepted).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.errors import ArgumentError

__all__ = ["ColumnType", "ConversionFailed", "Declared", "declare", "from_arrow", "parse_type", "text_of"]

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")

_SIMPLE: dict[str, Any] = {
    "int8": pa.int8(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(),
    "float32": pa.float32(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string(),
    "binary": pa.binary(), "date": pa.date32(), "timestamp": UTC_MICROSECONDS,
}  # fmt: skip
_WIDER = {"uint8": "int16", "uint16": "int32", "uint32": "int64", "halffloat": "float32"}
_TOKEN = re.compile(r"\s*([A-Za-z_]\w*|\d+|[<>\[\](),:])")
_ZONE = re.compile(r"\s*\[\s*([A-Za-z0-9_+\-/]+)\s*\]")


class ConversionFailed(Exception):
    """A value is not of the declared type. ``index`` is its position in the array (None: not known)."""

    def __init__(self, index: int | None, why: str) -> None:
        self.index = index
        self.why = why
        super().__init__(why)


@dataclass(frozen=True)
class ColumnType:
    """One declared type: its canonical text, the Arrow type it is stored as, and the zone of local times."""

    text: str
    arrow: Any
    zone: str | None = None

    @property
    def nested(self) -> bool:
        """Whether the type is a list or a struct (a CSV column cannot be)."""
        return bool(pa.types.is_nested(self.arrow))

    def from_text(self, values: Any) -> Any:
        """Convert an array of strings (nulls stay null).

        :raises ConversionFailed: with the position of the first value that does not convert.
        """
        if pa.types.is_string(self.arrow):
            return values
        trimmed = pc.utf8_trim_whitespace(values)
        try:
            return self._cast_text(trimmed)
        except pa.ArrowInvalid as error:
            raise ConversionFailed(self._first_bad(trimmed), self._reason(error)) from None

    def from_typed(self, values: Any) -> Any:
        """Convert an array of a typed file (Parquet, a JSON number): widening only, never a reinterpretation.

        :raises ConversionFailed: the types do not go together (index None), or a value does not fit.
        """
        source = values.type
        if source.equals(self.arrow):
            return values
        if self.zone is not None and pa.types.is_timestamp(source) and source.tz is None:
            return self._localize(pc.cast(values, pa.timestamp("us"), safe=False))
        if not _goes_into(source, self):
            raise ConversionFailed(None, f"the file has {source}, the schema says {self.text}")
        if pa.types.is_timestamp(source):
            return pc.cast(values, self.arrow, safe=False)
        try:
            return pc.cast(values, self.arrow)
        except pa.ArrowInvalid:
            raise ConversionFailed(
                _bisect(values, lambda part: pc.cast(part, self.arrow)),
                f"a value of {source} does not fit {self.text}",
            ) from None

    def _cast_text(self, values: Any) -> Any:
        if self.zone is None:
            return pc.cast(values, self.arrow)
        return self._localize(pc.cast(values, pa.timestamp("us")))

    def _localize(self, naive: Any) -> Any:
        # The hour that a clock shows twice is taken as its first pass; one that it never shows is refused.
        try:
            local = pc.assume_timezone(naive, self.zone, ambiguous="earliest", nonexistent="raise")
        except pa.ArrowInvalid as error:
            index = _bisect(
                naive,
                lambda part: pc.assume_timezone(part, self.zone, ambiguous="earliest", nonexistent="raise"),
            )
            raise ConversionFailed(index, self._reason(error)) from None
        return pc.cast(local, UTC_MICROSECONDS)

    def _first_bad(self, values: Any) -> int | None:
        def attempt(part: Any) -> None:
            try:
                self._cast_text(part)
            except ConversionFailed as error:
                raise pa.ArrowInvalid(error.why) from None

        return _bisect(values, attempt)

    def _reason(self, error: Exception) -> str:
        # Arrow's own message quotes the value; only the kind of problem is taken from it.
        message = str(error)
        if "expected a zone offset" in message:
            return "a time without a UTC offset; declare the column as timestamp[ZONE]"
        if "expected no zone offset" in message:
            return "a time with a UTC offset; declare the column as timestamp"
        if "doesn't exist in timezone" in message:
            return f"a local time that clocks in {self.zone} skipped"
        if "data loss" in message:
            return f"a number with more digits than {self.text} holds"
        return f"a value that is not {_article(self.text)}"


Declared = dict[str, ColumnType]


def parse_type(text: str, *, column: str = "") -> ColumnType:
    """Read one type of the language.

    :raises ArgumentError: ``argument.type``; the message names the column and lists the types.

    >>> parse_type("timestamp[Europe/Paris]").arrow
    TimestampType(timestamp[us, tz=UTC])
    """
    try:
        parsed, rest = _parse(text)
        if rest.strip():
            raise ValueError(f"{rest.strip()!r} follows the type")
    except (ValueError, pa.ArrowException, TypeError, AttributeError) as error:
        raise ArgumentError(
            f"{text!r} is not a column type" + (f" (column {column!r})" if column else ""),
            code="argument.type",
            why=str(error),
            todo=f"use one of {', '.join(_SIMPLE)}, timestamp[ZONE], decimal(p,s), list<T>, struct<name: T>",
        ) from None
    return parsed


def from_arrow(arrow: Any, *, column: str = "") -> ColumnType:
    """The declared type of an Arrow type, as Delta can hold it (unsigned widened, dictionaries decoded).

    :raises ArgumentError: ``argument.naive_timestamp`` for a timestamp without a zone; ``argument.type`` for
        a type that has no place in a Delta table (time of day, duration, null).
    """
    types = pa.types
    if types.is_dictionary(arrow):
        return from_arrow(arrow.value_type, column=column)
    if types.is_timestamp(arrow):
        if arrow.tz is None:
            raise ArgumentError(
                f"column {column!r} holds times without a zone", code="argument.naive_timestamp",
                why="a local time is not a moment until its zone is known",
                todo=f"pass a schema that says {column!r}: 'timestamp[Area/City]' (or 'timestamp[UTC]')",
            )  # fmt: skip
        return parse_type("timestamp")
    return parse_type(_arrow_text(arrow, column), column=column)


def declare(schema: Mapping[str, str] | Any) -> Declared:
    """The declared columns of a mapping of type texts, or of a ``pyarrow.Schema``.

    :raises ArgumentError: no columns (``argument.empty``), or a type that is not in the language.
    """
    fields = {field.name: field.type for field in schema} if isinstance(schema, pa.Schema) else dict(schema)
    if not fields:
        raise ArgumentError(
            "the schema names no column",
            code="argument.empty",
            why="it is empty, or a template rendered to nothing",
            todo="name each column with its type, or pass no schema to use the recorded one",
        )
    return {
        name: parse_type(kind, column=name) if isinstance(kind, str) else from_arrow(kind, column=name)
        for name, kind in fields.items()
    }


def text_of(declared: Declared) -> dict[str, str]:
    """The mapping of type texts that :func:`declare` reads back."""
    return {name: column.text for name, column in declared.items()}


def _article(text: str) -> str:
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


def _bisect(values: Any, attempt: Any) -> int | None:
    """Position of the first element on which ``attempt(slice)`` raises ArrowInvalid."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            attempt(values[low:middle])
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low if high > low else None


def _goes_into(source: Any, target: ColumnType) -> bool:
    types, goal = pa.types, target.arrow
    if types.is_dictionary(source):
        source = source.value_type
    if types.is_null(source):
        return True
    if types.is_integer(source):
        return bool(types.is_integer(goal) or types.is_floating(goal) or types.is_decimal(goal))
    if types.is_floating(source):
        return bool(types.is_floating(goal) and goal.bit_width >= source.bit_width)
    if types.is_decimal(source):
        return bool(types.is_decimal(goal))
    if types.is_timestamp(source):
        return bool(types.is_timestamp(goal) and source.tz is not None and target.zone is None)
    if types.is_date(source):
        return bool(types.is_date(goal))
    for family in (_is_text, _is_bytes, _is_list, types.is_struct, types.is_boolean):
        if family(source):
            return bool(family(goal))
    return False


def _is_text(arrow: Any) -> bool:
    return bool(
        pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow)
    )


def _is_bytes(arrow: Any) -> bool:
    types = pa.types
    return bool(
        types.is_binary(arrow)
        or types.is_large_binary(arrow)
        or types.is_fixed_size_binary(arrow)
        or types.is_binary_view(arrow)
    )


def _is_list(arrow: Any) -> bool:
    return bool(
        pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow)
    )


def _arrow_text(arrow: Any, column: str) -> str:
    types = pa.types
    if _is_text(arrow):
        return "string"
    if _is_bytes(arrow):
        return "binary"
    if types.is_date(arrow):
        return "date"
    if types.is_decimal(arrow):
        return f"decimal({arrow.precision},{arrow.scale})"
    if types.is_uint64(arrow):
        return "decimal(20,0)"
    if _is_list(arrow):
        return f"list<{from_arrow(arrow.value_type, column=column).text}>"
    if types.is_struct(arrow):
        inner = ", ".join(f"{f.name}: {from_arrow(f.type, column=f'{column}.{f.name}').text}" for f in arrow)
        return f"struct<{inner}>"
    name = {"float": "float32", "double": "float64"}.get(str(arrow), str(arrow))
    return _WIDER.get(name, name)


def _parse(text: str) -> tuple[ColumnType, str]:
    name, rest = _take(text)
    if name == "decimal":
        _, rest = _take(rest, "(")
        precision, rest = _take(rest)
        _, rest = _take(rest, ",")
        scale, rest = _take(rest)
        _, rest = _take(rest, ")")
        return ColumnType(
            f"decimal({int(precision)},{int(scale)})", pa.decimal128(int(precision), int(scale))
        ), rest
    if name == "list":
        _, rest = _take(rest, "<")
        item, rest = _inner(rest)
        _, rest = _take(rest, ">")
        return ColumnType(f"list<{item.text}>", pa.list_(item.arrow)), rest
    if name == "struct":
        return _parse_struct(rest)
    if name == "timestamp" and (zone := _ZONE.match(rest)):
        _check_zone(zone[1])
        return ColumnType(f"timestamp[{zone[1]}]", UTC_MICROSECONDS, zone[1]), rest[zone.end() :]
    if name not in _SIMPLE:
        raise ValueError(f"there is no type {name!r}")
    return ColumnType(name, _SIMPLE[name]), rest


def _parse_struct(rest: str) -> tuple[ColumnType, str]:
    _, rest = _take(rest, "<")
    fields: list[tuple[str, ColumnType]] = []
    mark = ","
    while mark == ",":
        name, rest = _take(rest)
        _, rest = _take(rest, ":")
        kind, rest = _inner(rest)
        fields.append((name, kind))
        mark, rest = _take(rest)
    if mark != ">":
        raise ValueError(f"{mark!r} where ',' or '>' belongs")
    text = ", ".join(f"{name}: {kind.text}" for name, kind in fields)
    return ColumnType(f"struct<{text}>", pa.struct([(name, kind.arrow) for name, kind in fields])), rest


def _inner(rest: str) -> tuple[ColumnType, str]:
    kind, rest = _parse(rest)
    if kind.zone is not None:
        raise ValueError("timestamp[ZONE] stands at the top only; inside a list or struct use timestamp")
    return kind, rest


def _take(text: str, expected: str | None = None) -> tuple[str, str]:
    found = _TOKEN.match(text)
    if found is None or (expected is not None and found[1] != expected):
        raise ValueError(f"{expected or 'a name'} belongs before {text.strip()[:20]!r}")
    return found[1], text[found.end() :]


def _check_zone(zone: str) -> None:
    # Arrow looks a zone up only when it meets a value.
    pc.assume_timezone(pa.array([0], pa.timestamp("us")), zone, ambiguous="earliest", nonexistent="earliest")
