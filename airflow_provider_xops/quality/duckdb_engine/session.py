"""One frame inside a DuckDB box: a view of its rows, figures computed together, positions of rows.

For the execution engine. The box reads the frame and nothing else is loaded or installed; what does not fit
into memory spills into a folder that is removed at the end. In the view ``rows_`` the columns are called
``c0``, ``c1``, ... by their place, so that no name has to be quoted and none can be taken for another; a NaN
is NULL in it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.quality.duckdb_engine.columns import Column, kind_of
from airflow_provider_xops.quality.engine import Frame
from airflow_provider_xops.quality.frames import FLOAT_WHOLE, LakeFrame, PandasFrame

__all__ = ["VIEW", "Session"]

log = logging.getLogger(__name__)

VIEW = "rows_"
POSITION = "position_"
BATCH_ROWS = 65_536
_WIDE = (pa.int64(), pa.uint64())


class Session:
    """A DuckDB with one frame in it; a context manager.

    :ivar unreadable: why DuckDB cannot read the frame at all; then every column is of kind ``none``.
    """

    def __init__(self, frame: Frame, *, memory_limit: str | None) -> None:
        self.frame = frame
        self._memory_limit = memory_limit
        self._scalars: dict[str, Any] = {}
        self._stack = ExitStack()
        self._dtypes: dict[str, Any] = {}
        self.columns: dict[str, Column] = {}
        self.unreadable = ""
        self.scans = 0

    def __enter__(self) -> Session:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        folder = (
            self._stack.enter_context(self.frame.lake.storage.scratch())
            if isinstance(self.frame, LakeFrame)
            else Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="xops-duckdb-")))
        )
        self._connection = self._stack.enter_context(open_box(folder=folder, memory_limit=self._memory_limit))
        data = self.frame.pandas() if isinstance(self.frame, PandasFrame) else None
        kinds = {
            field.name: kind_of(field, None if data is None else data.dtypes[field.name])
            for field in self.frame.schema
        }
        try:
            relation = self.frame.relation(self._connection)
            relation.create_view("raw_")
        except (duckdb.Error, pa.ArrowException, RuntimeError) as error:
            # Types that DuckDB does not know. A storage that does not answer is told by the
            # fallback, which reads it too.
            self.unreadable = type(error).__name__
            kinds = dict.fromkeys(kinds, "none")
            relation = None
        # A pandas column of mixed types is not in the relation.
        readable = [] if relation is None else [field for field in self.frame.schema if not field.metadata]
        places = {field.name: f"c{place}" for place, field in enumerate(readable)}
        self.columns = {
            field.name: Column(field.name, places.get(field.name, ""), kinds[field.name], field.type)
            for field in self.frame.schema
        }
        if places:
            raw = ", ".join(places.values())
            shown = ", ".join(_normal(self.columns[name], place) for name, place in places.items())
            self._connection.execute(f"CREATE VIEW {VIEW} AS SELECT {shown} FROM raw_ AS t({raw})")

    def scalars(self, expressions: Iterable[str]) -> dict[str, Any]:
        """The value of each aggregate over the rows, all in one scan; an exception where one failed alone."""
        wanted = [text for text in dict.fromkeys(expressions) if text not in self._scalars]
        if wanted:
            try:
                values = self.query(f"SELECT {', '.join(wanted)} FROM {VIEW}")[0]
                self._scalars.update(zip(wanted, values, strict=True))
            except duckdb.Error as error:
                if len(wanted) == 1:
                    self._scalars[wanted[0]] = error
                else:
                    # One of them fails on a value or has no such function: find it, keep the others.
                    middle = len(wanted) // 2
                    self.scalars(wanted[:middle])
                    self.scalars(wanted[middle:])
        return {text: self._scalars[text] for text in expressions}

    def scalar(self, expression: str) -> Any:
        """One aggregate over the rows.

        :raises duckdb.Error: it failed.
        """
        value = self.scalars([expression])[expression]
        if isinstance(value, Exception):
            raise value
        return value

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a query; it should give few."""
        self.scans += 1
        rows: list[tuple[Any, ...]] = self._connection.execute(sql).fetchall()
        return rows

    def remembered(self, sql: str) -> tuple[Any, ...]:
        """The one row of a query, computed once."""
        if sql not in self._scalars:
            (self._scalars[sql],) = self.query(sql)
        row: tuple[Any, ...] = self._scalars[sql]
        return row

    def arrow(self, sql: str) -> pa.Table:
        """The result of a query as an Arrow table."""
        self.scans += 1
        return self._connection.sql(sql).to_arrow_table()

    def positions(self, sql: str) -> np.ndarray:
        """The one column of a query, streamed, as sorted 64-bit integers."""
        self.scans += 1
        reader = self._connection.sql(sql).fetch_arrow_reader(BATCH_ROWS)
        parts = [batch.column(0).to_numpy(zero_copy_only=False) for batch in reader]
        return np.sort(np.concatenate(parts).astype(np.int64)) if parts else np.empty(0, np.int64)

    @cached_property
    def positioned(self) -> str:
        """The rows with their position in scan order; DuckDB counts as it reads, in order."""
        return f"(SELECT *, row_number() OVER () - 1 AS {POSITION} FROM {VIEW})"

    def dtype(self, name: str) -> Any:
        """What the whole column is in pandas."""
        if name not in self._dtypes:
            self._dtypes[name] = self._find_dtype(name)
        return self._dtypes[name]

    def presence(self, name: str) -> tuple[str, str]:
        """Two aggregates over all rows, whatever the condition: how many values are missing, and all rows."""
        return f"count(*) - count({self.columns[name].sql})", "count(*)"

    def _find_dtype(self, name: str) -> Any:
        column = self.columns[name]
        if isinstance(self.frame, PandasFrame):
            return self.frame.pandas().dtypes[name]
        if column.kind == "none":
            return self.frame.pandas([name]).dtypes[name]
        plain = pa.table({name: pa.array([], column.type)}).to_pandas().dtypes[name]
        if not (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
            return plain
        missing, rows = (self.scalar(text) for text in self.presence(name))
        if not missing:
            return plain
        if pa.types.is_boolean(column.type):
            return np.dtype(object)
        if column.type in _WIDE and missing < rows:
            least, most = self.scalar(f"min({column.sql})"), self.scalar(f"max({column.sql})")
            if least < -FLOAT_WHOLE or most > FLOAT_WHOLE:
                return np.dtype(object)
        return np.dtype(np.float64)

    def typed(self, rows: pa.Table, names: Sequence[str]) -> Any:
        """Some rows as a data frame whose columns are of the types that they have when all rows are there."""
        import pandas as pd

        columns: dict[str, Any] = {}
        for place, name in enumerate(names):
            array = rows.column(place)
            if array.type != self.columns[name].type:
                array = array.cast(self.columns[name].type)
            wanted = self.dtype(name)
            series = array.to_pandas(integer_object_nulls=wanted == np.dtype(object))
            columns[name] = series if series.dtype == wanted else series.astype(wanted)
        return pd.DataFrame(columns, columns=list(names))


def _normal(column: Column, place: str) -> str:
    if column.kind in ("float", "float32"):
        return f"CASE WHEN isnan({place}) THEN NULL ELSE {place} END AS {place}"
    if column.kind == "time":
        return f"CAST({place} AS TIMESTAMP) AS {place}"
    return place
