"""A process that scores some partitions when it is told to: ``python -m tests.integration.scoring_worker``.

Its argument is JSON: ``lake``, ``mlflow``, ``model`` (a record id), ``dataset`` (a table), ``partitions``,
``output``, ``reasons``, ``fence``, ``hold``; the lake's storage options are JSON in the environment,
``SCORING_STORAGE``. It says ``ready`` when everything is imported, waits for a line, scores, and says how
many rows there are. With ``hold`` it says ``batch`` after its second batch, and goes no further until it
gets another line.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime


def main(given: dict[str, object]) -> None:
    from airflow_provider_xops.lake.lake import open_lake
    from airflow_provider_xops.lake.tables import head
    from airflow_provider_xops.records import Actor, ModelVersion
    from airflow_provider_xops.registry.client import RegistryClient
    from airflow_provider_xops.registry.loading import load_model
    from airflow_provider_xops.serving.batch import Progress, score
    from airflow_provider_xops.settings import LakeSettings, MlflowSettings

    storage = json.loads(os.environ.get("SCORING_STORAGE", "{}"))
    lake = open_lake(LakeSettings(uri=str(given["lake"]), storage_options=storage))
    client = RegistryClient(MlflowSettings(tracking_uri=str(given["mlflow"])))
    model = lake.evidence.get(ModelVersion.kind, str(given["model"]))
    assert isinstance(model, ModelVersion)
    load_model(client, lake, model)  # so that the race begins with everything imported
    print("ready", flush=True)
    sys.stdin.readline()

    def tell(step: Progress) -> None:
        if given.get("hold") and step.predicted >= 400:
            print("batch", flush=True)
            sys.stdin.readline()

    result = score(
        lake,
        client,
        model=model,
        dataset=head(lake, str(given["dataset"])),
        partitions=list(given["partitions"]),  # type: ignore[call-overload]
        output_table=str(given["output"]),
        keep_columns=["id"],
        batch_rows=200,
        reasons=int(str(given["reasons"])),
        progress=tell,
        actor=Actor.user("worker", key="score", fence=int(str(given["fence"]))),
        as_of=datetime(2026, 1, 15, tzinfo=UTC),
    )
    print(sum(run.rows for run in result.runs), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
