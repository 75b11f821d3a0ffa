"""What a report may show of bad values, and what no policy but "full" lets through."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.samples import (
    SamplePolicy,
    mask,
    sample_policy,
    sample_size,
    samples_line,
    shape,
    shown,
)

# What every mask is made of, whatever the value.
MASK_ALPHABET = set("aA9…")


@given(text=st.text(min_size=3, max_size=60))
def test_no_text_of_more_than_two_characters_survives_masking(text: str) -> None:
    assume(not set(text) <= MASK_ALPHABET)  # "aaa" looks like what it is masked to, as every such text does
    assert text not in shape(text)


@given(text=st.text(st.characters(categories=["L", "N"]), min_size=3, max_size=60))
def test_no_letter_or_digit_survives_masking(text: str) -> None:
    assert set(shape(text)) <= MASK_ALPHABET


@given(
    first=st.text(st.sampled_from("abc"), max_size=30), second=st.text(st.sampled_from("xyz"), max_size=30)
)
def test_texts_of_one_shape_have_one_mask(first: str, second: str) -> None:
    second = (second + "x" * len(first))[: len(first)]
    assert mask(first) == mask(second)


@given(
    value=st.one_of(
        st.integers(min_value=100),
        st.integers(max_value=-100),
        st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: len(str(number)) > 3),
        st.decimals(allow_nan=False, allow_infinity=False, places=4),
    )
)
def test_of_a_number_only_sign_and_size_are_told(value: Any) -> None:
    told = mask(value)
    digits = str(abs(value)) if isinstance(value, int) else str(value)
    assert told.endswith("(number)")
    assert len(digits) < 3 or digits not in told


def test_of_a_date_only_the_year_is_told() -> None:
    assert mask(date(1975, 11, 30)) == "1975 (date)"
    assert mask(datetime(1975, 11, 30, 8, 15, tzinfo=UTC)) == "1975 (time)"
    assert mask(pd.Timestamp("1975-11-30")) == "1975 (time)"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "missing"),
        (float("nan"), "missing"),
        (pd.NaT, "missing"),
        (pd.NA, "missing"),
        (Decimal("sNaN"), "missing"),
        (True, "boolean"),
        (0, "zero (number)"),
        (np.int64(-123), "negative, 3 digits (number)"),
        (np.float64("inf"), "positive infinity (number)"),
        (Decimal("0.0123"), "positive, 10^-2 (number)"),
        ("", "(text, empty characters)"),
        (b"secret", "(bytes, 3-9)"),
        ({"name": "Jane", "age": 42}, "name: Aaaa (text, 3-9 characters); age: positive, 2 digits (number)"),
        (("Jane", 42), "Aaaa (text, 3-9 characters); positive, 2 digits (number)"),
        (np.array(["Jane"]), "(ndarray)"),
    ],
)
def test_every_kind_of_value_has_a_mask(value: Any, told: str) -> None:
    assert mask(value) == told


def test_under_none_nothing_is_shown_and_under_full_everything() -> None:
    values = ["Jane Doe", {"id": 1}, None, "x" * 300]
    assert shown(values, SamplePolicy.NONE) == []
    assert shown(values, SamplePolicy.FULL) == ["Jane Doe", "id: 1", "missing", "x" * 200 + "…"]
    assert "Jane" not in "".join(shown(values, SamplePolicy.MASKED))


def test_every_policy_is_named_in_its_sentence() -> None:
    assert all(policy.value in samples_line(policy) for policy in SamplePolicy)


@pytest.mark.parametrize("given_policy", ["", "some", None, True])
def test_a_policy_that_is_none_of_them_is_refused(given_policy: Any) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.samples.*none, masked, full"):
        sample_policy(given_policy)


@pytest.mark.parametrize("size", [0, -1, 1001, "20", True, 1.5])
def test_a_size_out_of_bounds_is_refused(size: Any) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.sample_size"):
        sample_size(size)
