"""The control chart operator on a real lake: what signals do, what it hands over, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators.data import CheckControlChartsOperator
from airflow_provider_xops.records import ControlChartReport, Incident
from airflow_provider_xops.version_compat import AirflowFailException, AirflowSkipException, Asset
from tests.unit.quality.days import day, load, mean_chart, shifted

MakeContext = Callable[..., dict[str, Any]]
CHARTS = [mean_chart()]
LINK = "_xops/reports/control_charts/"


@pytest.fixture
def shift(lake: Lake) -> Lake:
    """A table that is ordinary up to the 26th day and then far away."""
    load(lake, shifted(27, since=26, by=200))
    return lake


@pytest.fixture
def check(make_context: MakeContext) -> Callable[..., dict[str, Any]]:
    def run(**options: Any) -> dict[str, Any]:
        options = {"dataset": "t__raw", "charts": CHARTS} | options
        return CheckControlChartsOperator(task_id="charts", **options).execute(make_context(task_id="charts"))

    return run


def test_signal_warns_and_opens_one_incident(
    shift: Lake, check: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    returned = check()
    check()

    assert (returned["kind"], returned["outcome"], returned["partition"]) == (
        "control_charts",
        "failed",
        day(26),
    )
    log = capsys.readouterr().out
    assert "Going on although: [validation.out_of_control] t__raw is out of control at 2013-01-27" in log
    assert "mean:distance left its natural range: nelson_1" in log
    assert f"since {day(26)}" in log
    (incident,) = shift.evidence.all(Incident.kind)
    assert isinstance(incident, Incident)
    assert (incident.incident, incident.severity) == ("out_of_control", "warning")
    report = shift.evidence.get(ControlChartReport.kind, returned["record_id"])
    assert isinstance(report, ControlChartReport)
    assert LINK in str(report.report_uri)


def test_signal_may_fail_without_retries_or_skip(shift: Lake, check: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AirflowFailException, match=r"\[validation\.out_of_control\] t__raw"):
        check(on_signal="fail")
    with pytest.raises(AirflowSkipException):
        check(on_signal="skip", incidents=False)


def test_task_links_to_the_charts_also_when_it_fails(shift: Lake, make_context: MakeContext) -> None:
    operator = CheckControlChartsOperator(task_id="charts", dataset="t__raw", charts=CHARTS, on_signal="fail")
    with pytest.raises(AirflowFailException):
        operator.execute(make_context(task_id="charts"))

    links = {link.name: link.get_link(operator, ti_key=None) for link in operator.operator_extra_links}

    assert links["Control charts"].startswith("/xops/lakes/xops_lake_default/reports/control_charts/")
    assert "/evidence/control_charts/" in links["XOps evidence"]


def test_known_cause_does_not_signal(shift: Lake, check: Callable[..., dict[str, Any]]) -> None:
    returned = check(causes=[{"start": day(26), "reason": "new planes"}], on_signal="fail")

    assert returned["outcome"] == "no_data"


def test_no_limits_yet_goes_on_or_fails(lake: Lake, check: Callable[..., dict[str, Any]]) -> None:
    load(lake, shifted(3, since=99, by=0))

    assert check()["outcome"] == "no_data"
    assert check(on_no_limits="warn")["outcome"] == "no_data"
    with pytest.raises(AirflowFailException, match=r"validation\.no_limits"):
        check(on_no_limits="fail")


def test_several_partitions_are_judged_in_order_and_the_signal_is_shown(
    lake: Lake, check: Callable[..., dict[str, Any]]
) -> None:
    load(lake, [*shifted(26, since=99, by=0), (day(26), 1300.0), (day(27), 1000.0)])

    returned = check(partition=f"{day(25)}..{day(27)}")

    assert (returned["partition"], returned["outcome"]) == (day(26), "failed")
    assert len(returned["reports"]) == 3


def test_templates_may_render_to_text(shift: Lake, check: Callable[..., dict[str, Any]]) -> None:
    returned = check(
        charts="[{'metric': 'row_count'}, {'metric': 'sql:top'}]",
        metrics="{'sql': {'top': 'SELECT max(distance) FROM dataset'}}",
        partition=f"['{day(25)}']",
    )

    assert [chart["metric"] for chart in returned["charts"]] == ["row_count", "sql:top"]


def test_plan_may_be_a_function_by_name_or_itself(shift: Lake, check: Callable[..., dict[str, Any]]) -> None:
    from tests.unit.quality.test_control import plan_of_a_function

    by_name = check(charts="tests.unit.quality.test_control:plan_of_a_function")

    assert check(charts=plan_of_a_function)["record_id"] == by_name["record_id"]


def test_assets_carry_the_report(shift: Lake, make_context: MakeContext) -> None:
    context = make_context(task_id="charts")
    outlet = Asset("charts")

    returned = CheckControlChartsOperator(
        task_id="charts", dataset="t__raw", charts=CHARTS, outlets=[outlet]
    ).execute(context)

    extra = context["outlet_events"][outlet].extra
    assert extra["record_id"] == returned["record_id"]
    assert "reports" not in extra


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"charts": ""}, r"argument\.empty"),
        ({"charts": lambda: [CHARTS]}, r"user_code\.lambda"),
        ({"dataset": ""}, r"argument\.empty"),
        ({"partition": "None"}, r"argument\.empty"),
        ({"partition": "2014-01-01"}, r"not_found\.partition"),
        ({"on_signal": "panic"}, r"argument\.on_signal"),
        ({"on_no_limits": "skip"}, r"argument\.on_no_limits"),
        ({"metrics": 3}, r"argument\.metric_plan"),
    ],
)
def test_unusable_arguments_fail_once(
    shift: Lake, check: Callable[..., dict[str, Any]], options: dict[str, Any], code: str
) -> None:
    with pytest.raises(AirflowFailException, match=code):
        check(**options)
