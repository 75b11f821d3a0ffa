"""Where a target is: secrets never show, and what is missing is named."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.serving.targets._time import Patience
from airflow_provider_xops.serving.targets.settings import (
    ServingSettings,
    open_target,
    serving_settings_from_env,
)


def test_the_environment_is_read_and_arguments_go_before_it() -> None:
    environ = {
        "XOPS_SERVING_HOSTS": "a:1, b:2",
        "XOPS_SERVING_API_KEY": "hidden-key",
        "XOPS_SERVING_TIMEOUT_S": "2.5",
    }
    settings = serving_settings_from_env(environ=environ)

    assert (settings.kind, settings.hosts) == ("xops", ("http://a:1", "http://b:2"))
    assert (settings.api_key, settings.timeout_s) == ("hidden-key", 2.5)
    assert "hidden-key" not in repr(settings)
    assert serving_settings_from_env("c:3", environ=environ).hosts == ("http://c:3",)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"kind": "kserve"}, "kind"),
        ({"kind": "xops"}, "no server"),
        ({"kind": "v2", "hosts": ["a:1"]}, "repository"),
        ({"kind": "sagemaker"}, "endpoint"),
        ({"hosts": ["a:1"], "timeout_s": 0}, "timeout"),
    ],
)
def test_what_a_kind_needs_is_named(given: dict[str, Any], word: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        ServingSettings(**given)

    assert raised.value.code == "argument.serving"
    assert word in raised.value.what


@pytest.mark.parametrize(
    "environ", [{"XOPS_SERVING_TIMEOUT_S": "soon"}, {"XOPS_SERVING_OPTIONS": '["hidden"]'}]
)
def test_an_unusable_variable_is_not_repeated(environ: dict[str, str]) -> None:
    with pytest.raises(ArgumentError) as raised:
        serving_settings_from_env("a:1", environ=environ)

    assert "soon" not in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_an_option_that_a_kind_does_not_have_is_refused(tmp_path: Any) -> None:
    settings = ServingSettings(
        kind="v2", hosts=["a:1"], repository=str(tmp_path), options={"runtime": "x.Y", "speed": 3}
    )
    nothing: Any = None

    with pytest.raises(ArgumentError) as raised:
        open_target(settings, lake=nothing, client=nothing, actor=nothing, clock=nothing)

    assert "speed" in raised.value.what


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_is_a_positive_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ArgumentError) as raised:
        ServingSettings(hosts=["a:1"], timeout_s=seconds)

    assert raised.value.code == "argument.serving"


@pytest.mark.parametrize("name", ["load_s", "settle_s", "requests_s", "poll_s"])
@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e12])
def test_a_patience_without_end_or_measure_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ArgumentError) as raised:
        Patience(**{name: seconds})

    assert raised.value.code == "argument.seconds"
