"""Great Expectations on DuckDB: the library's own expectations, the scans by DuckDB.

For validation. The result is Great Expectations' result: the same success, the same figures, the same form,
compared with the pandas engine by a differential test. What DuckDB cannot compute falls back, metric by
metric, to the library's pandas code over the columns it needs; ``EngineRun.notes`` says which and why.

    columns          which types mean the same in DuckDB and in pandas
    row_conditions   row conditions as SQL
    map_conditions   row-level conditions as SQL
    several_columns  those over a pair of columns or several
    aggregates       aggregates as SQL
    session          one frame inside a DuckDB box
    execution        the library's execution engine over these
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_xops.quality._great_expectations import great_expectations, great_expectations_version
from airflow_provider_xops.quality.engine import EngineRun, Frame, is_row_level
from airflow_provider_xops.quality.suites import Check

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DuckDBEngine"]

log = logging.getLogger(__name__)


class DuckDBEngine:
    """See the module.

    :param memory_limit: what DuckDB may use before it spills to disk, such as ``"2GB"``; None: DuckDB's own
        limit, 80 % of the machine.
    """

    name = "duckdb"

    def __init__(self, *, memory_limit: str | None = None) -> None:
        self.memory_limit = memory_limit

    @property
    def version(self) -> str:
        """Great Expectations' version and DuckDB's."""
        import duckdb

        return f"{great_expectations_version()}+duckdb.{duckdb.__version__}"

    def run(self, checks: Sequence[Check], frame: Frame, *, examples: int = 0) -> EngineRun:
        """One result for each check, in their order."""
        import dataclasses

        from airflow_provider_xops.quality._gx_run import run_checks

        with self._session(frame) as session:
            engine = _engine(session)
            run = run_checks(checks, frame, open_engine=lambda: engine, examples=examples)
            notes = _notes(engine, session)
            log.info(
                "Ran %d checks over %d rows with DuckDB: %d metrics in SQL, %d fell back to pandas.",
                len(checks),
                frame.rows,
                engine.computed,
                len(engine.notes),
            )
        return dataclasses.replace(run, notes=notes)

    def unexpected_rows(self, checks: Sequence[Check], frame: Frame) -> list[np.ndarray]:
        """The positions of the rows that break each check; only these leave DuckDB."""
        import numpy as np

        from airflow_provider_xops.quality._gx_run import prepare
        from airflow_provider_xops.quality.duckdb_engine.rows import unexpected_positions

        _, runnable = prepare(checks, frame)
        found = [np.empty(0, np.int64) for _ in checks]
        asked = {position: check for position, check in runnable.items() if is_row_level(check)}
        if asked and frame.rows:
            with self._session(frame) as session:
                engine = _engine(session)
                for position, check in asked.items():
                    found[position] = unexpected_positions(engine, session, check)
        return found

    def great_expectations_results(
        self, checks: Sequence[Check], frame: Frame, *, result_format: Mapping[str, Any]
    ) -> list[Any]:
        """Great Expectations' own result of each check, values of rows and all; None where it gave none."""
        from airflow_provider_xops.quality._gx_run import prepare, run_together

        _, runnable = prepare(checks, frame)
        if not runnable:
            return [None for _ in checks]
        with self._session(frame) as session:
            items = run_together(_engine(session), runnable, result_format)
        return [items.get(position) for position in range(len(checks))]

    def _session(self, frame: Frame) -> Any:
        from airflow_provider_xops.quality.duckdb_engine.session import Session

        return Session(frame, memory_limit=self.memory_limit)


def _engine(session: Any) -> Any:
    great_expectations()
    # It subclasses the library's engine, so importing it imports the library.
    from airflow_provider_xops.quality.duckdb_engine.execution import DuckDBExecutionEngine

    return DuckDBExecutionEngine(session)


def _notes(engine: Any, session: Any) -> tuple[str, ...]:
    # A check asks for several metrics: what fell back for one reason is one line for its columns.
    together: dict[tuple[str, str], list[str]] = {}
    for (columns, metric), reason in sorted(engine.notes.items()):
        together.setdefault((columns, reason), []).append(metric)
    notes = [
        f"{', '.join(metrics)}{f' of {columns}' if columns else ''} "
        f"{'was' if len(metrics) == 1 else 'were'} computed on pandas: {reason}"
        for (columns, reason), metrics in together.items()
    ]
    if session.unreadable:
        notes.insert(0, f"DuckDB could not read the data ({session.unreadable}): all was computed on pandas")
    return tuple(notes)
