"""Figures by variant are what the rows of the log say, computed another way."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.cli import main
from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import VariantRole
from airflow_provider_xops.serving.online import sessions
from airflow_provider_xops.serving.variants_report import VariantFigures, log_table_of, variants
from airflow_provider_xops.settings import LakeSettings
from tests.unit.lake.helpers import put, segment
from tests.unit.serving.online.log_cases import (
    ACTOR,
    NOON,
    Caller,
    Clock,
    logged,
    make_log,
    model_version,
    session_of,
)

SECONDS = 60.0
PRIMARY, CANARY, SHADOW = VariantRole.PRIMARY, VariantRole.CANARY, VariantRole.SHADOW


class Traffic:
    """Requests to a primary, with a shadow beside each, and to a canary."""

    def __init__(self, lake: Lake, *, seed: int = 0) -> None:
        self.lake, self.clock, self.random = lake, Clock(), np.random.default_rng(seed)
        self.callers = {version: Caller(session_of(version), self.clock) for version in (1, 2, 3)}
        self.log = make_log(lambda: lake, max_rows=100_000, flush_rows=50_000, clock=self.clock)

    def answer(self, version: int, role: VariantRole, given: list[float], **changed: Any) -> str:
        """One request; gives the id of its first prediction."""
        values = np.array(given)
        facts = {"scores": values, "duration_ms": float(self.random.gamma(2.0)), **changed}
        batch = self.callers[version].request((values > 0.5).astype(int), variant=role, **facts)
        self.log.offer(batch)
        return f"{sessions.id_prefix(batch.session)}-{batch.first}"

    def shadow(self, answered: str, given: list[float], **changed: Any) -> None:
        self.answer(3, SHADOW, given, shadow_of=answered, **changed)

    def fail(self, version: int, role: VariantRole) -> None:
        self.answer(version, role, [0.1], predictions=None, error="model.predict_failed", duration_ms=None)

    def written(self) -> pd.DataFrame:
        assert self.log.close(SECONDS) == 0
        return pd.DataFrame(logged(self.lake))


@pytest.fixture
def traffic(lake: Lake) -> Traffic:
    made = Traffic(lake)
    for number in range(60):
        scores = made.random.random(1 + number % 3).tolist()
        answered = made.answer(1, PRIMARY, scores)
        made.shadow(answered, np.clip(np.array(scores) + made.random.normal(0, 0.2, len(scores)), 0, 1))
    for _ in range(20):
        made.answer(2, CANARY, made.random.random(2).tolist())
    made.fail(2, CANARY)
    made.clock.move(days=1)
    made.answer(1, PRIMARY, [0.9])
    return made


def label_rows(lake: Lake, labels: pa.Array, *, name: str = "label") -> None:
    """A table of the log's rows with their labels, as joining labels makes it."""
    rows = scan(lake, head(lake, "delay_log"), with_partition=True).read_all().append_column(name, labels)
    days = rows["_xops_partition"]
    for day in days.unique().to_pylist():
        mine = rows.filter(pc.equal(days, day)).drop_columns(["_xops_partition"])
        put(lake, "labeled", segment(day, "f", mine))


def by_role(found: tuple[VariantFigures, ...]) -> dict[VariantRole, VariantFigures]:
    return {each.variant: each for each in found}


def test_counts_errors_times_and_means_by_variant(traffic: Traffic) -> None:
    rows = traffic.written()

    report = variants(traffic.lake, model="delay", table="delay_log")

    assert [(each.variant, each.version) for each in report.variants] == [
        (PRIMARY, 1), (CANARY, 2), (SHADOW, 3),
    ]  # fmt: skip
    assert (report.days, str(report.log)) == (("2026-01-15", "2026-01-16"), "delay_log@0")
    for each in report.variants:
        mine = rows[(rows["model_version"] == each.version) & rows["error"].isna()]
        first = mine[mine["request_id"] == mine["prediction_id"]]
        assert each.rows == len(mine)
        assert each.p50_ms == pytest.approx(first["duration_ms"].quantile(0.5))
        assert each.p99_ms == pytest.approx(first["duration_ms"].quantile(0.99))
        assert each.mean is not None
        assert each.mean.value == pytest.approx(mine["score"].mean())
    found = by_role(report.variants)
    assert (found[PRIMARY].requests, found[CANARY].requests, found[SHADOW].requests) == (61, 21, 60)
    assert (found[CANARY].errors, found[CANARY].error_rate.value) == (1, 1 / 21)
    assert found[CANARY].error_rate.lower is not None
    assert found[CANARY].error_rate.lower > 0
    assert found[PRIMARY].error_rate.lower == 0
    assert found[PRIMARY].share == pytest.approx(61 / 82)
    assert found[SHADOW].share is None


