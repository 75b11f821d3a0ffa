"""Dataset arguments of operators: which version, which partitions.

For the operators. A dataset is named by what another task returned, by a record id, or as ``TABLE`` (its
head) or ``TABLE@VERSION``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.operators._arguments import is_empty, list_of, mapping_of
from airflow_provider_xops.operators._base import resolved
from airflow_provider_xops.operators._events import parse_version, triggering_versions

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = [
    "NamedDataset",
    "asked_for",
    "dataset_of",
    "dataset_or_trigger",
    "empty_partition",
    "partitions_of",
]

# A task's output repeats which partitions it was asked for; a longer list is found in the record instead.
_ASKED_LIMIT = 4096
_TABLE = re.compile(r"[A-Za-z_]\w*(@\d+)?")
_RECORD_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class NamedDataset:
    """A dataset version, and the partitions that the one who named it meant (None: all)."""

    ref: records.DatasetRef
    partitions: tuple[str, ...] | None
    record_id: str | None = None


def dataset_of(lake: Lake, given: Any, *, argument: str, allow_raw: bool = False) -> NamedDataset:
    """The dataset version an argument names.

    A task's output means the partitions that the task was asked for, also those it found already done.

    :param allow_raw: whether a table name may be a raw table's.
    :raises ArgumentError: nothing was given, or it names no dataset; :raises NotFoundError: there is none.
    """
    if is_empty(given):
        raise ArgumentError(
            f"{argument} is empty",
            code="argument.empty",
            why="its template rendered to nothing, or the task it comes from was skipped",
            todo="pass the output of a task that writes a dataset, a table's name, or TABLE@VERSION",
        )
    if isinstance(given, str) and _TABLE.fullmatch(given.strip()) and not _RECORD_ID.fullmatch(given.strip()):
        from airflow_provider_xops.lake.tables import resolve_ref

        table, version = given.strip(), None
        if "@" in table:
            named, version = parse_version(table, what=argument)
            table = named or table
        return NamedDataset(resolve_ref(lake, table, version=version, allow_raw=allow_raw), None)
    record = resolved(lake, given, records.DatasetVersion.kind, argument=argument)
    assert isinstance(record, records.DatasetVersion)
    # A template makes text of a task's output; what it was asked for is in that text too.
    told = mapping_of(given, argument=argument) if _is_output(given) else {}
    asked = told.get("partition")
    return NamedDataset(record.ref, partitions_of(asked) or record.partitions, record.record_id)


def dataset_or_trigger(
    context: Context, lake: Lake, *, dataset: Any, given: bool, table: Any
) -> list[NamedDataset]:
    """The dataset an operator works on: the one given, else what started the run.

    :param given: whether the author gave a dataset: one that renders to nothing must not turn into the head.
    """
    if given:
        return [dataset_of(lake, dataset, argument="dataset")]
    found = triggering_versions(context, lake=lake, table=None if is_empty(table) else str(table))
    return [NamedDataset(version.ref, version.partitions) for version in found]


def partitions_of(given: Any) -> tuple[str, ...] | None:
    """Partition names from a name, a range (``2013-01-01..2013-01-31``) or a list; None for nothing."""
    names = list_of(given, argument="partition")
    if names is None:
        return None
    from airflow_provider_xops.data.ingest import expand_partitions

    return tuple(expand_partitions([str(name) for name in names]))


def empty_partition(what: str) -> ArgumentError:
    """The error where an author named partitions and the template rendered to nothing."""
    return ArgumentError(
        f"{what} is empty", code="argument.empty", why="its template rendered to nothing",
        todo="look at the task's rendered templates",
    )  # fmt: skip


def asked_for(partition: Any) -> dict[str, Any]:
    """What a task's output repeats of its ``partition``, so that the next task means the same ones."""
    names = list_of(partition, argument="partition")
    if names is None:
        return {}
    spec = str(names[0]) if len(names) == 1 else [str(name) for name in names]
    return {"partition": spec} if len(str(spec)) <= _ASKED_LIMIT else {}


def _is_output(given: Any) -> bool:
    return isinstance(given, Mapping) or (isinstance(given, str) and given.strip().startswith("{"))
