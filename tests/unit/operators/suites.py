"""Expectation suites of the operator tests, in an importable module as a user's would be."""

from __future__ import annotations

from typing import Any


def positive() -> Any:
    """Every ``n`` is above zero."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    return gx.ExpectationSuite(
        name="positive", expectations=[gxe.ExpectColumnValuesToBeBetween(column="n", min_value=1)]
    )


def missing_column() -> Any:
    """Asks for a column that is not there: it cannot run."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    return gx.ExpectationSuite(
        name="missing_column", expectations=[gxe.ExpectColumnValuesToNotBeNull(column="nowhere")]
    )
