"""flights_release: two people approve a version, it goes into service step by step, is watched, and goes back
by itself where it is not well.

For a version that `flights_training` left to people (its parameter `promote` is false), or any other: run it
by hand with the evaluation's record id. The people named in `approvers` find the question in Airflow, with
the evidence in the form; no answer within a day is a no. Only then is the version loaded beside the champion
on the servers of the connection `xops_serving_default`, asked rows whose answers are known, entered in the
promotion ledger, and given its share of the requests. A failed check afterwards rolls back exactly that
decision.
"""

from datetime import timedelta

from airflow.sdk import DAG, Asset, Param

from airflow_provider_xops.examples.flights import gates
from airflow_provider_xops.operators.approval import approve_promotion
from airflow_provider_xops.operators.model import (
    CheckDeploymentOperator,
    CheckGatesOperator,
    DeployModelOperator,
    RollbackModelOperator,
)

MODEL = "flights_late_arrival"

with DAG(
    dag_id="flights_release",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["xops", "mlops", "flights"],
    params={
        "evaluation": Param("", type="string", minLength=6, description="record id of the evaluation"),
        "approvers": Param(
            [], type="array", items={"type": "string"},
            description="Airflow users who may answer; empty: all who may",
        ),
        "soak_seconds": Param(60, type="number", minimum=0, description="how long each step is watched"),
    },
    doc_md=__doc__,
):  # fmt: skip
    check = CheckGatesOperator(
        task_id="check_gates", evaluation="{{ params.evaluation }}", gates=gates.POLICY
    )
    approval = approve_promotion(
        evaluation="{{ params.evaluation }}",
        gate_report=check.output,
        approvers="{{ params.approvers | tojson }}",
        people=2,
        timeout=timedelta(days=1),
    )
    deploy = DeployModelOperator(
        task_id="deploy",
        evaluation="{{ params.evaluation }}",
        gate_report=check.output,
        approval=approval.output,
        steps=[0.1, 0.5, 1.0],
        soak_seconds="{{ params.soak_seconds }}",
        health={"max_error_rate": 0.01},
        outlets=[Asset(name=MODEL, uri=f"x-xops://models/{MODEL}")],
    )
    watch = CheckDeploymentOperator(
        task_id="watch",
        deployment=deploy.output,
        seconds="{{ params.soak_seconds }}",
        health={"max_error_rate": 0.01},
    )
    RollbackModelOperator(
        task_id="roll_back_if_unwell",
        model_name=MODEL,
        check=watch.output,
        reason="the check after the deployment failed",
    )
