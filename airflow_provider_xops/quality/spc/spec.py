"""What a control chart is asked: the points, the chart, its baseline, and what people know of special causes.

Values only; :mod:`airflow_provider_xops.quality.spc.judge` computes. Everything is checked when it is made,
so that a chart which cannot work is refused when the plan is read and not at night.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_provider_xops.errors import ArgumentError

__all__ = [
    "CHARTS",
    "NELSON",
    "RULES",
    "STRATA",
    "TRANSFORMS",
    "WESTERN_ELECTRIC",
    "Baseline",
    "ChartSpec",
    "Point",
    "SpecialCause",
]

CHARTS = ("individuals", "p", "ewma", "cusum")
STRATA = ("weekday", "hour", "weekday_hour")
TRANSFORMS = ("log", "logit")
NELSON = tuple(f"nelson_{number}" for number in range(1, 9))
"""Nelson (1984), Journal of Quality Technology 16(4), 237-239."""
WESTERN_ELECTRIC = tuple(f"western_electric_{number}" for number in range(1, 5))
"""Western Electric Company (1956), Statistical Quality Control Handbook, 25-28."""
RULES = (*NELSON, *WESTERN_ELECTRIC, "moving_range")

_FEWEST_POINTS = 5


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a series.

    :param label: what people call it, unique in its series: the partition, ``2026-01-15`` for example.
    :param time: the time it stands for, with a time zone.
    :param value: the metric; None or not a number: a gap.
    :param size: rows that a proportion is of (p charts need it).
    :param floating: ``time`` is a date or hour of a calendar, written as if it were UTC: its weekday and hour
        are taken as they stand, whatever the chart's zone. For partitions called after local dates.
    """

    label: str
    time: datetime
    value: float | None
    size: float | None = None
    floating: bool = False

    def __post_init__(self) -> None:
        _aware(self.time, f"point {self.label}")


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Which points the limits are estimated from.

    The newest point never belongs to the baseline it is judged against.

    :param kind: ``rolling``: the last ``points`` usable points before the newest one (of its stratum);
        ``frozen``: the points from ``start`` to ``end``, both included, for as long as the plan stands.
    :param gap: rolling only: this many points right before the newest stay out of the baseline, so that a
        shift does not pull its own limits along before the run rules see it.
    """

    kind: str = "rolling"
    points: int = 30
    gap: int = 0
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("rolling", "frozen"):
            raise _refused(f"baseline kind is {self.kind!r}", "use 'rolling' or 'frozen'")
        if self.kind == "rolling":
            if self.start is not None or self.end is not None:
                raise _refused("a rolling baseline has a start or an end", "give `points`, or kind='frozen'")
            if self.points < _FEWEST_POINTS or self.gap < 0:
                raise _refused(
                    f"a rolling baseline of {self.points} points, gap {self.gap}",
                    f"use at least {_FEWEST_POINTS} points and a gap of 0 or more",
                )
        elif self.start is None or self.end is None or self.gap:
            raise _refused("a frozen baseline needs a start and an end, and no gap", "give both times")
        else:
            _aware(self.start, "baseline start")
            _aware(self.end, "baseline end")
            if self.start >= self.end:
                raise _refused("the frozen baseline ends before it starts", "swap start and end")


@dataclass(frozen=True, kw_only=True)
class SpecialCause:
    """A stretch of time with a known reason: what people know and the numbers do not.

    :param start: first moment; ``end`` last moment, included; None: it lasts.
    :param metrics: these metrics only; None: all.
    :param action: ``exclude``: the points are drawn, named, left out of limits and runs, and do not signal;
        ``step``: from ``start`` on the process is another one, and nothing before it counts any more.
    """

    start: datetime
    end: datetime | None = None
    reason: str
    metrics: tuple[str, ...] | None = None
    action: str = "exclude"

    def __post_init__(self) -> None:
        _aware(self.start, "special cause start")
        if self.end is not None:
            _aware(self.end, "special cause end")
            if self.end < self.start:
                raise _refused("a special cause ends before it starts", "swap start and end")
        if self.action not in ("exclude", "step"):
            raise _refused(f"special cause action is {self.action!r}", "use 'exclude' or 'step'")
        if not self.reason.strip():
            raise _refused("a special cause has no reason", "say what happened: it is drawn on the chart")

    def concerns(self, metric: str) -> bool:
        """Whether it says anything about ``metric``."""
        return self.metrics is None or metric in self.metrics


@dataclass(frozen=True, kw_only=True)
class ChartSpec:
    """One control chart of one metric.

    :param chart: ``individuals`` (with moving range), ``p``, ``ewma`` or ``cusum``.
    :param rules: of Shewhart charts (individuals, p): names of :data:`RULES`, or ``nelson`` or
        ``western_electric`` for the whole set. EWMA and CUSUM have their own single rule.
    :param strata: a point is judged against the points of its own weekday, hour or both, in ``timezone``
        (floating points: of their own calendar).
    :param sides: ``both``, ``upper`` (only too high signals) or ``lower``.
    :param min_points: fewer usable baseline points than this: no limits, so *no data*. Montgomery (7th ed.,
        6.2) asks for 20 to 25.
    :param width: distance of the limits of Shewhart charts from the center, in sigma.
    :param lambda_: weight of the newest point in the EWMA; ``ewma_limit`` its L. 0.2 and 2.962 have an
        in-control average run length of about 500 (Lucas and Saccucci, 1990).
    :param k: reference value and ``h`` decision interval of the CUSUM, in sigma: 0.5 and 5 have an in-control
        average run length of 465 (Montgomery, table 9.3).
    :param reset: whether the CUSUM starts again at zero after a signal (somebody acted on it); False: it
        signals for as long as it is beyond ``h``.
    :param laney: of p charts: widen (or narrow) the binomial limits by the variation between points, Laney's
        p' chart. At 100,000 rows the plain binomial limits are so narrow that every ordinary day is outside.
    :param transform: ``log`` for sizes and counts that are skewed, ``logit`` for proportions; limits come
        back in the metric's own unit. A zero under ``log`` lies below every limit and signals.
    :param moving_range: ``average``, or ``median``, which a few wild points do not move.
    :param target: known center, instead of the estimated one; ``sigma`` likewise. With both there is no phase
        I.
    :param max_removed: share of the baseline that phase I may remove as out of control; beyond it nothing is
        removed and the process is called unstable. ``max_rounds`` limits how often it looks again.
    """

    metric: str
    chart: str = "individuals"
    rules: tuple[str, ...] | str | None = None
    baseline: Baseline = Baseline()
    strata: str | None = None
    timezone: str = "UTC"
    sides: str = "both"
    min_points: int = 20
    width: float = 3.0
    lambda_: float = 0.2
    ewma_limit: float = 2.962
    k: float = 0.5
    h: float = 5.0
    reset: bool = False
    laney: bool = True
    transform: str | None = None
    moving_range: str = "average"
    target: float | None = None
    sigma: float | None = None
    max_removed: float = 0.2
    max_rounds: int = 5

    def __post_init__(self) -> None:
        _one_of(self.chart, CHARTS, "chart")
        _one_of(self.sides, ("both", "upper", "lower"), "sides")
        _one_of(self.moving_range, ("average", "median"), "moving_range")
        if self.strata is not None:
            _one_of(self.strata, STRATA, "strata")
        if self.transform is not None:
            _one_of(self.transform, TRANSFORMS, "transform")
        if self.chart in ("ewma", "cusum") and self.rules:
            raise _refused(f"rules on a chart of kind {self.chart}", "leave `rules` out: it has its own rule")
        for rule in self.rule_names:
            _one_of(rule, (*RULES, "ewma", "cusum"), "rules")
        if self.chart == "p":
            if self.transform or self.sigma is not None or "moving_range" in self.rule_names:
                raise _refused(
                    "a p chart with transform, sigma or the moving_range rule", "use chart='individuals'"
                )
            if self.target is not None and not 0.0 <= self.target <= 1.0:
                raise _refused("the target of a p chart is no proportion", "use a number from 0 to 1")
        self._check_numbers()
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise _refused(f"unknown timezone {self.timezone!r}", "use a name like Europe/Berlin") from None

    @property
    def rule_names(self) -> tuple[str, ...]:
        """The rules that apply, each by its name.

        >>> ChartSpec(metric="row_count", rules="western_electric").rule_names[0]
        'western_electric_1'
        """
        if self.chart in ("ewma", "cusum"):
            return (self.chart,)
        if self.rules is None:
            return ("nelson_1",)
        if isinstance(self.rules, str):
            sets = {"nelson": NELSON, "western_electric": WESTERN_ELECTRIC}
            return sets.get(self.rules, (self.rules,))
        return tuple(self.rules)

    def _check_numbers(self) -> None:
        if self.min_points < _FEWEST_POINTS:
            raise _refused(f"min_points is {self.min_points}", f"use at least {_FEWEST_POINTS}")
        if self.baseline.kind == "rolling" and self.baseline.points < self.min_points:
            raise _refused(
                f"the rolling baseline has {self.baseline.points} points, min_points is {self.min_points}",
                "there would never be limits: raise the one or lower the other",
            )
        if not 0.0 < self.lambda_ <= 1.0:
            raise _refused(f"lambda_ is {self.lambda_}", "use a number above 0 and at most 1")
        if min(self.width, self.ewma_limit, self.h) <= 0 or self.k < 0:
            raise _refused("width, ewma_limit and h are above 0, k is 0 or more", "correct the number")
        if self.sigma is not None and not self.sigma > 0:
            raise _refused(f"sigma is {self.sigma}", "use a number above 0, or leave it out")
        if not 0.0 <= self.max_removed < 0.5 or self.max_rounds < 0:
            raise _refused("max_removed is from 0 to below 0.5, max_rounds 0 or more", "correct the number")


def _one_of(value: str, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise _refused(f"{name} is {value!r}", f"use one of {', '.join(allowed)}")


def _aware(time: datetime, what: str) -> None:
    if time.tzinfo is None:
        raise _refused(f"the time of {what} has no time zone", "give it one, UTC for example")


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.control_chart", todo=todo)
