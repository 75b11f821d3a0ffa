"""The loaded versions: swapped whole beside running requests, and let go of when nobody has them."""

from __future__ import annotations

import gc
import json
import random
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import NotFoundError, UnavailableError
from airflow_provider_xops.records import Variant
from airflow_provider_xops.serving.online.fleet import FIRST_WAIT, LONGEST_WAIT, Fleet
from airflow_provider_xops.serving.plan import ServingPlan
from tests.unit.serving.online.fleet_cases import (
    ROWS,
    Constant,
    Shelf,
    answered,
    broken,
    canary,
    loaded_model,
    part,
    plan,
    primary,
)
from tests.unit.serving.online.log_cases import Clock

KEYS = [f"customer {number}" for number in range(400)]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(shelf: Shelf, clock: Clock) -> Fleet:
    return Fleet(shelf, clock=clock, rng=random.Random(7))


def test_before_the_first_plan_it_says_that_nothing_is_loaded(fleet: Fleet) -> None:
    with pytest.raises(UnavailableError) as raised:
        fleet.lease("somebody")

    assert (raised.value.code, fleet.ready, fleet.versions) == ("unavailable.model", False, ())


def test_a_plan_is_loaded_and_served(fleet: Fleet, shelf: Shelf) -> None:
    applied = fleet.apply(plan(primary(2), standby=1))

    assert (applied.swapped, applied.whole, applied.loaded, applied.failed) == (True, True, (1, 2), ())
    assert shelf.asked == [2, 1], "what answers is loaded before what waits"
    assert answered(fleet, KEYS) == {2}
    assert fleet.versions == (1, 2)


def test_the_same_plan_again_loads_and_swaps_nothing(fleet: Fleet, shelf: Shelf) -> None:
    fleet.apply(plan(primary(2), standby=1))

    again = fleet.apply(plan(primary(2), standby=1))

    assert (again.swapped, again.whole, again.loaded, again.unloaded) == (False, True, (), ())
    assert (shelf.asked, fleet.swaps) == ([2, 1], 1)
    assert fleet.serves(plan(primary(2), standby=1))
    assert not fleet.serves(plan(primary(2)))


def test_a_standby_takes_over_without_being_loaded(fleet: Fleet, shelf: Shelf) -> None:
    fleet.apply(plan(primary(2), standby=1))
    shelf.broken = {1: broken(), 2: broken()}

    applied = fleet.apply(plan(primary(1)))

    assert (applied.swapped, applied.whole, applied.loaded, applied.unloaded) == (True, True, (), (2,))
    assert answered(fleet) == {1}


def test_requests_are_answered_by_the_old_version_while_the_new_one_loads(fleet: Fleet, shelf: Shelf) -> None:
    fleet.apply(plan(primary(1)))
    shelf.gate = threading.Event()
    swap = threading.Thread(target=fleet.apply, args=(plan(primary(2), standby=1),))
    swap.start()
    assert shelf.waiting.wait(30)

    assert answered(fleet, KEYS) == {1}
    assert fleet.ready
    assert not fleet.whole
    shelf.gate.set()
    swap.join(30)
    assert answered(fleet, KEYS) == {2}


def test_requests_are_answered_by_the_new_version_while_a_standby_still_loads(
    fleet: Fleet, shelf: Shelf
) -> None:
    fleet.apply(plan(primary(1)))
    fleet.apply(plan(primary(2)))
    shelf.gate = threading.Event()
    swap = threading.Thread(target=fleet.apply, args=(plan(primary(2), standby=5),))
    swap.start()
    assert shelf.waiting.wait(30)
    shelf.gate, held = None, shelf.gate
    assert answered(fleet) == {2}
    held.set()
    swap.join(30)
    assert fleet.versions == (2, 5)


def test_a_version_in_memory_takes_over_while_another_one_cannot_be_brought(
    fleet: Fleet, shelf: Shelf
) -> None:
    """A rollback waits for no load that hangs."""
    fleet.apply(plan(primary(2), standby=1))
    shelf.gate = threading.Event()
    found = []
    swap = threading.Thread(target=lambda: found.append(fleet.apply(plan(primary(3), standby=4))))
    swap.start()
    assert shelf.waiting.wait(30)

    assert fleet.aim(plan(primary(1)))

    assert answered(fleet, KEYS) == {1}
    assert fleet.serves(plan(primary(1)))
    shelf.gate.set()
    swap.join(30)
    # What the abandoned load brought is not kept, and its plan is not gone on with.
    assert (answered(fleet, KEYS), fleet.versions, shelf.asked) == ({1}, (1,), [2, 1, 3])
    assert (found[0].swapped, found[0].loaded, found[0].failed) == (False, (), ())
    assert [each.version for each in fleet.loaded()] == [1]


