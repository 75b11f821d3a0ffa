"""Great Expectations on pandas: the reference that the DuckDB engine is compared with.

For validation. What it does not do: stream. The selected rows are in memory, with the copies that Great
Expectations makes. What is done about the library's sharp edges is in
:mod:`~airflow_provider_xops.quality._gx_run`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.quality._great_expectations import great_expectations, great_expectations_version
from airflow_provider_xops.quality._gx_run import (
    BATCH,
    prepare,
    run_checks,
    run_together,
    unexpected_positions,
)
from airflow_provider_xops.quality.engine import EngineRun, Frame, is_row_level
from airflow_provider_xops.quality.suites import Check

if TYPE_CHECKING:
    import numpy as np

__all__ = ["PandasEngine"]

log = logging.getLogger(__name__)


class PandasEngine:
    """See the module."""

    name = "pandas"

    @property
    def version(self) -> str:
        """Great Expectations' version."""
        return great_expectations_version()

    def run(self, checks: Sequence[Check], frame: Frame, *, examples: int = 0) -> EngineRun:
        """One result for each check, in their order."""
        log.info("Running %d checks over %d rows with Great Expectations.", len(checks), frame.rows)
        return run_checks(checks, frame, open_engine=lambda: _loaded(frame), examples=examples)

    def unexpected_rows(self, checks: Sequence[Check], frame: Frame) -> list[np.ndarray]:
        """The positions of the rows that break each check; the whole frame is in memory for it."""
        import numpy as np

        _, runnable = prepare(checks, frame)
        found = [np.empty(0, np.int64) for _ in checks]
        asked = {position: check for position, check in runnable.items() if is_row_level(check)}
        if asked:
            engine = _loaded(frame)
            for position, check in asked.items():
                found[position] = unexpected_positions(engine, check)
        return found

    def great_expectations_results(
        self, checks: Sequence[Check], frame: Frame, *, result_format: Mapping[str, Any]
    ) -> list[Any]:
        """Great Expectations' own result of each check, values of rows and all; None where it gave none."""
        _, runnable = prepare(checks, frame)
        items = run_together(_loaded(frame), runnable, result_format) if runnable else {}
        return [items.get(position) for position in range(len(checks))]


def _loaded(frame: Frame) -> Any:
    great_expectations()
    from great_expectations.execution_engine import PandasExecutionEngine

    engine = PandasExecutionEngine()
    engine.load_batch_data(BATCH, frame.pandas())
    return engine
