"""Learning in batches: the same rows as held whole, in bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import SGDClassifier

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.batches import (
    choose_streams,
    learn_in_batches,
    predict_in_batches,
    stream_of,
)
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.training.recipe import Recipe
from airflow_provider_xops.training.splits import RandomSplit, Split, TimeSplit, random_order

COUNTER = "tests.unit.training.learners:Counter"
SGD = "sklearn.linear_model:SGDClassifier"
DAYS = [f"2026-01-{day:02d}" for day in range(1, 6)]
ROWS = 37


def day(number: int) -> pa.Table:
    rng = np.random.default_rng(number)
    x = rng.normal(size=ROWS)
    late = pa.array((x > 0).astype(np.int64), mask=np.arange(ROWS) % 11 == 3)
    return pa.table({"x": x, "z": rng.normal(size=ROWS), "late": late, "w": rng.integers(0, 3, ROWS)})


@pytest.fixture
def dataset(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> DatasetRef:
    segments = [Segment(name, name, day(number).to_reader) for number, name in enumerate(DAYS)]
    return commit(lake, "t", segments, actor=make_actor(), as_of=as_of).record.ref


def recipe(**changes: Any) -> Recipe:
    arguments: dict[str, Any] = {
        "estimator": COUNTER, "features": ("x", "z"), "target": "late", "batch_rows": 16, "seed": 5, **changes
    }  # fmt: skip
    return Recipe(**arguments)


SPLITS: list[Split] = [TimeSplit(holdout_partitions=2, gap=1), RandomSplit(fraction=0.3, seed=2)]


@pytest.mark.parametrize("split", SPLITS, ids=["time", "random"])
@pytest.mark.parametrize("sample", [None, 40, 0.5])
def test_streams_name_the_same_rows_as_rows_held_whole(
    lake: Lake, dataset: DatasetRef, split: Split, sample: float | None
) -> None:
    asked: dict[str, Any] = {
        "dataset": dataset, "partitions": None, "columns": ["x", "late"], "target": "late", "split": split,
        "sample": sample, "seed": 9,
    }  # fmt: skip
    whole = selections.choose(lake, **asked)
    streams = choose_streams(lake, batch_rows=10, **asked)
    for stream, selection, rows in zip(
        streams, (whole.training, whole.holdout), (whole.training_rows, whole.holdout_rows), strict=True
    ):
        assert stream.selection == selection
        tables = list(stream.batches(["x", "z"], 16))
        assert [table.num_rows for table in tables[:-1]] == [16] * (len(tables) - 1)
        read = pa.concat_tables(tables)
        assert read.column("x").to_pylist() == rows.column("x").to_pylist()
        assert list(stream.truth) == rows.column("late").to_pylist()


def test_no_more_than_a_batch_of_features_is_held(lake: Lake, dataset: DatasetRef) -> None:
    training, holdout = choose_streams(
        lake, dataset=dataset, partitions=None, columns=["x", "z", "late"], target="late",
        split=TimeSplit(holdout_partitions=1), batch_rows=16,
    )  # fmt: skip
    model = learn_in_batches(recipe(epochs=2), training)
    # then: never more than the one that is being learned from, never larger than asked
    assert max(model.sizes) == 16
    assert len(model.sizes) == 2 * -(-training.selection.rows // 16)
    assert set(model.alive_before) == {0}
    once = pa.concat_tables(training.batches(["x"], 16)).column("x").to_pylist()
    first, second = model.rows[: len(once)], model.rows[len(once) :]
    assert sorted(first) == sorted(second) == sorted(once)
    assert first != second  # another order each epoch
    assert sorted(first[:16]) == sorted(once[:16])  # rows are shuffled inside their batch
    said, frame = predict_in_batches(recipe(), model, holdout, task=Task.REGRESSION)
    assert list(said.labels) == pa.concat_tables(holdout.batches(["x"], 50)).column("x").to_pylist()
    assert len(frame) == 16


def test_it_is_what_partial_fit_by_hand_gives(lake: Lake, dataset: DatasetRef) -> None:
    asked: dict[str, Any] = {
        "dataset": dataset, "partitions": None, "columns": ["x", "z", "late", "w"], "target": "late",
        "split": TimeSplit(holdout_partitions=1),
    }  # fmt: skip
    training, _ = choose_streams(lake, batch_rows=16, **asked)
    asks = recipe(
        estimator=SGD, params={"loss": "log_loss"}, sample_weight="w", class_weight={"1": 3.0}, epochs=3
    )
    model = learn_in_batches(asks, training)
    rows = selections.choose(lake, **asked).training_rows
    theirs = SGDClassifier(loss="log_loss", random_state=5)
    for epoch in range(3):
        for number, start in enumerate(range(0, rows.num_rows, 16)):
            part = rows.slice(start, 16)
            part = part.take(pa.array(random_order(part.num_rows, f"5/{epoch}/{number}")))
            late = np.asarray(part.column("late"))
            weights = np.asarray(part.column("w")) * np.where(late == 1, 3.0, 1.0)
            frame = feature_frame(part, ["x", "z"])
            theirs.partial_fit(frame, late, classes=[0, 1], sample_weight=weights)
    assert model.coef_.tolist() == theirs.coef_.tolist()


def test_a_recorded_selection_is_read_again_and_proved(lake: Lake, dataset: DatasetRef) -> None:
    training, _ = choose_streams(
        lake, dataset=dataset, partitions=DAYS[:4], columns=["x", "z", "late"], target="late",
        split=RandomSplit(seed=3), batch_rows=16,
    )  # fmt: skip
    again = stream_of(lake, training.selection, target="late")
    again.verify(8)
    assert list(again.scanned) == list(training.scanned)
    other = dataclasses.replace(training.selection, digest="0" * 64)
    with pytest.raises(XOpsError) as caught:
        stream_of(lake, other, target="late").verify(8)
    assert caught.value.code == "data.selection_changed"


@pytest.mark.parametrize(
    ("changes", "code", "hint"),
    [
        ({"estimator": "sklearn.linear_model:LogisticRegression"}, "training.no_partial_fit", "partial_fit"),
        ({"estimator": f"{__name__}:a_pipeline"}, "training.no_partial_fit", "pipeline"),
        (
            {"estimator": "sklearn.linear_model:SGDClassifier", "features": ("text",)},
            "training.fit_failed",
            "ValueError",
        ),
        (
            {
                "estimator": "sklearn.neural_network:MLPClassifier",
                "class_weight": "balanced",
                "features": ("x",),
            },
            "",
            "",
        ),
        ({"sample_weight": "zero"}, "training.weights", "are 0"),
    ],
)
def test_what_cannot_learn_in_batches_says_so(
    lake: Lake,
    make_actor: Callable[..., Actor],
    as_of: datetime,
    changes: dict[str, Any],
    code: str,
    hint: str,
) -> None:
    table = day(0).append_column("text", pa.array(["a"] * ROWS)).append_column("zero", pa.array([0] * ROWS))
    ref = commit(lake, "t", [Segment("d", "d", table.to_reader)], actor=make_actor(), as_of=as_of).record.ref
    training, _ = choose_streams(
        lake,
        dataset=ref,
        partitions=None,
        columns=["x", "late"],
        target="late",
        split=RandomSplit(),
        batch_rows=16,
    )
    if not code:
        assert learn_in_batches(recipe(**changes), training).classes_.tolist() == [0, 1]
        return
    with pytest.raises(XOpsError) as caught:
        learn_in_batches(recipe(**changes), training)
    assert caught.value.code == code
    assert hint in str(caught.value)


def a_pipeline() -> Any:
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SGDClassifier())


@pytest.mark.parametrize(
    "changes",
    [{"batch_rows": 0}, {"epochs": 0}, {"batch_rows": None, "epochs": 2}, {"folds": RandomSplit()}],
)
def test_batches_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(XOpsError) as caught:
        recipe(**changes)
    assert caught.value.code == "argument.batch_rows"
