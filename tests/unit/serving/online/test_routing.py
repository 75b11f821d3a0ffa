"""Who answers: in the shares asked for, the same one for the same key, and no key back and forth."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.records import Variant
from airflow_provider_xops.serving.online.routing import Router
from tests.unit.serving.online.fleet_cases import canary, part, primary

KEYS = [f"customer {number}" for number in range(20_000)]


def router(*answering: Variant, shadows: Sequence[Variant] = (), salt: str = "champion") -> Router:
    return Router("late", salt, answering, shadows, rng=random.Random(11))


def versions(made: Router, variants: Sequence[Variant], keys: Sequence[str | None]) -> list[int]:
    return [variants[made.choose(key)].version for key in keys]


def within(count: int, share: float, of: int) -> bool:
    """Five standard deviations of a binomial count: one false alarm in a million."""
    return abs(count - share * of) <= 5 * (of * share * (1 - share)) ** 0.5


def test_each_version_gets_its_share_with_and_without_keys() -> None:
    parts = [primary(1, 0.7), canary(2, 0.2), canary(3, 0.1)]

    for keys in (KEYS, [None] * len(KEYS)):
        found = Counter(versions(router(*parts), parts, keys))
        assert all(within(found[each.version], each.weight, len(KEYS)) for each in parts), found


def test_a_key_is_answered_by_one_version_on_every_server() -> None:
    parts = [primary(1, 0.5), canary(2, 0.5)]
    elsewhere = Router("late", "champion", list(reversed(parts)), rng=random.Random(99))

    assert versions(router(*parts), parts, KEYS[:500]) == versions(elsewhere, parts[::-1], KEYS[:500])


def test_no_key_is_first_in_every_canary() -> None:
    parts = [primary(1, 0.5), canary(2, 0.5)]
    one = versions(router(*parts), parts, KEYS)
    other = versions(router(*parts, salt="champion-eu"), parts, KEYS)

    assert within(sum(a == b for a, b in zip(one, other, strict=True)), 0.5, len(KEYS))


def test_growing_a_canary_sends_nobody_back() -> None:
    """From the first percent to the day it is primary, whoever is called what."""
    steps = [
        [primary(1, 0.99), canary(2, 0.01)],
        [primary(1, 0.9), canary(2, 0.1)],
        [primary(1, 0.5), canary(2, 0.5)],
        [primary(2, 0.8), canary(1, 0.2)],
        [primary(2, 1.0)],
    ]
    on_canary: set[str] = set()
    for parts in steps:
        now = {key for key, v in zip(KEYS, versions(router(*parts), parts, KEYS), strict=True) if v == 2}
        assert on_canary <= now
        on_canary = now
    assert len(on_canary) == len(KEYS)


@given(
    st.lists(st.integers(1, 100), min_size=2, max_size=5),
    st.integers(1, 400),
    st.integers(0, 4),
    st.text(max_size=20),
)
def test_the_one_that_grows_keeps_its_keys(weights: list[int], more: int, place: int, key: str) -> None:
    place %= len(weights)

    def parts(shares: list[int]) -> list[Variant]:
        total = sum(shares)
        return [primary(1, shares[0] / total)] + [canary(n, s / total) for n, s in enumerate(shares[1:], 2)]

    grown = [each + more if n == place else each for n, each in enumerate(weights)]
    before, after = router(*parts(weights)).choose(key), router(*parts(grown)).choose(key)

    assert after in (before, place)


def test_no_requests_for_a_share_of_nothing() -> None:
    parts = [primary(1, 1.0), canary(2, 0.0)]

    assert set(versions(router(*parts), parts, [*KEYS[:1000], *[None] * 1000])) == {1}


def test_shadows_are_asked_in_their_share_and_always_for_the_same_keys() -> None:
    made = router(primary(1), shadows=[part(2, "shadow", 1.0), part(3, "shadow", 0.25)])

    asked = [made.shadows(key) for key in KEYS]
    assert all(0 in each for each in asked)
    assert within(sum(1 in each for each in asked), 0.25, len(KEYS))
    assert asked[:100] == [made.shadows(key) for key in KEYS[:100]]
    assert within(sum(1 in made.shadows(None) for _ in KEYS), 0.25, len(KEYS))


@given(st.text())
def test_any_text_is_a_key(key: str) -> None:
    assert router(primary(1, 0.5), canary(2, 0.5)).choose(key) in (0, 1)
