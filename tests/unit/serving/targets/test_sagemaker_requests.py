"""What is asked of AWS, in order, and what is made of its answers: botocore's Stubber checks each request
against AWS's own description of the service."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pandas as pd
import pytest
from botocore.config import Config
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber

from airflow_provider_xops.errors import NotFoundError, RegistryError, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.serving.targets import sagemaker as module
from airflow_provider_xops.serving.targets._sagemaker_aws import SERVICES, Clients, SageMaker
from airflow_provider_xops.serving.targets._sagemaker_parts import Names, SageMakerSettings, variant_of
from airflow_provider_xops.serving.targets.sagemaker import SageMakerBackend
from tests.unit.registry.builders import a_model
from tests.unit.serving.targets.builders import a_deployment

NOW = datetime(2026, 1, 15, 12, 0, 30, tzinfo=UTC)
ENDPOINT = "late-arrival"
SETTINGS = SageMakerSettings(
    endpoint=ENDPOINT,
    image_uri="images/mlflow-pyfunc:3",
    role_arn="arn:aws:iam::123456789012:role/serving",
    model_data="s3://models/xops",
    instance_type="ml.c5.xlarge",
    tags={"team": "flights"},
)
ARN = "arn:aws:sagemaker:eu-central-1:123456789012"
ONE, TWO = a_model(1), a_model(2)
WORK = a_deployment(TWO, target="sagemaker", endpoint=f"eu-central-1/{ENDPOINT}", previous=ONE.ref)
NAMES = Names(ENDPOINT)
BOTH, ALONE = NAMES.config(WORK, "both"), NAMES.config(WORK, "alone")
MODEL = NAMES.model(TWO, SETTINGS)
OLD = {
    "VariantName": variant_of(ONE), "ModelName": "theirs", "InitialInstanceCount": 1,
    "InstanceType": "ml.m5.large", "InitialVariantWeight": 1.0,
}  # fmt: skip
CAPTURE = {
    "EnableCapture": True, "InitialSamplingPercentage": 5, "DestinationS3Uri": "s3://capture",
    "CaptureOptions": [{"CaptureMode": "Input"}],
}  # fmt: skip
NEW = {
    "VariantName": variant_of(TWO), "ModelName": MODEL, "InitialVariantWeight": 0.0,
    "InstanceType": "ml.c5.xlarge", "InitialInstanceCount": 1,
}  # fmt: skip
CALLED = {"EndpointName": ENDPOINT}


class Aws:
    """Stubbed clients: what is expected next, in order."""

    def __init__(self) -> None:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        config = Config(retries={"mode": "standard", "max_attempts": 1})
        self.clients = Clients.made_by(
            lambda service: boto3.client(service, region_name="eu-central-1", config=config, **keys)
        )
        made = [getattr(self.clients, name) for name in ("sagemaker", "runtime", "s3", "cloudwatch")]
        self.stubs = dict(zip(SERVICES, (Stubber(client) for client in made), strict=True))

    def expect(
        self, operation: str, answer: dict[str, Any], *, service: str = "sagemaker", **asked: Any
    ) -> None:
        self.stubs[service].add_response(operation, answer, asked)

    def refuse(self, operation: str, code: str, text: str = "", *, status: int = 400, **asked: Any) -> None:
        service = asked.pop("service", "sagemaker")
        more = asked.pop("fields", {})
        self.stubs[service].add_client_error(
            operation, service_error_code=code, service_message=text, http_status_code=status,
            response_meta=None, expected_params=asked or None, modeled_fields=more or None,
        )  # fmt: skip

    def describe(self, status: str, config: str, weights: dict[str, float], **more: Any) -> None:
        """The endpoint is looked at."""
        variants = [
            {"VariantName": name, "CurrentWeight": weight, "DesiredWeight": weight,
             "CurrentInstanceCount": 2, "DesiredInstanceCount": 2}
            for name, weight in weights.items()
        ]  # fmt: skip
        self.expect("describe_endpoint", {
            "EndpointName": ENDPOINT, "EndpointArn": f"{ARN}:endpoint/x", "EndpointConfigName": config,
            "EndpointStatus": status, "ProductionVariants": variants, "CreationTime": NOW,
            "LastModifiedTime": NOW, **more,
        }, **CALLED)  # fmt: skip

    def config(self, name: str, variants: list[dict[str, Any]], **more: Any) -> None:
        """A configuration is looked at."""
        self.expect("describe_endpoint_config", {
            "EndpointConfigName": name, "EndpointConfigArn": f"{ARN}:endpoint-config/{name}",
            "ProductionVariants": variants, "CreationTime": NOW, **more,
        }, EndpointConfigName=name)  # fmt: skip

    def missing(self, operation: str, **asked: Any) -> None:
        self.refuse(operation, "ValidationException", 'Could not find what was asked for "arn:..."', **asked)

    def found(self, operation: str, kind: str, names: list[str], key: str, contains: str) -> None:
        made = [
            {key: name, key.replace("Name", "Arn"): f"{ARN}:x/{name}", "CreationTime": NOW} for name in names
        ]
        self.expect(operation, {kind: made}, NameContains=contains)


@pytest.fixture
def aws() -> Iterator[Aws]:
    made = Aws()
    for stub in made.stubs.values():
        stub.activate()
    yield made
    for stub in made.stubs.values():
        stub.assert_no_pending_responses()


@pytest.fixture
def target(aws: Aws, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> SageMakerBackend:
    lake.evidence.put(ONE)
    lake.evidence.put(TWO)
    monkeypatch.setattr(module, "upload_model", lambda *_: "s3://models/xops/model.tar.gz")
    return SageMakerBackend(lake, None, settings=SETTINGS, clients=aws.clients)  # type: ignore[arg-type]


def expect_update_to_both(aws: Aws) -> None:
    """The first half: what is there, a model, a configuration of both, the update."""
    aws.describe("InService", "by-hand", {variant_of(ONE): 1.0})
    aws.found("list_endpoint_configs", "EndpointConfigs", [], "EndpointConfigName", NAMES.prefix)
    aws.config("by-hand", [OLD])
    aws.found("list_models", "Models", [], "ModelName", NAMES.prefix)
    aws.missing("describe_model", ModelName=MODEL)
    aws.expect(
        "create_model", {"ModelArn": f"{ARN}:model/{MODEL}"}, ModelName=MODEL,
        PrimaryContainer={
            "Image": SETTINGS.image_uri, "ModelDataUrl": "s3://models/xops/model.tar.gz", "Environment": ANY,
        },
        ExecutionRoleArn=SETTINGS.role_arn, Tags=ANY,
    )  # fmt: skip
    aws.config("by-hand", [OLD])
    aws.config("by-hand", [OLD], DataCaptureConfig=CAPTURE)
    aws.missing("describe_endpoint_config", EndpointConfigName=BOTH)
    aws.expect(
        "create_endpoint_config", {"EndpointConfigArn": f"{ARN}:endpoint-config/{BOTH}"},
        EndpointConfigName=BOTH, ProductionVariants=[{**OLD, "InitialInstanceCount": 2}, NEW],
        DataCaptureConfig=CAPTURE,
        Tags=[
            {"Key": "team", "Value": "flights"}, {"Key": "xops-deployment", "Value": WORK.record_id[:32]},
            {"Key": "xops-before", "Value": "by-hand"},
        ],
    )  # fmt: skip
    aws.expect(
        "update_endpoint", {"EndpointArn": f"{ARN}:endpoint/{ENDPOINT}"}, EndpointConfigName=BOTH, **CALLED
    )


def test_a_whole_deployment_asks_these_things_in_this_order(target: SageMakerBackend, aws: Aws) -> None:
    one, two = variant_of(ONE), variant_of(TWO)
    expect_update_to_both(aws)
    target.prepare(WORK, TWO)

    aws.describe("Updating", "by-hand", {one: 1.0}, PendingDeploymentSummary={"EndpointConfigName": BOTH})
    assert target.ready(WORK, TWO).reason == "the endpoint is Updating"
    aws.describe("InService", BOTH, {one: 1.0, two: 0.0})
    assert target.ready(WORK, TWO).ready

    aws.describe("InService", BOTH, {one: 1.0, two: 0.0})
    aws.config(BOTH, [OLD, NEW])
    weights = [
        {"VariantName": one, "DesiredWeight": 0.75}, {"VariantName": two, "DesiredWeight": 0.25},
    ]  # fmt: skip
    aws.expect(
        "update_endpoint_weights_and_capacities", {"EndpointArn": f"{ARN}:endpoint/{ENDPOINT}"},
        DesiredWeightsAndCapacities=weights, **CALLED,
    )  # fmt: skip
    target.shift(WORK, TWO, 0.25)
    aws.describe("Updating", BOTH, {one: 1.0, two: 0.0})
    assert not target.settled(WORK, TWO, 0.25).ready
    aws.describe("InService", BOTH, {one: 0.75, two: 0.25})
    assert target.settled(WORK, TWO, 0.25).ready

    aws.describe("InService", BOTH, {one: 0.75, two: 0.25})
    aws.config(BOTH, [OLD, NEW])
    target.shift(WORK, TWO, 0.25)  # asked again it changes nothing

    aws.describe("InService", BOTH, {one: 0.0, two: 1.0})
    aws.config(BOTH, [OLD, NEW])
    aws.found(
        "list_endpoint_configs", "EndpointConfigs", [BOTH], "EndpointConfigName", BOTH.removesuffix("both")
    )
    aws.config(BOTH, [OLD, NEW])
    tags = [{"Key": "xops-before", "Value": "by-hand"}]
    aws.expect("list_tags", {"Tags": tags}, ResourceArn=f"{ARN}:endpoint-config/{BOTH}")
    aws.missing("describe_endpoint_config", EndpointConfigName=ALONE)
    aws.expect(
        "create_endpoint_config", {"EndpointConfigArn": f"{ARN}:endpoint-config/{ALONE}"},
        EndpointConfigName=ALONE, ProductionVariants=[{**NEW, "InitialVariantWeight": 1.0}], Tags=ANY,
    )  # fmt: skip
    aws.expect(
        "update_endpoint", {"EndpointArn": f"{ARN}:endpoint/{ENDPOINT}"}, EndpointConfigName=ALONE, **CALLED
    )
    target.finish(WORK, TWO, keep_previous=False)

    # Once it is done, what nothing uses is deleted; what was made by hand is not ours to delete.
    aws.describe("InService", ALONE, {two: 1.0})
    aws.found("list_endpoint_configs", "EndpointConfigs", [ALONE, BOTH], "EndpointConfigName", NAMES.prefix)
    aws.expect("delete_endpoint_config", {}, EndpointConfigName=BOTH)
    aws.config(ALONE, [NEW])
    stale = f"{NAMES.prefix}v1-0123456789"
    aws.found("list_models", "Models", [MODEL, stale], "ModelName", NAMES.prefix)
    aws.expect("delete_model", {}, ModelName=stale)
    target.finish(WORK, TWO, keep_previous=False)


def test_an_update_that_was_undone_is_a_failure_with_its_reason(target: SageMakerBackend, aws: Aws) -> None:
    aws.describe("InService", "by-hand", {variant_of(ONE): 1.0}, FailureReason="No  capacity of ml.c5.xlarge")
    found = target.ready(WORK, TWO)
    assert (found.ready, found.failed) == (False, True)
    assert "No capacity of ml.c5.xlarge" in found.reason


@pytest.mark.parametrize("status", ["Failed", "UpdateRollbackFailed", "OutOfService"])
def test_an_endpoint_that_has_ended_is_not_waited_for(
    target: SageMakerBackend, aws: Aws, status: str
) -> None:
    aws.describe(status, BOTH, {variant_of(ONE): 1.0}, FailureReason="it broke")
    assert target.ready(WORK, TWO).failed
    aws.describe(status, "by-hand", {variant_of(ONE): 1.0}, FailureReason="it broke")
    with pytest.raises(RegistryError) as refused:
        target.prepare(WORK, TWO)
    assert refused.value.code == "registry.endpoint_failed"


def test_an_endpoint_that_somebody_else_changes_is_waited_for(target: SageMakerBackend, aws: Aws) -> None:
    aws.describe("Updating", "by-hand", {variant_of(ONE): 1.0})
    with pytest.raises(UnavailableError) as refused:
        target.prepare(WORK, TWO)
    assert (refused.value.code, refused.value.retryable) == ("unavailable.endpoint_busy", True)


def test_going_back_takes_the_weights_first_and_then_the_configuration(
    target: SageMakerBackend, aws: Aws
) -> None:
    one, two = variant_of(ONE), variant_of(TWO)

    def looked_up() -> None:
        prefix = BOTH.removesuffix("both")
        aws.found("list_endpoint_configs", "EndpointConfigs", [BOTH], "EndpointConfigName", prefix)
        aws.config(BOTH, [OLD, NEW])
        aws.expect(
            "list_tags", {"Tags": [{"Key": "xops-before", "Value": "by-hand"}]},
            ResourceArn=f"{ARN}:endpoint-config/{BOTH}",
        )  # fmt: skip

    aws.describe("InService", BOTH, {one: 0.5, two: 0.5})
    looked_up()
    aws.config(BOTH, [OLD, NEW])
    weights = [{"VariantName": one, "DesiredWeight": 1.0}, {"VariantName": two, "DesiredWeight": 0.0}]
    aws.expect(
        "update_endpoint_weights_and_capacities", {"EndpointArn": f"{ARN}:endpoint/{ENDPOINT}"},
        DesiredWeightsAndCapacities=weights, **CALLED,
    )  # fmt: skip
    with pytest.raises(UnavailableError):
        target.abort(WORK, TWO)
    aws.describe("InService", BOTH, {one: 1.0, two: 0.0})
    looked_up()
    aws.config(BOTH, [OLD, NEW])
    aws.config("by-hand", [OLD])
    aws.expect(
        "update_endpoint",
        {"EndpointArn": f"{ARN}:endpoint/{ENDPOINT}"},
        EndpointConfigName="by-hand",
        **CALLED,
    )
    target.abort(WORK, TWO)


def test_an_answer_names_its_version_and_a_refusal_keeps_its_text_to_itself(
    target: SageMakerBackend, aws: Aws
) -> None:
    frame = pd.DataFrame({"a": [1.0], "b": [4711.5]})
    body = json.dumps({"predictions": ["late"]}).encode()
    answer = {
        "Body": StreamingBody(io.BytesIO(body), len(body)),
        "InvokedProductionVariant": variant_of(ONE),
        "ContentType": "application/json",
    }
    aws.expect(
        "invoke_endpoint", answer, service="sagemaker-runtime", ContentType="application/json",
        Accept="application/json", Body=ANY, **CALLED,
    )  # fmt: skip
    (found,) = target.ask(TWO, frame, alias="champion", version=None)
    assert (found.version, found.predictions, found.status) == (1, ["late"], 200)
    aws.describe("InService", BOTH, {variant_of(ONE): 1.0, variant_of(TWO): 0.0})
    aws.refuse(
        "invoke_endpoint", "ModelError", "could not read row 4711.5", status=424, service="sagemaker-runtime",
        fields={"OriginalStatusCode": 400},
    )  # fmt: skip
    (refused,) = target.ask(TWO, frame, alias="champion", version=2)
    assert (refused.status, refused.predictions) == (400, None)
    assert "4711" not in repr(refused)


def test_figures_are_of_the_variants_in_the_window_by_version(target: SageMakerBackend, aws: Aws) -> None:
    one, two = variant_of(ONE), variant_of(TWO)
    aws.describe("InService", BOTH, {one: 0.5, two: 0.5, "AllTraffic": 0.0})
    results = [
        {"Id": "requests_0", "Values": [90.0]}, {"Id": "errors_0", "Values": []},
        {"Id": "p99_0", "Values": []},
        {"Id": "requests_1", "Values": [80.0, 20.0]}, {"Id": "errors_1", "Values": [3.0]},
        {"Id": "p99_1", "Values": [25_000.0, 41_500.0]},
    ]  # fmt: skip
    aws.expect(
        "get_metric_data", {"MetricDataResults": results}, service="cloudwatch", MetricDataQueries=ANY,
        StartTime=NOW.replace(second=0), EndTime=NOW.replace(second=0) + timedelta(minutes=3),
    )  # fmt: skip
    since = target.mark(WORK, as_of=NOW)
    found = target.observe(WORK, since=since, as_of=NOW + timedelta(seconds=130))
    assert found is not None
    assert found.seconds == 130
    assert found.versions[1].p99_ms is None
    figures = found.versions[2]
    assert (figures.requests, figures.errors, figures.p99_ms) == (100, 3, 41.5)
    assert set(found.versions) == {1, 2}


@pytest.mark.parametrize(
    ("code", "text", "status", "expected", "ours"),
    [
        ("ValidationException", 'Could not find endpoint "arn"', 400, NotFoundError, "not_found.aws"),
        ("ResourceNotFound", "no such model", 400, NotFoundError, "not_found.aws"),
        ("ValidationException", 'Cannot update in-progress endpoint "arn"', 400, UnavailableError,
         "unavailable.endpoint_busy"),
        ("ThrottlingException", "Rate exceeded", 400, UnavailableError, "unavailable.aws"),
        ("InternalFailure", "", 500, UnavailableError, "unavailable.aws"),
        ("AccessDeniedException", "not authorized", 400, RegistryError, "registry.aws_forbidden"),
        ("ExpiredTokenException", "expired", 403, RegistryError, "registry.aws_forbidden"),
        ("ResourceLimitExceeded", "limit of ml.m5.large is 0", 400, RegistryError, "registry.aws_limit"),
        ("ValidationException", "1 validation error", 400, RegistryError, "registry.aws_refused"),
    ],
)  # fmt: skip
def test_what_aws_says_becomes_one_of_our_errors(
    aws: Aws, code: str, text: str, status: int, expected: type[Exception], ours: str
) -> None:
    aws.refuse("update_endpoint", code, text, status=status)
    with pytest.raises(expected) as raised:
        SageMaker(aws.clients, ENDPOINT).do("update_endpoint", EndpointConfigName="c", **CALLED)
    assert raised.value.code == ours  # type: ignore[attr-defined]


def test_no_credentials_is_an_argument_and_no_connection_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_xops.errors import ArgumentError
    from airflow_provider_xops.serving.targets._sagemaker_aws import plain_clients

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    closed = "http://127.0.0.1:1"
    with monkeypatch.context() as given:
        given.setenv("AWS_ACCESS_KEY_ID", "testing")
        given.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        with pytest.raises(UnavailableError) as down:
            SageMaker(plain_clients("eu-central-1", endpoint_url=closed), ENDPOINT).now()
        assert down.value.code == "unavailable.aws"
    # keys that are gone are not remembered from the clients before
    with pytest.raises(ArgumentError) as refused:
        SageMaker(plain_clients("eu-central-1", endpoint_url=closed), ENDPOINT).now()
    assert refused.value.code == "argument.aws"
    with pytest.raises(ArgumentError) as refused:
        plain_clients()
    assert refused.value.code == "argument.aws"


@pytest.mark.parametrize("status", ["InternalError", "Forbidden"])
def test_figures_that_cannot_be_read_are_not_no_errors(
    target: SageMakerBackend, aws: Aws, status: str
) -> None:
    aws.describe("InService", BOTH, {variant_of(TWO): 1.0})
    results = [{"Id": "errors_0", "StatusCode": status}, {"Id": "requests_0", "StatusCode": "Complete"}]
    aws.stubs["cloudwatch"].add_response("get_metric_data", {"MetricDataResults": results})

    with pytest.raises(UnavailableError) as failed:
        target.observe(WORK, since=target.mark(WORK, as_of=NOW), as_of=NOW + timedelta(minutes=2))

    assert failed.value.code == "unavailable.aws"


def test_an_endpoint_that_sagemaker_does_not_delete_yet_is_asked_for_again(
    target: SageMakerBackend, aws: Aws
) -> None:
    work = a_deployment(TWO, target="sagemaker", endpoint=f"eu-central-1/{ENDPOINT}")
    alone = NAMES.config(work, "alone")
    aws.describe("Creating", alone, {variant_of(TWO): 0.0})
    contains = NAMES.config(work, "")
    aws.found("list_endpoint_configs", "EndpointConfigs", [alone], "EndpointConfigName", contains)
    aws.config(alone, [NEW])
    aws.expect("list_tags", {"Tags": [{"Key": "xops-before", "Value": ""}]}, ResourceArn=ANY)
    aws.refuse("delete_endpoint", "ValidationException", "Cannot delete an endpoint that is Creating.")

    with pytest.raises(UnavailableError) as failed:
        target.abort(work, TWO)

    assert failed.value.code == "unavailable.endpoint_busy"
