"""From the lake's Arrow rows to the frame an estimator sees, the same at training, evaluation and scoring.

The dtype of a column depends on its type in the table alone, never on the values of a batch: numbers and
booleans become float64 with NaN where missing; text becomes object with NaN where missing, which
scikit-learn's encoders and imputers take as it is; dates and times stay pandas times. Nothing is imputed
and no row is dropped.

What it does not do: whole numbers beyond 2**53 lose their last digits, so an identifier is no feature.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from airflow_provider_xops.errors import DataError

__all__ = ["default_features", "feature_frame", "has_target", "target_values", "unusable_columns"]


def feature_frame(table: pa.Table | pa.RecordBatch, features: Sequence[str]) -> pd.DataFrame:
    """The features as a pandas frame: one row a row, in the same order, columns in the order of ``features``.

    :raises DataError: ``data.feature_type`` when a column has a type no estimator takes (lists, bytes,
        structs).

    >>> table = pa.table({"distance": [719, None], "carrier": ["UA", None]})
    >>> feature_frame(table, ["carrier", "distance"]).dtypes.astype(str).to_dict()
    {'carrier': 'object', 'distance': 'float64'}
    """
    unusable = unusable_columns(table.schema, features)
    if unusable:
        raise DataError(
            f"{len(unusable)} column(s) cannot be features: {', '.join(unusable)}", code="data.feature_type",
            why="an estimator takes numbers, booleans, text, dates and times",
            todo="leave them out (features or drop), or transform them before training",
        )  # fmt: skip
    columns = {name: _column(table.column(name)) for name in features}
    return pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows), columns=list(features))


def target_values(table: pa.Table, target: str) -> Any:
    """The target as a NumPy array: whole numbers and booleans int64, other numbers float64, text object.

    Rows without a target must be gone (:func:`has_target`).

    :raises DataError: ``data.target_type`` when the column is of another type.
    """
    column = table.column(target)
    kind = column.type
    if pt.is_boolean(kind) or pt.is_integer(kind):
        return np.asarray(column.cast(pa.int64()))
    if pt.is_floating(kind) or pt.is_decimal(kind):
        return np.asarray(column.cast(pa.float64()))
    if _is_text(kind):
        return np.asarray(_plain_text(column).to_pylist(), dtype=object)
    raise DataError(
        f"column {target!r} is {kind} and cannot be a target", code="data.target_type",
        todo="predict a number, a boolean or a text label",
    )  # fmt: skip


def has_target(table: pa.Table, target: str) -> Any:
    """Which rows have a target: neither null nor NaN."""
    column = table.column(target)
    valid = pc.is_valid(column)
    if pt.is_floating(column.type):
        valid = pc.and_(valid, pc.invert(pc.fill_null(pc.is_nan(column), True)))
    return np.asarray(valid)


def default_features(schema: pa.Schema, *, without: Collection[str]) -> tuple[str, ...]:
    """Every column but the ones named, in the table's order."""
    return tuple(name for name in schema.names if name not in without)


def unusable_columns(schema: pa.Schema, features: Sequence[str]) -> list[str]:
    """The features whose type no estimator takes, each as ``name (type)``."""
    return [
        f"{name} ({schema.field(name).type})" for name in features if not _usable(schema.field(name).type)
    ]


def _usable(kind: pa.DataType) -> bool:
    number = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_boolean(kind)
    return bool(number or _is_text(kind) or pt.is_timestamp(kind) or pt.is_date(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pt.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _plain_text(column: pa.Array | pa.ChunkedArray) -> Any:
    return column.cast(pa.string()) if not pt.is_string(column.type) else column


def _column(column: pa.Array | pa.ChunkedArray) -> Any:
    kind = column.type
    if _is_text(kind):
        return pd.Series(_text(column), dtype=object)
    if pt.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz)).to_pandas()
    if pt.is_date(kind):
        return column.cast(pa.timestamp("us")).to_pandas()
    return pd.Series(np.asarray(column.cast(pa.float64(), safe=False)))


def _text(column: pa.Array | pa.ChunkedArray) -> Any:
    """Text as an object array in which equal values are one Python string, NaN where missing."""
    encoded = _plain_text(column)
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    encoded = encoded.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    # Index -1 (missing) takes the last entry, which is NaN.
    words = np.array([*encoded.dictionary.to_pylist(), np.nan], dtype=object)
    return words[np.asarray(pc.fill_null(encoded.indices, -1))]
