"""Where a rollback may go, and where it may not; real files are in the integration tests."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest

from airflow_provider_xops.errors import RegistryError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ModelVersion, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.nominate import nominate
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.registry.rollback import RollbackResult, release, rollback
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models


@pytest.fixture
def registry() -> Any:
    return FakeRegistry()


@pytest.fixture
def models(lake: Lake) -> list[ModelVersion]:
    return recorded_models(lake)


def champions(lake: Lake, registry: Any, models: list[ModelVersion]) -> None:
    """Each of them promoted over the one before."""
    before = None
    for model in models:
        promote(
            lake, registry, model=model, expected=before.version if before else None,
            evaluation=a_recorded_evaluation(lake, model, before), actor=an_actor(f"p{model.version}"),
            as_of=AS_OF,
        )  # fmt: skip
        before = model


def nominated(lake: Lake, registry: Any, model: ModelVersion, alias: str) -> None:
    actor = an_actor(f"nominate {model.version}")
    nominate(lake, registry, model=model, alias=alias, reason="compare", actor=actor, as_of=AS_OF)


def back(lake: Lake, registry: RegistryClient, *, key: str = "back", **changes: Any) -> RollbackResult:
    given = {"reason": "worse", "verify": False, "actor": an_actor(key), "as_of": AS_OF}
    return rollback(lake, registry, model_name="late", **(given | changes))


def test_of_two_that_roll_back_at_once_one_does_and_the_other_is_not_tried_again(
    lake: Lake, registry: Any, models: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry would go on to the champion before the one that the other has put back."""
    champions(lake, registry, models)
    real = ledger.append

    def late(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(ledger, "append", real)
        back(lake, registry, key="faster")
        return real(*args, **kwargs)

    monkeypatch.setattr(ledger, "append", late)
    with pytest.raises(RegistryError, match=r"registry\.champion_changed.*it was v3, now it is v2") as caught:
        back(lake, registry)

    assert not caught.value.retryable
    assert registry.pointed == {"champion": 2}


def test_a_blocked_version_stays_so_when_somebody_moves_the_alias_to_it(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    nominated(lake, registry, models[0], "shadow")
    registry.pointed["shadow"] = 2
    back(lake, registry, alias="shadow", to_version=2)
    assert ledger.state(lake, "late", "shadow").blocked == {(1, models[0].created_at_ms)}
    registry.pointed["shadow"] = 1

    with pytest.raises(RegistryError, match=r"registry\.blocked"):
        back(lake, registry, key="again", alias="shadow", to_version=1)


def test_a_nominee_is_no_former_champion(lake: Lake, registry: Any, models: list[ModelVersion]) -> None:
    """Its alias is where the ledger has put it: no hand has moved it, which a rollback could accept."""
    for model in models[:2]:
        nominated(lake, registry, model, "shadow")

    for version in (1, 2):
        with pytest.raises(RegistryError, match=r"registry\.never_champion"):
            back(lake, registry, alias="shadow", to_version=version)
    outcomes = {entry.outcome for entry in ledger.entries(lake, "late", "shadow")}
    assert PromotionOutcome.ROLLED_BACK not in outcomes


def test_a_killed_rollback_is_not_finished_onto_another_model_of_that_number(
    lake: Lake, registry: Any, models: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    champions(lake, registry, models)

    def silent(*_args: Any) -> None:
        raise UnavailableError("MLflow did not answer", code="unavailable.mlflow")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "set_registered_model_alias", silent)
        with pytest.raises(UnavailableError):
            back(lake, registry)
    registry.pointed.clear()
    registry.made_ms = 9_000

    with pytest.raises(RegistryError, match=r"registry\.model_recreated"):
        back(lake, registry)
    assert registry.pointed == {}


def test_of_two_blocked_versions_of_one_number_the_one_that_is_there_is_released(
    lake: Lake, registry: Any
) -> None:
    made = []
    for number in range(4):
        registry.made_ms = 1000 * (number + 1)
        good, bad = (
            dataclasses.replace(each, created_at_ms=registry.made_ms + each.version, record_id="")
            for each in recorded_models(lake, 2)
        )
        for model in (good, bad):
            lake.evidence.put(model)
            ledger.append(
                lake, "late", "champion", functools.partial(_crown, model), actor=an_actor(), as_of=AS_OF
            )
        back(lake, registry, key=f"back {number}")
        made.append(bad.created_at_ms)

    entry = release(lake, model_name="late", version=2, reason="mended", actor=an_actor("free"), as_of=AS_OF)

    assert entry.to_created_at_ms == max(made)
    left = ledger.state(lake, "late", "champion").blocked
    assert left == {(2, created) for created in made[:-1]}


def _crown(model: ModelVersion, now: ledger.LedgerState) -> ledger.Draft:
    return ledger.Draft(
        outcome=PromotionOutcome.PROMOTED,
        reason="r",
        from_version=now.current_version,
        to_version=model.version,
        to_created_at_ms=model.created_at_ms,
        artifact_digest=model.artifact_digest,
    )


def test_the_way_out_names_the_alias(lake: Lake, registry: Any, models: list[ModelVersion]) -> None:
    nominated(lake, registry, models[0], "shadow")
    registry.pointed["shadow"] = 2
    back(lake, registry, alias="shadow", to_version=2)
    registry.pointed["shadow"] = 1

    with pytest.raises(RegistryError, match=r"xops release late 1 --alias shadow"):
        back(lake, registry, key="again", alias="shadow", to_version=1)
