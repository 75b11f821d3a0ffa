"""The MLflow hook: where its settings come from, what it refuses, and what it never shows."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, UnavailableError
from airflow_provider_xops.hooks.mlflow import MlflowHook
from tests.servers import MlflowServer

Make = Callable[..., str]
DEFAULT = "xops_mlflow_default"


@pytest.fixture
def refused_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"host": "https://mlflow.example.com"}, "https://mlflow.example.com"),
        ({"host": "https://mlflow.example.com/base/", "port": 8443}, "https://mlflow.example.com:8443/base"),
        ({"host": "mlflow", "port": 5000}, "http://mlflow:5000"),
        ({"host": "mlflow", "port": 443, "schema": "https"}, "https://mlflow:443"),
        ({"host": "https://mlflow", "port": 5000, "schema": "https"}, "https://mlflow:5000"),
        ({"host": "https://mlflow:5001", "port": 5000}, "https://mlflow:5001"),
        ({"host": "mlflow", "schema": "base"}, "http://mlflow/base"),
        ({"host": "http://[::1]", "port": 5000}, "http://[::1]:5000"),
    ],
)
def test_tracking_uri_from_whichever_fields_hold_it(
    connection: Make, fields: dict[str, Any], expected: str
) -> None:
    conn_id = connection("tracking", conn_type="xops_mlflow", **fields)

    assert MlflowHook(conn_id).get_settings().tracking_uri == expected


def test_connection_may_be_written_as_a_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TRACKING", "xops-mlflow://http://user:pass@mlflow:5000")

    settings = MlflowHook("tracking").get_settings()

    assert (settings.tracking_uri, settings.username, settings.password) == (
        "http://mlflow:5000",
        "user",
        "pass",
    )


def test_order_is_argument_then_connection_then_configuration_then_environment(
    connection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given all four
    monkeypatch.setenv("XOPS_MLFLOW_TRACKING_URI", "http://environment")
    monkeypatch.setenv("AIRFLOW__XOPS__MLFLOW_TRACKING_URI", "http://configuration")
    connection(DEFAULT, conn_type="xops_mlflow", host="http://connection")

    # then each is heard only where those before it are silent
    assert MlflowHook(tracking_uri="http://argument").get_settings().tracking_uri == "http://argument"
    assert MlflowHook().get_settings().tracking_uri == "http://connection"
    monkeypatch.delenv(f"AIRFLOW_CONN_{DEFAULT.upper()}")
    assert MlflowHook().get_settings().tracking_uri == "http://configuration"
    monkeypatch.delenv("AIRFLOW__XOPS__MLFLOW_TRACKING_URI")
    assert MlflowHook().get_settings().tracking_uri == "http://environment"


def test_waiting_is_bounded_by_default_and_settable(
    connection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn_id = connection("tracking", conn_type="xops_mlflow", host="mlflow")
    plain = MlflowHook(conn_id).get_settings()
    assert (plain.timeout_s, plain.max_retries, plain.backoff_factor) == (15, 2, 1.0)

    # zero is a value, not an absence
    extra = {"timeout": 3, "max_retries": 0, "backoff_factor": 0, "ui_url": "https://ui", "workspace": "w"}
    conn_id = connection("tracking", conn_type="xops_mlflow", host="mlflow", extra=extra)
    monkeypatch.setenv("AIRFLOW__XOPS__MLFLOW_MAX_RETRIES", "9")
    settings = MlflowHook(conn_id).get_settings()
    assert (settings.timeout_s, settings.max_retries, settings.backoff_factor) == (3, 0, 0)
    assert (settings.ui_url, settings.workspace) == ("https://ui", "w")
    assert MlflowHook(conn_id, timeout_s=4).get_settings().timeout_s == 4


def test_token_goes_before_login_and_password(connection: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    conn_id = connection(
        "tracking", conn_type="xops_mlflow", host="mlflow", login="u", password="p", extra={"token": "t"}
    )

    settings = MlflowHook(conn_id).get_settings()

    assert (settings.username, settings.password, settings.token) == (None, None, "t")


@pytest.mark.parametrize("host", ["sqlite:////tmp/mlflow.db", "file:///tmp/mlruns"])
def test_a_file_is_not_a_server(connection: Make, host: str) -> None:
    conn_id = connection("tracking", conn_type="xops_mlflow", host=host)

    with pytest.raises(ArgumentError) as caught:
        MlflowHook(conn_id).get_settings()
    assert caught.value.code == "argument.mlflow_uri"


def test_a_field_that_is_no_number_is_named(connection: Make) -> None:
    conn_id = connection("tracking", conn_type="xops_mlflow", host="mlflow", extra={"timeout": "soon"})

    with pytest.raises(ArgumentError, match="timeout"):
        MlflowHook(conn_id).get_settings()


def test_secrets_are_neither_in_reprs_nor_in_logs(connection: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    conn_id = connection(
        "tracking", conn_type="xops_mlflow", host="http://u:hunter2@mlflow", extra={"token": "hunter2"}
    )

    hook = MlflowHook(conn_id)
    settings = hook.get_settings()
    registry = hook.get_registry()

    assert "hunter2" not in f"{hook!r} {vars(hook)} {settings!r} {registry!r} {caplog.text}"


def test_test_connection_on_a_refused_port_answers_soon_and_says_so(
    connection: Make, refused_port: int
) -> None:
    conn_id = connection(
        "tracking",
        conn_type="xops_mlflow",
        host="127.0.0.1",
        port=refused_port,
        extra={"max_retries": 0, "timeout": 2},
    )

    ok, message = MlflowHook(conn_id).test_connection()

    assert not ok
    assert "unavailable.mlflow" in message
    with pytest.raises(UnavailableError):
        MlflowHook(conn_id).get_registry().preflight()


def test_test_connection_answers_instead_of_raising() -> None:
    ok, message = MlflowHook("missing").test_connection()

    assert not ok
    assert "no Airflow connection 'missing'" in message


def test_test_connection_asks_a_real_server(connection: Make, mlflow_server: MlflowServer) -> None:
    conn_id = connection("tracking", conn_type="xops_mlflow", host=mlflow_server.url)

    assert MlflowHook(conn_id).test_connection() == (
        True,
        f"The model registry at {mlflow_server.url} answers.",
    )
