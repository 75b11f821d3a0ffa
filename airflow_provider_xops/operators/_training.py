"""Operators that bring a model version into the lake's chain: trained here, adopted, or handed back by a job.

For :mod:`airflow_provider_xops.operators.model`, their public place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_xops import records
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.operators._arguments import list_of, mapping_of, optional, whole_number
from airflow_provider_xops.operators._base import RegistryOperator, actor_of, now
from airflow_provider_xops.operators._model_writing import ModelWriter, TrainingOperator

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake
    from airflow_provider_xops.version_compat import Context

__all__ = ["AdoptModelOperator", "RecordTrainingOperator", "TrainModelOperator"]


class TrainModelOperator(TrainingOperator):
    """Trains any estimator on a published dataset version and registers it in MLflow, once.

    The run carries parameters, metrics, signature, environment, code version and the dataset version; the
    record carries digests of the rows it was fitted on, of the rows kept from it, and of its files. A retry
    finds what an earlier try made, and closes what it left open.

    :param table: the published table. A run started by asset events trains on the highest version they name,
        one started by hand on the parameter ``dataset_version`` (a number, or ``TABLE@VERSION``), else on the
        head.
    :param dataset: exactly this version instead: a task's output, a record id, ``TABLE`` or
        ``TABLE@VERSION``.
    :param partition: learn from these only: a name, a range of days, or a list; empty: all partitions of the
        version.
    :param model_name: the registered model.
    :param estimator: ``package.module:name`` of a class with ``fit`` and ``predict``, or of a function that
        makes one.
    :param target: the column to predict.
    :param features: the columns to learn from; None: all but the target, ``drop``, ``sample_weight`` and the
        columns that the split and the folds go by.
    :param drop: columns that are never features.
    :param split: what is kept as holdout: ``{"kind": "time" | "random" | "group", ...}``.
    :param estimator_params: keyword arguments of the estimator.
    :param experiment: the MLflow experiment; None: the model's name.
    :param sample: learn from at most this many rows, below 1 from that fraction (the holdout stays whole);
        None: all.
    :param seed: of everything random.
    :param task: ``classification`` or ``regression``; None: as the estimator says of itself.
    :param cross_validation: folds inside the training rows, whose figures are logged and recorded:
        ``{"kind": "k_fold" | "stratified_k_fold" | "group_k_fold" | "time_series", "folds": 5, ...}``.
    :param sample_weight: a column that says how much each training row counts.
    :param class_weight: ``balanced``, or a weight for each class.
    :param batch_rows: learn with ``partial_fit``, so many rows at a time, for rows that do not fit in memory.
    :param epochs: how often the batches go through all rows.
    :param tuning: what a ``TuneModelOperator`` gave (of mapped workers: all they gave): the estimator is made
        with the parameters of its best trial.
    :raises TrainingError: ``fit`` raised, or the selection is unusable: the run is marked failed, no version
        is made.
    :raises UserCodeError: the estimator cannot be named so.

    Returns the record of the model version.

    Example::

        TrainModelOperator(
            task_id="train",
            table="daily",
            model_name="late",
            estimator="sklearn.ensemble:HistGradientBoostingClassifier",
            target="late",
            split={"kind": "time", "holdout_partitions": 14},
            cross_validation={"kind": "time_series", "folds": 4, "gap": 1},
            seed=7,
        )

    What it does not do: it searches no parameters, and promotes nothing.
    """

    required = ("model_name", "estimator", "target", "split")
    user_code = ("estimator",)
    template_fields = (
        *TrainingOperator.template_fields,
        "estimator",
        "estimator_params",
        "batch_rows",
        "epochs",
        "tuning",
    )

    def __init__(
        self,
        *,
        estimator: str,
        estimator_params: Mapping[str, Any] | None = None,
        batch_rows: int | None = None,
        epochs: int = 1,
        tuning: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.estimator = estimator
        self.estimator_params = estimator_params
        self.batch_rows = batch_rows
        self.epochs = epochs
        self.tuning = tuning
        self._tuning_given = tuning is not None

    def learner(self, lake: Lake) -> dict[str, Any]:
        """The estimator by its name, its parameters, and whether it learns in batches."""
        given, epochs = optional(self.estimator_params), whole_number(self.epochs, argument="epochs")
        return {
            "estimator": self.estimator,
            "params": {} if given is None else mapping_of(given, argument="estimator_params"),
            "batch_rows": whole_number(self.batch_rows, argument="batch_rows"),
            "epochs": 1 if epochs is None else epochs,
            "tuning": self._study(lake) if self._tuning_given else None,
        }

    def _study(self, lake: Lake) -> records.TuningStudy:
        """The study that ``tuning`` stands for; workers that shared one gave a record each."""
        from airflow_provider_xops.training.studies import one_study

        one = isinstance(self.tuning, Mapping) or str(self.tuning).lstrip()[:1] == "{"
        given = [self.tuning] if one else list_of(self.tuning, argument="tuning") or [None]
        return one_study([self.record(lake, each, records.TuningStudy, argument="tuning") for each in given])


class AdoptModelOperator(ModelWriter):
    """Takes a model that is in MLflow already into the lake's chain, without retraining.

    :param model_name: the registered model.
    :param model_version: its version; or
    :param run_id: the MLflow run whose model becomes a version of ``model_name``, if it is none yet.
    :param artifact_path: which of the run's models, if it logged several.
    :param alias: the alias it has in MLflow already: the ledger then begins with it as the champion.
    :param training: the rows it was fitted on, as a ``Selection`` in JSON; without it no leak can be noticed.
    :param holdout: the rows kept from it, likewise; evaluation uses them.
    :param features: its input columns; None: from the model's signature.
    :param target: the column it predicts.
    :param task: ``classification`` or ``regression``.
    :param trust: types a skops file may hold beyond scikit-learn, NumPy and SciPy.
    :raises NotFoundError: MLflow has no such version or run.

    Returns the record of the model version (``origin`` is ``adopted``).

    Example::

        AdoptModelOperator(
            task_id="adopt", model_name="late", model_version=3, target="late", task="classification"
        )

    What it does not do: it vouches for nothing that happened before; what is not recorded stays unknown.
    """

    required = ("model_name",)
    template_fields = (
        *RegistryOperator.template_fields,
        "model_name",
        "model_version",
        "run_id",
        "artifact_path",
        "alias",
        "training",
        "holdout",
        "features",
        "target",
        "task",
        "trust",
    )

    def __init__(
        self,
        *,
        model_name: str,
        model_version: int | str | None = None,
        run_id: str | None = None,
        artifact_path: str | None = None,
        alias: str | None = None,
        training: Mapping[str, Any] | None = None,
        holdout: Mapping[str, Any] | None = None,
        features: Sequence[str] | None = None,
        target: str | None = None,
        task: str | None = None,
        trust: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.model_version = model_version
        self.run_id = run_id
        self.artifact_path = artifact_path
        self.alias = alias
        self.training = training
        self.holdout = holdout
        self.features = features
        self.target = target
        self.task = task
        self.trust = trust

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.registry.adopt import adopt_model

        lake, registry = self.lake(), self.registry()
        model = adopt_model(
            lake,
            registry,
            name=self.model_name,
            version=whole_number(self.model_version, argument="model_version"),
            run_id=optional(self.run_id),
            artifact_path=optional(self.artifact_path),
            alias=optional(self.alias),
            training=selection_of(self.training, argument="training"),
            holdout=selection_of(self.holdout, argument="holdout"),
            features=list_of(self.features, argument="features"),
            target=optional(self.target),
            task=optional(self.task),
            trust=list_of(self.trust, argument="trust") or (),
            actor=actor_of(context),
            as_of=now(),
        )
        return self.hand_over_model(context, lake, registry, model)


class RecordTrainingOperator(ModelWriter):
    """Takes in the record of a training that ran elsewhere, so that it is gated like any other.

    :param training: what the job handed back: a mapping or JSON text as ``xops training-schema`` describes it
        (model and version in MLflow, training and holdout selections, features, target, code version).
    :raises DataError: it does not fit the schema; :raises NotFoundError: MLflow has no such version.

    Returns the record of the model version (``origin`` is ``external``).

    Example::

        RecordTrainingOperator(task_id="record", training="{{ ti.xcom_pull('train_on_kubernetes') }}")

    What it does not do: it starts no job, and does not repeat the training to check it; it checks the files'
    digest.
    """

    required = ("training",)
    template_fields = (*RegistryOperator.template_fields, "training")

    def __init__(self, *, training: Mapping[str, Any] | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.training = training

    def perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_xops.registry.adopt import record_training

        lake, registry = self.lake(), self.registry()
        payload = mapping_of(self.training, argument="training")
        model = record_training(lake, registry, payload, actor=actor_of(context), as_of=now())
        return self.hand_over_model(context, lake, registry, model)


def selection_of(given: Any, *, argument: str) -> records.Selection | None:
    """A ``Selection`` from its JSON form; None where nothing was given.

    :raises ArgumentError: it does not have that form.
    """
    if optional(given) is None:
        return None
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(records.Selection).validate_python(mapping_of(given, argument=argument))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ArgumentError(
            f"{argument} is not a selection", code="argument.selection",
            why=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            todo="give dataset, partitions, rows and digest, as in a model version's record",
        ) from None  # fmt: skip
