"""The SageMaker target: against moto as it is, and against moto taught what AWS does on an update."""

from __future__ import annotations

import tarfile
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import ModelError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Deployment, ModelVersion, Outcome
from airflow_provider_xops.registry.artifacts import artifact_digest
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.rollback import rollback
from airflow_provider_xops.serving.targets._sagemaker_aws import Clients, plain_clients
from airflow_provider_xops.serving.targets._sagemaker_parts import Names, variant_of
from airflow_provider_xops.serving.targets.golden import GoldenRows, ask_golden
from airflow_provider_xops.serving.targets.rollout import Patience
from airflow_provider_xops.serving.targets.sagemaker import SageMakerBackend, SageMakerSettings
from tests import servers
from tests.integration import target_steps as steps
from tests.integration.rollout_world import World
from tests.integration.sagemaker_moto import BUCKET, REGION, Control, moto_server, taught
from tests.unit.serving.targets.builders import a_deployment

ENDPOINT = "late-arrival"
PATIENT = Patience(load_s=30, settle_s=30, requests_s=5, poll_s=0.01)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return steps.lake_with_rows(str(tmp_path_factory.mktemp("sagemaker") / "lake"))


@pytest.fixture(scope="module")
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings(timeout_s=120, max_retries=3))


@pytest.fixture(scope="module")
def versions(lake: Lake, client: RegistryClient) -> list[ModelVersion]:
    """Three versions of one model; the second answers other words."""
    name = f"late {uuid.uuid4().hex[:8]}"
    changes: list[dict[str, Any]] = [{}, {"target": "late"}, {"params": {"depth": 3}}]
    return [steps.a_version(lake, client, name, **change) for change in changes]


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with moto_server(monkeypatch) as found:
        yield found


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch, url: str) -> Control:
    return taught(monkeypatch, url)


@pytest.fixture
def clients(url: str) -> Clients:
    return plain_clients(REGION, endpoint_url=url)


@pytest.fixture
def target(lake: Lake, client: RegistryClient, clients: Clients) -> Callable[..., SageMakerBackend]:
    """A maker of targets, as each new process makes one."""

    def make(**changes: Any) -> SageMakerBackend:
        settings = SageMakerSettings(
            **{
                "endpoint": ENDPOINT,
                "image_uri": "images/mlflow-pyfunc:3",
                "role_arn": "arn:aws:iam::123456789012:role/serving",
                "model_data": f"s3://{BUCKET}/xops",
                **changes,
            }
        )
        return SageMakerBackend(lake, client, settings=settings, clients=clients)

    return make


def deployment(model: ModelVersion, previous: ModelVersion | None = None, **changes: Any) -> Deployment:
    before = previous.ref if previous is not None else None
    endpoint = f"{REGION}/{ENDPOINT}"
    return a_deployment(model, target="sagemaker", endpoint=endpoint, previous=before, **changes)


def until(look: Callable[[], Any]) -> Any:
    """Look until it is ready or never will be."""
    for _ in range(50):
        found = look()
        if found.ready or found.failed:
            return found
    raise AssertionError(f"never: {found}")


def patiently(act: Callable[[], Any]) -> None:
    """Do it again while the endpoint is being changed, as a rollout does."""
    for _ in range(50):
        try:
            act()
        except UnavailableError as error:
            if error.code != "unavailable.endpoint_busy":
                raise
        else:
            return
    raise AssertionError("busy for ever")


def bring(backend: SageMakerBackend, work: Deployment, model: ModelVersion, *, keep: bool = True) -> None:
    """What a rollout does at the target, in one step."""
    patiently(lambda: backend.prepare(work, model))
    assert until(lambda: backend.ready(work, model)).ready
    patiently(lambda: backend.shift(work, model, 1.0))
    assert until(lambda: backend.settled(work, model, 1.0)).ready
    patiently(lambda: backend.finish(work, model, keep_previous=keep))
    until(lambda: backend.settled(work, model, 1.0))
    patiently(lambda: backend.finish(work, model, keep_previous=keep))


def left(clients: Clients) -> tuple[int, int]:
    """How many endpoint configurations and models there are."""
    configs = clients.sagemaker.list_endpoint_configs()["EndpointConfigs"]
    return len(configs), len(clients.sagemaker.list_models()["Models"])


