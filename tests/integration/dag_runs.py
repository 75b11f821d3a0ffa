"""Real task runs by ``dag.test()``: a DAG to run, and what Airflow knows of the run afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

SUITE = "tests.unit.operators.suites:positive"
SCHEMA = {"id": "int64", "n": "int64"}
Run = Callable[..., Any]


def dag_bag(folder: str | Path) -> Any:
    """A parsed folder of DAG files, where Airflow 3.1 and 3.3 keep the class."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag

        return DagBag(dag_folder=str(folder), include_examples=False)
    return DagBag(dag_folder=str(folder), bundle_name="dags-folder")


def run_dag(dag: Any, **conf: Any) -> Any:
    """Serialize a DAG, run it to its end in this process, and give the run."""
    try:
        from airflow.dag_processing.dagbag import sync_bag_to_db
    except ImportError:
        from airflow.models.dagbag import sync_bag_to_db
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.session import create_session

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
    bag = dag_bag(os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    return dag.test(run_conf=conf or None)


def dataops(dag_id: str, landing: Path, *, retries: int = 0) -> Any:
    """ingest -> validate -> publish, of the partition that the parameter ``day`` names."""
    from datetime import timedelta

    from airflow.sdk import DAG, Asset

    from airflow_provider_xops.operators.data import (
        IngestDatasetOperator,
        PublishDatasetOperator,
        ValidateDatasetOperator,
    )

    defaults = {"retries": retries, "retry_delay": timedelta(0)}
    with DAG(dag_id=dag_id, schedule=None, params={"day": "2013-01-01"}, default_args=defaults) as dag:
        ingest = IngestDatasetOperator(
            task_id="ingest",
            table="t",
            source=f"{landing}/{{partition}}.csv",
            partition="{{ params.day }}",
            schema=SCHEMA,
        )
        validate = ValidateDatasetOperator(task_id="validate", dataset=ingest.output, suite=SUITE)
        PublishDatasetOperator(
            task_id="publish",
            report=validate.output,
            outlets=[Asset(name=dag_id, uri=f"x-xops://lake/{dag_id}")],
        )
    return dag


def tries(dag_run: Any) -> dict[str, tuple[str, int]]:
    return {ti.task_id: (str(ti.state), ti.try_number) for ti in dag_run.get_task_instances()}


def events_of(name: str) -> list[dict[str, Any]]:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(
            select(AssetEvent)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetModel.name == name)
            .order_by(AssetEvent.id)
        )
        return [event.extra for event in found]


def xcoms(dag_run: Any, task_id: str) -> dict[str, Any]:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(
            select(XComModel).where(
                XComModel.dag_id == dag_run.dag_id,
                XComModel.run_id == dag_run.run_id,
                XComModel.task_id == task_id,
            )
        )
        return {row.key: XComModel.deserialize_value(row) for row in found}
