"""Great Expectations' execution engine on DuckDB, with its pandas engine for what is not computed in SQL.

For the engine. Purpose: the library's expectations, unchanged, over data that need not fit into memory. How
it works: the library asks for metrics level by level. Of each level, what compiles to SQL is computed by
DuckDB, all plain aggregates in one scan; a condition stays SQL, and its count of unexpected rows is part of
the same scan. Everything else is resolved by the library's own pandas provider, which finds a data frame
with only the columns it needs: of the rows that a condition found, of the distinct values, or, where there
is no other way, of the whole column; that last kind is a fallback and is noted with its reason.

What it does not do: decide. Whether an expectation is met is the library's code, from these metrics.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pandas as pd
from great_expectations.exceptions import MetricResolutionError
from great_expectations.execution_engine import PandasExecutionEngine

from airflow_provider_xops.quality._gx_run import BATCH
from airflow_provider_xops.quality.duckdb_engine.aggregates import (
    BY_DISTINCT_VALUES,
    Plan,
    compile_aggregate,
    distinct_values,
)
from airflow_provider_xops.quality.duckdb_engine.columns import Cannot
from airflow_provider_xops.quality.duckdb_engine.map_conditions import (
    Condition,
    compile_condition,
    compile_map,
    domain_of,
)
from airflow_provider_xops.quality.duckdb_engine.row_conditions import mentioned
from airflow_provider_xops.quality.duckdb_engine.session import Session
from airflow_provider_xops.quality.suites import Check

__all__ = ["DuckDBExecutionEngine", "Judged"]

log = logging.getLogger(__name__)

_CONDITION, _MAP = ".condition", ".map"
_FOUND = (".unexpected_values", ".unexpected_index_list", ".unexpected_index_query", ".unexpected_rows")
_COUNTS = (".unexpected_count", ".filtered_row_count")
# Errors of one metric: a value that does not convert, a function that the version does not have.
_FAILURES = (duckdb.Error, Cannot, ArithmeticError, ValueError, TypeError)


class Judged(tuple[Any, ...]):
    """What the library keeps of a compiled condition: (condition, compute and accessor domain)."""


class _ColumnType(dict[str, Any]):
    """A column's name and its type in pandas; the type is found when somebody asks for it."""

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(name=name)
        self._session = session

    def __missing__(self, key: str) -> Any:
        if key != "type":
            raise KeyError(key)
        self[key] = self._session.dtype(self["name"])
        return self[key]


