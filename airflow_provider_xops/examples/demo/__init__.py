"""`xops demo`: a real Airflow, a real MLflow server and a lake on this machine, running the reference
loop."""
