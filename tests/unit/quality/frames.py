"""Frames for the tests of the engines: Arrow tables in memory."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from airflow_provider_xops.quality.frames import ArrowFrame


def frame(columns: dict[str, Any] | pa.Table) -> ArrowFrame:
    """The rows of an Arrow table, or of columns as lists."""
    return ArrowFrame(columns if isinstance(columns, pa.Table) else pa.table(columns))
