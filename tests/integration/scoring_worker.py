"""A process that scores some partitions when it is told to; for ``test_scoring_at_scale.py``.

It says ``ready`` when everything is loaded, waits for a word, scores, and ends. With ``hold`` it says
``batch`` after its second batch, and goes no further until it gets another word.
"""

from __future__ import annotations

from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

from airflow_provider_xops.lake.lake import open_lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import Actor, ModelVersion
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.serving.batch import Progress, score
from airflow_provider_xops.settings import LakeSettings, MlflowSettings

__all__ = ["work"]


def work(pipe: Connection, settings: LakeSettings, mlflow: str, given: dict[str, Any]) -> None:
    """Score ``partitions`` of the table ``dataset`` by ``model`` (a record id) into ``output``.

    :param given: these, and ``reasons``, ``fence`` and ``hold``.
    """
    lake, client = open_lake(settings), RegistryClient(MlflowSettings(tracking_uri=mlflow))
    model = lake.evidence.get(ModelVersion.kind, given["model"])
    assert isinstance(model, ModelVersion)
    load_model(client, lake, model)  # so that the race begins with everything loaded
    pipe.send("ready")
    pipe.recv()

    def tell(step: Progress) -> None:
        if given["hold"] and step.predicted >= 400:
            pipe.send("batch")
            pipe.recv()

    score(
        lake,
        client,
        model=model,
        dataset=head(lake, given["dataset"]),
        partitions=given["partitions"],
        output_table=given["output"],
        keep_columns=["id"],
        batch_rows=200,
        reasons=given["reasons"],
        progress=tell,
        actor=Actor.user("worker", key="score", fence=given["fence"]),
        as_of=datetime(2026, 1, 15, tzinfo=UTC),
    )
