"""Settings: the order of their sources, and no secret in sight."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.settings import (
    LakeSettings,
    MlflowSettings,
    lake_settings_from_env,
    mlflow_settings_from_env,
    without_userinfo,
)

SECRET = "s3cr3t-value"


def test_no_secret_is_in_the_repr_of_lake_settings() -> None:
    settings = LakeSettings(
        "s3://lake", {"AWS_SECRET_ACCESS_KEY": SECRET}, lambda: {"AWS_SESSION_TOKEN": SECRET}
    )

    assert SECRET not in repr(settings)
    assert "s3://lake" in repr(settings)


def test_no_secret_is_in_the_repr_of_mlflow_settings() -> None:
    settings = MlflowSettings(
        f"https://me:{SECRET}@mlflow:5000", password=SECRET, token=SECRET, ui_url=f"https://me:{SECRET}@ui"
    )

    assert SECRET not in repr(settings)
    assert settings.tracking_uri == "https://mlflow:5000"
    assert settings.ui_url == "https://ui"


def test_a_password_in_the_tracking_uri_moves_to_its_field() -> None:
    settings = MlflowSettings("https://me%40corp:p%2Fw@mlflow:5000/base")

    assert (settings.username, settings.password) == ("me@corp", "p/w")
    assert settings.tracking_uri == "https://mlflow:5000/base"


def test_a_lake_uri_with_credentials_is_refused_without_repeating_them() -> None:
    with pytest.raises(ArgumentError) as caught:
        LakeSettings(f"s3://key:{SECRET}@bucket/lake")

    assert caught.value.code == "argument.uri_credentials"
    assert SECRET not in str(caught.value)


def test_fresh_credentials_are_asked_for_each_time_and_win() -> None:
    answers = iter([{"aws_access_key_id": "first"}, {"aws_access_key_id": "second"}])
    settings = LakeSettings(
        "s3://lake", {"AWS_ACCESS_KEY_ID": "old", "AWS_REGION": "here"}, lambda: next(answers)
    )

    assert settings.resolved_options() == {"AWS_ACCESS_KEY_ID": "first", "AWS_REGION": "here"}
    assert settings.resolved_options() == {"AWS_ACCESS_KEY_ID": "second", "AWS_REGION": "here"}


def test_an_argument_wins_over_the_environment_and_that_over_the_default() -> None:
    env = {
        "XOPS_LAKE_URI": "/env", "XOPS_LAKE_ID": "id-env", "XOPS_LAKE_TIMEOUT_S": "7",
        "XOPS_LAKE_STORAGE_OPTIONS": '{"AWS_REGION": "env"}',
    }  # fmt: skip

    given = lake_settings_from_env(
        "/arg", storage_options={"AWS_REGION": "arg"}, expected_lake_id="id-arg", timeout_s=3, environ=env
    )
    from_env = lake_settings_from_env(environ=env)
    default = lake_settings_from_env("/arg", environ={})

    assert (given.uri, given.expected_lake_id, given.timeout_s) == ("/arg", "id-arg", 3)
    assert given.resolved_options() == {"AWS_REGION": "arg"}
    assert (from_env.uri, from_env.expected_lake_id, from_env.timeout_s) == ("/env", "id-env", 7)
    assert from_env.resolved_options() == {"AWS_REGION": "env"}
    assert (default.expected_lake_id, default.timeout_s, default.resolved_options()) == (None, 30, {})


def test_mlflow_settings_come_from_the_argument_then_xops_then_mlflow_variables() -> None:
    env = {
        "XOPS_MLFLOW_TRACKING_URI": "http://xops", "MLFLOW_TRACKING_URI": "http://mlflow",
        "MLFLOW_TRACKING_USERNAME": "me", "XOPS_MLFLOW_MAX_RETRIES": "5",
    }  # fmt: skip
    only_mlflow = {"MLFLOW_TRACKING_URI": "http://mlflow"}

    assert mlflow_settings_from_env("http://arg", environ=env).tracking_uri == "http://arg"
    assert mlflow_settings_from_env(environ=env).tracking_uri == "http://xops"
    assert mlflow_settings_from_env(environ=only_mlflow).tracking_uri == "http://mlflow"
    assert mlflow_settings_from_env(environ=env).username == "me"
    assert mlflow_settings_from_env(environ=env).max_retries == 5
    assert mlflow_settings_from_env(environ=only_mlflow).max_retries == 2


@pytest.mark.parametrize(
    ("environ", "code"),
    [
        ({}, "argument.lake_uri"),
        ({"XOPS_LAKE_URI": " "}, "argument.lake_uri"),
        ({"XOPS_LAKE_URI": "/x", "XOPS_LAKE_TIMEOUT_S": "soon"}, "argument.environment"),
        ({"XOPS_LAKE_URI": "/x", "XOPS_LAKE_TIMEOUT_S": "nan"}, "argument.environment"),
        ({"XOPS_LAKE_URI": "/x", "XOPS_LAKE_STORAGE_OPTIONS": SECRET}, "argument.environment"),
        ({"XOPS_LAKE_URI": "/x", "XOPS_LAKE_STORAGE_OPTIONS": f'["{SECRET}"]'}, "argument.environment"),
    ],
)
def test_what_cannot_be_used_is_a_typed_error_that_repeats_no_value(
    environ: Mapping[str, str], code: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        lake_settings_from_env(environ=environ)

    assert caught.value.code == code
    assert caught.value.todo
    assert SECRET not in str(caught.value)


def test_no_tracking_uri_anywhere_is_a_typed_error() -> None:
    with pytest.raises(ArgumentError) as caught:
        mlflow_settings_from_env(environ={})

    assert caught.value.code == "argument.mlflow_uri"


@pytest.mark.parametrize("uri", ["s3://bucket/a@b", "/data/lake", "http://host:1/p?q=a@b"])
def test_a_uri_without_userinfo_stays_as_it_is(uri: str) -> None:
    assert without_userinfo(uri) == uri
