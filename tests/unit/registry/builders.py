"""Small records for tests of the registry: models, evaluations and actors that are about nothing in
particular."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    DatasetRef,
    Evaluation,
    GateResult,
    ModelRef,
    ModelVersion,
    Outcome,
    Selection,
)

AS_OF = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
PASSED = GateResult(gate="roc_auc >= 0.8", outcome=Outcome.PASSED, observed=0.9, threshold=0.8)


def an_actor(key: str = "test", *, fence: int = 1) -> Actor:
    """Somebody who acts under ``key``."""
    return Actor.user("tester", key=key, fence=fence)


def dataset(
    version: int = 3, *, table: str = "flights", table_uuid: str = "uuid-1", lake_id: str = "lake"
) -> DatasetRef:
    """A dataset version."""
    return DatasetRef(lake_id=lake_id, table=table, table_uuid=table_uuid, version=version)


def selection(
    *partitions: str, digest: str | None = None, description: str = "", ref: DatasetRef | None = None
) -> Selection:
    """Rows of some partitions; the digest tells them apart."""
    return Selection(
        dataset=ref or dataset(),
        partitions=partitions,
        rows=10,
        digest=digest or f"digest of {partitions}",
        description=description,
    )


def a_model(
    version: int = 1, *, name: str = "late", created_at_ms: int | None = None, **changes: Any
) -> ModelVersion:
    """A model version trained on January, with February held out."""
    values: dict[str, Any] = {
        "recorded_at": AS_OF,
        "produced_by": an_actor().producer,
        "name": name,
        "version": version,
        "created_at_ms": 1000 + version if created_at_ms is None else created_at_ms,
        "run_id": f"run-{version}",
        "source_uri": f"models:/m-{version}",
        "training": selection("2013-01"),
        "holdout": selection("2013-02"),
        "features": ("a", "b"),
        "target": "y",
        "task": "classification",
        "estimator": "sklearn.dummy:DummyClassifier",
        "code_version": "git:1",
        "params_digest": "p",
        "artifact_digest": f"{version:064d}",
        "metrics": {"roc_auc": 0.9},
    }
    return ModelVersion(**(values | changes))


def a_recorded_evaluation(lake: Lake, model: ModelVersion, *args: Any, **kwargs: Any) -> Evaluation:
    """As :func:`an_evaluation`, and in the lake's evidence, which is what promotion reads."""
    made = an_evaluation(model, *args, **kwargs)
    lake.evidence.put(made)
    return made


def an_evaluation(
    model: ModelVersion,
    champion: ModelVersion | ModelRef | None = None,
    *,
    gates: tuple[GateResult, ...] = (PASSED,),
    on: Selection | None = None,
) -> Evaluation:
    """An evaluation of ``model`` against ``champion`` on the model's holdout, all gates passed."""
    chosen = on or model.holdout
    assert chosen is not None
    return Evaluation(
        recorded_at=AS_OF,
        produced_by=an_actor().producer,
        model=model.ref,
        champion=champion.ref if isinstance(champion, ModelVersion) else champion,
        selection=chosen,
        gates_digest="gates",
        metrics={"roc_auc": 0.9},
        champion_metrics={},
        comparisons=(),
        gates=gates,
    )
