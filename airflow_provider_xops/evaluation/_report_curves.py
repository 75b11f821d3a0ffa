"""The sections of an evaluation's report about the predictions: curves, calibration, threshold.

Private to :mod:`~airflow_provider_xops.evaluation.report` and :mod:`~airflow_provider_xops.evaluation.card`.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_xops.evaluation import plots
from airflow_provider_xops.evaluation._document import Block, Facts, Plot, Plots, Section, Text
from airflow_provider_xops.evaluation._words import estimate, method_name, p_value, plain
from airflow_provider_xops.evaluation.curves import OTHER, ROWS_A_BIN, Curves
from airflow_provider_xops.records import Evaluation

__all__ = ["calibration_sections", "curve_sections", "threshold_section"]

NO_CURVES = f"No curves: they need rows of a known class, or {ROWS_A_BIN} or more rows of a regression."


def curve_sections(evaluation: Evaluation, curves: Curves) -> list[Section]:
    """ROC, precision and recall, calibration, confusion, scores; residuals of a regression."""
    areas = _by_contender(evaluation, "roc_auc")
    precisions = _by_contender(evaluation, "average_precision")
    drawn: list[Plot] = []
    if curves.roc:
        caption = "True against false positive rate over all thresholds; the dashed diagonal is guessing."
        if not set(curves.roc) & {"challenger", "champion"}:
            caption = "Each class against all others, of the challenger; the dashed diagonal is guessing."
        drawn.append(Plot(plots.roc(curves.roc, areas), caption))
    if curves.precision_recall:
        svg = plots.precision_recall(curves.precision_recall, base_rate=curves.base_rate, areas=precisions)
        drawn.append(Plot(svg, "Precision at each recall; the dotted line is acting on every row."))
    if curves.confusion:
        caption = "Counts of the challenger; the shade is the share of the true class's rows."
        if OTHER in curves.confusion.classes:
            caption += f" {OTHER.capitalize()}: the rarer ones together, right or mistaken for each other."
        drawn.append(Plot(plots.confusion_matrix(curves.confusion), caption))
    if curves.scores:
        svg = plots.histogram(curves.scores, title="Scores", x_name="predicted probability")
        drawn.append(Plot(svg, "Predicted probabilities of the challenger by true class."))
    if curves.residual_bins:
        caption = "Truth minus prediction by the size of the prediction, in bins of equally many rows."
        drawn.append(Plot(plots.residuals(curves.residual_bins), caption))
    if curves.residuals:
        svg = plots.histogram(
            curves.residuals, title="Distribution of residuals", x_name="truth minus prediction"
        )
        drawn.append(Plot(svg, "The outermost bars hold the rows beyond the 1st and 99th percentile too."))
    blocks: list[Block] = [Plots(drawn)] if drawn else [Text(NO_CURVES)]
    if curves.positive is not None:
        blocks.append(Text(f"The positive class is {curves.positive}.", note=True))
    return [Section("Curves", blocks), *calibration_sections(evaluation)]


def calibration_sections(evaluation: Evaluation) -> list[Section]:
    """Whether probabilities mean what they say."""
    found = evaluation.calibration
    if found is None:
        return []
    facts: list[tuple[str, Any]] = [
        (
            "Expected calibration error",
            estimate(found.expected_error, found.expected_error_lower, found.expected_error_upper),
        ),
        ("Largest gap of a bin", plain(found.maximum_error)),
        ("Recalibration intercept (0 is perfect)", plain(found.intercept)),
        ("Recalibration slope (1 is perfect)", plain(found.slope)),
    ]
    if found.p_value is not None:
        facts.append((method_name(found.test) or "Test of calibration", f"p {_equals(found.p_value)}"))
    caption = "How often the event came among rows that said so, with intervals; on the diagonal is perfect."
    return [Section("Calibration", [Plots([Plot(plots.calibration_plot(found), caption)]), Facts(facts)])]


def threshold_section(evaluation: Evaluation) -> list[Section]:
    """From which probability on to act, by what mistakes cost."""
    found = evaluation.threshold
    if found is None:
        return []
    facts = [
        ("Threshold", plain(found.threshold)),
        ("Cost of a false alarm", plain(found.false_positive_cost)),
        ("Cost of a miss", plain(found.false_negative_cost)),
        ("Mean cost of a row at the threshold", estimate(found.cost, found.lower, found.upper)),
        ("Mean cost at 0.5", plain(found.default_cost)),
        ("Mean cost of always, or never, acting", plain(found.best_constant_cost)),
        ("Chosen on, measured on", f"{found.rows_chosen_on:,} rows, {found.rows_measured_on:,} other rows"),
    ]
    return [Section("Threshold", [Facts(facts)])]


def _by_contender(evaluation: Evaluation, metric: str) -> dict[str, float | None]:
    return {
        "challenger": evaluation.metrics.get(metric),
        "champion": evaluation.champion_metrics.get(metric),
    }


def _equals(p: float) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"
