"""The newest point of 10,000 metrics x 365 points: individuals with all Nelson rules, EWMA and CUSUM.

``python -m benchmarks.control_charts [--json]``. The ratio is the three charts of all metrics over a budget
of one second. ``details`` has the floor (one NumPy pass over the same numbers: a mean and moving range), one
call of ``judge`` for each metric and chart, and the peer: center, sigma and all rules in a plain loop.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from airflow_provider_xops.quality.spc import Baseline, ChartSpec, Point, judge, judge_many
from airflow_provider_xops.quality.spc.estimate import D2
from benchmarks._harness import measure, median, report

METRICS = 10_000
POINTS = 365
BUDGET = 1.0
LOOPED = 200
BASELINE = Baseline(points=POINTS - 1)
SPECS = (
    ChartSpec(metric="m", rules="nelson", baseline=BASELINE),
    ChartSpec(metric="m", chart="ewma", baseline=BASELINE),
    ChartSpec(metric="m", chart="cusum", baseline=BASELINE),
)

Floats = npt.NDArray[np.float64]


def main() -> None:
    """Measure and report."""
    values = np.random.default_rng(0).normal(100.0, 5.0, size=(METRICS, POINTS))

    def all_charts() -> None:
        for spec in SPECS:
            judge_many(values, spec)

    def floor() -> None:
        values.mean(axis=1)
        np.abs(np.diff(values, axis=1)).mean(axis=1)

    first = datetime(2026, 1, 1, tzinfo=UTC)
    series = [
        [
            Point(label=str(at), time=first + timedelta(days=at), value=float(value))
            for at, value in enumerate(row)
        ]
        for row in values[:LOOPED]
    ]

    def one_by_one() -> None:
        for points in series:
            for spec in SPECS:
                judge(spec, points, history=False)

    def plain_loop() -> None:
        for row in values[:LOOPED]:
            _plain(row)

    seconds, floors = measure(all_charts, 7), measure(floor, 7)
    scale = METRICS / LOOPED
    report(
        "control_charts",
        ratio=median(seconds) / BUDGET,
        budget=1.0,
        better="lower",
        samples=seconds,
        details={
            "metrics": METRICS,
            "points": POINTS,
            "charts": [spec.chart for spec in SPECS],
            "seconds": round(median(seconds), 3),
            "floor_s": round(median(floors), 4),
            "over_floor": round(median(seconds) / median(floors), 1),
            "judge_one_by_one_s": round(median(measure(one_by_one, 3)) * scale, 1),
            "plain_loop_s": round(median(measure(plain_loop, 3)) * scale, 1),
            "looped_series": LOOPED,
            "signals": {spec.chart: int(judge_many(values, spec).failed.sum()) for spec in SPECS},
            "numpy": np.__version__,
        },
    )


def _plain(row: Floats) -> bool:
    """One series as one would write it by hand: no removal, no reasons, only yes or no."""
    base = [float(value) for value in row[:-1]]
    center = sum(base) / len(base)
    sigma = sum(abs(after - before) for before, after in pairwise(base)) / (len(base) - 1) / D2
    z = [(float(value) - center) / sigma for value in row]
    steps = [after - before for before, after in zip(z[-15:], z[-14:], strict=False)]
    nelson = (
        abs(z[-1]) > 3
        or all(one > 0 for one in z[-9:])
        or all(one < 0 for one in z[-9:])
        or all(one > 0 for one in steps[-5:])
        or all(one < 0 for one in steps[-5:])
        or all(one * other < 0 for one, other in zip(steps[-13:], steps[-12:], strict=False))
        or any(sum(sign * one > 2 for one in z[-3:]) >= 2 and sign * z[-1] > 2 for sign in (1, -1))
        or any(sum(sign * one > 1 for one in z[-5:]) >= 4 and sign * z[-1] > 1 for sign in (1, -1))
        or all(abs(one) < 1 for one in z[-15:])
        or all(abs(one) > 1 for one in z[-8:])
    )
    average = high = low = 0.0
    for one in z:
        average += 0.2 * (one - average)
        high, low = max(0.0, high + one - 0.5), max(0.0, low - one - 0.5)
    return bool(nelson or abs(average) > 2.962 / 3 or high > 5 or low > 5)


if __name__ == "__main__":
    main()
