"""Figures by group against fairlearn's own functions, and intervals that hold what they promise."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fairlearn import metrics as fair
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from statsmodels.stats.proportion import proportion_confint

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.evaluation import _extras, _group_draws
from airflow_provider_xops.evaluation._groups import groups_of
from airflow_provider_xops.evaluation.fairness import CRITERIA, measure
from airflow_provider_xops.evaluation.plan import FairnessPlan
from airflow_provider_xops.records import FairnessFigure
from airflow_provider_xops.training.metrics import Task
from tests.unit.evaluation.scored_cases import mortgages, said_only, scored_of

PLAN = FairnessPlan(attributes=("g",), min_rows=10)
FEATURES = ["dir", "hir", "lvr", "ccs", "mcs", "uria"]


def unfair(rows: int = 900, *, seed: int = 0, clusters: Any = None) -> Any:
    """Three groups of which the last is chosen less often."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["a", "b", "c"], rows, p=[0.5, 0.3, 0.2])
    score = rng.random(rows) * np.where(group == "c", 0.7, 1.0)
    truth = (rng.random(rows) < score).astype(np.int64)
    said = (score > 0.5).astype(np.int64)
    return said_only(
        pa.table({"g": group}), truth, said, classes=np.array([0, 1]),
        probabilities=np.column_stack([1 - score, score]), clusters=clusters,
    )  # fmt: skip


def by_metric(figures: tuple[FairnessFigure, ...]) -> dict[str, FairnessFigure]:
    return {figure.metric: figure for figure in figures}


def test_figures_gaps_and_ratios_are_fairlearns() -> None:
    scored = unfair()
    found = by_metric(measure(scored, PLAN))
    truth, said = scored.truth, scored.challenger.said.labels
    group = scored.table["g"].to_numpy(zero_copy_only=False)
    options = {"sensitive_features": group}
    for metric, gap, ratio in [
        ("selection_rate", fair.demographic_parity_difference, fair.demographic_parity_ratio),
        ("true_positive_rate", fair.equal_opportunity_difference, fair.equal_opportunity_ratio),
        ("equalized_odds", fair.equalized_odds_difference, fair.equalized_odds_ratio),
    ]:
        assert found[metric].gap == pytest.approx(gap(truth, said, **options), abs=1e-12)
        assert found[metric].ratio == pytest.approx(ratio(truth, said, **options), abs=1e-12)
    plain = {
        "selection_rate": fair.selection_rate, "true_positive_rate": fair.true_positive_rate,
        "false_positive_rate": fair.false_positive_rate, "precision": sk.precision_score,
        "accuracy": sk.accuracy_score,
    }  # fmt: skip
    for metric, function in plain.items():
        frame = fair.MetricFrame(metrics=function, y_true=truth, y_pred=said, **options)
        assert [each.group for each in found[metric].groups] == ["a", "b", "c"]
        assert [each.value for each in found[metric].groups] == pytest.approx(list(frame.by_group))
        assert found[metric].gap == pytest.approx(frame.difference())
        assert [each.rows for each in found[metric].groups] == [int((group == name).sum()) for name in "abc"]
    areas = [
        sk.roc_auc_score(truth[group == name], scored.challenger.said.scores[group == name]) for name in "abc"
    ]
    assert [each.value for each in found["roc_auc"].groups] == pytest.approx(areas)
    assert found["roc_auc"].gap == pytest.approx(max(areas) - min(areas))
    assert {metric: figure.criterion for metric, figure in found.items()} == {
        metric: CRITERIA[metric] for metric in found
    }