class DuckDBExecutionEngine(PandasExecutionEngine):  # type: ignore[misc]
    """See the module.

    :ivar notes: the metrics that fell back with their columns, and why.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._values: dict[Any, Any] = {}
        self._failures: dict[Any, MetricResolutionError] = {}
        self._records: pd.DataFrame | None = None
        self._columns_too: tuple[str, ...] = ()
        self._loaded: pd.DataFrame | None = None
        self._read = False
        self.notes: dict[tuple[str, str], str] = {}
        self.computed = 0
        self.load_batch_data(BATCH, pd.DataFrame())

    def resolve_metrics(
        self,
        metrics_to_resolve: Iterable[Any],
        metrics: dict[Any, Any] | None = None,
        runtime_configuration: dict[str, Any] | None = None,
    ) -> dict[Any, Any]:
        """The values of the metrics of one level; those known from before are not computed again."""
        known = metrics if metrics is not None else {}
        asked = list(metrics_to_resolve)
        # A set comes in: the order decides which plans share a scan, and must be the same in every run.
        fresh = sorted(
            (one for one in asked if one.id not in self._values and one.id not in self._failures),
            key=lambda one: repr(one.id),
        )
        planned: list[tuple[Any, Plan]] = []
        native: list[tuple[Any, str]] = []
        for metric in fresh:
            try:
                plan = self._plan(metric, known)
            except _FAILURES as error:
                native.append((metric, _reason(error)))
                continue
            if plan is None:
                native.append((metric, ""))
            else:
                planned.append((metric, plan))
        self._compute(planned, native)
        for metric, reason in sorted(native, key=lambda pair: _columns_key(pair[0])):
            self._by_pandas(metric, known, reason, runtime_configuration)
        self._loaded = None
        for metric in asked:
            failed = self._failures.get(metric.id)
            if failed is not None:
                raise failed
        return {metric.id: self._values[metric.id] for metric in asked}

    def get_domain_records(self, domain_kwargs: dict[str, Any]) -> pd.DataFrame:
        """The rows for a pandas provider: those at hand, else the domain's, of the columns it needs."""
        if self._records is not None:
            return self._records
        self._read = True
        names = [
            str(domain_kwargs[key]) for key in ("column", "column_A", "column_B") if key in domain_kwargs
        ]
        names += [str(name) for name in domain_kwargs.get("column_list") or ()]
        every = list(self._session.frame.schema.names)
        if not names:
            names = every
        if domain_kwargs.get("row_condition"):
            names = [*names, *mentioned(domain_kwargs["row_condition"], every)]
        wanted = [name for name in every if name in {*names, *self._columns_too}]
        if self._loaded is None or not set(wanted) <= set(self._loaded.columns):
            self._loaded = None  # before the next is read
            self._loaded = self._session.frame.pandas(wanted)
        with self._active(self._loaded[wanted]):
            records: pd.DataFrame = super().get_domain_records({**domain_kwargs, "batch_id": BATCH})
        return records

    def rows_and_missing(self, checks: Sequence[Check]) -> list[tuple[int, int] | None]:
        """Rows and missing values of each check's column under its condition, counted in one scan."""
        asked: list[tuple[str, str] | None] = []
        for check in checks:
            column = self._session.columns.get(str(check.column))
            try:
                rows = domain_of(check.kwargs, self._session.columns)
            except Cannot:
                column = None
            if column is None or column.kind == "none":
                asked.append(None)
                continue
            chosen = f" FILTER (WHERE {rows})"
            asked.append((f"count(*){chosen}", f"count(*){chosen} - count({column.sql}){chosen}"))
        found = self._session.scalars([text for pair in asked if pair is not None for text in pair])
        return [
            None
            if pair is None or any(isinstance(found[text], Exception) for text in pair)
            else (int(found[pair[0]]), int(found[pair[1]]))
            for pair in asked
        ]

    def _plan(self, metric: Any, known: Mapping[Any, Any]) -> Plan | None:
        """How DuckDB computes the metric; None for what the library's own code computes from metrics."""
        name, session = metric.metric_name, self._session
        domain, values = metric.metric_domain_kwargs, metric.metric_value_kwargs
        if domain.get("table"):
            raise Cannot("it asks for another table")
        if name == "table.column_types":
            types = [_ColumnType(session, column) for column in session.frame.schema.names]
            return Plan(needs=(), finish=lambda _: types)
        if name.endswith((_CONDITION, _MAP)):
            needed = self._dependencies(metric, known)
            if any(_is_native(value) for value in needed.values()):
                return None  # its own map is pandas' already
            if name.endswith(_MAP):
                mapped = compile_map(name, domain, needed, session)
                if mapped is None:
                    raise Cannot("pandas computes this of each value in its own way")
                return Plan(needs=(), finish=lambda _: mapped)
            condition = compile_condition(name.removesuffix(_CONDITION), domain, values, needed, session)
            compute = {key: value for key, value in domain.items() if key not in _ACCESSORS}
            accessor = {key: value for key, value in domain.items() if key in _ACCESSORS}
            judged = Judged((condition, compute, accessor))
            # Its count is wanted next: it is counted in this scan already.
            ahead = () if condition.aggregate is None else (condition.aggregate,)

            def sure(found: dict[str, Any]) -> Judged:
                if any(found[guard] for guard in condition.guards):
                    raise Cannot("the text is not one that RE2 and Python read alike")
                return judged

            return Plan(needs=(*condition.guards, *ahead), finish=sure)
        if name.endswith((*_COUNTS, *_FOUND)):
            unexpected = self._dependencies(metric, known).get("unexpected_condition")
            if not isinstance(unexpected, Judged):
                return None
            condition = unexpected[0]
            if name.endswith(_COUNTS[0]):
                return Plan(needs=(), finish=lambda _: condition.count(session))
            if name.endswith(_COUNTS[1]):
                text = f"count(*) FILTER (WHERE {condition.domain})"
                return Plan(needs=(text,), finish=lambda found: int(found[text]))
            return None
        if name in BY_DISTINCT_VALUES:
            return None
        return compile_aggregate(name, domain, values, session)

    def _compute(self, planned: list[tuple[Any, Plan]], native: list[tuple[Any, str]]) -> None:
        texts = [text for _, plan in planned for text in plan.needs]
        found = self._session.scalars(texts)
        for metric, plan in planned:
            broken = next((found[text] for text in plan.needs if isinstance(found[text], Exception)), None)
            try:
                if broken is not None:
                    raise broken
                self._values[metric.id] = plan.finish({text: found[text] for text in plan.needs})
                self.computed += 1
            except _FAILURES as error:
                native.append((metric, _reason(error)))

    def _by_pandas(
        self, metric: Any, known: Mapping[Any, Any], reason: str, runtime_configuration: dict[str, Any] | None
    ) -> None:
        """Resolve it by the library's own provider, over as few rows and columns as will do."""
        self._read = False
        try:
            with self._rows_for(metric, known) as stand_in:
                resolved = super().resolve_metrics(
                    [metric], {**known, **self._values, **stand_in}, runtime_configuration
                )
        except MetricResolutionError as error:
            self._failures[metric.id] = error
        else:
            self._values.update({metric.id: resolved[metric.id]})
        # What follows from a map or a condition that fell back is the same fallback.
        follows = not reason and any(map(_is_native, self._dependencies(metric, known).values()))
        if self._read and not follows and not metric.metric_name.endswith((*_COUNTS, *_FOUND)):
            about = (_columns_key(metric), metric.metric_name)
            self.notes.setdefault(about, reason or "no other way is known")

    @contextmanager
    def _rows_for(self, metric: Any, known: Mapping[Any, Any]) -> Iterator[dict[Any, Any]]:
        """What the provider will find in place of the whole column; gives metrics to put in place too."""
        name, session = metric.metric_name, self._session
        stand_in: dict[Any, Any] = {}
        result_format = metric.metric_value_kwargs.get("result_format") or {}
        named = tuple(result_format.get("unexpected_index_column_names") or ())
        if name.endswith(_FOUND):
            dependency = metric.metric_dependencies["unexpected_condition"]
            judged = self._values.get(dependency.id)
            every = tuple(session.frame.schema.names)
            self._columns_too = every if name.endswith(".unexpected_rows") else named
            if isinstance(judged, Judged):
                records = self._unexpected(judged[0], self._columns_too, result_format, name)
                if records is not None:
                    self._records = records
                    everyone = pd.Series(True, index=records.index, dtype=bool)
                    stand_in[dependency.id] = (everyone, judged[1], judged[2])
        elif name in BY_DISTINCT_VALUES:
            try:
                column = session.columns[str(metric.metric_domain_kwargs["column"])]
                rows = domain_of(metric.metric_domain_kwargs, session.columns)
                if column.kind in ("int", "float", "str", "date", "time_utc", "time", "decimal"):
                    self._records = distinct_values(column, rows, session).to_frame()
            except _FAILURES:
                self._records = None
        try:
            yield stand_in
        finally:
            self._records, self._columns_too = None, ()

    def _unexpected(
        self, condition: Condition, more: tuple[str, ...], result_format: Mapping[str, Any], name: str
    ) -> pd.DataFrame | None:
        """The unexpected rows with the columns that the provider shows, the position as index."""
        session = self._session
        every = session.frame.schema.names
        wanted = [one for one in every if one in {*more, *(column.name for column in condition.columns)}]
        unknown = [one for one in more if one not in every]
        complete = result_format.get("result_format") == "COMPLETE"
        limit = None if complete else int(result_format.get("partial_unexpected_count") or 0)
        if name.endswith("_query"):  # it lists all rows or, where it was told not to, none
            limit = 0 if result_format.get("return_unexpected_index_query") is False else None
        shown = tuple(session.columns[one] for one in wanted)
        if unknown or any(column.kind in ("none", "other") for column in shown):
            positions = session.positions(condition.rows_query(session))
            rows: pd.DataFrame = session.frame.pandas(wanted).iloc[positions]
            return rows if limit is None else rows.iloc[:limit]
        if limit == 0:
            empty: pd.DataFrame = session.typed(session.frame.schema.empty_table().select(wanted), wanted)
            return empty
        table = session.arrow(condition.rows_query(session, shown, limit))
        rows = session.typed(table.select(list(range(1, table.num_columns))), wanted)
        rows.index = pd.Index(table.column(0).to_numpy())
        return rows.sort_index()

    def _dependencies(self, metric: Any, known: Mapping[Any, Any]) -> dict[str, Any]:
        everything = {**known, **self._values} if known is not self._values else dict(known)
        found: dict[str, Any] = self._get_computed_metric_evaluation_dependencies_by_metric_name(
            metric_to_resolve=metric, metrics=everything
        )
        return found

    @contextmanager
    def _active(self, data: pd.DataFrame) -> Iterator[None]:
        self.load_batch_data(BATCH, data)
        try:
            yield
        finally:
            self.load_batch_data(BATCH, pd.DataFrame())


_ACCESSORS = ("column", "column_A", "column_B", "column_list")


def _is_native(value: Any) -> bool:
    """Whether a dependency is a series that pandas computed."""
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], pd.Series | pd.DataFrame)


def _columns_key(metric: Any) -> str:
    domain = metric.metric_domain_kwargs
    names = [domain[key] for key in ("column", "column_A", "column_B") if key in domain]
    return ", ".join(map(str, [*names, *(domain.get("column_list") or ())]))


def _reason(error: Exception) -> str:
    # DuckDB's messages may quote values.
    return str(error) if isinstance(error, Cannot) else f"DuckDB raised {type(error).__name__}"
