"""The report as documents: complete, escaped, and standing on their own."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser

import pytest

from airflow_provider_xops.quality.engine import CheckResult
from airflow_provider_xops.quality.report import report_html, report_json
from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import Outcome, Severity
from tests.unit.quality.test_policy import report

NASTY = "<script>alert('x')</script>"
RESULTS = [
    CheckResult(
        check=Check(
            type="expect_column_values_to_be_in_set",
            kwargs={"column": NASTY, "value_set": [NASTY, "AA"]},
            severity=Severity.WARNING,
        ),
        outcome=Outcome.FAILED,
        unexpected_count=1234,
        unexpected_percent=12.5,
    ),
    CheckResult(
        check=Check(type="expect_column_mean_to_be_between", kwargs={"column": "n"}),
        outcome=Outcome.ERRORED,
        message=NASTY,
    ),
    CheckResult(
        check=Check(type="expect_table_row_count_to_be_between", kwargs={"min_value": 1}),
        outcome=Outcome.PASSED,
        observed=98765,
    ),
]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


@pytest.fixture(scope="module")
def page() -> _Page:
    record = dataclasses.replace(report(Outcome.ERRORED, Severity.CRITICAL), suite=NASTY, record_id="")
    parsed = _Page()
    parsed.feed(report_html(record, RESULTS).decode())
    return parsed


def test_the_page_shows_the_outcome_the_figures_and_the_identity(page: _Page) -> None:
    for shown in ("errored", "flights__raw@3", "2013-01-01", "1,234 (12.5 %)", "98,765", "warning", "tester"):
        assert shown in page.text
    assert page.tags.count("tr") == 12 + 1 + len(RESULTS)


def test_nothing_in_the_page_is_markup_of_somebody_else(page: _Page) -> None:
    assert "script" not in page.tags
    assert NASTY in page.text


def test_the_page_needs_nothing_from_anywhere(page: _Page) -> None:
    assert not page.attributes & {"src", "href", "onclick", "onload"}


def test_the_json_has_every_check_with_its_arguments_and_figures() -> None:
    content = json.loads(report_json(report(Outcome.FAILED, Severity.WARNING), RESULTS))
    assert content["report"]["outcome"] == "failed"
    assert [check["type"] for check in content["checks"]] == [result.check.type for result in RESULTS]
    assert content["checks"][0]["kwargs"]["value_set"] == [NASTY, "AA"]
    assert content["checks"][2]["observed"] == 98765
