"""A DuckDB to compute in: the one place that opens one.

For every room that computes with DuckDB. A box lives in memory, reads only what it is given, loads and
installs nothing, says times in UTC, and spills into the folder it is given.

**NaN.** A Parquet file's minimum and maximum leave NaN out, as its specification asks. DuckDB 2.0 takes them
for all there is and replaces ``isnan(x)`` by false, so a NaN is counted as a value or missed. Without its
optimizer ``statistics_propagation`` figures are right; a ``WHERE`` may still skip a row group by the same
numbers, so files of a lake are written without statistics of floating-point columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["open_box", "sql_text"]

_SETTINGS = {
    "TimeZone": "UTC",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "enable_progress_bar": "false",
    "disabled_optimizers": "statistics_propagation",
}


def open_box(*, folder: Path | None = None, memory_limit: str | None = None) -> Any:
    """A connection, to be closed by the caller (it is a context manager).

    :param folder: where what does not fit into memory goes; None: nowhere.
    :param memory_limit: ``1GB`` for example; None: DuckDB's own, most of the machine's.
    :raises duckdb.Error: the limit is no amount of memory.
    """
    import duckdb

    connection = duckdb.connect(":memory:")
    try:
        settings = {**_SETTINGS, "temp_directory": "" if folder is None else str(folder)}
        if memory_limit is not None:
            settings["memory_limit"] = memory_limit
        for name, value in settings.items():
            connection.execute(f"SET {name} = {sql_text(value)}")
    except BaseException:
        connection.close()
        raise
    return connection


def sql_text(text: str) -> str:
    """A text as SQL has it.

    >>> sql_text("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"
