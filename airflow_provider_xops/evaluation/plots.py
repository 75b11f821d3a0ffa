"""Plots of what a model said about the rows, as inline SVG: curves, calibration, confusion, residuals.

For the evaluation report. Each function draws one picture from counts and grids
(:mod:`~airflow_provider_xops.evaluation.curves`), which hold no single row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from airflow_provider_xops.evaluation._frame import (
    BLUE,
    BROWN,
    EDGE,
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
)
from airflow_provider_xops.evaluation._words import estimate, percent, plain
from airflow_provider_xops.evaluation.curves import OTHER, Confusion, Histogram, Points, ResidualBin
from airflow_provider_xops.records import Calibration

__all__ = [
    "calibration_plot",
    "confusion_matrix",
    "histogram",
    "precision_recall",
    "residuals",
    "roc",
]

WIDTH, HEIGHT = 440.0, 390.0
COLORS = (BLUE, BROWN, GREEN, RED, "#6b4fa0", INK)


def roc(curves: Mapping[str, Points], areas: Mapping[str, float | None] | None = None) -> str:
    """True against false positive rate, with the diagonal of a model that knows nothing.

    :param areas: the area under each curve, for the legend.
    """
    frame = Frame(UNIT, UNIT)
    parts = frame.axes("false positive rate", "true positive rate")
    parts.append(frame.line([(0.0, 0.0), (1.0, 1.0)], EDGE, dashed=True, width=1.0))
    return _curves("ROC curve", frame, parts, curves, areas or {}, named="area")


def precision_recall(
    curves: Mapping[str, Points],
    *,
    base_rate: float | None,
    areas: Mapping[str, float | None] | None = None,
) -> str:
    """Precision against recall, with the share of the positive class as the line of a model that guesses."""
    frame = Frame(UNIT, UNIT)
    parts = frame.axes("recall", "precision")
    if base_rate is not None:
        parts.append(frame.rule(y=base_rate))
        _, y = frame.at(0.0, base_rate)
        parts.append(
            text(frame.left + 6, y - 5, f"base rate {percent(base_rate)}", size=11, fill=SOFT, halo=True)
        )
    return _curves("Precision and recall", frame, parts, curves, areas or {}, named="average precision")


def calibration_plot(found: Calibration) -> str:
    """How often the event came against how probable it was said to be; below, how many rows said so."""
    frame = Frame(UNIT, UNIT, height=250.0)
    parts = frame.axes("", "observed frequency", x_ticks=False)
    parts.append(frame.line([(0.0, 0.0), (1.0, 1.0)], EDGE, dashed=True, width=1.0))
    drawn = [one for one in found.bins if one.predicted is not None and one.observed is not None]
    parts.append(frame.line([(one.predicted or 0.0, one.observed or 0.0) for one in drawn], BLUE, width=1.2))
    for one in drawn:
        x, y = one.predicted or 0.0, one.observed or 0.0
        if one.observed_lower is not None and one.observed_upper is not None:
            parts.append(frame.whisker(x, one.observed_lower, one.observed_upper, BLUE))
        parts.append(frame.dot(x, y, BLUE, hint=f"{one.rows:,} rows: said {plain(x)}, came {plain(y)}"))
    most = max((one.rows for one in found.bins), default=0) or 1
    counts = Frame(UNIT, Scale(0.0, float(most)), top=frame.bottom + 8, height=44.0)
    parts += counts.axes("predicted probability", "", y_ticks=False)
    for one in found.bins:
        parts.append(_bar(counts, one.lower, one.upper, one.rows, BLUE, hint=f"{one.rows:,} rows"))
    parts.append(text(counts.left - 6, counts.top + 26, "rows", size=11, fill=SOFT, anchor="end"))
    words = f"Expected calibration error {estimate(found.expected_error)}."
    return document(WIDTH, HEIGHT, "Calibration", parts, words=words)


def confusion_matrix(found: Confusion) -> str:
    """Counts of true against predicted classes; the shade is the share of the true class's rows."""
    size = len(found.classes)
    side = min(64.0, 330.0 / size) if size > 2 else 110.0
    left, top = 130.0, 62.0
    parts = [text(left + side * size / 2, 38, "predicted", fill=SOFT, anchor="middle")]
    parts.append(text(left - 8, top - 8, "true", fill=SOFT, anchor="end"))
    for row, name in enumerate(found.classes):
        total = sum(found.counts[row])
        y = top + side * row
        parts.append(text(left - 8, y + side / 2 + 4, fitted(name, left - 12, size=12), anchor="end"))
        parts.append(
            text(left + side * (row + 0.5), top - 8, fitted(name, side - 2, size=12), anchor="middle")
        )
        for place, count in enumerate(found.counts[row]):
            x, share = left + side * place, count / total if total else 0.0
            together = name == found.classes[place] == OTHER  # right ones and confused ones
            color = EDGE if together else BLUE if row == place else BROWN
            hint = escape(f"true {name}, predicted {found.classes[place]}: {count:,} ({percent(share)})")
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{side - 2:.1f}" height="{side - 2:.1f}" '
                f'fill="{color}" fill-opacity="{0.05 + 0.75 * share:.3f}"><title>{hint}</title></rect>'
            )
            ink = "#fff" if share > (0.6 if row == place else 0.85) else INK
            fits = side >= 9.0 + 6.2 * len(f"{count:,}")
            if fits:
                size_of = 14 if side > 90 else 11
                parts.append(
                    text(
                        x + side / 2 - 1,
                        y + side / 2 + 2,
                        f"{count:,}",
                        size=size_of,
                        fill=ink,
                        anchor="middle",
                    )
                )
            if side > 90:
                parts.append(
                    text(
                        x + side / 2 - 1,
                        y + side / 2 + 20,
                        percent(share),
                        size=11,
                        fill=ink,
                        anchor="middle",
                    )
                )
    width = max(WIDTH, left + side * size + 16)
    words = "; ".join(
        f"{count:,} of {name} predicted as {told}"
        for name, row in zip(found.classes, found.counts, strict=True)
        for told, count in zip(found.classes, row, strict=True)
    )
    return document(width, top + side * size + 20, "Confusion matrix", parts, words=words)


