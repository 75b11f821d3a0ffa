"""One table or query of a database as statements: bound parameters only, streamed, errors typed.

For :mod:`airflow_provider_xops.data.source_sql`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from airflow_provider_xops.data.declared_sources import SqlSource
from airflow_provider_xops.errors import ArgumentError, SourceError, UnavailableError, XOpsError

__all__ = ["Statement", "connected", "database_errors", "fetching", "query_digest", "safe_uri"]

PARTITION = "partition"
# Errors of SQL itself (SQLSTATE class 42) name tables and columns, never values of rows.
_SYNTAX_CLASS = "42"
_SQLITE_SYNTAX = ("no such ", "near ", "ambiguous column")
_LITERAL = re.compile(r"""["«»„“\u2018`]\s*E?'""")


class Statement:
    """What is selected, for one partition.

    :raises ArgumentError: neither or both of table and query, a name without a value, a value without a name.
    """

    def __init__(self, source: SqlSource, partition: str, *, only_partition: bool) -> None:
        import sqlalchemy as sa

        query = (source.query or "").strip().rstrip(";").rstrip()
        if bool(query) == bool((source.table or "").strip()):
            raise ArgumentError(
                f"a database source has {'both a table and a query' if query else 'neither table nor query'}",
                code="argument.query",
                why="a template may have rendered to nothing",
                todo="give exactly one of them",
            )
        self._sa = sa
        self.parameters = dict(source.parameters or {})
        named: set[str] = set()
        self._from: Any
        if query:
            clause = sa.text(f"{query}\n")  # the line's end closes a comment
            named = set(clause.compile().params)
            values = {**self.parameters, PARTITION: partition}
            _check_names(named, values, self.parameters)
            bound = [self._bind(name, values[name]) for name in sorted(named)]
            self._from = clause.bindparams(*bound).columns().subquery("xops_source")
        else:
            _check_names(named, {}, self.parameters)
            self._from = sa.table(str(source.table), schema=source.schema or None)
        if not only_partition and PARTITION not in named:
            raise ArgumentError(
                "several partitions would be read from the same rows", code="argument.source",
                todo="write a query that has :partition where the partition's name belongs",
            )  # fmt: skip

    def rows(self, columns: Sequence[str] | None, where: Any = None, limit: int | None = None) -> Any:
        """SELECT ``columns`` (None: all)."""
        chosen: list[Any] = [self._sa.column(name) for name in columns or ()] or [self._sa.text("*")]
        selected: Any = self._sa.select(*chosen).select_from(self._from)
        selected = selected if where is None else selected.where(where)
        return selected if limit is None else selected.limit(limit)

    def maximum(self, column: str, where: Any) -> Any:
        """SELECT the highest value of ``column``."""
        selected: Any = self._sa.select(self._sa.func.max(self._sa.column(column))).select_from(self._from)
        return selected if where is None else selected.where(where)

    def count_nulls(self, column: str) -> Any:
        """SELECT how many rows have no value in ``column``."""
        counted = self._sa.select(self._sa.func.count()).select_from(self._from)
        return counted.where(self._sa.column(column).is_(None))

    def count_unlike(self, column: str, patterns: Sequence[str]) -> Any:
        """SELECT how many values of ``column`` are like none of ``patterns``."""
        mark: Any = self._sa.column(column)
        unlike = [mark.not_like(self._bind(f"xops_like{at}", text)) for at, text in enumerate(patterns)]
        counted = self._sa.select(self._sa.func.count()).select_from(self._from)
        return counted.where(self._sa.and_(mark.is_not(None), *unlike))

    def between(self, column: str, above: Any | None, upto: Any, *, nulls: bool) -> Any:
        """The condition ``above < column <= upto``, or without a value where ``nulls``."""
        mark: Any = self._sa.column(column)
        where = mark <= self._bind("xops_upto", upto)
        if above is not None:
            where = self._sa.and_(mark > self._bind("xops_above", above), where)
        return self._sa.or_(where, mark.is_(None)) if nulls else where

    def above(self, column: str, low: Any | None) -> Any | None:
        """The condition ``low < column``; None without ``low``."""
        return None if low is None else self._sa.column(column) > self._bind("xops_above", low)

    def _bind(self, name: str, value: Any) -> Any:
        # Without a type, the value goes to the driver as it is: SQLAlchemy's own guess would be written into
        # the SQL as a cast, which takes the zone from a time.
        return self._sa.bindparam(name, value, type_=self._sa.types.NullType())


def query_digest(source: SqlSource) -> str:
    """What stands for the text of a query, where the text itself would be too much."""
    return hashlib.sha256((source.query or "").encode()).hexdigest()[:16]


