"""Corrected p-values equal those of statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.statistics import adjust

PEERS = {"holm": "holm", "bonferroni": "bonferroni", "benjamini_hochberg": "fdr_bh"}
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@pytest.mark.parametrize("method", PEERS)
@settings(max_examples=50)
@given(p_values=P_VALUES)
def test_corrections_equal_statsmodels(method: str, p_values: list[float]) -> None:
    expected = multipletests(p_values, method=PEERS[method])[1]
    assert adjust(p_values, method) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50)
@given(p_values=P_VALUES)
def test_a_correction_never_lowers_and_keeps_the_order(p_values: list[float]) -> None:
    order = np.argsort(p_values, kind="stable")
    for method in (*PEERS, "none"):
        adjusted = adjust(p_values, method)
        assert (adjusted >= np.array(p_values) - 1e-15).all()
        assert (adjusted <= 1).all()
        assert (np.diff(adjusted[order]) >= -1e-15).all()


def test_what_was_not_tested_stays_nan_and_does_not_count() -> None:
    adjusted = adjust([0.01, np.nan, 0.03], "bonferroni")
    assert np.isnan(adjusted[1])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.06])
    assert np.isnan(adjust([np.nan], "holm")).all()
    assert adjust([], "benjamini_hochberg").size == 0


def test_the_values_that_were_given_are_not_changed() -> None:
    p_values = np.array([0.04, 0.5])
    adjust(p_values, "holm")
    assert p_values.tolist() == [0.04, 0.5]


@pytest.mark.parametrize(("p_values", "method"), [([0.5], "sidak"), ([1.5], "holm"), ([-0.1], "none")])
def test_an_unknown_method_and_what_is_no_probability_are_refused(p_values: list[float], method: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        adjust(p_values, method)
    assert caught.value.code == "argument.correction"
