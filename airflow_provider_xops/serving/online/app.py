"""The HTTP application: which path does what, who may, and how much.

For the process that serves (:mod:`airflow_provider_xops.serving.online.process`). Requests for predictions
are taken on a short way of their own: key, size, body, a worker thread, the answer. Everything else goes
through FastAPI's routes.

====================================================  =========  =============================================
``POST /invocations``, ``/models/NAME/invocations``   scoring    MLflow's protocol
``POST /v2/models/NAME[/versions/N]/infer``           scoring    Open Inference Protocol V2
``GET /v2``, ``/v2/models/NAME[/versions/N][/ready]`` scoring    metadata
``GET /ping``, ``/health``, ``/v2/health/ready``      open       200 when every model is loaded, else 503
``GET /v2/health/live``, ``/version``                 open       200 when the process answers
``POST /v2/repository/index``                         admin      what is loaded
``POST /v2/repository/models/NAME/load``, ``unload``  admin      look at the lake; 409 where it says otherwise
``GET /xops/status``, ``POST /xops/refresh``          admin      the plan, what is loaded, the last error
``GET /metrics``                                      open       Prometheus
====================================================  =========  =============================================

Whatever answers GET answers HEAD, too: the same status and headers without the content.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow_provider_xops.serving.online._routes import make_routes
from airflow_provider_xops.serving.online.access_log import AccessLog
from airflow_provider_xops.serving.online.answers import Answer, Protocol, Refusal, refuse
from airflow_provider_xops.serving.online.auth import Scope
from airflow_provider_xops.serving.online.limits import (
    Bodies,
    ClientGone,
    Held,
    Workers,
    read_body,
    throw_away,
)
from airflow_provider_xops.serving.online.scoring import Ask
from airflow_provider_xops.serving.online.site import Served, Site

__all__ = ["Edge", "make_app"]

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
ASGI = Callable[
    [Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

MOST_KEY = 512
_CLOSE = (b"connection", b"close")
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_NAMED = re.compile(r"/models/([^/]+)/invocations")
_OPEN = frozenset({"/ping", "/health", "/version", "/v2/health/live", "/v2/health/ready"})
_ADMIN = ("/xops/", "/v2/repository/")


def make_app(site: Site, workers: Workers, access: AccessLog | None = None) -> Edge:
    """The application over a site; its routes are FastAPI's, its scoring paths the edge's own.

    :param access: notes each request; None: nobody does.
    """
    bodies = Bodies(site.limits.bodies_bytes)
    return Edge(site, workers, make_routes(site, workers, bodies), bodies, access)


class Edge:
    """The outermost layer: keys, limits, figures, and the short way for predictions.

    :param rest: what answers everything that does not ask for predictions.
    :param bodies: counts the bytes of requests that are in memory.
    :param access: notes each request; None: nobody does.
    """

    def __init__(
        self, site: Site, workers: Workers, rest: ASGI, bodies: Bodies, access: AccessLog | None = None
    ) -> None:
        self._site = site
        self._workers = workers
        self._rest = rest
        self._bodies = bodies
        self._access = access
        self._key_header = site.key_header.lower().encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        path: str = scope["path"]
        if path == "/invocations":
            await self._score(scope, receive, send, path, "mlflow", None, None)
            return
        found = _INFER.fullmatch(path)
        if found is not None:
            route = "/v2/models/{model}/versions/{version}/infer" if found[2] else "/v2/models/{model}/infer"
            await self._score(scope, receive, send, route, "v2", found[1], found[2])
            return
        named = _NAMED.fullmatch(path)
        if named is not None:
            route = "/models/{model}/invocations"
            await self._score(scope, receive, send, route, "mlflow", named[1], None)
            return
        await self._other(scope, receive, send, path)

    async def _score(
        self,
        scope: Any,
        receive: Any,
        send: Any,
        route: str,
        protocol: Protocol,
        name: str | None,
        version: str | None,
    ) -> None:
        began = time.perf_counter()
        served: Served | None = None
        read = _Read(self._bodies.hold())
        try:
            headers = _Headers(scope["headers"], self._key_header)
            self._site.guard.check(scope["headers"], Scope.SCORING)
            if scope["method"] != "POST":
                raise Refusal(405, "http.method", "ask by POST", headers={"Allow": "POST"})
            served = self._served(name, headers.model)
            if headers.encoding not in (b"", b"identity"):
                raise Refusal(415, "input.encoding", "send the body as it is, not compressed")
            if headers.binary:
                raise Refusal(400, "input.binary", "binary tensors are not taken: send the data as JSON")
            number = None if version is None else _number(version)
            answer = await self._answer(receive, served, protocol, headers, number, read)
        except Refusal as refusal:
            answer = refuse(refusal, protocol)
        except ClientGone:
            return
        except Exception as error:
            answer = refuse(_unforeseen(error), protocol)
        finally:
            if not read.whole:
                read.held.release()
        # Nobody knows where the next request would begin: after too large a body, or one that was only
        # announced.
        unread = not read.whole and (
            answer.status == 413 or (answer.status >= 400 and _announced(scope["headers"]))
        )
        await self._send(send, answer, receive if unread else None)
        self._note(route, answer, time.perf_counter() - began, served.name if served is not None else "")

    async def _answer(
        self,
        receive: Receive,
        served: Served,
        protocol: Protocol,
        headers: _Headers,
        version: int | None,
        read: _Read,
    ) -> Answer:
        """The model's answer. When this returns, nothing here holds the body any more: a client that is slow
        to take its answer must not keep what it sent in memory."""
        body = await read_body(receive, declared=headers.length, limits=self._site.limits, held=read.held)
        read.whole = True
        ask = Ask(protocol, body, headers.content_type, headers.key, version)
        return await self._workers.run(lambda: served.scorer.answer(ask), read.held.release)

    def _note(self, route: str, answer: Answer, seconds: float, model: str = "") -> None:
        self._site.figures.request(
            route,
            answer.status,
            seconds,
            model=model,
            version=answer.version,
            variant=answer.variant,
            failed=answer.failed,
        )
        if self._access is not None:
            self._access.note(route, answer, seconds, model=model)

    async def _other(self, scope: Any, receive: Any, send: Any, path: str) -> None:
        began = time.perf_counter()
        status = 500
        asked = scope
        if scope["method"] == "HEAD":
            # uvicorn, which knows how the request began, sends the head of this answer alone.
            asked = {**scope, "method": "GET"}

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._site.draining:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        try:
            self._site.guard.check(scope["headers"], self._scope_of(path))
            await self._rest(asked, receive, noted)
        except Refusal as refusal:
            answer = refuse(refusal, "v2" if path.startswith("/v2") else "mlflow")
            status = answer.status
            await self._send(send, answer)
        except Exception as error:
            # It has been answered with 500 on the way here; what is left is to tell of it, without its words.
            _unforeseen(error)
        route = getattr(asked.get("route"), "path", "other")
        self._note(route, Answer(status, b"", ()), time.perf_counter() - began)

    def _scope_of(self, path: str) -> Scope:
        if path in _OPEN:
            return Scope.OPEN
        if path == "/metrics" and self._site.guard.open_metrics:
            return Scope.OPEN
        return Scope.ADMIN if path.startswith(_ADMIN) else Scope.SCORING

    def _served(self, name: str | None, header: bytes) -> Served:
        if name is None and header:
            name = header.decode("latin-1")
        if name is None:
            if self._site.only is None:
                raise Refusal(
                    400, "input.model", "several models are served: ask at /models/NAME/invocations"
                )
            return self._site.only
        found = self._site.by_name.get(name)
        if found is None:
            raise Refusal(404, "not_found.model", "no model of this name is served here")
        return found

    async def _send(self, send: Any, answer: Answer, unread: Receive | None = None) -> None:
        """The answer; then, where the body was not read to its end, the rest of that, and the end of it all.

        :param unread: gives what is still to be read; None: nothing is.
        """
        headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
        if (self._site.draining or unread) and _CLOSE not in headers:
            # A client that would ask again on this connection might do so while it is being closed.
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": unread is not None})
        if unread is not None:
            await throw_away(unread, self._site.limits)
            await send({"type": "http.response.body", "body": b""})


class _Read:
    """How far a request's body has come.

    :param held: its room in memory; the worker releases it once the body is whole.
    """

    __slots__ = ("held", "whole")

    def __init__(self, held: Held) -> None:
        self.held = held
        self.whole = False


class _Headers:
    """The headers that scoring looks at, in one pass."""

    __slots__ = ("binary", "content_type", "encoding", "key", "length", "model")

    def __init__(self, headers: list[tuple[bytes, bytes]], key_header: bytes) -> None:
        self.content_type = ""
        self.encoding = self.model = b""
        self.key: str | None = None
        self.length: int | None = None
        self.binary = False
        for name, value in headers:
            if name == b"content-length":
                # The HTTP parser has refused what is no number.
                self.length = int(value)
            elif name == b"content-type":
                self.content_type = value.decode("latin-1")
            elif name == key_header:
                if len(value) > MOST_KEY:
                    raise Refusal(400, "input.key", f"the request's key is longer than {MOST_KEY} bytes")
                self.key = value.decode("latin-1") or None
            elif name == b"content-encoding":
                self.encoding = value.strip().lower()
            elif name == b"x-model-name":
                self.model = value.strip()
            elif name == b"inference-header-content-length":
                self.binary = True


def _announced(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the client waits to be told that it may send the body (RFC 9110, 10.1.1)."""
    return any(name == b"expect" for name, _ in headers)


def _number(version: str) -> int:
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        raise Refusal(404, "not_found.loaded_version", "this version is not loaded")
    return int(version)


def _unforeseen(error: Exception) -> Refusal:
    """A defect of ours: told without the error's text, which may quote the rows."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    log.error("A request was not answered: %s at %s.", type(error).__name__, place)
    return Refusal(500, "server.error", "the server could not answer")
