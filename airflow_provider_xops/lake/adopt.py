"""Taking an existing Delta table into the lake as it is: read, digested, recorded, never copied or changed.

For whoever has data in Delta Lake already. The lake keeps the table's address under ``_xops/adopted/``; its
name then works wherever a table is read. Training on it, validating it and tracing it work as for the
lake's own tables; writing to it is left to the program that owns it.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import TYPE_CHECKING

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from airflow_provider_xops.errors import ArgumentError, ConflictError, NotFoundError
from airflow_provider_xops.lake._delta import delta_errors
from airflow_provider_xops.lake.digest import table_digest, version_digest
from airflow_provider_xops.lake.history import stored_record
from airflow_provider_xops.lake.read import WHOLE, adopted_dataset, count_rows, scan
from airflow_provider_xops.lake.schema import PARTITION_COLUMN
from airflow_provider_xops.lake.storage import LocalStorage
from airflow_provider_xops.lake.tables import (
    WAY_SUFFIXES,
    adopted_path,
    adopted_uri,
    check_table_name,
    head,
    own_table,
    table_info,
    table_schema,
)
from airflow_provider_xops.records import Actor, DatasetVersion, WriteMode
from airflow_provider_xops.settings import without_userinfo

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = ["adopt_table"]

log = logging.getLogger(__name__)


def adopt_table(lake: Lake, uri_or_name: str, *, table: str, actor: Actor, as_of: datetime) -> DatasetVersion:
    """Register the Delta table at ``uri_or_name`` as ``table`` of the lake, and record its present version.

    :param uri_or_name: a folder inside the lake, or the address of a table on storage that the lake's
        credentials reach.
    :param table: the name it gets. Adopting it again under that name records the version it has then.
    :param as_of: the time to record (UTC).
    :raises NotFoundError: ``not_found.table``: there is no Delta table.
    :raises ArgumentError: the name is taken by another table, or the table is the lake's own.
    :raises DataError: its columns have types the lake cannot digest (naive timestamps, for example).

    >>> adopt_table(lake, "s3://warehouse/orders", table="orders", actor=actor, as_of=as_of)  # doctest: +SKIP

    It reads every row once, for the digest. Deletion vectors and column mapping cannot be read
    (``lake.unsupported_features``). Versions that the owner vacuums away are gone, whatever was trained on
    them.
    """
    check_table_name(table)
    if table.endswith(WAY_SUFFIXES):
        raise ArgumentError(
            f"an adopted table cannot be called {table}",
            code="argument.table",
            why=f"{', '.join(WAY_SUFFIXES)} are for data on their way to a published table",
            todo="choose another name",
        )
    uri = _relative(lake, uri_or_name)
    uuid = _uuid_at(lake, uri, table)
    own = own_table(lake, table)
    if own is not None and (table_info(own) is not None or str(own.metadata().id) != uuid):
        raise ArgumentError(
            f"the lake has a table {table} of its own", code="argument.table", todo="choose another name"
        )
    content = json.dumps(
        {"uri": uri, "table_uuid": uuid, "adopted_by": actor.producer.id, "adopted_at": as_of.isoformat()}
    )
    if lake.storage.put_if_absent(adopted_path(table), content.encode()):
        log.info("Adopted the Delta table at %s as %s.", uri, table)
    elif adopted_uri(lake, table) != _address(lake, uri):
        raise ConflictError(
            f"the name {table} was given to another adopted table",
            code="conflict.adopted",
            retryable=False,
            why=f"it is at {adopted_uri(lake, table)}",
            todo="choose another name",
        )
    return _record(lake, table, actor, as_of)


def _address(lake: Lake, uri: str) -> str:
    """The full address of what ``_xops/adopted`` calls ``uri``."""
    return uri if "://" in uri or uri.startswith("/") else f"{lake.uri}/{uri}"


def _record(lake: Lake, table: str, actor: Actor, as_of: datetime) -> DatasetVersion:
    ref = head(lake, table)
    known = stored_record(lake, ref)
    if known is not None:
        return known
    digest, rows = table_digest(scan(lake, ref)), count_rows(lake, ref)
    record = DatasetVersion(
        lake_id=ref.lake_id,
        table=table,
        table_uuid=ref.table_uuid,
        version=ref.version,
        mode=WriteMode.REPLACE,
        partitions=(WHOLE,),
        partition_digests=(digest,),
        batch_ids=(f"adopted:{ref.table_uuid}@{ref.version}",),
        digest=version_digest({WHOLE: digest}),
        input_fingerprint=f"adopted:{digest}",
        rows=rows,
        total_rows=rows,
        note="adopted in place",
        recorded_at=as_of,
        produced_by=actor.producer,
    )
    lake.evidence.put(record)
    log.info("Recorded %s: %d rows.", ref, rows)
    return record


def _relative(lake: Lake, uri_or_name: str) -> str:
    """The address as it is kept: relative inside the lake, so that the lake can move."""
    uri = uri_or_name.rstrip("/")
    if uri.startswith("file://") and isinstance(lake.storage, LocalStorage):
        uri = uri.removeprefix("file://")
    if "://" in uri and without_userinfo(uri) != uri:
        raise ArgumentError(
            f"the address {without_userinfo(uri)} carries credentials",
            code="argument.uri_credentials",
            todo="move them into the storage options of the lake",
        )
    if not uri:
        raise ArgumentError("no table to adopt", code="argument.empty", todo="pass its address")
    return uri.removeprefix(f"{lake.uri}/")


def _uuid_at(lake: Lake, uri: str, table: str) -> str:
    address = _address(lake, uri)
    with delta_errors(f"cannot open the table at {address}"):
        try:
            handle = DeltaTable(address, storage_options=lake.storage.delta_options())
        except TableNotFoundError:
            raise NotFoundError(
                f"there is no Delta table at {address}", code="not_found.table", todo="correct the address"
            ) from None
    if PARTITION_COLUMN in handle.schema().to_arrow().names:
        raise ArgumentError(
            f"the table at {address} belongs to a lake already",
            code="argument.adopt",
            why=f"it has the column {PARTITION_COLUMN}",
            todo="read it through the lake that made it",
        )
    table_schema(handle)  # types and features that cannot be read are refused before the name is given away
    adopted_dataset(handle, table=table)
    return str(handle.metadata().id)
