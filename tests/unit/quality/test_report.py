"""The report as documents: complete, escaped, and standing on their own."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser

import pytest

from airflow_provider_xops.quality.engine import CheckResult
from airflow_provider_xops.quality.report import report_html, report_json
from airflow_provider_xops.quality.samples import SamplePolicy
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
    # the facts, the counts of two severities, and the checks, with a line of headings each
    assert page.tags.count("tr") == 12 + (1 + 2) + (1 + len(RESULTS))


def test_what_needs_a_look_comes_first(page: _Page) -> None:
    order = [page.text.index(result.check.type) for result in RESULTS]
    assert order[1] < order[0] < order[2]


def test_the_page_says_how_it_was_computed_and_leads_to_the_other_documents() -> None:
    record = dataclasses.replace(
        report(Outcome.PASSED),
        engine_notes=(f"by {NASTY}",),
        documents={"data_docs": "s3://b/_xops/reports/validations/1.data_docs.html"},
    )
    text = report_html(record, RESULTS).decode()
    assert '<a href="1.data_docs.html">' in text
    assert "<li>by &lt;script&gt;" in text


def test_samples_are_shown_with_the_policy_they_obey() -> None:
    samples = [["Aa (text)", "Aa (text)", NASTY], [], []]
    for policy, named in ((SamplePolicy.NONE, "none"), (SamplePolicy.MASKED, "masked")):
        given = samples if policy is SamplePolicy.MASKED else ()
        text = report_html(
            report(Outcome.FAILED, Severity.WARNING), RESULTS, policy=policy, samples=given
        ).decode()
        assert f"Samples of bad rows: {named}" in text
        assert ("Aa (text)" in text) is (policy is SamplePolicy.MASKED)
        assert NASTY not in text


def test_examples_that_went_through_no_policy_are_in_neither_document() -> None:
    results = [dataclasses.replace(RESULTS[0], examples=("Jane Doe",))]
    record = report(Outcome.FAILED, Severity.WARNING)
    assert b"Jane" not in report_html(record, results) + report_json(record, results)


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


def test_a_set_of_values_of_megabytes_does_not_fill_the_page() -> None:
    many = Check(
        type="expect_column_values_to_be_in_set",
        kwargs={"column": "n", "value_set": [f"value {number}" for number in range(20_000)]},
    )
    results = [CheckResult(check=many, outcome=Outcome.PASSED)]
    record = report(Outcome.PASSED, None)

    assert len(report_html(record, results)) < 20_000
    assert b"characters; the JSON has all" in report_html(record, results)
    assert b"value 19999" in report_json(record, results)
