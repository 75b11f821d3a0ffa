"""How long a rollout waits, by which clock, and how it is told to stop.

For :mod:`airflow_provider_xops.serving.targets.rollout`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_xops.errors import ArgumentError

__all__ = ["Cancelled", "Patience", "Time", "check_seconds"]

# Three years; the calendar's end is not far beyond what a float can hold.
LONGEST_SECONDS = 1e8


class Cancelled(Exception):
    """Whoever asked for the work does not want it any more."""


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
    """The clock, and waiting that can be cancelled."""

    clock: Callable[[], datetime]
    wait: Callable[[float], None]
    cancelled: Callable[[], bool]

    def nap(self, seconds: float) -> None:
        """Sleep.

        :raises Cancelled: the work is not wanted any more.
        """
        self.check()
        self.wait(seconds)
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
