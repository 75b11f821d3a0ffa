"""moto's SageMaker as a server on loopback; and taught what it lacks, with a container that predicts.

moto 5.2 has no ``update_endpoint``, forgets shadow variants and variants of weight 0, and makes every change
at once. :func:`taught` adds these to it as AWS documents them: a change takes some looks to be done, one at a
time; an update can fail and be undone, or end the endpoint. Its answers come from the model files that were
sent to S3, read by MLflow as MLflow's own container reads them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import random
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

REGION, BUCKET = "eu-central-1", "models"
_NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


@dataclass
class Control:
    """What the taught moto is to do, and what was asked of it.

    :param looks: how often a change is looked at until it is done.
    :param fails: the status that the next update ends with, and why; ``InService``: it is undone.
    :param asked: the operations that change something, in order.
    """

    looks: int = 1
    fails: tuple[str, str] | None = None
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def moto_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """moto on a free loopback port, fresh, with a bucket ``models``; keys are in the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        import urllib.request

        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"), timeout=10)
        s3 = boto3.client("s3", region_name=REGION, endpoint_url=url)
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield url
    finally:
        server.stop()


def taught(monkeypatch: pytest.MonkeyPatch, url: str) -> Control:
    """Teach moto what it lacks, until the test ends."""
    from moto.core.responses import ActionResult, EmptyResult
    from moto.sagemaker.exceptions import ValidationError
    from moto.sagemaker.responses import SageMakerResponse as Response
    from moto.sagemakerruntime.responses import SageMakerRuntimeResponse as Runtime

    control = Control()
    plain = {
        name: getattr(Response, name)
        for name in (
            "create_endpoint_config", "create_endpoint", "create_model", "delete_endpoint",
            "delete_endpoint_config", "delete_model",
        )
    }  # fmt: skip

    def noted(name: str) -> Any:
        @functools.wraps(plain[name])
        def call(self: Any) -> Any:
            control.asked.append(name)
            return plain[name](self)

        return call

    def config_of(self: Any, name: str) -> Any:
        return self.sagemaker_backend.endpoint_configs[name]

    def create_endpoint_config(self: Any) -> Any:
        found = noted("create_endpoint_config")(self)
        made = config_of(self, self._get_param("EndpointConfigName"))
        made.shadow_production_variants = self._get_param("ShadowProductionVariants")
        return found

    def create_endpoint(self: Any) -> Any:
        found = noted("create_endpoint")(self)
        name = self._get_param("EndpointName")
        endpoint = self.sagemaker_backend.endpoints[name]
        endpoint.endpoint_status = "Creating"
        endpoint.change = ("config", self._get_param("EndpointConfigName"), control.looks, control.fails)
        control.fails = None
        endpoint.variants, endpoint.shadows = {}, {}
        return found

    def busy(endpoint: Any) -> None:
        if endpoint.endpoint_status in ("Creating", "Updating"):
            raise ValidationError(message='Cannot update in-progress endpoint "arn:aws:sagemaker:...".')
        if endpoint.endpoint_status == "Failed":
            raise ValidationError(message="Cannot update endpoint while status is Failed.")

    def update_endpoint(self: Any) -> Any:
        control.asked.append("update_endpoint")
        endpoint = self.sagemaker_backend.endpoints[self._get_param("EndpointName")]
        busy(endpoint)
        self.sagemaker_backend.describe_endpoint_config(self._get_param("EndpointConfigName"))
        endpoint.endpoint_status = "Updating"
        endpoint.change = ("config", self._get_param("EndpointConfigName"), control.looks, control.fails)
        control.fails = None
        return ActionResult({"EndpointArn": endpoint.arn})

    def update_weights(self: Any) -> Any:
        control.asked.append("update_endpoint_weights_and_capacities")
        endpoint = self.sagemaker_backend.endpoints[self._get_param("EndpointName")]
        busy(endpoint)
        wanted = self._get_param("DesiredWeightsAndCapacities")
        assert {each["VariantName"] for each in wanted} <= set(endpoint.variants)
        for each in wanted:
            endpoint.variants[each["VariantName"]]["DesiredWeight"] = each["DesiredWeight"]
        endpoint.endpoint_status = "Updating"
        endpoint.change = ("weights", "", control.looks, None)
        return ActionResult({"EndpointArn": endpoint.arn})

    def apply(self: Any, endpoint: Any) -> None:
        kind, config, left, fails = endpoint.change
        if left > 0:
            endpoint.change = (kind, config, left - 1, fails)
            return
        endpoint.change = None
        endpoint.endpoint_status = "InService"
        if kind == "weights":
            for each in endpoint.variants.values():
                each["CurrentWeight"] = each["DesiredWeight"]
            return
        if fails is not None:
            endpoint.endpoint_status, endpoint.failure_reason = fails
            return
        endpoint.failure_reason = None
        endpoint.endpoint_config_name = config
        made = config_of(self, config)
        endpoint.variants = {each["VariantName"]: state_of(each) for each in made.production_variants}
        endpoint.shadows = {
            each["VariantName"]: state_of(each) for each in made.shadow_production_variants or []
        }

    def describe_endpoint(self: Any) -> Any:
        name = self._get_param("EndpointName")
        self.sagemaker_backend.describe_endpoint(name)
        endpoint = self.sagemaker_backend.endpoints[name]
        if endpoint.change is not None:
            apply(self, endpoint)
        found = {
            "EndpointName": name,
            "EndpointArn": endpoint.arn,
            "EndpointConfigName": endpoint.endpoint_config_name,
            "EndpointStatus": endpoint.endpoint_status,
            "ProductionVariants": list(endpoint.variants.values()),
            "ShadowProductionVariants": list(endpoint.shadows.values()),
            "CreationTime": _NOW,
            "LastModifiedTime": _NOW,
        }
        if endpoint.failure_reason:
            found["FailureReason"] = endpoint.failure_reason
        if endpoint.change is not None and endpoint.change[0] == "config":
            found["PendingDeploymentSummary"] = {"EndpointConfigName": endpoint.change[1]}
        return ActionResult(found)

    def delete_endpoint_config(self: Any) -> Any:
        control.asked.append("delete_endpoint_config")
        name = self._get_param("EndpointConfigName")
        for endpoint in self.sagemaker_backend.endpoints.values():
            assert name != endpoint.endpoint_config_name, "a configuration in use was deleted"
            assert endpoint.change is None or name != endpoint.change[1]
        self.sagemaker_backend.delete_endpoint_config(name)
        return EmptyResult()

    def invoke_endpoint(self: Any) -> Any:
        from moto.sagemaker.models import sagemaker_backends

        backend = sagemaker_backends[self.current_account][self.region]
        endpoint = backend.endpoints[self._get_params().get("EndpointName") or self.path.split("/")[2]]
        variants = backend.endpoint_configs[endpoint.endpoint_config_name].production_variants
        target = self.headers.get("X-Amzn-SageMaker-Target-Variant")
        if not target:
            weights = [endpoint.variants[each["VariantName"]]["CurrentWeight"] for each in variants]
            target = random.choices([each["VariantName"] for each in variants], weights)[0]
        (chosen,) = [each for each in variants if each["VariantName"] == target]
        model = backend.describe_model(chosen["ModelName"])
        address = model.primary_container["ModelDataUrl"]
        try:
            said = _predict(url, address, self.body)
        except Exception:
            return 400, {"status": 400}, json.dumps({"Message": "row 4711 was refused"})
        headers = {"Content-Type": "application/json", "x-Amzn-Invoked-Production-Variant": target}
        return 200, headers, said

    for name in ("create_model", "delete_endpoint", "delete_model"):
        monkeypatch.setattr(Response, name, noted(name))
    for function in (
        create_endpoint_config, create_endpoint, update_endpoint, describe_endpoint, delete_endpoint_config,
    ):  # fmt: skip
        monkeypatch.setattr(Response, function.__name__, function, raising=False)
    monkeypatch.setattr(Response, "update_endpoint_weights_and_capacities", update_weights)
    monkeypatch.setattr(Runtime, "invoke_endpoint", invoke_endpoint)
    return control


def state_of(variant: dict[str, Any]) -> dict[str, Any]:
    """What SageMaker says of a variant that runs."""
    weight, count = variant["InitialVariantWeight"], variant.get("InitialInstanceCount", 1)
    return {
        "VariantName": variant["VariantName"],
        "CurrentWeight": weight,
        "DesiredWeight": weight,
        "CurrentInstanceCount": count,
        "DesiredInstanceCount": count,
    }


def _predict(url: str, address: str, body: bytes) -> str:
    from mlflow.pyfunc.scoring_server import infer_and_parse_data, predictions_to_json

    model = _model(url, address)
    rows = infer_and_parse_data(json.loads(body), model.metadata.get_input_schema())
    stream = io.StringIO()
    predictions_to_json(model.predict(rows), stream)
    return stream.getvalue()


@functools.lru_cache(maxsize=8)
def _model(url: str, address: str) -> Any:
    import boto3
    import mlflow.pyfunc

    key = address.removeprefix(f"s3://{BUCKET}/")
    s3 = boto3.client("s3", region_name=REGION, endpoint_url=url)
    content = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    with tempfile.TemporaryDirectory(prefix="xops-container-") as folder:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(folder, filter="data")
        return mlflow.pyfunc.load_model(folder)
