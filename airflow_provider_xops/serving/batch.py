"""Batch scoring: every row of some partitions, exactly once per model version, in bounded memory.

For the scoring operator. Rows stream through the model batch by batch into one Delta commit. Each
prediction row says which model made it, from which dataset version, and has an id that leads back to both
(``<first 24 digits of the scoring run's record id>-<row>``, the row being its place in the input
partition).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.errors import ArgumentError, ModelError, NotFoundError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    DatasetRef,
    DatasetVersion,
    ModelVersion,
    ScoringRun,
    WriteMode,
    digest_of,
)
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.training.frames import feature_frame, unusable_columns
from airflow_provider_xops.training.metrics import Predictions, Task
from airflow_provider_xops.training.predicting import check_columns, predict, task_of

__all__ = ["PREDICTION_ID_DIGITS", "ScoreResult", "score", "tables_of"]

log = logging.getLogger(__name__)

PREDICTION_ID_DIGITS = 24
OUR_COLUMNS = (
    "prediction_id", "prediction", "score", "model_name", "model_version", "input_table", "input_version",
    "input_partition",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """What scoring left behind.

    :param dataset_out: the version of the output table that holds the predictions.
    :param runs: one record for each input partition.
    :param reused: all of them had been scored before by this model version; nothing was written.
    """

    dataset_out: DatasetVersion
    runs: tuple[ScoringRun, ...]
    reused: bool


def score(
    lake: Lake,
    client: RegistryClient,
    *,
    model: ModelVersion,
    dataset: DatasetRef,
    partitions: Sequence[str] | None,
    output_table: str,
    keep_columns: Sequence[str] = (),
    batch_rows: int = 50_000,
    actor: Actor,
    as_of: datetime,
) -> ScoreResult:
    """Predict every row of some partitions and append the predictions to ``output_table``.

    :param partitions: of the input; None: all of the version.
    :param keep_columns: input columns that go along (keys to join the labels by, later).
    :param batch_rows: rows in memory at a time.
    :returns: with ``reused=True`` where this model version had scored the same content before.
    :raises ModelError: ``model.columns_missing`` or ``model.columns_type``, naming the columns;
        ``model.predict_failed``.
    :raises ArgumentError: ``argument.keep_columns``, ``argument.output_table``, ``argument.batch_rows``.
    :raises NotFoundError: ``not_found.partition``.

    The output has, beside ``keep_columns``: ``prediction_id``, ``prediction`` (whole number, number or
    text, as the target), ``score`` (the positive class's probability; null where the model gives none),
    ``model_name``, ``model_version``, ``input_table``, ``input_version``, ``input_partition``.

    >>> score(lake, client, model=champion, dataset=ref, partitions=["2013-04-01"],
    ...       output_table="predictions", actor=actor, as_of=now).reused  # doctest: +SKIP
    False

    What it does not do: rows without enough data are predicted like any other; check data before, by
    validation.
    """
    schema = read.schema_of(lake, dataset)
    _check_arguments(dataset, output_table, schema, keep_columns, batch_rows)
    check_columns(schema.names, model.features, name=str(model.ref), data=str(dataset))
    unusable = unusable_columns(schema, model.features)
    if unusable:
        raise ModelError(
            f"{model.ref} does not accept {dataset}", code="model.columns_type",
            why=f"the columns {', '.join(unusable)} are of a type that no estimator takes",
            todo="give it the dataset it was trained on, or one with the same columns",
        )  # fmt: skip
    digests = _digests(lake, dataset, partitions)
    scorer = _Scorer(lake, client, model, dataset, tuple(keep_columns), batch_rows, schema)
    runs = {
        name: _scoring_run(model, dataset, name, digest, output_table, actor, as_of)
        for name, digest in digests.items()
    }
    result = commit(
        lake, output_table,
        [scorer.segment(name, digest, runs[name]) for name, digest in digests.items()],
        mode=WriteMode.APPEND, parents=[dataset], parent_partitions=[list(digests)],
        parent_records=[model.record_id], actor=actor, as_of=as_of, note=f"predictions of {model.ref}",
    )  # fmt: skip
    recorded = tuple(
        _record(lake, run, result.record.ref, scorer.rows_of(name)) for name, run in runs.items()
    )
    rows = sum(run.rows for run in recorded)
    log.info(
        "%s rows of %d partition(s) of %s with %s into %s.",
        f"Had scored {rows}" if result.reused else f"Scored {rows}",
        len(runs),
        dataset,
        model.ref,
        result.record.ref,
    )
    return ScoreResult(dataset_out=result.record, runs=recorded, reused=result.reused)


class _Scorer:
    """One model over one dataset version; the model is loaded when the first partition really is scored."""

    def __init__(
        self, lake: Lake, client: RegistryClient, model: ModelVersion, dataset: DatasetRef, keep: tuple[str,
        ...], batch_rows: int, schema: pa.Schema,
    ) -> None:  # fmt: skip
        self._lake, self._client, self._model, self._dataset = lake, client, model, dataset
        self._keep, self._batch_rows, self._schema = keep, batch_rows, schema
        self._estimator: Any = None
        self._task = Task.REGRESSION

    def segment(self, partition: str, digest: str, run: ScoringRun) -> Segment:
        """What is to be committed for one input partition."""
        model = self._model
        return Segment(
            partition=partition,
            batch_id=f"score:{model.name}/{model.version}/{model.created_at_ms}:{self._dataset.table_uuid}/{partition}",
            fingerprint=digest_of([model.artifact_digest, digest, list(self._keep)]),
            data=lambda: self._predictions(partition, run),
        )  # fmt: skip

    def rows_of(self, partition: str) -> int:
        """Rows of an input partition, from the files' metadata."""
        return int(read.count_rows(self._lake, self._dataset, partitions=[partition]))

    def _predictions(self, partition: str, run: ScoringRun) -> pa.RecordBatchReader:
        if self._estimator is None:
            self._estimator = load_model(self._client, self._lake, self._model)
            self._task = task_of(self._estimator, recorded=self._model.task)
        schema = self._output_schema()
        return pa.RecordBatchReader.from_batches(schema, self._batches(partition, run, schema))

    def _batches(self, partition: str, run: ScoringRun, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        wanted = list(dict.fromkeys([*self._model.features, *self._keep]))
        reader = read.scan(
            self._lake, self._dataset, partitions=[partition], columns=wanted, batch_rows=self._batch_rows
        )
        first = 0
        for table in tables_of(reader, self._batch_rows):
            frame = feature_frame(table, self._model.features)
            said = predict(self._estimator, frame, task=self._task, name=str(self._model.ref))
            columns = self._columns(said, run, first, table.num_rows, partition)
            kept = {name: table.column(name) for name in self._keep}
            arrays = [(kept[name] if name in kept else columns[name]) for name in schema.names]
            yield from pa.table(arrays, schema=schema).combine_chunks().to_batches()
            first += table.num_rows

    def _columns(
        self, said: Predictions, run: ScoringRun, first: int, rows: int, partition: str
    ) -> dict[str, Any]:
        numbers = pc.cast(pa.array(np.arange(first, first + rows)), pa.string())
        scores = said.scores
        return {
            "prediction_id": pc.binary_join_element_wise(run.record_id[:PREDICTION_ID_DIGITS], numbers, "-"),
            "prediction": _labels(said.labels, self._label_type()),
            "score": pa.nulls(rows, pa.float64()) if scores is None else pa.array(scores, from_pandas=True),
            "model_name": pa.repeat(pa.scalar(self._model.name), rows),
            "model_version": pa.repeat(pa.scalar(self._model.version, pa.int64()), rows),
            "input_table": pa.repeat(pa.scalar(self._dataset.table), rows),
            "input_version": pa.repeat(pa.scalar(self._dataset.version, pa.int64()), rows),
            "input_partition": pa.repeat(pa.scalar(partition), rows),
        }

    def _output_schema(self) -> pa.Schema:
        types = {
            "prediction": self._label_type(), "score": pa.float64(), "model_version": pa.int64(),
            "input_version": pa.int64(),
        }  # fmt: skip
        head, *tail = OUR_COLUMNS
        return pa.schema(
            [pa.field(head, pa.string()), *(self._schema.field(name) for name in self._keep)]
            + [pa.field(name, types.get(name, pa.string())) for name in tail]
        )

    def _label_type(self) -> pa.DataType:
        """The type of a prediction, known before any row is read: that of the classes, else a number."""
        classes = getattr(self._estimator, "classes_", None)
        if self._task is not Task.CLASSIFICATION or classes is None:
            return pa.float64()
        kind = np.asarray(classes).dtype.kind
        return pa.int64() if kind in "biu" else pa.float64() if kind == "f" else pa.string()


def _labels(labels: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array([str(label) for label in labels], kind)
    return pa.array(
        np.asarray(labels).astype(np.float64 if pa.types.is_floating(kind) else np.int64), from_pandas=True
    )


def tables_of(reader: pa.RecordBatchReader, rows: int) -> Iterator[pa.Table]:
    """The reader's rows in tables of ``rows``, the last one shorter; holds that many and one batch."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for arrived in reader:
        batch = arrived
        while count + batch.num_rows >= rows:
            take = rows - count
            yield pa.Table.from_batches([*waiting, batch.slice(0, take)])
            batch, waiting, count = batch.slice(take), [], 0
        if batch.num_rows:
            waiting.append(batch)
            count += batch.num_rows
    if waiting:
        yield pa.Table.from_batches(waiting)


def _digests(lake: Lake, dataset: DatasetRef, partitions: Sequence[str] | None) -> dict[str, str]:
    there = read.partition_digests(lake, dataset)
    wanted = sorted(there) if partitions is None else list(dict.fromkeys(partitions))
    missing = [name for name in wanted if name not in there]
    if missing or not wanted:
        raise NotFoundError(
            f"{dataset} has no partition {', '.join(missing[:5])}"
            if missing
            else f"{dataset} has no partition to score",
            code="not_found.partition",
            why=f"it has {len(there)} partitions",
            todo="publish it first, or name another",
        )
    return {name: there[name] for name in wanted}


def _scoring_run(
    model: ModelVersion,
    dataset: DatasetRef,
    partition: str,
    digest: str,
    output_table: str,
    actor: Actor,
    as_of: datetime,
) -> ScoringRun:
    """One partition's record. Its id is known before the commit; where it went and how many rows, after."""
    return ScoringRun(
        recorded_at=as_of,
        produced_by=actor.producer,
        model_name=model.name,
        model_version=model.version,
        model_created_at_ms=model.created_at_ms,
        model_record=model.record_id,
        input_table_uuid=dataset.table_uuid,
        partition=partition,
        input_digest=digest,
        output_table=output_table,
        dataset_in=dataset,
        dataset_out=dataset,
        rows=0,
    )


def _record(lake: Lake, run: ScoringRun, out: DatasetRef, rows: int) -> ScoringRun:
    """The run as the lake has it: an earlier attempt's record stays, else this one is written."""
    with contextlib.suppress(NotFoundError):
        earlier = lake.evidence.get(ScoringRun.kind, run.record_id)
        if isinstance(earlier, ScoringRun):
            return earlier
    written = dataclasses.replace(run, dataset_out=out, rows=rows)
    lake.evidence.put(written)
    return written


def _check_arguments(
    dataset: DatasetRef, output_table: str, schema: pa.Schema, keep: Sequence[str], batch_rows: int
) -> None:
    if output_table == dataset.table:
        raise ArgumentError(
            f"predictions cannot go into {output_table}, which they are made from",
            code="argument.output_table",
            todo="name another table",
        )
    unknown = [name for name in keep if name not in schema.names]
    taken = [name for name in keep if name in OUR_COLUMNS]
    if unknown or taken or len(set(keep)) < len(keep):
        raise ArgumentError(
            f"the columns {', '.join(unknown or taken or keep)} cannot be kept beside the predictions",
            code="argument.keep_columns",
            why=f"{dataset} does not have them" if unknown else "the names are taken, or named twice",
            todo=f"choose among {', '.join(name for name in schema.names if name not in OUR_COLUMNS)}",
        )  # fmt: skip
    if batch_rows < 1:
        raise ArgumentError("a batch has at least one row", code="argument.batch_rows", todo="pass 50000")
