"""A table behind an Airflow database connection: judged where it is, on PostgreSQL and SQLite."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality.engine import get_engine
from airflow_provider_xops.quality.frames import frame_of
from airflow_provider_xops.quality.sql_engine import SqlEngine, SqlTable
from airflow_provider_xops.records import Outcome, ValidationReport
from tests.integration.dag_runs import Run, tries, xcoms
from tests.servers import PostgresServer
from tests.unit.quality import sql_tables
from tests.unit.quality.sql_tables import CHECKS, SECRET, Statements

PASSWORD = "hunter2-secret"


def test_postgres_gives_the_figures_that_pandas_gives_and_keeps_its_rows(postgres: PostgresServer) -> None:
    engine = sa.create_engine(postgres.create_database("validated"))
    with engine.begin() as connection:
        connection.exec_driver_sql('CREATE SCHEMA "Shop"')
    sql_tables.create(engine, "orders", schema="Shop")
    statements = Statements(engine)

    there = SqlEngine("postgresql").run(CHECKS, SqlTable(engine, "orders", "Shop"), examples=2)

    here = get_engine("pandas").run(CHECKS, frame_of(sql_tables.frame()), examples=2)
    for found, expected in zip(there.results, here.results, strict=True):
        assert replace(found, examples=()) == replace(expected, examples=()), found.check.type
    assert statements.reading_rows("orders") == []
    engine.dispose()


def flow(dag_id: str, conn_id: str, table: str, suite: str, **options: Any) -> Any:
    from airflow.sdk import DAG

    from airflow_provider_xops.operators.data import ValidateDatasetOperator

    with DAG(dag_id=dag_id, schedule=None) as dag:
        ValidateDatasetOperator(
            task_id="check", table=table, sql_conn_id=conn_id, engine="sql", suite=suite, **options
        )
    return dag


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "orders.json"
    known = {"column": "name", "value_set": ["a", "bb"]}
    expectations = [{"type": "expect_column_values_to_be_in_set", "kwargs": known}]
    path.write_text(json.dumps({"name": "orders", "expectations": expectations}))
    return str(path)


@pytest.fixture(params=["postgres", "sqlite"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The Airflow connection ``warehouse`` with the table ``orders``; gives the table's name there."""
    if request.param == "sqlite":
        path = tmp_path / "warehouse.db"
        url, fields = f"sqlite:///{path}", {"conn_type": "sqlite", "host": str(path)}
        table = "orders"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.create_database(f"warehouse_{abs(hash(str(tmp_path)))}")
        address = sa.make_url(url)
        fields = {
            "conn_type": "postgres", "host": address.host, "port": address.port, "login": address.username,
            "password": PASSWORD, "schema": address.database,
        }  # fmt: skip
        table = "public.orders"
    engine = sa.create_engine(url)
    sql_tables.create(engine)
    engine.dispose()
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields))
    return table


@pytest.mark.usefixtures("airflow_db")
def test_a_task_judges_a_table_of_a_connection_and_nothing_of_it_leaks(
    lake_connection: Lake, run: Run, warehouse: str, suite: str, capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    dag_id = f"sql_{request.node.callspec.id}"
    dag_run = run(flow(dag_id, "warehouse", warehouse, suite, on_failure="warn", samples="masked"))

    assert tries(dag_run) == {"check": ("success", 1)}
    report = ValidationReport.from_json(xcoms(dag_run, "check")["return_value"])
    assert (report.outcome, report.rows) == (Outcome.FAILED, 5)
    assert (report.dataset.table, report.dataset.version) == (f"warehouse:{warehouse}", 0)
    assert report.checks[0].unexpected_count == 1
    told = "".join(capfd.readouterr()) + str(xcoms(dag_run, "check")) + str(report.to_json())
    for uri in (report.report_uri, *report.documents.values()):
        told += (lake_connection.storage.get(f"_xops/{str(uri).partition('/_xops/')[2]}") or b"").decode()
    assert "Aaaa Aaaaaaaaaaaa" in told
    assert SECRET not in told
    assert PASSWORD not in told


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize(
    ("fields", "table", "code", "attempts"),
    [
        (None, "orders", "argument.sql_conn_id", 1),
        ({"conn_type": "http", "host": "localhost"}, "orders", "argument.sql_conn_id", 1),
        ({"conn_type": "nothing-known", "host": "x"}, "orders", "argument.sql_conn_id", 1),
        ({"conn_type": "sqlite", "host": ":memory:"}, "nowhere", "argument.table", 1),
        (
            {"conn_type": "postgres", "host": "127.0.0.1", "port": 1, "login": "x", "password": PASSWORD},
            "orders",
            "unavailable.database",
            2,
        ),
    ],
    ids=["no-connection", "no-database", "no-provider", "no-table", "no-answer"],
)
def test_what_cannot_be_asked_says_so_without_credentials(
    lake_connection: Lake, run: Run, suite: str, fields: dict[str, Any] | None, table: str, code: str,
    attempts: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    from datetime import timedelta

    if fields is not None:
        monkeypatch.setenv("AIRFLOW_CONN_BROKEN", json.dumps(fields))
    dag_id = f"sql_broken_{request.node.callspec.id}"
    dag_run = run(flow(dag_id, "broken", table, suite, retries=1, retry_delay=timedelta(0)))
    assert tries(dag_run) == {"check": ("failed", attempts)}
    log = "".join(capfd.readouterr())
    assert f"[{code}]" in log
    assert PASSWORD not in log


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"dataset": "t__raw"}, "argument.dataset"),
        ({"on_failure": "quarantine"}, "argument.on_failure"),
        ({"engine": "duckdb"}, "argument.engine"),
        ({"sql_conn_id": ""}, "argument.empty"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    lake_connection: Lake, suite: str, options: dict[str, Any], code: str
) -> None:
    from types import SimpleNamespace

    from airflow_provider_xops.operators.data import ValidateDatasetOperator
    from airflow_provider_xops.version_compat import AirflowFailException

    given = {"table": "orders", "sql_conn_id": "warehouse", "engine": "sql", "suite": suite, **options}
    operator = ValidateDatasetOperator(task_id="check", **given)
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="check", map_index=-1, try_number=1, start_date=None)
    with pytest.raises(AirflowFailException, match=code.replace(".", r"\.")):
        operator.execute({"ti": ti})  # type: ignore[typeddict-item]
