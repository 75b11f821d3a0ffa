"""What every server of a target says that it serves, for people."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from airflow_provider_xops.serving.targets.look import what_serves
from airflow_provider_xops.serving.targets.settings import ServingSettings

KEY = "a-key-of-the-tests-0123456789"
Serve = Callable[[dict[str, Any]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that answer paths with JSON, and ask for the key; gives their addresses."""
    with contextlib.ExitStack() as running:

        def start(answers: dict[str, Any]) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    known = self.headers.get("Authorization") == f"Bearer {KEY}"
                    found = answers.get(self.path) if known else None
                    self.send_response(401 if not known else 404 if found is None else 200)
                    self.end_headers()
                    self.wfile.write(json.dumps(found).encode())

                def log_message(self, *_: Any) -> None:
                    pass

            server = running.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            running.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


def status(*variants: tuple[int, str, float], failed: Any = ()) -> dict[str, Any]:
    """A server's own words about late@champion-eu."""
    parts = [{"version": version, "role": role, "weight": weight} for version, role, weight in variants]
    fleet = {"serving": {"variants": parts}, "loaded": parts, "failed": list(failed)}
    return {"models": {"late": {"model": "late", "alias": "champion-eu", "fleet": fleet, "figures": {}}}}


def looked(settings: ServingSettings, alias: str = "champion-eu") -> list[dict[str, Any]]:
    found = what_serves(settings, model="late", alias=alias)
    assert (found["model"], found["alias"], found["kind"]) == ("late", alias, settings.kind)
    assert KEY not in json.dumps(found)
    servers: list[dict[str, Any]] = found["servers"]
    return servers


def test_each_replica_tells_its_shares_and_one_that_is_away_is_told_of(serve: Serve) -> None:
    shared = serve({"/xops/status": status((3, "primary", 0.9), (4, "canary", 0.1), (2, "standby", 0.0))})
    behind = serve(
        {
            "/xops/status": status(
                (3, "primary", 1.0), failed=[{"version": 4, "code": "model.digest_mismatch"}]
            )
        }
    )
    settings = ServingSettings(hosts=[shared, behind, "http://127.0.0.1:1"], api_key=KEY, timeout_s=60)

    first, second, third = looked(settings)

    assert first == {
        "server": shared, "shares": {"3": 0.9, "4": 0.1}, "shadows": {}, "loaded": [2, 3, 4], "failed": {},
    }  # fmt: skip
    assert (second["shares"], second["failed"]) == ({"3": 1.0}, {"4": "model.digest_mismatch"})
    assert (third["server"], third["code"]) == ("http://127.0.0.1:1", "unavailable.server")


def test_a_wrong_key_and_another_alias_are_told_apart(serve: Serve) -> None:
    host = serve({"/xops/status": status((3, "primary", 1.0))})

    (refused,) = looked(ServingSettings(hosts=[host], api_key="another-key-0123456789"))
    (other,) = looked(ServingSettings(hosts=[host], api_key=KEY), alias="champion")

    assert refused["code"] == "argument.serving_key"
    assert other["code"] == "not_found.served_alias"


def test_a_model_server_names_the_version_that_callers_get(serve: Serve) -> None:
    place = "/v2/models/flights%3Achampion-eu"
    there = serve({f"{place}/ready": {}, place: {"versions": ["7"], "platform": "sha256-ab"}})
    empty = serve({})
    settings = ServingSettings(
        kind="v2", hosts=[there, empty], repository="/models", api_key=KEY, options={"name": "flights"}
    )

    assert looked(settings) == [
        {"server": there, "shares": {"7": 1.0}, "files": "sha256-ab"}, {"server": empty, "shares": {}},
    ]  # fmt: skip


def test_an_endpoint_tells_its_state_and_its_shares() -> None:
    session = boto3.Session(aws_access_key_id="k", aws_secret_access_key="s", region_name="eu-central-1")
    clients = {name: session.client(name) for name in ("sagemaker", "sagemaker-runtime", "s3", "cloudwatch")}
    variants = [
        {"VariantName": "v6-0123456789", "CurrentWeight": 3.0}, {"VariantName": "mine", "CurrentWeight": 1.0},
    ]  # fmt: skip
    described = {
        "EndpointName": "late", "EndpointArn": "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/late",
        "EndpointConfigName": "c", "EndpointStatus": "InService", "ProductionVariants": variants,
        "CreationTime": 0, "LastModifiedTime": 0,
    }  # fmt: skip
    settings = ServingSettings(kind="sagemaker", endpoint_name="late", aws=clients.__getitem__)
    with Stubber(clients["sagemaker"]) as stub:
        stub.add_response("describe_endpoint", described, {"EndpointName": "late"})
        stub.add_client_error("describe_endpoint", "AccessDeniedException")

        assert looked(settings) == [
            {
                "server": "late", "status": "InService", "shares": {"6": 0.75, "mine": 0.25}, "reason": "",
            },
        ]  # fmt: skip
        (refused,) = looked(settings)
    assert refused["code"] == "registry.aws_forbidden"


def test_what_nobody_foresaw_is_told_by_its_kind_alone() -> None:
    def broken(service: str) -> Any:
        raise RuntimeError(f"no {service} with {KEY}")

    assert looked(ServingSettings(kind="sagemaker", endpoint_name="late", aws=broken)) == [
        {"server": "late", "error": "RuntimeError", "code": "unexpected"}
    ]
