"""The alias trigger in an event loop: every change is told, for ever or once, and none is missed."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_xops.triggers._alias import AliasTarget, Wanted
from airflow_provider_xops.triggers.model import ModelAliasTrigger
from tests.unit.triggers.registry_server import NO_ALIAS, NO_MODEL, AliasServer, alias_server, version

SECRETS = ("hunter2-secret", "token-of-a-test")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AliasServer]:
    """A registry behind the default connection."""
    with alias_server() as running:
        connect(monkeypatch, running, extra={"timeout": 5})
        yield running


def connect(monkeypatch: pytest.MonkeyPatch, server: AliasServer, **fields: Any) -> None:
    content = {"conn_type": "xops_mlflow", "host": server.url, **fields}
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(content))


def trigger(**options: Any) -> ModelAliasTrigger:
    made = ModelAliasTrigger(**({"model_name": "late", "poke_interval": 0.01} | options))
    # As Airflow does: by class path and JSON arguments.
    path, arguments = made.serialize()
    assert path == f"{ModelAliasTrigger.__module__}.{ModelAliasTrigger.__qualname__}"
    again = ModelAliasTrigger(**json.loads(json.dumps(arguments)))
    assert again.serialize() == made.serialize()
    return again


def events(waiting: ModelAliasTrigger, count: int = 1, *, seconds: float = 30) -> list[dict[str, Any]]:
    """The first ``count`` events; fewer where it ends, or where none comes for ``seconds``."""

    async def collect() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        running = waiting.run()
        try:
            async with asyncio.timeout(seconds):
                async for event in running:
                    found.append(json.loads(json.dumps(event.payload)))
                    if len(found) == count:
                        break
        except TimeoutError:
            pass
        finally:
            await running.aclose()  # type: ignore[attr-defined]
        return found

    return asyncio.run(collect())


class Store:
    """What Airflow 3.3 keeps of an asset."""

    def __init__(self, **kept: Any) -> None:
        self.kept = kept

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.kept.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.kept[key] = json.loads(json.dumps(value))


def remembering(store: Store, **options: Any) -> ModelAliasTrigger:
    made = trigger(**options)
    made.asset_state_store = store
    return made


# -- one event ----------------------------------------------------------------------------------------------


def test_wait_ends_when_the_alias_is_there(server: AliasServer) -> None:
    server.says(NO_MODEL, NO_ALIAS, 3)

    (event,) = events(trigger(once=True), 2)

    assert event == {
        "status": "found", "model": "late", "alias": "champion", "version": 3, "previous": None,
        "created_at_ms": 1003, "run_id": "run-3",
    }  # fmt: skip
    assert len(server.asked) == 3
    asked = server.asked[0]
    assert asked["path"] == "/api/2.0/mlflow/registered-models/alias"
    assert (asked["name"], asked["alias"]) == ("late", "champion")


def test_wait_for_one_version_and_for_any_but_one(server: AliasServer) -> None:
    server.says(1, 2, 3)
    assert events(trigger(once=True, version=3))[0]["version"] == 3
    server.says(1, NO_ALIAS, 2)
    assert events(trigger(once=True, changed_from=1))[0]["version"] == 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((401, "who?"), "registry.unauthenticated"),
        ((403, "no"), "registry.forbidden"),
        ((400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "bad name"}), "registry.refused"),
        ((404, "<html>"), "registry.refused"),
    ],
)
def test_refusal_ends_the_wait_at_once(server: AliasServer, answer: Any, code: str) -> None:
    server.says(answer)

    (event,) = events(trigger(once=True))

    assert (event["status"], event["error"]["code"], event["error"]["retryable"]) == ("error", code, False)
    assert len(server.asked) == 1


@pytest.mark.parametrize("silence", [(503, "busy"), (429, "slower"), (200, "<html>log in</html>"), (200, {})])
def test_silence_is_borne_as_often_as_patience_says(server: AliasServer, silence: Any) -> None:
    # the count starts anew with an answer
    server.says(silence, silence, NO_ALIAS, silence, silence, 1)
    assert events(trigger(once=True, patience=2))[0]["version"] == 1

    server.says(silence)
    (event,) = events(trigger(once=True, patience=2))
    assert (event["error"]["code"], event["error"]["retryable"]) == ("unavailable.registry", True)
    assert len(server.asked) == 6 + 3


def test_server_that_does_not_listen_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    with alias_server() as gone:
        connect(monkeypatch, gone)

    (event,) = events(trigger(once=True, patience=1))

    assert (event["error"]["code"], event["error"]["why"]) == ("unavailable.registry", "ConnectError")


def test_unusable_connection_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps({"conn_type": "http", "host": "x"}))

    assert events(trigger(once=True))[0]["error"]["code"] == "argument.connection"


def test_address_that_is_none_ends_the_wait_and_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://mlflow:port/{SECRETS[0]}"
    fields = {"conn_type": "xops_mlflow", "host": address}
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(fields))

    (event,) = events(trigger(once=True))

    assert event["error"]["code"] == "argument.mlflow_uri"
    assert SECRETS[0] not in json.dumps(event)


# -- every event --------------------------------------------------------------------------------------------


def test_watcher_tells_every_change_and_nothing_else(server: AliasServer) -> None:
    server.says(1, 1, 2, 2, (503, ""), NO_ALIAS, NO_MODEL, 2, (403, ""), 3, 3, 1)

    found = events(trigger(), 3)

    assert [(one["previous"], one["version"]) for one in found] == [(1, 2), (2, 3), (3, 1)]
    assert "status" not in found[0]


@pytest.mark.parametrize("broken", ["http://mlflow:port", "http://[::1", "https://\x00"])
def test_watcher_outlives_a_connection_that_is_broken_for_a_while(
    server: AliasServer, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Whatever it raises: a watch that ends is one that nobody hears of."""
    real, looks = ModelAliasTrigger._settings, []

    def settings_of(self: ModelAliasTrigger) -> Any:
        looks.append(1)
        if len(looks) == 2:
            raise RuntimeError(f"the API server is away, {SECRETS[0]}")
        with monkeypatch.context() as patch:
            if len(looks) == 3:
                fields = {"conn_type": "xops_mlflow", "host": broken}
                patch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(fields))
            return real(self)

    monkeypatch.setattr(ModelAliasTrigger, "_settings", settings_of)
    server.says(1, 2)

    (event,) = events(trigger(patience=9))

    assert (event["version"], event["previous"]) == (2, 1)
    assert len(looks) == 4


