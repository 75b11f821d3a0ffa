"""Degradation curves on models whose degradation is known, and perturbations that do what they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation import _losses
from airflow_provider_xops.evaluation.plan import RobustnessPlan
from airflow_provider_xops.evaluation.robustness import curves, perturbed
from airflow_provider_xops.records import RobustnessFigure
from airflow_provider_xops.training.metrics import Task
from tests.unit.evaluation.scored_cases import scored_of

ROWS = 4_000
CITIES = ["Boston", "Newark", "Denver"]


class Echo:
    """Predicts the feature itself, and nothing where it is missing."""

    def predict(self, rows: Any) -> Any:
        return rows["x"].fillna(0.0).to_numpy()


def echo(rows: int = ROWS, **changes: Any) -> Any:
    x = np.random.default_rng(0).normal(size=rows)
    table = pa.table({"x": x, "y": x})
    return scored_of(Echo(), table, features=["x"], task=Task.REGRESSION, **changes)


def classifier(handle_unknown: str = "ignore") -> Any:
    rng = np.random.default_rng(1)
    city = rng.choice(CITIES, ROWS)
    x, flag = rng.normal(size=ROWS), rng.integers(0, 2, ROWS)
    y = (x + (city == "Boston") * 3 + rng.normal(size=ROWS) > 1).astype(np.int64)
    table = pa.table({"x": x, "flag": pa.array(flag == 1), "city": city, "y": y})
    encode = ColumnTransformer(
        [("city", OneHotEncoder(handle_unknown=handle_unknown), ["city"])], remainder="passthrough"
    )
    model = make_pipeline(encode, LogisticRegression())
    frame = table.select(["x", "flag", "city"]).to_pandas().assign(flag=lambda rows: rows.flag.astype(float))
    model.fit(frame, y)
    return scored_of(model, table, features=["x", "flag", "city"])


def points(figures: tuple[RobustnessFigure, ...]) -> dict[tuple[str, float], RobustnessFigure]:
    return {(figure.perturbation, figure.level): figure for figure in figures}


def test_the_curves_are_those_of_theory() -> None:
    """A model that repeats its input errs by exactly the noise, the shift, and the values that are gone."""
    plan = RobustnessPlan(levels=(0.1, 0.3), repeats=4, max_rows=None)
    found = points(curves(echo(), plan, metric="rmse"))
    assert {kind for kind, _ in found} == {"noise", "missing", "shift"}
    for level in (0.1, 0.3):
        assert found["noise", level].value == pytest.approx(level, rel=0.03)
        assert found["shift", level].value == pytest.approx(level, rel=0.02)
        # What is missing is predicted as 0, so of a share p the square of the value is lost.
        assert found["missing", level].value == pytest.approx(math.sqrt(level), rel=0.05)
    for figure in found.values():
        assert figure.baseline == 0
        assert figure.loss == pytest.approx(figure.value)
        assert figure.lower <= figure.loss <= figure.upper
    assert {figure.value for (_, level), figure in found.items() if level == 0} == {0.0}


def test_the_interval_covers_the_true_loss() -> None:
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(100 + seed)
        x = rng.normal(size=500)
        scored = scored_of(Echo(), pa.table({"x": x, "y": x}), features=["x"], task=Task.REGRESSION)
        plan = RobustnessPlan(perturbations=("missing",), levels=(0.3,), repeats=3)
        figure = points(curves(scored, plan, metric="mae", seed=seed))["missing", 0.3]
        true = 0.3 * math.sqrt(2 / math.pi)
        covered.append(figure.lower <= true <= figure.upper)
    # 40 studies of 95 percent: fewer than 33 is a chance of one in two thousand.
    assert sum(covered) >= 33


def test_losses_grow_with_the_level_and_are_positive_where_the_model_is_worse() -> None:
    plan = RobustnessPlan(levels=(0.1, 0.8), repeats=3)
    found = points(curves(classifier(), plan, metric="roc_auc"))
    for kind in ("noise", "typos"):
        assert found[kind, 0.0].loss == 0
        assert found[kind, 0.1].loss > 0
        assert found[kind, 0.8].loss > found[kind, 0.1].loss
        assert found[kind, 0.8].lower > 0
        assert found[kind, 0.8].value == pytest.approx(found[kind, 0.8].baseline - found[kind, 0.8].loss)


def test_a_model_that_cannot_take_the_disturbed_rows_has_no_figure_rather_than_a_good_one() -> None:
    plan = RobustnessPlan(levels=(0.2,), perturbations=("missing", "typos", "noise"))
    found = points(curves(classifier("error"), plan, metric="roc_auc"))
    for kind in ("missing", "typos"):
        figure = found[kind, 0.2]
        assert (figure.value, figure.loss, figure.lower) == (None, None, None)
        assert figure.baseline is not None
    assert found["noise", 0.2].value is not None


def test_named_features_are_disturbed_one_by_one() -> None:
    plan = RobustnessPlan(levels=(0.5,), features=("x", "flag", "city"), repeats=1)
    found = curves(classifier(), plan, metric="accuracy")
    kinds = {(figure.feature, figure.perturbation) for figure in found}
    # A flag has neither noise nor shift, and only text has typing errors.
    assert kinds == {
        ("x", "noise"), ("x", "missing"), ("x", "shift"), ("flag", "missing"), ("city", "missing"),
        ("city", "typos"),
    }  # fmt: skip


def test_the_same_seed_gives_the_same_curve_whatever_else_is_asked() -> None:
    scored = echo(800)
    alone = curves(scored, RobustnessPlan(levels=(0.1,), perturbations=("noise",)), metric="mae", seed=3)
    beside = curves(scored, RobustnessPlan(levels=(0.1,)), metric="mae", seed=3)
    assert set(alone) <= set(beside)
    assert alone != curves(
        scored, RobustnessPlan(levels=(0.1,), perturbations=("noise",)), metric="mae", seed=4
    )


def test_a_sample_of_the_rows_is_enough_and_clusters_stay_together() -> None:
    scored = echo(5_000, clusters=np.arange(5_000) // 100)
    plan = RobustnessPlan(levels=(0.2,), max_rows=1_000, perturbations=("noise",))
    figure = points(curves(scored, plan, metric="rmse"))["noise", 0.2]
    assert figure.value == pytest.approx(0.2, rel=0.1)
    assert figure.lower is not None
    one = echo(300, clusters=np.zeros(300))
    alone = points(curves(one, plan, metric="rmse"))["noise", 0.2]
    assert alone.loss is not None
    assert (alone.lower, alone.upper) == (None, None)


words = st.lists(st.one_of(st.none(), st.text(max_size=6)), min_size=1, max_size=40)


@given(words, st.floats(0, 1), st.integers(0, 99))
def test_typing_errors_change_so_many_cells_and_leave_the_others(
    values: list[str | None], level: float, seed: int
) -> None:
    frame = pd.DataFrame(
        {"w": pd.Series([np.nan if each is None else each for each in values], dtype=object)}
    )
    usable = sum(bool(each) for each in values)
    made = perturbed(frame, "typos", level, ["w"], np.random.default_rng(seed))["w"]
    changed = 0
    for before, after in zip(frame["w"], made, strict=True):
        if isinstance(before, str):
            assert isinstance(after, str)
            assert abs(len(after) - len(before)) <= 2
            assert (after == "") == (before == "")
            changed += before != after
        else:
            assert after is before or np.isnan(after)
    # One at least: a disturbance that is none would be one that every model withstands.
    assert changed == min(usable, max(round(level * usable), level > 0))


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=40),
    st.sampled_from(["noise", "missing", "shift"]),
    st.floats(0, 1),
    st.sampled_from([-1.0, 1.0]),
)
def test_other_columns_and_the_given_frame_stay_as_they_are(
    values: list[float], kind: str, level: float, turn: float
) -> None:
    frame = pd.DataFrame({"x": values, "other": values, "w": pd.Series(["a"] * len(values), dtype=object)})
    before = frame.copy()
    made = perturbed(frame, kind, level, ["x"], np.random.default_rng(0), turns={"x": turn})
    pd.testing.assert_frame_equal(frame, before)
    assert made.dtypes.to_dict() == frame.dtypes.to_dict()
    assert made["other"].tolist() == values
    assert made["w"].tolist() == ["a"] * len(values)
    if kind == "missing":
        assert made["x"].isna().sum() == max(round(level * len(values)), level > 0)
    if kind == "shift":
        assert made["x"].to_numpy() - values == pytest.approx(turn * level * np.std(values), abs=1e-9)


def test_times_can_be_missing() -> None:
    frame = pd.DataFrame({"t": pd.Series(pd.date_range("2013-01-01", periods=10)).astype("datetime64[us]")})
    made = perturbed(frame, "missing", 0.3, ["t"], np.random.default_rng(0))
    assert made["t"].isna().sum() == 3
    assert made["t"].dtype == frame["t"].dtype


def test_gaps_are_made_among_the_cells_that_have_a_value() -> None:
    frame = pd.DataFrame({"x": [np.nan] * 50 + [1.0] * 50})
    made = perturbed(frame, "missing", 0.4, ["x"], np.random.default_rng(0))
    assert made["x"].isna().sum() == 50 + 20


def test_what_disturbs_nothing_has_no_figure_rather_than_no_loss() -> None:
    """Columns without a word or a value, and rows so few that the share rounds down to none of them."""
    x = np.random.default_rng(0).normal(size=9)
    empty = pa.array([None] * 9, pa.string())
    table = pa.table({"x": x, "gone": empty, "blank": [""] * 9, "y": x})
    plan = RobustnessPlan(levels=(0.05,), perturbations=("missing", "typos"), repeats=1)
    scored = scored_of(Echo(), table, features=["x", "gone", "blank"], task=Task.REGRESSION)
    found = points(curves(scored, plan, metric="rmse"))
    assert {kind for kind, _ in found} == {"missing"}
    assert found["missing", 0.05].loss > 0


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_a_shift_goes_up_as_often_as_down(repeats: int) -> None:
    """A model that is hurt from one side only loses half of the time, whatever the seed."""

    class Ceiling:
        def predict(self, rows: Any) -> Any:
            return np.maximum(rows["x"].to_numpy(), 0.0)

    table = pa.table({"x": np.linspace(-9, -5, 100), "y": np.zeros(100)})
    scored = scored_of(Ceiling(), table, features=["x"], task=Task.REGRESSION)
    plan = RobustnessPlan(perturbations=("shift",), levels=(20.0,), repeats=repeats)
    lost = {points(curves(scored, plan, metric="mae", seed=seed))["shift", 20.0].loss for seed in range(5)}
    up = 20 * np.std(np.linspace(-9, -5, 100)) - 7
    assert sorted(lost) == pytest.approx([up / 2] * len(lost))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"features": ("z",)}, "no feature z"),
        ({"levels": (2.0,), "perturbations": ("missing",)}, "no share of cells"),
    ],
)
def test_a_plan_that_measures_nothing_is_refused(change: dict[str, Any], hint: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        curves(echo(100), RobustnessPlan(**change), metric="mae")
    assert caught.value.code == "argument.robustness"
    assert hint in str(caught.value)


def test_a_metric_of_another_task_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no metric of regression") as caught:
        curves(echo(100), RobustnessPlan(), metric="roc_auc")
    assert caught.value.code == "argument.metric"


def test_many_rows_go_to_the_model_repeat_by_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    scored, plan = echo(300), RobustnessPlan(levels=(0.2,), repeats=3)
    together = curves(scored, plan, metric="rmse")
    monkeypatch.setattr(_losses, "ROWS_AT_ONCE", 300)
    seen: list[int] = []
    predict = Echo.predict
    monkeypatch.setattr(Echo, "predict", lambda self, rows: (seen.append(len(rows)), predict(self, rows))[1])
    assert curves(scored, plan, metric="rmse") == together
    assert set(seen) == {300}
