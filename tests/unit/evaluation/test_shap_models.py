"""Trees and linear models taken apart without asking them: what asking gives, to the last digits."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from airflow_provider_xops.evaluation import _shap_trees
from airflow_provider_xops.evaluation._shap_asking import answers, by_asking
from airflow_provider_xops.evaluation._shap_models import OwnMethod, own_method
from airflow_provider_xops.training.metrics import Task

CLASSES, NUMBERS = Task.CLASSIFICATION, Task.REGRESSION
CITIES = ["Boston", "Newark", "Albany", "Utica", "Troy"]


def frame(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """Two columns of text, three of numbers; gaps in one of each."""
    rng = np.random.default_rng(seed)
    made = pd.DataFrame({name: rng.normal(size=rows) for name in "abc"})
    made.insert(1, "city", rng.choice(CITIES, rows, p=[0.4, 0.3, 0.2, 0.06, 0.04]).astype(object))
    made["kind"] = rng.choice(["x", "y"], rows).astype(object)
    made.loc[rng.random(rows) < 0.2, "b"] = np.nan
    made.loc[rng.random(rows) < 0.1, "city"] = np.nan
    return made


def target(rows: pd.DataFrame, task: Task, kinds: int = 2) -> Any:
    worth = rows["a"] * (rows["city"] == "Boston") + rows["b"].fillna(1) + (rows["kind"] == "x") * rows["c"]
    return np.exp(worth / 4) if task is NUMBERS else pd.qcut(worth, kinds, labels=False).to_numpy()


def hot(last: Any, **options: Any) -> Any:
    """One-hot text; numbers with their gaps told, and binned beside that."""
    parts = [
        ("words", OneHotEncoder(handle_unknown="ignore", **options), ["kind", "city"]),
        ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), ["c", "b", "a"]),
        ("again", KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf"), ["a"]),
    ]
    return make_pipeline(ColumnTransformer(parts), last)


def ordinal(last: Any) -> Any:
    words = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    return make_pipeline(
        ColumnTransformer([("words", words, ["city", "kind"])], remainder="passthrough"), last
    )


def own(model: Any, others: pd.DataFrame, task: Task, *, exact: bool = True) -> OwnMethod | None:
    return own_method(model, others, task=task, name="it", exact=exact, seed=0)


def both(model: Any, rows: pd.DataFrame, others: pd.DataFrame, task: Task, *, exact: bool = True) -> Any:
    """The method's name, and the values made by it and by asking; all rows add up, and the bases agree."""
    found = own(model, others, task, exact=exact)
    assert found is not None
    values, bases, right = found.explain(rows, answers(model, rows, task=task, name="it")[0])
    assert right.all()
    slow, base = by_asking(model, rows, others, task=task, name="it", seed=0, exact=exact)
    np.testing.assert_allclose(bases, np.tile(base, (len(rows), 1)), atol=1e-9)
    return found.method, values, slow


