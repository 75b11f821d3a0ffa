"""A window of time in which the figures of real requests are watched.

For the rollout's health step and for the check of a version in service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.records import Deployment, GateResult
from airflow_provider_xops.serving.targets._time import Patience, Time
from airflow_provider_xops.serving.targets.base import Observation, ServingBackend
from airflow_provider_xops.serving.targets.health import (
    HealthCondition,
    breached,
    is_hopeless,
    judge_figures,
)

__all__ = ["Watched", "watch"]


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a window has shown.

    :param gates: one for each limit. :param unread: why the figures could not be read at its end.
    """

    gates: tuple[GateResult, ...]
    observed: Observation | None
    seconds: float
    unread: str = ""

    def problems(self, condition: HealthCondition, *, golden_passed: bool) -> tuple[str, ...]:
        """Why the version may not go on; empty: it may."""
        if self.unread:
            return (f"the figures cannot be read: {self.unread}",)
        return breached(condition, self.gates, golden_passed=golden_passed)

    def figures(self, version: int | None, who: str) -> dict[str, Any]:
        """One version's counts and its slowest percent, with ``who`` before the names."""
        found = self.observed.versions.get(version) if self.observed and version is not None else None
        if found is None:
            return {}
        return {
            f"{who}_requests": found.requests,
            f"{who}_errors": found.errors,
            f"{who}_p99_ms": found.p99_ms if found.p99_ms != float("inf") else None,
        }


def watch(
    backend: ServingBackend,
    deployment: Deployment,
    condition: HealthCondition,
    *,
    previous: int | None,
    baseline_ms: float | None = None,
    seconds: float,
    patience: Patience,
    time: Time,
    name: str = "window",
) -> Watched:
    """Watch the deployment's version for so many seconds, and longer while too few requests came.

    A limit that enough requests have passed already ends the window early: waiting on only does more harm.

    :param previous: the version to compare with.
    :param baseline_ms: its 99th percentile in an earlier window.
    :param name: what the window is called in the memory of waits.
    :raises UnavailableError: the target does not answer at the beginning.
    :raises ComeBack: the rest of the window is waited for elsewhere.
    """
    candidate = deployment.model.version
    kept = time.memory.get(name)
    if isinstance(kept, Mapping):
        since, begin = kept["since"], datetime.fromisoformat(kept["begun"])
    else:
        since, begin = backend.mark(deployment, as_of=time.clock()), time.clock()
        time.memory[name] = {"since": since, "begun": begin.isoformat()}
    # Of a mark that cannot be written down only this process knows.
    leave_after = begin if _is_plain(since) else None
    over = begin + timedelta(seconds=seconds)
    latest = over + timedelta(seconds=patience.requests_s if condition.min_requests else patience.settle_s)
    while True:
        unread, observed = "", None
        try:
            observed = backend.observe(deployment, since=since, as_of=time.clock())
        except UnavailableError as error:
            unread = error.what
        gates = judge_figures(
            condition, observed, candidate=candidate, previous=previous, baseline_ms=baseline_ms
        )
        now = time.clock()
        enough = not unread and _requests(observed, candidate) >= condition.min_requests
        if is_hopeless(condition, gates) or (now >= over and (enough or now >= latest)):
            del time.memory[name]
            return Watched(
                gates=gates, observed=observed, unread=unread, seconds=(now - begin).total_seconds()
            )
        end = over if now < over else latest
        time.nap(patience.poll_s, since=leave_after, left=(end - now).total_seconds())


def _is_plain(mark: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(mark)) == mark)
    except (TypeError, ValueError):
        return False


def _requests(observed: Observation | None, version: int) -> int:
    figures = observed.versions.get(version) if observed else None
    return figures.requests if figures else 0
