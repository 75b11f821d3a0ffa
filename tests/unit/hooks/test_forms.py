"""The connection forms of Airflow 3.1 say what the provider's metadata says."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import pytest

from airflow_provider_xops.get_provider_info import get_provider_info
from airflow_provider_xops.hooks.lake import LakeHook
from airflow_provider_xops.hooks.mlflow import MlflowHook

DECLARED = {each["connection-type"]: each for each in get_provider_info()["connection-types"]}


@pytest.mark.parametrize("hook", [LakeHook, MlflowHook])
def test_fields_are_those_of_the_metadata(hook: Any) -> None:
    assert {"get_connection_form_widgets", "get_ui_field_behaviour"} <= set(vars(hook))  # as Airflow asks
    # given the stand-ins for WTForms that Airflow's API server puts in place
    names = ("wtforms", "flask_appbuilder", "flask_appbuilder.fieldwidgets")
    stubs = {name: mock.MagicMock() for name in names}

    with mock.patch.dict(sys.modules, stubs):
        widgets = hook.get_connection_form_widgets()

    fields = DECLARED[hook.conn_type]["conn-fields"]
    assert set(widgets) == set(fields)
    secret = sum(field["schema"].get("format") == "password" for field in fields.values())
    assert stubs["wtforms"].PasswordField.call_count == secret
    assert set(hook.get_ui_field_behaviour()) == {"hidden_fields", "relabeling", "placeholders"}


def test_without_wtforms_only_the_extra_fields_are_missing() -> None:
    with mock.patch.dict(sys.modules, {"wtforms": None, "flask_appbuilder": None}):
        assert LakeHook.get_connection_form_widgets() == {}