# moto as it is.


def test_the_first_version_gets_an_endpoint_of_its_own_whose_files_are_the_proved_ones(
    target: Callable[..., SageMakerBackend], clients: Clients, versions: list[ModelVersion], tmp_path: Path
) -> None:
    one, work = versions[0], deployment(versions[0])
    for _ in range(3):
        target().prepare(work, one)
    assert left(clients) == (1, 1)
    assert target().ready(work, one).ready
    assert target().serving(one.name, "champion") == {1: 1.0}
    (model,) = clients.sagemaker.list_models()["Models"]
    container = clients.sagemaker.describe_model(ModelName=model["ModelName"])["PrimaryContainer"]
    assert container["Environment"]["MLFLOW_DEPLOYMENT_FLAVOR_NAME"] == "python_function"
    key = container["ModelDataUrl"].removeprefix(f"s3://{BUCKET}/")
    content = clients.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    with tarfile.open(fileobj=BytesIO(content)) as archive:
        archive.extractall(tmp_path, filter="data")
    assert artifact_digest(tmp_path) == one.artifact_digest
    target().abort(work, one)
    target().abort(work, one)
    assert left(clients) == (0, 0)
    assert target().serving(one.name, "champion") == {}


def test_files_that_somebody_exchanged_in_s3_are_sent_again(
    target: Callable[..., SageMakerBackend], clients: Clients, versions: list[ModelVersion]
) -> None:
    one, work = versions[0], deployment(versions[0])
    key = f"xops/{one.artifact_digest[:32]}/model.tar.gz"
    clients.s3.put_object(Bucket=BUCKET, Key=key, Body=b"another model")
    sent: list[str] = []
    clients.s3.meta.events.register("before-call.s3.PutObject", lambda model, **_: sent.append(model.name))
    target().prepare(work, one)
    assert clients.s3.head_object(Bucket=BUCKET, Key=key)["ContentLength"] > 1000
    assert len(sent) == 1
    target().abort(work, one)
    target().prepare(work, one)
    assert len(sent) == 1


def test_weights_are_shares_of_the_requests(
    target: Callable[..., SageMakerBackend], clients: Clients, versions: list[ModelVersion]
) -> None:
    one, two = versions[:2]
    backend, work = target(), deployment(two, one)
    backend.prepare(deployment(one, key="one"), one)
    config = clients.sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointConfigName"]
    (first,) = clients.sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    both = Names(ENDPOINT).config(work, "both")
    # What an update to both would have left; moto cannot update.
    clients.sagemaker.delete_endpoint(EndpointName=ENDPOINT)
    second = first | {"VariantName": variant_of(two), "InitialVariantWeight": 0.0}
    clients.sagemaker.create_endpoint_config(EndpointConfigName=both, ProductionVariants=[first, second])
    clients.sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=both)
    assert backend.ready(work, two).ready
    assert backend.serving(two.name, "champion") == {1: 1.0}
    for weight in (0.25, 1.0):
        backend.shift(work, two, weight)
        assert backend.settled(work, two, weight).ready
        shares = backend.serving(two.name, "champion")
        assert shares == ({1: 0.75, 2: 0.25} if weight < 1 else {2: 1.0})


def test_what_moto_cannot_do_is_an_error_that_may_be_tried_again(
    target: Callable[..., SageMakerBackend], versions: list[ModelVersion]
) -> None:
    backend = target()
    backend.prepare(deployment(versions[0], key="one"), versions[0])
    with pytest.raises(UnavailableError) as failed:
        backend.prepare(deployment(versions[1], versions[0]), versions[1])
    assert failed.value.code == "unavailable.aws"
    assert backend.serving(versions[0].name, "champion") == {1: 1.0}


# moto taught.


