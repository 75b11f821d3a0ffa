"""Operators that make tables of the lake from other tables, or from a Delta table in place.

For :mod:`airflow_provider_xops.operators.data`, their public place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.operators._arguments import is_empty, list_of, mapping_of, optional
from airflow_provider_xops.operators._base import XOpsOperator, actor_of, now
from airflow_provider_xops.operators._datasets import (
    asked_for,
    dataset_of,
    empty_partition,
    partitions_of,
)
from airflow_provider_xops.operators._ingesting import (
    IngestDatasetOperator,
    optional_mapping,
    partitions_to_write,
    sources_by_partition,
    write_mode,
)

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = [
    "AdoptDatasetOperator",
    "IngestDatasetOperator",
    "TransformDatasetOperator",
    "sources_by_partition",
]


class TransformDatasetOperator(XOpsOperator):
    """Makes one table from dataset versions, by DuckDB SQL, declared steps or a function, once.

    What decides whether it was done already are the inputs' content and the text of the SQL (or the steps, or
    the version of the function's code), never the output.

    :param table: the table to write; its raw data are in ``<table>__raw``, to be validated and published.
    :param inputs: ``{name in the SQL: dataset}``; a dataset is a task's output, a record id, ``TABLE`` or
        ``TABLE@VERSION``. For each partition that is written, an input is read in the partition of the same
        name; ``{"dataset": ..., "partition": ...}`` names others (a range of days, a list; None: the whole
        version).
    :param sql: one SELECT over the inputs' names; ``$partition`` is the partition written. Exactly one of
        ``sql``, ``steps`` and ``function``.
    :param steps: preparation steps (:mod:`airflow_provider_xops.data.preparation`): a list, the path of a
        YAML or JSON file on the worker, or ``package.module:function``.
    :param input: the input that the steps prepare; None: the only one that no step names.
    :param function: ``package.module:function``, taking ``{name: pyarrow.Table}`` and ``function_args`` and
        giving an Arrow table or a pandas frame.
    :param function_args: keyword arguments of the function, plain JSON.
    :param partition: the partition(s) to write; None: the table has none, and inputs are read whole.
    :param mode: ``replace`` (the partition), ``append`` or ``merge``; fixed by the first commit.
    :param keys: columns that identify a row; ``merge`` needs them.
    :param batch_id: in ``append`` and ``merge`` mode, what the batch is called; None: its fingerprint.
    :param on_schema_change: what happens to a result of other columns than the table's: ``{"added":
        "evolve" | "ignore" | "fail", "removed": "fill_null" | "fail", "retyped": "widen" | "fail"}``; None:
        it is refused.
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

        TransformDatasetOperator(
            task_id="prepare",
            table="flights_prepared",
            inputs={"flights": publish.output},
            steps=[{"step": "impute", "columns": {"dep_delay": {"value": 0}}, "indicator": True}],
        )

    What it does not do: it reads raw tables only when a task's output names one, and publishes nothing.
    """

    required = ("table", "inputs")
    user_code = ("function", "steps")
    template_fields = (
        *XOpsOperator.template_fields,
        "table",
        "inputs",
        "sql",
        "function",
        "function_args",
        "steps",
        "input",
        "partition",
        "mode",
        "keys",
        "batch_id",
        "on_schema_change",
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
        steps: str | Sequence[Mapping[str, Any]] | Callable[[], Any] | None = None,
        input: str | None = None,
        partition: str | Sequence[str] | None = None,
        mode: str = "replace",
        keys: Sequence[str] = (),
        batch_id: str | None = None,
        on_schema_change: Mapping[str, str] | None = None,
        memory_limit: str = "1GB",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.inputs = inputs
        self.sql = sql
        self.function = function
        self.function_args = function_args
        self.steps = steps
        self.input = input
        self.partition = partition
        self._partitioned = partition is not None
        self.mode = mode
        self.keys = keys
        self.batch_id = batch_id
        self.on_schema_change = on_schema_change
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
            steps=optional(self.steps),
            input=optional(self.input),
            partitions=partitions_to_write(self.partition, given=self._partitioned),
            mode=write_mode(self.mode),
            keys=list_of(self.keys, argument="keys") or (),
            raw=True,
            batch_id=optional(self.batch_id),
            on_schema_change=optional_mapping(self.on_schema_change, argument="on_schema_change"),
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
