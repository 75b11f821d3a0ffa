"""The bytes of one source file: opened by URI, identified by SHA-256, and checked again while they are read.

For the format readers of ingestion. What was hashed decides whether a batch is already in the lake, so the
bytes that are read later must be those bytes. Identifying is one streaming pass before anything is read (the
decision "already done" needs it); reading hashes a second time, and a difference is a typed, retryable error.

What it does not do: keep a copy. A remote file is downloaded once to be identified and once more to be read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname

from airflow_provider_xops.errors import ArgumentError, SourceError, UnavailableError, XOpsError
from airflow_provider_xops.records import SourceFile

__all__ = ["HashedStream", "OpenFile", "SourceBytes"]

log = logging.getLogger(__name__)

OpenFile = Callable[[str], BinaryIO]
CHUNK_BYTES = 1 << 20


class HashedStream(io.RawIOBase):
    """A stream that hashes what passes through it. :meth:`verify` reads the rest and compares."""

    def __init__(self, raw: BinaryIO, source: SourceBytes) -> None:
        self._raw = raw
        self._source = source
        self._sha = hashlib.sha256()
        self.size_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._source.typed_errors():
            data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self._sha.update(data)
        self.size_bytes += len(data)
        return len(data)

    def drain(self) -> str:
        """Read what is left and give the SHA-256 (hex) of everything."""
        buffer = bytearray(CHUNK_BYTES)
        while self.readinto(buffer):
            pass
        return self._sha.hexdigest()

    def verify(self, expected: SourceFile) -> None:
        """:raises SourceError: ``source.changed`` (retryable) if this was not what was identified."""
        if self.drain() != expected.sha256:
            raise self._source.changed()

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class SourceBytes:
    """One file by URI.

    :param uri: a path, ``file://``, or whatever ``open_file`` understands. Credentials in it are never
        recorded.
    :param open_file: opens a URI for binary reading; needed for everything that is not a local file. Its
        FileNotFoundError and PermissionError become typed errors, its other failures are retryable.
    :raises ArgumentError: the URI is empty (``argument.empty``) or has no opener (``argument.source_uri``).
    """

    def __init__(self, uri: str, *, open_file: OpenFile | None = None) -> None:
        if not isinstance(uri, str) or not uri.strip():
            raise ArgumentError(
                "a source URI is empty",
                code="argument.empty",
                why="a template rendered to nothing, or none was given",
                todo="print the rendered template of the task and correct its variables",
            )
        self._raw_uri = uri.strip()
        self.path = _local_path(self._raw_uri)
        self._open_file = open_file
        self.uri = self.path.absolute().as_uri() if self.path else _without_secrets(self._raw_uri)
        self.name = (
            self.path.name if self.path else urlsplit(self._raw_uri).path.rstrip("/").rpartition("/")[2]
        ) or self.uri
        if self.path is None and open_file is None:
            raise ArgumentError(
                f"nothing here opens {self.uri}", code="argument.source_uri",
                why="only local files are read without an opener",
                todo="pass open_file, or use the operator, which opens any ObjectStoragePath",
            )  # fmt: skip

    @property
    def compressed(self) -> bool:
        """Whether the file is gzip by its name; its checksum is that of the compressed bytes."""
        return self.name.lower().endswith(".gz")

    def identify(self) -> SourceFile:
        """Read the file once, in blocks, and give its name, size, time and SHA-256.

        :raises SourceError: ``source.missing``, ``source.forbidden``, ``source.not_a_file``.
        :raises UnavailableError: the storage did not answer (retryable).
        """
        modified = None
        with self.open() as stream:
            if self.path is not None:
                with self.typed_errors():
                    modified = datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
            digest = stream.drain()
            size = stream.size_bytes
        log.info("Read %s: %d bytes, SHA-256 %s.", self.name, size, digest[:16])
        return SourceFile(uri=self.uri, name=self.name, sha256=digest, size_bytes=size, modified_at=modified)

    def open(self) -> HashedStream:
        """The stored bytes as a hashing stream."""
        with self.typed_errors():
            if self.path is not None:
                if self.path.is_dir():
                    raise SourceError(
                        f"{self.name} is a folder", code="source.not_a_file", todo="name its files one by one"
                    )
                raw: BinaryIO = self.path.open("rb")
            else:
                assert self._open_file is not None
                raw = self._open_file(self._raw_uri)
        return HashedStream(raw, self)

    @contextmanager
    def reading(self, expected: SourceFile | None) -> Iterator[io.BufferedReader]:
        """The content, decompressed; when the block ends well, all stored bytes are verified.

        :param expected: what was identified; None reads without comparing.
        """
        stream = self.open()
        try:
            content: Any = (
                gzip.GzipFile(fileobj=io.BufferedReader(stream, CHUNK_BYTES)) if self.compressed else stream
            )
            with self.typed_errors():
                yield io.BufferedReader(content, CHUNK_BYTES)
            if expected is not None:
                stream.verify(expected)
        finally:
            stream.close()

    @contextmanager
    def typed_errors(self) -> Iterator[None]:
        """Turn the operating system's and the opener's errors into typed ones."""
        try:
            yield
        except XOpsError:
            raise
        except FileNotFoundError:
            raise SourceError(
                f"there is no file {self.uri}",
                code="source.missing",
                why="nothing is stored under that name",
                todo="check the path, or wait for the delivery with a sensor before this task",
            ) from None
        except PermissionError:
            raise SourceError(
                f"{self.uri} may not be read", code="source.forbidden", why="the storage refused access",
                todo="grant read access to the account the worker runs as",
            ) from None  # fmt: skip
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise SourceError(
                f"{self.name} is cut short or damaged",
                code="source.truncated",
                why="its gzip stream does not end",
                todo="deliver the file again, complete",
            ) from None
        except OSError as error:
            raise UnavailableError(
                f"{self.uri} could not be read", code="unavailable.source", why=type(error).__name__,
                todo="try again; if it stays, check the storage and its connection",
            ) from error  # fmt: skip

    def changed(self) -> SourceError:
        """The error of a file that is no longer what was identified."""
        return SourceError(
            f"{self.name} changed while it was being loaded", code="source.changed",
            why="its bytes are not those that were hashed before", retryable=True,
            todo="try again; have the sender write to another name and rename at the end",
        )  # fmt: skip


def _local_path(uri: str) -> Path | None:
    if uri.startswith("file://"):
        return Path(url2pathname(urlsplit(uri).path))
    return None if "://" in uri else Path(uri).expanduser()


def _without_secrets(uri: str) -> str:
    # User info may be a key, a query may be a signature: neither names the file.
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