def test_a_rollout_in_steps_and_back_again(
    lake: Lake, client: RegistryClient, target: Callable[..., SageMakerBackend], clients: Clients,
    control: Control, versions: list[ModelVersion],
) -> None:  # fmt: skip
    world = World(lake, client, versions[0].name, versions)
    first = world.deploy(target(), 1, key="one", steps=(1.0,), patience=PATIENT)
    assert (first.outcome, first.served) == (Outcome.PASSED, {1: 3})
    second = world.deploy(target(), 2, key="two", steps=(0.2, 1.0), patience=PATIENT)
    assert (second.outcome, second.served) == (Outcome.PASSED, {2: 3})
    assert world.outcomes() == [("promoted", 1), ("promoted", 2)]
    assert target().serving(world.name, "champion") == {2: 1.0}
    assert left(clients) == (1, 2)
    # The version kept beside needs no update of the endpoint to come back.
    control.asked.clear()
    back = rollback(
        lake, client, model_name=world.name, reason="a test", actor=world.actor("back"),
        as_of=steps.AS_OF + timedelta(days=1000),
    )  # fmt: skip
    third = world.deploy(
        target(), 1, key="three", steps=(1.0,), patience=PATIENT, decide=lambda: back.decision
    )
    assert (third.outcome, third.served) == (Outcome.PASSED, {1: 3})
    assert control.asked == ["update_endpoint_weights_and_capacities"]


def test_the_previous_version_is_removed_with_all_that_was_made_for_it(
    target: Callable[..., SageMakerBackend], clients: Clients, control: Control, versions: list[ModelVersion]
) -> None:
    one, two, three = versions
    bring(target(), deployment(one, key="1"), one)
    bring(target(), deployment(two, one, key="2"), two, keep=False)
    assert (target().serving(two.name, "champion"), left(clients)) == ({2: 1.0}, (1, 1))
    bring(target(), deployment(three, two, key="3"), three, keep=True)
    assert (target().serving(two.name, "champion"), left(clients)) == ({3: 1.0}, (1, 2))


def test_golden_requests_reach_a_version_that_no_caller_reaches(
    lake: Lake, target: Callable[..., SageMakerBackend], control: Control, versions: list[ModelVersion]
) -> None:
    one, two = versions[:2]
    backend, work = target(), deployment(two, one)
    bring(backend, deployment(one, key="1"), one)
    patiently(lambda: backend.prepare(work, two))
    assert until(lambda: backend.ready(work, two)).ready
    for model in (one, two):
        rows = GoldenRows.of(lake, model)
        judged = ask_golden(backend, rows, model, alias="champion", version=model.version, tolerance=1e-9)
        assert (judged.outcome, judged.served) == (Outcome.PASSED, {model.version: 1})
    frame = GoldenRows.of(lake, two).frame
    for _ in range(5):
        (answer,) = backend.ask(two, frame, alias="champion", version=None)
        assert answer.version == 1
    (refused,) = backend.ask(two, frame.iloc[:, :1], alias="champion", version=2)
    assert (refused.status, refused.predictions) == (400, None)


@pytest.mark.parametrize("status", ["InService", "Failed", "UpdateRollbackFailed"])
def test_after_an_update_that_failed_the_old_configuration_serves(
    target: Callable[..., SageMakerBackend], clients: Clients, control: Control,
    versions: list[ModelVersion], status: str,
) -> None:  # fmt: skip
    one, two = versions[:2]
    bring(target(), deployment(one, key="1"), one)
    before = clients.sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointConfigName"]
    work = deployment(two, one)
    control.fails = (status, "The container did not pass the ping health check.")
    patiently(lambda: target().prepare(work, two))
    found = until(lambda: target().ready(work, two))
    assert found.failed
    assert "ping health check" in found.reason
    patiently(lambda: target().abort(work, two))
    for _ in range(5):
        now = clients.sagemaker.describe_endpoint(EndpointName=ENDPOINT)
    assert (now["EndpointStatus"], now["EndpointConfigName"]) == ("InService", before)
    assert target().serving(one.name, "champion") == {1: 1.0}
    patiently(lambda: target().abort(work, two))
    assert left(clients) == (1, 1)


