"""Judge the newest point of thousands of series at once: the answers of :func:`judge`, without its words.

For a warehouse with a chart on every column. Limits are computed together for series that have their gaps in
the same places, the sums of EWMA and CUSUM for all series at once. A signal that people should read is then
one call of :func:`judge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.spc._core import (
    MOVING_RANGE_LIMIT,
    Layout,
    back,
    estimates_of,
    lay_out,
    mask_causes,
    residuals,
    sigma_at,
    transformed,
)
from airflow_provider_xops.quality.spc.cusum import cusum_last
from airflow_provider_xops.quality.spc.estimate import Estimates
from airflow_provider_xops.quality.spc.ewma import ewma_last, ewma_limits
from airflow_provider_xops.quality.spc.rules import LONGEST, fires
from airflow_provider_xops.quality.spc.spec import ChartSpec, SpecialCause
from airflow_provider_xops.quality.spc.strata import stratum_names

__all__ = ["ManyVerdicts", "judge_many"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


_BLOCK = 512
"""Series at a time: what is computed in between stays in the processor's cache."""


@dataclass(kw_only=True)
class ManyVerdicts:
    """One entry a series.

    :param judged: False: no limits, no value or a special cause: *no data*.
    :param signals: series x :attr:`rules`.
    :param center: in the unit of the values, with ``lower`` and ``upper`` (not a number where there is none;
        EWMA and CUSUM have no limits of values). ``sigma`` is on the scale of the limits.
    """

    rules: tuple[str, ...]
    judged: Flags
    signals: Flags
    center: Floats
    sigma: Floats
    lower: Floats
    upper: Floats

    @property
    def failed(self) -> Flags:
        """Series whose newest point signals by at least one rule."""
        return np.asarray(self.signals.any(axis=1))


def judge_many(
    values: npt.ArrayLike,
    spec: ChartSpec,
    *,
    times: Sequence[datetime] | None = None,
    sizes: npt.ArrayLike | None = None,
    causes: Sequence[SpecialCause] = (),
) -> ManyVerdicts:
    """The newest point (last column) of every row of ``values`` (series x points, oldest first).

    :param spec: of all of them; its ``metric`` selects the causes.
    :param times: of the columns, ascending; needed by strata, frozen baselines and causes. They are moments,
        not floating: columns that are local dates want midnights of UTC and the spec's zone UTC.
    :param sizes: of p charts: same shape as ``values``.
    :raises ArgumentError: shapes do not fit, or the values do not fit the chart (``argument.control_chart``).
    """
    table = np.asarray(values, dtype=np.float64)
    weights = None if sizes is None or spec.chart != "p" else np.asarray(sizes, dtype=np.float64)
    _check(spec, table, weights, times, causes)
    rows, columns = table.shape
    found = _empty(spec, rows)
    if not columns:
        return found
    present = np.isfinite(table)
    if weights is not None:
        present &= np.isfinite(weights) & (weights > 0)
    complete = bool(present.all())
    scaled = transformed(spec, table if complete else np.where(present, table, np.nan))
    usable = present.copy()
    if causes and times is not None:
        masks = mask_causes(causes, spec.metric, times, columns - 1)
        usable &= (masks.cause < 0) & ~masks.before_step
    names = stratum_names(spec.strata, spec.timezone, times) if times is not None else [None] * columns
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    strata = np.array([numbers[name] for name in names], dtype=np.int64)
    finite = present if spec.transform is None else np.isfinite(scaled)
    groups = _alike(usable, finite, complete and not causes and spec.transform is None)
    blocks = [group[at : at + _BLOCK] for group in groups for at in range(0, len(group), _BLOCK)]
    weighted = spec.chart in ("ewma", "cusum")
    # Points that do not count are no numbers here, and no number leaves a sum as it is.
    all_z = np.full(table.shape, np.nan) if weighted and len(groups) > 1 else None
    all_flat = np.zeros(rows, dtype=bool)
    for members in blocks:
        part = _rows(scaled, members)
        part_sizes = None if weights is None else _rows(weights, members)
        one = int(members[0])
        layout = lay_out(
            spec, usable=usable[one], finite=finite[one], strata=strata, newest=columns - 1, times=times
        )
        if layout.phase == "no_limits":
            continue
        estimates = estimates_of(spec, layout, part, part_sizes)
        _fill_limits(found, members, spec, layout, estimates, part_sizes)
        if not usable[one, -1]:
            continue
        found.judged[members] = True
        if not weighted:
            _apply_rules(found, members, spec, layout, estimates, part, part_sizes)
            continue
        z, flat = residuals(spec, layout, estimates, part, part_sizes, layout.columns)
        all_flat[members] = flat[:, -1]
        if all_z is None:
            found.signals[members, 0] = _time_weighted(spec, z, flat[:, -1])
        else:
            all_z[np.ix_(members, layout.columns)] = z
    if all_z is not None:
        for at in range(0, rows, _BLOCK):
            rest = slice(at, at + _BLOCK)
            found.signals[rest, 0] = _time_weighted(spec, all_z[rest], all_flat[rest])
    return found


