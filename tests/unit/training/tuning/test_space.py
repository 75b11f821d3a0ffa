"""Spaces: read from JSON, refused with the parameter's name, given to Optuna and back without a loss."""

from __future__ import annotations

import json
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.training.tuning.samplers import grid_of, sampler_of
from airflow_provider_xops.training.tuning.space import MAX_GRID, Space, space_from

pytestmark = pytest.mark.filterwarnings("ignore:The distribution is specified")

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2, width=16) | st.text(max_size=3)


@st.composite
def number(draw: st.DrawFn) -> dict[str, Any]:
    whole = draw(st.booleans())
    low = draw(st.integers(1, 50)) if whole else draw(st.floats(0.001, 50))
    high = low + draw(st.integers(0, 50) if whole else st.floats(0, 50))
    more = draw(st.sampled_from([{}, {"log": True}, {"step": draw(st.integers(1, 7))}]))
    return {"int" if whole else "float": [low, high], **more}


choice = st.lists(SCALARS | st.lists(st.integers(0, 3), max_size=2), min_size=1, max_size=5).filter(
    lambda options: len({json.dumps(each) for each in options}) == len(options)
)
parameter = number() | choice.map(lambda options: {"choice": options})
spaces = st.dictionaries(st.sampled_from("abcdef"), parameter, min_size=1, max_size=4)


@given(spaces)
def test_a_space_comes_back_from_its_json(value: dict[str, Any]) -> None:
    space = space_from(value)

    assert space_from(json.loads(json.dumps(space.to_json()))) == space


@given(spaces, st.integers(0, 1000))
def test_what_is_proposed_lies_in_the_space_and_comes_back_exactly(value: dict[str, Any], slot: int) -> None:
    space = space_from(value)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler_of("random", seed=0, slot=slot))
    trial = study.ask()

    arguments = space.suggest(trial)

    for name, given_ in value.items():
        if "choice" in given_:
            assert any(json.dumps(arguments[name]) == json.dumps(each) for each in given_["choice"])
        else:
            low, high = given_.get("int") or given_["float"]
            assert low <= arguments[name] <= high
            assert isinstance(arguments[name], int if "int" in given_ else float)
    assert space.arguments(trial.params) == arguments
    assert space.words(arguments) == trial.params
    json.dumps(arguments)


@given(spaces)
def test_every_combination_of_a_grid_is_one_that_optuna_takes(value: dict[str, Any]) -> None:
    space = space_from(
        {name: each for name, each in value.items() if "float" not in each} or {"a": {"int": [1, 2]}}
    )
    if _size(space) > 200:
        return
    distributions = space.distributions()

    combinations = grid_of(space, seed=1)

    assert len({json.dumps(each, sort_keys=True) for each in combinations}) == len(combinations)
    for each in combinations:
        for name, word in each.items():
            assert distributions[name]._contains(distributions[name].to_internal_repr(word))
    whole = [
        distribution
        for distribution in distributions.values()
        if not isinstance(distribution, optuna.distributions.CategoricalDistribution)
    ]
    expected = 1
    for distribution in whole:
        expected *= (distribution.high - distribution.low) // distribution.step + 1
    for name, each_parameter in space.parameters.items():
        expected *= len(each_parameter.values(name)) if distributions[name] not in whole else 1
    assert len(combinations) == expected


def _size(space: Space) -> int:
    size = 1
    for name, each in space.parameters.items():
        size *= len(each.values(name))
    return size


def test_steps_of_real_numbers_reach_the_end_despite_rounding() -> None:
    space = space_from({"rate": {"float": [0.1, 0.7], "step": 0.1}})

    values = [each["rate"] for each in space.grid()]

    assert values == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert max(values) <= 0.7


def test_choices_that_python_takes_for_equal_stay_apart() -> None:
    space = space_from({"a": {"choice": [1, True, 1.0, "1", None, [1], {"b": 1}]}})

    again = [space.arguments(space.words(each))["a"] for each in space.grid()]

    assert [(type(each), each) for each in again] == [
        (int, 1), (bool, True), (float, 1.0), (str, "1"), (type(None), None), (list, [1]), (dict, {"b": 1}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "empty"),
        ([1], "no mapping"),
        ({"a": [1, 2]}, "'a'"),
        ({"a": {"integer": [1, 2]}}, "did you mean 'int'"),
        ({"a": {"int": [1, 2], "float": [1, 2]}}, "more than one kind"),
        ({"a": {"int": [1, 2], "logarithmic": True}}, "has no logarithmic"),
        ({"a": {"choice": [1], "log": True}}, "has no log"),
        ({"a": {"int": [2, 1]}}, "begins above its end"),
        ({"a": {"int": [1]}}, "no two ends"),
        ({"a": {"int": [1, 2.5]}}, "no whole number"),
        ({"a": {"int": [True, 2]}}, "no finite number"),
        ({"a": {"float": [0.0, float("nan")]}}, "no finite number"),
        ({"a": {"float": [0, 1], "log": True}}, "begins at or below 0"),
        ({"a": {"float": [1, 2], "log": True, "step": 0.1}}, "unusable step"),
        ({"a": {"float": [1, 2], "step": -1}}, "unusable step"),
        ({"a": {"float": [1, 2], "log": "yes"}}, "neither true nor false"),
        ({"a": {"choice": []}}, "no list of values"),
        ({"a": {"choice": "text"}}, "no list of values"),
        ({"a": {"choice": [1, 1]}}, "value twice"),
        ({"a": {"choice": [float("nan")]}}, "not JSON"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_by_name(value: Any, said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        space_from(value)

    assert caught.value.code == "argument.space"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"float": [0, 1]}},
        {"a": {"int": [1, MAX_GRID + 1]}},
        {"a": {"int": [1, 1000]}, "b": {"int": [1, 1000]}},
    ],
)
def test_a_grid_without_an_end_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        space_from(value).grid()

    assert caught.value.code == "argument.space"
