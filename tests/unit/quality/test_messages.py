"""What is said of an exception: enough to act on, and no value."""

from __future__ import annotations

import re
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.quality._messages import VOCABULARY, exception_of, safe_line

MESSAGES = (
    "ValueError: could not convert string to float: '{}'",
    "DateParseError: Unknown datetime string format, unable to parse: {}, at position 0",
    "ConversionException: Conversion Error: Could not convert string '{}' to INT32",
    'invalid input syntax for type integer: "{}"',
    "KeyError: {}",
    "{}",
)


@given(value=st.text(min_size=1, max_size=40), message=st.sampled_from(MESSAGES))
def test_no_word_of_a_value_is_said(value: str, message: str) -> None:
    said = safe_line(message.format(value))
    known = set(re.findall(r"\w+", message.lower())) | VOCABULARY
    assert [word for word in re.findall(r"\w+", said) if word.lower() not in known] == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "TypeError: '<=' not supported between instances of 'str' and 'int'",
            "TypeError: '<=' not supported between instances of 'str' and 'int'",
        ),
        (
            "sqlalchemy.exc.ProgrammingError: (psycopg2.errors.UndefinedFunction) operator does not exist: "
            "text > integer\nLINE 1: SELECT 'Jane'",
            "UndefinedFunction: operator does not exist: text > integer",
        ),
        ("cannot compare 'first name' with 'Jane'", "cannot compare 'first name' with '…'"),
        ("pandas.errors.OutOfBoundsDatetime: Out of bounds", "OutOfBoundsDatetime: Out of bounds"),
        ("KeyError", "KeyError"),
        ("", ""),
    ],
)
def test_what_helps_is_said(text: str, line: str) -> None:
    assert safe_line(text, columns=["first name"]) == line


def test_of_a_chain_the_exception_that_began_it_counts() -> None:
    try:
        try:
            float("jane@example.org")
        except ValueError as error:
            raise RuntimeError("a metric could not be computed") from error
    except RuntimeError:
        text = traceback.format_exc()
    assert exception_of(text)[0] == "ValueError"
    assert safe_line(text) == "ValueError: could not convert string to float: '…'"


def test_a_line_of_a_long_message_is_not_taken_for_an_exception() -> None:
    text = 'Traceback (most recent call last):\n  File "x", line 1\nValueError: bad row\nJaneError: Doe\n'
    assert exception_of(text) == ("ValueError", "bad row")


def test_a_long_message_is_cut() -> None:
    assert len(safe_line("the value " * 200)) <= 240
