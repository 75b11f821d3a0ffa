"""A profile of a frame: what its columns and the table hold, as one plain document.

For :func:`~airflow_provider_xops.quality.profiling.profile.profile`, which records it, and for notebooks::

    document = profile_frame(frame_of("flights.parquet"))
    document["columns"][0]["quantiles"]["50"]

DuckDB scans the frame out of core: once for all counts and moments, once for histograms, once for a random
sample, once for correlations, and each column once more for its distinct values and quantiles. Every scan
reads the columns it needs and no more. :mod:`~airflow_provider_xops.quality.profiling.figures` says what is
exact.

Values of rows: figures of numbers (minimum, quantiles) and the range of times are part of every profile.
Texts are not: with ``values="none"`` there is no text of any row, and shapes that fewer than
:data:`FEWEST` of the rows looked at have are only counted; with ``"masked"`` the most frequent values show
their shape; with ``"full"`` they are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.profiling._columns import Column, Kind, Session, session
from airflow_provider_xops.quality.profiling.figures import Limits, column_figures
from airflow_provider_xops.quality.profiling.relations import (
    correlations,
    duplicate_rows,
    keys,
    time_coverage,
)
from airflow_provider_xops.quality.profiling.shapes import EMPTY, shapes_of
from airflow_provider_xops.quality.samples import SamplePolicy, sample_policy, shown

if TYPE_CHECKING:
    import pandas as pd

    from airflow_provider_xops.quality.engine import Frame

__all__ = ["FORMAT", "Limits", "profile_frame"]

# Raised when the same data would give another document: part of what makes a recorded profile the same.
FORMAT = 1
FEWEST = 5
MEMORY_LIMIT = "1GB"
SEED = 1931


def profile_frame(
    frame: Frame,
    *,
    values: str = "none",
    time_column: str | None = None,
    limits: Limits | None = None,
    folder: Path | None = None,
    memory_limit: str = MEMORY_LIMIT,
) -> dict[str, Any]:
    """Everything there is to say about a frame's columns and the table, as JSON types.

    :param values: ``none``, ``masked`` or ``full``: whether texts of rows are in it (see the module).
    :param time_column: the column whose coverage is looked at; None: one is chosen.
    :param folder: where DuckDB may spill to; None: nowhere, and a frame too large for its memory is an error.
    :raises ArgumentError: ``argument.samples``; ``argument.column``: the time column is not one of times.
    """
    policy = sample_policy(values)
    limits = limits or Limits()
    rows = frame.rows
    with session(frame, folder=folder, memory_limit=memory_limit) as found:
        if time_column is not None and not any(
            column.name == time_column and column.is_time for column in found.columns
        ):
            raise ArgumentError(
                f"there is no column of times {time_column!r}",
                code="argument.column",
                todo=f"name one of {[column.name for column in found.columns if column.is_time]}",
            )
        figures = column_figures(found, rows=rows, limits=limits)
        sample = _sample(found, figures, limits.sample)
        identified = keys(found, figures, sample, rows=rows)
        table = {
            "keys": identified,
            "duplicate_rows": duplicate_rows(found, identified, rows=rows),
            "constant_columns": [one["name"] for one in figures if _is_constant(one)],
            "empty_columns": [one["name"] for one in figures if rows and one["nulls"] == rows],
            "skipped_columns": [name for name, _ in found.skipped],
            "correlations": correlations(found, figures, sample, rows=rows),
            "time_coverage": time_coverage(found, figures, time_column),
        }
        for column, one in zip(found.columns, figures, strict=True):
            if column.kind is Kind.TEXT:
                one["shapes"] = _shapes(found, column, one, sample, size=limits.sample, policy=policy)
            _show_values(found, column, one, policy)
    return {"format": FORMAT, "rows": rows, "values": policy.value, "columns": figures, "table": table}


def _sample(found: Session, figures: Sequence[dict[str, Any]], size: int) -> pd.DataFrame:
    """A random sample of the columns that need one, named as in the view."""
    wanted = [column.c for column in found.columns if column.is_scalar and column.kind is not Kind.BINARY]
    if not wanted:
        import pandas as pd

        return pd.DataFrame()
    query = (
        f"SELECT {', '.join(wanted)} FROM {{rows}} USING SAMPLE reservoir({size} ROWS) REPEATABLE ({SEED})"
    )
    sample: pd.DataFrame = found.connection.sql(found.sql(query)).df()
    return sample


def _is_constant(one: dict[str, Any]) -> bool:
    return bool(one["nulls"] == 0 and one.get("distinct", {}).get("value") == 1 and one["count"])


def _shapes(
    found: Session,
    column: Column,
    one: dict[str, Any],
    sample: pd.DataFrame,
    *,
    size: int,
    policy: SamplePolicy,
) -> dict[str, Any]:
    """The shapes of a column of texts: of all of them where there are not too many different ones, else of
    the sample."""
    exact = one["distinct"]["exact"] and one["distinct"]["value"] <= size
    if exact:
        counted = found.rows(
            f"SELECT {column.c}, count(*) FROM {{rows}} WHERE {column.c} IS NOT NULL GROUP BY 1"
        )
    else:
        counted = list(sample[column.c].dropna().value_counts().items())
    looked_at = int(sum(n for _, n in counted))
    least = FEWEST if policy is SamplePolicy.NONE else 1
    shapes = [shape for shape in shapes_of(counted) if shape.count >= least or shape.shape == EMPTY]
    return {
        "looked_at": looked_at,
        "exact": exact,
        "shapes": [
            {
                "shape": shape.shape,
                "form": shape.form,
                "count": int(shape.count),
                "share": shape.count / looked_at,
                "regex": shape.regex,
            }
            for shape in shapes
        ],
        "others": looked_at - int(sum(shape.count for shape in shapes)),
    }


def _show_values(found: Session, column: Column, one: dict[str, Any], policy: SamplePolicy) -> None:
    """What the policy lets be seen of values."""
    frequent = one.pop("_top", [])
    if policy is SamplePolicy.NONE or column.kind is Kind.BINARY:
        return
    full = policy is SamplePolicy.FULL
    if frequent:
        texts = shown([value for value, _ in frequent], policy)
        one["top_values"] = [
            {"value": value if full else text, "count": n}
            for (value, n), text in zip(frequent, texts, strict=True)
        ]
    if column.kind is Kind.TEXT and one["count"]:
        ends = found.row([f"min({column.c})", f"max({column.c})"])
        one["min_text"], one["max_text"] = shown(ends, policy)
