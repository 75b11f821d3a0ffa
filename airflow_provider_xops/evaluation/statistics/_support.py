"""How much there is to learn a metric from: rows or clusters, and for some metrics those of the rarest class.

For intervals and tests. A million rows with five positives say about recall what five rows say.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from airflow_provider_xops.evaluation.statistics._resampling import MINIMUM_UNITS, Units

__all__ = ["Support"]

# Metrics that look at each class, and those of them that count labels.
OF_LABELS = {"balanced_accuracy", "precision", "recall", "f1", "matthews_corrcoef"}
OF_CLASSES = OF_LABELS | {"roc_auc", "roc_auc_ovr", "average_precision"}
BOUNDED = OF_CLASSES | {"accuracy", "brier"}


class Support:
    """What the rows can say about each metric."""

    def __init__(self, truth: Any, clusters: Any, units: Units) -> None:
        self._truth, self._clusters, self._units = truth, clusters, units

    def of(self, metric: str) -> int:
        """How many rows (or clusters) say something about the metric."""
        return self._rarest if metric in OF_CLASSES else self._units.independent

    def enough(self, metric: str) -> bool:
        """Whether they say how the metric varies."""
        return self._units.enough and self.of(metric) >= MINIMUM_UNITS

    def least_p(self, metric: str, bar: float, *, constant: bool) -> float:
        """What no p-value of non-inferiority can be below, unless superiority's is.

        Two models that differ by the margin in a metric between 0 and 1 disagree on at least that share of
        rows; that none of them is among these has this probability. Labels disagree rarely and wholly, so
        that a bootstrap of a few such rows does not know of those that it never saw.
        """
        if bar >= 0 or metric not in (BOUNDED if constant else OF_LABELS):
            return 0.0
        return float(max(0.0, 1 + bar) ** self.of(metric))

    @cached_property
    def _rarest(self) -> int:
        codes, classes = pd.factorize(np.asarray(self._truth))
        if not len(classes):
            return 0
        if self._clusters is not None:
            both = pd.DataFrame({"code": codes, "cluster": np.asarray(self._clusters)}).drop_duplicates()
            codes = both["code"].to_numpy()
        return int(np.bincount(codes, minlength=len(classes)).min())
