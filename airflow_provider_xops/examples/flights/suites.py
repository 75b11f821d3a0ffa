"""Expectation suites of the flights tables.

Each function returns a Great Expectations suite and imports it only when it is called: naming a suite in a
DAG file costs nothing at parse. Expectations hold for one day and for a whole quarter alike.
"""

from __future__ import annotations

from typing import Any

__all__ = ["flight_features", "flights", "weather"]

ORIGINS = ["EWR", "JFK", "LGA"]


def flights() -> Any:
    """The flights of New York's three airports as the airline reports them."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    required = [
        "carrier",
        "flight",
        "origin",
        "dest",
        "sched_dep_time",
        "sched_arr_time",
        "distance",
        "time_hour",
    ]
    return gx.ExpectationSuite(
        name="flights",
        expectations=[
            gxe.ExpectTableRowCountToBeBetween(min_value=100),
            *[gxe.ExpectColumnValuesToNotBeNull(column=column) for column in required],
            gxe.ExpectColumnValuesToBeInSet(column="origin", value_set=ORIGINS),
            gxe.ExpectColumnValuesToBeBetween(column="hour", min_value=0, max_value=23),
            gxe.ExpectColumnValuesToBeBetween(column="distance", min_value=17, max_value=5000),
            gxe.ExpectColumnValuesToBeBetween(column="month", min_value=1, max_value=12),
            gxe.ExpectColumnValueLengthsToEqual(column="carrier", value=2),
            gxe.ExpectCompoundColumnsToBeUnique(
                column_list=["year", "month", "day", "carrier", "flight", "origin", "dest", "sched_dep_time"],
                severity="warning",
            ),
            gxe.ExpectColumnValuesToNotBeNull(column="arr_delay", mostly=0.5, severity="warning"),
        ],
    )


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
