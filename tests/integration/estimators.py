"""Estimators that misbehave, in an importable module as a user's would be."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np


class Raises:
    """Its fit raises, with a value of the data in the message."""

    def fit(self, rows: Any, target: Any) -> None:
        raise ValueError(f"cannot digest '{rows['x'].iloc[0]}'")

    def predict(self, rows: Any) -> Any:
        return np.zeros(len(rows))


class PredictsNothing:
    """Its every prediction is NaN, so no metric can be measured."""

    def fit(self, rows: Any, target: Any) -> None:
        self.rows_ = len(rows)

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), np.nan)


class Killed:
    """Somebody marks its task failed while it is fitted: Airflow sends SIGTERM."""

    def fit(self, rows: Any, target: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    def predict(self, rows: Any) -> Any:
        return np.zeros(len(rows))


class Endless(Killed):
    """Its fit does not end."""

    def fit(self, rows: Any, target: Any) -> None:
        time.sleep(60)
