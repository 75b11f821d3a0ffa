"""What texts look like."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.quality.profiling.shapes import form_of, shapes_of


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("0f8fad5b-d9cb-469f-a165-70867728950e", "UUID"),
        ("-12", "whole number"),
        ("1.5", "decimal number"),
        ("2013-12-31", "date"),
        ("2013-12-31T10:00:00Z", "time with offset"),
        ("2013-12-31 10:00", "time without offset"),
        ("ada@example.org", "e-mail address"),
        ("https://example.org/a?b=c", "URL"),
        ("10.0.0.1", "IPv4 address"),
        ("", "empty"),
        ("00123", None),  # a postal code, no number
        ("2013-13-01", None),
    ],
)
def test_well_known_forms_are_named(text: str, form: str | None) -> None:
    assert form_of(text) == form


def test_shapes_are_counted_by_their_symbols() -> None:
    shapes = shapes_of([("N14228", 3), ("N24211", 2), ("AA-1", 1)])

    assert [(one.shape, one.count, one.regex) for one in shapes] == [
        ("A99999", 5, "[A-Z][0-9]{5}"),
        ("AA-9", 1, "[A-Z]{2}\\-[0-9]"),
    ]


def test_texts_of_many_lengths_are_counted_by_their_runs() -> None:
    shapes = shapes_of([("x" * length + " -- " + "7" * length, 1) for length in range(1, 20)])

    assert [(one.shape, one.count) for one in shapes] == [("a+ -- 9+", 19)]


@pytest.mark.parametrize("text", ["Ærø", "a\nb", "1+1", "why?"])
def test_what_no_portable_expression_tells_apart_has_none(text: str) -> None:
    (shape,) = shapes_of([(text, 1)])

    assert shape.regex is None


@given(st.lists(st.text(max_size=30), min_size=1, max_size=30))
def test_every_text_matches_the_expression_of_a_shape_and_no_letter_of_it_is_shown(texts: list[str]) -> None:
    shapes = shapes_of([(text, 1) for text in texts])
    expressions = [one.regex for one in shapes if one.regex is not None]
    matched = sum(any(re.fullmatch(regex, text) for regex in expressions) for text in texts)

    # Texts of a shape without an expression are the only ones that may not match.
    assert matched >= sum(one.count for one in shapes if one.regex is not None)
    for one in shapes:
        if not one.form:
            assert set(re.findall(r"\w", one.shape)) <= set("Aa9L_")