def test_a_shadow_is_compared_with_the_answers_it_stood_beside(traffic: Traffic) -> None:
    rows = traffic.written()

    shadow = by_role(variants(traffic.lake, model="delay", table="delay_log").variants)[SHADOW]

    beside = rows[rows["variant"] == "shadow"].merge(
        rows, left_on="shadow_of", right_on="prediction_id", suffixes=("", "_given")
    )
    assert shadow.agreement is not None
    assert shadow.difference is not None
    assert shadow.compared == len(beside) == shadow.rows
    assert shadow.agreement.value == pytest.approx(
        (beside["prediction"] == beside["prediction_given"]).mean()
    )
    assert shadow.difference.value == pytest.approx((beside["score"] - beside["score_given"]).abs().mean())
    assert shadow.agreement.lower is not None
    assert 0 < shadow.agreement.lower < shadow.agreement.value < shadow.agreement.upper < 1


def test_days_can_be_chosen(traffic: Traffic) -> None:
    traffic.written()

    later = variants(traffic.lake, model="delay", table="delay_log", since="2026-01-16")
    before = variants(traffic.lake, model="delay", table="delay_log", until="2026-01-15")
    never = variants(traffic.lake, model="delay", table="delay_log", since="2027-01-01")

    assert [(each.variant, each.requests) for each in later.variants] == [(PRIMARY, 1)]
    assert by_role(before.variants)[PRIMARY].requests == 60
    assert (never.variants, never.days) == ((), ())
    assert later.variants[0].mean is not None
    assert (later.variants[0].mean.value, later.variants[0].mean.lower) == (0.9, None)


def test_another_model_or_alias_in_the_same_log_is_left_out(traffic: Traffic) -> None:
    other = Caller(session_of(1, alias="champion-eu"), traffic.clock)
    traffic.log.offer(other.request())
    traffic.written()

    assert by_role(variants(traffic.lake, model="delay", table="delay_log").variants)[PRIMARY].requests == 61
    assert variants(traffic.lake, model="other", table="delay_log").variants == ()
    eu = variants(traffic.lake, model="delay", alias="champion-eu", table="delay_log")
    assert [each.requests for each in eu.variants] == [1]


def test_joined_labels_give_each_variant_its_metrics(traffic: Traffic) -> None:
    rows = traffic.written()
    labels = (traffic.random.random(len(rows)) < rows["score"].fillna(0.5)).astype(object) * 1
    labels[traffic.random.random(len(rows)) < 0.2] = None
    rows["label"] = labels
    label_rows(traffic.lake, pa.array(labels, pa.int64()))

    report = variants(
        traffic.lake, model="delay", table="delay_log", labeled="labeled", metrics=["accuracy", "roc_auc"]
    )

    for each in report.variants:
        mine = rows[(rows["model_version"] == each.version) & rows["label"].notna() & rows["error"].isna()]
        figures = {figure.metric: figure for figure in each.metrics}
        assert figures["accuracy"].value == pytest.approx((mine["prediction"] == mine["label"]).mean())
        assert figures["accuracy"].rows == len(mine)
        auc = figures["roc_auc"]
        assert auc.lower is not None
        assert auc.lower < auc.value < auc.upper


def test_labels_of_another_form_than_the_predictions_are_compared_as_text(lake: Lake) -> None:
    traffic = Traffic(lake)
    for _ in range(12):
        traffic.answer(1, PRIMARY, [0.9])
    traffic.written()
    label_rows(lake, pa.array(["1"] * 9 + ["0"] * 3), name="late")

    report = variants(
        lake, model="delay", table="delay_log", labeled="labeled", label="late", metrics=["accuracy"]
    )

    assert report.variants[0].metrics[0].value == 0.75


def said(number: float) -> dict[str, Any]:
    return {"predictions": np.array([number]), "scores": None}


def test_predicted_numbers_have_a_mean_and_a_difference(lake: Lake) -> None:
    traffic = Traffic(lake)
    for number in range(15):
        answered = traffic.answer(1, PRIMARY, [0.0], **said(number / 2))
        traffic.shadow(answered, [0.0], **said(number / 2 + 0.25))
    traffic.written()

    found = by_role(variants(lake, model="delay", table="delay_log").variants)

    assert found[PRIMARY].mean is not None
    assert (found[PRIMARY].mean.metric, found[PRIMARY].mean.value) == ("mean_prediction", 3.5)
    assert found[SHADOW].agreement is None
    assert found[SHADOW].difference is not None
    assert found[SHADOW].difference.value == pytest.approx(0.25)
    assert (found[SHADOW].difference.metric, found[SHADOW].compared) == ("difference", 15)


def test_a_score_that_is_no_number_is_left_out(lake: Lake) -> None:
    traffic = Traffic(lake)
    for scores in ([0.2, 0.4], [float("nan"), 0.6]):
        traffic.answer(1, PRIMARY, scores)
    traffic.written()

    mean = variants(lake, model="delay", table="delay_log").variants[0].mean
    assert mean is not None
    assert (mean.value, mean.rows) == (pytest.approx(0.4), 3)


