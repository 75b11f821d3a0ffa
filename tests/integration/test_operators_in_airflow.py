"""The operators inside Airflow: real task runs by ``dag.test()``, with XCom, retries, asset events and logs.

Each DAG is serialized into the suite's own metadata database, then run. What a task's log and exception say
is read where a user reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import list_tables
from airflow_provider_xops.records import DatasetVersion, ValidationReport
from tests.integration.dag_runs import SUITE, Run, dataops, events_of, tries, xcoms

pytestmark = pytest.mark.usefixtures("airflow_db")


def test_a_good_day_is_published_and_announced(
    lake_connection: Lake, run: Run, landing: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (landing / "2013-01-01.csv").write_text("id,n\n1,5\n2,6\n")

    dag_run = run(dataops("good_day", landing))

    # then the run succeeded and its event carries the published version's record
    assert tries(dag_run) == dict.fromkeys(("ingest", "validate", "publish"), ("success", 1))
    (extra,) = events_of("good_day")
    version = DatasetVersion.from_json(extra)
    assert (version.table, version.partitions, version.rows) == ("t", ("2013-01-01",), 2)
    assert version.produced_by.dag_id == "good_day"
    assert lake_connection.evidence.get("versions", version.record_id) == version

    # and the task's links are where the UI reads them
    links = xcoms(dag_run, "validate")
    assert "/xops/lakes/xops_lake_default/reports/" in links["_link_ValidationReportLink"]
    report_id = links["_link_EvidenceLink"].rpartition("/")[2]
    assert lake_connection.evidence.get(ValidationReport.kind, report_id)

    # and no secret of the connection is in a log, an XCom or an event
    seen = capfd.readouterr()
    everything = f"{seen.out}{seen.err}{extra}{[xcoms(dag_run, task) for task in tries(dag_run)]}"
    assert "hunter2-secret" not in everything


def test_the_same_day_again_is_a_success_without_an_event(
    lake_connection: Lake, run: Run, landing: Path
) -> None:
    (landing / "2013-01-01.csv").write_text("id,n\n1,5\n")
    dag = dataops("twice", landing)

    first, second = run(dag), run(dag)

    assert (first.state, second.state) == ("success", "success")
    assert xcoms(second, "publish")["return_value"]["reused"] is True
    assert len(events_of("twice")) == 1


def test_bad_data_fail_once_whatever_the_retries_and_are_not_published(
    lake_connection: Lake, run: Run, landing: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (landing / "2013-01-01.csv").write_text("id,n\n1,-5\n2,6\n")

    dag_run = run(dataops("bad_day", landing, retries=3))

    assert tries(dag_run) == {
        "ingest": ("success", 1),
        "validate": ("failed", 1),
        "publish": ("upstream_failed", 0),
    }
    assert events_of("bad_day") == []
    assert list_tables(lake_connection) == ["t__raw"]
    # the report is kept, and the log says what, why and what next
    (report,) = lake_connection.evidence.all(ValidationReport.kind)
    log = "".join(capfd.readouterr())
    assert "[validation.failed] suite positive failed on t__raw@0" in log
    assert "expect_column_values_to_be_between on n failed (1 values, 50 %)" in log
    assert "Next step: correct the data at their source" in log
    assert report.record_id in xcoms(dag_run, "validate")["_link_EvidenceLink"]


def test_a_broken_file_fails_once_and_leaves_no_table(
    lake_connection: Lake, run: Run, landing: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (landing / "2013-01-01.csv").write_text("id,n\n1,five\n")

    dag_run = run(dataops("broken_file", landing, retries=3))

    assert tries(dag_run)["ingest"] == ("failed", 1)
    assert list_tables(lake_connection) == []
    log = "".join(capfd.readouterr())
    assert "[source.types]" in log
    assert "five" not in log  # values of rows stay out of logs


def test_template_that_renders_to_nothing_fails_once(
    lake_connection: Lake, run: Run, landing: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dag_run = run(dataops("empty_template", landing, retries=3), day="")

    assert tries(dag_run)["ingest"] == ("failed", 1)
    assert "[argument.empty]" in "".join(capfd.readouterr())


def test_a_connection_that_breaks_is_retried(
    lake_connection: Lake, run: Run, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given storage that does not answer the first time it is asked
    from airflow_provider_xops.errors import UnavailableError
    from airflow_provider_xops.lake.storage import LocalStorage

    (landing / "2013-01-01.csv").write_text("id,n\n1,5\n")
    real, calls = LocalStorage.get, []

    def sometimes(self: LocalStorage, path: str) -> bytes | None:
        calls.append(path)
        if len(calls) == 1:
            raise UnavailableError("the storage did not answer", code="unavailable.storage")
        return real(self, path)

    monkeypatch.setattr(LocalStorage, "get", sometimes)

    dag_run = run(dataops("flaky", landing, retries=3))

    assert dag_run.state == "success"
    assert tries(dag_run)["ingest"] == ("success", 2)


def test_crash_between_commit_and_success_does_not_lose_the_event(
    lake_connection: Lake, run: Run, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a publication whose first try dies after its commit, before Airflow heard of it
    from airflow_provider_xops.errors import UnavailableError
    from airflow_provider_xops.operators.data import PublishDatasetOperator

    (landing / "2013-01-01.csv").write_text("id,n\n1,5\n")
    real, calls = PublishDatasetOperator.hand_over, []

    def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["reused"])
        if len(calls) == 1:
            raise UnavailableError("killed here")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(PublishDatasetOperator, "hand_over", dying)

    dag_run = run(dataops("crashing", landing, retries=1))

    # then the retry finds the commit, and announces it once
    assert tries(dag_run)["publish"] == ("success", 2)
    assert calls == [False, True]
    assert len(events_of("crashing")) == 1


def test_transform_reads_the_head_of_a_named_table(lake_connection: Lake, run: Run, landing: Path) -> None:
    # given two published days and a DAG that names only their table
    from airflow.sdk import DAG

    from airflow_provider_xops.operators.data import TransformDatasetOperator

    for day in ("2013-01-01", "2013-01-02"):
        (landing / f"{day}.csv").write_text("id,n\n1,5\n")
        assert run(dataops("producer", landing), day=day).state == "success"

    with DAG(dag_id="consumer", schedule=None) as dag:
        TransformDatasetOperator(
            task_id="sum",
            table="sums",
            inputs={"t": {"dataset": "t"}},
            sql="SELECT sum(n) AS total FROM t",
            partition="all",
        )
    dag_run = run(dag)

    returned = xcoms(dag_run, "sum")["return_value"]
    assert (returned["table"], returned["rows"], returned["parents"][0]["version"]) == ("sums__raw", 1, 1)


def test_skipped_producer_does_not_turn_into_the_head(lake_connection: Lake, run: Run, landing: Path) -> None:
    # given a validation that reads the output of a task that was skipped
    from airflow.sdk import DAG, task

    from airflow_provider_xops.operators.data import ValidateDatasetOperator

    with DAG(dag_id="skipped_producer", schedule=None) as dag:

        @task
        def nothing() -> None:
            """Returns nothing, as a skipped task does."""

        ValidateDatasetOperator(task_id="validate", dataset=nothing(), suite=SUITE, retries=2)

    assert tries(run(dag))["validate"] == ("failed", 1)
