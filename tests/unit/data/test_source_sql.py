"""Database sources: streamed, typed, once; PostgreSQL is in the integration tests, SQLite is here."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_xops.data import source_sql
from airflow_provider_xops.data._spooling import Ingested
from airflow_provider_xops.data._sql_marks import check_kind, decode, encode, lowered
from airflow_provider_xops.data.declared_sources import SqlSource
from airflow_provider_xops.data.ingest import recorded_schema
from airflow_provider_xops.data.source_sql import ingest_sql
from airflow_provider_xops.errors import ArgumentError, SourceError, UnavailableError, XOpsError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.tables import head, open_table, table_exists
from airflow_provider_xops.records import Actor

ORDERS = SqlSource(conn_id="shop", table="orders")
GROWING = replace(ORDERS, watermark="id")
Load = Callable[..., Ingested]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A shop's database: ``orders(id, day, amount)`` with three rows."""
    connection = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    connection.execute("CREATE TABLE orders (id INTEGER, day TEXT, amount NUMERIC(10, 2))")
    for row in ((1, "d1", 10), (2, "d1", 20), (3, "d2", 30)):
        connection.execute("INSERT INTO orders VALUES (?, ?, ?)", row)
    yield connection
    connection.close()


@pytest.fixture
def engine(tmp_path: Path, database: sqlite3.Connection) -> Iterator[sa.Engine]:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def load(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime, engine: sa.Engine) -> Load:
    """``ingest_sql`` into the table ``orders``, each call by a later attempt."""

    def load(source: SqlSource = ORDERS, **options: Any) -> Ingested:
        options = {"actor": make_actor(), "engine": engine, **options}
        return ingest_sql(lake, "orders", source, as_of=as_of, **options)

    return load


def rows(lake: Lake, *columns: str) -> list[tuple[Any, ...]]:
    table = scan(lake, head(lake, "orders__raw")).read_all()
    return list(zip(*(table.column(name).to_pylist() for name in columns or table.column_names), strict=True))


def ids(lake: Lake) -> list[int]:
    return sorted(row[0] for row in rows(lake, "id"))


