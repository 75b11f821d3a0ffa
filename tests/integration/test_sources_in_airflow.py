"""Sources besides files in real task runs: connections, rendering, mapping, skipping, events, secrets."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.tables import head, list_tables
from airflow_provider_xops.operators.sources import HttpSource, NextLink, PrefixSource, SqlSource
from tests.integration.dag_runs import Run, events_of, tries, xcoms
from tests.servers import PostgresServer, S3Server
from tests.unit.data.http_api import Api, Asked, Reply, serving

pytestmark = pytest.mark.usefixtures("airflow_db")
SECRET = "hunter2-secret"


def dag_of(dag_id: str, source: Any, **options: Any) -> Any:
    """ingest -> after, with the parameter ``day`` and an asset of the DAG's name."""
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, Asset

    from airflow_provider_xops.operators.data import IngestDatasetOperator

    with DAG(dag_id=dag_id, schedule=None, params={"day": "2013-01-01"}) as dag:
        outlets = [Asset(name=dag_id, uri=f"x-xops://lake/{dag_id}")]
        ingest = IngestDatasetOperator(task_id="ingest", table="t", source=source, outlets=outlets, **options)
        ingest >> EmptyOperator(task_id="after")
    return dag


def kept(lake: Lake) -> str:
    """Everything that is in the lake's folder, as text."""
    files = (path for path in Path(lake.uri.removeprefix("file://")).rglob("*") if path.is_file())
    return "".join(path.read_bytes().decode("latin-1") for path in files)


def ids(lake: Lake) -> list[int]:
    return sorted(scan(lake, head(lake, "t__raw")).read_all().column("id").to_pylist())


def connect(monkeypatch: pytest.MonkeyPatch, conn_id: str, **fields: Any) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


