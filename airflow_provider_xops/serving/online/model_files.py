"""A model's files on this machine: brought here once, kept by their digest, proved before every use.

For loading in a server. With a folder that outlives the process, a server starts and rolls back while MLflow
is down: the files are found by the digest that the lake has on record, and a file that was changed since is
not used.

What it does not do: it is no sandbox. Who may write to the folder cannot slip in other files, but whoever
runs as this user can do anything this process can.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from airflow_provider_xops.errors import ArgumentError, ModelError
from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.registry.artifacts import artifact_digest, download
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import other_files

__all__ = ["KEEP", "ModelFiles"]

log = logging.getLogger(__name__)

KEEP = 5
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".part-"
# Nobody brings a model's files for longer than a day.
_UNFINISHED_FOR_NS = 24 * 3600 * 10**9


class ModelFiles:
    """Model files below one folder, one folder a digest; the least recently used beyond ``keep`` are removed.

    :param folder: where they are kept, made if it is not there, for this user alone; None: nowhere, and each
        load brings them anew. Any number of server processes may share it. One that others may write to costs
        a copy of the files at each load.
    :param keep: how many models' files stay, 2 or more (what serves, and where a rollback would go).
    :raises ArgumentError: ``argument.keep``.

    >>> with ModelFiles(Path("/var/lib/xops")).of(client, record) as path:  # doctest: +SKIP
    ...     estimator = read_model(path, record)
    """

    def __init__(self, folder: Path | None = None, *, keep: int = KEEP) -> None:
        if keep < 2:
            raise ArgumentError(
                f"the files of {keep} model(s) are too few to keep", code="argument.keep",
                todo=f"keep 2 or more; {KEEP} is usual",
            )  # fmt: skip
        self._folder = folder
        self._keep = keep

    @contextlib.contextmanager
    def of(self, client: RegistryClient, record: ModelVersion) -> Iterator[Path]:
        """The folder with the files of a version, with exactly the recorded digest while it is handed over.

        :raises ModelError: ``model.digest_mismatch``: MLflow serves other files; ``model.no_artifacts``.
        :raises UnavailableError: they are not here, and MLflow does not answer.
        """
        if self._folder is None:
            with tempfile.TemporaryDirectory(prefix="xops-model-") as folder:
                yield _fetched(client, record, Path(folder))
            return
        path = self._kept(record.artifact_digest) or self._bring(client, record)
        if _is_private(self._folder):
            yield path
            return
        # Somebody else could exchange them between the proof and the use: what is used is a proved copy.
        with tempfile.TemporaryDirectory(prefix="xops-model-") as folder:
            copy = Path(shutil.copytree(path, Path(folder) / "model"))
            digest = artifact_digest(copy)
            if digest != record.artifact_digest:
                raise other_files(record, digest)
            yield copy

    def _kept(self, digest: str) -> Path | None:
        """The files of a digest, if they are here and are still those."""
        assert self._folder is not None
        path = self._folder / digest
        if not _DIGEST.fullmatch(digest) or not path.is_dir():
            return None
        # A disk that cannot be read just now is no reason to throw away what MLflow may not give just now.
        with contextlib.suppress(ModelError, FileNotFoundError, PermissionError):
            if artifact_digest(path) == digest:
                with contextlib.suppress(OSError):
                    os.utime(path)
                return path
        log.warning("The kept files of digest %s are not those any more: they are brought anew.", digest[:12])
        self._remove(path)
        return None

    def _bring(self, client: RegistryClient, record: ModelVersion) -> Path:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._folder))
        try:
            found = _fetched(client, record, scratch)
            target = self._folder / record.artifact_digest
            try:
                found.rename(target)
            except OSError:
                # Another process of this machine was faster; what it put there is proved like anything else.
                if (kept := self._kept(record.artifact_digest)) is None:
                    found.rename(target)
                else:
                    target = kept
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.utime(target)
            self._tidy(target.stat().st_mtime_ns)
        return target

    def _tidy(self, now_ns: int) -> None:
        """Remove what was used least recently, and what killed processes left unfinished.

        A process that reads it at this moment brings it anew.
        """
        assert self._folder is not None
        there: dict[Path, int] = {}
        for each in self._folder.iterdir():
            # Another process may be tidying too.
            with contextlib.suppress(OSError):
                there[each] = each.stat().st_mtime_ns
        kept = sorted((path for path in there if _DIGEST.fullmatch(path.name)), key=lambda path: -there[path])
        for path in kept[self._keep :]:
            self._remove(path)
        for path, used_ns in there.items():
            if path.name.startswith(_UNFINISHED) and used_ns < now_ns - _UNFINISHED_FOR_NS:
                shutil.rmtree(path, ignore_errors=True)

    def _remove(self, path: Path) -> None:
        assert self._folder is not None
        with contextlib.suppress(OSError):
            # Renamed first: half-removed files must not be found under their digest.
            away = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._folder))
            with contextlib.suppress(OSError):
                path.rename(away / "removed")
            shutil.rmtree(away, ignore_errors=True)


def _is_private(folder: Path) -> bool:
    """Whether nobody but this user can put anything into a folder."""
    found = folder.stat()
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _fetched(client: RegistryClient, record: ModelVersion, into: Path) -> Path:
    found = download(client, record.source_uri, into / "model")
    digest = artifact_digest(found)
    if digest != record.artifact_digest:
        raise other_files(record, digest)
    return found
