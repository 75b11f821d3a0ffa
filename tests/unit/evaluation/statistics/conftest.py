"""Figures for tests that draw thousands of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from airflow_provider_xops.evaluation.statistics import comparing, confidence
from airflow_provider_xops.evaluation.statistics._kernels import Kernels
from airflow_provider_xops.training.metrics import Predictions, Task


@pytest.fixture
def figures_by_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures on all rows come from the kernels, which test_kernels holds equal to scikit-learn's: nine
    tenths of a comparison of 200 rows are scikit-learn's checks of its arguments."""

    def compute(task: Task, truth: Any, said: Predictions, wanted: Sequence[str]) -> dict[str, float | None]:
        kernels = Kernels(truth, said)
        return {name: kernels.of(name).on_all() for name in wanted}

    for module in (comparing, confidence):
        monkeypatch.setattr(module, "compute", compute)
