"""The operator that scores a dataset with a registered model.

For :mod:`airflow_provider_xops.operators.model`, its public place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink
from airflow_provider_xops.operators._arguments import is_empty, list_of, one_of, optional, whole_number
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.operators._datasets import dataset_or_trigger, partitions_of
from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.version_compat import AirflowSkipException

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = ["ScoreDatasetOperator"]


class ScoreDatasetOperator(RegistryOperator):
    """Predicts every row of the partitions a run is about, each partition exactly once.

    Rows are streamed in batches. Every prediction carries its id, the model's name and version, and the
    dataset version it was made from; ``xops trace PREDICTION_ID`` walks back from there to the source file.

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
    :param batch_rows: rows in memory at a time.
    :param on_missing_model: what the task does where the alias has no champion yet: ``fail`` or ``skip``.
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

    required = ("output_table", "alias", "on_missing_model")
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
        self.on_missing_model = on_missing_model

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.serving.batch import score

        one_of(self.on_missing_model, ("fail", "skip"), argument="on_missing_model")
        lake, registry = self.lake(), self.registry()
        model = self._model(lake)
        found = dataset_or_trigger(
            context, lake, dataset=self.dataset, given=self._dataset_given, table=self.table
        )
        if len(found) > 1:
            raise ArgumentError(
                f"this run was started by {len(found)} tables, one task scores one", code="argument.dataset",
                todo="name it: table='...'",
            )  # fmt: skip
        result = score(
            lake,
            registry,
            model=model,
            dataset=found[0].ref,
            partitions=partitions_of(self.partition) or found[0].partitions,
            output_table=self.output_table,
            keep_columns=list_of(self.keep_columns, argument="keep_columns") or (),
            batch_rows=self.batch_rows,
            actor=actor_of(context),
            as_of=now(),
        )
        self.link_model(registry, model.name, model.version)
        return self.hand_over(
            context,
            lake,
            result.dataset_out,
            reused=result.reused,
            model_record=model.record_id,
            scoring_runs=[run.record_id for run in result.runs[:100]],
            scored_rows=sum(run.rows for run in result.runs),
        )

    def _model(self, lake: Lake) -> ModelVersion:
        from airflow_provider_xops.registry.loading import resolve_model

        if self._model_given:
            return self.record(lake, self.model, ModelVersion, argument="model")
        if is_empty(self.model_name):
            raise ArgumentError(
                f"model_name of task {self.task_id} is empty",
                code="argument.empty",
                why="neither it nor model was given, or its template rendered to nothing",
                todo="name the model",
            )
        name = str(self.model_name)
        version = whole_number(self.model_version, argument="model_version")
        model = resolve_model(lake, name, alias=optional(self.alias), version=version)
        if model is not None:
            return model
        if self.on_missing_model == "skip":
            raise AirflowSkipException(f"{name} has no {self.alias} yet: there is nothing to score with.")
        raise NotFoundError(
            f"{name} has no {self.alias}", code="not_found.champion", why="no version was promoted yet",
            todo="promote one, name a model_version, or set on_missing_model='skip'",
        )  # fmt: skip
