"""Rows of the prediction log: what a request leaves, and how many requests become one Arrow table.

For :mod:`airflow_provider_xops.serving.online.prediction_log`. A batch is kept as the request left it; it
becomes Arrow only when it is written, in the log's own thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_provider_xops.errors import DataError
from airflow_provider_xops.records import ServingSession, VariantRole
from airflow_provider_xops.serving.online.sessions import id_prefix, key_digest

__all__ = ["ALL", "LOG_COLUMNS", "LoggedBatch", "column_of", "day_of", "tables_by_day"]

ALL = "*"
_MOMENT = pa.timestamp("us", "UTC")
_HEAD = ("prediction_id", "request_id")
_TAIL: dict[str, pa.DataType | None] = {
    "prediction": None,  # as the model's classes are, or a number
    "score": pa.float64(),
    "model_name": pa.string(),
    "model_version": pa.int64(),
    "alias": pa.string(),
    "variant": pa.string(),
    "weight": pa.float64(),
    "server": pa.string(),
    "at": _MOMENT,
    "duration_ms": pa.float64(),
    "request_key": pa.string(),
    "shadow_of": pa.string(),
    "error": pa.string(),
}
LOG_COLUMNS = (*_HEAD, *_TAIL)
_TAKEN = frozenset(LOG_COLUMNS)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedBatch:
    """What one request (or one shadow's look at it) leaves for the log.

    :param session: of the version that predicted. :param variant: its part in the alias, with its ``weight``.
    :param first: number of its first prediction; ``<prefix>-<first>`` is its id, the others follow.
    :param rows: how many predictions.
    :param at: when it was answered (aware, UTC).
    :param predictions: one label or number a row; None with ``error``.
    :param scores: the positive class's probability of each row; None where the model gives none.
    :param key: the request's sticky key as it came; only a digest of it is kept.
    :param columns: the input by column (a mapping, a pandas frame, an Arrow table); of it only what the log
        keeps is kept. Must not be changed afterwards.
    :param shadow_of: of a shadow: id of the first prediction of the answer that the caller got.
    :param duration_ms: milliseconds that predicting took.
    :param error: code of the error where there was no answer; the batch is then one row without a prediction.
    """

    session: ServingSession
    variant: VariantRole
    first: int
    rows: int
    at: datetime
    predictions: Any = field(default=None, repr=False)
    scores: Any = field(default=None, repr=False)
    weight: float = 1.0
    key: str | None = field(default=None, repr=False)
    columns: Any = field(default=None, repr=False)
    shadow_of: str | None = None
    duration_ms: float | None = None
    error: str = ""

    @property
    def logged_rows(self) -> int:
        """Rows that it takes in the log."""
        return 1 if self.error else self.rows


def column_of(feature: str) -> str:
    """The log's column of a feature: its name, unless the log has a column of that name.

    >>> column_of("distance"), column_of("Score")
    ('distance', 'feature_Score')
    """
    return f"feature_{feature}" if feature.lower() in _TAKEN else feature


def day_of(at: datetime) -> str:
    """The partition of a moment: its day in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d}"


def tables_by_day(
    batches: Iterable[LoggedBatch], *, keep: Sequence[str], lake_id: str, known: pa.Schema | None
) -> dict[str, pa.Table]:
    """The rows of some batches by day, each day's table with the columns of all.

    :param keep: features that are kept, ``*`` for all. :param known: the table's columns so far; values come
        in their types where none is changed by that.
    :raises DataError: ``data.log_type``: a value does not fit its column; the message has no value.
    """
    by_session: dict[tuple[str, str], list[LoggedBatch]] = {}
    for batch in batches:
        by_session.setdefault((day_of(batch.at), batch.session.record_id), []).append(batch)
    made = {key: _table(several, keep, lake_id) for key, several in by_session.items()}
    schema = _common_schema([table.schema for table in made.values()], known)
    days: dict[str, list[pa.Table]] = {}
    for (day, _session), table in made.items():
        days.setdefault(day, []).append(_fitted(table, schema))
    return {day: pa.concat_tables(tables).combine_chunks() for day, tables in sorted(days.items())}