def test_alias_that_appears_is_a_change(server: AliasServer) -> None:
    server.says(NO_ALIAS, 1)

    assert [(one["previous"], one["version"]) for one in events(trigger())] == [(None, 1)]


def test_version_made_again_under_its_number_is_a_change(server: AliasServer) -> None:
    server.says(1, version(1, created_at_ms=77))

    assert events(trigger())[0]["created_at_ms"] == 77


def test_known_version_is_no_news_and_every_other_is(server: AliasServer) -> None:
    server.says(2)
    assert events(trigger(known_version=2), seconds=0.5) == []
    assert [one["version"] for one in events(trigger(known_version=1))] == [2]
    assert [(one["version"], one["previous"]) for one in events(trigger(known_version=0))] == [(2, None)]


def test_change_during_a_restart_is_told_afterwards(server: AliasServer) -> None:
    store = Store()
    server.says(1)
    assert events(remembering(store), seconds=0.5) == []

    server.says(2)
    assert [(one["previous"], one["version"]) for one in events(remembering(store))] == [(1, 2)]


def test_alias_that_appears_during_a_restart_is_told_afterwards(server: AliasServer) -> None:
    store = Store()
    server.says(NO_ALIAS)
    assert events(remembering(store), seconds=0.5) == []

    server.says(1)
    assert [(one["previous"], one["version"]) for one in events(remembering(store))] == [(None, 1)]


def test_event_of_a_killed_triggerer_comes_again_and_then_no_more(server: AliasServer) -> None:
    # given a triggerer that was killed with an event in its hand
    store = Store()
    server.says(1, 2)
    assert events(remembering(store))[0]["version"] == 2

    # then the next one tells it again, and when it has lived on for a look, it is told no more
    assert [one["version"] for one in events(remembering(store), 2, seconds=0.5)] == [2]
    assert events(remembering(store), seconds=0.5) == []


