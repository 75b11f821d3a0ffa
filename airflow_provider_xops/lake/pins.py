"""Pins: dataset versions that vacuum must keep, and for whom.

For the registry, which pins what a model was trained and evaluated on, and for people, who put a version
under a legal hold. A pin is a record; it is never taken back by deleting it.
"""

from __future__ import annotations

from datetime import datetime

from airflow_provider_xops.errors import LakeError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, Pin

__all__ = ["pin", "pins"]


def pin(lake: Lake, ref: DatasetRef, *, reason: str, holder: str, actor: Actor, as_of: datetime) -> Pin:
    """Keep the files of one dataset version for as long as the lake lives.

    :param reason: why (``training data``, ``holdout``, ``legal hold``).
    :param holder: for whom: a model version, a decision, a case number.
    :raises LakeError: the version belongs to another lake (``lake.other_uuid``).

    Pinning the same version for the same reason and holder again changes nothing. It does not check that the
    version's files are still there.
    """
    if ref.lake_id != lake.lake_id:
        raise LakeError(
            f"{ref} is a version of lake {ref.lake_id}, this is lake {lake.lake_id}", code="lake.other_uuid",
            todo="open the lake that the version belongs to",
        )  # fmt: skip
    record = Pin(recorded_at=as_of, produced_by=actor.producer, dataset=ref, reason=reason, holder=holder)
    lake.evidence.put(record)
    return record


def pins(lake: Lake, table: str | None = None) -> list[Pin]:
    """The pins of a table, or all; ordered by table, version and holder."""
    found = [record for record in lake.evidence.all(Pin.kind) if isinstance(record, Pin)]
    return sorted(
        (each for each in found if table is None or each.dataset.table == table),
        key=lambda each: (each.dataset, each.holder, each.reason),
    )
