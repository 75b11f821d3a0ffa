"""Database sources on a real PostgreSQL, through both of its drivers: cursors, types, snapshots, errors."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_xops.data import source_sql
from airflow_provider_xops.data._spooling import Ingested
from airflow_provider_xops.data.declared_sources import SqlSource
from airflow_provider_xops.data.ingest import recorded_schema
from airflow_provider_xops.data.source_sql import ingest_sql
from airflow_provider_xops.errors import ArgumentError, SourceError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.records import Actor
from tests.servers import PostgresServer

EVERY_TYPE = """
CREATE TABLE things (
  id bigserial PRIMARY KEY, small smallint, n integer, x double precision, r real, price numeric(10,2),
  name varchar(20), note text, code char(3), ok boolean, day date, at timestamptz, local timestamp,
  raw bytea, key uuid, doc json, docb jsonb, host inet, tags text[], numbers integer[]
)
"""
ONE_ROW = """
INSERT INTO things (small, n, x, r, price, name, note, code, ok, day, at, local, raw, key, doc, docb, host,
                    tags, numbers)
VALUES (1, 2, 1.5, 0.5, 19.99, 'a', 'é', 'abc', true, '2013-01-01', '2013-01-01 10:00+02',
        '2013-07-01 10:00', '\\x00ff', '00000000-0000-0000-0000-000000000001', '{"b": 1, "a": [1]}',
        '{"z": null}', '10.0.0.1', '{a,NULL}', '{1,2}')
