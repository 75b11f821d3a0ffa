"""What a version must do in a window of real requests, before it gets more of them.

For the rollout and the check after it. A figure that is missing never passes; that a target without traffic
may be judged by its golden answers alone is said by ``min_requests=0``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.records import GateResult, Outcome
from airflow_provider_xops.serving.targets.base import Observation, ServingBackend, VersionFigures

__all__ = ["HealthCondition", "breached", "judge_figures"]

REQUESTS, ERRORS, P99, P99_RATIO = "requests", "error_rate", "p99_ms", "p99_ratio"
# Fewer requests say little of a share: before that many a window is not ended early.
ENOUGH = 20


@dataclass(frozen=True, kw_only=True)
class HealthCondition:
    """Limits of the figures of one version in a window.

    :param max_error_rate: share of its answers that may be the server's fault; in 0..1, None: not asked.
    :param max_p99_ms: the 99th percentile of its milliseconds; None: not asked.
    :param max_p99_ratio: the same, as a multiple of the previous version's in the same window; None: not
        asked. It needs a step below 1.0, at which the previous version gets requests too.
    :param min_requests: how many requests it must have got. 0: none are needed; then its golden answers
        decide where no request came.
    :param golden: ask the golden rows again at the end of the window.
    :param tolerance: how far a predicted number may be from the recorded one.

    >>> HealthCondition.of({"max_error_rate": 0.001, "min_requests": 500}).min_requests
    500
    """

    max_error_rate: float | None = 0.01
    max_p99_ms: float | None = None
    max_p99_ratio: float | None = None
    min_requests: int = 0
    golden: bool = True
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        problems = []
        for name in ("max_error_rate", "max_p99_ms", "max_p99_ratio", "tolerance"):
            value = getattr(self, name)
            optional = name != "tolerance"
            if not (value is None and optional) and not (_is_number(value) and value >= 0):
                problems.append(name)
        if self.max_error_rate is not None and not problems and self.max_error_rate > 1:
            problems.append("max_error_rate")
        if (
            isinstance(self.min_requests, bool)
            or not isinstance(self.min_requests, int)
            or self.min_requests < 0
        ):
            problems.append("min_requests")
        if not isinstance(self.golden, bool):
            problems.append("golden")
        if problems:
            raise ArgumentError(
                f"of the health condition, {', '.join(problems)} cannot be used",
                code="argument.health",
                todo="rates are in 0..1, limits and counts not negative, golden is true or false",
            )

    @classmethod
    def of(cls, given: Mapping[str, Any] | HealthCondition | None) -> HealthCondition:
        """The condition that a mapping describes.

        :raises ArgumentError: ``argument.health``: an unknown name, or a value out of range.
        """
        if isinstance(given, HealthCondition):
            return given
        unknown = sorted(set(given or {}) - {each.name for each in fields(cls)})
        if unknown:
            raise ArgumentError(
                f"a health condition has no {', '.join(map(str, unknown))}",
                code="argument.health",
                todo=f"use {', '.join(each.name for each in fields(cls))}",
            )
        return cls(**dict(given or {}))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for the record of the deployment."""
        return asdict(self)

    def check(self, backend: ServingBackend, steps: tuple[float, ...], *, previous: bool) -> None:
        """See that a target can give the figures asked for.

        :raises ArgumentError: ``argument.health``.
        """
        limits = (self.max_p99_ms, self.max_p99_ratio, self.min_requests or None)
        if not backend.has_figures and any(limit is not None for limit in limits):
            raise ArgumentError(
                f"a target of kind {backend.kind} gives no figures of its requests",
                code="argument.health",
                todo="leave out max_p99_ms, max_p99_ratio and min_requests; golden answers decide",
            )
        if self.max_p99_ratio is not None and previous and steps[0] == 1:
            raise ArgumentError(
                "max_p99_ratio compares two versions in one window",
                code="argument.health",
                why="with the one step 1.0 the previous version gets no requests",
                todo="add a step below 1.0, or give max_p99_ms",
            )


