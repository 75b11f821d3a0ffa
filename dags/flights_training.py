"""flights_training: candidates trained in parallel meet the champion on the same holdout; the best is
exercised, gated and promoted.

Each candidate is fitted on a window of days and judged on the window's last two weeks, which it has not seen.
The champion is scored on the very same rows, and "better" is a statistical statement: days are resampled as
wholes, because flights of one day share their weather, and the tests are corrected for the number of
candidates. The best candidate is loaded in a fresh process and asked through a real scoring server before the
gates (`gates.yaml` among the examples) are put to it. The decision is an entry in the promotion ledger.

Run it by hand with `{"window": "2013-01-01..2013-03-31", "candidates": ["gradient_boosting"]}`, or ask for it
by an event on the asset `flights_retraining_requested`.
"""

from airflow.sdk import DAG, Asset, Param, task

from airflow_provider_xops.examples.flights import features, gates
from airflow_provider_xops.operators.model import (
    CheckGatesOperator,
    ChooseModelOperator,
    EvaluateModelOperator,
    PromoteModelOperator,
    SmokeTestModelOperator,
    TrainModelOperator,
    WriteModelCardOperator,
)

MODEL = "flights_late_arrival"
CANDIDATES = ["baseline", "gradient_boosting"]

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
        "candidates": Param(
            CANDIDATES,
            type="array",
            items={"type": "string", "enum": CANDIDATES},
            minItems=1,
            description="which models are trained",
        ),
        "promote": Param(
            True, type="boolean", description="false: leave the decision to people, by flights_release"
        ),
    },
    doc_md=__doc__,
):

    @task
    def candidates(params=None):
        """The estimators to train: one mapped task each."""
        return [f"airflow_provider_xops.examples.flights.models:{name}" for name in params["candidates"]]

    train = TrainModelOperator.partial(
        task_id="train",
        table="flight_features",
        partition="{{ params.window or '' }}",
        model_name=MODEL,
        features=list(features.FEATURES),
        target=features.LABEL,
        split={"kind": "time", "holdout_partitions": 14},
        seed=7,
    ).expand(estimator=candidates())
    evaluate = EvaluateModelOperator.partial(
        task_id="evaluate",
        gates=gates.POLICY,
        plan=gates.PLAN,
        candidates="{{ params.candidates | length }}",
    ).expand(model=train.output)
    best = ChooseModelOperator(task_id="choose", evaluations=evaluate.output)
    smoke = SmokeTestModelOperator(task_id="smoke_test", model=best.output)
    check = CheckGatesOperator(task_id="check_gates", evaluation=best.output, gates=gates.POLICY)
    card = WriteModelCardOperator(
        task_id="write_card",
        model=best.output,
        intended_use="Tell passengers before departure that their flight will probably be late.",
        limits="Learned from flights out of New York in 2013; canceled and diverted flights have no label.",
    )
    promote = PromoteModelOperator(
        task_id="promote",
        evaluation=best.output,
        gate_report=check.output,
        outlets=[Asset(name=MODEL, uri=f"x-xops://models/{MODEL}")],
    )

    @task.short_circuit
    def at_once(params=None):
        """Whether the gates alone decide."""
        return params["promote"]

    smoke >> check >> card >> at_once() >> promote
