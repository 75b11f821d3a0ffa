"""Great Expectations on a table behind a SQLAlchemy engine; the rows stay in the database.

For :func:`~airflow_provider_xops.quality.validate.validate_table`. The library renders its metrics as
SQL, so what comes back are figures, at most as many unexpected values as samples were asked for, and for
expectations about distinct values those values (with their counts). PostgreSQL and SQLite are tested; another
database that Great Expectations and SQLAlchemy both know may work.

What it does not do: quarantine (it knows no positions of rows), or look at a query: make a view of it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError, UnavailableError
from airflow_provider_xops.quality._great_expectations import great_expectations, great_expectations_version
from airflow_provider_xops.quality._gx_run import BATCH, run_checks
from airflow_provider_xops.quality._messages import safe_line
from airflow_provider_xops.quality.engine import EngineRun
from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    import sqlalchemy as sa

__all__ = ["SqlEngine", "SqlTable"]

log = logging.getLogger(__name__)


class SqlTable:
    """A table or view of a database, as the engine sees it: its columns and how many rows it has.

    :param engine: an SQLAlchemy engine; it is not disposed of here.
    :param table: the name alone, :param schema: or None for the database's default.
    """

    def __init__(self, engine: sa.Engine, table: str, schema: str | None = None) -> None:
        """
        :raises ArgumentError: there is no such table (``argument.table``).
        :raises UnavailableError: the database does not answer (``unavailable.database``).
        """
        self.engine = engine
        self.table = table
        self.db_schema = schema
        if not self._columns:
            raise _no_table(self)

    def __str__(self) -> str:
        return f"{self.db_schema}.{self.table}" if self.db_schema else self.table

    @property
    def digest(self) -> str:
        """What names this table among all: SHA-256 of the address without credentials, schema and name."""
        url = self.engine.url
        place = [url.get_backend_name(), url.host or "", str(url.port or ""), url.database or ""]
        return hashlib.sha256("\0".join([*place, self.db_schema or "", self.table]).encode()).hexdigest()

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns; times, dates and nested types as such, everything else as text or numbers."""
        import pyarrow as pa

        return pa.schema([pa.field(str(one["name"]), _arrow_type(one["type"])) for one in self._columns])

    @cached_property
    def rows(self) -> int:
        """How many there are, counted by the database."""
        import sqlalchemy as sa

        counted = sa.select(sa.func.count()).select_from(sa.table(self.table, schema=self.db_schema))
        with _typed(self), self.engine.connect() as connection:
            return int(connection.execute(counted).scalar_one())

    def ping(self) -> None:
        """Ask the database for nothing, to see whether it still answers.

        :raises UnavailableError: it does not.
        """
        import sqlalchemy as sa

        with _typed(self), self.engine.connect() as connection:
            connection.execute(sa.select(sa.literal(1)))

    @cached_property
    def _columns(self) -> list[Any]:
        import sqlalchemy as sa

        with _typed(self):
            try:
                return list(sa.inspect(self.engine).get_columns(self.table, schema=self.db_schema))
            except sa.exc.NoSuchTableError:
                return []


class SqlEngine:
    """See the module."""

    name = "sql"

    def __init__(self, dialect: str) -> None:
        """:param dialect: the database, for the report: ``postgresql``."""
        self.dialect = dialect

    @property
    def version(self) -> str:
        """Great Expectations' version, and the database that ran it."""
        return f"{great_expectations_version()}-{self.dialect}"

    def run(self, checks: Sequence[Check], frame: SqlTable, *, examples: int = 0) -> EngineRun:
        """One result for each check. A check that cannot run is *errored*, not raised.

        :raises UnavailableError: the database does not answer.
        """
        log.info("Running %d checks over %s in the database.", len(checks), frame)
        with _typed(frame):
            run = run_checks(checks, frame, open_engine=lambda: _opened(frame), examples=examples)  # type: ignore[arg-type]
            if any(result.outcome is Outcome.ERRORED for result in run.results):
                frame.ping()  # the library takes a database that went away for so many checks that cannot run
        return run


def _opened(table: SqlTable) -> Any:
    great_expectations()
    import sqlalchemy as sa
    from great_expectations.execution_engine import SqlAlchemyExecutionEngine
    from great_expectations.execution_engine.sqlalchemy_batch_data import SqlAlchemyBatchData

    # It logs the connections it opens, and the statements it could not run with their parameters.
    logging.getLogger("great_expectations.execution_engine").setLevel(logging.CRITICAL)
    engine = SqlAlchemyExecutionEngine(engine=table.engine, create_temp_table=False)
    batch = SqlAlchemyBatchData(
        execution_engine=engine,
        table_name=sa.quoted_name(table.table, quote=True),
        schema_name=table.db_schema,
        source_table_name=sa.quoted_name(table.table, quote=True),
        source_schema_name=table.db_schema,
    )
    engine.load_batch_data(BATCH, batch)
    return engine


def _arrow_type(found: Any) -> pa.DataType:
    """What the checks need to know of a type: whether bounds are times or dates, whether it is nested."""
    import pyarrow as pa
    import sqlalchemy as sa

    if isinstance(found, sa.DateTime):
        return pa.timestamp("us", tz="UTC" if getattr(found, "timezone", False) else None)
    if isinstance(found, sa.Date):
        return pa.date32()
    if isinstance(found, sa.ARRAY | sa.JSON):
        return pa.list_(pa.string())
    if isinstance(found, sa.Boolean):
        return pa.bool_()
    if isinstance(found, sa.Integer):
        return pa.int64()
    if isinstance(found, sa.Numeric):
        return pa.float64()
    return pa.string()


@contextmanager
def _typed(table: SqlTable) -> Iterator[None]:
    """What the database refuses as errors of ours, without its address and without values."""
    import sqlalchemy as sa

    try:
        yield
    except sa.exc.OperationalError as error:
        raise UnavailableError(
            f"the database of {table} cannot be asked",
            code="unavailable.database",
            why=safe_line(str(error)),
            todo="check that it is up and that the connection's address and credentials are right",
        ) from None
    except sa.exc.SQLAlchemyError as error:
        raise ArgumentError(
            f"the table {table} cannot be read",
            code="argument.table",
            why=safe_line(f"{type(error).__name__}: {error}"),
            todo="check its name, and that the connection's user may read it",
        ) from None


def _no_table(table: SqlTable) -> ArgumentError:
    return ArgumentError(
        f"the database has no table {table}", code="argument.table",
        todo="name it as table or schema.table, in the case the database keeps",
    )  # fmt: skip
