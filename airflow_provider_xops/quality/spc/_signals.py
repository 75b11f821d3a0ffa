"""Signals of one series: which rule, which points, since when, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from airflow_provider_xops.quality.spc._core import MOVING_RANGE_LIMIT
from airflow_provider_xops.quality.spc.cusum import cusum
from airflow_provider_xops.quality.spc.estimate import D2
from airflow_provider_xops.quality.spc.ewma import ewma, ewma_limits
from airflow_provider_xops.quality.spc.rules import pattern
from airflow_provider_xops.quality.spc.spec import ChartSpec
from airflow_provider_xops.quality.spc.verdict import Numbers, Series
from airflow_provider_xops.records import ControlSignal

__all__ = ["Looked", "Reader"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_FIRST_RULES = ("nelson_1", "western_electric_1")


@dataclass(frozen=True, kw_only=True)
class Looked:
    """The series as people see it, one entry a point."""

    labels: tuple[str, ...]
    values: Numbers
    centers: Numbers
    lowers: Numbers
    uppers: Numbers


class Reader:
    """Reads the standardized residuals of one chart.

    :param columns: the points that the residuals ``z`` are of; ``strata`` theirs; ``flat`` where sigma is 0.
    :param sigmas: sigma at every point of the series.
    """

    def __init__(
        self,
        spec: ChartSpec,
        looked: Looked,
        columns: Integers,
        strata: Integers,
        z: Floats,
        flat: Flags,
        sigmas: Numbers,
    ) -> None:
        self.spec, self.looked, self.columns, self.strata = spec, looked, columns, strata
        self.z, self.flat, self.sigmas = z, flat, sigmas
        self.before = _point_before(strata)
        if spec.chart == "ewma":
            self.average = ewma(z, lambda_=spec.lambda_)
            self.limit = ewma_limits(z, lambda_=spec.lambda_, limit=spec.ewma_limit)
        elif spec.chart == "cusum":
            self.sums = cusum(z, k=spec.k, h=spec.h, reset=spec.reset)

    def at(self, end: int) -> tuple[ControlSignal, ...]:
        """The signals at the ``end``-th residual."""
        if self.spec.chart == "ewma":
            return self._ewma_at(end)
        if self.spec.chart == "cusum":
            return self._cusum_at(end)
        signals = []
        for rule in self.spec.rule_names:
            if self.flat[end] and rule not in _FIRST_RULES:
                continue
            positions = self._pattern(rule, end)
            if positions:
                signals.append(self._signal(rule, positions, self._shewhart_message(rule, positions)))
        return tuple(signals)

    def everywhere(self) -> tuple[ControlSignal, ...]:
        """The signals at every residual, oldest first."""
        return tuple(signal for end in range(len(self.z)) for signal in self.at(end))

    def statistics(self, scaled: Floats) -> tuple[Series, ...]:
        """What is drawn beneath or instead of the values.

        :param scaled: the values on the scale of the limits, all points.
        """
        if self.spec.chart == "ewma":
            unit, center, factor = self._unit()
            average, limit = self.average * factor + center, self.limit * factor
            return (
                Series(
                    name="EWMA",
                    values=self._spread(average),
                    center=center,
                    lower=self._spread(center - limit, self.spec.sides != "upper"),
                    upper=self._spread(center + limit, self.spec.sides != "lower"),
                    unit=unit,
                ),
            )
        if self.spec.chart == "cusum":
            unit, _, factor = self._unit()
            edge = self._spread(np.full(len(self.z), self.spec.h * factor))
            none: Numbers = (None,) * len(self.looked.labels)
            both = (("C+", self.sums.upper, "lower"), ("C-", self.sums.lower, "upper"))
            return tuple(
                Series(
                    name=name,
                    values=self._spread(sums * factor),
                    center=0.0,
                    lower=none,
                    upper=edge,
                    unit=unit,
                )
                for name, sums, other in both
                if self.spec.sides != other
            )
        return (self._moving_range(scaled),) if self.spec.chart == "individuals" else ()

    def _pattern(self, rule: str, end: int) -> tuple[int, ...]:
        if rule != "moving_range":
            return pattern(rule, self.z[: end + 1], width=self.spec.width, sides=self.spec.sides)
        before = int(self.before[end])
        with np.errstate(invalid="ignore"):
            jumped = before >= 0 and abs(self.z[end] - self.z[before]) > MOVING_RANGE_LIMIT
        return (before, end) if jumped else ()

    def _ewma_at(self, end: int) -> tuple[ControlSignal, ...]:
        statistic, limit = self.average[end], self.limit[end]
        sign = _side(self.z[end], self.spec.sides)
        if np.isinf(self.z[end]):
            return (self._beyond("ewma", end),) if sign else ()
        sign = _side(statistic, self.spec.sides)
        if self.flat[end] or not sign or abs(statistic) <= limit:
            return ()
        start = end
        while start > 0 and sign * self.average[start - 1] > 0:
            start -= 1
        unit, center, factor = self._unit()
        word = "above" if sign > 0 else "below"
        message = (
            f"the EWMA {_figure(statistic * factor + center)} is {word} its limit "
            f"{_figure(sign * limit * factor + center)}{_in(unit)}"
        )
        return (self._signal("ewma", tuple(range(start, end + 1)), message),)

    def _cusum_at(self, end: int) -> tuple[ControlSignal, ...]:
        if np.isinf(self.z[end]):
            return (self._beyond("cusum", end),) if _side(self.z[end], self.spec.sides) else ()
        signals = []
        unit, _, factor = self._unit()
        for name, sums, counts, other in (
            ("C+", self.sums.upper, self.sums.n_upper, "lower"),
            ("C-", self.sums.lower, self.sums.n_lower, "upper"),
        ):
            if self.spec.sides == other or self.flat[end] or not sums[end] > self.spec.h:
                continue
            positions = tuple(range(end - int(counts[end]) + 1, end + 1))
            message = (
                f"{name} {_figure(sums[end] * factor)} is above {_figure(self.spec.h * factor)}{_in(unit)}"
            )
            signals.append(self._signal("cusum", positions, message))
        return tuple(signals)

    def _beyond(self, rule: str, end: int) -> ControlSignal:
        return self._signal(rule, (end,), self._shewhart_message("nelson_1", (end,)))

    def _signal(self, rule: str, positions: tuple[int, ...], message: str) -> ControlSignal:
        points = [int(self.columns[position]) for position in positions]
        last, labels = points[-1], tuple(self.looked.labels[point] for point in points)
        since = f", since {labels[0]}" if len(labels) > 1 else ""
        return ControlSignal(
            metric=self.spec.metric,
            chart=self.spec.chart,
            rule=rule,
            points=labels,
            since=labels[0],
            value=self.looked.values[last],
            center=self.looked.centers[last],
            lower=self.looked.lowers[last],
            upper=self.looked.uppers[last],
            message=f"{message}{since}",
        )

    def _shewhart_message(self, rule: str, positions: tuple[int, ...]) -> str:
        last = int(self.columns[positions[-1]])
        count, high = len(positions), self.z[positions[-1]] > 0
        side = "above" if high else "below"
        if rule in _FIRST_RULES:
            value, center = self.looked.values[last], self.looked.centers[last]
            limit = self.looked.uppers[last] if high else self.looked.lowers[last]
            if self.flat[positions[-1]] or limit is None:
                return f"{_figure(value)} is {side} the center {_figure(center)}"
            return f"{_figure(value)} is {side} the limit {_figure(limit)}"
        if rule in ("nelson_2", "western_electric_4"):
            return f"{count} points in a row {side} the center"
        if rule == "nelson_3":
            word = "rising" if self.z[positions[-1]] > self.z[positions[-2]] else "falling"
            return f"{count} points in a row {word}"
        if rule == "moving_range":
            jump = abs(self.z[positions[1]] - self.z[positions[0]])
            return f"it moved by {_figure(jump)} sigma, the limit is {_figure(MOVING_RANGE_LIMIT)} sigma"
        return {
            "nelson_4": f"{count} points in a row up and down in turn",
            "nelson_5": f"{count} of 3 points more than 2 sigma {side} the center",
            "western_electric_2": f"{count} of 3 points more than 2 sigma {side} the center",
            "nelson_6": f"{count} of 5 points more than 1 sigma {side} the center",
            "western_electric_3": f"{count} of 5 points more than 1 sigma {side} the center",
            "nelson_7": f"{count} points in a row within 1 sigma: limits of a noisier time, or mixed strata",
            "nelson_8": f"{count} points in a row more than 1 sigma away, on either side",
        }[rule]

    def _unit(self) -> tuple[str, float, float]:
        """Unit of the statistic, its center, and its size of one sigma; sigma itself where strata differ."""
        sigma = self.sigmas[int(self.columns[-1])] if len(self.columns) else None
        center = self.looked.centers[int(self.columns[-1])] if len(self.columns) else None
        if self.spec.strata or self.spec.transform or not sigma or center is None:
            return "sigma", 0.0, 1.0
        return "value", center, sigma

    def _moving_range(self, scaled: Floats) -> Series:
        ranges = np.full(len(self.z), np.nan)
        there = np.flatnonzero(self.before >= 0)
        with np.errstate(invalid="ignore"):
            ranges[there] = np.abs(scaled[self.columns[there]] - scaled[self.columns[self.before[there]]])
        sigma = np.array([self.sigmas[int(column)] or 0.0 for column in self.columns])
        own = self.sigmas[int(self.columns[-1])] if len(self.columns) else None
        return Series(
            name="moving range",
            values=self._spread(ranges),
            center=None if own is None else own * D2,
            lower=(None,) * len(self.looked.labels),
            upper=self._spread(sigma * MOVING_RANGE_LIMIT),
            unit="value" if self.spec.transform is None else self.spec.transform,
        )

    def _spread(self, values: Floats, shown: bool = True) -> Numbers:
        """Numbers of the chart's columns as one entry for every point."""
        found: list[float | None] = [None] * len(self.looked.labels)
        if shown:
            for column, value in zip(self.columns, values, strict=True):
                found[int(column)] = float(value) if np.isfinite(value) else None
        return tuple(found)


def _point_before(strata: Integers) -> Integers:
    """For each residual the position of the one before it in its stratum; -1: none."""
    last: dict[int, int] = {}
    before = np.full(len(strata), -1, dtype=np.int64)
    for position, stratum in enumerate(strata):
        before[position] = last.get(int(stratum), -1)
        last[int(stratum)] = position
    return before


def _side(value: float, sides: str) -> int:
    """1 or -1: the side of the center, 0 when this chart does not look there."""
    sign = 1 if value > 0 else -1 if value < 0 else 0
    return sign if sides == "both" or sign == (1 if sides == "upper" else -1) else 0


def _figure(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"


def _in(unit: str) -> str:
    return "" if unit == "value" else " sigma"
