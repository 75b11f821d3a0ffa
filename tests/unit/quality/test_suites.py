"""Suites: from functions and files, checked before anything runs, known by their content."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError, UserCodeError
from airflow_provider_xops.quality.suites import Check, load_suite
from airflow_provider_xops.records import Severity

EXAMPLES = "tests.unit.quality.example_suites"
NOT_NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "flight"}}

Write = Callable[[str, Any], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a suite file (text, or an object as JSON) and gives its path."""

    def write(name: str, content: Any) -> str:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


def test_a_function_gives_its_suite() -> None:
    suite = load_suite(f"{EXAMPLES}:small")
    assert suite.name == "small"
    assert suite.reference == f"{EXAMPLES}:small"
    assert [(check.type, check.column, check.severity) for check in suite.checks] == [
        ("expect_column_values_to_not_be_null", "flight", Severity.CRITICAL),
        ("expect_column_values_to_be_between", "flight", Severity.WARNING),
    ]


def test_a_list_of_expectations_is_a_suite_named_by_its_function() -> None:
    assert load_suite(f"{EXAMPLES}:as_list").name == "as_list"


def test_json_yaml_and_python_say_the_same(write: Write) -> None:
    between = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "flight", "min_value": 1},
        "severity": "warning",
    }
    from_json = load_suite(write("a.json", {"name": "small", "expectations": [NOT_NULL, between]}))
    from_yaml = load_suite(
        write(
            "a.yaml",
            "expectations:\n"
            "- {type: expect_column_values_to_not_be_null, kwargs: {column: flight}}\n"
            "- type: expect_column_values_to_be_between\n"
            "  kwargs: {column: flight, min_value: 1}\n"
            "  severity: warning\n",
        )
    )
    digests = {load_suite(f"{EXAMPLES}:small").digest, from_json.digest, from_yaml.digest}
    assert len(digests) == 1
    assert (from_json.name, from_yaml.name) == ("small", "a")


@pytest.mark.parametrize(
    "changed",
    [
        {**NOT_NULL, "kwargs": {"column": "carrier"}},
        {**NOT_NULL, "severity": "info"},
        {**NOT_NULL, "kwargs": {"column": "flight", "mostly": 0.9}},
    ],
)
def test_the_digest_changes_with_every_argument(write: Write, changed: Any) -> None:
    before = load_suite(write("a.json", [NOT_NULL])).digest
    assert load_suite(write("b.json", [changed])).digest != before


def test_dates_in_yaml_are_kept_as_text(write: Write) -> None:
    suite = load_suite(
        write(
            "a.yaml",
            "- type: expect_column_values_to_be_between\n  kwargs: {column: day, min_value: 2013-01-01}\n",
        )
    )
    assert suite.checks[0].kwargs["min_value"] == "2013-01-01"


def test_the_columns_of_a_check_are_all_it_looks_at() -> None:
    assert Check(type="x", kwargs={"column_A": "a", "column_B": "b"}).columns == ("a", "b")
    assert Check(type="x", kwargs={"column_list": ["a", "b"]}).column == "a, b"
    assert Check(type="expect_table_columns_to_match_set", kwargs={"column_set": ["a"]}).columns == ()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not JSON"),
        ({"name": "x"}, "not a suite"),
        ([{"type": "expect_the_unexpected"}], "expectation 1 (expect_the_unexpected)"),
        ([NOT_NULL, {"type": "expect_column_values_to_not_be_null"}], "expectation 2"),
        ([{**NOT_NULL, "severity": "fatal"}], "fatal"),
        ([5], "without a type"),
        ([], "nothing checked"),
    ],
)
def test_an_unusable_file_is_refused_with_the_place(write: Write, content: Any, why: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        load_suite(write("a.json", content))
    assert caught.value.code == "argument.suite"
    assert why in caught.value.why


def test_a_file_that_is_not_yaml_or_not_there_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="not YAML"):
        load_suite(write("a.yaml", "a: [1"))
    with pytest.raises(ArgumentError) as caught:
        load_suite(str(tmp_path / "none.json"))
    assert caught.value.code == "argument.suite_missing"


def test_a_reference_that_rendered_to_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError) as caught:
        load_suite("  ")
    assert caught.value.code == "argument.empty"


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        (f"{EXAMPLES}:broken", "user_code.raised"),
        (f"{EXAMPLES}:absent", "user_code.not_found"),
        ("unusual_prefix_0123456789abcdef_flights:suite", "user_code.dag_file"),
        ("__main__:suite", "user_code.main"),
        ("not a reference", "user_code.malformed"),
        (lambda: ["x"], "user_code.lambda"),
    ],
)
def test_a_function_that_cannot_be_used_elsewhere_is_refused(reference: Any, code: str) -> None:
    with pytest.raises(UserCodeError) as caught:
        load_suite(reference)
    assert caught.value.code == code
    assert caught.value.todo


@pytest.mark.parametrize("name", ["no_suite", "empty"])
def test_a_function_that_gives_no_suite_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        load_suite(f"{EXAMPLES}:{name}")
    assert caught.value.code == "argument.suite"


def test_loading_a_suite_is_quiet_and_phones_nowhere() -> None:
    # given: a fresh interpreter that shows every log line
    script = (
        "import logging, os; logging.basicConfig(level=logging.INFO, format='%(name)s')\n"
        "from airflow_provider_xops.quality.suites import load_suite\n"
        f"load_suite('{EXAMPLES}:small')\n"
        "from airflow_provider_xops.quality._great_expectations import ephemeral_context\n"
        "ephemeral_context()\n"
        "print('analytics', os.environ['GX_ANALYTICS_ENABLED'])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    # then: our own sentence, and nothing of the library's
    assert [line for line in found.stderr.splitlines() if "great_expectations" in line] == []
    assert "airflow_provider_xops.quality.suites" in found.stderr
    assert found.stdout.split() == ["analytics", "false"]
