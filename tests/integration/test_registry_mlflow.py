"""The registry against a real MLflow server: registering once, loading safely, promoting, going back,
reconciling."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import (
    ArgumentError,
    DataError,
    ModelError,
    NotFoundError,
    RegistryError,
    Superseded,
    UnavailableError,
)
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.evidence import evidence_path
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.pins import pins
from airflow_provider_xops.records import Incident, ModelVersion, PromotionOutcome
from airflow_provider_xops.registry import ledger, models, runs
from airflow_provider_xops.registry.adopt import TRAINING_SCHEMA, adopt_model, record_training
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import get_model, load_model, resolve_model
from airflow_provider_xops.registry.promote import PromotionResult, promote
from airflow_provider_xops.registry.reconcile import reconcile
from airflow_provider_xops.registry.rollback import release, rollback
from airflow_provider_xops.settings import MlflowSettings
from tests.integration.registry_steps import (
    FEATURES,
    bare_version,
    facts_for,
    fitted,
    frame,
    fresh_name,
    train,
)
from tests.unit.registry.builders import AS_OF, a_recorded_evaluation, an_actor

pytestmark = pytest.mark.server


@pytest.fixture(params=["mlflow_server", "mlflow_server_postgres"], ids=["sqlite", "postgres"])
def client(request: pytest.FixtureRequest) -> RegistryClient:
    return RegistryClient(request.getfixturevalue(request.param).settings())


def all_runs(client: RegistryClient, name: str) -> list[Any]:
    with client.session("listing runs") as mlflow:
        return list(mlflow.search_runs([client.experiment_id(name)]))


def versions(client: RegistryClient, name: str) -> list[int]:
    with client.session("listing versions") as mlflow:
        return sorted(int(each.version) for each in mlflow.search_model_versions(f"name = '{name}'"))


def set_alias(client: RegistryClient, name: str, version: int, alias: str = "champion") -> None:
    with client.session("moving an alias by hand") as mlflow:
        mlflow.set_registered_model_alias(name, alias, str(version))


def promoted(
    client: RegistryClient,
    lake: Lake,
    model: ModelVersion,
    champion: ModelVersion | None = None,
    *,
    key: str | None = None,
) -> PromotionResult:
    return promote(
        lake,
        client,
        model=model,
        expected=champion.version if champion else None,
        evaluation=a_recorded_evaluation(lake, model, champion),
        actor=an_actor(key or f"promote {model.version}"),
        as_of=AS_OF,
    )


# --- registering and loading ---


def test_a_trained_model_is_registered_recorded_pinned_and_loads(client: RegistryClient, lake: Lake) -> None:
    client.preflight()
    name = fresh_name()

    model = train(client, lake, name)

    assert (model.name, model.version, model.origin) == (name, 1, "trained")
    assert lake.evidence.get("models", model.record_id) == model
    assert {pin.holder for pin in pins(lake, "flights")} == {f"model:{name}/1"}
    assert {pin.reason for pin in pins(lake, "flights")} == {"training", "holdout"}
    assert (
        load_model(client, lake, model).predict(frame()[0]).tolist() == fitted().predict(frame()[0]).tolist()
    )
    assert get_model(lake, name, 1) == model
    with client.session("looking") as mlflow:
        import mlflow.pyfunc as pyfunc

        assert pyfunc.load_model(f"models:/{name}/1").predict(frame()[0]).shape == (60,)
        run = mlflow.get_run(model.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"roc_auc": 0.9}
    assert [f"models:/{output.model_id}" for output in run.outputs.model_outputs] == [model.source_uri]
    assert run.inputs.dataset_inputs[0].dataset.name == "flights"


def test_the_same_work_registers_one_version_however_often_it_runs(
    client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name()

    first, second = train(client, lake, name, fence=1), train(client, lake, name, fence=2)

    assert first == second
    assert versions(client, name) == [1]
    assert len(all_runs(client, name)) == 1


def test_a_version_whose_run_somebody_deleted_is_still_the_same_works(
    client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name()
    first = train(client, lake, name, fence=1)
    with client.session("deleting the run") as mlflow:
        mlflow.delete_run(first.run_id)

    assert train(client, lake, name, fence=2) == first
    assert versions(client, name) == [1]


def test_a_first_attempt_searches_for_its_version_only_after_it_has_made_one(
    client: RegistryClient, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    name = fresh_name()
    train(client, lake, name, key="monday")
    asked: list[str] = []
    send = requests.Session.send

    def watched(self: Any, request: Any, **kwargs: Any) -> Any:
        path = request.path_url.partition("?")[0]
        asked.append(f"{request.method} {path.rpartition('/mlflow/')[2]}")
        return send(self, request, **kwargs)

    monkeypatch.setattr(requests.Session, "send", watched)

    train(client, lake, name, key="tuesday")

    searches = [call for call in asked if call.endswith("/search")]
    assert searches == ["POST runs/search", "POST runs/search", "GET model-versions/search"]
    assert asked.index("POST model-versions/create") == asked.index("GET model-versions/search") - 1
    assert "POST registered-models/create" not in asked


def test_other_work_registers_another_version(client: RegistryClient, lake: Lake) -> None:
    name = fresh_name()

    assert [train(client, lake, name, key=key).version for key in ("monday", "tuesday")] == [1, 2]


def test_requests_whose_answer_got_lost_leave_one_version_and_no_open_run(
    client: RegistryClient, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests
    from mlflow import MlflowClient

    # Of these two the client is told not to repeat them, so it sees that there was no answer ...
    lost = ["/runs/create", "/logged-models"]
    send = requests.Session.send

    def send_and_lose(self: Any, request: Any, **kwargs: Any) -> Any:
        answer = send(self, request, **kwargs)
        ours = [end for end in lost if request.method == "POST" and request.url.endswith(end)]
        if ours:
            lost.remove(ours[0])
            raise requests.ConnectionError("the answer got lost on the way")
        return answer

    monkeypatch.setattr(requests.Session, "send", send_and_lose)
    # ... and this one it repeats by itself.
    create_version = MlflowClient.create_model_version

    def twice(self: Any, *args: Any, **kwargs: Any) -> Any:
        create_version(self, *args, **kwargs)
        return create_version(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_model_version", twice)
    name = fresh_name()
    client.experiment_id(name)
    with client.session("making the model") as mlflow:
        mlflow.create_registered_model(name)

    model = train(client, lake, name)

    assert lost == []
    assert versions(client, name) == [model.version] == [1]
    assert sorted(run.info.status for run in all_runs(client, name)) == ["FINISHED", "KILLED"]
    with client.session("looking") as mlflow:
        left = mlflow.search_logged_models([client.experiment_id(name)])
    assert [str(each.status) for each in left if "PENDING" in str(each.status)] == []
    assert load_model(client, lake, model) is not None


def test_two_attempts_at_the_same_moment_end_in_the_first_ones_version(
    client: RegistryClient, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fresh_name()
    first = train(client, lake, name, fence=1)
    # Nobody had begun yet when the second one asked.
    nobody = runs.Earlier(experiment_id=client.experiment_id(name), begun=False)
    monkeypatch.setattr(runs, "earlier_attempts", lambda *_, **__: nobody)

    second = train(client, lake, name, fence=2)

    assert second == first
    assert versions(client, name) == [1]
    assert [record.version for record in lake.evidence.all("models")] == [1]
    assert load_model(client, lake, second) is not None


def test_evidence_that_a_killed_attempt_could_not_write_is_written_by_the_next(
    client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name()
    model = train(client, lake, name)
    for path in [evidence_path("models", model.record_id), *list(lake.storage.list("_xops/evidence/pins/"))]:
        lake.storage.delete(path)

    healed = train(client, lake, name, fence=2)

    assert healed == model
    assert lake.evidence.get("models", model.record_id) == model
    assert len(pins(lake, "flights")) == 2


def test_a_killed_attempts_run_is_closed_and_its_half_uploaded_model_deleted(
    client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name()
    actor = an_actor("train", fence=1)
    context = runs.run(client, experiment=name, key=runs.work_key(actor, name), actor=actor)
    zombie = context.__enter__()  # and then the worker dies
    with client.session("beginning an upload") as mlflow:
        mlflow.create_logged_model(zombie.experiment_id, name="model", source_run_id=zombie.run_id)

    train(client, lake, name, fence=2)

    assert {run.info.run_id: run.info.status for run in all_runs(client, name)}[zombie.run_id] == "KILLED"
    assert sorted(run.info.status for run in all_runs(client, name)) == ["FINISHED", "KILLED"]
    with client.session("looking") as mlflow:
        assert [m.source_run_id for m in mlflow.search_logged_models([zombie.experiment_id])] != [
            zombie.run_id
        ]


def test_the_orphan_of_a_killed_worker_does_not_close_its_successors_run(
    client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name()
    newer, older = an_actor("train", fence=2), an_actor("train", fence=1)
    key = runs.work_key(newer, name)
    with (
        runs.run(client, experiment=name, key=key, actor=newer),
        pytest.raises(Superseded),
        runs.run(client, experiment=name, key=key, actor=older),
    ):
        pass


def test_an_attempt_that_asked_before_its_successor_began_gives_way(client: RegistryClient) -> None:
    name = fresh_name()
    newer, older = an_actor("train", fence=2), an_actor("train", fence=1)
    key = runs.work_key(newer, name)
    client.experiment_id(name)
    asked = runs.earlier_attempts(client, experiment=name, key=key)

    with (
        runs.run(client, experiment=name, key=key, actor=newer, earlier=asked) as handle,
        pytest.raises(Superseded),
        runs.run(client, experiment=name, key=key, actor=older, earlier=asked),
    ):
        pass

    assert not asked.begun
    assert handle.first
    assert [run.info.status for run in all_runs(client, name)] == ["FINISHED"]


def test_work_that_raises_leaves_a_failed_run_and_no_version(client: RegistryClient) -> None:
    name, actor = fresh_name(), an_actor()

    with pytest.raises(ZeroDivisionError), runs.run(client, experiment=name, key="k", actor=actor):
        raise ZeroDivisionError

    assert [run.info.status for run in all_runs(client, name)] == ["FAILED"]
    assert versions(client, name) == []


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def test_changed_files_are_refused_before_anything_of_them_runs(
    client: RegistryClient, lake: Lake, tmp_path: Path
) -> None:
    name = fresh_name()
    model = train(client, lake, name, estimator=Doubler())
    trap = tmp_path / "trap"
    changed = tmp_path / "model.pkl"
    changed.write_bytes(pickle.dumps(Trap(str(trap))))
    with client.session("changing a model's file behind our back") as mlflow:
        mlflow.log_model_artifact(model.source_uri.removeprefix("models:/"), str(changed))

    with pytest.raises(ModelError, match=r"model\.digest_mismatch"):
        load_model(client, lake, model)

    assert not trap.exists()


class Doubler:
    """An estimator of nobody's library: it has to be cloudpickle."""

    def predict(self, rows: Any) -> Any:
        return rows["a"] * 2


