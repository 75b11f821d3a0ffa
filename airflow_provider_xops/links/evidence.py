"""Links from a task to what it wrote into the lake: its record, and its validation report.

For the task page. Airflow asks for them in the worker after each attempt, so they read what the operator
remembered while it performed.

What they do not do: they give no access. A link into S3 or a folder opens where the browser's user can read
it.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_xops.version_compat import BaseOperatorLink

__all__ = ["EvidenceLink", "ValidationReportLink"]


class EvidenceLink(BaseOperatorLink):
    """To the evidence record the task wrote (JSON in the lake)."""

    name = "XOps evidence"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The record's URI, or nothing where the task wrote none."""
        return _browsable(getattr(operator, "evidence_uri", None))


class ValidationReportLink(BaseOperatorLink):
    """To the validation's page: every expectation with its figures."""

    name = "Validation report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The report's URI, or nothing where the validation did not run."""
        return _browsable(getattr(operator, "report_uri", None))


def _browsable(uri: str | None) -> str:
    if not uri:
        return ""
    return uri if "://" in uri else f"file://{uri}"
