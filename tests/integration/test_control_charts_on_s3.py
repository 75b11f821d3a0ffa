"""Control charts of a lake on a real S3 server (SeaweedFS): measured at once, folded, judged again."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.lake.maintenance import fold_evidence
from airflow_provider_xops.quality.control import check_control_charts, open_chart_incidents
from airflow_provider_xops.records import Actor, Outcome, QualityMetrics
from tests import servers
from tests.unit.lake.helpers import user
from tests.unit.quality.days import day, load, mean_chart, shifted


def test_shift_is_found_on_s3_and_again_after_a_fold(
    seaweedfs: servers.S3Server, actor: Actor, as_of: datetime
) -> None:
    # given a month of days that nobody measured
    settings = seaweedfs.lake_settings("control-charts")
    init_lake(settings, actor=actor, as_of=as_of)
    lake = open_lake(settings)
    ref = load(lake, shifted(30, since=29, by=200))

    report = check_control_charts(lake, ref, plan=[mean_chart()], actor=actor, as_of=as_of)
    opened = open_chart_incidents(lake, [report], actor=actor, as_of=as_of)

    assert [signal.since for signal in report.signals] == [day(29)]
    assert report.report_uri is not None
    assert report.report_uri.startswith("s3://")
    assert len(opened) == 1

    # when the evidence is folded into tables
    later = as_of + timedelta(days=2)
    for kind in (QualityMetrics.kind, report.kind, opened[0].kind):
        fold_evidence(lake, kind, older_than=later, actor=user(2), as_of=later)
    lake = open_lake(settings)

    # then the same question has the same answer, and the next day goes on from there
    assert check_control_charts(lake, ref, plan=[mean_chart()], actor=actor, as_of=later) == report
    assert open_chart_incidents(lake, [report], actor=actor, as_of=later) == []
    ref = load(lake, [(day(30), 1000.0)])
    tomorrow = check_control_charts(lake, ref, plan=[mean_chart()], actor=actor, as_of=later)
    assert (tomorrow.outcome, tomorrow.charts[0]["points"]) == (Outcome.PASSED, 31)
    assert len(list(lake.evidence.all(QualityMetrics.kind))) == 31
