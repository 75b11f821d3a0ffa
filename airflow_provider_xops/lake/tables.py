"""Tables of the lake: their names, how they are opened, which version is the head.

For every room that reads or writes a table. A table is a Delta table in ``<lake>/<name>`` with the user's
columns and one partition column; its write mode and keys are fixed when it is made and kept in its
description. Beside ``<name>`` stand the tables of its data on their way: ``<name>__raw`` (as they arrived),
``<name>__accepted`` and ``<name>__quarantine`` (what a suite let through of them, and what it did not) and
``<name>__released`` (rows that people mended). Whoever means one of these says so (``allow_raw=True``).

A table may also be *adopted*: an existing Delta table that stays where it is and is only read.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from airflow_provider_xops.errors import ArgumentError, DataError, LakeError, NotFoundError
from airflow_provider_xops.lake._delta import delta_errors
from airflow_provider_xops.lake.data_files import FileSegment, files_of
from airflow_provider_xops.lake.schema import PARTITION_COLUMN, to_delta_schema
from airflow_provider_xops.records import Actor, DatasetRef, WriteMode

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = [
    "ACCEPTED_SUFFIX",
    "QUARANTINE_SUFFIX",
    "RAW_SUFFIX",
    "RELEASED_SUFFIX",
    "WAY_SUFFIXES",
    "FileSegment",
    "TableInfo",
    "base_name",
    "check_table_name",
    "ensure_table",
    "head",
    "list_tables",
    "open_table",
    "ref_of",
    "resolve_ref",
    "segments_of",
    "table_exists",
    "table_info",
    "table_schema",
]

log = logging.getLogger(__name__)

RAW_SUFFIX = "__raw"
ACCEPTED_SUFFIX = "__accepted"
QUARANTINE_SUFFIX = "__quarantine"
RELEASED_SUFFIX = "__released"
# Of tables that hold data on their way to a published one.
WAY_SUFFIXES = (RAW_SUFFIX, ACCEPTED_SUFFIX, QUARANTINE_SUFFIX, RELEASED_SUFFIX)
ADOPTED = "_xops/adopted"

# Commit metadata are evidence: Delta Lake's default would delete them after thirty days.
TABLE_PROPERTIES = {"delta.enableExpiredLogCleanup": "false"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_FIRST_COMMIT = re.compile(r"([^/]+)/_delta_log/0{20}\.json")


@dataclass(frozen=True, kw_only=True)
class TableInfo:
    """What was fixed when the table was made. ``keys`` are the columns that identify a row (may be empty)."""

    mode: WriteMode
    keys: tuple[str, ...]

    def to_description(self) -> str:
        """The Delta table's description (custom properties are refused when a table is made)."""
        return json.dumps({"xops": {"layout": 1, "mode": self.mode.value, "keys": list(self.keys)}})


def check_table_name(table: str) -> str:
    """``table`` if it can be the name of one.

    :raises ArgumentError: ``argument.table``.

    >>> check_table_name("flights__raw")
    'flights__raw'
    """
    if not isinstance(table, str) or not _NAME.fullmatch(table) or table.endswith("."):
        raise ArgumentError(
            f"{str(table)[:80]!r} cannot be the name of a table",
            code="argument.table",
            todo="use letters, digits, '_', '-' and '.', beginning with a letter or digit",
        )
    return table


def base_name(table: str) -> str:
    """The published table that ``table`` is, or holds data on their way to.

    >>> base_name("flights__quarantine"), base_name("flights")
    ('flights', 'flights')
    """
    suffix = next((suffix for suffix in WAY_SUFFIXES if table.endswith(suffix)), "")
    return table.removesuffix(suffix)


def open_table(lake: Lake, table: str, version: int | None = None) -> DeltaTable:
    """A deltalake handle on ``table`` (adopted ones too), at its head or at ``version``.

    :raises NotFoundError: ``not_found.table``, ``not_found.version``.
    :raises UnavailableError: ``unavailable.storage``.
    """
    handle = own_table(lake, table, version)
    if handle is None:
        adopted = adopted_uri(lake, table)
        handle = _open(lake, adopted, table, version) if adopted else None
    if handle is None:
        raise NotFoundError(
            f"there is no table {table} in the lake at {lake.uri}",
            code="not_found.table",
            todo="load it first, or correct the name",
            context={"table": table},
        )
    return handle


def own_table(lake: Lake, table: str, version: int | None = None) -> DeltaTable | None:
    """Like :func:`open_table`, but None if the lake has no such table of its own (it may be adopted)."""
    check_table_name(table)
    return _open(lake, lake.storage.table_uri(table), table, version)


def table_exists(lake: Lake, table: str) -> bool:
    """Whether ``table`` was ever committed to, or adopted."""
    try:
        open_table(lake, table)
    except NotFoundError:
        return False
    return True


def table_info(handle: Any) -> TableInfo | None:
    """Mode and keys of an open table; None if another program made it."""
    try:
        data = json.loads(handle.metadata().description or "")["xops"]
        return TableInfo(mode=WriteMode(data["mode"]), keys=tuple(data["keys"]))
    except (ValueError, KeyError, TypeError):
        return None


def table_schema(handle: Any) -> pa.Schema:
    """The user's columns of an open table, as canonical types."""
    schema = pa.schema(handle.schema().to_arrow())
    return to_delta_schema(pa.schema([field for field in schema if field.name != PARTITION_COLUMN]))


def segments_of(handle: Any) -> list[FileSegment]:
    """The files of an open table version in canonical order (partition, batch, part)."""
    return files_of(handle, table=handle.metadata().name or "")


