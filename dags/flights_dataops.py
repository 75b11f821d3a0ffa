"""flights_dataops: one day of flights and weather, from the airline's files to rows a model may be trained
on.

Both feeds are read into raw tables, validated, and published only if they passed. The features of the day are
built from the two published tables, validated and published in turn; publishing them tells Airflow, and
`flights_scoring` follows. A file that fails its validation stays in the raw table and goes no further.

Run it by hand with `{"day": "2013-04-01"}`, or load history at once with `{"day": "2013-01-01..2013-03-31"}`.
In production give it a schedule; without a day it takes the run's own date.
"""

from airflow.sdk import DAG, Asset, Param

from airflow_provider_xops.examples.flights import features, schemas
from airflow_provider_xops.operators.data import (
    IngestDatasetOperator,
    PublishDatasetOperator,
    TransformDatasetOperator,
    ValidateDatasetOperator,
)

DAY = "{{ params.day or dag_run.run_after.strftime('%Y-%m-%d') }}"
LANDING = "{{ var.value.get('xops_flights_landing', '/data/landing') }}"
SUITES = "airflow_provider_xops.examples.flights.suites"

with DAG(
    dag_id="flights_dataops",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["xops", "dataops", "flights"],
    params={"day": Param(None, type=["null", "string"], description="2013-04-01, or 2013-01-01..2013-03-31")},
    doc_md=__doc__,
):
    published = {}
    for feed, schema in (("flights", schemas.FLIGHTS), ("weather", schemas.WEATHER)):
        ingest = IngestDatasetOperator(
            task_id=f"ingest_{feed}",
            table=feed,
            source=LANDING + f"/{feed}/{{partition}}.csv",
            partition=DAY,
            schema=schema,
        )
        validate = ValidateDatasetOperator(
            task_id=f"validate_{feed}",
            dataset=ingest.output,
            suite=f"{SUITES}:{feed}",
        )
        published[feed] = PublishDatasetOperator(
            task_id=f"publish_{feed}",
            report=validate.output,
            outlets=[Asset(name=feed, uri=f"x-xops://lake/{feed}")],
        )

    build_features = TransformDatasetOperator(
        task_id="build_features",
        table="flight_features",
        inputs={feed: publish.output for feed, publish in published.items()},
        sql=features.SQL,
        partition=DAY,
    )
    validate_features = ValidateDatasetOperator(
        task_id="validate_features",
        dataset=build_features.output,
        suite=f"{SUITES}:flight_features",
    )
    PublishDatasetOperator(
        task_id="publish_features",
        report=validate_features.output,
        outlets=[Asset(name="flight_features", uri="x-xops://lake/flight_features")],
    )
