"""One promotion: the decision in the ledger, MLflow's alias, and the entry that says it was applied.

``python -m benchmarks.promotion [--json]``. Budget: less than one second, against an MLflow server on this
machine (one worker, SQLite) and a lake in a local folder. The figure is the median in seconds; ``details``
has the slowest, the same at the end of a long ledger, and what a promotion is made of (lake commits, requests
to MLflow).
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.records import (
    Actor,
    DatasetRef,
    Evaluation,
    GateResult,
    ModelVersion,
    Outcome,
    Selection,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.settings import LakeSettings
from benchmarks._harness import median, percentile, report
from tests import servers

PROMOTIONS = 60
WINDOW = 20
BUDGET_S = 1.0
AS_OF = datetime(2026, 1, 15, tzinfo=UTC)
MODEL = "benchmark"


def main() -> None:
    """Promote one version after the other, and time each."""
    folder = Path(tempfile.mkdtemp(prefix="xops-bench-"))
    try:
        with servers.mlflow() as server:
            settings = LakeSettings(str(folder / "lake"))
            init_lake(settings, actor=_actor("lake"), as_of=AS_OF)
            lake, client = open_lake(settings), RegistryClient(server.settings())
            models = [_version(lake, client, number) for number in range(PROMOTIONS + 1)]
            _promote(lake, client, models[0], None)  # makes the ledger; imports what is imported once
            samples = []
            for champion, model in itertools.pairwise(models):
                started = time.perf_counter()
                _promote(lake, client, model, champion)
                samples.append(time.perf_counter() - started)
            last = _version(lake, client, PROMOTIONS + 1)
            entries = len(ledger.entries(lake, MODEL))
            with _requests() as calls:
                _promote(lake, client, last, models[-1])
            commits = len(ledger.entries(lake, MODEL)) - entries
        report(
            "promotion",
            ratio=median(samples),
            budget=BUDGET_S,
            better="lower",
            samples=samples,
            details={
                "unit": "seconds",
                "peer": "none: the budget is absolute",
                "slowest_s": round(max(samples), 3),
                "p95_s": round(percentile(samples, 95), 3),
                "first_s": round(median(samples[:WINDOW]), 3),
                "last_s": round(median(samples[-WINDOW:]), 3),
                "ledger_entries_at_the_end": entries + commits,
                "lake_commits": commits,
                "requests_to_mlflow": len(calls),
            },
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _actor(key: str) -> Actor:
    return Actor.user("benchmark", key=key, fence=1)


def _version(lake: Lake, client: RegistryClient, number: int) -> ModelVersion:
    """A registered version and its record; it has no files, because promotion reads none."""
    with client.session("making a version") as mlflow:
        if number == 0:
            mlflow.create_registered_model(MODEL)
        made = mlflow.create_model_version(MODEL, f"s3://nowhere/{number}", await_creation_for=None)
    dataset = DatasetRef(lake_id=lake.lake_id, table="flights", table_uuid="uuid", version=number)
    training, holdout = (
        Selection(dataset=dataset, partitions=(part,), rows=1, digest=part) for part in ("2013-01", "2013-02")
    )
    record = ModelVersion(
        recorded_at=AS_OF,
        produced_by=_actor("train").producer,
        name=MODEL,
        version=int(made.version),
        created_at_ms=int(made.creation_timestamp),
        run_id=None,
        source_uri=str(made.source),
        training=training,
        holdout=holdout,
        features=("a",),
        target="y",
        task="classification",
        estimator="a:b",
        code_version="git:1",
        params_digest="p",
        artifact_digest=f"{number:064d}",
        metrics={},
    )
    lake.evidence.put(record)
    return record


def _promote(lake: Lake, client: RegistryClient, model: ModelVersion, champion: ModelVersion | None) -> None:
    assert model.holdout is not None
    gate = GateResult(gate="roc_auc", outcome=Outcome.PASSED, observed=0.9, threshold=0.8)
    evaluation = Evaluation(
        recorded_at=AS_OF,
        produced_by=_actor("evaluate").producer,
        model=model.ref,
        champion=champion.ref if champion else None,
        selection=model.holdout,
        gates_digest="g",
        metrics={},
        champion_metrics={},
        comparisons=(),
        gates=(gate,),
    )
    lake.evidence.put(evaluation)
    result = promote(
        lake,
        client,
        model=model,
        expected=champion.version if champion else None,
        evaluation=evaluation,
        actor=_actor(f"promote {model.version}"),
        as_of=AS_OF,
    )
    assert result.applied, result.decision.reason


@contextmanager
def _requests() -> Iterator[list[str]]:
    """The requests that MLflow's client makes inside."""
    import mlflow.utils.rest_utils as rest

    calls: list[str] = []
    original: Any = rest._get_http_response_with_retries

    def counted(method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(f"{method} {url}")
        return original(method, url, *args, **kwargs)

    rest._get_http_response_with_retries = counted
    try:
        yield calls
    finally:
        rest._get_http_response_with_retries = original


if __name__ == "__main__":
    main()
