"""Functions that the tests name as user code."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc


def above(inputs: dict[str, pa.Table], *, minimum: int) -> pa.Table:
    """Rows of ``flights`` with at least that flight number, in reverse order."""
    flights = inputs["flights"]
    return flights.filter(pc.field("flight") >= minimum).take(
        list(range(pc.sum(pc.greater_equal(flights["flight"], minimum)).as_py()))[::-1]
    )


def as_frame(inputs: dict[str, pa.Table]) -> pd.DataFrame:
    """The same as a data frame."""
    return inputs["flights"].to_pandas()


def not_rows(inputs: dict[str, pa.Table]) -> Any:
    """Something that is no table."""
    return {"n": 1}


def broken(inputs: dict[str, pa.Table]) -> Any:
    """Raises, quoting a value."""
    raise ValueError("alice@example.org is unknown")
