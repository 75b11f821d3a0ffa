"""A validation as a document: JSON for programs, one small HTML page for people.

For validation. Both hold figures and the suite's own arguments; values of rows only as samples, which have
been through the privacy policy of :mod:`~airflow_provider_xops.quality.samples`, and both name that policy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from airflow_provider_xops.quality.engine import CheckResult
from airflow_provider_xops.quality.page import Html, cell, facts_table, figure, page, table
from airflow_provider_xops.quality.samples import SamplePolicy, samples_line
from airflow_provider_xops.records import Outcome, Severity, ValidationReport

__all__ = ["report_html", "report_json"]

# What needs a look comes first.
_ORDER = (Outcome.ERRORED, Outcome.FAILED, Outcome.NO_DATA, Outcome.PASSED)
_SHOWN_ARGUMENTS = 1000  # characters of a check's arguments: a set of values may have megabytes
_DOCUMENTS = {"data_docs": "Great Expectations' Data Docs", "json": "The result as JSON"}


def report_json(
    report: ValidationReport,
    results: Sequence[CheckResult],
    *,
    policy: SamplePolicy = SamplePolicy.NONE,
    samples: Sequence[Sequence[str]] = (),
) -> bytes:
    """The report with every check's arguments and figures, as indented JSON.

    :param samples: for each result, the bad values as ``policy`` shows them.
    """
    content = {
        "report": report.to_json(),
        "samples": policy.value,
        "checks": [
            {
                **{key: value for key, value in vars(result).items() if key not in ("check", "examples")},
                "type": result.check.type,
                "kwargs": dict(result.check.kwargs),
                "severity": result.check.severity.value,
                "meta": dict(result.check.meta),
                "samples": _samples_of(samples, number),
            }
            for number, result in enumerate(results)
        ],
    }
    return json.dumps(content, indent=2, sort_keys=True, default=str, allow_nan=False).encode()


def report_html(
    report: ValidationReport,
    results: Sequence[CheckResult],
    *,
    policy: SamplePolicy = SamplePolicy.NONE,
    samples: Sequence[Sequence[str]] = (),
) -> bytes:
    """The report as one page; its links lead to the documents beside it."""
    ordered = sorted(enumerate(results), key=lambda each: _place(each[1]))
    body: list[str] = [
        facts_table(_facts(report)),
        "<h2>Outcomes</h2>",
        _counts(results),
        *_links(report),
        *_notes(report),
        "<h2>Checks</h2>",
        table(
            ("Check", "Column", "Outcome", "Severity", "Arguments", "Observed", "Unexpected", "Remark"),
            [_row(result) for _, result in ordered],
        ),
        "<h2>Samples</h2>",
        Html(f'<p class="note">{escape(samples_line(policy))}</p>'),
        *(_sample_table(result, _samples_of(samples, number)) for number, result in ordered),
    ]
    title = f"{report.suite} on {report.dataset}: {_word(report.outcome)}"
    return page(title, body, css_class=report.outcome.value)


def _facts(report: ValidationReport) -> list[tuple[str, str]]:
    return [
        ("Outcome", _word(report.outcome)),
        ("Worst severity", report.severity.value if report.severity else "none"),
        ("Dataset", str(report.dataset)),
        ("Table UUID", report.dataset.table_uuid),
        ("Lake", report.dataset.lake_id),
        ("Partitions", ", ".join(report.partitions) if report.partitions is not None else "all"),
        ("Rows", f"{report.rows:,}"),
        ("Content digest", report.content_digest),
        ("Suite", f"{report.suite} (digest {report.suite_digest})"),
        ("Engine", report.engine),
        ("Recorded", f"{report.recorded_at.isoformat()} by {report.produced_by.id}"),
        ("Record", report.record_id),
    ]


def _counts(results: Sequence[CheckResult]) -> Html:
    """How many checks ended how, by their severity."""
    rows = [
        [
            cell(severity.value, severity.value),
            *(
                sum(one.check.severity is severity and one.outcome is outcome for one in results)
                for outcome in _ORDER
            ),
        ]
        for severity in Severity
        if any(one.check.severity is severity for one in results)
    ]
    return table(("Severity", *(_word(outcome).capitalize() for outcome in _ORDER)), rows)


def _links(report: ValidationReport) -> list[str]:
    links = [
        f'<a href="{escape(uri.rpartition("/")[2])}">{escape(_DOCUMENTS.get(name, name))}</a>'
        for name, uri in sorted(report.documents.items())
    ]
    return [f"<p>{' · '.join(links)}</p>"] if links else []


def _notes(report: ValidationReport) -> list[str]:
    if not report.engine_notes:
        return []
    items = "".join(f"<li>{escape(note)}</li>" for note in report.engine_notes)
    return ["<h2>How it was computed</h2>", f"<ul>{items}</ul>"]


def _row(result: CheckResult) -> list[Any]:
    check = result.check
    arguments = {key: value for key, value in check.kwargs.items() if not key.startswith("column")}
    unexpected = figure(result.unexpected_count)
    if result.unexpected_count is not None and result.unexpected_percent is not None:
        unexpected += f" ({result.unexpected_percent:.3g} %)"
    shown = json.dumps(arguments, default=str, ensure_ascii=False) if arguments else ""
    if len(shown) > _SHOWN_ARGUMENTS:
        shown = f"{shown[:_SHOWN_ARGUMENTS]}… ({len(shown):,} characters; the JSON has all)"
    return [
        cell(Html(f"<code>{escape(check.type)}</code>"), "c"),
        check.column or "",
        cell(_word(result.outcome), f"o {result.outcome.value}"),
        cell(check.severity.value, check.severity.value if result.outcome is not Outcome.PASSED else "note"),
        Html(f"<code>{escape(shown)}</code>") if shown else "",
        cell(figure(result.observed), "n"),
        cell(unexpected, "n"),
        result.message,
    ]


def _sample_table(result: CheckResult, values: Sequence[str]) -> str:
    if not values:
        return ""
    subject = f"{result.check.type} on {result.check.column}" if result.check.column else result.check.type
    counted = dict.fromkeys(values, 0)
    for value in values:
        counted[value] += 1
    return f"<h3>{escape(subject)}</h3>" + table(("Bad value", "Times in the sample"), counted.items())


def _samples_of(samples: Sequence[Sequence[str]], number: int) -> list[str]:
    return list(samples[number]) if number < len(samples) else []


def _place(result: CheckResult) -> tuple[int, int]:
    """Within an outcome by severity, within that the suite's own order."""
    return _ORDER.index(result.outcome), list(Severity).index(result.check.severity)


def _word(outcome: Outcome) -> str:
    return outcome.value.replace("_", " ")
