"""Plots of figures with their intervals, as inline SVG: estimates, differences, importances, degradation.

For the evaluation report and the model card. A figure without an interval is a point; one that was not
measured is a name without a point, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from airflow_provider_xops.evaluation._frame import (
    BLUE,
    GREEN,
    INK,
    RED,
    SOFT,
    UNIT,
    Frame,
    Scale,
    document,
    fitted,
    text,
    width_of,
)
from airflow_provider_xops.evaluation._words import estimate, p_value, plain, signed
from airflow_provider_xops.records import Comparison, FeatureImportance, LearningPoint, RobustnessFigure

__all__ = ["Estimate", "degradation", "differences", "forest", "importance_bars", "learning"]

ROW = 26.0
_GAP = 8.0  # between the plot and the words beside it


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One row of a forest plot: a value with its interval; ``marked`` draws it red."""

    label: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    rows: int | None = None
    marked: bool = False


def forest(
    rows: Sequence[Estimate],
    *,
    title: str,
    x_name: str,
    reference: float | None = None,
    named: str = "",
    width: float = 760.0,
    left: float = 270.0,
) -> str:
    """Values with their intervals under each other on one scale.

    :param reference: a value to compare with, drawn as a line; ``named`` says what it is.
    :param left: where the scale begins; labels stand before it.
    """
    shown = [estimate(one.value, one.lower, one.upper) for one in rows]
    inside, width = _widths(width, left, 160.0, shown)
    ends = [end for one in rows for end in (one.value, one.lower, one.upper)]
    scale = Scale.around(ends, include=() if reference is None else (reference,))
    frame = Frame(scale, UNIT, left=left, top=42.0, width=inside, height=ROW * len(rows))
    parts = frame.axes(x_name, "", y_ticks=False)
    if reference is not None:
        parts.append(frame.rule(x=reference, color=INK))
        at, _ = frame.at(reference, 0.0)
        parts.append(
            text(
                at, frame.top - 6, f"{named} {plain(reference)}".strip(), size=11, fill=SOFT, anchor="middle"
            )
        )
    for place, one in enumerate(rows):
        y = frame.top + ROW * (place + 0.5)
        color = RED if one.marked else BLUE
        counted = "" if one.rows is None else f" ({one.rows:,})"
        label = f"{fitted(one.label, left - _GAP - width_of(counted))}{counted}"
        parts.append(text(left - 8, y + 4, label, size=11, fill=RED if one.marked else INK, anchor="end"))
        parts += _interval(frame, y, one.value, one.lower, one.upper, color)
        parts.append(text(frame.right + _GAP, y + 4, shown[place], size=11, fill=color))
    words = "; ".join(f"{one.label}: {said}" for one, said in zip(rows, shown, strict=True))
    return document(width, frame.bottom + 44, title, parts, words=words)


