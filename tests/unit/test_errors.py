"""Errors: a message to act on, fields for programs, whole across processes."""

from __future__ import annotations

import json
import pickle

import pytest

from airflow_provider_xops import errors
from airflow_provider_xops.errors import LakeError, XOpsError

CLASSES = [cls for name in errors.__all__ if issubclass(cls := getattr(errors, name), XOpsError)]
RETRYABLE = {"ConflictError", "UnavailableError"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_crosses_a_process_boundary_whole(cls: type[XOpsError]) -> None:
    error = cls("w", code="a.b", why="y", todo="t", retryable=not cls.default_retryable, context={"rows": 3})

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is cls
    assert again.to_json() == error.to_json()
    assert str(again) == str(error)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_only_races_and_outages_are_retried_unless_said_otherwise(cls: type[XOpsError]) -> None:
    assert cls("w").retryable is (cls.__name__ in RETRYABLE)
    assert cls("w", retryable=not cls.default_retryable).retryable is not cls.default_retryable


def test_every_family_has_a_name_of_its_own() -> None:
    families = [cls.family for cls in CLASSES]

    assert len(set(families)) == len(families)
    assert [cls("w").code for cls in CLASSES] == [f"{family}.error" for family in families]


def test_the_text_says_what_why_and_what_next() -> None:
    error = LakeError("no lake at /data.", code="lake.not_found", why="nothing is there", todo="make one.")

    assert str(error) == "[lake.not_found] no lake at /data. Why: nothing is there. Next step: make one."


def test_a_text_without_reason_and_next_step_has_no_empty_parts() -> None:
    assert str(LakeError("no lake")) == "[lake.error] no lake."


def test_json_has_every_field_and_is_plain() -> None:
    error = LakeError("no lake", code="lake.not_found", why="y", todo="t", context={"version": 3})

    assert json.loads(json.dumps(error.to_json())) == {
        "code": "lake.not_found", "what": "no lake", "why": "y", "todo": "t", "retryable": False,
        "context": {"version": 3},
    }  # fmt: skip


def test_the_context_is_a_copy() -> None:
    context = {"rows": 3}
    error = LakeError("w", context=context)

    context["rows"] = 4

    assert error.context == {"rows": 3}
