"""One SELECT over dataset versions, run by DuckDB in a box.

For transformations. The box holds the inputs and nothing else: no file, no network, no Python variable, no
setting can be reached from the SQL. Results are streamed; what does not fit into memory spills.

Errors say what is wrong with the SQL in DuckDB's words; where a *value* is the trouble, only the kind of
trouble is told, because DuckDB quotes values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from airflow_provider_xops.errors import ArgumentError, DataError, LakeError, UnavailableError, XOpsError
from airflow_provider_xops.lake._delta import read_errors
from airflow_provider_xops.lake.data_files import FileSegment, parquet_sql
from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import arrow_dataset, schema_of
from airflow_provider_xops.lake.schema import PARTITION_COLUMN
from airflow_provider_xops.lake.storage import LocalStorage
from airflow_provider_xops.lake.tables import open_table, segments_of, table_info
from airflow_provider_xops.records import DatasetRef

__all__ = ["Query", "Session", "parse_query"]

BATCH_ROWS = 65_536
PARTITION_PARAMETER = "partition"

_ALIAS = re.compile(r"[A-Za-z_]\w{0,62}")
_GLOB = re.compile(r"[*?\[\]{}]")
# What Arrow could not fetch for DuckDB, and what DuckDB could not decode: not the query's fault.
_UNREAD = re.compile(r"reading the stream registered as .* failed: IOError")
_DAMAGED = re.compile(
    r"No magic bytes|Snappy decompression|TProtocolException|don't know what type|out of buffer"
)
# Whole numbers wider than Delta Lake's: DuckDB's sums of integers are.
_WIDE = {"HUGEINT", "UHUGEINT"}
_ABOUT_THE_SQL = (
    duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.SyntaxException,
    duckdb.NotImplementedException, duckdb.PermissionException,
)  # fmt: skip


@dataclass(frozen=True)
class Query:
    """One SELECT statement. ``uses_partition``: it names ``$partition``."""

    text: str
    uses_partition: bool

    @contextmanager
    def session(self, folder: Path, *, memory_limit: str) -> Iterator[Session]:
        """A DuckDB of its own for this query.

        :param folder: where it may spill to.
        """
        with _typed_errors():
            connection = open_box(folder=folder, memory_limit=memory_limit)
        try:
            yield Session(connection, self)
        finally:
            connection.close()


class Session:
    """A DuckDB for one query: inputs are allowed once, then bound and run for each partition."""

    def __init__(self, connection: Any, query: Query) -> None:
        self._connection = connection
        self._query = query
        self._files: dict[DatasetRef, list[FileSegment]] = {}
        self._schemas: dict[DatasetRef, Any] = {}

    def close_box(self, lake: Lake, refs: Iterable[DatasetRef]) -> None:
        """Let the files of these versions be read, and nothing else from here on."""
        for ref in refs:
            files = _local_files(lake, ref)
            _check_present(lake, ref, files)
            if files:
                self._files[ref], self._schemas[ref] = files, schema_of(lake, ref)
        paths = [_path(lake, ref, file) for ref, files in self._files.items() for file in files]
        with _typed_errors():
            self._connection.execute(f"SET allowed_paths = [{', '.join(map(_text, paths))}]")
            self._connection.execute("SET enable_external_access = false")
            self._connection.execute("SET lock_configuration = true")

    def bind(self, lake: Lake, alias: str, ref: DatasetRef, partitions: Sequence[str] | None) -> None:
        """Make (partitions of) a dataset version known under a name; replaces what had the name before.

        :raises ArgumentError: ``argument.alias``: SQL would have to quote the name.
        """
        if not _ALIAS.fullmatch(alias):
            raise ArgumentError(
                f"{alias!r} cannot name an input in SQL",
                code="argument.alias",
                todo="use letters, digits and '_'",
            )
        if ref in self._files:
            # DuckDB reads Parquet by itself several times faster than through Arrow.
            chosen = [file for file in self._files[ref] if partitions is None or file.partition in partitions]
            rows = parquet_sql(self._schemas[ref], chosen, [_path(lake, ref, file) for file in chosen])
        else:
            hidden = f"_xops_input_{alias}"
            self._connection.register(hidden, arrow_dataset(lake, ref, partitions))
            rows = f"SELECT * EXCLUDE ({_name(PARTITION_COLUMN)}) FROM {_name(hidden)}"
        with _typed_errors():
            self._connection.execute(f"CREATE OR REPLACE VIEW {_name(alias)} AS {rows}")

    def counts(self, text: str, partition: str) -> tuple[int, ...]:
        """The one row of a query of whole numbers over the same inputs.

        :raises DataError: as :meth:`run`.
        """
        parameters = {PARTITION_PARAMETER: partition} if parse_query(text).uses_partition else None
        with _typed_errors():
            row = self._connection.execute(text, parameters).fetchone()
        return tuple(int(value) for value in row)

    def run(self, partition: str, *, order_by: Sequence[str] = ()) -> Iterator[Any]:
        """The result's Arrow schema, then its batches, sorted by ``order_by`` and then by all other columns.

        :raises ArgumentError: ``argument.sql``; :raises DataError: ``data.transform``,
            ``data.transform_memory``.
        """
        parameters = {PARTITION_PARAMETER: partition} if self._query.uses_partition else None
        with _typed_errors():
            columns = self._connection.execute(f"DESCRIBE {self._query.text}", parameters).fetchall()
            text = _sorted_query(self._query.text, {name: kind for name, kind, *_ in columns}, order_by)
            # sql() streams; execute() would collect the whole result first.
            reader = self._connection.sql(text, params=parameters).fetch_arrow_reader(BATCH_ROWS)
        yield reader.schema
        while True:
            with _typed_errors():
                batch = next(reader, None)
            if batch is None:
                return
            yield batch


def parse_query(sql: str) -> Query:
    """The query, if it is exactly one SELECT.

    :raises ArgumentError: ``argument.sql``.

    >>> parse_query("SELECT 1 AS one WHERE $partition = 'all';").uses_partition
    True
    """
    with _typed_errors(), open_box() as connection:
        statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ArgumentError(
            "the SQL is not one SELECT",
            code="argument.sql",
            why=f"it has {len(statements)} statements"
            if len(statements) != 1
            else "it does something else than read",
            todo="write one SELECT over the inputs' names",
        )
    unknown = sorted(set(statements[0].named_parameters) - {PARTITION_PARAMETER})
    if unknown:
        raise ArgumentError(
            f"the SQL uses the parameter {unknown[0]}",
            code="argument.sql",
            why=f"the only one there is is ${PARTITION_PARAMETER}",
            todo="render other values by the task's template",
        )
    text = statements[0].query.strip().rstrip(";").strip()
    return Query(text, PARTITION_PARAMETER in statements[0].named_parameters)


def _sorted_query(text: str, kinds: Mapping[str, str], order_by: Sequence[str]) -> str:
    narrowed = [
        f"CAST({_name(name)} AS BIGINT) AS {_name(name)}" for name, kind in kinds.items() if kind in _WIDE
    ]
    replaced = f" REPLACE ({', '.join(narrowed)})" if narrowed else ""
    # Maps have no order: rows that differ in nothing else stay as DuckDB gives them.
    first = [name for name in order_by if name in kinds]
    names = [*first, *(name for name, kind in kinds.items() if name not in first and "MAP(" not in kind)]
    order = ", ".join(f"{_name(name)} ASC NULLS FIRST" for name in names)
    return f"SELECT *{replaced} FROM ({text}\n) AS result" + (f" ORDER BY {order}" if order else "")


def _local_files(lake: Lake, ref: DatasetRef) -> list[FileSegment]:
    """The data files, where DuckDB can open them by itself; else nothing."""
    if not isinstance(lake.storage, LocalStorage) or _GLOB.search(lake.storage.uri):
        return []
    handle = open_table(lake, ref.table, ref.version)
    return [] if table_info(handle) is None else segments_of(handle)


def _check_present(lake: Lake, ref: DatasetRef, files: Sequence[FileSegment]) -> None:
    # Asked before the box is closed: inside it DuckDB tells a missing file from a forbidden one by neither.
    with read_errors(f"cannot read {ref}"):
        for file in files:
            Path(_path(lake, ref, file)).stat()


def _path(lake: Lake, ref: DatasetRef, file: FileSegment) -> str:
    return f"{lake.storage.table_uri(ref.table)}/{file.path}"


def _unread(error: Exception) -> UnavailableError:
    return UnavailableError(
        "the SQL could not read its inputs or spill to disk", code="unavailable.storage",
        why=type(error).__name__,
        todo="try again; if it stays, check the lake's storage and the worker's disk",
    )  # fmt: skip


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except XOpsError:
        raise
    except duckdb.OutOfMemoryException:
        raise DataError(
            "the SQL needs more memory than it may use",
            code="data.transform_memory",
            why="a step of it cannot spill to disk",
            todo="raise memory_limit, or transform fewer partitions at once",
        ) from None
    except _ABOUT_THE_SQL as error:
        reached = isinstance(error, duckdb.PermissionException)
        raise ArgumentError(
            "the SQL cannot be run", code="argument.sql",
            why="it reaches beyond its inputs" if reached else str(error).strip().splitlines()[0],
            todo="name what it needs as an input" if reached else "correct it",
        ) from None  # fmt: skip
    except (duckdb.IOException, OSError) as error:
        raise _unread(error) from error
    except duckdb.Error as error:
        if _UNREAD.search(str(error)):
            raise _unread(error) from error
        if _DAMAGED.search(str(error)):
            raise LakeError(
                "the SQL cannot read one of its inputs", code="lake.damaged_file",
                why="a data file cannot be decoded",
                todo="run `xops lake verify` to see which, and restore it",
            ) from None  # fmt: skip
        raise DataError(
            f"the SQL failed on a value of its inputs ({type(error).__name__})", code="data.transform",
            why="DuckDB's message quotes the value and is not repeated here",
            todo="look for casts and arithmetic in the SQL; try_cast gives a null instead of an error",
        ) from None  # fmt: skip


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
