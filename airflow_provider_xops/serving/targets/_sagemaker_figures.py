"""What CloudWatch has counted of an endpoint's variants in a window.

For the SageMaker target. CloudWatch counts by minutes and is about two minutes late: the window begins at a
full minute, and a window of less than some minutes sees little.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.serving.targets._sagemaker_aws import Clients, translated
from airflow_provider_xops.serving.targets._sagemaker_parts import version_of
from airflow_provider_xops.serving.targets.base import Observation, VersionFigures

__all__ = ["figures"]

NAMESPACE = "AWS/SageMaker"
# Name in the query, metric, statistic.
_ASKED = (
    ("requests", "Invocations", "Sum"),
    ("errors", "Invocation5XXErrors", "Sum"),
    ("p99", "ModelLatency", "p99"),
)
_MINUTE = 60


def figures(
    clients: Clients, endpoint: str, variants: Iterable[str], *, since: datetime, as_of: datetime
) -> Observation:
    """Requests, server errors and the 99th percentile of the model's own milliseconds, by version.

    :raises UnavailableError: ``unavailable.aws``. :raises RegistryError: ``registry.aws_forbidden``.
    """
    named = [(name, version) for name in variants if (version := version_of(name)) is not None]
    start = since.replace(second=0, microsecond=0)
    period = _MINUTE * max(1, math.ceil((as_of - start).total_seconds() / _MINUTE))
    if not named:
        return Observation(seconds=(as_of - since).total_seconds())
    queries = [
        {
            "Id": f"{asked}_{place}",
            "MetricStat": {
                "Metric": {
                    "Namespace": NAMESPACE,
                    "MetricName": metric,
                    "Dimensions": [
                        {"Name": "EndpointName", "Value": endpoint},
                        {"Name": "VariantName", "Value": name},
                    ],
                },
                "Period": period,
                "Stat": statistic,
            },
        }
        for place, (name, _) in enumerate(named)
        for asked, metric, statistic in _ASKED
    ]
    doing = f"reading the figures of the endpoint {endpoint}"
    values: dict[str, list[Any]] = {}
    with translated(doing):
        pages = clients.cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=start, EndTime=start + timedelta(seconds=period)
        )
        results = [each for page in pages for each in page.get("MetricDataResults", [])]
    for each in results:
        if each.get("StatusCode") in ("InternalError", "Forbidden"):
            # Without this a figure that could not be read would pass for no errors.
            raise UnavailableError(
                f"AWS did not answer: {doing}", code="unavailable.aws", why=str(each["StatusCode"]),
                todo="see that the role may read CloudWatch's metrics, and try again",
            )  # fmt: skip
        values.setdefault(each["Id"], []).extend(each.get("Values") or [])
    versions = {
        version: VersionFigures(
            requests=round(sum(values.get(f"requests_{place}", []))),
            errors=round(sum(values.get(f"errors_{place}", []))),
            p99_ms=_milliseconds(values.get(f"p99_{place}", [])),
        )
        for place, (_, version) in enumerate(named)
    }
    return Observation(versions=versions, seconds=(as_of - since).total_seconds())


def _milliseconds(microseconds: list[Any]) -> float | None:
    """The worst of the percentiles; CloudWatch counts a model's latency in microseconds."""
    return max(float(value) for value in microseconds) / 1000 if microseconds else None
