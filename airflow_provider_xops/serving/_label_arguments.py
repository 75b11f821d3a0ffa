"""What a join of labels is asked for: checked before anything is read, and put into an order.

Private to :mod:`airflow_provider_xops.serving.labels`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from airflow_provider_xops.errors import ArgumentError, DataError, NotFoundError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import type_name
from airflow_provider_xops.lake.tables import open_table, own_table, table_schema
from airflow_provider_xops.records import DatasetRef

__all__ = [
    "BY_PARTITION", "LABEL_PARTITION", "PREDICTION_ID", "check_arguments", "chosen", "fence_of", "label_of",
]  # fmt: skip

PREDICTION_ID = "prediction_id"
LABEL_PARTITION = "label_partition"
BY_PARTITION = "partition"
# How the fence's whole number is divided: a second of the younger table's age, of these a version of the
# labels, of these a version of the predictions (a server's log has a new one every few seconds).
_PER_SECOND, _PER_LABELS_VERSION = 2_000_000_000, 2_000_000


def label_of(names: Sequence[str]) -> str:
    """What the label is called: it is the column before its partition, whatever columns came later."""
    return names[list(names).index(LABEL_PARTITION) - 1]


def fence_of(lake: Lake, labels: DatasetRef, predictions: DatasetRef) -> int:
    """The place of a join in the order of all joins: by the labels' version, then by the predictions'.

    A table that was made anew comes after all versions of the one before.
    """
    made = [
        int(open_table(lake, ref.table, ref.version).metadata().created_time or 0)
        for ref in (labels, predictions)
    ]
    return max(made) // 1000 * _PER_SECOND + labels.version * _PER_LABELS_VERSION + predictions.version


def chosen(lake: Lake, predictions: DatasetRef, partitions: Sequence[str] | None) -> dict[str, str]:
    there = read.partition_digests(lake, predictions)
    wanted = sorted(there) if partitions is None else list(dict.fromkeys(partitions))
    missing = [name for name in wanted if name not in there]
    if missing or not wanted:
        raise NotFoundError(
            f"{predictions} has no partition {', '.join(missing[:5])}" if missing
            else f"{predictions} has no partition to give labels to",
            code="not_found.partition", why=f"it has {len(there)} partitions",
            todo="score it first, or name another",
        )  # fmt: skip
    return {name: there[name] for name in wanted}


def check_arguments(
    lake: Lake, predictions: DatasetRef, labels: DatasetRef, schemas: tuple[pa.Schema, pa.Schema], *,
    on: Sequence[str], label_column: str, newest_by: str | None, label_as: str, output_table: str,
) -> None:  # fmt: skip
    if output_table in (predictions.table, labels.table):
        raise ArgumentError(
            f"labeled predictions cannot go into {output_table}, which they are made from",
            code="argument.output_table", todo="name another table",
        )  # fmt: skip
    made, known = schemas
    if not on or len(set(on)) < len(on):
        raise _keys("no key, or one twice, is given to join labels by", "name prediction_id, or kept columns")
    for ref, schema, wanted in ((predictions, made, (PREDICTION_ID, *on)), (labels, known, on)):
        missing = [name for name in wanted if name not in schema.names]
        if missing:
            raise _keys(
                f"{ref} has no column {', '.join(missing)} to join labels by",
                "keep the keys beside the predictions when scoring (keep_columns), or name others",
            )
    if label_column not in known.names or label_column in on:
        raise ArgumentError(
            f"{labels} has no label {label_column!r}", code="argument.label_column",
            todo=f"name one of {', '.join(name for name in known.names if name not in on)}",
        )  # fmt: skip
    if newest_by not in (None, BY_PARTITION) and newest_by not in known.names:
        raise ArgumentError(
            f"{labels} has no column {newest_by!r} that says which label is the newest",
            code="argument.newest_by", todo=f"name a column of it, or {BY_PARTITION}",
        )  # fmt: skip
    if label_as in made.names or label_as == LABEL_PARTITION or LABEL_PARTITION in made.names:
        raise ArgumentError(
            f"the predictions have a column {label_as if label_as in made.names else LABEL_PARTITION!r}"
            " already",
            code="argument.label_as", todo="call the label something else (label_as)",
        )  # fmt: skip
    held = own_table(lake, output_table)
    names = [] if held is None else table_schema(held).names
    if held is not None and (LABEL_PARTITION not in names or label_of(names) != label_as):
        raise ArgumentError(
            f"{output_table} does not hold labeled predictions whose label is called {label_as!r}",
            code="argument.label_as", todo="name another table, or call the label what it is called there",
        )  # fmt: skip
    for name in on:
        kinds = made.field(name).type, known.field(name).type
        if not _comparable(*kinds):
            raise DataError(
                f"the key {name!r} is {type_name(kinds[0])} in {predictions} and {type_name(kinds[1])} in"
                f" {labels}",
                code="data.key_type", why="values of these types are never the same",
                todo="cast one of them",
            )  # fmt: skip


def _comparable(one: pa.DataType, other: pa.DataType) -> bool:
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        return True
    return one.equals(other) and not pa.types.is_nested(one)


def _keys(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.join_keys", todo=todo)
