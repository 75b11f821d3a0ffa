"""Models for the smoke tests, in an importable module as a user's would be."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np


def pipeline() -> Any:
    """Text with gaps, numbers with gaps and a time, through a pipeline."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

    prepare = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["carrier"]),
            ("time", FunctionTransformer(hour), ["at"]),
            ("rest", "passthrough", ["x", "n"]),
        ]
    )
    return make_pipeline(prepare, HistGradientBoostingClassifier(max_depth=2, max_iter=10))


def hour(rows: Any) -> Any:
    return rows.apply(lambda column: column.dt.hour.astype("float64"))


class Marks:
    """A regressor that leaves a file where it is unpickled: proof that somebody executed it."""

    def __init__(self, mark: str = "") -> None:
        self.mark = mark

    def fit(self, rows: Any, target: Any) -> Marks:
        self.mean_ = float(np.mean(target))
        return self

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), self.mean_)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.mark:
            Path(self.mark).touch()


class Fickle(Marks):
    """It says the recorded thing only in the process that trained it."""

    def fit(self, rows: Any, target: Any) -> Fickle:
        super().fit(rows, target)
        self.pid_ = os.getpid()
        return self

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), self.mean_ + (os.getpid() != self.pid_))


class Dies(Marks):
    """Its process ends at the first question in another process than the one that trained it."""

    def fit(self, rows: Any, target: Any) -> Dies:
        super().fit(rows, target)
        self.pid_ = os.getpid()
        return self

    def predict(self, rows: Any) -> Any:
        if os.getpid() != self.pid_:
            os._exit(7)
        return np.full(len(rows), self.mean_)


class Hangs(Dies):
    """It leaves a mark and never answers in another process; a child of its own never ends either."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def predict(self, rows: Any) -> Any:
        if os.getpid() != self.pid_:
            import subprocess

            subprocess.Popen(["sleep", "1000"])
            Path(self.mark).touch()
            time.sleep(1000)
        return np.full(len(rows), self.mean_)


class Unsteady(Marks):
    """Trained twice on the same rows it is never the same."""

    def fit(self, rows: Any, target: Any) -> Unsteady:
        self.mean_ = int.from_bytes(os.urandom(6), "little") / 2**48
        return self
