"""Which label belongs to which prediction, found in DuckDB: what does not fit into memory goes to disk.

Private to :mod:`airflow_provider_xops.serving.labels`. Labels are taken in once (or once a partition), then
each partition of predictions is matched with them by its keys alone; the predictions themselves pass through
when they are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from airflow_provider_xops.errors import ArgumentError, DataError, UnavailableError
from airflow_provider_xops.lake.digest import table_digest
from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.lake.schema import cast_batch

__all__ = ["ID", "LABEL", "NEWEST", "PARTITION", "Match", "Matcher", "key"]

LABEL, NEWEST, PARTITION, ID = "label", "newest", "partition", "id"
BATCH_ROWS = 65_536
# DuckDB takes a negative amount for no limit.
_MEMORY = re.compile(r"0*[1-9][0-9]*(\.[0-9]+)? ?[KMGT]i?B", re.IGNORECASE)


def key(place: int) -> str:
    """What a key column is called here."""
    return f"k{place}"


@dataclass(frozen=True, kw_only=True)
class Match:
    """The labels of one partition of predictions.

    :param table: where the matcher keeps them. :param digest: of (prediction, label, label's partition).
    :param joined: predictions with a label. :param ambiguous: labels of which several different ones were
        there, and nothing says which is the newest.
    """

    table: str
    digest: str
    joined: int
    ambiguous: int


class Matcher:
    """A DuckDB with the labels in it. Use it as a context manager.

    :param keys: how many key columns. :param ordered: whether the labels come with a ``newest`` column.
    :param folder: where it may spill to.
    :raises ArgumentError: ``argument.memory_limit``.
    """

    def __init__(self, *, keys: int, ordered: bool, folder: Path, memory_limit: str) -> None:
        self._keys = [key(place) for place in range(keys)]
        self._ordered = ordered
        self._number = 0
        if not isinstance(memory_limit, str) or _MEMORY.fullmatch(memory_limit.strip()) is None:
            raise ArgumentError(
                f"memory_limit is {str(memory_limit)[:40]!r}", code="argument.memory_limit",
                todo="give an amount with its unit, such as 500MB or 2GB",
            )  # fmt: skip
        with _typed():
            self._box = open_box(folder=folder, memory_limit=memory_limit)

    def __enter__(self) -> Matcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._box.close()

    def take_labels(self, labels: pa.RecordBatchReader) -> None:
        """These are the labels from here on: the key columns, ``label``, ``partition``, and maybe ``newest``.

        Of several of one key the newest counts, also where it says that there is no label any more.
        """
        keys = ", ".join(self._keys)
        whole = " AND ".join(f"{name} IS NOT NULL" for name in self._keys)
        self._take("incoming", labels)
        if self._ordered:
            order = f"rank() OVER (PARTITION BY {keys} ORDER BY {NEWEST} DESC NULLS LAST)"
            chosen = f"(SELECT *, {order} AS place FROM incoming WHERE {whole}) WHERE place = 1"
        else:
            chosen = f"incoming WHERE {whole} AND {LABEL} IS NOT NULL"
        self._run(
            f"CREATE OR REPLACE TEMP TABLE known AS SELECT {keys}, any_value({LABEL}) AS {LABEL},"
            f" max({PARTITION}) AS {PARTITION},"
            f" count(DISTINCT {LABEL}) + max(({LABEL} IS NULL)::INT) AS said FROM {chosen} GROUP BY {keys}"
        )
        # A label without its key belongs to nothing.
        self._keyless = self._count(f"FROM incoming WHERE NOT ({whole}) AND {LABEL} IS NOT NULL")

    def match(self, predictions: pa.RecordBatchReader) -> Match:
        """Find the labels of predictions: ``id`` and their key columns.

        :raises DataError: ``data.duplicate_keys``: prediction ids repeat.
        """
        self._number += 1
        table, keys = f"matched_{self._number}", ", ".join(f"k.{name}" for name in self._keys)
        self._take("asked", predictions)
        doubled = self._count("FROM asked") - self._count(f"FROM (SELECT DISTINCT {ID} FROM asked)")
        if doubled:
            raise DataError(
                f"{doubled} of the predictions repeat the id of another one", code="data.duplicate_keys",
                why="a label would belong to both", todo="check the table with `xops lake verify`",
            )  # fmt: skip
        self._run(
            f"CREATE TEMP TABLE {table} AS SELECT p.{ID}, {keys}, k.{LABEL}, k.{PARTITION}, k.said"
            f" FROM asked p JOIN known k ON {self._same('p', 'k')} WHERE k.{LABEL} IS NOT NULL"
        )
        self._run("DROP TABLE asked")
        return Match(
            table=table,
            digest=self._digest(table),
            joined=self._count(f"FROM {table}"),
            ambiguous=self._count(f"FROM (SELECT DISTINCT {keys} FROM {table} k WHERE said > 1)"),
        )

    def note_elsewhere(self, predictions: pa.RecordBatchReader) -> None:
        """Predictions (their keys) that are not matched here, so that their labels do not count as lost."""
        keys = ", ".join(f"k.{name}" for name in self._keys)
        self._run(f"CREATE TEMP TABLE IF NOT EXISTS elsewhere AS SELECT {keys} FROM known k LIMIT 0")
        failures: list[BaseException] = []
        self._register(predictions, failures)
        self._run(
            f"INSERT INTO elsewhere SELECT DISTINCT {keys} FROM stream p JOIN known k ON"
            f" {self._same('p', 'k')} WHERE k.{LABEL} IS NOT NULL",
            failures,
        )

    def unmatched(self, matches: Sequence[Match]) -> int:
        """Labels of which no prediction is known: neither in these matches nor noted elsewhere."""
        keys = ", ".join(self._keys)
        found = [f"SELECT {keys} FROM {match.table}" for match in matches]
        if self._count("FROM duckdb_tables() WHERE table_name = 'elsewhere'"):
            found.append(f"SELECT {keys} FROM elsewhere")
        have = self._count(f"FROM known WHERE {LABEL} IS NOT NULL")
        matched = self._count(f"FROM (SELECT DISTINCT * FROM ({' UNION ALL '.join(found)}))") if found else 0
        return have - matched + self._keyless

    def rows(
        self, match: Match, predictions: pa.RecordBatchReader, schema: pa.Schema, *, prediction_id: str
    ) -> Iterator[pa.RecordBatch]:
        """The predictions that have a label, with it and its partition as the last two columns.

        :param schema: all of these, in this order; the last two are the label and its partition.
        """
        failures: list[BaseException] = []
        self._register(predictions, failures)
        text = (
            f"SELECT p.*, m.{LABEL} AS _xops_label, m.{PARTITION} AS _xops_label_partition FROM stream p"
            f" JOIN {match.table} m ON p.{_quoted(prediction_id)} = m.{ID}"
        )
        with _typed(failures):
            reader = self._box.sql(text).fetch_arrow_reader(BATCH_ROWS)
        while True:
            with _typed(failures):
                batch = next(reader, None)
            if batch is None:
                return
            yield cast_batch(pa.RecordBatch.from_arrays(batch.columns, names=schema.names), schema)

    def _digest(self, table: str) -> str:
        with _typed():
            found = self._box.sql(f"SELECT {ID}, {LABEL}, {PARTITION} FROM {table} ORDER BY {ID}")
            return table_digest(found.fetch_arrow_reader(BATCH_ROWS))

    def _same(self, one: str, other: str) -> str:
        return " AND ".join(f"{one}.{name} = {other}.{name}" for name in self._keys)

    def _take(self, table: str, reader: pa.RecordBatchReader) -> None:
        failures: list[BaseException] = []
        self._register(reader, failures)
        self._run(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT * FROM stream", failures)

    def _register(self, reader: pa.RecordBatchReader, failures: list[BaseException] | None = None) -> None:
        noted = pa.RecordBatchReader.from_batches(reader.schema, _recording(reader, failures))
        self._box.register("stream", noted)

    def _run(self, sql: str, failures: list[BaseException] | None = None) -> None:
        with _typed(failures):
            # A result that is not read to its end keeps the connection busy.
            self._box.execute(sql).fetchall()

    def _count(self, source: str) -> int:
        with _typed():
            return int(self._box.execute(f"SELECT count(*) {source}").fetchall()[0][0])


def _recording(
    batches: Iterable[pa.RecordBatch], failures: list[BaseException] | None
) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except BaseException as error:
        if failures is not None:
            failures.append(error)
        raise


@contextmanager
def _typed(failures: Sequence[BaseException] | None = None) -> Iterator[None]:
    """DuckDB's errors without their messages, which quote values; the source's own error if it was that."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException:
        raise DataError(
            "matching labels needs more memory than it may use", code="data.join_memory",
            why="a step of it cannot spill to disk",
            todo="raise memory_limit, or join fewer partitions at a time",
        ) from None  # fmt: skip
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if failures:
            raise failures[0] from None
        raise UnavailableError(
            "labels could not be matched", code="unavailable.join", why=type(error).__name__,
            todo="try again; if it stays, check the worker's disk and the lake's storage",
        ) from None  # fmt: skip


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
