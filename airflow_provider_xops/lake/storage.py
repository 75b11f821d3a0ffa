"""The files of a lake: a local folder or an S3 bucket behind one small interface.

For the rooms of the lake, which keep everything in it (evidence, data files, ``lake.json``). Its one promise
is :meth:`Storage.put_if_absent`: of any number of writers of one name exactly one wins. Storage that cannot
keep it is refused by :meth:`Storage.check_put_if_absent`.

Paths are relative to the lake, with ``/``. Every failure is typed: ``lake.not_writable``, ``lake.forbidden``,
``lake.unsafe_storage``, or ``unavailable.storage`` (retryable).
"""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import os
import shutil
import tempfile
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from airflow_provider_xops.errors import ArgumentError, LakeError, UnavailableError, XOpsError
from airflow_provider_xops.settings import LakeSettings

__all__ = ["SCRATCH", "LocalStorage", "Storage", "open_storage"]

log = logging.getLogger(__name__)

SCRATCH = "_xops/tmp"
PROBES = "_xops/probe"
RACERS = 8

_NO_ACCESS = {errno.EACCES, errno.EPERM}
_CANNOT_WRITE = {
    errno.EROFS,
    errno.ENOTDIR,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}
_CANNOT_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Storage(ABC):
    """Named bytes below one root.

    :ivar uri: the root, normalized: an absolute path or ``s3://bucket/prefix``, without credentials.
    """

    uri: str
    _refusal: XOpsError | None = None

    def refuse_writes(self, error: XOpsError) -> None:
        """From here on every write to the lake raises ``error``; reading goes on."""
        self._refusal = error

    def check_writable(self) -> None:
        """For whoever writes by another way, such as deltalake's: raise what writes are refused with."""
        if self._refusal is not None:
            raise copy.copy(self._refusal)

    @abstractmethod
    def put_if_absent(self, path: str, data: bytes, *, content_type: str | None = None) -> bool:
        """Write ``data`` whole at ``path`` unless something is there. True: written; False: it was there."""

    @abstractmethod
    def overwrite(self, path: str, data: bytes) -> None:
        """Write ``data`` whole at ``path``, whatever is there; readers see the old or the new bytes."""

    @abstractmethod
    def get(self, path: str) -> bytes | None:
        """The bytes at ``path``; None if there is nothing."""

    def get_many(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """``(path, bytes or None)`` of each path, in their order."""
        return ((path, self.get(path)) for path in paths)

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is something at ``path``."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[str]:
        """Every path that begins with ``prefix`` (text, not folder), sorted; scratch files are left out."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove what is at ``path``; nothing there is fine."""

    @abstractmethod
    def upload(self, local: Path, path: str) -> None:
        """Move the local file to ``path``, which must be a new name; the local file may be gone afterwards.

        Like a Delta commit, it survives the death of the process, not of the machine: nothing is synced.
        """

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Path]:
        """A local folder for files on their way to :meth:`upload`; removed at the end."""

    @abstractmethod
    def delta_options(self) -> dict[str, str]:
        """``storage_options`` for deltalake, with credentials as fresh as at this call."""

    def clean_scratch(self, *, older_than: datetime) -> int:
        """Remove scratch files that killed processes left behind; gives their number."""
        return 0

    def table_uri(self, name: str) -> str:
        """Where deltalake finds the table ``name`` of this lake."""
        return f"{self.uri}/{checked(name)}"

    def check_put_if_absent(self) -> None:
        """Prove on fresh names that exactly one writer of a name wins, one after the other and all at once.

        :raises LakeError: ``lake.unsafe_storage`` if not; the storage's other errors as they come.
        """
        self._probe_once()
        self._probe_race()
        log.info("The storage at %s keeps put-if-absent: one winner of %d writers.", self.uri, RACERS)

    def _probe_once(self) -> None:
        path = f"{PROBES}/{uuid.uuid4().hex}"
        try:
            first, second = self.put_if_absent(path, b"first"), self.put_if_absent(path, b"second")
            if not first or second or self.get(path) != b"first":
                raise unsafe_storage(self.uri, "a second write to the same name replaced the first one")
        finally:
            self.delete(path)

    def _probe_race(self) -> None:
        path = f"{PROBES}/{uuid.uuid4().hex}"
        start = threading.Barrier(RACERS)

        def race(number: int) -> bool:
            start.wait()
            return self.put_if_absent(path, str(number).encode())

        try:
            with ThreadPoolExecutor(RACERS) as pool:
                won = [number for number, winner in enumerate(pool.map(race, range(RACERS))) if winner]
            if len(won) != 1 or self.get(path) != str(won[0]).encode():
                raise unsafe_storage(
                    self.uri, f"{len(won)} of {RACERS} writers of one name were told that they won"
                )
        finally:
            self.delete(path)


