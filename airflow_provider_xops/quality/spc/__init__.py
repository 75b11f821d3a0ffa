"""Statistical process control: is the newest point of a series ordinary, or is there something to look for?

Pure numbers: points in, a verdict out. Nothing here knows of a lake, a clock or Airflow.

>>> from datetime import UTC, datetime, timedelta
>>> first = datetime(2026, 1, 1, tzinfo=UTC)
>>> values = [10.0, 10.4, 9.7, 10.1, 9.9, 10.3, 9.8] * 4 + [14.0]
>>> points = [
...     Point(label=str(day), time=first + timedelta(days=day), value=value)
...     for day, value in enumerate(values)
... ]
>>> verdict = judge(ChartSpec(metric="null_rate", rules="western_electric"), points)
>>> str(verdict.outcome), verdict.phase, [signal.rule for signal in verdict.signals]
('failed', 'phase_1', ['western_electric_1'])
"""

from __future__ import annotations

from airflow_provider_xops.quality.spc.judge import judge
from airflow_provider_xops.quality.spc.many import ManyVerdicts, judge_many
from airflow_provider_xops.quality.spc.spec import (
    CHARTS,
    NELSON,
    RULES,
    STRATA,
    TRANSFORMS,
    WESTERN_ELECTRIC,
    Baseline,
    ChartSpec,
    Point,
    SpecialCause,
)
from airflow_provider_xops.quality.spc.svg import svg
from airflow_provider_xops.quality.spc.verdict import ChartVerdict, Excluded, Series

__all__ = [
    "CHARTS",
    "NELSON",
    "RULES",
    "STRATA",
    "TRANSFORMS",
    "WESTERN_ELECTRIC",
    "Baseline",
    "ChartSpec",
    "ChartVerdict",
    "Excluded",
    "ManyVerdicts",
    "Point",
    "Series",
    "SpecialCause",
    "judge",
    "judge_many",
    "svg",
]