@pytest.fixture
def shop(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """A database of orders behind the connection ``shop``."""
    database = f"shop_{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(postgres.create_database(database))
    connect(monkeypatch, "shop", conn_type="postgres", host="127.0.0.1", port=postgres.port, login="xops",
            password=SECRET, schema=database)  # fmt: skip
    run_sql(engine, "CREATE TABLE orders (id int, day date)")
    run_sql(engine, "INSERT INTO orders VALUES (1, '2013-01-01'), (2, '2013-01-01'), (3, '2013-01-02')")
    yield engine
    engine.dispose()


def run_sql(engine: sa.Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_a_day_of_a_postgres_table_by_a_rendered_query(
    lake_connection: Lake, run: Run, shop: sa.Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    query = "SELECT id, day FROM orders WHERE day = CAST(:partition AS date) AND id < :limit"
    query += " AND :key <> ''"
    parameters = {"limit": "{{ 10 }}", "key": SECRET}
    source = SqlSource(conn_id="shop", query=query, parameters=parameters)
    dag = dag_of("sql_day", source, partition="{{ params.day }}")

    runs = [run(dag), run(dag), run(dag, day="2013-01-02")]

    assert [one.state for one in runs] == ["success"] * 3
    assert ids(lake_connection) == [1, 2, 3]
    returned = [xcoms(one, "ingest")["return_value"] for one in runs]
    assert [one["reused"] for one in returned] == [False, True, False]
    assert [one["partition"] for one in returned] == ["2013-01-01", "2013-01-01", "2013-01-02"]
    assert len(events_of("sql_day")) == 2
    assert source.parameters == parameters  # the declaration itself stays as it was written
    assert SECRET not in "".join(capfd.readouterr()) + str(returned) + kept(lake_connection)


def test_new_rows_above_the_watermark_and_a_skip_where_there_are_none(
    lake_connection: Lake, run: Run, shop: sa.Engine
) -> None:
    source = SqlSource(conn_id="shop", table="orders", watermark="id")
    dag = dag_of("sql_new", source, mode="append", on_nothing="skip")

    first = run(dag)
    nothing = run(dag)
    run_sql(shop, "INSERT INTO orders VALUES (4, '2013-01-03')")
    second = run(dag)

    assert tries(first) == {"ingest": ("success", 1), "after": ("success", 1)}
    assert {task: state for task, (state, _) in tries(nothing).items()} == {
        "ingest": "skipped",
        "after": "skipped",
    }
    assert tries(second)["ingest"] == ("success", 1)
    assert ids(lake_connection) == [1, 2, 3, 4]
    assert len(events_of("sql_new")) == 2


def test_a_retry_of_the_task_that_loaded_is_no_skip(
    lake_connection: Lake, run: Run, shop: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a task whose first try dies after its commit, before Airflow heard of it
    from datetime import timedelta

    from airflow_provider_xops.errors import UnavailableError
    from airflow_provider_xops.operators.data import IngestDatasetOperator

    real, calls = IngestDatasetOperator.hand_over, []

    def dying(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(options["reused"])
        if len(calls) == 1:
            raise UnavailableError("killed here")
        return real(self, *args, **options)

    monkeypatch.setattr(IngestDatasetOperator, "hand_over", dying)
    source = SqlSource(conn_id="shop", table="orders", watermark="id")

    done = run(
        dag_of("sql_retry", source, mode="append", on_nothing="skip", retries=1, retry_delay=timedelta(0))
    )

    assert tries(done)["ingest"] == ("success", 2)
    assert calls == [False, True]
    assert len(events_of("sql_retry")) == 1
    assert ids(lake_connection) == [1, 2, 3]


def test_a_sqlite_table_through_its_connection(
    lake_connection: Lake, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("CREATE TABLE orders (id INTEGER)")
        database.execute("INSERT INTO orders VALUES (1), (2)")
    database.close()
    connect(monkeypatch, "small", conn_type="sqlite", host=str(tmp_path / "shop.db"))

    done = run(dag_of("sqlite", SqlSource(conn_id="small", table="orders")))

    assert done.state == "success"
    assert ids(lake_connection) == [1, 2]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A paged API of orders behind the connection ``api``, which wants a token."""
    with serving() as server:

        def answer(asked: Asked) -> Reply:
            if asked.headers.get("X-Token") != SECRET:
                return Reply({}, status=401)
            more = "page" not in asked.query
            link = "/base/orders?page=2" if more else None
            return Reply({"items": [{"id": 1 if more else 2}], "next": link})

        server.answer = answer
        host, port = server.url.rpartition(":")[0], int(server.url.rpartition(":")[2])
        connect(monkeypatch, "api", conn_type="http", host=f"{host}:{port}/base", extra={"X-Token": SECRET})
        yield server


def test_a_paged_api_through_its_connection(
    lake_connection: Lake, run: Run, api: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    source = HttpSource(
        conn_id="api",
        endpoint="orders",
        params={"day": "{partition}", "key": f"{{{{ params.day }}}}-{SECRET}"},
        records="items",
        pagination=NextLink("next"),
    )
    done = run(dag_of("http", source, partition="{{ params.day }}"))

    assert done.state == "success"
    assert ids(lake_connection) == [1, 2]
    assert api.asked[0].query == {"day": "2013-01-01", "key": f"2013-01-01-{SECRET}"}
    returned = xcoms(done, "ingest")["return_value"]
    assert returned["sources"][0]["uri"] == f"{api.url}/base/orders"
    assert returned["requests"] == 2
    assert SECRET not in "".join(capfd.readouterr()) + str(returned) + kept(lake_connection)


def test_mapped_over_folders_each_with_its_own_rendered_source(
    lake_connection: Lake, run: Run, landing: Path
) -> None:
    from airflow.sdk import DAG

    from airflow_provider_xops.operators.data import IngestDatasetOperator

    for day in ("2013-01-01", "2013-01-02"):
        (landing / day).mkdir()
        (landing / day / "a.csv").write_text(f"id\n{day[-1]}\n")
    source = PrefixSource(uri=f"{landing}/{{partition}}", pattern="{{ params.pattern }}")
    named = [
        PrefixSource(uri=f"{landing}/{day}", name=day, pattern="{{ params.pattern }}")
        for day in ("2013-01-01", "2013-01-02")
    ]
    with DAG(dag_id="mapped_prefix", schedule=None, params={"pattern": "*.csv"}) as dag:
        one = IngestDatasetOperator.partial(task_id="ingest", table="t", source=source, mode="append")
        other = IngestDatasetOperator.partial(task_id="sources", table="t", mode="append")
        one.expand(partition=["2013-01-01", "2013-01-02"]) >> other.expand(source=named)
    done = run(dag)

    assert done.state == "success"
    assert ids(lake_connection) == [1, 1, 2, 2]


def test_nothing_at_all_yet_is_a_skip(lake_connection: Lake, run: Run, landing: Path) -> None:
    done = run(dag_of("empty_prefix", PrefixSource(uri=str(landing)), mode="append"))

    assert {state for state, _ in tries(done).values()} == {"skipped"}
    assert list_tables(lake_connection) == []


def test_new_objects_on_s3_are_loaded_once(
    lake_connection: Lake, run: Run, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a bucket behind Airflow's own AWS connection
    extra = {"endpoint_url": seaweedfs.endpoint, "region_name": seaweedfs.region}
    keys = {"login": seaweedfs.access_key, "password": seaweedfs.secret_key}
    connect(monkeypatch, "landing", conn_type="aws", extra=extra, **keys)
    client, bucket, prefix = seaweedfs.client(), seaweedfs.buckets[0], f"in-{uuid.uuid4().hex[:8]}"

    def drop(name: str, number: int) -> None:
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=f"id\n{number}\n".encode())

    drop("a.csv", 1)
    drop("deep/b.csv", 2)
    drop("note.txt", 9)
    source = PrefixSource(uri=f"s3://{bucket}/{prefix}", conn_id="landing", pattern="*.csv")
    dag = dag_of("s3_prefix", source, mode="append")

    first, again = run(dag), run(dag)
    drop("a.csv", 7)
    drop("c.csv", 3)
    client.delete_object(Bucket=bucket, Key=f"{prefix}/deep/b.csv")
    third = run(dag)

    returned = [xcoms(one, "ingest")["return_value"] for one in (first, again, third)]
    assert [one["reused"] for one in returned] == [False, True, False]
    assert [source["name"] for source in returned[0]["sources"]] == ["a.csv", "deep/b.csv"]
    assert returned[0]["sources"][0]["uri"] == f"s3://{bucket}/{prefix}/a.csv"
    assert [one["objects_loaded"] for one in returned] == [2, 0, 2]
    assert ids(lake_connection) == [2, 3, 7]
    assert seaweedfs.secret_key not in str(returned)


@pytest.mark.parametrize(
    "source", [SqlSource(conn_id="no", table="t"), HttpSource(conn_id="no", endpoint="x")]
)
def test_a_connection_that_is_not_there_fails_once(
    lake_connection: Lake, run: Run, source: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run(dag_of("refused", source, retries=3))

    assert tries(done)["ingest"] == ("failed", 1)
    assert "_conn_id] there is no connection 'no'" in "".join(capfd.readouterr())
