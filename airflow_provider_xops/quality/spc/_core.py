"""What one chart and ten thousand have in common: which points count, and how far each is from its center.

Works on series x points; :mod:`judge` has one row, :mod:`many` the rows whose gaps are in the same places. So
both give the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.spc.estimate import (
    D2,
    D4,
    ROUNDING,
    Estimates,
    binomial_sigma,
    estimate,
)
from airflow_provider_xops.quality.spc.spec import ChartSpec, SpecialCause

__all__ = [
    "MOVING_RANGE_LIMIT",
    "Layout",
    "Masks",
    "back",
    "estimates_of",
    "known",
    "lay_out",
    "mask_causes",
    "residuals",
    "sigma_at",
    "transformed",
]

MOVING_RANGE_LIMIT = D4 * D2
"""Upper limit of a moving range, in sigma."""
_DECIMALS = 9
"""Of the residuals that run rules compare with whole numbers of sigma."""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(kw_only=True)
class Layout:
    """Which columns play which part, for the newest column.

    :param columns: points that the rules read, oldest first.
    :param baseline: stratum to the columns that its limits rest on; strata with too few are left out.
    :param phase: see :class:`ChartVerdict`.
    :param found: usable baseline points of the newest point's stratum.
    """

    newest: int
    strata: Integers
    columns: Integers
    baseline: dict[int, Integers] = field(default_factory=dict)
    phase: str = "no_limits"
    found: int = 0


@dataclass(kw_only=True)
class Masks:
    """Where special causes lie: the number of the cause at each point (-1: none); points before a step."""

    cause: Integers
    before_step: Flags
    step: SpecialCause | None = None


def transformed(spec: ChartSpec, values: Floats) -> Floats:
    """The values on the scale that limits are computed on; zero becomes infinitely far down under ``log``."""
    if spec.chart == "p" and _any(values, values < 0.0, values > 1.0):
        raise _unfit(
            spec, "a p chart needs proportions from 0 to 1", "use chart='individuals' for other metrics"
        )
    if spec.transform is None:
        return values
    if spec.transform == "log":
        if _any(values, values < 0.0):
            raise _unfit(spec, "transform 'log' needs values of 0 or more", "leave the transform out")
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(values)
    if _any(values, values < 0.0, values > 1.0):
        raise _unfit(spec, "transform 'logit' needs proportions from 0 to 1", "leave the transform out")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(values) - np.log1p(-values))


def back(spec: ChartSpec, values: Floats) -> Floats:
    """From the scale of the limits to the metric's own unit."""
    if spec.transform == "log":
        return np.exp(values)
    if spec.transform == "logit":
        with np.errstate(over="ignore"):
            return np.asarray(1.0 / (1.0 + np.exp(-values)))
    return np.clip(values, 0.0, 1.0) if spec.chart == "p" else values


def mask_causes(causes: Sequence[SpecialCause], metric: str, times: Sequence[datetime], newest: int) -> Masks:
    """Which points lie in a special cause of ``metric`` and which before its last step."""
    cause = np.full(len(times), -1, dtype=np.int64)
    steps = []
    for number, each in enumerate(causes):
        if not each.concerns(metric):
            continue
        if each.action == "step":
            if each.start <= times[newest]:
                steps.append(each)
            continue
        for at, time in enumerate(times):
            if cause[at] < 0 and each.start <= time and (each.end is None or time <= each.end):
                cause[at] = number
    step = max(steps, key=lambda each: each.start, default=None)
    before = np.array([step is not None and time < step.start for time in times], dtype=bool)
    return Masks(cause=cause, before_step=before, step=step)


def lay_out(
    spec: ChartSpec,
    *,
    usable: Flags,
    finite: Flags,
    strata: Integers,
    newest: int,
    times: Sequence[datetime] | None,
) -> Layout:
    """Choose baseline and chart columns for the point at ``newest``.

    :param usable: points that count at all; ``finite``: and whose transformed value is a number.
    :param times: needed by frozen baselines.
    """
    layout = Layout(newest=newest, strata=strata, columns=np.empty(0, dtype=np.int64))
    seen = np.flatnonzero(usable[: newest + 1])
    own = int(strata[newest])
    if known(spec):
        layout.phase, layout.columns = "phase_2", seen
        return layout
    candidates = np.flatnonzero((usable & finite)[:newest])
    base = spec.baseline
    over = True
    if base.kind == "rolling":
        candidates = candidates[candidates < newest - base.gap]
    else:
        start, end, moments = _frozen(spec, times)
        within = [start <= moments[int(at)] <= end for at in candidates]
        candidates = candidates[np.array(within, dtype=bool)]
        over = moments[newest] > end
    for stratum in np.unique(strata[candidates]):
        columns = candidates[strata[candidates] == stratum]
        columns = columns[-base.points :] if base.kind == "rolling" else columns
        if int(stratum) == own:
            layout.found = len(columns)
        if len(columns) >= spec.min_points:
            layout.baseline[int(stratum)] = columns
    if own not in layout.baseline:
        return layout
    complete = layout.found == base.points if base.kind == "rolling" else over
    layout.phase = "phase_2" if complete else "phase_1"
    first = min(int(columns[0]) for columns in layout.baseline.values())
    if base.kind == "frozen" and complete and spec.chart in ("ewma", "cusum"):
        # Sums start where monitoring starts: the baseline's own ups and downs are in its sigma already.
        _, end, moments = _frozen(spec, times)
        first = next(at for at in range(newest + 1) if moments[at] > end)
    with_limits = np.isin(strata[seen], np.array(sorted(layout.baseline)))
    layout.columns = seen[(seen >= first) & with_limits]
    return layout


