"""The sections of an evaluation's report that look closer: slices, groups, features, disturbed input.

Private to :mod:`~airflow_provider_xops.evaluation.report` and :mod:`~airflow_provider_xops.evaluation.card`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from airflow_provider_xops.evaluation import interval_plots
from airflow_provider_xops.evaluation._document import (
    Block,
    Cell,
    Items,
    Plot,
    Plots,
    Section,
    Table,
    Text,
    word,
)
from airflow_provider_xops.evaluation._words import (
    better,
    estimate,
    method_name,
    p_value,
    percent,
    plain,
    signed,
)
from airflow_provider_xops.evaluation.interval_plots import Estimate
from airflow_provider_xops.records import (
    Evaluation,
    FairnessFigure,
    FeatureImportance,
    GroupFigure,
    Outcome,
    SliceFigure,
)

__all__ = ["closer_sections", "missing_of", "missing_section"]

GROUPS_DRAWN = 24
# How the notes of an evaluation begin that could not look for weak slices; its other notes are remarks.
_NOT_SEARCHED = ("slices: not measured", "slices: a prediction is missing")
_UNITS = {
    "noise": "noise, in standard deviations",
    "missing": "share of cells made missing",
    "typos": "share of category cells with a typo",
    "shift": "shift, in standard deviations",
}


def closer_sections(evaluation: Evaluation) -> list[Section]:
    """What was measured of slices, fairness, features, robustness, learning and skew."""
    sections = [
        _slices(evaluation),
        *_fairness(evaluation),
        _importances(evaluation),
        _robustness(evaluation),
        _learning(evaluation),
        _skew(evaluation),
    ]
    return [section for section in sections if section is not None]


def missing_of(evaluation: Evaluation) -> list[str]:
    """What the evaluation does not say: what was not asked, and what could not be measured."""
    found = list(evaluation.notes)
    noted = " ".join(found)

    def lacks(value: Any, name: str, remedy: str) -> None:
        if not value and name not in noted.lower():
            found.append(f"{name}: not asked; {remedy}" if remedy else f"{name}: not measured")

    if evaluation.champion is None:
        found.append("comparison: there was no champion")
    elif not any(one.hypothesis for one in evaluation.comparisons):
        found.append("tests: none was asked, so no statement about the champion is proved")
    lacks(evaluation.figures, "intervals", "")
    if evaluation.task == "classification":
        lacks(evaluation.calibration, "calibration", "")
        lacks(evaluation.threshold, "threshold", "the plan's costs switch it on")
    if not evaluation.slices and not _searched(evaluation) and "slices:" not in noted.lower():
        found.append("slices: not asked; the plan's slices name them, or search for weak ones")
    lacks(evaluation.fairness, "fairness", "the plan's fairness names the attributes")
    lacks(evaluation.importances, "importances", "")
    lacks(evaluation.robustness, "robustness", "the plan's robustness switches it on")
    lacks(evaluation.learning_curve, "learning curve", "the plan's learning_curve switches it on")
    lacks(evaluation.skew, "skew", "the plan's skew switches it on")
    return found


def missing_section(missing: Sequence[str], *, title: str = "Not measured") -> list[Section]:
    """The list of what is missing; nothing where nothing is."""
    return [Section(title, [Items(list(missing))])] if missing else []


def _slices(evaluation: Evaluation) -> Section | None:
    if not evaluation.slices:
        nothing = "Weak slices were searched for; none is worse than the rest beyond chance."
        return Section("Slices", [Text(nothing)]) if _searched(evaluation) else None
    against = any(one.champion is not None for one in evaluation.slices)
    metric = evaluation.slices[0].metric
    headers = ["Slice", "Rows", metric, "Other rows", "p, corrected"]
    headers += ["Challenger minus champion"] if against else []
    ordered = sorted(evaluation.slices, key=lambda one: not one.weak)
    rows = [[*_slice_row(one, against=against), _verdict(one)] for one in ordered]
    drawn = ordered[:GROUPS_DRAWN]
    estimates = [
        Estimate(
            label=one.conditions or one.name,
            value=one.value,
            lower=one.lower,
            upper=one.upper,
            rows=one.rows,
            marked=one.weak,
        )
        for one in drawn
    ]
    caption = f"{metric} of each slice with its interval; red: worse than the rest beyond chance."
    if len(drawn) < len(evaluation.slices):
        caption += f" Shown are {len(drawn)} of {len(evaluation.slices)} slices, the weak ones first."
    overall = evaluation.metrics.get(metric)
    svg = interval_plots.forest(
        estimates, title=f"{metric} by slice", x_name=_named(metric), reference=overall, named="all rows",
        width=880.0, left=390.0,
    )  # fmt: skip
    blocks: list[Block] = [
        Table([*headers, ""], rows),
        Plots([Plot(svg, caption)]),
        Text(
            "The p-value is of the slice being no worse than the rows outside, corrected for every slice that"
            " was looked at. A found slice was searched for; the others were named.",
            note=True,
        ),
    ]
    return Section("Slices", blocks)


def _searched(evaluation: Evaluation) -> bool:
    """Whether weak slices were looked for: asked, and not noted as impossible."""
    asked = bool((evaluation.plan.get("slices") or {}).get("find"))
    return asked and not any(note.startswith(_NOT_SEARCHED) for note in evaluation.notes)


def _slice_row(one: SliceFigure, *, against: bool) -> list[Any]:
    row: list[Any] = [
        one.conditions or one.name,
        Cell(f"{one.rows:,} ({percent(one.share)})"),
        Cell(estimate(one.value, one.lower, one.upper)),
        Cell(plain(one.rest)),
        Cell(p_value(one.adjusted_p_value)),
    ]
    if against:
        ends = (one.champion_difference, one.champion_difference_lower, one.champion_difference_upper)
        row.append(Cell(signed(*ends)))
    return row


def _verdict(one: SliceFigure) -> Any:
    said = "found" if one.found else "named"
    return Cell(f"weak ({said})", "o failed") if one.weak else Cell(said, "note")


def _fairness(evaluation: Evaluation) -> list[Section]:
    sections: list[Section] = []
    for attribute, found in groupby(evaluation.fairness, key=lambda one: one.attribute):
        figures = list(found)
        rows = [
            (
                one.metric,
                one.criterion.replace("_", " "),
                Cell(estimate(one.gap, one.gap_lower, one.gap_upper)),
                Cell(plain(one.ratio)),
                Cell("" if _made_of_others(one) else _extreme(one, most=False), "c"),
                Cell("" if _made_of_others(one) else _extreme(one, most=True), "c"),
            )
            for one in figures
        ]
        blocks: list[Block] = [
            Table(("Metric", "Criterion", "Largest gap", "Ratio", "Lowest group", "Highest group"), rows)
        ]
        drawn = [_groups_plot(one) for one in figures if one.groups and not _made_of_others(one)]
        if drawn:
            blocks.append(Plots(drawn))
        left_out = sorted({name for one in figures for name in one.left_out})
        if left_out:
            blocks.append(Text(f"Too few rows to be compared: {', '.join(left_out)}.", note=True))
        sections.append(Section(f"Fairness by {attribute}", blocks))
    return sections


def _made_of_others(one: FairnessFigure) -> bool:
    """Whether it is the wider of two other metrics' gaps: its groups show the values of one of these."""
    return one.criterion == "equalized_odds"


