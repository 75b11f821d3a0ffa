"""The types a table of the lake can have, and the one way to bring data to them.

For everything that writes to the lake or computes a digest: :func:`to_delta_schema` says what a schema
becomes, :func:`cast_batch` brings a batch there, :class:`SchemaPolicy` says what happens to data of other
columns. Two batches with the same rows have the same canonical
form, whatever types their reader preferred (``large_string``, dictionaries, nanoseconds, unsigned
integers).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from airflow_provider_xops.errors import ArgumentError, DataError

__all__ = [
    "PARTITION_COLUMN",
    "SINCE_KEY",
    "SchemaPolicy",
    "added_columns",
    "cast_batch",
    "check_schema",
    "file_schema",
    "fit_batch",
    "fitted_schema",
    "to_delta_schema",
    "type_name",
]

PARTITION_COLUMN = "_xops_partition"

# A column that a table got later has in its metadata the version that added it.
SINCE_KEY = "xops.since"

_UNSIGNED = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
}
_AS_IT_IS = {
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.float32(),
    pa.float64(),
    pa.bool_(),
    pa.string(),
    pa.binary(),
    pa.date32(),
}


_POLICY = {
    "added": ("fail", "evolve", "ignore"),
    "removed": ("fail", "fill_null"),
    "retyped": ("fail", "widen"),
}


@dataclass(frozen=True, kw_only=True)
class SchemaPolicy:
    """What happens to data whose columns are not the table's. By default they are refused.

    :param added: ``evolve``: the table gets the column, missing in all rows that it had before; ``ignore``:
        the column is left out.
    :param removed: ``fill_null``: the column is missing in these rows (a key never is).
    :param retyped: ``widen``: values of a narrower type are kept in the table's wider one. The other way
        round is always refused: Delta Lake's type widening is not supported by the readers in use.
    :raises ArgumentError: ``argument.schema_policy``.
    """

    added: str = "fail"
    removed: str = "fail"
    retyped: str = "fail"

    def __post_init__(self) -> None:
        for change, known in _POLICY.items():
            if getattr(self, change) not in known:
                raise ArgumentError(
                    f"the policy for {change} columns is {str(getattr(self, change))[:40]!r}",
                    code="argument.schema_policy",
                    todo=f"use one of {', '.join(known)}",
                )

    @classmethod
    def of(cls, given: SchemaPolicy | Mapping[str, str] | None) -> SchemaPolicy:
        """The policy of a plain mapping; None is the default.

        >>> SchemaPolicy.of({"added": "evolve"}).removed
        'fail'
        """
        if isinstance(given, SchemaPolicy):
            return given
        unknown = sorted(set(given or {}) - set(_POLICY))
        if unknown:
            raise ArgumentError(
                f"a schema policy says nothing of {unknown[0]!r}",
                code="argument.schema_policy",
                todo=f"use {', '.join(_POLICY)}",
            )
        return cls(**dict(given or {}))


def to_delta_schema(schema: pa.Schema, *, allow_null_type: bool = False) -> pa.Schema:
    """The canonical schema in which the lake keeps data of ``schema``.

    Timestamps with a zone become UTC microseconds, unsigned integers the next wider signed type,
    dictionaries their values, every text type ``string``. Decimals, dates, lists, structs and maps stay.
    Nullability, field metadata and the names inside lists are not kept.

    :param allow_null_type: let columns of type *null* through (they fit any type of a table that exists).
    :raises DataError: ``data.naive_timestamp`` (declare the zone first), ``data.null_type`` (a column
        without any type), ``data.unsupported_type``, ``data.duplicate_column`` (Delta does not tell ``a``
        from ``A``), ``data.reserved_column``.

    >>> to_delta_schema(pa.schema([("n", pa.uint16()), ("s", pa.large_string())]))
    n: int32
    s: string

    It does not look at data: a value that does not fit is found by :func:`cast_batch`.
    """
    seen: set[str] = set()
    fields = []
    for field in schema:
        name = field.name
        if name.lower() == PARTITION_COLUMN or not name:
            raise DataError(
                f"the column name {name!r} is reserved", code="data.reserved_column", todo="rename the column"
            )
        if name.lower() in seen:
            raise DataError(
                f"the column {name!r} is there twice",
                code="data.duplicate_column",
                why="Delta Lake does not tell names apart by case",
                todo="rename one of them",
            )
        seen.add(name.lower())
        if allow_null_type and pa.types.is_null(field.type):
            fields.append(pa.field(name, pa.null()))
        else:
            fields.append(pa.field(name, _canonical(field.type, name)))
    return pa.schema(fields)


def check_schema(found: pa.Schema, expected: pa.Schema, *, subject: str, types: bool = True) -> None:
    """Nothing if ``found`` has exactly the columns of ``expected``, in any order; else an error.

    :param found: a schema as it came; a column of type *null* fits every type.
    :param expected: a canonical schema.
    :param types: compare types too; False where values are going to be cast to a declared schema.
    :raises DataError: ``data.schema_mismatch`` naming missing, extra and changed columns.
    """
    if not types:
        _compare(dict.fromkeys(found.names), dict.fromkeys(expected.names), subject)
        return
    canonical = to_delta_schema(found, allow_null_type=True)
    _compare(
        {field.name: None if pa.types.is_null(field.type) else field.type for field in canonical},
        {field.name: field.type for field in expected},
        subject,
    )


def cast_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """``batch`` with exactly the columns and types of ``schema``, in its order; no value is changed silently.

    :param schema: a canonical schema (:func:`to_delta_schema`) with the same column names.
    :raises DataError: ``data.cast``: a value does not fit its column's type (out of range, finer than a
        microsecond, not a number). The message names the column, never the value.
    """
    if batch.schema.equals(schema):
        return batch
    columns = [_cast(batch.column(field.name), field) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def fit_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Like :func:`cast_batch`, but columns that ``batch`` does not have are missing, others are left out."""
    if batch.schema.equals(schema):
        return batch
    columns = [
        _cast(batch.column(field.name), field)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def fitted_schema(
    found: pa.Schema, table: pa.Schema, policy: SchemaPolicy, *, keys: Iterable[str] = (), subject: str
) -> pa.Schema:
    """The columns of ``table`` with those that data of ``found`` add to it, if the policy lets them.

    :param found: a schema as it came; a column of type *null* fits every type.
    :param table: a canonical schema.
    :raises DataError: ``data.schema_mismatch`` names every difference that the policy does not let pass.
    """
    names = {name.lower(): name for name in table.names}
    canonical = to_delta_schema(
        pa.schema(
            # What is left out may be of any type, and what is there already of none.
            [f for f in found if f.name in table.names or policy.added != "ignore" or f.name.lower() in names]
        ),
        allow_null_type=True,
    )
    added = [field for field in canonical if field.name not in table.names]
    compared = {field.name: field.type for field in canonical if field.name in table.names}
    for name, kind in compared.items():
        wanted = table.field(name).type
        if pa.types.is_null(kind) or (policy.retyped == "widen" and _widens(kind, wanted)):
            compared[name] = wanted
    if policy.removed == "fill_null":
        kept = [name for name in table.names if name in compared or name in set(keys)]
    else:
        kept = table.names
    # Names that differ in case alone are one column to Delta Lake: no new one can be made of them.
    evolving = policy.added == "evolve" and not any(field.name.lower() in names for field in added)
    _compare(
        {**compared, **({} if evolving else {field.name: field.type for field in added})},
        {name: table.field(name).type for name in kept},
        subject,
    )
    if not evolving:
        return table
    to_delta_schema(pa.schema(added))  # a column without a type cannot be added
    return pa.schema([*table, *added])


def added_columns(schema: pa.Schema) -> dict[str, int]:
    """The columns a table got after it was made: name to the version that added it.

    :param schema: the Delta table's own, with its metadata.
    """
    found = {}
    for field in schema:
        since = (field.metadata or {}).get(SINCE_KEY.encode())
        if since is not None:
            found[field.name] = int(since)
    return found


def file_schema(schema: pa.Schema, added: Mapping[str, int], since: int) -> pa.Schema:
    """The columns of ``schema`` that are in a data file whose name says ``since``.

    A file of a version that can follow the one that added the column has it; an earlier one does not.

    >>> file_schema(pa.schema([("a", pa.int64()), ("b", pa.string())]), {"b": 7}, since=7).names
    ['a']
    """
    if not added:
        return schema
    return pa.schema([field for field in schema if added.get(field.name, -1) < since])


def type_name(kind: pa.DataType) -> str:
    """A stable name of a canonical type, whatever the fields inside lists are called.

    >>> type_name(pa.list_(pa.int64()))
    'list<int64>'
    """
    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    if pa.types.is_map(kind):
        return f"map<{type_name(kind.key_type)},{type_name(kind.item_type)}>"
    if pa.types.is_struct(kind):
        return "struct<" + ",".join(f"{field.name!r}:{type_name(field.type)}" for field in kind) + ">"
    return str(kind)


def _compare(found: dict[str, Any], expected: dict[str, Any], subject: str) -> None:
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    changed = [
        f"{name} ({type_name(expected[name])} expected, {type_name(kind)} found)"
        for name, kind in found.items()
        if kind is not None
        and expected.get(name) is not None
        and type_name(kind) != type_name(expected[name])
    ]
    if not (missing or extra or changed):
        return
    parts = [
        f"{word} {_listed(names)}"
        for word, names in (("missing", missing), ("extra", extra), ("changed", changed))
        if names
    ]
    raise DataError(
        f"the data do not have the columns of {subject}",
        code="data.schema_mismatch",
        why="; ".join(parts),
        todo="correct the source, let a schema policy decide about each change, or write to a new table",
        context={"missing": missing, "extra": extra, "changed": changed},
    )


def _widens(narrow: pa.DataType, wide: pa.DataType) -> bool:
    """Whether every value of one type is exactly one of the other."""
    is_ = pa.types
    if is_.is_signed_integer(narrow):
        if is_.is_signed_integer(wide):
            return bool(narrow.bit_width < wide.bit_width)
        if is_.is_floating(wide):
            return bool(narrow.bit_width <= wide.bit_width // 2)
        digits = {8: 3, 16: 5, 32: 10, 64: 19}[narrow.bit_width]
        return bool(is_.is_decimal(wide) and digits <= wide.precision - wide.scale)
    if is_.is_floating(narrow):
        return bool(is_.is_floating(wide) and narrow.bit_width < wide.bit_width)
    return bool(
        is_.is_decimal(narrow)
        and is_.is_decimal(wide)
        and narrow.scale <= wide.scale
        and narrow.precision - narrow.scale <= wide.precision - wide.scale
    )


def _listed(names: Iterable[str], limit: int = 20) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _canonical(kind: pa.DataType, column: str) -> pa.DataType:
    is_ = pa.types
    if kind in _AS_IT_IS:
        return kind
    if kind in _UNSIGNED:
        return _UNSIGNED[kind]
    if isinstance(kind, pa.BaseExtensionType):
        return _canonical(kind.storage_type, column)
    if is_.is_dictionary(kind) or is_.is_run_end_encoded(kind):
        return _canonical(kind.value_type, column)
    if is_.is_float16(kind):
        return pa.float32()
    if is_.is_large_string(kind) or is_.is_string_view(kind):
        return pa.string()
    if is_.is_large_binary(kind) or is_.is_binary_view(kind) or is_.is_fixed_size_binary(kind):
        return pa.binary()
    if is_.is_date64(kind):
        return pa.date32()
    if is_.is_timestamp(kind):
        if kind.tz is None:
            raise DataError(
                f"the timestamps of column {column!r} have no time zone",
                code="data.naive_timestamp",
                todo="declare the zone they were written in, for example timestamp[America/New_York]",
                context={"column": column},
            )
        return pa.timestamp("us", "UTC")
    if is_.is_decimal(kind) and kind.precision <= 38 and 0 <= kind.scale <= kind.precision:
        return pa.decimal128(kind.precision, kind.scale)
    if is_.is_map(kind):
        return pa.map_(_canonical(kind.key_type, column), _canonical(kind.item_type, column))
    if hasattr(kind, "value_type"):  # every kind of list
        return pa.list_(pa.field("element", _canonical(kind.value_type, column)))
    if is_.is_struct(kind) and kind.num_fields:
        return pa.struct(
            [pa.field(field.name, _canonical(field.type, f"{column}.{field.name}")) for field in kind]
        )
    if is_.is_null(kind):
        raise DataError(
            f"column {column!r} has no type",
            code="data.null_type",
            why="all of its values are missing",
            todo="declare the schema of the table",
            context={"column": column},
        )
    raise DataError(
        f"column {column!r} has the type {kind}, which a Delta table cannot keep",
        code="data.unsupported_type",
        todo="cast it first (durations and times of day to a number, for example)",
        context={"column": column},
    )


def _cast(column: Any, field: pa.Field) -> Any:
    if column.type == field.type:
        return column
    try:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # The library's message quotes the value; values of rows belong neither into logs nor into records.
        raise DataError(
            f"column {field.name!r} has values that do not fit the type {type_name(field.type)}",
            code="data.cast",
            why=f"it came as {column.type}",
            todo="correct the source, or declare another type",
            context={"column": field.name},
        ) from None
