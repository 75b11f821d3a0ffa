"""What a validation engine is: checks and a frame in, one result a check out.

For the engines, and for whoever writes another one. There are two, and both give Great Expectations' own
result: on DuckDB (:mod:`~airflow_provider_xops.quality.duckdb_engine`), which reads what a check asks for
and no more, and on pandas (:mod:`~airflow_provider_xops.quality.pandas_engine`), which is the reference.
Validation knows only this interface; frames are in :mod:`~airflow_provider_xops.quality.frames`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import CheckSummary, Outcome

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pandas as pd
    import pyarrow as pa

__all__ = [
    "ENGINES",
    "CheckResult",
    "Engine",
    "EngineRun",
    "Frame",
    "get_engine",
    "is_row_level",
    "looks_at_shape",
]

ENGINES = ("duckdb", "pandas")

# They ask how the table is made, not what is in its rows: they have something to look at when there are none.
_SHAPE_CHECKS = ("expect_table_", "expect_column_to_exist")


class Frame(Protocol):
    """The rows to look at, in scan order: the position of a row, counted from 0, is its identity."""

    @property
    def schema(self) -> pa.Schema:
        """The user's columns."""
        ...

    @property
    def rows(self) -> int: ...

    def pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows in memory, of these columns (None: all)."""
        ...

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows in scan order, a batch at a time."""
        ...

    def relation(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        """All columns in scan order, for DuckDB to read as it needs them. It lives as long as the frame."""
        ...


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """How one check ended: figures only. Values of rows are in ``examples`` alone, and only when asked for.

    :param observed: an aggregate (a mean, a count, a maximum); None where the check has none or it is not a
        number.
    :param element_count: values looked at, nulls included.
    :param message: why it errored, or what there was nothing of; never a value.
    :param examples: unexpected values as found. They are values of rows: for samples under a privacy policy
        only, never for summaries, logs or XCom.
    """

    check: Check
    outcome: Outcome
    observed: float | int | None = None
    unexpected_count: int | None = None
    unexpected_percent: float | None = None
    element_count: int | None = None
    missing_count: int | None = None
    message: str = ""
    examples: tuple[Any, ...] = ()

    def summary(self) -> CheckSummary:
        """The part that goes into the record."""
        return CheckSummary(
            check=self.check.type,
            column=self.check.column,
            outcome=self.outcome,
            severity=self.check.severity,
            observed=self.observed,
            unexpected_count=self.unexpected_count,
            unexpected_percent=self.unexpected_percent,
            message=self.message,
        )


@dataclass(frozen=True, kw_only=True)
class EngineRun:
    """What a run gave.

    :param results: one for each check, in their order.
    :param notes: what was computed another way than the engine's own, and why; sentences without values.
    :param document: Great Expectations' own result as JSON types, without values of rows, for Data Docs;
        None when no check was run.
    """

    results: tuple[CheckResult, ...]
    notes: tuple[str, ...] = ()
    document: Mapping[str, Any] | None = None


class Engine(Protocol):
    """Runs checks. ``name`` and ``version`` become part of a report's identity."""

    name: str

    @property
    def version(self) -> str: ...

    def run(self, checks: Sequence[Check], frame: Frame, *, examples: int = 0) -> EngineRun:
        """One result for each check. A check that cannot run is *errored*, not raised.

        :param examples: at most so many unexpected values of each check go into its result.
        """
        ...

    def unexpected_rows(self, checks: Sequence[Check], frame: Frame) -> list[np.ndarray]:
        """The positions (scan order, sorted, int64) of the rows that break each check.

        ``mostly`` plays no part. Of a check that is not row-level, or that cannot run: no rows.
        """
        ...


def get_engine(name: str) -> Engine:
    """The engine of that name.

    :raises ArgumentError: ``argument.engine``.
    """
    if name == "pandas":
        from airflow_provider_xops.quality.pandas_engine import PandasEngine

        return PandasEngine()
    if name == "duckdb":
        from airflow_provider_xops.quality.duckdb_engine import DuckDBEngine

        return DuckDBEngine()
    raise ArgumentError(
        f"there is no validation engine {name!r}",
        code="argument.engine",
        todo=f"use one of {', '.join(ENGINES)}",
    )


def looks_at_shape(check: Check) -> bool:
    """Whether the check is about the table's shape (row count, columns) and so can run without rows."""
    return check.type.startswith(_SHAPE_CHECKS)


def is_row_level(check: Check) -> bool:
    """Whether the check judges single rows: an expectation about the values of a column, a pair or several.

    Imports Great Expectations. An unknown expectation is not row-level.
    """
    from airflow_provider_xops.quality._great_expectations import expectation_class, great_expectations

    great_expectations()
    from great_expectations.expectations.expectation import (
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    found = expectation_class(check.type)
    return found is not None and issubclass(
        found, ColumnMapExpectation | ColumnPairMapExpectation | MulticolumnMapExpectation
    )
