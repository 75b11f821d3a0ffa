"""Task contexts made of Airflow's own accessors, and a lake behind a connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake

MakeContext = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def lake_connection(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's lake is the default connection's."""
    lake: Lake = request.getfixturevalue("lake")
    monkeypatch.setenv(
        "AIRFLOW_CONN_XOPS_LAKE_DEFAULT", json.dumps({"conn_type": "xops_lake", "host": lake.uri})
    )


@pytest.fixture
def make_context() -> MakeContext:
    """A maker of task contexts: ``make_context(task_id="ingest", run_id="r1", events=[...], params={...})``.

    Each one is a later attempt than the one before. ``events`` are ``(asset name, extra)`` pairs.
    """
    from airflow.sdk.execution_time.comms import AssetEventDagRunReferenceResult
    from airflow.sdk.execution_time.context import OutletEventAccessors, TriggeringAssetEventsAccessor

    started = iter(_moments())

    def make(
        *,
        task_id: str = "task",
        run_id: str = "run_1",
        map_index: int = -1,
        try_number: int = 1,
        params: Mapping[str, Any] | None = None,
        events: list[tuple[str, Any]] | None = None,
    ) -> dict[str, Any]:
        ti = SimpleNamespace(
            dag_id="dag",
            run_id=run_id,
            task_id=task_id,
            map_index=map_index,
            try_number=try_number,
            start_date=next(started),
        )
        references = [
            AssetEventDagRunReferenceResult(
                asset={"name": name, "uri": f"x-xops://lake/{name}", "extra": {}},
                extra=extra,
                source_task_id="t",
                source_dag_id="d",
                source_run_id="r",
                source_map_index=-1,
                source_aliases=[],
                timestamp=datetime(2026, 1, 15, tzinfo=UTC),
            )
            for name, extra in events or []
        ]
        return {
            "ti": ti,
            "params": dict(params or {}),
            "outlet_events": OutletEventAccessors(),
            "triggering_asset_events": TriggeringAssetEventsAccessor.build(references),
        }

    return make


@pytest.fixture
def context(make_context: MakeContext) -> dict[str, Any]:
    """The context of somebody's first attempt."""
    return make_context()


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    """A maker of source files: ``csv("2013-01-01", "id,n", "1,2")`` gives the path."""

    def make(name: str, *lines: str) -> Path:
        path = tmp_path / "landing" / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    return make


def _moments() -> Iterator[datetime]:
    moment = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
    while True:
        moment += timedelta(seconds=1)
        yield moment
