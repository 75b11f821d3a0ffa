"""Links from a task to what it wrote into the lake: its record, and its reports.

For the task page. Airflow asks for them in the worker after each attempt, so they read what the operator
remembered while it performed. They lead to this package's own pages in Airflow (see
:mod:`airflow_provider_xops.plugin.api`): a browser opens neither ``file://`` nor ``s3://`` from there.

What they do not do: they give no access. Whoever follows one must be allowed to see Airflow's plugin pages.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from airflow_provider_xops.version_compat import BaseOperatorLink, conf

__all__ = [
    "ControlChartsLink",
    "DataDocsLink",
    "EvaluationReportLink",
    "EvidenceLink",
    "ModelCardLink",
    "ProfileLink",
    "QuarantineReportLink",
    "ReportLink",
    "ValidationReportLink",
    "base_path",
]


class EvidenceLink(BaseOperatorLink):
    """To the evidence record the task wrote (JSON)."""

    name = "XOps evidence"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The record's page; nothing where the task wrote none, or wrote into the ledger, which has no
        pages."""
        page = _page(operator, getattr(operator, "evidence_uri", None), "evidence")
        return "" if "/evidence/decisions/" in page else page.removesuffix(".json")


class ReportLink(BaseOperatorLink):
    """To a page that the task wrote into the lake's reports; nothing where it wrote none."""

    name = "Report"
    attribute = "report_uri"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page."""
        return _page(operator, getattr(operator, self.attribute, None), "reports")


class ValidationReportLink(ReportLink):
    """To the validation's page: every expectation with its figures."""

    name = "Validation report"


class DataDocsLink(ReportLink):
    """To Great Expectations' own page of the validation."""

    name = "Data Docs"
    attribute = "data_docs_uri"


class QuarantineReportLink(ReportLink):
    """To the page that says which rows were set aside, and why."""

    name = "Quarantine report"
    attribute = "quarantine_uri"


class ProfileLink(ReportLink):
    """To the page of the profile: every column with its figures, and what changed."""

    name = "Profile"


class ControlChartsLink(ReportLink):
    """To the page of the control charts: signals in words, charts, limits."""

    name = "Control charts"


class EvaluationReportLink(ReportLink):
    """To the evaluation's page: figures with intervals, tests, slices, gates."""

    name = "Evaluation report"


class ModelCardLink(ReportLink):
    """To the card of the model version."""

    name = "Model card"


def base_path() -> str:
    """The path under which this Airflow is served: empty, unless several share a host."""
    path: str = urlsplit(conf.get("api", "base_url", fallback="")).path
    return path.rstrip("/")


def _page(operator: Any, uri: str | None, folder: str) -> str:
    _, found, path = (uri or "").partition(f"/_xops/{folder}/")
    if not found:
        return ""
    return f"{base_path()}/xops/lakes/{quote(operator.lake_conn_id, safe='')}/{folder}/{quote(path)}"
