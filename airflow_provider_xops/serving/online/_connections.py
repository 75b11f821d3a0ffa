"""HTTP connections with bounded headers, bodies, queues and answers: uvicorn's protocol bounds none of these.

Private to :mod:`airflow_provider_xops.serving.online.process`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from airflow_provider_xops.serving.online.limits import Limits

__all__ = ["MOST_QUEUED", "bounded_protocol"]

_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

#: requests that may wait on one connection for the answer to an earlier one
MOST_QUEUED = 32
# A body in chunks of one byte each is six times as long on the wire.
_WIRE_BYTES = 8


def bounded_protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """uvicorn's HTTP protocol, ending a connection that sends too slowly or too much, or takes no answer."""
    return type("_Protocol", (_BoundedProtocol,), {"limits": limits})


class _Flow(FlowControl):
    """Reads nothing more while requests of the connection wait for their turn."""

    def __init__(self, transport: asyncio.Transport, queued: Sized) -> None:
        super().__init__(transport)
        self._queued = queued

    def resume_reading(self) -> None:
        if not self._queued:
            super().resume_reading()


class _BoundedProtocol(HttpToolsProtocol):
    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        # Between the end of a request's headers and the end of its body.
        self._in_body = False
        # Bytes of the headers or of the body that are coming in; and whether a part ended in these data.
        self._bytes = 0
        self._turned = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        # A connection that never sends a byte is ended like one that sends them slowly.
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._is_idle():
            if not self._in_body and self._header_timer is None:
                self._await_headers()
            elif self._in_body and self._body_timer is None:
                # Refused before its body was read: the rest is thrown away, for as long as a body may take.
                self._body_timer = self.loop.call_later(self.limits.body_seconds, self.transport.abort)
        self._turned = False
        super().data_received(data)
        self._bytes = 0 if self._turned else self._bytes + len(data)
        if self._in_body:
            if self._bytes > _WIRE_BYTES * self.limits.body_bytes + self.limits.header_bytes:
                self.transport.abort()
        elif self._bytes > self.limits.header_bytes:
            self._end(_LARGE)

    def on_headers_complete(self) -> None:
        self._header_timer = _stopped(self._header_timer)
        self._in_body = self._turned = True
        if len(self.pipeline) >= MOST_QUEUED:
            # No answer: the client would take it for that of an earlier request.
            self.transport.abort()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._body_timer = _stopped(self._body_timer)
        self._in_body, self._turned = False, True
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.flow.resume_reading()
        self._see_off()

    def send_400_response(self, msg: str) -> None:
        if self.pipeline or not (self._in_body or self._is_idle()):
            self.transport.abort()
        else:
            super().send_400_response(msg)
            self._see_off()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._write_timer = _stopped(self._write_timer)

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._header_timer, self._body_timer, self._write_timer):
            _stopped(timer)
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        """Whether every request so far has its answer."""
        return self.cycle is None or self.cycle.response_complete

    def _await_headers(self) -> None:
        self._bytes = 0
        self._header_timer = self.loop.call_later(self.limits.header_seconds, self._end, _SLOW)

    def _await_reader(self) -> None:
        """A client that does not take its answers would keep them, and its connection, for good."""
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.idle_seconds, self.transport.abort)

    def _see_off(self) -> None:
        """A connection that is being closed still waits for its client to take what was written."""
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._await_reader()

    def _end(self, answer: bytes) -> None:
        self._header_timer = _stopped(self._header_timer)
        if not self._is_idle():
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
            self._see_off()


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """What is left of a timer: nothing."""
    if timer is not None:
        timer.cancel()
    return None
