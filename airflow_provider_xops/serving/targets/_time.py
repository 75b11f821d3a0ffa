"""How long a rollout waits, by which clock, where, and how it is told to stop.

For :mod:`airflow_provider_xops.serving.targets.rollout` and the check of what is in service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_xops.errors import ArgumentError

__all__ = ["Cancelled", "ComeBack", "Memory", "Patience", "Time", "check_seconds"]

# Three years; the calendar's end is not far beyond what a float can hold.
LONGEST_SECONDS = 1e8
# Most waits are over sooner; and a task of Airflow that goes on before the scheduler has heard that its
# worker is gone is failed by it.
HERE_SECONDS = 10.0


class Cancelled(Exception):
    """Whoever asked for the work does not want it any more."""


class ComeBack(Exception):
    """The next look is due later than the caller wants to wait for it: the same call again goes on then.

    :param at: when, UTC. :param memory: give it to that call: plain JSON.
    """

    def __init__(self, at: datetime, *, memory: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"the next look is due at {at:%F %T} UTC")
        self.at = at
        self.memory = dict(memory or {})


class Memory(dict[str, Any]):
    """What is known of waits that are not over, by the name of each: plain JSON.

    Whoever goes on with one waits no longer in all than was meant.
    """

    def begun(self, name: str, now: datetime) -> datetime:
        """When a wait began; it begins now unless it did before."""
        return datetime.fromisoformat(self.setdefault(name, now.isoformat()))


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How many seconds are waited at most.

    :param load_s: for a version to be loaded on every replica. :param settle_s: for the replicas to share the
        requests as told, and for a target that does not answer.
    :param requests_s: beyond a window, for the requests that the health condition needs.
    :param poll_s: between two looks.
    :raises ArgumentError: ``argument.seconds``.
    """

    load_s: float = 600.0
    settle_s: float = 120.0
    requests_s: float = 600.0
    poll_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("load_s", "settle_s", "requests_s", "poll_s"):
            check_seconds(getattr(self, name), argument=name)
        if self.poll_s == 0:
            raise _no_time("poll_s")


@dataclass(frozen=True, kw_only=True)
class Time:
    """The clock, and waiting that can be cancelled, or be done elsewhere.

    :param away_s: seconds until the next look where the caller goes away meanwhile and comes back; None: it
        stays. :param memory: what is known of the waits.
    """

    clock: Callable[[], datetime]
    wait: Callable[[float], None]
    cancelled: Callable[[], bool]
    away_s: float | None = None
    memory: Memory = field(default_factory=Memory)

    def nap(self, seconds: float, *, since: datetime | None = None, left: float | None = None) -> None:
        """Sleep until the next look, or have the caller come back for it.

        :param since: when the wait began that this is a part of: after some seconds the caller may go away;
            None: it stays. :param left: seconds after which there is nothing more to wait for.
        :raises Cancelled: the work is not wanted any more. :raises ComeBack: the caller is to come back.
        """
        self.check()
        here = seconds if left is None else min(seconds, left)
        if self.away_s is not None and since is not None:
            away = max(seconds, self.away_s) if left is None else min(max(seconds, self.away_s), left)
            still = HERE_SECONDS - (self.clock() - since).total_seconds()
            if away >= HERE_SECONDS and still <= 0:
                raise ComeBack(self.deadline(away))
            if away >= HERE_SECONDS:
                here = min(here, still)
        self.wait(here)
        self.check()

    def check(self) -> None:
        """See whether the work is still wanted.

        :raises Cancelled: it is not.
        """
        if self.cancelled():
            raise Cancelled

    def deadline(self, seconds: float) -> datetime:
        """The moment so many seconds from now."""
        return self.clock() + timedelta(seconds=seconds)


def check_seconds(seconds: float, *, argument: str) -> float:
    """A length of time, if it is one.

    :raises ArgumentError: ``argument.seconds``: it is negative, missing, or beyond all measure.
    """
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise _no_time(argument)
    return float(seconds)


def _no_time(argument: str) -> ArgumentError:
    return ArgumentError(f"{argument} is no length of time", code="argument.seconds", todo="give seconds")
