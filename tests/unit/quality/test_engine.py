"""The interface of engines: known by name, in the dark about Great Expectations until one is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.engine import ENGINES, get_engine, looks_at_shape
from airflow_provider_xops.quality.suites import Check


def test_every_engine_is_found_by_its_name() -> None:
    assert [get_engine(name).name for name in ENGINES] == list(ENGINES)


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ArgumentError) as caught:
        get_engine("spark")
    assert caught.value.code == "argument.engine"
    assert "pandas" in caught.value.todo


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("expect_table_row_count_to_be_between", True),
        ("expect_column_to_exist", True),
        ("expect_column_values_to_not_be_null", False),
        ("expect_compound_columns_to_be_unique", False),
    ],
)
def test_checks_of_the_shape_are_told_apart(kind: str, shape: bool) -> None:
    assert looks_at_shape(Check(type=kind)) is shape


def test_importing_the_room_does_not_import_great_expectations() -> None:
    script = (
        "import sys, airflow_provider_xops.quality.validate, airflow_provider_xops.quality.pandas_engine\n"
        "print('great_expectations' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.split() == ["False"]
