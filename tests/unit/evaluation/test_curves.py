"""The numbers behind the plots, against scikit-learn, and that no row can be read from them."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from airflow_provider_xops.evaluation import curves
from airflow_provider_xops.evaluation.curves import OTHER, curves_of
from airflow_provider_xops.training.metrics import Task
from tests.unit.evaluation import report_samples as samples

labeled = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0])),
    min_size=1,
    max_size=60,
)


@given(labeled)
def test_roc_is_scikit_learns_curve_on_a_grid(rows: list[tuple[bool, float]]) -> None:
    events, scores = (np.array(each) for each in zip(*rows, strict=True))

    points = curves.roc_points(events, scores)

    if events.all() or not events.any():
        assert points == ()
        return
    rate_false, rate_true, _ = sk.roc_curve(events, scores, drop_intermediate=False)
    drawn = np.array(points)
    # At a jump the curve takes the upper end, so the expected value is the highest at or below each place.
    for x, y in drawn:
        on = rate_true[np.isclose(rate_false, x, atol=1e-12)]
        assert y == pytest.approx(on.max() if len(on) else np.interp(x, rate_false, rate_true), abs=1e-9)
    assert (np.diff(drawn[:, 1]) >= -1e-12).all()
    assert tuple(drawn[-1]) == (1.0, 1.0)


def test_area_under_the_drawn_roc_is_the_metric() -> None:
    rng = np.random.default_rng(0)
    events = rng.random(20_000) < 0.3
    scores = rng.normal(size=20_000) + events

    drawn = np.array(curves.roc_points(events, scores))

    assert np.trapezoid(drawn[:, 1], drawn[:, 0]) == pytest.approx(sk.roc_auc_score(events, scores), abs=1e-3)


@given(labeled)
def test_precision_is_scikit_learns_at_the_first_threshold_that_reaches_a_recall(
    rows: list[tuple[bool, float]],
) -> None:
    events, scores = (np.array(each) for each in zip(*rows, strict=True))

    points = curves.precision_recall_points(events, scores)

    if not events.any():
        assert points == ()
        return
    precision, recall, _ = sk.precision_recall_curve(events, scores)
    for wanted, said in points:
        reaching = recall >= wanted - 1e-12
        # Thresholds rise with the index: the last one that still reaches the recall is the highest.
        assert said == pytest.approx(precision[reaching][-1])


def test_scores_that_are_missing_are_left_out() -> None:
    events, scores = np.array([True, False, True, False]), np.array([0.9, 0.1, np.nan, np.nan])

    assert curves.roc_points(events, scores) == curves.roc_points(events[:2], scores[:2])


def test_confusion_is_scikit_learns() -> None:
    rows = samples.scored(classes=("ann", "bo", "cy"))
    found = curves.confusion(rows.truth, rows.challenger.said.labels)

    assert found is not None
    expected = sk.confusion_matrix(rows.truth, rows.challenger.said.labels)
    assert found.classes == ("ann", "bo", "cy")
    assert np.array_equal(found.counts, expected)


def test_rare_ones_of_many_classes_stand_together() -> None:
    truth = np.repeat(np.arange(40), np.arange(40, 0, -1))

    found = curves.confusion(truth, truth)

    assert found is not None
    assert len(found.classes) == curves.CLASSES_SHOWN
    assert found.classes[-1] == OTHER
    assert np.array(found.counts).sum() == len(truth)
    assert np.trace(np.array(found.counts)) == len(truth)


@settings(max_examples=50)
@given(st.integers(0, 2000), st.integers(0, 5))
def test_residual_bins_hold_all_rows_and_never_few(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.normal(size=rows), rng.integers(0, 3, rows).astype(float)

    found = curves.residual_bins(truth, predicted)

    assert sum(one.rows for one in found) == (rows if rows >= curves.ROWS_A_BIN else 0)
    assert all(one.rows >= curves.ROWS_A_BIN for one in found)
    assert all(one.lower_quartile <= one.upper_quartile for one in found)
    if found:
        mean = sum(one.mean * one.rows for one in found) / rows
        assert mean == pytest.approx(np.mean(truth - predicted), abs=1e-9)


def test_an_outlier_squeezes_no_histogram() -> None:
    rows = samples.scored(Task.REGRESSION)
    truth = np.array(rows.truth)
    truth[0] = 1e9

    found = curves_of(dataclasses.replace(rows, truth=truth))

    assert found.residuals is not None
    assert found.residuals.edges[-1] < 100
    assert sum(found.residuals.counts["rows"]) == len(truth)


@pytest.mark.parametrize(
    ("task", "classes", "drawn"),
    [
        (Task.CLASSIFICATION, (0, 1), {"challenger", "champion"}),
        (Task.CLASSIFICATION, ("no", "yes"), {"challenger", "champion"}),
        (Task.CLASSIFICATION, ("a", "b", "c"), {"a", "b", "c"}),
        (Task.REGRESSION, (), set()),
    ],
)
def test_each_task_has_its_curves(task: Task, classes: tuple[Any, ...], drawn: set[str]) -> None:
    rows = samples.scored(task, classes=classes)

    found = curves_of(rows)

    assert set(found.roc) == drawn
    assert bool(found.residual_bins) is (task is Task.REGRESSION)
    assert (found.confusion is not None) is (task is Task.CLASSIFICATION)
    assert (found.scores is not None) is (len(classes) == 2)


def test_a_model_without_probabilities_has_a_confusion_matrix_alone() -> None:
    rows = samples.scored()
    said = dataclasses.replace(rows.challenger.said, probabilities=None, classes=None)

    found = curves_of(dataclasses.replace(rows, challenger=dataclasses.replace(rows.challenger, said=said)))

    assert found.roc == {}
    assert found.scores is None
    assert found.confusion is not None


@pytest.mark.parametrize("task", list(Task))
def test_no_value_of_a_row_is_in_the_numbers(task: Task) -> None:
    rows = samples.scored(task)
    told = json.dumps(dataclasses.asdict(curves_of(rows)))

    for values in (rows.table["income"].to_pylist(), rows.table["ratio"].to_pylist()):
        assert not [value for value in values if repr(value) in told]
    if task is Task.REGRESSION:
        assert not [value for value in rows.truth if repr(float(value)) in told]
    else:
        assert not [value for value in rows.challenger.said.scores if repr(float(value)) in told]


def test_no_rows_have_no_curves() -> None:
    rows = samples.scored(rows=0)

    found = curves_of(rows)

    assert found.roc == {}
    assert found.confusion is None
    assert found.base_rate is None


@pytest.mark.parametrize("rows", [1, 2, curves.ROWS_A_BIN - 1])
def test_few_rows_of_a_regression_are_not_drawn_because_they_could_be_read(rows: int) -> None:
    scored = samples.scored(Task.REGRESSION, rows=rows)

    found = curves_of(scored)

    assert found.residuals is None
    assert found.residual_bins == ()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 12345.678])
def test_edges_of_the_residuals_are_round_and_not_a_rows_own(scale: float) -> None:
    rows = samples.scored(Task.REGRESSION, rows=curves.ROWS_A_BIN)
    truth = np.asarray(rows.truth) * scale
    said = dataclasses.replace(rows.challenger.said, labels=np.asarray(rows.challenger.said.labels) * scale)
    rows = dataclasses.replace(rows, truth=truth, challenger=dataclasses.replace(rows.challenger, said=said))

    found = curves_of(rows).residuals

    assert found is not None
    width = found.edges[1] - found.edges[0]
    assert f"{width:.6e}"[:8] in {"1.000000", "2.000000", "5.000000"}
    assert np.allclose(np.array(found.edges) / width, np.round(np.array(found.edges) / width), atol=1e-6)
    assert sum(found.counts["rows"]) == len(truth)


def test_residuals_that_are_all_the_same_have_a_scale() -> None:
    rows = samples.scored(Task.REGRESSION)
    for shift in (0.0, -3.0, 1e9):
        moved = dataclasses.replace(rows, truth=np.asarray(rows.challenger.said.labels) + shift)
        found = curves_of(moved).residuals
        assert found is not None
        assert sum(found.counts["rows"]) == len(rows.truth)


def test_a_class_is_one_class_whatever_number_it_is_written_as() -> None:
    found = curves.confusion(np.array([0, 1, 1, 10]), np.array([0.0, 1.0, 0.0, 10.0]))
    booleans = curves.confusion(np.array([0, 1]), np.array([False, True]))

    assert found is not None
    assert booleans is not None
    assert found.classes == ("0", "1", "10")
    assert found.counts == ((1, 0, 0), (1, 1, 0), (0, 0, 1))
    assert booleans.counts == ((1, 0), (0, 1))


def test_classes_that_are_numbers_stand_in_their_order() -> None:
    found = curves.confusion(np.arange(11), np.arange(11))

    assert found is not None
    assert found.classes == tuple(str(each) for each in range(11))


def test_the_positive_class_is_named() -> None:
    assert curves_of(samples.scored(classes=("no", "yes"))).positive == "yes"
    assert curves_of(samples.scored(classes=("a", "b", "c"))).positive is None
    assert curves_of(samples.scored(Task.REGRESSION)).positive is None


@pytest.mark.parametrize("kind", [int, str])
def test_memory_grows_with_a_few_numbers_a_row(kind: type) -> None:
    rows = 200_000
    names = np.array([kind(each) for each in range(4)], dtype=object if kind is str else np.int64)
    truth, said = (names[np.random.default_rng(seed).integers(0, 4, rows)] for seed in (0, 1))
    curves.confusion(truth[:10], said[:10])
    tracemalloc.start()

    found = curves.confusion(truth, said)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None
    assert np.array(found.counts).sum() == rows
    assert peak / rows < 80  # bytes