def histogram(found: Histogram, *, title: str, x_name: str) -> str:
    """Counts in bins as shares of each series: outlines over each other."""
    series = {name: _shares(counts) for name, counts in found.counts.items()}
    highest = max((share for shares in series.values() for share in shares), default=0.0) or 1.0
    frame = Frame(Scale(found.edges[0], found.edges[-1]), Scale(0.0, highest * 1.12))
    parts = frame.axes(x_name, "share of the rows of its kind" if len(series) > 1 else "share of the rows")
    for (name, shares), color in zip(series.items(), COLORS, strict=False):
        for place, share in enumerate(shares):
            hint = f"{name}: {found.counts[name][place]:,} rows"
            parts.append(_bar(frame, found.edges[place], found.edges[place + 1], share, color, 0.14, hint))
        steps = [
            (edge, share)
            for place, share in enumerate(shares)
            for edge, share in ((found.edges[place], share), (found.edges[place + 1], share))
        ]
        parts.append(frame.line(steps, color, width=1.4))
    if len(series) > 1:
        entries = [(name, color, False) for name, color in zip(series, COLORS, strict=False)]
        parts += frame.legend(entries, low=False)
    return document(WIDTH, HEIGHT, title, parts)


def residuals(bins: Sequence[ResidualBin]) -> str:
    """Truth minus prediction against the prediction: the mean and the quartiles of rows predicted alike."""
    ends = [end for one in bins for end in (one.lower_quartile, one.upper_quartile, one.mean)]
    frame = Frame(Scale.around([one.predicted for one in bins]), Scale.around(ends, include=(0.0,)))
    parts = frame.axes("predicted", "truth minus prediction")
    parts.append(frame.rule(y=0.0, color=INK))
    parts.append(frame.band([(one.predicted, one.lower_quartile, one.upper_quartile) for one in bins], BLUE))
    parts.append(frame.line([(one.predicted, one.mean) for one in bins], BLUE, width=1.4))
    for one in bins:
        hint = f"{one.rows:,} rows predicted about {plain(one.predicted)}: mean {plain(one.mean)}"
        parts.append(frame.dot(one.predicted, one.mean, BLUE, hint=hint))
    parts.append(
        text(
            frame.right - 6,
            frame.top + 16,
            "line: mean, band: quartiles",
            size=11,
            fill=SOFT,
            anchor="end",
            halo=True,
        )
    )
    return document(WIDTH, HEIGHT, "Residuals", parts)


def _curves(
    title: str,
    frame: Frame,
    parts: list[str],
    curves: Mapping[str, Points],
    areas: Mapping[str, float | None],
    *,
    named: str,
) -> str:
    entries, words = [], []
    for place, (name, points) in enumerate(curves.items()):
        color, dashed = COLORS[place % len(COLORS)], name == "champion"
        area = areas.get(name)
        shown = name if area is None else f"{name}, {named} {plain(area)}"
        parts.append(frame.line(points, color, dashed=dashed))
        entries.append((fitted(shown, frame.width - 60), color, dashed))
        words.append(shown)
    parts += frame.legend(entries)
    return document(WIDTH, HEIGHT, title, parts, words="; ".join(words))


def _bar(
    frame: Frame, start: float, end: float, high: float, color: str, opacity: float = 0.45, hint: str = ""
) -> str:
    (x1, y), (x2, _) = frame.at(start, high), frame.at(end, high)
    return (
        f'<rect x="{x1 + 0.5:.1f}" y="{y:.1f}" width="{max(x2 - x1 - 1, 0.5):.1f}" '
        f'height="{max(frame.bottom - y, 0.0):.1f}" fill="{color}" fill-opacity="{opacity}">'
        f"<title>{escape(hint)}</title></rect>"
    )


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]
