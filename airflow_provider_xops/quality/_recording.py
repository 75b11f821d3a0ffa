"""A validation's run turned into its record and documents.

Private to :mod:`airflow_provider_xops.quality.validate`. Documents are written before the record, at names
that follow from the record's identity, so an attempt that dies in between leaves what the next one finds.
A document with samples has another name than one without: what ``samples="none"`` wrote or links to holds
none, whatever was asked before.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality.data_docs import data_docs_html
from airflow_provider_xops.quality.engine import EngineRun
from airflow_provider_xops.quality.policy import suite_outcome, worst_severity
from airflow_provider_xops.quality.report import report_html, report_json
from airflow_provider_xops.quality.samples import (
    SAMPLE_SIZE,
    SamplePolicy,
    sample_policy,
    sample_size,
    samples_line,
    shown,
)
from airflow_provider_xops.records import Outcome, ValidationReport

__all__ = ["DocumentOptions", "has_samples_of", "record_validation"]

log = logging.getLogger(__name__)

NOT_DRAWN = "Great Expectations could not draw its Data Docs page of this run"


@dataclass(frozen=True, kw_only=True)
class DocumentOptions:
    """What a report's documents show, and which there are."""

    policy: SamplePolicy = SamplePolicy.NONE
    size: int = SAMPLE_SIZE
    data_docs: bool = True

    @classmethod
    def of(cls, samples: Any, size: Any, data_docs: Any) -> DocumentOptions:
        """From what a user gave.

        :raises ArgumentError: ``argument.samples``, ``argument.sample_size``.
        """
        return cls(policy=sample_policy(samples), size=sample_size(size), data_docs=bool(data_docs))

    @property
    def examples(self) -> int:
        """How many bad values of each check an engine is asked for."""
        return 0 if self.policy is SamplePolicy.NONE else self.size


def has_samples_of(report: ValidationReport, options: DocumentOptions) -> bool:
    """Whether a known report's page shows what is asked for: the same samples, and none where none are."""
    return (report.report_uri or "").endswith(f"{_stem(report, options)}.html")


def record_validation(
    lake: Lake, facts: Mapping[str, Any], run: EngineRun, options: DocumentOptions
) -> ValidationReport:
    """Write documents and record; gives the record that is kept.

    :param facts: the record's fields that are known without the run.
    """
    results = run.results
    checks = tuple(result.summary() for result in results)
    counted = Counter(check.outcome for check in checks)
    report = ValidationReport(
        **facts,
        outcome=suite_outcome(checks, rows=facts["rows"]),
        severity=worst_severity(checks),
        counts={outcome.value: counted[outcome] for outcome in Outcome},
        checks=checks,
        engine_notes=tuple(run.notes),
    )
    samples = [shown(result.examples[: options.size], options.policy) for result in results]
    stem = _stem(report, options)
    documents = {}
    if options.data_docs and run.document is not None:
        drawn = data_docs_html(
            run.document,
            suite=report.suite,
            dataset=str(report.dataset),
            recorded_at=report.recorded_at.isoformat(),
            samples=samples,
            remarks=[samples_line(options.policy), *_remarks(report)],
        )
        if drawn is None:
            report = dataclasses.replace(report, engine_notes=(*report.engine_notes, NOT_DRAWN))
        else:
            documents["data_docs"] = lake.evidence.put_report(
                f"{stem}.data_docs.html", drawn, content_type="text/html"
            )
    documents["json"] = lake.evidence.put_report(
        f"{stem}.json", report_json(report, results, policy=options.policy, samples=samples),
        content_type="application/json",
    )  # fmt: skip
    report = dataclasses.replace(report, documents=documents)
    page = report_html(report, results, policy=options.policy, samples=samples)
    uri = lake.evidence.put_report(f"{stem}.html", page, content_type="text/html")
    report = dataclasses.replace(report, report_uri=uri)
    if lake.evidence.put(report):
        return report
    # Another attempt was faster, or the question had been answered: that record is the one that is kept.
    kept = lake.evidence.get(ValidationReport.kind, report.record_id)
    assert isinstance(kept, ValidationReport)
    if has_samples_of(kept, options):
        return kept
    return dataclasses.replace(kept, report_uri=uri, documents=documents)


def _stem(report: ValidationReport, options: DocumentOptions) -> str:
    policy = "" if options.policy is SamplePolicy.NONE else f".{options.policy.value}"
    return f"validations/{report.record_id}{policy}"


def _remarks(report: ValidationReport) -> list[str]:
    nothing = report.counts.get(Outcome.NO_DATA.value, 0)
    if not nothing:
        return []
    return [f"{nothing} check(s) had nothing to look at; Great Expectations has no word for that but failed."]
