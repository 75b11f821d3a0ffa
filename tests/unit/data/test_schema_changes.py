"""What changed between two lists of columns, and the verdict."""

from __future__ import annotations

import pyarrow as pa
import pytest

from airflow_provider_xops.data.schema_changes import columns_of, compare_schemas, schema_policy, widens
from airflow_provider_xops.errors import ArgumentError

BEFORE = [("id", "int32"), ("fare", "double"), ("note", "string"), ("kept", "bool")]
AFTER = [("kept", "bool"), ("id", "int64"), ("fare", "string"), ("remark", "string")]


def test_every_kind_of_change_is_named_with_its_verdict() -> None:
    changes = compare_schemas(BEFORE, AFTER, renames={"note": "remark"})

    assert [(c.change, c.column, c.before, c.after, c.verdict) for c in changes] == [
        ("widened", "id", "int32", "int64", "warn"),
        ("retyped", "fare", "double", "string", "fail"),
        ("renamed", "remark", "note", "remark", "warn"),
    ]


def test_without_a_guess_a_renamed_column_is_removed_and_added() -> None:
    changes = compare_schemas(BEFORE, AFTER, policy={"removed": "allow"})

    assert [(c.change, c.column, c.verdict) for c in changes][2:] == [
        ("removed", "note", "allow"),
        ("added", "remark", "warn"),
    ]


def test_the_same_columns_in_another_order_are_no_change() -> None:
    assert compare_schemas(BEFORE, BEFORE[::-1]) == ()


def test_a_rename_that_is_none_is_not_believed() -> None:
    assert compare_schemas(BEFORE, BEFORE, renames={"id": "kept", "gone": "note"}) == ()


def test_a_renamed_column_of_another_type_is_both() -> None:
    changes = compare_schemas([("a", "int64")], [("b", "string")], renames={"a": "b"})

    assert [(c.change, c.column) for c in changes] == [("renamed", "b"), ("retyped", "b")]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("int8", "int64", True),
        ("int64", "int32", False),
        ("int32", "double", True),
        ("int64", "double", False),  # 2^53 + 1 is no float
        ("uint8", "int16", True),
        ("uint8", "int8", False),
        ("int8", "uint16", False),  # -1
        ("float", "double", True),
        ("double", "float", False),
        ("int32", "decimal128(12, 2)", True),
        ("int32", "decimal128(11, 2)", False),
        ("decimal128(5, 2)", "decimal128(7, 4)", True),
        ("decimal128(5, 2)", "decimal128(6, 4)", False),
        ("string", "binary", False),
    ],
)
def test_a_type_is_wider_when_it_holds_every_value_exactly(before: str, after: str, expected: bool) -> None:
    assert widens(before, after) is expected


@pytest.mark.parametrize("policy", [{"gone": "fail"}, {"added": "stop"}])
def test_a_policy_that_says_something_else_is_refused(policy: dict[str, str]) -> None:
    with pytest.raises(ArgumentError) as refused:
        schema_policy(policy)

    assert refused.value.code == "argument.schema_policy"


def test_types_are_written_as_arrow_names_them() -> None:
    schema = pa.schema([("a", pa.int32()), ("b", pa.decimal128(5, 2)), ("c", pa.list_(pa.int8()))])

    assert columns_of(schema) == [("a", "int32"), ("b", "decimal128(5, 2)"), ("c", "list<int8>")]
