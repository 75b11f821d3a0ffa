"""Rows of a quarantine in a file that a person can edit, and back.

For ``xops quarantine export`` and ``release``. CSV for spreadsheets, JSON lines and Parquet for programs; the
suffix decides. These files hold the values of rows: whoever writes one decides who reads them.

CSV does not tell an empty text from a missing one: both come back as missing. Parquet keeps every type.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_mended", "write_rows"]

SUFFIXES = (".csv", ".jsonl", ".parquet")


def write_rows(rows: pa.Table, path: str | Path) -> None:
    """Write ``rows`` to a new file that only its owner may read.

    :raises ArgumentError: ``argument.file``: another suffix, a file that is there already or cannot be made,
        or something that the format cannot hold.
    """
    import pyarrow as pa

    target = Path(path)
    suffix = _suffix(target)
    try:
        target.touch(mode=0o600, exist_ok=False)  # for nobody else's eyes, unless its owner says so
    except FileExistsError:
        raise _unusable(f"{target} is there already", "name another file, or remove it") from None
    except OSError as error:
        raise _unwritable(target, error) from None
    try:
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            pq.write_table(rows, target)
        elif suffix == ".csv":
            import pyarrow.csv as pacsv

            pacsv.write_csv(rows, target)
        else:
            with target.open("w", encoding="utf-8") as file:
                for row in rows.to_pylist():
                    file.write(json.dumps(row, ensure_ascii=False, allow_nan=False, default=_as_json) + "\n")
    except OSError as error:
        target.unlink(missing_ok=True)
        raise _unwritable(target, error) from None
    except (pa.ArrowException, TypeError, ValueError) as error:
        target.unlink(missing_ok=True)
        # The JSON writer's ValueError: there is no NaN and no infinity in JSON.
        number = isinstance(error, ValueError) and not isinstance(error, pa.ArrowException)
        what = "a number (NaN or infinite)" if number else "a column of a type"
        raise _unusable(
            f"there is {what} that {suffix} cannot hold", "write .parquet, which keeps everything"
        ) from None


def read_mended(path: str | Path, schema: pa.Schema) -> pa.Table:
    """The mended rows of a file, with the types of the table.

    :param schema: the table's columns; of ours (``_xops_row`` and so on) the file has those it has.
    :raises ArgumentError: ``argument.file``; :raises SourceError: the file is missing, its columns are not
        the table's, or a value is not of its column's type.
    """

    from airflow_provider_xops.data.column_types import declare, text_of
    from airflow_provider_xops.data.sources import open_source
    from airflow_provider_xops.quality._quarantine_rows import BATCH, RAW_VERSION, REASONS, ROW, SUITE

    source = Path(path)
    _suffix(source)
    reader = open_source(str(source), na_values=("",))
    texts = text_of(declare(schema))
    ours = {ROW: "int64", BATCH: "string", REASONS: "string", RAW_VERSION: "int64", SUITE: "string"}
    named = _columns(source)
    texts.update({name: text for name, text in ours.items() if name in named})
    found: pa.Table = reader.with_schema(texts).reader().read_all()
    return found


def _columns(source: Path) -> set[str]:
    """The names of the file's columns, as far as its beginning tells."""
    suffix = source.suffix.lower()
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return set(pq.read_schema(source).names)
        except pa.ArrowException:
            return set()  # the reader says what is wrong with it
    with source.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        if suffix == ".csv":
            import csv

            return set(next(csv.reader(file), []))
        try:
            row = json.loads(file.readline() or "{}")
        except ValueError:
            return set()
        return set(row) if isinstance(row, dict) else set()


def _as_json(value: Any) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise _unusable(f"{path.name} is no {', '.join(SUFFIXES)}", "name a file of one of these kinds")
    return suffix


def _unwritable(path: Path, error: OSError) -> ArgumentError:
    return _unusable(
        f"{path} cannot be written ({error.strerror or type(error).__name__})",
        "name a file in a folder of yours",
    )


def _unusable(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.file", todo=todo)
