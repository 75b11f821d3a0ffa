"""Cross-validation: the figures are scikit-learn's, the rows are the training rows and no others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import cross_validate as sklearn_cross_validate

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.cross_validation import cross_validate
from airflow_provider_xops.training.folds import Folds, RandomFolds, folds_from
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.training.splits import RandomSplit


def rows(count: int = 200, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 2))
    late = (x[:, 0] + rng.normal(size=count) > 0).astype(np.int64)
    return pa.table({"x": x[:, 0], "z": x[:, 1], "late": late, "delay": x[:, 0] * 3 + rng.normal(size=count)})


def validate(**changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "columns": ["x", "z"], "target": "late", "task": Task.CLASSIFICATION,
        "folds": {"kind": "stratified_k_fold", "folds": 4}, **changes,
    }  # fmt: skip
    return cross_validate(
        arguments.pop("make", LogisticRegression), arguments.pop("rows", rows()), **arguments
    )


@pytest.mark.parametrize(
    ("task", "target", "estimator", "scoring"),
    [
        (Task.CLASSIFICATION, "late", LogisticRegression, {"roc_auc": "roc_auc", "accuracy": "accuracy"}),
        (Task.REGRESSION, "delay", LinearRegression, {"r2": "r2", "mae": "neg_mean_absolute_error"}),
    ],
)
def test_the_figures_are_scikit_learns_on_the_same_folds(
    task: Task, target: str, estimator: Any, scoring: dict[str, str]
) -> None:
    table, folds = rows(), folds_from({"kind": "k_fold", "folds": 4, "seed": 3})
    found = validate(make=estimator, task=task, target=target, folds=folds)
    theirs = sklearn_cross_validate(
        estimator(), table.select(["x", "z"]).to_pandas(), np.asarray(table.column(target)),
        cv=folds.pairs(table, None, np.asarray(table.column(target))), scoring=scoring,
    )  # fmt: skip
    for name, scorer in scoring.items():
        expected = theirs[f"test_{name}"] * (-1 if scorer.startswith("neg_") else 1)
        assert [fold[name] for fold in found.folds] == pytest.approx(expected)
        assert found.mean[name] == pytest.approx(np.mean(expected))
        assert found.std[name] == pytest.approx(np.std(expected, ddof=1))
    assert found.rows == ((150, 50),) * 4


def test_weights_count_in_fitting_and_not_in_judging() -> None:
    table = rows()
    weights = np.random.default_rng(1).integers(0, 4, table.num_rows).astype(float)
    folds = folds_from({"kind": "k_fold", "folds": 3})
    found = validate(folds=folds, weights=weights)
    frame, late = table.select(["x", "z"]).to_pandas(), np.asarray(table.column("late"))
    for (trains, judges), figures in zip(folds.pairs(table, None, late), found.folds, strict=True):
        model = LogisticRegression().fit(frame.iloc[trains], late[trains], sample_weight=weights[trains])
        assert figures["accuracy"] == model.score(frame.iloc[judges], late[judges])


class LeakingFolds(RandomFolds):
    """Folds somebody wrote wrong: one judges on a row that is not among the training rows."""

    def pairs(self, table: pa.Table, partitions: Any, truth: Any) -> list[tuple[Any, Any]]:
        found = super().pairs(table, partitions, truth)
        trains, judges = found[-1]
        return [*found[:-1], (np.append(trains, table.num_rows), judges)]


class OverlappingFolds(RandomFolds):
    """Folds that fit on a row they judge on."""

    def pairs(self, table: pa.Table, partitions: Any, truth: Any) -> list[tuple[Any, Any]]:
        return [
            (np.append(trains, judges[0]), judges)
            for trains, judges in super().pairs(table, partitions, truth)
        ]


@pytest.mark.parametrize(
    ("folds", "hint"),
    [(LeakingFolds(), "not among the 200 training rows"), (OverlappingFolds(), "both of its sides")],
)
def test_a_leak_in_the_folds_is_refused_before_anything_is_fitted(folds: Folds, hint: str) -> None:
    made: list[int] = []

    def make() -> Any:
        made.append(1)
        return LogisticRegression()

    with pytest.raises(XOpsError) as caught:
        validate(folds=folds, make=make)
    assert caught.value.code == "training.folds"
    assert hint in str(caught.value)
    assert not made


class Remembers:
    """An estimator that keeps every row it was ever shown, over all folds."""

    seen: set[float]

    def __init__(self, seen: set[float]) -> None:
        self.seen = seen

    def fit(self, frame: Any, truth: Any) -> Remembers:
        self.seen |= set(frame["id"])
        return self

    def predict(self, frame: Any) -> Any:
        self.seen |= set(frame["id"])
        return np.zeros(len(frame))


def test_no_fold_sees_a_row_of_the_holdout(
    lake: Lake, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    table = pa.table({"id": pa.array(np.arange(100.0)), "y": pa.array(np.arange(100.0) % 7)})
    ref = commit(lake, "t", [Segment("d1", "f", table.to_reader)], actor=make_actor(), as_of=as_of).record.ref
    chosen = selections.choose(
        lake, dataset=ref, partitions=None, columns=["id", "y"], target="y", split=RandomSplit(fraction=0.3)
    )
    seen: set[float] = set()
    cross_validate(
        lambda: Remembers(seen), chosen.training_rows, columns=["id"], target="y", task=Task.REGRESSION,
        folds={"kind": "k_fold"},
    )  # fmt: skip
    assert seen == set(chosen.training_rows.column("id").to_pylist())
    assert not seen & set(chosen.holdout_rows.column("id").to_pylist())


def test_a_search_hears_of_each_fold_and_can_end_it() -> None:
    class Hopeless(Exception):
        pass

    heard: list[tuple[int, float | None]] = []

    def on_fold(number: int, figures: dict[str, float | None]) -> None:
        heard.append((number, figures["roc_auc"]))
        if number == 1:
            raise Hopeless

    with pytest.raises(Hopeless):
        validate(on_fold=on_fold)
    whole = validate()
    assert heard == [(n, whole.folds[n]["roc_auc"]) for n in range(2)]


def test_a_figure_that_one_fold_lacks_has_no_mean() -> None:
    # given: sorted by class, so that a fold in time holds one class only
    late = np.array([0, 1] * 50 + [0] * 50)
    table = pa.table({"x": np.arange(150.0), "late": late, "at": np.arange(150)})
    found = validate(rows=table, columns=["x"], folds={"kind": "time_series", "folds": 2, "column": "at"})
    assert found.folds[0]["roc_auc"] is not None
    assert found.folds[1]["roc_auc"] is None
    assert found.mean["roc_auc"] is None
    assert found.std["roc_auc"] is None
    assert "roc_auc_mean" not in found.to_record()
    assert found.to_record()["accuracy_mean"] == found.mean["accuracy"]


def test_a_fold_fitted_on_one_class_is_named() -> None:
    late = np.array([0] * 60 + [1, 0] * 20)
    table = pa.table({"x": np.arange(100.0), "late": late, "at": np.arange(100)})
    with pytest.raises(XOpsError) as caught:
        validate(rows=table, columns=["x"], folds={"kind": "time_series", "folds": 3, "column": "at"})
    assert caught.value.code == "training.one_class"
    assert "fold 1" in str(caught.value)


def test_classes_are_balanced_inside_each_fold() -> None:
    class Weighed:
        """Keeps the weight that each class has in sum."""

        sums: ClassVar[list[dict[int, float]]] = []

        def fit(self, frame: Any, truth: Any, sample_weight: Any) -> None:
            self.sums.append({label: float(sample_weight[truth == label].sum()) for label in (0, 1)})

        def predict(self, frame: Any) -> Any:
            return np.zeros(len(frame), dtype=int)

    table = pa.table({"x": np.arange(90.0), "late": np.array([0] * 80 + [1] * 10)})
    validate(make=Weighed, rows=table, columns=["x"], class_weight="balanced")
    assert len(Weighed.sums) == 4
    for sums in Weighed.sums:
        assert sums[0] == pytest.approx(sums[1])
