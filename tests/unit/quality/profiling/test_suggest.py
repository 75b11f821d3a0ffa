"""Suggested suites: they pass on what they were learned from, catch what was not there, and say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.engine import CheckResult, get_engine
from airflow_provider_xops.quality.frames import ArrowFrame
from airflow_provider_xops.quality.profiling.bounds import (
    natural_limits,
    outward,
    share_at_least,
    share_at_most,
)
from airflow_provider_xops.quality.profiling.suggest import SuggestedSuite, suggest_suite
from airflow_provider_xops.quality.suites import LoadedSuite, load_suite
from airflow_provider_xops.records import Outcome
from tests.unit.quality.profiling.frames import flights, profiled


def loaded(suite: SuggestedSuite, folder: Path) -> LoadedSuite:
    """The suite as it comes back from its file."""
    file = folder / "suite.yaml"
    file.write_text(suite.text, encoding="utf-8")
    return load_suite(str(file))


def checked(suite: LoadedSuite, table: pa.Table) -> dict[tuple[str, str | None], CheckResult]:
    """What each check of it says of a table."""
    run = get_engine("pandas").run(suite.checks, ArrowFrame(table))
    return {(result.check.type, result.check.column): result for result in run.results}


def broken(suite: LoadedSuite, table: pa.Table) -> set[tuple[str, str | None]]:
    return {name for name, result in checked(suite, table).items() if result.outcome is not Outcome.PASSED}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> LoadedSuite:
    suggested = suggest_suite([{**profiled(flights(), values="full"), "dataset": "flights@3"}])
    return loaded(suggested, tmp_path_factory.mktemp("suite"))


def test_the_suite_passes_on_what_it_was_learned_from_and_on_more_of_the_same(suite: LoadedSuite) -> None:
    assert broken(suite, flights()) == set()
    assert broken(suite, flights(seed=8)) == set()


def test_every_expectation_has_its_reason_with_figures(suite: LoadedSuite) -> None:
    assert suite.name == "flights_suggested"
    for check in suite.checks:
        assert check.meta["reason"]
        assert check.type == "expect_table_columns_to_match_ordered_list" or any(
            letter.isdigit() for letter in check.meta["reason"]
        )


def _replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


@pytest.mark.parametrize(
    ("column", "change", "caught"),
    [
        ("id", lambda values: [values[0], *values[:-1]], "expect_column_values_to_be_unique"),
        ("carrier", lambda values: ["ZZ", *values[1:]], "expect_column_values_to_be_in_set"),
        ("delay", lambda values: [None] * 100 + values[100:], "expect_column_values_to_not_be_null"),
        ("late", lambda values: [None, *values[1:]], "expect_column_values_to_not_be_null"),
        ("seats", lambda values: [9_999, *values[1:]], "expect_column_values_to_be_between"),
        ("tail", lambda values: ["n1", *values[1:]], "expect_column_values_to_match_regex"),
        ("tail", lambda values: ["N00001x", *values[1:]], "expect_column_value_lengths_to_be_between"),
    ],
)
def test_a_planted_defect_is_caught_by_the_check_that_is_about_it(
    suite: LoadedSuite, column: str, change: Any, caught: str
) -> None:
    table = flights()
    bad = _replaced(table, column, change(table[column].to_pylist()))

    assert (caught, column) in broken(suite, bad)


def test_missing_rows_and_columns_are_caught(suite: LoadedSuite) -> None:
    few = broken(suite, flights(100))
    less = broken(suite, flights().drop_columns(["seats"]))

    assert ("expect_table_row_count_to_be_between", None) in few
    assert any(name == "expect_table_columns_to_match_ordered_list" for name, _ in less)


def test_the_same_profiles_suggest_the_same_text() -> None:
    profiles = [profiled(flights(), values="full")]

    assert suggest_suite(profiles).text == suggest_suite(profiles).text


def test_a_profile_without_values_suggests_no_value(tmp_path: Path) -> None:
    suggested = suggest_suite([profiled(flights())])

    assert "expect_column_values_to_be_in_set" not in {one["type"] for one in suggested.expectations}
    assert "no sets of values are suggested" in suggested.text
    assert "UA" not in suggested.text


def test_a_value_set_needs_values_that_are_unlikely_to_be_news() -> None:
    rare = pa.table({"code": ["a"] * 150 + [f"x{number}" for number in range(20)]})

    kinds = {one["type"] for one in suggest_suite([profiled(rare, values="full")]).expectations}

    assert "expect_column_values_to_be_in_set" not in kinds


def test_outliers_make_a_share_not_a_wider_range() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(0, 1, 990), np.full(10, 1e6)])
    suggested = suggest_suite([profiled({"x": values})])

    (between,) = (one for one in suggested.expectations if one["type"].endswith("values_to_be_between"))
    assert between["kwargs"]["max_value"] < 10
    assert 0.95 < between["kwargs"]["mostly"] < 0.99


def test_several_profiles_give_natural_limits_and_the_widest_of_what_was_seen() -> None:
    sizes = [600, 610, 590, 605, 595, 600]
    profiles = [profiled(flights(rows, seed=rows)) for rows in sizes]

    found = {(one["type"], one["kwargs"].get("column")): one for one in suggest_suite(profiles).expectations}

    rows = found["expect_table_row_count_to_be_between", None]
    assert rows["kwargs"] == {"min_value": 568, "max_value": 632}  # 600 +- 2.66 * 12
    assert "natural limits" in rows["meta"]["reason"]
    assert ("expect_column_mean_to_be_between", "delay") in found
    limits = found["expect_column_mean_to_be_between", "delay"]["kwargs"]
    assert limits["min_value"] < 10 < limits["max_value"]


def test_columns_that_come_and_go_are_expected_only_where_they_always_were() -> None:
    profiles = [profiled(flights().drop_columns(["late"])), profiled(flights())]

    named = [
        one["kwargs"]["column"]
        for one in suggest_suite(profiles).expectations
        if one["type"] == "expect_column_to_exist"
    ]

    assert "late" not in named
    assert "id" in named


def test_few_rows_suggest_nothing_about_columns() -> None:
    kinds = {one["type"] for one in suggest_suite([profiled(flights(10), values="full")]).expectations}

    assert kinds == {"expect_table_columns_to_match_ordered_list", "expect_table_row_count_to_be_between"}


def test_values_that_yaml_takes_for_line_breaks_come_back_as_they_are(tmp_path: Path) -> None:
    table = pa.table({"word": ["a\x85b", "é", "\u2028", "null", "1"] * 40})

    assert broken(loaded(suggest_suite([profiled(table, values="full")]), tmp_path), table) == set()


def test_no_profile_is_refused() -> None:
    with pytest.raises(ArgumentError):
        suggest_suite([])


_NUMBERS = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 1.0]))
_COLUMNS = {
    "number": st.lists(_NUMBERS, min_size=40, max_size=120).map(lambda v: pa.array(v, pa.float64())),
    "whole": st.lists(st.one_of(st.none(), st.integers(-(2**40), 2**40)), min_size=40, max_size=120).map(
        lambda v: pa.array(v, pa.int64())
    ),
    "text": st.lists(st.one_of(st.none(), st.text(max_size=12)), min_size=40, max_size=120).map(
        lambda v: pa.array(v, pa.string())
    ),
}


# Each example takes Great Expectations a tenth of a second: a failing one is reported as found.
@settings(max_examples=12, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(columns=st.fixed_dictionaries(_COLUMNS))
def test_any_frame_passes_the_suite_it_suggests(
    columns: dict[str, pa.Array], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = min(len(values) for values in columns.values())
    # Three times over, so that there are enough rows for every rule.
    once = pa.table({name: values.slice(0, rows) for name, values in columns.items()})
    table = pa.concat_tables([once, once, once])
    suggested = loaded(suggest_suite([profiled(table, values="full")]), tmp_path_factory.mktemp("any"))

    results = checked(suggested, table)

    assert {
        name: (r.outcome, r.message) for name, r in results.items() if r.outcome is not Outcome.PASSED
    } == {}


def test_shares_are_those_of_clopper_and_pearson() -> None:
    assert share_at_most(0, 1000) == pytest.approx(1 - 0.001 ** (1 / 1000))
    assert share_at_most(1000, 1000) == 1.0
    assert share_at_least(1000, 1000) == pytest.approx(0.001 ** (1 / 1000))
    assert share_at_least(0, 0) == 0.0


def test_natural_limits_are_those_of_an_xmr_chart() -> None:
    assert natural_limits([10, 12, 10, 12, 11]) == pytest.approx((11 - 2.66 * 1.75, 11 + 2.66 * 1.75))


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.booleans())
def test_rounding_outward_never_narrows(one: float, other: float, whole: bool) -> None:
    low, high = sorted((one, other))

    rounded = outward(low, high, whole=whole)

    assert rounded[0] <= low
    assert rounded[1] >= high


def test_a_profile_of_several_partitions_suggests_no_row_count() -> None:
    kind = "expect_table_row_count_to_be_between"
    whole = {**profiled(flights()), "partition_count": 90}

    suite = suggest_suite([whole])

    assert kind not in {one["type"] for one in suite.expectations}
    assert "of 90 partitions together" in suite.text
    # beside profiles of one partition only theirs count
    (rows,) = (
        one
        for one in suggest_suite([whole, {**profiled(flights(100)), "partition_count": 1}]).expectations
        if one["type"] == kind
    )
    assert rows["kwargs"] == {"min_value": 50, "max_value": 200}


def test_a_table_without_rows_does_not_become_the_rule() -> None:
    kinds = {one["type"] for one in suggest_suite([profiled(flights().slice(0, 0))]).expectations}
    assert kinds == {"expect_table_columns_to_match_ordered_list"}


def test_a_value_that_moves_with_the_partition_is_no_set_of_values() -> None:
    def month(number: int) -> dict[str, Any]:
        return profiled({"month": [number] * 2000, "year": [2013] * 2000}, values="full")

    found = [
        one["kwargs"]
        for one in suggest_suite([month(1), month(1), month(2)]).expectations
        if one["type"] == "expect_column_values_to_be_in_set"
    ]

    assert found == [{"column": "year", "value_set": [2013]}]
