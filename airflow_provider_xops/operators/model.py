"""Operators of the model side: train, evaluate, promote, roll back, score, adopt.

For DAGs. A model is trained on a published dataset version, judged on rows kept from it, and promoted by a
decision in the lake's ledger::

    train = TrainModelOperator(
        task_id="train",
        table="daily",
        model_name="late",
        estimator="sklearn.linear_model:LogisticRegression",
        target="late",
        split={"kind": "time", "holdout_partitions": 14},
    )
    judge = EvaluateModelOperator(
        task_id="judge", model=train.output, gates=[{"gate": "better_than_champion", "metric": "roc_auc"}]
    )
    PromoteModelOperator(task_id="promote", evaluation=judge.output, outlets=[Asset("late")])

Each returns its record (small plain JSON) and puts the same into the asset events of its outlets.
"""

from __future__ import annotations

from airflow_provider_xops.operators._card import WriteModelCardOperator
from airflow_provider_xops.operators._deployment import DeployModelOperator
from airflow_provider_xops.operators._deployment_check import CheckDeploymentOperator
from airflow_provider_xops.operators._evaluation import ChooseModelOperator, EvaluateModelOperator
from airflow_provider_xops.operators._gates import CheckGatesOperator
from airflow_provider_xops.operators._labels import JoinLabelsOperator
from airflow_provider_xops.operators._nomination import NominateModelOperator, RetireAliasOperator
from airflow_provider_xops.operators._promotion import PromoteModelOperator, RollbackModelOperator
from airflow_provider_xops.operators._scoring import PartitionsToScoreOperator, ScoreDatasetOperator
from airflow_provider_xops.operators._smoke import SmokeTestModelOperator
from airflow_provider_xops.operators._training import (
    AdoptModelOperator,
    RecordTrainingOperator,
    TrainModelOperator,
)
from airflow_provider_xops.operators._tuning import TuneModelOperator

__all__ = [
    "AdoptModelOperator",
    "CheckDeploymentOperator",
    "CheckGatesOperator",
    "ChooseModelOperator",
    "DeployModelOperator",
    "EvaluateModelOperator",
    "JoinLabelsOperator",
    "NominateModelOperator",
    "PartitionsToScoreOperator",
    "PromoteModelOperator",
    "RecordTrainingOperator",
    "RetireAliasOperator",
    "RollbackModelOperator",
    "ScoreDatasetOperator",
    "SmokeTestModelOperator",
    "TrainModelOperator",
    "TuneModelOperator",
    "WriteModelCardOperator",
]
