"""An evaluation as a document: one page for people, the same as JSON for programs, copies in MLflow.

For evaluation. The page needs nothing from anywhere (see :mod:`~airflow_provider_xops.quality.page`); its
charts are inline SVG. Both documents hold figures only: curves are drawn on a fixed grid, scores and
residuals are counted in bins, so that no single row is shown.

What it does not do: it measures nothing. What the evaluation left out is named, not filled in. Names of
groups, classes and slices are values of the columns that the plan names, and stand in the page.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import TYPE_CHECKING

from airflow_provider_xops.evaluation import _report_curves as drawn
from airflow_provider_xops.evaluation import _report_more as more
from airflow_provider_xops.evaluation import _report_parts as parts
from airflow_provider_xops.evaluation._document import Items, Link, Section, to_html, without_links
from airflow_provider_xops.evaluation.curves import Curves, curves_of
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Evaluation, ModelVersion
from airflow_provider_xops.registry import documents
from airflow_provider_xops.registry.client import RegistryClient

if TYPE_CHECKING:
    from airflow_provider_xops.evaluation.scored import Scored

__all__ = ["attach", "report_html", "report_json", "write_report"]

log = logging.getLogger(__name__)

FOLDER = "evaluations"
REPORTS = "/_xops/reports/"


def write_report(lake: Lake, evaluation: Evaluation, scored: Scored) -> dict[str, str]:
    """Write the documents of an evaluation into the lake's reports; gives their URIs.

    Their names follow from the record's identity: an attempt that was killed before it recorded the
    evaluation leaves what the next one finds.

    :param evaluation: as it will be recorded, with everything that was measured.
    :param scored: the rows it was measured on.
    :returns: ``report`` (HTML) and ``json``.

    >>> write_report(lake, evaluation, scored)["report"]  # doctest: +SKIP
    's3://lake/_xops/reports/evaluations/3f2a....html'
    """
    curves = curves_of(scored)
    champion = scored.champion.model if scored.champion else None
    stem = f"{FOLDER}/{evaluation.record_id}"
    content = report_json(evaluation, curves)
    page = report_html(evaluation, curves, model=scored.challenger.model, champion=champion)
    return {
        "json": lake.evidence.put_report(f"{stem}.json", content, content_type="application/json"),
        "report": lake.evidence.put_report(f"{stem}.html", page, content_type="text/html"),
    }


def attach(client: RegistryClient, model: ModelVersion, lake: Lake, evaluation: Evaluation) -> bool:
    """Put an evaluation's documents and figures onto the model's MLflow run; False where it has none.

    The figures are called ``eval.roc_auc``, the ends of their intervals ``eval.roc_auc_lower`` and
    ``eval.roc_auc_upper``, the difference to the champion ``eval.roc_auc_difference``. Doing it again changes
    nothing; MLflow shows the newest evaluation of a version.

    :raises UnavailableError: MLflow or a storage did not answer; trying again is safe.
    """
    uris = {"evaluation.html": evaluation.report_uri, "evaluation.json": evaluation.documents.get("json")}
    found = {name: _document_of(lake, uri) for name, uri in uris.items() if uri}
    files = {
        name: without_links(content) if name.endswith(".html") else content
        for name, content in found.items()
        if content is not None
    }
    moment = int(evaluation.recorded_at.timestamp() * 1000)
    return documents.attach(client, model, files, metrics=_metrics(evaluation), at_ms=moment)


def report_html(
    evaluation: Evaluation, curves: Curves, *, model: ModelVersion, champion: ModelVersion | None
) -> bytes:
    """The page of an evaluation.

    :param curves: of the same rows, from :func:`~airflow_provider_xops.evaluation.curves.curves_of`.
    """
    against = f" against v{evaluation.champion.version}" if evaluation.champion else ""
    sections = [
        Section("Overview", [parts.facts_of(evaluation)]),
        parts.gate_section(evaluation),
        parts.figure_section(evaluation),
        *drawn.curve_sections(evaluation, curves),
        *drawn.threshold_section(evaluation),
        *more.closer_sections(evaluation),
        *more.missing_section(more.missing_of(evaluation)),
        parts.provenance_section(evaluation, model, champion),
        Section("Documents", [Items([Link("The same as JSON", f"{evaluation.record_id}.json")])]),
    ]
    return to_html(
        f"Evaluation of {evaluation.model}{against}",
        sections,
        lead=parts.lead_of(evaluation),
        outcome=parts.worst(evaluation.gates),
    )


def report_json(evaluation: Evaluation, curves: Curves) -> bytes:
    """The record and the numbers behind the curves, as indented JSON."""
    content = {"evaluation": evaluation.to_json(), "curves": dataclasses.asdict(curves)}
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False).encode()


def _document_of(lake: Lake, uri: str) -> bytes | None:
    """The content of a document in the lake's reports; None if it is not there.

    It is found by its place in the lake: a lake that has moved has its documents where it is now.
    """
    _, found, path = uri.partition(REPORTS)
    return lake.storage.get(f"{REPORTS.strip('/')}/{path}") if found else None


def _metrics(evaluation: Evaluation) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {f"eval.{name}": value for name, value in evaluation.metrics.items()}
    for one in evaluation.figures:
        metrics |= {f"eval.{one.metric}_lower": one.lower, f"eval.{one.metric}_upper": one.upper}
    for compared in evaluation.comparisons:
        metrics.setdefault(f"eval.{compared.metric}_difference", compared.difference)
    # Ranking metrics are called ndcg@10; MLflow takes no @ in a name.
    return {name.replace("@", "_at_"): value for name, value in metrics.items()}
