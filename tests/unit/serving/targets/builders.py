"""Deployments that nobody has begun, for tests of targets."""

from __future__ import annotations

from typing import Any

from airflow_provider_xops.records import Deployment, ModelRef, ModelVersion
from tests.unit.registry.builders import AS_OF, an_actor


def a_deployment(
    model: ModelVersion,
    *,
    target: str,
    endpoint: str,
    key: str = "deploy",
    previous: ModelRef | None = None,
    **changes: Any,
) -> Deployment:
    """A deployment of ``model`` as champion."""
    values: dict[str, Any] = {
        "recorded_at": AS_OF, "produced_by": an_actor(key).producer, "model": model.ref, "alias": "champion",
        "target": target, "endpoint": endpoint, "key": key, "previous": previous,
    }  # fmt: skip
    return Deployment(**(values | changes))
