"""What DuckDB and pandas agree on, column by column: the kinds of columns, and constants in SQL.

For the compilers. Great Expectations' figures are pandas' figures, and those depend on the type a column has
*in pandas*. A column has one of these kinds, or none: then only whether a value is there is asked in SQL.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["Cannot", "Column", "decimal_bound", "exact_decimal", "kind_of", "literal", "quoted"]

EXACT = 2**53  # whole numbers below it are the same number as 64-bit floats
DECIMAL_DIGITS = 38


class Cannot(Exception):
    """Not computed in SQL; the text is the reason, without values."""


@dataclass(frozen=True)
class Column:
    """A column of the frame.

    :param sql: its name in the session's view.
    :param kind: ``int``, ``float``, ``float32``, ``str``, ``bool``, ``date``, ``time``, ``time_utc``,
        ``decimal``; ``other``: DuckDB can only say whether a value is there; ``none``: not even that.
    """

    name: str
    sql: str
    kind: str
    type: pa.DataType


def kind_of(field: pa.Field, dtype: Any | None = None) -> str:
    """The kind of a column; ``dtype``: what it is in pandas, where it came from there."""
    kind = _arrow_kind(field)
    if dtype is None or kind in ("none", "other"):
        return kind
    expected = {
        "int": dtype.kind in "iu",
        "float": dtype.kind == "f",
        "float32": dtype.kind == "f",
        "bool": dtype == np.dtype(bool),
        "str": str(dtype) == "str",
        "date": dtype == np.dtype(object),
        "decimal": dtype == np.dtype(object),
        "time": dtype.kind == "M",
        "time_utc": dtype.kind == "M" and str(getattr(dtype, "tz", None)) == "UTC",
    }[kind]
    # pandas' nullable, Arrow and category types compute in their own ways.
    plain = type(dtype).__module__.startswith("numpy") or kind in ("str", "time_utc")
    return kind if expected and plain else "other"


def _arrow_kind(field: pa.Field) -> str:
    kind, types = field.type, pa.types
    if field.metadata or types.is_float16(kind) or types.is_null(kind) or types.is_decimal256(kind):
        return "none"
    if types.is_integer(kind) and kind != pa.uint64():
        return "int"
    if types.is_float64(kind):
        return "float"
    if types.is_float32(kind):
        return "float32"
    if types.is_string(kind) or types.is_large_string(kind):
        return "str"
    if types.is_boolean(kind):
        return "bool"
    if types.is_date32(kind):
        return "date"
    if types.is_decimal128(kind):
        return "decimal"
    if types.is_timestamp(kind) and kind.unit != "ns":
        return "time" if kind.tz is None else "time_utc" if kind.tz == "UTC" else "other"
    return "other"


def literal(value: Any, column: Column) -> str:
    """A constant to compare the column with, where pandas and DuckDB mean the same by it.

    :raises Cannot: they might not.
    """
    kind = column.kind
    if kind in ("int", "float", "float32"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Cannot("a number is compared with something else")
        if isinstance(value, float) and math.isnan(value):
            raise Cannot("a number is compared with NaN")
        if isinstance(value, float) and math.isinf(value):
            return f"CAST('{'-' if value < 0 else ''}inf' AS DOUBLE)"
        if abs(value) > EXACT:
            raise Cannot("a bound is a larger number than floats hold exactly")
        return str(value) if isinstance(value, int) else f"CAST('{value!r}' AS DOUBLE)"
    if kind == "str" and isinstance(value, str):
        if "\x00" in value:
            raise Cannot("a text has a null character")
        return quoted(value)
    if kind == "bool" and isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if kind == "date" and type(value) is date:
        return f"DATE '{value.isoformat()}'"
    if kind in ("time", "time_utc") and isinstance(value, datetime):
        if (value.tzinfo is None) is not (kind == "time") or getattr(value, "nanosecond", None):
            raise Cannot("a time with a zone is compared with one without")
        text = value.isoformat(sep=" ")
        return f"CAST('{text}' AS {'TIMESTAMP' if kind == 'time' else 'TIMESTAMPTZ'})"
    raise Cannot("a value is compared with a constant of another type")


def decimal_bound(value: Any, column: Column, *, up: bool) -> str:
    """The least decimal of the column's scale not below ``value`` (``up``), or the greatest not above.

    Python compares a decimal and a float exactly; DuckDB would round one of them.
    """
    number = _as_decimal(value)
    with localcontext() as context:
        context.prec = 400
        rounded = number.quantize(
            Decimal(1).scaleb(-column.type.scale), rounding=ROUND_CEILING if up else ROUND_FLOOR
        )
    return _decimal_literal(rounded, column.type.scale)


def exact_decimal(value: Any, column: Column) -> str | None:
    """The value as a decimal of the column's scale; None where no decimal of that scale equals it."""
    number = _as_decimal(value)
    with localcontext() as context:
        context.prec = 400
        rounded = number.quantize(Decimal(1).scaleb(-column.type.scale), rounding=ROUND_FLOOR)
    return _decimal_literal(rounded, column.type.scale) if rounded == number else None


def _as_decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        raise Cannot("a decimal is compared with something else than a finite number")
    return Decimal(value)


def _decimal_literal(value: Decimal, scale: int) -> str:
    text = format(value, "f")
    if sum(one.isdigit() for one in text) > DECIMAL_DIGITS:
        raise Cannot("a bound has more digits than DuckDB's decimals")
    return f"CAST('{text}' AS DECIMAL({DECIMAL_DIGITS}, {scale}))"


def quoted(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"
