"""flights_profile: what the published flights look like, and which suite they suggest.

Run it after loading history, and whenever the suite should be looked at again. The profile is in the lake,
with a page; changes of columns against the profile before are named and judged. The suggested suite is YAML
with the reason of each expectation: read it, change what you know better, and name it in `flights_dataops`.
The suite there, `examples/flights/flights.yaml`, began like this.
"""

from airflow.sdk import DAG

from airflow_provider_xops.operators.data import ProfileDatasetOperator

with DAG(
    dag_id="flights_profile",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["xops", "dataops", "flights"],
    doc_md=__doc__,
):
    ProfileDatasetOperator(
        task_id="profile_flights",
        dataset="flights",
        time_column="time_hour",
        values="full",
        suggest_suite=1,
    )
