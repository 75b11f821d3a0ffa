"""Bad input, inside Airflow: the task fails, says what, why and what next, and leaves nothing behind.

What each task's log says is read where a user reads it. Files of wrong types, failing data, empty templates
and storage that is away for a moment are in ``test_operators_in_airflow.py``.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.tables import list_tables
from airflow_provider_xops.records import Actor, DatasetVersion, ModelVersion, ValidationReport
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.settings import LakeSettings
from tests.integration.dag_runs import SCHEMA, Run, dag_bag, dataops, tries, xcoms
from tests.servers import MlflowServer

SUITES = "tests.unit.operators.suites"
ESTIMATORS = "tests.integration.estimators"
NOBODY = 65534
RETRIES = {"retries": 1, "retry_delay": timedelta(0)}


@pytest.fixture
def log(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What the tasks logged since the last time it was asked."""
    return lambda: "".join(capfd.readouterr())


@pytest.fixture
def name() -> str:
    """A model of the test's own: the server is shared."""
    return f"m_{uuid.uuid4().hex[:10]}"


@pytest.fixture
def client(mlflow_server: MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def features(lake_connection: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> Lake:
    """A lake with three published days of a table ``features`` whose label follows from ``x``."""
    import pyarrow as pa

    rows = pa.table({"x": [float(i % 10) for i in range(40)], "late": [int(i % 10 > 4) for i in range(40)]})
    days = [Segment(f"2013-01-0{day}", f"{day}", rows.to_reader) for day in (1, 2, 3)]
    commit(lake_connection, "features", days, actor=make_actor(), as_of=as_of)
    return lake_connection


def assert_told(text: str, code: str) -> str:
    """The log has the error with its code, what, why and next step; gives that line."""
    found = re.search(rf"\[{re.escape(code)}\] .+?\. Why: .+?\. Next step: .+", text)
    assert found, text[-3000:]
    return found.group()


def loop(dag_id: str, model: str, *, gates: Any = (), **training: Any) -> Any:
    """train -> judge -> promote."""
    from airflow.sdk import DAG, Asset

    from airflow_provider_xops.operators.model import (
        EvaluateModelOperator,
        PromoteModelOperator,
        TrainModelOperator,
    )

    given = {
        "table": "features",
        "model_name": model,
        "estimator": "sklearn.linear_model:LogisticRegression",
        "target": "late",
        "split": {"kind": "time", "holdout_partitions": 1},
    }
    with DAG(dag_id=dag_id, schedule=None, default_args=RETRIES) as dag:
        train = TrainModelOperator(task_id="train", **(given | training))
        judge = EvaluateModelOperator(task_id="judge", model=train.output, gates=gates)
        PromoteModelOperator(task_id="promote", evaluation=judge.output, outlets=[Asset(dag_id)])
    return dag


def one_task(dag_id: str, operator: Any, **arguments: Any) -> Any:
    from airflow.sdk import DAG

    with DAG(dag_id=dag_id, schedule=None, default_args=RETRIES) as dag:
        operator(task_id="only", **arguments)
    return dag


def statuses(client: RegistryClient, experiment: str) -> list[str]:
    with client.session("reading runs in a test") as mlflow:
        found = mlflow.get_experiment_by_name(experiment)
        runs = [] if found is None else mlflow.search_runs([found.experiment_id])
        return [run.info.status for run in runs]


def versions(client: RegistryClient, model: str) -> list[Any]:
    with client.session("reading versions in a test") as mlflow:
        return list(mlflow.search_model_versions(f"name = '{model}'"))


# files


def truncated_parquet(path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": [1], "n": [2]}), path.with_suffix(".parquet"))
    whole = path.with_suffix(".parquet").read_bytes()
    path.with_suffix(".parquet").write_bytes(whole[: len(whole) // 2])
    return path.with_suffix(".parquet")


def text(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.with_suffix(".csv").write_bytes(content)
        return path.with_suffix(".csv")

    return write


@pytest.mark.parametrize(
    ("write", "code"),
    [
        pytest.param(lambda path: path, "source.missing", id="missing"),
        pytest.param(truncated_parquet, "source.truncated", id="truncated Parquet"),
        pytest.param(text(b"id,m\n1,2\n"), "source.columns", id="changed column"),
        pytest.param(text(b"id,n\n1,\xff\n"), "source.encoding", id="not UTF-8"),
    ],
)
def test_file_that_cannot_be_read_fails_once_and_leaves_no_version(
    write: Callable[[Path], Path], code: str, lake_connection: Lake, run: Run, landing: Path, log: Any
) -> None:
    from airflow_provider_xops.operators.data import IngestDatasetOperator

    source = write(landing / "day")
    file_format = None if source.suffix else "csv"
    dag = one_task(
        "bad_file", IngestDatasetOperator, table="t", source=str(source), schema=SCHEMA, format=file_format
    )

    assert tries(run(dag)) == {"only": ("failed", 1)}
    assert_told(log(), code)
    assert list_tables(lake_connection) == []
    assert list(lake_connection.evidence.all(DatasetVersion.kind)) == []


def test_empty_file_is_no_failure_and_publishes_nothing(
    lake_connection: Lake, run: Run, landing: Path, log: Any
) -> None:
    (landing / "2013-01-01.csv").write_text("id,n\n")

    dag_run = run(dataops("empty_file", landing, retries=3))

    assert tries(dag_run) == {"ingest": ("success", 1), "validate": ("skipped", 1), "publish": ("skipped", 0)}
    assert "[validation.no_data]" in log()
    assert list_tables(lake_connection) == ["t__raw"]


def test_suite_that_names_a_missing_column_is_errored_not_failed(
    lake_connection: Lake, run: Run, landing: Path, log: Any
) -> None:
    from airflow_provider_xops.operators.data import ValidateDatasetOperator

    (landing / "2013-01-01.csv").write_text("id,n\n1,5\n")
    assert run(dataops("good_file", landing)).state == "success"
    dag = one_task("bad_suite", ValidateDatasetOperator, dataset="t__raw", suite=f"{SUITES}:missing_column")

    assert tries(run(dag)) == {"only": ("failed", 1)}
    assert "nowhere" in assert_told(log(), "validation.errored")
    outcomes = [report.outcome.value for report in lake_connection.evidence.all(ValidationReport.kind)]
    assert sorted(outcomes) == ["errored", "passed"]


# MLflow


class Refuses(http.server.BaseHTTPRequestHandler):
    """Answers everything with 403."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PATCH = do_DELETE = answer

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@contextlib.contextmanager
def closed() -> Iterator[int]:
    with silent() as port:
        pass
    yield port


@pytest.mark.parametrize(
    ("server", "code", "attempts"),
    [
        (closed, "unavailable.mlflow", 2),
        (silent, "unavailable.mlflow_slow", 2),
        (refusing, "registry.forbidden", 1),
    ],
)
def test_mlflow_that_does_not_serve_leaves_no_model(
    server: Any,
    code: str,
    attempts: int,
    features: Lake,
    run: Run,
    name: str,
    log: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with server() as port:
        fields = {
            "conn_type": "xops_mlflow",
            "host": f"http://127.0.0.1:{port}",
            "login": "bob",
            "password": "hunter3-secret",
            "extra": {"timeout": 1, "max_retries": 0},
        }
        monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(fields))

        dag_run = run(loop("mlflow_away", name))

    # what may pass is retried, what will not is not
    assert tries(dag_run)["train"] == ("failed", attempts)
    said = log()
    assert_told(said, code)
    assert "hunter3-secret" not in said
    assert list(features.evidence.all(ModelVersion.kind)) == []


def test_estimator_whose_fit_raises_fails_once_without_a_version_or_a_row_in_the_log(
    features: Lake, mlflow_connection: MlflowServer, client: RegistryClient, run: Run, name: str, log: Any
) -> None:
    dag_run = run(loop("fit_raises", name, estimator=f"{ESTIMATORS}:Raises"))

    assert tries(dag_run) == {
        "train": ("failed", 1), "judge": ("upstream_failed", 0), "promote": ("upstream_failed", 0),
    }  # fmt: skip
    said = log()
    told = assert_told(said, "training.fit_failed")
    assert "ValueError" in told
    assert "<hidden>" in told  # the value of a row in the exception's text
    assert statuses(client, name) == ["FAILED"]
    assert versions(client, name) == []
    assert list(features.evidence.all(ModelVersion.kind)) == []


def test_metric_that_is_nan_holds_the_promotion(
    features: Lake, mlflow_connection: MlflowServer, client: RegistryClient, run: Run, name: str, log: Any
) -> None:
    gates = [{"gate": "metric_threshold", "metric": "rmse", "maximum": 1e9}]

    dag_run = run(
        loop("nan_metric", name, estimator=f"{ESTIMATORS}:PredictsNothing", target="x", gates=gates)
    )

    assert tries(dag_run) == dict.fromkeys(("train", "judge", "promote"), ("success", 1))
    decision = xcoms(dag_run, "promote")["return_value"]
    assert (decision["outcome"], decision["applied"]) == ("held", False)
    assert "rmse" in decision["reason"]
    assert client.aliases(name) == {}
    assert f"{name}" in log()


def test_task_that_is_ended_from_outside_closes_its_run_at_once(
    features: Lake, mlflow_connection: MlflowServer, client: RegistryClient, name: str, as_of: datetime
) -> None:
    # given the handler that Airflow's task runner installs (dag.test() has none)
    import signal
    from types import SimpleNamespace

    from airflow_provider_xops.operators._base import TaskKilled
    from airflow_provider_xops.operators.model import TrainModelOperator

    operator = TrainModelOperator(
        task_id="train", table="features", model_name=name, estimator=f"{ESTIMATORS}:Killed", target="late",
        split={"kind": "time", "holdout_partitions": 1},
    )  # fmt: skip
    ti = SimpleNamespace(
        dag_id="d",
        run_id="r",
        task_id="train",
        map_index=-1,
        try_number=1,
        start_date=datetime.now().astimezone(),
    )
    before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        with pytest.raises(TaskKilled):
            operator.execute({"ti": ti})
    finally:
        signal.signal(signal.SIGTERM, before)

    assert statuses(client, name) == ["FAILED"]
    assert versions(client, name) == []


def test_training_that_takes_too_long_closes_its_run(
    features: Lake, mlflow_connection: MlflowServer, client: RegistryClient, run: Run, name: str
) -> None:
    dag = loop(
        "too_long", name, estimator=f"{ESTIMATORS}:Endless", execution_timeout=timedelta(seconds=8), retries=0
    )

    assert tries(run(dag))["train"] == ("failed", 1)
    assert statuses(client, name) == ["FAILED"]


@pytest.mark.parametrize("missing", ["champion", "version", "record", "rollback", "adopt"])
def test_model_that_does_not_exist_fails_once(
    missing: str,
    features: Lake,
    mlflow_connection: MlflowServer,
    client: RegistryClient,
    run: Run,
    name: str,
    log: Any,
) -> None:
    from airflow_provider_xops.operators.model import (
        AdoptModelOperator,
        EvaluateModelOperator,
        RollbackModelOperator,
        ScoreDatasetOperator,
    )

    score = {"table": "features", "model_name": name, "output_table": "predictions"}
    operator, arguments = {
        "champion": (ScoreDatasetOperator, score),
        "version": (ScoreDatasetOperator, {**score, "model_version": 7}),
        "record": (EvaluateModelOperator, {"model": "0" * 32}),
        "rollback": (RollbackModelOperator, {"model_name": name, "reason": "test"}),
        "adopt": (AdoptModelOperator, {"model_name": name, "model_version": 1, "target": "late"}),
    }[missing]

    assert tries(run(one_task(f"unknown_{missing}", operator, **arguments))) == {"only": ("failed", 1)}
    assert re.search(r"\[(not_found|registry)\.\w+\] .+?\. .*Next step: .+", log())
    assert list_tables(features) == ["features"]
    assert versions(client, name) == []


# the lake


def test_another_lake_than_expected_fails_once_and_is_left_alone(
    lake_connection: Lake, run: Run, landing: Path, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (landing / "2013-01-01.csv").write_text("id,n\n1,5\n")
    fields = {"conn_type": "xops_lake", "host": lake_connection.uri, "extra": {"lake_id": str(uuid.uuid4())}}
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_LAKE_DEFAULT", json.dumps(fields))

    assert tries(run(dataops("other_lake", landing, retries=2)))["ingest"] == ("failed", 1)
    assert lake_connection.lake_id in assert_told(log(), "lake.other_uuid")
    assert list_tables(lake_connection) == []


def test_lake_that_is_not_writable_fails_once_and_is_left_alone(
    run: Run, landing: Path, log: Any, actor: Actor, as_of: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_xops.operators.data import IngestDatasetOperator

    # given a lake that everyone may read and nobody may write, and a task that is not root's
    real = IngestDatasetOperator.perform

    def perform(self: Any, context: Any) -> Any:
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)
        try:
            return real(self, context)
        finally:
            os.seteuid(user)

    monkeypatch.setattr(IngestDatasetOperator, "perform", perform)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        source = Path(folder) / "2013-01-01.csv"
        source.write_text("id,n\n1,5\n")
        settings = LakeSettings(f"{folder}/lake")
        init_lake(settings, actor=actor, as_of=as_of)
        folders = [Path(settings.uri), *(path for path in Path(settings.uri).rglob("*") if path.is_dir())]
        for each in folders:
            each.chmod(0o555)
        fields = {"conn_type": "xops_lake", "host": settings.uri}
        monkeypatch.setenv("AIRFLOW_CONN_XOPS_LAKE_DEFAULT", json.dumps(fields))
        dag = one_task("read_only", IngestDatasetOperator, table="t", source=str(source), schema=SCHEMA)

        assert tries(run(dag)) == {"only": ("failed", 1)}
        assert_told(log(), "lake.not_writable")
        for each in folders:
            each.chmod(0o755)
        assert list_tables(open_lake(settings)) == []


# user code and templates


def test_function_of_a_dag_file_is_refused_with_the_way_out(
    features: Lake, run: Run, log: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "user_dag.py").write_text(
        "from datetime import timedelta\n"
        "from airflow.sdk import DAG\n"
        "from airflow_provider_xops.operators.data import TransformDatasetOperator\n\n"
        "def double(tables):\n"
        "    return tables['f']\n\n"
        "again = {'retries': 2, 'retry_delay': timedelta(0)}\n"
        "with DAG(dag_id='dag_file_function', schedule=None, default_args=again):\n"
        "    TransformDatasetOperator(task_id='only', table='y', inputs={'f': 'features'}, function=double)\n"
    )
    (dag,) = dag_bag(folder).dags.values()

    assert tries(run(dag)) == {"only": ("failed", 1)}
    assert "double is a function of a DAG file" in assert_told(log(), "user_code.dag_file")
    assert list_tables(features) == ["features"]


@pytest.mark.parametrize("field", ["model_name", "estimator", "dataset"])
def test_template_that_renders_to_nothing_trains_nothing(
    field: str,
    features: Lake,
    mlflow_connection: MlflowServer,
    client: RegistryClient,
    run: Run,
    name: str,
    log: Any,
) -> None:
    dag_run = run(loop("nothing_rendered", name, **{field: "{{ dag_run.conf.get('nothing', '') }}"}))

    assert tries(dag_run)["train"] == ("failed", 1)
    assert field in assert_told(log(), "argument.empty")
    assert statuses(client, name) == []
    assert list(features.evidence.all(ModelVersion.kind)) == []