def _table(batches: Sequence[LoggedBatch], keep: Sequence[str], lake_id: str) -> pa.Table:
    """The rows of one session's batches."""
    session = batches[0].session
    counts = np.array([batch.logged_rows for batch in batches])
    prefix = id_prefix(session)
    ids = [
        f"{prefix}-{number}"
        for batch in batches
        for number in range(batch.first, batch.first + batch.logged_rows)
    ]
    each: dict[str, Any] = {
        "request_id": _repeated([f"{prefix}-{batch.first}" for batch in batches], counts, pa.string()),
        "alias": _repeated([session.alias] * len(batches), counts, pa.string()),
        "variant": _repeated([batch.variant.value for batch in batches], counts, pa.string()),
        "weight": _repeated([batch.weight for batch in batches], counts, pa.float64()),
        "at": _repeated([batch.at for batch in batches], counts, _MOMENT),
        "duration_ms": _repeated([batch.duration_ms for batch in batches], counts, pa.float64()),
        "request_key": _repeated(
            [None if batch.key is None else key_digest(lake_id, batch.key) for batch in batches],
            counts,
            pa.string(),
        ),
        "error": _repeated([batch.error or None for batch in batches], counts, pa.string()),
        "prediction_id": pa.array(ids, pa.string()),
        "shadow_of": pa.array([each for batch in batches for each in _shadowed(batch)], pa.string()),
        "prediction": _whole(_joined([(batch.predictions, batch) for batch in batches], "prediction")),
        "score": _numbers(_joined([(batch.scores, batch) for batch in batches], "score")),
        "model_name": pa.repeat(pa.scalar(session.model.name), len(ids)),
        "model_version": pa.repeat(pa.scalar(session.model.version, pa.int64()), len(ids)),
        "server": pa.repeat(pa.scalar(session.server), len(ids)),
    }
    features = {column_of(name): values for name, values in _features(batches, keep).items()}
    names = [*_HEAD, *features, *_TAIL]
    return pa.table({name: each[name] if name in each else features[name] for name in names})


def _repeated(values: Sequence[Any], counts: Any, kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind).take(pa.array(np.repeat(np.arange(len(counts)), counts)))


def _shadowed(batch: LoggedBatch) -> Iterable[str | None]:
    if batch.shadow_of is None:
        return [None] * batch.logged_rows
    prefix, _, first = batch.shadow_of.rpartition("-")
    return [f"{prefix}-{int(first) + row}" for row in range(batch.logged_rows)]


def _features(batches: Sequence[LoggedBatch], keep: Sequence[str]) -> dict[str, pa.Array]:
    """The columns that are kept, over all rows of the batches."""
    if not keep:
        return {}
    framed = [batch for batch in batches if not batch.error and isinstance(batch.columns, pd.DataFrame)]
    if not framed or any(not batch.columns.columns.equals(framed[0].columns.columns) for batch in framed):
        framed = []
    found = _of_frames([batch.columns for batch in framed], keep) if framed else {}
    others = [batch for batch in batches if batch.columns is not None and not batch.error]
    if len(framed) == len(batches):
        return found
    if len(framed) == len(others):
        # Rows of failed requests have no input: their place is taken by null.
        whole = {id(batch) for batch in framed}
        here = np.concatenate([np.full(each.logged_rows, id(each) in whole) for each in batches])
        places = pa.array(np.where(here, np.cumsum(here) - 1, 0), mask=~here)
        return {name: values.take(places) for name, values in found.items()}
    return {
        name: _joined([(_column(batch.columns, name), batch) for batch in batches], name)
        for name in _kept(batches, keep)
    }


def _of_frames(frames: Sequence[pd.DataFrame], keep: Sequence[str]) -> dict[str, pa.Array]:
    """The columns of frames that have the same ones: many small frames are joined before they are split."""
    names = [str(name) for name in frames[0].columns]
    values = [frame.to_numpy() for frame in frames]
    if all(each.dtype == np.float64 for each in values):
        joined = np.concatenate(values)
        columns: dict[str, Any] = {name: joined[:, place] for place, name in enumerate(names)}
    else:
        together = pd.concat(frames, ignore_index=True)
        columns = {name: together.iloc[:, place] for place, name in enumerate(names)}
    return {
        name: _arrow(_plain(column), name) for name, column in columns.items() if ALL in keep or name in keep
    }


def _kept(batches: Sequence[LoggedBatch], keep: Sequence[str]) -> list[str]:
    """The columns to keep, of those that some batch has, in the order in which they come."""
    there: dict[str, None] = {}
    for batch in batches if keep else ():
        if batch.columns is not None and not batch.error:
            there |= dict.fromkeys(_names(batch.columns))
    return [name for name in there if ALL in keep or name in keep]


def _names(columns: Any) -> list[str]:
    if isinstance(columns, pa.Table | pa.RecordBatch):
        return list(columns.schema.names)
    return [str(name) for name in columns]


def _column(columns: Any, name: str) -> Any:
    if columns is None:
        return None
    if isinstance(columns, pa.Table | pa.RecordBatch):
        return columns.column(name) if name in columns.schema.names else None
    if isinstance(columns, Mapping):
        return columns.get(name)
    return columns[name] if name in columns.columns else None


