"""Control charts and the freshness sensor inside Airflow: real task runs by ``dag.test()``.

The first test is the reason for charts: a source goes wrong in a way that every rule of its suite allows.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.data.ingest import ingest
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ControlChartReport, Incident, Outcome, ValidationReport
from tests.integration.dag_runs import SCHEMA, SUITE, Run, tries, xcoms
from tests.unit.lake.helpers import AS_OF, user
from tests.unit.quality.days import day, load, wave

pytestmark = pytest.mark.usefixtures("airflow_db")

CHARTS = [
    {"metric": "row_count", "rules": "nelson"},
    {
        "metric": "mean:n",
        "rules": "nelson",
        "baseline": {"kind": "frozen", "start": day(0), "end": day(24)},
    },
]
SHIFT = 30


def deliver(landing: Path, number: int) -> str:
    """A day of sales around 100; from the 31st day on they are a tenth too high. The suite asks for n > 0."""
    lines = ["id,n"]
    factor = 1.1 if number >= SHIFT else 1.0
    lines += [f"{row},{round((100 + 5 * wave(number + row)) * factor)}" for row in range(40)]
    (landing / f"{day(number)}.csv").write_text("\n".join(lines) + "\n")
    return day(number)


def daily(dag_id: str, landing: Path, **policy: Any) -> Any:
    """ingest -> validate -> charts -> publish."""
    from airflow.sdk import DAG

    from airflow_provider_xops.operators.data import (
        CheckControlChartsOperator,
        IngestDatasetOperator,
        PublishDatasetOperator,
        ValidateDatasetOperator,
    )

    defaults = {"retries": 2, "retry_delay": timedelta(0)}
    with DAG(dag_id=dag_id, schedule=None, params={"day": day(0)}, default_args=defaults) as dag:
        load_day = IngestDatasetOperator(
            task_id="ingest",
            table="sales",
            source=f"{landing}/{{partition}}.csv",
            partition="{{ params.day }}",
            schema=SCHEMA,
        )
        validate = ValidateDatasetOperator(task_id="validate", dataset=load_day.output, suite=SUITE)
        charts = CheckControlChartsOperator(
            task_id="charts", dataset=load_day.output, charts=CHARTS, incidents=True, **policy
        )
        publish = PublishDatasetOperator(task_id="publish", report=validate.output)
        charts >> publish
    return dag


def test_silent_shift_passes_every_rule_and_signals_on_the_chart(
    lake_connection: Lake, run: Run, landing: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # given thirty ordinary days
    history = [deliver(landing, number) for number in range(SHIFT)]
    sources = {name: f"{landing}/{name}.csv" for name in history}
    ingest(lake_connection, "sales", sources, schema=SCHEMA, actor=user(), as_of=AS_OF)

    # when the source begins to count too much
    first = deliver(landing, SHIFT)
    dag_run = run(daily("silent_shift", landing, on_signal="fail"), day=first)

    # then every rule passes, the chart stops the day once, and says what and since when
    assert tries(dag_run) == {
        "ingest": ("success", 1),
        "validate": ("success", 1),
        "charts": ("failed", 1),
        "publish": ("upstream_failed", 0),
    }
    reports = list(lake_connection.evidence.all(ValidationReport.kind))
    assert {one.outcome for one in reports if isinstance(one, ValidationReport)} == {Outcome.PASSED}
    log = "".join(capfd.readouterr())
    assert "[validation.out_of_control] sales__raw is out of control at 2013-01-31" in log
    assert "mean:n left its natural range: nelson_1" in log
    (incident,) = lake_connection.evidence.all(Incident.kind)
    assert isinstance(incident, Incident)
    assert incident.subject == f"sales__raw/mean:n/nelson_1/{first}"

    # and the task leads to the page that says so
    link = xcoms(dag_run, "charts")["_link_ControlChartsLink"]
    page = lake_connection.storage.get("_xops/reports/" + link.partition("/reports/")[2])
    assert page is not None
    text = page.decode()
    assert f"since {first}" in text
    assert "<svg" in text
    (signaled,) = [
        one
        for one in lake_connection.evidence.all(ControlChartReport.kind)
        if isinstance(one, ControlChartReport) and one.outcome is Outcome.FAILED
    ]
    assert signaled.signals[0].since == first


def test_sensor_defers_until_the_partition_arrives(lake_connection: Lake, run: Run) -> None:
    from airflow.sdk import DAG

    from airflow_provider_xops.sensors.dataset import DatasetFreshnessSensor

    load(lake_connection, [(day(0), 1.0)], table="t")
    with DAG(dag_id="waiting", schedule=None) as dag:
        DatasetFreshnessSensor(
            task_id="wait", table="t", partition=day(1), deferrable=True, poke_interval=0.2, timeout=60
        )

    def arrive() -> None:
        time.sleep(3)
        load(lake_connection, [(day(1), 2.0)], table="t")

    arriving = threading.Thread(target=arrive)
    arriving.start()
    dag_run = run(dag)
    arriving.join()

    assert tries(dag_run) == {"wait": ("success", 1)}
    found = xcoms(dag_run, "wait")["return_value"]
    assert (found["status"], found["version"], found["partitions"]) == ("fresh", 1, [day(1)])


def test_data_that_become_late_while_the_sensor_is_deferred_skip_what_follows(
    lake_connection: Lake, run: Run
) -> None:
    from datetime import UTC, datetime

    from airflow.sdk import DAG
    from airflow.sdk import task as python_task

    from airflow_provider_xops.sensors.dataset import DatasetFreshnessSensor

    # given an hour that is due in three seconds
    now = datetime.now(UTC)
    begins = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    grace = (now - begins - timedelta(hours=1) + timedelta(seconds=6)).total_seconds()
    with DAG(dag_id="becoming_late", schedule=None) as dag:
        wait = DatasetFreshnessSensor(
            task_id="wait",
            table="t",
            schedule={"every": "hourly", "grace": f"{grace:.0f}s", "start": begins.isoformat()},
            on_late="skip",
            deferrable=True,
            poke_interval=0.2,
            timeout=60,
        )

        @python_task
        def after() -> None:
            """Must not run."""

        wait >> after()

    dag_run = run(dag)

    assert {name: state for name, (state, _) in tries(dag_run).items()} == {
        "wait": "skipped",
        "after": "skipped",
    }
    (incident,) = lake_connection.evidence.all(Incident.kind)
    assert isinstance(incident, Incident)
    assert (incident.incident, incident.produced_by.dag_id) == ("missing_partition", "becoming_late")
