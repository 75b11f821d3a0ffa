"""Learning curves: fits on growing parts of the training rows, measured on one holdout."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from airflow_provider_xops.errors import ArgumentError, DataError, TrainingError
from airflow_provider_xops.evaluation.learning_curve import measure
from airflow_provider_xops.evaluation.plan import LearningCurvePlan, plan_from
from airflow_provider_xops.evaluation.scored import Scored
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.training.recipe import recipe_from
from airflow_provider_xops.training.splits import RandomSplit, random_order
from tests.unit.evaluation.scored_cases import scored_of

FEATURES = ["a", "b"]
SETTINGS: dict[str, Any] = {
    "estimator": "sklearn.tree:DecisionTreeRegressor", "params": {"max_depth": 6}, "features": FEATURES,
    "target": "y", "seed": 0,
}  # fmt: skip
FAST: dict[str, Any] = {"resamples": 200}


def one_class_unless_many(**_: Any) -> Any:
    """An estimator that cannot be fitted on few rows."""
    return Hungry()


class Hungry:
    """Refuses fewer than 100 rows."""

    def fit(self, rows: Any, target: Any) -> None:
        if len(rows) < 100:
            raise ValueError("too few")
        self.mean_ = float(np.mean(target))

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), self.mean_)


@pytest.fixture
def chosen(lake: Lake, actor: Actor, as_of: datetime) -> selections.Chosen:
    """600 rows whose target is a sum of waves: the more rows, the better a tree follows it."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-3, 3, 600), rng.uniform(-3, 3, 600)
    rows = pa.table({"a": a, "b": b, "y": np.sin(2 * a) + b + 0.1 * rng.normal(size=600), "w": np.ones(600)})
    ref = commit(lake, "waves", [Segment("d", "f", rows.to_reader)], actor=actor, as_of=as_of).record.ref
    return selections.choose(
        lake,
        dataset=ref,
        partitions=None,
        columns=["a", "b", "y"],
        target="y",
        extra=["w"],
        split=RandomSplit(fraction=0.3),
    )


@pytest.fixture
def scored(chosen: selections.Chosen) -> Callable[..., Scored]:
    """The holdout as scored by a model that learned from all training rows."""

    def make(**changes: Any) -> Scored:
        settings = {**SETTINGS, **changes}
        estimator = recipe_from(settings).learn(chosen.training_rows)
        made = scored_of(estimator, chosen.holdout_rows, features=FEATURES, task=Task.REGRESSION)
        model = dataclasses.replace(
            made.challenger.model, settings=settings, training=chosen.training, holdout=chosen.holdout
        )
        return dataclasses.replace(made, challenger=dataclasses.replace(made.challenger, model=model))

    return make


def test_each_point_is_a_fit_on_that_many_training_rows(
    lake: Lake, chosen: selections.Chosen, scored: Callable[..., Scored]
) -> None:
    judged = scored()
    points = measure(lake, judged, LearningCurvePlan(shares=(1.0, 0.1, 0.5)), metric="rmse", seed=3, **FAST)

    rows = chosen.training.rows
    assert [(point.share, point.rows) for point in points] == [
        (0.1, round(rows / 10)), (0.5, round(rows / 2)), (1.0, rows)
    ]  # fmt: skip
    # the same by hand: the first rows of the seeded order, in their own order
    for point in points[:2]:
        places = np.sort(random_order(rows, 3)[: point.rows])
        learned = recipe_from(SETTINGS).learn(chosen.training_rows.take(pa.array(places)))
        said = learned.predict(feature_frame(chosen.holdout_rows, FEATURES))
        assert point.value == pytest.approx(sk.root_mean_squared_error(judged.truth, said), abs=1e-12)
    # the whole is the challenger itself
    assert points[-1].value == pytest.approx(
        sk.root_mean_squared_error(judged.truth, judged.challenger.said.labels), abs=1e-12
    )
    assert all(point.lower < point.value < point.upper for point in points)
    assert points[0].value > points[2].value


