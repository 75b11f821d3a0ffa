"""Judge the newest point of one series by its control chart.

How it works: points are ordered by time; gaps, special causes and everything before a step are set aside; the
baseline gives center and sigma (phase I, of each stratum); every point becomes a standardized residual; the
rules look at the residuals that end with the newest point.

Decisions worth knowing:

* The newest point never takes part in the limits it is judged by.
* Runs go over gaps and special causes as if these points were not there.
* A baseline without any variation (sigma 0) has limits on its center: any other value signals by rule 1 (or
  by the chart's own rule), and no other rule looks.
* EWMA and CUSUM start with the rolling baseline, or after the frozen one.
* No limits, no value, or a special cause at the newest point: *no data*, neither passed nor failed.

What it does not do: it does not know whether points depend on each other. Positive autocorrelation makes
every chart signal more often than its average run length says (Montgomery, 7th ed., 10.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from airflow_provider_xops.quality.spc._core import (
    Layout,
    Masks,
    back,
    estimates_of,
    known,
    lay_out,
    mask_causes,
    residuals,
    sigma_at,
    transformed,
)
from airflow_provider_xops.quality.spc._signals import Looked, Reader
from airflow_provider_xops.quality.spc.estimate import Estimates
from airflow_provider_xops.quality.spc.spec import ChartSpec, Point, SpecialCause
from airflow_provider_xops.quality.spc.strata import stratum_names
from airflow_provider_xops.quality.spc.verdict import ChartVerdict, Excluded, Numbers, Series
from airflow_provider_xops.records import ControlSignal, Outcome

__all__ = ["UNSTABLE", "judge"]

UNSTABLE = "The process is not stable"
"""How the note on a baseline begins that cannot be trusted."""

Floats = npt.NDArray[np.float64]


def judge(
    spec: ChartSpec,
    points: Iterable[Point],
    causes: Sequence[SpecialCause] = (),
    *,
    history: bool = True,
) -> ChartVerdict:
    """The verdict on the newest of ``points``.

    :param points: in any order; the newest is the one with the latest time.
    :param causes: special causes; those of other metrics are ignored.
    :param history: fill ``all_signals`` (every older point against today's limits), which drawings mark.
    :raises ArgumentError: the values do not fit the chart (``argument.control_chart``).
    """
    ordered = sorted(points, key=lambda point: (point.time, point.label))
    causes = tuple(each for each in causes if each.concerns(spec.metric))
    if not ordered:
        return ChartVerdict(
            spec=spec,
            phase="no_limits",
            outcome=Outcome.NO_DATA,
            causes=causes,
            notes=("There are no points.",),
        )
    return _Judgement(spec, ordered, causes).verdict(history)


class _Judgement:
    """One call of :func:`judge`: its arrays have one row."""

    def __init__(self, spec: ChartSpec, points: list[Point], causes: tuple[SpecialCause, ...]) -> None:
        self.spec, self.points, self.causes = spec, points, causes
        self.newest = len(points) - 1
        self.times = [point.time for point in points]
        self.values = _row([point.value for point in points])
        self.sizes = _row([point.size for point in points]) if spec.chart == "p" else None
        present = np.isfinite(self.values[0])
        if self.sizes is not None:
            present &= np.isfinite(self.sizes[0]) & (self.sizes[0] > 0)
            self.sizes = np.where(present, self.sizes, 1.0)
        self.present = present
        self.masks: Masks = mask_causes(causes, spec.metric, self.times, self.newest)
        self.usable = present & (self.masks.cause < 0) & ~self.masks.before_step
        self.scaled = transformed(spec, np.where(present, self.values, np.nan))
        self.names = stratum_names(
            spec.strata, spec.timezone, self.times, [point.floating for point in points]
        )
        numbers = {name: number for number, name in enumerate(dict.fromkeys(self.names))}
        strata = np.array([numbers[name] for name in self.names], dtype=np.int64)
        self.layout: Layout = lay_out(
            spec,
            usable=self.usable,
            finite=np.isfinite(self.scaled[0]),
            strata=strata,
            newest=self.newest,
            times=self.times,
        )
        self.estimates: dict[int, Estimates] = (
            {}
            if self.layout.phase == "no_limits"
            else estimates_of(spec, self.layout, self.scaled, self.sizes)
        )

    def verdict(self, history: bool) -> ChartVerdict:
        spec, newest = self.spec, self.newest
        centers, lowers, uppers, sigmas = self._limits()
        looked = Looked(
            labels=tuple(point.label for point in self.points),
            values=self._numbers(self.values[0], self.present),
            centers=centers,
            lowers=lowers,
            uppers=uppers,
        )
        signals: tuple[ControlSignal, ...] = ()
        every: tuple[ControlSignal, ...] = ()
        statistics: tuple[Series, ...] = ()
        if self.estimates:
            columns = self.layout.columns
            z, flat = residuals(spec, self.layout, self.estimates, self.scaled, self.sizes, columns)
            reader = Reader(spec, looked, columns, self.layout.strata[columns], z[0], flat[0], sigmas)
            if self.usable[newest]:
                signals = reader.at(len(columns) - 1)
            every = reader.everywhere() if history else signals
            statistics = reader.statistics(self.scaled[0])
        judged = bool(self.estimates) and bool(self.usable[newest])
        outcome = Outcome.NO_DATA if not judged else Outcome.FAILED if signals else Outcome.PASSED
        lower, upper = lowers[newest], uppers[newest]
        if spec.chart == "ewma" and statistics and statistics[0].unit == "value":
            lower, upper = statistics[0].lower[newest], statistics[0].upper[newest]
        own = self.estimates.get(int(self.layout.strata[newest]))
        return ChartVerdict(
            spec=spec,
            phase=self.layout.phase,
            outcome=outcome,
            label=looked.labels[newest],
            value=looked.values[newest],
            stratum=self.names[newest],
            center=centers[newest],
            sigma=sigmas[newest],
            lower=lower,
            upper=upper,
            n_used=int(own.used[0].sum()) if own is not None else 0,
            signals=signals,
            all_signals=every,
            labels=looked.labels,
            times=tuple(self.times),
            values=looked.values,
            strata=tuple(self.names),
            centers=centers,
            lowers=lowers,
            uppers=uppers,
            statistics=statistics,
            baseline=tuple(looked.labels[at] for at in sorted(self._baseline())),
            excluded=self._excluded(),
            causes=self.causes,
            stable=all(bool(each.stable[0]) for each in self.estimates.values()),
            notes=self._notes(),
        )

    def _limits(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Center, limits and sigma at every point, in the metric's unit (sigma: on the limits' scale)."""
        spec, count = self.spec, len(self.points)
        center, sigma = np.full(count, np.nan), np.full(count, np.nan)
        for stratum, found in self.estimates.items():
            at = self.layout.strata == stratum
            sizes = None if self.sizes is None else self.sizes[:, at]
            center[at] = found.center[0]
            sigma[at] = np.broadcast_to(sigma_at(spec, found, sizes), (1, int(at.sum())))[0]
        at_all = ~np.isnan(center)
        if self.sizes is not None:
            at_all &= self.present
        centers = self._numbers(back(spec, center), ~np.isnan(center))
        if spec.chart in ("ewma", "cusum"):
            none = (None,) * count
            return centers, none, none, self._numbers(sigma, at_all)
        lowers = self._numbers(back(spec, center - spec.width * sigma), at_all & (spec.sides != "upper"))
        uppers = self._numbers(back(spec, center + spec.width * sigma), at_all & (spec.sides != "lower"))
        return centers, lowers, uppers, self._numbers(sigma, at_all)

    @staticmethod
    def _numbers(values: Floats, where: npt.NDArray[np.bool_]) -> Numbers:
        return tuple(float(value) if there else None for value, there in zip(values, where, strict=True))

    def _baseline(self) -> set[int]:
        return {
            int(column)
            for stratum, found in self.estimates.items()
            for column in self.layout.baseline.get(stratum, np.empty(0, dtype=np.int64))[found.used[0]]
        }

    def _excluded(self) -> tuple[Excluded, ...]:
        removed = {
            int(column)
            for stratum, found in self.estimates.items()
            for column in self.layout.baseline.get(stratum, np.empty(0, dtype=np.int64))[~found.used[0]]
        }
        found_excluded = []
        for at, point in enumerate(self.points):
            cause = int(self.masks.cause[at])
            if not self.present[at]:
                kind, reason = "gap", "no value" if self.sizes is None else "no value or no size"
            elif cause >= 0:
                kind, reason = "cause", self.causes[cause].reason
            elif self.masks.before_step[at]:
                kind, reason = "step", self.masks.step.reason if self.masks.step else ""
            elif at in removed:
                kind, reason = "removed", "out of control in the baseline"
            else:
                continue
            found_excluded.append(Excluded(label=point.label, kind=kind, reason=reason))
        return tuple(found_excluded)

    def _notes(self) -> tuple[str, ...]:
        spec, notes = self.spec, []
        cause = int(self.masks.cause[self.newest])
        if not self.present[self.newest]:
            notes.append("The newest point has no value, so it was not judged.")
        elif cause >= 0:
            notes.append(f"The newest point was not judged: special cause ({self.causes[cause].reason}).")
        if self.layout.phase == "no_limits":
            of = f" of {self.names[self.newest]}" if spec.strata else ""
            notes.append(
                f"No limits: the baseline has {self.layout.found} usable points{of}, "
                f"{spec.min_points} are needed."
            )
            return tuple(notes)
        if self.layout.phase == "phase_1":
            notes.append(f"Phase I: the baseline is not complete yet ({self.layout.found} points so far).")
        own = self.estimates[int(self.layout.strata[self.newest])]
        if not known(spec) and not own.scale[0] > 0:
            notes.append("The baseline does not vary: any other value is a signal, and no run rule looks.")
        if not all(bool(each.stable[0]) for each in self.estimates.values()):
            notes.append(
                f"{UNSTABLE}: more than {spec.max_removed:.0%} of the baseline is out of "
                "control, so none of it was removed. Find the causes before you trust these limits."
            )
        missing = {name for name in self.names if name is not None} - {
            self.names[int(columns[0])] for columns in self.layout.baseline.values()
        }
        if spec.strata and missing and not known(spec):
            notes.append(f"Strata without limits yet, left out of runs: {', '.join(sorted(missing))}.")
        return tuple(notes)


def _row(values: Sequence[float | None]) -> Floats:
    return np.array([[np.nan if value is None else float(value) for value in values]])
