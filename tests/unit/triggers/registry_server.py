"""A server that answers as MLflow's registry does for one alias, and as badly as a test wants.

The answers are those of MLflow 3.17; ``tests/integration/test_model_alias.py`` asks a real one.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["AliasServer", "alias_server"]

NO_ALIAS = (
    400,
    {"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias champion not found."},
)
NO_MODEL = (
    404,
    {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Registered Model with name=late not found"},
)


class AliasServer:
    """What it answers is changed while it runs; what it was asked is kept.

    :ivar answers: ``(status, body)``: the last one is given for ever.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[tuple[int, Any]] = [NO_ALIAS]
        self.asked: list[dict[str, Any]] = []

    def says(self, *answers: int | tuple[int, Any]) -> None:
        """Versions, or whole answers, one a request."""
        self.answers = [version(each) if isinstance(each, int) else each for each in answers]

    def next(self) -> tuple[int, Any]:
        """The answer to the next request."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def version(number: int, *, created_at_ms: int | None = None) -> tuple[int, Any]:
    """The answer that the alias stands for a version."""
    made = {"name": "late", "version": str(number), "creation_timestamp": created_at_ms or 1000 + number}
    return 200, {"model_version": {**made, "run_id": f"run-{number}"}}


@contextlib.contextmanager
def alias_server() -> Iterator[AliasServer]:
    """The server, on a free port of the loopback interface."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            server.asked.append({"path": parts.path, **query, "headers": dict(self.headers)})
            status, body = server.next()
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = AliasServer(f"http://127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(10)
