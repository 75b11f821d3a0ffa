"""Branches of a validation: which are refused, and that they reach what stands downstream."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.operators._branching import branches_of, check_downstream


def test_a_branch_is_a_task_several_or_none() -> None:
    given = {"passed": "publish", "failed": ["alert", "ticket"], "no_data": []}
    assert branches_of(given, needed=True) == {
        "passed": ["publish"],
        "failed": ["alert", "ticket"],
        "no_data": [],
    }
    assert branches_of(None, needed=False) == {}


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        (None, True),
        ("publish", True),
        ({"passed": "publish"}, True),
        ({"passed": "publish", "failed": "alert", "late": "x"}, True),
        ({"passed": "publish", "failed": [""]}, True),
        ({"passed": "publish", "failed": [3]}, True),
        ({"passed": "publish", "failed": []}, False),
    ],
)
def test_what_is_no_branch_is_refused(given: Any, needed: bool) -> None:
    with pytest.raises(ArgumentError) as caught:
        branches_of(given, needed=needed)
    assert caught.value.code == "argument.branches"


def test_a_branch_is_directly_downstream_alone_or_in_a_group() -> None:
    with DAG("branching", schedule=None):
        validate, publish = EmptyOperator(task_id="validate"), EmptyOperator(task_id="publish")
        with TaskGroup("on_failure") as group:
            alert, ticket = EmptyOperator(task_id="alert"), EmptyOperator(task_id="ticket")
        later = EmptyOperator(task_id="later")
        alert >> ticket
        validate >> [publish, group]
        publish >> later

    check_downstream(validate, {"passed": ["publish"], "failed": ["on_failure"]})
    check_downstream(validate, {"passed": ["publish"], "failed": ["on_failure.alert"]})
    for name in ("later", "on_failure.ticket", "nowhere"):
        with pytest.raises(ArgumentError, match=r"argument\.branches.*directly downstream"):
            check_downstream(validate, {"passed": [name], "failed": []})
