"""A champion that MLflow had before the ledger: adopted once, and no way around a block."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_xops.errors import RegistryError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ModelVersion, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.adopt import _adopt_champion
from airflow_provider_xops.registry.nominate import retire
from airflow_provider_xops.registry.rollback import release, rollback
from tests.unit.registry.builders import AS_OF, an_actor
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models


@pytest.fixture
def registry() -> Any:
    return FakeRegistry()


@pytest.fixture
def models(lake: Lake) -> list[ModelVersion]:
    return recorded_models(lake)


def adopt(lake: Lake, registry: Any, model: ModelVersion) -> None:
    _adopt_champion(lake, registry, model, "champion", an_actor(f"adopt {model.version}"), AS_OF)


def decisions(lake: Lake) -> list[tuple[str, int | None]]:
    return [
        (str(each.outcome), each.to_version)
        for each in ledger.entries(lake, "late")
        if each.outcome is not PromotionOutcome.APPLIED
    ]


def test_what_is_champion_already_is_adopted_once(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    registry.pointed["champion"] = 1

    adopt(lake, registry, models[0])
    adopt(lake, registry, models[0])

    assert decisions(lake) == [("promoted", 1)]
    registry.pointed["champion"] = 2
    with pytest.raises(RegistryError, match=r"registry\.has_champion"):
        adopt(lake, registry, models[1])


def test_a_blocked_version_is_not_adopted_after_its_alias_was_retired(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    """Rolled back from, the alias retired, and then set in MLflow by hand to the version that was left."""
    registry.pointed["champion"] = 1
    adopt(lake, registry, models[0])
    registry.pointed["champion"] = 2
    given: dict[str, Any] = {"model_name": "late", "reason": "r", "as_of": AS_OF}
    for number, to in enumerate((2, 1)):  # by hand to 2, taken over, and back: 2 is blocked
        actor = an_actor(f"back {number}")
        if to == 1:
            release(lake, **given, version=1, actor=an_actor("free"))
        rollback(lake, registry, **given, to_version=to, verify=False, actor=actor)
    retire(lake, registry, **given, alias="champion", actor=an_actor("end"))
    registry.pointed["champion"] = 2

    with pytest.raises(RegistryError, match=r"registry\.blocked.*adopting asks no gates"):
        adopt(lake, registry, models[1])
    assert decisions(lake)[-1] == ("retired", None)

    release(lake, **given, version=2, actor=an_actor("free 2"))
    adopt(lake, registry, models[1])
    assert decisions(lake)[-2:] == [("released", 2), ("promoted", 2)]
