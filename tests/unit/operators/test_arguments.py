"""Arguments as templates leave them."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.operators._arguments import (
    list_of,
    mapping_of,
    number,
    one_of,
    optional,
    whole_number,
)


class Lazy(list[Any]):
    """As Airflow hands over what a mapped task gave: a sequence, read when it is asked."""


def test_numbers_from_templates() -> None:
    assert whole_number("7", argument="a") == 7
    assert whole_number("", argument="a") is None
    assert number("0.5", argument="a") == 0.5
    assert number(" 3 ", argument="a") == 3


@pytest.mark.parametrize(
    ("convert", "given"), [(whole_number, "seven"), (whole_number, "7.5"), (number, "x"), (number, "nan")]
)
def test_what_is_no_number_is_a_typed_error(convert: Any, given: str) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.number"):
        convert(given, argument="a")


@pytest.mark.parametrize("given", [{"a": [1]}, "{'a': [1]}", '{"a": [1]}', ' {"a": [1]} '])
def test_mappings_from_templates(given: Any) -> None:
    assert mapping_of(given, argument="x") == {"a": [1]}


@pytest.mark.parametrize("given", ["a", "['a']", "", None, 3, ["a"]])
def test_what_is_no_mapping_is_a_typed_error_that_repeats_nothing(given: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^\[argument\.json\] x is not a JSON object\."):
        mapping_of(given, argument="x")


@pytest.mark.parametrize(
    "given", [["a", "b"], ("a", "b"), Lazy(["a", "b"]), "['a', 'b']", '["a", "b"]', "('a', 'b')"]
)
def test_lists_from_templates(given: Any) -> None:
    assert list_of(given, argument="x") == ["a", "b"]


def test_one_entry_alone_is_a_list_of_it_and_never_its_characters() -> None:
    assert list_of("carrier", argument="x") == ["carrier"]
    assert list_of("[not a list", argument="x") == ["[not a list"]


@pytest.mark.parametrize("given", [None, "", "None", [], "[]", ()])
def test_nothing_is_none(given: Any) -> None:
    assert list_of(given, argument="x") is None


@pytest.mark.parametrize(
    ("given", "code"), [(["a", ""], "empty"), ("['a', None]", "empty"), ({"a": 1}, "list"), (7, "list")]
)
def test_what_is_no_list_of_something_is_a_typed_error(given: Any, code: str) -> None:
    with pytest.raises(ArgumentError, match=rf"argument\.{code}\]"):
        list_of(given, argument="x")


def test_one_of_names_the_known_words() -> None:
    assert one_of("fail", ("fail", "skip"), argument="on_x") == "fail"
    with pytest.raises(ArgumentError, match=r"argument\.on_x.*fail, skip"):
        one_of("fial", ("fail", "skip"), argument="on_x")
    assert optional("None") is None
