"""Truth and predictions for the tests of statistics, drawn with a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from airflow_provider_xops.training.metrics import Predictions

BINARY = np.array([0, 1])


def binary(truth: Any, scores: Any, *, threshold: float = 0.5) -> Predictions:
    """What a binary model with these probabilities of class 1 says."""
    scores = np.asarray(scores, dtype=np.float64)
    return Predictions(
        labels=(scores > threshold).astype(int), classes=BINARY,
        probabilities=np.column_stack([1 - scores, scores]),
    )  # fmt: skip


def logistic(margin: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(margin)))


def binary_pair(
    rng: np.random.Generator, rows: int, *, signal: float = 1.2, ahead: float = 0.0, common: float = 0.5,
    rate: float = 0.5, digits: int | None = None, positives: int | None = None,
) -> tuple[Any, Predictions, Predictions]:  # fmt: skip
    """Truth and two models whose errors are correlated; ``ahead`` is the first one's stronger signal.

    The score of a row is normal with variance 1 in each class, ``signal`` apart (and ``ahead`` more).
    ``positives`` is their number instead of a chance.
    """
    truth = (rng.random(rows) < rate if positives is None else np.arange(rows) < positives).astype(int)
    shared = rng.normal(size=rows) * np.sqrt(common)

    def model(apart: float) -> Predictions:
        own = rng.normal(size=rows) * np.sqrt(1 - common)
        scores = logistic(apart * (truth - 0.5) + shared + own)
        return binary(truth, scores if digits is None else np.round(scores, digits))

    first = model(signal + ahead)
    return truth, first, model(signal)


def several(rng: np.random.Generator, rows: int, classes: Any = ("a", "b", "c")) -> tuple[Any, Predictions]:
    """Truth and a model of several classes, labels as text."""
    names = np.array(sorted(classes), dtype=object)
    truth_codes = rng.integers(0, len(names), rows)
    logits = rng.normal(size=(rows, len(names)))
    logits[np.arange(rows), truth_codes] += 1.0
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    said = Predictions(labels=names[probabilities.argmax(axis=1)], classes=names, probabilities=probabilities)
    return names[truth_codes], said


def regression(rng: np.random.Generator, rows: int, spread: float = 1.0) -> tuple[Any, Predictions]:
    truth = rng.normal(10.0, 3.0, rows)
    return truth, Predictions(labels=truth + rng.normal(0.2, spread, rows))


def some(said: Predictions, rows: Any) -> Predictions:
    probabilities = None if said.probabilities is None else said.probabilities[rows]
    return Predictions(labels=said.labels[rows], classes=said.classes, probabilities=probabilities)
