"""Operators that score datasets with a registered model, and share the work among mapped tasks.

For :mod:`airflow_provider_xops.operators.model`, their public place.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink
from airflow_provider_xops.operators._arguments import (
    is_empty,
    list_of,
    mapping_of,
    one_of,
    optional,
    whole_number,
)
from airflow_provider_xops.operators._base import RegistryOperator, XOpsOperator, actor_of, now
from airflow_provider_xops.operators._datasets import NamedDataset, dataset_or_trigger, partitions_of
from airflow_provider_xops.version_compat import AirflowSkipException

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = ["PartitionsToScoreOperator", "ScoreDatasetOperator"]

PRODUCTION, BACK_SCORING = "production", "back_scoring"


class ScoreDatasetOperator(RegistryOperator):
    """Predicts every row of the partitions a run is about, each partition exactly once.

    Rows are streamed in batches, and the task log says now and then how far it is. Every prediction carries
    its id, the model's name and version, and the dataset version it was made from; ``xops trace
    PREDICTION_ID`` walks back from there to the source file. Mapped over partitions, any number of these
    tasks append to one table at once.

    :param output_table: the table the predictions are appended to.
    :param model_name: the registered model; its champion (by the ledger) predicts, or ``model_version`` does.
    :param model: exactly this model version instead: the output of a training task, or a model record's id.
    :param model_version: a version number; empty: the one ``alias`` stands for.
    :param alias: which alias, where no version is named.
    :param table: the published table to score. A run started by asset events scores all distinct partitions
        they name, at the highest version; one started by hand scores all partitions of the version that its
        parameter ``dataset_version`` names (a number, or ``TABLE@VERSION``), else of the head.
    :param dataset: exactly this version instead: a task's output, a record id, ``TABLE`` or
        ``TABLE@VERSION``.
    :param partition: only these: a name, a range of days, or a list; empty: see ``table``.
    :param keep_columns: input columns that go along, to join the labels by later.
    :param batch_rows: rows of a batch; at most two batches are in memory.
    :param reasons: so many features that moved each prediction most go along, with their signed
        contributions; or a mapping, see :class:`~airflow_provider_xops.serving.reasons.ReasonPlan`. Needs the
        extra ``explain``.
    :param purpose: ``production``, or ``back_scoring``: made afterwards, of a past range; the predictions say
        so, and are kept apart from those that were made to be used.
    :param champion_of_the_day: each partition, which must be a day, is back-scored by the version that was
        ``alias`` when that day ended.
    :param time_zone: in which these days begin and end.
    :param on_missing_model: what the task does where the alias has no champion yet (or had none on a day):
        ``fail`` or ``skip``.
    :raises ModelError: the model cannot be loaded, or does not accept the data.
    :raises NotFoundError: there is no such model, dataset or partition.

    Returns the record of the predictions' version, with ``reused``, the ``model_record`` and the
    ``scoring_runs``. It emits nothing where all partitions had been scored by this model version before.

    Example::

        ScoreDatasetOperator(
            task_id="score",
            table="daily",
            model_name="late",
            output_table="predictions",
            keep_columns=["flight", "time_hour"],
            outlets=[Asset("predictions")],
        )

    What it does not do: it judges no data; score published tables only.
    """

    required = ("output_table", "alias", "purpose", "time_zone", "on_missing_model")
    template_fields = (
        *RegistryOperator.template_fields,
        "output_table",
        "model_name",
        "model",
        "model_version",
        "alias",
        "table",
        "dataset",
        "partition",
        "keep_columns",
        "reasons",
        "purpose",
        "time_zone",
        "on_missing_model",
    )
    operator_extra_links = (EvidenceLink(), MlflowModelVersionLink())

    def __init__(
        self,
        *,
        output_table: str,
        model_name: str | None = None,
        model: Any = None,
        model_version: int | str | None = None,
        alias: str = "champion",
        table: str | None = None,
        dataset: Any = None,
        partition: str | Sequence[str] | None = None,
        keep_columns: Sequence[str] = (),
        batch_rows: int = 50_000,
        reasons: int | Mapping[str, Any] | str | None = None,
        purpose: Literal["production", "back_scoring"] = "production",
        champion_of_the_day: bool = False,
        time_zone: str = "UTC",
        on_missing_model: Literal["fail", "skip"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.output_table = output_table
        self.model_name = model_name
        self.model = model
        self._model_given = model is not None
        self.model_version = model_version
        self.alias = alias
        self.table = table
        self.dataset = dataset
        self._dataset_given = dataset is not None
        self.partition = partition
        self.keep_columns = keep_columns
        self.batch_rows = batch_rows
        self.reasons = reasons
        self.purpose = purpose
        self.champion_of_the_day = champion_of_the_day
        self.time_zone = time_zone
        self.on_missing_model = on_missing_model

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.serving.back_scoring import back_score
        from airflow_provider_xops.serving.batch import ProgressLines, score

        one_of(self.on_missing_model, ("fail", "skip"), argument="on_missing_model")
        purpose = one_of(self.purpose, (PRODUCTION, BACK_SCORING), argument="purpose")
        lake, registry = self.lake(), self.registry()
        model = None if self.champion_of_the_day else model_to_score(lake, self)
        found = one_dataset(context, lake, self)
        partitions = partitions_of(self.partition) or found.partitions
        arguments: dict[str, Any] = {
            "dataset": found.ref,
            "output_table": self.output_table,
            "keep_columns": list_of(self.keep_columns, argument="keep_columns") or (),
            "batch_rows": self.batch_rows,
            "reasons": reasons_of(self.reasons),
            "progress": ProgressLines(self.log.info, clock=time.monotonic),
            "actor": actor_of(context),
            "as_of": now(),
        }
        if model is None:
            plan, without = self._champions(lake, found, partitions)
            done = back_score(lake, registry, plan=plan, without=without, **arguments)
            results, reused = [result for _, result in done.scored], done.reused
            model = done.scored[-1][0]
        else:
            told = "" if purpose == PRODUCTION else BACK_SCORING
            results = [score(lake, registry, model=model, partitions=partitions, purpose=told, **arguments)]
            reused = results[0].reused
        self.link_model(registry, model.name, model.version)
        runs = [run for result in results for run in result.runs]
        return self.hand_over(
            context,
            lake,
            max((result.dataset_out for result in results), key=lambda record: record.version),
            reused=reused,
            model_record=model.record_id,
            scoring_runs=[run.record_id for run in runs[:100]],
            scored_rows=sum(run.rows for run in runs),
        )

    def _champions(self, lake: Lake, found: NamedDataset, partitions: Any) -> Any:
        from airflow_provider_xops.serving.back_scoring import plan_with_champions

        if self._model_given or not is_empty(self.model_version) or is_empty(self.model_name):
            raise ArgumentError(
                f"task {self.task_id} asks for the champion of each day, and names a version or no model",
                code="argument.champion_of_the_day", todo="give model_name alone",
            )  # fmt: skip
        plan, without = plan_with_champions(
            lake, model_name=str(self.model_name), alias=self.alias, dataset=found.ref,
            partitions=partitions, time_zone=self.time_zone, on_no_champion=self.on_missing_model,
        )  # fmt: skip
        if not plan:
            raise AirflowSkipException(f"{self.model_name} had no {self.alias} on any of these days.")
        if without:
            self.log.warning("Left out %d day(s) without a %s.", len(without), self.alias)
        return plan, without


class PartitionsToScoreOperator(XOpsOperator):
    """Shares the partitions a run is about among mapped scoring tasks, by their size.

    It decides once which dataset version is scored by which model version, so that tasks that begin later,
    perhaps behind a promotion, do the same work as those that began first.

    :param table: the published table to score; which version and partitions, see
        :class:`ScoreDatasetOperator`.
    :param dataset: exactly this version instead: a task's output, a record id, ``TABLE`` or
        ``TABLE@VERSION``.
    :param partition: only these: a name, a range of days, or a list; empty: see ``table``.
    :param model_name: the registered model; its champion (by the ledger) predicts, or ``model_version`` does.
    :param model: exactly this model version instead: the output of a training task, or a model record's id.
    :param model_version: a version number; empty: the one ``alias`` stands for.
    :param alias: which alias, where no version is named.
    :param rows_per_task: a task gets partitions of at most so many rows together, or one larger partition.
    :param max_tasks: where that made more tasks, each gets more. Airflow's own limit is
        ``[core] max_map_length``, 1024.
    :param on_missing_model: what the task does where the alias has no champion yet: ``fail`` or ``skip``.
    :raises NotFoundError: there is no such model, dataset or partition.

    Returns a list of ``{"dataset", "partition", "model"}``, the arguments of one mapped task each. It emits
    no event.

    Example::

        shares = PartitionsToScoreOperator(task_id="shares", table="daily", model_name="late")
        ScoreDatasetOperator.partial(task_id="score", output_table="predictions").expand_kwargs(
            shares.output
        )

    What it does not do: it leaves nothing out that was scored before; the task that gets it finds that out
    and writes nothing.
    """

    required = ("alias", "on_missing_model")
    template_fields = (
        *XOpsOperator.template_fields,
        "table",
        "dataset",
        "partition",
        "model_name",
        "model",
        "model_version",
        "alias",
        "rows_per_task",
        "max_tasks",
        "on_missing_model",
    )

    def __init__(
        self,
        *,
        table: str | None = None,
        dataset: Any = None,
        partition: str | Sequence[str] | None = None,
        model_name: str | None = None,
        model: Any = None,
        model_version: int | str | None = None,
        alias: str = "champion",
        rows_per_task: int | str = 1_000_000,
        max_tasks: int | str = 32,
        on_missing_model: Literal["fail", "skip"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.dataset = dataset
        self._dataset_given = dataset is not None
        self.partition = partition
        self.model_name = model_name
        self.model = model
        self._model_given = model is not None
        self.model_version = model_version
        self.alias = alias
        self.rows_per_task = rows_per_task
        self.max_tasks = max_tasks
        self.on_missing_model = on_missing_model

    def perform(self, context: Context) -> Any:
        from airflow_provider_xops.serving._batch_chunks import chunks_of, spec_of
        from airflow_provider_xops.serving.batch import rows_to_score

        one_of(self.on_missing_model, ("fail", "skip"), argument="on_missing_model")
        lake = self.lake()
        model = model_to_score(lake, self)
        found = one_dataset(context, lake, self)
        rows = rows_to_score(lake, found.ref, partitions_of(self.partition) or found.partitions)
        shares = chunks_of(
            rows,
            rows_per_chunk=whole_number(self.rows_per_task, argument="rows_per_task") or 0,
            max_chunks=whole_number(self.max_tasks, argument="max_tasks") or 0,
        )
        self.log.info(
            "%d partition(s) of %s, %d rows, go to %d task(s), for %s.",
            len(rows), found.ref, sum(rows.values()), len(shares), model.ref,
        )  # fmt: skip
        self.silence(context)
        dataset = named(lake, found)
        return [
            {"dataset": dataset, "partition": spec_of(share), "model": model.record_id} for share in shares
        ]


def one_dataset(context: Context, lake: Lake, operator: Any) -> NamedDataset:
    """The one dataset version that an operator with ``dataset`` and ``table`` is about."""
    found = dataset_or_trigger(
        context, lake, dataset=operator.dataset, given=operator._dataset_given, table=operator.table
    )
    if len(found) > 1:
        raise ArgumentError(
            f"this run was started by {len(found)} tables, one task scores one", code="argument.dataset",
            todo="name it: table='...'",
        )  # fmt: skip
    return found[0]


def model_to_score(lake: Lake, operator: Any) -> records.ModelVersion:
    """The version that an operator's ``model``, ``model_name``, ``model_version`` and ``alias`` name."""
    from airflow_provider_xops.registry.loading import resolve_model

    if operator._model_given:
        given: records.ModelVersion = operator.record(
            lake, operator.model, records.ModelVersion, argument="model"
        )
        return given
    if is_empty(operator.model_name):
        raise ArgumentError(
            f"model_name of task {operator.task_id} is empty",
            code="argument.empty",
            why="neither it nor model was given, or its template rendered to nothing",
            todo="name the model",
        )
    name = str(operator.model_name)
    version = whole_number(operator.model_version, argument="model_version")
    model = resolve_model(lake, name, alias=optional(operator.alias), version=version)
    if model is not None:
        return model
    if operator.on_missing_model == "skip":
        raise AirflowSkipException(f"{name} has no {operator.alias} yet: there is nothing to score with.")
    raise NotFoundError(
        f"{name} has no {operator.alias}", code="not_found.champion", why="no version was promoted yet",
        todo="promote one, name a model_version, or set on_missing_model='skip'",
    )  # fmt: skip


def reasons_of(given: Any) -> Any:
    """A number of reasons or a plan of them, as a template may have made it text."""
    if is_empty(given):
        return None
    if isinstance(given, Mapping) or (isinstance(given, str) and given.strip().startswith("{")):
        return mapping_of(given, argument="reasons")
    return whole_number(given, argument="reasons")


def named(lake: Lake, found: NamedDataset) -> str:
    """A dataset version as an argument of another task: its record, or its name where it has none."""
    ref = found.ref
    record_id = found.record_id or _record_id(lake, ref)
    return record_id or str(ref)


def _record_id(lake: Lake, ref: Any) -> str | None:
    from airflow_provider_xops.lake.history import stored_record

    record = stored_record(lake, ref)
    return record.record_id if isinstance(record, records.DatasetVersion) else None
