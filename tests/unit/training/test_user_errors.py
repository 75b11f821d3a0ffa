"""An estimator's error keeps its type and place; values of rows do not get into the message."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.training.user_errors import describe

FRAME = pd.DataFrame(
    {"tailnum": pd.Series(["N328NB", "San Juan", None], dtype=object), "distance": [1.5, 2.5, None]}
)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("could not convert string to float: 'N328NB'", "could not convert string to float: <hidden>"),
        ('column "distance" has 17 holes', 'column "distance" has <hidden> holes'),
        ("N328NB is unknown", "<hidden> is unknown"),
        ("no route to San Juan today", "no route to <hidden> today"),
        ("Input X contains NaN.\nlong explanation with N328NB", "Input X contains NaN."),
        ("value 2013-04-01T06:00 at row 12", "value <hidden> at row <hidden>"),
        ("an unclosed 'N328N", "an unclosed <hidden>"),
    ],
)
def test_values_are_hidden_and_column_names_stay(message: str, shown: str) -> None:
    assert describe(ValueError(message), FRAME) == f"ValueError: {shown} (values may be hidden)"


def test_the_place_is_named_and_an_empty_message_is_fine() -> None:
    def fit() -> None:
        raise KeyError

    with pytest.raises(KeyError) as caught:
        fit()
    assert describe(caught.value).startswith("KeyError at test_user_errors.py:")


def test_a_long_message_is_cut() -> None:
    assert len(describe(ValueError("word " * 1000))) < 350


@given(
    st.text("QXZ0123456789", min_size=1, max_size=12), st.sampled_from(["is bad", "", "and more", "(why?)"])
)
def test_no_text_value_of_the_frame_survives(text: str, tail: str) -> None:
    value = f"Q{text}"
    frame = pd.DataFrame({"c": pd.Series([value, None], dtype=object)})
    assert value not in describe(ValueError(f"cannot use {value} {tail}"), frame)
