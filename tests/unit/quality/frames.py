"""Frames for the tests of the engines: Arrow tables in memory."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa


class ArrowFrame:
    """The rows of an Arrow table."""

    def __init__(self, columns: dict[str, Any] | pa.Table) -> None:
        self._table = columns if isinstance(columns, pa.Table) else pa.table(columns)

    @property
    def schema(self) -> pa.Schema:
        return self._table.schema

    @property
    def rows(self) -> int:
        return self._table.num_rows

    def pandas(self) -> pd.DataFrame:
        return self._table.to_pandas()
