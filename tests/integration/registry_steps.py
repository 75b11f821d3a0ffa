"""What the registry's integration tests do to a real MLflow server, in named steps."""

from __future__ import annotations

import itertools
import tempfile
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import DatasetRef, ModelVersion
from airflow_provider_xops.registry import models, runs
from airflow_provider_xops.registry.client import RegistryClient
from tests.unit.registry.builders import AS_OF, a_model, an_actor, selection

FEATURES = ("a", "b")
_NAMES = itertools.count(1)


def fresh_name(word: str = "late") -> str:
    """A model name that nobody else on this server has."""
    return f"{word} {uuid.uuid4().hex[:8]}"


def frame(rows: int = 60) -> tuple[pd.DataFrame, Any]:
    """Made-up features and a target that depends on them."""
    values = np.random.default_rng(7).random((rows, len(FEATURES)))
    features = pd.DataFrame(values, columns=list(FEATURES))
    return features, (features["a"] > 0.5).astype(int).to_numpy()


def facts_for(lake: Lake, *, training: str = "2013-01", holdout: str = "2013-02") -> models.ModelFacts:
    """Facts of a model trained on one partition of a table of this lake."""
    ref = DatasetRef(lake_id=lake.lake_id, table="flights", table_uuid="uuid-1", version=3)
    return models.ModelFacts(
        training=selection(training, ref=ref),
        holdout=selection(holdout, ref=ref),
        features=FEATURES,
        target="y",
        task="classification",
        estimator="sklearn.ensemble:RandomForestClassifier",
        code_version="git:1",
        params_digest="p",
        metrics={"roc_auc": 0.9},
    )


def fitted() -> Any:
    """A small fitted forest: a type that skops does not trust by itself."""
    return RandomForestClassifier(n_estimators=3, random_state=0).fit(*frame())


def train(
    client: RegistryClient,
    lake: Lake,
    name: str,
    *,
    key: str = "train",
    fence: int = 1,
    estimator: Any = None,
) -> ModelVersion:
    """What training does with the registry, from asking for earlier attempts to the record."""
    actor, facts = an_actor(key, fence=fence), facts_for(lake)
    work = runs.work_key(actor, name)
    earlier = runs.earlier_attempts(client, experiment=name, key=work)
    found = models.find_model(client, lake, name=name, key=work) if earlier.begun else None
    if found is not None:
        return found
    with (
        runs.run(client, experiment=name, key=work, actor=actor, earlier=earlier) as handle,
        tempfile.TemporaryDirectory() as folder,
    ):
        training = {} if facts.training is None else {"training": facts.training}
        runs.log_run(
            client,
            handle,
            params={"n": 3},
            metrics={"roc_auc": 0.9, "nothing": float("nan")},
            selections=training,
        )
        saved = models.save_model(
            estimator or fitted(), Path(folder) / "model", facts=facts, sample=frame(3)[0]
        )
        return models.register_model(
            client, lake, name=name, saved=saved, facts=facts, run=handle, actor=actor, as_of=AS_OF
        )


def bare_version(client: RegistryClient, lake: Lake, name: str) -> ModelVersion:
    """A registered version without files, and its record: enough to be promoted in a test of promotion."""
    with client.session("making a bare version") as mlflow:
        if not mlflow.search_registered_models(filter_string=f"name = '{name}'"):
            mlflow.create_registered_model(name)
        made = mlflow.create_model_version(
            name, f"s3://nowhere/{name}/{next(_NAMES)}", await_creation_for=None
        )
    facts = facts_for(lake)
    record = a_model(
        int(made.version),
        name=name,
        created_at_ms=int(made.creation_timestamp),
        training=facts.training,
        holdout=facts.holdout,
    )
    lake.evidence.put(record)
    return record
