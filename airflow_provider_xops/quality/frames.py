"""The rows that an engine looks at: of a lake version, of files, of an Arrow table or a pandas frame.

For the engines and every room that looks into data. A frame gives the same rows in three forms (pandas,
Arrow batches, a DuckDB relation), always in the same order, so that the position of a row is its identity.
Nothing is read before it is asked for.

Two columns of one name are refused (``argument.columns``): no form could say which is meant. So are names
that differ by case only, which neither Delta Lake nor DuckDB tells apart, and Great Expectations not always.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.data_files import parquet_sql
from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import arrow_dataset, count_rows, scan, schema_of
from airflow_provider_xops.lake.schema import PARTITION_COLUMN
from airflow_provider_xops.lake.storage import LocalStorage
from airflow_provider_xops.lake.tables import FileSegment, open_table, segments_of, table_info
from airflow_provider_xops.records import DatasetRef

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

    from airflow_provider_xops.quality.engine import Frame

__all__ = ["MIXED", "ArrowFrame", "FileFrame", "LakeFrame", "PandasFrame", "frame_of"]

BATCH_ROWS = 65_536
FLOAT_WHOLE = 2**53  # from here on a 64-bit float skips whole numbers
# Metadata of a field whose pandas column mixes types: no Arrow type holds it, it exists as pandas only.
MIXED = {b"xops": b"mixed"}

_GLOB = frozenset("*?[]{}")
_numbers = itertools.count()


class LakeFrame:
    """The rows of some partitions of a dataset version."""

    def __init__(self, lake: Lake, ref: DatasetRef, partitions: Sequence[str] | None) -> None:
        self._lake = lake
        self._ref = ref
        self._partitions = partitions

    @property
    def lake(self) -> Lake:
        """The lake; an engine may use its scratch folder."""
        return self._lake

    @cached_property
    def schema(self) -> pa.Schema:
        """The user's columns."""
        return schema_of(self._lake, self._ref)

    @cached_property
    def rows(self) -> int:
        """How many there are; from the table's log, without reading them."""
        return count_rows(self._lake, self._ref, partitions=self._partitions)

    def pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows in memory. Dates are Python dates, times are UTC; whole numbers with missing values are
        floats, or Python integers where a float would not hold one exactly."""
        rows = scan(self._lake, self._ref, partitions=self._partitions, columns=columns)
        return _to_pandas(rows.read_all(), ours=True)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in canonical order."""
        yield from scan(
            self._lake, self._ref, partitions=self._partitions, columns=columns, batch_rows=BATCH_ROWS
        )

    def relation(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """The rows for DuckDB: from the Parquet files where it can open them, else through Arrow."""
        if not self.rows:
            return _registered(connection, self.schema.empty_table())
        files = self._local_files()
        if files:
            # Several times faster than through Arrow.
            folder = self._lake.storage.table_uri(self._ref.table)
            return connection.sql(
                parquet_sql(self.schema, files, [f"{folder}/{file.path}" for file in files])
            )
        rows = _registered(connection, arrow_dataset(self._lake, self._ref, self._partitions))
        return rows.project(f"* EXCLUDE ({_name(PARTITION_COLUMN)})")

    def _local_files(self) -> list[FileSegment]:
        storage = self._lake.storage
        if not isinstance(storage, LocalStorage) or _GLOB & set(storage.uri):
            return []
        handle = open_table(self._lake, self._ref.table, self._ref.version)
        if table_info(handle) is None:
            return []
        return [
            file
            for file in segments_of(handle)
            if file.rows and (self._partitions is None or file.partition in self._partitions)
        ]


class ArrowFrame:
    """The rows of an Arrow table."""

    def __init__(self, table: pa.Table) -> None:
        """
        :raises ArgumentError: ``argument.columns``: two columns have one name.
        """
        _check_names(table.column_names)
        self._table = table

    @property
    def schema(self) -> pa.Schema:
        """The table's."""
        return self._table.schema

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self._table.num_rows)

    def pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """As of a lake version: see :meth:`LakeFrame.pandas`."""
        return _to_pandas(self._table if columns is None else self._table.select(list(columns)))

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in the table's order."""
        table = self._table if columns is None else self._table.select(list(columns))
        yield from table.to_batches(max_chunksize=BATCH_ROWS)

    def relation(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """The table, not copied."""
        return _registered(connection, self._table)


class PandasFrame:
    """The rows of a data frame; its index is not looked at.

    A column of objects that no one Arrow type holds is of type *null* with the metadata :data:`MIXED`; it
    exists in :meth:`pandas` only.
    """

    def __init__(self, data: pd.DataFrame) -> None:
        """
        :raises ArgumentError: ``argument.columns``: two columns have one name, or a name is not text.
        """
        _check_names(list(data.columns))
        self._data = data.reset_index(drop=True)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow types that the columns have."""
        return self._converted[0]

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self._data)

    def pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The data frame itself, with a fresh index."""
        return self._data if columns is None else self._data[list(columns)]

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in their order, without columns of mixed types."""
        table = self._converted[1]
        yield from (table if columns is None else table.select(list(columns))).to_batches(
            max_chunksize=BATCH_ROWS
        )

    def relation(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """The rows without columns of mixed types; numbers are not copied."""
        return _registered(connection, self._converted[1])

    @cached_property
    def _converted(self) -> tuple[pa.Schema, pa.Table]:
        import pyarrow as pa

        fields, columns = [], {}
        for name in self._data.columns:
            try:
                # NaN and NaT say "missing" in pandas, in Arrow nothing but null does.
                columns[name] = pa.chunked_array([pa.array(self._data[name], from_pandas=True)])
                fields.append(pa.field(name, columns[name].type))
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                fields.append(pa.field(name, pa.null(), metadata=MIXED))
        return pa.schema(fields), pa.table(columns)


class FileFrame:
    """The rows of Parquet or CSV files on this machine, in the order of the paths.

    The types of CSV columns are found by DuckDB, which looks at every row. Values that are empty are missing.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]) -> None:
        """
        :raises ArgumentError: ``argument.frame``: no path, a path that is not there, or neither kind of
            file; ``argument.columns``: two columns have one name.
        """
        self._paths = [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
        suffixes = {Path(path).suffix.lower() for path in self._paths}
        if not self._paths or len(suffixes) != 1 or not suffixes <= {".parquet", ".csv"}:
            raise _unusable("the files are neither all .parquet nor all .csv", "name files of one kind")
        for path in self._paths:
            if not Path(path).is_file():
                raise _unusable(f"there is no file {path}", "correct the path")
            if _GLOB & set(path):
                raise _unusable(
                    f"the path {path} has one of the characters {''.join(sorted(_GLOB))}", "move it"
                )
        self._csv = suffixes == {".csv"}
        _check_names(self._names())

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the first file; of CSV, with the types found."""
        import pyarrow.parquet as pq

        if not self._csv:
            return pq.read_schema(self._paths[0]).remove_metadata()
        with open_box() as connection:
            return self.relation(connection).limit(0).to_arrow_table().schema

    @cached_property
    def rows(self) -> int:
        """How many there are."""
        import pyarrow.parquet as pq

        if not self._csv:
            return sum(int(pq.read_metadata(path).num_rows) for path in self._paths)
        with open_box() as connection:
            (counted,) = self.relation(connection).aggregate("count(*)").fetchall()
            return int(counted[0])

    def pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """As of a lake version: see :meth:`LakeFrame.pandas`."""
        import pyarrow as pa

        batches = list(self.batches(columns))
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        table = pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)
        del batches
        return _to_pandas(table, ours=True)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in the order of the files."""
        import pyarrow.parquet as pq

        if not self._csv:
            for path in self._paths:
                with pq.ParquetFile(path) as file:
                    names = self.schema.names if columns is None else list(columns)
                    for batch in file.iter_batches(BATCH_ROWS, columns=names):
                        yield batch.select(names)
            return
        with open_box() as connection:
            wanted = self.relation(connection)
            if columns is not None:
                wanted = wanted.project(", ".join(_name(name) for name in columns))
            yield from wanted.to_arrow_reader(BATCH_ROWS)

    def relation(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """The files as DuckDB reads them."""
        return connection.sql(self._csv_query if self._csv else _parquet_query(self._paths))

    def _names(self) -> list[str]:
        import csv

        import pyarrow.parquet as pq

        if not self._csv:
            return list(pq.read_schema(self._paths[0]).names)
        with Path(self._paths[0]).open(newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file, delimiter=self._sniffed["Delimiter"]), [])

    @cached_property
    def _sniffed(self) -> dict[str, Any]:
        with open_box() as connection:
            found = connection.sql(
                "SELECT Delimiter, Columns FROM "
                f"sniff_csv({_text(self._paths[0])}, header = true, sample_size = -1)"
            )
            return dict(zip(found.columns, found.fetchall()[0], strict=True))

    @cached_property
    def _csv_query(self) -> str:
        # The types are found once: every scan afterwards reads with them.
        types = ", ".join(f"{_text(one['name'])}: {_text(one['type'])}" for one in self._sniffed["Columns"])
        listed = ", ".join(map(_text, self._paths))
        return (
            f"SELECT * FROM read_csv([{listed}], header = true, auto_detect = false, "
            f"delim = {_text(self._sniffed['Delimiter'])}, quote = '\"', escape = '\"', "
            f"columns = {{{types}}})"
        )


def frame_of(data: Any) -> Frame:
    """The frame of what a notebook has: a frame, an Arrow table, a data frame, or paths of files.

    :raises ArgumentError: ``argument.frame``.
    """
    import pandas as pd
    import pyarrow as pa

    if isinstance(data, pa.Table):
        return ArrowFrame(data)
    if isinstance(data, pa.RecordBatch):
        return ArrowFrame(pa.Table.from_batches([data]))
    if isinstance(data, pd.DataFrame):
        return PandasFrame(data)
    if isinstance(data, str | Path):
        return FileFrame(data)
    if isinstance(data, list | tuple) and data and all(isinstance(item, str | Path) for item in data):
        return FileFrame(data)
    if all(hasattr(data, name) for name in ("schema", "rows", "pandas", "batches", "relation")):
        frame: Frame = data
        return frame
    raise _unusable(
        f"a {type(data).__name__} cannot be looked at",
        "pass an Arrow table, a pandas data frame, or paths of Parquet or CSV files",
    )


def _unusable(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.frame", todo=todo)


def _check_names(names: Sequence[Any]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise ArgumentError(
                f"the column name {name!r} is not text", code="argument.columns", todo="rename the column"
            )
    counted = Counter(name.casefold() for name in names)
    twice = sorted(name for name in names if counted[name.casefold()] > 1)
    if twice:
        raise ArgumentError(
            f"two columns are called {' and '.join(map(repr, twice[:2]))}",
            code="argument.columns",
            why="an expectation could not say which of them it means: names are not told apart by case",
            todo="rename one of them",
        )


def _to_pandas(table: pa.Table, *, ours: bool = False) -> pd.DataFrame:
    """``ours``: nobody else holds the table, so that its memory may go column by column."""
    exact = {
        name: table.column(name).to_pandas(integer_object_nulls=True)
        for name in table.column_names
        if _outgrows_floats(table.column(name))
    }
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=ours)
    return frame.assign(**exact) if exact else frame


def _outgrows_floats(column: Any) -> bool:
    """Whether pandas would round whole numbers of the column, because others are missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type not in (pa.int64(), pa.uint64()) or not 0 < column.null_count < len(column):
        return False
    ends = pc.min_max(column)
    return bool(ends["min"].as_py() < -FLOAT_WHOLE or ends["max"].as_py() > FLOAT_WHOLE)


def _registered(connection: duckdb.DuckDBPyConnection, data: Any) -> duckdb.DuckDBPyRelation:
    name = f"_xops_frame_{next(_numbers)}"
    connection.register(name, data)
    return connection.table(name)


def _parquet_query(paths: Sequence[str]) -> str:
    return f"SELECT * FROM read_parquet([{', '.join(map(_text, paths))}], hive_partitioning = false)"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