def ref_of(lake: Lake, table: str, handle: Any) -> DatasetRef:
    """The identity of the version that ``handle`` has open."""
    return DatasetRef(
        lake_id=lake.lake_id, table=table, table_uuid=str(handle.metadata().id), version=handle.version()
    )


def head(lake: Lake, table: str) -> DatasetRef:
    """The newest version of ``table``.

    :raises NotFoundError: there is no such table.
    """
    return ref_of(lake, table, open_table(lake, table))


def resolve_ref(lake: Lake, table: str, version: int | None = None, *, allow_raw: bool = False) -> DatasetRef:
    """The identity of ``table`` at ``version``, or at its head.

    :param allow_raw: the caller means data on their way, which nothing has let through to consumers.
    :raises ArgumentError: ``argument.raw_table``: a table of such data without saying so.
    :raises NotFoundError: no such table or version.
    """
    if table.endswith(WAY_SUFFIXES) and not allow_raw:
        what = "were not validated" if table.endswith(RAW_SUFFIX) else "are on their way to a published table"
        raise ArgumentError(
            f"{table} holds data that {what}",
            code="argument.raw_table",
            why="flows read published tables",
            todo=f"read {base_name(table)}, or ask for raw data explicitly",
        )
    return ref_of(lake, table, open_table(lake, table, version))


def ensure_table(
    lake: Lake, table: str, schema: pa.Schema, *, mode: WriteMode, keys: Sequence[str] = (), actor: Actor
) -> DeltaTable:
    """A handle on ``table``, made empty (version 0) if it is not there.

    :func:`~airflow_provider_xops.lake.commit.commit` does not need it: its first commit makes the table.

    :raises DataError: ``data.mode_mismatch``: it exists with another mode or other keys.
    """
    check_table_name(table)
    lake.storage.check_writable()
    info = TableInfo(mode=WriteMode(mode), keys=tuple(keys))
    full = with_partition_column(to_delta_schema(schema))
    with delta_errors(f"cannot open table {table}"):
        try:
            DeltaTable.create(
                lake.storage.table_uri(table),
                full,
                mode="error",
                partition_by=[PARTITION_COLUMN],
                name=table,
                description=info.to_description(),
                configuration=TABLE_PROPERTIES,
                storage_options=lake.storage.delta_options(),
                # A retry would make the table a second time, on top of another writer's.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
            log.info("Made table %s (%s) for %s.", table, info.mode.value, actor.producer.id)
        except DeltaError:
            if _open(lake, lake.storage.table_uri(table), table, None) is None:
                raise
    handle = open_table(lake, table)
    check_info(handle, table, mode=info.mode, keys=info.keys)
    return handle


def list_tables(lake: Lake) -> list[str]:
    """Names of all tables, adopted ones too, sorted. Walks the whole lake: for people, not for tasks."""
    names = {match[1] for path in lake.storage.list("") if (match := _FIRST_COMMIT.fullmatch(path))}
    names |= {path.rpartition("/")[2].removesuffix(".json") for path in lake.storage.list(f"{ADOPTED}/")}
    return sorted(name for name in names if _NAME.fullmatch(name))


def adopted_path(table: str) -> str:
    """Where the lake keeps the address of an adopted table."""
    return f"{ADOPTED}/{table}.json"


def adopted_uri(lake: Lake, table: str) -> str | None:
    """The address of an adopted table; None if ``table`` is not one. Inside the lake it is kept relative."""
    raw = lake.storage.get(adopted_path(table))
    if raw is None:
        return None
    uri = str(json.loads(raw)["uri"])
    return uri if "://" in uri or uri.startswith("/") else f"{lake.uri}/{uri}"


def check_info(handle: Any, table: str, *, mode: WriteMode, keys: tuple[str, ...]) -> TableInfo:
    """The table's mode and keys, if a writer with ``mode`` and ``keys`` (empty: the table's) may write.

    :raises LakeError: ``lake.foreign_table``: another program made it.
    :raises DataError: ``data.mode_mismatch``.
    """
    info = table_info(handle)
    if info is None:
        raise LakeError(
            f"table {table} was not made by this package",
            code="lake.foreign_table",
            why="only adopted tables of other programs can be used, and only for reading",
            todo="adopt it to read it, and write to a table of another name",
        )
    if info.mode is not mode or (keys and info.keys != keys):
        raise DataError(
            f"table {table} was made with mode {info.mode.value} and keys {list(info.keys)},"
            f" this write has mode {mode.value} and keys {list(keys)}",
            code="data.mode_mismatch",
            why="both are fixed when a table is made",
            todo="write with the table's own, or to a new table",
        )
    return info


def with_partition_column(schema: pa.Schema) -> pa.Schema:
    """``schema`` as the Delta table has it."""
    return schema.append(pa.field(PARTITION_COLUMN, pa.string()))


def _open(lake: Lake, uri: str, table: str, version: int | None) -> DeltaTable | None:
    options = lake.storage.delta_options()
    with delta_errors(f"cannot open table {table}"):
        try:
            return DeltaTable(uri, version=version, storage_options=options)
        except TableNotFoundError:
            if version is None:
                return None
        except DeltaError:
            if version is None:
                raise
        # A version was asked for: is it the version that is missing, or the table?
        newest = _open(lake, uri, table, None)
        if newest is None:
            return None
        raise NotFoundError(
            f"table {table} has no version {version}",
            code="not_found.version",
            why=f"its newest is {newest.version()}"
            if version > newest.version()
            else "its history was removed",
            todo="name a version that exists",
            context={"table": table, "version": version},
        )