FOREST = {"n_estimators": 4, "max_depth": 5, "random_state": 0}


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (hot(RandomForestRegressor(**FOREST)), 0),
        (hot(RandomForestRegressor(**FOREST), drop="first"), 0),
        (hot(RandomForestRegressor(**FOREST), min_frequency=0.1), 0),
        (hot(HistGradientBoostingRegressor(max_iter=5), sparse_output=False), 0),
        (hot(DecisionTreeRegressor(max_depth=6)), 0),
        (hot(ExtraTreesClassifier(**FOREST)), 2),
        (hot(ExtraTreesClassifier(**FOREST)), 3),
        (ordinal(HistGradientBoostingRegressor(max_iter=5)), 0),
    ],
    ids=lambda value: type(value.steps[-1][1]).__name__ if hasattr(value, "steps") else str(value),
)
def test_trees_behind_encoders_say_what_every_combination_of_features_says(model: Any, kinds: int) -> None:
    task, known = (CLASSES, frame()) if kinds else (NUMBERS, frame())
    model.fit(known, target(known, task, kinds))
    method, values, slow = both(model, frame(4, 9), known.head(12), task)
    assert method == "shap (tree)"
    assert np.abs(slow).max() > 0.01
    np.testing.assert_allclose(values, slow, atol=1e-9)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("last", "kinds"),
    [
        (LogisticRegression(), 2),
        (LogisticRegression(), 3),
        (SGDClassifier(loss="log_loss", random_state=0), 3),
        (PoissonRegressor(), 0),
    ],
    ids=["two classes", "three classes", "one against the others", "counts"],
)
def test_of_a_function_of_a_sum_the_same_is_computed_that_asking_gives(
    last: Any, kinds: int, exact: bool
) -> None:
    task, known = (CLASSES, frame()) if kinds else (NUMBERS, frame())
    model = hot(last).fit(known, target(known, task, kinds))
    method, values, slow = both(model, frame(3, 9), known.head(8), task, exact=exact)
    assert method == f"shap ({'exact' if exact else 'permutation'}, linear)"
    assert np.abs(slow).max() > 0.01
    np.testing.assert_allclose(values, slow, atol=1e-9)


def test_of_a_linear_regression_a_feature_has_what_its_columns_add() -> None:
    known = frame()
    model = hot(Ridge()).fit(known, target(known, NUMBERS))
    method, values, slow = both(model, frame(4, 9), known.head(12), NUMBERS)
    assert method == "shap (linear)"
    np.testing.assert_allclose(values, slow, atol=1e-9)


def test_a_value_that_is_a_threshold_goes_where_the_model_sends_it() -> None:
    # given: with more values than bins, thresholds are values of training rows, which single precision moves
    known = pd.DataFrame({name: np.random.default_rng(1).normal(size=2_000) for name in "abc"})
    model = HistGradientBoostingClassifier(max_iter=20).fit(known, known["a"] + known["b"] * known["c"] > 0)
    tied = {
        node["num_threshold"]
        for (tree,) in model._predictors
        for node in tree.nodes
        if node["feature_idx"] == 0 and not node["is_leaf"]
    }
    rows = known[known["a"].isin(tied)].head(20).reset_index(drop=True)
    assert len(rows) == 20
    found = own(model, rows, CLASSES)
    assert found is not None
    values, bases, _ = found.explain(rows, model.predict_proba(rows)[:, 1:])
    said = model.predict_proba(rows)[:, 1]
    np.testing.assert_allclose(bases[:, 0] + values[:, :, 0].sum(axis=1), said, atol=1e-12)
    np.testing.assert_allclose(bases[:, 0], said.mean(), atol=1e-12)


@pytest.mark.parametrize(
    "last", [HistGradientBoostingClassifier(max_iter=15), GradientBoostingClassifier(n_estimators=15)]
)
def test_of_boosted_classes_the_values_are_shaps(last: Any) -> None:
    import shap

    # given: few different values, none of which single precision brings to the other side of a threshold
    rng = np.random.default_rng(2)
    known = pd.DataFrame(rng.integers(0, 12, size=(500, 4)).astype(float), columns=list("abcd"))
    known.loc[rng.random(500) < 0.1, "d"] = np.nan if "Hist" in type(last).__name__ else 3.0
    model = last.fit(known, known["a"] * known["b"] + known["d"].fillna(20) > 40)
    rows, others = known.head(30), known.tail(25).reset_index(drop=True)
    found = own(model, others, CLASSES)
    assert found is not None
    assert found.method == "shap (tree)"
    values, bases, right = found.explain(rows, model.predict_proba(rows)[:, 1:])
    assert right.all()
    theirs = shap.TreeExplainer(model, others.to_numpy(), model_output="probability")(rows.to_numpy())
    np.testing.assert_allclose(values[:, :, 0], theirs.values, atol=1e-5)
    np.testing.assert_allclose(bases[:, 0], theirs.base_values, atol=1e-5)


