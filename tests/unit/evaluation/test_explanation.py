"""Importances whose true size is known, and SHAP values that add up and agree with shap's own."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from airflow_provider_xops.errors import ArgumentError, ModelError
from airflow_provider_xops.evaluation import _extras, _shap, _shap_asking, _shap_models
from airflow_provider_xops.evaluation.explanation import background_of, permutation, shap_values
from airflow_provider_xops.evaluation.plan import ExplanationPlan
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.metrics import Task
from tests.unit.evaluation.scored_cases import scored_of
from tests.unit.lake.helpers import put, segment
from tests.unit.registry.builders import a_model

FEATURES = ["a", "b", "c"]


def linear(rows: int = 2_000, *, seed: int = 0) -> tuple[Any, pa.Table]:
    """y = 3 a + b, and c has nothing to do with it."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 3))
    y = 3 * values[:, 0] + values[:, 1] + rng.normal(size=rows)
    model = LinearRegression().fit(pd.DataFrame(values, columns=FEATURES), y)
    model.coef_, model.intercept_ = np.array([3.0, 1.0, 0.0]), 0.0
    return model, pa.table({**dict(zip(FEATURES, values.T, strict=True)), "y": y})


def classes(rows: int = 400, *, count: int = 2, seed: int = 0) -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, 4)), columns=[*FEATURES, "d"])
    score = frame["a"] * 2 + frame["b"] * frame["c"] + rng.normal(size=rows) / 2
    return frame, np.digitize(score, np.quantile(score, np.linspace(0, 1, count + 1)[1:-1]))


def test_the_importance_is_that_of_theory_and_of_scikit_learn() -> None:
    model, table = linear()
    scored = scored_of(model, table, features=FEATURES, task=Task.REGRESSION)
    plan = ExplanationPlan(repeats=10)
    found = {each.feature: each for each in permutation(scored, plan, metric="r2")}
    assert list(found) == ["a", "b", "c"]
    # R2 loses twice the share of variance that the feature brings (Gregorutti and others 2017).
    variance = float(np.var(table["y"].to_numpy()))
    assert found["a"].value == pytest.approx(2 * 9 / variance, rel=0.1)
    assert found["b"].value == pytest.approx(2 / variance, rel=0.1)
    assert found["c"].value == 0
    theirs = permutation_importance(
        model, table.select(FEATURES).to_pandas(), table["y"].to_numpy(), scoring="r2", n_repeats=10,
        random_state=0,
    ).importances_mean  # fmt: skip
    assert [found[name].value for name in FEATURES] == pytest.approx(theirs, rel=0.05)
    assert {each.method for each in found.values()} == {"permutation"}


def test_the_interval_covers_the_true_importance() -> None:
    covered = []
    for seed in range(40):
        model, table = linear(400, seed=seed)
        scored = scored_of(model, table, features=FEATURES, task=Task.REGRESSION)
        found = permutation(scored, ExplanationPlan(repeats=3), metric="r2", seed=seed)
        one = next(each for each in found if each.feature == "b")
        covered.append(one.lower <= 2 / 11 <= one.upper)
    assert sum(covered) >= 33


def test_it_works_on_text_and_on_whatever_has_predict() -> None:
    class Rule:
        """Not one of scikit-learn's kind."""

        classes_ = np.array(["no", "yes"], dtype=object)

        def predict(self, rows: Any) -> Any:
            return np.where(rows["city"] == "Boston", "yes", "no").astype(object)

    rng = np.random.default_rng(0)
    city = rng.choice(["Boston", "Newark"], 500)
    table = pa.table({"city": city, "n": rng.normal(size=500), "y": np.where(city == "Boston", "yes", "no")})
    scored = scored_of(Rule(), table, features=["city", "n"])
    found = permutation(scored, ExplanationPlan(max_rows=300), metric="accuracy")
    assert [each.feature for each in found] == ["city", "n"]
    assert found[0].value == pytest.approx(0.5, abs=0.1)
    assert found[1].value == found[1].upper == 0


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(n_estimators=10, max_depth=4, random_state=0),
        HistGradientBoostingClassifier(max_iter=10),
        GradientBoostingClassifier(n_estimators=10),
        LogisticRegression(),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("count", [2, 3])
def test_contributions_add_up_to_the_probability(model: Any, count: int) -> None:
    frame, y = classes(count=count)
    model.fit(frame, y)
    made = _shap.contributions(model, frame.head(6), frame.tail(20), task=Task.CLASSIFICATION, name="it")
    said = model.predict_proba(frame.head(6))[:, 1 if count == 2 else 0 :]
    assert made.values.shape == (6, 4, 1 if count == 2 else 3)
    assert made.base + made.values.sum(axis=1) == pytest.approx(said, abs=1e-6)
    assert made.base == pytest.approx(
        model.predict_proba(frame.tail(20))[:, 1 if count == 2 else 0 :].mean(axis=0), abs=1e-6
    )
    assert made.outputs == ((1,) if count == 2 else (0, 1, 2))


