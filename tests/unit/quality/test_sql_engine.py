"""A table behind a SQLAlchemy engine: the same answers as in memory, and the rows stay where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_xops.errors import ArgumentError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality.engine import get_engine
from airflow_provider_xops.quality.frames import frame_of
from airflow_provider_xops.quality.sql_engine import SqlEngine, SqlTable
from airflow_provider_xops.quality.validate import validate_table
from airflow_provider_xops.records import Actor, Outcome, ValidationReport
from tests.unit.quality import sql_tables
from tests.unit.quality.sql_tables import CHECKS, SECRET, Statements


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """A SQLite database with the table ``orders``."""
    made = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    sql_tables.create(made)
    yield made
    made.dispose()


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "orders.json"
    expectations = [
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "name", "value_set": ["a"]}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "n", "mostly": 0.5}},
    ]
    path.write_text(json.dumps({"name": "orders", "expectations": expectations}))
    return str(path)


def test_the_database_gives_the_figures_that_pandas_gives(engine: sa.Engine) -> None:
    there = SqlEngine("sqlite").run(CHECKS, SqlTable(engine, "orders"), examples=2)
    here = get_engine("pandas").run(CHECKS, frame_of(sql_tables.frame()), examples=2)
    for found, expected in zip(there.results, here.results, strict=True):
        # SQLite keeps times as text, so examples of them come as text
        assert replace(found, examples=()) == replace(expected, examples=()), found.check.type
    assert {one.outcome for one in there.results} == {Outcome.PASSED, Outcome.FAILED, Outcome.ERRORED}
    assert there.document is not None
    assert SECRET not in json.dumps(there.document, default=str)


def test_no_statement_reads_rows_without_a_bound(engine: sa.Engine) -> None:
    statements = Statements(engine)
    SqlEngine("sqlite").run(CHECKS, SqlTable(engine, "orders"), examples=2)
    assert len(statements.sent) > 20
    assert statements.reading_rows("orders") == []


def test_the_hearing_of_statements_hears_a_read(engine: sa.Engine) -> None:
    statements = Statements(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT name FROM orders WHERE n > 1").fetchall()
        connection.exec_driver_sql("SELECT * FROM (SELECT * FROM orders LIMIT 3) AS few").fetchall()
    assert statements.reading_rows("orders") == statements.sent


def test_without_rows_there_is_no_data(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM orders")
    run = SqlEngine("sqlite").run(CHECKS[4:9], SqlTable(engine, "orders"))
    assert {one.outcome for one in run.results} == {Outcome.NO_DATA}


def test_an_errored_check_says_why_without_a_value(engine: sa.Engine) -> None:
    check = replace(CHECKS[8], kwargs={"column": "name", "min_value": 1})
    (result,) = SqlEngine("sqlite").run([check], SqlTable(engine, "orders")).results
    assert result.outcome is Outcome.ERRORED
    assert "InvalidColumnTypeError" in result.message
    assert SECRET not in result.message


def test_a_table_that_is_not_there_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.table\] the database has no table nowhere"):
        SqlTable(engine, "nowhere")


def test_a_database_that_does_not_answer_is_unavailable_and_its_password_stays_secret(tmp_path: Path) -> None:
    engine = sa.create_engine("postgresql+psycopg2://user:hunter2@127.0.0.1:1/shop")
    with pytest.raises(UnavailableError) as caught:
        SqlTable(engine, "orders")
    assert caught.value.code == "unavailable.database"
    assert "hunter2" not in f"{caught.value} {caught.value.__context__ and caught.value.__cause__}"


def test_a_database_that_goes_away_meanwhile_is_unavailable_and_no_suite_that_errored(
    engine: sa.Engine,
) -> None:
    table = SqlTable(engine, "orders")
    assert table.rows == 5

    def gone(*_: Any) -> None:
        raise sa.exc.OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly"))

    sa.event.listen(engine, "before_cursor_execute", gone)
    with pytest.raises(UnavailableError, match=r"unavailable\.database"):
        SqlEngine("sqlite").run(CHECKS[3:6], table)


def test_the_report_names_the_table_and_no_credentials(
    lake: Lake, engine: sa.Engine, suite: str, actor: Actor, as_of: datetime
) -> None:
    report = validate_table(
        lake, sqlalchemy_engine=engine, source="shop", table="orders", suite=suite, actor=actor, as_of=as_of
    )
    assert (str(report.dataset), report.rows, report.outcome) == ("shop:orders@0", 5, Outcome.FAILED)
    assert report.engine.startswith("sql/")
    assert report.engine.endswith("-sqlite")
    assert report.partitions is None
    assert lake.evidence.get(ValidationReport.kind, report.record_id) == report
    assert set(report.documents) == {"data_docs", "json"}


def test_the_same_table_is_the_same_dataset_whoever_connects() -> None:
    def digest(url: str, table: str = "orders", schema: str | None = None) -> str:
        found = SqlTable.__new__(SqlTable)
        found.engine, found.table, found.db_schema = sa.create_engine(url), table, schema
        return found.digest

    one = digest("postgresql+psycopg2://jane:secret@db:5432/shop")
    assert digest("postgresql+psycopg2://joe:other@db:5432/shop") == one
    others = [
        digest("postgresql+psycopg2://jane:secret@db2:5432/shop"),
        digest("postgresql+psycopg2://jane:secret@db:5432/shop2"),
        digest("postgresql+psycopg2://jane:secret@db:5432/shop", "items"),
        digest("postgresql+psycopg2://jane:secret@db:5432/shop", "orders", "old"),
    ]
    assert len({one, *others}) == 5


def test_a_table_without_versions_is_asked_anew_every_time(
    lake: Lake, engine: sa.Engine, suite: str, actor: Actor, as_of: datetime
) -> None:
    def ask(moment: datetime) -> ValidationReport:
        return validate_table(
            lake,
            sqlalchemy_engine=engine,
            source="shop",
            table="orders",
            suite=suite,
            actor=actor,
            as_of=moment,
        )

    first = ask(as_of)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM orders WHERE name <> 'a'")
    second = ask(as_of + timedelta(minutes=1))
    assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.PASSED)
    assert first.record_id != second.record_id


@pytest.mark.parametrize("policy", ["none", "masked", "full"])
def test_bad_values_are_in_the_documents_only_and_under_full_only(
    lake: Lake,
    engine: sa.Engine,
    suite: str,
    actor: Actor,
    as_of: datetime,
    policy: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    report = validate_table(
        lake, sqlalchemy_engine=engine, source="shop", table="orders", suite=suite, samples=policy,
        actor=actor, as_of=as_of,
    )  # fmt: skip
    assert SECRET not in f"{report.to_json()} {caplog.text}"
    documents: list[Any] = [report.report_uri, *report.documents.values()]
    for uri in documents:
        text = (lake.storage.get(f"_xops/{uri.partition('/_xops/')[2]}") or b"").decode()
        assert (SECRET in text) is (policy == "full"), uri
