"""Partitions on their control charts: what is judged, what is recorded, and that a replay says the same."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality.control import (
    annotate,
    check_control_charts,
    check_partitions,
    open_chart_incidents,
    out_of_control,
)
from airflow_provider_xops.quality.control_plan import ControlPlan, load_control_plan, parse_moment
from airflow_provider_xops.quality.metrics import MetricPlan
from airflow_provider_xops.quality.spc import Baseline, ChartSpec, SpecialCause
from airflow_provider_xops.records import ControlChartReport, DatasetRef, Outcome, QualityMetrics
from tests.unit.lake.helpers import user
from tests.unit.quality.days import AS_OF, day, load, mean_chart, shifted, utc, wave

PLAN = [mean_chart()]


def check(lake: Lake, ref: DatasetRef, plan: Any = None, **options: Any) -> ControlChartReport:
    options.setdefault("as_of", AS_OF)
    return check_control_charts(lake, ref, plan=PLAN if plan is None else plan, actor=user(), **options)


def page(lake: Lake, report: ControlChartReport) -> str:
    name = str(report.report_uri).removeprefix(f"{lake.uri}/")
    return (lake.storage.get(name) or b"").decode()


def test_ordinary_day_passes_with_history_that_was_never_measured(lake: Lake) -> None:
    ref = load(lake, shifted(26, since=99, by=0))

    report = check(lake, ref)

    assert (report.outcome, report.partition, report.signals) == (Outcome.PASSED, day(25), ())
    (chart,) = report.charts
    assert (chart["metric"], chart["baseline_points"], chart["points"]) == ("mean:distance", 25, 26)
    assert chart["lower"] < chart["value"] < chart["upper"]
    assert len(list(lake.evidence.all(QualityMetrics.kind))) == 26


def test_shift_signals_and_names_its_first_day(lake: Lake) -> None:
    # given a mean that is a little too high since the 26th day, never beyond a limit
    ref = load(lake, shifted(35, since=25, by=12))

    report = check(lake, ref)

    assert report.outcome is Outcome.FAILED
    (signal,) = report.signals
    assert (signal.metric, signal.rule, signal.since) == ("mean:distance", "nelson_2", day(25))
    assert signal.points == tuple(day(n) for n in range(25, 35))
    assert signal.lower < signal.value < signal.upper
    told = str(out_of_control(report))
    assert "mean:distance left its natural range: nelson_2" in told
    assert f"since {day(25)}" in told
    text = page(lake, report)
    assert "mean:distance left its natural range" in text
    assert text.index("left its natural range") < text.index("<svg")
    assert "frozen, 2013-01-01 to 2013-01-25" in text


def test_replay_of_a_past_day_gives_the_same_answer(lake: Lake) -> None:
    # given a day judged when it came
    then = load(lake, shifted(27, since=26, by=80))
    report = check(lake, then)
    # when more days and a correction have come since
    load(lake, shifted(40, since=99, by=0))

    assert check(lake, then, partition=day(26), as_of=AS_OF + timedelta(days=30)) == report
    assert report.outcome is Outcome.FAILED


def test_later_partitions_are_not_looked_at(lake: Lake) -> None:
    ref = load(lake, shifted(40, since=26, by=80))

    report = check(lake, ref, partition=day(25))

    assert report.outcome is Outcome.PASSED
    assert report.charts[0]["points"] == 26


def test_same_points_are_judged_once_and_a_correction_again(lake: Lake) -> None:
    first = check(lake, load(lake, shifted(26, since=99, by=0)))
    again = check(lake, load(lake, [("2014-01-01", 5.0)]), partition=day(25))
    corrected = check(lake, load(lake, [(day(3), 1002.0)]), partition=day(25))

    assert again == first
    assert corrected.record_id != first.record_id


def test_too_few_points_are_no_data_and_not_passed(lake: Lake) -> None:
    report = check(lake, load(lake, shifted(4, since=99, by=0)))

    assert report.outcome is Outcome.NO_DATA
    error = out_of_control(report)
    assert error.code == "validation.no_limits"
    assert "mean:distance has 4 point(s)" in str(error)


def test_note_in_the_lake_explains_a_day_away(lake: Lake) -> None:
    ref = load(lake, shifted(26, since=25, by=200))
    assert check(lake, ref).outcome is Outcome.FAILED

    cause = {"start": utc(day(25)), "end": None, "reason": "blizzard", "metric": "mean:distance"}
    note = annotate(lake, ref, **cause, actor=user(), as_of=AS_OF)
    again = annotate(lake, ref, **cause, actor=user(), as_of=AS_OF + timedelta(days=1))
    report = check(lake, ref)

    assert again == note
    assert (report.outcome, report.signals) == (Outcome.NO_DATA, ())
    assert "blizzard" in page(lake, report)


def test_cause_of_another_metric_explains_nothing(lake: Lake) -> None:
    ref = load(lake, shifted(26, since=25, by=200))
    cause = {"start": day(25), "reason": "fewer rows", "metrics": ["row_count"]}

    assert check(lake, ref, {"charts": PLAN, "causes": [cause]}).outcome is Outcome.FAILED


def test_pattern_that_goes_on_is_one_incident(lake: Lake) -> None:
    ref = load(lake, shifted(36, since=25, by=12))
    plan = [mean_chart() | {"rules": ["nelson_2"]}]
    yesterday, today = check_partitions(
        lake, ref, partitions=[day(35), day(34)], plan=plan, actor=user(), as_of=AS_OF
    )  # fmt: skip

    (opened,) = open_chart_incidents(lake, [yesterday], actor=user(), as_of=AS_OF)
    assert open_chart_incidents(lake, [today], actor=user(), as_of=AS_OF) == []
    assert opened.subject == f"t__raw/mean:distance/nelson_2/{day(25)}"
    assert (yesterday.partition, today.partition) == (day(34), day(35))


def test_star_stands_for_every_column_that_has_the_statistic(lake: Lake) -> None:
    ref = load(lake, shifted(3, since=99, by=0))

    report = check(lake, ref, [{"metric": "null_rate:*", "chart": "p"}, {"metric": "mean:*"}])

    assert [chart["metric"] for chart in report.charts] == [
        "null_rate:distance", "null_rate:tail", "mean:distance",
    ]  # fmt: skip


def test_sql_metrics_of_the_plan_are_charted(lake: Lake) -> None:
    ref = load(lake, shifted(3, since=99, by=0))
    plan = {
        "charts": [{"metric": "sql:top"}],
        "metrics": {"sql": {"top": "SELECT max(distance) FROM dataset"}},
    }

    (chart,) = check(lake, ref, plan).charts

    assert chart["value"] == pytest.approx(1000 - 10 * 0.8 + 10)


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ([], "argument.control_plan"),
        ({"chart": []}, "argument.control_plan"),
        ([{"chart": "p"}], "argument.control_chart"),
        ([{"metric": "row_count", "colour": "red"}], "argument.control_chart"),
        ([{"metric": "row_count", "chart": "pie"}], "argument.control_chart"),
        ([{"metric": "row_count"}, {"metric": "row_count"}], "argument.control_plan"),
        ([{"metric": "sql:x"}], "argument.metric"),
        ([{"metric": "freshness_seconds"}], "argument.metric"),
        ([{"metric": "rows"}], "argument.metric"),
        ([{"metric": "mean:tail"}], "argument.metric"),
        ([{"metric": "mean:nope"}], "argument.column"),
        ({"charts": PLAN, "causes": [{"start": "yesterday", "reason": "x"}]}, "argument.control_chart"),
        ({"charts": PLAN, "causes": [{"reason": "x"}]}, "argument.control_chart"),
        ("nowhere.yaml", "argument.document_missing"),
        ("", "argument.empty"),
        (7, "argument.control_plan"),
    ],
)
def test_unusable_plan_is_refused(lake: Lake, plan: Any, code: str) -> None:
    ref = load(lake, shifted(2, since=99, by=0))

    with pytest.raises(ArgumentError) as caught:
        check(lake, ref, plan)

    assert caught.value.code == code


def test_plans_say_the_same_in_python_yaml_and_json(tmp_path: Path) -> None:
    text = """
