"""Promotion looks at the columns: what callers send the champion today is what the next one must take."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import GateResult, ModelVersion, Outcome, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.inputs import other_inputs
from airflow_provider_xops.registry.promote import PromotionResult, promote
from tests.unit.registry.builders import AS_OF, PASSED, a_model, a_recorded_evaluation, an_actor
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models

REFUSED = "requests as they come now would be refused"
NEEDS_C = f"other inputs than v1: it needs c: {REFUSED}"


@pytest.fixture
def registry() -> Any:
    return FakeRegistry()


@pytest.fixture
def models(lake: Lake) -> list[ModelVersion]:
    """Five versions; the first one's columns are a and b."""
    one, two, three, four, five = recorded_models(lake, 5)
    made = [
        one,
        dataclasses.replace(two, features=("a", "b", "c"), record_id=""),
        dataclasses.replace(three, features=("b", "a"), record_id=""),
        dataclasses.replace(four, features=(), record_id=""),
        five,
    ]
    # The columns are no part of what identifies a version: each is written once.
    for each in made[1:4]:
        changed = dataclasses.replace(each, artifact_digest="f" * 63 + str(each.version), record_id="")
        lake.evidence.put(changed)
        made[each.version - 1] = changed
    return made


def decided(
    lake: Lake,
    registry: Any,
    model: ModelVersion,
    champion: ModelVersion | None = None,
    *,
    key: str = "",
    gates: tuple[GateResult, ...] = (PASSED,),
    **more: Any,
) -> PromotionResult:
    return promote(
        lake,
        registry,
        model=model,
        expected=champion.version if champion else None,
        evaluation=a_recorded_evaluation(lake, model, champion, gates=gates),
        actor=an_actor(key or f"promote {model.version}"),
        as_of=AS_OF,
        **more,
    )


@pytest.mark.parametrize(
    ("takes", "more", "fewer", "how"),
    [
        (("a", "b", "c"), ("c",), (), f"it needs c: {REFUSED}"),
        (("a",), (), ("b",), f"it does not take b: {REFUSED}"),
        (("a", "B"), ("B",), ("b",), f"it needs B; it does not take b: {REFUSED}"),
        (
            ("b", "a"), (), (),
            "it takes the same columns in another order: rows without names would be read wrongly",
        ),
        (
            ("a", "b", *"qwertyu"), tuple("eqrtuwy"), (),
            f"it needs e, q, r, t, u and 2 more: {REFUSED}",
        ),
    ],
)  # fmt: skip
def test_how_the_columns_of_two_versions_differ(
    takes: tuple[str, ...], more: tuple[str, ...], fewer: tuple[str, ...], how: str
) -> None:
    found = other_inputs(a_model(2, features=takes), a_model(1))

    assert found is not None
    assert (found.more, found.fewer, found.how) == (more, fewer, how)


@pytest.mark.parametrize("takes", [("a", "b"), ()])
def test_the_same_columns_and_unknown_ones_are_no_difference(takes: tuple[str, ...]) -> None:
    assert other_inputs(a_model(2, features=takes), a_model(1)) is None
    assert other_inputs(a_model(1), a_model(2, features=takes)) is None


def test_other_columns_hold_until_the_caller_allows_them_which_the_ledger_says(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    decided(lake, registry, models[0])

    held = decided(lake, registry, models[1], models[0])
    again = decided(lake, registry, models[1], models[0])
    written = len(ledger.entries(lake))
    # The same work, cleared with the argument set, is no retry of what was held.
    allowed = decided(lake, registry, models[1], models[0], allow_new_inputs=True)
    retried = decided(lake, registry, models[1], models[0])

    assert (held.decision.outcome, held.decision.reason) == (PromotionOutcome.HELD, NEEDS_C)
    assert (again.decision, again.reused, written) == (held.decision, True, 3)
    assert allowed.decision.outcome is PromotionOutcome.PROMOTED
    assert allowed.decision.reason == f"all 1 gates passed; allowed: {NEEDS_C}"
    assert (retried.decision, retried.reused) == (allowed.decision, True)
    assert registry.pointed == {"champion": 2}
    assert ledger.verify_chain(lake, "late") == []


def test_another_order_of_the_same_columns_holds_too(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    decided(lake, registry, models[0])

    held = decided(lake, registry, models[2], models[0]).decision

    assert held.outcome is PromotionOutcome.HELD
    assert held.reason.startswith("other inputs than v1: it takes the same columns in another order")
    assert registry.pointed == {"champion": 1}


def test_to_allow_what_is_not_the_case_says_nothing(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    decided(lake, registry, models[0], allow_new_inputs=True)
    second = decided(lake, registry, models[4], models[0], allow_new_inputs=True).decision

    assert second.reason == "all 1 gates passed"


def test_columns_are_compared_with_the_champion_of_the_same_alias(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    decided(lake, registry, models[0])

    # nothing answers there yet
    eu = decided(lake, registry, models[1], alias="champion-eu", key="eu").decision
    held = decided(lake, registry, models[4], models[1], alias="champion-eu", key="eu 5").decision

    assert (eu.outcome, eu.reason) == (PromotionOutcome.PROMOTED, "all 1 gates passed")
    assert held.reason == f"other inputs than v2: it does not take c: {REFUSED}"


def test_columns_that_nobody_knows_are_named_in_the_reason(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    decided(lake, registry, models[3])

    second = decided(lake, registry, models[4], models[3]).decision

    assert second.outcome is PromotionOutcome.PROMOTED
    assert second.reason == "all 1 gates passed; its columns cannot be compared with those of v4"


def test_allowing_columns_is_no_way_around_the_gates(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    decided(lake, registry, models[0])
    failed = GateResult(gate="auc", outcome=Outcome.FAILED, observed=0.1, threshold=0.8, message="0.1 < 0.8")

    plain = decided(lake, registry, models[1], models[0], gates=(failed,)).decision
    allowed = decided(
        lake, registry, models[1], models[0], gates=(failed,), key="again", allow_new_inputs=True
    ).decision

    assert plain.outcome is allowed.outcome is PromotionOutcome.REJECTED
    assert "inputs" not in plain.reason + allowed.reason
    assert registry.pointed == {"champion": 1}
