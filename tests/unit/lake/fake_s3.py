"""A tiny S3 server that misbehaves on purpose: what no real server can be asked to do.

It knows GET, HEAD, PUT, DELETE and ListObjectsV2 of one bucket, and checks no signature.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from airflow_provider_xops.settings import LakeSettings

__all__ = ["FakeS3", "fake_s3"]


@dataclass
class FakeS3:
    """The server's behavior and what it has seen.

    :param conditional: honor ``If-None-Match: *``; False ignores it, None answers 501.
    :param script: for the next PUTs, one word each: ``lost`` (stored, no answer), ``conflict`` (409),
        ``silent`` (no answer until the end), or a status code.
    :param refused: access keys whose requests get ``refusal``.
    """

    conditional: bool | None = True
    script: list[str] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    refusal: tuple[int, str] = (403, "AccessDenied")
    port: int = 0
    objects: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def settings(self, **changes: Any) -> LakeSettings:
        """Settings of a lake on it."""
        options = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key-one", "AWS_SECRET_ACCESS_KEY": "s3cr3t-value",
        }  # fmt: skip
        return LakeSettings(
            **({"uri": "s3://bucket/lake", "storage_options": options, "timeout_s": 5} | changes)
        )

    def keys_used(self) -> list[str]:
        """The access key of each request, in order."""
        return [key for _method, _path, key in self.requests]


@contextmanager
def fake_s3(**behavior: Any) -> Iterator[FakeS3]:
    """Run one on a free port of this machine."""
    fake = FakeS3(**behavior)
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield fake
    finally:
        fake.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeS3
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        if not self._admitted():
            return
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            prefix = query.get("prefix", [""])[0]
            keys = sorted(key for key in self.fake.objects if key.startswith(prefix))
            items = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
            self._answer(
                200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()
            )
        elif self._key() in self.fake.objects:
            data, metadata = self.fake.objects[self._key()]
            self._answer(200, data, metadata)
        else:
            self._fail(404, "NoSuchKey")

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        if self._admitted():
            self.fake.objects.pop(self._key(), None)
            self._answer(204)

    def do_PUT(self) -> None:
        body = self._body()
        if not self._admitted():
            return
        with self.fake.lock:
            word = self.fake.script.pop(0) if self.fake.script else ""
        if word == "silent":
            self.fake.ended.wait()
            self.close_connection = True
        elif word == "conflict":
            self._fail(409, "ConditionalRequestConflict")
        elif word.isdigit():
            self._fail(int(word), "InternalError")
        elif self.headers.get("If-None-Match") and self.fake.conditional is None:
            self._fail(501, "NotImplemented")
        else:
            self._store(body, lost=word == "lost")

    def _store(self, body: bytes, *, lost: bool) -> None:
        metadata = {
            name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-meta-")
        }
        with self.fake.lock:
            taken = self._key() in self.fake.objects
            refused = taken and bool(self.headers.get("If-None-Match")) and self.fake.conditional
            if not refused:
                self.fake.objects[self._key()] = (body, metadata)
        if lost:
            self.close_connection = True
        elif refused:
            self._fail(412, "PreconditionFailed")
        else:
            self._answer(200)

    def _admitted(self) -> bool:
        key = self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
        self.fake.requests.append((self.command, self.path, key))
        if key in self.fake.refused:
            self._fail(*self.fake.refusal)
            return False
        return True

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/bucket/")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Content-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return data

    def _fail(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