class LocalStorage(Storage):
    """A folder of this machine (or a POSIX file system that all workers mount)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def put_if_absent(self, path: str, data: bytes, *, content_type: str | None = None) -> bool:
        self.check_writable()
        target = self._path(path)
        with self._errors("write", path), self._written(data) as temporary:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in _CANNOT_LINK:
                    raise unsafe_storage(self.uri, "its file system has no hard links") from None
                raise
            _sync_folder(target.parent)
        return True

    def overwrite(self, path: str, data: bytes) -> None:
        self.check_writable()
        target = self._path(path)
        with self._errors("write", path), self._written(data) as temporary:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
            _sync_folder(target.parent)

    def get(self, path: str) -> bytes | None:
        with self._errors("read", path):
            try:
                return self._path(path).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def exists(self, path: str) -> bool:
        with self._errors("read", path):
            try:
                self._path(path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        found = []
        with self._errors("list", prefix):
            for parent, _folders, names in os.walk(
                self._path(folder) if folder else self.root, onerror=_raise
            ):
                relative = Path(parent).relative_to(self.root).as_posix()
                start = "" if relative == "." else f"{relative}/"
                if not f"{start}/".startswith(f"{SCRATCH}/"):
                    found += [start + name for name in names if (start + name).startswith(prefix)]
        return iter(sorted(found))

    def delete(self, path: str) -> None:
        self.check_writable()
        with self._errors("delete", path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._path(path).unlink()

    def upload(self, local: Path, path: str) -> None:
        self.check_writable()
        target = self._path(path)
        with self._errors("write", path):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                local.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                with (
                    self.scratch() as folder
                ):  # another file system: copy first, so that the name appears whole
                    shutil.copyfile(local, folder / target.name)
                    (folder / target.name).replace(target)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with self._errors("write", SCRATCH):
            parent = self._path(SCRATCH)
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def clean_scratch(self, *, older_than: datetime) -> int:
        parent, removed = self._path(SCRATCH), 0
        for entry in sorted(parent.iterdir()) if parent.is_dir() else []:
            with contextlib.suppress(FileNotFoundError), self._errors("delete", SCRATCH):
                if entry.lstat().st_mtime < older_than.timestamp():
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                    removed += 1
        return removed

    def delta_options(self) -> dict[str, str]:
        return {}

    def _path(self, path: str) -> Path:
        return self.root / checked(path)

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """A synced temporary file with ``data``, in the same file system as the lake; removed at the end."""
        folder = self._path(SCRATCH)
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes it private; files of a lake follow their writer's umask, like any other file.
            temporary.chmod(0o666 & ~_umask())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _errors(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._typed(error, verb, path) from error

    def _typed(self, error: OSError, verb: str, path: str) -> XOpsError:
        what, why = (
            f"cannot {verb} {path} in the lake at {self.uri}",
            (error.strerror or type(error).__name__).lower(),
        )
        writing = verb in ("write", "delete")
        if error.errno in _NO_ACCESS or (writing and error.errno in _CANNOT_WRITE):
            return LakeError(
                what, why=why, code="lake.not_writable" if writing else "lake.forbidden",
                todo=f"let this user {'write' if writing else 'read'} there, or use another folder",
            )  # fmt: skip
        return UnavailableError(
            what, why=why, code="unavailable.storage", todo="check the disk or the mount, then retry"
        )


def open_storage(settings: LakeSettings) -> Storage:
    """The storage that ``settings`` name. Nothing is contacted or created by this call alone.

    :raises LakeError: ``lake.scheme`` for anything but a local folder or ``s3://``.

    >>> open_storage(LakeSettings("file:///data/lake")).uri
    '/data/lake'
    """
    scheme = urlsplit(settings.uri).scheme if "://" in settings.uri else ""
    if scheme == "s3":
        from airflow_provider_xops.lake._s3 import (
            S3Storage,
        )  # boto3 is heavy, and a local lake needs none of it

        return S3Storage(settings)
    if scheme in ("", "file"):
        return LocalStorage(_local_root(settings.uri))
    raise LakeError(
        f"a lake cannot be at {settings.uri}", code="lake.scheme",
        why=f"{scheme}:// is neither a local folder nor S3",
        todo="use a path, file:// or s3://",
    )  # fmt: skip


def checked(path: str) -> str:
    """``path`` if it is a plain relative path below the lake.

    :raises ArgumentError: ``argument.path`` if it is empty, absolute, or leaves the lake.
    """
    parts = path.rstrip("/").split("/")
    if not path or any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        raise ArgumentError(
            f"{path!r} is not a path inside the lake",
            code="argument.path",
            todo="use a relative path without '..'",
        )
    return path


def unsafe_storage(uri: str, why: str) -> LakeError:
    """The error for storage on which two writers of one name can both win."""
    return LakeError(
        f"the storage at {uri} has no put-if-absent", code="lake.unsafe_storage", why=why,
        todo="put the lake on a local disk, or on S3 storage that honors conditional writes (If-None-Match)",
    )  # fmt: skip


def _local_root(uri: str) -> Path:
    if not uri.startswith("file://"):
        return Path(os.path.abspath(os.path.expanduser(uri)))
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise LakeError(
            f"a lake cannot be at {uri}", code="lake.scheme", why=f"{parts.netloc!r} is another machine",
            todo="use file:///absolute/path",
        )  # fmt: skip
    return Path(os.path.abspath(url2pathname(parts.path)))


def _umask() -> int:
    # os.umask changes it to read it, which other threads would see; /proc only tells.
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