charts:
  - {metric: row_count, chart: ewma, lambda: 0.3}
  - {metric: "mean:distance", rules: [nelson_1], baseline: {kind: frozen, start: 2013-01-01, end: 2013-01-31}}
causes:
  - {start: 2013-02-08, end: 2013-02-09, reason: blizzard, metric: row_count}
"""
    (tmp_path / "plan.yaml").write_text(text)
    end_of_january = utc("2013-02-01") - timedelta(microseconds=1)
    plan = ControlPlan(
        charts=(
            ChartSpec(metric="row_count", chart="ewma", lambda_=0.3),
            ChartSpec(
                metric="mean:distance",
                rules=("nelson_1",),
                baseline=Baseline(kind="frozen", start=utc("2013-01-01"), end=end_of_january),
            ),
        ),
        causes=(
            SpecialCause(
                start=utc("2013-02-08"),
                end=utc("2013-02-10") - timedelta(microseconds=1),
                reason="blizzard",
                metrics=("row_count",),
            ),
        ),
    )

    assert load_control_plan(str(tmp_path / "plan.yaml")) == plan
    assert load_control_plan("tests.unit.quality.test_control:plan_of_a_function").charts == (
        ChartSpec(metric="row_count"),
    )
    assert parse_moment("2013-01-01T05:00:00").isoformat() == "2013-01-01T05:00:00+00:00"


def plan_of_a_function() -> list[ChartSpec]:
    return [ChartSpec(metric="row_count")]


def test_asked_metrics_go_beside_what_the_charts_need() -> None:
    plan = ControlPlan(charts=[{"metric": "sd:distance"}, {"metric": "failed_check_rate:half"}])

    found = plan.metric_plan(plan.specs, MetricPlan(columns=["tail"], suites=["other"])).to_json()

    assert found["columns"] == {"distance": ["sd"], "tail": ["default"]}
    assert found["suites"] == ["half", "other"]


def test_table_without_partitions_is_judged_version_by_version(lake: Lake) -> None:
    plan = [mean_chart() | {"baseline": {"points": 5}, "min_points": 5}]
    for number in range(6):
        ref = load(lake, [("all", 1000 + 10 * wave(number))], as_of=AS_OF + timedelta(days=number))
        passed = check(lake, ref, plan)
    ref = load(lake, [("all", 2000.0)], as_of=AS_OF + timedelta(days=6))

    failed = check(lake, ref, plan)

    assert (passed.outcome, failed.outcome) == (Outcome.PASSED, Outcome.FAILED)
    assert failed.signals[0].since == "@6"


def test_unknown_partition_is_not_found(lake: Lake) -> None:
    ref = load(lake, shifted(2, since=99, by=0))

    with pytest.raises(NotFoundError, match="no partition 2014-01-01"):
        check(lake, ref, partition="2014-01-01")


def test_date_is_that_date_in_the_charts_own_zone(lake: Lake) -> None:
    # given days called after local dates; the 90th is 2013-03-31, a Sunday
    ref = load(lake, shifted(90, since=99, by=0))
    chart = {"metric": "row_count", "strata": "weekday", "timezone": "America/New_York", "min_points": 5}

    report = check(lake, ref, [chart])

    assert (report.partition, report.charts[0]["stratum"]) == ("2013-03-31", "Sunday")


def test_history_is_measured_with_one_line_in_the_log(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    ref = load(lake, shifted(26, since=99, by=0))

    with caplog.at_level("INFO"):
        check(lake, ref)

    told = [one.getMessage() for one in caplog.records if "easured" in one.getMessage()]
    assert told == [f"Measured 26 of 26 partitions of {ref}: 2 metrics."]
    assert not [one for one in caplog.records if "quality_metrics" in one.getMessage()]


def test_shift_that_stays_is_one_incident_though_each_day_is_beyond_the_limits(lake: Lake) -> None:
    # given days far too high since the 26th, one of them explained, under limits that roll along
    ref = load(lake, [*shifted(30, since=25, by=500), (day(30), 1000.0), (day(31), 1500.0)])
    plan = {
        "charts": [{"metric": "mean:distance", "min_points": 20, "max_rounds": 0}],
        "causes": [{"start": day(27), "end": day(27), "reason": "known"}],
    }
    days = [day(n) for n in range(25, 32)]
    reports = check_partitions(lake, ref, partitions=days, plan=plan, actor=user(), as_of=AS_OF)

    opened = [
        one.subject
        for report in reports
        for one in open_chart_incidents(lake, [report], actor=user(), as_of=AS_OF)
    ]

    assert [len(report.signals) for report in reports[:2]] == [1, 1]
    assert reports[2].outcome is Outcome.NO_DATA
    assert opened[0] == f"t__raw/mean:distance/nelson_1/{day(25)}"
    assert len(opened) == 1 + (reports[-1].outcome is Outcome.FAILED)
    assert open_chart_incidents(lake, reports, actor=user(), as_of=AS_OF) == []