def test_state_wins_over_what_the_arguments_know(server: AliasServer) -> None:
    store = Store()
    server.says(3)
    key = remembering(store)._key
    store.kept[key] = AliasTarget(3, 1003).to_json()

    assert events(remembering(store, known_version=1), seconds=0.5) == []


def test_state_that_cannot_be_kept_stops_nothing(server: AliasServer) -> None:
    class Broken(Store):
        async def aget(self, key: str, default: Any = None) -> Any:
            raise ConnectionError("the API server is away")

        async def aset(self, key: str, value: Any) -> None:
            raise ConnectionError("the API server is away")

    server.says(1, 1, 2, 3)

    assert [one["version"] for one in events(remembering(Broken()), 2)] == [2, 3]


def test_watcher_waits_longer_while_nobody_answers() -> None:
    waiting = ModelAliasTrigger(model_name="late", poke_interval=60, patience=2)

    assert [waiting._pause(failures) for failures in (0, 2, 3, 4, 50)] == [60, 60, 120, 240, 900]
    assert ModelAliasTrigger(model_name="late", poke_interval=3600)._pause(50) == 3600


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seen=st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=12))
def test_events_chain_through_whatever_is_seen(server: AliasServer, seen: list[int]) -> None:
    # a version, or 0 for no alias; 9 marks the end
    server.says(*(NO_ALIAS if number == 0 else number for number in seen), 9)

    async def collect() -> list[tuple[int | None, int]]:
        found = []
        async for event in trigger(poke_interval=0).run():
            found.append((event.payload["previous"], event.payload["version"]))
            if found[-1][1] == 9:
                return found
        return found

    found = asyncio.run(asyncio.wait_for(collect(), 30))

    # what is seen, without gaps and repetitions: the first is no news
    first, *rest = [None if number == 0 else number for number in seen]
    known, expected = first, []
    for number in [*rest, 9]:
        if number is not None and number != known:
            expected.append((known, number))
            known = number
    assert found == expected


# -- what it does not tell ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({"login": "ana", "password": SECRETS[0]}, "Basic YW5hOmh1bnRlcjItc2VjcmV0"),
        ({"extra": {"token": SECRETS[1]}}, f"Bearer {SECRETS[1]}"),
        ({"login": "ana", "password": SECRETS[0], "extra": {"token": SECRETS[1]}}, f"Bearer {SECRETS[1]}"),
    ],
)
def test_credentials_are_sent_and_nowhere_else(
    server: AliasServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    fields: dict[str, Any], header: str,
) -> None:  # fmt: skip
    connect(monkeypatch, server, **fields)
    server.says((503, ""), 1)
    waiting = trigger(once=True)

    with caplog.at_level(logging.DEBUG):
        (event,) = events(waiting)

    assert server.asked[0]["headers"]["Authorization"] == header
    for text in (caplog.text, json.dumps(event), repr(waiting), json.dumps(waiting.serialize()[1])):
        assert not any(secret in text for secret in SECRETS)


def test_workspace_is_named(server: AliasServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, server, extra={"workspace": "team-a"})
    server.says(1)

    events(trigger(once=True))

    headers = {name.lower(): value for name, value in server.asked[0]["headers"].items()}
    assert headers["x-mlflow-workspace"] == "team-a"


def test_changed_credentials_are_used_by_the_next_look(
    server: AliasServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, server, login="ana", password="old")

    async def scenario() -> None:
        waiting = asyncio.create_task(anext(trigger(once=True).run()))
        while not server.asked:
            await asyncio.sleep(0.01)
        connect(monkeypatch, server, login="ana", password="new")
        server.says(1)
        await waiting

    asyncio.run(scenario())

    assert server.asked[0]["headers"]["Authorization"] != server.asked[-1]["headers"]["Authorization"]


def test_no_mlflow_is_imported_where_thousands_wait() -> None:
    code = (
        "import sys, airflow_provider_xops.triggers.model, airflow_provider_xops.hooks.mlflow\n"
        "from airflow_provider_xops.triggers.model import ModelAliasTrigger\n"
        "print([name for name in ('mlflow', 'pandas', 'sklearn', 'deltalake') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_both_kinds_of_waiting_at_once_are_refused() -> None:
    with pytest.raises(Exception, match=r"argument\.version"):
        Wanted(version=1, changed_from=2)
