"""flights_training: train a candidate, let it meet the champion on the same holdout, promote it if it is
better.

The candidate is fitted on a window of days and judged on the window's last two weeks, which it has not seen.
The champion is scored on the very same rows. The decision, whatever it is, is an entry in the promotion
ledger.

Run it by hand with `{"window": "2013-01-01..2013-03-31", "candidate": "gradient_boosting"}`, or ask for it by
an event on the asset `flights_retraining_requested`.
"""

from airflow.sdk import DAG, Asset, Param

from airflow_provider_xops.examples.flights import features
from airflow_provider_xops.operators.model import (
    EvaluateModelOperator,
    PromoteModelOperator,
    TrainModelOperator,
)

MODEL = "flights_late_arrival"

with DAG(
    dag_id="flights_training",
    schedule=[Asset(name="flights_retraining_requested", uri="x-xops://requests/flights_retraining")],
    catchup=False,
    max_active_runs=1,
    tags=["xops", "mlops", "flights"],
    params={
        "window": Param(
            None,
            type=["null", "string"],
            description="days to learn from, 2013-01-01..2013-03-31; all by default",
        ),
        "candidate": Param(
            "gradient_boosting", enum=["baseline", "gradient_boosting"], description="which model"
        ),
    },
    doc_md=__doc__,
):
    train = TrainModelOperator(
        task_id="train",
        table="flight_features",
        partition="{{ params.window or '' }}",
        model_name=MODEL,
        estimator="airflow_provider_xops.examples.flights.models:{{ params.candidate }}",
        features=list(features.FEATURES),
        target=features.LABEL,
        split={"kind": "time", "holdout_partitions": 14},
        seed=7,
    )
    evaluate = EvaluateModelOperator(
        task_id="evaluate",
        model=train.output,
        gates=[
            {"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.60},
            {"gate": "better_than_champion", "metric": "roc_auc"},
        ],
    )
    PromoteModelOperator(
        task_id="promote",
        evaluation=evaluate.output,
        outlets=[Asset(name=MODEL, uri=f"x-xops://models/{MODEL}")],
    )
