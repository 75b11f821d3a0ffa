"""Sharing requests among versions: one writer a number, the same work once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError, ConflictError, NotFoundError, RegistryError
from airflow_provider_xops.lake.lake import Lake, open_lake
from airflow_provider_xops.lake.maintenance import fold_evidence
from airflow_provider_xops.records import Actor, TrafficSplit, Variant
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.ledger import Draft
from airflow_provider_xops.serving import traffic
from airflow_provider_xops.serving.traffic import check_variants, get_split, last_split, split_traffic
from tests.unit.registry.builders import a_model, an_actor
from tests.unit.serving.online.fleet_cases import ALIAS, MODEL, PROMOTED, ROLLED_BACK, canary, part, primary

Share = Callable[..., TrafficSplit]


def decide(lake: Lake, outcome: Any, version: int, as_of: datetime) -> None:
    """An entry in the ledger, without the ceremony of a promotion."""
    made = a_model(version, name=MODEL)
    ledger.append(
        lake, MODEL, ALIAS,
        lambda now: Draft(
            outcome=outcome, reason="in a test", to_version=version, to_created_at_ms=made.created_at_ms,
            artifact_digest=made.artifact_digest,
        ),
        actor=an_actor(f"{outcome} {version}"), as_of=as_of,
    )  # fmt: skip


@pytest.fixture
def lake(lake: Lake, as_of: datetime) -> Lake:
    """A lake that knows four versions, the first of them champion."""
    for version in range(1, 5):
        lake.evidence.put(a_model(version, name=MODEL))
    decide(lake, PROMOTED, 1, as_of)
    return lake


@pytest.fixture
def share(lake: Lake, as_of: datetime, make_actor: Callable[..., Actor]) -> Share:
    def share(*variants: Variant, key: str = "work", **changes: Any) -> TrafficSplit:
        arguments = {
            "model": MODEL, "alias": ALIAS, "reason": "in a test", "expected": None, "as_of": as_of, **changes
        }  # fmt: skip
        return split_traffic(lake, variants=variants, actor=make_actor(key=key), **arguments)

    return share


def test_splits_are_numbered_from_one_and_know_the_champion_they_were_decided_about(
    lake: Lake, share: Share, as_of: datetime
) -> None:
    first = share(primary(1, 0.9), canary(2, 0.1), key="a")
    decide(lake, PROMOTED, 2, as_of)
    second = share(primary(2, 0.5), canary(3, 0.5), key="b")

    assert [(each.sequence, each.basis) for each in (first, second)] == [(1, 1), (2, 2)]
    assert last_split(lake, MODEL, ALIAS) == second
    assert last_split(lake, MODEL, ALIAS, known=first) == second
    assert last_split(lake, MODEL, "challenger") is None
    assert last_split(lake, "another", ALIAS) is None


def test_the_same_work_is_one_split(share: Share) -> None:
    first = share(primary(1, 0.9), canary(2, 0.1), key="a", expected=0)

    assert share(primary(1, 0.9), canary(2, 0.1), key="a", expected=0) == first
    assert share(primary(1, 0.9), canary(2, 0.1), key="a") == first
    other = share(primary(1, 0.8), canary(2, 0.2), key="b", expected=1)
    assert other.sequence == 2
    # Asked again after somebody else has had his turn, it is still the one that was written then.
    assert share(primary(1, 0.9), canary(2, 0.1), key="a") == first
    assert share(primary(1, 0.9), canary(2, 0.1), key="a", expected=0) == first


def test_one_work_may_share_anew_step_by_step(share: Share) -> None:
    shares = [share(primary(1, 1 - w), canary(2, w), key="a", expected=n) for n, w in enumerate((0.1, 0.5))]

    assert [each.sequence for each in shares] == [1, 2]


def test_who_decided_on_an_old_split_hears_of_it(share: Share) -> None:
    share(primary(1, 0.9), canary(2, 0.1), key="a", expected=0)

    with pytest.raises(ConflictError) as raised:
        share(primary(1, 0.5), canary(3, 0.5), key="b", expected=0)
    assert (raised.value.code, raised.value.context) == ("conflict.traffic", {"expected": 0, "last": 1})
    with pytest.raises(ArgumentError) as refused:
        share(primary(1), key="b", expected=7)
    assert refused.value.code == "argument.expected"


def test_of_many_writers_on_one_split_one_wins(lake: Lake, as_of: datetime) -> None:
    start, outcomes = threading.Barrier(12), []

    def write(number: int) -> None:
        own = open_lake(lake.settings)
        start.wait(30)
        variants = [primary(1, 1 - number / 100), canary(2, number / 100)]
        try:
            made = split_traffic(
                own, model=MODEL, alias=ALIAS, variants=variants, reason="a race",
                expected=0, actor=an_actor(f"writer {number}"), as_of=as_of,
            )  # fmt: skip
            outcomes.append(made)
        except ConflictError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert outcomes.count("conflict.traffic") == 11
    (winner,) = (each for each in outcomes if isinstance(each, TrafficSplit))
    assert last_split(lake, MODEL, ALIAS) == winner


def test_a_lost_answer_of_the_storage_is_not_a_lost_race(
    lake: Lake, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = type(lake.evidence).put

    def lossy(self: Any, record: Any, *, quiet: bool = False) -> bool:
        put(self, record, quiet=quiet)
        return False

    monkeypatch.setattr(type(lake.evidence), "put", lossy)

    assert share(primary(1, 0.9), canary(2, 0.1), expected=0).sequence == 1


def test_the_last_split_is_found_among_many_without_a_list(
    lake: Lake, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def counted(*args: Any) -> TrafficSplit | None:
        looked.append(args[-1])
        return get_split(*args)

    for number in range(1, 24):
        made = share(primary(1, 1 - number / 100), canary(2, number / 100), key=f"{number}")
        with monkeypatch.context() as patch:
            patch.setattr(traffic, "get_split", counted)
            looked.clear()
            assert last_split(lake, MODEL, ALIAS) == made
            assert len(looked) <= 2 * number.bit_length() + 2
            looked.clear()
            assert last_split(lake, MODEL, ALIAS, known=made) == made
            assert looked == [number + 1]


def test_folded_splits_are_still_there_and_their_numbers_stay_taken(
    lake: Lake, share: Share, as_of: datetime
) -> None:
    first = share(primary(1, 0.9), canary(2, 0.1), key="a")
    elsewhere = open_lake(lake.settings)
    assert last_split(elsewhere, MODEL, ALIAS) == first
    second = share(primary(1, 0.8), canary(2, 0.2), key="b")
    fold_evidence(lake, "traffic", older_than=as_of + timedelta(days=1), actor=an_actor(), as_of=as_of)

    assert last_split(elsewhere, MODEL, ALIAS, known=first) == second
    with pytest.raises(ConflictError):
        split_traffic(
            elsewhere, model=MODEL, alias=ALIAS, variants=[primary(1)], reason="late", expected=1,
            actor=an_actor("c"), as_of=as_of,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("variants", "code"),
    [
        ((), "argument.variants"),
        ((canary(2, 1.0),), "argument.variants"),
        ((primary(1, 0.5), primary(2, 0.5)), "argument.variants"),
        ((primary(1, 0.5), canary(1, 0.5)), "argument.variants"),
        ((primary(1, 0.5), canary(2, 0.4)), "argument.weights"),
        ((primary(1, 0.7), canary(2, 0.4)), "argument.weights"),
        ((primary(1, 1.5), canary(2, -0.5)), "argument.weights"),
        ((primary(1, float("nan")),), "argument.weights"),
        ((primary(1), part(2, "shadow", 1.5)), "argument.weights"),
        ((primary(1), part(2, "standby", 0.1)), "argument.weights"),
    ],
)
def test_shares_that_are_none_are_refused(share: Share, variants: tuple[Variant, ...], code: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        share(*variants)

    assert raised.value.code == code


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6))
def test_shares_of_any_whole_add_up(parts: list[int]) -> None:
    weights = [each / sum(parts) for each in parts]
    variants = [primary(1, weights[0]), *(canary(n, weight) for n, weight in enumerate(weights[1:], 2))]

    assert check_variants(variants) == tuple(variants)


def test_shadows_and_standbys_take_no_share(share: Share) -> None:
    made = share(primary(1), part(2, "shadow", 0.25), part(3, "standby"))

    assert [each.weight for each in made.variants] == [1.0, 0.25, 0.0]


def test_traffic_makes_nobody_champion(lake: Lake, share: Share, as_of: datetime) -> None:
    with pytest.raises(ArgumentError) as raised:
        share(primary(2, 0.9), canary(1, 0.1), rollout=True)
    assert raised.value.code == "argument.variants"
    decide(lake, PROMOTED, 2, as_of)

    # A rollout of the new champion begins with the former one answering most.
    assert share(primary(1, 0.9), canary(2, 0.1), rollout=True).basis == 2
    with pytest.raises(ArgumentError):
        share(primary(1, 0.9), canary(2, 0.1), key="other")


def test_a_version_that_was_rolled_back_from_gets_no_requests(
    lake: Lake, share: Share, as_of: datetime
) -> None:
    decide(lake, PROMOTED, 2, as_of)
    decide(lake, ROLLED_BACK, 1, as_of)

    with pytest.raises(RegistryError) as raised:
        share(primary(1, 0.9), canary(2, 0.1))
    assert raised.value.code == "registry.blocked"
    assert share(primary(1), part(2, "shadow", 1.0)).variants[1].version == 2


def test_a_version_that_the_lake_does_not_know_is_refused(share: Share) -> None:
    with pytest.raises(NotFoundError) as raised:
        share(primary(1, 0.9), canary(9, 0.1))
    assert raised.value.code == "not_found.model_record"


def test_a_split_needs_a_reason(share: Share) -> None:
    with pytest.raises(ArgumentError) as raised:
        share(primary(1), reason="  ")
    assert raised.value.code == "argument.reason"