def test_aiming_at_what_is_not_loaded_changes_nothing_yet(fleet: Fleet, shelf: Shelf) -> None:
    fleet.apply(plan(primary(1)))

    assert not fleet.aim(plan(primary(1, 0.5), canary(2, 0.5)))

    assert (answered(fleet, KEYS), fleet.whole, shelf.asked) == ({1}, False, [1])
    assert fleet.apply(plan(primary(1, 0.5), canary(2, 0.5))).whole


def test_a_request_keeps_its_version_to_the_end_and_only_then_it_is_let_go(fleet: Fleet) -> None:
    fleet.apply(plan(primary(1)))
    lease = fleet.lease("a slow one")
    estimator = weakref.ref(lease.loaded.estimator)

    fleet.apply(plan(primary(2)))

    assert answered(fleet) == {2}
    assert lease.loaded.version == 1
    assert lease.loaded.predict(ROWS).labels.tolist() == [1.0, 1.0]
    assert fleet.sweep() == ()
    assert fleet.status()["leaving"] == [{"version": 1, "requests": 1}]
    assert fleet.versions == (2,)
    lease.end()
    assert fleet.sweep() == (1,)
    del lease
    gc.collect()
    assert estimator() is None
    assert fleet.status()["leaving"] == []


def test_an_unloaded_version_leaves_the_memory_without_the_collectors_help(fleet: Fleet) -> None:
    fleet.apply(plan(primary(1)))
    seen = weakref.ref(fleet.loaded()[0].estimator)
    gc.collect()
    gc.disable()
    try:
        applied = fleet.apply(plan(primary(2)))
        assert (applied.unloaded, seen()) == ((1,), None)
    finally:
        gc.enable()


def test_a_version_that_is_wanted_again_before_its_last_request_ends_is_not_loaded_again(
    fleet: Fleet, shelf: Shelf
) -> None:
    fleet.apply(plan(primary(1)))
    with fleet.lease("a slow one") as lease:
        fleet.apply(plan(primary(2)))
        fleet.apply(plan(primary(1)))
        assert answered(fleet) == {1}
        assert lease.loaded is fleet.loaded()[0]
    assert shelf.asked == [1, 2]
    assert fleet.sweep() == ()
    assert answered(fleet) == {1}


def test_a_lease_ends_once(fleet: Fleet) -> None:
    fleet.apply(plan(primary(1)))
    lease = fleet.lease()
    lease.end()
    lease.end()

    assert fleet.status()["loaded"][0]["requests"] == 0


def test_a_lease_ends_with_the_error_of_its_request(fleet: Fleet) -> None:
    fleet.apply(plan(primary(1)))

    with pytest.raises(ZeroDivisionError), fleet.lease():
        raise ZeroDivisionError

    assert fleet.status()["loaded"][0]["requests"] == 0


def test_a_primary_that_cannot_be_loaded_leaves_everything_as_it_was(fleet: Fleet, shelf: Shelf) -> None:
    fleet.apply(plan(primary(1, 0.5), canary(2, 0.5)))
    shelf.broken = {3: broken("unavailable.registry")}

    applied = fleet.apply(plan(primary(3), standby=1))

    assert (applied.swapped, applied.whole, applied.unloaded) == (False, False, ())
    assert [(each.version, each.code, each.attempts) for each in applied.failed] == [
        (3, "unavailable.registry", 1)
    ]
    assert answered(fleet, KEYS) == {1, 2}
    assert fleet.ready
    shelf.broken = {}
    assert fleet.apply(plan(primary(3), standby=1), again=True).whole
    assert answered(fleet, KEYS) == {3}
    assert fleet.versions == (1, 3)


def test_the_first_plan_is_not_served_by_its_canary_alone(fleet: Fleet, shelf: Shelf) -> None:
    shelf.broken = {1: broken()}

    fleet.apply(plan(primary(1, 0.9), canary(2, 0.1)))

    assert not fleet.ready
    with pytest.raises(UnavailableError) as raised:
        fleet.lease()
    assert "v1: model.digest_mismatch" in raised.value.why


@pytest.mark.parametrize("missing", [{2}, {3}, {2, 3}])
def test_the_share_of_a_canary_that_cannot_be_loaded_goes_to_the_primary(
    fleet: Fleet, shelf: Shelf, missing: set[int]
) -> None:
    shelf.broken = {version: broken() for version in missing}

    applied = fleet.apply(plan(primary(1, 0.5), canary(2, 0.25), canary(3, 0.25)))

    assert not applied.whole
    assert {each.version for each in applied.failed} == missing
    shares = {each["version"]: each["weight"] for each in fleet.status()["serving"]["variants"]}
    assert sum(shares.values()) == pytest.approx(1)
    assert answered(fleet, KEYS) == {1, 2, 3} - missing