def test_an_aborted_shift_takes_the_weights_back_before_it_updates_anything(
    target: Callable[..., SageMakerBackend], clients: Clients, control: Control, versions: list[ModelVersion]
) -> None:
    one, two = versions[:2]
    bring(target(), deployment(one, key="1"), one)
    work = deployment(two, one)
    patiently(lambda: target().prepare(work, two))
    assert until(lambda: target().ready(work, two)).ready
    patiently(lambda: target().shift(work, two, 0.5))
    assert until(lambda: target().settled(work, two, 0.5)).ready
    assert target().serving(one.name, "champion") == {1: 0.5, 2: 0.5}
    control.asked.clear()
    patiently(lambda: target().abort(work, two))
    assert control.asked[0] == "update_endpoint_weights_and_capacities"
    assert "update_endpoint" in control.asked[1:]
    for _ in range(5):
        clients.sagemaker.describe_endpoint(EndpointName=ENDPOINT)
    patiently(lambda: target().abort(work, two))
    assert (target().serving(one.name, "champion"), left(clients)) == ({1: 1.0}, (1, 1))


def test_a_shadow_answers_nobody_and_is_asked_its_golden_rows_before(
    lake: Lake, client: RegistryClient, target: Callable[..., SageMakerBackend], clients: Clients,
    control: Control, versions: list[ModelVersion],
) -> None:  # fmt: skip
    one, two = versions[:2]
    bring(target(), deployment(one, key="1"), one)
    work = deployment(two, one, settings={"role": "shadow"})
    patiently(lambda: target().prepare(work, two))
    assert until(lambda: target().ready(work, two)).ready
    rows = GoldenRows.of(lake, two)
    asked = ask_golden(target(), rows, two, alias="champion", version=2, tolerance=1e-9)
    assert asked.outcome is Outcome.PASSED
    patiently(lambda: target().shift(work, two, 0.5))
    assert until(lambda: target().settled(work, two, 0.5)).ready
    now = clients.sagemaker.describe_endpoint(EndpointName=ENDPOINT)
    (shadow,) = now["ShadowProductionVariants"]
    assert (shadow["VariantName"], shadow["CurrentWeight"]) == (variant_of(two), 0.5)
    assert target().serving(one.name, "champion") == {1: 1.0}
    assert target().ask(two, rows.frame, alias="champion", version=2) == ()
    patiently(lambda: target().abort(work, two))
    for _ in range(5):
        now = clients.sagemaker.describe_endpoint(EndpointName=ENDPOINT)
    assert now["ShadowProductionVariants"] == []


class Killed(BaseException):
    """The process that deploys was killed."""


@pytest.mark.parametrize("after", [False, True], ids=["before it was done", "after it was done"])
def test_killed_at_any_change_the_second_run_ends_as_if_nothing_had_been(
    target: Callable[..., SageMakerBackend], clients: Clients, control: Control,
    versions: list[ModelVersion], after: bool,
) -> None:  # fmt: skip
    one, two = versions[:2]
    control.looks = 0
    counted = {"made": 0, "at": 0}
    changes = ("create", "update", "delete", "put", "add")

    def hook(model: Any, **_: Any) -> None:
        if model.name.lower().startswith(changes):
            counted["made"] += 1
            if counted["made"] == counted["at"]:
                raise Killed

    for service in (clients.sagemaker, clients.s3):
        service.meta.events.register("after-call" if after else "before-call", hook)
    for number in range(1, 100):
        counted.update(made=0, at=0)
        bring(target(), deployment(one, key="1"), one)
        counted.update(made=0, at=number)
        work = deployment(two, one)
        try:
            bring(target(), work, two, keep=False)
        except Killed:
            counted["at"] = 0
            assert set(target().serving(one.name, "champion")) <= {1, 2}
            bring(target(), work, two, keep=False)
        assert (target().serving(one.name, "champion"), left(clients)) == ({2: 1.0}, (1, 1))
        ended = counted["made"] < number
        counted.update(made=0, at=0)
        clients.sagemaker.delete_endpoint(EndpointName=ENDPOINT)
        for bucket_key in clients.s3.list_objects_v2(Bucket=BUCKET)["Contents"]:
            clients.s3.delete_object(Bucket=BUCKET, Key=bucket_key["Key"])
        if ended:
            break
    assert number > 8