def test_every_gap_lies_in_its_interval_and_every_value_in_its_own() -> None:
    for figure in measure(unfair(), PLAN):
        assert figure.gap is not None
        assert figure.gap_lower is not None
        assert figure.gap_upper is not None
        assert 0 <= figure.gap_lower <= figure.gap <= figure.gap_upper <= 1
        for group in figure.groups:
            assert group.lower is not None
            assert group.lower <= group.value <= group.upper


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 8),
)
@settings(max_examples=40)
def test_whatever_the_rows_nothing_undefined_is_a_number(rows: list[Any], minimum: int) -> None:
    group, truth, said = (np.array(column) for column in zip(*rows, strict=True))
    scored = said_only(pa.table({"g": group}), truth.astype(int), said.astype(int), classes=np.array([0, 1]))
    plan = dataclasses.replace(PLAN, min_rows=minimum)
    for figure in measure(scored, plan, resamples=100):
        names = {each.group for each in figure.groups}
        assert names.isdisjoint(figure.left_out)
        assert figure.metric == "equalized_odds" or names | set(figure.left_out) == set(group)
        for each in figure.groups:
            mine = group == each.group
            assert mine.sum() >= minimum
            bottom = {"true_positive_rate": truth, "false_positive_rate": ~truth, "precision": said}
            assert np.any(mine & bottom.get(figure.metric, np.ones(len(mine), bool)))
            assert each.lower is not None
            assert 0 <= each.lower <= each.value <= each.upper <= 1
        if figure.metric != "equalized_odds":
            values = [each.value for each in figure.groups]
            expected = max(values) - min(values) if len(values) > 1 else None
            assert figure.gap == (None if expected is None else pytest.approx(expected, abs=1e-12))
        assert (figure.gap is None) <= (figure.gap_lower is None)


def test_a_group_of_which_nothing_is_known_is_left_out_and_not_zero() -> None:
    group = np.repeat(["a", "b", "c"], [200, 200, 60])
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, len(group))
    truth[group == "c"] = 0
    scored = said_only(
        pa.table({"g": group}), truth, rng.integers(0, 2, len(group)), classes=np.array([0, 1])
    )
    found = by_metric(measure(scored, PLAN))
    assert found["true_positive_rate"].left_out == ("c",)
    assert [each.group for each in found["true_positive_rate"].groups] == ["a", "b"]
    assert found["equalized_odds"].left_out == ("c",)
    assert found["selection_rate"].left_out == ()
    few = by_metric(measure(scored, dataclasses.replace(PLAN, min_rows=250)))
    assert few["accuracy"].left_out == ("a", "b", "c")
    assert (few["accuracy"].groups, few["accuracy"].gap, few["equalized_odds"].gap) == ((), None, None)


def test_a_share_has_the_jeffreys_interval() -> None:
    hits, of = np.array([0, 7, 40]), np.array([12, 30, 40])
    codes = np.repeat([0, 1, 2], of)
    top = np.concatenate([np.arange(count) < hit for hit, count in zip(hits, of, strict=True)]).astype(float)
    lower, upper = _group_draws.jeffreys(top, np.ones(len(top)), codes, 0.9)
    expected = [proportion_confint(h, n, alpha=0.1, method="jeffreys") for h, n in zip(hits, of, strict=True)]
    assert lower[1:] == pytest.approx([low for low, _ in expected][1:])
    assert upper[:2] == pytest.approx([high for _, high in expected][:2])
    assert (lower[0], upper[2]) == (0.0, 1.0)


