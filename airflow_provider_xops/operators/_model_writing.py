"""What the operators that make or bring in a model version have in common.

For :mod:`airflow_provider_xops.operators._training` and the ``@task.train_model`` decorator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_provider_xops.operators._arguments import (
    list_of,
    mapping_of,
    number,
    optional,
    whole_number,
)
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.operators._datasets import dataset_or_trigger, partitions_of

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.records import ModelVersion
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.version_compat import Context

__all__ = ["ModelWriter", "TrainingOperator"]


class ModelWriter(RegistryOperator):
    """What they all share: the version's record out, and links to its pages."""

    operator_extra_links = (MlflowRunLink(), MlflowModelVersionLink(), EvidenceLink())

    def on_kill(self) -> None:
        """Close the open MLflow run now; one that a SIGKILL leaves open is closed by the next attempt."""
        self.leave_when_killed()

    def hand_over_model(
        self, context: Context, lake: Lake, registry: RegistryClient, model: ModelVersion
    ) -> dict[str, Any]:
        self.link_model(registry, model.name, model.version, model.run_id, model.experiment_id)
        return self.hand_over(context, lake, model)


class TrainingOperator(ModelWriter):
    """What every training has in common, whoever learns: a named estimator, or a decorated function."""

    required: ClassVar[tuple[str, ...]] = ("model_name", "target", "split")
    template_fields = (
        *RegistryOperator.template_fields,
        "table",
        "dataset",
        "partition",
        "model_name",
        "target",
        "features",
        "drop",
        "split",
        "experiment",
        "sample",
        "seed",
        "task",
        "cross_validation",
        "sample_weight",
        "class_weight",
    )

    def __init__(
        self,
        *,
        model_name: str,
        target: str,
        split: Mapping[str, Any],
        table: str | None = None,
        dataset: Any = None,
        partition: str | Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        experiment: str | None = None,
        sample: float | None = None,
        seed: int = 0,
        task: str | None = None,
        cross_validation: Mapping[str, Any] | None = None,
        sample_weight: str | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.target = target
        self.split = split
        self.table = table
        self.dataset = dataset
        self._dataset_given = dataset is not None
        self.partition = partition
        self.features = features
        self.drop = drop
        self.experiment = experiment
        self.sample = sample
        self.seed = seed
        self.task = task
        self.cross_validation = cross_validation
        self.sample_weight = sample_weight
        self.class_weight = class_weight

    def learner(self, lake: Lake) -> dict[str, Any]:
        """What learns, as arguments of :func:`~airflow_provider_xops.training.fit.train`."""
        raise NotImplementedError

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.training.fit import train

        lake, registry = self.lake(), self.registry()
        found = dataset_or_trigger(
            context, lake, dataset=self.dataset, given=self._dataset_given, table=self.table
        )
        if len(found) > 1:
            raise ArgumentError(
                f"this run was started by {len(found)} tables, a model is trained on one",
                code="argument.dataset",
                todo="name it: table='...'",
            )
        folds, weights = optional(self.cross_validation), optional(self.class_weight)
        # A template makes text of a mapping; the word "balanced" stays a word.
        as_mapping = weights is not None and not str(weights).strip().isalpha()
        model = train(
            lake,
            registry,
            dataset=found[0].ref,
            partitions=partitions_of(self.partition),
            target=self.target,
            features=list_of(self.features, argument="features"),
            drop=list_of(self.drop, argument="drop") or (),
            split=mapping_of(self.split, argument="split"),
            model_name=self.model_name,
            experiment=optional(self.experiment) or self.model_name,
            sample=number(self.sample, argument="sample"),
            seed=whole_number(self.seed, argument="seed") or 0,
            task=optional(self.task),
            cross_validation=None if folds is None else mapping_of(folds, argument="cross_validation"),
            sample_weight=optional(self.sample_weight),
            class_weight=mapping_of(weights, argument="class_weight") if as_mapping else weights,
            actor=actor_of(context),
            as_of=now(),
            **self.learner(lake),
        )
        return self.hand_over_model(context, lake, registry, model)
