"""What files of a prefix looked like when they were loaded, so that they are not read again.

For :mod:`airflow_provider_xops.data.source_prefix`. A note, not the truth: whatever is wrong with it, files
are read again, and found loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.data._prefix_store import ObjectInfo, shown
from airflow_provider_xops.data.declared_sources import PrefixSource

if TYPE_CHECKING:
    from airflow_provider_xops.lake.lake import Lake

__all__ = ["Notes"]

FOLDER = "_xops/prefixes"


class Notes:
    """Stamp and checksum of the files that ``source`` brought into the table ``raw``.

    Several sources may read one prefix: each has notes of its own.
    """

    def __init__(self, lake: Lake, raw: str, source: PrefixSource) -> None:
        self._lake, self._path, self._source = lake, f"{FOLDER}/{raw}.json", source
        self._known = self._read()

    def checksum(self, root: str, info: ObjectInfo) -> str | None:
        """The checksum of a file whose stamp is as it was when it was loaded."""
        notes = self._known.get(self._key(root))
        match notes.get(info.name) if isinstance(notes, dict) else None:
            case [stamp, str(checksum)] if stamp == info.stamp:
                return checksum
        return None

    def write(self, kept: Iterable[tuple[str, ObjectInfo, str | None]]) -> None:
        """Keep (prefix, file, checksum; None: as noted before) in the place of what was noted of them."""
        new: dict[str, dict[str, Any]] = {}
        for root, info, checksum in kept:
            new.setdefault(self._key(root), {})[info.name] = [
                info.stamp,
                checksum or self.checksum(root, info),
            ]
        if all(self._known.get(key) == notes for key, notes in new.items()):
            return
        merged = {**self._read(), **new}  # others have written meanwhile
        self._lake.storage.overwrite(self._path, json.dumps(merged).encode())

    def _key(self, root: str) -> str:
        return json.dumps([shown(root), self._source.pattern, self._source.name])

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._lake.storage.get(self._path) or b"{}")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}
