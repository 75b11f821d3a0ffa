"""The models of the benchmark ``serving``, in a module that training can import."""

from __future__ import annotations

from typing import Any

__all__ = ["boosting", "linear"]


def linear() -> Any:
    """A small linear pipeline."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


def boosting() -> Any:
    """Gradient boosting as scikit-learn has it by default: up to 100 trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0)
