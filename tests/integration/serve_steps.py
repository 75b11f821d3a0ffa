"""What the tests of the scoring server have in common: models in a lake, put in force, and their rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, Evaluation, GateResult, ModelVersion, Outcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import model_of
from airflow_provider_xops.registry.promote import promote

AS_OF = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


def put_in_force(
    lake: Lake, client: RegistryClient, model: ModelVersion, *, alias: str = "champion", key: str
) -> int:
    """Promote a version by an evaluation whose one gate passed; gives the ledger's sequence."""
    actor = Actor.user("tester", key=key, fence=1)
    current = ledger.current(lake, model.name, alias)
    champion = None if current is None else model_of(lake, current)
    assert model.holdout is not None
    evaluation = Evaluation(
        recorded_at=AS_OF,
        produced_by=actor.producer,
        model=model.ref,
        champion=champion.ref if champion else None,
        selection=model.holdout,
        gates_digest=key,
        metrics={},
        champion_metrics={},
        comparisons=(),
        gates=(GateResult(gate="roc_auc", outcome=Outcome.PASSED, observed=0.9, threshold=0.8),),
    )
    lake.evidence.put(evaluation)
    result = promote(
        lake,
        client,
        model=model,
        alias=alias,
        expected=champion.version if champion else None,
        evaluation=evaluation,
        actor=actor,
        as_of=AS_OF,
    )
    assert result.applied, result.decision.reason
    return result.decision.sequence


def split_body(frame: Any) -> bytes:
    """Rows of a feature frame as MLflow's ``dataframe_split``."""
    from airflow_provider_xops.serving._smoke_requests import as_request

    return as_request(frame)
