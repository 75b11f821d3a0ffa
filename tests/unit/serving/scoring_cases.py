"""Days of flights in a lake, and two fitted models that are recorded there; only MLflow is left out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, ModelVersion, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving import _batch_scorer
from airflow_provider_xops.settings import MlflowSettings
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.frames import feature_frame

AS_OF = datetime(2026, 1, 15, tzinfo=UTC)
DAYS = ("2025-03-01", "2025-03-02", "2025-03-03", "2025-03-04")
ROWS = 30
FEATURES = ("x", "n", "word")
NAME = "late"


def an_actor(key: str = "score", fence: int = 1) -> Actor:
    return Actor.user("tester", key=key, fence=fence)


def day(name: str, *, rows: int = ROWS, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng([seed, DAYS.index(name)])
    x = rng.normal(size=rows)
    return pa.table(
        {
            "id": [f"{name}/{number}" for number in range(rows)],
            "x": x,
            "n": rng.integers(0, 9, rows),
            "word": rng.choice(["a", "b"], rows).tolist(),
            "late": (x > 0).astype(np.int64),
        }
    )


def fill(lake: Lake, table: str = "flights", days: tuple[str, ...] = DAYS, **changes: Any) -> DatasetRef:
    segments = [
        Segment(name, f"{name}/{changes}", lambda name=name: day(name, **changes).to_reader())
        for name in days
    ]
    return commit(lake, table, segments, actor=an_actor("load"), as_of=AS_OF).record.ref


def estimators() -> dict[int, Any]:
    """Version 1 is linear, version 2 a tree; both take the words as numbers."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    rows = pa.concat_tables([day(name) for name in DAYS])
    frame, truth = feature_frame(rows, FEATURES), np.asarray(rows["late"])
    made = {}
    for version, last in (
        (1, LogisticRegression()),
        (2, DecisionTreeClassifier(max_depth=4, random_state=0)),
    ):
        encode = ColumnTransformer(
            [("words", OrdinalEncoder(), ["word"]), ("numbers", "passthrough", ["x", "n"])]
        )
        made[version] = make_pipeline(encode, last).fit(frame, truth)
    return made


def record_models(lake: Lake, dataset: DatasetRef) -> dict[int, ModelVersion]:
    """The records of both versions, trained on the first two days."""
    training = selections.whole(
        lake, dataset=dataset, partitions=DAYS[:2], columns=[*FEATURES, "late"], target="late"
    )
    found = {}
    for version in (1, 2):
        found[version] = ModelVersion(
            recorded_at=AS_OF, produced_by=an_actor().producer, name=NAME, version=version,
            created_at_ms=1000 + version, run_id=None, source_uri=f"models:/m-{version}", training=training,
            holdout=None, features=FEATURES, target="late", task="classification", estimator="e",
            code_version="c", params_digest="p", artifact_digest=f"{version:064d}", metrics={},
        )  # fmt: skip
        lake.evidence.put(found[version])
    return found


def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Loading gives the fitted models; the list says which versions were loaded."""
    fitted, loaded = estimators(), []

    def load(client: Any, lake: Lake, model: ModelVersion) -> Any:
        loaded.append(model.version)
        return fitted[model.version]

    monkeypatch.setattr(_batch_scorer, "load_model", load)
    return loaded


def nobody() -> RegistryClient:
    """A registry that nobody answers at."""
    return RegistryClient(MlflowSettings(tracking_uri="http://127.0.0.1:9", max_retries=0, timeout_s=1))


def decide(lake: Lake, model: ModelVersion, moment: datetime, outcome: PromotionOutcome) -> None:
    """An entry of the ledger, as promotion and rollback write it."""
    draft = ledger.Draft(
        outcome=outcome, reason="test", to_version=model.version, to_created_at_ms=model.created_at_ms,
        artifact_digest=model.artifact_digest,
    )  # fmt: skip
    ledger.append(lake, NAME, "champion", lambda _: draft, actor=an_actor(str(moment)), as_of=moment)
