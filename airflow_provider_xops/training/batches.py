"""Rows that do not fit into memory: chosen, proved and learned from batch by batch.

For training with ``batch_rows``. The rows are the same, in the same order and with the same digests, as those
that :mod:`~airflow_provider_xops.training.selections` gives whole. Of every row the target, the split's own
columns and its place are held (some bytes a row); of the features, never more than two batches.

What it does not do: it makes no estimator incremental. Only one with ``partial_fit`` learns in batches.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_provider_xops.errors import TrainingError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.digest import SegmentDigest
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import cast_batch, to_delta_schema
from airflow_provider_xops.records import DatasetRef, Selection
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.fitting import fitting_errors
from airflow_provider_xops.training.frames import feature_frame, target_values
from airflow_provider_xops.training.metrics import Predictions, Task
from airflow_provider_xops.training.predicting import predict
from airflow_provider_xops.training.recipe import Recipe
from airflow_provider_xops.training.splits import Split, random_order
from airflow_provider_xops.training.weights import fit_keywords, per_class, weighted_by_class

__all__ = ["RowStream", "choose_streams", "learn_in_batches", "predict_in_batches", "stream_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RowStream:
    """The rows of a selection, to be read in batches as often as they are needed.

    :param selection: which rows. :param truth: their targets, in canonical order.
    :param scanned: the position of each row in a scan of everything that the selection was chosen from.
    """

    lake: Lake
    selection: Selection
    truth: Any
    scanned: Any

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """The rows, ``rows`` at a time (fewer at the end), with these columns, in canonical order.

        The size of a batch does not depend on how the table's files are cut, so the same estimator learns the
        same from them.
        """
        found = self._parts(columns, rows)
        waiting: list[pa.RecordBatch] = []
        count = 0
        for part in found:
            waiting.append(part)
            count += part.num_rows
            while count >= rows:
                table = pa.Table.from_batches(waiting)
                yield table.slice(0, rows)
                # The rest is copied, so that it does not keep the whole batch alive.
                rest = table.slice(rows).combine_chunks()
                waiting, count = [batch for batch in rest.to_batches() if batch.num_rows], rest.num_rows
                del table, rest
        if count:
            yield pa.Table.from_batches(waiting)

    def verify(self, rows: int) -> None:
        """Prove that these are the rows which the selection recorded, reading them once.

        :raises DataError: ``data.selection_changed``.
        """
        columns = list(selections.rule_of(self.selection).get("columns", ()))
        if not columns:
            return
        digest = _digest_of(self.lake, self.selection.dataset, columns)
        try:
            for part in self._parts(columns, rows):
                digest.update(cast_batch(part, digest.schema))
            selections.refuse_changed(self.selection, digest.rows, digest.hexdigest())
        finally:
            digest.close()

    def _parts(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        rule = selections.rule_of(self.selection)
        for batch, places in _scan(self.lake, self.selection.dataset, rule, columns, rows, [self.scanned]):
            part = _only(batch, places[0])
            if part.num_rows:
                yield part


def choose_streams(
    lake: Lake,
    *,
    dataset: DatasetRef,
    partitions: Sequence[str] | None,
    columns: Sequence[str],
    target: str,
    split: Split,
    batch_rows: int,
    sample: float | None = None,
    seed: int = 0,
) -> tuple[RowStream, RowStream]:
    """Training and holdout rows, as :func:`~airflow_provider_xops.training.selections.choose` chooses them.

    The rows are read once to compute both digests.

    :raises TrainingError: as ``choose``.
    """
    rule = selections.split_rule(
        lake, dataset, partitions=partitions, columns=columns, target=target, split=split, sample=sample,
        seed=seed,
    )  # fmt: skip
    sides, intervals = selections.sides_of(lake, dataset, rule, [])
    for side, rows in sides.items():
        selections.refuse_empty(dataset, side, rows, split)
    digests = {side: _digest_of(lake, dataset, columns) for side in sides}
    try:
        scanned = [rows.scanned for rows in sides.values()]
        for batch, places in _scan(lake, dataset, rule, columns, batch_rows, scanned):
            for digest, place in zip(digests.values(), places, strict=True):
                digest.update(cast_batch(_only(batch, place), digest.schema))
        made = [
            RowStream(
                lake=lake,
                selection=selections.selection_from(
                    dataset, rows, {**rule, "side": side}, intervals.get(side, ""), digests[side].hexdigest()
                ),
                truth=target_values(rows.table, target),
                scanned=rows.scanned,
            )
            for side, rows in sides.items()
        ]
    finally:
        for digest in digests.values():
            digest.close()
    training, holdout = made
    log.info(
        "Chose %d training and %d holdout rows of %s, to be read in batches of %d.",
        training.selection.rows, holdout.selection.rows, dataset, batch_rows,
    )  # fmt: skip
    return training, holdout


def stream_of(lake: Lake, selection: Selection, *, target: str) -> RowStream:
    """The rows of a recorded selection, to be read in batches; :meth:`RowStream.verify` proves them."""
    rule = selections.rule_of(selection)
    rows = selections.sides_of(lake, selection.dataset, rule, [target])[0][rule["side"]]
    return RowStream(
        lake=lake, selection=selection, truth=target_values(rows.table, target), scanned=rows.scanned
    )


def learn_in_batches(recipe: Recipe, stream: RowStream) -> Any:
    """An estimator that has seen every row of the stream ``recipe.epochs`` times, a batch at a time.

    Batches come in canonical order; inside a batch the rows are shuffled by the seed, because most estimators
    of this kind learn badly from sorted rows. ``balanced`` class weights count all rows, not a batch's.

    :raises TrainingError: ``training.no_partial_fit``, ``training.fit_failed``,
        ``training.no_sample_weight``, ``training.weights``.
    """
    model = recipe.make()
    if not callable(getattr(model, "partial_fit", None)):
        raise TrainingError(
            f"{recipe.name} cannot learn in batches", code="training.no_partial_fit",
            why=f"a {type(model).__name__} has no partial_fit",
            todo="leave out batch_rows, or choose an estimator that has it, such as SGDClassifier; a pipeline"
            " has none: write a class that transforms and learns in its partial_fit",
        )  # fmt: skip
    task = recipe.task_of(model, stream.truth)
    always = _classes(model, task, stream.truth)
    factors = _class_factors(recipe, stream.truth)
    assert recipe.batch_rows is not None
    rows_seen = 0
    for epoch in range(recipe.epochs):
        for number, rows in enumerate(stream.batches(recipe.columns, recipe.batch_rows)):
            rows_seen += rows.num_rows
            order = random_order(rows.num_rows, f"{recipe.seed}/{epoch}/{number}")
            _learn_batch(recipe, model, rows.take(pa.array(order)), factors, always)
        log.info("Epoch %d of %d: %s has seen %d rows.", epoch + 1, recipe.epochs, recipe.name, rows_seen)
    if rows_seen and recipe.sample_weight:
        _refuse_weightless(recipe, stream)
    return model


def predict_in_batches(
    recipe: Recipe, model: Any, stream: RowStream, *, task: Task
) -> tuple[Predictions, pd.DataFrame]:
    """What the model says of every row of the stream, and the first batch's features.

    :raises ModelError: ``model.predict_failed``.
    """
    assert recipe.batch_rows is not None
    first: pd.DataFrame | None = None
    said: list[Predictions] = []
    for rows in stream.batches(recipe.features, recipe.batch_rows):
        frame = feature_frame(rows, recipe.features)
        first = frame if first is None else first
        said.append(predict(model, frame, task=task, name=recipe.name))
    assert first is not None
    scores = [each.probabilities for each in said]
    return Predictions(
        labels=np.concatenate([each.labels for each in said]),
        classes=said[0].classes,
        probabilities=None if scores[0] is None else np.concatenate(scores),
    ), first


def _learn_batch(
    recipe: Recipe, model: Any, rows: pa.Table, factors: Mapping[str, float] | None, always: dict[str, Any]
) -> None:
    frame, truth = feature_frame(rows, recipe.features), target_values(rows, recipe.target)
    weights = weighted_by_class(truth, recipe.weights_of(rows, whole=False), factors)
    keywords = fit_keywords(model, weights, name=recipe.name, method="partial_fit")
    with fitting_errors(recipe.name, frame):
        model.partial_fit(frame, truth, **always, **keywords)


def _classes(model: Any, task: Task, truth: Any) -> dict[str, Any]:
    """All classes, which a classifier must know before the first batch: that one may lack some."""
    takes = "classes" in inspect.signature(model.partial_fit).parameters
    return {"classes": np.unique(truth)} if task is Task.CLASSIFICATION and takes else {}


def _class_factors(recipe: Recipe, truth: Any) -> dict[str, float] | None:
    if recipe.class_weight is None:
        return None
    classes, counts = np.unique(truth, return_counts=True)
    return per_class(recipe.class_weight, classes, counts)


def _refuse_weightless(recipe: Recipe, stream: RowStream) -> None:
    """A column of zeros is found here, once all batches were seen: none of them alone tells it."""
    assert recipe.batch_rows is not None
    assert recipe.sample_weight is not None
    for rows in stream.batches([recipe.sample_weight], recipe.batch_rows):
        if np.any(recipe.weights_of(rows, whole=False) > 0):
            return
    raise TrainingError(
        "the rows cannot be weighted", code="training.weights",
        why=f"all weights in {recipe.sample_weight!r} are 0", todo="choose another column",
    )  # fmt: skip


def _digest_of(lake: Lake, dataset: DatasetRef, columns: Sequence[str]) -> SegmentDigest:
    schema = read.schema_of(lake, dataset)
    return SegmentDigest(to_delta_schema(pa.schema([schema.field(name) for name in columns])))


def _scan(
    lake: Lake,
    dataset: DatasetRef,
    rule: Mapping[str, Any],
    columns: Sequence[str],
    rows: int,
    scanned: Sequence[Any],
) -> Iterator[tuple[pa.RecordBatch, list[Any]]]:
    """Each batch of everything that was read, and the places in it of the rows of each side."""
    partitions = selections.partitions_read(lake, dataset, rule["read"])
    reader = read.scan(
        lake, dataset, partitions=partitions, columns=list(dict.fromkeys(columns)), batch_rows=rows
    )
    start = 0
    for batch in reader:
        end = start + batch.num_rows
        places = []
        for positions in scanned:
            low, high = np.searchsorted(positions, [start, end])
            places.append(positions[low:high] - start)
        yield batch, places
        start = end


def _only(batch: pa.RecordBatch, places: Any) -> pa.RecordBatch:
    return batch if len(places) == batch.num_rows else batch.take(pa.array(places))
