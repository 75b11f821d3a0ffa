"""The way back is proved before it is taken, and regional champions go their own ways; with a real MLflow."""

from __future__ import annotations

import dataclasses
import os
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import ModelError, NotFoundError, RegistryError
from airflow_provider_xops.lake.evidence import evidence_path
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import resolve_model
from airflow_provider_xops.registry.nominate import nominate, retire
from airflow_provider_xops.registry.promote import PromotionResult, promote
from airflow_provider_xops.registry.reconcile import reconcile
from airflow_provider_xops.registry.rollback import rollback
from tests.integration.registry_steps import bare_version, fresh_name, train
from tests.servers import MlflowServer
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor

pytestmark = pytest.mark.server


@pytest.fixture
def client(mlflow_server: MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


def promoted(
    client: RegistryClient, lake: Lake, model: ModelVersion, champion: ModelVersion | None = None,
    alias: str = "champion",
) -> PromotionResult:  # fmt: skip
    result = promote(
        lake,
        client,
        model=model,
        alias=alias,
        expected=champion.version if champion else None,
        evaluation=a_recorded_evaluation(lake, model, champion),
        actor=an_actor(f"promote {model.version} to {alias}"),
        as_of=AS_OF,
    )
    assert result.applied, result.decision.reason
    return result


def back(lake: Lake, client: RegistryClient, name: str, *, key: str = "back", **changes: Any) -> Any:
    given = {"reason": "worse on Mondays", "actor": an_actor(key), "as_of": AS_OF}
    return rollback(lake, client, model_name=name, **(given | changes))


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def test_a_way_back_is_taken_only_when_its_files_are_those_that_were_champion(
    client: RegistryClient, lake: Lake, tmp_path: Path
) -> None:
    name = fresh_name("way-back")
    first, second, third = (train(client, lake, name, key=key) for key in ("one", "two", "three"))
    promoted(client, lake, first)
    promoted(client, lake, second, first)
    decision = promoted(client, lake, third, second).decision

    # Somebody has put another file in the place of the second one's.
    trap, changed = tmp_path / "trap", tmp_path / "model.skops"
    changed.write_bytes(pickle.dumps(Trap(str(trap))))
    with client.session("changing a model's file behind our back") as mlflow:
        mlflow.log_model_artifact(second.source_uri.removeprefix("models:/"), str(changed))
    before = ledger.entries(lake, name)

    for dry_run in (True, False):
        with pytest.raises(ModelError, match=r"model\.digest_mismatch.*was not rolled back to v2") as caught:
            back(lake, client, name, dry_run=dry_run)
    assert "xops rollback" in caught.value.todo
    assert "--unverified" in caught.value.todo
    assert not trap.exists()
    assert ledger.entries(lake, name) == before
    assert client.aliases(name) == {"champion": 3}

    # The one before it is as it was.
    done = back(lake, client, name, to_version=1, expected_sequence=decision.sequence, evidence=("why",))
    assert (done.to_version, done.applied, done.verified) == (1, True, True)
    assert done.decision.reason == "worse on Mondays"
    assert done.decision.evidence == (decision.record_id, "why")
    assert ledger.state(lake, name, "champion").blocked == {(3, third.created_at_ms)}

    # In an emergency nothing is looked at, and the ledger says so.
    blind = back(lake, client, name, key="emergency", to_version=2, verify=False)
    assert (blind.applied, blind.verified) == (True, False)
    assert blind.decision.reason == "worse on Mondays (unverified: the files were not looked at)"
    assert not trap.exists()
    assert ledger.verify_chain(lake, name) == []


def test_a_way_back_that_does_not_load_or_has_no_record_changes_nothing(
    client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name("way-back")
    first, second = (train(client, lake, name, key=key) for key in ("one", "two"))
    promoted(client, lake, first)
    promoted(client, lake, second, first)

    lake.storage.delete(evidence_path("models", first.record_id))
    with pytest.raises(NotFoundError, match=r"not_found\.model_record.*was not rolled back to v1"):
        back(lake, client, name)
    lake.evidence.put(dataclasses.replace(first, trusted_types=()))
    with pytest.raises(ModelError, match=r"model\.untrusted.*was not rolled back to v1"):
        back(lake, client, name)

    assert client.aliases(name) == {"champion": 2}
    assert len(ledger.entries(lake, name)) == 4


def test_what_was_decided_since_is_not_undone(client: RegistryClient, lake: Lake) -> None:
    name = fresh_name("since")
    first, second, third = (bare_version(client, lake, name) for _ in range(3))
    promoted(client, lake, first)
    checked = promoted(client, lake, second, first).decision
    promoted(client, lake, third, second)

    with pytest.raises(RegistryError, match=r"registry\.not_standing.*it rests on entry 5") as caught:
        back(lake, client, name, expected_sequence=checked.sequence, verify=False)

    assert not caught.value.retryable
    assert client.aliases(name) == {"champion": 3}
    done = back(lake, client, name, expected_sequence=5, verify=False)
    assert done.to_version == 2
    # The same work finds its own decision, although it does not rest on entry 5 any more.
    assert back(lake, client, name, expected_sequence=5, verify=False).reused


def test_each_region_has_a_champion_of_its_own(client: RegistryClient, lake: Lake) -> None:
    name = fresh_name("regions")
    everywhere, north, south, better = (bare_version(client, lake, name) for _ in range(4))
    promoted(client, lake, everywhere)
    promoted(client, lake, north, alias="champion-north")
    promoted(client, lake, south, alias="champion-south")

    # Judged against the champion of its own region, and held against any other.
    promoted(client, lake, better, north, alias="champion-north")
    held = promote(
        lake, client, model=better, alias="champion-south", expected=north.version,
        evaluation=a_recorded_evaluation(lake, better, north), actor=an_actor("wrong"), as_of=AS_OF,
    )  # fmt: skip
    assert held.decision.reason.startswith("superseded: decided against v2, the champion is v3")

    back(lake, client, name, alias="champion-north", verify=False)
    assert client.aliases(name) == {"champion": 1, "champion-north": 2, "champion-south": 3}
    sequences = {
        alias: [entry.sequence for entry in ledger.entries(lake, name, alias)]
        for alias in ("champion", "champion-north", "champion-south")
    }
    assert sequences == {
        "champion": [1, 2],
        "champion-north": [1, 2, 3, 4, 5, 6],
        "champion-south": [1, 2, 3],
    }
    # Blocked in the north only.
    promoted(client, lake, better, south, alias="champion-south")
    assert resolve_model(lake, name, alias="champion-south") == better
    assert ledger.verify_chain(lake, name) == []


def test_nominees_come_and_go_at_a_real_server(client: RegistryClient, lake: Lake) -> None:
    name = fresh_name("nominees")
    champion, nominee = (bare_version(client, lake, name) for _ in range(2))
    promoted(client, lake, champion)

    def found(**changes: Any) -> dict[str, str]:
        given = {"model_name": name, "actor": an_actor("night"), "as_of": AS_OF}
        return {each.alias: str(each.status) for each in reconcile(lake, client, **(given | changes))}

    with client.session("an alias set by hand") as mlflow:
        mlflow.set_registered_model_alias(name, "shadow", "1")
    assert found() == {"champion": "consistent", "shadow": "unknown_alias"}
    with pytest.raises(RegistryError, match=r"registry\.alias_moved"):
        nominate(lake, client, model=nominee, alias="shadow", reason="r", actor=an_actor("n"), as_of=AS_OF)
    retire(lake, client, model_name=name, alias="shadow", reason="not ours", actor=an_actor("x"), as_of=AS_OF)
    nominate(
        lake, client, model=nominee, alias="shadow", reason="to be compared",
        expires_at=AS_OF + timedelta(days=7), actor=an_actor("n"), as_of=AS_OF,
    )  # fmt: skip

    assert client.aliases(name) == {"champion": 1, "shadow": 2}
    assert found() == {"champion": "consistent", "shadow": "consistent"}
    assert found(as_of=AS_OF + timedelta(days=8)) == {"champion": "consistent", "shadow": "expired"}
    assert client.aliases(name) == {"champion": 1}
    assert found(as_of=AS_OF + timedelta(days=8)) == {"champion": "consistent", "shadow": "consistent"}
