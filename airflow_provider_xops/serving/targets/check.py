"""A version in service, looked at after it got requests: does it answer as at training, and is it well?

For the check operator, ``xops check-deployment`` and whoever decides about an automatic rollback. The result
is a record that names the ledger entry which put the version there, so that an undo undoes that entry and no
later one.

What it does not do: it changes nothing, and it does not know whether predictions were right (labels come
later).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_provider_xops.errors import NotFoundError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Actor,
    Deployment,
    DeploymentCheck,
    GateResult,
    Outcome,
)
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.loading import model_of
from airflow_provider_xops.serving.targets._time import ComeBack, Memory, Patience, Time, check_seconds
from airflow_provider_xops.serving.targets._window import watch
from airflow_provider_xops.serving.targets.base import ServingBackend
from airflow_provider_xops.serving.targets.golden import GoldenRows, ask_golden
from airflow_provider_xops.serving.targets.health import HealthCondition

__all__ = ["ComeBack", "check_deployment"]

ANSWERS = "answers"
# In the memory of whoever comes back: the sequence of the ledger's entry that is looked at.
LOOKED_AT = "decision"


def check_deployment(
    lake: Lake,
    backend: ServingBackend,
    *,
    model_name: str,
    alias: str = "champion",
    health: HealthCondition | None = None,
    seconds: float = 60.0,
    deployment: str | None = None,
    patience: Patience | None = None,
    actor: Actor,
    clock: Callable[[], datetime],
    wait: Callable[[float], None] = time.sleep,
    away_s: float | None = None,
    memory: Mapping[str, Any] | None = None,
) -> DeploymentCheck:
    """Look at what serves an alias, and record what was found.

    The requests of the next seconds are watched. Then golden rows are asked of whatever serves callers: the
    answers must be the champion's, and ours are not among the requests that are counted.

    :param health: what must hold. :param seconds: how long requests are watched; more, while fewer than the
        condition's ``min_requests`` came (bounded by ``patience``).
    :param deployment: record id of the deployment that brought the version there.
    :param away_s: seconds between two looks where the caller waits elsewhere (``ComeBack``); None: all is
        waited for here. :param memory: that of the ``ComeBack`` after which this call is made.
    :returns: passed; failed: something is not as it must be; no data: nothing could be measured; errored: the
        target did not answer.
    :raises NotFoundError: ``not_found.champion``: the ledger has none.
    :raises ArgumentError: ``argument.seconds``.
    :raises ComeBack: only with ``away_s``: the same call goes on at its moment, with its memory.

    >>> check_deployment(lake, backend, model_name="late", seconds=300, actor=actor,
    ...                  clock=clock).outcome  # doctest: +SKIP
    <Outcome.PASSED: 'passed'>
    """
    condition = health or HealthCondition()
    check_seconds(seconds, argument="seconds")
    decision = ledger.current(lake, model_name, alias)
    if memory:
        # The window has begun with that one, whatever was decided since.
        entries = ledger.entries(lake, model_name, alias)
        decision = next(each for each in entries if each.sequence == memory[LOOKED_AT])
    if decision is None:
        raise NotFoundError(
            f"{model_name} has no {alias}", code="not_found.champion", todo="promote or adopt a version first"
        )
    model = model_of(lake, decision)
    # Not recorded: it only says which version is meant.
    about = Deployment(
        recorded_at=clock(), produced_by=actor.producer, model=model.ref, alias=alias, target=backend.kind,
        endpoint=backend.endpoint, key=actor.idempotency_key,
    )  # fmt: skip
    when = Time(clock=clock, wait=wait, cancelled=bool, away_s=away_s, memory=Memory(memory or {}))
    gates: list[GateResult] = []
    served: dict[str, int] = {}
    try:
        golden_passed = False
        watched = watch(
            backend, about, condition, previous=None, seconds=seconds, patience=patience or Patience(),
            time=when,
        )  # fmt: skip
        gates += watched.gates
        if condition.golden:
            rows = GoldenRows.of(lake, model)
            judged = ask_golden(
                backend, rows, model, alias=alias, version=None, tolerance=condition.tolerance
            )
            gates += judged.gates
            served = {str(version): times for version, times in sorted(judged.served.items())}
            golden_passed = judged.outcome is Outcome.PASSED
        problems = watched.problems(condition, golden_passed=golden_passed)
        outcome = _outcome(condition, gates, problems, golden_passed=golden_passed, unread=watched.unread)
    except ComeBack as later:
        later.memory = {**when.memory, LOOKED_AT: decision.sequence}
        raise
    except UnavailableError as error:
        gates.append(GateResult(gate=ANSWERS, outcome=Outcome.ERRORED, message=error.what))
        outcome = Outcome.ERRORED
    check = DeploymentCheck(
        recorded_at=clock(), produced_by=actor.producer, model=model.ref, alias=alias, target=backend.kind,
        endpoint=backend.endpoint, outcome=outcome, results=tuple(gates), decision=decision.sequence,
        deployment=deployment, served=served,
    )  # fmt: skip
    lake.evidence.put(check)
    return check


def _outcome(
    condition: HealthCondition,
    gates: Sequence[GateResult],
    problems: Sequence[str],
    *,
    golden_passed: bool,
    unread: str,
) -> Outcome:
    """Failed before errored before no data; passed only if something was measured and nothing is missing."""
    if any(gate.outcome is Outcome.FAILED for gate in gates):
        return Outcome.FAILED
    if unread:
        return Outcome.ERRORED
    missing = problems or (condition.golden and not golden_passed)
    return Outcome.NO_DATA if missing else Outcome.PASSED