def test_full_agreement_is_not_certainty(lake: Lake) -> None:
    traffic = Traffic(lake)
    for _ in range(20):
        traffic.shadow(traffic.answer(1, PRIMARY, [0.9]), [0.8])
    traffic.written()

    agreement = by_role(variants(lake, model="delay", table="delay_log").variants)[SHADOW].agreement
    assert agreement is not None
    assert (agreement.value, agreement.upper, agreement.method) == (1.0, 1.0, "wilson")
    assert agreement.lower is not None
    assert 0.8 < agreement.lower < 0.9


def test_the_log_is_that_of_the_newest_session(lake: Lake) -> None:
    for minute, table in enumerate(("old_log", "new_log", None)):
        sessions.begin(
            lake, server="gate", model=model_version(), alias="champion",
            started_at=NOON.replace(minute=minute), log_table=table, actor=ACTOR,
        )  # fmt: skip

    assert log_table_of(lake, "delay", "champion") == "new_log"
    with pytest.raises(NotFoundError) as caught:
        log_table_of(lake, "delay", "shadow")
    assert caught.value.code == "not_found.prediction_log"


def test_what_is_no_log_is_refused(traffic: Traffic) -> None:
    put(traffic.lake, "flights", segment("p", "1", {"a": [1]}))
    traffic.written()

    with pytest.raises(ArgumentError, match="no prediction log"):
        variants(traffic.lake, model="delay", table="flights")
    with pytest.raises(ArgumentError, match="labeled predictions"):
        variants(traffic.lake, model="delay", table="delay_log", labeled="flights")
    with pytest.raises(ArgumentError):
        variants(traffic.lake, model="delay", table="delay_log", confidence=1.0)


def test_the_command_tells_them(traffic: Traffic, capsys: pytest.CaptureFixture[str]) -> None:
    traffic.written()
    where = ["variants", "delay", "--table", "delay_log", "--lake", traffic.lake.uri]

    assert main(where) == 0
    text = capsys.readouterr().out
    assert main([*where, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)

    assert "primary v1: 61 requests, 74.4% of the answers" in text
    assert "agreement 0." in text
    assert "error_rate 0.04762 (95% interval" in text
    assert [each["variant"] for each in data["variants"]] == ["primary", "canary", "shadow"]


@settings(max_examples=10)
@given(
    requests=st.lists(
        st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4), min_size=2, max_size=15
    )
)
def test_any_traffic_gives_the_figures_of_its_rows(
    requests: list[list[tuple[float, float]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = LakeSettings(uri=str(tmp_path_factory.mktemp("lakes") / "lake"))
    init_lake(home, actor=ACTOR, as_of=NOON)
    traffic = Traffic(open_lake(home))
    for rows in requests:
        answered = traffic.answer(1, PRIMARY, [one for one, _ in rows])
        traffic.shadow(answered, [other for _, other in rows])
    traffic.written()

    found = by_role(variants(traffic.lake, model="delay", table="delay_log").variants)

    flat = [pair for rows in requests for pair in rows]
    sums = np.array([[sum(one for one, _ in rows), len(rows)] for rows in requests])
    mean = sums[:, 0].sum() / sums[:, 1].sum()
    assert found[PRIMARY].mean is not None
    assert found[PRIMARY].mean.value == pytest.approx(mean)
    if len(requests) >= 10:
        count = len(requests)
        error = (
            np.sqrt(((sums[:, 0] - mean * sums[:, 1]) ** 2).sum() * count / (count - 1)) / sums[:, 1].sum()
        )
        assert found[PRIMARY].mean.upper == pytest.approx(mean + 1.959964 * error, rel=1e-6)
    assert found[SHADOW].agreement is not None
    assert found[SHADOW].agreement.value == pytest.approx(
        np.mean([(one > 0.5) == (other > 0.5) for one, other in flat])
    )


@pytest.mark.parametrize(
    "days",
    [
        {"since": "2026-1-5"},
        {"since": "15.01.2026"},
        {"until": "today"},
        {"since": "2026-02-01", "until": "2026-01-01"},
    ],
)
def test_a_day_that_is_none_is_refused_and_not_compared(traffic: Traffic, days: dict[str, str]) -> None:
    with pytest.raises(ArgumentError) as refused:
        variants(traffic.lake, model="delay", table="delay_log", **days)

    assert refused.value.code == "argument.variants"


def test_a_log_of_failed_requests_alone_has_figures(lake: Lake) -> None:
    traffic = Traffic(lake)
    traffic.fail(1, PRIMARY)
    traffic.log.close(SECONDS)

    (figures,) = variants(lake, model="delay", table="delay_log").variants

    assert (figures.requests, figures.errors, figures.mean) == (1, 1, None)
