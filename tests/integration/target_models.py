"""Models for the tests of deployment targets: of scikit-learn alone, so that a model server can load them."""

from __future__ import annotations

from typing import Any


def words(depth: int = 2) -> Any:
    """Text with gaps and numbers with gaps, through a pipeline; a time that is left out."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    prepare = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["carrier"]),
            ("rest", "passthrough", ["x", "n"]),
        ],
        remainder="drop",
    )
    return make_pipeline(prepare, HistGradientBoostingClassifier(max_depth=depth, max_iter=10))