def test_a_missing_shadow_or_standby_holds_nothing_up(fleet: Fleet, shelf: Shelf) -> None:
    fleet.apply(plan(primary(1)))
    shelf.broken = {3: broken(), 4: broken()}

    applied = fleet.apply(plan(primary(2), part(3, "shadow", 1.0), standby=4))

    assert (applied.swapped, applied.whole) == (True, False)
    assert answered(fleet) == {2}
    with fleet.lease() as lease:
        assert lease.shadows == ()


def test_a_broken_version_is_tried_again_at_growing_distances(
    fleet: Fleet, shelf: Shelf, clock: Clock
) -> None:
    shelf.broken = {1: broken()}
    wanted = plan(primary(1))
    fleet.apply(wanted)

    fleet.apply(wanted)
    assert shelf.asked == [1]
    clock.now += FIRST_WAIT
    fleet.apply(wanted)
    assert shelf.asked == [1, 1]
    clock.now += FIRST_WAIT
    fleet.apply(wanted)
    assert shelf.asked == [1, 1]
    for _ in range(30):
        clock.now += LONGEST_WAIT
        (failure,) = fleet.apply(wanted).failed
    assert len(shelf.asked) == 32
    assert failure.next_at - clock.now == LONGEST_WAIT
    fleet.apply(wanted, again=True)
    assert len(shelf.asked) == 33
    shelf.broken = {}
    clock.now += LONGEST_WAIT
    assert fleet.apply(wanted).whole
    assert fleet.failures == ()


def test_a_failure_is_forgotten_with_the_plan_that_wanted_it(fleet: Fleet, shelf: Shelf) -> None:
    fleet.apply(plan(primary(1)))
    shelf.broken = {2: broken()}
    fleet.apply(plan(primary(2)))

    applied = fleet.apply(plan(primary(1)))

    assert (applied.whole, applied.failed) == (True, ())


