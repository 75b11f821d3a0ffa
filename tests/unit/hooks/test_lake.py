"""The lake hook: where its settings come from, what it refuses, and what it never shows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, LakeError
from airflow_provider_xops.hooks.lake import LakeHook
from airflow_provider_xops.lake.lake import Lake

Make = Callable[..., str]
DEFAULT = "xops_lake_default"


def test_settings_come_from_the_connection(connection: Make) -> None:
    conn_id = connection(
        "lake",
        conn_type="xops_lake",
        host="s3://bucket/lake",
        login="AKIA",
        password="very-secret",
        extra={"region": "eu-central-1", "endpoint_url": "http://s3:8333", "lake_id": "abc", "timeout": 5},
    )

    settings = LakeHook(conn_id).get_settings()

    assert (settings.uri, settings.expected_lake_id, settings.timeout_s) == ("s3://bucket/lake", "abc", 5)
    assert settings.resolved_options() == {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_ENDPOINT_URL": "http://s3:8333",
        "AWS_REGION": "eu-central-1",
    }


def test_order_is_argument_then_connection_then_configuration_then_environment(
    connection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given all four
    monkeypatch.setenv("XOPS_LAKE_URI", "/from/environment")
    monkeypatch.setenv("AIRFLOW__XOPS__LAKE_URI", "/from/configuration")
    connection(DEFAULT, conn_type="xops_lake", host="/from/connection")

    # then each is heard only where those before it are silent
    assert LakeHook(uri="/from/argument").get_settings().uri == "/from/argument"
    assert LakeHook().get_settings().uri == "/from/connection"
    monkeypatch.delenv(f"AIRFLOW_CONN_{DEFAULT.upper()}")
    assert LakeHook().get_settings().uri == "/from/configuration"
    monkeypatch.delenv("AIRFLOW__XOPS__LAKE_URI")
    assert LakeHook().get_settings().uri == "/from/environment"


def test_other_settings_follow_the_same_order(connection: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    connection(DEFAULT, conn_type="xops_lake", host="/lake", extra={"timeout": 7})
    monkeypatch.setenv("AIRFLOW__XOPS__LAKE_TIMEOUT_S", "8")
    monkeypatch.setenv("AIRFLOW__XOPS__LAKE_ID", "configured")
    monkeypatch.setenv("XOPS_LAKE_TIMEOUT_S", "9")

    settings = LakeHook().get_settings()

    assert (settings.timeout_s, settings.expected_lake_id) == (7, "configured")
    assert LakeHook(timeout_s=6).get_settings().timeout_s == 6


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("xops-lake://s3://bucket/lake", "s3://bucket/lake"),
        ("xops-lake://%2Fdata%2Flake", "/data/lake"),
        ("xops-lake:///data/lake", "/data/lake"),
    ],
)
def test_connection_may_be_written_as_a_uri(monkeypatch: pytest.MonkeyPatch, uri: str, expected: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", uri)

    assert LakeHook("lake").get_settings().uri == expected


def test_unknown_connection_asked_for_by_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XOPS_LAKE_URI", "/somewhere")

    with pytest.raises(ArgumentError, match="no Airflow connection 'other_lake'") as caught:
        LakeHook("other_lake").get_settings()

    assert caught.value.code == "argument.connection"


def test_connection_of_another_type_is_refused(connection: Make) -> None:
    conn_id = connection("pg", conn_type="postgres", host="db")

    with pytest.raises(ArgumentError, match="is of type postgres"):
        LakeHook(conn_id).get_settings()


def test_nothing_configured_says_where_to_configure_it() -> None:
    with pytest.raises(ArgumentError) as caught:
        LakeHook().get_settings()

    assert caught.value.code == "argument.lake_uri"


def test_relative_path_is_refused(connection: Make) -> None:
    conn_id = connection("lake", conn_type="xops_lake", host="data/lake")

    with pytest.raises(ArgumentError, match="relative path"):
        LakeHook(conn_id).get_settings()


@pytest.mark.parametrize(
    "extra", ['{"storage_options": "not json, hunter2"}', "not json, hunter2", '["hunter2"]']
)
def test_malformed_extra_is_refused_without_repeating_it(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    fields = {"conn_type": "xops_lake", "host": "/lake", "extra": extra}
    monkeypatch.setattr(
        "airflow_provider_xops.hooks._settings.BaseHook.get_connection",
        lambda conn_id: SimpleNamespace(
            conn_id=conn_id, login=None, password=None, schema=None, port=None, **fields
        ),
    )

    with pytest.raises(ArgumentError) as caught:
        LakeHook("lake").get_settings()

    assert caught.value.code == "argument.connection_extra"
    assert "hunter2" not in str(caught.value)


def test_storage_options_field_is_merged(connection: Make) -> None:
    conn_id = connection(
        "lake",
        conn_type="xops_lake",
        host="s3://b/l",
        extra={"storage_options": json.dumps({"aws_allow_http": "true"}), "region": "x"},
    )

    assert LakeHook(conn_id).get_settings().resolved_options() == {
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "x",
    }


def test_aws_connection_is_asked_again_at_every_open(connection: Make) -> None:
    # given a lake connection that names an AWS connection
    connection("aws", conn_type="aws", login="first", password="one", extra={"endpoint_url": "http://s3:1"})
    conn_id = connection(
        "lake", conn_type="xops_lake", host="s3://b/l", extra={"aws_conn_id": "aws", "region": "r"}
    )
    settings = LakeHook(conn_id).get_settings()
    assert settings.resolved_options() == {
        "AWS_ACCESS_KEY_ID": "first",
        "AWS_SECRET_ACCESS_KEY": "one",
        "AWS_REGION": "r",
        "AWS_ENDPOINT_URL": "http://s3:1",
    }

    # when its credentials change
    connection("aws", conn_type="aws", login="second", password="two")

    # then the settings already resolved give the new ones
    assert settings.resolved_options()["AWS_SECRET_ACCESS_KEY"] == "two"


def test_missing_aws_connection_is_an_error_and_no_fallback(connection: Make) -> None:
    conn_id = connection("lake", conn_type="xops_lake", host="s3://b/l", extra={"aws_conn_id": "gone"})

    with pytest.raises(ArgumentError, match="no Airflow connection 'gone'"):
        LakeHook(conn_id).get_settings().resolved_options()


def test_secrets_are_neither_in_reprs_nor_in_logs(connection: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connection("aws", conn_type="aws", login="AKIA", password="hunter2")
    conn_id = connection(
        "lake",
        conn_type="xops_lake",
        host="s3://b/l",
        password="hunter2",
        login="AKIA",
        extra={"aws_conn_id": "aws"},
    )

    hook = LakeHook(conn_id)
    settings = hook.get_settings()
    settings.resolved_options()

    shown = f"{hook!r} {vars(hook)} {settings!r} {caplog.text}"
    assert "hunter2" not in shown


def test_get_lake_opens_and_never_makes_one(connection: Make, lake: Lake, tmp_path: Path) -> None:
    conn_id = connection("lake", conn_type="xops_lake", host=lake.uri)
    assert LakeHook(conn_id).get_lake().lake_id == lake.lake_id

    nowhere = connection("nowhere", conn_type="xops_lake", host=str(tmp_path / "nothing"))
    with pytest.raises(LakeError) as caught:
        LakeHook(nowhere).get_lake()
    assert caught.value.code == "lake.not_found"
    assert not (tmp_path / "nothing").exists()


def test_expected_lake_id_refuses_another_lake(connection: Make, lake: Lake) -> None:
    conn_id = connection("lake", conn_type="xops_lake", host=lake.uri, extra={"lake_id": "another"})

    with pytest.raises(LakeError) as caught:
        LakeHook(conn_id).get_lake()
    assert caught.value.code == "lake.other_uuid"


def test_test_connection_reports_the_lake_id(connection: Make, lake: Lake) -> None:
    ok, message = LakeHook(connection("lake", conn_type="xops_lake", host=lake.uri)).test_connection()

    assert ok
    assert lake.lake_id in message


def test_test_connection_refuses_storage_where_two_writers_can_win(
    connection: Make, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given storage whose put-if-absent writes whatever is there
    from airflow_provider_xops.lake.storage import LocalStorage

    def overwriting(self: Any, path: str, data: bytes, *, content_type: str | None = None) -> bool:
        self.overwrite(path, data)
        return True

    monkeypatch.setattr(LocalStorage, "put_if_absent", overwriting)

    ok, message = LakeHook(connection("lake", conn_type="xops_lake", host=lake.uri)).test_connection()

    assert not ok
    assert "lake.unsafe_storage" in message


def test_test_connection_answers_instead_of_raising(connection: Make, tmp_path: Path) -> None:
    ok, message = LakeHook(
        connection("lake", conn_type="xops_lake", host=str(tmp_path / "no"))
    ).test_connection()

    assert not ok
    assert "xops lake init" in message
    assert LakeHook("missing").test_connection()[0] is False
