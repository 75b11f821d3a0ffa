"""The bootstrap: what the metrics would be on other rows of the same kind.

Three ways to draw, all with replacement. By *type*, where the rows fall into few: how many of each, which is
exactly the bootstrap of rows. By *unit*: rows, or clusters of rows that belong together. By *block*, where
there are more than ``UNIT_LIMIT`` units: they are dealt at random into ``BLOCKS`` blocks, which are drawn as
wholes; the standard error of ``BLOCKS`` blocks is uncertain by 1 %, less than by 2,000 resamples (1.6 %).

Sources: Efron and Tibshirani (1993), chapters 14 (BCa) and 15 (tests); Davison and Hinkley (1997), section
3.8 (clusters).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse, special

from airflow_provider_xops.evaluation.statistics._sums import (
    CHUNK,
    Floats,
    Kernel,
    Sums,
    without_each_line,
)

__all__ = ["MINIMUM_UNITS", "Resampled", "Units", "bca", "p_value", "percentile", "resample"]

UNIT_LIMIT = 20_000
BLOCKS = 5_000
MINIMUM_UNITS = 10  # fewer say too little about how they vary
UNDEFINED_LIMIT = 0.05  # of the resamples may leave a metric undefined
ROUNDING = 1e-12  # of a metric's size is no difference

_TYPE_COST, _UNIT_COST, _ENTRY_COST = 100.0, 6.0, 1.0  # nanoseconds a resample, measured


@dataclass(frozen=True, eq=False)
class Units:
    """What is drawn: ``of_row`` the unit of each row, None where each row is one.

    :param independent: how many there are before they were put into blocks.
    """

    rows: int
    count: int
    independent: int
    of_row: Any = None
    clustered: bool = False

    @classmethod
    def of(cls, rows: int, clusters: Any, seed: int) -> Units:
        """Rows, or the clusters that ``clusters`` names for each row; many of them become blocks."""
        of_row, count = None, rows
        if clusters is not None:
            labels, of_row = np.unique(np.asarray(clusters), return_inverse=True)
            count = len(labels)
        independent = count
        if count > UNIT_LIMIT:
            block = np.random.default_rng([seed, 1]).permutation(count) % BLOCKS
            of_row = block if of_row is None else block[of_row]
            count = BLOCKS
        return cls(
            rows=rows, count=count, independent=independent, of_row=of_row, clustered=clusters is not None
        )

    @property
    def enough(self) -> bool:
        """Whether they say something about how the metric varies."""
        return self.independent >= MINIMUM_UNITS


@dataclass(frozen=True, eq=False)
class Resampled:
    """One metric, or the difference of two models on it.

    :param drawn: its value in each resample; NaN where it is not defined.
    :param without: its value with each row (or cluster) left out.
    :param scale: how large the metric is, in its own unit: what rounding is measured by.
    """

    drawn: Floats
    without: Floats
    scale: float = 1.0

    @property
    def usable(self) -> bool:
        """Whether it is defined in nearly every resample."""
        return bool(np.isnan(self.drawn).mean() <= UNDEFINED_LIMIT)

    @property
    def defined(self) -> Floats:
        """The resamples in which it is defined."""
        return self.drawn[~np.isnan(self.drawn)]

    @property
    def constant(self) -> bool:
        """Whether every resample says the same."""
        values = self.defined
        return bool(np.ptp(values) <= ROUNDING * self.scale) if len(values) else True

    @property
    def acceleration(self) -> float | None:
        """How the standard error changes with the value, from the jackknife; None where that fails."""
        if not np.isfinite(self.without).all():
            return None
        spread = self.without.mean() - self.without
        squares = float((spread**2).sum())
        return float((spread**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0


def resample(
    jobs: Mapping[str, Sequence[Kernel]], units: Units, *, resamples: int, seed: int
) -> dict[str, Resampled]:
    """Each job's values: of its one kernel, or the first minus the second, drawn with the same rows."""
    by_type: dict[tuple[int, ...], list[str]] = {}
    by_unit: list[str] = []
    sums: dict[int, Sums] = {}
    for name, kernels in jobs.items():
        parts = {id(part.sums): part.sums for kernel in kernels for part in kernel.parts}
        sums |= parts
        if units.clustered or len(parts) > 2 or any(each.codes is None for each in parts.values()):
            by_unit.append(name)
        else:
            by_type.setdefault(tuple(parts), []).append(name)
    drawn: dict[str, list[Floats]] = {name: [] for name in jobs}
    for keys, names in by_type.items():
        types = _Types.of([sums[key] for key in keys])
        if types.cost > _cost_of_units(units, sums[keys[0]]):
            by_unit += names
            continue
        for lines in types.draw(units.rows, resamples, seed):
            _evaluate(jobs, names, dict(zip(keys, lines, strict=True)), drawn)
    if by_unit:
        wanted = {id(part.sums) for name in by_unit for kernel in jobs[name] for part in kernel.parts}
        for by_key in _draw_units({key: sums[key] for key in wanted}, units, resamples, seed):
            _evaluate(jobs, by_unit, by_key, drawn)
    return {
        name: Resampled(
            drawn=np.concatenate(values), without=_without(jobs[name], units),
            scale=max(abs(kernel.on_all()) for kernel in jobs[name]),
        )
        for name, values in drawn.items()
    }  # fmt: skip