def studies(
    rates: list[float], sizes: list[int], *, count: int, seed: int, per_cluster: int = 0
) -> list[tuple[float, float]]:
    """Gap intervals of made-up studies; with clusters, all rows of one share their outcome."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    found = []
    for _ in range(count):
        chance, clusters = rng.random(len(codes)), None
        if per_cluster:
            clusters = np.arange(len(codes)) // per_cluster
            chance = chance[clusters * per_cluster]
        top = (chance < np.asarray(rates)[codes]).astype(float)
        every = np.ones(len(codes))
        made = _group_draws.ratios(top, every, codes, clusters, share=True, resamples=400, rng=rng)
        values = np.bincount(codes, weights=top) / np.asarray(sizes)
        lower, upper = _group_draws.largest_gap([values], [made], 0.95)
        assert lower is not None
        assert upper is not None
        found.append((lower, upper))
    return found


@pytest.mark.parametrize(("rates", "gap"), [([0.3, 0.3, 0.3], 0.0), ([0.1, 0.2, 0.35], 0.25)])
def test_the_gaps_interval_covers_the_true_gap(rates: list[float], gap: float) -> None:
    found = studies(rates, [400, 150, 80], count=600, seed=1)
    covered = np.mean([lower <= gap <= upper for lower, upper in found])
    # It is a band over all pairs, so at most 5 percent may be missed; 600 studies tell 0.95 from 0.925.
    assert covered >= 0.925
    beyond_chance = np.mean([lower > 0 for lower, _ in found])
    assert (beyond_chance <= 0.075) if gap == 0 else (beyond_chance >= 0.9)


def test_rows_of_a_cluster_count_as_one() -> None:
    """Outcomes shared by ten rows: as independent rows they would show gaps that are not there."""
    clustered = studies([0.3, 0.3], [600, 600], count=150, seed=2, per_cluster=10)
    assert np.mean([lower > 0 for lower, _ in clustered]) <= 0.11
    scored = unfair(900, clusters=np.arange(900) // 30)
    apart = by_metric(measure(unfair(900), PLAN))
    together = by_metric(measure(scored, PLAN))
    assert together["selection_rate"].gap == apart["selection_rate"].gap
    assert together["roc_auc"].gap_upper != apart["roc_auc"].gap_upper


def days(count: int, *, rows: int = 20, seed: int = 0, spread: float = 0.12) -> tuple[Any, Any, Any]:
    """Hits, groups and clusters: a cluster raises or lowers each group's share, and no group is favored."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(count), rows)
    codes = np.tile([0, 1], count * rows // 2)
    chance = np.clip(0.4 + rng.normal(0, spread, (count, 2))[clusters, codes], 0, 1)
    return (rng.random(len(codes)) < chance).astype(float), codes, clusters


@pytest.mark.parametrize("share", [True, False])
def test_few_clusters_raise_no_more_false_alarms_than_many(share: bool) -> None:
    alarms = []
    rng = np.random.default_rng(5)
    for seed in range(500):
        top, codes, clusters = days(10, rows=40, seed=seed)
        every = np.ones(len(top))
        made = _group_draws.ratios(top, every, codes, clusters, share=share, resamples=400, rng=rng)
        lower, _ = _group_draws.largest_gap([np.bincount(codes, top) / np.bincount(codes)], [made], 0.95)
        alarms.append(lower > 0)
    # Of 500 studies 5 percent are 25; 39 or more are a chance of one in 200.
    assert sum(alarms) < 39


def test_under_ten_clusters_there_is_no_interval() -> None:
    for count in (1, 3, 9):
        figures = by_metric(measure(unfair(900, clusters=np.arange(900) % count), PLAN, resamples=100))
        for figure in figures.values():
            assert figure.gap is not None
            assert (figure.gap_lower, figure.gap_upper) == (None, None)
            assert {(each.lower, each.upper) for each in figure.groups} <= {(None, None)}


def test_many_clusters_are_not_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    top, codes, clusters = days(2_500)
    bottom = np.random.default_rng(1).integers(0, 2, len(top)).astype(float)
    options: dict[str, Any] = {"share": True, "resamples": 3_000}
    quick = _group_draws.ratios(
        top * bottom, bottom, codes, clusters, **options, rng=np.random.default_rng(2)
    )
    monkeypatch.setattr(_group_draws, "NORMAL_FROM", 10_000)
    drawn = _group_draws.ratios(
        top * bottom, bottom, codes, clusters, **options, rng=np.random.default_rng(2)
    )
    assert quick.mean(axis=0) == pytest.approx(drawn.mean(axis=0), abs=1e-3)
    assert quick.std(axis=0) == pytest.approx(drawn.std(axis=0), rel=0.05)
    assert np.corrcoef(quick.T)[0, 1] == pytest.approx(np.corrcoef(drawn.T)[0, 1], abs=0.06)


def test_the_gap_of_many_groups_is_the_one_over_all_pairs_at_once() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(7)
    made = values + rng.normal(0, 0.1, (500, 7))
    pairs = list(itertools.combinations(range(7), 2))
    moved = np.column_stack([made[:, one] - made[:, other] for one, other in pairs])
    middles, errors = moved.mean(axis=0), moved.std(axis=0)
    reach = np.quantile(np.max(np.abs(moved - middles) / errors, axis=1), 0.9) * errors
    lower, upper = _group_draws.largest_gap([values], [made], 0.9)
    gap = max(abs(values[one] - values[other]) for one, other in pairs)
    assert lower == pytest.approx(max(0.0, min(np.max(np.abs(middles) - reach), gap)))
    assert upper == pytest.approx(max(np.max(np.abs(middles) + reach), gap))


def test_five_hundred_groups_fit_into_little_memory() -> None:
    rng = np.random.default_rng(0)
    made = rng.normal(size=(400, 500))
    tracemalloc.start()
    _group_draws.largest_gap([made[0]], [made], 0.95)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All 124,750 pairs at once would be 400 MB.
    assert peak < 20e6


def test_intervals_do_not_depend_on_the_unit_of_the_target() -> None:
    rng = np.random.default_rng(0)
    group, truth = np.repeat(["a", "b"], 200), rng.normal(size=400)
    said = truth + rng.normal(size=400)
    found = []
    for unit in (1.0, 1e-13):
        scored = said_only(pa.table({"g": group}), truth * unit, said * unit, task=Task.REGRESSION)
        found.append(by_metric(measure(scored, PLAN)))
    for metric in ("mae", "mean_error"):
        assert found[1][metric].gap_upper == pytest.approx(found[0][metric].gap_upper * 1e-13, rel=1e-6)


def test_the_area_under_the_curve_varies_as_delong_says() -> None:
    """Against the variance of an independent, slow computation over all pairs."""
    rng = np.random.default_rng(3)
    truth = rng.random(180) < 0.4
    scores = np.round(rng.normal(size=180) + truth, 1)
    pairs = (scores[truth][:, None] > scores[~truth][None, :]) + 0.5 * (
        scores[truth][:, None] == scores[~truth][None, :]
    )
    variance = pairs.mean(axis=1).var(ddof=1) / truth.sum() + pairs.mean(axis=0).var(ddof=1) / (~truth).sum()
    codes = np.zeros(180, dtype=int)
    made = _group_draws.auc(truth, scores, codes, None, resamples=40_000, rng=rng)
    assert made.mean() == pytest.approx(pairs.mean(), abs=0.001)
    assert made.std() == pytest.approx(np.sqrt(variance), rel=0.03)
    alone = _group_draws.auc(truth, scores, codes, np.arange(180), resamples=40_000, rng=rng)
    assert alone.std() == pytest.approx(np.sqrt(variance), rel=0.04)


def test_a_perfect_area_has_no_interval_rather_than_one_without_width() -> None:
    truth = np.tile([0, 1], 50)
    scores = truth * 0.8 + 0.1
    scored = said_only(
        pa.table({"g": np.repeat(["a", "b"], 50)}), truth, truth, classes=np.array([0, 1]),
        probabilities=np.column_stack([1 - scores, scores]),
    )  # fmt: skip
    figure = by_metric(measure(scored, PLAN))["roc_auc"]
    assert (figure.gap, figure.gap_lower, figure.gap_upper) == (0.0, None, None)
    assert [(each.value, each.lower) for each in figure.groups] == [(1.0, None), (1.0, None)]


def test_a_regressor_is_looked_at_for_who_is_overrated() -> None:
    rng = np.random.default_rng(4)
    group = np.repeat(["a", "b"], [300, 2_500])
    truth = rng.normal(size=len(group))
    errors = rng.normal(size=len(group)) + np.where(group == "a", 0.5, 0.0)
    scored = said_only(pa.table({"g": group}), truth, truth + errors, task=Task.REGRESSION)
    found = by_metric(measure(scored, PLAN))
    assert set(found) == {"mae", "mean_error"}
    means = [errors[group == name].mean() for name in "ab"]
    assert [each.value for each in found["mean_error"].groups] == pytest.approx(means)
    assert found["mean_error"].ratio is None
    assert found["mean_error"].gap == pytest.approx(means[0] - means[1])
    assert found["mean_error"].gap_lower == pytest.approx(means[0] - means[1] - 1.96 * 0.061, abs=0.02)
    maes = [sk.mean_absolute_error(truth[group == name], (truth + errors)[group == name]) for name in "ab"]
    assert [each.value for each in found["mae"].groups] == pytest.approx(maes)


def test_of_many_classes_the_favorable_one_is_named() -> None:
    rng = np.random.default_rng(5)
    classes = np.array(["deny", "grant", "wait"], dtype=object)
    truth, said = rng.choice(classes, 400), rng.choice(classes, 400)
    scored = said_only(pa.table({"g": rng.choice(["a", "b"], 400)}), truth, said, classes=classes)
    assert set(by_metric(measure(scored, PLAN))) == {"accuracy"}
    found = by_metric(measure(scored, dataclasses.replace(PLAN, positive="grant")))
    group = scored.table["g"].to_numpy(zero_copy_only=False)
    expected = fair.demographic_parity_difference(truth == "grant", said == "grant", sensitive_features=group)
    assert found["selection_rate"].gap == pytest.approx(expected)
    numbers = said_only(scored.table, np.arange(400) % 3, np.arange(400) % 3, classes=np.arange(3))
    for positive in (2, 2.0, "2"):
        assert "selection_rate" in by_metric(measure(numbers, dataclasses.replace(PLAN, positive=positive)))
    words = said_only(
        scored.table, np.array(["0", "1"] * 200), np.array(["1", "0"] * 200), classes=np.array(["0", "1"])
    )
    assert "selection_rate" in by_metric(measure(words, dataclasses.replace(PLAN, positive=1.0)))


def test_groups_are_values_cut_numbers_and_combinations() -> None:
    table = pa.table(
        {
            "sex": ["f", "m", None, "f"],
            "age": [17.0, 65.0, 30.0, float("nan")],
            "flag": [True, False, None, True],
        }
    )
    names, codes = groups_of(table, ["age"], cuts={"age": (18.0, 65.0)})
    assert names == ["age < 18", "18 <= age < 65", "age >= 65", "(missing)"]
    assert codes.tolist() == [0, 2, 1, 3]
    names, codes = groups_of(table, ["sex", "flag"], cuts={})
    assert [names[code] for code in codes] == ["f & true", "m & false", "(missing) & (missing)", "f & true"]
    plan = FairnessPlan(attributes=("sex", "flag"), intersections=True, min_rows=1)
    scored = said_only(table, np.array([0, 1, 0, 1]), np.array([0, 1, 1, 1]), classes=np.array([0, 1]))
    assert {figure.attribute for figure in measure(scored, plan, resamples=100)} == {
        "sex",
        "flag",
        "sex & flag",
    }


def test_every_group_has_a_name_of_its_own() -> None:
    numbers = pa.table({"x": [1000001.0, 1000002.0, 0.1], "w": ["(missing)", None, "a"]})
    assert groups_of(numbers, ["x"], cuts={})[0] == ["0.1", "1000001", "1000002"]
    assert groups_of(numbers, ["w"], cuts={})[0] == ["'(missing)'", "a", "(missing)"]
    cut = groups_of(numbers, ["x"], cuts={"x": [1000001, 1000002]})[0]
    assert cut == ["x < 1000001", "1000001 <= x < 1000002", "x >= 1000002"]
    # Words that no row has do not count, and combinations are made of those that occur.
    words = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array([f"w{n}" for n in range(99)]))
    assert groups_of(pa.table({"w": words}), ["w"], cuts={})[0] == ["w0", "w1", "(missing)"]
    wide = pa.table({f"c{place}": [str(n) for n in range(50)] for place in range(7)})
    assert len(groups_of(wide, wide.column_names, cuts={})[0]) == 50


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"attributes": ("income",)}, "no column 'income'"),
        ({"attributes": ("id",)}, "900 values"),
        ({"cuts": {"g": (1.0,)}}, "cannot be cut"),
        ({"attributes": ("id",), "cuts": {"id": (9.0, 3.0)}}, "do not rise"),
        ({"attributes": ("id",), "cuts": {"id": (float("nan"),)}}, "do not rise"),
        ({"cuts": {"aeg": (18.0,)}}, "cuts aeg, which it does not name"),
        ({"attributes": ("list",)}, "which is no group"),
        ({"attributes": ("few", "many"), "intersections": True}, "more than 500 groups"),
        ({"positive": "maybe"}, "none of the model's 2 classes"),
        ({"positive": float("nan")}, "none of the model's 2 classes"),
    ],
)
def test_what_cannot_be_measured_is_refused_without_naming_values(change: dict[str, Any], hint: str) -> None:
    scored = unfair()
    more = {
        "id": np.arange(900), "list": [[1]] * 900, "few": np.arange(900) % 30, "many": np.arange(900) // 30,
    }  # fmt: skip
    table = pa.table({**{name: scored.table[name] for name in ("g",)}, **more})
    scored = dataclasses.replace(scored, table=table)
    with pytest.raises(ArgumentError) as caught:
        measure(scored, dataclasses.replace(PLAN, **change))
    assert caught.value.code == "argument.fairness"
    assert hint in str(caught.value)
    with pytest.raises(ArgumentError, match="no champion"):
        measure(scored, PLAN, champion=True)


