"""Operators that bring data into the lake: from files, from other tables, from a table in place.

For :mod:`airflow_provider_xops.operators.data`, their public place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.operators._arguments import is_empty, list_of, mapping_of, optional
from airflow_provider_xops.operators._base import XOpsOperator, actor_of, now
from airflow_provider_xops.operators._datasets import (
    asked_for,
    dataset_of,
    empty_partition,
    partitions_of,
)
from airflow_provider_xops.records import WriteMode
from airflow_provider_xops.version_compat import object_storage_path

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = ["AdoptDatasetOperator", "IngestDatasetOperator", "TransformDatasetOperator"]

# The partition of a table that has none.
WHOLE = "all"


class IngestDatasetOperator(XOpsOperator):
    """Reads CSV, JSON lines or Parquet files into the raw table of ``table``, once.

    The same files (by checksum) are never committed twice; changed files replace what they wrote before. An
    empty file is no failure: its partition becomes empty.

    :param table: the table; its raw data are in ``<table>__raw``.
    :param source: a path or URI, or several; ``{partition}`` in it becomes the partition's name. Local files,
        ``file://``, and whatever Airflow's ``ObjectStoragePath`` opens (``s3://``, ``gs://``, ...).
    :param partition: one name, a range of days (``2013-01-01..2013-03-31``, both included) or a list; None:
        the table has no partitions.
    :param schema: column types, such as ``{"flight": "int64", "time_hour": "timestamp[America/New_York]"}``;
        None: as recorded with the table, and at the first load inferred from all rows.
    :param format: ``csv``, ``jsonl`` or ``parquet``; None: by the file's suffix.
    :param delimiter: of CSV; None: a comma (a tab for ``.tsv``).
    :param na_values: texts of CSV that mean "no value".
    :param mode: ``replace`` (the partition), ``append`` or ``merge``; fixed by the first load.
    :param keys: columns that identify a row; ``merge`` needs them.
    :param batch_id: in ``append`` and ``merge`` mode, what the batch is called; None: a digest of its files'
        names and checksums, so that a corrected file is another batch.
    :param source_conn_id: the Airflow connection that opens a remote source; None: the scheme's default.
    :raises SourceError: a file is missing, truncated, of other columns or types, or not text (no retry).
    :raises UnavailableError: the storage did not answer (retried).

    Returns the record of the dataset version, with ``reused`` and the ``partition`` asked for.

    Example::

        IngestDatasetOperator(
            task_id="ingest",
            table="flights",
            source="s3://landing/flights/{partition}.csv",
            partition="{{ params.day }}",
            schema={"flight": "int64", "carrier": "string"},
        )

    What it does not do: it validates nothing, lists no folders, and never touches the published table.
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
        "source_conn_id",
    )
    operator_extra_links = (EvidenceLink(),)

    def __init__(
        self,
        *,
        table: str,
        source: str | Sequence[str],
        partition: str | Sequence[str] | None = None,
        schema: Mapping[str, str] | None = None,
        format: str | None = None,
        delimiter: str | None = None,
        na_values: Sequence[str] = ("", "NA"),
        mode: str = WriteMode.REPLACE.value,
        keys: Sequence[str] = (),
        batch_id: str | None = None,
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
        self.source_conn_id = source_conn_id

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.data.ingest import ingest

        lake = self.lake()
        result = ingest(
            lake,
            self.table,
            sources_by_partition(self.source, partitions_to_write(self.partition, given=self._partitioned)),
            mode=write_mode(self.mode),
            keys=list_of(self.keys, argument="keys") or (),
            schema=optional_mapping(self.schema, argument="schema"),
            format=optional(self.format),
            delimiter=optional(self.delimiter),
            na_values=self.na_values,
            batch_id=optional(self.batch_id),
            open_file=opener(optional(self.source_conn_id)),
            actor=actor_of(context),
            as_of=now(),
        )
        return self.hand_over(context, lake, result.record, reused=result.reused, **asked_for(self.partition))


class TransformDatasetOperator(XOpsOperator):
    """Makes one table from dataset versions, by DuckDB SQL or by a function, once.

    What decides whether it was done already are the inputs' content and the text of the SQL (or the version
    of the function's code), never the output.

    :param table: the table to write; its raw data are in ``<table>__raw``, to be validated and published.
    :param inputs: ``{name in the SQL: dataset}``; a dataset is a task's output, a record id, ``TABLE`` or
        ``TABLE@VERSION``. For each partition that is written, an input is read in the partition of the same
        name; ``{"dataset": ..., "partition": ...}`` names others (a range of days, a list; None: the whole
        version).
    :param sql: one SELECT over the inputs' names; ``$partition`` is the partition written. Exactly one of
        ``sql`` and ``function``.
    :param function: ``package.module:function``, taking ``{name: pyarrow.Table}`` and ``function_args`` and
        giving an Arrow table or a pandas frame.
    :param function_args: keyword arguments of the function, plain JSON.
    :param partition: the partition(s) to write; None: the table has none, and inputs are read whole.
    :param mode: ``replace`` (the partition), ``append`` or ``merge``; fixed by the first commit.
    :param keys: columns that identify a row; ``merge`` needs them.
    :param batch_id: in ``append`` and ``merge`` mode, what the batch is called; None: its fingerprint.
    :param memory_limit: of DuckDB; what does not fit spills to disk.
    :raises UserCodeError: the function cannot be named, or raised; :raises DataError: the SQL does not fit.

    Returns the record of the dataset version, with ``reused`` and the ``partition`` asked for.

    Example::

        TransformDatasetOperator(
            task_id="features",
            table="daily",
            inputs={"flights": publish.output},
            sql="SELECT carrier, count(*) AS n FROM flights GROUP BY carrier",
        )

    What it does not do: it reads raw tables only when a task's output names one, and publishes nothing.
    """

    required = ("table", "inputs")
    user_code = ("function",)
    template_fields = (
        *XOpsOperator.template_fields,
        "table",
        "inputs",
        "sql",
        "function",
        "function_args",
        "partition",
        "mode",
        "keys",
        "batch_id",
        "memory_limit",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql"}
    operator_extra_links = (EvidenceLink(),)

    def __init__(
        self,
        *,
        table: str,
        inputs: Mapping[str, Any],
        sql: str | None = None,
        function: str | Callable[..., Any] | None = None,
        function_args: Mapping[str, Any] | None = None,
        partition: str | Sequence[str] | None = None,
        mode: str = WriteMode.REPLACE.value,
        keys: Sequence[str] = (),
        batch_id: str | None = None,
        memory_limit: str = "1GB",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.inputs = inputs
        self.sql = sql
        self.function = function
        self.function_args = function_args
        self.partition = partition
        self._partitioned = partition is not None
        self.mode = mode
        self.keys = keys
        self.batch_id = batch_id
        self.memory_limit = memory_limit

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.data.transform import transform

        lake = self.lake()
        inputs = mapping_of(self.inputs, argument="inputs")
        result = transform(
            lake,
            {alias: transform_input(lake, alias, given) for alias, given in inputs.items()},
            table=self.table,
            sql=optional(self.sql),
            function=optional(self.function),
            function_args=optional_mapping(self.function_args, argument="function_args"),
            partitions=partitions_to_write(self.partition, given=self._partitioned),
            mode=write_mode(self.mode),
            keys=list_of(self.keys, argument="keys") or (),
            raw=True,
            batch_id=optional(self.batch_id),
            memory_limit=self.memory_limit,
            actor=actor_of(context),
            as_of=now(),
        )
        return self.hand_over(context, lake, result.record, reused=result.reused, **asked_for(self.partition))


class AdoptDatasetOperator(XOpsOperator):
    """Takes an existing Delta table into the lake's chain, where it is: no copy, no change.

    :param uri: the Delta table: a name inside the lake's folder, or a URI on the same storage.
    :param table: the name it has in the lake from now on.
    :raises NotFoundError: there is no Delta table; :raises LakeError: it is on other storage.

    Returns the record of the version found, with a digest over all its rows.

    Example::

        AdoptDatasetOperator(task_id="adopt", uri="s3://bucket/lake/old/customers", table="customers")

    What it does not do: it vouches for nothing before this version; where the rows came from stays unknown.
    """

    required = ("uri", "table")
    template_fields = (*XOpsOperator.template_fields, "uri", "table")
    operator_extra_links = (EvidenceLink(),)

    def __init__(self, *, uri: str, table: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.uri = uri
        self.table = table

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.lake.adopt import adopt_table

        lake = self.lake()
        record = adopt_table(lake, self.uri, table=self.table, actor=actor_of(context), as_of=now())
        return self.hand_over(context, lake, record)


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


def transform_input(lake: Lake, alias: str, given: Any) -> Any:
    """What the domain's transform takes for one input."""
    from airflow_provider_xops.data.transform import TransformInput

    own_choice = isinstance(given, Mapping) and "dataset" in given and "kind" not in given
    if not own_choice:
        return dataset_of(lake, given, argument=f"inputs[{alias!r}]").ref
    named = dataset_of(lake, given["dataset"], argument=f"inputs[{alias!r}]")
    partition = given.get("partition")
    if partition is not None and is_empty(partition):  # must not turn into the whole version
        raise empty_partition(f"the partition of inputs[{alias!r}]")
    return TransformInput(named.ref, partitions_of(partition))


def opener(conn_id: str | None) -> Callable[[str], BinaryIO]:
    """Opens what is not a local file, through Airflow's object storage and its connections."""

    def open_file(uri: str) -> BinaryIO:
        try:
            opened: BinaryIO = object_storage_path(uri, conn_id=conn_id).open("rb")
        except ValueError:  # no filesystem is registered for the scheme
            scheme = uri.partition("://")[0]
            raise ArgumentError(
                f"nothing here opens {scheme}:// sources",
                code="argument.source_uri",
                why="no installed Airflow provider brings a filesystem for it",
                todo="install the one that does",
            ) from None
        return opened

    return open_file


def write_mode(given: Any) -> WriteMode:
    """:raises ArgumentError: it is none of replace, append, merge."""
    try:
        return WriteMode(str(given))
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
