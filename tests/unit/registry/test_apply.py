"""Telling MLflow what was decided, while others decide."""

from __future__ import annotations

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import PromotionDecision, PromotionOutcome
from airflow_provider_xops.registry import apply, ledger
from airflow_provider_xops.registry.apply import apply_decision
from airflow_provider_xops.registry.ledger import Draft
from tests.unit.registry.builders import AS_OF, an_actor


@pytest.fixture
def alias(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The versions that MLflow's alias was set to, in order."""
    seen: list[int] = []
    monkeypatch.setattr(apply, "_set_alias", lambda _client, decision: seen.append(decision.to_version))
    return seen


def decide(lake: Lake, version: int) -> PromotionDecision:
    draft = Draft(outcome=PromotionOutcome.PROMOTED, reason="r", to_version=version, to_created_at_ms=version)
    return ledger.append(lake, "late", "champion", lambda _now: draft, actor=an_actor(), as_of=AS_OF)[0]


def follow(lake: Lake, decision: PromotionDecision) -> bool:
    return apply_decision(lake, None, decision, actor=an_actor(), as_of=AS_OF)  # type: ignore[arg-type]


def test_an_applied_decision_is_not_applied_again(lake: Lake, alias: list[int]) -> None:
    decision = decide(lake, 1)

    assert [follow(lake, decision), follow(lake, decision)] == [True, True]
    assert alias == [1]
    assert len(ledger.entries(lake)) == 2


def test_a_slow_attempt_does_not_set_an_old_champion(lake: Lake, alias: list[int]) -> None:
    old, new = decide(lake, 1), decide(lake, 2)
    assert follow(lake, new)

    assert not follow(lake, old)
    assert alias == [2]


def test_a_decision_that_comes_in_while_the_alias_is_set_wins(
    lake: Lake, alias: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one decides *and* sets the alias before our late write arrives: it must be set once more."""
    old = decide(lake, 1)

    def late(_client: object, decision: PromotionDecision) -> None:
        if decision.to_version == 1:
            with monkeypatch.context() as other:
                other.setattr(apply, "_set_alias", lambda _client, theirs: alias.append(theirs.to_version))
                follow(lake, decide(lake, 2))
        alias.append(decision.to_version or 0)

    monkeypatch.setattr(apply, "_set_alias", late)

    assert not follow(lake, old)
    assert alias == [2, 1, 2]
    assert ledger.state(lake, "late", "champion").unapplied is None
    assert ledger.verify_chain(lake, "late") == []
