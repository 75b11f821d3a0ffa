"""Files under a prefix: what a listing tells of each, and a local folder as one kind of store.

For :mod:`airflow_provider_xops.data.source_prefix`. The operator brings the other kind: Airflow's object
storage.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

__all__ = ["LocalFolder", "ObjectInfo", "Store", "shown"]


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One file as a listing shows it.

    :param name: relative to the prefix, with ``/``.
    :param uri: its whole address, without credentials.
    :param tag: whatever else changes when the content does (an ETag, a time in nanoseconds).
    """

    name: str
    uri: str
    size: int
    modified: datetime | None
    tag: str

    @property
    def stamp(self) -> list[str]:
        """Equal stamps: the file was most likely not written to in between."""
        return [str(self.size), "" if self.modified is None else self.modified.isoformat(), self.tag]


class Store(Protocol):
    """Where files are. Its errors are the operating system's (``OSError`` and those below it)."""

    def list(self) -> Iterator[ObjectInfo]:
        """All files below the prefix, in any order; none where there is no such folder."""

    def look(self, found: ObjectInfo) -> ObjectInfo | None:
        """The file as it is now; None: it is gone."""

    def open(self, found: ObjectInfo) -> BinaryIO:
        """Its bytes."""


def shown(uri: str) -> str:
    """``uri`` without what stands before an ``@`` in its host: a key, or the name of a connection.

    >>> shown("s3://key:secret@landing/in@home/"), shown("/in/me@home/")
    ('s3://landing/in@home/', '/in/me@home/')
    """
    scheme, mark, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


class LocalFolder:
    """A folder of this machine, or one that is mounted.

    :param uri: a path or ``file://``.
    """

    def __init__(self, uri: str) -> None:
        path = url2pathname(urlsplit(uri).path) if uri.startswith("file://") else uri
        self.root = Path(path).expanduser().absolute()

    def list(self) -> Iterator[ObjectInfo]:
        for folder, _, names in os.walk(self.root, onerror=_raise):
            for name in names:
                found = self._info(Path(folder) / name)
                if found is not None:
                    yield found

    def look(self, found: ObjectInfo) -> ObjectInfo | None:
        return self._info(self.root / found.name)

    def open(self, found: ObjectInfo) -> BinaryIO:
        return (self.root / found.name).open("rb")

    def _info(self, path: Path) -> ObjectInfo | None:
        try:
            state = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(state.st_mode):  # to open a pipe waits for whoever writes into it
            return None
        return ObjectInfo(
            name=path.relative_to(self.root).as_posix(),
            uri=path.as_uri(),
            size=state.st_size,
            modified=datetime.fromtimestamp(state.st_mtime, UTC),
            tag=f"{state.st_mtime_ns}-{state.st_ino}",
        )


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
