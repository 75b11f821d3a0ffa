"""The page of a control chart report: what signals, in words first; then the charts, then how they were made.

For :mod:`~airflow_provider_xops.quality.control`. Figures and names of partitions only, never values of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from airflow_provider_xops.quality.page import Html, cell, facts_table, figure, page, table
from airflow_provider_xops.quality.spc import ChartSpec, ChartVerdict, svg
from airflow_provider_xops.quality.spc.judge import UNSTABLE
from airflow_provider_xops.records import ControlChartReport, Outcome

__all__ = ["control_page"]

_KINDS = {
    "gap": "no value",
    "cause": "special cause",
    "step": "before a change of the process",
    "removed": "out of control while limits were estimated",
}
_PHASES = {
    "phase_1": "a baseline that is still growing",
    "phase_2": "a complete baseline",
    "no_limits": "none: too few points",
}
# What is charted below one that signals is folded away beyond so many.
_OPEN_CHARTS = 12


def control_page(
    report: ControlChartReport, verdicts: Sequence[ChartVerdict], in_words: Callable[[Any], str]
) -> bytes:
    """The document.

    :param in_words: one signal as a sentence.
    """
    return page(
        f"Control charts of {report.table}, {report.partition}: {_headline(report)}",
        _body(report, verdicts, in_words),
        css_class=report.outcome.value,
    )


def _headline(report: ControlChartReport) -> str:
    if report.outcome is Outcome.FAILED:
        count = len(report.signals)
        return f"{count} signal{'' if count == 1 else 's'}"
    return "no limits yet" if report.outcome is Outcome.NO_DATA else "in control"


def _body(
    report: ControlChartReport, verdicts: Sequence[ChartVerdict], in_words: Callable[[Any], str]
) -> Iterator[str]:
    if report.signals:
        items = "".join(f"<li>{escape(in_words(signal))}</li>" for signal in report.signals)
        yield f"<ul>{items}</ul>"
    elif report.outcome is Outcome.NO_DATA:
        yield '<p class="note">No chart could judge this partition: see the notes of each chart.</p>'
    yield facts_table(
        [
            ("Version", f"{report.table}@{report.dataset.version}" if report.dataset else report.table),
            ("Partition", report.partition),
            ("Charts", len(verdicts)),
            ("Recorded", report.recorded_at.isoformat()),
            ("Report", report.record_id),
        ]
    )
    ordered = sorted(verdicts, key=lambda one: one.outcome is not Outcome.FAILED)  # signals first
    yield "<h2>Charts</h2>"
    for number, verdict in enumerate(ordered):
        yield _chart(verdict, folded=number >= _OPEN_CHARTS and verdict.outcome is not Outcome.FAILED)
    yield "<h2>Limits</h2>"
    yield table(
        ("Metric", "Chart", "Outcome", "Value", "Lower", "Center", "Upper", "Sigma", "Points", "Limits from"),
        (
            (
                verdict.spec.metric,
                verdict.spec.chart,
                cell(verdict.outcome.value, f"o {verdict.outcome.value}"),
                verdict.value,
                verdict.lower,
                verdict.center,
                verdict.upper,
                verdict.sigma,
                verdict.n_used,
                _PHASES.get(verdict.phase, verdict.phase),
            )
            for verdict in ordered
        ),
    )
    yield from _known(verdicts)
    yield "<h2>How the limits were made</h2>"
    yield table(
        ("Metric", "Chart", "Rules", "Baseline", "Strata", "Estimate"),
        (
            (
                verdict.spec.metric,
                verdict.spec.chart,
                ", ".join(verdict.spec.rule_names),
                _baseline(verdict),
                f"{verdict.spec.strata} ({verdict.spec.timezone})" if verdict.spec.strata else "none",
                _estimate(verdict.spec),
            )
            for verdict in ordered
        ),
    )


def _chart(verdict: ChartVerdict, *, folded: bool) -> str:
    notes = "".join(
        f'<p class="{"warning" if note.startswith(UNSTABLE) else "note"}">{escape(note)}</p>'
        for note in verdict.notes
    )
    drawn = svg(verdict) + notes  # the drawing has the chart's name
    title = escape(f"{verdict.spec.metric} ({verdict.spec.chart})")
    return f"<details><summary>{title}</summary>{drawn}</details>" if folded else drawn


def _known(verdicts: Sequence[ChartVerdict]) -> Iterator[str]:
    causes = {cause: None for verdict in verdicts for cause in verdict.causes}
    if causes:
        yield "<h2>Special causes</h2>"
        yield table(
            ("From", "To", "Reason", "Metrics", "Effect"),
            (
                (
                    cause.start.isoformat(),
                    cause.end.isoformat() if cause.end else "lasts",
                    cause.reason,
                    ", ".join(cause.metrics) if cause.metrics else "all",
                    "points left out" if cause.action == "exclude" else "limits begin anew",
                )
                for cause in causes
            ),
        )
    excluded = [(verdict.spec.metric, one) for verdict in verdicts for one in verdict.excluded]
    if excluded:
        yield "<h2>Points that did not count</h2>"
        yield table(
            ("Metric", "Point", "Why", "Reason"),
            ((metric, one.label, _KINDS.get(one.kind, one.kind), one.reason) for metric, one in excluded),
        )


def _baseline(verdict: ChartVerdict) -> str:
    spec, used = verdict.spec, f"{len(verdict.baseline)} used"
    if verdict.baseline:
        used += f", {verdict.baseline[0]} to {verdict.baseline[-1]}"
    if spec.baseline.kind == "frozen" and spec.baseline.start and spec.baseline.end:
        return f"frozen, {spec.baseline.start.date()} to {spec.baseline.end.date()}; {used}"
    gap = f", {spec.baseline.gap} before the newest left out" if spec.baseline.gap else ""
    return f"rolling, the last {spec.baseline.points}{gap}; {used}"


def _estimate(spec: ChartSpec) -> Html:
    parts = []
    if spec.chart == "individuals":
        parts.append(f"center ± {figure(spec.width)} sigma from the {spec.moving_range} moving range")
    elif spec.chart == "p":
        parts.append(
            f"binomial limits, {figure(spec.width)} sigma"
            + (", widened by the variation between points (Laney)" if spec.laney else "")
        )
    elif spec.chart == "ewma":
        parts.append(f"EWMA, weight {figure(spec.lambda_)}, limit {figure(spec.ewma_limit)}")
    else:
        parts.append(f"CUSUM, k {figure(spec.k)}, h {figure(spec.h)}")
    if spec.transform:
        parts.append(f"on the {spec.transform} scale")
    if spec.target is not None:
        parts.append(f"target {figure(spec.target)} given")
    if spec.sigma is not None:
        parts.append(f"sigma {figure(spec.sigma)} given")
    parts.append(f"phase I may remove {spec.max_removed:.0%} of the baseline")
    return Html(escape("; ".join(parts)))
