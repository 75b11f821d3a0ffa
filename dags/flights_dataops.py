"""flights_dataops: one day of flights and weather, from the airline's files to rows a model may be trained
on.

Both feeds are read into raw tables, validated, and published only if they passed. A few bad flights are set
aside in `flights__quarantine` with the reason of each, and the others go on; a file that is bad throughout
stays in the raw table and goes no further. Whether a value is allowed is what the suite says; whether the day
is a usual one is what the control charts say, and a signal holds the day back until somebody has looked. The
features of the day are built from the two published tables, validated and published in turn; publishing them
tells Airflow, and `flights_scoring` follows.

Run it by hand with `{"day": "2013-04-01"}`, or load history at once with `{"day": "2013-01-01..2013-03-31"}`.
In production give it a schedule; without a day it takes the run's own date.
"""

from airflow.sdk import DAG, Asset, Param

from airflow_provider_xops.examples.flights import features, schemas
from airflow_provider_xops.operators.data import (
    CheckControlChartsOperator,
    IngestDatasetOperator,
    PublishDatasetOperator,
    TransformDatasetOperator,
    ValidateDatasetOperator,
)

# Of history that is loaded at once only the last day is judged: the days before are what it is compared with.
LAST_DAY = "{{ (params.day or dag_run.run_after.strftime('%Y-%m-%d')).split('..') | last }}"
DAY = "{{ params.day or dag_run.run_after.strftime('%Y-%m-%d') }}"
LANDING = "{{ var.value.get('xops_flights_landing', '/data/landing') }}"
SUITES = "airflow_provider_xops.examples.flights.suites"
CHARTS = "airflow_provider_xops.examples.flights.charts"

with DAG(
    dag_id="flights_dataops",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["xops", "dataops", "flights"],
    params={"day": Param(None, type=["null", "string"], description="2013-04-01, or 2013-01-01..2013-03-31")},
    doc_md=__doc__,
):
    ingest_flights = IngestDatasetOperator(
        task_id="ingest_flights",
        table="flights",
        source=LANDING + "/flights/{partition}.csv",
        partition=DAY,
        schema=schemas.FLIGHTS,
    )
    validate_flights = ValidateDatasetOperator(
        task_id="validate_flights",
        dataset=ingest_flights.output,
        suite=f"{SUITES}:flights",
        on_failure="quarantine",
        max_quarantined=0.05,
    )
    chart_flights = CheckControlChartsOperator(
        task_id="chart_flights",
        dataset=ingest_flights.output,
        partition=LAST_DAY,
        charts=f"{CHARTS}:flights",
        on_signal="fail",
    )
    publish_flights = PublishDatasetOperator(
        task_id="publish_flights",
        report=validate_flights.output,
        outlets=[Asset(name="flights", uri="x-xops://lake/flights")],
    )
    chart_flights >> publish_flights

    ingest_weather = IngestDatasetOperator(
        task_id="ingest_weather",
        table="weather",
        source=LANDING + "/weather/{partition}.csv",
        partition=DAY,
        schema=schemas.WEATHER,
    )
    validate_weather = ValidateDatasetOperator(
        task_id="validate_weather", dataset=ingest_weather.output, suite=f"{SUITES}:weather"
    )
    publish_weather = PublishDatasetOperator(
        task_id="publish_weather",
        report=validate_weather.output,
        outlets=[Asset(name="weather", uri="x-xops://lake/weather")],
    )

    build_features = TransformDatasetOperator(
        task_id="build_features",
        table="flight_features",
        inputs={"flights": publish_flights.output, "weather": publish_weather.output},
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
