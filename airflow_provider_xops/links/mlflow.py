"""Links from a task to MLflow's pages: the run, and the registered model version.

For the task page. Airflow asks for them in the worker after each attempt, so they read what the operator
remembered while it performed. They lead to the connection's UI address where it has one.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_xops.version_compat import BaseOperatorLink

__all__ = ["MlflowModelVersionLink", "MlflowRunLink"]


class MlflowRunLink(BaseOperatorLink):
    """To the run: parameters, metrics and artifacts."""

    name = "MLflow run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The run's address, or nothing where the task had no run."""
        return getattr(operator, "run_url", None) or ""


class MlflowModelVersionLink(BaseOperatorLink):
    """To the registered model version: its aliases, tags and lineage."""

    name = "MLflow model version"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The version's address, or nothing where the task had no version."""
        return getattr(operator, "version_url", None) or ""
