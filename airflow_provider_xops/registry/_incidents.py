"""Incidents that are opened once and closed when what they are about is in order again.

Private to :mod:`airflow_provider_xops.registry.reconcile`. Records are never changed, so an incident is
closed by another record that names it. The same trouble after that is a new incident: its evidence names the
record that closed the one before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from datetime import datetime

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, Incident, Severity

__all__ = ["MENDED", "Incidents"]

MENDED = "mended"


class Incidents:
    """The incidents of a lake; read once, when the first is asked for."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._known: list[Incident] | None = None

    def opened(self, incident: Incident, *, dry_run: bool = False) -> Incident:
        """``incident`` as it is recorded: the open one of its identity, or a new one after one that is
        over."""
        while (closing := self._closing(incident)) is not None:
            evidence = (*incident.evidence, closing.record_id)
            incident = dataclasses.replace(incident, evidence=evidence, record_id="")
        earlier = next((each for each in self._all() if each.record_id == incident.record_id), None)
        if earlier is not None:
            return earlier
        if not dry_run:
            self._put(incident)
        return incident

    def open_about(self, subject: str, kinds: Collection[str]) -> list[Incident]:
        """The incidents of these kinds about a subject that nobody has closed, the oldest first."""
        found = [
            each
            for each in self._all()
            if each.subject == subject and each.incident in kinds and self._closing(each) is None
        ]
        return sorted(found, key=lambda each: (each.recorded_at, each.record_id))

    def subjects(self, prefix: str, kinds: Collection[str]) -> set[str]:
        """What incidents of these kinds, about something whose name begins so, are open about."""
        found = {each.subject for each in self._all() if each.incident in kinds}
        return {one for one in found if one.startswith(prefix) and self.open_about(one, kinds)}

    def close(
        self, incident: Incident, message: str, *, actor: Actor, as_of: datetime, dry_run: bool
    ) -> None:
        """Record that what an incident is about is in order again."""
        if not dry_run:
            self._put(
                Incident(
                    recorded_at=as_of,
                    produced_by=actor.producer,
                    incident=MENDED,
                    subject=incident.subject,
                    severity=Severity.INFO,
                    message=f"{incident.incident} is over: {message}",
                    evidence=(incident.record_id,),
                )
            )

    def _closing(self, incident: Incident) -> Incident | None:
        for each in self._all():
            if each.incident == MENDED and each.evidence == (incident.record_id,):
                return each
        return None

    def _put(self, incident: Incident) -> None:
        self._lake.evidence.put(incident)
        self._all().append(incident)

    def _all(self) -> list[Incident]:
        if self._known is None:
            self._known = [
                each for each in self._lake.evidence.all(Incident.kind) if isinstance(each, Incident)
            ]
        return self._known
