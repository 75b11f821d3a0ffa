"""What reconciling finds, does, opens once and closes again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_xops.errors import NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Incident, ModelVersion
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry import reconcile as reconciling
from airflow_provider_xops.registry.nominate import nominate, retire
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.registry.reconcile import Finding, reconcile
from airflow_provider_xops.registry.rollback import rollback
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models
from tests.unit.registry.test_ledger import rewrite, rows_of

LATER = AS_OF + timedelta(days=8)


@pytest.fixture
def registry() -> Any:
    return FakeRegistry()


@pytest.fixture
def models(lake: Lake) -> list[ModelVersion]:
    return recorded_models(lake)


@pytest.fixture
def look(lake: Lake, registry: Any) -> Callable[..., dict[str, Finding]]:
    """Reconcile, and give the findings by alias."""

    def go(**changes: Any) -> dict[str, Finding]:
        given = {"model_name": "late", "actor": an_actor("night"), "as_of": AS_OF}
        return {each.alias: each for each in reconcile(lake, registry, **(given | changes))}

    return go


def promoted(
    lake: Lake, registry: Any, model: ModelVersion, champion: Any = None, alias: str = "champion"
) -> Any:
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


def name(lake: Lake, registry: Any, model: ModelVersion, **changes: Any) -> Any:
    given = {"alias": "challenger", "reason": "r", "actor": an_actor("n"), "as_of": AS_OF}
    return nominate(lake, registry, model=model, **(given | changes))


def incidents(lake: Lake) -> list[str]:
    return sorted(each.incident for each in lake.evidence.all(Incident.kind) if isinstance(each, Incident))


def statuses(found: dict[str, Finding]) -> dict[str, str]:
    return {alias: str(each.status) for alias, each in found.items()}


def test_every_alias_of_ledger_and_mlflow_has_a_finding(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any
) -> None:
    promoted(lake, registry, models[0])
    promoted(lake, registry, models[1], alias="champion-eu")
    name(lake, registry, models[2])
    registry.pointed["dev"] = 2

    found = look()

    assert statuses(found) == {
        "champion": "consistent",
        "champion-eu": "consistent",
        "challenger": "consistent",
        "dev": "unknown_alias",
    }
    assert [alias for alias, each in found.items() if not each.in_order] == ["dev"]
    assert statuses(look(alias="nobody")) == {"nobody": "no_champion"}


def test_an_entry_that_cannot_be_read_is_an_incident(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any
) -> None:
    name(lake, registry, models[0])
    rows = rows_of(lake)
    rows[0]["entry"] = "garbage"
    rewrite(lake, rows)

    assert statuses(look()) == {"challenger": "chain_broken"}
    assert incidents(lake) == ["chain_broken"]


@pytest.mark.parametrize(
    ("alias", "severity", "way"),
    [("champion", "critical", "xops adopt model late --version 2"), ("dev", "warning", "xops retire late")],
)
def test_an_alias_that_the_ledger_does_not_know_is_reported_once_and_left_alone(
    lake: Lake, registry: Any, look: Any, alias: str, severity: str, way: str
) -> None:
    registry.pointed[alias] = 2

    first, again = look()[alias], look()[alias]

    assert first.incident is not None
    assert (str(first.status), str(first.incident.severity)) == ("unknown_alias", severity)
    assert way in first.incident.next_step
    assert again.incident == first.incident
    assert incidents(lake) == ["unknown_alias"]
    assert registry.pointed == {alias: 2}
    assert ledger.entries(lake) == []


def test_what_mended_itself_is_said_once_and_opened_anew_when_it_comes_back(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any
) -> None:
    promoted(lake, registry, models[0])
    registry.pointed["champion"] = 3
    moved = look()["champion"]
    assert look()["champion"].incident == moved.incident

    registry.pointed["champion"] = 1  # whoever moved it has put it back
    mended, later = look(as_of=LATER)["champion"], look(as_of=LATER)["champion"]

    assert moved.incident is not None
    assert (str(mended.status), mended.mended) == ("consistent", (moved.incident.record_id,))
    assert "over: ledger_mismatch of 2026-01-15 12:00:00" in mended.message
    assert (str(later.status), later.mended) == ("consistent", ())
    assert "over" not in later.message
    assert incidents(lake) == ["ledger_mismatch", "mended"]

    registry.pointed["champion"] = 3
    again, once_more = look(as_of=LATER)["champion"], look(as_of=LATER)["champion"]

    assert again.incident is not None
    assert again.incident.record_id != moved.incident.record_id
    assert once_more.incident == again.incident
    assert incidents(lake) == ["ledger_mismatch", "ledger_mismatch", "mended"]


def test_an_incident_about_an_alias_that_is_gone_is_closed(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any
) -> None:
    """Neither the ledger nor MLflow has the alias any more: only its incident is left of it."""
    promoted(lake, registry, models[0])
    registry.pointed["dev"] = 2
    incident = look()["dev"].incident
    del registry.pointed["dev"]

    tried, mended = look(dry_run=True)["dev"], look(as_of=LATER)["dev"]

    assert incident is not None
    assert tried.mended == mended.mended == (incident.record_id,)
    assert mended.in_order
    assert incidents(lake) == ["mended", "unknown_alias"]
    assert set(look()) == {"champion"}


def test_a_model_that_nobody_knows_is_an_error(
    lake: Lake, registry: Any, monkeypatch: pytest.MonkeyPatch, look: Any
) -> None:
    def unknown(name: str) -> Any:
        raise NotFoundError(f"there is no model {name} in MLflow", code="not_found.model")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "aliases", unknown)
        with pytest.raises(NotFoundError, match=r"not_found\.model"):
            look(model_name="laet")
    assert look() == {}


def test_a_model_that_is_gone_from_mlflow_still_has_findings(
    lake: Lake, registry: Any, models: list[ModelVersion], monkeypatch: pytest.MonkeyPatch, look: Any
) -> None:
    promoted(lake, registry, models[0])
    name(lake, registry, models[1])

    def gone(*args: Any) -> Any:
        raise NotFoundError(f"there is no {args}", code="not_found.model")

    for asked in ("aliases", "alias_target", "get_version"):
        monkeypatch.setattr(registry, asked, gone)

    assert statuses(look()) == {"champion": "champion_deleted", "challenger": "champion_deleted"}


def test_an_incident_is_closed_when_a_decision_has_settled_it(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any
) -> None:
    promoted(lake, registry, models[0])
    registry.pointed["champion"] = 2
    assert statuses(look()) == {"champion": "ledger_mismatch"}

    rollback(
        lake, registry, model_name="late", to_version=2, reason="it was an emergency", verify=False,
        actor=an_actor("r"), as_of=AS_OF,
    )  # fmt: skip

    assert look()["champion"].mended
    assert incidents(lake) == ["ledger_mismatch", "mended"]


def test_a_dry_run_finds_and_changes_nothing(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any
) -> None:
    promoted(lake, registry, models[0])
    name(lake, registry, models[1], expires_at=AS_OF + timedelta(days=7))
    name(lake, registry, models[2], alias="shadow")
    registry.pointed |= {"champion": 3, "dev": 1}
    del registry.pointed["shadow"]
    entries, pointed = ledger.entries(lake), dict(registry.pointed)

    found = look(as_of=LATER, dry_run=True)

    assert statuses(found) == {
        "challenger": "unapplied",
        "champion": "ledger_mismatch",
        "dev": "unknown_alias",
        "shadow": "ledger_mismatch",
    }
    assert (ledger.entries(lake), registry.pointed, incidents(lake)) == (entries, pointed, [])


def test_a_nomination_whose_time_is_over_is_retired(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any
) -> None:
    name(lake, registry, models[0], expires_at=AS_OF + timedelta(days=7))
    assert statuses(look()) == {"challenger": "consistent"}

    found = look(as_of=LATER)["challenger"]

    assert (str(found.status), found.in_order, registry.pointed) == ("expired", True, {})
    assert found.decision is not None
    assert found.decision.reason.startswith("expired: nominated until 2026-01-22")
    assert statuses(look(as_of=LATER)) == {"challenger": "consistent"}


def test_an_expired_nomination_that_was_moved_by_hand_is_an_incident(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any
) -> None:
    name(lake, registry, models[0], expires_at=AS_OF + timedelta(days=7))
    registry.pointed["challenger"] = 3

    assert statuses(look(as_of=LATER)) == {"challenger": "ledger_mismatch"}
    assert registry.pointed == {"challenger": 3}


def test_a_retired_alias_that_was_not_removed_is_removed(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name(lake, registry, models[0])
    with monkeypatch.context() as killed:
        killed.setattr("airflow_provider_xops.registry.nominate.apply_decision", lambda *_, **__: False)
        retire(
            lake, registry, model_name="late", alias="challenger", reason="r", actor=an_actor(), as_of=AS_OF
        )
    assert registry.pointed == {"challenger": 1}

    assert statuses(look(dry_run=True)) == {"challenger": "unapplied"}
    found = look()["challenger"]

    assert (str(found.status), registry.pointed) == ("applied", {})
    assert found.message == "the alias follows entry 3 now: nothing"
    assert statuses(look()) == {"challenger": "consistent"}


def test_a_retired_alias_that_somebody_set_by_hand_stays_and_is_reported(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any
) -> None:
    name(lake, registry, models[0])
    retire(lake, registry, model_name="late", alias="challenger", reason="r", actor=an_actor(), as_of=AS_OF)
    registry.pointed["challenger"] = 1

    found = look()["challenger"]

    assert found.message == "the ledger says nothing, MLflow's alias says v1"
    assert registry.pointed == {"challenger": 1}


@pytest.mark.parametrize("nominee", [True, False])
def test_a_deleted_version_is_an_incident_with_its_way_out(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any, nominee: bool
) -> None:
    if nominee:
        name(lake, registry, models[0])
    else:
        promoted(lake, registry, models[0], alias="champion-eu")
    del registry.tags[1]
    registry.pointed.clear()

    (found,) = look().values()

    assert found.incident is not None
    assert str(found.status) == "champion_deleted"
    expected = ("warning", "xops retire late --alias challenger") if nominee else (
        "critical", "xops rollback late --alias champion-eu"
    )  # fmt: skip
    assert str(found.incident.severity) == expected[0]
    assert expected[1] in found.incident.next_step


def test_a_promotion_in_the_same_moment_is_no_incident(
    lake: Lake, registry: Any, models: list[ModelVersion], look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger was read before somebody decided, the alias after they had set it."""
    promoted(lake, registry, models[0])
    original = reconciling.alias_of
    calls: list[str] = []

    def alias_of(client: Any, model: str, alias: str) -> int | None:
        if not calls:
            promoted(lake, registry, models[1], models[0])
        calls.append(alias)
        return original(client, model, alias)

    monkeypatch.setattr(reconciling, "alias_of", alias_of)

    found = look()["champion"]

    assert (str(found.status), found.message) == ("consistent", "v2 since entry 3")
    assert len(calls) == 2
    assert incidents(lake) == []
