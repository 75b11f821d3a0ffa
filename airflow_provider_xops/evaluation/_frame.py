"""The frame of a plot: scales, axes, words and the SVG around them.

For :mod:`~airflow_provider_xops.evaluation.plots`. A plot needs no script, no style sheet and no font of its
own, and has a text for people who do not see it. The challenger is solid and blue, the champion dashed and
brown: they differ in print and to every eye.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from airflow_provider_xops.quality.spc._panel import number, ticks
from airflow_provider_xops.quality.spc._panel import text as words_at

__all__ = [
    "BLUE",
    "BROWN",
    "EDGE",
    "GREEN",
    "INK",
    "RED",
    "SOFT",
    "UNIT",
    "Frame",
    "Scale",
    "document",
    "fitted",
    "path",
    "text",
    "width_of",
]

INK, SOFT, GRID, EDGE = "#1d2330", "#565e6d", "#e3e7ee", "#8a94a6"
BLUE, BROWN, RED, GREEN = "#1f5fa8", "#a15c00", "#a3201d", "#12683c"

# Of a character in a wide sans-serif font, as shares of its size: a narrower font leaves room, a wider one
# would be cut off.
_NARROW, _USUAL, _WIDE = 0.42, 0.64, 1.0
_NARROW_ONES, _WIDE_ONES = frozenset("ijlIft.,:;'|![]() "), frozenset("mwMW@%<>=+&#…→←")


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high``; ``log`` in powers."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def around(
        cls, values: Iterable[float | None], *, include: Sequence[float] = (), room: float = 0.06
    ) -> Scale:
        """A scale that holds all values that there are, with some room."""
        found = [value for value in values if value is not None and math.isfinite(value)] + list(include)
        low, high = (min(found), max(found)) if found else (0.0, 1.0)
        margin = (high - low) * room or abs(high) * 0.1 or 0.5
        return cls(low - margin, high + margin)

    def share(self, value: float) -> float:
        """Where between the ends, 0 to 1; what lies outside is put on the edge."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        if not low < high:
            return 0.5
        return (min(max(value, low), high) - low) / (high - low)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers between the ends."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            at = [10.0**power * factor for power in range(first, last + 1) for factor in (1, 2, 5)]
            inside = [value for value in at if self.low <= value <= self.high]
            return inside if len(inside) <= count + 2 else inside[:: math.ceil(len(inside) / count)]
        return ticks(self.low, self.high, count) if self.low < self.high else [self.low]


UNIT = Scale(0.0, 1.0)


@dataclass(frozen=True)
class Frame:
    """Where a plot is drawn: the rectangle, and the scale of each direction."""

    x: Scale
    y: Scale
    left: float = 56.0
    top: float = 40.0
    width: float = 360.0
    height: float = 300.0

    @property
    def right(self) -> float:
        """The right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.top + self.height

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point."""
        return self.left + self.width * self.x.share(x), self.bottom - self.height * self.y.share(y)

    def axes(self, x_name: str, y_name: str, *, x_ticks: bool = True, y_ticks: bool = True) -> list[str]:
        """Frame, grid lines at round numbers, and what the directions mean."""
        parts = [
            f'<rect x="{self.left:.1f}" y="{self.top:.1f}" width="{self.width:.1f}" '
            f'height="{self.height:.1f}" fill="#fff" stroke="{EDGE}"/>'
        ]
        if x_ticks:
            for value in self.x.ticks(5 if self.width > 300 else 4):
                x, _ = self.at(value, self.y.low)
                parts.append(_line(x, self.top, x, self.bottom, GRID))
                parts.append(text(x, self.bottom + 16, number(value), size=11, fill=SOFT, anchor="middle"))
        if y_ticks:
            for value in self.y.ticks(5 if self.height > 150 else 3):
                _, y = self.at(self.x.low, value)
                parts.append(_line(self.left, y, self.right, y, GRID))
                parts.append(text(self.left - 6, y + 4, number(value), size=11, fill=SOFT, anchor="end"))
        middle = self.left + self.width / 2
        parts.append(text(middle, self.bottom + 33, x_name, size=12, fill=SOFT, anchor="middle"))
        parts.append(text(self.left, self.top - 8, y_name, size=12, fill=SOFT))
        return parts

    def line(
        self, points: Sequence[tuple[float, float]], color: str, *, dashed: bool = False, width: float = 2.0
    ) -> str:
        """A line through points."""
        return path([self.at(*point) for point in points], color, dashed=dashed, width=width)

    def band(self, edges: Sequence[tuple[float, float, float]], color: str) -> str:
        """The area between a lower and an upper line: ``(x, lower, upper)``."""
        if not edges:
            return ""
        around = [self.at(x, upper) for x, _, upper in edges]
        around += [self.at(x, lower) for x, lower, _ in reversed(edges)]
        shape = " ".join(f"{x:.1f},{y:.1f}" for x, y in around)
        return f'<polygon points="{shape}" fill="{color}" fill-opacity="0.15"/>'

    def whisker(self, x: float, lower: float, upper: float, color: str) -> str:
        """An interval that stands upright."""
        (at, low), (_, high) = self.at(x, lower), self.at(x, upper)
        return (
            _line(at, low, at, high, color, 1.4)
            + _line(at - 3, low, at + 3, low, color, 1.4)
            + _line(at - 3, high, at + 3, high, color, 1.4)
        )

    def dot(self, x: float, y: float, color: str, *, hint: str = "", hollow: bool = False) -> str:
        """A point, with words for who rests on it."""
        at, up = self.at(x, y)
        fill = "#fff" if hollow else color
        return (
            f'<circle cx="{at:.1f}" cy="{up:.1f}" r="3.6" fill="{fill}" stroke="{color}" stroke-width="1.6">'
            f"<title>{escape(hint)}</title></circle>"
        )

    def rule(self, *, x: float | None = None, y: float | None = None, color: str = EDGE) -> str:
        """A dotted line across, at a value of one direction."""
        if x is not None:
            at, _ = self.at(x, self.y.low)
            return _line(at, self.top, at, self.bottom, color, 1.2, dash="2 3")
        _, up = self.at(self.x.low, y or 0.0)
        return _line(self.left, up, self.right, up, color, 1.2, dash="2 3")

    def legend(self, entries: Sequence[tuple[str, str, bool]], *, low: bool = True) -> list[str]:
        """Names of lines ``(name, color, dashed)`` in the lower (or upper) right corner."""
        parts: list[str] = []
        for place, (name, color, dashed) in enumerate(entries):
            rank = len(entries) - place if low else -place
            y = self.bottom - 16.0 * rank + 4 if low else self.top + 18 - 16.0 * rank
            parts.append(path([(self.right - 30, y), (self.right - 8, y)], color, dashed=dashed, width=2.2))
            parts.append(text(self.right - 36, y + 4, name, size=11, anchor="end", halo=True))
        return parts


def document(width: float, height: float, title: str, parts: Iterable[str], *, words: str = "") -> str:
    """The whole drawing; ``title`` stands above it, ``words`` say the same as the picture."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="system-ui, sans-serif">'
        f"<title>{escape(title)}</title><desc>{escape(words)}</desc>"
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>'
        f"{text(4, 15, title, size=13, fill=INK, weight='600')}{''.join(parts)}</svg>"
    )


def path(
    points: Sequence[tuple[float, float]], color: str, *, dashed: bool = False, width: float = 2.0
) -> str:
    """A line through places of the picture."""
    if not points:
        return ""
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return (
        f'<path d="M{way}" fill="none" stroke="{color}" stroke-width="{width}" '
        f'stroke-linejoin="round"{dash}/>'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1.0, *, dash: str = ""
) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
        f'stroke-width="{width}"{dashes}/>'
    )


def width_of(words: str, *, size: int = 11) -> float:
    """How much room words take at most, in the picture's unit.

    >>> width_of("il") < width_of("ab") < width_of("MW")
    True
    """
    shares = (
        _NARROW if one in _NARROW_ONES else _WIDE if one in _WIDE_ONES or not one.isascii() else _USUAL
        for one in words
    )
    return size * sum(shares)


def fitted(words: str, room: float, *, size: int = 11) -> str:
    """Words cut to what has room.

    >>> fitted("departure_delay", 60.0)
    'departu…'
    """
    if width_of(words, size=size) <= room:
        return words
    kept = words
    while kept and width_of(f"{kept}…", size=size) > room:
        kept = kept[:-1]
    return f"{kept}…"


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    fill: str = INK,
    anchor: str = "start",
    weight: str = "400",
    halo: bool = False,
) -> str:
    """Words at a place, escaped; ``halo`` keeps them readable on top of lines.

    The halo is a copy beneath: programs that print pages do not know SVG's painting order.
    """
    plain = words_at(x, y, words, size=size, fill=fill, anchor=anchor, weight=weight)
    if not halo:
        return plain
    around = words_at(x, y, words, size=size, fill="#fff", anchor=anchor, weight=weight)
    outline = 'stroke="#fff" stroke-width="3" aria-hidden="true"'
    return around.replace("<text ", f"<text {outline} ", 1) + plain
