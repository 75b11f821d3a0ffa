"""Skew that was planted is found, equal samples are not called skewed, and the rows are the scored ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from airflow_provider_xops.errors import ModelError, NotFoundError
from airflow_provider_xops.evaluation._distances import psi
from airflow_provider_xops.evaluation.plan import SkewPlan
from airflow_provider_xops.evaluation.skew import compare, measure, scored_rows
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import DatasetRef, ModelVersion, ScoringRun, SkewFigure
from airflow_provider_xops.training import selections
from tests.unit.lake.helpers import AS_OF, put, segment, user
from tests.unit.registry.builders import a_model


def day(
    seed: int, *, rows: int = 400, shift: float = 0.0, missing: float = 0.1, cities: str = "ABC"
) -> pa.Table:
    rng = np.random.default_rng(seed)
    gone = rng.random(rows) < missing
    return pa.table(
        {
            "x": pa.array(rng.normal(size=rows) + shift, mask=gone),
            "n": pa.array(rng.integers(0, 5, rows), pa.int32()),
            "city": rng.choice(list(cities), rows),
            "flag": pa.array(rng.random(rows) < 0.3),
            "when": pa.array(np.arange(rows) + seed * 10**9, pa.timestamp("us", "UTC")),
            "y": pa.array(rng.integers(0, 2, rows)),
        }
    )


FEATURES = ("x", "n", "city", "flag", "when")


def by_key(figures: tuple[SkewFigure, ...]) -> dict[tuple[str, str], SkewFigure]:
    return {(figure.feature, figure.method): figure for figure in figures}


def failed(figures: tuple[SkewFigure, ...]) -> set[tuple[str, str]]:
    return {(figure.feature, figure.method) for figure in figures if figure.outcome == "failed"}


def test_rows_of_the_same_kind_are_not_skewed_and_every_feature_is_looked_at() -> None:
    found = compare(day(1), day(2), FEATURES, threshold=0.2)
    assert {figure.outcome for figure in found} == {"passed"}
    assert set(by_key(found)) == {
        ("x", "missing_rate"), ("x", "psi"), ("x", "ks"), ("n", "missing_rate"), ("n", "psi"), ("n", "ks"),
        ("city", "missing_rate"), ("city", "unseen_categories"), ("city", "psi"), ("flag", "missing_rate"),
        ("flag", "psi"), ("when", "missing_rate"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"shift": 1.0}, {("x", "psi"), ("x", "ks")}),
        ({"missing": 0.5}, {("x", "missing_rate")}),
        ({"cities": "ABCD"}, {("city", "unseen_categories"), ("city", "psi")}),
        ({"cities": "AAB"}, {("city", "psi")}),
    ],
)
def test_planted_skew_is_found_where_it_was_planted(change: dict[str, Any], expected: set[Any]) -> None:
    assert failed(compare(day(1), day(2, **change), FEATURES, threshold=0.2)) == expected


def test_equal_samples_are_rarely_called_skewed() -> None:
    """60 rows a side have bins so few that the index stays below its limit by itself."""
    calls = [failed(compare(day(seed, rows=60), day(seed + 500, rows=60), ("x", "n", "city"), threshold=0.2))
             for seed in range(60)]  # fmt: skip
    psis = sum(any(method == "psi" for _, method in found) for found in calls)
    assert psis <= 9
    large = [failed(compare(day(seed), day(seed + 500), FEATURES, threshold=0.2)) for seed in range(30)]
    assert not any(large)


def test_the_statistics_are_scipys_and_the_books() -> None:
    one, two = day(1), day(2, shift=0.3)
    found = by_key(compare(one, two, FEATURES, threshold=0.2))
    x = [np.asarray(each["x"].drop_null()) for each in (one, two)]
    expected = stats.ks_2samp(*x, method="asymp")
    assert found["x", "ks"].statistic == pytest.approx(expected.statistic)
    assert found["x", "ks"].p_value == pytest.approx(expected.pvalue)
    edges = np.quantile(x[0], np.linspace(0, 1, 8)[1:-1], method="inverted_cdf")
    counts = [np.bincount(np.digitize(each, edges), minlength=7) for each in x]
    assert found["x", "psi"].statistic == pytest.approx(psi(*counts))
    gone = [[each["x"].null_count, 400 - each["x"].null_count] for each in (one, two)]
    assert found["x", "missing_rate"].p_value == pytest.approx(
        stats.chi2_contingency(gone, correction=False).pvalue
    )
    assert found["x", "missing_rate"].statistic == pytest.approx(abs(gone[0][0] - gone[1][0]) / 400)
    # Shares of 50, 50 against 90, 10: (0.9 - 0.5) ln(0.9 / 0.5) + (0.1 - 0.5) ln(0.1 / 0.5)
    assert psi([50_000, 50_000], [90_000, 10_000]) == pytest.approx(0.4 * np.log(9), abs=1e-3)


counts = st.lists(st.integers(0, 1_000), min_size=2, max_size=12)


@given(counts, st.data())
def test_the_index_is_zero_for_equal_counts_and_the_same_both_ways(
    one: list[int], data: st.DataObject
) -> None:
    two = data.draw(st.lists(st.integers(0, 1_000), min_size=len(one), max_size=len(one)))
    assert psi(one, one) == 0
    assert psi(one, two) == pytest.approx(psi(two, one))
    assert psi(one, two) >= 0


def test_another_schema_is_named() -> None:
    now = day(2).drop_columns(["x"])
    now = now.set_column(0, "n", now["n"].cast(pa.string())).append_column("extra", pa.nulls(400))
    found = by_key(compare(day(1), now, FEATURES, threshold=0.2))
    assert found["x", "schema"].outcome == "failed"
    assert "missing" in found["x", "schema"].message
    assert "number (int32) at training, text (string) now" in found["n", "schema"].message
    wider = day(2).set_column(1, "n", day(2)["n"].cast(pa.int64()))
    assert not failed(compare(day(1), wider, FEATURES, threshold=0.2))


def test_a_column_that_is_mostly_one_value_is_seen_to_change() -> None:
    """Its deciles are all alike; the only edge has every value on one side of it."""
    rng = np.random.default_rng(0)

    def amounts(share: float, *, sign: float = 1.0) -> pa.Table:
        given = rng.random(5_000) < share
        return pa.table({"x": np.where(given, sign * (1_000 + rng.random(5_000)), 0.0)})

    for sign in (1.0, -1.0):
        now = by_key(compare(amounts(0.05, sign=sign), amounts(0.3, sign=sign), ("x",), threshold=0.2))
        # Shares of 95 and 5 percent against 70 and 30.
        expected = 0.25 * np.log(0.3 / 0.05) + 0.25 * np.log(0.95 / 0.7)
        assert now["x", "psi"].statistic == pytest.approx(expected, rel=0.2)
        assert now["x", "psi"].outcome == "failed"
        same = by_key(compare(amounts(0.05, sign=sign), amounts(0.05, sign=sign), ("x",), threshold=0.2))
        assert same["x", "psi"].statistic < 0.01
    # Sides of very different size: bins that are empty on both say nothing.
    assert psi([5_000, 0, 5_000], [30, 0, 30]) == pytest.approx(0, abs=1e-6)


def test_infinite_and_huge_numbers_are_compared_and_never_told() -> None:
    rng = np.random.default_rng(0)
    infinite = pa.table({"x": np.r_[rng.normal(size=200), [np.inf] * 60, [-np.inf] * 40]})
    found = by_key(compare(infinite, infinite, ("x",), threshold=0.2))
    assert found["x", "psi"].statistic == 0
    assert by_key(compare(infinite, day(1), ("x",), threshold=0.2))["x", "psi"].outcome == "failed"
    ids = pa.table({"x": pa.array(rng.integers(2**60, 2**61, 100))})
    assert not failed(compare(ids, ids, ("x",), threshold=0.2))


def test_too_few_values_are_no_data_and_never_passed() -> None:
    found = by_key(compare(day(1), day(2, rows=20), FEATURES, threshold=0.2))
    assert found["x", "psi"].outcome == "no_data"
    assert found["x", "ks"].statistic is None
    none = compare(day(1), day(2).slice(0, 0), FEATURES, threshold=0.2)
    assert {figure.outcome for figure in none} == {"no_data"}
    gone = by_key(compare(day(1), day(2, missing=1.0), FEATURES, threshold=0.2))
    assert gone["x", "missing_rate"].outcome == "failed"
    assert gone["x", "psi"].outcome == "no_data"


def test_nan_is_missing_and_rare_categories_are_counted_together() -> None:
    values = np.where(np.arange(400) < 200, np.nan, 1.0)
    found = by_key(compare(pa.table({"x": np.ones(400)}), pa.table({"x": values}), ("x",), threshold=0.2))
    assert found["x", "missing_rate"].statistic == 0.5
    assert found["x", "psi"].statistic == pytest.approx(0, abs=1e-3)
    rng = np.random.default_rng(0)
    tails = [pa.table({"t": [f"N{number}" for number in rng.integers(0, 300, 600)]}) for _ in range(2)]
    assert by_key(compare(*tails, ("t",), threshold=0.2))["t", "psi"].statistic < 0.02


@pytest.fixture
def model(lake: Lake) -> ModelVersion:
    """Trained on two days of a table that has seven."""
    for number in range(7):
        put(lake, "flights", segment(f"d{number}", "f", day(number, shift=1.0 if number > 4 else 0.0)))
    training = selections.whole(
        lake, dataset=head(lake, "flights"), partitions=["d0", "d1"], columns=[*FEATURES, "y"], target="y"
    )
    return a_model(name="late", features=FEATURES, training=training)


def scored(lake: Lake, name: str, partition: str, dataset: DatasetRef, *, version: int = 1) -> None:
    lake.evidence.put(
        ScoringRun(
            recorded_at=AS_OF, produced_by=user().producer, model_name=name, model_version=version,
            model_created_at_ms=1, model_record="0" * 32, input_table_uuid=dataset.table_uuid,
            partition=partition, input_digest=read.partition_digests(lake, dataset)[partition],
            output_table="out", dataset_in=dataset,
            dataset_out=dataset, rows=1,
        )
    )  # fmt: skip


def test_what_was_scored_last_is_compared(lake: Lake, model: ModelVersion) -> None:
    ref = head(lake, "flights")
    with pytest.raises(NotFoundError, match="has scored anything") as caught:
        measure(lake, model, SkewPlan())
    assert caught.value.code == "not_found.scoring_run"
    for partition in ("d2", "d3", "d5", "d6"):
        scored(lake, "late", partition, ref)
    scored(lake, "another", "d4", ref)
    assert scored_rows(lake, model, SkewPlan(partitions=3)) == (ref, ["d3", "d5", "d6"])
    assert failed(measure(lake, model, SkewPlan(partitions=2))) == {("x", "psi"), ("x", "ks")}
    assert not failed(measure(lake, model, SkewPlan(partitions=2, threshold=9.0)))


def test_rows_that_came_after_the_scoring_are_not_called_scored(lake: Lake, model: ModelVersion) -> None:
    for partition in ("d2", "d3"):
        scored(lake, "late", partition, head(lake, "flights"))
    put(lake, "flights", segment("d2", "other", day(70, shift=5.0)), segment("d7", "f", day(71)))
    scored(lake, "late", "d7", head(lake, "flights"))
    assert scored_rows(lake, model, SkewPlan())[1] == ["d3", "d7"]


def test_a_named_table_needs_no_scoring_run(lake: Lake, model: ModelVersion) -> None:
    assert scored_rows(lake, model, SkewPlan(table="flights", partitions=2))[1] == ["d5", "d6"]
    assert failed(measure(lake, model, SkewPlan(table="flights", partitions=2)))
    put(lake, "calm", segment("c1", "f", day(90)))
    assert not failed(measure(lake, model, SkewPlan(table="calm")))


def test_a_model_of_unknown_rows_is_refused(lake: Lake) -> None:
    with pytest.raises(ModelError, match="not known"):
        measure(lake, a_model(training=None), SkewPlan(table="flights"))
