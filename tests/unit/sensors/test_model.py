"""The alias sensor: it waits for what was asked, in a worker or the triggerer, and gives up where it must."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_xops.sensors.model import ModelAliasSensor
from airflow_provider_xops.triggers.model import ModelAliasTrigger
from airflow_provider_xops.version_compat import AirflowException, AirflowFailException
from tests.unit.operators.conftest import MakeContext
from tests.unit.triggers.registry_server import NO_ALIAS, NO_MODEL, AliasServer, alias_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AliasServer]:
    with alias_server() as running:
        fields = {"conn_type": "xops_mlflow", "host": running.url, "login": "ana", "password": "hidden"}
        monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(fields))
        yield running


@pytest.fixture
def context(make_context: MakeContext) -> dict[str, Any]:
    return make_context()


def sensor(**options: Any) -> ModelAliasSensor:
    return ModelAliasSensor(**({"task_id": "wait", "model_name": "late"} | options))


def deferred(waiting: ModelAliasSensor, context: Any) -> tuple[ModelAliasTrigger, str]:
    with pytest.raises(BaseException) as raised:
        waiting.execute(context)
    assert type(raised.value).__name__ == "TaskDeferred", raised.value
    found: Any = raised.value
    return found.trigger, found.method_name


def test_worker_waits_through_silence_and_absence(server: AliasServer, context: Any) -> None:
    server.says(NO_MODEL, NO_ALIAS, (503, ""), 4)
    waiting = sensor(poke_interval=0.01, deferrable=False)

    assert waiting.execute(context) == {
        "model": "late", "alias": "champion", "version": 4, "created_at_ms": 1004, "run_id": "run-4",
    }  # fmt: skip
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("options", "met"),
    [
        ({}, True),
        ({"version": "3"}, True),
        ({"version": 4}, False),
        ({"changed_from": "3"}, False),
        ({"changed_from": 2}, True),
        ({"changed_from": "None"}, True),
    ],
)
def test_poke_says_whether_it_is_there(
    server: AliasServer, context: Any, options: dict[str, Any], met: bool
) -> None:
    server.says(3)

    assert bool(sensor(**options).poke(context)) is met


def test_deferred_with_everything_it_needs_and_no_credentials(server: AliasServer, context: Any) -> None:
    server.says(1)
    waiting = sensor(changed_from="1", poke_interval=7, patience=2, deferrable=True)

    made, method = deferred(waiting, context)

    arguments = made.serialize()[1]
    assert method == "execute_complete"
    assert arguments == {
        "model_name": "late", "alias": "champion", "mlflow_conn_id": "xops_mlflow_default",
        "poke_interval": 7, "known_version": None, "once": True, "version": None, "changed_from": 1,
        "patience": 2,
    }  # fmt: skip


def test_no_deferral_where_it_is_there_already(server: AliasServer, context: Any) -> None:
    server.says(1)

    assert sensor(deferrable=True).execute(context)["version"] == 1


def test_goes_on_with_what_the_trigger_found(context: Any) -> None:
    event = {"status": "found", "model": "late", "alias": "champion", "version": 3, "previous": None}

    assert sensor().execute_complete(context, event)["version"] == 3


@pytest.mark.parametrize("retryable", [True, False])
def test_error_of_the_trigger_fails_or_is_tried_again(context: Any, retryable: bool) -> None:
    error = {"what": "w", "code": "a.b", "why": "", "todo": "", "retryable": retryable, "context": {}}

    with pytest.raises(AirflowException, match=r"a\.b") as raised:
        sensor().execute_complete(context, {"status": "error", "error": error})
    assert isinstance(raised.value, AirflowFailException) is not retryable


def test_refusal_fails_at_once(server: AliasServer, context: Any) -> None:
    server.says((403, "no"))

    for deferrable in (True, False):
        with pytest.raises(AirflowFailException, match=r"registry\.forbidden"):
            sensor(deferrable=deferrable, poke_interval=0.01).execute(context)
    assert len(server.asked) == 2


def test_patience_ends(server: AliasServer, context: Any) -> None:
    server.says((503, ""))

    with pytest.raises(AirflowException, match=r"unavailable\.registry") as raised:
        sensor(patience=2, poke_interval=0.01, deferrable=False).execute(context)
    assert not isinstance(raised.value, AirflowFailException)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"model_name": " "}, "empty"),
        ({"alias": "None"}, "empty"),
        ({"version": "x"}, "number"),
        ({"version": 1, "changed_from": 2}, "version"),
    ],
)
def test_unusable_arguments_are_refused(context: Any, options: dict[str, Any], code: str) -> None:
    with pytest.raises(AirflowFailException, match=rf"argument\.{code}"):
        sensor(**options).execute(context)
