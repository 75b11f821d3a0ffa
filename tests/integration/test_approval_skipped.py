"""Where there is nothing to ask about, the group is skipped or fails as what came before it did."""

from __future__ import annotations

from typing import Any

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators.approval import approve_promotion
from airflow_provider_xops.version_compat import AirflowFailException, AirflowSkipException
from tests.integration.dag_runs import Run


def group_after(ending: type[Exception], dag_id: str) -> Any:
    from airflow.sdk import DAG, task

    @task
    def judge() -> None:
        raise ending("no new data")

    @task
    def promote(approval: Any) -> None:
        raise AssertionError(f"promoted on {approval}")

    with DAG(dag_id=dag_id, schedule=None) as dag:
        approval = approve_promotion(evaluation=judge(), people=2, default_args={"retries": 0})
        promote(approval.output)
    return dag


def states(dag_run: Any) -> dict[str, str]:
    return {ti.task_id.removeprefix("approve."): str(ti.state) for ti in dag_run.get_task_instances()}


def test_skipped_evaluation_skips_the_group(run: Run, lake_connection: Lake) -> None:
    dag_run = run(group_after(AirflowSkipException, "approval_of_nothing"))

    assert dag_run.state == "success"
    assert set(states(dag_run).values()) == {"skipped"}


def test_failed_evaluation_fails_the_run_and_nothing_is_promoted(run: Run, lake_connection: Lake) -> None:
    dag_run = run(group_after(AirflowFailException, "approval_of_a_failure"))

    found = states(dag_run)
    assert dag_run.state == "failed"
    assert (found["judge"], found["result"], found["promote"]) == ("failed", "failed", "upstream_failed")
    assert {found[name] for name in ("show_evidence", "ask_1", "ask_2")} == {"upstream_failed"}
