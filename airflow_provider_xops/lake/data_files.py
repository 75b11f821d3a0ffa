"""The data files of a table: their names say what is in them.

For the commit path, the readers and maintenance. A file is called::

    _xops_partition=<partition>/<batch>-<fingerprint>-<digest>-<since>-<part>-<unique>.parquet

``batch`` and ``fingerprint`` are hashes of the batch's id and of what it was made from, ``digest`` the
digest of all rows that the batch has in the partition (in all its parts), ``since`` the first version that
can hold the file. So the active files of *any* version say which batches it holds, made from what, with
which rows: after time travel, a restore or a lost evidence object too, and without reading the history.

A table may have got columns since a file was written. Such a column carries in the table's schema the version
that added it, so ``since`` also says which columns a file has; the others are missing in all of its rows.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from airflow_provider_xops.errors import ArgumentError, LakeError
from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.lake.schema import PARTITION_COLUMN, added_columns
from airflow_provider_xops.lake.storage import LocalStorage

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = [
    "FileSegment",
    "check_partition",
    "files_dataset",
    "files_of",
    "own_schema",
    "parquet_sql",
    "short_batch",
    "short_fingerprint",
    "stream_fingerprint",
    "table_filesystem",
]

_PATH = re.compile(
    rf"{PARTITION_COLUMN}=(?P<partition>[A-Za-z0-9_.~-]+)/(?P<batch>[0-9a-f]{{16}})-(?P<fingerprint>[0-9a-f]{{32}})"
    r"-(?P<digest>[0-9a-f]{64})-(?P<since>[0-9]+)-(?P<part>[0-9]{5})-(?P<unique>[0-9a-f]{8})\.parquet"
)
# Names never need percent-encoding: Delta encodes paths in the log, and a removal whose encoding differs
# removes nothing.
_PLAIN = re.compile(r"[^A-Za-z0-9_.-]")
_ESCAPED = re.compile(r"((?:~[0-9A-F]{2})+)")
MAX_PARTITION_BYTES = 120
# Begins the fingerprints of a stream's batches, so that a file's name says that it is one's. That another
# file's fingerprint begins like it has one chance in 2**48.
_OF_STREAM = "57bea70b57ea"


@dataclass(frozen=True, kw_only=True, order=True)
class FileSegment:
    """One data file. Its order is the canonical order of the table's rows: partition, batch, part.

    :param rows: rows in this file (``digest`` covers all parts of the batch in the partition).
    :param size: bytes.
    :param absent: columns of the table (as it was opened) that came after the file.
    """

    partition: str
    batch16: str
    part: int
    fingerprint32: str
    digest: str
    since: int
    rows: int
    size: int
    unique: str
    absent: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def path(self) -> str:
        """The file's path inside the table."""
        return (
            f"{PARTITION_COLUMN}={_PLAIN.sub(_escape, self.partition)}/"
            f"{self.batch16}-{self.fingerprint32}-{self.digest}-{self.since}-{self.part:05d}-{self.unique}.parquet"
        )

    @property
    def of_stream(self) -> bool:
        """Whether its batch is one of a stream: written once, never replaced, so it may be compacted."""
        return self.fingerprint32.startswith(_OF_STREAM)

    @property
    def key(self) -> tuple[str, str]:
        """(partition, batch): files with the same key are parts of one whole."""
        return self.partition, self.batch16

    def renamed(self) -> FileSegment:
        """The same under a name that nobody else has."""
        return replace(self, unique=uuid.uuid4().hex[:8])


def short_batch(batch_id: str) -> str:
    """16 hexadecimal digits that stand for the batch in file names."""
    return hashlib.sha256(batch_id.encode()).hexdigest()[:16]


def short_fingerprint(fingerprint: str) -> str:
    """32 hexadecimal digits that stand for the input fingerprint in file names."""
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:32]


def stream_fingerprint(fingerprint: str) -> str:
    """The same for a batch of a stream."""
    return _OF_STREAM + short_fingerprint(fingerprint)[len(_OF_STREAM) :]