"""
Load = Callable[..., Ingested]


@pytest.fixture(params=["psycopg2", "psycopg"])
def engine(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[sa.Engine]:
    """An empty database, through one of the drivers."""
    url = sa.make_url(postgres.create_database(f"sources_{uuid.uuid4().hex[:8]}"))
    engine = sa.create_engine(url.set(drivername=f"postgresql+{request.param}"))
    yield engine
    engine.dispose()


@pytest.fixture
def load(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime, engine: sa.Engine) -> Load:
    def load(source: SqlSource, **options: Any) -> Ingested:
        options = {"actor": make_actor(), "engine": engine, **options}
        return ingest_sql(lake, "things", source, as_of=as_of, **options)

    return load


def run(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def rows(lake: Lake) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scan(lake, head(lake, "things__raw")).read_all().to_pylist()
    return found


def test_every_type_arrives_as_what_it_is(load: Load, lake: Lake, engine: sa.Engine) -> None:
    run(engine, EVERY_TYPE, ONE_ROW, "INSERT INTO things (id) VALUES (2)")
    source = SqlSource(conn_id="shop", table="things", schema="public", timezone="Europe/Paris")

    record = load(source).record

    assert recorded_schema(lake, "things__raw") == {
        "id": "int64", "small": "int16", "n": "int32", "x": "float64", "r": "float32",
        "price": "decimal(10,2)", "name": "string", "note": "string", "code": "string", "ok": "bool",
        "day": "date", "at": "timestamp",
        "local": "timestamp[Europe/Paris]", "raw": "binary", "key": "string", "doc": "string",
        "docb": "string", "host": "string", "tags": "list<string>", "numbers": "list<int32>",
    }  # fmt: skip
    first, empty = rows(lake)
    assert first == {
        "id": 1, "small": 1, "n": 2, "x": 1.5, "r": 0.5, "price": Decimal("19.99"), "name": "a", "note": "é",
        "code": "abc", "ok": True, "day": date(2013, 1, 1), "at": datetime(2013, 1, 1, 8, tzinfo=UTC),
        "local": datetime(2013, 7, 1, 8, tzinfo=UTC), "raw": b"\x00\xff",
        "key": "00000000-0000-0000-0000-000000000001", "doc": '{"a":[1],"b":1}', "docb": '{"z":null}',
        "host": "10.0.0.1", "tags": ["a", None], "numbers": [1, 2],
    }  # fmt: skip
    assert set(empty.values()) == {2, None}
    assert load(source).reused
    assert record is not None
    assert (
        record.sources[0].uri
        == f"postgresql://127.0.0.1:{engine.url.port}/{engine.url.database}?table=public.things"
    )


def test_types_are_known_without_a_row(load: Load, lake: Lake, engine: sa.Engine) -> None:
    run(engine, EVERY_TYPE)
    load(SqlSource(conn_id="shop", query="SELECT id, price, day FROM things"))
    assert recorded_schema(lake, "things__raw") == {"id": "int64", "price": "decimal(10,2)", "day": "date"}


@pytest.mark.parametrize(
    ("column", "error"),
    [
        ("interval '1 day' AS c", r"source\.unsupported_type.*interval"),
        ("time '10:00' AS c", r"source\.unsupported_type.*time"),
        ("now()::timestamp AS c", r"argument\.naive_timestamp.*'c'"),
        ("NULL::numeric AS c", r"argument\.schema_needed.*c"),
        ("'x'::nothing AS c", r"source\.query.*nothing"),
        ("1 AS c, 2 AS c", r"source\.columns.*twice: 'c'"),
    ],
)
def test_what_has_no_place_is_refused_with_the_way_out(
    load: Load, engine: sa.Engine, column: str, error: str
) -> None:
    with pytest.raises((SourceError, ArgumentError), match=error):
        load(SqlSource(conn_id="shop", query=f"SELECT {column}"))


def test_rows_come_by_a_server_side_cursor_and_are_never_all_in_memory(
    load: Load, lake: Lake, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given 60,000 rows of 200 bytes, and a count of what every chunk holds
    sizes: list[int] = []
    real = source_sql.array_of

    def counting(values: Any, *args: Any, **options: Any) -> Any:
        sizes.append(len(values))
        if len(sizes) == 3:
            with engine.connect() as other:  # the server has more to give
                fetching = "SELECT count(*) FROM pg_stat_activity WHERE left(query, 5) = 'FETCH'"
                seen.append(other.exec_driver_sql(fetching).scalar())
        return real(values, *args, **options)

    seen: list[Any] = []
    monkeypatch.setattr(source_sql, "array_of", counting)
    query = "SELECT g AS id, repeat('x', 200) AS text FROM generate_series(1, 60000) AS g"

    record = load(SqlSource(conn_id="shop", query=query, chunk_rows=5000)).record

    assert record is not None
    assert record.rows == 60_000
    assert max(sizes) == 5000
    assert seen == [1]


def test_marks_in_time_go_on_from_where_the_table_is(load: Load, lake: Lake, engine: sa.Engine) -> None:
    run(
        engine,
        "CREATE TABLE things (id int, changed timestamptz)",
        "INSERT INTO things SELECT g, '2013-01-01'::timestamptz + g * interval '1 s'"
        " FROM generate_series(1, 9) g",
    )
    source = SqlSource(conn_id="shop", table="things", watermark="changed")
    merge = {"mode": "merge", "keys": ["id"]}
    first = load(source, **merge)
    run(
        engine,
        "UPDATE things SET changed = '2013-01-02' WHERE id = 3",
        "INSERT INTO things VALUES (10, '2013-01-02 00:00:00.000001')",
    )
    second, third = load(source, **merge), load(source, **merge)

    assert first.record is not None
    assert (first.reused, second.reused, third.reused) == (False, False, True)
    assert second.record is not None
    assert second.record.batch_ids == ("sql:shop.things>timestamptz:2013-01-01T00:00:09+00:00",)
    assert sorted(row["id"] for row in rows(lake)) == list(range(1, 11))
    assert {row["id"]: row["changed"].day for row in rows(lake)}[3] == 2


def test_a_row_that_is_committed_while_others_are_read_comes_with_the_next_run(
    load: Load, lake: Lake, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a row below the high mark that appears between asking for the mark and reading the rows
    run(engine, "CREATE TABLE things (id int, changed int)", "INSERT INTO things VALUES (1, 1), (2, 5)")
    real, calls = source_sql.encode, []

    def slow(*args: Any, **options: Any) -> str:
        calls.append(1)
        if len(calls) == 1:
            run(engine, "INSERT INTO things VALUES (3, 4), (4, 6)")
        return real(*args, **options)

    monkeypatch.setattr(source_sql, "encode", slow)
    source = SqlSource(conn_id="shop", table="things", watermark="changed", lag=2)
    merge = {"mode": "merge", "keys": ["id"]}

    load(source, **merge)
    assert sorted(row["id"] for row in rows(lake)) == [1, 2]  # one snapshot: neither of the new ones
    load(source, **merge)
    assert sorted(row["id"] for row in rows(lake)) == [1, 2, 3, 4]


def test_partitions_are_bound_also_where_the_column_is_a_date(
    load: Load, lake: Lake, engine: sa.Engine
) -> None:
    run(engine, EVERY_TYPE, ONE_ROW)
    query = "SELECT id, day::text AS d FROM things WHERE day = :partition AND at > :since AND name LIKE 'a%'"
    source = SqlSource(conn_id="shop", query=query, parameters={"since": datetime(2013, 1, 1, tzinfo=UTC)})
    record = load(source, partitions=["2013-01-01", "2013-01-02"]).record
    assert record is not None
    assert record.partitions == ("2013-01-01", "2013-01-02")
    assert [row["d"] for row in rows(lake)] == ["2013-01-01"]
    with pytest.raises(SourceError, match=r"source\.query") as caught:
        load(source, partitions=["secret-value"])
    assert "secret-value" not in str(caught.value)


def test_an_infinite_mark_is_refused_because_nothing_comes_after_it(
    load: Load, lake: Lake, engine: sa.Engine
) -> None:
    run(
        engine,
        "CREATE TABLE things (id int, changed timestamptz)",
        "INSERT INTO things VALUES (1, '2013-01-01'), (2, 'infinity')",
    )
    with pytest.raises(SourceError, match=r"source\.(watermark_type|types)"):  # psycopg cannot even read it
        load(SqlSource(conn_id="shop", table="things", watermark="changed"), mode="append")
    assert not table_exists(lake, "things__raw")


def test_a_time_that_python_cannot_hold_is_a_typed_error(load: Load, engine: sa.Engine) -> None:
    with pytest.raises(SourceError, match=r"source\.types.*driver cannot read"):
        load(SqlSource(conn_id="shop", query="SELECT '0044-03-15 BC'::timestamptz AS died"))


@pytest.mark.parametrize("query", ["SELECT 1 AS id :s", "SELECT boom(:s) AS id"])
def test_errors_of_sql_show_neither_bound_values_nor_words_of_functions(
    load: Load, engine: sa.Engine, query: str
) -> None:
    run(
        engine,
        "CREATE FUNCTION boom(text) RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE undefined_table USING message = 'a row: hunter2-' || $1; END $$",
    )
    with pytest.raises(SourceError, match=r"source\.query") as caught:
        load(SqlSource(conn_id="shop", query=query, parameters={"s": "secret"}))
    assert "hunter2" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_source_cannot_be_written_to(load: Load, engine: sa.Engine) -> None:
    run(engine, "CREATE TABLE things (id int)")
    query = "WITH w AS (INSERT INTO things VALUES (1) RETURNING id) SELECT * FROM w"
    with pytest.raises(SourceError, match=r"source\.query"):
        load(SqlSource(conn_id="shop", query=query))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM things").scalar() == 0


def test_a_connection_that_dies_is_tried_again(load: Load, engine: sa.Engine) -> None:
    ended = "SELECT pg_terminate_backend(pg_backend_pid()), 1 AS id"
    with pytest.raises(UnavailableError, match=r"unavailable\.database") as caught:
        load(SqlSource(conn_id="shop", query=ended), schema={"pg_terminate_backend": "bool", "id": "int32"})
    assert caught.value.retryable
    down = sa.create_engine(engine.url.set(port=9, password="hunter2-secret"))
    with pytest.raises(UnavailableError) as caught:
        load(SqlSource(conn_id="shop", table="things"), engine=down)
    assert "hunter2-secret" not in str(caught.value)


def test_a_lag_in_time_reads_late_commits_again(load: Load, lake: Lake, engine: sa.Engine) -> None:
    run(engine, "CREATE TABLE things (id int, changed timestamptz)",
        "INSERT INTO things VALUES (1, '2013-01-01 10:00Z')")  # fmt: skip
    source = SqlSource(conn_id="shop", table="things", watermark="changed", lag=timedelta(minutes=10))
    merge = {"mode": "merge", "keys": ["id"]}
    load(source, **merge)
    run(engine, "INSERT INTO things VALUES (2, '2013-01-01 09:55Z'), (3, '2013-01-01 10:01Z')")
    load(replace(source), **merge)
    assert sorted(row["id"] for row in rows(lake)) == [1, 2, 3]
