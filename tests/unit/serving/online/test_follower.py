"""Following an alias of a real lake: what is decided there is served, what fails there reaches no request."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.ledger import Draft
from airflow_provider_xops.serving.online.fleet import Fleet
from airflow_provider_xops.serving.online.follower import EventKind, Follower, FollowEvent
from airflow_provider_xops.serving.traffic import split_traffic
from airflow_provider_xops.settings import LakeSettings
from tests.unit.registry.builders import a_model, an_actor
from tests.unit.serving.online.fleet_cases import (
    ALIAS,
    MODEL,
    PROMOTED,
    ROLLED_BACK,
    Shelf,
    answered,
    broken,
    canary,
    part,
    primary,
)
from tests.unit.serving.online.log_cases import Clock, Switch

KEYS = [f"customer {number}" for number in range(200)]


class World:
    """A lake with four versions, a shelf to load them from, a fleet, and a follower of the champion."""

    def __init__(self, lake: Lake, as_of: datetime) -> None:
        self.lake, self.as_of = lake, as_of
        self.clock, self.shelf, self.switch = Clock(), Shelf(), Switch(open_lake(lake.settings))
        self.fleet = Fleet(self.shelf, clock=self.clock, rng=random.Random(7))
        self.events: list[FollowEvent] = []
        self.follower = self.follow()
        for version in range(1, 5):
            lake.evidence.put(a_model(version, name=MODEL))

    def follow(self, **changes: Any) -> Follower:
        arguments = {"clock": self.clock, "on_event": self.events.append, "interval": 0.02, **changes}
        return Follower(self.switch, MODEL, ALIAS, self.fleet, **arguments)

    def decide(self, outcome: Any, version: int) -> int:
        made = a_model(version, name=MODEL)
        draft = Draft(
            outcome=outcome, reason="in a test", to_version=version, to_created_at_ms=made.created_at_ms,
            artifact_digest=made.artifact_digest,
        )  # fmt: skip
        actor = an_actor(f"{outcome} {version}")
        entry, _ = ledger.append(self.lake, MODEL, ALIAS, lambda now: draft, actor=actor, as_of=self.as_of)
        return entry.sequence

    def share(self, *variants: Any, **changes: Any) -> int:
        arguments = {"reason": "in a test", "expected": None, "as_of": self.as_of, **changes}
        made = split_traffic(
            self.lake, model=MODEL, alias=ALIAS, variants=variants, actor=an_actor(repr(variants)),
            **arguments,
        )  # fmt: skip
        return made.sequence

    def kinds(self) -> list[EventKind]:
        return [each.kind for each in self.events]


@pytest.fixture
def world(lake: Lake, as_of: datetime) -> Iterator[World]:
    made = World(lake, as_of)
    yield made
    assert made.follower.stop()


def test_it_serves_what_the_ledger_says_and_goes_with_it(world: World) -> None:
    assert world.follower.look() is not None
    assert not world.fleet.ready
    world.decide(PROMOTED, 1)
    world.follower.look()
    assert answered(world.fleet) == {1}

    world.decide(PROMOTED, 2)
    world.follower.look()

    assert (answered(world.fleet), world.fleet.versions) == ({2}, (1, 2))
    assert world.kinds() == [EventKind.SWAPPED, EventKind.SWAPPED]


def test_a_look_at_an_unchanged_lake_does_nothing(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.follower.look()

    assert world.follower.look() is None
    assert (world.shelf.asked, world.follower.status().looks) == ([1], 2)


def test_a_canary_begins_grows_and_ends_with_a_rollback(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.decide(PROMOTED, 2)
    world.share(primary(2, 0.5), canary(3, 0.5), part(4, "shadow", 1.0))
    world.follower.look()
    assert answered(world.fleet, KEYS) == {2, 3}
    world.shelf.broken = {version: broken() for version in range(1, 5)}

    world.decide(ROLLED_BACK, 1)
    world.follower.look()

    # From memory: nothing was loaded, and nothing could have been.
    assert answered(world.fleet, KEYS) == {1}
    assert world.fleet.whole


def test_a_rollout_follows_its_deployment_through_the_promotion(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.share(primary(1), part(2, "standby"), rollout=True)
    world.follower.look()
    assert (answered(world.fleet, KEYS), world.fleet.versions) == ({1}, (1, 2))

    world.decide(PROMOTED, 2)
    world.follower.look()
    assert answered(world.fleet, KEYS) == {1}, "promoted, but its requests come step by step"
    world.share(primary(1, 0.5), canary(2, 0.5), rollout=True)
    world.follower.look()
    assert answered(world.fleet, KEYS) == {1, 2}
    world.share(primary(2), part(1, "standby"), rollout=True)
    world.follower.look()

    assert answered(world.fleet, KEYS) == {2}
    assert world.shelf.asked == [1, 2]


def test_while_the_lake_does_not_answer_the_last_plan_is_served(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.follower.look()
    good = world.follower.status()
    world.switch.down = True
    world.follower._lake = None
    world.clock.move(seconds=30)

    for _ in range(3):
        assert world.follower.look() is None

    status = world.follower.status()
    assert answered(world.fleet) == {1}
    assert (status.failures, status.failing, status.last_error) == (3, 3, "unavailable.storage")
    assert (status.looked_at, status.looks) == (good.looked_at, good.looks + 3)
    world.switch.down = False
    world.decide(PROMOTED, 2)
    world.follower.look()
    assert answered(world.fleet) == {2}
    assert world.follower.status().failing == 0
    assert world.kinds() == [
        EventKind.SWAPPED, *[EventKind.LOOK_FAILED] * 3, EventKind.RECOVERED, EventKind.SWAPPED
    ]  # fmt: skip


def test_a_lake_that_was_emptied_under_it_is_no_reason_to_stop_serving(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.follower.look()
    ledgers = Path(world.lake.uri) / "_xops/ledger"
    ledgers.rename(ledgers.with_name("moved"))

    assert world.follower.look() is None

    assert answered(world.fleet) == {1}
    assert world.follower.status().last_error == "lake.ledger_broken"
    ledgers.with_name("moved").rename(ledgers)
    world.follower.look()
    assert world.follower.status().failing == 0


def test_a_version_that_cannot_be_loaded_is_reported_once_and_tried_again(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.follower.look()
    world.shelf.broken = {2: broken()}
    world.decide(PROMOTED, 2)

    for _ in range(5):
        world.follower.look()
    assert world.kinds() == [EventKind.SWAPPED, EventKind.LOAD_FAILED]
    assert world.events[-1].reason == "model.digest_mismatch"
    assert world.shelf.asked == [1, 2]
    assert answered(world.fleet) == {1}
    world.shelf.broken = {}
    world.clock.move(minutes=5)
    world.follower.look()

    assert answered(world.fleet) == {2}


def test_the_thread_looks_by_itself_and_a_refresh_at_once(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.follower = world.follow(interval=3600)
    world.follower.start()
    assert world.follower.refresh(timeout=30) is not None
    assert answered(world.fleet) == {1}
    looks = world.follower.status().looks
    world.decide(PROMOTED, 2)

    status = world.follower.refresh(timeout=30)

    assert status is not None
    assert status.looks > looks
    assert answered(world.fleet) == {2}
    assert world.follower.stop()


def test_short_intervals_need_no_refresh(world: World) -> None:
    world.follower.start()
    world.decide(PROMOTED, 1)

    wait_for(lambda: world.fleet.ready)

    assert answered(world.fleet) == {1}


def test_a_rollback_is_served_while_a_load_hangs(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.decide(PROMOTED, 2)
    world.follower.start()
    wait_for(lambda: world.fleet.whole)
    world.shelf.gate = threading.Event()
    world.decide(PROMOTED, 3)
    assert world.shelf.waiting.wait(30)

    world.decide(ROLLED_BACK, 2)
    wait_for(lambda: world.fleet.whole)
    assert answered(world.fleet) == {2}
    world.decide(ROLLED_BACK, 1)

    wait_for(lambda: answered(world.fleet) == {1})
    assert world.follower.refresh(timeout=30) is not None, "a look that asks for no load waits for none"
    world.shelf.gate.set()
    assert world.follower.stop()
    assert world.fleet.versions == (1,)


def test_a_refresh_does_not_wait_longer_than_it_was_told(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.shelf.gate = threading.Event()
    world.follower.start()
    assert world.shelf.waiting.wait(30)

    assert world.follower.refresh(timeout=0.01) is None
    assert world.follower.refresh() is None
    assert not world.follower.stop(timeout=0.01)
    world.shelf.gate.set()
    assert world.follower.stop()


def test_a_failed_load_does_not_make_it_look_more_often(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.shelf.broken = {1: broken()}
    world.follower = world.follow(interval=3600)
    world.follower.start()
    wait_for(lambda: bool(world.fleet.failures))
    time.sleep(0.3)

    assert (world.follower.status().looks, world.shelf.asked) == (1, [1])


def test_a_refresh_tries_at_once_what_failed_before(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.shelf.broken = {1: broken()}
    world.follower = world.follow(interval=3600)
    world.follower.start()
    assert world.follower.refresh(timeout=30) is not None
    assert not world.fleet.ready
    world.shelf.broken = {}

    assert world.follower.refresh(timeout=30) is not None

    assert answered(world.fleet) == {1}


def test_no_error_ends_the_thread(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(event: FollowEvent) -> None:
        raise RuntimeError("a listener's own fault")

    world.follower = world.follow(on_event=explode)
    monkeypatch.setattr(ledger, "state", lambda *_: 1 / 0)
    world.follower.start()
    wait_for(lambda: world.follower.status().failing >= 2)
    assert world.follower.status().last_error == "ZeroDivisionError"
    monkeypatch.undo()
    world.decide(PROMOTED, 1)

    wait_for(lambda: world.fleet.ready)


def test_a_pinned_version_follows_nobody(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.follower = world.follow(version=3)
    world.follower.look()
    world.decide(PROMOTED, 2)
    world.follower.look()

    assert (answered(world.fleet), world.shelf.asked) == ({3}, [3])


def test_a_pinned_version_that_does_not_exist_yet_is_waited_for(world: World) -> None:
    world.follower = world.follow(version=9)
    world.follower.look()
    assert (world.fleet.ready, world.follower.status().last_error) == (False, "not_found.model_record")

    world.lake.evidence.put(a_model(9, name=MODEL))
    world.follower.look()

    assert answered(world.fleet) == {9}


def test_ten_replicas_come_to_the_same_plan(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.decide(PROMOTED, 2)
    world.share(primary(2, 0.9), canary(3, 0.1))

    digests, routes = set(), set()
    for _ in range(10):
        fleet = Fleet(world.shelf, clock=world.clock)
        Follower(lambda: open_lake(world.lake.settings), MODEL, ALIAS, fleet, clock=world.clock).look()
        assert fleet.plan is not None
        digests.add(fleet.plan.digest)
        leases = [fleet.lease(key) for key in KEYS]
        routes.add(tuple(each.loaded.version for each in leases))
    assert (len(digests), len(routes)) == (1, 1)


def test_a_lake_without_fresh_credentials_is_opened_anew(world: World) -> None:
    world.decide(PROMOTED, 1)
    opened = []

    def factory() -> Lake:
        opened.append(1)
        if len(opened) == 2:
            raise UnavailableError("the token has run out", code="unavailable.storage")
        return open_lake(world.lake.settings)

    follower = Follower(factory, MODEL, ALIAS, world.fleet, clock=world.clock)
    follower.look()
    follower.look()
    assert len(opened) == 1
    follower._failed(UnavailableError("no answer", code="unavailable.storage"))
    follower._lake = None
    follower.look()
    follower.look()
    assert len(opened) == 3
    assert follower.status().failing == 0


def wait_for(condition: Callable[[], bool], timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_a_load_that_comes_late_does_not_bring_back_what_was_rolled_back_from(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.decide(PROMOTED, 2)
    world.shelf.broken = {4: broken()}
    world.share(primary(2), part(4, "shadow", 1.0))
    world.follower.look()
    gate, begun, ended = threading.Event(), threading.Event(), threading.Event()
    complete = world.fleet.complete

    def late(*arguments: Any, **more: Any) -> Any:
        begun.set()
        assert gate.wait(30)
        found = complete(*arguments, **more)
        ended.set()
        return found

    world.fleet.complete = late  # type: ignore[method-assign]
    world.follower.start()
    assert begun.wait(30)
    world.decide(ROLLED_BACK, 1)
    wait_for(lambda: answered(world.fleet) == {1})
    # No later look would mend it.
    world.switch.down, world.follower._lake = True, None
    wait_for(lambda: world.follower.status().failing > 0)

    gate.set()

    assert ended.wait(30)
    assert answered(world.fleet) == {1}


class Panic(BaseException):
    """What a library in Rust raises."""


def test_a_panic_ends_neither_thread(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: Any) -> Any:
        raise Panic

    world.decide(PROMOTED, 1)
    monkeypatch.setattr(ledger, "state", panic)
    world.follower.start()
    wait_for(lambda: world.follower.status().failing >= 2)
    assert world.follower.status().last_error == "Panic"
    monkeypatch.undo()
    wait_for(lambda: answered(world.fleet) == {1} if world.fleet.ready else False)
    world.shelf.broken = {2: Panic()}  # type: ignore[dict-item]
    world.decide(PROMOTED, 2)
    wait_for(lambda: [each.code for each in world.fleet.failures] == ["Panic"])
    assert answered(world.fleet) == {1}
    world.shelf.broken = {}

    assert world.follower.refresh(timeout=30) is not None

    assert answered(world.fleet) == {2}


def test_another_lake_in_the_place_of_its_own_is_not_followed(world: World, tmp_path: Path) -> None:
    world.decide(PROMOTED, 1)
    world.follower.look()
    place = LakeSettings(str(tmp_path / "other"))
    init_lake(place, actor=an_actor(), as_of=world.as_of)
    other = open_lake(place)
    mine, world.lake = world.lake, other
    for version in (1, 2):
        other.evidence.put(a_model(version, name=MODEL))
        world.decide(PROMOTED, version)
    world.switch.lake, world.follower._lake = other, None

    assert world.follower.look() is None

    assert answered(world.fleet) == {1}
    assert world.follower.status().last_error == "lake.other_uuid"
    world.switch.lake, world.lake = mine, mine
    world.decide(PROMOTED, 3)
    world.follower.look()
    assert answered(world.fleet) == {3}


def test_what_hangs_in_loading_is_told_with_its_beginning(world: World) -> None:
    world.decide(PROMOTED, 1)
    world.shelf.gate = threading.Event()
    world.follower.start()
    assert world.shelf.waiting.wait(30)

    assert world.fleet.status()["loading"] == {"version": 1, "since": world.clock.now.isoformat()}
    world.shelf.gate.set()
    wait_for(lambda: world.fleet.whole)
    assert world.fleet.status()["loading"] is None
