"""Versions of a model for the tests of releases: each sees more of what decides, so each is better."""

from __future__ import annotations

import time
from typing import Any

from sklearn.linear_model import LogisticRegression

COLUMNS = ("x", "y", "z")
# No row of training and holdout comes near it: only callers send such rows.
UNSEEN = 1000.0
SECONDS = 0.4


class Hesitant(LogisticRegression):
    """It thinks long about rows unlike those that it was trained, judged and smoke-tested on."""

    def predict_proba(self, rows: Any) -> Any:
        if (rows > UNSEEN).any():
            time.sleep(SECONDS)
        return super().predict_proba(rows)


def seeing(*, columns: int = 3, hesitant: bool = False) -> Any:
    """A classifier that takes all columns and looks at the first ones.

    :param columns: at how many. :param hesitant: whether it is slow at rows that only callers send.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline

    seen = ColumnTransformer([("seen", "passthrough", list(COLUMNS[:columns]))], remainder="drop")
    return make_pipeline(seen, Hesitant() if hesitant else LogisticRegression())


def suite() -> Any:
    """What the rows were validated by."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    return gx.ExpectationSuite(
        name="release", expectations=[gxe.ExpectColumnValuesToNotBeNull(column=name) for name in COLUMNS]
    )
