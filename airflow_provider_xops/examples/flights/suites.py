"""Expectation suites of the flights tables.

Each function gives a suite when it is called: naming it in a DAG file costs nothing at parse. The suite of
the flights was suggested by their profile and reviewed; the two others were written by hand, in Python.
Expectations hold for one day and for a whole quarter alike.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

__all__ = ["flight_features", "flights", "weather"]

ORIGINS = ["EWR", "JFK", "LGA"]


def flights() -> Any:
    """The flights of New York's three airports as the airline reports them; see `flights.yaml` beside this
    module."""
    import yaml

    return yaml.safe_load(files(__package__).joinpath("flights.yaml").read_text(encoding="utf-8"))


def weather() -> Any:
    """Hourly weather at the three airports."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    return gx.ExpectationSuite(
        name="weather",
        expectations=[
            gxe.ExpectTableRowCountToBeBetween(min_value=24),
            gxe.ExpectColumnValuesToNotBeNull(column="time_hour"),
            gxe.ExpectColumnValuesToBeInSet(column="origin", value_set=ORIGINS),
            gxe.ExpectColumnValuesToBeBetween(column="temp", min_value=-30, max_value=130, mostly=0.99),
            gxe.ExpectColumnValuesToBeBetween(column="humid", min_value=0, max_value=101, mostly=0.99),
        ],
    )


def flight_features() -> Any:
    """The rows models train on: one a flight, nothing in them that is known only after departure."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    from airflow_provider_xops.examples.flights.features import COLUMNS

    return gx.ExpectationSuite(
        name="flight_features",
        expectations=[
            gxe.ExpectTableColumnsToMatchOrderedList(column_list=list(COLUMNS)),
            gxe.ExpectTableRowCountToBeBetween(min_value=100),
            gxe.ExpectColumnValuesToNotBeNull(column="departure_hour"),
            gxe.ExpectColumnValuesToBeBetween(column="departure_hour", min_value=0, max_value=24),
            gxe.ExpectColumnValuesToBeInSet(column="late", value_set=[0, 1]),
            gxe.ExpectColumnValuesToNotBeNull(column="temp", mostly=0.8, severity="warning"),
        ],
    )
