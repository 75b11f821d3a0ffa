"""The search for weak slices: it finds what is planted, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from airflow_provider_xops.evaluation._slice_columns import code_column
from airflow_provider_xops.evaluation._slice_losses import worse_by_clusters, worse_than_rest
from airflow_provider_xops.evaluation._slice_search import Found, search
from airflow_provider_xops.evaluation.slices import rows_where
from airflow_provider_xops.evaluation.statistics import adjust

ROWS = 6_000


def rows_of(seed: int, rows: int = ROWS) -> pa.Table:
    """Rows as the lake has them, none of whose columns has to do with another."""
    rng = np.random.default_rng(seed)
    missing = rng.random(rows) < 0.1
    return pa.table(
        {
            "carrier": pa.array(rng.choice(["UA", "DL", "AA", "O'Hare"], rows)),
            "origin": pa.array(np.where(missing, None, rng.choice(["JFK", "EWR", "LGA"], rows)), pa.string()),
            "distance": pa.array(rng.integers(50, 3000, rows)),
            "x": pa.array(rng.normal(size=rows), mask=missing),
            "hour": pa.array(rng.integers(0, 4, rows)),
            "flag": pa.array(rng.random(rows) > 0.5),
            "at": pa.array(rng.integers(0, 10**15, rows), pa.timestamp("us", "UTC")),
        }
    )


def found_in(
    table: pa.Table, losses: Any, *, min_rows: int = 50, clusters: Any = None, **changes: Any
) -> list[Found]:
    coded = [code_column(name, table[name], min_rows=min_rows) for name in table.column_names]
    arguments = {"max_conditions": 2, "alpha": 0.05, "limit": 10, **changes}
    found, looked_at = search(
        [each for each in coded if each is not None], losses, min_rows=min_rows, clusters=clusters,
        adjust=lambda p_values: adjust(p_values, "holm"), **arguments,
    )  # fmt: skip
    assert looked_at > 100
    return found


def losses_of(seed: int, weak: Any, *, by: float = 0.3, kind: str = "errors") -> Any:
    """Losses of rows that are all alike but for the weak ones."""
    rng = np.random.default_rng([seed, 7])
    if kind == "errors":
        return (rng.random(len(weak)) < 0.2 + by * weak).astype(float)
    return rng.exponential(size=len(weak)) * (1 + 2 * by * weak)


@pytest.mark.parametrize("kind", ["errors", "exponential"])
def test_a_planted_weak_slice_is_found_and_nothing_else(kind: str) -> None:
    table = rows_of(1)
    weak = np.asarray(table["carrier"]) == "UA"

    (found,) = found_in(table, losses_of(1, weak, kind=kind))

    assert found.conditions == "carrier = 'UA'"
    assert (found.rows == weak).all()
    assert found.adjusted_p_value < 1e-6


def test_a_weak_slice_of_two_conditions_is_found_without_its_parents() -> None:
    table = rows_of(2, 20_000)
    weak = (np.asarray(table["carrier"]) == "O'Hare") & (np.asarray(table["distance"]) >= 1800)

    (found,) = found_in(table, losses_of(2, weak, by=0.5))

    assert found.conditions.startswith("carrier = 'O''Hare' and distance >= 18")
    assert (found.rows & weak).sum() / (found.rows | weak).sum() > 0.95


def test_rows_with_a_missing_value_are_a_slice() -> None:
    table = rows_of(3)
    weak = table["x"].is_null().to_numpy()

    found = found_in(table, losses_of(3, weak))

    # Here x is missing in the same rows as origin: either name is right, and one of them is enough.
    assert [each.conditions for each in found] in (["x is null"], ["origin is null"])


def test_two_weak_slices_are_both_found_and_where_they_meet_too() -> None:
    table = rows_of(4, 20_000)
    one, two = np.asarray(table["carrier"]) == "UA", np.asarray(table["flag"])

    found = found_in(table, losses_of(4, one.astype(float) + two, by=0.2))

    assert {each.conditions for each in found} == {
        "carrier = 'UA' and flag = true",
        "carrier = 'UA'",
        "flag = true",
    }


def test_a_slice_smaller_than_the_minimum_support_is_not_looked_at() -> None:
    table = rows_of(5)
    weak = np.zeros(ROWS, dtype=bool)
    weak[:90] = True
    marked = table.append_column("mark", pa.array(np.where(weak, "a", "b")))

    assert found_in(marked, losses_of(5, weak, by=0.8), min_rows=100) == []
    assert found_in(marked, losses_of(5, weak, by=0.8), min_rows=90)[0].rows.sum() == 90


KINDS = ("errors", "rare errors", "exponential", "log losses", "squares")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_planted_nothing_found(kind: str) -> None:
    """At most alpha of the searches through rows that are all alike report a slice."""
    _at_most_alpha(kind, runs=60)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_planted_nothing_found_in_2000_searches(kind: str) -> None:
    _at_most_alpha(kind, runs=2_000)


@pytest.mark.soak
def test_the_power_to_find_a_slice_is_what_its_size_and_gap_give() -> None:
    """A tenth of 6,000 rows whose error rate is 0.2 + gap, among some thousand slices looked at."""
    found = dict.fromkeys((0.05, 0.1, 0.15), 0)
    for seed in range(40):
        table = rows_of(seed, 6_000)
        weak = (np.asarray(table["carrier"]) == "UA") & (np.asarray(table["hour"]) <= 1)
        for gap in found:
            conditions = [each.conditions for each in found_in(table, losses_of(seed, weak, by=gap))]
            found[gap] += any("carrier = 'UA'" in each for each in conditions)
    print(found)
    assert found[0.05] < found[0.1] <= found[0.15] == 40


def _at_most_alpha(kind: str, runs: int) -> None:
    wrong = 0
    for seed in range(runs):
        rng = np.random.default_rng([seed, 3])
        table = rows_of(seed, 900)
        wrong += bool(found_in(table, _null(rng, kind, 900), min_rows=30))
    # the upper end of what alpha = 0.05 gives in 999 of 1,000 such experiments
    assert wrong <= stats.binom.ppf(0.999, runs, 0.05)


def _null(rng: Any, kind: str, rows: int) -> Any:
    if kind == "errors":
        return (rng.random(rows) < 0.3).astype(float)
    if kind == "rare errors":
        return (rng.random(rows) < 0.02).astype(float)
    if kind == "exponential":
        return rng.exponential(size=rows)
    if kind == "squares":
        return rng.standard_t(4, size=rows) ** 2
    probability = rng.beta(0.5, 2, size=rows)
    happened = rng.random(rows) < probability
    return -np.log(np.where(happened, probability, 1 - probability))


def test_a_bad_day_is_no_weak_slice_where_days_are_clusters() -> None:
    """The weather of whole days makes rows dependent; a column that follows the day then looks weak."""
    wrong = {True: 0, False: 0}
    for seed in range(60):
        rng = np.random.default_rng([seed, 5])
        day = np.repeat(np.arange(14), 100)
        wind = rng.normal(size=14)[day] + rng.normal(size=1400) * 0.1
        losses = rng.exponential(size=14)[day] + rng.exponential(size=1400)
        table = pa.table({"wind": wind, "x": rng.normal(size=1400)})
        coded = [code_column(name, table[name], min_rows=50) for name in table.column_names]
        for clustered in wrong:
            found, _ = search(
                [each for each in coded if each], losses, min_rows=50, max_conditions=2, alpha=0.05, limit=10,
                adjust=lambda p_values: adjust(p_values, "holm"), clusters=day if clustered else None,
            )  # fmt: skip
            wrong[clustered] += bool(found)

    assert wrong[False] > 30
    assert wrong[True] <= stats.binom.ppf(0.999, 60, 0.05)


@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(30, 300),
    share=st.floats(0.1, 0.9),
    discrete=st.booleans(),
)
@settings(max_examples=60)
def test_the_p_value_is_the_larger_of_welchs_and_students(
    seed: int, rows: int, share: float, discrete: bool
) -> None:
    rng = np.random.default_rng(seed)
    losses = (rng.random(rows) < 0.4).astype(float) if discrete else rng.exponential(size=rows)
    inside = rng.random(rows) < share
    if min(inside.sum(), (~inside).sum()) < 2 or np.ptp(losses) == 0:
        return
    mine = losses[inside]
    p_value, gap, _ = worse_than_rest(
        len(mine), mine.sum(), (mine**2).sum(), total=(rows, losses.sum(), (losses**2).sum())
    )
    expected = [
        stats.ttest_ind(mine, losses[~inside], equal_var=equal, alternative="greater").pvalue
        for equal in (True, False)
    ]
    if np.isfinite(expected).all():
        assert p_value == pytest.approx(max(expected), abs=1e-9)
    assert gap == pytest.approx(mine.mean() - losses[~inside].mean())


def test_the_error_by_clusters_is_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    day = rng.integers(0, 12, 400)
    inside = rng.random(400) < 0.3
    losses = rng.exponential(size=400) + rng.normal(size=12)[day]
    _, error = worse_by_clusters(inside, ~inside, losses, day)

    model = sm.OLS(losses, sm.add_constant(inside.astype(float)))
    robust = model.fit(cov_type="cluster", cov_kwds={"groups": day, "use_correction": False})
    assert error == pytest.approx(robust.bse[1] * np.sqrt(12 / 11))


def test_a_slice_in_one_cluster_proves_nothing() -> None:
    day = np.repeat(np.arange(4), 50)
    inside = day == 2
    losses = inside + np.random.default_rng(0).random(200)
    assert worse_by_clusters(inside, ~inside, losses, day)[0] == 1.0


SIZES = {"seed": st.integers(0, 10_000), "rows": st.integers(20, 200), "min_rows": st.integers(2, 10)}


@given(**SIZES)
@settings(max_examples=3)
def test_what_a_condition_says_is_what_was_meant(seed: int, rows: int, min_rows: int) -> None:
    """Every condition, asked of DuckDB as SQL, gives the very rows that the search counted."""
    _conditions_are_meant(seed, rows, min_rows)


@pytest.mark.soak
@given(**SIZES)
@settings(max_examples=100)
def test_what_many_conditions_say_is_what_was_meant(seed: int, rows: int, min_rows: int) -> None:
    _conditions_are_meant(seed, rows, min_rows)


def _conditions_are_meant(seed: int, rows: int, min_rows: int) -> None:
    table = rows_of(seed, rows)
    rng = np.random.default_rng(seed)
    table = table.append_column("small", pa.array(rng.normal(size=rows).astype(np.float32)))
    table = table.append_column("order", pa.array(np.where(rng.random(rows) < 0.1, np.nan, rng.random(rows))))
    table = table.append_column("on date", table["at"].cast(pa.timestamp("us")).cast(pa.date32()))
    rain = np.where(rng.random(rows) < 0.85, 0, rng.random(rows))
    table = table.append_column("rain", pa.array(rain))
    for name in table.column_names:
        coded = code_column(name, table[name], min_rows=min_rows)
        if coded is None:
            continue
        for number in rng.choice(len(coded.conditions), size=min(3, len(coded.conditions)), replace=False):
            asked = rows_where(table, coded.conditions[number], name="one")
            assert (asked == coded.rows_of(int(number))).all(), coded.conditions[number]


def test_a_rare_value_is_no_condition() -> None:
    names = pa.array(["common"] * 200 + [f"person {number}" for number in range(60)])
    coded = code_column("name", pa.chunked_array([names]), min_rows=20)
    assert coded is not None
    assert coded.conditions == ("name = 'common'",)


@pytest.mark.parametrize(
    "column",
    [pa.array([[1], [2]]), pa.array([None, None], pa.string()), pa.array(["a", "a"]), pa.array([1.5, 1.5])],
)
def test_a_column_that_separates_no_rows_has_no_conditions(column: Any) -> None:
    assert code_column("c", pa.chunked_array([column]), min_rows=2) is None


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**60 + 10_000 * number for number in range(100)]),
        pa.array([2**63 + 10_000 * number for number in range(100)], pa.uint64()),
        pa.array([1001 * number + 1 for number in range(100)], pa.timestamp("ns")),
        pa.array([1e9 + number / 7 for number in range(100)]),
        pa.array(np.arange(100).astype(np.float16)),
    ],
    ids=["beyond 2**53", "unsigned", "nanoseconds", "large and close", "half precision"],
)
def test_extreme_numbers_are_searched_as_their_conditions_say(column: Any) -> None:
    coded = code_column("c", pa.chunked_array([column]), min_rows=2)
    assert coded is not None
    assert len(coded.conditions) == 14
    for number in (0, 7, 13):
        asked = rows_where(pa.table({"c": column}), coded.conditions[number], name="one")
        assert (asked == coded.rows_of(number)).all(), coded.conditions[number]


@pytest.mark.parametrize("most", [0.0, 0.5, 1.0], ids=["the least", "one between", "the largest"])
def test_a_value_that_most_rows_have_is_told_from_the_others(most: float) -> None:
    """Rain of no millimeters in nine hours of ten: the tenth must not vanish in one bin with them."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random(2_000) < 0.9, most, rng.random(2_000))
    coded = code_column("rain", pa.chunked_array([values]), min_rows=50)
    assert coded is not None
    meant = [values > most, values < most][most == 1.0]
    assert any((coded.rows_of(number) == meant).mean() > 0.99 for number in range(len(coded.conditions)))


@pytest.mark.parametrize("clustered", [False, True])
def test_families_share_alpha_with_clusters_and_without(clustered: bool) -> None:
    table = rows_of(5)
    weak = np.asarray(table["carrier"]) == "UA"
    day = np.random.default_rng(5).integers(0, 40, len(weak)) if clustered else None
    losses = losses_of(5, weak, by=0.08)
    (one,) = found_in(table, losses, clusters=day, families=1, alpha=0.5)[:1]
    (two,) = found_in(table, losses, clusters=day, families=2, alpha=0.5)[:1]
    assert two.conditions == one.conditions
    assert two.adjusted_p_value == pytest.approx(2 * one.adjusted_p_value)
