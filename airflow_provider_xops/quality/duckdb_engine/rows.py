"""The positions of the rows that break a check.

For the engine's ``unexpected_rows``: only the condition is resolved, not the expectation, so that nothing is
counted or formatted.
"""

from __future__ import annotations

import numpy as np
from great_expectations.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.validator.metric_configuration import MetricConfiguration
from great_expectations.validator.metrics_calculator import MetricsCalculator

from airflow_provider_xops.quality._gx_run import BATCH
from airflow_provider_xops.quality._gx_run import unexpected_positions as listed_positions
from airflow_provider_xops.quality.duckdb_engine.execution import DuckDBExecutionEngine, Judged
from airflow_provider_xops.quality.duckdb_engine.session import Session
from airflow_provider_xops.quality.suites import Check

__all__ = ["unexpected_positions"]


def unexpected_positions(engine: DuckDBExecutionEngine, session: Session, check: Check) -> np.ndarray:
    """Sorted positions; none where the check cannot be computed."""
    expectation = ExpectationConfiguration(
        type=check.type, kwargs={**check.kwargs, "batch_id": BATCH}
    ).to_domain_obj()
    # As for the counts alone: without the partial list nothing else is asked for.
    runtime = {"result_format": {"result_format": "BOOLEAN_ONLY", "partial_unexpected_count": 0}}
    try:
        dependencies = expectation.get_validation_dependencies(engine, runtime_configuration=runtime)
        count = dependencies.get_metric_configuration(f"{expectation.map_metric}.unexpected_count")
        if count is None:
            return np.empty(0, np.int64)
        if check.kwargs.get("row_condition") and not count.metric_domain_kwargs.get("row_condition"):
            # The library counts under the condition and judges without it; where that does not add up, its
            # check is errored and breaks no row. Only its own result says which.
            found: np.ndarray = listed_positions(engine, check)
            return found
        condition = MetricConfiguration(
            metric_name=f"{expectation.map_metric}.condition",
            metric_domain_kwargs=count.metric_domain_kwargs,
            metric_value_kwargs=count.metric_value_kwargs,
        )
        # Not get_metric(): it logs what a metric raised, and that may quote values.
        calculator = MetricsCalculator(execution_engine=engine)
        graph = calculator.build_metric_dependency_graph([condition], runtime_configuration=runtime)
        resolved, _ = calculator.resolve_validation_graph(graph, runtime_configuration=runtime)
    except GreatExpectationsError:
        return np.empty(0, np.int64)
    judged = resolved.get(condition.id)
    if judged is None:
        return np.empty(0, np.int64)
    if isinstance(judged, Judged):
        return session.positions(judged[0].rows_query(session))
    series = judged[0]
    return np.sort(series.index.to_numpy()[series.to_numpy(dtype=bool)].astype(np.int64))