def _joined(parts: Sequence[tuple[Any, LoggedBatch]], name: str) -> pa.Array:
    """One column from the values of several batches; missing where a batch has none."""
    arrays: list[Any] = []
    for values, batch in parts:
        if values is None or batch.error:
            arrays.append(None)
        elif isinstance(values, pa.Array | pa.ChunkedArray):
            arrays.append(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)
        else:
            arrays.append(_plain(values))
    there = [each for each in arrays if each is not None]
    if not there:
        return pa.nulls(sum(batch.logged_rows for _, batch in parts), pa.null())
    if len(there) == len(arrays) and all(isinstance(each, np.ndarray) for each in there):
        return _arrow(np.concatenate(there), name)
    columns = [_arrow(each, name) for each in there]
    kind = _common_type([column.type for column in columns], name)
    waiting = iter(columns)
    return pa.concat_arrays(
        [
            pa.nulls(batch.logged_rows, kind) if values is None else _cast(next(waiting), kind, name)
            for values, (_, batch) in zip(arrays, parts, strict=True)
        ]
    )


def _plain(values: Any) -> Any:
    """The values as NumPy has them; times with a zone go as UTC."""
    dtype = getattr(values, "dtype", None)
    if getattr(dtype, "tz", None) is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    return np.asarray(values)


def _arrow(values: Any, name: str) -> pa.Array:
    """Arrow's form of some values: text for objects, UTC for times, 64 bits for numbers."""
    if isinstance(values, pa.Array):
        return values
    kind = values.dtype.kind
    try:
        if kind == "M":
            return pa.array(values.astype("datetime64[us]")).cast(_MOMENT)
        if kind in "OUS":
            return _objects(values)
        if kind == "b":
            return pa.array(values)
        if kind in "iu":
            return pa.array(values).cast(pa.int64())
        return pa.array(values.astype(np.float64), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError):
        raise _unfit(name) from None


def _objects(values: Any) -> pa.Array:
    missing = np.array([value is None or value is pd.NA or value != value for value in values], dtype=bool)
    found = [value for value, gone in zip(values, missing, strict=True) if not gone]
    if found and all(isinstance(value, bool | np.bool_) for value in found):
        return pa.array([None if gone else bool(v) for v, gone in zip(values, missing, strict=True)])
    if found and all(isinstance(value, int | float | np.number) for value in found):
        return pa.array([None if gone else float(v) for v, gone in zip(values, missing, strict=True)])
    if found and all(isinstance(value, datetime | np.datetime64) for value in found):
        return pa.array([None if gone else _utc(v) for v, gone in zip(values, missing, strict=True)], _MOMENT)
    return pa.array([None if gone else str(v) for v, gone in zip(values, missing, strict=True)], pa.string())


def _utc(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value.astype("datetime64[us]").item().replace(tzinfo=UTC)


def _whole(column: pa.Array) -> pa.Array:
    """Yes and no as batch predictions have them: 1 and 0."""
    return column.cast(pa.int64()) if pa.types.is_boolean(column.type) else column


def _numbers(column: pa.Array) -> pa.Array:
    return column.cast(pa.float64())


def _common_schema(schemas: Sequence[pa.Schema], known: pa.Schema | None) -> pa.Schema:
    """The columns of all, in the types of the table where it has them."""
    found: dict[str, list[pa.DataType]] = {}
    for schema in schemas:
        for one in schema:
            found.setdefault(one.name, []).append(one.type)
    names = [*_HEAD, *(name for name in found if name not in _TAKEN), *_TAIL]
    fields = []
    for name in names:
        kind = _TAIL.get(name) or (pa.string() if name in _HEAD else None)
        if known is not None and name in known.names:
            kind = known.field(name).type
        kind = kind or _common_type(found[name], name)
        if pa.types.is_null(kind):
            # Nothing has told its type yet; a column comes with the first value of it. Also the prediction: a
            # model of words whose first requests all failed must not find a column of numbers.
            continue
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _common_type(kinds: Sequence[pa.DataType], name: str) -> pa.DataType:
    there = {kind for kind in kinds if not pa.types.is_null(kind)}
    if len(there) < 2:
        return there.pop() if there else pa.null()
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in there):
        return pa.float64()
    if all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in there):
        return pa.string()
    raise _unfit(name)


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    arrays = [
        _cast(table.column(one.name), one.type, one.name)
        if one.name in table.schema.names
        else pa.nulls(table.num_rows, one.type)
        for one in schema
    ]
    return pa.table(arrays, schema=schema)


def _cast(column: Any, kind: pa.DataType, name: str) -> Any:
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _unfit(name) from None


def _unfit(name: str) -> DataError:
    return DataError(
        f"the prediction log has values that do not fit its column {name!r}",
        code="data.log_type",
        why="the column has had another type since the table was made, or the versions differ in it",
        todo="log this model into a table of its own, or leave the column out",
        context={"column": name},
    )
