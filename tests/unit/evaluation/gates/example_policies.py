"""Policies that the tests name as user code."""

from __future__ import annotations

from typing import Any

from airflow_provider_xops.evaluation.gates import MetricThreshold


def as_mapping() -> Any:
    """A policy with a name of its own."""
    return {"name": "mine", "gates": [{"gate": "smoke_tested"}]}


def as_list() -> Any:
    """Only gates."""
    return [MetricThreshold(metric="roc_auc", minimum=0.6), {"gate": "smoke_tested"}]


def misspelled() -> Any:
    """A gate that there is not."""
    return [{"gate": "smoke_testd"}]


def broken() -> Any:
    """Raises."""
    raise RuntimeError("no such thing")
