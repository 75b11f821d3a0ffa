"""Following an alias: look at the ledger and the traffic split now and then, and have the fleet serve them.

For the server. One thread looks, another one loads, beside those that answer requests; so a rollback to a
version in memory is served although a load hangs. Nothing that fails there reaches a request: the versions
that are loaded go on answering, the failure is counted with its reason, and the next look tries again.

What it does not do: it writes nothing, and it takes no orders. ``refresh`` only means: look now.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from airflow_provider_xops.errors import LakeError, XOpsError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import TrafficSplit
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.ledger_state import LedgerState
from airflow_provider_xops.registry.loading import get_model
from airflow_provider_xops.serving.online.fleet import Applied, Fleet, LoadFailure
from airflow_provider_xops.serving.plan import ServingPlan, pinned_plan, plan_of
from airflow_provider_xops.serving.traffic import last_split

__all__ = ["EventKind", "FollowEvent", "Follower", "FollowerStatus"]

log = logging.getLogger(__name__)

INTERVAL_S = 2.0


class EventKind(StrEnum):
    """What happened at a look."""

    SWAPPED = "swapped"
    LOAD_FAILED = "load_failed"
    LOOK_FAILED = "look_failed"
    RECOVERED = "recovered"


@dataclass(frozen=True, kw_only=True)
class FollowEvent:
    """Something for metrics and logs; ``reason`` is an error's code."""

    kind: EventKind
    at: datetime
    applied: Applied | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class FollowerStatus:
    """How following goes.

    :param looked_at: when the last look that reached the lake began; None: none did yet.
    :param looks: how many have ended. :param failures: how many of them failed; ``failing`` how many in a
        row up to now. :param last_error: code of the last failure, and ``last_message`` what it said.
    """

    model: str
    alias: str
    version: int | None
    looked_at: datetime | None
    looks: int
    failures: int
    failing: int
    last_error: str
    last_message: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "model": self.model, "alias": self.alias, "pinned_version": self.version,
            "looked_at": self.looked_at.isoformat() if self.looked_at else None, "looks": self.looks,
            "failures": self.failures, "failing": self.failing, "last_error": self.last_error,
            "last_message": self.last_message,
        }  # fmt: skip


