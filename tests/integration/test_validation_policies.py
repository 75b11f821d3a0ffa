"""What follows a validation, in real task runs: skipped, branched, quarantined; never a value in sight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import list_tables
from airflow_provider_xops.records import QuarantineReport, ValidationReport
from tests.integration.dag_runs import Run, events_of, tries, xcoms

pytestmark = pytest.mark.usefixtures("airflow_db")

DAY = "2013-01-01"
SECRET = "Jane-Secretdottir"
SCHEMA = {"id": "int64", "n": "int64", "name": "string"}
GOOD, BAD, WARNED = (
    "id,n,name\n1,5,AA\n2,6,AA\n",
    f"id,n,name\n1,5,AA\n2,-6,{SECRET}\n",
    "id,n,name\n1,5,BB\n",
)


@pytest.fixture
def suite(tmp_path: Path) -> str:
    """Positive numbers are critical, known names a warning."""
    path = tmp_path / "policies.json"
    positive = {"column": "n", "min_value": 1}
    known = {"column": "name", "value_set": ["AA"]}
    expectations = [
        {"type": "expect_column_values_to_be_between", "kwargs": positive},
        {"type": "expect_column_values_to_be_in_set", "kwargs": known, "severity": "warning"},
    ]
    path.write_text(json.dumps({"name": "policies", "expectations": expectations}))
    return str(path)


def flow(dag_id: str, landing: Path, suite: str, *, after: tuple[str, ...] = (), **policy: Any) -> Any:
    """ingest -> validate -> publish, with further tasks directly after the validation."""
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, Asset

    from airflow_provider_xops.operators.data import (
        IngestDatasetOperator,
        PublishDatasetOperator,
        ValidateDatasetOperator,
    )

    with DAG(dag_id=dag_id, schedule=None, default_args={"retries": 0}) as dag:
        ingest = IngestDatasetOperator(
            task_id="ingest", table="t", source=f"{landing}/{{partition}}.csv", partition=DAY, schema=SCHEMA
        )
        validate = ValidateDatasetOperator(task_id="validate", dataset=ingest.output, suite=suite, **policy)
        PublishDatasetOperator(
            task_id="publish",
            report=validate.output,
            outlets=[Asset(name=dag_id, uri=f"x-xops://lake/{dag_id}")],
        )
        for name in after:
            validate >> EmptyOperator(task_id=name)
    return dag


def states(dag_run: Any) -> dict[str, str]:
    return {task: state for task, (state, _) in tries(dag_run).items() if task != "ingest"}


BRANCHES = {"passed": "publish", "failed": ["alert", "audit"], "no_data": "wait"}


@pytest.mark.parametrize(
    ("content", "followed"),
    [(GOOD, ["publish"]), (BAD, ["alert", "audit"]), (WARNED, ["publish"]), ("id,n,name\n", ["wait"])],
    ids=["passed", "failed", "warned", "no_data"],
)
def test_every_outcome_follows_its_branch(
    lake_connection: Lake, run: Run, landing: Path, suite: str, content: str, followed: list[str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    (landing / f"{DAY}.csv").write_text(content)
    dag_id = f"branch_{request.node.callspec.id}"
    dag = flow(
        dag_id, landing, suite, after=("alert", "audit", "wait"), on_failure="branch", branches=BRANCHES
    )

    dag_run = run(dag)

    others = {"publish", "alert", "audit", "wait"} - set(followed)
    assert states(dag_run) == {
        "validate": "success", **dict.fromkeys(followed, "success"), **dict.fromkeys(others, "skipped"),
    }  # fmt: skip
    # the output is there although Airflow ends a branching task by an exception
    assert xcoms(dag_run, "validate")["return_value"]["kind"] == ValidationReport.kind
    assert len(events_of(dag_id)) == (1 if "publish" in followed else 0)


@pytest.mark.parametrize(
    ("content", "on_failure", "expected"),
    [
        (WARNED, {"critical": "fail", "warning": "skip"}, ("skipped", "skipped")),
        (WARNED, {"critical": "fail", "warning": "warn"}, ("success", "success")),
        (WARNED, {"warning": "fail"}, ("failed", "upstream_failed")),
        (BAD, {"critical": "warn"}, ("success", "failed")),
    ],
    ids=["warning-skips", "warning-goes-on", "warning-fails", "critical-goes-on-and-is-not-published"],
)
def test_every_severity_has_its_policy(
    lake_connection: Lake, run: Run, landing: Path, suite: str, content: str, on_failure: Mapping[str, str],
    expected: tuple[str, str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    (landing / f"{DAY}.csv").write_text(content)
    dag_run = run(flow(f"severity_{request.node.callspec.id}", landing, suite, on_failure=on_failure))
    assert states(dag_run) == dict(zip(("validate", "publish"), expected, strict=True))


def test_bad_rows_are_set_aside_and_the_rest_is_published(
    lake_connection: Lake, run: Run, landing: Path, suite: str
) -> None:
    (landing / f"{DAY}.csv").write_text(BAD)

    dag = flow("set_aside", landing, suite, on_failure="quarantine", max_quarantined=0.5)
    dag_run = run(dag)

    assert states(dag_run) == {"validate": "success", "publish": "success"}
    told = xcoms(dag_run, "validate")
    (record,) = lake_connection.evidence.all(QuarantineReport.kind)
    assert isinstance(record, QuarantineReport)
    assert told["return_value"]["quarantined"] == {"rows": 1, "record_id": record.record_id}
    assert (record.rows, record.accepted_rows, record.quarantined_rows) == (2, 1, 1)
    assert "/reports/quarantines/" in told["_link_QuarantineReportLink"]
    (published,) = events_of("set_aside")
    assert published["rows"] == 1


def test_too_much_bad_stops_the_flow(lake_connection: Lake, run: Run, landing: Path, suite: str) -> None:
    (landing / f"{DAY}.csv").write_text(BAD)
    dag_run = run(flow("too_much", landing, suite, on_failure="quarantine"))
    assert states(dag_run) == {"validate": "failed", "publish": "upstream_failed"}
    assert list_tables(lake_connection) == ["t__raw"]


@pytest.mark.parametrize("policy", ["none", "masked", "full"])
def test_bad_values_reach_neither_log_nor_xcom_nor_event_nor_record(
    lake_connection: Lake, run: Run, landing: Path, suite: str, policy: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (landing / f"{DAY}.csv").write_text(BAD)

    on_failure = "quarantine" if policy == "full" else "fail"
    dag = flow(f"secret_{policy}", landing, suite, on_failure=on_failure, max_quarantined=0.5, samples=policy)
    dag_run = run(dag)

    told = "".join(capfd.readouterr())
    told += str([xcoms(dag_run, task) for task in tries(dag_run)]) + str(events_of(f"secret_{policy}"))
    for kind in (ValidationReport.kind, QuarantineReport.kind):
        told += str([record.to_json() for record in lake_connection.evidence.all(kind)])
    assert SECRET not in told
    links = xcoms(dag_run, "validate")
    assert "/xops/lakes/xops_lake_default/reports/validations/" in links["_link_DataDocsLink"]


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"on_failure": "branch"}, "argument.branches"),
        ({"on_failure": "branch", "branches": {"passed": "publish"}}, "argument.branches"),
        (
            {"on_failure": "branch", "branches": {"passed": "publish", "failed": "nowhere"}},
            "argument.branches",
        ),
        ({"branches": {"passed": "publish", "failed": []}}, "argument.branches"),
        ({"on_failure": {"critical": "explode"}}, "argument.policy"),
        ({"samples": "some"}, "argument.samples"),
    ],
    ids=["no-branches", "half", "nowhere", "unused", "no-word", "no-samples"],
)
def test_a_policy_that_cannot_be_followed_fails_before_anything_is_looked_at(
    lake_connection: Lake, run: Run, landing: Path, suite: str, policy: dict[str, Any], code: str,
    capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    (landing / f"{DAY}.csv").write_text(GOOD)
    dag_run = run(flow(f"refused_{request.node.callspec.id}", landing, suite, **policy))
    assert states(dag_run) == {"validate": "failed", "publish": "upstream_failed"}
    assert f"[{code}]" in "".join(capfd.readouterr())
    assert list(lake_connection.evidence.all(ValidationReport.kind)) == []
