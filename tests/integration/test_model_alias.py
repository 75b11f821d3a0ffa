"""What a real MLflow says of an alias, and what the sensor and the trigger make of it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from airflow_provider_xops.errors import RegistryError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.triggers._alias import (
    AliasTarget,
    alias_of,
    client_arguments,
    request_arguments,
)
from airflow_provider_xops.triggers.model import ModelAliasTrigger
from tests.integration.registry_steps import bare_version, fresh_name
from tests.servers import MlflowServer

pytestmark = pytest.mark.server


def look(server: MlflowServer, name: str, alias: str = "champion") -> AliasTarget | None:
    settings = server.settings()
    with httpx.Client(**client_arguments(settings)) as client:
        answer = client.get(**request_arguments(settings, name, alias))
    return alias_of(answer, model_name=name, alias=alias)


def point(client: RegistryClient, name: str, version: int | None) -> None:
    with client.session("moving an alias by hand") as mlflow:
        if version is None:
            mlflow.delete_registered_model_alias(name, "champion")
        else:
            mlflow.set_registered_model_alias(name, "champion", str(version))


def test_alias_model_and_absence_are_read_as_they_are(mlflow_server: MlflowServer, lake: Lake) -> None:
    client, name = RegistryClient(mlflow_server.settings()), fresh_name("a name & more")
    assert look(mlflow_server, name) is None

    made = bare_version(client, lake, name)
    assert look(mlflow_server, name) is None

    point(client, name, 1)
    assert look(mlflow_server, name) == AliasTarget(1, made.created_at_ms, None)
    # a name that MLflow does not accept is no alias that may come
    with pytest.raises(RegistryError) as raised:
        look(mlflow_server, "")
    assert raised.value.code == "registry.refused"


def test_trigger_follows_a_real_alias(
    mlflow_server: MlflowServer, mlflow_connection: MlflowServer, lake: Lake
) -> None:
    # given a model that does not exist yet, and a watcher of its alias
    client, name = RegistryClient(mlflow_server.settings()), fresh_name("followed")

    async def scenario() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        watching = ModelAliasTrigger(model_name=name, poke_interval=0.05).run()

        async def watch() -> None:
            async for event in watching:
                found.append(event.payload)

        async def moved(version: int | None, events: int) -> None:
            await asyncio.to_thread(point, client, name, version)
            async with asyncio.timeout(60):
                while len(found) < events:
                    await asyncio.sleep(0.05)

        task = asyncio.create_task(watch())
        await asyncio.sleep(1.0)
        for _ in range(2):
            await asyncio.to_thread(bare_version, client, lake, name)
        # when the alias appears, moves, goes, comes back to where it was, and moves again
        await moved(1, 1)
        await moved(2, 2)
        await moved(None, 2)
        await moved(2, 2)
        await moved(1, 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found

    found = asyncio.run(scenario())

    assert [(one["previous"], one["version"]) for one in found] == [(None, 1), (1, 2), (2, 1)]
    assert all(one["model"] == name for one in found)
