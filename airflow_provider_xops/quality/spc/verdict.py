"""What a control chart answers: limits, signals, and everything that its drawing needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from airflow_provider_xops.quality.spc.spec import ChartSpec, SpecialCause
from airflow_provider_xops.records import ControlSignal, Outcome

__all__ = ["ChartVerdict", "Excluded", "Series"]

Numbers = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """A point that did not count for limits and runs.

    :param kind: ``gap`` (no value), ``cause`` (special cause), ``step`` (before the process changed),
        ``removed`` (out of control in the baseline: out of the estimate, still on the chart and in runs).
    """

    label: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Series:
    """A statistic of the chart, one number a point (None: not defined there).

    :param name: ``EWMA``, ``C+``, ``C-`` or ``moving range``.
    :param unit: ``value`` (the metric's unit) or ``sigma``.
    """

    name: str
    values: Numbers
    center: float | None
    lower: Numbers
    upper: Numbers
    unit: str = "value"


@dataclass(frozen=True, kw_only=True)
class ChartVerdict:
    """One chart, judged at its newest point.

    :param phase: ``phase_1``: limits from a baseline that is not complete yet (rolling: fewer than its
        points; frozen: not over); ``phase_2``: from a complete one; ``no_limits``: too few points.
    :param outcome: *failed*: the newest point signals. *No data*: no limits, no value, or a special cause;
        such a point neither passed nor failed.
    :param label: the newest point, its ``value`` and ``stratum``.
    :param center: at the newest point, in the metric's unit; ``lower`` and ``upper`` likewise.
    :param sigma: at the newest point; under a transform on the transformed scale.
    :param n_used: points that the limits at the newest point rest on.
    :param signals: of the newest point; ``all_signals`` of every point against today's limits, for drawing.
    :param values: and ``labels``, ``times``, ``strata``, ``centers``, ``lowers``, ``uppers``: one a point,
        oldest first. Under a rolling baseline they are today's limits, also where older points are.
    :param baseline: labels of the points that the limits (of any stratum) rest on.
    :param stable: False: phase I found more points out of control than it may remove.
    """

    spec: ChartSpec
    phase: str
    outcome: Outcome
    label: str | None = None
    value: float | None = None
    stratum: str | None = None
    center: float | None = None
    sigma: float | None = None
    lower: float | None = None
    upper: float | None = None
    n_used: int = 0
    signals: tuple[ControlSignal, ...] = ()
    all_signals: tuple[ControlSignal, ...] = ()
    labels: tuple[str, ...] = ()
    times: tuple[datetime, ...] = ()
    values: Numbers = ()
    strata: tuple[str | None, ...] = ()
    centers: Numbers = ()
    lowers: Numbers = ()
    uppers: Numbers = ()
    statistics: tuple[Series, ...] = ()
    baseline: tuple[str, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    causes: tuple[SpecialCause, ...] = ()
    stable: bool = True
    notes: tuple[str, ...] = ()
