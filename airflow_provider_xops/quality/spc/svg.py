"""A control chart as inline SVG: what happened, within which limits, which rule fired, and what is known.

One drawing for reports and mails: no script, no style sheet, no font, nothing from anywhere. Points are
evenly spaced; dates stand below. Filled points count, hollow ones do not (removed in phase I, special cause,
before a step); a point out of the picture sits on its edge with an arrow. Red: a rule fires there; its short
name stands next to it (N1: nelson_1, W2: western_electric_2, MR: moving_range).

What it does not do: older points are drawn against today's limits, so a red mark in the past is what the
chart says today, not what it said then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from airflow_provider_xops.quality.spc._panel import Panel, number, text
from airflow_provider_xops.quality.spc.verdict import ChartVerdict, Numbers, Series

__all__ = ["svg"]

_WIDTH, _LEFT, _RIGHT, _TOP = 960.0, 72.0, 96.0, 64.0
_TALL, _SHORT, _GAP, _BOTTOM = 280.0, 120.0, 44.0, 62.0
_INK, _SOFT, _LINE, _RED, _BAND, _CAUSE = "#1d2330", "#565e6d", "#8a94a6", "#b3261e", "#e8f0fa", "#f7e6c4"
_SHORT_NAMES = {"moving_range": "MR", "ewma": "EWMA", "cusum": "CUSUM"}
_LABEL_ROOM = 26.0


def svg(verdict: ChartVerdict, *, title: str | None = None, last: int = 120) -> str:
    """The drawing of a verdict.

    :param title: instead of the metric and the kind of chart.
    :param last: draw at most this many points, the newest ones.
    """
    return _Drawing(verdict, title, last).svg()


class _Drawing:
    def __init__(self, verdict: ChartVerdict, title: str | None, last: int) -> None:
        self.verdict = verdict
        self.first = max(0, len(verdict.labels) - max(last, 2))
        self.count = len(verdict.labels) - self.first
        self.at = {label: index for index, label in enumerate(verdict.labels)}
        self.title = title or f"{verdict.spec.metric}: {verdict.spec.chart} chart"
        self.out = {each.label for each in verdict.excluded}
        self.fired: dict[int, list[str]] = {}
        for signal in (*verdict.all_signals, *verdict.signals):
            rules = self.fired.setdefault(self.at[signal.points[-1]], [])
            if signal.rule not in rules:
                rules.append(signal.rule)

    def svg(self) -> str:
        if not self.count:
            return _document(self.title, self.description(), 96.0, [text(_LEFT, 72, "no points", fill=_SOFT)])
        series = self.verdict.statistics
        weighted = self.verdict.spec.chart in ("ewma", "cusum")
        heights = [_TALL] if not series else [_SHORT, _TALL] if weighted else [_TALL, _SHORT]
        parts, top, panels = [], _TOP, []
        for height in heights:
            panels.append((top, height))
            top += height + _GAP
        bottom = top - _GAP
        parts += self._known(_TOP, bottom, _TOP + heights[0] + 14 if series else bottom - 6)
        parts += self._values(*panels[0], marked=not (weighted and series))
        if series:
            parts += self._statistics(series, *panels[1], marked=weighted)
        parts += self._dates(bottom)
        parts += self._legend(bottom + 46)
        return _document(self.title, self.description(), bottom + _BOTTOM, parts)

    def description(self) -> str:
        """The verdict in words, for people who do not see the picture."""
        verdict = self.verdict
        words = [f"{self.count} points, {verdict.phase.replace('_', ' ')}, {verdict.outcome}."]
        if verdict.label is not None:
            words.append(f"Newest: {verdict.label}, {number(verdict.value)}.")
        if verdict.center is not None:
            words.append(f"Center {number(verdict.center)}.")
        if verdict.lower is not None or verdict.upper is not None:
            words.append(f"Limits {number(verdict.lower)} to {number(verdict.upper)}.")
        words += [f"{signal.rule}: {signal.message}." for signal in verdict.signals]
        return " ".join([*words, *verdict.notes])

    def _x(self, index: float) -> float:
        inner = _WIDTH - _LEFT - _RIGHT
        return _LEFT + inner * (index - self.first + 0.5) / self.count

    def _shown(self, values: Numbers) -> list[tuple[int, float]]:
        return [
            (index, value) for index, value in enumerate(values) if index >= self.first and value is not None
        ]

    def _values(self, top: float, height: float, *, marked: bool) -> list[str]:
        verdict = self.verdict
        counted = [
            value for index, value in self._shown(verdict.values) if verdict.labels[index] not in self.out
        ]
        every = counted or [value for _, value in self._shown(verdict.values)]
        edges = [value for edge in (verdict.lowers, verdict.uppers) for _, value in self._shown(edge)]
        centers = [value for _, value in self._shown(verdict.centers)]
        panel = Panel.around([*every, *edges, *centers], top=top, height=height)
        parts = panel.axis(_LEFT, _WIDTH - _RIGHT, verdict.spec.metric)
        parts += self._zones(panel)
        parts += self._limit(panel, verdict.centers, "center", dashed=False)
        parts += self._limit(panel, verdict.uppers, "UCL")
        parts += self._limit(panel, verdict.lowers, "LCL")
        parts += self._line(panel, verdict.values)
        return parts + self._points(panel, verdict.values, marked=marked)

    def _statistics(self, series: Iterable[Series], top: float, height: float, *, marked: bool) -> list[str]:
        drawn = [_mirrored(each) if each.name == "C-" else each for each in series]
        inside = [
            value
            for each in drawn
            for edge in (each.values, each.lower, each.upper)
            for _, value in self._shown(edge)
        ]
        inside += [each.center for each in drawn if each.center is not None]
        panel = Panel.around(inside, top=top, height=height)
        unit = "" if drawn[0].unit == "value" else f" ({drawn[0].unit})"
        parts = panel.axis(_LEFT, _WIDTH - _RIGHT, ", ".join(each.name for each in drawn) + unit)
        for each in drawn:
            center: Numbers = (each.center,) * len(self.verdict.labels)
            parts += self._limit(panel, center, "" if each.name == "C-" else "center", dashed=False)
            parts += self._limit(panel, each.upper, "h" if each.name == "C+" else "UCL")
            parts += self._limit(panel, each.lower, "-h" if each.name == "C-" else "LCL")
            parts += self._line(panel, each.values)
        for each in drawn:
            edge = {"C+": each.upper, "C-": each.lower}.get(each.name, ())
            parts += self._points(panel, each.values, marked=marked, edge=edge)
        return parts

    def _zones(self, panel: Panel) -> list[str]:
        """The band between the limits, and within it the band of one sigma, lighter and lighter."""
        verdict = self.verdict
        both = [
            (index, lower, upper)
            for index, (lower, upper) in enumerate(zip(verdict.lowers, verdict.uppers, strict=True))
            if index >= self.first and lower is not None and upper is not None
        ]
        half = (self._x(1) - self._x(0)) / 2
        parts = []
        for start, end, lower, upper in _merged(both):
            shares = (
                (1.0, 2 / 3, 1 / 3)
                if verdict.spec.transform is None and verdict.spec.width == 3.0
                else (1.0,)
            )
            middle, reach = (lower + upper) / 2, (upper - lower) / 2
            center = verdict.centers[start]
            if center is not None and abs(center - middle) > reach * 1e-6:
                shares = (1.0,)
            for share in shares:
                high, low = panel.y(middle + share * reach), panel.y(middle - share * reach)
                parts.append(
                    f'<rect x="{self._x(start) - half:.1f}" y="{high:.1f}" '
                    f'width="{self._x(end) - self._x(start) + 2 * half:.1f}" height="{low - high:.1f}" '
                    f'fill="{_BAND}" fill-opacity="{0.55 if share == 1.0 else 0.6}"/>'
                )
        return parts

    def _limit(self, panel: Panel, values: Numbers, name: str, *, dashed: bool = True) -> list[str]:
        shown = self._shown(values)
        if not shown:
            return []
        half = (self._x(1) - self._x(0)) / 2
        commands, before = [], None
        for index, value in shown:
            y = panel.y(value)
            joined = before is not None and index == before + 1
            commands.append(f"{'L' if joined else 'M'}{self._x(index) - half:.1f} {y:.1f}")
            commands.append(f"L{self._x(index) + half:.1f} {y:.1f}")
            before = index
        style = 'stroke-dasharray="6 4"' if dashed else ""
        color = _RED if dashed else _SOFT
        parts = [f'<path d="{"".join(commands)}" fill="none" stroke="{color}" stroke-width="1.2" {style}/>']
        if name and shown[-1][0] == len(self.verdict.labels) - 1:
            label = f"{name} {number(shown[-1][1])}"
            parts.append(text(_WIDTH - _RIGHT + 6, panel.y(shown[-1][1]) + 4, label, size=11, fill=color))
        return parts

    def _line(self, panel: Panel, values: Numbers) -> list[str]:
        commands, pen = [], "M"
        for index in range(self.first, len(values)):
            value = values[index]
            if value is None:
                pen = "M"
            elif self.verdict.labels[index] not in self.out or index in self.fired:
                commands.append(f"{pen}{self._x(index):.1f} {panel.y(value):.1f}")
                pen = "L"
        return [f'<path d="{"".join(commands)}" fill="none" stroke="{_LINE}" stroke-width="1.1"/>']

    def _points(self, panel: Panel, values: Numbers, *, marked: bool, edge: Numbers = ()) -> list[str]:
        """The points; red where a rule fires (with ``edge``: and the statistic is beyond it)."""
        parts: list[str] = []
        labels: list[str] = []
        newest, weighted = len(values) - 1, self.verdict.spec.chart in ("ewma", "cusum")
        # Labels go to the outer side: above the center of what is drawn, or below it.
        middle = [0.0 if edge else center or 0.0 for center in self.verdict.centers]
        free = math.inf
        for index, value in reversed(self._shown(values)):
            label = self.verdict.labels[index]
            x, y = self._x(index), panel.y(value)
            rules = self.fired.get(index, []) if marked else []
            limit = edge[index] if edge else None
            if limit is not None and abs(value) <= abs(limit):
                rules = []
            color = _RED if rules else _INK
            radius = 4.2 if index == newest or rules else 2.6
            fill = "#fff" if label in self.out else color
            hint = escape(f"{label}: {number(value)}" + (f" ({', '.join(rules)})" if rules else ""))
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="{color}" '
                f'stroke-width="1.2"><title>{hint}</title></circle>'
            )
            if not panel.holds(value):
                parts.append(text(x + 5, y + 4, "↑" if value > panel.high else "↓", size=11, fill=_SOFT))
            if rules and (index == newest or (not weighted and free - x >= _LABEL_ROOM)):
                names = " ".join(_short(rule) for rule in rules)
                shift = -9 if value >= middle[index] else 17
                if index == newest:
                    labels.append(text(x + 6, y + shift, names, size=11, fill=_RED, anchor="end", halo=True))
                else:
                    labels.append(text(x, y + shift, names, size=11, fill=_RED, anchor="middle", halo=True))
                free = x - (6.0 * len(names) if index == newest else 0.0)
        return parts + labels

    def _known(self, top: float, bottom: float, words: float) -> list[str]:
        """Special causes as bands (their reasons at ``words``), steps and the baseline's end as lines."""
        verdict, parts = self.verdict, []
        half = (self._x(1) - self._x(0)) / 2
        left, right = _LEFT, _WIDTH - _RIGHT
        for cause in verdict.causes:
            inside = [
                index
                for index in range(self.first, len(verdict.labels))
                if verdict.times[index] >= cause.start
                and (cause.end is None or verdict.times[index] <= cause.end)
            ]
            if not inside:
                continue
            start = max(left, self._x(inside[0]) - half)
            if cause.action == "step":
                if inside[0] > self.first:
                    parts += [
                        _rule(start, top, bottom, _INK),
                        text(start + 4, top + 12, cause.reason, size=11),
                    ]
                continue
            width = min(right, self._x(inside[-1]) + half) - start
            parts.append(
                f'<rect x="{start:.1f}" y="{top:.1f}" width="{width:.1f}" height="{bottom - top:.1f}" '
                f'fill="{_CAUSE}" fill-opacity="0.7"><title>{escape(cause.reason)}</title></rect>'
            )
            reason = cause.reason if len(cause.reason) <= 40 else f"{cause.reason[:39]}…"
            end = start > right - 200
            parts.append(
                text(
                    start + (width - 3 if end else 3),
                    words,
                    reason,
                    size=11,
                    fill="#7a5200",
                    anchor="end" if end else "start",
                    halo=True,
                )
            )
        used = [self.at[label] for label in verdict.baseline]
        if used and self.first <= max(used) < len(verdict.labels) - 2:
            x = self._x(max(used)) + half
            parts += [
                _rule(x, top, bottom, _LINE),
                text(x - 4, top - 6, "baseline", size=11, fill=_SOFT, anchor="end"),
            ]
        return parts

    def _dates(self, bottom: float) -> list[str]:
        times = self.verdict.times
        span = times[-1] - times[self.first]
        pattern = "%Y-%m-%d" if span.days >= 3 else "%m-%d %H:%M"
        step = max(1, math.ceil(self.count / 8))
        parts, y = [], bottom
        for index in range(len(times) - 1, self.first - 1, -step):
            x = self._x(index)
            parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{y + 5:.1f}" stroke="{_LINE}"/>')
            parts.append(
                text(x, y + 19, times[index].strftime(pattern), size=11, fill=_SOFT, anchor="middle")
            )
        return parts

    def _legend(self, y: float) -> list[str]:
        rules = sorted({rule for index, rules in self.fired.items() if index >= self.first for rule in rules})
        words = [f"{_short(rule)} = {rule}" for rule in rules if _short(rule) != rule.upper()]
        if any(index >= self.first and label in self.out for label, index in self.at.items()):
            words.append("hollow: not counted")
        return [text(_LEFT, y, " · ".join(words), size=11, fill=_SOFT)] if words else []


