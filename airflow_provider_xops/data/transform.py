"""Versions in, a version out: one table made from others, by SQL, by declared steps or by a function, once.

For the transform operator and notebooks::

    transform(lake, {"flights": flights_ref, "airports": airports_ref}, table="daily",
              sql="SELECT carrier, count(*) AS n FROM flights GROUP BY carrier", partitions=["2013-01-01"],
              ...)

**Which rows an input gives.** For each partition that is written, an input that has a partition of that name
is read in that partition; one that has no partitions (``all``) is read whole; and ``all`` is made from whole
versions.
:class:`TransformInput` says otherwise where that is not meant.

**When it is done already.** The digests of what is read, and the text of the SQL (or the steps without their
reasons; or the function's name, arguments and the source of its module) make the input fingerprint. The same
one is not computed again. The source of modules that the function's module imports is not part of it.

**Order.** SQL promises none, so rows are sorted: by ``keys``, else by all columns.

What it does not do: reach beyond its inputs. SQL can open no other file and no other table; ``now()`` and
``random()`` are the author's own risk, since the fingerprint does not see them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

from airflow_provider_xops.data.preparation import Preparation, StepChange, prepare
from airflow_provider_xops.data.sql import Query, Session, parse_query
from airflow_provider_xops.errors import ArgumentError, NotFoundError, UserCodeError, XOpsError
from airflow_provider_xops.lake.commit import CommitResult, Segment, commit
from airflow_provider_xops.lake.digest import version_digest
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.parquet_files import sorted_batches
from airflow_provider_xops.lake.read import WHOLE, partition_digests, scan, schema_of
from airflow_provider_xops.lake.schema import cast_batch, to_delta_schema
from airflow_provider_xops.lake.tables import RAW_SUFFIX, check_table_name
from airflow_provider_xops.records import Actor, DatasetRef, WriteMode, digest_of
from airflow_provider_xops.usercode import reference_of, resolve_callable, source_digest

__all__ = ["TransformInput", "transform"]

log = logging.getLogger(__name__)

# A record is small enough for XCom.
NOTE_CHARACTERS = 4000


@dataclass(frozen=True)
class TransformInput:
    """An input with its own choice of rows.

    :param partitions: exactly these, for every partition that is written; None: the whole version.
    """

    dataset: DatasetRef
    partitions: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Read:
    """What one input gives for one output partition."""

    alias: str
    ref: DatasetRef
    partitions: tuple[str, ...] | None
    digest: str


def transform(
    lake: Lake,
    inputs: Mapping[str, DatasetRef | TransformInput],
    *,
    table: str,
    sql: str | None = None,
    function: str | Callable[..., Any] | None = None,
    function_args: Mapping[str, Any] | None = None,
    steps: Any = None,
    input: str | None = None,
    partitions: Sequence[str] = (WHOLE,),
    mode: WriteMode | str = WriteMode.REPLACE,
    keys: Sequence[str] = (),
    raw: bool = False,
    batch_id: str | None = None,
    on_schema_change: Mapping[str, str] | None = None,
    memory_limit: str = "1GB",
    actor: Actor,
    as_of: datetime,
) -> CommitResult:
    """Make partitions of a table from dataset versions; one that was made from the same before is left alone.

    :param inputs: name in the SQL (or key of the function's first argument) to a dataset version.
    :param sql: one SELECT over the inputs' names; ``$partition`` in it is the partition that is written.
        Whole numbers that DuckDB widens (sums) come back as ``int64``.
    :param function: ``package.module:function``, called as ``function({name: pyarrow.Table},
        **function_args)``; gives an Arrow table, batch or reader, or a pandas frame. Its inputs are in
        memory; SQL streams.
    :param steps: preparation steps as :func:`~airflow_provider_xops.data.preparation.read_steps` takes them;
        what each of them changed is in the log and in the record's note.
    :param input: the input that the steps prepare; None: the only one that no step names.
    :param partitions: the partitions to write.
    :param keys: columns that identify a row of the result.
    :param raw: write ``<table>__raw``, to be validated and published; else ``table`` itself.
    :param batch_id: in append and merge mode, what the batch is called; default: its fingerprint.
    :param on_schema_change: what happens to a result of other columns than the table's, as
        :class:`~airflow_provider_xops.lake.schema.SchemaPolicy` says; None: it is refused.
    :param memory_limit: of DuckDB; what does not fit spills into the lake's scratch folder.
    :return: the version that holds the result, ``reused`` if it did before.
    :raises ArgumentError: no inputs, not exactly one of SQL, steps and function, SQL that is not one SELECT
        over the inputs, a step that does not fit them (``argument.step``).
    :raises UserCodeError: the function cannot be named, raised, or gave no table.
    :raises DataError: values on which the SQL fails (``data.transform``), or a result that no table can hold.
    :raises NotFoundError: an input has no partition of the name that is written.
    """
    check_table_name(table)
    if not inputs:
        raise ArgumentError(
            f"table {table} is made from nothing", code="argument.empty", todo="name an input"
        )
    _check_way(table, sql=sql, steps=steps, function=function)
    arguments = dict(function_args or {})
    chosen = {alias: _as_input(item) for alias, item in inputs.items()}
    digests = {ref: partition_digests(lake, ref) for ref in {_ref_of(item) for item in chosen.values()}}
    preparation = None
    if steps is not None:
        schemas = {alias: schema_of(lake, _ref_of(item)) for alias, item in chosen.items()}
        preparation = prepare(steps, schemas, main=input)
        _check_fits(preparation, chosen, digests, partitions)
    code = _code_identity(sql, preparation, function, arguments)
    with ExitStack() as stack:
        run: _Run
        note: str | Callable[[], str] = ""
        if function is None:
            query = parse_query(sql or "") if preparation is None else _query_of(preparation)
            run = _SqlRun(lake, query, memory_limit, list(digests), tuple(keys), stack, preparation)
            note = run.note
        else:
            run = _FunctionRun(lake, function, arguments, tuple(keys), stack)
        segments: list[Segment] = []
        parents: dict[tuple[DatasetRef, tuple[str, ...] | None], None] = {}
        for partition in partitions:
            reads = [_read(alias, item, partition, digests) for alias, item in chosen.items()]
            parents.update({(read.ref, read.partitions): None for read in reads})
            segments.append(_segment(partition, reads, code, run, tuple(keys), WriteMode(mode), batch_id))
        return commit(
            lake,
            f"{table}{RAW_SUFFIX}" if raw and not table.endswith(RAW_SUFFIX) else table,
            segments,
            mode=WriteMode(mode),
            keys=tuple(keys),
            order_by=(),  # sorted already
            actor=actor,
            as_of=as_of,
            note=note,
            evolve=on_schema_change,
            **_parents(parents),
        )


def _check_way(table: str, *, sql: str | None, steps: Any, function: Any) -> None:
    given = {"SQL": bool(sql and sql.strip()), "steps": steps is not None, "a function": function is not None}
    ways = [name for name, there in given.items() if there]
    if len(ways) != 1:
        raise ArgumentError(
            f"table {table} is made by {' and '.join(ways) or 'neither SQL, steps nor a function'}",
            code="argument.transform",
            why="a template may have rendered to nothing",
            todo="give exactly one of them",
        )


def _check_fits(
    preparation: Preparation,
    inputs: Mapping[str, TransformInput | DatasetRef],
    digests: Mapping[DatasetRef, Mapping[str, str]],
    partitions: Sequence[str],
) -> None:
    """What figures are learned from says itself which rows it means."""
    for alias in preparation.fits:
        item = inputs[alias]
        aligned = isinstance(item, DatasetRef) and any(
            _aligned(digests[item], partition) is not None for partition in partitions
        )
        if aligned:
            raise ArgumentError(
                f"input {alias!r}, which figures are learned from, does not say which partitions it means",
                code="argument.fit",
                why="by itself it is read in the partition at hand, and every partition would learn its own",
                todo="name its partitions, or None for the whole version",
            )


def _query_of(preparation: Preparation) -> Query:
    return parse_query(preparation.compiled.select)


def _code_identity(
    sql: str | None, preparation: Preparation | None, function: Any, arguments: Mapping[str, Any]
) -> list[Any]:
    if preparation is not None:
        return ["steps", preparation.digest]
    if function is None:
        return ["sql", hashlib.sha256((sql or "").strip().encode()).hexdigest()]
    try:
        digest = digest_of(dict(arguments))
    except (TypeError, ValueError):
        raise ArgumentError(
            "the function's arguments are not plain JSON",
            code="argument.function_args",
            why="they are part of what decides whether the work was done",
            todo="pass numbers, texts, lists and mappings",
        ) from None
    # The source and not the commit: a commit elsewhere in the repository is no reason to compute again.
    return ["function", reference_of(function), source_digest(function), digest]


def _as_input(item: DatasetRef | TransformInput) -> TransformInput | DatasetRef:
    if isinstance(item, TransformInput | DatasetRef):
        return item
    raise ArgumentError(
        f"a {type(item).__name__} is not an input",
        code="argument.input",
        todo="pass a DatasetRef or a TransformInput",
    )


def _ref_of(item: DatasetRef | TransformInput) -> DatasetRef:
    return item.dataset if isinstance(item, TransformInput) else item


def _read(
    alias: str,
    item: DatasetRef | TransformInput,
    partition: str,
    digests: Mapping[DatasetRef, Mapping[str, str]],
) -> _Read:
    ref = _ref_of(item)
    present = digests[ref]
    chosen = item.partitions if isinstance(item, TransformInput) else _aligned(present, partition)
    missing = [name for name in chosen or () if name not in present]
    if missing:
        raise NotFoundError(
            f"{ref} has no partition {missing[0]}", code="not_found.partition",
            why=f"partition {partition} of the result is made from it; the input has {len(present)} others",
            todo="load it first, or say with TransformInput which rows are meant",
            context={"table": ref.table, "partition": missing[0]},
        )  # fmt: skip
    digest = version_digest(present if chosen is None else {name: present[name] for name in chosen})
    return _Read(alias, ref, chosen, digest)


def _aligned(present: Mapping[str, str], partition: str) -> tuple[str, ...] | None:
    return None if partition == WHOLE or list(present) == [WHOLE] else (partition,)


def _segment(
    partition: str,
    reads: Sequence[_Read],
    code: Sequence[Any],
    run: _Run,
    keys: tuple[str, ...],
    mode: WriteMode,
    batch_id: str | None,
) -> Segment:
    fingerprint = digest_of(
        ["transform", partition, [[read.alias, read.digest] for read in reads], list(code), list(keys)]
    )

    def data() -> Any:
        results = run(reads, partition)
        schema = to_delta_schema(next(results))
        return pa.RecordBatchReader.from_batches(schema, (cast_batch(batch, schema) for batch in results))

    return Segment(
        partition=partition,
        fingerprint=fingerprint,
        data=data,
        batch_id=None if mode is WriteMode.REPLACE else batch_id or f"transform:{fingerprint}",
    )


def _parents(parents: Mapping[tuple[DatasetRef, tuple[str, ...] | None], None]) -> dict[str, Any]:
    read: dict[DatasetRef, tuple[str, ...] | None] = {}
    for ref, names in parents:
        known = read.get(ref, ())
        read[ref] = None if names is None or known is None else tuple(sorted({*known, *names}))
    return {"parents": list(read), "parent_partitions": list(read.values())}


class _Run(Protocol):
    """Computes one partition: gives the result's schema, then its batches, sorted."""

    def __call__(self, reads: Sequence[_Read], partition: str) -> Iterator[Any]: ...


class _SqlRun:
    """One DuckDB for all partitions, opened when the first one has to be computed."""

    def __init__(
        self,
        lake: Lake,
        query: Query,
        memory_limit: str,
        refs: Sequence[DatasetRef],
        keys: tuple[str, ...],
        stack: ExitStack,
        preparation: Preparation | None = None,
    ) -> None:
        self._lake, self._query, self._memory_limit = lake, query, memory_limit
        self._refs, self._keys, self._stack = refs, keys, stack
        self._preparation = preparation
        self._counted: dict[str, tuple[int, ...]] = {}
        self._session: Session | None = None

    def __call__(self, reads: Sequence[_Read], partition: str) -> Iterator[Any]:
        if self._session is None:
            folder = self._stack.enter_context(self._lake.storage.scratch())
            self._session = self._stack.enter_context(
                self._query.session(folder, memory_limit=self._memory_limit)
            )
            self._session.close_box(self._lake, self._refs)
        for read in reads:
            self._session.bind(self._lake, read.alias, read.ref, read.partitions)
        what = "SQL" if self._preparation is None else f"{len(self._preparation.steps)} steps"
        log.info("Running %s over %s.", what, ", ".join(f"{read.alias} = {read.ref}" for read in reads))
        if self._preparation is not None:
            # Counted first: a value that must not be there stops the task before anything is written.
            counted = self._session.counts(self._preparation.compiled.counts, partition)
            self._preparation.changes(counted)
            self._counted[partition] = counted
        return self._session.run(partition, order_by=self._keys)

    def note(self) -> str:
        """What the steps changed in all partitions that were computed; nothing for SQL."""
        if self._preparation is None or not self._counted:
            return ""
        sums = [sum(counts) for counts in zip(*self._counted.values(), strict=True)]
        changes: Sequence[StepChange] = self._preparation.changes(sums)
        for change in changes:
            log.info("Step %s.", change)
        return _clipped("; ".join(map(str, changes)), NOTE_CHARACTERS)


class _FunctionRun:
    """The user's function, with its inputs in memory."""

    def __init__(
        self,
        lake: Lake,
        function: str | Callable[..., Any],
        arguments: Mapping[str, Any],
        keys: tuple[str, ...],
        stack: ExitStack,
    ) -> None:
        self._lake, self._keys, self._stack = lake, keys, stack
        self._function, self._shown = resolve_callable(function), reference_of(function)
        self._arguments = arguments

    def __call__(self, reads: Sequence[_Read], partition: str) -> Iterator[Any]:
        table = self._call(reads)
        schema = to_delta_schema(table.schema)
        folder = self._stack.enter_context(self._lake.storage.scratch())
        canonical = (cast_batch(batch, schema) for batch in table.to_batches())
        yield schema
        yield from sorted_batches(
            canonical, schema, [key for key in self._keys if key in schema.names], folder
        )

    def _call(self, reads: Sequence[_Read]) -> Any:
        tables = {
            read.alias: scan(self._lake, read.ref, partitions=read.partitions).read_all() for read in reads
        }
        shown = ", ".join(f"{name} ({len(rows)} rows)" for name, rows in tables.items())
        log.info("Calling %s with %s.", self._shown, shown)
        try:
            result = self._function(tables, **self._arguments)
            table = _as_table(result)
        except XOpsError:
            raise
        except Exception as error:
            # The message may quote rows: the traceback above it shows it in the log, this error does not.
            raise UserCodeError(
                f"the function {self._shown} raised {type(error).__name__}",
                code="user_code.raised",
                why="see the traceback above",
                todo="correct the function, then run the task again",
            ) from error
        if table is None:
            raise UserCodeError(
                f"the function {self._shown} gave a {type(result).__name__}", code="user_code.result",
                why="a transformation gives rows", todo="return a pyarrow.Table or a pandas DataFrame",
            )  # fmt: skip
        return table


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def _as_table(result: Any) -> Any | None:
    if isinstance(result, pa.Table):
        return result
    if isinstance(result, pa.RecordBatch):
        return pa.Table.from_batches([result])
    if isinstance(result, pa.RecordBatchReader):
        return result.read_all()
    if type(result).__module__.split(".")[0] == "pandas" and type(result).__name__ == "DataFrame":
        return pa.Table.from_pandas(result, preserve_index=False).replace_schema_metadata(None)
    return None
