"""The operator that searches an estimator's parameters.

For :mod:`airflow_provider_xops.operators.model`, its public place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.links.evidence import EvidenceLink
from airflow_provider_xops.links.mlflow import MlflowRunLink
from airflow_provider_xops.operators._arguments import (
    is_empty,
    list_of,
    mapping_of,
    number,
    optional,
    whole_number,
)
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.operators._datasets import dataset_or_trigger, partitions_of

if TYPE_CHECKING:
    from airflow_provider_xops.version_compat import Context

__all__ = ["TuneModelOperator"]


class TuneModelOperator(RegistryOperator):
    """Searches an estimator's parameters by cross-validation on the training rows; the holdout stays unseen.

    Every trial is a run in MLflow, nested in the study's. A task that was killed goes on where it was when it
    is tried again. With a database several mapped instances share one study: ``trials`` is their number in
    all, and when one of them is killed another takes its trial.

    What it learns from, and how, is said as to
    :class:`~airflow_provider_xops.operators.model.TrainModelOperator`.

    :param table: the published table, of the version that training would take; or
    :param dataset: exactly this version. :param partition: learn from these only.
    :param model_name: the model that the parameters are for.
    :param estimator: ``package.module:name``. :param estimator_params: the same in every trial.
    :param target: the column to predict. :param features: the columns to learn from.
    :param drop: columns that are never features.
    :param split: what is kept as holdout, and not looked at here.
    :param sample: learn from at most this many rows. :param sample_weight: a column of weights.
    :param class_weight: ``balanced``, or a weight for each class.
    :param task: ``classification`` or ``regression``; None: as the estimator says of itself.
    :param space: what is searched: each keyword argument of the estimator with its range,
        ``{"int": [50, 500], "log": true}``, ``{"float": [0.01, 0.3]}`` or ``{"choice": [...]}``.
    :param metric: the figure whose mean over the folds is made best.
    :param cross_validation: the folds, ``{"kind": "stratified_k_fold", "folds": 5}``; None: five that part
        the rows as the split does.
    :param trials: how many combinations are tried.
    :param timeout_seconds: begin no trial after so long, and end the one at hand after its fold.
    :param sampler: ``tpe``, ``random`` or ``grid``. :param pruner: ``median``, ``hyperband`` or ``none``.
    :param storage_conn_id: the Airflow connection of a database (PostgreSQL, SQLite) that workers share.
    :param storage_uri: its SQLAlchemy URL instead, where it needs no password.
    :param worker: which of several workers this one is; only to map the task over.
    :param study: a name to go on with: a run of the DAG with the same name, data, code and search continues
        it. None: one of this DAG run's own.
    :param experiment: the MLflow experiment; None: the model's name.
    :param heartbeat_seconds: a worker that is silent for three times as long has lost its trial.
    :param seed: of everything random.
    :raises TrainingError: no trial was complete, or the first five failed.
    :raises ArgumentError: the space, the metric or the storage is unusable.

    Returns the record of the study.

    Example::

        tune = TuneModelOperator.partial(
            task_id="tune",
            table="daily",
            model_name="late",
            estimator="sklearn.ensemble:HistGradientBoostingClassifier",
            target="late",
            split={"kind": "time", "holdout_partitions": 14},
            space={"max_iter": {"int": [50, 500], "log": True}, "learning_rate": {"float": [0.01, 0.3]}},
            metric="roc_auc",
            storage_conn_id="tuning_db",
        ).expand(worker=[0, 1, 2, 3])

    What it does not do: it fits no final model; hand its output to ``TrainModelOperator(tuning=...)``.
    """

    required = ("model_name", "estimator", "target", "split", "space", "metric")
    user_code = ("estimator",)
    operator_extra_links = (MlflowRunLink(), EvidenceLink())
    template_fields = (
        *RegistryOperator.template_fields,
        "table",
        "dataset",
        "partition",
        "model_name",
        "estimator",
        "estimator_params",
        "target",
        "features",
        "drop",
        "split",
        "cross_validation",
        "space",
        "metric",
        "trials",
        "timeout_seconds",
        "sampler",
        "pruner",
        "storage_conn_id",
        "storage_uri",
        "worker",
        "study",
        "experiment",
        "sample",
        "sample_weight",
        "class_weight",
        "task",
        "seed",
    )

    def __init__(
        self,
        *,
        model_name: str,
        estimator: str,
        target: str,
        split: Mapping[str, Any],
        space: Mapping[str, Any],
        metric: str,
        table: str | None = None,
        dataset: Any = None,
        partition: str | Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        estimator_params: Mapping[str, Any] | None = None,
        cross_validation: Mapping[str, Any] | None = None,
        trials: int | str = 50,
        timeout_seconds: float | None = None,
        sampler: str = "tpe",
        pruner: str = "median",
        storage_conn_id: str | None = None,
        storage_uri: str | None = None,
        worker: int | None = None,
        study: str | None = None,
        experiment: str | None = None,
        sample: float | None = None,
        sample_weight: str | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        task: str | None = None,
        heartbeat_seconds: int = 20,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.estimator = estimator
        self.target = target
        self.split = split
        self.space = space
        self.metric = metric
        self.table = table
        self.dataset = dataset
        self._dataset_given = dataset is not None
        self.partition = partition
        self.features = features
        self.drop = drop
        self.estimator_params = estimator_params
        self.cross_validation = cross_validation
        self.trials = trials
        self.timeout_seconds = timeout_seconds
        self.sampler = sampler
        self.pruner = pruner
        self.storage_conn_id = storage_conn_id
        self.storage_uri = storage_uri
        self.worker = worker
        self.study = study
        self.experiment = experiment
        self.sample = sample
        self.sample_weight = sample_weight
        self.class_weight = class_weight
        self.task = task
        self.heartbeat_seconds = heartbeat_seconds
        self.seed = seed

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.training.tuning.study import tune

        lake, registry, actor = self.lake(), self.registry(), actor_of(context)
        found = dataset_or_trigger(
            context, lake, dataset=self.dataset, given=self._dataset_given, table=self.table
        )
        if len(found) > 1:
            raise ArgumentError(
                f"this run was started by {len(found)} tables, a model is tuned on one",
                code="argument.dataset",
                todo="name it: table='...'",
            )
        producer = actor.producer
        storage = self._storage()
        if storage is None and (producer.map_index is not None or not is_empty(self.worker)):
            raise ArgumentError(
                f"task {self.task_id} is mapped and its study has no database",
                code="argument.storage",
                why="each instance would make the whole search by itself",
                todo="name a database that they share: storage_conn_id='...'",
            )
        class_weight = optional(self.class_weight)
        record = tune(
            lake,
            registry,
            dataset=found[0].ref,
            partitions=partitions_of(self.partition),
            estimator=self.estimator,
            params=_mapping(self.estimator_params, "estimator_params"),
            target=self.target,
            features=list_of(self.features, argument="features"),
            drop=list_of(self.drop, argument="drop") or (),
            split=mapping_of(self.split, argument="split"),
            cross_validation=_mapping(self.cross_validation, "cross_validation"),
            space=mapping_of(self.space, argument="space"),
            metric=self.metric,
            model_name=self.model_name,
            trials=_or(whole_number(self.trials, argument="trials"), 50),
            timeout_seconds=number(self.timeout_seconds, argument="timeout_seconds"),
            sampler=optional(self.sampler) or "tpe",
            pruner=optional(self.pruner) or "median",
            storage=storage,
            # Every mapped instance, and every try of it, means the same study.
            study=optional(self.study) or f"{producer.dag_id}/{producer.run_id}/{producer.task_id}",
            experiment=optional(self.experiment) or self.model_name,
            sample=number(self.sample, argument="sample"),
            sample_weight=optional(self.sample_weight),
            class_weight=class_weight
            if class_weight is None or class_weight == "balanced"
            else mapping_of(class_weight, argument="class_weight"),
            task=optional(self.task),
            heartbeat_seconds=_or(whole_number(self.heartbeat_seconds, argument="heartbeat_seconds"), 20),
            seed=whole_number(self.seed, argument="seed") or 0,
            actor=actor,
            as_of=now(),
        )
        if record.parent_run_id and record.experiment_id:
            self.run_url = registry.run_url(record.parent_run_id, record.experiment_id)
        return self.hand_over(context, lake, record)

    def on_kill(self) -> None:
        """Give the trial at hand back now; one that a SIGKILL leaves is taken by another worker or try."""
        self.leave_when_killed()

    def _storage(self) -> str | None:
        conn_id, uri = optional(self.storage_conn_id), optional(self.storage_uri)
        if conn_id and uri:
            raise ArgumentError(
                "a study has one storage", code="argument.storage",
                todo="give storage_conn_id or storage_uri, not both",
            )  # fmt: skip
        if conn_id:
            from airflow_provider_xops.operators._database import sqlalchemy_engine_of

            with sqlalchemy_engine_of(conn_id) as engine:
                return engine.url.render_as_string(hide_password=False)
        if uri and "@" in uri and ":" in uri.partition("://")[2].rpartition("@")[0]:
            raise ArgumentError(
                "storage_uri holds a password", code="argument.storage",
                why="Airflow shows the argument to everybody who sees the task",
                todo="make an Airflow connection and give storage_conn_id",
            )  # fmt: skip
        return None if uri is None else str(uri)


def _mapping(given: Any, argument: str) -> Mapping[str, Any] | None:
    return None if is_empty(given) else mapping_of(given, argument=argument)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
