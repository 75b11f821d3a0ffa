"""xops_rollback: put the previous champion, or a named version, back in service.

Run it by hand. The version rolled back from stays blocked until it is released by name (`xops release`).
"""

from airflow.sdk import DAG, Param

from airflow_provider_xops.operators.model import RollbackModelOperator

with DAG(
    dag_id="xops_rollback",
    schedule=None,
    catchup=False,
    tags=["xops", "operate"],
    params={
        "model": Param("flights_late_arrival", type="string", description="registered model"),
        "alias": Param("champion", type="string", description="alias to move"),
        "to_version": Param(
            None,
            type=["null", "integer"],
            description="version to return to; the previous champion by default",
        ),
        "reason": Param("", type="string", minLength=1, description="why: it is kept in the ledger"),
    },
    doc_md=__doc__,
):
    RollbackModelOperator(
        task_id="rollback",
        model_name="{{ params.model }}",
        alias="{{ params.alias }}",
        to_version="{{ params.to_version or '' }}",
        reason="{{ params.reason }}",
    )
