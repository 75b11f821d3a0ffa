"""A server process as the prediction log sees it: it loads nothing, predicts nothing, and offers rows.

For ``test_prediction_log.py``. What it has offered is told through shared memory after each request, so that
it is known when the process is killed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_provider_xops.lake.lake import open_lake
from airflow_provider_xops.serving.online import sessions
from airflow_provider_xops.serving.online.prediction_log import PredictionLog
from airflow_provider_xops.settings import LakeSettings
from tests.processes import CONTEXT
from tests.unit.serving.online.log_cases import ACTOR, Caller, model_version

__all__ = ["Told", "start", "write"]

TIMEOUT_S = 120.0


@dataclass
class Told:
    """What a process tells: rows it has offered, the most that can be queued now, flushes made, rows left at
    the end.

    ``prefix`` is what its prediction ids begin with.
    """

    offered: Any = field(default_factory=lambda: CONTEXT.Value("q", 0))
    queued: Any = field(default_factory=lambda: CONTEXT.Value("q", 0))
    left: Any = field(default_factory=lambda: CONTEXT.Value("q", -1))
    flushes: Any = field(default_factory=lambda: CONTEXT.Value("q", 0))
    prefix: Any = field(default_factory=lambda: CONTEXT.Array("c", 64))


def start(settings: LakeSettings, told: Told, **options: Any) -> Any:
    """A process that writes, running."""
    process = CONTEXT.Process(target=write, args=(settings, told, options), daemon=True)
    process.start()
    return process


def write(settings: LakeSettings, told: Told, options: dict[str, Any]) -> None:
    """Offer ``requests`` requests of ``rows`` rows, with ``pause`` seconds between, then end well."""
    lake = open_lake(settings)
    session = sessions.begin(
        lake, server=options["server"], model=model_version(), alias="champion",
        started_at=datetime.now(UTC), log_table="delay_log", actor=ACTOR,
    )  # fmt: skip
    told.prefix.value = sessions.id_prefix(session).encode()
    log = PredictionLog(
        lambda: open_lake(settings), "delay_log", server=options["server"], max_rows=100_000,
        flush_rows=options["flush_rows"], flush_seconds=options.get("flush_seconds", 1.0),
        clock=lambda: datetime.now(UTC), actor=ACTOR,
    )  # fmt: skip
    caller = Caller(session, lambda: datetime.now(UTC))
    for _ in range(options["requests"]):
        assert log.offer(caller.request([1] * options["rows"], columns=None))
        # Told together: what is killed in between has told less than it offered, never more.
        with told.offered.get_lock():
            stats = log.stats()
            told.queued.value, told.flushes.value = stats.queued, stats.flushes
            told.offered.value += options["rows"]
        if options.get("pause"):
            time.sleep(options["pause"])
    told.left.value = log.close(TIMEOUT_S)
    told.flushes.value = log.stats().flushes