def test_other_files_than_the_recorded_ones_are_not_sent(
    target: Callable[..., SageMakerBackend], clients: Clients, control: Control, lake: Lake,
    client: RegistryClient, versions: list[ModelVersion], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from airflow_provider_xops.serving.targets import _sagemaker_parts as parts

    plain = parts.download

    def download(registry: RegistryClient, uri: str, into: Path) -> Path:
        found = plain(registry, uri, into)
        (found / "MLmodel").write_text("flavors: {}")
        return found

    monkeypatch.setattr(parts, "download", download)
    with pytest.raises(ModelError) as refused:
        target().prepare(deployment(versions[0]), versions[0])
    assert refused.value.code == "model.digest_mismatch"
    assert "Contents" not in clients.s3.list_objects_v2(Bucket=BUCKET)
    assert left(clients) == (0, 0)


def kept_and_serving(
    target: Callable[..., SageMakerBackend], versions: list[ModelVersion]
) -> tuple[ModelVersion, ModelVersion]:
    """The first version is kept beside the second, which serves."""
    one, two = versions[:2]
    bring(target(), deployment(one, key="1"), one)
    bring(target(), deployment(two, one, key="2"), two)
    assert target().serving(one.name, "champion") == {2: 1.0}
    return one, two


def test_going_back_while_a_share_is_on_its_way_takes_it_back(
    target: Callable[..., SageMakerBackend], control: Control, versions: list[ModelVersion]
) -> None:
    one, two = kept_and_serving(target, versions)
    control.looks = 3
    work = deployment(one, two, key="3")
    patiently(lambda: target().prepare(work, one))
    patiently(lambda: target().shift(work, one, 0.5))

    # The task is killed at this moment: SageMaker has not given the share yet.
    with pytest.raises(UnavailableError) as busy:
        target().abort(work, one)
    assert busy.value.code == "unavailable.endpoint_busy"
    patiently(lambda: target().abort(work, one))

    control.looks = 0
    until(lambda: target().settled(work, one, 0.0))
    assert target().serving(one.name, "champion") == {2: 1.0}


def test_a_version_that_was_kept_takes_its_share_from_what_answers_whatever_the_ledger_says(
    target: Callable[..., SageMakerBackend], control: Control, versions: list[ModelVersion]
) -> None:
    one, two = kept_and_serving(target, versions)
    # The ledger's champion was promoted, and never deployed here.
    work = deployment(one, versions[2], key="3")
    patiently(lambda: target().prepare(work, one))
    for share in (0.25, 1.0):
        patiently(lambda share=share: target().shift(work, one, share))
        assert until(lambda share=share: target().settled(work, one, share)).ready
        rest = {2: 1 - share} if share < 1 else {}
        assert target().serving(one.name, "champion") == {1: share, **rest}

    patiently(lambda: target().abort(work, one))

    until(lambda: target().settled(work, one, 0.0))
    assert target().serving(two.name, "champion") == {2: 1.0}


def test_an_endpoint_that_is_still_being_made_is_not_left_running(
    target: Callable[..., SageMakerBackend], clients: Clients, control: Control, versions: list[ModelVersion]
) -> None:
    control.looks = 1000
    work = deployment(versions[0])
    target().prepare(work, versions[0])
    assert clients.sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointStatus"] == "Creating"

    target().abort(work, versions[0])

    assert clients.sagemaker.list_endpoints()["Endpoints"] == []
    target().abort(work, versions[0])
    assert left(clients) == (0, 0)


@pytest.mark.parametrize("lost", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"])
def test_a_request_whose_answer_was_lost_is_not_taken_for_a_refusal(
    target: Callable[..., SageMakerBackend], clients: Clients, control: Control,
    versions: list[ModelVersion], lost: str,
) -> None:  # fmt: skip
    failed: list[str] = []

    def lose(http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        # boto3 sends it again by itself, and is told that there is one already.
        if model.name == lost and not failed:
            failed.append(lost)
            parsed["Error"] = {"Code": "ValidationException", "Message": "Cannot create already existing."}
            http_response.status_code = 400

    clients.sagemaker.meta.events.register("after-call", lose)
    target().prepare(deployment(versions[0]), versions[0])

    assert failed == [lost]
    assert until(lambda: target().ready(deployment(versions[0]), versions[0])).ready
    assert left(clients) == (1, 1)