def differences(comparisons: Sequence[Comparison]) -> str:
    """Challenger minus champion, one metric a row, each on its own scale; right of the line is better.

    The margin of a test is a short mark: non-inferiority needs the whole interval on its right.
    """
    left = 250.0
    said = [signed(one.difference, one.lower, one.upper) for one in comparisons]
    inside, width = _widths(760.0, left, 210.0, said)
    frame = Frame(Scale(-1.0, 1.0), UNIT, left=left, top=42.0, width=inside, height=ROW * len(comparisons))
    parts = frame.axes("", "", x_ticks=False, y_ticks=False)
    parts.append(frame.rule(x=0.0, color=INK))
    at, _ = frame.at(0.0, 0.0)
    parts.append(text(at - 10, frame.bottom + 16, "← worse", size=11, fill=SOFT, anchor="end"))
    parts.append(text(at + 10, frame.bottom + 16, "better →", size=11, fill=SOFT))
    words = []
    for place, one in enumerate(comparisons):
        y = frame.top + ROW * (place + 0.5)
        sign = 1.0 if one.greater_is_better else -1.0
        ends = [
            end for end in (one.difference, one.lower, one.upper) if end is not None and math.isfinite(end)
        ]
        reach = max([abs(end) for end in (*ends, one.margin)], default=0.0) * 1.15 or 1.0
        color = _verdict_color(one)
        parts.append(text(left - 8, y + 4, fitted(_hypothesis(one), left - _GAP), size=11, anchor="end"))
        scaled = [
            None if end is None else sign * end / reach for end in (one.difference, one.lower, one.upper)
        ]
        lower, upper = (scaled[1], scaled[2]) if sign > 0 else (scaled[2], scaled[1])
        if one.margin:
            edge = one.margin if one.hypothesis == "superiority" else -one.margin
            mark, _ = frame.at(edge / reach, 0.0)
            parts.append(
                f'<line x1="{mark:.1f}" y1="{y - 9:.1f}" x2="{mark:.1f}" y2="{y + 9:.1f}" stroke="{INK}" '
                f'stroke-width="2"><title>margin {escape(plain(one.margin))}</title></line>'
            )
        parts += _interval(frame, y, scaled[0], lower, upper, color)
        parts.append(text(frame.right + _GAP, y + 4, said[place], size=11, fill=color))
        words.append(f"{_hypothesis(one)}: {said[place]} {p_value(one.adjusted_p_value)}")
    return document(width, frame.bottom + 30, "Challenger minus champion", parts, words="; ".join(words))


def importance_bars(figures: Sequence[FeatureImportance], *, title: str, x_name: str, shown: int = 20) -> str:
    """How much the model rests on each feature, the most important first."""
    ordered = sorted(figures, key=lambda one: -one.value)[:shown]
    left = 230.0
    said = [estimate(one.value, one.lower, one.upper) for one in ordered]
    inside, width = _widths(760.0, left, 180.0, said)
    ends = [end for one in ordered for end in (one.value, one.lower, one.upper)]
    scale = Scale.around(ends, include=(0.0,))
    frame = Frame(scale, UNIT, left=left, top=30.0, width=inside, height=ROW * len(ordered))
    parts = frame.axes(x_name, "", y_ticks=False)
    parts.append(frame.rule(x=0.0, color=INK))
    zero, _ = frame.at(0.0, 0.0)
    for place, one in enumerate(ordered):
        y = frame.top + ROW * (place + 0.5)
        end, _ = frame.at(one.value, 0.0)
        parts.append(
            f'<rect x="{min(zero, end):.1f}" y="{y - 7:.1f}" width="{abs(end - zero):.1f}" height="14" '
            f'fill="{BLUE}" fill-opacity="0.35"/>'
        )
        parts += _interval(frame, y, one.value, one.lower, one.upper, BLUE)
        parts.append(text(left - 8, y + 4, fitted(one.feature, left - _GAP), size=11, anchor="end"))
        parts.append(text(frame.right + _GAP, y + 4, said[place], size=11, fill=BLUE))
    words = "; ".join(f"{one.feature}: {shown}" for one, shown in zip(ordered, said, strict=True))
    return document(width, frame.bottom + 44, title, parts, words=words)


def degradation(figures: Sequence[RobustnessFigure], *, title: str, x_name: str) -> str:
    """By how much worse the metric is, with its interval, against how strongly the input is disturbed."""
    drawn = sorted((one for one in figures if one.loss is not None), key=lambda one: one.level)
    ends = [end for one in drawn for end in (one.loss, one.lower, one.upper)]
    levels = [one.level for one in drawn]
    x = Scale.around(levels, include=(0.0,), room=0.03)
    frame = Frame(x, Scale.around(ends, include=(0.0,)), width=320.0, height=180.0)
    parts = frame.axes(x_name, f"loss of {drawn[0].metric}" if drawn else "")
    parts.append(frame.rule(y=0.0, color=INK))
    bands = [(o.level, o.lower, o.upper) for o in drawn if o.lower is not None and o.upper is not None]
    parts.append(frame.band(bands, BLUE))
    parts.append(frame.line([(one.level, one.loss or 0.0) for one in drawn], BLUE, width=1.6))
    for one in drawn:
        hint = f"{plain(one.level)}: {signed(one.loss, one.lower, one.upper)}"
        parts.append(frame.dot(one.level, one.loss or 0.0, BLUE, hint=hint))
    words = "; ".join(f"at {plain(one.level)} {signed(one.loss, one.lower, one.upper)}" for one in drawn)
    return document(390, 270, title, parts, words=words)


