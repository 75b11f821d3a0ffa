"""What OpenLineage is told of data quality: assertions of a validation, metrics of a profile.

For operators' ``get_openlineage_facets_on_...`` methods, which the OpenLineage provider calls on the executed
task. Where that provider (or a client new enough to have a facet) is not installed, there is nothing to tell.

A dataset of the lake is named by where it lies (``file`` or ``s3://bucket``, then the path) with its version
as a facet; a table of a database by the connection's id. Facets carry figures, never values of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_xops import records

__all__ = ["dataset_name", "profile_lineage", "validation_lineage"]

# OpenLineage's own words for how much a failed test matters.
SEVERITIES = {"critical": "error", "warning": "warn", "info": "info"}


def validation_lineage(report: records.ValidationReport | None, source: str = "") -> Any:
    """``OperatorLineage`` of a validation: its dataset as input, one assertion for each check that ran.

    :param source: names the lake where its address is unknown: the connection's id.
    :return: None without a report, or where OpenLineage is not installed.
    """
    if report is None:
        return None
    try:
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client.event_v2 import InputDataset
        from openlineage.client.generated.data_quality_assertions_dataset import (
            Assertion,
            DataQualityAssertionsDatasetFacet,
        )
        from openlineage.client.generated.data_quality_metrics_input_dataset import (
            DataQualityMetricsInputDatasetFacet,
        )
    except ImportError:
        return None
    # No data is no finding, so it is no assertion either.
    told = [check for check in report.checks if check.outcome is not records.Outcome.NO_DATA]
    namespace, name = dataset_name(report.dataset, report.report_uri, source)
    dataset = InputDataset(
        namespace=namespace,
        name=name,
        facets=_version_facet(report.dataset),
        inputFacets={
            "dataQualityAssertions": DataQualityAssertionsDatasetFacet(
                assertions=[_known_fields(Assertion, _assertion(check)) for check in told]
            ),
            "dataQualityMetrics": DataQualityMetricsInputDatasetFacet(columnMetrics={}, rowCount=report.rows),
        },
    )
    return OperatorLineage(inputs=[dataset])


def profile_lineage(profile: records.DatasetProfile | None, source: str = "") -> Any:
    """``OperatorLineage`` of a profile: its dataset as input, with the metrics of every column.

    :param source: see :func:`validation_lineage`.
    :return: None without a profile, or where OpenLineage is not installed.
    """
    if profile is None:
        return None
    try:
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client.event_v2 import InputDataset
        from openlineage.client.generated.data_quality_metrics_input_dataset import (
            ColumnMetrics,
            DataQualityMetricsInputDatasetFacet,
        )
    except ImportError:
        return None
    namespace, name = dataset_name(profile.dataset, profile.report_uri, source)
    metrics = {
        str(column["name"]): _known_fields(ColumnMetrics, _column_metrics(column, profile.rows))
        for column in profile.columns
    }
    dataset = InputDataset(
        namespace=namespace,
        name=name,
        facets=_version_facet(profile.dataset),
        inputFacets={
            "dataQualityMetrics": DataQualityMetricsInputDatasetFacet(
                columnMetrics=metrics, rowCount=profile.rows
            )
        },
    )
    return OperatorLineage(inputs=[dataset])


def dataset_name(ref: records.DatasetRef, report_uri: str | None, source: str = "") -> tuple[str, str]:
    """OpenLineage's namespace and name of a dataset.

    :param report_uri: of any report in the lake: it says where the lake is.

    >>> ref = DatasetRef(lake_id="l", table="flights__raw", table_uuid="u", version=3)
    >>> dataset_name(ref, "s3://bucket/lake/_xops/reports/validations/1.html")
    ('s3://bucket', 'lake/flights__raw')
    >>> dataset_name(ref, "/data/lake/_xops/reports/validations/1.html")
    ('file', '/data/lake/flights__raw')
    """
    connection, of_database, table = ref.table.partition(":")
    if of_database:
        return f"airflow://{connection}", table
    lake, found, _ = (report_uri or "").partition("/_xops/")
    if not found:
        return f"xops://{source or ref.lake_id}", ref.table
    address = urlsplit(lake)
    if not address.netloc:
        return "file", f"{address.path.rstrip('/')}/{ref.table}"
    host = address.netloc.rpartition("@")[2]
    return f"{address.scheme}://{host}", f"{address.path.strip('/')}/{ref.table}".lstrip("/")


def _version_facet(ref: records.DatasetRef) -> dict[str, Any]:
    if ":" in ref.table:  # a table of a database has no versions
        return {}
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

    return {"version": DatasetVersionDatasetFacet(datasetVersion=str(ref.version))}


def _assertion(check: records.CheckSummary) -> dict[str, Any]:
    figures = {
        "unexpected_count": check.unexpected_count,
        "unexpected_percent": check.unexpected_percent,
    }
    return {
        "assertion": check.check,
        "success": check.outcome is records.Outcome.PASSED,
        "column": check.column,
        "severity": SEVERITIES[check.severity],
        "actual": None if check.observed is None else str(check.observed),
        "description": check.message or None,
        "params": {
            "outcome": check.outcome.value,
            **{name: value for name, value in figures.items() if value is not None},
        },
    }


def _column_metrics(column: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """From a profile's column: its figures under OpenLineage's names."""
    nulls = column.get("nulls")
    quantiles = {  # named by their percentage in a profile, by their share in OpenLineage
        f"{float(name) / 100:g}": float(value)
        for name, value in (column.get("quantiles") or {}).items()
        if _is_number(value)
    }
    distinct = column.get("distinct")
    found = {
        "nullCount": nulls,
        "distinctCount": distinct.get("value") if isinstance(distinct, Mapping) else distinct,
        "count": None if nulls is None else float(rows - nulls),
        "min": column.get("min"),
        "max": column.get("max"),
    }
    return {**{key: value for key, value in found.items() if _is_number(value)}, "quantiles": quantiles}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _known_fields(cls: Any, values: Mapping[str, Any]) -> Any:
    """An object of a client's class with the fields that this client's version has."""
    import attr

    known: Iterable[str] = {field.name for field in attr.fields(cls)}
    return cls(**{name: value for name, value in values.items() if name in known and value is not None})