def _groups_plot(one: FairnessFigure) -> Plot:
    estimates = [
        Estimate(label=group.group, value=group.value, lower=group.lower, upper=group.upper, rows=group.rows)
        for group in _drawn_groups(one)
    ]
    named = f" ({one.criterion.replace('_', ' ')})" if one.criterion else ""
    title = f"{one.metric} by {one.attribute}"
    svg = interval_plots.forest(estimates, title=title, x_name=one.metric, width=540.0, left=180.0)
    gap = estimate(one.gap, one.gap_lower, one.gap_upper)
    values = ", ".join(
        f"{group.label} {estimate(group.value, group.lower, group.upper)}" for group in estimates
    )
    caption = f"{one.metric}{named}: the largest gap is {gap}."
    if len(estimates) < len(one.groups):
        caption += f" Shown are {len(estimates)} of {len(one.groups)} groups, the lowest and the highest."
    return Plot(svg, caption, f"{one.metric}{named}: {values}")


def _drawn_groups(one: FairnessFigure) -> list[GroupFigure]:
    """All groups; of too many those at both ends, between which the gap is."""
    if len(one.groups) <= GROUPS_DRAWN:
        return list(one.groups)
    known = sorted(
        (group for group in one.groups if group.value is not None), key=lambda group: group.value or 0.0
    )
    return [*known[: GROUPS_DRAWN // 2], *known[-GROUPS_DRAWN // 2 :]]


def _extreme(one: FairnessFigure, *, most: bool) -> str:
    known = [group for group in one.groups if group.value is not None and group.group not in one.left_out]
    if not known:
        return ""
    found = (max if most else min)(known, key=lambda group: group.value or 0.0)
    return f"{found.group}: {plain(found.value)}"


def _importances(evaluation: Evaluation) -> Section | None:
    if not evaluation.importances:
        return None
    drawn = []
    for method in dict.fromkeys(one.method for one in evaluation.importances):
        figures = [one for one in evaluation.importances if one.method == method]
        drawn.append(_importance_plot(method, figures))
    note = "Importance says what the model rests on, not what causes the outcome; related features share it."
    return Section("What the model rests on", [Plots(drawn), Text(note, note=True)])


def _importance_plot(method: str, figures: Sequence[FeatureImportance]) -> Plot:
    title, metric = method_name(method), figures[0].metric or "the metric"
    x_name = "mean absolute contribution"
    if method == "permutation":
        x_name = f"loss of {metric} when the feature is shuffled"
    first = max(figures, key=lambda one: one.value)
    most = estimate(first.value, first.lower, first.upper)
    caption = f"{title}: the model rests most on {first.feature} ({most})."
    if len(figures) > 20:
        caption += f" Shown are 20 of {len(figures)} features."
    ordered = sorted(figures, key=lambda one: -one.value)[:20]
    values = ", ".join(f"{one.feature} {estimate(one.value, one.lower, one.upper)}" for one in ordered)
    svg = interval_plots.importance_bars(figures, title=title, x_name=x_name)
    return Plot(svg, caption, f"{title} ({x_name}): {values}")


def _robustness(evaluation: Evaluation) -> Section | None:
    if not evaluation.robustness:
        return None
    kinds = dict.fromkeys((one.perturbation, one.feature) for one in evaluation.robustness)
    drawn, rows = [], []
    for kind, feature in kinds:
        figures = [one for one in evaluation.robustness if (one.perturbation, one.feature) == (kind, feature)]
        title = f"{kind}{f' of {feature}' if feature else ''}"
        strongest = max(figures, key=lambda one: one.level)
        svg = interval_plots.degradation(figures, title=title, x_name=_UNITS.get(kind, "level"))
        loss = signed(strongest.loss, strongest.lower, strongest.upper)
        caption = f"At {plain(strongest.level)} the loss of {strongest.metric} is {loss}."
        drawn.append(Plot(svg, caption))
        figures_shown = (plain(strongest.level), plain(strongest.baseline), plain(strongest.value), loss)
        rows.append((title, *(Cell(shown) for shown in figures_shown)))
    metric = evaluation.robustness[0].metric
    headers = (
        "Input disturbed by",
        "Strongest level",
        f"{metric}, undisturbed",
        f"{metric}, disturbed",
        "Loss",
    )
    note = "The loss is positive where the metric is worse than undisturbed; bands are intervals."
    return Section("Robustness", [Table(headers, rows), Plots(drawn), Text(note, note=True)])


def _learning(evaluation: Evaluation) -> Section | None:
    points = evaluation.learning_curve
    if not points:
        return None
    rows = [
        (Cell(f"{one.rows:,}"), Cell(percent(one.share)), Cell(estimate(one.value, one.lower, one.upper)))
        for one in points
    ]
    caption = f"{points[0].metric} after learning from so many training rows ({better(points[0].metric)})."
    svg = interval_plots.learning(points)
    table = Table(("Training rows", "Share", points[0].metric), rows)
    return Section("Learning curve", [Plots([Plot(svg, caption)]), table])


def _skew(evaluation: Evaluation) -> Section | None:
    if not evaluation.skew:
        return None
    order = (Outcome.FAILED, Outcome.ERRORED, Outcome.NO_DATA, Outcome.PASSED)
    ordered = sorted(evaluation.skew, key=lambda one: (order.index(one.outcome), -(one.statistic or 0.0)))
    rows = [
        (
            one.feature,
            one.outcome,
            one.method,
            Cell("" if one.statistic is None else plain(one.statistic)),
            Cell("" if one.threshold is None else plain(one.threshold)),
            one.message,
        )
        for one in ordered
    ]
    differing = sum(one.outcome is not Outcome.PASSED for one in evaluation.skew)
    words = (
        f"Training rows against scored rows: {differing} of {len(rows)} comparisons are not {word('passed')}."
    )
    headers = ("Feature", "Outcome", "Method", "Statistic", "Threshold", "Remark")
    return Section("Skew between training and serving", [Text(words), Table(headers, rows)])


def _named(metric: str) -> str:
    direction = better(metric)
    return f"{metric}{f' ({direction})' if direction else ''}"
