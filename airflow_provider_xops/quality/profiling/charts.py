"""Small charts of a profile as inline SVG: a histogram, rows over time, a matrix of coefficients.

For the page of a profile. They need no style sheet and no script, and every one has a text for people who do
not see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from airflow_provider_xops.quality.page import Html, figure

__all__ = ["bars", "matrix", "share_bar"]

WIDTH, HEAD, HEIGHT, FOOT = 420, 16, 110, 18
BLUE, RED, GREY = "#3a6ea5", "#b5482f", "#565e6d"
CELL = 34


def bars(counts: Sequence[int], *, left: str, right: str, label: str, width: int = WIDTH) -> Html:
    """Counts as bars side by side, with what the first and the last begin and end at."""
    top = max(counts, default=0) or 1
    step = width / max(len(counts), 1)
    gap = 1 if step > 3 else 0
    bottom = HEAD + HEIGHT
    drawn = "".join(
        f'<rect x="{place * step:.2f}" y="{bottom - max(HEIGHT * count / top, 1):.2f}" '
        f'width="{max(step - gap, 0.5):.2f}" height="{max(HEIGHT * count / top, 1):.2f}" fill="{BLUE}">'
        f"<title>{count:,}</title></rect>"
        for place, count in enumerate(counts)
        if count
    )
    return Html(
        f'<svg role="img" width="{width}" height="{bottom + FOOT}" viewBox="0 0 {width} {bottom + FOOT}">'
        f"<title>{escape(label)}</title>{drawn}"
        f'<line x1="0" y1="{bottom}" x2="{width}" y2="{bottom}" stroke="{GREY}"/>'
        f"{_text(0, bottom + 14, left, 'start')}{_text(width, bottom + 14, right, 'end')}"
        f"{_text(width, 11, f'highest: {top:,}', 'end')}</svg>"
    )


def matrix(names: Sequence[str], values: Sequence[Sequence[float | None]], *, label: str) -> Html:
    """Coefficients from -1 (red) to 1 (blue); nothing where there is none."""
    margin = min(220, 12 + 7 * max((len(name) for name in names), default=0))
    size = margin + CELL * len(names)
    cells = []
    for row, name in enumerate(names):
        y = 24 + CELL * row
        cells.append(_text(margin - 6, y + 21, _short(name), "end"))
        cells.append(_text(margin + CELL * row + CELL / 2, 16, str(row + 1), "middle"))
        for place, value in enumerate(values[row]):
            x = margin + CELL * place
            if value is None:
                cells.append(f'<rect x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" fill="#f2f3f6"/>')
                continue
            color = BLUE if value >= 0 else RED
            told = escape(f"{name}, {names[place]}: {value:.3f}")
            cells.append(
                f'<rect x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" fill="{color}" '
                f'fill-opacity="{abs(value):.2f}"><title>{told}</title></rect>'
            )
            shade = "#fff" if abs(value) > 0.6 else "#1d2330"
            cells.append(_text(x + CELL / 2 - 0.5, y + 21, f"{value:.2f}", "middle", shade))
    return Html(
        f'<svg role="img" width="{size}" height="{24 + CELL * len(names)}" '
        f'viewBox="0 0 {size} {24 + CELL * len(names)}"><title>{escape(label)}</title>{"".join(cells)}</svg>'
    )


def share_bar(share: float, *, label: str) -> Html:
    """A share of 1 as a bar with its percentage."""
    return Html(
        f'<svg role="img" width="120" height="14" viewBox="0 0 120 14"><title>{escape(label)}</title>'
        f'<rect width="120" height="14" fill="#eceff4"/>'
        f'<rect width="{120 * min(max(share, 0.0), 1.0):.1f}" height="14" fill="{BLUE}"/></svg> '
        f"{figure(round(100 * share, 2))} %"
    )


def _text(x: float, y: float, text: str, anchor: str, color: str = GREY) -> str:
    where = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    return f'<text {where} font-size="11" fill="{color}">{escape(text)}</text>'


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"
