"""Batch scoring: every row of some partitions, exactly once per model version, in bounded memory.

For the scoring operator and `xops score`. Rows stream through the model batch by batch into one Delta
commit. Each prediction row says which model made it, from which dataset version, and has an id that leads
back to both (``<first 24 digits of the scoring run's record id>-<row>``, the row being its place in the input
partition).

Any number of calls may append to one table at once, each with partitions of its own: Delta's log puts their
commits into one order, and what is found there is not done again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from airflow_provider_xops.errors import ArgumentError, ModelError, NotFoundError, Superseded
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    DatasetRef,
    DatasetVersion,
    ModelVersion,
    ScoringRun,
    WriteMode,
)
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving._batch_columns import (
    OUR_COLUMNS,
    PREDICTION_ID_DIGITS,
    is_ours,
    policy_for,
)
from airflow_provider_xops.serving._batch_scorer import Scorer, partition_rows, tables_of, version_fence
from airflow_provider_xops.serving._progress import Progress, ProgressLines
from airflow_provider_xops.serving.reasons import ReasonPlan
from airflow_provider_xops.training.frames import unusable_columns
from airflow_provider_xops.training.predicting import check_columns

__all__ = [
    "BACK_SCORING",
    "OUR_COLUMNS",
    "PREDICTION_ID_DIGITS",
    "Progress",
    "ProgressLines",
    "ScoreResult",
    "rows_to_score",
    "score",
    "tables_of",
]

log = logging.getLogger(__name__)

BACK_SCORING = "back_scoring"


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """What scoring left behind.

    :param dataset_out: the version of the output table that holds the predictions.
    :param runs: one record for each input partition.
    :param reused: all of them had been scored before by this model version; nothing was written.
    :param superseded: partitions that were left out, because this model version has scored a later version of
        them: what is there stays.
    """

    dataset_out: DatasetVersion
    runs: tuple[ScoringRun, ...]
    reused: bool
    superseded: tuple[str, ...] = ()


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
    reasons: ReasonPlan | Mapping[str, Any] | int | None = None,
    purpose: str = "",
    progress: Callable[[Progress], object] | None = None,
    actor: Actor,
    as_of: datetime,
) -> ScoreResult:
    """Predict every row of some partitions and append the predictions to ``output_table``.

    :param partitions: of the input; None: all of the version.
    :param keep_columns: input columns that go along (keys to join the labels by, later).
    :param batch_rows: rows of a batch; at most two batches are in memory.
    :param reasons: so many features that moved each prediction most go along, with their contributions; see
        :class:`~airflow_provider_xops.serving.reasons.ReasonPlan`.
    :param purpose: empty: predictions made to be used. ``back_scoring``: made afterwards; they say so, and
        stand beside those of the same model and partition that were made to be used.
    :param progress: called after every batch, in this thread; what it raises ends the scoring.
    :returns: with ``reused=True`` where this model version had scored the same content before.
    :raises ModelError: ``model.columns_missing`` or ``model.columns_type``, naming the columns;
        ``model.predict_failed``; with reasons ``model.training_unknown``.
    :raises ArgumentError: ``argument.keep_columns``, ``argument.output_table``, ``argument.batch_rows``,
        ``argument.purpose``; of reasons ``argument.reasons``, ``argument.reasons_cost`` and
        ``argument.extra_missing``.
    :raises NotFoundError: ``not_found.partition``.
    :raises Superseded: ``superseded.commit``: this model version has scored a later version of all of them.

    The output has, beside ``keep_columns``: ``prediction_id``, ``prediction`` (whole number, number or
    text, as the target), ``score`` (the positive class's probability; null where the model gives none),
    ``model_name``, ``model_version``, ``input_table``, ``input_version``, ``input_partition``. With reasons
    also ``reason_1``, ``reason_1_contribution`` and so on, ``reason_base`` and ``reason_rest``, which
    together are the answer; back-scored rows have ``purpose``. A table that has none of these gets them by
    evolution.

    >>> score(lake, client, model=champion, dataset=ref, partitions=["2013-04-01"],
    ...       output_table="predictions", actor=actor, as_of=now).reused  # doctest: +SKIP
    False

    What it does not do: rows without enough data are predicted like any other; check data before, by
    validation.
    """
    schema = read.schema_of(lake, dataset)
    _check_arguments(dataset, output_table, schema, keep_columns, batch_rows, purpose)
    plan = ReasonPlan.of(reasons)
    check_columns(schema.names, model.features, name=str(model.ref), data=str(dataset))
    unusable = unusable_columns(schema, model.features)
    if unusable:
        raise ModelError(
            f"{model.ref} does not accept {dataset}", code="model.columns_type",
            why=f"the columns {', '.join(unusable)} are of a type that no estimator takes",
            todo="give it the dataset it was trained on, or one with the same columns",
        )  # fmt: skip
    digests = _digests(lake, dataset, partitions)
    runs = {
        name: _scoring_run(model, dataset, name, digest, output_table, purpose, actor, as_of)
        for name, digest in digests.items()
    }
    rows = partition_rows(lake, dataset, list(runs))
    # A cleared or late run of an earlier version must not take back what a correction brought. Predictions
    # made afterwards are of the version that somebody asked for, whichever it is.
    writer = actor if purpose else dataclasses.replace(actor, fence=version_fence(lake, dataset))
    superseded: list[str] = []
    while True:
        scorer = Scorer(
            lake, client, model=model, runs=runs, keep=keep_columns, batch_rows=batch_rows, reasons=plan,
            schema=schema, rows=rows, progress=progress,
        )  # fmt: skip
        try:
            result = commit(
                lake, output_table, scorer.segments(), mode=WriteMode.APPEND,
                evolve=policy_for(lake, output_table, scorer.names()), parents=[dataset],
                parent_partitions=[list(runs)], parent_records=[model.record_id], actor=writer, as_of=as_of,
                note=f"predictions of {model.ref}" + (", made afterwards" if purpose else ""),
            )  # fmt: skip
            break
        except Superseded as error:
            late = error.context.get("partition")
            if purpose or late not in runs or len(runs) == 1:
                raise
            superseded.append(late)
            del runs[late]
    if superseded:
        log.warning(
            "Left out %d partition(s) of %s, among them %s: %s has scored a later version of them.",
            len(superseded), dataset, superseded[0], model.ref,
        )  # fmt: skip
    recorded = tuple(_record(lake, run, result.record.ref, rows[name]) for name, run in runs.items())
    count = sum(run.rows for run in recorded)
    log.info(
        "%s rows of %d partition(s) of %s with %s into %s.",
        f"Had scored {count}" if result.reused else f"Scored {count}",
        len(runs),
        dataset,
        model.ref,
        result.record.ref,
    )
    return ScoreResult(
        dataset_out=result.record, runs=recorded, reused=result.reused, superseded=tuple(superseded)
    )


def rows_to_score(lake: Lake, dataset: DatasetRef, partitions: Sequence[str] | None = None) -> dict[str, int]:
    """How many rows each of these partitions has (None: each of the version), in their order.

    :raises NotFoundError: ``not_found.partition``.
    """
    return partition_rows(lake, dataset, list(_digests(lake, dataset, partitions)))


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
    purpose: str,
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
        purpose=purpose,
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
    dataset: DatasetRef, output_table: str, schema: pa.Schema, keep: Sequence[str], batch_rows: int,
    purpose: str,
) -> None:  # fmt: skip
    if output_table == dataset.table:
        raise ArgumentError(
            f"predictions cannot go into {output_table}, which they are made from",
            code="argument.output_table",
            todo="name another table",
        )
    unknown = [name for name in keep if name not in schema.names]
    taken = [name for name in keep if is_ours(name)]
    if unknown or taken or len(set(keep)) < len(keep):
        raise ArgumentError(
            f"the columns {', '.join(unknown or taken or keep)} cannot be kept beside the predictions",
            code="argument.keep_columns",
            why=f"{dataset} does not have them" if unknown else "the names are taken, or named twice",
            todo=f"choose among {', '.join(name for name in schema.names if not is_ours(name))}",
        )  # fmt: skip
    if batch_rows < 1:
        raise ArgumentError("a batch has at least one row", code="argument.batch_rows", todo="pass 50000")
    if purpose not in ("", BACK_SCORING):
        raise ArgumentError(
            f"the purpose of predictions is {str(purpose)[:40]!r}", code="argument.purpose",
            todo=f"leave it empty, or give {BACK_SCORING}",
        )  # fmt: skip