def test_without_fairlearn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extras.util, "find_spec", lambda _: None)
    with pytest.raises(ArgumentError) as caught:
        measure(unfair(), PLAN)
    assert caught.value.code == "argument.extra_missing"
    assert 'pip install "airflow-provider-xops[fairness]"' in str(caught.value)


def test_the_same_seed_gives_the_same_interval_whatever_else_is_asked() -> None:
    scored = unfair()
    more = dataclasses.replace(scored, table=scored.table.append_column("h", pa.array(["x", "y"] * 450)))
    alone = measure(scored, PLAN, seed=7)
    beside = measure(more, dataclasses.replace(PLAN, attributes=("h", "g")), seed=7)
    assert alone == tuple(figure for figure in beside if figure.attribute == "g")
    assert alone != measure(scored, PLAN, seed=8)


def test_a_model_of_boston_mortgages_denies_black_applicants_more_often() -> None:
    """Race is not among its features, and the gap is there: other columns know it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = mortgages()
    order = np.random.default_rng(0).permutation(table.num_rows)
    training, holdout = table.take(np.sort(order[:1200])), table.take(np.sort(order[1200:]))
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    model.fit(training.select(FEATURES).to_pandas(), training["deny"].to_pandas())
    scored = scored_of(model, holdout, features=FEATURES, target="deny")
    plan = FairnessPlan(attributes=("black",), positive="no")
    found = by_metric(measure(scored, plan))
    granted = {each.group: each.value for each in found["selection_rate"].groups}
    black = holdout["black"].to_numpy(zero_copy_only=False)
    said = scored.challenger.said.labels
    gap = fair.demographic_parity_difference(said == "no", said == "no", sensitive_features=black)
    assert found["selection_rate"].gap == pytest.approx(gap)
    assert granted["yes"] < granted["no"]
    assert found["selection_rate"].gap_lower > 0.1
