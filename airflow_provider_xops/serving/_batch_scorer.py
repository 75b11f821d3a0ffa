"""One model over the partitions of one dataset version, batch by batch.

Private to :mod:`airflow_provider_xops.serving.batch`. In memory are the rows of one batch and what is read
towards the next one; the model is loaded when the first partition really is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa

from airflow_provider_xops.evaluation.explanation import background_of
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import open_table, segments_of, table_info
from airflow_provider_xops.records import DatasetRef, ModelVersion, ScoringRun, digest_of
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.serving._batch_columns import label_type, output_schema, prediction_columns
from airflow_provider_xops.serving._progress import Progress
from airflow_provider_xops.serving.reasons import Reasoner, ReasonPlan
from airflow_provider_xops.training.frames import feature_frame
from airflow_provider_xops.training.metrics import Task
from airflow_provider_xops.training.predicting import predict, task_of

__all__ = ["Scorer", "partition_rows", "tables_of", "version_fence"]

# A fence is a whole number of 64 bits: no table has so many versions before another one is made in its place,
# and where its age is not known, it is taken for older than all that are.
_VERSIONS_A_SECOND, _EARLIEST = 2_000_000_000, 1_000_000_000


class Scorer:
    """What :func:`airflow_provider_xops.serving.batch.score` commits, partition by partition."""

    def __init__(
        self,
        lake: Lake,
        client: RegistryClient,
        *,
        model: ModelVersion,
        runs: Mapping[str, ScoringRun],
        keep: Sequence[str],
        batch_rows: int,
        reasons: ReasonPlan,
        schema: pa.Schema,
        rows: Mapping[str, int],
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._lake, self._client, self._model, self._runs = lake, client, model, runs
        self._keep, self._batch_rows, self._plan, self._schema = tuple(keep), batch_rows, reasons, schema
        self._progress = progress
        self._dataset = next(iter(runs.values())).dataset_in
        self._estimator: Any = None
        self._task = Task.REGRESSION
        self._reasoner: Reasoner | None = None
        self._predicted = 0
        sizes = [0, *(rows[name] for name in runs)]
        self._before = dict(zip(runs, accumulate(sizes), strict=False))
        self._numbers = {name: number + 1 for number, name in enumerate(runs)}
        self._total = sum(sizes)

    def segments(self) -> list[Segment]:
        """What is to be committed, one for each input partition."""
        return [self._segment(name) for name in self._runs]

    def names(self) -> list[str]:
        """The columns of the predictions."""
        return list(self._output_schema(pa.float64()).names)

    def _segment(self, partition: str) -> Segment:
        model, run = self._model, self._runs[partition]
        batch_id = (
            f"score:{model.name}/{model.version}/{model.created_at_ms}:{self._dataset.table_uuid}/{partition}"
        )
        made_from = [model.artifact_digest, run.input_digest, list(self._keep), *self._plan.fingerprint()]
        return Segment(
            partition=partition,
            # Another purpose is another piece of work: its rows stand beside, and have ids of their own.
            batch_id=f"{batch_id}#{run.purpose}" if run.purpose else batch_id,
            fingerprint=digest_of(made_from),
            data=lambda: self._predictions(partition),
        )

    def _predictions(self, partition: str) -> pa.RecordBatchReader:
        if self._estimator is None:
            self._estimator = load_model(self._client, self._lake, self._model)
            self._task = task_of(self._estimator, recorded=self._model.task)
            self._reasoner = self._explains()
        schema = self._output_schema(label_type(self._estimator, self._task))
        return pa.RecordBatchReader.from_batches(schema, self._batches(partition, schema))

    def _explains(self) -> Reasoner | None:
        if not self._plan.top:
            return None
        background = background_of(self._lake, self._model, rows=self._plan.background, seed=self._plan.seed)
        reasoner = Reasoner(
            self._estimator, background, task=self._task, name=str(self._model.ref), plan=self._plan
        )
        reasoner.refuse_too_many(self._total)
        return reasoner

    def _batches(self, partition: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        wanted = list(dict.fromkeys([*self._model.features, *self._keep]))
        reader = read.scan(
            self._lake, self._dataset, partitions=[partition], columns=wanted, batch_rows=self._batch_rows
        )
        label, first = schema.field("prediction").type, 0
        for table in tables_of(reader, self._batch_rows):
            frame = feature_frame(table, self._model.features)
            said = predict(self._estimator, frame, task=self._task, name=str(self._model.ref))
            columns = prediction_columns(said, self._runs[partition], label, first=first, rows=table.num_rows)
            columns |= {name: table.column(name) for name in self._keep}
            if self._reasoner is not None:
                columns |= self._reasoner.of(frame, said).columns()
            arrays = [columns[name] for name in schema.names]
            yield from pa.table(arrays, schema=schema).combine_chunks().to_batches()
            first += table.num_rows
            self._tell(partition, first, table.num_rows)

    def _tell(self, partition: str, done: int, predicted: int) -> None:
        self._predicted += predicted
        if self._progress is None:
            return
        self._progress(
            Progress(
                partition=partition, number=self._numbers[partition], partitions=len(self._runs),
                rows=self._before[partition] + done, total=self._total, predicted=self._predicted,
            )
        )  # fmt: skip

    def _output_schema(self, label: pa.DataType) -> pa.Schema:
        purpose = next(iter(self._runs.values())).purpose
        kept = [self._schema.field(name) for name in self._keep]
        return output_schema(kept, label, top=self._plan.top, purpose=purpose)


def partition_rows(lake: Lake, dataset: DatasetRef, partitions: Sequence[str]) -> dict[str, int]:
    """How many rows each of these partitions has, from the table's log, opened once."""
    handle = open_table(lake, dataset.table, dataset.version)
    if table_info(handle) is None:  # adopted: one partition, all of it
        return {name: int(read.count_rows(lake, dataset, partitions=[name])) for name in partitions}
    rows = dict.fromkeys(partitions, 0)
    for file in segments_of(handle):
        if file.partition in rows:
            rows[file.partition] += file.rows
    return rows


def version_fence(lake: Lake, dataset: DatasetRef) -> int:
    """The place of a dataset version in the order of all versions, those of a table made anew after those of
    the one before."""
    made = int(open_table(lake, dataset.table, dataset.version).metadata().created_time or 0) // 1000
    return max(made, _EARLIEST) * _VERSIONS_A_SECOND + dataset.version


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
