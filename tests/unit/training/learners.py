"""Estimators and training functions in an importable module, as a user's would be."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from airflow_provider_xops.training.weights import row_weights


class Counter:
    """Learns in batches and counts what is alive while it does."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.rows: list[float] = []
        self.weights: list[float] = []
        self.alive_before: list[int] = []
        self._frames: list[weakref.ref[Any]] = []

    def partial_fit(self, frame: Any, truth: Any, sample_weight: Any = None) -> Counter:
        self.alive_before.append(sum(each() is not None for each in self._frames))
        self._frames.append(weakref.ref(frame))
        self.sizes.append(len(frame))
        self.rows += frame["x"].tolist()
        self.weights += [] if sample_weight is None else list(sample_weight)
        return self

    def fit(self, frame: Any, truth: Any) -> Counter:
        raise AssertionError("batches were asked for")

    def predict(self, frame: Any) -> Any:
        return np.asarray(frame["x"])


def ridge(features: Any, target: Any, *, strength: float = 1.0) -> Any:
    """A training function that takes nothing but the rows."""
    from sklearn.linear_model import Ridge

    return Ridge(alpha=strength).fit(features, target)


def tree(features: Any, target: Any, sample_weight: Any, seed: int, depth: int = 2) -> Any:
    """A training function that takes all that it is offered."""
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier(max_depth=depth, random_state=seed)
    model.weights_seen_ = sample_weight
    return model.fit(features, target, sample_weight=sample_weight)


def everything(**given: Any) -> Any:
    """A training function that keeps what it was given."""
    model = Kept()
    model.given = {name: value for name, value in given.items() if name not in ("features", "target")}
    return model


class Kept:
    """Predicts zeros."""

    given: dict[str, Any]

    def predict(self, frame: Any) -> Any:
        return np.zeros(len(frame))


def forgets_to_return(features: Any, target: Any) -> None:
    """A training function without its last line."""
    ridge(features, target)


def raises(features: Any, target: Any) -> Any:
    """Its error quotes the data."""
    raise ValueError(f"cannot digest '{features['plane'].iloc[0]}'")


def no_target(features: Any) -> Any:
    """A function that cannot train."""


def calls_a_helper(features: Any, target: Any) -> Any:
    """Uses something of another module."""
    row_weights(target)
    return ridge(features, target)


class Constant:
    """Says 1 of every row, and not whether that is a class or a number."""

    def fit(self, frame: Any, truth: Any) -> Constant:
        self.rows_ = len(frame)
        return self

    def predict(self, frame: Any) -> Any:
        return np.ones(len(frame), dtype=np.int64)