def test_trees_and_every_combination_agree() -> None:
    """Two algorithms for one definition: that for trees, and all subsets of features tried."""
    frame, y = classes()
    model = ExtraTreesRegressor(n_estimators=5, max_depth=4, random_state=0).fit(frame, y)
    rows, others = frame.head(5), frame.tail(15)
    quick = _shap.contributions(model, rows, others, task=Task.REGRESSION, name="it")
    slow, base = _shap_asking.by_asking(
        model, rows, others, task=Task.REGRESSION, name="it", seed=0, exact=True
    )
    assert quick.method == "shap (tree)"
    np.testing.assert_allclose(quick.values, slow, atol=1e-9)
    np.testing.assert_allclose(quick.base, base, atol=1e-9)


def test_trees_are_explained_as_shap_explains_them() -> None:
    import shap

    frame, y = classes()
    model = RandomForestClassifier(n_estimators=8, max_depth=4, random_state=0).fit(frame, y)
    rows, others = frame.head(10), frame.tail(30)
    made = _shap.contributions(model, rows, others, task=Task.CLASSIFICATION, name="it")
    own = shap.TreeExplainer(model, data=others, model_output="probability").shap_values(rows)
    assert made.method == "shap (tree)"
    # shap adds up in single precision.
    np.testing.assert_allclose(made.values[:, :, 0], own[:, :, 1], atol=1e-6)


def test_a_linear_regression_is_its_coefficients() -> None:
    import shap

    _, table = linear(300)
    ridge = Ridge().fit(table.select(FEATURES).to_pandas(), table["y"].to_numpy())
    rows, others = table.select(FEATURES).to_pandas().head(9), table.select(FEATURES).to_pandas().tail(50)
    made = _shap.contributions(ridge, rows, others, task=Task.REGRESSION, name="it")
    expected = (rows - others.mean()).to_numpy() * ridge.coef_
    assert made.method == "shap (linear)"
    np.testing.assert_allclose(made.values[:, :, 0], expected, atol=1e-12)
    own = shap.LinearExplainer(ridge, others.to_numpy()).shap_values(rows.to_numpy())
    np.testing.assert_allclose(made.values[:, :, 0], own, atol=1e-12)


def test_a_pipeline_over_text_gaps_and_times_is_explained_by_its_columns() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "city": pd.Series(rng.choice(["Boston", "Newark", None], 300), dtype=object).fillna(np.nan),
            "x": np.where(rng.random(300) < 0.1, np.nan, rng.normal(size=300)),
            "when": pd.Series(pd.date_range("2013-01-01", periods=300, freq="h")).astype("datetime64[us]"),
        }
    )
    y = ((frame["city"] == "Boston") | (frame["x"] > 1)).astype(int)
    encode = ColumnTransformer(
        [
            ("city", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
            ("x", "passthrough", ["x"]),
        ]
    )
    model = make_pipeline(encode, HistGradientBoostingClassifier(max_iter=20)).fit(frame, y)
    rows, others = frame.head(12), frame.tail(20)
    made = _shap.contributions(model, rows, others, task=Task.CLASSIFICATION, name="it")
    assert made.method == "shap (tree)"
    assert made.values.shape == (12, 3, 1)
    np.testing.assert_allclose(
        made.base + made.values[:, :, 0].sum(axis=1), model.predict_proba(rows)[:, 1], atol=1e-9
    )
    # The model never sees the time.
    assert np.abs(made.values[:, 2]).max() < 1e-12
    assert np.abs(made.values[:, 0]).mean() > 0.1


def test_many_features_are_sampled_and_still_add_up() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(80, 16)), columns=[f"f{n}" for n in range(16)])
    y = (frame["f0"] * frame["f1"] + frame["f2"] > 0).astype(int)
    model = GaussianNB().fit(frame, y)
    made = _shap.contributions(model, frame.head(10), frame.tail(20), task=Task.CLASSIFICATION, name="it")
    assert made.method == "shap (permutation)"
    np.testing.assert_allclose(
        made.base + made.values.sum(axis=1), model.predict_proba(frame.head(10))[:, 1:], atol=1e-9
    )


def test_what_two_features_do_together_is_shared_between_them() -> None:
    """Both algorithms on a game whose values are known: a product is halved, a sum is not."""
    rows, others = np.array([2.0, 3.0, 5.0]), np.zeros(3)

    def worth(masks: Any) -> Any:
        x = np.where(masks, rows, others)
        return np.column_stack([x[:, 0] * x[:, 1] + x[:, 2], np.prod(x, axis=1)])

    expected = [[3.0, 10.0], [3.0, 10.0], [5.0, 10.0]]
    np.testing.assert_allclose(_shap_asking._by_combinations(worth, 3), expected)
    orders = [np.array(order) for order in itertools.permutations(range(3))]
    np.testing.assert_allclose(_shap_asking._by_orders(worth, orders), expected)
    # Any one order walked both ways shares a product of two evenly.
    np.testing.assert_allclose(_shap_asking._by_orders(worth, orders[:1])[:, 0], [3.0, 3.0, 5.0])


