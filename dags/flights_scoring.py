"""flights_scoring: every newly published day of features is scored by the champion.

Airflow may queue several published days into one run: all of them are scored, each exactly once per model
version. Each prediction row carries its id, the model's name and version and the dataset version it was made
from; `xops trace PREDICTION_ID` walks back from there to the source file.
"""

from airflow.sdk import DAG, Asset, Param

from airflow_provider_xops.operators.model import ScoreDatasetOperator

with DAG(
    dag_id="flights_scoring",
    schedule=[Asset(name="flight_features", uri="x-xops://lake/flight_features")],
    catchup=False,
    max_active_runs=1,
    tags=["xops", "mlops", "flights"],
    params={
        "day": Param(
            None, type=["null", "string"], description="score these days; by default the newly published ones"
        )
    },
    doc_md=__doc__,
):
    ScoreDatasetOperator(
        task_id="score",
        table="flight_features",
        partition="{{ params.day or '' }}",
        model_name="flights_late_arrival",
        output_table="flight_predictions",
        keep_columns=["carrier", "flight", "origin", "dest", "time_hour"],
        on_missing_model="skip",
        outlets=[Asset(name="flight_predictions", uri="x-xops://lake/flight_predictions")],
    )