def test_an_estimator_that_skops_cannot_hold_loads_as_cloudpickle(client: RegistryClient, lake: Lake) -> None:
    model = train(client, lake, fresh_name(), estimator=Doubler())

    assert model.trusted_types == ()
    assert load_model(client, lake, model).predict(frame()[0]).max() <= 2


def test_only_the_types_recorded_as_trusted_are_loaded(client: RegistryClient, lake: Lake) -> None:
    """The list inside the model's own file says more; it is not asked."""
    import dataclasses

    name = fresh_name()
    model = train(client, lake, name)
    lake.storage.delete(evidence_path("models", model.record_id))
    lake.evidence.put(dataclasses.replace(model, trusted_types=()))

    with pytest.raises(ModelError, match=r"model\.untrusted.*sklearn\.tree\._tree\.Tree"):
        load_model(client, lake, model)


def test_a_model_without_evidence_is_not_loaded(client: RegistryClient, lake: Lake) -> None:
    model = train(client, lake, fresh_name())
    lake.storage.delete(evidence_path("models", model.record_id))

    with pytest.raises(ModelError, match=r"model\.unknown"):
        load_model(client, lake, model)


# --- promoting, going back, reconciling ---


def test_promotion_sets_the_alias_and_says_so_in_the_ledger(client: RegistryClient, lake: Lake) -> None:
    model = bare_version(client, lake, fresh_name())

    result = promoted(client, lake, model)

    assert (result.decision.outcome, result.applied, result.reused) == (
        PromotionOutcome.PROMOTED,
        True,
        False,
    )
    assert client.aliases(model.name) == {"champion": 1}
    assert [(e.sequence, str(e.outcome), e.decides) for e in ledger.entries(lake, model.name)] == [
        (1, "promoted", None),
        (2, "applied", 1),
    ]
    assert resolve_model(lake, model.name) == model
    assert resolve_model(lake, model.name, alias="canary") is None
    assert result.decision.entry_hash in client.get_version(model.name, 1).tags["xops.decision"]


