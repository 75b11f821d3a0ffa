"""What evaluation holds in memory while it measures: the rows, the truth, and what both models said.

For the rooms of evaluation among themselves: statistics, slices, fairness, robustness, explanation, report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.training.metrics import Predictions, Task

__all__ = ["Contender", "Scored"]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One model in an evaluation: its record, its fitted estimator, and what it said about the rows."""

    model: ModelVersion
    estimator: Any
    said: Predictions


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The holdout rows with the answers of both models, in the same order.

    :param table: features of both, the target, and the columns that slices, fairness and clusters name.
    :param truth: the target of each row, as :func:`~airflow_provider_xops.training.frames.target_values`.
    :param clusters: a whole number for each row that says which rows belong together; None: all independent.
    """

    task: Task
    table: pa.Table
    truth: Any
    challenger: Contender
    champion: Contender | None = None
    clusters: Any = None

    @property
    def rows(self) -> int:
        """How many rows were judged."""
        return len(self.truth)