def learning(points: Sequence[LearningPoint]) -> str:
    """The metric against how many rows were learned from."""
    drawn = sorted((one for one in points if one.value is not None), key=lambda one: one.rows)
    ends = [end for one in drawn for end in (one.value, one.lower, one.upper)]
    most, least = max((o.rows for o in drawn), default=1), min((o.rows for o in drawn), default=1)
    wide = least > 0 and most / max(least, 1) > 8
    scale = (
        Scale(least * 0.85, most * 1.18, log=True)
        if wide
        else Scale.around([float(one.rows) for one in drawn])
    )
    frame = Frame(scale, Scale.around(ends), height=220.0, width=420.0)
    parts = frame.axes(f"training rows{' (logarithmic)' if wide else ''}", drawn[0].metric if drawn else "")
    bands = [(float(o.rows), o.lower, o.upper) for o in drawn if o.lower is not None and o.upper is not None]
    parts.append(frame.band(bands, BLUE))
    parts.append(frame.line([(float(one.rows), one.value or 0.0) for one in drawn], BLUE, width=1.6))
    for one in drawn:
        hint = f"{one.rows:,} rows: {estimate(one.value, one.lower, one.upper)}"
        parts.append(frame.dot(float(one.rows), one.value or 0.0, BLUE, hint=hint))
    words = "; ".join(f"{one.rows:,} rows {estimate(one.value, one.lower, one.upper)}" for one in drawn)
    return document(500, 310, "Learning curve", parts, words=words)


def _widths(width: float, left: float, right: float, said: Sequence[str]) -> tuple[float, float]:
    """Of the scale and of the whole picture, with room on the right for the longest of the words there."""
    needed = max((width_of(words) for words in said), default=0.0) + 2 * _GAP
    return width - left - right, width - right + max(right, needed)


def _interval(
    frame: Frame, y: float, value: float | None, lower: float | None, upper: float | None, color: str
) -> list[str]:
    """A value and its interval, lying, at a height of the picture."""
    parts = []
    if lower is not None and upper is not None and math.isfinite(lower) and math.isfinite(upper):
        (x1, _), (x2, _) = frame.at(lower, 0.0), frame.at(upper, 0.0)
        for a, b, c, d in ((x1, y, x2, y), (x1, y - 4, x1, y + 4), (x2, y - 4, x2, y + 4)):
            parts.append(
                f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}" stroke="{color}" '
                'stroke-width="1.6"/>'
            )
    if value is not None and math.isfinite(value):
        x, _ = frame.at(value, 0.0)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
    return parts


def _hypothesis(one: Comparison) -> str:
    if not one.hypothesis:
        return one.metric
    asked = "not worse" if one.hypothesis == "non_inferiority" else "better"
    return f"{one.metric}: {asked}{f' by {plain(one.margin)}' if one.margin else ''}"


def _verdict_color(one: Comparison) -> str:
    """Green where the statement holds, red where the whole interval is on the worse side, else neutral."""
    if one.significant:
        return GREEN
    sign = 1.0 if one.greater_is_better else -1.0
    ends = [sign * end for end in (one.lower, one.upper) if end is not None]
    return RED if len(ends) == 2 and max(ends) < 0 else SOFT
