"""MLflow that is down, slow, broken or refusing: typed errors, bounded waiting, no secrets."""

from __future__ import annotations

import contextlib
import http.server
import logging
import os
import pickle
import socket
import threading
import traceback
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_xops.errors import NotFoundError, RegistryError, UnavailableError, XOpsError
from airflow_provider_xops.registry._errors import scrub
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.settings import MlflowSettings

PASSWORD, TOKEN = "p4ssw0rd-of-a-test", "t0ken-of-a-test"


class Server:
    """A tiny HTTP server with one answer, which remembers the requests."""

    def __init__(self, status: int, body: str, content_type: str) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.requests.append((self.path, dict(self.headers)))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def answering() -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def start(status: int, body: str, content_type: str = "application/json") -> Server:
            server = Server(status, body, content_type)
            thread = threading.Thread(target=server.http.serve_forever, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.http.server_close)
            stack.callback(server.http.shutdown)
            return server

        yield start


def client(url: str, **changes) -> RegistryClient:
    values = {
        "timeout_s": 1,
        "max_retries": 0,
        "backoff_factor": 0.0,
        "username": "bob",
        "password": PASSWORD,
    }
    return RegistryClient(MlflowSettings(tracking_uri=url, **(values | changes)))


def error_of(registry: RegistryClient) -> XOpsError:
    with pytest.raises(XOpsError) as caught:
        registry.preflight()
    return caught.value


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_refused_port_is_unavailable_and_worth_a_retry() -> None:
    error = error_of(client(f"http://127.0.0.1:{free_port()}"))

    assert (type(error), error.code, error.retryable) == (UnavailableError, "unavailable.mlflow", True)
    assert "start MLflow" in error.todo


def test_a_server_that_accepts_and_never_answers_is_slow() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        error = error_of(client(f"http://127.0.0.1:{listening.getsockname()[1]}"))

    assert (type(error), error.code) == (UnavailableError, "unavailable.mlflow_slow")
    assert error.context == {"timeout_s": 1, "max_retries": 0}
    assert "no answer within 1 s, in 1 attempts" in error.why


def test_waiting_is_bounded_by_the_settings(answering: Callable[..., Server]) -> None:
    server = answering(503, "{}")

    error_of(client(server.url, max_retries=2))

    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_error_is_unavailable(answering: Callable[..., Server], status: int) -> None:
    error = error_of(client(answering(status, '{"error_code": "INTERNAL_ERROR"}').url))

    assert (type(error), error.retryable) == (UnavailableError, True)


def test_a_403_for_the_host_header_says_how_to_allow_it(answering: Callable[..., Server]) -> None:
    body = "Invalid Host header - possible DNS rebinding attack detected"
    error = error_of(client(answering(403, body, "text/plain").url))

    assert (type(error), error.code, error.retryable) == (RegistryError, "registry.forbidden", False)
    assert "--allowed-hosts" in error.todo


def test_a_403_for_the_user_is_not_retried(answering: Callable[..., Server]) -> None:
    error = error_of(client(answering(403, "Permission denied", "text/plain").url))

    assert (error.code, error.retryable) == ("registry.forbidden", False)
    assert "permission" in error.todo


def test_a_401_is_about_the_credentials(answering: Callable[..., Server]) -> None:
    error = error_of(client(answering(401, "You are not authenticated", "text/plain").url))

    assert (error.code, error.retryable) == ("registry.unauthenticated", False)


@pytest.mark.parametrize(("status", "body"), [(200, "<html>log in</html>"), (404, "<html>nothing</html>")])
def test_something_else_than_mlflow_is_named_so(
    answering: Callable[..., Server], status: int, body: str
) -> None:
    error = error_of(client(answering(status, body, "text/html").url))

    assert (error.code, error.retryable) == ("registry.not_mlflow", False)


def test_a_missing_model_is_not_found_by_name(answering: Callable[..., Server]) -> None:
    server = answering(
        404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Registered Model with name=m not found"}'
    )

    with pytest.raises(NotFoundError) as model:
        client(server.url).aliases("m")
    with pytest.raises(NotFoundError) as version:
        client(server.url).get_version("m", 3)

    assert (model.value.code, version.value.code) == ("not_found.model", "not_found.model_version")
    assert "m" in model.value.what


def test_a_refusal_keeps_mlflows_code_and_is_not_retried(answering: Callable[..., Server]) -> None:
    server = answering(400, '{"error_code": "INVALID_PARAMETER_VALUE", "message": "names have no slash"}')

    error = error_of(client(server.url))

    assert (error.code, error.retryable) == ("registry.refused", False)
    assert error.context == {"mlflow_code": "INVALID_PARAMETER_VALUE"}
    assert "names have no slash" in error.why


@pytest.mark.parametrize(
    "credentials", [{"password": PASSWORD}, {"username": None, "password": None, "token": TOKEN}]
)
def test_credentials_go_to_the_server_and_nowhere_else(
    answering: Callable[..., Server], credentials: dict, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = answering(403, f"user bob:{PASSWORD} with token {TOKEN} may not", "text/plain")
    registry = client(server.url, **credentials)
    before = dict(os.environ)

    error = error_of(registry)

    secret = credentials.get("token") or PASSWORD
    shown = "\n".join(
        [
            *(
                repr(registry),
                repr(registry.settings),
                str(error),
                repr(error),
                str(error.to_json()),
                caplog.text,
            ),
            *traceback.format_exception(error),
        ]
    )
    assert "Authorization" in server.requests[0][1]
    assert secret not in shown
    assert secret.encode() not in pickle.dumps(error)
    assert dict(os.environ) == before


def test_credentials_inside_the_uri_are_not_shown() -> None:
    registry = client(f"http://bob:{PASSWORD}@127.0.0.1:{free_port()}", username=None, password=None)

    error = error_of(registry)

    assert PASSWORD not in f"{registry!r} {registry.settings!r} {error} {error.to_json()}"


def test_the_environment_is_put_back_and_fluent_mlflow_is_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "the users own")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://the.users.own")
    registry = client("http://127.0.0.1:1", timeout_s=7)
    with registry.session("looking") as _:
        inside = dict(os.environ)

    assert (inside["MLFLOW_TRACKING_USERNAME"], inside["MLFLOW_TRACKING_PASSWORD"]) == ("bob", PASSWORD)
    assert "MLFLOW_TRACKING_TOKEN" not in inside
    assert (inside["MLFLOW_HTTP_REQUEST_TIMEOUT"], inside["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) == ("7", "0")
    assert inside["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "the users own"
    assert mlflow.get_tracking_uri() == "http://the.users.own"


def test_an_error_that_is_not_mlflows_passes_unchanged() -> None:
    with pytest.raises(KeyError), client("http://127.0.0.1:1").session("looking"):
        raise KeyError("mine")


def test_rows_are_scrubbed_from_schema_errors() -> None:
    text = (
        "Failed to enforce schema of data '   name  age\n0  Alice  42' with schema '['name': string]'."
        " Error: missing inputs ['x']"
    )

    clean = scrub(text)

    assert "Alice" not in clean
    assert "missing inputs ['x']" in clean


def test_pages_use_the_ui_address_and_quote_names() -> None:
    registry = RegistryClient(
        MlflowSettings("http://mlflow:5000", ui_url="https://ml.example.com/base/", workspace="team a")
    )

    assert (
        registry.version_url("late flights", 3)
        == "https://ml.example.com/base/#/models/late%20flights/versions/3?workspace=team%20a"
    )
    assert registry.run_url("r1", "7").startswith("https://ml.example.com/base/#/experiments/7/runs/r1")
