"""Tables: names, versions, and what is said when one is not there."""

from __future__ import annotations

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import ArgumentError, DataError, LakeError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import (
    check_table_name,
    ensure_table,
    head,
    list_tables,
    open_table,
    resolve_ref,
    segments_of,
    table_exists,
    table_info,
    table_schema,
)
from airflow_provider_xops.records import WriteMode
from tests.unit.lake.helpers import put, segment, user


@pytest.mark.parametrize("name", ["flights", "flights__raw", "a-b.c", "0"])
def test_plain_names_are_names(name: str) -> None:
    assert check_table_name(name) == name


@pytest.mark.parametrize("name", ["", "_xops", "a/b", "..", "a b", "ä", "x" * 200, "a."])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        check_table_name(name)

    assert caught.value.code == "argument.table"


def test_a_missing_table_says_so(lake: Lake) -> None:
    with pytest.raises(NotFoundError) as caught:
        head(lake, "flights")

    assert caught.value.code == "not_found.table"
    assert "flights" in str(caught.value)
    assert not table_exists(lake, "flights")


def test_a_missing_version_says_what_there_is(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"a": [1]}))

    with pytest.raises(NotFoundError) as caught:
        resolve_ref(lake, "t", 7)

    assert caught.value.code == "not_found.version"
    assert "newest is 0" in str(caught.value)


def test_a_version_can_be_named(lake: Lake) -> None:
    first = put(lake, "t", segment("p", "1", {"a": [1]})).record
    second = put(lake, "t", segment("p", "2", {"a": [2]}), actor=user(2)).record

    assert resolve_ref(lake, "t", 0) == first.ref
    assert resolve_ref(lake, "t") == second.ref


def test_raw_tables_are_read_on_purpose(lake: Lake) -> None:
    put(lake, "t__raw", segment("p", "1", {"a": [1]}))

    with pytest.raises(ArgumentError) as caught:
        resolve_ref(lake, "t__raw")

    assert caught.value.code == "argument.raw_table"
    assert resolve_ref(lake, "t__raw", allow_raw=True).version == 0


def test_an_open_table_says_what_it_is(lake: Lake) -> None:
    put(lake, "t", segment("q", "1", {"k": [1, 2], "v": ["a", "b"]}, "b"), mode=WriteMode.MERGE, keys=["k"])
    handle = open_table(lake, "t")

    info = table_info(handle)
    (file,) = segments_of(handle)

    assert info is not None
    assert (info.mode, info.keys) == (WriteMode.MERGE, ("k",))
    assert table_schema(handle) == pa.schema([("k", pa.int64()), ("v", pa.string())])
    assert (file.partition, file.rows, file.part, file.since) == ("q", 2, 0, 0)
    assert lake.storage.exists(f"t/{file.path}")


def test_a_table_can_be_made_empty_once(lake: Lake) -> None:
    schema = pa.schema([("k", pa.uint8())])

    first = ensure_table(lake, "t", schema, mode=WriteMode.APPEND, keys=["k"], actor=user())
    again = ensure_table(lake, "t", schema, mode=WriteMode.APPEND, keys=["k"], actor=user())

    assert first.metadata().id == again.metadata().id
    put(lake, "t", segment("p", "1", pa.table({"k": pa.array([1], pa.uint8())}), "b"), mode=WriteMode.APPEND)
    assert head(lake, "t").version == 1
    with pytest.raises(DataError):
        ensure_table(lake, "t", schema, mode=WriteMode.REPLACE, actor=user())


def test_tables_are_listed_without_the_lakes_own(lake: Lake) -> None:
    for name in ("b", "a__raw"):
        put(lake, name, segment("p", "1", {"a": [1]}))

    assert list_tables(lake) == ["a__raw", "b"]


def test_a_damaged_log_is_a_typed_error(lake: Lake) -> None:
    lake.storage.put_if_absent(f"t/_delta_log/{0:020d}.json", b"not json")

    with pytest.raises(LakeError) as caught:
        open_table(lake, "t")

    assert caught.value.code == "lake.delta"