def judge_figures(
    condition: HealthCondition,
    observed: Observation | None,
    *,
    candidate: int,
    previous: int | None,
    baseline_ms: float | None = None,
) -> tuple[GateResult, ...]:
    """A gate for each limit. Without any request they are *no data*; the condition says whether that matters.

    :param baseline_ms: the previous version's 99th percentile in an earlier window, for where it gets no
        requests any more.
    """
    figures = (observed.versions.get(candidate) if observed else None) or VersionFigures(requests=0, errors=0)
    gates = [_requests(condition, observed, figures)]
    silent = figures.requests == 0
    if condition.max_error_rate is not None:
        rate = None if silent else figures.errors / figures.requests
        gates.append(_limit(ERRORS, rate, condition.max_error_rate, silent=silent))
    if condition.max_p99_ms is not None:
        gates.append(_limit(P99, figures.p99_ms, condition.max_p99_ms, silent=silent))
    if condition.max_p99_ratio is not None and previous is not None:
        before = observed.versions.get(previous) if observed else None
        base = before.p99_ms if before is not None and before.p99_ms is not None else baseline_ms
        ratio = figures.p99_ms / base if figures.p99_ms is not None and base else None
        gates.append(_limit(P99_RATIO, ratio, condition.max_p99_ratio, silent=silent))
    return tuple(gates)


def breached(
    condition: HealthCondition, gates: tuple[GateResult, ...], *, golden_passed: bool
) -> tuple[str, ...]:
    """Why a version may not go on, one sentence a reason; empty: it may.

    >>> figures = judge_figures(HealthCondition(), None, candidate=2, previous=1)
    >>> breached(HealthCondition(), figures, golden_passed=True)
    ()
    >>> breached(HealthCondition(), figures, golden_passed=False)
    ('nothing was measured: no request came, and no golden rows are on record',)
    """
    by_name = {gate.gate: gate for gate in gates}
    requests = by_name.get(REQUESTS)
    silent = requests is None or not requests.observed
    if silent and condition.min_requests == 0:
        # Errors and latencies of no requests: what is known is that the golden answers are right.
        if golden_passed:
            return ()
        return ("nothing was measured: no request came, and no golden rows are on record",)
    return tuple(f"{gate.gate}: {gate.message}" for gate in gates if gate.outcome is not Outcome.PASSED)


def is_hopeless(condition: HealthCondition, gates: tuple[GateResult, ...]) -> bool:
    """Whether a limit is passed already by enough requests, so that waiting on only does more harm."""
    requests = next((gate.observed for gate in gates if gate.gate == REQUESTS), None) or 0.0
    return requests >= max(ENOUGH, condition.min_requests) and any(
        gate.outcome is Outcome.FAILED for gate in gates if gate.gate != REQUESTS
    )


def _requests(
    condition: HealthCondition, observed: Observation | None, figures: VersionFigures
) -> GateResult:
    needed = condition.min_requests
    if observed is None:
        return GateResult(
            gate=REQUESTS,
            outcome=Outcome.NO_DATA,
            threshold=float(needed),
            message="the target gives no figures",
        )
    short = figures.requests < needed
    return GateResult(
        gate=REQUESTS,
        outcome=Outcome.FAILED if short else Outcome.PASSED,
        observed=float(figures.requests),
        threshold=float(needed),
        message=f"{figures.requests} came in {observed.seconds:.0f} s, {needed} are needed" if short else "",
    )


def _limit(name: str, value: float | None, limit: float, *, silent: bool) -> GateResult:
    if value == math.inf:
        return GateResult(
            gate=name,
            outcome=Outcome.FAILED,
            threshold=float(limit),
            message="it is above all that the target measures",
        )
    if value is None or not math.isfinite(value):
        return GateResult(
            gate=name,
            outcome=Outcome.NO_DATA,
            threshold=float(limit),
            message="no request came" if silent else "the target has no figure",
        )
    over = value > limit
    return GateResult(
        gate=name,
        outcome=Outcome.FAILED if over else Outcome.PASSED,
        observed=float(value),
        threshold=float(limit),
        message=f"{value:.4g} is above {limit:g}" if over else "",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
