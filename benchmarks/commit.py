"""Committing one day when a table has a thousand versions, against when it has none.

``python -m benchmarks.commit [--json]``. Budgets: the median of versions 1,000-1,100 is at most 3 times
that of versions 0-100 (each a whole checkpoint interval), and 95 of 100 commits take at most 250 ms on a
local disk (in ``details``).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.records import Actor
from airflow_provider_xops.settings import LakeSettings
from benchmarks._harness import median, percentile, report

VERSIONS = 1_100
WINDOW = 100
ROWS = 1_000
BUDGET = 3.0
P95_BUDGET_MS = 250
AS_OF = datetime(2026, 1, 15, tzinfo=UTC)


def main() -> None:
    """Commit 1,100 days, one after the other, and compare the last hundred with the first."""
    folder = Path(tempfile.mkdtemp(prefix="xops-bench-"))
    try:
        settings = LakeSettings(str(folder / "lake"))
        actor = Actor.user("benchmark", key="benchmark", fence=1)
        init_lake(settings, actor=actor, as_of=AS_OF)
        lake = open_lake(settings)
        rows = pa.table(
            {"flight": range(ROWS), "delay": [float(i % 97) for i in range(ROWS)], "carrier": ["AA"] * ROWS}
        )
        commit(lake, "warmup", [Segment("all", "input", rows.to_reader)], actor=actor, as_of=AS_OF)
        times = []
        for number in range(VERSIONS):
            day = (date(2013, 1, 1) + timedelta(days=number)).isoformat()
            started = time.perf_counter()
            commit(lake, "flights", [Segment(day, "input", rows.to_reader)], actor=actor, as_of=AS_OF)
            times.append((time.perf_counter() - started) * 1000)
        started = time.perf_counter()
        reused = commit(
            lake, "flights", [Segment("2013-01-01", "input", rows.to_reader)], actor=actor, as_of=AS_OF
        )
        reuse_ms = (time.perf_counter() - started) * 1000
        assert reused.reused
        first, last = times[:WINDOW], times[-WINDOW:]
        p95 = percentile(last, 95)
        report(
            "commit",
            ratio=median(last) / median(first),
            budget=BUDGET,
            better="lower",
            samples=[ms / median(first) for ms in last],
            details={
                "rows_per_commit": ROWS,
                "versions": VERSIONS,
                "first_ms": round(median(first), 1),
                "last_ms": round(median(last), 1),
                "slowest_ms": round(max(last), 1),
                "p95": {
                    "ms": round(p95, 1),
                    "budget_ms": P95_BUDGET_MS,
                    "within_budget": p95 <= P95_BUDGET_MS,
                },
                "finding_a_commit_that_was_made_ms": round(reuse_ms, 1),
            },
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
