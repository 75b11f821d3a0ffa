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

from airflow_provider_xops.operators._promotion import (
    EvaluateModelOperator,
    PromoteModelOperator,
    RollbackModelOperator,
)
from airflow_provider_xops.operators._scoring import ScoreDatasetOperator
from airflow_provider_xops.operators._training import (
    AdoptModelOperator,
    RecordTrainingOperator,
    TrainModelOperator,
)

__all__ = [
    "AdoptModelOperator",
    "EvaluateModelOperator",
    "PromoteModelOperator",
    "RecordTrainingOperator",
    "RollbackModelOperator",
    "ScoreDatasetOperator",
    "TrainModelOperator",
]
