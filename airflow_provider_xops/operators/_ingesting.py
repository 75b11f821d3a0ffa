"""The operator that brings data from outside into the lake: files, databases, HTTP APIs, growing folders.

For :mod:`airflow_provider_xops.operators.data`, its public place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.operators._arguments import is_empty, list_of, mapping_of, one_of, optional
from airflow_provider_xops.operators._base import XOpsOperator, actor_of, now
from airflow_provider_xops.operators._datasets import asked_for, empty_partition, partitions_of
from airflow_provider_xops.operators._sources import DECLARED, load_declared, no_filesystem
from airflow_provider_xops.operators.sources import HttpSource, PrefixSource, SqlSource
from airflow_provider_xops.version_compat import AirflowSkipException, object_storage_path

if TYPE_CHECKING:
    from airflow_provider_xops.data._spooling import Ingested
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = [
    "IngestDatasetOperator",
    "opener",
    "optional_mapping",
    "partitions_to_write",
    "sources_by_partition",
    "write_mode",
]

# The partition of a table that has none.
WHOLE = "all"


class IngestDatasetOperator(XOpsOperator):
    """Brings files, database rows, API records or new files of a folder into ``<table>__raw``, once.

    The same input is never committed twice; changed input replaces what it wrote before. Input without rows
    is no failure: its partition becomes empty.

    :param table: the table; its raw data are in ``<table>__raw``.
    :param source: a path or URI of CSV, JSON lines or Parquet, or several; ``{partition}`` in it becomes the
        partition's name. Local files, ``file://``, and whatever Airflow's ``ObjectStoragePath`` opens
        (``s3://``, ``gs://``, ...). Or a :class:`~airflow_provider_xops.operators.sources.SqlSource`,
        ``HttpSource`` or ``PrefixSource``, whose docstrings say what ``partition`` means to them.
    :param partition: one name, a range of days (``2013-01-01..2013-03-31``, both included) or a list; None:
        the table has no partitions.
    :param schema: column types, such as ``{"flight": "int64", "time_hour": "timestamp[America/New_York]"}``;
        None: as recorded with the table, and at the first load inferred from all rows (or told by the
        database).
    :param format: of files: ``csv``, ``jsonl`` or ``parquet``; None: by the file's suffix.
    :param delimiter: of CSV; None: a comma (a tab for ``.tsv``).
    :param na_values: texts of CSV that mean "no value".
    :param mode: ``replace`` (the partition), ``append`` or ``merge``; fixed by the first load.
    :param keys: columns that identify a row; ``merge`` needs them.
    :param batch_id: in ``append`` and ``merge`` mode, what the batch is called; None: a digest of what it is
        made from (names and checksums of files, or rows), so that a corrected file is another batch. A
        watermark and a ``PrefixSource`` name their batches themselves.
    :param on_schema_change: of files, what happens when their columns are not the table's: ``{"added":
        "evolve" | "ignore" | "fail", "removed": "fill_null" | "fail"}``; None: they are refused.
    :param on_nothing: when there is nothing new: ``continue`` (the default) succeeds with the version that
        holds the data and emits no asset event; ``skip`` skips the task and what follows. Where there is no
        version at all yet, the task is skipped either way. A retry of the task that did the work always
        succeeds.
    :param source_conn_id: the Airflow connection that opens a remote file; None: the scheme's default.
    :raises SourceError: a source is missing, truncated, of other columns or types, or not text (no retry).
    :raises UnavailableError: the storage, database or API did not answer (retried).

    Returns the record of the dataset version, with ``reused`` and the ``partition`` asked for.

    Example::

        IngestDatasetOperator(
            task_id="ingest",
            table="flights",
            source="s3://landing/flights/{partition}.csv",
            partition="{{ params.day }}",
            schema={"flight": "int64", "carrier": "string"},
        )

    What it does not do: it validates nothing, deletes nothing at the source, and never touches the published
    table.
    """

    required = ("table", "source")
    template_fields = (
        *XOpsOperator.template_fields,
        "table",
        "source",
        "partition",
        "schema",
        "format",
        "delimiter",
        "mode",
        "keys",
        "batch_id",
        "on_schema_change",
        "on_nothing",
        "source_conn_id",
    )
    operator_extra_links = (EvidenceLink(),)

    def __init__(
        self,
        *,
        table: str,
        source: str | Sequence[str] | SqlSource | HttpSource | PrefixSource,
        partition: str | Sequence[str] | None = None,
        schema: Mapping[str, str] | None = None,
        format: str | None = None,
        delimiter: str | None = None,
        na_values: Sequence[str] = ("", "NA"),
        mode: str = "replace",
        keys: Sequence[str] = (),
        batch_id: str | None = None,
        on_schema_change: Mapping[str, str] | None = None,
        on_nothing: str = "continue",
        source_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.source = source
        self.partition = partition
        self._partitioned = partition is not None
        self.schema = schema
        self.format = format
        self.delimiter = delimiter
        self.na_values = na_values
        self.mode = mode
        self.keys = keys
        self.batch_id = batch_id
        self.on_schema_change = on_schema_change
        self.on_nothing = on_nothing
        self.source_conn_id = source_conn_id

    def perform(self, context: Context) -> dict[str, Any]:
        on_nothing = one_of(self.on_nothing, ("continue", "skip"), argument="on_nothing")
        lake, actor = self.lake(), actor_of(context)
        found = self._load(lake, actor)
        if found.record is None:
            raise AirflowSkipException(f"The source of table {self.table} has nothing yet.")
        if found.reused and on_nothing == "skip" and found.record.produced_by.id != actor.producer.id:
            raise AirflowSkipException(f"There is nothing new for table {self.table}.")
        more = {**asked_for(self.partition), **found.notes}
        return self.hand_over(context, lake, found.record, reused=found.reused, **more)

    def _load(self, lake: Lake, actor: records.Actor) -> Ingested:
        from airflow_provider_xops.data._spooling import Ingested
        from airflow_provider_xops.data.ingest import ingest

        partitions = partitions_to_write(self.partition, given=self._partitioned)
        options: dict[str, Any] = {
            "mode": write_mode(self.mode),
            "keys": list_of(self.keys, argument="keys") or (),
            "schema": optional_mapping(self.schema, argument="schema"),
            "format": optional(self.format),
            "delimiter": optional(self.delimiter),
            "na_values": self.na_values,
            "batch_id": optional(self.batch_id),
            "on_schema_change": optional_mapping(self.on_schema_change, argument="on_schema_change"),
            "actor": actor,
            "as_of": now(),
        }
        conn_id = optional(self.source_conn_id)
        if isinstance(self.source, DECLARED):
            options |= {"table": self.table, "partitions": partitions, "source_conn_id": conn_id}
            return load_declared(lake, self.source, **options)
        sources = sources_by_partition(self.source, partitions)
        open_file = opener(conn_id)
        result = ingest(lake, self.table, sources, open_file=open_file, **options)
        return Ingested(record=result.record, reused=result.reused, notes={})


def sources_by_partition(source: str | Sequence[str], partitions: Sequence[str]) -> dict[str, list[str]]:
    """The source URIs of each partition: ``{partition}`` replaced by its name.

    :raises ArgumentError: several partitions would read the same files, or a URI rendered to nothing.

    >>> sources_by_partition("/landing/{partition}.csv", ["2013-01-01", "2013-01-02"])
    {'2013-01-01': ['/landing/2013-01-01.csv'], '2013-01-02': ['/landing/2013-01-02.csv']}
    """
    uris = list_of(source, argument="source") or []
    if len(partitions) > 1 and not any("{partition}" in uri for uri in uris):
        raise ArgumentError(
            f"{len(partitions)} partitions would be read from the same files", code="argument.source",
            todo="write {partition} where the partition's name belongs in the source",
        )  # fmt: skip
    return {name: [uri.replace("{partition}", name) for uri in uris] for name in partitions}


def opener(conn_id: str | None) -> Callable[[str], BinaryIO]:
    """Opens what is not a local file, through Airflow's object storage and its connections."""

    def open_file(uri: str) -> BinaryIO:
        try:
            opened: BinaryIO = object_storage_path(uri, conn_id=conn_id).open("rb")
        except ValueError:  # no filesystem is registered for the scheme
            raise no_filesystem(uri) from None
        return opened

    return open_file


def write_mode(given: Any) -> records.WriteMode:
    """:raises ArgumentError: it is none of replace, append, merge."""
    try:
        return records.WriteMode(str(given))
    except ValueError:
        raise ArgumentError(
            f"mode is {str(given)[:80]!r}", code="argument.mode", todo="use replace, append or merge"
        ) from None


def partitions_to_write(partition: Any, *, given: bool) -> tuple[str, ...]:
    """The partitions a task writes; "all" where the author gave none.

    :param given: whether the author gave any: a template that renders to nothing must not turn into "all".
    :raises ArgumentError: ``argument.empty``.
    """
    found = partitions_of(partition)
    if found is None and given:
        raise empty_partition("partition")
    return found or (WHOLE,)


def optional_mapping(given: Any, *, argument: str) -> Mapping[str, Any] | None:
    """:raises ArgumentError: it is given and no mapping, nor the text of one."""
    return None if is_empty(given) else mapping_of(given, argument=argument)
