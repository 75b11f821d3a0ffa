"""Suites that the tests name as user code."""

from __future__ import annotations

from typing import Any


def small() -> Any:
    """Two checks, one of them a warning."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    return gx.ExpectationSuite(
        name="small",
        expectations=[
            gxe.ExpectColumnValuesToNotBeNull(column="flight"),
            gxe.ExpectColumnValuesToBeBetween(column="flight", min_value=1, severity="warning"),
        ],
    )


def as_list() -> Any:
    """A list instead of a suite."""
    import great_expectations.expectations as gxe

    return [gxe.ExpectColumnValuesToNotBeNull(column="flight")]


def broken() -> Any:
    """Raises."""
    raise RuntimeError("no such thing")


def no_suite() -> Any:
    """Returns something else."""
    return 42


def empty() -> Any:
    """No checks."""
    return []
