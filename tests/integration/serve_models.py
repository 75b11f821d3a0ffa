"""Models for the tests of the scoring server, in an importable module as a user's would be."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

SLOW_ABOVE = 1000.0
SECONDS = 1.5


class Slow:
    """A regressor that says its mean; a row whose first column is beyond 1000 takes a second and a half."""

    def fit(self, rows: Any, target: Any) -> Slow:
        self.mean_ = float(np.mean(target))
        return self

    def predict(self, rows: Any) -> Any:
        if (rows.iloc[:, 0] > SLOW_ABOVE).any():
            time.sleep(SECONDS)
        return np.full(len(rows), self.mean_)


def linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())