def _fill_limits(
    found: ManyVerdicts,
    members: npt.NDArray[np.int64],
    spec: ChartSpec,
    layout: Layout,
    estimates: dict[int, Estimates],
    sizes: Floats | None,
) -> None:
    """Center, sigma and limits at the newest point."""
    own = estimates[int(layout.strata[layout.newest])]
    newest_sizes = None if sizes is None else sizes[:, layout.newest :]
    found.center[members] = back(spec, own.center)
    if newest_sizes is not None and not (np.isfinite(newest_sizes) & (newest_sizes > 0)).all():
        return
    sigma = sigma_at(spec, own, newest_sizes)[:, 0]
    found.sigma[members] = sigma
    if spec.chart in ("individuals", "p"):
        if spec.sides != "upper":
            found.lower[members] = back(spec, own.center - spec.width * sigma)
        if spec.sides != "lower":
            found.upper[members] = back(spec, own.center + spec.width * sigma)


def _apply_rules(
    found: ManyVerdicts,
    members: npt.NDArray[np.int64],
    spec: ChartSpec,
    layout: Layout,
    estimates: dict[int, Estimates],
    values: Floats,
    sizes: Floats | None,
) -> None:
    """The rules of Shewhart charts, for series whose gaps are in the same places."""
    columns = layout.columns[-LONGEST:]
    z, flat = residuals(spec, layout, estimates, values, sizes, columns)
    for number, rule in enumerate(spec.rule_names):
        if rule == "moving_range":
            fired = _jumped(residuals(spec, layout, estimates, values, sizes, _pair(layout))[0])
        else:
            fired = fires(rule, z, width=spec.width, sides=spec.sides)
        first = rule in ("nelson_1", "western_electric_1")
        found.signals[members, number] = fired if first else fired & ~flat[:, -1]


def _pair(layout: Layout) -> npt.NDArray[np.int64]:
    """The newest point and the one before it in its stratum: further back, maybe, than any rule looks."""
    strata = layout.strata
    return np.asarray(layout.columns[strata[layout.columns] == strata[layout.newest]][-2:])


def _jumped(pair: Floats) -> Flags:
    if pair.shape[1] < 2:
        return np.zeros(len(pair), dtype=bool)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(pair[:, 1] - pair[:, 0]) > MOVING_RANGE_LIMIT)


def _time_weighted(spec: ChartSpec, z: Floats, flat: Flags) -> Flags:
    last = z[:, -1]
    high, low = spec.sides != "lower", spec.sides != "upper"
    far = (np.isposinf(last) & high) | (np.isneginf(last) & low)
    if spec.chart == "ewma":
        average = ewma_last(z, lambda_=spec.lambda_)
        # Infinite points do not move the average and do not count for its limits: rows can differ.
        counted = np.isfinite(z).sum(axis=1)
        limits = ewma_limits(np.zeros(z.shape[1]), lambda_=spec.lambda_, limit=spec.ewma_limit)
        edge = np.concatenate([[0.0], limits])[counted]
        beyond = ((average > edge) & high) | ((average < -edge) & low)
    else:
        upper, lower = cusum_last(z, k=spec.k, h=spec.h, reset=spec.reset)
        beyond = ((upper > spec.h) & high) | ((lower > spec.h) & low)
    return np.asarray(far | (beyond & ~flat & np.isfinite(last)))


def _rows(values: Floats, members: npt.NDArray[np.int64]) -> Floats:
    """The rows, as a view where they are neighbors."""
    first, last = int(members[0]), int(members[-1])
    return values[first : last + 1] if last - first == len(members) - 1 else values[members]


def _alike(usable: Flags, finite: Flags, complete: bool) -> list[npt.NDArray[np.int64]]:
    """The rows, grouped by where their gaps are."""
    if complete or not len(usable):
        return [np.arange(len(usable))] if len(usable) else []
    packed = np.packbits(np.concatenate([usable, finite], axis=1), axis=1)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, group = np.unique(keys, return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _empty(spec: ChartSpec, rows: int) -> ManyVerdicts:
    def unknown() -> Floats:
        return np.full(rows, np.nan)

    return ManyVerdicts(
        rules=spec.rule_names,
        judged=np.zeros(rows, dtype=bool),
        signals=np.zeros((rows, len(spec.rule_names)), dtype=bool),
        center=unknown(),
        sigma=unknown(),
        lower=unknown(),
        upper=unknown(),
    )


def _check(
    spec: ChartSpec,
    values: Floats,
    sizes: Floats | None,
    times: Sequence[datetime] | None,
    causes: Sequence[SpecialCause],
) -> None:
    problem = ""
    if values.ndim != 2:
        problem = f"values have {values.ndim} dimensions, not 2 (series x points)"
    elif times is not None and len(times) != values.shape[1]:
        problem = f"there are {len(times)} times for {values.shape[1]} points"
    elif times is not None and any(before >= after for before, after in pairwise(times)):
        problem = "the times do not ascend"
    elif times is None and (spec.strata or spec.baseline.kind == "frozen" or causes):
        problem = "strata, frozen baselines and special causes need the times of the points"
    elif spec.chart == "p" and (sizes is None or sizes.shape != values.shape):
        problem = "a p chart needs sizes of the same shape as the values"
    if problem:
        raise ArgumentError(
            f"many control charts of {spec.metric}",
            why=problem,
            todo="correct it",
            code="argument.control_chart",
        )