def test_an_error_of_somebody_elses_library_is_told_by_its_kind_alone(
    fleet: Fleet, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.broken = {1: ValueError("a value of a row: 4711")}

    (failure,) = fleet.apply(plan(primary(1))).failed

    assert failure.code == "ValueError"
    assert "4711" not in json.dumps(fleet.status())


def test_shadows_are_asked_beside_and_never_answer(fleet: Fleet) -> None:
    fleet.apply(plan(primary(1), part(2, "shadow", 1.0), part(3, "shadow", 0.5)))

    shadows = Counter[int]()
    for key in KEYS:
        with fleet.lease(key) as lease:
            assert lease.loaded.version == 1
            shadows.update(each.version for each in lease.shadows)
    assert shadows[2] == len(KEYS)
    assert 0 < shadows[3] < len(KEYS)


def test_loaded_versions_answer_by_number_and_others_do_not(fleet: Fleet) -> None:
    fleet.apply(plan(primary(2), standby=1))

    for version, role in ((1, "standby"), (2, "primary")):
        with fleet.lease_version(version) as lease:
            assert (lease.loaded.version, lease.variant.role, lease.shadows) == (version, role, ())
    with pytest.raises(NotFoundError) as raised:
        fleet.lease_version(3)
    assert raised.value.code == "not_found.loaded_version"


def test_an_alias_that_stands_for_nothing_is_not_served(fleet: Fleet) -> None:
    fleet.apply(plan(primary(1)))

    applied = fleet.apply(plan())

    assert (applied.swapped, applied.unloaded, fleet.ready) == (True, (1,), False)


def test_the_status_is_plain_json(fleet: Fleet, shelf: Shelf) -> None:
    shelf.broken = {3: broken()}
    fleet.apply(plan(primary(1, 0.9), canary(2, 0.1), part(3, "shadow", 1.0)))

    said = json.loads(json.dumps(fleet.status()))

    assert [(each["version"], each["role"]) for each in said["loaded"]] == [(1, "primary"), (2, "canary")]
    assert [each["code"] for each in said["failed"]] == ["model.digest_mismatch"]
    assert (said["ready"], said["whole"], said["swaps"]) == (True, False, 1)
    assert [each["version"] for each in said["wanted"]["variants"]] == [1, 2, 3]


def test_prediction_ids_are_given_once_to_any_number_of_threads(fleet: Fleet) -> None:
    fleet.apply(plan(primary(1)))
    found: list[list[str]] = []

    def take() -> None:
        with fleet.lease() as lease:
            found.append([each for _ in range(200) for each in lease.loaded.next_ids(3)])

    run_together([take] * 8)

    ids = [each for part_ in found for each in part_]
    assert len(set(ids)) == len(ids) == 8 * 200 * 3
    prefix = fleet.loaded()[0].session.record_id[:24]
    assert sorted(int(each.removeprefix(f"{prefix}-")) for each in ids) == list(range(len(ids)))


def test_a_thousand_swaps_under_load_fail_no_request(fleet: Fleet, shelf: Shelf) -> None:
    """Every lease has a version of the arrangement of that moment, whole, whatever is exchanged meanwhile."""
    plans = [
        plan(primary(1), standby=2),
        plan(primary(2), standby=1),
        plan(primary(2, 0.5), canary(3, 0.5)),
        plan(primary(4)),
    ]
    fleet.apply(plans[0])
    done, problems, answers = threading.Event(), [], Counter[int]()

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        mine = Counter[int]()
        while not done.is_set():
            key = rng.choice([None, *KEYS])
            try:
                with fleet.lease(key) as lease:
                    said = lease.loaded.predict(ROWS).labels
                    if set(said.tolist()) != {float(lease.variant.version)}:
                        problems.append(f"{said} from v{lease.variant.version}")
                    mine[lease.variant.version] += 1
            except Exception as error:
                problems.append(repr(error))
        answers.update(mine)

    askers = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in askers:
        thread.start()
    for number in range(1, 1001):
        fleet.apply(plans[number % len(plans)])
    done.set()
    for thread in askers:
        thread.join(30)

    assert problems == []
    assert fleet.swaps == 1001
    assert sum(answers.values()) > 100
    fleet.sweep()
    status = fleet.status()
    assert status["leaving"] == []
    assert [each["requests"] for each in status["loaded"]] == [0] * len(status["loaded"])


PARTS = st.lists(st.sampled_from(["primary", "canary", "shadow", "standby", "out"]), min_size=4, max_size=4)
STEPS = st.lists(st.tuples(PARTS, st.sets(st.integers(1, 4)), st.booleans()), min_size=1, max_size=8)


@given(STEPS)
def test_whatever_is_asked_and_whatever_fails_a_ready_fleet_stays_ready(steps: list[Any]) -> None:
    """Any plans, any failures, any requests that hold on: a fleet that has answered once answers on."""
    shelf, clock = Shelf(), Clock()
    fleet = Fleet(shelf, clock=clock, rng=random.Random(1))
    was_ready, held = False, []
    for roles, missing, hold in steps:
        wanted = plan_from(roles)
        if wanted is None:
            continue
        shelf.broken = {version: broken() for version in missing}
        applied = fleet.apply(wanted, again=True)

        serving = fleet.status()["serving"]["variants"]
        shares = [each["weight"] for each in serving if each["role"] in ("primary", "canary")]
        assert fleet.ready or not was_ready
        was_ready = fleet.ready
        assert applied.whole == (not applied.failed)
        if applied.whole:
            assert {each["version"] for each in serving} == {each.version for each in wanted.wanted}
        if was_ready:
            assert sum(shares) == pytest.approx(1)
            assert answered(fleet, KEYS[:10]) <= {each["version"] for each in serving}
            if hold:
                held.append(fleet.lease("held"))
    for lease in held:
        assert lease.loaded.predict(ROWS).labels.tolist() == [float(lease.loaded.version)] * 2
        lease.end()
    fleet.sweep()
    assert fleet.status()["leaving"] == []


def plan_from(roles: list[str]) -> ServingPlan | None:
    primaries = [number for number, role in enumerate(roles, 1) if role == "primary"]
    if not primaries:
        return None
    canaries = [number for number, role in enumerate(roles, 1) if role == "canary"]
    weight = 1 / (1 + len(canaries))
    variants: list[Variant] = [primary(primaries[0], weight), *(canary(each, weight) for each in canaries)]
    for number, role in enumerate(roles, 1):
        if role in ("shadow", "standby"):
            variants.append(part(number, role, 1.0 if role == "shadow" else 0.0))
    return plan(*variants)


def run_together(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


class Changes(Constant):
    """An estimator with a step that changes its input."""

    def predict(self, frame: pd.DataFrame) -> Any:
        frame["a"] = frame["a"] * 100
        frame["more"] = 1.0
        frame.loc[0, "b"] = -1.0
        return super().predict(frame)


def test_a_model_that_changes_its_input_changes_nothing_that_is_logged() -> None:
    rows = ROWS.copy()

    loaded_model(1, estimator=Changes(1)).predict(rows)

    pd.testing.assert_frame_equal(rows, ROWS)


def test_a_clock_that_was_set_back_holds_up_no_load(shelf: Shelf) -> None:
    clock = Clock()
    fleet = Fleet(shelf, clock=clock)
    shelf.broken = {1: broken()}
    fleet.apply(plan(primary(1)))
    shelf.broken = {}
    clock.move(days=-1)

    fleet.apply(plan(primary(1)))

    assert answered(fleet) == {1}
