"""Slices that somebody named, values of a column, and found ones: their figures, tests and intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation.plan import NamedSlice, SlicePlan, plan_from
from airflow_provider_xops.evaluation.scored import Contender, Scored
from airflow_provider_xops.evaluation.slices import columns_of, measure, rows_where
from airflow_provider_xops.evaluation.statistics import paired_difference
from airflow_provider_xops.training.metrics import Predictions, Task
from tests.unit.registry import builders

FAST: dict[str, Any] = {"resamples": 300}
SECRET = "N328NB"


def rows_of(rows: int = 4_000, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "carrier": pa.array(rng.choice(["UA", "DL", "AA"], rows)),
            "origin": pa.array(np.where(rng.random(rows) < 0.1, None, rng.choice(["JFK", "EWR"], rows))),
            "x": rng.normal(size=rows),
            "hour": pa.array(rng.integers(0, 24, rows)),
            "plane": pa.array([SECRET] * rows),
        }
    )


def said_of(truth: Any, strength: Any, seed: int) -> Predictions:
    """A classifier that knows the truth the better, the larger ``strength``."""
    rng = np.random.default_rng([seed, 11])
    score = 1 / (1 + np.exp(-strength * (2 * truth - 1) - rng.normal(size=len(truth))))
    probabilities = np.column_stack([1 - score, score])
    return Predictions(
        labels=(score > 0.5).astype(int), classes=np.array([0, 1]), probabilities=probabilities
    )


def classified(table: pa.Table, weak: Any, *, champion: Any = None, seed: int = 0) -> Scored:
    """A binary classifier that is worse where ``weak``, and one that is worse where ``champion``."""
    truth = np.random.default_rng([seed, 3]).integers(0, 2, table.num_rows)
    other = None
    if champion is not None:
        other = Contender(
            model=builders.a_model(1),
            estimator=None,
            said=said_of(truth, np.where(champion, 0.2, 1.5), seed + 1),
        )
    return Scored(
        task=Task.CLASSIFICATION, table=table, truth=truth, champion=other,
        challenger=Contender(
            model=builders.a_model(2, features=("carrier", "x", "hour")), estimator=None,
            said=said_of(truth, np.where(weak, 0.2, 1.5), seed),
        ),
    )  # fmt: skip


def test_named_slices_have_the_metric_of_their_rows_and_of_the_rest() -> None:
    table = rows_of()
    weak = np.asarray(table["carrier"]) == "UA"
    scored = classified(table, weak)
    plan = SlicePlan(
        named=(NamedSlice(name="United", where="carrier = 'UA'"), NamedSlice(name="early", where="hour < 6")),
        find=False,
    )

    united, early = measure(scored, plan, **FAST).slices

    said = scored.challenger.said
    for rows, value in ((weak, united.value), (~weak, united.rest)):
        assert value == pytest.approx(sk.log_loss(scored.truth[rows], said.probabilities[rows]))
    assert (united.name, united.metric, united.rows) == ("United", "log_loss", weak.sum())
    assert united.share == pytest.approx(weak.mean())
    assert united.lower < united.value < united.upper
    assert united.weak
    assert united.adjusted_p_value == pytest.approx(min(1, 2 * united.p_value))
    assert not united.found
    assert (early.weak, early.rows) == (False, (np.asarray(table["hour"]) < 6).sum())


def test_every_value_of_a_column_is_a_slice_and_so_are_the_rows_without_one() -> None:
    table = rows_of()
    scored = classified(table, np.zeros(table.num_rows, dtype=bool))

    measured = measure(scored, SlicePlan(by=("origin",), find=False), **FAST)

    assert [each.conditions for each in measured.slices] == [
        "origin = 'EWR'",
        "origin = 'JFK'",
        "origin is null",
    ]
    assert sum(each.rows for each in measured.slices) == table.num_rows
    for each in measured.slices:
        assert rows_where(table, each.conditions, name=each.name).sum() == each.rows
    assert measured.notes == ()


def test_rare_values_are_left_out_and_said_to_be() -> None:
    table = rows_of(600)
    planes = pa.array([f"plane {number}" if number < 50 else "other" for number in range(600)])
    scored = classified(table.set_column(4, "plane", planes), np.zeros(600, dtype=bool))

    measured = measure(scored, SlicePlan(by=("plane",), find=False), **FAST)

    assert [each.name for each in measured.slices] == ["plane = other"]
    assert measured.notes == (
        "slices: of the 51 values of plane, 1 were looked at: those with at least 100 rows, at most 50",
    )


def test_a_planted_weak_slice_is_found_and_the_champions_difference_on_it_is_measured() -> None:
    table = rows_of(6_000)
    weak = (np.asarray(table["carrier"]) == "DL") & (np.asarray(table["origin"]) == "JFK")
    scored = classified(table, weak, champion=np.zeros(table.num_rows, dtype=bool))

    (found,) = measure(scored, SlicePlan(columns=("origin",)), **FAST).slices

    assert found.conditions == "carrier = 'DL' and origin = 'JFK'"
    assert (found.found, found.weak, found.name) == (True, True, "found 1")
    assert found.champion_difference == pytest.approx(found.value - found.champion)
    assert 0 < found.champion_difference_lower < found.champion_difference < found.champion_difference_upper
    # named from now on, it is the same slice
    named = SlicePlan(named=(NamedSlice(name="known", where=found.conditions),), find=False)
    (again,) = measure(scored, named, **FAST).slices
    assert (again.rows, again.value, again.weak) == (found.rows, found.value, True)


def test_the_champions_differences_hold_together() -> None:
    table = rows_of()
    nowhere = np.zeros(table.num_rows, dtype=bool)
    scored = classified(table, nowhere, champion=nowhere)

    (alone,) = measure(
        scored, SlicePlan(named=(NamedSlice(name="a", where="carrier = 'UA'"),), find=False), **FAST
    ).slices
    among = measure(scored, SlicePlan(by=("carrier", "hour"), find=False), **FAST).slices[2]

    assert alone.champion_difference == among.champion_difference
    assert among.champion_difference_lower < alone.champion_difference_lower
    assert among.champion_difference_upper > alone.champion_difference_upper


def test_no_search_through_rows_that_are_all_alike_reports_a_slice() -> None:
    plan = SlicePlan(named=(NamedSlice(name="United", where="carrier = 'UA'"),))
    false = 0
    for seed in range(20):
        table = rows_of(1_500, seed)
        scored = classified(table, np.zeros(1_500, dtype=bool), seed=seed)
        false += any(each.weak for each in measure(scored, plan, resamples=100).slices)
    assert false <= 3  # of 20 at alpha 0.05: 0.984 of such runs


def test_a_regression_shows_its_mean_absolute_error() -> None:
    table = rows_of()
    rng = np.random.default_rng(0)
    weak = np.asarray(table["hour"]) >= 20
    truth = rng.normal(size=table.num_rows)
    said = Predictions(labels=truth + rng.normal(size=table.num_rows) * np.where(weak, 3, 1))
    scored = Scored(
        task=Task.REGRESSION, table=table, truth=truth,
        challenger=Contender(model=builders.a_model(features=("hour", "x")), estimator=None, said=said),
    )  # fmt: skip

    found = measure(scored, SlicePlan(), **FAST).slices[0]

    rows = rows_where(table, found.conditions, name="found")
    assert found.conditions.startswith("hour >= ")
    assert found.metric == "mae"
    assert found.value == pytest.approx(np.abs(said.labels - truth)[rows].mean())


def test_another_metric_may_be_shown() -> None:
    table = rows_of()
    scored = classified(table, np.asarray(table["carrier"]) == "UA")

    (united,) = measure(
        scored,
        SlicePlan(named=(NamedSlice(name="U", where="carrier = 'UA'"),), find=False, metric="roc_auc"),
        **FAST,
    ).slices

    rows = np.asarray(table["carrier"]) == "UA"
    scores = scored.challenger.said.scores
    assert united.value == pytest.approx(sk.roc_auc_score(scored.truth[rows], scores[rows]))
    assert united.weak


def test_a_metric_of_another_task_is_not_shown_but_said() -> None:
    table = rows_of()
    scored = classified(table, np.zeros(table.num_rows, dtype=bool))
    measured = measure(scored, SlicePlan(by=("origin",), find=False, metric="mae"), **FAST)
    assert {each.metric for each in measured.slices} == {"log_loss"}
    assert measured.notes == ("slices: mae is no figure of a classification, so log_loss is shown",)


def test_missing_predictions_are_no_weak_slice() -> None:
    table = rows_of()
    truth = np.zeros(table.num_rows)
    said = Predictions(labels=np.where(np.asarray(table["carrier"]) == "UA", np.nan, 1.0))
    scored = Scored(
        task=Task.REGRESSION, table=table, truth=truth,
        challenger=Contender(model=builders.a_model(features=("x",)), estimator=None, said=said),
    )  # fmt: skip

    measured = measure(scored, SlicePlan(by=("carrier",)), **FAST)

    assert [(each.value is None, each.p_value, each.weak) for each in measured.slices] == [
        (False, None, False),
        (False, None, False),
        (True, None, False),
    ]
    assert measured.notes == ("slices: a prediction is missing, so no slice was tested against the rest",)


def test_a_slice_without_rows_is_measured_as_nothing() -> None:
    table = rows_of()
    scored = classified(table, np.zeros(table.num_rows, dtype=bool))
    plan = SlicePlan(named=(NamedSlice(name="none", where="hour > 24"),), find=False)
    (none,) = measure(scored, plan, **FAST).slices
    assert (none.rows, none.value, none.p_value, none.adjusted_p_value, none.weak) == (
        0,
        None,
        None,
        None,
        False,
    )


def test_rows_of_whole_days_are_not_taken_for_independent() -> None:
    day = np.repeat(np.arange(14), 200)
    truth = np.zeros(2_800)
    errors = np.random.default_rng(5).exponential(size=14)[day] + 0.1
    errors = np.where(day == 13, 5.0, errors)
    table = pa.table({"storm": day == 13, "x": np.arange(2_800.0)})
    challenger = Contender(
        model=builders.a_model(features=("storm",)), estimator=None, said=Predictions(labels=errors)
    )
    plan = SlicePlan(named=(NamedSlice(name="storm", where="storm"),), find=False)

    (independent,) = measure(
        Scored(task=Task.REGRESSION, table=table, truth=truth, challenger=challenger), plan, **FAST
    ).slices
    (clustered,) = measure(
        Scored(task=Task.REGRESSION, table=table, truth=truth, challenger=challenger, clusters=day),
        plan,
        **FAST,
    ).slices

    assert independent.weak
    assert not clustered.weak


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("x > 1", [2]),
        ("x IS NULL", [1, 3]),
        ("NOT x > 1", [0]),
        ("name ILIKE 'o%' -- a remark", [0]),
        ('"on time" = true', [0, 3]),
        ("false", []),
    ],
)
def test_conditions_are_sql_and_nan_is_missing(where: str, rows: list[int]) -> None:
    table = pa.table(
        {
            "x": [1.0, None, 2.0, float("nan")],
            "name": pa.array(["one", "two", None, "four"]).dictionary_encode(),
            "on time": [True, None, False, True],
        }
    )
    assert np.flatnonzero(rows_where(table, where, name="some")).tolist() == rows


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("origin = = 1", "syntax error"),
        ("orgin = 'JFK'", "orgin"),
        ("CAST(plane AS INTEGER) = 1", "DuckDB raised ConversionException"),
        ("x > (SELECT max(size) FROM read_text('/etc/hostname'))", "DuckDB raised"),
        ("true) ; DROP VIEW rows; SELECT (1", "several statements"),
    ],
)
def test_a_condition_that_is_none_is_refused_without_values(where: str, said: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        rows_where(rows_of(20), where, name="mine")
    assert caught.value.code == "argument.plan"
    assert "slice 'mine'" in caught.value.what
    assert said in caught.value.why
    assert SECRET not in str(caught.value)


def test_the_columns_of_a_plan_are_those_it_names() -> None:
    plan = plan_from(
        {
            "slices": {
                "named": [{"name": "night", "where": 'Hour < 5 AND "dep time" > 3'}],
                "by": ["origin"],
                "columns": ["x"],
            }
        }
    ).slices
    names = ["x", "y", "hour", "dep time", "origin", "late"]
    assert columns_of(plan, names) == ("origin", "x", "hour", "dep time")
    with pytest.raises(ArgumentError, match="the slices' columns origin are not in the dataset"):
        columns_of(plan, ["x", "hour"])


@pytest.mark.parametrize(
    "plan",
    [
        {"max_conditions": 3},
        {"min_rows": 1},
        {"limit": 0},
        {"metric": "niceness"},
        {"named": [{"name": "a"}]},
        {"find": True, "colums": ["x"]},
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        plan_from({"slices": plan})
    assert caught.value.code == "argument.plan"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**53 + 1, 2**53 + 3] * 50),
        pa.array([float("inf"), 1.0] * 50),
        pa.array([True, None] * 50),
        pa.array([1001, 2002] * 50, pa.timestamp("ns")),
        pa.array([1_000_000, 2_000_000] * 50, pa.timestamp("us", "Europe/Berlin")),
        pa.array([0, 15_000] * 50, pa.date32()),
        pa.array(["o'hare", "x"] * 50).dictionary_encode(),
    ],
    ids=["large", "infinite", "boolean", "nanoseconds", "zone", "date", "text"],
)
def test_a_values_condition_is_sql_for_its_very_rows(column: Any) -> None:
    table = pa.table({"c": column})
    scored = classified(table, np.zeros(100, dtype=bool))
    measured = measure(scored, SlicePlan(by=("c",), find=False, min_rows=10), **FAST).slices
    assert len(measured) == 2
    asked = [rows_where(table, each.conditions, name="one") for each in measured]
    assert sorted(rows.sum() for rows in asked) == [50, 50]
    assert not (asked[0] & asked[1]).any()


def test_a_column_whose_values_cannot_be_slices_is_refused() -> None:
    scored = classified(pa.table({"tags": [["a"], ["b"]] * 50}), np.zeros(100, dtype=bool))
    with pytest.raises(ArgumentError, match="the values of tags cannot be slices") as caught:
        measure(scored, SlicePlan(by=("tags",)), **FAST)
    assert caught.value.code == "argument.plan"


def test_columns_that_the_search_leaves_out_are_named() -> None:
    table = rows_of()
    table = table.append_column("user", pa.array([f"u{number}" for number in range(table.num_rows)]))
    sliced = measure(classified(table, np.zeros(4_000, dtype=bool)), SlicePlan(columns=("user",)), **FAST)
    assert sliced.notes == ("slices: not searched, because they have no two groups of rows: user",)


def test_two_slices_of_one_name_are_refused() -> None:
    """A gate that asks for the slice would be content with the other one."""
    night = {"name": "night", "where": "hour < 5"}
    assert len(plan_from({"slices": {"named": [night, night]}}).slices.named) == 2
    with pytest.raises(ArgumentError, match="both named night"):
        plan_from({"slices": {"named": [night, {"name": "night", "where": "hour > 22"}]}})


def test_many_slices_are_resampled_as_often_as_their_common_confidence_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of an interval lies inside the resamples, not at the outermost of them."""
    asked: list[dict[str, Any]] = []

    def watched(*arguments: Any, **settings: Any) -> Any:
        asked.append(settings)
        return paired_difference(*arguments, **settings)

    monkeypatch.setattr("airflow_provider_xops.evaluation.slices.paired_difference", watched)
    table = rows_of(2_000)
    none = np.zeros(2_000, dtype=bool)
    plan = SlicePlan(by=("hour",), find=False, min_rows=20)
    measured = measure(classified(table, none, champion=none), plan, **FAST).slices
    assert len(asked) == len(measured) == 24
    assert all(each["resamples"] * (1 - each["confidence"]) / 2 >= 1 - 1e-9 for each in asked)
