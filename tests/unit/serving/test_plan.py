"""What is to be served, from the ledger and the last split."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.records import VariantRole
from airflow_provider_xops.registry.ledger_state import LedgerState
from airflow_provider_xops.serving.plan import basis_of, pinned_plan, plan_of
from tests.unit.registry.builders import a_model
from tests.unit.serving.online.fleet_cases import (
    APPLIED,
    HELD,
    MODEL,
    NOMINATED,
    PROMOTED,
    RELEASED,
    RETIRED,
    ROLLED_BACK,
    canary,
    entry,
    part,
    primary,
    split_of,
    state_of,
)


def test_nothing_is_served_before_the_first_champion() -> None:
    plan = plan_of(state_of((HELD, 1)), None)

    assert (plan.variants, plan.standby, plan.wanted, plan.basis) == ((), None, (), 0)


def test_a_champion_without_a_split_answers_everything_and_the_one_before_it_waits() -> None:
    plan = plan_of(state_of((PROMOTED, 1), (APPLIED, 1), (PROMOTED, 2), (HELD, 3)), None)

    assert plan.variants == (primary(2),)
    assert plan.standby == part(2 - 1, "standby")
    assert plan.basis == 3
    assert [each.version for each in plan.wanted] == [2, 1]


def test_a_canary_counts_for_the_champion_it_was_decided_about() -> None:
    state = state_of((PROMOTED, 1))
    split = split_of(primary(1, 0.9), canary(2, 0.1), basis=1)

    assert plan_of(state, split).variants == split.variants
    assert plan_of(state, split).split == split
    later = plan_of(state_of((PROMOTED, 1), (PROMOTED, 3)), split)
    assert (later.variants, later.split) == ((primary(3),), None)


def test_a_held_or_rejected_candidate_does_not_end_a_canary() -> None:
    split = split_of(primary(1, 0.9), canary(2, 0.1), basis=1)

    assert plan_of(state_of((PROMOTED, 1), (APPLIED, 1), (HELD, 2), (RELEASED, 5)), split).split == split


def test_a_rollout_goes_on_when_its_candidate_is_promoted_and_only_then() -> None:
    split = split_of(primary(1), part(2, "standby"), basis=1, rollout=True)
    plain = split_of(primary(1), part(2, "standby"), basis=1)

    def after(*events: Any) -> LedgerState:
        return state_of((PROMOTED, 1), *events)

    assert plan_of(after((PROMOTED, 2)), split).variants == split.variants
    assert plan_of(after((PROMOTED, 2)), plain).variants == (primary(2),)
    assert plan_of(after((PROMOTED, 3)), split).variants == (primary(3),)
    assert plan_of(after((PROMOTED, 3), (PROMOTED, 2)), split).variants == (primary(2),)
    assert plan_of(after((ROLLED_BACK, 2)), split).variants == (primary(2),)


def test_a_rollback_wins_over_the_rollout_that_brought_the_version_in() -> None:
    split = split_of(primary(2, 0.5), canary(1, 0.5), basis=1, rollout=True)

    plan = plan_of(state_of((PROMOTED, 1), (PROMOTED, 2), (ROLLED_BACK, 1)), split)

    assert (plan.variants, plan.split) == ((primary(1),), None)
    # What was rolled back from is blocked, so that nothing is kept to go back to.
    assert plan.standby is None


def test_a_split_does_not_come_back_when_its_alias_is_retired() -> None:
    split = split_of(primary(1), basis=0, rollout=True)
    state = state_of((PROMOTED, 1), (RETIRED, None))

    assert plan_of(state_of(), split).variants == (primary(1),)
    assert plan_of(state, split).variants == ()
    assert basis_of(state) == 2
    assert plan_of(state, split_of(primary(4), basis=2, sequence=2)).variants == (primary(4),)


def test_a_nominee_is_served_on_its_own_alias() -> None:
    assert plan_of(state_of((NOMINATED, 7)), None).variants == (primary(7),)


def test_another_model_of_the_same_number_is_not_the_candidate() -> None:
    other = entry(2, PROMOTED, 2)
    assert other.to_created_at_ms == 1002
    split = split_of(primary(1), part(2, "standby"), basis=1, rollout=True)
    made_again = LedgerState(
        MODEL, "champion", (entry(1, PROMOTED, 1), type(other)(**{**fields_of(other), "to_created_at_ms": 7}))
    )

    assert plan_of(made_again, split).split is None
    assert plan_of(made_again, split).variants[0].created_at_ms == 7


def test_the_digest_tells_what_is_served_and_nothing_else() -> None:
    one = plan_of(state_of((PROMOTED, 1)), None)

    assert one.digest == plan_of(state_of((PROMOTED, 1), (HELD, 9), (APPLIED, 1)), None).digest
    assert one.digest != plan_of(state_of((PROMOTED, 2)), None).digest
    assert one.digest == plan_of(state_of((PROMOTED, 1)), split_of(primary(1), basis=1)).digest
    waiting = split_of(primary(1), part(3, "standby"), basis=1)
    assert one.digest != plan_of(state_of((PROMOTED, 1)), waiting).digest


def test_a_pinned_version_is_served_alone() -> None:
    plan = pinned_plan(a_model(4, name=MODEL), alias="champion")

    assert [(each.version, each.role, each.weight) for each in plan.wanted] == [(4, VariantRole.PRIMARY, 1.0)]


def fields_of(record: Any) -> dict[str, Any]:
    names = [each.name for each in dataclasses.fields(record) if each.name != "record_id"]
    return {name: getattr(record, name) for name in names}


VERSIONS = st.integers(1, 4)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([PROMOTED, ROLLED_BACK, HELD, APPLIED, RELEASED]), VERSIONS),
        st.just((RETIRED, None)),
        st.tuples(st.just("split"), st.tuples(VERSIONS, VERSIONS, st.booleans())),
    ),
    max_size=12,
)


@given(EVENTS)
def test_the_rule_is_what_following_step_by_step_would_do(events: list[Any]) -> None:
    """Told one event after the other, it is plain whether the last split still counts; the rule reads it off
    the end alone."""
    ledger: list[Any] = []
    split = None
    in_force = may_bring_in = False
    champion: int | None = None
    for outcome, what in events:
        if outcome == "split":
            main, other, rollout = what
            variants = (primary(main, 0.7), canary(other, 0.3)) if main != other else (primary(main),)
            split = split_of(
                *variants, basis=basis_of(state_of(*ledger)), sequence=(split.sequence if split else 0) + 1,
                rollout=rollout,
            )  # fmt: skip
            in_force, may_bring_in = True, rollout
            continue
        ledger.append((outcome, what))
        if outcome in (HELD, APPLIED, RELEASED):
            continue
        brings_in = outcome is PROMOTED and split is not None and what in {v.version for v in split.variants}
        in_force = in_force and may_bring_in and brings_in
        may_bring_in = False
        champion = what
    state = state_of(*ledger)

    plan = plan_of(state, split)

    if in_force:
        assert split is not None
        assert (plan.variants, plan.split) == (split.variants, split)
    else:
        assert plan.variants == (() if champion is None else (primary(champion),))
        assert plan.split is None
    if plan.variants:
        assert abs(sum(each.weight for each in plan.answering) - 1) < 1e-9
    versions = [each.version for each in plan.wanted]
    assert len(set(versions)) == len(versions)
    if plan.standby is not None:
        assert (plan.standby.version, plan.standby.created_at_ms) not in state.blocked
        assert plan.standby.version != champion
        assert plan.standby.version in {each.to_version for each in state.championships}


@given(EVENTS, VERSIONS)
def test_after_a_rollback_its_version_answers_alone_whatever_was_before(events: list[Any], to: int) -> None:
    ledger = [each for each in events if each[0] != "split"]
    splits = [each[1] for each in events if each[0] == "split"]
    before = state_of(*ledger)
    split = None
    if splits:
        main, other, rollout = splits[-1]
        variants = (primary(main, 0.5), canary(other, 0.5)) if main != other else (primary(main),)
        split = split_of(*variants, basis=basis_of(before), rollout=rollout)

    plan = plan_of(state_of(*ledger, (ROLLED_BACK, to)), split)

    assert plan.answering == (primary(to),)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -0.1, "0.9", None])
def test_a_share_that_is_none_leaves_no_request_to_the_canary(weight: Any) -> None:
    state = state_of((PROMOTED, 1))

    made = plan_of(state, split_of(primary(1, weight), canary(2, 0.1), basis=1))

    assert (made.answering, made.split) == ((primary(1),), None)