def test_promoting_again_with_the_same_key_is_the_same_decision(client: RegistryClient, lake: Lake) -> None:
    model = bare_version(client, lake, fresh_name())

    first, second = promoted(client, lake, model, key="k"), promoted(client, lake, model, key="k")

    assert second.decision == first.decision
    assert second.reused
    assert len(ledger.entries(lake, model.name)) == 2


def test_the_second_of_two_promoters_with_one_expected_champion_is_held(
    client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name()
    champion, one, two = (bare_version(client, lake, name) for _ in range(3))
    promoted(client, lake, champion)

    results = [promoted(client, lake, one, champion), promoted(client, lake, two, champion)]
    again = promoted(client, lake, two, champion)

    assert [str(result.decision.outcome) for result in results] == ["promoted", "held"]
    assert results[1].decision.reason.startswith("superseded")
    assert again.decision == results[1].decision
    assert client.aliases(name) == {"champion": one.version}


def test_mlflow_gone_between_decision_and_alias_is_finished_by_the_retry(
    client: RegistryClient, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bare_version(client, lake, fresh_name())

    def gone(*_: Any, **__: Any) -> None:
        raise UnavailableError("MLflow is down", code="unavailable.mlflow")

    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_xops.registry.apply._set_alias", gone)
        with pytest.raises(UnavailableError):
            promoted(client, lake, model, key="k")
    assert client.aliases(model.name) == {}

    result = promoted(client, lake, model, key="k")

    assert (result.applied, result.reused) == (True, True)
    assert client.aliases(model.name) == {"champion": 1}


def test_reconcile_applies_what_was_decided_and_never_applied(
    client: RegistryClient, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bare_version(client, lake, fresh_name())
    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_xops.registry.promote.apply_decision", lambda *_, **__: False)
        promoted(client, lake, model)

    def found(**changes: Any) -> list[str]:
        return [
            str(finding.status)
            for finding in reconcile(
                lake, client, model_name=model.name, actor=an_actor(), as_of=AS_OF, **changes
            )
        ]

    assert found(dry_run=True) == ["unapplied"]
    assert client.aliases(model.name) == {}
    assert found() == ["applied"]
    assert client.aliases(model.name) == {"champion": 1}
    assert found() == ["consistent"]


def test_an_alias_moved_by_hand_is_an_incident_and_stays_where_it_is(
    client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name()
    champion, other, third = (bare_version(client, lake, name) for _ in range(3))
    promoted(client, lake, champion)
    set_alias(client, name, other.version)

    findings = [reconcile(lake, client, model_name=name, actor=an_actor(), as_of=AS_OF)[0] for _ in range(2)]
    held = promoted(client, lake, third, champion)

    assert [str(finding.status) for finding in findings] == ["ledger_mismatch"] * 2
    incidents = [record for record in lake.evidence.all(Incident.kind) if isinstance(record, Incident)]
    assert [incident.record_id for incident in incidents] == [findings[0].incident.record_id]
    assert client.aliases(name) == {"champion": other.version}
    assert str(held.decision.outcome) == "held"
    assert held.decision.reason.startswith("ledger mismatch")

    accepted = rollback(
        lake,
        client,
        model_name=name,
        to_version=other.version,
        reason="it was an emergency",
        verify=False,
        actor=an_actor("r"),
        as_of=AS_OF,
    )
    assert (accepted.from_version, accepted.to_version, accepted.applied) == (1, 2, True)
    assert (
        str(reconcile(lake, client, model_name=name, actor=an_actor(), as_of=AS_OF)[0].status) == "consistent"
    )


def test_a_deleted_champion_is_an_incident_and_can_be_rolled_back_from(
    client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name()
    first, second = (bare_version(client, lake, name) for _ in range(2))
    promoted(client, lake, first)
    promoted(client, lake, second, first)
    with client.session("deleting the champion") as mlflow:
        mlflow.delete_model_version(name, "2")

    finding = reconcile(lake, client, model_name=name, actor=an_actor(), as_of=AS_OF)[0]
    result = rollback(
        lake, client, model_name=name, reason="deleted", verify=False, actor=an_actor("r"), as_of=AS_OF
    )

    assert str(finding.status) == "champion_deleted"
    assert result.to_version == 1
    assert client.aliases(name) == {"champion": 1}


def test_a_re_created_model_is_not_taken_for_its_namesake(client: RegistryClient, lake: Lake) -> None:
    name = fresh_name()
    model = bare_version(client, lake, name)
    promoted(client, lake, model)
    with client.session("deleting the model") as mlflow:
        mlflow.delete_registered_model(name)
    namesake = bare_version(client, lake, name)

    finding = reconcile(lake, client, model_name=name, actor=an_actor(), as_of=AS_OF)[0]

    assert namesake.version == model.version
    assert str(finding.status) == "model_recreated"
    with pytest.raises(RegistryError, match=r"registry\.model_recreated"):
        promoted(client, lake, model, key="again")


def test_rollback_goes_back_blocks_the_version_and_release_unblocks_it(
    client: RegistryClient, lake: Lake
) -> None:
    name = fresh_name()
    first, second = (bare_version(client, lake, name) for _ in range(2))
    promoted(client, lake, first)
    promoted(client, lake, second, first)

    def back(**changes: Any) -> Any:
        return rollback(
            lake,
            client,
            model_name=name,
            reason="worse on Mondays",
            verify=False,
            actor=an_actor("r"),
            as_of=AS_OF,
            **changes,
        )

    planned = back(dry_run=True)
    assert (planned.decision, planned.from_version, planned.to_version) == (None, 2, 1)
    assert client.aliases(name) == {"champion": 2}

    done, again = back(), back()
    assert (done.to_version, done.applied, done.reused) == (1, True, False)
    assert (again.decision, again.reused) == (done.decision, True)
    assert client.aliases(name) == {"champion": 1}

    held = promoted(client, lake, second, first, key="too early")
    assert held.decision.reason.startswith("blocked")
    with pytest.raises(RegistryError, match=r"registry\.blocked"):
        rollback(lake, client, model_name=name, to_version=2, reason="no", actor=an_actor("r2"), as_of=AS_OF)
    with pytest.raises(RegistryError, match=r"registry\.nothing_to_roll_back_to"):
        rollback(lake, client, model_name=name, reason="further", actor=an_actor("r3"), as_of=AS_OF)

    release(
        lake, model_name=name, version=2, reason="the data were wrong", actor=an_actor("free"), as_of=AS_OF
    )
    assert promoted(client, lake, second, first, key="later").applied
    assert ledger.verify_chain(lake, name) == []


def test_rollback_does_not_go_where_the_alias_never_was(client: RegistryClient, lake: Lake) -> None:
    name = fresh_name()
    first = bare_version(client, lake, name)
    bare_version(client, lake, name)
    promoted(client, lake, first)

    with pytest.raises(RegistryError, match=r"registry\.never_champion"):
        rollback(lake, client, model_name=name, to_version=2, reason="try", actor=an_actor("r"), as_of=AS_OF)


def test_names_that_do_not_exist_are_typed_errors_and_leave_nothing(
    client: RegistryClient, lake: Lake
) -> None:
    from tests.unit.registry.builders import a_model

    name = fresh_name("nobody")
    with pytest.raises(NotFoundError, match=r"not_found\.model_version"):
        promoted(client, lake, a_model(name=name))
    with pytest.raises(RegistryError, match=r"registry\.no_champion"):
        rollback(lake, client, model_name=name, reason="why not", actor=an_actor(), as_of=AS_OF)
    with pytest.raises(NotFoundError, match=r"not_found\.model_record"):
        get_model(lake, name, 1)

    assert ledger.entries(lake) == []


def test_a_promotion_is_two_lake_commits_and_at_most_six_calls(
    client: RegistryClient, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.utils.rest_utils as rest

    name = fresh_name()
    first, second = (bare_version(client, lake, name) for _ in range(2))
    promoted(client, lake, first)
    calls: list[str] = []
    original = rest._get_http_response_with_retries

    def counted(method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(f"{method} {url}")
        return original(method, url, *args, **kwargs)

    monkeypatch.setattr(rest, "_get_http_response_with_retries", counted)
    before = len(ledger.entries(lake, name))

    promoted(client, lake, second, first)

    assert len(ledger.entries(lake, name)) - before == 2
    assert 0 < len(calls) <= 6, calls


# --- adopting ---


def test_a_version_that_mlflow_has_is_adopted_without_retraining(client: RegistryClient, lake: Lake) -> None:
    import mlflow.sklearn

    name = fresh_name("adopted")
    with client.session("logging a model without us") as _:
        import mlflow

        with mlflow.start_run() as run:
            mlflow.log_metric("auc", 0.8)
            mlflow.sklearn.log_model(
                fitted(),
                name="model",
                registered_model_name=name,
                input_example=frame(3)[0],
                pip_requirements=[],
                skops_trusted_types=["sklearn.tree._tree.Tree"],
            )
    set_alias(client, name, 1)

    model = adopt_model(
        lake, client, name=name, version=1, alias="champion", target="y", actor=an_actor(), as_of=AS_OF
    )
    again = adopt_model(lake, client, name=name, run_id=run.info.run_id, actor=an_actor("other"), as_of=AS_OF)

    assert (model.origin, model.features, model.metrics) == ("adopted", FEATURES, {"auc": 0.8})
    assert again == model
    assert versions(client, name) == [1]
    assert load_model(client, lake, model).predict(frame()[0]).shape == (60,)
    assert [str(entry.outcome) for entry in ledger.entries(lake, name)] == ["promoted", "applied"]
    assert (
        str(reconcile(lake, client, model_name=name, actor=an_actor(), as_of=AS_OF)[0].status) == "consistent"
    )


def test_adopting_asks_for_a_version_or_a_run(client: RegistryClient, lake: Lake) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.adopt"):
        adopt_model(lake, client, name="m", actor=an_actor(), as_of=AS_OF)
    with pytest.raises(NotFoundError, match=r"not_found\.run"):
        adopt_model(lake, client, name="m", run_id="0" * 32, actor=an_actor(), as_of=AS_OF)


@pytest.fixture
def outside(client: RegistryClient, lake: Lake, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What a training that ran elsewhere hands back: a committed dataset version, and files in a folder."""

    def hand_back(**changes: Any) -> dict[str, Any]:
        table = pa.table({"a": [1.0, 2.0, 3.0], "y": [0, 1, 0]})
        segment = Segment(partition="2013-01", fingerprint="f", data=table.to_reader)
        version = commit(lake, "flights", [segment], actor=an_actor(), as_of=AS_OF).record
        saved = models.save_model(fitted(), tmp_path / "made elsewhere", facts=facts_for(lake))
        return {
            "model": fresh_name("outside"),
            "artifact_uri": str(saved.path),
            "artifact_digest": saved.digest,
            "dataset": {"table": "flights", "version": version.version, "digest": version.digest},
            "training": {"partitions": ["2013-01"], "rows": 3, "digest": "d"},
            "features": ["a"],
            "target": "y",
            "task": "classification",
            "estimator": "spark",
            "code_version": "git:2",
            "params": {"depth": 3},
            "metrics": {"roc_auc": 0.7, "nothing": None},
        } | changes

    return hand_back


def test_a_training_that_ran_elsewhere_is_recorded_once_and_gated_like_any_other(
    client: RegistryClient, lake: Lake, outside: Callable[..., dict[str, Any]]
) -> None:
    import jsonschema

    payload = outside()
    jsonschema.validate(payload, TRAINING_SCHEMA)

    model = record_training(lake, client, payload, actor=an_actor("pod"), as_of=AS_OF)
    again = record_training(lake, client, payload, actor=an_actor("pod", fence=2), as_of=AS_OF)

    assert again == model
    assert (model.origin, model.version, model.metrics) == ("external", 1, {"roc_auc": 0.7})
    assert load_model(client, lake, model).predict(frame()[0]).shape == (60,)
    assert {str(pin.dataset) for pin in pins(lake, "flights")} == {str(model.training.dataset)}
    leaking = a_recorded_evaluation(lake, model, on=model.training)
    held = promote(
        lake, client, model=model, expected=None, evaluation=leaking, actor=an_actor("p"), as_of=AS_OF
    )
    assert held.decision.reason.startswith("leak")


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"artifact_digest": "0" * 64}, ModelError, "model.digest_mismatch"),
        (
            {"training": {"partitions": ["2013-01"], "rows": 4, "digest": "d"}},
            DataError,
            "data.selection_rows",
        ),
        (
            {"training": {"partitions": ["2013-09"], "rows": 1, "digest": "d"}},
            NotFoundError,
            "not_found.partition",
        ),
        (
            {"training": {"partitions": ["2013-01"], "rows": 0, "digest": "d"}},
            ArgumentError,
            "argument.training_record",
        ),
        ({"version": 1}, ArgumentError, "argument.training_record"),
        ({"features": 7}, ArgumentError, "argument.training_record"),
    ],
)
def test_a_training_that_does_not_say_the_truth_leaves_nothing(
    client: RegistryClient,
    lake: Lake,
    outside: Callable[..., dict[str, Any]],
    change: dict[str, Any],
    error: type,
    code: str,
) -> None:
    payload = outside(**change)

    with pytest.raises(error) as caught:
        record_training(lake, client, payload, actor=an_actor("pod"), as_of=AS_OF)

    assert caught.value.code == code
    assert versions(client, payload["model"]) == []
    assert list(lake.evidence.all(ModelVersion.kind)) == []


def test_a_training_on_another_version_of_the_data_is_refused(
    client: RegistryClient, lake: Lake, outside: Callable[..., dict[str, Any]]
) -> None:
    payload = outside()
    payload["dataset"]["digest"] = "0" * 64

    with pytest.raises(DataError, match=r"data\.digest_mismatch"):
        record_training(lake, client, payload, actor=an_actor("pod"), as_of=AS_OF)


def test_a_server_that_stops_answering_leaves_the_ledger_as_it_was(
    lake: Lake, client: RegistryClient
) -> None:
    model = bare_version(client, lake, fresh_name())
    nowhere = RegistryClient(MlflowSettings("http://127.0.0.1:1", timeout_s=1, max_retries=0))

    with pytest.raises(UnavailableError):
        promoted(nowhere, lake, model)

    assert ledger.entries(lake) == []