def _document(title: str, description: str, height: float, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" '
        f'width="{_WIDTH:.0f}" height="{height:.0f}" font-family="system-ui, sans-serif">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
        f'<rect width="{_WIDTH:.0f}" height="{height:.0f}" fill="#fff"/>'
        f"{text(_LEFT, 28, title, size=16, fill=_INK, weight='600')}{''.join(parts)}</svg>"
    )


def _rule(x: float, top: float, bottom: float, color: str) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{color}" '
        'stroke-width="1" stroke-dasharray="2 3"/>'
    )


def _short(rule: str) -> str:
    """The name beside the point: N1, W2, MR.

    >>> _short("western_electric_2")
    'W2'
    """
    return _SHORT_NAMES.get(rule, f"{rule[0].upper()}{rule.rsplit('_', 1)[-1]}")


def _mirrored(series: Series) -> Series:
    """The lower sum, drawn downwards as charts of it are."""
    return Series(
        name=series.name,
        values=tuple(None if value is None else -value for value in series.values),
        center=series.center,
        lower=tuple(None if value is None else -value for value in series.upper),
        upper=series.lower,
        unit=series.unit,
    )


def _merged(limits: list[tuple[int, float, float]]) -> list[tuple[int, int, float, float]]:
    """Neighbors with the same limits as one stretch: first, last, lower, upper."""
    found: list[tuple[int, int, float, float]] = []
    for index, lower, upper in limits:
        if found and found[-1][1] == index - 1 and found[-1][2:] == (lower, upper):
            found[-1] = (found[-1][0], index, lower, upper)
        else:
            found.append((index, index, lower, upper))
    return found
