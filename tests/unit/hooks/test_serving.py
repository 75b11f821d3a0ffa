"""The serving hook: from a connection to the settings of a target."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.hooks.serving import ServingHook


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(**fields: Any) -> ServingHook:
        monkeypatch.setenv("AIRFLOW_CONN_MODELS", json.dumps({"conn_type": "xops_serving"} | fields))
        return ServingHook("models")

    return make


@pytest.mark.parametrize(
    ("fields", "hosts"),
    [
        ({"host": "http://a:1,https://b:2/eu"}, ("http://a:1", "https://b:2/eu")),
        ({"host": "a:1 b:2"}, ("http://a:1", "http://b:2")),
        ({"host": "a", "port": 8080}, ("http://a:8080",)),
        ({"host": "a", "port": 8443, "schema": "https"}, ("https://a:8443",)),
    ],
)
def test_every_replica_is_found_in_the_host_field(
    connection: Any, fields: dict[str, Any], hosts: tuple[str, ...]
) -> None:
    assert connection(**fields).get_settings().hosts == hosts


def test_the_fields_of_every_kind_are_handed_on(connection: Any) -> None:
    v2 = connection(
        host="a:1", password="hidden-key", extra={"kind": "v2", "repository": "/models", "timeout": 3}
    ).get_settings()
    assert (v2.kind, v2.repository, v2.timeout_s, v2.api_key) == ("v2", "/models", 3.0, "hidden-key")
    assert "hidden-key" not in repr(v2)
    options = json.dumps({"image_uri": "i", "role_arn": "arn:aws:iam::1:role/x", "model_data": "s3://b/p"})
    cloud = connection(
        extra={"kind": "sagemaker", "endpoint_name": "late", "region": "eu-central-1", "options": options}
    ).get_settings()
    assert (cloud.kind, cloud.endpoint_name) == ("sagemaker", "late")
    assert cloud.options["region"] == "eu-central-1"
    assert cloud.options["image_uri"] == "i"


def test_where_the_default_connection_was_never_made_the_environment_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XOPS_SERVING_HOSTS", "a:1")

    assert ServingHook().get_settings().hosts == ("http://a:1",)
    with pytest.raises(ArgumentError) as raised:
        ServingHook("nowhere").get_settings()
    assert raised.value.code == "argument.connection"


def test_the_form_says_what_is_wrong_and_shows_no_key(connection: Any) -> None:
    good, said = connection(host="127.0.0.1:1", password="hidden-key").test_connection()

    assert not good
    assert "did not answer" in said
    assert "hidden-key" not in said
    assert connection(extra={"kind": "v2"}).test_connection()[0] is False
