"""Reasons of predictions: they add up to the answer, and no row's depend on the rows beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation import _extras, _shap_asking
from airflow_provider_xops.serving.reasons import Reasoner, ReasonPlan, Reasons
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.training.predicting import predict

CLASSES, NUMBERS = Task.CLASSIFICATION, Task.REGRESSION


def frame(rows: int, seed: int = 0, *, gaps: bool = True) -> pd.DataFrame:
    """A text column and four numbers, some of them missing; ``noise`` says nothing."""
    rng = np.random.default_rng(seed)
    made = pd.DataFrame({name: rng.normal(size=rows) for name in ("a", "b", "c", "noise")})
    made.insert(1, "word", rng.choice(["x", "y", "z"], rows).astype(object))
    if gaps:
        made.loc[rng.random(rows) < 0.1, "b"] = np.nan
        made.loc[rng.random(rows) < 0.1, "word"] = np.nan
    return made


def target(rows: pd.DataFrame, kinds: int = 2) -> Any:
    worth = rows["a"] * 2 + rows["b"].fillna(0) + (rows["word"] == "x") * 1.5
    return pd.qcut(worth, kinds, labels=False).to_numpy() if kinds else worth.to_numpy()


def encoded(last: Any, *, one_hot: bool = False) -> Any:
    words = (
        OneHotEncoder(handle_unknown="ignore")
        if one_hot
        else OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    )
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    # Other order than the features', so that a mix-up would show.
    parts = [("numbers", numbers, ["noise", "c", "b", "a"]), ("words", words, ["word"])]
    return make_pipeline(ColumnTransformer(parts), last)


MODELS: dict[str, tuple[Any, Task, int, str]] = {
    "boosting behind an encoder": (
        encoded(HistGradientBoostingClassifier(max_iter=15, random_state=0)), CLASSES, 2, "shap (tree)",
    ),
    "three classes": (
        encoded(RandomForestClassifier(n_estimators=8, max_depth=4, random_state=0)), CLASSES, 3,
        "shap (tree)",
    ),
    "regression trees": (
        encoded(RandomForestRegressor(n_estimators=8, max_depth=4, random_state=0)), NUMBERS, 0,
        "shap (tree)",
    ),
    "linear regression": (encoded(LinearRegression()), NUMBERS, 0, "shap (linear)"),
    "logistic regression": (encoded(LogisticRegression(), one_hot=True), CLASSES, 2, "shap (exact, linear)"),
    "neighbors": (encoded(KNeighborsClassifier(), one_hot=True), CLASSES, 2, "shap (exact)"),
    "one-hot trees": (
        encoded(RandomForestClassifier(n_estimators=5, max_depth=3, random_state=0), one_hot=True), CLASSES,
        2,
        "shap (tree)",
    ),
}  # fmt: skip


def reasoner(name: str, top: int = 3, **plan: Any) -> tuple[Reasoner, Any, Task]:
    estimator, task, kinds, _ = MODELS[name]
    known = frame(300)
    estimator.fit(known, target(known, kinds))
    made = Reasoner(
        estimator, frame(20, 5), task=task, name=name, plan=ReasonPlan(top=top, **{"background": 20, **plan})
    )
    return made, estimator, task


def explained(one: Reasoner, estimator: Any, task: Task, rows: pd.DataFrame) -> tuple[Reasons, Any]:
    said = predict(estimator, rows, task=task, name="m")
    if task is NUMBERS:
        answer = said.labels
    elif len(said.classes) == 2:
        answer = said.scores
    else:
        answer = said.probabilities[np.arange(len(rows)), said.labels]
    return one.of(rows, said), answer


@pytest.mark.parametrize("name", MODELS)
def test_base_contributions_and_rest_are_the_answer(name: str) -> None:
    one, estimator, task = reasoner(name)
    assert one.method == MODELS[name][3]
    rows = frame(12, 9)
    found, answer = explained(one, estimator, task, rows)
    total = found.base + np.nansum(found.contributions, axis=1) + found.rest
    np.testing.assert_allclose(total, answer, atol=1e-6)
    # largest first, none twice
    sizes = np.abs(np.nan_to_num(found.contributions))
    assert (np.diff(sizes, axis=1) <= 1e-8).all()
    assert all(
        len({each for each in row if each}) == sum(each is not None for each in row) for row in found.features
    )
    # the base is the mean answer over the background
    if task is NUMBERS or MODELS[name][2] == 2:
        said = predict(estimator, frame(20, 5), task=task, name="m")
        mean = np.mean(said.labels if task is NUMBERS else said.scores)
        np.testing.assert_allclose(found.base, mean, atol=1e-6)


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name not in ("boosting behind an encoder", "neighbors")]
)
def test_fast_reasons_are_those_that_asking_the_model_gives(name: str) -> None:
    # given: the same model, once by the algorithm for its kind, once by every combination of features
    one, estimator, task = reasoner(name, top=5)
    rows = frame(6, 3)
    fast, _ = explained(one, estimator, task, rows)
    one._own = None
    assert one.method == "shap (exact)"
    slow, _ = explained(one, estimator, task, rows)
    for found, other in zip(*(_by_feature(each) for each in (fast, slow)), strict=True):
        assert found == pytest.approx(other, abs=1e-9)


def test_of_boosted_trees_the_log_odds_are_shared_and_brought_to_the_probability() -> None:
    # Rescaled for each background row, as shap does: additive, near what asking gives, and not the same.
    one, estimator, task = reasoner("boosting behind an encoder", top=5)
    rows = frame(6, 3)
    fast, _ = explained(one, estimator, task, rows)
    one._own = None
    slow, _ = explained(one, estimator, task, rows)
    assert fast.features[:, 0].tolist() == slow.features[:, 0].tolist()
    for found, other in zip(*(_by_feature(each) for each in (fast, slow)), strict=True):
        assert found == pytest.approx(other, abs=0.05)


def _by_feature(found: Reasons) -> list[dict[str, float]]:
    names = ("a", "word", "b", "c", "noise")
    made = []
    for features, values in zip(found.features, found.contributions, strict=True):
        told = {name: value for name, value in zip(features, values, strict=True) if name is not None}
        made.append({name: told.get(name, 0.0) for name in names})
    return made


@pytest.mark.parametrize("name", ["boosting behind an encoder", "logistic regression", "neighbors"])
def test_the_reasons_of_a_row_do_not_depend_on_its_batch(name: str) -> None:
    one, estimator, task = reasoner(name)
    rows = frame(9, 9)
    whole, _ = explained(one, estimator, task, rows)
    for cut in (1, 4):
        parts = [
            explained(one, estimator, task, part.reset_index(drop=True))[0]
            for part in (rows[:cut], rows[cut:])
        ]
        assert np.concatenate([part.features for part in parts]).tolist() == whole.features.tolist()
        np.testing.assert_allclose(
            np.concatenate([part.contributions for part in parts]), whole.contributions, atol=1e-9
        )


@pytest.mark.parametrize("name", ["regression trees", "linear regression"])
def test_the_base_is_the_mean_over_all_of_a_large_background(name: str) -> None:
    estimator, task, kinds, method = MODELS[name]
    known = frame(300)
    estimator.fit(known, target(known, kinds))
    one = Reasoner(estimator, known[:150], task=task, name=name, plan=ReasonPlan(background=150))
    assert one.method == method
    found, _ = explained(one, estimator, task, frame(2, 9))
    np.testing.assert_allclose(found.base, np.mean(estimator.predict(known[:150])), atol=1e-6)


def test_a_row_whose_parts_do_not_add_up_is_asked_about_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, estimator, task = reasoner("regression trees")
    rows = frame(5, 9)
    right, _ = explained(one, estimator, task, rows)
    assert one._own is not None
    inner = one._own.explainer

    class Off:
        """Says something else about the first row."""

        def explain(self, columns: Any) -> Any:
            values, base = inner.explain(columns)
            values[0] += 0.25
            return values, base

    object.__setattr__(one._own, "explainer", Off())
    with caplog.at_level("INFO"):
        found, _ = explained(one, estimator, task, rows)
    assert "1 rows are explained by asking the model" in caplog.text
    assert found.features.tolist() == right.features.tolist()
    np.testing.assert_allclose(found.contributions, right.contributions, atol=1e-6)


def test_the_limit_of_questions_counts_the_rows_that_are_left_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, estimator, task = reasoner("regression trees", max_answers=32 * 20 * 6)
    rows = frame(4, 9)
    assert one._own is not None
    nothing = np.zeros((4, 5, 1)), np.zeros((4, 1)), np.zeros(4, dtype=bool)
    monkeypatch.setattr(type(one._own), "explain", lambda *_: tuple(part.copy() for part in nothing))
    explained(one, estimator, task, rows)
    with pytest.raises(ArgumentError) as caught:
        explained(one, estimator, task, rows)
    assert caught.value.code == "argument.reasons_cost"


def test_a_column_made_of_several_features_is_no_feature() -> None:
    known = frame(200)[["a", "b", "c"]]
    model = make_pipeline(KNNImputer(), RandomForestRegressor(n_estimators=5, random_state=0))
    model.fit(known, known["a"])
    one = Reasoner(model, known.head(10), task=NUMBERS, name="m", plan=ReasonPlan())
    assert one.method == "shap (exact)"


def test_with_many_features_orders_are_sampled_and_still_add_up() -> None:
    rng = np.random.default_rng(0)
    known = pd.DataFrame(rng.normal(size=(200, 10)), columns=list("abcdefghij"))
    model = GaussianNB().fit(known, known["a"] + known["j"] > 0)
    plan = ReasonPlan(top=2, background=10)
    one = Reasoner(model, known.head(10), task=CLASSES, name="m", plan=plan)
    assert (one.method, one.answers_per_row) == (
        "shap (permutation)",
        2 * _shap_asking.PERMUTATIONS * 11 * 10,
    )
    found, answer = explained(one, model, CLASSES, known.tail(4).reset_index(drop=True))
    np.testing.assert_allclose(found.base + found.contributions.sum(axis=1) + found.rest, answer, atol=1e-9)
    again, _ = explained(one, model, CLASSES, known.tail(4).reset_index(drop=True))
    np.testing.assert_array_equal(found.contributions, again.contributions)
    assert {row[0] for row in found.features} <= {"a", "j"}


def test_a_feature_that_adds_nothing_is_no_reason() -> None:
    known = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 5.0, 2.0, 4.0]})
    model = LinearRegression().fit(known, known["a"])
    model.coef_ = np.array([1.0, 0.0])
    one = Reasoner(model, known, task=NUMBERS, name="m", plan=ReasonPlan(top=3))
    columns = explained(one, model, NUMBERS, known.head(1))[0].columns()
    assert list(columns) == [
        "reason_1", "reason_1_contribution", "reason_2", "reason_2_contribution", "reason_3",
        "reason_3_contribution", "reason_base", "reason_rest",
    ]  # fmt: skip
    told = {name: column.to_pylist()[0] for name, column in columns.items()}
    assert told["reason_1"] == "a"
    assert told["reason_1_contribution"] == pytest.approx(-1.5)
    assert {
        told[name] for name in ("reason_2", "reason_3", "reason_2_contribution", "reason_3_contribution")
    } == {None}
    assert told["reason_rest"] == pytest.approx(0.0, abs=1e-12)


def test_too_many_questions_are_refused_before_any_is_asked() -> None:
    one, _, _ = reasoner("neighbors", max_answers=10_000)
    one.refuse_too_many(10_000 // one.answers_per_row)
    with pytest.raises(ArgumentError) as caught:
        one.refuse_too_many(10_000 // one.answers_per_row + 1)
    assert caught.value.code == "argument.reasons_cost"
    assert "background" in caught.value.todo
    assert reasoner("boosting behind an encoder")[0].answers_per_row == 0
    assert reasoner("logistic regression")[0].answers_per_row == 0


@pytest.mark.parametrize(
    "given",
    [
        {"top": -1},
        {"top": 21},
        {"top": True},
        {"background": 0},
        {"max_answers": 0},
        {"rows": 3},
        {"top": "3"},
    ],
)
def test_a_plan_that_is_none_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        ReasonPlan.of(given)
    assert caught.value.code == "argument.reasons"


def test_the_limit_is_no_part_of_what_was_made() -> None:
    assert ReasonPlan(top=3).fingerprint() == ReasonPlan(top=3, max_answers=7).fingerprint()
    assert ReasonPlan(top=3).fingerprint() != ReasonPlan(top=4).fingerprint()
    assert ReasonPlan(top=0, background=9).fingerprint() == []


def test_without_shap_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extras, "has", lambda library: False)
    with pytest.raises(ArgumentError) as caught:
        reasoner("linear regression")
    assert caught.value.code == "argument.extra_missing"
    assert "[explain]" in caught.value.todo
