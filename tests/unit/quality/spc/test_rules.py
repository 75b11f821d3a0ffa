"""Each rule fires at the point that completes its pattern, names the points, and not one point earlier."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.quality.spc import NELSON, WESTERN_ELECTRIC
from airflow_provider_xops.quality.spc.rules import fires, pattern

EXAMPLES: dict[str, list[float]] = {
    "nelson_1": [0.0, 3.1],
    "nelson_2": [-0.1, *[0.2] * 9],
    "nelson_3": [0.5, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
    "nelson_4": [0.0, 0.0, *[0.1, -0.1] * 6, 0.1],
    "nelson_5": [0.0, 2.1, 0.0, 2.1],
    "nelson_6": [0.0, 1.1, 1.1, 0.0, 1.1, 1.1],
    "nelson_7": [1.5, *[0.5, -0.5] * 7, 0.5],
    "nelson_8": [0.0, *[1.5, -1.5] * 4],
    "western_electric_1": [0.0, -3.1],
    "western_electric_2": [0.0, -2.1, 0.0, -2.1],
    "western_electric_3": [0.0, -1.1, -1.1, 0.0, -1.1, -1.1],
    "western_electric_4": [0.1, *[-0.2] * 8],
}
FIRST_OF_PATTERN = dict.fromkeys(EXAMPLES, 1)


@pytest.mark.parametrize("rule", [*NELSON, *WESTERN_ELECTRIC])
def test_fires_when_the_pattern_is_complete(rule: str) -> None:
    z = np.array(EXAMPLES[rule])
    positions = pattern(rule, z)
    assert positions[0] == FIRST_OF_PATTERN[rule]
    assert positions[-1] == len(z) - 1
    assert pattern(rule, z[:-1]) == ()


@pytest.mark.parametrize(
    ("rule", "mirror"), [("nelson_1", 1), ("nelson_2", 1), ("nelson_3", 1), ("nelson_5", 1), ("nelson_6", 1)]
)
def test_a_chart_of_one_side_sees_only_that_side(rule: str, mirror: int) -> None:
    z = mirror * np.array(EXAMPLES[rule])
    assert pattern(rule, z, sides="upper") == pattern(rule, z)
    assert pattern(rule, z, sides="lower") == ()
    assert pattern(rule, -z, sides="lower") == pattern(rule, z)


@pytest.mark.parametrize("rule", ["nelson_4", "nelson_7", "nelson_8"])
def test_rules_without_a_side_are_not_used_on_one_side(rule: str) -> None:
    z = np.array(EXAMPLES[rule])
    assert pattern(rule, z, sides="upper") == ()
    assert not fires(rule, z[None, :], sides="upper").any()


def test_a_run_names_all_of_its_points() -> None:
    assert pattern("nelson_2", np.array([-1.0, *[0.5] * 12])) == tuple(range(1, 13))


def test_two_of_three_needs_the_newest_point_beyond() -> None:
    assert pattern("nelson_5", np.array([2.5, 2.5, 0.0])) == ()


def test_two_of_three_needs_one_side() -> None:
    assert pattern("nelson_5", np.array([2.5, 0.0, -2.5])) == ()


def test_nothing_fires_without_points() -> None:
    for rule in (*NELSON, *WESTERN_ELECTRIC):
        assert pattern(rule, np.array([])) == ()
        assert not fires(rule, np.empty((2, 0))).any()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from([-3.5, -2.5, -1.5, -0.5, 0.0, 0.25, 0.5, 1.5, 2.5, 3.5]), min_size=1, max_size=20
    ),
    st.sampled_from(["both", "upper", "lower"]),
)
def test_many_rows_fire_as_one_does(z: list[float], sides: str) -> None:
    for rule in (*NELSON, *WESTERN_ELECTRIC):
        one = np.array(z)
        assert fires(rule, one[None, :], sides=sides)[0] == bool(pattern(rule, one, sides=sides)), rule
