"""Waiting for a model's alias to move, in the triggerer, where thousands of waits share one process.

For :class:`~airflow_provider_xops.sensors.model.ModelAliasSensor`, and for assets that somebody else's
promotions update::

    champion = Asset(
        "late_champion",
        watchers=[AssetWatcher(name="alias", trigger=ModelAliasTrigger(model_name="late"))],
    )
    DAG("score", schedule=[champion])
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.triggers._alias import (
    AliasTarget,
    Wanted,
    alias_of,
    client_arguments,
    not_reached,
    request_arguments,
    unreadable,
    unusable,
)

if TYPE_CHECKING:
    import httpx

    from airflow_provider_xops.settings import MlflowSettings

__all__ = ["ModelAliasTrigger"]

CURSOR = "xops_model_alias"
LONGEST_PAUSE_S = 900.0
NOTHING = AliasTarget(0, 0)


class ModelAliasTrigger(BaseEventTrigger):
    """Asks MLflow from time to time which version an alias stands for, and says so when it is another one.

    In an ``AssetWatcher`` it goes on for ever: every change is an event with ``model``, ``alias``,
    ``version``, ``previous``, ``created_at_ms`` and ``run_id``. What it saw last is kept with the asset on
    Airflow 3.3 (in its state store), so a change that happens while the triggerer restarts is seen
    afterwards. An event may come twice when the triggerer is killed right after it; none is lost. An alias
    that is removed is no event; one that comes back to the same version neither.

    With ``once`` it ends at the first look that finds what is waited for, with the event's ``status``:
    ``found``, or with ``error``.

    Each look resolves the connection as it is then; neither the address nor credentials are among the
    trigger's arguments, which Airflow stores.

    :param model_name: the registered model.
    :param alias: the alias.
    :param mlflow_conn_id: the Airflow connection of the MLflow server.
    :param poke_interval: seconds between two looks.
    :param known_version: the version that is no news; 0: every version is. None: what the first look finds
        is no news. Not used where the asset's state knows better.
    :param once: end with the first event.
    :param version: with ``once``: wait until the alias stands for this version.
    :param changed_from: with ``once``: wait until it stands for another version than this.
    :param patience: how many looks in a row may find the server silent: after them a wait with ``once`` ends
        with the error; a watcher goes on, in longer intervals.

    What it does not do: it imports no MLflow. It sees what the alias stands for when it looks: two moves
    between two looks are one. On Airflow 3.1 and 3.2, which keep no state for assets, a change during a
    restart of the triggerer is not seen; nor is it where one trigger watches for several assets.
    """

    def __init__(
        self,
        *,
        model_name: str,
        alias: str = "champion",
        mlflow_conn_id: str = "xops_mlflow_default",
        poke_interval: float = 60.0,
        known_version: int | None = None,
        once: bool = False,
        version: int | None = None,
        changed_from: int | None = None,
        patience: int = 5,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model_name = model_name
        self.alias = alias
        self.mlflow_conn_id = mlflow_conn_id
        self.poke_interval = poke_interval
        self.known_version = known_version
        self.once = once
        self.version = version
        self.changed_from = changed_from
        self.patience = patience
        self._client: httpx.AsyncClient | None = None
        self._asked_as: MlflowSettings | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Its class path and arguments, plain JSON types."""
        return (
            "airflow_provider_xops.triggers.model.ModelAliasTrigger",
            {
                "model_name": self.model_name,
                "alias": self.alias,
                "mlflow_conn_id": self.mlflow_conn_id,
                "poke_interval": self.poke_interval,
                "known_version": self.known_version,
                "once": self.once,
                "version": self.version,
                "changed_from": self.changed_from,
                "patience": self.patience,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is something to tell; with ``once`` one event, else one for every change."""
        try:
            async for event in self._wait() if self.once else self._watch():
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]
        finally:
            await self._hang_up()

    async def _wait(self) -> AsyncIterator[dict[str, Any]]:
        wanted = Wanted(version=self.version, changed_from=self.changed_from)
        failures = 0
        while True:
            try:
                found = await self._look()
            except XOpsError as error:
                failures += 1
                if not error.retryable or failures > self.patience:
                    yield {"status": "error", "error": error.to_json()}
                    return
                self.log.warning("Look %d in a row failed, trying again: %s", failures, error.what)
            else:
                failures = 0
                if found is not None and wanted.is_met(found):
                    yield {"status": "found", **self._event(found, None)}
                    return
            await asyncio.sleep(self.poke_interval)

    async def _watch(self) -> AsyncIterator[dict[str, Any]]:
        last = await self._cursor()
        if last is None and self.known_version is not None:
            last = AliasTarget(self.known_version, 0)
        failures, kept = 0, True
        while True:
            try:
                found = await self._look()
            except XOpsError as error:
                failures += 1
                # A wait that lasts for ever must not fill the log for ever.
                if failures <= self.patience or failures & (failures - 1) == 0:
                    self.log.warning("Look %d in a row failed, trying again: %s", failures, error)
            else:
                failures = 0
                if last is None:
                    last = found or NOTHING
                    kept = await self._keep(last)
                elif not kept:
                    # One look later: by then Airflow has stored the event, so a kill loses none.
                    kept = await self._keep(last)
                if found is not None and not found.same(last):
                    previous, last, kept = last, found, False
                    yield self._event(found, previous)
                elif found is not None and not last.created_at_ms:
                    last, kept = found, False
            await asyncio.sleep(self._pause(failures))

    async def _look(self) -> AliasTarget | None:
        """One request.

        :raises XOpsError: it brought no answer to go by.
        """
        import httpx

        # Not asyncio.to_thread: Airflow's connections are asked for through the loop of the triggerer, and
        # only threads that asgiref started find their way back to it on Airflow 3.1.
        from asgiref.sync import sync_to_async

        try:
            settings = await sync_to_async(self._settings, thread_sensitive=False)()
        except XOpsError:
            raise
        except Exception as error:  # of a secrets backend, of Airflow's API server: anything
            raise unreadable(error, self.mlflow_conn_id) from None
        if self._client is None or settings != self._asked_as:
            await self._hang_up()
            # Kept for the next looks: making one reads all certificates, which costs more than a request.
            self._client, self._asked_as = httpx.AsyncClient(**client_arguments(settings)), settings
        try:
            # httpx has no bound for the whole request, only for each of its steps.
            async with asyncio.timeout(2 * settings.timeout_s):
                response = await self._client.get(**request_arguments(settings, self.model_name, self.alias))
        except (httpx.HTTPError, TimeoutError) as error:
            raise not_reached(error, model_name=self.model_name, alias=self.alias) from None
        except (httpx.InvalidURL, ValueError):
            raise unusable(self.mlflow_conn_id) from None
        return alias_of(response, model_name=self.model_name, alias=self.alias)

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _settings(self) -> MlflowSettings:
        from airflow_provider_xops.hooks.mlflow import MlflowHook

        return MlflowHook(self.mlflow_conn_id).get_settings()

    def _event(self, found: AliasTarget, previous: AliasTarget | None) -> dict[str, Any]:
        return {
            "model": self.model_name,
            "alias": self.alias,
            **found.to_json(),
            "previous": (previous.version or None) if previous else None,
        }

    async def _cursor(self) -> AliasTarget | None:
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return None
        try:
            return AliasTarget.from_json(await store.aget(self._key, None))
        except Exception as error:  # of several assets there is no one store; of the API server anything
            self.log.warning("What was seen last cannot be read: %s: %s", type(error).__name__, error)
            return None

    async def _keep(self, last: AliasTarget) -> bool:
        """Remember what was seen; False where that is to be tried again."""
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return True
        try:
            await store.aset(self._key, last.to_json())
        except ValueError:
            return True
        except Exception as error:
            self.log.warning("What was seen cannot be kept, trying again: %s", type(error).__name__)
            return False
        return True

    @property
    def _key(self) -> str:
        return f"{CURSOR}:{self.mlflow_conn_id}:{self.model_name}:{self.alias}"

    def _pause(self, failures: int) -> float:
        extra = max(0, failures - self.patience)
        longer = min(self.poke_interval * float(2 ** min(extra, 10)), LONGEST_PAUSE_S)
        return max(self.poke_interval, longer)
