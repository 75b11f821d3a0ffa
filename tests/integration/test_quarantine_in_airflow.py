"""Bad rows inside Airflow: set aside, published without them, cleared, mended, corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from airflow_provider_xops.data.publish import publish
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.quality.quarantined import list_quarantine
from airflow_provider_xops.quality.release import release
from airflow_provider_xops.records import Actor
from tests.integration.dag_runs import SCHEMA, Run, tries, xcoms
from tests.unit.lake.helpers import AS_OF, rows_of

SUITE = "tests.unit.operators.suites:positive"
ENGINE = "duckdb"
DAY = "2013-01-01"
DONE = {"ingest": ("success", 1), "validate": ("success", 1), "publish": ("success", 1)}


def _dag(dag_id: str, landing: Path, **options: Any) -> Any:
    from airflow.sdk import DAG

    from airflow_provider_xops.operators.data import (
        IngestDatasetOperator,
        PublishDatasetOperator,
        ValidateDatasetOperator,
    )

    with DAG(dag_id=dag_id, schedule=None) as dag:
        ingest = IngestDatasetOperator(
            task_id="ingest", table="t", source=f"{landing}/{DAY}.csv", partition=DAY, schema=SCHEMA
        )
        validate = ValidateDatasetOperator(
            task_id="validate", dataset=ingest.output, suite=SUITE, on_failure="quarantine", engine=ENGINE,
            data_docs=False, **options,
        )  # fmt: skip
        PublishDatasetOperator(task_id="publish", report=validate.output)
    return dag


def test_a_day_with_a_bad_row_from_its_file_to_its_mended_row(
    lake_connection: Lake, landing: Path, run: Run, actor: Actor
) -> None:
    # given: one of four rows is bad
    lake, file = lake_connection, landing / f"{DAY}.csv"
    file.write_text("id,n\n1,1\n2,-1\n3,3\n4,4\n")
    dag = _dag("parted", landing, max_quarantined=0.25)
    # when: the day is run, and run again
    first = run(dag)
    again = run(dag)
    # then: the rest is published once
    assert tries(first) == tries(again) == DONE
    assert rows_of(lake, "t") == {DAY: [(1, 1), (3, 3), (4, 4)]}
    assert head(lake, "t").version == 0
    (place,) = list_quarantine(lake, "t")
    assert (place.rows, list(place.reasons)) == (1, ["expect_column_values_to_be_between(n)"])
    returned = xcoms(first, "validate")["return_value"]
    assert returned["quarantined"]["rows"] == 1
    assert returned["dataset"]["table"] == "t__accepted"
    # when: the row is mended by hand, and the day is run once more
    rows = pa.table({"id": [2], "n": [2], "_xops_row": [1]})
    mended = release(
        lake, "t", partition=DAY, rows=rows, suite=SUITE, engine=ENGINE, reason="asked", data_docs=False,
        actor=actor, as_of=AS_OF,
    )  # fmt: skip
    assert mended.report is not None
    publish(lake, mended.report, actor=actor, as_of=AS_OF)
    assert tries(run(dag)) == DONE
    # then: it stays mended
    assert rows_of(lake, "t") == {DAY: [(1, 1), (2, 2), (3, 3), (4, 4)]}
    assert head(lake, "t").version == 1
    # when: a corrected file comes
    file.write_text("id,n\n1,1\n2,20\n3,3\n4,4\n")
    assert tries(run(dag)) == DONE
    # then: it is what counts
    assert rows_of(lake, "t") == {DAY: [(1, 1), (2, 20), (3, 3), (4, 4)]}
    assert list_quarantine(lake, "t") == []


def test_a_day_with_too_many_bad_rows_stops_without_retries_and_writes_nothing(
    lake_connection: Lake, landing: Path, run: Run
) -> None:
    (landing / f"{DAY}.csv").write_text("id,n\n1,1\n2,-1\n")
    states = tries(run(_dag("too_bad", landing, max_quarantined=0.4, retries=2)))
    assert states == {"ingest": ("success", 1), "validate": ("failed", 1), "publish": ("upstream_failed", 0)}
    assert [table for table in _tables(lake_connection) if table != "t__raw"] == []


def _tables(lake: Lake) -> list[str]:
    from airflow_provider_xops.lake.tables import list_tables

    return list_tables(lake)
