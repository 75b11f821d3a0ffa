"""Requests to servers that serve models: bounded in time and size, typed errors, nothing of a body repeated.

For the targets. Standard library only, and no proxy: the servers are in one's own network.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_xops.errors import ArgumentError, UnavailableError

__all__ = ["Http", "Response", "base_url"]

MAX_ANSWER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Response:
    """What a server answered; its body is for the program only: it may hold data."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    seconds: float

    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Http:
    """One server by its address.

    :param url: ``http(s)://host:port`` and perhaps a path, without credentials.
    :param headers: sent with each request, for example the API key; blanks around a value are left out.
    :param timeout_s: seconds one request may take to connect, and to answer.
    :raises ArgumentError: ``argument.server_url``, ``argument.serving_key``: a header cannot be sent.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 10.0
    ) -> None:
        self.url = base_url(url)
        self.timeout_s = timeout_s
        self._headers = {name: _sendable(value) for name, value in (headers or {}).items()}
        parts = urlsplit(self.url)
        self._secure, self._path = parts.scheme == "https", parts.path.rstrip("/")
        self._host, self._port = parts.hostname or "", parts.port

    def get(self, path: str) -> Response:
        """Ask for something.

        :raises UnavailableError: ``unavailable.server``: no answer in time.
        """
        return self.request("GET", path)

    def post(self, path: str, content: Any = None) -> Response:
        """Send JSON; an empty object if there is nothing to say.

        :raises UnavailableError: ``unavailable.server``: no answer in time.
        """
        return self.request("POST", path, {} if content is None else content)

    def request(self, method: str, path: str, content: Any = None) -> Response:
        """Send one request on a connection of its own: a server that was restarted is met anew.

        :param content: what becomes the JSON body, or the bytes of one.
        """
        body = content if isinstance(content, bytes) or content is None else _encoded(content)
        headers = {**self._headers, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        begin = time.perf_counter()
        connection = self._connection()
        try:
            connection.request(method, f"{self._path}{path}", body, headers)
            answer = connection.getresponse()
            found = answer.read(MAX_ANSWER_BYTES + 1)
        except (http.client.HTTPException, OSError) as error:
            raise UnavailableError(
                f"the server at {self.url} did not answer",
                code="unavailable.server",
                why=f"{type(error).__name__} within {self.timeout_s:g} s",
                todo="see that it runs and can be reached from here",
                context={"server": self.url},
            ) from None
        finally:
            connection.close()
        if len(found) > MAX_ANSWER_BYTES:
            raise UnavailableError(
                f"the server at {self.url} answered more than {MAX_ANSWER_BYTES} bytes",
                code="unavailable.server",
                todo="see what listens at that address",
            )
        return Response(answer.status, dict(answer.getheaders()), found, time.perf_counter() - begin)

    def _connection(self) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self.timeout_s, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self.timeout_s)


def base_url(text: str) -> str:
    """The address of a server as it is shown and compared; ``http`` where it names no scheme.

    :raises ArgumentError: ``argument.server_url``: no address, or one that carries credentials.

    >>> base_url("models.example.com:8080/"), base_url("https://models.example.com/eu/")
    ('http://models.example.com:8080', 'https://models.example.com/eu')
    """
    url = text.strip()
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    written = all(each.isprintable() and not each.isspace() for each in url)
    if not usable or not written or parts.query or parts.fragment:
        raise ArgumentError(
            "a server's address is not http(s)://host:port",
            code="argument.server_url",
            todo="give for example http://models-1:8080",
        )
    if "@" in parts.netloc:
        raise ArgumentError(
            "a server's address carries credentials",
            code="argument.server_url",
            todo="move the key into its own field",
        )
    return url.rstrip("/")


def _sendable(value: str) -> str:
    """A header's value. The standard library would quote one that it cannot send, and it may be a key."""
    text = value.strip()
    if not (text.isascii() and text.isprintable()):
        raise ArgumentError(
            "the key for the servers cannot be sent",
            code="argument.serving_key",
            why="it has a line break or another character that a header cannot have",
            todo="set it again, in one line of plain characters",
        )
    return text


def _encoded(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False).encode()
