"""Sources for ``IngestDatasetOperator`` besides files: databases, HTTP APIs, folders that grow.

For DAGs::

    IngestDatasetOperator(
        task_id="ingest",
        table="orders",
        source=SqlSource(conn_id="shop", table="orders", watermark="updated_at"),
        mode="merge",
        keys=["order_id"],
    )

Templates in the fields that a class names in ``template_fields`` are rendered when the task runs.
"""

from __future__ import annotations

from airflow_provider_xops.data.declared_sources import (
    Cursor,
    HttpSource,
    NextLink,
    Offset,
    PageNumber,
    Pagination,
    PrefixSource,
    SqlSource,
)

__all__ = [
    "Cursor",
    "HttpSource",
    "NextLink",
    "Offset",
    "PageNumber",
    "Pagination",
    "PrefixSource",
    "SqlSource",
]
