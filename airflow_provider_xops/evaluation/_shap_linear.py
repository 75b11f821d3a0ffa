"""SHAP values of models whose answer is a function of a sum that every feature adds to.

Private to :mod:`airflow_provider_xops.evaluation._shap_models`. Of a linear regression the values are what a
feature adds beyond what it adds on average. Of a logistic regression and the like, whose probability is not
linear, they are the Shapley values that asking the model gives, by the same combinations or orders of
features; but no model is asked, because every answer follows from what the features add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from airflow_provider_xops.evaluation._shap_asking import PERMUTATIONS, shapley

__all__ = ["Additive", "additive"]

# Numbers of one intermediate matrix; a few such are in memory at once.
CELLS = 2_000_000
# What comes of single sums is what the model says, up to rounding; another function would be far off.
SAME_WITHIN = 1e-6


class Additive:
    """A model that says ``link(intercept + the features' parts)``.

    :param weights: columns x outputs. :param link: of sums whose last axis are the outputs; None: none.
    :param owners: of each column the place of the feature it was made of. :param features: how many there
        are. :param known: the background, as the model's last step sees it.
    :param exact: every combination of features, else sampled orders from ``seed``; without a link neither.
    """

    def __init__(
        self, weights: Any, intercept: Any, link: Callable[[Any], Any] | None, owners: Sequence[int],
        features: int, known: Any, *, exact: bool, seed: int,
    ) -> None:  # fmt: skip
        self._weights, self._intercept, self._link = weights, intercept, link
        self._exact, self._seed = exact, seed
        self._columns = [np.flatnonzero(np.asarray(owners) == place) for place in range(features)]
        self._known = self._parts(known)
        asked = 2**features if exact else 2 * PERMUTATIONS * (features + 1)
        width = 1 if link is None else asked * len(known)
        self._at_once = max(1, CELLS // max(width, features * len(known)) // weights.shape[1])

    @property
    def method(self) -> str:
        """How the values are made, for :attr:`airflow_provider_xops.serving.reasons.Reasoner.method`."""
        if self._link is None:
            return "shap (linear)"
        return f"shap ({'exact' if self._exact else 'permutation'}, linear)"

    def explain(self, columns: Any) -> tuple[Any, Any]:
        """Values (rows x features x outputs) and bases (outputs), for rows as the last step sees them."""
        known, parts = self._known.sum(axis=1) + self._intercept, self._parts(columns)
        if self._link is None:
            return parts - self._known.mean(axis=0), known.mean(axis=0)
        base = self._link(known).mean(axis=0)
        some = [parts[start : start + self._at_once] for start in range(0, len(parts), self._at_once)]
        return np.concatenate([self._linked(each) for each in some] or [parts]), base

    def _parts(self, columns: Any) -> Any:
        """What each feature adds: rows x features x outputs."""
        return np.stack([columns[:, own] @ self._weights[own] for own in self._columns], axis=1)

    def _linked(self, parts: Any) -> Any:
        rows, count, outputs = parts.shape
        known, link = self._known, self._link
        assert link is not None
        start = known.sum(axis=1) + self._intercept
        steps = np.moveaxis(parts[:, None] - known[None], 2, 0).reshape(count, -1)

        def worth(masks: Any) -> Any:
            sums = (masks.astype(np.float64) @ steps).reshape(len(masks), rows, len(known), outputs)
            sums += start
            return link(sums).mean(axis=2).reshape(len(masks), -1)

        found = shapley(worth, count, exact=self._exact, seed=self._seed)
        return np.moveaxis(found.reshape(count, rows, outputs), 0, 1)


def additive(
    last: Any, owners: Sequence[int], features: int, known: Any, said: Any, *, exact: bool, seed: int
) -> Additive | None:
    """A fitted estimator with ``coef_`` and ``intercept_`` as such a model, if that is what it is.

    :param said: what it says of ``known``, rows x outputs.
    """
    weights, intercept = getattr(last, "coef_", None), getattr(last, "intercept_", None)
    if weights is None or intercept is None:
        return None
    weights = np.atleast_2d(np.asarray(weights, dtype=np.float64)).T
    intercept = np.atleast_1d(np.asarray(intercept, dtype=np.float64))
    if weights.shape != (known.shape[1], said.shape[1]):
        return None
    sums = known @ weights + intercept
    for link in (None, _power, _probability) if said.shape[1] == 1 else (_softmax, _shares):
        told = sums if link is None else link(sums)
        if np.allclose(told, said, rtol=SAME_WITHIN, atol=SAME_WITHIN):
            return Additive(weights, intercept, link, owners, features, known, exact=exact, seed=seed)
    return None


def _power(sums: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.exp(sums)


def _probability(sums: Any) -> Any:
    found = _power(-sums)
    found += 1
    return np.reciprocal(found, out=found)


def _softmax(sums: Any) -> Any:
    found = np.exp(sums - sums.max(axis=-1, keepdims=True))
    return found / found.sum(axis=-1, keepdims=True)


def _shares(sums: Any) -> Any:
    """One class against all others, brought to a sum of 1."""
    found = _probability(sums)
    return found / found.sum(axis=-1, keepdims=True)