class Follower:
    """Keeps a fleet at what the lake says about an alias, or at one version by number.

    :param lake_factory: opens the lake; called again after a failure, for fresh credentials.
    :param fleet: what serves. :param version: serve this one, whatever the alias stands for; None: follow.
    :param interval: seconds between looks, a tenth more or less so that replicas do not look all at once.
    :param clock: gives the time (aware, UTC). :param on_event: told of swaps and failures, in a thread of the
        follower; what it raises is logged and goes no further.

    >>> follower = Follower(lambda: open_lake(settings), "late", "champion", fleet,
    ...                     clock=utc_now)  # doctest: +SKIP
    >>> follower.start(); follower.refresh(timeout=30).looks  # doctest: +SKIP
    1
    """

    def __init__(
        self,
        lake_factory: Callable[[], Lake],
        model: str,
        alias: str,
        fleet: Fleet,
        *,
        version: int | None = None,
        interval: float = INTERVAL_S,
        clock: Callable[[], datetime],
        on_event: Callable[[FollowEvent], None] | None = None,
    ) -> None:
        self.model, self.alias, self.version, self.fleet = model, alias, version, fleet
        self._lake_factory = lake_factory
        self._interval = interval
        self._clock = clock
        self._on_event = on_event
        self._lake: Lake | None = None
        self._lake_id: str | None = None
        self._split: TrafficSplit | None = None
        self._last_entry = 0
        self._pinned: ServingPlan | None = None
        self._looked_at: datetime | None = None
        self._looks = self._failures = self._failing = 0
        self._error: tuple[str, str] = ("", "")
        self._threads: list[threading.Thread] = []
        self._work: _Work | None = None
        self._stopping = False
        self._asked = 0
        self._seen = self._done = 0
        self._change = threading.Condition()

    def start(self) -> None:
        """Begin to follow, in threads of its own; the first look is made at once."""
        if self._threads:
            raise RuntimeError("the follower has been started")
        for what, run in (("look", self._look_on), ("load", self._load_on)):
            name = f"xops-{what}-{self.model}-{self.alias}"
            self._threads.append(threading.Thread(target=run, name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """End following; what is loaded stays. False: a look or load runs on after ``timeout`` seconds."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def refresh(self, timeout: float | None = None) -> FollowerStatus | None:
        """Look now, and try at once what failed to load before.

        :param timeout: seconds to wait for the end of a look that begins after this call, and of the loads
            that it asks for; None: do not wait.
        :returns: how following goes after that; None: it has not ended yet.
        """
        with self._change:
            self._asked += 1
            mine = self._asked
            self._change.notify_all()
            if timeout is not None and self._change.wait_for(lambda: self._done >= mine, timeout):
                return self.status()
        return None

    def status(self) -> FollowerStatus:
        """How following goes."""
        return FollowerStatus(
            model=self.model, alias=self.alias, version=self.version, looked_at=self._looked_at,
            looks=self._looks, failures=self._failures, failing=self._failing, last_error=self._error[0],
            last_message=self._error[1],
        )  # fmt: skip

    def look(self, *, again: bool = False) -> Applied | None:
        """Look once and load, in the thread that calls; what the threads of :meth:`start` do over and over.

        :param again: try at once what failed to load before.
        :returns: what the fleet did; None where nothing had to be done, or the lake could not be read.
        """
        plan = self._observe()
        return None if plan is None or self.fleet.serves(plan) else self._apply(plan, again)

    def _look_on(self) -> None:
        while True:
            with self._change:
                if self._stopping:
                    return
                asked, again = self._asked, self._asked > self._done
            work = None
            try:
                plan = self._observe()
                if plan is not None and not self.fleet.serves(plan):
                    # At once, whatever is being loaded.
                    if self.fleet.aim(plan):
                        self._tell(EventKind.SWAPPED)
                    if not self.fleet.serves(plan):
                        work = _Work(plan, again, asked)
            except BaseException as error:
                # Also a panic of a library in Rust: without this thread an old plan would be served for ever.
                self._lake = None
                self._failed(error)
            with self._change:
                self._work = work
                if work is None:
                    self._done = max(self._done, asked)
                self._change.notify_all()
                self._seen = asked
                self._change.wait_for(self._is_called, self._interval * random.uniform(0.9, 1.1))

    def _is_called(self) -> bool:
        return self._stopping or self._asked > self._seen

    def _load_on(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._stopping or self._work is not None)
                if self._stopping:
                    return
                work, self._work = self._work, None
                assert work is not None
            try:
                # Not aimed at again: a rollback may have been seen since.
                self._report(self.fleet.failures, self.fleet.complete(work.plan, again=work.again))
            except BaseException as error:
                self._failed(error)
            with self._change:
                self._done = max(self._done, work.asked)
                self._change.notify_all()

    def _observe(self) -> ServingPlan | None:
        """What the lake says now; None where it could not be read, which is counted."""
        begun = self._clock()
        self.fleet.sweep()
        try:
            plan = self._read()
        except Exception as error:
            self._lake = None
            self._failed(error)
            return None
        self._looked_at = begun
        self._looks += 1
        if self._failing:
            self._failing = 0
            self._tell(EventKind.RECOVERED)
        return plan

    def _apply(self, plan: ServingPlan, again: bool) -> Applied:
        known = self.fleet.failures
        applied = self.fleet.apply(plan, again=again)
        self._report(known, applied)
        return applied

    def _report(self, known: Sequence[LoadFailure], applied: Applied) -> None:
        if applied.swapped:
            self._tell(EventKind.SWAPPED, applied)
        for failure in applied.failed:
            if failure not in known:
                self._tell(EventKind.LOAD_FAILED, applied, failure.code)

    def _read(self) -> ServingPlan:
        if self._pinned is not None:
            return self._pinned
        lake = self._lake = self._lake or self._lake_factory()
        if self.version is not None:
            self._pinned = pinned_plan(get_model(lake, self.model, self.version), alias=self.alias)
            return self._pinned
        if self._lake_id not in (None, lake.lake_id):
            raise LakeError(
                f"another lake is at {lake.uri} than before", code="lake.other_uuid",
                why=f"it was {self._lake_id}, now it is {lake.lake_id}",
                todo="mount the one that was there, or start the server again to follow this one",
            )  # fmt: skip
        self._lake_id = lake.lake_id
        state = ledger.state(lake, self.model, self.alias)
        self._check(state)
        self._split = last_split(lake, self.model, self.alias, known=self._split)
        return plan_of(state, self._split)

    def _check(self, state: LedgerState) -> None:
        """A ledger only grows: one that has shrunk is a lake that is not there, no reason to stop serving."""
        last = state.head.sequence if state.head else 0
        if last < self._last_entry:
            raise LakeError(
                f"the ledger of {self.model}/{self.alias} has gone back", code="lake.ledger_broken",
                why=f"entry {self._last_entry} was there before, now the last one is {last}",
                todo="check that the lake's storage is mounted, and `xops reconcile` it",
            )  # fmt: skip
        self._last_entry = last

    def _failed(self, error: BaseException) -> None:
        self._looks += 1
        self._failures += 1
        self._failing += 1
        if isinstance(error, XOpsError):
            code, message = error.code, str(error)
        else:
            code, message = type(error).__name__, "see the server's log"
        if self._failing == 1 or self._error[0] != code:
            log.warning(
                "%s/%s cannot be followed (%s); what is loaded goes on answering.", self.model, self.alias,
                code, exc_info=not isinstance(error, XOpsError),
            )  # fmt: skip
        self._error = (code, message)
        self._tell(EventKind.LOOK_FAILED, reason=code)

    def _tell(self, kind: EventKind, applied: Applied | None = None, reason: str = "") -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(FollowEvent(kind=kind, at=self._clock(), applied=applied, reason=reason))
        except Exception:
            log.exception("Telling of %s failed.", kind)


@dataclass(frozen=True)
class _Work:
    """A plan to load for, and the number of the refresh that it answers."""

    plan: ServingPlan
    again: bool
    asked: int
