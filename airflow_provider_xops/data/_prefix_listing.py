"""The files of a prefix that may be loaded, and where each belongs.

For :mod:`airflow_provider_xops.data.source_prefix`.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_xops.data._prefix_store import ObjectInfo, Store, shown
from airflow_provider_xops.data.declared_sources import PrefixSource
from airflow_provider_xops.errors import ArgumentError, SourceError, UnavailableError
from airflow_provider_xops.lake.data_files import short_batch

__all__ = ["Found", "listed_files", "storage_errors"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Found:
    """One file of the listing, and where it belongs."""

    info: ObjectInfo
    store: Any
    root: str
    partition: str
    batch_id: str

    @property
    def place(self) -> tuple[str, str]:
        return self.partition, short_batch(self.batch_id)


def listed_files(
    source: PrefixSource, store: Callable[[str], Store], partitions: Sequence[str], as_of: datetime
) -> list[Found]:
    """The files that may be loaded, by name."""
    youngest = None
    if source.min_age is not None:
        age = source.min_age if isinstance(source.min_age, timedelta) else timedelta(seconds=source.min_age)
        youngest = as_of - age
    found, young = [], 0
    for partition in partitions:
        root = source.uri.replace("{partition}", partition)
        place = store(root)
        with storage_errors(shown(root)):
            infos = sorted(place.list(), key=lambda info: info.name)
        for info in infos:
            hidden = any(part.startswith((".", "_")) for part in info.name.split("/"))
            if hidden or not fnmatch.fnmatchcase(info.name, source.pattern):
                continue
            if youngest is not None and _moment(info) > youngest:
                young += 1
                continue
            if not info.name.isprintable():
                _check_name(info.name)
            batch = f"{source.name}/{info.name}" if source.name else info.name
            own = _partition_of(source, info.name, partition)
            found.append(Found(info=info, store=place, root=root, partition=own, batch_id=batch))
    if young:
        log.info("%d files are younger than min_age: they wait for a later run.", young)
    return found


def _check_name(name: str) -> None:
    """:raises SourceError: ``source.encoding``."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SourceError(
            f"the name of the file {name.encode(errors='backslashreplace').decode()} is not UTF-8",
            code="source.encoding", why="its batch is called after it", todo="rename the file",
        ) from None  # fmt: skip


def _partition_of(source: PrefixSource, name: str, partition: str) -> str:
    if source.partition_from is None:
        return partition
    match = re.search(source.partition_from, name)
    if match is None or not match.groups() or not match[1]:
        raise SourceError(
            f"the name {name} does not say its partition", code="source.partition_name",
            why=f"{source.partition_from!r} is not found in it, or has no group",
            todo="correct partition_from, or let pattern leave the file out",
        )  # fmt: skip
    return match[1]


def _moment(info: ObjectInfo) -> datetime:
    if info.modified is None:
        raise ArgumentError(
            f"the storage does not say when {info.name} was written", code="argument.min_age",
            todo="leave min_age out for this storage",
        )  # fmt: skip
    return info.modified


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise SourceError(
            f"{what} may not be read", code="source.forbidden", why="the storage refused access",
            todo="grant read access to the account the worker runs as",
        ) from None  # fmt: skip
    except OSError as error:
        raise UnavailableError(
            f"{what} could not be read", code="unavailable.source", why=type(error).__name__,
            todo="try again; if it stays, check the storage and its connection",
        ) from None  # fmt: skip