class TestWhole:
    def test_a_table_arrives_with_its_types_and_without_secrets(
        self, load: Load, lake: Lake, tmp_path: Path
    ) -> None:
        record = load().record

        assert record is not None
        assert recorded_schema(lake, "orders__raw") == {
            "id": "int64",
            "day": "string",
            "amount": "decimal(10,2)",
        }
        assert rows(lake)[0] == (1, "d1", Decimal("10.00"))
        (source,) = record.sources
        assert source.name == "orders"
        assert source.uri.startswith("sqlite://")
        assert source.uri.endswith("shop.db?table=orders")

    def test_unchanged_rows_commit_nothing_in_whatever_order_they_come(
        self, load: Load, database: sqlite3.Connection
    ) -> None:
        first = load()
        database.execute("DELETE FROM orders WHERE id = 1")
        database.execute("INSERT INTO orders VALUES (1, 'd1', 10)")  # now the last row

        again = load()

        assert (first.reused, again.reused, again.record) == (False, True, first.record)

    def test_a_changed_row_replaces_its_partition_only(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        by_day = SqlSource(conn_id="shop", query="SELECT * FROM orders WHERE day = :partition -- one day")
        schema = {"id": "int64", "day": "string", "amount": "int64"}
        load(by_day, partitions=["d1", "d2"], schema=schema)
        database.execute("UPDATE orders SET amount = 99 WHERE id = 3")

        result = load(by_day, partitions=["d1", "d2"])

        assert result.record is not None
        assert result.record.partitions == ("d2",)
        assert rows(lake, "id", "amount") == [(1, 10), (2, 20), (3, 99)]

    def test_values_are_bound_and_never_text_of_the_query(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        evil = "d1' OR '1'='1"
        query = SqlSource(
            conn_id="shop",
            query="SELECT id FROM orders WHERE day = :day OR day = :partition",
            parameters={"day": "'; DROP TABLE orders; --"},
        )

        load(query, partitions=[evil], schema={"id": "int64"})

        assert ids(lake) == []
        assert database.execute("SELECT count(*) FROM orders").fetchone() == (3,)

    def test_a_statement_that_writes_is_refused(self, load: Load, database: sqlite3.Connection) -> None:
        with pytest.raises(SourceError, match=r"source\.query"):
            load(replace(ORDERS, table=None, query="DELETE FROM orders"))
        assert database.execute("SELECT count(*) FROM orders").fetchone() == (3,)

    def test_a_partition_without_rows_is_there_and_empty(self, load: Load, lake: Lake) -> None:
        query = SqlSource(conn_id="shop", query="SELECT id FROM orders WHERE day = :partition")
        load(query, partitions=["d1"], schema={"id": "int64"})
        result = load(query, partitions=["d1"])
        empty = load(query, partitions=["d9"])

        assert result.reused
        assert empty.record is not None
        assert (empty.reused, empty.record.rows, ids(lake)) == (False, 0, [1, 2])

    def test_appended_answers_stand_side_by_side_and_each_once(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        load(mode="append")
        assert load(mode="append").reused
        database.execute("DELETE FROM orders WHERE id < 3")
        load(mode="append")

        assert ids(lake) == [1, 2, 3, 3]

    def test_rows_are_fetched_in_chunks_and_never_all_at_once(
        self, load: Load, lake: Lake, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # given 20,000 rows of 1,000 bytes, a count of what every chunk holds, and of Python's memory
        numbers = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 20000)"
        database.execute(f"CREATE TABLE long AS {numbers} SELECT id, hex(randomblob(500)) AS text FROM n")
        sizes: list[int] = []
        real = source_sql.array_of

        def counting(values: Any, *args: Any, **options: Any) -> Any:
            sizes.append(len(values))
            return real(values, *args, **options)

        monkeypatch.setattr(source_sql, "array_of", counting)
        load(replace(ORDERS, table="long", chunk_rows=500))  # imports are done
        tracemalloc.start()
        load(replace(ORDERS, table="long", chunk_rows=500))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        assert set(sizes) == {500}
        assert len(ids(lake)) == 20_000
        assert peak < 5_000_000  # all rows are 22 million bytes


class TestTypes:
    def test_a_query_without_hints_learns_from_its_first_rows(self, load: Load, lake: Lake) -> None:
        load(SqlSource(conn_id="shop", query="SELECT id, day, 1.5 AS x, x'00ff' AS b FROM orders"))

        assert recorded_schema(lake, "orders__raw") == {
            "id": "int64", "day": "string", "x": "float64", "b": "binary",
        }  # fmt: skip

    def test_decimals_that_sqlite_keeps_as_floats_are_what_was_written(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        database.execute("UPDATE orders SET amount = 19.99 WHERE id = 1")
        load()
        assert sorted(rows(lake, "id", "amount"))[0] == (1, Decimal("19.99"))
        database.execute("UPDATE orders SET amount = 19.999 WHERE id = 1")
        with pytest.raises(SourceError, match=r"source\.types.*row 1: column 'amount'"):
            load()

    def test_a_column_that_nobody_knows_asks_for_a_schema(self, load: Load, lake: Lake) -> None:
        query = SqlSource(conn_id="shop", query="SELECT id, NULL AS note FROM orders")
        with pytest.raises(ArgumentError, match=r"argument\.schema_needed.*note"):
            load(query)
        assert not table_exists(lake, "orders__raw")
        load(query, schema={"id": "int64", "note": "string"})

    def test_a_value_of_another_type_is_named_by_row_and_never_quoted(
        self, load: Load, database: sqlite3.Connection
    ) -> None:
        database.execute("INSERT INTO orders VALUES ('secret-value', 'd3', 1)")
        with pytest.raises(SourceError, match=r"source\.types.*row 4: column 'id'") as caught:
            load()
        assert "secret-value" not in str(caught.value)

    def test_local_times_need_a_zone(self, load: Load, lake: Lake, database: sqlite3.Connection) -> None:
        database.execute("CREATE TABLE t (at TIMESTAMP, day DATE, ok BOOLEAN)")
        database.execute("INSERT INTO t VALUES ('2013-01-01 10:00:00', '2013-01-01', 1)")
        source = replace(ORDERS, table="t")
        with pytest.raises(ArgumentError, match=r"argument\.naive_timestamp.*'at'"):
            load(source)

        load(replace(source, timezone="America/New_York"))

        assert rows(lake) == [(datetime(2013, 1, 1, 15, tzinfo=UTC), date(2013, 1, 1), True)]

    def test_a_time_of_day_is_refused_with_the_way_out(
        self, load: Load, database: sqlite3.Connection
    ) -> None:
        database.execute("CREATE TABLE t (at TIME)")
        with pytest.raises(SourceError, match=r"source\.unsupported_type.*'at'.*convert it in the query"):
            load(replace(ORDERS, table="t"))

    def test_a_new_column_is_refused_until_the_source_names_its_columns(
        self, load: Load, database: sqlite3.Connection
    ) -> None:
        load()
        database.execute("ALTER TABLE orders ADD COLUMN note TEXT")
        with pytest.raises(SourceError, match=r"source\.columns.*not declared: 'note'"):
            load()
        assert load(replace(ORDERS, columns=["id", "day", "amount"])).reused


class TestWatermark:
    def test_each_run_reads_what_is_new_and_nothing_twice(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        load(GROWING, mode="append")
        database.execute("INSERT INTO orders VALUES (4, 'd3', 40), (5, 'd3', 50)")
        second = load(GROWING, mode="append")
        third = load(GROWING, mode="append")

        assert ids(lake) == [1, 2, 3, 4, 5]
        assert second.record is not None
        assert second.record.rows == 5  # the partition's
        assert (third.reused, third.record) == (True, second.record)
        assert second.record.batch_ids == ("sql:shop.orders>int:3",)
        assert "above=int%3A3&upto=int%3A5" in second.record.sources[0].uri

    def test_an_empty_table_has_nothing_to_load(self, load: Load, database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM orders")
        result = load(GROWING, mode="append")
        assert (result.record, result.reused) == (None, True)

    def test_of_two_runs_from_one_mark_the_second_reads_on(
        self, load: Load, lake: Lake, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # given a run that is overtaken between reading its rows and committing them
        load(GROWING, mode="append")
        database.execute("INSERT INTO orders VALUES (4, 'd3', 40)")
        real, calls = source_sql.load_segments, []

        def overtaken(*args: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 1:
                load(GROWING, mode="append")
                database.execute("INSERT INTO orders VALUES (5, 'd3', 50)")
            return real(*args, **options)

        monkeypatch.setattr(source_sql, "load_segments", overtaken)

        result = load(GROWING, mode="append")

        assert ids(lake) == [1, 2, 3, 4, 5]
        assert result.record is not None
        assert result.record.batch_ids == ("sql:shop.orders>int:4",)

    def test_partitions_have_marks_of_their_own(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        source = SqlSource(
            conn_id="shop", query="SELECT id, day FROM orders WHERE day = :partition", watermark="id"
        )
        load(source, mode="append", partitions=["d1", "d2"])
        database.execute("INSERT INTO orders VALUES (2, 'd2', 1), (4, 'd2', 1), (4, 'd1', 1)")

        load(source, mode="append", partitions=["d1", "d2"])

        assert sorted(rows(lake)) == [(1, "d1"), (2, "d1"), (3, "d2"), (4, "d1"), (4, "d2")]

    def test_late_rows_within_the_lag_are_merged_with_the_next_ones(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        source = replace(GROWING, lag=2)
        load(source, mode="merge", keys=["id", "day"])
        database.execute("INSERT INTO orders VALUES (2, 'late', 1), (0, 'too late', 1)")
        nothing = load(source, mode="merge", keys=["id", "day"])
        database.execute("INSERT INTO orders VALUES (4, 'd3', 40)")

        load(source, mode="merge", keys=["id", "day"])

        assert nothing.reused
        assert sorted(rows(lake, "id", "day")) == [(1, "d1"), (2, "d1"), (2, "late"), (3, "d2"), (4, "d3")]

    def test_updated_rows_replace_their_older_state(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        database.execute("ALTER TABLE orders ADD COLUMN changed TEXT")
        database.execute("UPDATE orders SET changed = '2013-01-01 10:00:00'")
        source = replace(ORDERS, watermark="changed")
        load(source, mode="merge", keys=["id"])
        database.execute("UPDATE orders SET amount = 7, changed = '2013-01-01 10:00:01' WHERE id = 2")

        load(source, mode="merge", keys=["id"])

        assert sorted(rows(lake, "id", "amount")) == [(1, 10), (2, 7), (3, 30)]

    def test_rows_without_a_mark_are_counted_and_refused_skipped_or_merged(
        self, load: Load, lake: Lake, database: sqlite3.Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        database.execute("INSERT INTO orders VALUES (NULL, 'd3', 1), (NULL, 'd4', 1)")
        with pytest.raises(SourceError, match=r"source\.null_watermark\] 2 rows of orders"):
            load(GROWING, mode="append")
        assert not table_exists(lake, "orders__raw")

        load(replace(GROWING, null_watermark="skip"), mode="append")
        assert "2 rows of orders have no value in 'id'" in caplog.text
        assert ids(lake) == [1, 2, 3]

    def test_rows_without_a_mark_may_be_merged_each_time(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        source = replace(GROWING, null_watermark="load")
        database.execute("INSERT INTO orders VALUES (NULL, 'd3', 1)")
        load(source, mode="merge", keys=["day", "amount"])
        database.execute("INSERT INTO orders VALUES (4, 'd4', 1)")
        load(source, mode="merge", keys=["day", "amount"])

        assert sorted(row[0] for row in rows(lake, "day")) == ["d1", "d1", "d2", "d3", "d4"]

    def test_after_a_restore_loading_goes_on_from_the_restored_version(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        load(GROWING, mode="append")
        database.execute("INSERT INTO orders VALUES (4, 'd3', 40)")
        load(GROWING, mode="append")
        open_table(lake, "orders__raw").restore(0)
        database.execute("INSERT INTO orders VALUES (5, 'd3', 50)")

        load(GROWING, mode="append")

        assert ids(lake) == [1, 2, 3, 4, 5]

    def test_a_changed_query_does_not_begin_from_the_start_by_itself(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        old = SqlSource(conn_id="shop", query="SELECT id, day FROM orders", watermark="id")
        load(old, mode="append")
        database.execute("INSERT INTO orders VALUES (4, 'd3', 40)")
        new = replace(old, query="SELECT id, upper(day) AS day FROM orders")

        with pytest.raises(
            ArgumentError, match=r"argument\.source_name.*name='shop\.query-[0-9a-f]{16}'"
        ) as caught:
            load(new, mode="append")
        name = str(caught.value).split("name='")[1].split("'")[0]
        load(replace(new, name=name), mode="append")

        assert sorted(rows(lake, "id", "day")) == [(1, "d1"), (2, "d1"), (3, "d2"), (4, "D3")]

    @pytest.mark.parametrize(
        ("changes", "mode"),
        [
            ({}, "replace"),
            ({"lag": 1}, "append"),
            ({"null_watermark": "load"}, "append"),
            ({"watermark": None, "lag": 1}, "merge"),
            ({"watermark": " "}, "append"),
            ({"lag": -1}, "merge"),
            ({"lag": timedelta(0)}, "merge"),
            ({"lag": float("nan")}, "merge"),
            ({"columns": "id"}, "append"),
            ({"chunk_rows": "5"}, "append"),
        ],
    )
    def test_arguments_that_do_not_go_together_are_refused(
        self, load: Load, changes: dict[str, Any], mode: str
    ) -> None:
        with pytest.raises(ArgumentError, match=r"argument\.source\]"):
            load(replace(GROWING, **changes), mode=mode)

    @pytest.mark.parametrize(
        ("first", "later"),
        [
            ("2013-01-01T10:00:00", "2013-01-01 11:00:00"),
            ("2013-01-01T10:00:00Z", "2013-01-01T10:00:00.5Z"),
            ("2013-01-01T10:00:00+02:00", "2013-01-01T09:30:00+00:00"),
            ("2013-01-01T10:00:00", "01/02/2013"),
            ("2013-01-01 10:00:00", "2013-01-01 11:00:00Z"),
        ],
    )
    def test_texts_that_do_not_sort_by_time_are_refused_in_whatever_order_they_come(
        self, load: Load, lake: Lake, database: sqlite3.Connection, first: str, later: str
    ) -> None:
        # given a later row whose text sorts before the last mark: it would never be seen
        source = replace(ORDERS, watermark="day")
        database.execute("UPDATE orders SET day = ?", (first,))
        load(source, mode="append")
        database.execute("INSERT INTO orders VALUES (4, ?, 40)", (later,))
        with pytest.raises(SourceError, match=r"source\.watermark_type.*1 rows write them in another form"):
            load(source, mode="append")
        with pytest.raises(SourceError, match=r"source\.watermark_type"):
            load(replace(source, name="from the start"), mode="append")
        assert ids(lake) == [1, 2, 3]

    def test_parts_of_seconds_may_differ_in_length(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        source = replace(ORDERS, watermark="day")
        database.execute("UPDATE orders SET day = '2013-01-01 10:00:00'")
        load(source, mode="append")
        database.execute("INSERT INTO orders VALUES (4, '2013-01-01 10:00:00.5', 40)")
        load(source, mode="append")
        database.execute("INSERT INTO orders VALUES (5, '2013-01-01 10:00:00.500001', 50)")
        load(source, mode="append")

        assert ids(lake) == [1, 2, 3, 4, 5]

    def test_a_mark_at_the_end_of_time_is_refused_because_nothing_comes_after_it(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        database.execute("UPDATE orders SET day = iif(id = 3, '9999-12-31', '2013-01-01')")
        with pytest.raises(SourceError, match=r"source\.watermark_type.*end of time"):
            load(replace(ORDERS, watermark="day"), mode="append")
        assert not table_exists(lake, "orders__raw")

    def test_a_column_that_changes_its_kind_is_refused(
        self, load: Load, lake: Lake, database: sqlite3.Connection
    ) -> None:
        load(replace(GROWING, columns=["amount"]), mode="append")
        database.execute("UPDATE orders SET id = '2013-01-0' || id")
        with pytest.raises(SourceError, match=r"source\.watermark_type.*kind text, and were int"):
            load(replace(GROWING, columns=["amount"]), mode="append")

    @pytest.mark.parametrize("value", ["'bob'", "1.5"])
    def test_a_column_that_is_no_clock_is_refused(
        self, load: Load, database: sqlite3.Connection, value: str
    ) -> None:
        database.execute(f"UPDATE orders SET day = {value}")
        database.execute(f"CREATE TABLE t AS SELECT {value} AS w")
        with pytest.raises(SourceError, match=r"source\.watermark_type") as caught:
            load(replace(ORDERS, table="t", watermark="w"), mode="append")
        assert "bob" not in str(caught.value)


@pytest.mark.parametrize(
    "mark",
    [
        7,
        Decimal("1.50"),
        date(2013, 1, 1),
        datetime(2013, 1, 1, 10),  # noqa: DTZ001 (a database's own)
        datetime(2013, 1, 1, 10, 0, 0, 5, tzinfo=UTC),
        "2013-01-01 10:00:00",
        "2013-01-01T10:00:00.5Z",
    ],
)
def test_marks_survive_as_text_and_can_be_lowered(mark: Any) -> None:
    assert decode(encode(mark, column="w")) == mark
    lag = 1 if isinstance(mark, int | Decimal) else timedelta(seconds=1)
    lower = lowered(mark, lag, column="w")
    assert type(lower) is type(mark)
    assert lower < mark


def test_a_lag_leaves_no_gap_below_large_numbers() -> None:
    mark = 2**60 + 129
    assert lowered(mark, 1.0, column="w") == mark - 1  # as a float it would be 127 above the mark
    assert lowered(-1, 0.5, column="w") == -2


def test_marks_that_still_compare_after_a_change_of_type_go_on() -> None:
    check_kind(None, 5, column="w")
    check_kind(5, Decimal(6), column="w")
    check_kind(date(2013, 1, 1), datetime(2013, 1, 1, 10), column="w")  # noqa: DTZ001 (a database's own)
    with pytest.raises(SourceError, match=r"source\.watermark_type"):
        check_kind(datetime(2013, 1, 1), datetime(2013, 1, 1, tzinfo=UTC), column="w")  # noqa: DTZ001


class TestErrors:
    @pytest.mark.parametrize(
        ("source", "error"),
        [
            (replace(ORDERS, table="nowhere"), r"source\.query.*no such table: nowhere"),
            (replace(ORDERS, columns=["id", "nothing"]), r"source\.columns.*'nothing'"),
            (replace(ORDERS, watermark="Nothing"), r"source\.columns.*'Nothing'"),
            (replace(ORDERS, query="SELECT 1"), r"argument\.query.*both"),
            (replace(ORDERS, table=" "), r"argument\.query.*neither"),
            (replace(ORDERS, table=None, query="SELECT :x AS x"), r"argument\.parameters.*x"),
            (replace(ORDERS, parameters={"x": 1}), r"argument\.parameters.*x"),
            (replace(ORDERS, order_by=["x"]), r"argument\.column.*'x'"),
            (replace(ORDERS, chunk_rows=0), r"argument\.source"),
            (replace(ORDERS, null_watermark="maybe"), r"argument\.null_watermark"),
        ],
    )
    def test_what_cannot_be_read_is_a_typed_error(self, load: Load, source: SqlSource, error: str) -> None:
        with pytest.raises(XOpsError, match=error):
            load(source, mode="append")

    def test_several_partitions_from_the_same_rows_are_refused(self, load: Load) -> None:
        with pytest.raises(ArgumentError, match=r"argument\.source.*:partition"):
            load(partitions=["d1", "d2"])

    def test_text_that_is_no_text_is_named_and_never_quoted(
        self, load: Load, database: sqlite3.Connection
    ) -> None:
        database.execute("UPDATE orders SET day = CAST(x'736563726574ff' AS TEXT)")
        with pytest.raises(SourceError, match=r"source\.encoding") as caught:
            load()
        assert "secret" not in str(caught.value)

    def test_a_database_that_is_locked_is_tried_again(self, load: Load, tmp_path: Path) -> None:
        locked = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}", connect_args={"timeout": 0.01})
        with sqlite3.connect(tmp_path / "shop.db", isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(UnavailableError, match=r"unavailable\.database"):
                load(engine=locked)
        other.close()
        locked.dispose()