def bca(value: float, resampled: Resampled, levels: Sequence[float]) -> list[float] | None:
    """The bias-corrected and accelerated bounds at ``levels`` (0.025 and 0.975, for example).

    None where they are not defined: the jackknife fails, or every resample is on one side of the value.
    """
    values, acceleration = resampled.defined, resampled.acceleration
    below = (np.count_nonzero(values < value) + np.count_nonzero(values <= value)) / (2 * len(values))
    if acceleration is None or not 0 < below < 1:
        return None
    bias = special.ndtri(below)
    shifted = bias + special.ndtri(np.asarray(levels))
    under = 1 - acceleration * shifted
    if (under <= 0).any():
        return None
    return [float(bound) for bound in np.quantile(values, special.ndtr(bias + shifted / under))]


def percentile(resampled: Resampled, levels: Sequence[float]) -> list[float]:
    """The plain quantiles of the resamples."""
    return [float(bound) for bound in np.quantile(resampled.defined, levels)]


def p_value(value: float, bar: float, resampled: Resampled, independent: int) -> float:
    """One-sided, of the hypothesis that the true value is at most ``bar``: the level at which the lower BCa
    bound would be ``bar``. Where BCa is not defined, the share of resamples at or below the bar.

    :param independent: how many rows or clusters say something about the metric.

    Never below 1 / (resamples + 1): so many resamples cannot say more. Nor, where no resample differs, below
    1 / (independent + 1): then nothing can be estimated, and so many rows cannot say more.
    """
    if resampled.constant:
        return max(1 / (independent + 1), 1 / (len(resampled.defined) + 1)) if value > bar else 1.0
    values, acceleration = resampled.defined, resampled.acceleration
    tolerance = ROUNDING * max(resampled.scale, abs(bar))
    share = (np.count_nonzero(values <= bar + tolerance) + 1) / (len(values) + 1)
    least = 1 / (len(values) + 1)
    below = (np.count_nonzero(values < value) + np.count_nonzero(values <= value)) / (2 * len(values))
    if acceleration is None or not 0 < below < 1 or share >= 1:
        return float(min(1.0, share))
    bias = special.ndtri(below)
    from_bias = special.ndtri(share) - bias
    under = 1 + acceleration * from_bias
    if under <= 0:
        return float(share)
    return float(np.clip(special.ndtr(from_bias / under - bias), least, 1.0))


@dataclass(frozen=True, eq=False)
class _Types:
    """The combinations of types that occur among the rows, for one or two sums."""

    counts: Floats
    added: tuple[Any, ...]

    @classmethod
    def of(cls, sums: Sequence[Sums]) -> _Types:
        if len(sums) == 1:
            counts = np.bincount(sums[0].codes, minlength=sums[0].types)
            places = [np.flatnonzero(counts)]
            counts = counts[places[0]]
        else:
            joint = sums[0].codes.astype(np.int64) * sums[1].types + sums[1].codes
            values, counts = np.unique(joint, return_counts=True)
            places = list(np.divmod(values, sums[1].types))
        added = tuple(each.added[place] for each, place in zip(sums, places, strict=True))
        return cls(counts=counts.astype(np.float64), added=added)

    @property
    def cost(self) -> float:
        return _TYPE_COST * len(self.counts)

    def draw(self, rows: int, resamples: int, seed: int) -> Iterator[list[Floats]]:
        rng = np.random.default_rng(seed)
        shares = self.counts / self.counts.sum()
        step = max(1, CHUNK // max(len(shares), *(each.shape[1] for each in self.added)))
        for start in range(0, resamples, step):
            counts = rng.multinomial(rows, shares, size=min(step, resamples - start)).astype(np.float64)
            yield [np.asarray((each.T @ counts.T).T) for each in self.added]


def _cost_of_units(units: Units, sums: Sums) -> float:
    entries = min(units.rows, units.count * sums.width)
    return _UNIT_COST * units.count + _ENTRY_COST * entries


def _draw_units(
    sums: Mapping[int, Sums], units: Units, resamples: int, seed: int
) -> Iterator[dict[int, Floats]]:
    rng = np.random.default_rng(seed)
    tables = {key: each.by_unit(units.of_row, units.count) for key, each in sums.items()}
    transposed = {
        key: table.T.tocsr() if sparse.issparse(table) else np.ascontiguousarray(table.T)
        for key, table in tables.items()
    }
    widest = max(units.count, *(each.width for each in sums.values()))
    step = max(1, CHUNK // widest)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        chosen = rng.integers(0, units.count, size=(size, units.count))
        # How often each unit was chosen: one column a resample.
        chosen *= size
        chosen += np.arange(size)[:, None]
        times = np.bincount(chosen.ravel(), minlength=units.count * size).reshape(units.count, size)
        weights = times.astype(np.float64)
        yield {key: np.asarray((table @ weights).T) for key, table in transposed.items()}


def _evaluate(
    jobs: Mapping[str, Sequence[Kernel]], names: Sequence[str], lines: Mapping[int, Floats],
    drawn: dict[str, list[Floats]],
) -> None:  # fmt: skip
    for name in names:
        values = [kernel.value([lines[id(part.sums)] for part in kernel.parts]) for kernel in jobs[name]]
        drawn[name].append(values[0] if len(values) == 1 else values[0] - values[1])


def _without(kernels: Sequence[Kernel], units: Units) -> Floats:
    """The job's value with each row, or each unit of clusters, left out; NaN where the jackknife fails."""
    if not all(kernel.smooth for kernel in kernels):
        return np.array([np.nan])
    if units.clustered:
        values = [_without_each_unit(kernel, units) for kernel in kernels]
    else:
        values = [kernel.without_each() for kernel in kernels]
    return values[0] if len(values) == 1 else values[0] - values[1]


def _without_each_unit(kernel: Kernel, units: Units) -> Floats:
    parts = [
        without_each_line(part.value, part.sums.total(), part.sums.by_unit(units.of_row, units.count))
        for part in kernel.parts
    ]
    return np.asarray(np.mean(parts, axis=0))
