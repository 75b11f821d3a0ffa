"""A validation as a document: JSON for programs, one small HTML page for people.

For validation. Both hold figures and the suite's own arguments, never values of rows. The page needs nothing
from anywhere: no script, no font, no style sheet but its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from airflow_provider_xops.quality.engine import CheckResult
from airflow_provider_xops.records import Outcome, ValidationReport

__all__ = ["report_html", "report_json"]

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1d2330}"
    "table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{text-align:left;padding:.35rem .6rem;"
    "border-bottom:1px solid #dde1e8;vertical-align:top}th{font-weight:600}td.n{text-align:right;"
    "font-variant-numeric:tabular-nums}code{font-size:.9em;overflow-wrap:anywhere}"
    "td.c code{white-space:nowrap}"
    ".o{font-weight:600}"
    ".passed{color:#12683c}.failed{color:#a3201d}.errored{color:#8a4b00}.no_data{color:#565e6d}"
)


def report_json(report: ValidationReport, results: Sequence[CheckResult]) -> bytes:
    """The report with every check's arguments and figures, as indented JSON."""
    content = {
        "report": report.to_json(),
        "checks": [
            {
                **{key: value for key, value in vars(result).items() if key != "check"},
                "type": result.check.type,
                "kwargs": dict(result.check.kwargs),
                "severity": result.check.severity.value,
            }
            for result in results
        ],
    }
    return json.dumps(content, indent=2, sort_keys=True, default=str, allow_nan=False).encode()


def report_html(report: ValidationReport, results: Sequence[CheckResult]) -> bytes:
    """The report as one page."""
    title = f"{report.suite} on {report.dataset}: {report.outcome.value.replace('_', ' ')}"
    facts = [
        ("Outcome", report.outcome.value.replace("_", " ")),
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
    head = "".join(
        f"<tr><th>{escape(name)}</th><td><code>{escape(text)}</code></td></tr>" for name, text in facts
    )
    # What needs a look comes first; within an outcome the suite's own order stays.
    rows = "".join(
        _row(result) for result in sorted(results, key=lambda each: each.outcome is Outcome.PASSED)
    )
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>"
        f'<h1 class="{report.outcome.value}">{escape(title)}</h1><table>{head}</table>'
        "<h2>Checks</h2><table><thead><tr><th>Check</th><th>Column</th><th>Outcome</th><th>Severity</th>"
        "<th>Arguments</th><th>Observed</th><th>Unexpected</th><th>Remark</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></body></html>\n"
    )
    return page.encode()


def _row(result: CheckResult) -> str:
    check = result.check
    arguments = {key: value for key, value in check.kwargs.items() if not key.startswith("column")}
    unexpected = _figure(result.unexpected_count)
    if result.unexpected_count is not None and result.unexpected_percent is not None:
        unexpected += f" ({result.unexpected_percent:.3g} %)"
    outcome = result.outcome.value
    return (
        f'<tr><td class="c"><code>{escape(check.type)}</code></td>'
        f"<td>{escape(check.column or '')}</td>"
        f'<td class="o {outcome}">{escape(outcome.replace("_", " "))}</td>'
        f"<td>{escape(check.severity.value)}</td>"
        f"<td><code>{escape(json.dumps(arguments, default=str)) if arguments else ''}</code></td>"
        f'<td class="n">{_figure(result.observed)}</td><td class="n">{unexpected}</td>'
        f"<td>{escape(result.message)}</td></tr>"
    )


def _figure(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