@pytest.mark.soak
def test_shaps_own_algorithms_say_the_same_of_any_model() -> None:
    """Long only because shap compiles itself at the first call."""
    import shap

    frame, y = classes()
    model = GaussianNB().fit(frame, y)
    made = _shap.contributions(model, frame.head(6), frame.tail(20), task=Task.CLASSIFICATION, name="it")

    def ask(rows: Any) -> Any:
        return model.predict_proba(pd.DataFrame(rows, columns=frame.columns))[:, 1]

    masker = shap.maskers.Independent(frame.tail(20).to_numpy(), max_samples=20)
    own = shap.explainers.Exact(ask, masker)(frame.head(6).to_numpy(), max_evals=16, silent=True)
    np.testing.assert_allclose(made.values[:, :, 0], own.values, atol=1e-12)
    np.testing.assert_allclose(made.base[0], own.base_values, atol=1e-12)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_boosting_libraries_add_up_whichever_way_they_are_explained(library: str) -> None:
    import importlib

    frame, y = classes()
    kind = {"xgboost": "XGBClassifier", "lightgbm": "LGBMClassifier"}[library]
    options = {"n_estimators": 10, "n_jobs": 1} | ({"verbose": -1} if library == "lightgbm" else {})
    model = getattr(importlib.import_module(library), kind)(**options).fit(frame, y)
    made = _shap.contributions(model, frame.head(5), frame.tail(20), task=Task.CLASSIFICATION, name="it")
    np.testing.assert_allclose(
        made.base + made.values.sum(axis=1), model.predict_proba(frame.head(5))[:, 1:], atol=1e-4
    )


def test_an_algorithm_that_does_not_add_up_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, y = classes()
    model = RandomForestClassifier(n_estimators=3, random_state=0).fit(frame, y)
    right = _shap_models.Trees.explain

    def wrong(*arguments: Any) -> Any:
        values, base = right(*arguments)
        return values + 0.01, base

    monkeypatch.setattr(_shap_models.Trees, "explain", wrong)
    made = _shap.contributions(model, frame.head(2), frame.tail(10), task=Task.CLASSIFICATION, name="it")
    assert made.method == "shap (exact)"


def test_ablation_is_what_one_feature_changes() -> None:
    model, table = linear(50)
    frame = table.select(FEATURES).to_pandas()
    made = _shap.ablation(model, frame.head(3), frame.tail(20), task=Task.REGRESSION, name="it")
    expected = (frame.head(3) - frame.tail(20).mean()).to_numpy() * [3.0, 1.0, 0.0]
    np.testing.assert_allclose(made.values[:, :, 0], expected, atol=1e-12)
    assert not made.additive


def test_mean_absolute_shap_values_have_an_interval() -> None:
    model, table = linear(3_000)
    clustered = scored_of(
        model, table, features=FEATURES, task=Task.REGRESSION, clusters=np.arange(3_000) // 60
    )
    scored = scored_of(model, table, features=FEATURES, task=Task.REGRESSION)
    frame = table.select(FEATURES).to_pandas()
    plan = ExplanationPlan(shap=True, shap_rows=2_000, background=100)
    found = shap_values(scored, frame, plan)
    assert [each.feature for each in found] == FEATURES
    # The mean distance of a standard normal from the background's mean, times the coefficient.
    assert found[0].value == pytest.approx(3 * np.sqrt(2 / np.pi), rel=0.1)
    assert found[0].lower < found[0].value < found[0].upper
    assert (found[2].value, found[2].lower, found[2].upper) == (0, 0, 0)
    assert shap_values(clustered, frame, plan)[0].lower != found[0].lower


def test_the_background_is_the_training_rows_and_proved(lake: Lake) -> None:
    rows = pa.table({"a": np.arange(40.0), "b": np.arange(40.0), "y": np.arange(40) % 2})
    put(lake, "rows", segment("d1", "f", rows))
    chosen = selections.choose(
        lake, dataset=head(lake, "rows"), partitions=None, columns=["a", "b", "y"], target="y",
        split=selections.split_from({"kind": "random", "fraction": 0.5}),
    )  # fmt: skip
    model = a_model(features=("a",), training=chosen.training)
    made = background_of(lake, model, rows=10)
    assert list(made.columns) == ["a"]
    assert set(made["a"]) < set(chosen.training_rows["a"].to_pylist())
    assert len(made) == 10
    with pytest.raises(ModelError, match="not known"):
        background_of(lake, a_model(training=None), rows=10)


def test_what_cannot_be_explained_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, table = linear(60)
    scored = scored_of(model, table, features=FEATURES, task=Task.REGRESSION)
    frame = table.select(FEATURES).to_pandas()
    with pytest.raises(ArgumentError, match="not the model's features"):
        shap_values(scored, frame[["b", "a", "c"]], ExplanationPlan())
    monkeypatch.setattr(_extras.util, "find_spec", lambda _: None)
    with pytest.raises(ArgumentError) as caught:
        shap_values(scored, frame, ExplanationPlan())
    assert caught.value.code == "argument.extra_missing"
    assert "airflow-provider-xops[explain]" in str(caught.value)
