"""Operators of the data side: ingest, transform, validate, publish, adopt.

For DAGs. Data are written to raw tables; only publishing brings them where models read them::

    ingest = IngestDatasetOperator(
        task_id="ingest", table="flights", source="/landing/{partition}.csv", partition="{{ ds }}"
    )
    check = ValidateDatasetOperator(task_id="check", dataset=ingest.output, suite="my_package.suites:flights")
    PublishDatasetOperator(task_id="publish", report=check.output, outlets=[Asset("flights")])

Each returns its record (small plain JSON) and puts the same into the asset events of its outlets. Give assets
of a lake no URI, or one that begins with ``x-`` (``x-xops://lake/flights``): for any other scheme Airflow
imports the libraries of all installed providers (boto3, for one) whenever a DAG file is parsed.
"""

from __future__ import annotations

from airflow_provider_xops.operators._control import CheckControlChartsOperator
from airflow_provider_xops.operators._loading import (
    AdoptDatasetOperator,
    IngestDatasetOperator,
    TransformDatasetOperator,
)
from airflow_provider_xops.operators._profiling import ProfileDatasetOperator
from airflow_provider_xops.operators._validation import PublishDatasetOperator, ValidateDatasetOperator

__all__ = [
    "AdoptDatasetOperator",
    "CheckControlChartsOperator",
    "IngestDatasetOperator",
    "ProfileDatasetOperator",
    "PublishDatasetOperator",
    "TransformDatasetOperator",
    "ValidateDatasetOperator",
]
