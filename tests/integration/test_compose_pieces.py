"""What docker-compose.yaml starts, started here as plain processes: the same commands, scripts and settings.

No container is involved: the images, the network names and the health checks' timing stay unproved by this
file.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from tests import servers

REPOSITORY = Path(__file__).resolve().parents[2]
PASSWORD = "0123456789abcdef"
MLFLOW_QUERY = "/api/2.0/mlflow/registered-models/search?max_results=1"


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def databases(postgres: servers.PostgresServer) -> servers.PostgresServer:
    """The server after the script that the postgres image runs on an empty volume."""
    environment = servers.clean_environment(
        {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgres.port),
            "POSTGRES_USER": "xops",
            "AIRFLOW_DB_PASSWORD": PASSWORD,
            "MLFLOW_DB_PASSWORD": PASSWORD,
        }
    )
    subprocess.run(
        ["bash", str(REPOSITORY / "docker/postgres-databases.sh")], env=environment, check=True, timeout=60
    )
    return postgres


def _url(server: servers.PostgresServer, name: str) -> str:
    return f"postgresql+psycopg2://{name}:{PASSWORD}@127.0.0.1:{server.port}/{name}"


@pytest.fixture(scope="module")
def buckets(seaweedfs: servers.S3Server) -> servers.S3Server:
    """The S3 server after the one-shot service that makes the buckets, twice."""
    for said in ("created", "was there"):
        made = subprocess.run(
            [sys.executable, str(REPOSITORY / "docker/make_buckets.py"), "compose-lake", "compose-mlflow"],
            env=servers.clean_environment({**seaweedfs.storage_options(), "AWS_DEFAULT_REGION": "us-east-1"}),
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        assert made.stdout == f"bucket compose-lake: {said}\nbucket compose-mlflow: {said}\n"
    return seaweedfs


@pytest.fixture(scope="module")
def mlflow_of_the_stack(
    stack: dict[str, Any], databases: servers.PostgresServer, buckets: servers.S3Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[int]:  # fmt: skip
    """MLflow with the command line of the file, but for host, port and bucket; gives its port."""
    service = stack["services"]["mlflow"]
    (port,) = servers.free_ports(1)
    replaced = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--artifacts-destination": "s3://compose-mlflow/artifacts",
    }
    command = [sys.executable, "-m", *service["entrypoint"]]
    for part in service["command"]:
        option, _, value = part.partition("=")
        # The variable's default is what is under test; the checks ask through the free port as well.
        value = value.replace("${MLFLOW_PUBLIC_HOST:-localhost:5000}", f"127.0.0.1:{port}")
        command.append(f"{option}={replaced.get(option, value)}" if value else option)
    environment = {
        **buckets.storage_options(),
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": buckets.endpoint,
        "MLFLOW_BACKEND_STORE_URI": _url(databases, "mlflow"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": service["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"],
    }
    del environment["AWS_ENDPOINT_URL"]
    folder = tmp_path_factory.mktemp("mlflow-of-the-stack")
    process = servers.ServerProcess("mlflow", command, folder, servers.clean_environment(environment))
    process.start()
    try:
        process.wait_ready(lambda: _health(f"http://127.0.0.1:{port}{MLFLOW_QUERY}") == 0)
        yield port
    finally:
        process.stop()


def _health(url: str) -> int:
    """The health check of the services, as they run it."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "docker/healthcheck.py"), url],
        stderr=subprocess.DEVNULL, env=servers.clean_environment(), check=False, timeout=60,
    ).returncode  # fmt: skip


def _status(port: int, host: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", MLFLOW_QUERY, headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.server
@pytest.mark.parametrize(
    ("host", "status"), [("mlflow:5000", 200), ("localhost:5000", 200), ("evil.example", 403)]
)
def test_mlflow_answers_to_its_own_names_only(mlflow_of_the_stack: int, host: str, status: int) -> None:
    assert _status(mlflow_of_the_stack, host) == status


@pytest.mark.server
def test_mlflow_keeps_its_artifacts_in_the_object_store(
    mlflow_of_the_stack: int, buckets: servers.S3Server, tmp_path: Path
) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"http://127.0.0.1:{mlflow_of_the_stack}")
    run = client.create_run(client.create_experiment("pieces"))
    (tmp_path / "note.txt").write_text("kept in S3")
    client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    (kept,) = buckets.client().list_objects_v2(Bucket="compose-mlflow")["Contents"]
    assert kept["Key"].endswith("note.txt")


@pytest.mark.server
def test_the_health_check_says_no_when_nobody_answers() -> None:
    (port,) = servers.free_ports(1)
    assert _health(f"http://127.0.0.1:{port}/") == 1


@pytest.mark.server
def test_init_makes_tables_administrator_and_lake_and_may_run_again(
    databases: servers.PostgresServer, buckets: servers.S3Server, stack: dict[str, Any], tmp_path: Path
) -> None:
    settings = stack["services"]["init"]["environment"]
    environment = servers.clean_environment(
        {
            name: value
            for name, value in settings.items()
            if name.startswith("AIRFLOW__") and "${" not in str(value) and "URL" not in name
        }
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": _url(databases, "airflow"),
            "AIRFLOW_ADMIN_USER": "admin",
            "AIRFLOW_ADMIN_PASSWORD": PASSWORD,
            "XOPS_LAKE_URI": "s3://compose-lake/xops",
            "XOPS_LAKE_STORAGE_OPTIONS": json.dumps(buckets.storage_options()),
        }
    )
    identities = []
    for _ in range(2):
        done = subprocess.run(
            ["bash", str(REPOSITORY / "docker/init.sh")],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        identities.append(
            buckets.client().get_object(Bucket="compose-lake", Key="xops/_xops/lake.json")["Body"].read()
        )
    assert identities[0] == identities[1]
    connection = psycopg2.connect(_url(databases, "airflow").replace("+psycopg2", ""))
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT username FROM ab_user")
            assert cursor.fetchall() == [("admin",)]
            cursor.execute("SELECT count(*) FROM dag")
            assert cursor.fetchone() is not None
    finally:
        connection.close()
