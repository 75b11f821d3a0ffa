"""No row trains and judges; groups never straddle; a holdout in time is later than training and its gap."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError, TrainingError
from airflow_provider_xops.training.splits import (
    GroupSplit,
    RandomSplit,
    Split,
    TimeSplit,
    random_order,
    split_from,
)

DAYS = [f"2013-01-{day:02d}" for day in range(1, 10)]
START = datetime(2013, 1, 1, tzinfo=UTC)

fractions = st.floats(0.05, 0.95)
seeds = st.integers(0, 2**32)


def masks(split: Split, table: pa.Table, partitions: list[str] | None = None) -> tuple[Any, Any]:
    names = pa.chunked_array([pa.array(partitions or ["all"] * table.num_rows, pa.string())])
    train, holdout = split.masks(table, names)
    assert len(train) == len(holdout) == table.num_rows
    assert not (train & holdout).any(), "a row is in training and in the holdout"
    return train, holdout


def rows(**columns: Any) -> pa.Table:
    return pa.table(columns)


@given(st.lists(st.sampled_from(DAYS), min_size=1), st.integers(1, 10), st.integers(0, 10))
def test_a_holdout_of_partitions_is_later_than_training_and_the_gap(
    days: list[str], count: int, gap: int
) -> None:
    days = sorted(days)
    train, holdout = masks(
        TimeSplit(holdout_partitions=count, gap=gap), rows(x=range(len(days))), partitions=days
    )
    names = np.array(days)
    distinct = sorted(set(days))
    assert set(names[holdout]) == set(distinct[-count:])
    if train.any():
        between = distinct.index(min(names[holdout])) - distinct.index(max(names[train])) - 1
        assert between == gap


def test_named_holdout_partitions_leave_later_ones_out() -> None:
    table = rows(x=range(9))
    train, holdout = masks(TimeSplit(holdout_partitions=[DAYS[5], DAYS[6]], gap=1), table, partitions=DAYS)
    assert list(np.array(DAYS)[holdout]) == DAYS[5:7]
    assert list(np.array(DAYS)[train]) == DAYS[:4]


def test_a_cutoff_of_partitions_compares_their_names() -> None:
    train, holdout = masks(TimeSplit(cutoff="2013-01-08"), rows(x=range(9)), partitions=DAYS)
    assert holdout.sum() == 2
    assert train.sum() == 7


moments = st.lists(st.one_of(st.none(), st.integers(0, 30 * 86_400)), min_size=1, max_size=60)


@given(moments, st.integers(0, 30 * 24), st.floats(0, 5))
def test_a_cutoff_in_time_keeps_the_gap_and_leaves_missing_times_out(
    seconds: list[int | None], hours: int, gap_days: float
) -> None:
    values = [None if second is None else START + timedelta(seconds=second) for second in seconds]
    table = rows(when=pa.array(values, pa.timestamp("us", "UTC")))
    cutoff = START + timedelta(hours=hours)
    train, holdout = masks(TimeSplit(column="when", cutoff=cutoff.isoformat(), gap=gap_days), table)
    held = [value for value, chosen in zip(values, holdout, strict=True) if chosen]
    kept = [value for value, chosen in zip(values, train, strict=True) if chosen]
    assert held == [value for value in values if value is not None and value >= cutoff]
    assert all(
        value is not None and value < cutoff - timedelta(days=gap_days) + timedelta(microseconds=1)
        for value in kept
    )
    assert None not in kept + held


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), fractions)
def test_a_fraction_in_time_keeps_equal_moments_together(numbers: list[int], fraction: float) -> None:
    train, holdout = masks(TimeSplit(column="n", fraction=fraction), rows(n=numbers))
    values = np.array(numbers)
    assert holdout.any()
    assert (train | holdout).all()
    if train.any():
        assert values[train].max() < values[holdout].min()


def test_dates_and_numbers_are_times_too() -> None:
    table = rows(
        day=pa.array([date(2013, 1, day) for day in range(1, 6)]), km=[1.0, 2.0, float("nan"), 4.0, 5.0]
    )
    train, holdout = masks(TimeSplit(column="day", cutoff="2013-01-04", gap=1), table)
    assert (train.tolist(), holdout.tolist()) == ([True, True, False, False, False], [False] * 3 + [True] * 2)
    train, holdout = masks(TimeSplit(column="km", cutoff=4), table)
    assert (train.tolist(), holdout.tolist()) == ([True, True, False, False, False], [False] * 3 + [True] * 2)


def test_intervals_name_the_times_of_both_sides() -> None:
    table = rows(when=pa.array([START, START + timedelta(days=9)], pa.timestamp("us", "UTC")))
    assert TimeSplit(column="when", cutoff="2013-01-08T00:00:00+00:00", gap=2).intervals(table) == (
        "time[when]:[,2013-01-06T00:00:00+00:00)",
        "time[when]:[2013-01-08T00:00:00+00:00,)",
    )
    assert RandomSplit().intervals(table) is None


@given(st.integers(2, 300), fractions, seeds)
def test_a_random_split_gives_every_row_one_side_and_about_the_fraction(
    count: int, fraction: float, seed: int
) -> None:
    train, holdout = masks(RandomSplit(fraction=fraction, seed=seed), rows(x=range(count)))
    assert (train ^ holdout).all()
    assert abs(holdout.sum() - fraction * count) <= 1
    assert train.any()
    assert holdout.any()


@given(st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=80), fractions, seeds)
def test_a_stratified_split_gives_each_stratum_its_fraction(
    labels: list[str | None], fraction: float, seed: int
) -> None:
    split = RandomSplit(fraction=fraction, seed=seed, stratify="label")
    _, holdout = masks(split, rows(label=pa.array(labels, pa.string())))
    for label in set(labels):
        stratum = np.array([item == label for item in labels])
        if stratum.sum() > 1:
            assert abs(holdout[stratum].sum() - fraction * stratum.sum()) <= 1


def test_the_random_order_never_changes() -> None:
    # Recorded selections are chosen again by it: a change would make every recorded holdout another one.
    assert random_order(10, 7).tolist() == RECORDED_ORDER
    assert random_order(10, 7).tolist() != random_order(10, 8).tolist()


RECORDED_ORDER = [9, 6, 4, 0, 7, 8, 5, 2, 1, 3]


@given(seeds)
def test_the_random_order_is_a_permutation(seed: int) -> None:
    assert sorted(random_order(100, seed).tolist()) == list(range(100))


@given(st.lists(st.one_of(st.none(), st.integers(0, 12)), min_size=2, max_size=80), fractions, seeds)
def test_groups_never_straddle(groups: list[int | None], fraction: float, seed: int) -> None:
    if len(set(groups)) < 2:
        groups = [*groups, 100, 101]
    train, holdout = masks(
        GroupSplit(column="g", fraction=fraction, seed=seed), rows(g=pa.array(groups, pa.int64()))
    )
    values = np.array(groups, dtype=object)
    assert not set(values[train]) & set(values[holdout])
    assert (train ^ holdout).all()
    assert train.any()
    assert holdout.any()


@pytest.mark.parametrize(
    "split",
    [
        TimeSplit(holdout_partitions=7, gap=1),
        TimeSplit(holdout_partitions=("2013-01-01", "2013-01-02")),
        TimeSplit(column="when", cutoff="2013-01-04", gap=timedelta(hours=36)),
        TimeSplit(column="when", fraction=0.25),
        RandomSplit(fraction=0.3, seed=5, stratify="late"),
        GroupSplit(column="tailnum", seed=9),
    ],
)
def test_a_split_survives_json(split: Split) -> None:
    text = json.dumps(split.to_json())
    again = split_from(json.loads(text))
    assert json.dumps(again.to_json()) == text


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ({"kind": "random", "fraction": 0}, "between 0 and 1"),
        ({"kind": "random", "fraction": 1.0}, "between 0 and 1"),
        ({"kind": "tiem"}, "group, random, time"),
        ({}, "group, random, time"),
        ("time", "group, random, time"),
        ({"kind": "random", "seeds": 3}, "seed"),
        ({"kind": "group"}, "column"),
        ({"kind": "time"}, "exactly one"),
        ({"kind": "time", "cutoff": "2013-01-01", "fraction": 0.5}, "exactly one"),
        ({"kind": "time", "fraction": 0.5}, "column"),
        ({"kind": "time", "column": "when", "holdout_partitions": 2}, "not by both"),
        ({"kind": "time", "holdout_partitions": 0}, "at least 1"),
        ({"kind": "time", "holdout_partitions": 1, "gap": -1}, "not negative"),
        ({"kind": "time", "holdout_partitions": 1, "gap": 0.5}, "whole number"),
    ],
)
def test_an_impossible_split_is_refused_with_a_hint(value: Any, hint: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        split_from(value)
    assert caught.value.code == "argument.split"
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    "split",
    [
        TimeSplit(column="missing", fraction=0.5),
        TimeSplit(column="text", fraction=0.5),
        TimeSplit(column="empty", fraction=0.5),
        RandomSplit(stratify="missing"),
        GroupSplit(column="one"),
    ],
)
def test_a_split_that_does_not_fit_the_rows_is_a_training_error(split: Split) -> None:
    table = rows(text=["a", "b"], empty=pa.array([None, None], pa.int64()), one=[1, 1])
    with pytest.raises(TrainingError) as caught:
        masks(split, table)
    assert caught.value.code == "training.split"
    assert caught.value.todo


def test_a_cutoff_that_is_no_time_is_refused() -> None:
    table = rows(when=pa.array([START], pa.timestamp("us", "UTC")), km=[1.0])
    for split in (
        TimeSplit(column="when", cutoff="soon"),
        TimeSplit(column="when", cutoff=3),
        TimeSplit(column="km", cutoff="far"),
    ):
        with pytest.raises(ArgumentError):
            masks(split, table)