def safe_uri(engine: Any, declared: SqlSource, /, **told: str) -> str:
    """The address of what is read: no user, no password, no options of the connection, no query text."""
    url = engine.url
    place = "" if not url.host else quote(str(url.host)) + (f":{url.port}" if url.port else "")
    names = {"query": query_digest(declared)}
    if declared.table:
        names = {"table": ".".join(filter(None, (declared.schema, declared.table)))}
    backend = url.get_backend_name()
    return f"{backend}://{place}/{quote(str(url.database or ''))}?{urlencode({**names, **told})}"


@contextmanager
def connected(engine: Any, subject: str) -> Iterator[Any]:
    """A connection whose statements see one state of the database, where it can give that."""
    with database_errors(subject), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        try:
            yield connection
        finally:
            connection.rollback()


@contextmanager
def database_errors(subject: str) -> Iterator[None]:
    """Turn the database's errors into typed ones, without values of the statement and secrets."""
    import sqlalchemy.exc as errors

    try:
        yield
    except XOpsError:
        raise
    except errors.DBAPIError as error:
        raise _typed(error, subject) from None
    except errors.SQLAlchemyError as error:
        raise SourceError(
            f"{subject} cannot be read", code="source.query", why=type(error).__name__,
            todo="check the table's name and the query",
        ) from None  # fmt: skip
    except OSError as error:
        raise UnavailableError(
            f"the database of {subject} did not answer",
            code="unavailable.database",
            why=type(error).__name__,
            todo="try again; if it stays, check the connection",
        ) from None


@contextmanager
def fetching(subject: str) -> Iterator[None]:
    """``database_errors`` where values arrive: Python has none for some of them."""
    with database_errors(subject):
        try:
            yield
        except (ValueError, OverflowError) as error:
            raise _unreadable(subject, type(error).__name__) from None


def _unreadable(subject: str, kind: str) -> SourceError:
    return SourceError(
        f"{subject} holds a value that the database's driver cannot read", code="source.types",
        why=f"{kind}; for example a time that is infinite, before the year 1 or after 9999",
        todo="convert or leave out such values with a query",
    )  # fmt: skip


def _typed(error: Any, subject: str) -> XOpsError:
    original = error.orig
    state = str(getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or "")
    message = (str(original).splitlines() or [""])[0][:200]
    if _may_quote(message, error):
        message = f"{type(original).__name__}: its message may hold values"
    sqlite = type(original).__module__.startswith("sqlite3")
    if state.startswith(_SYNTAX_CLASS) or (sqlite and message.startswith(_SQLITE_SYNTAX)):
        return SourceError(
            f"{subject} cannot be read", code="source.query", why=message,
            todo="correct the query, the columns or the account's rights",
        )  # fmt: skip
    if sqlite and message.startswith("Could not decode"):
        return SourceError(
            f"{subject} holds text that is not UTF-8", code="source.encoding",
            todo="correct the rows, or read the column as a BLOB",
        )  # fmt: skip
    import sqlalchemy.exc as errors

    kind = f"{type(original).__name__}{f' (SQLSTATE {state})' if state else ''}"
    if isinstance(error, errors.OperationalError | errors.InterfaceError) or error.connection_invalidated:
        return UnavailableError(
            f"the database of {subject} did not answer", code="unavailable.database", why=kind,
            todo="try again; if it stays, check the connection and the server",
        )  # fmt: skip
    if isinstance(error, errors.DataError) and not state and not sqlite:
        return _unreadable(subject, kind)  # the server did not say it
    return SourceError(
        f"{subject} cannot be read", code="source.query", why=f"{kind}: its message may hold values of rows",
        todo="run the query by hand to see it",
    )  # fmt: skip


def _may_quote(message: str, error: Any) -> bool:
    """Whether an error of SQL quotes a value: a literal that a driver wrote, or a function's own words."""
    if getattr(getattr(error.orig, "diag", None), "context", None):
        return True
    given = error.params.values() if isinstance(error.params, Mapping) else error.params or ()
    firsts = [str(value).partition("\n")[0] for value in given]
    return _LITERAL.search(message) is not None or any(text and text in message for text in firsts)


def _check_names(named: set[str], values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    missing = sorted(named - set(values))
    unused = sorted(set(given) - named) + ([PARTITION] if PARTITION in given else [])
    if missing or unused:
        raise ArgumentError(
            f"the query's :names and its parameters differ: {', '.join((missing or unused)[:10])}",
            code="argument.parameters",
            why="no value is given" if missing else "the query has no such name, or it is the partition's",
            todo=r"correct the parameters; write a colon that begins no name as \:",
        )