def check_partition(partition: str) -> str:
    """``partition`` if it can be one.

    :raises ArgumentError: ``argument.partition``: empty, longer than 120 bytes, or with control characters.
    """
    if not isinstance(partition, str):
        raise ArgumentError(
            f"a {type(partition).__name__} cannot be a partition",
            code="argument.partition",
            todo="pass its name as text, such as the business date in ISO form",
        )
    # Asked first: a lone surrogate, which is not printable, has no bytes to escape.
    size = len(_PLAIN.sub(_escape, partition)) if partition.isprintable() else 0
    if not partition or not size or size > MAX_PARTITION_BYTES:
        raise ArgumentError(
            f"{partition[:50]!r} cannot be a partition",
            code="argument.partition",
            why="it is empty"
            if not partition
            else f"it takes {size} bytes of {MAX_PARTITION_BYTES}"
            if size
            else "it is not printable",
            todo="use a short printable name, such as the business date",
        )
    return partition


def files_of(handle: Any, *, table: str) -> list[FileSegment]:
    """The active files of an open table version, in canonical order.

    :raises LakeError: ``lake.foreign_file``: another program wrote to the table.
    """
    added = added_columns(pa.schema(handle.schema().to_arrow()))
    actions = pa.table(handle.get_add_actions()).select(["path", "size_bytes", "num_records"])
    files = []
    for path, size, rows in zip(*(actions.column(index).to_pylist() for index in range(3)), strict=True):
        match = _PATH.fullmatch(path)
        if match is None or rows is None:
            raise LakeError(
                f"table {table} holds a file that was not committed through this package: {path}",
                code="lake.foreign_file",
                why="another program wrote to the table or rewrote its files",
                todo="restore the version before that, or load the data again into a new table",
            )
        files.append(
            FileSegment(
                partition=_ESCAPED.sub(_unescape, match["partition"]),
                batch16=match["batch"],
                part=int(match["part"]),
                fingerprint32=match["fingerprint"],
                digest=match["digest"],
                since=int(match["since"]),
                rows=rows,
                size=size,
                unique=match["unique"],
                absent=frozenset(name for name, version in added.items() if int(match["since"]) <= version),
            )
        )
    return sorted(files, key=lambda file: (file.partition, file.batch16, file.part))


def own_schema(schema: pa.Schema, file: FileSegment) -> pa.Schema:
    """The columns of ``schema`` that ``file`` has: what the digest in its name is over."""
    return pa.schema([each for each in schema if each.name not in file.absent])


def parquet_sql(schema: pa.Schema, files: Sequence[FileSegment], paths: Sequence[str]) -> str:
    """A query for DuckDB that gives the rows of (at least one of) ``files``, in their order.

    :param schema: the table's columns; what a file does not have is missing in its rows.
    :param paths: where DuckDB finds each of ``files``.
    """
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    absent = [file.absent for file in files]
    if not any(absent):
        return f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false)"
    nowhere = frozenset.intersection(*absent)
    columns = [
        f"CAST(NULL AS {_duckdb_type(each)}) AS {_quoted(each.name)}"
        if each.name in nowhere
        else _quoted(each.name)
        for each in schema
    ]
    by_name = "true" if any(one != nowhere for one in absent) else "false"
    return (
        f"SELECT {', '.join(columns)} FROM read_parquet([{listed}], hive_partitioning = false,"
        f" union_by_name = {by_name})"
    )


def table_filesystem(lake: Lake, table: str) -> pafs.FileSystem:
    """Arrow's view of the folder of ``table``."""
    if isinstance(lake.storage, LocalStorage):
        # Arrow's own file system reads local files in parallel and without going through Python.
        return pafs.SubTreeFileSystem(lake.storage.table_uri(table), pafs.LocalFileSystem())
    from deltalake.fs import DeltaStorageHandler

    return pafs.PyFileSystem(DeltaStorageHandler(lake.storage.table_uri(table), lake.storage.delta_options()))


def files_dataset(
    lake: Lake, table: str, schema: pa.Schema, files: Sequence[FileSegment]
) -> pads.FileSystemDataset:
    """An Arrow dataset over ``files``, read in their order; ``schema`` may have the partition column."""
    filesystem = table_filesystem(lake, table)
    format_ = pads.ParquetFileFormat(
        default_fragment_scan_options=pads.ParquetFragmentScanOptions(pre_buffer=True)
    )
    fragments = [
        format_.make_fragment(
            file.path,
            filesystem=filesystem,
            partition_expression=pads.field(PARTITION_COLUMN) == file.partition,
        )
        for file in files
    ]
    return pads.FileSystemDataset(fragments, schema, format_, filesystem)


def _duckdb_type(column: pa.Field) -> str:
    with open_box() as connection:
        return str(connection.from_arrow(pa.schema([column]).empty_table()).types[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _escape(match: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in match.group().encode())


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match.group().replace("~", "")).decode()
