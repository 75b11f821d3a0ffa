"""Every kind of gate by the name that a policy calls it.

For reading policies. A gate of one's own need not be here: a policy in Python may hold any :class:`Gate`.
"""

from __future__ import annotations

from airflow_provider_xops.evaluation.gates.base import Gate
from airflow_provider_xops.evaluation.gates.data import DataFresh, DataValidated, NoPersonalData
from airflow_provider_xops.evaluation.gates.evidence import (
    Approved,
    LatencyBudget,
    Reproducible,
    SizeBudget,
    SmokeTested,
)
from airflow_provider_xops.evaluation.gates.figures import (
    BetterThanChampion,
    MetricThreshold,
    NotWorseThanChampion,
)
from airflow_provider_xops.evaluation.gates.parts import (
    CalibrationError,
    FairnessGap,
    NoWeakSlice,
    NoWorseSlice,
    RobustnessLoss,
)

__all__ = ["GATES"]

GATES: dict[str, type[Gate]] = {
    cls.kind: cls
    for cls in (
        MetricThreshold,
        BetterThanChampion,
        NotWorseThanChampion,
        NoWorseSlice,
        NoWeakSlice,
        FairnessGap,
        CalibrationError,
        RobustnessLoss,
        LatencyBudget,
        SizeBudget,
        DataValidated,
        DataFresh,
        NoPersonalData,
        Reproducible,
        SmokeTested,
        Approved,
    )
}
