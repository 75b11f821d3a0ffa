"""Dynamic task mapping over partitions: each mapped task has a key of its own."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import resolve_ref
from airflow_provider_xops.records import DatasetVersion
from tests.integration.dag_runs import SCHEMA, SUITE, Run

DAYS = ["2013-01-01", "2013-01-02", "2013-01-03"]


def test_partitions_are_mapped_and_mapped_again(lake_connection: Lake, run: Run, landing: Path) -> None:
    # given a task that lists the days, and three operators mapped over what the one before gave
    from airflow.sdk import DAG, task

    from airflow_provider_xops.operators.data import (
        IngestDatasetOperator,
        PublishDatasetOperator,
        TransformDatasetOperator,
        ValidateDatasetOperator,
    )

    for number, day in enumerate(DAYS):
        (landing / f"{day}.csv").write_text(f"id,n\n{number},5\n")

    with DAG(dag_id="mapped", schedule=None, render_template_as_native_obj=False) as dag:

        @task
        def days() -> list[str]:
            return DAYS

        listed = days()
        ingest = IngestDatasetOperator.partial(
            task_id="ingest", table="t", source=f"{landing}/{{partition}}.csv", schema=SCHEMA
        ).expand(partition=listed)
        check = ValidateDatasetOperator.partial(task_id="check", suite=SUITE).expand(dataset=ingest.output)
        publish = PublishDatasetOperator.partial(task_id="publish").expand(report=check.output)
        copy = TransformDatasetOperator(
            task_id="copy",
            table="copied",
            inputs={"t": "t"},
            sql="SELECT * FROM t",
            partition="{{ ti.xcom_pull('days') }}",  # text of a list: templates are not native
        )
        publish >> copy

    # when
    dag_run = run(dag)

    # then each mapped task wrote its own partition, under a key of its own
    assert dag_run.state == "success"
    assert sorted(read.partition_digests(lake_connection, resolve_ref(lake_connection, "t"))) == DAYS
    copied = resolve_ref(lake_connection, "copied__raw", allow_raw=True)
    assert sorted(read.partition_digests(lake_connection, copied)) == DAYS
    versions = [
        record
        for record in lake_connection.evidence.all(DatasetVersion.kind)
        if isinstance(record, DatasetVersion) and record.table == "t__raw"
    ]
    assert {record.produced_by.map_index for record in versions} == {0, 1, 2}
    assert len({record.produced_by.id for record in versions}) == 3