def _frozen(
    spec: ChartSpec, times: Sequence[datetime] | None
) -> tuple[datetime, datetime, Sequence[datetime]]:
    """Start and end of a frozen baseline, which :class:`Baseline` has made sure of, and the times."""
    start, end = spec.baseline.start, spec.baseline.end
    if start is None or end is None or times is None:
        raise _unfit(spec, "a frozen baseline needs the times of the points", "give them")
    return start, end, times


def known(spec: ChartSpec) -> bool:
    """Whether center and sigma are given, so that there is nothing to estimate."""
    if spec.chart == "p":
        return spec.target is not None and not spec.laney
    return spec.target is not None and spec.sigma is not None


def estimates_of(
    spec: ChartSpec, layout: Layout, values: Floats, sizes: Floats | None
) -> dict[int, Estimates]:
    """Center and scale of every stratum, for every row of ``values`` (series x all points, transformed)."""
    if known(spec):
        rows = len(values)
        given = Estimates(
            center=np.full(rows, float(spec.target or 0.0)),
            scale=np.full(rows, float(spec.sigma or 1.0)),
            used=np.zeros((rows, 0), dtype=bool),
            stable=np.ones(rows, dtype=bool),
        )
        return {int(stratum): given for stratum in np.unique(layout.strata)}
    return {
        stratum: estimate(spec, _take(values, columns), None if sizes is None else _take(sizes, columns))
        for stratum, columns in layout.baseline.items()
    }


def sigma_at(spec: ChartSpec, found: Estimates, sizes: Floats | None) -> Floats:
    """Sigma at points of the given sizes (p charts), or of the series: series x points, or series x 1."""
    if spec.chart == "p" and sizes is not None:
        return np.asarray(found.scale[:, None] * binomial_sigma(found.center, sizes))
    return found.scale[:, None]


def residuals(
    spec: ChartSpec,
    layout: Layout,
    found: dict[int, Estimates],
    values: Floats,
    sizes: Floats | None,
    columns: Integers,
) -> tuple[Floats, Flags]:
    """``(value - center) / sigma`` of the given columns, and whether sigma is zero (series x columns).

    Where sigma is zero a value that differs at all is infinitely far away.
    """
    strata = layout.strata[columns]
    if len(found) == 1 or len(np.unique(strata)) <= 1:
        stratum = int(strata[0]) if len(strata) else next(iter(found), 0)
        return _standardized(
            spec, found[stratum], _take(values, columns), None if sizes is None else _take(sizes, columns)
        )
    z = np.empty((len(values), len(columns)))
    flat = np.empty(z.shape, dtype=bool)
    for stratum in np.unique(strata):
        at = strata == stratum
        part = columns[at]
        z[:, at], flat[:, at] = _standardized(
            spec, found[int(stratum)], values[:, part], None if sizes is None else sizes[:, part]
        )
    return z, flat


def _standardized(
    spec: ChartSpec, found: Estimates, values: Floats, sizes: Floats | None
) -> tuple[Floats, Flags]:
    sigma = np.broadcast_to(sigma_at(spec, found, sizes), values.shape)
    center = found.center[:, None]
    away = values - center
    flat = ~(sigma > 0)
    z = away / sigma if not flat.any() else _with_flat(away, sigma, flat, center, values)
    # Run rules ask what lies *beyond* a line, and 10.3 is not beyond 10 + 3 x 0.1, whatever floats say.
    return (np.round(z, _DECIMALS) if spec.chart in ("individuals", "p") else z), flat


def _with_flat(away: Floats, sigma: Floats, flat: Flags, center: Floats, values: Floats) -> Floats:
    equal = np.abs(away) <= ROUNDING * np.maximum(np.abs(center), np.abs(values))
    far = np.where(equal, 0.0, np.copysign(np.inf, away))
    return np.where(flat, far, np.divide(away, sigma, out=np.zeros_like(away), where=~flat))


def _take(values: Floats, columns: Integers) -> Floats:
    """The columns, as a view where they are neighbors: copying millions of numbers costs more than a sum."""
    if len(columns) and int(columns[-1]) - int(columns[0]) == len(columns) - 1:
        return values[:, int(columns[0]) : int(columns[-1]) + 1]
    # Rows stay contiguous, so that a sum over a row is the same to the last bit however many rows there are.
    return np.ascontiguousarray(values[:, columns])


def _any(values: Floats, *conditions: Flags) -> bool:
    with np.errstate(invalid="ignore"):
        return any(bool((condition & np.isfinite(values)).any()) for condition in conditions)


def _unfit(spec: ChartSpec, why: str, todo: str) -> ArgumentError:
    return ArgumentError(
        f"the control chart of {spec.metric} does not fit its values",
        why=why,
        todo=todo,
        code="argument.control_chart",
        context={"metric": spec.metric, "chart": spec.chart},
    )
