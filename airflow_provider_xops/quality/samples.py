"""Samples of bad rows in a report, under a privacy policy.

For validation's documents. A sample is a value of a row, so the policy decides what a reader of the report
gets to see, and the report names the policy:

``none``
    No sample; the engine is not even asked for any. The default.
``masked``
    What a value looks like: its type, a class of its length or size, and its shape. Of text, letters become
    ``a`` or ``A``, digits ``9``, at most two other characters in a row are kept, and at most 24 characters
    are shown; of a number the sign and the power of ten; of a date the year.
``full``
    The value, cut at 200 characters.

Samples are in the report's HTML and JSON in the lake and nowhere else: not in the record, so neither in XCom
nor in asset events, not in logs, not in messages of errors. Figures are no samples and under no policy,
though an observed maximum is some row's value.

What it does not do: masking is no anonymization. A shape narrows down what a value may have been, and a rare
shape may belong to one person only.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from numbers import Integral, Real
from typing import Any

from airflow_provider_xops.errors import ArgumentError

__all__ = [
    "SAMPLE_SIZE",
    "SamplePolicy",
    "mask",
    "sample_policy",
    "sample_size",
    "samples_line",
    "shape",
    "shown",
]

SAMPLE_SIZE = 20
MOST = 1000  # samples of one check; more is an export, not a sample

SHAPE_LIMIT = 24
FULL_LIMIT = 200
KEPT_IN_A_ROW = 2
CUT = "…"

_LENGTHS = ((0, "empty"), (2, "1-2"), (9, "3-9"), (31, "10-31"), (99, "32-99"))


class SamplePolicy(StrEnum):
    """How much of a bad row a report shows."""

    NONE = "none"
    MASKED = "masked"
    FULL = "full"


def sample_policy(given: Any) -> SamplePolicy:
    """The policy of that name.

    :raises ArgumentError: ``argument.samples``.
    """
    if given not in set(SamplePolicy):
        raise ArgumentError(
            f"samples is {str(given)[:40]!r}",
            code="argument.samples",
            todo=f"use one of {', '.join(policy.value for policy in SamplePolicy)}",
        )
    return SamplePolicy(given)


def sample_size(given: Any) -> int:
    """How many samples of each check at most.

    :raises ArgumentError: not a whole number from 1 to 1000 (``argument.sample_size``).
    """
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MOST:
        raise ArgumentError(
            f"sample_size is {str(given)[:40]!r}",
            code="argument.sample_size",
            todo=f"give a whole number from 1 to {MOST}",
        )
    return given


def shown(values: Sequence[Any], policy: SamplePolicy) -> list[str]:
    """What a report shows of these values: nothing, each masked, or each as text.

    >>> shown(["Jane Doe", 1234], SamplePolicy.MASKED)
    ['Aaaa Aaa (text, 3-9 characters)', 'positive, 4 digits (number)']
    """
    if policy is SamplePolicy.NONE:
        return []
    return [mask(value) if policy is SamplePolicy.MASKED else _full(value) for value in values]


def samples_line(policy: SamplePolicy) -> str:
    """The sentence with which a report names the policy.

    >>> samples_line(SamplePolicy.NONE)
    'Samples of bad rows: none (privacy policy).'
    """
    what = {
        SamplePolicy.NONE: "none (privacy policy)",
        SamplePolicy.MASKED: "masked (privacy policy): type, size class and shape of values, not the values",
        SamplePolicy.FULL: "full (privacy policy): this page holds values of rows",
    }
    return f"Samples of bad rows: {what[policy]}."


def mask(value: Any) -> str:
    """What a value looks like, without the value.

    >>> mask("AA-1034 x"), mask(-0.02), mask(date(1999, 12, 31)), mask(None)
    ('AA-9999 a (text, 3-9 characters)', 'negative, 10^-2 (number)', '1999 (date)', 'missing')
    """
    if value is None or _is_missing(value):
        return "missing"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return " ".join(part for part in (shape(value), f"(text, {_length(len(value))} characters)") if part)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"(bytes, {_length(len(value))})"
    if isinstance(value, datetime | date):
        kind = "time" if isinstance(value, datetime) else "date"
        return f"{value.year} ({kind})"
    if isinstance(value, Real | Decimal):
        return f"{_magnitude(value)} (number)"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {mask(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(mask(item) for item in value[:8])
    if isinstance(value, time | timedelta):
        return f"({type(value).__name__})"
    return f"({type(value).__name__ if type(value).__module__ != '__main__' else 'object'})"


def shape(text: str) -> str:
    """Letters as ``a`` and ``A``, digits as ``9``, other printable ASCII kept (two in a row at most).

    Every text of the same classes of characters gives the same shape.

    >>> shape("Ærø 12 --- x"), shape("ß" * 30)
    ('Aaa 99 -…a', 'aaaaaaaaaaaaaaaaaaaaaaaa…')
    """
    drawn: list[str] = []
    kept = 0
    for character in text[:SHAPE_LIMIT]:
        symbol = _class_of(character)
        if symbol is not None:
            drawn.append(symbol)
            kept = 0
        elif kept < KEPT_IN_A_ROW and " " <= character <= "~":
            drawn.append(character)
            kept += 1
        elif drawn[-1:] != [CUT]:
            drawn.append(CUT)
    if len(text) > SHAPE_LIMIT and drawn[-1:] != [CUT]:
        drawn.append(CUT)
    return "".join(drawn).strip()


def _class_of(character: str) -> str | None:
    category = unicodedata.category(character)
    if category in ("Lu", "Lt"):
        return "A"
    if category[0] == "L":
        return "a"
    return "9" if category[0] == "N" else None


def _magnitude(value: Any) -> str:
    number = float(value) if not isinstance(value, Integral) else int(value)
    if number == 0:
        return "zero"
    sign = "negative" if number < 0 else "positive"
    if isinstance(number, float) and math.isinf(number):
        return f"{sign} infinity"
    if isinstance(number, int):
        digits = len(str(abs(number)))
        return f"{sign}, {digits} digit{'s' if digits > 1 else ''}"
    return f"{sign}, 10^{math.floor(math.log10(abs(number)))}"


def _length(count: int) -> str:
    return next((name for most, name in _LENGTHS if count <= most), "100 or more")


def _is_missing(value: Any) -> bool:
    if isinstance(value, Decimal):
        return value.is_nan()
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' own, which compare to nothing
        return True
    return isinstance(value, Real) and bool(value != value)


def _full(value: Any) -> str:
    if isinstance(value, Mapping):
        text = "; ".join(f"{name}: {_full(item)}" for name, item in value.items())
    elif isinstance(value, list | tuple):
        text = "; ".join(_full(item) for item in value)
    else:
        text = "missing" if value is None or _is_missing(value) else str(value)
    return text if len(text) <= FULL_LIMIT else text[:FULL_LIMIT] + CUT