@pytest.mark.parametrize("logistic", [True, False])
def test_rows_in_blocks_and_what_is_compiled_say_the_same_as_plain_python(
    monkeypatch: pytest.MonkeyPatch, logistic: bool
) -> None:
    known = frame(120)
    kind = HistGradientBoostingClassifier if logistic else HistGradientBoostingRegressor
    task = CLASSES if logistic else NUMBERS
    model = ordinal(kind(max_iter=3, max_leaf_nodes=6)).fit(known, target(known, task))
    rows = frame(9, 4)
    said = answers(model, rows, task=task, name="it")[0]

    def values() -> Any:
        found = own(model, known.head(10), task)
        assert found is not None
        return found.explain(rows, said)[0]

    whole = values()
    monkeypatch.setattr(_shap_trees, "AT_ONCE", 4)
    np.testing.assert_array_equal(values(), whole)
    monkeypatch.setattr(_shap_trees, "_compiled", lambda function: function)
    np.testing.assert_allclose(values(), whole, atol=1e-15)


def test_a_background_row_of_nearly_the_same_log_odds_counts_its_slope() -> None:
    shares = functools.partial(_shap_trees.Trees._shares, rows=None)
    for apart in (0.0, 1e-12, 1e-7, 1e-5, 1.0):

        class Stub:
            _logistic, _known = True, np.array([[1.0]])

            def _sums(self, rows: Any, apart: float = apart) -> Any:
                return np.array([[1.0 + apart]])

        slope = shares(Stub())[0, 0]  # type: ignore[arg-type]
        middle = 1 / (1 + np.exp(-1 - apart / 2))
        assert slope == pytest.approx(middle * (1 - middle), rel=0.05 if apart == 1 else 1e-9)


def test_a_feature_chosen_beside_another_way_to_it_counts_once() -> None:
    known = frame()[["a", "b", "c"]]
    ways = make_union(make_pipeline(SimpleImputer(), StandardScaler()), SimpleImputer(add_indicator=True))
    model = make_pipeline(ways, SelectKBest(f_regression, k=5), RandomForestRegressor(**FOREST))
    model.fit(known, known["a"] * 2 + known["b"].isna() + known["c"])
    method, values, slow = both(model, frame(4, 9)[["a", "b", "c"]], known.head(10), NUMBERS)
    assert method == "shap (tree)"
    np.testing.assert_allclose(values, slow, atol=1e-9)


@pytest.mark.parametrize("step", [KNNImputer(), make_pipeline(SimpleImputer(), PCA(2))])
def test_columns_made_of_several_features_are_not_taken_for_one(step: Any) -> None:
    known = frame()[["a", "b", "c"]]
    for last in (RandomForestRegressor(**FOREST), Ridge()):
        model = make_pipeline(step, last).fit(known, known["a"])
        assert own(model, known.head(10), NUMBERS) is None


def test_what_is_not_the_sum_it_looks_like_is_not_believed() -> None:
    class Bounded(Ridge):
        def predict(self, rows: Any) -> Any:
            return np.clip(super().predict(rows), -0.5, 0.5)

    known = frame()[["a", "c"]]
    model = Bounded().fit(known, known["a"])
    assert own(model, known.head(30), NUMBERS) is None
    # A row that shows it where the background does not is told apart.
    calm = known[known["a"].abs() < 0.3].head(10)
    found = own(model, calm, NUMBERS)
    assert found is not None
    rows = pd.DataFrame({"a": [0.1, 2.0], "c": [0.0, 0.0]})
    assert found.explain(rows, model.predict(rows)[:, None])[2].tolist() == [True, False]


def test_a_leaf_of_too_many_features_is_left_to_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    known = frame()
    model = ordinal(RandomForestRegressor(**FOREST)).fit(known.fillna({"b": 0}), target(known, NUMBERS))
    assert own(model, known.head(10), NUMBERS) is not None
    monkeypatch.setattr(_shap_trees, "MAX_BITS", 2)
    assert own(model, known.head(10), NUMBERS) is None
