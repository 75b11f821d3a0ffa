"""The loaded versions of one alias, and which of them answers a request: swapped whole, while requests run.

For the server. Requests take a lease; a plan is applied beside them: what is missing is loaded first, then
the whole arrangement is exchanged at one moment. A request keeps the version it was given until it ends, and
a version is let go of when no request has it any more. Where the primary version of a plan cannot be loaded,
the arrangement before stays as it is.

What it does not do: it decides nothing; it serves the plan it was given last, as far as that can be loaded.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_xops.errors import NotFoundError, UnavailableError, XOpsError
from airflow_provider_xops.records import Variant, VariantRole
from airflow_provider_xops.serving.online._arrangement import (
    Arrangement,
    Identity,
    Slot,
    identity_of,
    shared,
    shown,
)
from airflow_provider_xops.serving.online._fleet_parts import Applied, Lease, LoadFailure, LoadFunction
from airflow_provider_xops.serving.online.variants import LoadedModel
from airflow_provider_xops.serving.plan import ServingPlan

__all__ = ["Applied", "Fleet", "Lease", "LoadFailure", "LoadFunction"]

log = logging.getLogger(__name__)

# A version that does not load is tried again after this long, then after twice as long, and so on.
FIRST_WAIT = timedelta(seconds=2)
LONGEST_WAIT = timedelta(minutes=2)


class Fleet:
    """The versions of one alias of one model in this process.

    :param load: brings a version into memory. :param clock: gives the time (aware, UTC).
    :param rng: chooses among the variants for requests without a key.

    >>> fleet = Fleet(loader, clock=utc_now)  # doctest: +SKIP
    >>> fleet.apply(plan_of(ledger.state(lake, "late", "champion"), None)).loaded  # doctest: +SKIP
    (3,)
    >>> with fleet.lease("customer 17") as lease:  # doctest: +SKIP
    ...     said = lease.loaded.predict(frame)
    """

    def __init__(
        self,
        load: LoadFunction,
        *,
        clock: Callable[[], datetime],
        rng: random.Random | None = None,
    ) -> None:
        self._load = load
        self._clock = clock
        # Not for secrets: it spreads requests.
        self._rng = rng or random.Random()
        self._slots: dict[Identity, Slot] = {}
        self._leaving: list[Slot] = []
        self._failures: dict[Identity, LoadFailure] = {}
        self._plan: ServingPlan | None = None
        self._arrangement = Arrangement()
        self._swaps = 0
        # What is being loaded, and since when.
        self._bringing: tuple[int, datetime] | None = None
        # The plan that could not be served when this was last logged.
        self._told = ""
        # For what requests need; for what is wanted and loaded; for one load at a time.
        self._lock = threading.Lock()
        self._state = threading.RLock()
        self._loading = threading.Lock()

    @property
    def plan(self) -> ServingPlan | None:
        """The plan that was given last; it may not be served yet."""
        return self._plan

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        return bool(self._arrangement.answering)

    @property
    def whole(self) -> bool:
        """Whether the last plan is served as it stands, with everything loaded that it names."""
        return self._plan is not None and not self._failures and self._arrangement.digest == self._plan.digest

    @property
    def failures(self) -> tuple[LoadFailure, ...]:
        """The versions of the last plan that could not be loaded."""
        return tuple(self._failures.values())

    @property
    def swaps(self) -> int:
        """How often the arrangement was exchanged."""
        return self._swaps

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions that are loaded and would answer when asked for by number."""
        return tuple(sorted(self._arrangement.by_version))

    def lease(self, key: str | None = None) -> Lease:
        """Hold the version that answers a request, until the lease ends.

        :param key: equal keys get the same version as long as the shares stay; None: any one, by the shares.
        :raises UnavailableError: ``unavailable.model``: nothing is loaded.
        """
        while True:
            now = self._arrangement
            if not now.answering:
                raise self._nothing()
            slot, variant = now.choose(key)
            shadows = now.shadows_for(key) if now.shadows else ()
            with self._lock:
                # Exchanged since it was read: the slot may have been let go of already.
                if slot.kept:
                    slot.users += 1
                    assert slot.loaded is not None
                    return Lease(slot.loaded, variant, shadows, slot, self._released)

    def lease_version(self, version: int) -> Lease:
        """Hold a version by number, whatever its part: to look at it, not to serve by.

        :raises NotFoundError: ``not_found.loaded_version``.
        """
        while True:
            found = self._arrangement.by_version.get(version)
            if found is None:
                raise NotFoundError(
                    f"version {version} is not loaded", code="not_found.loaded_version",
                    todo=f"loaded are {', '.join(map(str, self.versions)) or 'none'}",
                )  # fmt: skip
            slot, variant = found
            with self._lock:
                if slot.kept:
                    slot.users += 1
                    assert slot.loaded is not None
                    return Lease(slot.loaded, variant, (), slot, self._released)

    def aim(self, plan: ServingPlan) -> bool:
        """Want a plan, and serve it at once if all that answers in it is loaded; nothing is loaded here.

        It waits for no load that is under way: a rollback to a version in memory is served although another
        version is being brought, or cannot be.

        :returns: whether requests are answered by another arrangement than before.
        """
        exchanged, _ = self._aim(plan)
        return exchanged

    def apply(self, plan: ServingPlan, *, again: bool = False) -> Applied:
        """Serve a plan: load what is missing, exchange the arrangement, let go of what is not wanted.

        What answers requests is loaded and exchanged first; what only waits is loaded after that. A canary
        that cannot be loaded leaves its share to the primary version; where the primary cannot be loaded, the
        arrangement before goes on. What failed is tried again by a later call, at growing distances. When
        another plan is wanted meanwhile (:meth:`aim`), it ends after the load that is under way.

        :param again: try at once what failed before.
        :returns: what was done; it raises nothing because of a version that cannot be loaded.
        """
        begun = time.perf_counter()
        swapped, unloaded = self._aim(plan)
        return self._complete(plan, again, begun, swapped, unloaded)

    def complete(self, plan: ServingPlan, *, again: bool = False) -> Applied:
        """Load what is missing of the plan that was aimed at; nothing if another one is wanted by now.

        For a thread that loads beside the one that looks (:meth:`aim`): with a plan from before a rollback it
        must not bring back what was rolled back from.

        :param again: try at once what failed before.
        :returns: as :meth:`apply`.
        """
        return self._complete(plan, again, time.perf_counter(), False, [])

    def _complete(
        self, plan: ServingPlan, again: bool, begun: float, swapped: bool, unloaded: list[int]
    ) -> Applied:
        loaded = []
        with self._loading:
            waiting = [each for each in plan.wanted if each.role is VariantRole.STANDBY]
            for part in ([each for each in plan.wanted if each not in waiting], waiting):
                for variant in part:
                    if self._wants(plan) and self._bring(plan, variant, again):
                        loaded.append(variant.version)
                with self._state:
                    if self._wants(plan):
                        swapped = self._arrange() or swapped
            with self._state:
                unloaded += self._let_go()
                return Applied(
                    swapped=swapped, whole=self.whole, loaded=tuple(sorted(loaded)),
                    unloaded=tuple(sorted(unloaded)), failed=self.failures,
                    seconds=time.perf_counter() - begun,
                )  # fmt: skip

    def serves(self, plan: ServingPlan) -> bool:
        """Whether nothing need be done for a plan: it is served as it stands, for the same reasons."""
        now = self._arrangement
        champion = plan.champion.sequence if plan.champion else None
        split = plan.split.sequence if plan.split else None
        same = (now.digest, now.champion, now.split) == (plan.digest, champion, split)
        return same and not self._failures

    def sweep(self) -> tuple[int, ...]:
        """Free the versions that the last request has given back since; gives their numbers."""
        with self._lock:
            free = [slot for slot in self._leaving if slot.users == 0]
            self._leaving = [slot for slot in self._leaving if slot.users > 0]
        for slot in free:
            slot.loaded = None
        return tuple(slot.identity[0] for slot in free)

    def loaded(self) -> tuple[LoadedModel, ...]:
        """Everything loaded that is not on its way out."""
        slots = list(self._slots.values())
        return tuple(slot.loaded for slot in slots if slot.loaded is not None)

    def status(self) -> dict[str, Any]:
        """What is served and what is not, as plain JSON: no data, no secrets."""
        with self._lock:
            slots, leaving = list(self._slots.values()), list(self._leaving)
        return {
            "ready": self.ready, "whole": self.whole, "swaps": self._swaps,
            **shown(self._arrangement, self._plan, slots, leaving),
            "loading": self._loading_now(),
            "failed": [each.to_json() for each in self.failures],
        }  # fmt: skip

    def _loading_now(self) -> dict[str, Any] | None:
        bringing = self._bringing
        return None if bringing is None else {"version": bringing[0], "since": bringing[1].isoformat()}

    def _aim(self, plan: ServingPlan) -> tuple[bool, list[int]]:
        with self._state:
            self._plan = plan
            wanted = {identity_of(each) for each in plan.wanted}
            self._failures = {key: each for key, each in self._failures.items() if key in wanted}
            for key in wanted:
                self._came_back(key)
            exchanged = False
            if all(identity_of(each) in self._slots for each in plan.answering):
                exchanged = self._arrange()
            return exchanged, self._let_go()

    def _wants(self, plan: ServingPlan) -> bool:
        """Whether this is still what is wanted."""
        return self._plan is not None and self._plan.digest == plan.digest

    def _bring(self, plan: ServingPlan, variant: Variant, again: bool) -> bool:
        """Load a version if it is missing and due; whether it was, and is still wanted."""
        key = identity_of(variant)
        with self._state:
            earlier = self._failures.get(key)
            if key in self._slots:
                return False
            wait = earlier.next_at - self._clock() if earlier is not None else timedelta()
            # One that is longer than any was begun by a clock that has been set back since.
            if not again and timedelta() < wait <= LONGEST_WAIT:
                return False
        loaded, failure = None, None
        with self._state:
            self._bringing = (variant.version, self._clock())
        try:
            loaded = self._load(plan.model, variant)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            # A panic of a library in Rust, or a model that ends the process, is no Exception.
            failure = self._failure(plan, variant, earlier, error)
        finally:
            self._bringing = None
        with self._state:
            wanted = self._plan is not None and key in {identity_of(each) for each in self._plan.wanted}
            if wanted and failure is not None:
                self._failures[key] = failure
            if wanted and loaded is not None:
                self._failures.pop(key, None)
                self._slots[key] = Slot(key, loaded)
            return wanted and loaded is not None

    def _came_back(self, key: Identity) -> None:
        """A version on its way out that requests still have stays, where it is wanted again."""
        with self._lock:
            for slot in self._leaving:
                if slot.identity == key and slot.loaded is not None:
                    self._leaving.remove(slot)
                    slot.kept = True
                    self._slots[key] = slot
                    return

    def _failure(
        self, plan: ServingPlan, variant: Variant, earlier: LoadFailure | None, error: BaseException
    ) -> LoadFailure:
        attempts = earlier.attempts + 1 if earlier else 1
        wait = min(FIRST_WAIT * 2 ** min(attempts - 1, 10), LONGEST_WAIT)
        # Texts of other people's errors may hold anything.
        known = isinstance(error, XOpsError)
        code = error.code if isinstance(error, XOpsError) else type(error).__name__
        failure = LoadFailure(
            version=variant.version, code=code, message=str(error) if known else "see the server's log",
            attempts=attempts, next_at=self._clock() + wait,
        )  # fmt: skip
        if earlier is None or earlier.code != code:
            log.warning(
                "%s v%d cannot be loaded (%s).", plan.model, variant.version, code, exc_info=not known
            )
        return failure

    def _arrange(self) -> bool:
        """Exchange the arrangement for the plan, as far as that is loaded; whether requests can tell."""
        plan = self._plan
        assert plan is not None
        loaded = {key: slot for key, slot in self._slots.items() if slot.loaded is not None}
        answering = shared(plan, loaded)
        if answering is None:
            if plan.digest == self._told:
                return False
            self._told = plan.digest
            log.warning(
                "%s/%s: the primary version is not loaded; %s.", plan.model, plan.alias,
                "the versions before go on answering" if self.ready else "no request can be answered",
            )  # fmt: skip
            return False
        self._told = ""
        made = Arrangement.of(plan, answering, loaded, self._rng)
        exchanged = made.parts != self._arrangement.parts
        with self._lock:
            self._arrangement = made
        if exchanged:
            self._swaps += 1
            log.info(
                "%s/%s is answered by %s.", plan.model, plan.alias,
                ", ".join(f"v{each.version} ({each.weight:g})" for _, each in made.answering) or "nothing",
            )  # fmt: skip
        return exchanged

    def _let_go(self) -> list[int]:
        """Part with the versions that neither the plan nor the arrangement has."""
        wanted = {identity_of(each) for each in self._plan.wanted} if self._plan is not None else set()
        held = {slot.identity for slot, _ in self._arrangement.by_version.values()}
        held |= {slot.identity for slot, _ in self._arrangement.answering}
        gone = [key for key in self._slots if key not in wanted and key not in held]
        with self._lock:
            for key in gone:
                slot = self._slots.pop(key)
                slot.kept = False
                self._leaving.append(slot)
        self.sweep()
        return [key[0] for key in gone]

    def _released(self, slot: Slot) -> None:
        with self._lock:
            slot.users -= 1

    def _nothing(self) -> UnavailableError:
        if self._plan is None:
            why = "the ledger has not been read yet"
        elif not self._plan.variants:
            why = "the alias stands for no version"
        else:
            why = "; ".join(f"v{each.version}: {each.code}" for each in list(self._failures.values()))
        return UnavailableError(
            "no model version is loaded", code="unavailable.model", why=why,
            todo="look at the server's status page, and ask again later",
        )  # fmt: skip
