"""Folds: who judges whom, the same in any process."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.training.folds import FOLDS, folds_from
from airflow_provider_xops.training.metrics import Task


def pairs(rule: dict[str, Any], *, rows: int = 20, **columns: Any) -> list[tuple[Any, Any]]:
    truth = columns.pop("truth", np.arange(rows) % 2)
    partitions = columns.pop("partitions", None)
    table = pa.table({"row": pa.array(range(rows)), **columns})
    given = None if partitions is None else pa.chunked_array([pa.array(partitions)])
    return folds_from(rule).pairs(table, given, truth)


@given(
    kind=st.sampled_from(["k_fold", "stratified_k_fold", "group_k_fold"]),
    labels=st.lists(st.integers(0, 2), min_size=12, max_size=60),
    folds=st.integers(2, 4),
    seed=st.integers(0, 2**32),
)
def test_every_row_judges_once_and_trains_otherwise(
    kind: str, labels: list[int], folds: int, seed: int
) -> None:
    # given: each class twice at least, and more groups than folds
    truth = np.array([*labels, 0, 0, 1, 1, 2, 2])
    groups = np.arange(len(truth)) % 7
    rule: dict[str, Any] = {"kind": kind, "folds": folds, "seed": seed}
    if kind == "group_k_fold":
        rule["column"] = "group"
    found = pairs(rule, rows=len(truth), truth=truth, group=groups)
    # then
    assert len(found) == folds
    assert sorted(np.concatenate([judges for _, judges in found])) == list(range(len(truth)))
    for trains, judges in found:
        assert sorted([*trains, *judges]) == list(range(len(truth)))
    again = pairs(rule, rows=len(truth), truth=truth, group=groups)
    assert all(
        np.array_equal(a, b)
        for one, two in zip(found, again, strict=True)
        for a, b in zip(one, two, strict=True)
    )


@given(labels=st.lists(st.integers(0, 3), min_size=20, max_size=90), folds=st.integers(2, 5))
def test_stratified_folds_hold_of_every_class_as_many_as_even_dealing_gives(
    labels: list[int], folds: int
) -> None:
    truth = np.array([*labels, *range(4), *range(4)])
    for _, judges in pairs({"kind": "stratified_k_fold", "folds": folds}, rows=len(truth), truth=truth):
        for label in range(4):
            share = np.sum(truth == label) / folds
            assert np.floor(share) <= np.sum(truth[judges] == label) <= np.ceil(share)
        assert abs(len(judges) - len(truth) / folds) < 1


@given(sizes=st.lists(st.integers(1, 9), min_size=5, max_size=12), folds=st.integers(2, 5))
def test_a_group_is_never_on_both_sides(sizes: list[int], folds: int) -> None:
    groups = np.repeat([f"g{n}" for n in range(len(sizes))], sizes)
    found = pairs({"kind": "group_k_fold", "folds": folds, "column": "group"}, rows=len(groups), group=groups)
    for trains, judges in found:
        assert not set(groups[trains]) & set(groups[judges])


@given(
    moments=st.lists(st.integers(0, 30), min_size=8, max_size=60),
    folds=st.integers(2, 4),
    gap=st.integers(0, 3),
)
def test_time_series_folds_judge_only_what_is_later_by_the_gap(
    moments: list[int], folds: int, gap: int
) -> None:
    values = 10 * np.array([*moments, *range(100, 100 + folds)])
    rule = {"kind": "time_series", "folds": folds, "gap": gap, "column": "at"}
    found = pairs(rule, rows=len(values), at=values)
    assert len(found) == folds
    judged = np.concatenate([judges for _, judges in found])
    assert len(set(judged)) == len(judged)
    fitted_on = [set(trains) for trains, _ in found]
    assert all(one <= two for one, two in pairwise(fitted_on))
    for trains, judges in found:
        assert values[trains].max() + gap < values[judges].min()


def test_time_series_folds_by_day_and_by_partition_agree() -> None:
    days = [date(2026, 1, 1) + timedelta(days=n // 3) for n in range(30)]
    by_column = pairs(
        {"kind": "time_series", "folds": 3, "gap": 1, "column": "day"}, rows=30, day=pa.array(days)
    )
    by_partition = pairs(
        {"kind": "time_series", "folds": 3, "gap": 1}, rows=30, partitions=[day.isoformat() for day in days]
    )
    assert [(list(a), list(b)) for a, b in by_column] == [(list(a), list(b)) for a, b in by_partition]
    # The ten days are cut after 2.5, 5 and 7.5 of them; the day before each cut is in the gap.
    assert [len(trains) for trains, _ in by_partition] == [3, 12, 18]


def test_rows_without_a_moment_take_no_part() -> None:
    at = pa.array([None, *range(1, 20)], pa.int64())
    found = pairs({"kind": "time_series", "folds": 2, "column": "at"}, at=at)
    assert all(0 not in side for pair in found for side in pair)


@pytest.mark.parametrize(
    ("rule", "code", "hint"),
    [
        ({"kind": "shuffle"}, "argument.folds", "stratified_k_fold"),
        ({"kind": "k_fold", "fold": 3}, "argument.folds", "folds, seed"),
        ({"kind": "k_fold", "folds": 1}, "argument.folds", "2 or more"),
        ({"kind": "k_fold", "gap": 2}, "argument.folds", "gap"),
        ({"kind": "time_series", "gap": -1}, "argument.folds", "gap"),
        ({"kind": "time_series", "gap": float("inf")}, "argument.folds", "gap"),
        ({"kind": "time_series", "gap": 0.5}, "argument.folds", "whole number"),
        ({"kind": "k_fold", "folds": 21}, "training.folds", "20 rows"),
        ({"kind": "time_series"}, "training.folds", "partitions"),
        ({"kind": "time_series", "column": "when"}, "training.folds", "when"),
        ({"kind": "group_k_fold", "column": "row", "folds": 21}, "training.folds", "20 groups"),
        ({"kind": "time_series", "column": "row", "gap": 30}, "training.folds", "gap"),
    ],
)
def test_folds_refuse_what_they_cannot_do(rule: dict[str, Any], code: str, hint: str) -> None:
    with pytest.raises(XOpsError) as caught:
        pairs(rule)
    assert caught.value.code == code
    assert hint in str(caught.value)


def test_a_class_of_one_row_cannot_be_stratified() -> None:
    with pytest.raises(XOpsError) as caught:
        pairs({"kind": "stratified_k_fold"}, truth=np.array([1] + [0] * 19))
    assert caught.value.code == "training.folds"


def test_stratified_folds_are_for_classes() -> None:
    with pytest.raises(XOpsError) as caught:
        folds_from({"kind": "stratified_k_fold"}).check(Task.REGRESSION)
    assert caught.value.code == "argument.folds"


@pytest.mark.parametrize("kind", sorted(FOLDS))
def test_json_and_back(kind: str) -> None:
    rule = folds_from({"kind": kind, "folds": 3})
    assert folds_from(rule.to_json()) == rule
    # One form of mapping for every kind: what means nothing to it is left out.
    assert folds_from({"kind": kind, "folds": 3, "gap": 0, "seed": 0, "column": None}) == rule


def test_folds_are_the_same_in_every_release() -> None:
    # Recorded once: a model's cross-validation can be repeated years later.
    found = pairs({"kind": "k_fold", "folds": 4, "seed": 7})
    assert [list(judges) for _, judges in found] == [
        [2, 3, 4, 13, 16],
        [1, 7, 9, 10, 14],
        [0, 8, 11, 12, 17],
        [5, 6, 15, 18, 19],
    ]
