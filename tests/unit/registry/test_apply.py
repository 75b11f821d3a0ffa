"""Telling MLflow what was decided, while others decide, and after being killed over it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_xops.errors import RegistryError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import PromotionDecision, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.apply import DECISION_TAG, apply_decision, late_write
from airflow_provider_xops.registry.ledger import Draft
from airflow_provider_xops.registry.reconcile import reconcile
from tests.unit.registry.builders import AS_OF, an_actor
from tests.unit.registry.fake_registry import FakeRegistry


class Killed(BaseException):
    """The attempt ends here, as by SIGKILL: nothing of it runs any more."""


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


def decide(
    lake: Lake, version: int | None, outcome: PromotionOutcome = PromotionOutcome.PROMOTED
) -> PromotionDecision:
    def draft(now: ledger.LedgerState) -> Draft:
        return Draft(
            outcome=outcome,
            reason="r",
            from_version=now.current_version,
            to_version=version,
            to_created_at_ms=None if version is None else 1000 + version,
        )

    return ledger.append(lake, "late", "champion", draft, actor=an_actor(), as_of=AS_OF)[0]


def follow(lake: Lake, registry: FakeRegistry, decision: PromotionDecision) -> bool:
    return apply_decision(lake, registry, decision, actor=an_actor(), as_of=AS_OF)  # type: ignore[arg-type]


def look(lake: Lake, registry: FakeRegistry, **changes: Any) -> tuple[str, str]:
    given: dict[str, Any] = {"model_name": "late", "actor": an_actor(), "as_of": AS_OF} | changes
    (finding,) = reconcile(lake, registry, **given)  # type: ignore[arg-type]
    return str(finding.status), finding.message


def killed_late(lake: Lake, registry: FakeRegistry) -> tuple[PromotionDecision, PromotionDecision]:
    """Two decisions; the attempt at the older one comes late, and is killed before it looks again."""
    old = decide(lake, 1)
    newer = []

    def others(version: int) -> None:
        if version == 1 and not newer:
            newer.append(decide(lake, 2))
            follow(lake, registry, newer[0])

    registry.before_alias = others
    original = registry.set_registered_model_alias

    def and_die(name: str, alias: str, version: str) -> None:
        original(name, alias, version)
        if version == "1":
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "set_registered_model_alias", and_die)
        with pytest.raises(Killed):
            follow(lake, registry, old)
    registry.before_alias = lambda _version: None
    return old, newer[0]


def test_an_applied_decision_is_not_applied_again(lake: Lake, registry: FakeRegistry) -> None:
    decision = decide(lake, 1)

    assert [follow(lake, registry, decision), follow(lake, registry, decision)] == [True, True]
    assert registry.history == [1]
    assert len(ledger.entries(lake)) == 2


def test_a_slow_attempt_does_not_set_an_old_champion(lake: Lake, registry: FakeRegistry) -> None:
    old, new = decide(lake, 1), decide(lake, 2)
    assert follow(lake, registry, new)

    assert not follow(lake, registry, old)
    assert registry.history == [2]


def test_a_decision_that_comes_in_while_the_alias_is_set_wins(lake: Lake, registry: FakeRegistry) -> None:
    """The other one decides *and* sets the alias before our late write arrives: it must be set once more."""
    old = decide(lake, 1)

    def others(version: int) -> None:
        if version == 1:
            follow(lake, registry, decide(lake, 2))

    registry.before_alias = others

    assert not follow(lake, registry, old)
    assert registry.history == [2, 1, 2]
    assert ledger.state(lake, "late", "champion").unapplied is None
    assert ledger.verify_chain(lake, "late") == []
    # From now on only a hand can move the alias to v1.
    assert json.loads(registry.tags[1][DECISION_TAG])["overtaken_by"] == 2


def test_a_late_write_of_a_killed_attempt_is_mended_by_its_retry(lake: Lake, registry: FakeRegistry) -> None:
    old, _new = killed_late(lake, registry)
    assert registry.pointed == {"champion": 1}

    assert not follow(lake, registry, old)

    assert registry.pointed == {"champion": 2}
    assert look(lake, registry) == ("consistent", "v2 since entry 2")


def test_a_late_write_of_a_killed_attempt_is_mended_by_reconcile(lake: Lake, registry: FakeRegistry) -> None:
    killed_late(lake, registry)
    entries = len(ledger.entries(lake))

    assert look(lake, registry, dry_run=True)[0] == "unapplied"
    assert registry.pointed == {"champion": 1}
    status, message = look(lake, registry)

    assert (status, registry.pointed) == ("applied", {"champion": 2})
    assert "a killed attempt at entry 1 has left the alias at v1" in message
    assert look(lake, registry)[0] == "consistent"
    assert len(ledger.entries(lake)) == entries


def test_a_late_write_does_not_hold_the_next_promotion(lake: Lake, registry: FakeRegistry) -> None:
    from airflow_provider_xops.registry._against_mlflow import moved_by_hand

    killed_late(lake, registry)
    now = ledger.state(lake, "late", "champion")

    assert moved_by_hand(registry, now, seen=1) is None  # type: ignore[arg-type]
    registry.pointed["champion"] = 4
    assert moved_by_hand(registry, now, seen=4) == 4  # type: ignore[arg-type]


def test_after_a_late_write_was_mended_a_hand_that_does_the_same_is_a_hand(
    lake: Lake, registry: FakeRegistry
) -> None:
    killed_late(lake, registry)
    look(lake, registry)

    registry.pointed["champion"] = 1

    assert look(lake, registry)[0] == "ledger_mismatch"
    assert registry.pointed == {"champion": 1}


def test_a_hand_is_not_taken_for_an_attempt_that_was_killed_long_ago(
    lake: Lake, registry: FakeRegistry
) -> None:
    """Killed between the tag and the alias, and overtaken: nothing of it can come any more."""
    old = decide(lake, 1)

    def die(_version: int) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "before_alias", die)
        with pytest.raises(Killed):
            follow(lake, registry, old)
    follow(lake, registry, decide(lake, 2))
    # So soon after, it may still be under way.
    assert look(lake, registry) == ("consistent", "v2 since entry 2")
    assert look(lake, registry, as_of=AS_OF + timedelta(hours=2), dry_run=True)[0] == "consistent"
    assert "overtaken_by" not in json.loads(registry.tags[1][DECISION_TAG])
    assert look(lake, registry, as_of=AS_OF + timedelta(hours=2))[0] == "consistent"

    registry.pointed["champion"] = 1  # by hand, in an emergency

    assert look(lake, registry, as_of=AS_OF + timedelta(days=9))[0] == "ledger_mismatch"
    assert registry.pointed == {"champion": 1}


def test_going_back_by_hand_to_a_champion_that_was_in_service_is_a_hand(
    lake: Lake, registry: FakeRegistry
) -> None:
    for version in (1, 2):
        follow(lake, registry, decide(lake, version))

    registry.pointed["champion"] = 1

    assert late_write(registry, ledger.state(lake, "late", "champion"), 1) is None  # type: ignore[arg-type]
    assert look(lake, registry)[0] == "ledger_mismatch"


def test_a_retired_alias_is_removed_once(lake: Lake, registry: FakeRegistry) -> None:
    follow(lake, registry, decide(lake, 1))
    retired = decide(lake, None, PromotionOutcome.RETIRED)

    assert [follow(lake, registry, retired), follow(lake, registry, retired)] == [True, True]
    assert registry.history == [1, None]
    now = ledger.state(lake, "late", "champion")
    assert (now.current, now.current_version, now.unapplied) == (None, None, None)
    assert now.entries[-1].reason == "alias champion removed"
    assert ledger.verify_chain(lake, "late") == []


def test_an_alias_that_another_made_at_the_same_moment_is_set_again(
    lake: Lake, registry: FakeRegistry
) -> None:
    refused = [RegistryError("taken", code="registry.refused", context={"mlflow_code": "BAD_REQUEST"})]

    def race(_version: int) -> None:
        if refused:
            raise refused.pop()

    registry.before_alias = race

    assert follow(lake, registry, decide(lake, 1))
    assert registry.pointed == {"champion": 1}


def test_a_refusal_of_mlflow_is_not_repeated(lake: Lake, registry: FakeRegistry) -> None:
    def refuse(_version: int) -> None:
        raise RegistryError("no", code="registry.forbidden")

    registry.before_alias = refuse

    with pytest.raises(RegistryError, match=r"registry\.forbidden"):
        follow(lake, registry, decide(lake, 1))
    assert ledger.state(lake, "late", "champion").unapplied is not None


def test_a_decision_is_not_applied_to_another_model_of_its_number(lake: Lake, registry: FakeRegistry) -> None:
    """Killed before it was applied; meanwhile the model was deleted and made again, and counts from 1."""
    decision = decide(lake, 1)
    registry.made_ms = 9_000

    with pytest.raises(RegistryError, match=r"registry\.model_recreated") as caught:
        follow(lake, registry, decision)

    assert not caught.value.retryable
    assert registry.pointed == {}
    assert registry.tags[1] == {}
    assert ledger.state(lake, "late", "champion").unapplied == decision
    assert look(lake, registry)[0] == "model_recreated"
