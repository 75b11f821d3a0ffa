"""Processes of the race and kill tests: forked from one that has imported everything and used nothing.

A process that imports MLflow, scikit-learn and Delta Lake by itself takes seconds to start, and these tests
start many. Python keeps one such server for each test process, and its list of modules is that of the first
test that starts it: so there is one list, here. Whoever is forked has the environment of that moment; what a
test sets later is passed as an argument.
"""

from __future__ import annotations

import multiprocessing

__all__ = ["CONTEXT", "PRELOADED"]

PRELOADED = (
    "mlflow.sklearn",
    "skops.io",
    "deltalake",
    "boto3",
    "optuna",
    "psycopg2",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "airflow_provider_xops.data.source_prefix",
    "airflow_provider_xops.data.source_sql",
    "airflow_provider_xops.lake._s3",
    "airflow_provider_xops.registry.reconcile",
    "airflow_provider_xops.serving._smoke_checks",
    "airflow_provider_xops.serving.batch",
    "airflow_provider_xops.training.tuning.study",
    "tests.integration.log_writer",
    "tests.integration.registry_steps",
    "tests.integration.rollout_world",
    "tests.integration.tuning_worker",
    "tests.unit.lake.helpers",
    "tests.unit.lake.processes",
)

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(PRELOADED))
