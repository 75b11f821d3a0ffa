"""Phase I: center and sigma from a baseline, without the points that do not belong.

Individuals: the mean, and the average moving range over d2 = 1.128 (Montgomery, 7th ed., 6.4; NIST/SEMATECH
e-Handbook 6.3.2.2), so the limits are mean +- 2.66 MR-bar and the moving range's own limit is 3.267 MR-bar;
or the median moving range over 0.954, which a few wild points do not move. p charts: the pooled proportion,
with sigma from each point's own size (Montgomery 7.2), times Laney's sigma_z, the variation between points in
binomial sigmas (Laney, 2002, Improved control charts for attributes, Quality Engineering 14(4), 531-537).

Points beyond the limits are removed and the limits computed again (Montgomery 6.2.2, "revised limits"), for a
few rounds and up to a share; beyond that the process was not stable and nothing can be called exceptional, so
nothing is removed.

A moving range goes over gaps, from one usable point to the next, but not over a point that was removed. Where
the moving range is zero although values differ, the sample standard deviation takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from airflow_provider_xops.quality.spc.spec import ChartSpec

__all__ = ["D2", "D4", "MEDIAN_D", "ROUNDING", "Estimates", "estimate"]

D2 = 1.128
"""Mean of the range of two normal values, in sigma (Montgomery, appendix VI; NIST 6.3.2.2)."""
D4 = 3.267
"""Upper limit of a moving range of two over its mean (Montgomery, appendix VI)."""
MEDIAN_D = 0.954
"""Median of the range of two normal values, in sigma: sqrt(2) times the third quartile of a normal."""
ROUNDING = 1e-12
"""Relative differences below this are rounding of floats, no variation."""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(kw_only=True)
class Estimates:
    """What phase I found, one row a series.

    :param scale: sigma of individuals; of p charts the factor on each point's binomial sigma.
    :param used: which baseline points the estimate rests on.
    :param stable: False: too many points were out of control to remove them.
    """

    center: Floats
    scale: Floats
    used: Flags
    stable: Flags


def estimate(spec: ChartSpec, values: Floats, sizes: Floats | None = None) -> Estimates:
    """Center and scale of every row of ``values`` (series x baseline points), which are all finite.

    :param sizes: of the points of a p chart, same shape.
    """
    rows, columns = values.shape
    used = np.ones((rows, columns), dtype=bool)
    stable = np.ones(rows, dtype=bool)
    center, scale = _fit(spec, values, sizes, None)
    if (spec.target is not None and spec.sigma is not None) or spec.max_rounds == 0 or spec.max_removed == 0:
        return Estimates(center=center, scale=scale, used=used, stable=stable)
    first_center, first_scale = center.copy(), scale.copy()
    active = np.arange(rows)
    for _ in range(spec.max_rounds):
        part, weights = values[active], None if sizes is None else sizes[active]
        inside = _inside(spec, part, weights, center[active], scale[active])
        kept = used[active] & inside
        changed = kept.sum(axis=1) < used[active].sum(axis=1)
        active, kept = active[changed], kept[changed]
        if not len(active):
            break
        enough = kept.sum(axis=1) >= (1.0 - spec.max_removed) * columns
        wild, active, kept = active[~enough], active[enough], kept[enough]
        stable[wild], used[wild] = False, True
        center[wild], scale[wild] = first_center[wild], first_scale[wild]
        used[active] = kept
        center[active], scale[active] = _fit(
            spec, values[active], None if sizes is None else sizes[active], kept
        )
    return Estimates(center=center, scale=scale, used=used, stable=stable)


def binomial_sigma(center: Floats, sizes: Floats) -> Floats:
    """Sigma of a proportion of ``sizes`` rows around ``center`` (series), same shape as ``sizes``."""
    return np.asarray(np.sqrt((center * (1.0 - center))[:, None] / sizes))


def _fit(spec: ChartSpec, values: Floats, sizes: Floats | None, used: Flags | None) -> tuple[Floats, Floats]:
    if sizes is None:
        return _fit_individuals(spec, values, used)
    weights = sizes if used is None else np.where(used, sizes, 0.0)
    center = (values * weights).sum(axis=1) / weights.sum(axis=1)
    center = np.full(len(values), spec.target) if spec.target is not None else _settle(center, values, used)
    if not spec.laney:
        return center, np.ones(len(values))
    sigma = binomial_sigma(center, sizes)
    z = np.divide(values - center[:, None], sigma, out=np.zeros_like(values), where=sigma > 0)
    return center, _spread(spec, z, used)


def _fit_individuals(spec: ChartSpec, values: Floats, used: Flags | None) -> tuple[Floats, Floats]:
    if spec.target is not None:
        center = np.full(len(values), float(spec.target))
    elif used is None:
        center = _settle(values.mean(axis=1), values, used)
    else:
        center = _settle(np.where(used, values, 0.0).sum(axis=1) / used.sum(axis=1), values, used)
    if spec.sigma is not None:
        return center, np.full(len(values), float(spec.sigma))
    scale = _spread(spec, values, used)
    return center, np.where(scale <= ROUNDING * np.abs(center), 0.0, scale)


def _spread(spec: ChartSpec, values: Floats, used: Flags | None) -> Floats:
    ranges = np.abs(np.diff(values, axis=1))
    pairs = None if used is None else used[:, 1:] & used[:, :-1]
    if spec.moving_range == "median":
        known = ranges if pairs is None else np.where(pairs, ranges, np.nan)
        scale = np.nanmedian(known, axis=1) / MEDIAN_D if ranges.shape[1] else np.zeros(len(values))
    elif pairs is None:
        scale = ranges.mean(axis=1) / D2
    else:
        scale = np.where(pairs, ranges, 0.0).sum(axis=1) / np.maximum(pairs.sum(axis=1), 1) / D2
    flat = np.flatnonzero(~(scale > 0))
    if len(flat):
        scale = scale.copy()
        mask = np.ones_like(values[flat], dtype=bool) if used is None else used[flat]
        scale[flat] = _deviation(values[flat], mask)
    return np.asarray(scale)


def _deviation(values: Floats, used: Flags) -> Floats:
    counts = used.sum(axis=1)
    mean = np.where(used, values, 0.0).sum(axis=1) / counts
    squares = np.where(used, (values - mean[:, None]) ** 2, 0.0).sum(axis=1)
    return np.asarray(np.sqrt(squares / np.maximum(counts - 1, 1)))


def _settle(center: Floats, values: Floats, used: Flags | None) -> Floats:
    """The mean of equal values is that value, whatever the rounding of the sum says."""
    low = values.min(axis=1) if used is None else np.where(used, values, np.inf).min(axis=1)
    high = values.max(axis=1) if used is None else np.where(used, values, -np.inf).max(axis=1)
    return np.clip(center, low, high)


def _inside(spec: ChartSpec, values: Floats, sizes: Floats | None, center: Floats, scale: Floats) -> Flags:
    away = np.abs(values - center[:, None])
    sigma = scale[:, None] if sizes is None else scale[:, None] * binomial_sigma(center, sizes)
    return np.asarray(away <= spec.width * sigma + ROUNDING * np.abs(center)[:, None])
