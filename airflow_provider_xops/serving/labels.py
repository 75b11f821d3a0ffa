"""Labels that arrive days after their predictions, joined to them exactly once.

For the label operator, `xops join-labels` and notebooks. What stands in a partition of the output follows
from the predictions of that partition and from the labels as they are, and from nothing else: not from the
order in which labels came, nor from how often or by whom they were joined. A late label adds its row, a
corrected one changes it, a withdrawn one takes it away; earlier versions of the output keep what was known
before (:func:`label_history`).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.errors import DataError, NotFoundError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.schema import PARTITION_COLUMN, to_delta_schema
from airflow_provider_xops.lake.tables import open_table
from airflow_provider_xops.records import (
    Actor,
    DatasetRef,
    DatasetVersion,
    LabelJoin,
    WriteMode,
    digest_of,
)
from airflow_provider_xops.serving._batch_scorer import partition_rows
from airflow_provider_xops.serving._label_arguments import (
    BY_PARTITION,
    LABEL_PARTITION,
    PREDICTION_ID,
    check_arguments,
    chosen,
    fence_of,
    label_of,
)
from airflow_provider_xops.serving._label_matching import ID, LABEL, NEWEST, PARTITION, Match, Matcher, key

__all__ = ["BY_PARTITION", "PREDICTION_ID", "LabelsJoined", "PastLabel", "join_labels", "label_history"]

log = logging.getLogger(__name__)

SHADOW_OF = "shadow_of"
# At once in memory while predictions and labels pass by.
BATCH_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class LabelsJoined:
    """What a join left behind.

    :param dataset_out: the version of the output that holds the labeled predictions.
    :param joins: one record for each partition of predictions.
    :param unmatched: labels without a prediction.
    :param reused: the output held exactly this before; nothing was written.
    """

    dataset_out: DatasetVersion
    joins: tuple[LabelJoin, ...]
    unmatched: int
    reused: bool

    @property
    def joined(self) -> int:
        """Predictions that have their label."""
        return sum(join.joined for join in self.joins)

    @property
    def waiting(self) -> int:
        """Predictions that have none yet."""
        return sum(join.waiting for join in self.joins)


@dataclass(frozen=True, kw_only=True)
class PastLabel:
    """A label as one version of the output had it; None: it had none."""

    dataset: DatasetRef
    labels: DatasetRef
    recorded_at: datetime
    label: Any


def join_labels(
    lake: Lake,
    *,
    predictions: DatasetRef,
    labels: DatasetRef,
    label_column: str,
    output_table: str,
    on: Sequence[str] = (PREDICTION_ID,),
    partitions: Sequence[str] | None = None,
    same_partition: bool | None = None,
    newest_by: str | None = None,
    label_as: str = LABEL,
    memory_limit: str = "1GB",
    actor: Actor,
    as_of: datetime,
) -> LabelsJoined:
    """Make ``output_table`` hold every prediction of some partitions that has a label, with its label.

    :param predictions: a version of a table of predictions: of batch scoring, or a server's prediction log.
    :param labels: a version of the table that the labels arrive in.
    :param on: columns that both tables have: ``prediction_id``, or keys that were kept beside the
        predictions. A prediction that was made in the shadow of another has the other one's label.
    :param partitions: of the predictions; None: all of the version.
    :param same_partition: the label of a prediction is in the partition of the same name. By default so for
        keys, and not for prediction ids.
    :param newest_by: which of several labels of one key counts: that of the largest value in this column (a
        time, a number), or, with ``partition``, of the last partition. By default they must all be the same.
        A missing label that is the newest takes the label away; what has nothing in this column is the
        oldest.
    :param label_as: what the label is called in the output. :param memory_limit: of the matching; what does
        not fit goes to disk.
    :returns: with ``reused=True`` where the output held exactly this already.
    :raises ArgumentError: ``argument.join_keys``, ``argument.label_column``, ``argument.label_as``,
        ``argument.output_table``, ``argument.newest_by``, ``argument.memory_limit``.
    :raises NotFoundError: ``not_found.partition``.
    :raises DataError: ``data.duplicate_labels`` (different labels of one key, and nothing says which is
        newer), ``data.key_type``, ``data.join_memory``.
    :raises Superseded: ``superseded.commit``: a partition was joined with a later version of the labels.

    >>> join_labels(lake, predictions=scored, labels=outcomes, label_column="late", output_table="labeled",
    ...             on=["flight", "time_hour"], actor=actor, as_of=now).joined  # doctest: +SKIP
    842

    The output has the columns of the predictions, the label, and ``label_partition``, where it came from; its
    partitions are those of the predictions. A partition without any label is there, with no rows.

    What it does not do: it never writes to the predictions, nor to what they were made from, so a label
    cannot get into the features of a model by it; and it judges no prediction.
    """
    by_id = list(on) == [PREDICTION_ID]
    same = (not by_id) if same_partition is None else same_partition
    schemas = read.schema_of(lake, predictions), read.schema_of(lake, labels)
    check_arguments(
        lake, predictions, labels, schemas, on=on, label_column=label_column, newest_by=newest_by,
        label_as=label_as, output_table=output_table,
    )  # fmt: skip
    digests = chosen(lake, predictions, partitions)
    rule = [list(on), label_column, newest_by, label_as, same]
    with tempfile.TemporaryDirectory(prefix="xops-labels-") as folder:
        matcher = Matcher(
            keys=len(on), ordered=newest_by is not None, folder=Path(folder), memory_limit=memory_limit
        )
        with matcher:
            join = _Join(lake, predictions, labels, schemas, tuple(on), label_column, newest_by, label_as)
            matches, unmatched = join.match(matcher, list(digests), same=same)
            segments = [
                Segment(
                    partition=name,
                    fingerprint=digest_of([digests[name], matches[name].digest, rule]),
                    data=lambda name=name: join.rows(matcher, name, matches[name]),  # type: ignore[misc]
                )
                for name in digests
            ]
            result = commit(
                lake, output_table, segments, mode=WriteMode.REPLACE, keys=(PREDICTION_ID,),
                evolve={"added": "evolve", "removed": "fill_null"}, parents=[predictions, labels],
                parent_partitions=[list(digests), None],
                actor=replace(actor, fence=fence_of(lake, labels, predictions)), as_of=as_of,
                note=f"labels of {labels} for predictions of {predictions}",
            )  # fmt: skip
    rows = partition_rows(lake, predictions, list(digests))
    joins = tuple(
        LabelJoin(
            recorded_at=as_of, produced_by=actor.producer, predictions=predictions, labels=labels,
            partition=name, dataset_out=result.record.ref, joined=matches[name].joined,
            waiting=rows[name] - matches[name].joined,
            unmatched=unmatched[name] if same else unmatched[""],
        )
        for name in digests
    )  # fmt: skip
    for record in joins:
        lake.evidence.put(record, quiet=True)
    made = LabelsJoined(
        dataset_out=result.record, joins=joins, unmatched=sum(unmatched.values()), reused=result.reused
    )
    log.info(
        "Labels of %s for %d partition(s) of %s: %d predictions have theirs, %d wait, %d labels are of no"
        " prediction; %s.",
        labels, len(joins), predictions, made.joined, made.waiting, made.unmatched,
        "nothing new" if made.reused else result.record.ref,
    )  # fmt: skip
    return made


def label_history(lake: Lake, output_table: str, prediction_id: str, *, partition: str) -> list[PastLabel]:
    """The labels that a prediction has had, oldest first, each with the version of the output that had it.

    :param partition: of the prediction.
    :raises NotFoundError: there is no such table.

    >>> [past.label for past in label_history(lake, "labeled", "4f0c0ffee4f0c0ffee4f0c0f-17",
    ...                                       partition="2013-04-01")]  # doctest: +SKIP
    [None, 0, 1]

    What it does not do: versions whose files were vacuumed are left out; keep them by `xops lake hold`.
    """
    uuid = str(open_table(lake, output_table).metadata().id)
    seen: dict[int, LabelJoin] = {}
    for record in lake.evidence.all(LabelJoin.kind):
        if (
            isinstance(record, LabelJoin)
            and (record.dataset_out.table_uuid, record.partition) == (uuid, partition)
        ):  # fmt: skip
            first = seen.get(record.dataset_out.version)
            if first is None or record.recorded_at < first.recorded_at:
                seen[record.dataset_out.version] = record
    found: list[PastLabel] = []
    for _, record in sorted(seen.items()):
        try:
            label = _label_in(lake, record.dataset_out, prediction_id, partition)
        except NotFoundError:
            continue
        if not found or found[-1].label != label:
            found.append(
                PastLabel(
                    dataset=record.dataset_out, labels=record.labels, recorded_at=record.recorded_at,
                    label=label,
                )
            )  # fmt: skip
    return found


def _label_in(lake: Lake, ref: DatasetRef, prediction_id: str, partition: str) -> Any:
    label = label_of(read.schema_of(lake, ref).names)
    own = pc.field(PREDICTION_ID) == prediction_id
    rows = read.scan(lake, ref, partitions=[partition], columns=[label], filter=own).read_all()
    return rows.column(label)[0].as_py() if rows.num_rows else None


@dataclass(frozen=True)
class _Join:
    """One join: what is read of both tables, in the shape that the matcher takes."""

    lake: Lake
    predictions: DatasetRef
    labels: DatasetRef
    schemas: tuple[pa.Schema, pa.Schema]
    on: tuple[str, ...]
    label_column: str
    newest_by: str | None
    label_as: str

    def match(
        self, matcher: Matcher, partitions: Sequence[str], *, same: bool
    ) -> tuple[dict[str, Match], dict[str, int]]:
        """The labels of each partition, and how many labels are of no prediction (of a partition, or "")."""
        matches: dict[str, Match] = {}
        if same:
            there = set(read.partitions(self.lake, self.labels))
            unmatched = {}
            for name in partitions:
                matcher.take_labels(self._known([name] if name in there else []))
                matches[name] = self._checked(matcher.match(self._asked([name])))
                unmatched[name] = matcher.unmatched([matches[name]])
            return matches, unmatched
        matcher.take_labels(self._known(None))
        for name in partitions:
            matches[name] = self._checked(matcher.match(self._asked([name])))
        others = sorted(set(read.partitions(self.lake, self.predictions)) - set(partitions))
        if others:
            matcher.note_elsewhere(self._asked(others))
        return matches, {"": matcher.unmatched(list(matches.values()))}

    def rows(self, matcher: Matcher, partition: str, match: Match) -> pa.RecordBatchReader:
        """What is written of one partition."""
        kept = [field for field in self.schemas[0] if field.name not in (self.label_as, LABEL_PARTITION)]
        label = to_delta_schema(pa.schema([self.schemas[1].field(self.label_column)])).field(0)
        schema = pa.schema(
            [*kept, pa.field(self.label_as, label.type), pa.field(LABEL_PARTITION, pa.string())]
        )
        payload = read.scan(
            self.lake, self.predictions, partitions=[partition], columns=[field.name for field in kept],
            batch_rows=BATCH_ROWS,
        )  # fmt: skip
        batches = matcher.rows(match, payload, schema, prediction_id=PREDICTION_ID)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def _checked(self, match: Match) -> Match:
        if match.ambiguous:
            raise DataError(
                f"{match.ambiguous} labels of {self.labels} are there with different values",
                code="data.duplicate_labels",
                why=f"rows with the same {', '.join(self.on)} say different things"
                + (f", and are as new as each other by {self.newest_by}" if self.newest_by else ""),
                todo="name the column that says which is the newest (newest_by), or correct the labels",
                context={"labels": match.ambiguous},
            )
        return match

    def _asked(self, partitions: Sequence[str]) -> pa.RecordBatchReader:
        """Ids and keys of predictions."""
        shadows = self.on == (PREDICTION_ID,) and SHADOW_OF in self.schemas[0].names
        wanted = list(dict.fromkeys([PREDICTION_ID, *self.on, *([SHADOW_OF] if shadows else [])]))
        reader = read.scan(
            self.lake, self.predictions, partitions=list(partitions), columns=wanted, batch_rows=BATCH_ROWS
        )
        kinds = [reader.schema.field(name).type for name in self.on]
        names = [ID, *(key(place) for place in range(len(self.on)))]
        schema = pa.schema(list(zip(names, [pa.string(), *kinds], strict=True)))

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in reader:
                keys = [batch.column(name) for name in self.on]
                if shadows:
                    keys = [pc.coalesce(batch.column(SHADOW_OF), keys[0])]
                yield pa.RecordBatch.from_arrays([batch.column(PREDICTION_ID), *keys], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _known(self, partitions: Sequence[str] | None) -> pa.RecordBatchReader:
        """Keys, label, partition and order of the labels."""
        columns = [*self.on, self.label_column]
        if self.newest_by not in (None, BY_PARTITION):
            columns.append(str(self.newest_by))
        wanted = list(dict.fromkeys(columns))
        kinds = {name: self.schemas[1].field(name).type for name in wanted}
        fields = [(key(place), kinds[name]) for place, name in enumerate(self.on)]
        fields += [(LABEL, kinds[self.label_column]), (PARTITION, pa.string())]
        if self.newest_by is not None:
            fields.append((NEWEST, kinds.get(columns[-1]) if self.newest_by != BY_PARTITION else pa.string()))
        schema = pa.schema(fields)

        def batches() -> Iterator[pa.RecordBatch]:
            if partitions is not None and not partitions:
                return
            reader = read.scan(
                self.lake, self.labels, partitions=partitions, columns=wanted, with_partition=True,
                batch_rows=BATCH_ROWS,
            )  # fmt: skip
            for batch in reader:
                columns = [_present(batch.column(name)) for name in (*self.on, self.label_column)]
                columns.append(batch.column(PARTITION_COLUMN))
                if self.newest_by is not None:
                    by = PARTITION_COLUMN if self.newest_by == BY_PARTITION else self.newest_by
                    columns.append(_present(batch.column(by)))
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())


def _present(column: pa.Array) -> pa.Array:
    """The column with NaN as missing: to DuckDB it equals itself, and is the largest of all numbers."""
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
