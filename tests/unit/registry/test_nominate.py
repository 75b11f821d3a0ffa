"""Aliases that answer nobody: nominated without gates, retired, expired; never a way around the gates."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, NotFoundError, RegistryError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.loading import resolve_model
from airflow_provider_xops.registry.nominate import expire_nominations, nominate, retire
from airflow_provider_xops.registry.promote import promote
from tests.unit.registry.builders import AS_OF, a_model, a_recorded_evaluation, an_actor
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models

LATER = AS_OF + timedelta(days=8)


@pytest.fixture
def registry() -> Any:
    return FakeRegistry()


@pytest.fixture
def models(lake: Lake) -> list[ModelVersion]:
    return recorded_models(lake)


def name(lake: Lake, registry: Any, model: ModelVersion, *, key: str = "n", **changes: Any) -> Any:
    given = {"reason": "to be compared", "actor": an_actor(key), "as_of": AS_OF}
    return nominate(lake, registry, model=model, **(given | changes))


def end(lake: Lake, registry: Any, *, key: str = "r", **changes: Any) -> Any:
    given = {"model_name": "late", "alias": "challenger", "reason": "done"}
    return retire(lake, registry, **(given | {"actor": an_actor(key), "as_of": AS_OF} | changes))


def outcomes(lake: Lake, alias: str = "challenger") -> list[str]:
    return [str(entry.outcome) for entry in ledger.entries(lake, "late", alias)]


def promoted(lake: Lake, registry: Any, model: ModelVersion, alias: str, champion: Any = None) -> Any:
    return promote(
        lake,
        registry,
        model=model,
        alias=alias,
        expected=champion.version if champion else None,
        evaluation=a_recorded_evaluation(lake, model, champion),
        actor=an_actor(f"{alias} {model.version}"),
        as_of=AS_OF,
    )


def test_a_nominee_has_the_alias_in_the_ledger_and_in_mlflow(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    result = name(lake, registry, models[0])

    assert (result.applied, result.reused, str(result.decision.outcome)) == (True, False, "nominated")
    assert registry.pointed == {"challenger": 1}
    assert outcomes(lake) == ["nominated", "applied"]
    assert resolve_model(lake, "late", alias="challenger") == models[0]
    assert ledger.verify_chain(lake, "late") == []


def test_the_same_work_nominates_once_and_another_replaces_the_nominee(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    first, again = name(lake, registry, models[0]), name(lake, registry, models[0])
    second = name(lake, registry, models[1], key="another")

    assert (again.decision, again.reused) == (first.decision, True)
    assert (second.decision.from_version, second.decision.to_version) == (1, 2)
    assert registry.pointed == {"challenger": 2}


@pytest.mark.parametrize("alias", ["champion", "champion-eu"])
def test_a_champions_alias_is_never_nominated_for(
    lake: Lake, registry: Any, models: list[ModelVersion], alias: str
) -> None:
    with pytest.raises(RegistryError, match=r"registry\.gated_alias"):
        name(lake, registry, models[0], alias=alias)

    assert (ledger.entries(lake), registry.pointed) == ([], {})


def test_an_alias_that_was_promoted_to_stays_gated_even_when_it_is_retired(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    assert promoted(lake, registry, models[0], "blue").applied
    end(lake, registry, alias="blue")

    with pytest.raises(RegistryError, match=r"registry\.gated_alias.*promoted to before"):
        name(lake, registry, models[1], alias="blue")


def test_a_nominee_that_others_promote_to_meanwhile_is_refused(
    lake: Lake, registry: Any, models: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate is asked again on the state that the entry would follow."""
    original = ledger._commit

    def others_first(*args: Any) -> bool:
        monkeypatch.setattr(ledger, "_commit", original)
        assert promoted(lake, registry, models[1], "blue").applied
        return original(*args)

    monkeypatch.setattr(ledger, "_commit", others_first)

    with pytest.raises(RegistryError, match=r"registry\.gated_alias"):
        name(lake, registry, models[0], alias="blue")
    assert registry.pointed == {"blue": 2}


