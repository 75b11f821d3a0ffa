"""The two candidate models of the reference DAGs: a linear baseline and gradient boosting.

Factories, named by import path in the DAG (``airflow_provider_xops.examples.flights.models:baseline``). Both
take the raw feature frame (strings and numbers, with gaps) and end in ``predict_proba``.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_xops.examples.flights.features import FEATURES

__all__ = ["baseline", "gradient_boosting"]

CATEGORICAL = ["carrier", "origin", "dest"]
NUMERIC = [name for name in FEATURES if name not in CATEGORICAL]


def baseline(*, C: float = 1.0, seed: int = 0) -> Any:
    """Logistic regression on one-hot carriers and airports and scaled numbers."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    prepare = ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore"), CATEGORICAL),
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMERIC),
        ]
    )
    return make_pipeline(prepare, LogisticRegression(C=C, max_iter=300, random_state=seed))


def gradient_boosting(*, max_iter: int = 150, learning_rate: float = 0.08, seed: int = 0) -> Any:
    """Histogram gradient boosting; gaps in the weather stay gaps."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    prepare = ColumnTransformer([("categories", encode, CATEGORICAL), ("numbers", "passthrough", NUMERIC)])
    return make_pipeline(
        prepare,
        HistGradientBoostingClassifier(max_iter=max_iter, learning_rate=learning_rate, random_state=seed),
    )
