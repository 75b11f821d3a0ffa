"""What a validation engine is: checks and a frame in, one result a check out.

For the engines, and for whoever writes another one. An engine is Great Expectations on pandas
(:mod:`~airflow_provider_xops.quality.pandas_engine`); validation knows only this interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import CheckSummary, Outcome

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ENGINES", "CheckResult", "Engine", "Frame", "get_engine", "looks_at_shape"]

ENGINES = ("pandas",)

# They ask how the table is made, not what is in its rows: they have something to look at when there are none.
_SHAPE_CHECKS = ("expect_table_", "expect_column_to_exist")


class Frame(Protocol):
    """The rows to look at. ``schema`` is a ``pyarrow.Schema``; an engine asks for the form it works on."""

    @property
    def schema(self) -> Any: ...

    @property
    def rows(self) -> int: ...

    def pandas(self) -> pd.DataFrame: ...


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """How one check ended: figures only, never values of rows.

    :param observed: an aggregate (a mean, a count, a maximum); None where the check has none or it is not a
        number.
    :param element_count: values looked at, nulls included.
    :param message: why it errored, or what there was nothing of; never a value.
    """

    check: Check
    outcome: Outcome
    observed: float | int | None = None
    unexpected_count: int | None = None
    unexpected_percent: float | None = None
    element_count: int | None = None
    missing_count: int | None = None
    message: str = ""

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


class Engine(Protocol):
    """Runs checks. ``name`` and ``version`` become part of a report's identity."""

    name: str

    @property
    def version(self) -> str: ...

    def run(self, checks: Sequence[Check], frame: Frame) -> list[CheckResult]:
        """One result for each check, in their order. A check that cannot run is *errored*, not raised."""
        ...


def get_engine(name: str) -> Engine:
    """The engine of that name.

    :raises ArgumentError: ``argument.engine``.
    """
    if name == "pandas":
        from airflow_provider_xops.quality.pandas_engine import PandasEngine

        return PandasEngine()
    raise ArgumentError(
        f"there is no validation engine {name!r}",
        code="argument.engine",
        todo=f"use one of {', '.join(ENGINES)}",
    )


def looks_at_shape(check: Check) -> bool:
    """Whether the check is about the table's shape (row count, columns) and so can run without rows."""
    return check.type.startswith(_SHAPE_CHECKS)
