"""Waiting for a dataset in the triggerer, where thousands of waits share one process.

For :class:`~airflow_provider_xops.sensors.dataset.DatasetFreshnessSensor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_xops.errors import XOpsError

__all__ = ["DatasetFreshnessTrigger"]


class DatasetFreshnessTrigger(BaseTrigger):
    """Looks at a table from time to time until what is waited for is there.

    Each look runs in a thread (the lake's libraries block) with the connection as it is then, so credentials
    may change during a long wait. A look that finds the storage silent is repeated; after ``patience`` of
    them in a row, and at once for any other error, the wait ends with the error in its event.

    :param lake_conn_id: the Airflow connection of the lake.
    :param wait: what is waited for (JSON of :class:`~airflow_provider_xops.quality.waiting.Wait`).
    :param poke_interval: seconds between two looks.
    :param give_up_when_late: end the wait when what is missing was due.
    :param patience: how many looks in a row may fail before the wait ends.
    :param look_timeout: seconds one look may take; a longer one counts as failed.

    The event is the look's JSON (``status``: ``fresh`` or ``late``), or ``status``: ``error`` with ``error``.

    What it does not do: it holds no state of its own, so a restarted triggerer simply looks again; it records
    nothing.
    """

    def __init__(
        self,
        *,
        lake_conn_id: str,
        wait: Mapping[str, Any],
        poke_interval: float = 60.0,
        give_up_when_late: bool = True,
        patience: int = 5,
        look_timeout: float = 300.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lake_conn_id = lake_conn_id
        self.wait = dict(wait)
        self.poke_interval = poke_interval
        self.give_up_when_late = give_up_when_late
        self.patience = patience
        self.look_timeout = look_timeout

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its class path and arguments, plain JSON types."""
        return (
            "airflow_provider_xops.triggers.dataset.DatasetFreshnessTrigger",
            {
                "lake_conn_id": self.lake_conn_id,
                "wait": self.wait,
                "poke_interval": self.poke_interval,
                "give_up_when_late": self.give_up_when_late,
                "patience": self.patience,
                "look_timeout": self.look_timeout,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is something to tell; one event."""
        # Not asyncio.to_thread: Airflow's connections are asked for through the loop of the triggerer, and
        # only threads that asgiref started find their way back to it on Airflow 3.1.
        from asgiref.sync import sync_to_async

        look = sync_to_async(self._look, thread_sensitive=False)
        failures = 0
        while True:
            error: dict[str, Any] | None = None
            try:
                # Not asyncio.wait_for: on Python 3.11 it loses a cancellation that comes with the answer.
                async with asyncio.timeout(self.look_timeout):
                    found = await look()
            except TimeoutError:
                error = {
                    "code": "unavailable.storage", "what": f"looking at {self.wait['table']} took too long",
                    "why": f"no answer within {self.look_timeout:g} s", "todo": "check the lake's storage",
                    "retryable": True, "context": {},
                }  # fmt: skip
            except XOpsError as raised:
                error = raised.to_json()
            if error is None:
                failures = 0
                if found["status"] == "fresh" or (found["status"] == "late" and self.give_up_when_late):
                    yield TriggerEvent(found)  # type: ignore[no-untyped-call]
                    return
            else:
                failures += 1
                if not error["retryable"] or failures > self.patience:
                    yield TriggerEvent({"status": "error", "error": error})  # type: ignore[no-untyped-call]
                    return
                self.log.warning("Look %d in a row failed, trying again: %s", failures, error["what"])
            await asyncio.sleep(self.poke_interval)

    def _look(self) -> dict[str, Any]:
        """One look, in a thread of its own; nothing of the lake is imported before."""
        from airflow_provider_xops.hooks.lake import LakeHook
        from airflow_provider_xops.quality.waiting import Wait, look

        found = look(
            LakeHook(self.lake_conn_id).get_lake(), Wait.from_json(self.wait), as_of=datetime.now(UTC)
        )
        self.log.info("%s", found)
        return found.to_json()