def test_an_alias_that_somebody_moved_by_hand_is_not_overwritten(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    registry.pointed["challenger"] = 3
    with pytest.raises(RegistryError, match=r"registry\.alias_moved.*xops retire late --alias challenger"):
        name(lake, registry, models[0])
    assert registry.pointed == {"challenger": 3}

    end(lake, registry)
    assert registry.pointed == {}
    assert name(lake, registry, models[0]).applied


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"reason": "  "}, "argument.reason"),
        ({"alias": "v7"}, "argument.alias"),
        ({"expires_at": AS_OF}, "argument.expires_at"),
        ({"expires_at": LATER.replace(tzinfo=None)}, "argument.expires_at"),
    ],
)
def test_what_cannot_be_nominated(
    lake: Lake, registry: Any, models: list[ModelVersion], changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        name(lake, registry, models[0], **changes)

    assert caught.value.code == code
    assert ledger.entries(lake) == []


def test_only_a_version_that_evidence_and_mlflow_know_is_nominated(lake: Lake, registry: Any) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.model"):
        name(lake, registry, a_model(1))
    gone, namesake = a_model(9), a_model(2, created_at_ms=77)
    for each in (gone, namesake):
        lake.evidence.put(each)
    with pytest.raises(NotFoundError, match=r"not_found\.model_version"):
        name(lake, registry, gone)
    with pytest.raises(RegistryError, match=r"registry\.model_recreated"):
        name(lake, registry, namesake)


def test_a_retired_alias_stands_for_nothing_and_can_be_given_again(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    name(lake, registry, models[0])

    done, again = end(lake, registry), end(lake, registry)

    assert (done.applied, done.decision.from_version, done.decision.to_version) == (True, 1, None)
    assert (again.decision, again.reused) == (done.decision, True)
    assert registry.pointed == {}
    assert resolve_model(lake, "late", alias="challenger") is None
    with pytest.raises(RegistryError, match=r"registry\.no_alias"):
        end(lake, registry, key="somebody else")
    assert name(lake, registry, models[1], key="later").applied
    # What retired the alias before is not done to the new nominee by a late retry.
    assert end(lake, registry).decision == done.decision
    assert registry.pointed == {"challenger": 2}
    assert ledger.verify_chain(lake, "late") == []


def test_a_retirement_that_was_killed_is_finished_by_whoever_asks_next(
    lake: Lake, registry: Any, models: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not say that the alias stands for nothing while MLflow still has it."""
    name(lake, registry, models[0])

    def silent(*_args: Any) -> None:
        raise UnavailableError("MLflow did not answer", code="unavailable.mlflow")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "delete_registered_model_alias", silent)
        with pytest.raises(UnavailableError):
            end(lake, registry)
    assert registry.pointed == {"challenger": 1}

    done = end(lake, registry, key="somebody else")

    assert (done.applied, done.reused, registry.pointed) == (True, True, {})
    assert outcomes(lake) == ["nominated", "applied", "retired", "applied"]
    with pytest.raises(RegistryError, match=r"registry\.no_alias"):
        end(lake, registry, key="a third")


def test_an_alias_that_never_was_cannot_be_retired(lake: Lake, registry: Any) -> None:
    with pytest.raises(RegistryError, match=r"registry\.no_alias"):
        end(lake, registry)
    assert ledger.entries(lake) == []


def test_a_promotion_after_a_retired_champion_is_against_nobody(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    promoted(lake, registry, models[0], "champion-eu")
    end(lake, registry, alias="champion-eu")

    held = promoted(lake, registry, models[1], "champion-eu", models[0])
    done = promoted(lake, registry, models[2], "champion-eu")

    assert held.decision.reason.startswith("superseded: decided against v1, the champion is no champion")
    assert done.applied
    assert registry.pointed == {"champion-eu": 3}


def test_only_what_is_over_expires(lake: Lake, registry: Any, models: list[ModelVersion]) -> None:
    name(lake, registry, models[0], expires_at=AS_OF + timedelta(days=7))
    name(lake, registry, models[1], alias="shadow")
    name(lake, registry, models[2], alias="by-hand", expires_at=AS_OF + timedelta(days=7))
    registry.pointed["by-hand"] = 1

    assert expire_nominations(lake, registry, actor=an_actor("night"), as_of=AS_OF) == []
    retired = expire_nominations(lake, registry, actor=an_actor("night"), as_of=LATER)

    assert [entry.alias for entry in retired] == ["challenger"]
    assert retired[0].reason == "expired: nominated until 2026-01-22T12:00:00+00:00"
    assert registry.pointed == {"shadow": 2, "by-hand": 1}
    assert expire_nominations(lake, registry, actor=an_actor("night"), as_of=LATER) == []


def test_the_same_key_may_expire_one_nomination_after_another(
    lake: Lake, registry: Any, models: list[ModelVersion]
) -> None:
    for number, model in enumerate(models):
        start = AS_OF + timedelta(days=10 * number)
        name(lake, registry, model, key=str(number), as_of=start, expires_at=start + timedelta(days=1))
        over = start + timedelta(days=2)
        assert len(expire_nominations(lake, registry, actor=an_actor("night"), as_of=over)) == 1
        assert registry.pointed == {}


def test_a_nominee_that_was_replaced_meanwhile_does_not_expire(
    lake: Lake, registry: Any, models: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    name(lake, registry, models[0], expires_at=AS_OF + timedelta(days=7))
    original = ledger._commit

    def others_first(*args: Any) -> bool:
        monkeypatch.setattr(ledger, "_commit", original)
        name(lake, registry, models[1], key="another", as_of=LATER)
        return original(*args)

    monkeypatch.setattr(ledger, "_commit", others_first)

    assert expire_nominations(lake, registry, actor=an_actor("night"), as_of=LATER) == []
    assert registry.pointed == {"challenger": 2}
    assert outcomes(lake) == ["nominated", "applied", "nominated", "applied"]