def test_several_repeats_are_averaged_and_their_spread_widens_the_interval(
    lake: Lake, scored: Callable[..., Scored]
) -> None:
    judged = scored()
    single = [
        measure(lake, judged, LearningCurvePlan(shares=(0.2,)), metric="rmse", seed=seed, **FAST)[0]
        for seed in (0, 1, 2)
    ]
    (together,) = measure(lake, judged, LearningCurvePlan(shares=(0.2,), repeats=3), metric="rmse", **FAST)

    values = [point.value for point in single]
    assert len(set(values)) == 3
    assert together.value == pytest.approx(np.mean(values))
    widths = [point.upper - point.lower for point in single]
    assert together.upper - together.lower > np.mean(widths)


def test_rows_are_weighed_as_at_training(lake: Lake, scored: Callable[..., Scored]) -> None:
    plain = measure(lake, scored(), LearningCurvePlan(shares=(0.3,)), metric="rmse", **FAST)
    weighed = measure(
        lake, scored(sample_weight="w"), LearningCurvePlan(shares=(0.3,)), metric="rmse", **FAST
    )
    assert weighed == plain  # all weights are 1, but the column was read and handed over


def test_a_share_that_cannot_be_fitted_has_no_value(
    lake: Lake, scored: Callable[..., Scored], caplog: pytest.LogCaptureFixture
) -> None:
    judged = scored(estimator=f"{__name__}:one_class_unless_many", params={})
    few, many = measure(lake, judged, LearningCurvePlan(shares=(0.1, 0.9)), metric="mae", **FAST)
    assert (few.value, few.lower, few.upper) == (None, None, None)
    assert many.value is not None
    assert "training.fit_failed" in caplog.text


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (
            {"batch_rows": 50, "estimator": "sklearn.linear_model:SGDRegressor", "params": {}},
            "training.streamed",
        )
    ],
)
def test_what_cannot_be_fitted_again_is_refused(
    lake: Lake, scored: Callable[..., Scored], settings: dict[str, Any], code: str
) -> None:
    judged = scored()
    model = dataclasses.replace(judged.challenger.model, settings={**SETTINGS, **settings})
    judged = dataclasses.replace(judged, challenger=dataclasses.replace(judged.challenger, model=model))
    with pytest.raises(TrainingError) as caught:
        measure(lake, judged, LearningCurvePlan(), metric="rmse", **FAST)
    assert caught.value.code == code


@pytest.mark.parametrize("changes", [{"settings": {}}, {"training": None}])
def test_an_adopted_model_has_no_learning_curve(
    lake: Lake, scored: Callable[..., Scored], changes: dict[str, Any]
) -> None:
    judged = scored()
    model = dataclasses.replace(judged.challenger.model, **changes)
    judged = dataclasses.replace(judged, challenger=dataclasses.replace(judged.challenger, model=model))
    with pytest.raises(TrainingError) as caught:
        measure(lake, judged, LearningCurvePlan(), metric="rmse", **FAST)
    assert caught.value.code == "training.not_repeatable"


def test_training_rows_that_are_others_are_refused(lake: Lake, scored: Callable[..., Scored]) -> None:
    judged = scored()
    training = dataclasses.replace(judged.challenger.model.training, digest="another")
    model = dataclasses.replace(judged.challenger.model, training=training)
    judged = dataclasses.replace(judged, challenger=dataclasses.replace(judged.challenger, model=model))
    with pytest.raises(DataError) as caught:
        measure(lake, judged, LearningCurvePlan(), metric="rmse", **FAST)
    assert caught.value.code == "data.selection_changed"


@pytest.mark.parametrize("curve", [{"shares": [0, 1]}, {"shares": [1.5]}, {"shares": []}, {"repeats": 0}])
def test_a_curve_that_cannot_be_meant_is_refused(curve: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        plan_from({"learning_curve": curve})
    assert caught.value.code == "argument.plan"
