"""The operator that gives predictions their labels when these arrive.

For :mod:`airflow_provider_xops.operators.model`, its public place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.operators._arguments import list_of, one_of, optional, whole_number
from airflow_provider_xops.operators._base import XOpsOperator, actor_of, now
from airflow_provider_xops.operators._datasets import (
    NamedDataset,
    dataset_of,
    dataset_or_trigger,
    partitions_of,
)
from airflow_provider_xops.version_compat import AirflowSkipException

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = ["JoinLabelsOperator"]


class JoinLabelsOperator(XOpsOperator):
    """Joins labels that arrived after their predictions, exactly once, late and corrected ones too.

    Scheduled on the asset of the labels it runs whenever some arrive. What it writes follows from the
    predictions and the labels as they are, so that no order of runs, retries and clears makes a difference.

    :param predictions: the table of predictions (its head), ``TABLE@VERSION``, a record id or a task's
        output; of batch scoring, or the prediction log of a server.
    :param label_column: the label, in the table of labels.
    :param output_table: the table of the predictions that have a label.
    :param labels_table: the table the labels arrive in, as the run was started: at the highest version its
        events name, else at the parameter ``dataset_version``, else at its head.
    :param labels: exactly this version instead: a task's output, a record id, ``TABLE`` or ``TABLE@VERSION``.
    :param on: the columns to join by, in both tables: ``prediction_id``, or keys kept beside the predictions.
    :param partition: of the predictions: a name, a range of days, or a list. Empty: joined by keys, those
        partitions in which the run's events brought labels; else all.
    :param last_partitions: where no partition is named, only so many of the last ones: labels come for as
        long.
    :param same_partition: the label of a prediction is in the partition of the same name; empty: so for keys,
        not for prediction ids.
    :param newest_by: which of several labels of one key counts: that of the largest value of this column, or
        with ``partition`` that of the last partition; empty: they must all be the same.
    :param label_as: what the label is called in the output.
    :param memory_limit: of the matching; what does not fit goes to disk.
    :param on_no_predictions: what the task does where nothing was predicted yet that the labels could be of:
        ``fail`` or ``skip``.
    :raises DataError: different labels of one key, and nothing says which is newer; keys of other types.
    :raises NotFoundError: there is no such table or partition.

    Returns the record of the output's version, with ``reused``, how many predictions are ``joined`` and
    ``waiting``, how many labels are ``unmatched``, and ``label_joins``, a record for each partition.

    Example::

        JoinLabelsOperator(
            task_id="labels",
            predictions="predictions",
            labels_table="outcomes",
            label_column="late",
            on=["flight", "time_hour"],
            output_table="labeled_predictions",
            outlets=[Asset("labeled_predictions")],
        )

    What it does not do: it measures nothing, and changes neither predictions nor labels.
    """

    required = ("predictions", "label_column", "output_table", "on", "label_as", "on_no_predictions")
    template_fields = (
        *XOpsOperator.template_fields,
        "predictions",
        "label_column",
        "output_table",
        "labels_table",
        "labels",
        "on",
        "partition",
        "last_partitions",
        "newest_by",
        "label_as",
        "on_no_predictions",
    )
    operator_extra_links = (EvidenceLink(),)

    def __init__(
        self,
        *,
        predictions: Any,
        label_column: str,
        output_table: str,
        labels_table: str | None = None,
        labels: Any = None,
        on: str | Sequence[str] = ("prediction_id",),
        partition: str | Sequence[str] | None = None,
        last_partitions: int | str | None = None,
        same_partition: bool | None = None,
        newest_by: str | None = None,
        label_as: str = "label",
        memory_limit: str = "1GB",
        on_no_predictions: Literal["fail", "skip"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.predictions = predictions
        self.label_column = label_column
        self.output_table = output_table
        self.labels_table = labels_table
        self.labels = labels
        self._labels_given = labels is not None
        self.on = on
        self.partition = partition
        self.last_partitions = last_partitions
        self.same_partition = same_partition
        self.newest_by = newest_by
        self.label_as = label_as
        self.memory_limit = memory_limit
        self.on_no_predictions = on_no_predictions

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.serving.labels import join_labels

        one_of(self.on_no_predictions, ("fail", "skip"), argument="on_no_predictions")
        lake = self.lake()
        labels = self._labels(context, lake)
        on = [str(name) for name in list_of(self.on, argument="on") or ()]
        predictions, partitions = self._predictions(lake, labels, on)
        result = join_labels(
            lake,
            predictions=predictions.ref,
            labels=labels.ref,
            label_column=self.label_column,
            output_table=self.output_table,
            on=on,
            partitions=partitions,
            same_partition=self.same_partition,
            newest_by=optional(self.newest_by),
            label_as=self.label_as,
            memory_limit=self.memory_limit,
            actor=actor_of(context),
            as_of=now(),
        )
        return self.hand_over(
            context,
            lake,
            result.dataset_out,
            reused=result.reused,
            joined=result.joined,
            waiting=result.waiting,
            unmatched=result.unmatched,
            label_joins=[record.record_id for record in result.joins[-100:]],
        )

    def _labels(self, context: Context, lake: Lake) -> NamedDataset:
        found = dataset_or_trigger(
            context, lake, dataset=self.labels, given=self._labels_given, table=self.labels_table
        )
        if len(found) > 1:
            raise ArgumentError(
                f"this run was started by {len(found)} tables, labels are in one", code="argument.dataset",
                todo="name it: labels_table='...'",
            )  # fmt: skip
        return found[0]

    def _predictions(
        self, lake: Lake, labels: NamedDataset, on: Sequence[str]
    ) -> tuple[NamedDataset, Sequence[str] | None]:
        """The version of the predictions, and which of its partitions; None: all."""
        from airflow_provider_xops.lake import read

        last = whole_number(self.last_partitions, argument="last_partitions")
        if last is not None and last < 1:
            raise ArgumentError(
                f"last_partitions is {last}", code="argument.last_partitions", todo="give 1 or more"
            )
        asked = partitions_of(self.partition)
        try:
            found = dataset_of(lake, self.predictions, argument="predictions")
        except NotFoundError as error:
            if error.code == "not_found.table" and self.on_no_predictions == "skip":
                raise AirflowSkipException(f"Nothing was predicted yet: {error.what}.") from None
            raise
        if asked is not None:
            return found, asked
        there = sorted(read.partitions(lake, found.ref))
        chosen = [name for name in there if found.partitions is None or name in found.partitions]
        same = self.same_partition if self.same_partition is not None else list(on) != ["prediction_id"]
        if same and labels.partitions is not None:
            chosen = [name for name in chosen if name in set(labels.partitions)]
            unknown = [name for name in labels.partitions if name not in there]
            if chosen and unknown:
                self.log.warning(
                    "%d partition(s) of labels, among them %s, have no predictions in %s yet.",
                    len(unknown), unknown[0], found.ref,
                )  # fmt: skip
        if last is not None:
            chosen = chosen[-last:]
        if chosen:
            return found, chosen
        what = f"{found.ref} has no predictions in the partitions that the labels are of"
        if self.on_no_predictions == "skip":
            raise AirflowSkipException(what)
        raise NotFoundError(
            what, code="not_found.partition", why=f"it has {len(there)} partitions",
            todo="score these partitions first, or set on_no_predictions='skip'",
        )  # fmt: skip
