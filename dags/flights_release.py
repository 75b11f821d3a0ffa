"""flights_release: two people approve a version, it goes into service step by step, is watched, and goes back
by itself where it is not well.

For a version that `flights_training` left to people (its parameter `promote` is false), or any other: run it
by hand with the evaluation's record id. The people named in `approvers` find the question in Airflow, with
the evidence in the form; no answer within a day is a no. Only then is the version loaded beside the champion
on the servers of the connection `xops_serving_default`, asked rows whose answers are known, entered in the
promotion ledger, and given its share of the requests. A version that is not well at one of its shares loses
all of them, and the promotion is rolled back; so it is by a failed check afterwards. What counts as well is
the parameter `health`: {"max_error_rate": 0.01, "max_p99_ms": 200, "min_requests": 100} for example.
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
    # A deployment whose worker died goes on after its last step; an unwell version is no reason to try again.
    default_args={"retries": 2, "retry_delay": timedelta(seconds=15)},
    params={
        "evaluation": Param("", type="string", minLength=6, description="record id of the evaluation"),
        "approvers": Param(
            [], type="array", items={"type": "string"},
            description="Airflow users who may answer; empty: all who may",
        ),
        "steps": Param(
            [0.1, 0.5, 1.0], type="array", items={"type": "number"}, minItems=1,
            description="its shares of the requests, rising to 1.0",
        ),
        "soak_seconds": Param(60, type="number", minimum=0, description="how long each step is watched"),
        "health": Param(
            {"max_error_rate": 0.01}, type="object", description="what must hold at each step, and afterwards"
        ),
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
        steps="{{ params.steps | tojson }}",
        soak_seconds="{{ params.soak_seconds }}",
        health="{{ params.health | tojson }}",
        outlets=[Asset(name=MODEL, uri=f"x-xops://models/{MODEL}")],
    )
    watch = CheckDeploymentOperator(
        task_id="watch",
        deployment=deploy.output,
        seconds="{{ params.soak_seconds }}",
        health="{{ params.health | tojson }}",
    )
    RollbackModelOperator(
        task_id="roll_back_if_unwell",
        model_name=MODEL,
        check=watch.output,
        reason="the check after the deployment failed",
    )
