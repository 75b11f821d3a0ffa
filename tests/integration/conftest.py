"""What tests inside Airflow share: connections, and a place for files to land."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_xops.lake.lake import Lake
from tests.integration.dag_runs import Run, run_dag
from tests.servers import MlflowServer


@pytest.fixture
def lake_connection(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The test's lake is the default connection's."""
    fields = {"conn_type": "xops_lake", "host": lake.uri, "password": "hunter2-secret", "login": "key"}
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_LAKE_DEFAULT", json.dumps(fields))
    return lake


@pytest.fixture
def mlflow_connection(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> MlflowServer:
    """The session's MLflow server is the default connection's."""
    fields = {"conn_type": "xops_mlflow", "host": mlflow_server.url, "extra": {"timeout": 30}}
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(fields))
    return mlflow_server


@pytest.fixture
def run(airflow_db: Path) -> Run:
    """Serialize a DAG, run it to its end in this process, and give the run."""
    return run_dag


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder
