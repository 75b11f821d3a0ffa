"""One panel of a drawn chart: its scale, its axis, and numbers and words as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Panel", "number", "text"]

_GRID, _SOFT = "#e3e7ee", "#565e6d"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A stretch of the picture with a scale of its own: ``low`` at the bottom, ``high`` at the top."""

    top: float
    height: float
    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float], *, top: float, height: float) -> Panel:
        """A panel that shows all of ``values``, with some room."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
        return cls(top=top, height=height, low=low - room, high=high + room)

    def holds(self, value: float) -> bool:
        """Whether the value is within the panel."""
        return self.low <= value <= self.high

    def y(self, value: float) -> float:
        """Where it is drawn; what lies outside is drawn on the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.top + self.height * (1.0 - share)

    def axis(self, left: float, right: float, name: str) -> list[str]:
        """Frame, grid lines at round numbers, and the name above."""
        parts = [
            f'<rect x="{left:.1f}" y="{self.top:.1f}" width="{right - left:.1f}" height="{self.height:.1f}" '
            f'fill="none" stroke="{_GRID}"/>',
            text(left, self.top - 6, name, size=11, fill=_SOFT),
        ]
        for tick in ticks(self.low, self.high, 5 if self.height > 150 else 3):
            y = self.y(tick)
            parts.append(
                f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>'
            )
            parts.append(text(left - 6, y + 4, number(tick), size=11, fill=_SOFT, anchor="end"))
        return parts


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between ``low`` and ``high``, about ``count`` of them.

    >>> ticks(0.3, 9.7, 5)
    [2.0, 4.0, 6.0, 8.0]
    """
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if power * factor >= raw)
    first = math.ceil(low / step)
    return [round(at * step, 12) for at in range(first, math.floor(high / step) + 1)]


def number(value: float | None) -> str:
    """Short enough for an axis.

    >>> number(1234567.0), number(0.012345), number(None)
    ('1,234,567', '0.01235', 'none')
    """
    if value is None:
        return "none"
    if abs(value) >= 1e9 or 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    fill: str = "#1d2330",
    anchor: str = "start",
    weight: str = "400",
    halo: bool = False,
) -> str:
    """Words at a place, escaped; ``halo`` keeps them readable on top of lines and points."""
    around = ' stroke="#fff" stroke-width="3" paint-order="stroke"' if halo else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}"{around}>{escape(words)}</text>'
    )
