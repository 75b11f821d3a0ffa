"""A lake: one place with a UUID, a layout version, and everything this package keeps.

For whoever opens one (the hook, the ``xops`` command, notebooks). A lake is made on purpose by
:func:`init_lake` (``xops lake init URI``); :func:`open_lake` never makes one, because a mistyped path or a
folder that two machines do not share would silently be two lakes.

On disk (layout 2)::

    <lake>/_xops/lake.json                          UUID, layout version, who made it and when
    <lake>/_xops/evidence/<kind>/<record_id>.json   records, one object each, put-if-absent
    <lake>/_xops/folded/<kind>                      the same, folded into Delta tables by maintenance
    <lake>/_xops/ledger/<model>                     promotion ledgers (Delta)
    <lake>/_xops/reports/...                        validation results and their pages
    <lake>/<table>  <lake>/<table>__raw             published and raw tables (Delta)
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_provider_xops.errors import DataError, LakeError
from airflow_provider_xops.lake.evidence import EvidenceStore
from airflow_provider_xops.lake.storage import Storage, open_storage
from airflow_provider_xops.records import Actor
from airflow_provider_xops.settings import LakeSettings

__all__ = [
    "EVOLVING_LAYOUT",
    "LAKE_FILE",
    "LAYOUT_VERSION",
    "Lake",
    "LakeInfo",
    "init_lake",
    "migrate_lake",
    "open_lake",
]

log = logging.getLogger(__name__)

LAYOUT_VERSION = 2
# Layout 1 differs in one thing: no table of it ever got a column. It is read and written as it is.
WRITTEN_LAYOUT = 1
EVOLVING_LAYOUT = 2
LAKE_FILE = "_xops/lake.json"


@dataclass(frozen=True, kw_only=True)
class LakeInfo:
    """What ``lake.json`` says. ``created`` is True for the one call that wrote it."""

    lake_id: str
    layout_version: int
    created_at: str
    created_by: str
    created: bool = False


@dataclass(frozen=True)
class Lake:
    """An open lake. Cheap to make; tables are opened by those who use them, never kept across a fork."""

    info: LakeInfo
    settings: LakeSettings
    storage: Storage = field(repr=False)
    evidence: EvidenceStore = field(repr=False)

    @property
    def lake_id(self) -> str:
        """The UUID that every dataset version of this lake carries."""
        return self.info.lake_id

    @property
    def uri(self) -> str:
        """Where it is, without credentials."""
        return self.storage.uri


def init_lake(settings: LakeSettings, *, actor: Actor, as_of: datetime) -> LakeInfo:
    """Make a lake at ``settings.uri``; an existing one of the same layout is returned with ``created=False``.

    :param actor: who makes it; named in ``lake.json``.
    :param as_of: the time to record (aware, UTC).
    :raises LakeError: the storage has no put-if-absent (``lake.unsafe_storage``), cannot be written
        (``lake.not_writable``, ``lake.forbidden``), or holds a lake of another layout or UUID.
    """
    if as_of.tzinfo is None:
        raise DataError(
            "as_of has no time zone", code="data.naive_timestamp", todo="pass an aware UTC datetime"
        )
    storage = open_storage(settings)
    if storage.get(LAKE_FILE) is None:
        if settings.expected_lake_id:
            # Most likely a folder that this machine does not share: a twin with the same UUID would hide it.
            raise LakeError(
                f"there is no lake at {storage.uri}, and lake {settings.expected_lake_id} is expected there",
                code="lake.other_uuid", why="a new lake gets a new UUID",
                todo="correct the URI, or make the new lake without an expected id",
            )  # fmt: skip
        storage.check_put_if_absent()
        content: dict[str, Any] = {
            "lake_id": str(uuid.uuid4()),
            "layout_version": LAYOUT_VERSION,
            "created_at": as_of.isoformat(),
            "created_by": actor.producer.id,
        }
        if storage.put_if_absent(LAKE_FILE, _encode(content)):
            log.info("Made lake %s at %s.", content["lake_id"], storage.uri)
            return LakeInfo(**content, created=True)
    info = _checked_info(settings, storage)
    if info.layout_version < WRITTEN_LAYOUT:
        raise _older(storage, info.layout_version)
    return info


def open_lake(settings: LakeSettings) -> Lake:
    """The lake at ``settings.uri``. One of an older layout is read as it is; every write to it raises
    ``lake.layout_older``.

    :raises LakeError: there is none (``lake.not_found``), it has another UUID than expected
        (``lake.other_uuid``), or a newer layout (``lake.layout_newer``).
    """
    storage = open_storage(settings)
    info = _checked_info(settings, storage)
    if info.layout_version < WRITTEN_LAYOUT:
        log.warning(
            "The lake at %s has layout %d: it can be read, not written; run `xops lake migrate %s`.",
            storage.uri, info.layout_version, storage.uri,
        )  # fmt: skip
        storage.refuse_writes(_older(storage, info.layout_version))
    return Lake(info, settings, storage, EvidenceStore(storage))


def migrate_lake(settings: LakeSettings, *, actor: Actor, as_of: datetime) -> LakeInfo:
    """Bring a lake to this package's layout; one that has it already is left alone.

    Every step may be repeated, so a killed migration is simply run again. The old ``lake.json`` is kept as
    ``_xops/lake.layout-<n>.json``.

    :raises LakeError: there is no lake, another UUID, or a newer layout than this package knows.
    """
    storage = open_storage(settings)
    content = _read(storage)
    _check_uuid(settings, storage, content)
    found = _layout(content)
    if found > LAYOUT_VERSION:
        raise _newer(storage, found)
    if found < LAYOUT_VERSION:
        # Layout 0 is a lake.json from before layouts were numbered; its folders are those of layout 1.
        storage.put_if_absent(f"_xops/lake.layout-{found}.json", _encode(content))
        moved = {**content, "layout_version": LAYOUT_VERSION, "migrated_from": found}
        moved |= {"migrated_at": as_of.isoformat(), "migrated_by": actor.producer.id}
        storage.overwrite(LAKE_FILE, _encode(moved))
        log.info(
            "Moved lake %s at %s from layout %d to %d.",
            content["lake_id"],
            storage.uri,
            found,
            LAYOUT_VERSION,
        )
    return _checked_info(settings, storage)


def _checked_info(settings: LakeSettings, storage: Storage) -> LakeInfo:
    content = _read(storage)
    _check_uuid(settings, storage, content)
    layout = _layout(content)
    if layout > LAYOUT_VERSION:
        raise _newer(storage, layout)
    return LakeInfo(
        lake_id=content["lake_id"],
        layout_version=layout,
        created_at=str(content.get("created_at", "")),
        created_by=str(content.get("created_by", "")),
    )


def _read(storage: Storage) -> dict[str, Any]:
    raw = storage.get(LAKE_FILE)
    if raw is None:
        raise LakeError(
            f"there is no lake at {storage.uri}", code="lake.not_found",
            why=f"{LAKE_FILE} does not exist there",
            todo=f"correct the URI, or make a lake with `xops lake init {storage.uri}`",
        )  # fmt: skip
    try:
        content = json.loads(raw)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("lake_id"), str):
        raise LakeError(
            f"{storage.uri}/{LAKE_FILE} cannot be read", code="lake.unreadable",
            why="it is not a JSON object with a lake_id",
            todo="restore it from a backup; do not make a new lake over it",
        )  # fmt: skip
    return content


def _check_uuid(settings: LakeSettings, storage: Storage, content: dict[str, Any]) -> None:
    expected = settings.expected_lake_id
    if expected and content["lake_id"] != expected:
        raise LakeError(
            f"the lake at {storage.uri} is {content['lake_id']}, expected {expected}", code="lake.other_uuid",
            why="the URI names another lake, or a folder that this machine does not share with the others",
            todo="correct the URI or the expected lake id of the connection",
            context={"lake_id": content["lake_id"], "expected": expected},
        )  # fmt: skip


def _layout(content: dict[str, Any]) -> int:
    layout = content.get("layout_version", 0)
    return layout if isinstance(layout, int) else 0


def _newer(storage: Storage, layout: int) -> LakeError:
    return LakeError(
        f"the lake at {storage.uri} has layout {layout}, this package knows up to {LAYOUT_VERSION}",
        code="lake.layout_newer", todo="upgrade airflow-provider-xops", context={"layout_version": layout},
    )  # fmt: skip


def _older(storage: Storage, layout: int) -> LakeError:
    return LakeError(
        f"the lake at {storage.uri} has layout {layout}, this package writes layout {LAYOUT_VERSION}",
        code="lake.layout_older", why="an older layout is only read",
        todo=f"run `xops lake migrate {storage.uri}`", context={"layout_version": layout},
    )  # fmt: skip


def _encode(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
