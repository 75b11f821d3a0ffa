"""Requests to a JSON API: retried, paced, bounded, and silent about secrets.

For :mod:`airflow_provider_xops.data.source_http`. Login is the session's. An address is named in errors by
host and path alone: what follows a ``?`` may be a key. Redirects and links to another host are refused,
because the session's headers would go with them.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

from airflow_provider_xops.data.declared_sources import HttpSource
from airflow_provider_xops.errors import ArgumentError, SourceError, UnavailableError, XOpsError
from airflow_provider_xops.records import digest_of

__all__ = ["Answer", "Client", "Request", "address"]

log = logging.getLogger(__name__)

# Statuses after which the same request may succeed (RFC 9110, section 15; RFC 6585, section 4).
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_CONTENT = frozenset({204, 205})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
LONGEST_BACKOFF_S = 60.0
CHUNK_BYTES = 1 << 16
FLOAT_DIGITS = 15  # of a decimal number, whatever it is, that a double gives back (IEEE 754)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One page asked for. ``params`` and ``body`` may hold secrets: neither is ever shown."""

    url: str
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """The same for the same request."""
        return digest_of([self.url, {name: str(value) for name, value in self.params.items()}, self.body])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A page: its JSON and the address of the next one that its headers name.

    :param empty: there is no content, and the server says so.
    """

    body: Any
    next_link: str | None
    empty: bool = False


class Client:
    """Fetches pages of one source.

    :param session: a ``requests.Session`` that logs in by itself.
    :param sleep: waits so many seconds.
    """

    def __init__(
        self,
        session: Any,
        base_url: str,
        source: HttpSource,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._session, self._source, self._sleep = session, source, sleep
        try:
            self._origin = _origin(base_url)
        except ValueError:
            raise ArgumentError(
                "the connection's host is no address", code="argument.url",
                todo="correct its host and port",
            ) from None  # fmt: skip
        self._last: float | None = None
        self.requests = 0

    def fetch(self, request: Request, *, missing_ends: bool = False) -> Answer:
        """One page.

        :param missing_ends: 404 is an answer without content: the page behind the last one.
        :raises SourceError: the API refuses it, or the answer is none (``source.forbidden``,
            ``source.missing``, ``source.refused``, ``source.malformed``, ``source.page_too_large``,
            ``source.foreign_link``).
        :raises UnavailableError: no answer after all retries, or one that asks to wait for too long.
        """
        where = address(request.url)
        failure: XOpsError | None = None
        for attempt in range(self._source.retries + 1):
            if failure is not None:
                wait = self._wait(failure, attempt)
                log.info("%s Trying again in %.1f s.", failure.what.rstrip(".") + ".", wait)
                self._sleep(wait)
            try:
                return self._once(request, where, missing_ends)
            except _Again as again:
                failure = again.error
        assert failure is not None
        raise failure

    def follow(self, request: Request, link: str) -> Request:
        """The request of a link in ``request``'s answer.

        :raises SourceError: ``source.foreign_link``, ``source.malformed``.
        """
        try:
            url = urljoin(request.url, link)
            origin = _origin(url)
        except ValueError:
            raise SourceError(
                f"{address(request.url)} names a next address that is none", code="source.malformed",
                todo="look at the API's answer and at the source's pagination",
            ) from None  # fmt: skip
        if origin != self._origin:
            raise SourceError(
                f"{address(request.url)} names another host: {address(url)}", code="source.foreign_link",
                why="the connection's login would be sent there",
                todo="if that is the API's address, put it into the connection",
            )  # fmt: skip
        return Request(url=url, body=request.body)

    def _once(self, request: Request, where: str, missing_ends: bool) -> Answer:
        import requests

        try:
            for _ in range(MAX_REDIRECTS + 1):
                response = self._send(request)
                with response:
                    if response.status_code not in _REDIRECTS or "Location" not in response.headers:
                        return self._answer(response, where, missing_ends)
                    request = self.follow(request, response.headers["Location"])
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _Again(_no_answer(where, type(error).__name__)) from None
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
            raise _Again(_no_answer(where, f"the answer was cut short ({type(error).__name__})")) from None
        except (requests.RequestException, UnicodeError) as error:
            raise ArgumentError(
                f"{where} cannot be asked", code="argument.url", why=type(error).__name__,
                todo="correct the connection's host, the endpoint and the headers",
            ) from None  # fmt: skip
        raise SourceError(
            f"{where} redirects in a circle", code="source.refused", todo="correct the endpoint"
        )

    def _send(self, request: Request) -> Any:
        self._pace()
        self.requests += 1
        return self._session.request(
            self._source.method.upper(),
            request.url,
            params=dict(request.params) or None,
            json=None if request.body is None else dict(request.body),
            headers=dict(self._source.headers or {}) or None,
            timeout=self._source.timeout,
            stream=True,
            allow_redirects=False,
        )

    def _answer(self, response: Any, where: str, missing_ends: bool) -> Answer:
        status = int(response.status_code)
        if status in _PASSING:
            error = UnavailableError(
                f"{where} answered {status}", code="unavailable.api",
                why="it asks for fewer requests" if status == 429 else "it is not well",
                todo="try again later; give the source a rate_limit",
                context={"status": status},
            )  # fmt: skip
            raise _Again(error, after=_retry_after(response.headers))
        if status == 404 and missing_ends:
            return Answer(body=None, next_link=None, empty=True)
        if not 200 <= status < 300:
            raise _refused(where, status)
        content = self._content(response, where)
        link = (response.links or {}).get("next", {}).get("url")
        if status in _NO_CONTENT and not content:
            return Answer(body=None, next_link=link, empty=True)
        why = f"{len(content)} bytes of {str(response.headers.get('Content-Type', 'no type'))[:60]}"
        try:
            return Answer(body=_parsed(content), next_link=link)
        except _Refused as refused:
            why = f"{refused} ({why})"
        except UnicodeDecodeError:
            why = f"its text is not UTF-8 ({why})"
        except (ValueError, RecursionError):
            pass
        malformed = SourceError(
            f"{where} did not answer with JSON", code="source.malformed", why=why,
            todo="look at the endpoint, and at whether the login is complete",
        )  # fmt: skip
        headers = response.headers
        if "Content-Length" not in headers and headers.get("Transfer-Encoding") != "chunked":
            raise _Again(malformed)  # nothing tells whether it was whole
        raise malformed

    def _content(self, response: Any, where: str) -> bytes:
        limit, parts, size = self._source.max_page_bytes, [], 0
        for part in response.iter_content(CHUNK_BYTES):
            size += len(part)
            if size > limit:
                raise SourceError(
                    f"a page of {where} has more than {limit} bytes", code="source.page_too_large",
                    why="one page is held in memory",
                    todo="ask for smaller pages, or raise max_page_bytes",
                )  # fmt: skip
            parts.append(part)
        return b"".join(parts)

    def _pace(self) -> None:
        if self._source.rate_limit:
            now = time.monotonic()
            if self._last is not None:
                wait = self._last + 1 / self._source.rate_limit - now
                if wait > 0:
                    self._sleep(wait)
                    now += wait
            self._last = now

    def _wait(self, failure: XOpsError, attempt: int) -> float:
        asked = failure.context.get("retry_after")
        if asked is not None:
            if asked > self._source.max_wait:
                failure.why = (
                    f"it asks to wait {asked:.0f} s; this source waits {self._source.max_wait:.0f} s"
                )
                raise failure
            return float(asked)
        longest: float = min(
            self._source.backoff * 2 ** (attempt - 1), LONGEST_BACKOFF_S, self._source.max_wait
        )
        # Half of it by chance, so that many tasks do not come back together.
        return longest * random.uniform(0.5, 1.0)


class _Again(Exception):
    """The request may succeed when it is made again."""

    def __init__(self, error: XOpsError, *, after: float | None = None) -> None:
        if after is not None:
            error.context["retry_after"] = after
        self.error = error
        super().__init__()


def address(url: str) -> str:
    """Host and path of ``url``: never its user, never its query."""
    parts = urlsplit(url)
    return f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait for (RFC 9110, section 10.2.3), against the server's own clock."""
    text, date = headers.get("Retry-After", "").strip(), headers.get("Date")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        now = datetime.now(UTC) if date is None else parsedate_to_datetime(date)
        return max((parsedate_to_datetime(text) - now).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def _refused(where: str, status: int) -> SourceError:
    code, why, todo = "source.refused", "the request is not what the API takes", "correct the source"
    if status in (401, 403, 407):
        code, why, todo = "source.forbidden", "the login was not accepted", "correct the connection's login"
    elif status in (404, 410):
        code, why, todo = "source.missing", "there is nothing at that address", "correct the endpoint"
    elif status in _REDIRECTS:
        why, todo = "it redirects, and does not say where to", "correct the endpoint"
    return SourceError(
        f"{where} answered {status}", code=code, why=why, todo=todo, context={"status": status}
    )


def _no_answer(where: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"{where} gave no whole answer", code="unavailable.api", why=why,
        todo="try again; if it stays, look at the server and at the timeout",
    )  # fmt: skip


class _Refused(ValueError):
    """JSON whose meaning is not sure; the text says why, and quotes nothing."""


def _parsed(content: bytes) -> Any:
    """The JSON of a page: every key once, every number with all its digits.

    :raises ValueError: it is none; ``_Refused``: it is, and may mean several things.
    """
    return json.loads(content, parse_constant=_no_number, parse_float=_exact, object_pairs_hook=_keys_once)


def _exact(text: str) -> float | Decimal:
    number = float(text)
    if math.isinf(number):
        raise _Refused("it has a number that no column holds")
    # Fifteen digits survive in a float; so do those that Python itself wrote.
    return number if len(text) <= FLOAT_DIGITS or repr(number) == text else Decimal(text)


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Refused("an object has a key twice")
    return found


def _no_number(name: str) -> Any:
    raise _Refused(f"{name} is not JSON")
