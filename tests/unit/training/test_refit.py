"""Fitting again from settings and a recorded selection, and the parameters a study gives."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, Selection, TuningStudy
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.fit import refit
from airflow_provider_xops.training.folds import folds_from
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.functions import TrainingFunction
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.training.recipe import Recipe, recipe_from
from airflow_provider_xops.training.splits import GroupSplit, RandomSplit, Split, TimeSplit
from airflow_provider_xops.training.studies import one_study, params_of_study
from tests.unit.training import learners

FOREST = "sklearn.ensemble:RandomForestClassifier"
ROWS = 120


def table(seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=ROWS)
    late = np.where(x + rng.normal(size=ROWS) > 0, "late", "on time")
    return pa.table({"x": x, "z": rng.normal(size=ROWS), "late": late, "w": rng.integers(1, 4, ROWS)})


@pytest.fixture
def dataset(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> DatasetRef:
    return commit(
        lake, "t", [Segment("d", "d", table().to_reader)], actor=make_actor(), as_of=as_of
    ).record.ref


@pytest.fixture
def training(lake: Lake, dataset: DatasetRef) -> Selection:
    return selections.choose(
        lake, dataset=dataset, partitions=None, columns=["x", "z", "late", "w"], target="late",
        split=RandomSplit(seed=4),
    ).training  # fmt: skip


def recipe(**changes: Any) -> Recipe:
    arguments: dict[str, Any] = {
        "estimator": FOREST, "features": ("x", "z"), "target": "late", "params": {"n_estimators": 5},
        "seed": 3, **changes,
    }  # fmt: skip
    return Recipe(**arguments)


RECIPES = {
    "plain": recipe(),
    "weighted": recipe(sample_weight="w", class_weight={"late": 4.0}),
    "folds": recipe(folds=folds_from({"kind": "stratified_k_fold", "folds": 3})),
    "batches": recipe(
        estimator="sklearn.linear_model:SGDClassifier", params={"loss": "log_loss"}, batch_rows=25, epochs=2
    ),
    "function": recipe(
        estimator=TrainingFunction(function=learners.tree, arguments={"depth": 3}), params={"depth": 3},
        task=Task.CLASSIFICATION,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_settings_are_enough_to_fit_the_same_again(lake: Lake, training: Selection, name: str) -> None:
    settings = RECIPES[name].settings()
    # What a record carries went through JSON.
    settings = json.loads(json.dumps(settings))
    assert recipe_from(settings) == RECIPES[name]
    one, two = refit(lake, settings, training), refit(lake, settings, training)
    frame = feature_frame(table(1), one.columns)
    assert one.estimator is not two.estimator
    assert (one.estimator.predict_proba(frame) == two.estimator.predict_proba(frame)).all()
    assert (one.columns, one.task, one.rows) == (("x", "z"), Task.CLASSIFICATION, training.rows)


def test_weights_make_another_model(lake: Lake, training: Selection) -> None:
    frame = feature_frame(table(1), ["x", "z"])
    plain, weighted = (
        refit(lake, RECIPES[name].settings(), training).estimator for name in ("plain", "weighted")
    )
    assert (plain.predict_proba(frame) != weighted.predict_proba(frame)).any()


def test_rows_that_changed_are_refused(lake: Lake, training: Selection) -> None:
    for name in ("plain", "batches"):
        with pytest.raises(XOpsError) as caught:
            refit(lake, RECIPES[name].settings(), dataclasses.replace(training, digest="0" * 64))
        assert caught.value.code == "data.selection_changed"


def test_a_model_without_settings_cannot_be_repeated(lake: Lake, training: Selection) -> None:
    with pytest.raises(XOpsError) as caught:
        refit(lake, {}, training)
    assert caught.value.code == "training.not_repeatable"


def test_settings_of_a_plain_training_are_those_of_older_releases() -> None:
    # The key of a piece of work is made of them: another name would train again what was trained.
    assert set(recipe().settings()) == {"estimator", "params", "target", "features", "seed"}


def test_a_regressor_has_no_classes_to_weigh() -> None:
    asks = recipe(estimator="sklearn.linear_model:Ridge", params={}, class_weight="balanced")
    with pytest.raises(XOpsError) as caught:
        asks.task_of(asks.make(), np.array([1.0]))
    assert caught.value.code == "argument.class_weight"


V1 = DatasetRef(lake_id="l", table="t", table_uuid="u", version=1)
SPLIT = RandomSplit(seed=2)
SEARCH = {"estimator": FOREST, "target": "late", "params": {"n_jobs": 1}, "split": SPLIT.to_json()}


def study(**changes: Any) -> TuningStudy:
    arguments: dict[str, Any] = {
        "recorded_at": datetime(2026, 1, 1, tzinfo=UTC),
        "produced_by": Actor.user("me", key="k", fence=1).producer,
        "study": "s", "model_name": "m",
        "dataset": V1, "search": SEARCH, "search_digest": "d",
        "metric": "roc_auc", "greater_is_better": True, "trials": {"complete": 3}, "best_value": 0.8,
        "best_params": {"max_depth": 4}, "best_trial": 2, **changes,
    }  # fmt: skip
    return TuningStudy(**arguments)


def of_study(
    found: TuningStudy, params: dict[str, Any], *, dataset: DatasetRef = V1, split: Split = SPLIT
) -> dict[str, Any]:
    return params_of_study(found, params, estimator=FOREST, target="late", dataset=dataset, split=split)


def test_a_study_gives_the_parameters_of_its_best_trial() -> None:
    found = of_study(study(), {"n_estimators": 9, "n_jobs": 1})
    assert found == {"n_estimators": 9, "n_jobs": 1, "max_depth": 4}


@pytest.mark.parametrize(
    ("changes", "params", "code", "hint"),
    [
        ({"best_trial": None, "best_value": None}, {}, "training.tuning", "no best parameters"),
        ({}, {"max_depth": 5}, "argument.tuning", "max_depth"),
        ({}, {"n_jobs": 2}, "argument.tuning", "n_jobs"),
        ({"search": {"estimator": "other:Forest"}}, {}, "argument.tuning", "other:Forest"),
        ({"search": {"target": "delay"}}, {}, "argument.tuning", "delay"),
    ],
)
def test_a_study_that_does_not_fit_is_refused(
    changes: dict[str, Any], params: dict[str, Any], code: str, hint: str
) -> None:
    with pytest.raises(XOpsError) as caught:
        of_study(study(**changes), params)
    assert caught.value.code == code
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("split", "version", "hint"),
    [
        (RandomSplit(seed=3), 1, "other rows back"),
        (RandomSplit(seed=2), 2, "random split of another version"),
        (GroupSplit(column="g"), 2, "group split of another version"),
        (TimeSplit(holdout_partitions=3), 2, None),
    ],
)
def test_a_study_that_may_have_seen_the_holdout_is_refused(
    split: Split, version: int, hint: str | None
) -> None:
    theirs = SPLIT if hint == "other rows back" else split
    searched = study(search={**SEARCH, "split": theirs.to_json()})
    dataset = dataclasses.replace(V1, version=version)
    if hint is None:
        assert of_study(searched, {}, dataset=dataset, split=split)["max_depth"] == 4
        return
    with pytest.raises(XOpsError, match=hint) as caught:
        of_study(searched, {}, dataset=dataset, split=split)
    assert caught.value.code == "argument.tuning"


def test_of_several_workers_the_record_that_knows_most_counts() -> None:
    late = study(trials={"complete": 5, "pruned": 2})
    assert one_study([study(), late, study(trials={"complete": 6})]) == late
    for several in ([], [study(), study(study="other")]):
        with pytest.raises(XOpsError) as caught:
            one_study(several)
        assert caught.value.code == "argument.tuning"


@pytest.mark.parametrize(
    ("split", "last", "refused"),
    [
        (TimeSplit(holdout_partitions=3), "2013-01-08", True),
        (TimeSplit(holdout_partitions=3), "2013-01-12", False),
        (RandomSplit(seed=2), "2013-01-12", True),
        (RandomSplit(seed=2), "2013-01-10", False),
    ],
)
def test_a_study_of_later_partitions_may_have_seen_the_holdout(
    split: Split, last: str, refused: bool
) -> None:
    searched = study(search={**SEARCH, "split": split.to_json(), "read": ["2013-01-01", "2013-01-10", 10]})
    rows = ["2013-01-01", last, int(last[-2:])]

    def params() -> dict[str, Any]:
        return params_of_study(
            searched, {}, estimator=FOREST, target="late", dataset=V1, split=split, rows=rows
        )

    if refused:
        with pytest.raises(XOpsError, match="same partition") as caught:
            params()
        assert caught.value.code == "argument.tuning"
    else:
        assert params()["max_depth"] == 4
