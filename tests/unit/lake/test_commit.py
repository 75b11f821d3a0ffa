"""Commits: what is written, what is refused, what is found again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_xops.errors import (
    ArgumentError,
    ConflictError,
    DataError,
    LakeError,
    SourceError,
    Superseded,
)
from airflow_provider_xops.lake import commit as module
from airflow_provider_xops.lake.commit import Segment
from airflow_provider_xops.lake.history import stored_record
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.read import count_rows, partition_digests, partitions, scan, verify_version
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.records import DatasetRef, SourceFile, WriteMode
from airflow_provider_xops.settings import LakeSettings
from tests.unit.lake.helpers import AS_OF, put, rows_of, segment, untouchable, user

APPEND = WriteMode.APPEND
MERGE: dict[str, Any] = {"mode": WriteMode.MERGE, "keys": ["k"]}


def files_in(lake: Lake, table: str) -> list[Path]:
    return sorted((Path(lake.uri) / table).rglob("*.parquet"))


def test_the_first_commit_makes_the_table_and_records_the_version(lake: Lake) -> None:
    parent = DatasetRef(lake_id=lake.lake_id, table="raw", table_uuid="u", version=3)
    source = SourceFile(uri="file:///in.csv", name="in.csv", sha256="ab", size_bytes=7, modified_at=AS_OF)
    given_segment = replace(segment("2013-01-01", "input-1", {"a": [1, 2]}), sources=(source,))

    result = put(
        lake,
        "flights",
        given_segment,
        parents=[parent],
        parent_partitions=[["2013-01-01"]],
        parent_records=["r1"],
        note="first load",
        actor=user(41),
    )

    record = result.record
    assert not result.reused
    assert (record.version, record.rows, record.total_rows) == (0, 2, 2)
    assert record.partitions == ("2013-01-01",)
    assert record.input_fingerprint == "input-1"
    assert record.parents == (parent,)
    assert record.parent_partitions == (("2013-01-01",),)
    assert record.parent_records == ("r1",)
    assert record.sources == (source,)
    assert (record.note, record.produced_by, record.recorded_at) == ("first load", user().producer, AS_OF)
    assert record.ref == head(lake, "flights")
    assert stored_record(lake, record.ref) == record
    assert verify_version(lake, record.ref) == []


def test_history_is_kept_and_no_values_are_in_the_log(lake: Lake) -> None:
    put(lake, "t", segment("all", "1", {"name": ["secret-person"]}))
    handle = DeltaTable(lake.storage.table_uri("t"))

    log = (Path(lake.uri) / "t" / "_delta_log" / f"{0:020d}.json").read_text()

    assert handle.metadata().configuration["delta.enableExpiredLogCleanup"] == "false"
    assert '\\"nullCount\\"' in log
    assert "secret-person" not in log


def test_the_same_fingerprint_is_not_committed_twice_and_its_data_are_not_read(lake: Lake) -> None:
    first = put(lake, "t", segment("p", "same", {"a": [1]}))

    again = put(lake, "t", untouchable("p", "same"), actor=user(99))

    assert again.reused
    assert again.record == first.record
    assert head(lake, "t").version == 0


def test_a_new_fingerprint_replaces_the_partition_and_only_it(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"a": [1]}), segment("q", "1", {"a": [7]}))

    second = put(lake, "t", segment("p", "2", {"a": [3, 4]}), actor=user(2))

    assert rows_of(lake, "t") == {"p": [(3,), (4,)], "q": [(7,)]}
    assert (second.record.partitions, second.record.rows, second.record.total_rows) == (("p",), 2, 3)


def test_segments_that_are_done_are_skipped(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"a": [1]}))

    result = put(lake, "t", untouchable("p", "1"), segment("q", "1", {"a": [2]}), actor=user(2))

    assert not result.reused
    assert result.record.partitions == ("q",)
    assert rows_of(lake, "t") == {"p": [(1,)], "q": [(2,)]}


def test_an_input_that_comes_back_is_committed_again(lake: Lake) -> None:
    for fence, (fingerprint, value) in enumerate([("A", 1), ("B", 2), ("A", 1)]):
        put(lake, "t", segment("p", fingerprint, {"a": [value]}), actor=user(fence))

    assert rows_of(lake, "t") == {"p": [(1,)]}
    assert head(lake, "t").version == 2


def test_the_same_actor_may_write_a_partition_several_times(lake: Lake) -> None:
    for fingerprint, value in (("A", 1), ("B", 2), ("A", 1)):
        put(lake, "t", segment("p", fingerprint, {"a": [value]}), actor=user(5))

    assert rows_of(lake, "t") == {"p": [(1,)]}


def test_an_older_attempt_is_superseded_and_writes_nothing(lake: Lake) -> None:
    put(lake, "t", segment("p", "new", {"a": [2]}), actor=user(20))
    files = files_in(lake, "t")

    with pytest.raises(Superseded) as caught:
        put(lake, "t", untouchable("p", "old"), actor=user(10))

    assert caught.value.context["fence"] == 20
    assert not caught.value.retryable
    assert rows_of(lake, "t") == {"p": [(2,)]}
    assert files_in(lake, "t") == files


def test_an_older_attempt_may_still_write_another_partition(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"a": [2]}), actor=user(20))

    put(lake, "t", segment("q", "1", {"a": [3]}), actor=user(10))

    assert rows_of(lake, "t") == {"p": [(2,)], "q": [(3,)]}


def test_another_batch_id_does_not_get_around_the_fence_of_a_replaced_partition(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"a": [2]}, "by-dag-one"), actor=user(20))

    with pytest.raises(Superseded):
        put(lake, "t", segment("p", "1", {"a": [3]}, "by-dag-two"), actor=user(10))
    put(lake, "t", segment("p", "1", {"a": [3]}, "by-dag-two"), actor=user(30))

    assert rows_of(lake, "t") == {"p": [(3,)]}


def test_no_rows_make_the_partition_empty(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"a": [1]}))

    result = put(lake, "t", segment("p", "2", pa.table({"a": pa.array([], pa.int64())})), actor=user(2))

    ref = result.record.ref
    assert result.record.rows == 0
    assert partitions(lake, ref) == ["p"]
    assert count_rows(lake, ref) == 0
    assert scan(lake, ref).read_all().num_rows == 0
    assert put(lake, "t", untouchable("p", "2"), actor=user(3)).reused


def test_append_adds_batches_and_replaces_only_its_own(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"a": [1]}, "one"), mode=APPEND)
    put(lake, "t", segment("p", "1", {"a": [2]}, "two"), mode=APPEND)

    changed = put(lake, "t", segment("p", "2", {"a": [5, 6]}, "one"), mode=APPEND, actor=user(2))

    assert sorted(rows_of(lake, "t")["p"]) == [(2,), (5,), (6,)]
    assert changed.record.rows == 3
    assert changed.record.partition_digests == (partition_digests(lake, changed.record.ref)["p"],)


def test_merge_replaces_rows_by_key_and_keeps_the_order_of_the_others(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"k": [3, 1, 2, None][:3], "v": ["c", "a", "b"]}, "one"), **MERGE)

    put(lake, "t", segment("p", "1", {"k": [2, 9], "v": ["B", "z"]}, "two"), **MERGE)

    assert sorted(rows_of(lake, "t")["p"]) == [(1, "a"), (2, "B"), (3, "c"), (9, "z")]
    assert verify_version(lake, head(lake, "t")) == []
    assert put(lake, "t", untouchable("p", "1", "one"), actor=user(3), **MERGE).reused


def test_merge_leaves_files_without_its_keys_alone(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"k": [1], "v": ["a"]}, "one"), **MERGE)
    before = set(DeltaTable(lake.storage.table_uri("t")).file_uris())

    put(lake, "t", segment("p", "1", {"k": [2], "v": ["b"]}, "two"), **MERGE)
    put(lake, "t", segment("q", "1", {"k": [1], "v": ["other partition"]}, "three"), **MERGE)

    assert before < set(DeltaTable(lake.storage.table_uri("t")).file_uris())


def test_merge_by_several_keys_and_types(lake: Lake) -> None:
    options: dict[str, Any] = {"mode": WriteMode.MERGE, "keys": ["day", "name"]}
    day = pa.array([0, 0, 1], pa.timestamp("us", "UTC"))
    put(
        lake,
        "t",
        segment("p", "1", pa.table({"day": day, "name": ["x", "y", "x"], "v": [1, 2, 3]}), "one"),
        **options,
    )

    update = pa.table({"day": day[1:], "name": ["y", "x"], "v": [20, 30]})
    put(lake, "t", segment("p", "1", update, "two"), **options)

    assert sorted(row[2] for row in rows_of(lake, "t")["p"]) == [1, 20, 30]


@pytest.mark.parametrize(("keys", "code"), [([1, 1], "data.duplicate_keys"), ([1, None], "data.null_key")])
def test_keys_that_identify_no_row_are_refused(lake: Lake, keys: list[Any], code: str) -> None:
    with pytest.raises(DataError) as caught:
        put(lake, "t", segment("p", "1", {"k": keys, "v": [1, 2]}, "one"), **MERGE)

    assert caught.value.code == code
    assert not table_exists(lake, "t")


def test_rows_are_sorted_by_keys_then_by_everything_else(lake: Lake) -> None:
    rows = [(2, "b", [1]), (1, "z", None), (2, "a", [2]), (1, "z", [0]), (2, "a", [1])]
    digests = set()
    for fence in range(3):
        random.Random(fence).shuffle(rows)
        table = pa.table({"k": [r[0] for r in rows], "s": [r[1] for r in rows], "l": [r[2] for r in rows]})
        record = put(lake, "t", segment("p", str(fence), table), keys=["k"], actor=user(fence)).record
        digests.add(record.partition_digests)

    assert rows_of(lake, "t")["p"] == [
        (1, "z", None),
        (1, "z", [0]),
        (2, "a", [1]),
        (2, "a", [2]),
        (2, "b", [1]),
    ]
    assert len(digests) == 1


def test_without_keys_the_order_of_arrival_is_kept(lake: Lake) -> None:
    values = list(range(1000))
    random.Random(1).shuffle(values)

    put(lake, "t", segment("p", "1", {"a": values}))

    assert [row[0] for row in rows_of(lake, "t")["p"]] == values


def test_many_row_groups_and_parts_read_back_in_order(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_xops.lake import parquet_files

    monkeypatch.setattr(parquet_files, "ROW_GROUP_ROWS", 7)
    monkeypatch.setattr(parquet_files.write_segment, "__kwdefaults__", {"part_bytes": 200})
    values = [f"value {i}" for i in range(100)]
    table = pa.concat_tables([pa.table({"a": values[:33]}), pa.table({"a": values[33:]})])

    result = put(lake, "t", segment("p", "1", table))

    assert len(files_in(lake, "t")) > 3
    assert [row[0] for row in rows_of(lake, "t")["p"]] == values
    assert verify_version(lake, result.record.ref) == []
    put(lake, "t", segment("p", "2", {"a": ["x"]}), actor=user(2))
    assert rows_of(lake, "t") == {"p": [("x",)]}


def test_a_changed_column_is_refused_by_name_and_changes_nothing(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"a": [1], "b": ["x"]}))

    with pytest.raises(DataError) as caught:
        put(lake, "t", segment("p", "2", {"a": ["1"], "c": ["x"]}), actor=user(2))

    assert caught.value.code == "data.schema_mismatch"
    assert caught.value.context == {
        "missing": ["b"],
        "extra": ["c"],
        "changed": ["a (int64 expected, string found)"],
    }
    assert head(lake, "t").version == 0


def test_a_declared_schema_casts_values(lake: Lake) -> None:
    declared = pa.schema([("a", pa.int16()), ("b", pa.string())])

    put(lake, "t", segment("p", "1", {"b": pa.nulls(2), "a": [1, 2]}), schema=declared)

    assert scan(lake, head(lake, "t")).schema == declared
    assert rows_of(lake, "t") == {"p": [(1, None), (2, None)]}


def test_mode_and_keys_are_fixed_by_the_first_commit(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"k": [1]}), keys=["k"])

    for options in ({"mode": APPEND}, {"keys": ["other"]}):
        with pytest.raises(DataError) as caught:
            put(lake, "t", segment("p", "2", {"k": [1]}, "b"), **options)
        assert caught.value.code == "data.mode_mismatch"
    put(lake, "t", segment("p", "2", {"k": [2, 1]}), actor=user(2))
    assert rows_of(lake, "t") == {"p": [(1,), (2,)]}


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda lake: put(lake, "t"), "argument.empty"),
        (lambda lake: put(lake, "_xops", untouchable("p", "1")), "argument.table"),
        (lambda lake: put(lake, "a/b", untouchable("p", "1")), "argument.table"),
        (lambda lake: put(lake, "t", untouchable("", "1")), "argument.partition"),
        (lambda lake: put(lake, "t", untouchable("p\n", "1")), "argument.partition"),
        (lambda lake: put(lake, "t", untouchable("x" * 200, "1")), "argument.partition"),
        (lambda lake: put(lake, "t", untouchable("\ud800", "1")), "argument.partition"),
        (lambda lake: put(lake, "t", untouchable(20130101, "1")), "argument.partition"),  # type: ignore[arg-type]
        (lambda lake: put(lake, "t", untouchable("p", "")), "argument.fingerprint"),
        (lambda lake: put(lake, "t", untouchable("p", "1"), mode=APPEND), "argument.batch_id"),
        (lambda lake: put(lake, "t", untouchable("p", "1"), **MERGE), "argument.batch_id"),
        (lambda lake: put(lake, "t", untouchable("p", "1", "b"), mode=WriteMode.MERGE), "argument.keys"),
        (
            lambda lake: put(lake, "t", untouchable("p", "1"), untouchable("p", "2")),
            "argument.duplicate_segment",
        ),
        (lambda lake: put(lake, "t", segment("p", "1", {"a": [1]}), keys=["b"]), "argument.column"),
    ],
)
def test_unusable_arguments_are_refused_before_anything_is_written(
    lake: Lake, call: Callable[[Lake], Any], code: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        call(lake)

    assert caught.value.code == code
    assert not table_exists(lake, "t")
    assert not files_in(lake, "t")


@pytest.mark.parametrize("options", [{}, {"keys": ["a"]}, {"mode": WriteMode.MERGE, "keys": ["a"]}])
def test_an_error_of_the_source_comes_through_and_leaves_no_version(
    lake: Lake, options: dict[str, Any]
) -> None:
    def broken() -> pa.RecordBatchReader:
        def batches() -> Any:
            yield pa.record_batch({"a": [1]})
            raise SourceError("the file ends in the middle", code="source.truncated")

        return pa.RecordBatchReader.from_batches(pa.schema([("a", pa.int64())]), batches())

    with pytest.raises(SourceError) as caught:
        put(lake, "t", Segment("p", "1", broken, "batch"), **options)

    assert caught.value.code == "source.truncated"
    assert not table_exists(lake, "t")
    assert not list((Path(lake.uri) / "_xops" / "tmp").iterdir())


@pytest.mark.parametrize("partition", ["2013-01-01", "a b", "ü/ö", "50%", "~", "a=b", "..", "x:y+z", "日本"])
def test_any_printable_name_is_a_partition(lake: Lake, partition: str) -> None:
    put(lake, "t", segment(partition, "1", {"a": [1]}))
    put(lake, "t", segment(partition, "2", {"a": [2]}), actor=user(2))

    assert rows_of(lake, "t") == {partition: [(2,)]}
    assert partitions(lake, head(lake, "t")) == [partition]
    assert DeltaTable(lake.storage.table_uri("t")).to_pyarrow_table()["a"].to_pylist() == [2]


def test_lost_evidence_is_written_by_the_next_run(lake: Lake) -> None:
    first = put(lake, "t", segment("p", "1", {"a": [1]}), actor=user(1)).record
    put(lake, "t", segment("q", "1", {"a": [2]}), actor=user(2))
    path = lake.evidence.uri(first)
    Path(path).unlink()
    assert stored_record(lake, first.ref) is None

    healed = put(lake, "t", untouchable("p", "1"), actor=user(3))

    assert healed.reused
    assert healed.record == first
    assert stored_record(lake, first.ref) == first


def test_a_lost_race_for_the_same_batch_reuses_the_winner_and_leaves_no_file(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, "t", segment("q", "0", {"a": [0]}))
    rival_first(monkeypatch, lambda: put(lake, "t", segment("p", "1", {"a": [1]}), actor=user(1)))

    result = put(lake, "t", segment("p", "1", {"a": [1]}), actor=user(1))

    assert result.reused
    assert rows_of(lake, "t") == {"p": [(1,)], "q": [(0,)]}
    assert len(files_in(lake, "t")) == 2


def test_a_lost_race_to_a_newer_attempt_is_superseded(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put(lake, "t", segment("p", "0", {"a": [0]}))
    rival_first(monkeypatch, lambda: put(lake, "t", segment("p", "new", {"a": [2]}), actor=user(9)))

    with pytest.raises(Superseded):
        put(lake, "t", segment("p", "old", {"a": [1]}), actor=user(8))

    assert rows_of(lake, "t") == {"p": [(2,)]}
    assert len(files_in(lake, "t")) == 2


@pytest.mark.parametrize("exists", [False, True])
def test_a_lost_race_to_an_older_attempt_is_won_in_the_second_round(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    if exists:
        put(lake, "t", segment("p", "0", {"a": [0]}), actor=user(1))
    rival_first(monkeypatch, lambda: put(lake, "t", segment("p", "old", {"a": [1]}), actor=user(8)))
    calls: list[int] = []

    def data() -> pa.RecordBatchReader:
        calls.append(1)
        return pa.table({"a": [2]}).to_reader()

    result = put(lake, "t", Segment("p", "new", data), actor=user(9))

    assert not result.reused
    assert rows_of(lake, "t") == {"p": [(2,)]}
    assert calls == [1]
    assert verify_version(lake, result.record.ref) == []


def test_merging_into_the_same_partition_at_once_loses_no_key(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, "t", segment("p", "1", {"k": [1], "v": ["a"]}, "zero"), **MERGE)
    rival_first(
        monkeypatch, lambda: put(lake, "t", segment("p", "1", {"k": [2], "v": ["rival"]}, "one"), **MERGE)
    )

    put(lake, "t", segment("p", "1", {"k": [2, 3], "v": ["mine", "c"]}, "two"), **MERGE)

    assert sorted(rows_of(lake, "t")["p"]) == [(1, "a"), (2, "mine"), (3, "c")]


def test_another_writer_in_between_does_not_confuse_the_record(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, "t", segment("p", "1", {"a": [1]}))
    rival_first(monkeypatch, lambda: put(lake, "t", segment("q", "1", {"a": [2, 3]})))

    record = put(lake, "t", segment("r", "1", {"a": [4]})).record

    assert record.version == 2
    assert (record.rows, record.total_rows) == (1, 4)
    assert verify_version(lake, record.ref) == []


def test_races_do_not_go_on_forever(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_commit_files", lambda *_: False)

    with pytest.raises(ConflictError) as caught:
        put(lake, "t", segment("p", "1", {"a": [1]}))

    assert caught.value.retryable


def test_a_table_that_another_program_rewrote_is_refused(lake: Lake) -> None:
    put(lake, "t", segment("p", "1", {"a": [1]}))
    DeltaTable(lake.storage.table_uri("t")).delete("a > 5")
    from deltalake import write_deltalake

    write_deltalake(
        lake.storage.table_uri("t"), pa.table({"a": [9], "_xops_partition": ["p"]}), mode="append"
    )

    with pytest.raises(LakeError) as caught:
        put(lake, "t", segment("p", "2", {"a": [1]}), actor=user(2))

    assert caught.value.code == "lake.foreign_file"


def test_a_table_that_another_program_made_is_refused(lake: Lake) -> None:
    from deltalake import write_deltalake

    write_deltalake(lake.storage.table_uri("t"), pa.table({"a": [9]}))

    with pytest.raises(LakeError) as caught:
        put(lake, "t", segment("p", "2", {"a": [1]}))

    assert caught.value.code == "lake.foreign_table"


def test_a_restored_table_takes_the_restored_input_as_done(lake: Lake) -> None:
    put(lake, "t", segment("p", "A", {"a": [1]}), actor=user(1))
    put(lake, "t", segment("p", "B", {"a": [2]}), actor=user(2))
    DeltaTable(lake.storage.table_uri("t")).restore(0)

    back = put(lake, "t", untouchable("p", "A"), actor=user(3))
    put(lake, "t", segment("p", "B", {"a": [2]}), actor=user(4))

    assert back.reused
    assert back.record.version == 0
    assert rows_of(lake, "t") == {"p": [(2,)]}


_ATTEMPTS = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from("ABC"), st.sampled_from(["lives", "before", "after"])),
    min_size=1,
    max_size=7,
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("mode", list(WriteMode))
@given(attempts=_ATTEMPTS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_attempts_ends_in_what_the_newest_that_committed_wrote(
    mode: WriteMode, attempts: list[tuple[int, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """``attempts``: (fence, input, whether it is killed before or after the Delta commit)."""
    settings_ = LakeSettings(str(tmp_path_factory.mktemp("lake")), {}, None)
    init_lake(settings_, actor=user(), as_of=AS_OF)
    lake = open_lake(settings_)
    options: dict[str, Any] = {"mode": mode, "keys": ["k"] if mode is WriteMode.MERGE else []}
    put(
        lake,
        "t",
        segment("p", "other", {"k": [100], "v": ["other"]}, "other batch"),
        **options,
        actor=user(0),
    )
    held, fence = (None, 0)
    for own_fence, name, end in attempts:
        mine = segment("p", name, {"k": [1, ord(name)], "v": [name, name]}, "batch")
        with pytest.MonkeyPatch.context() as patch:
            if end != "lives":
                step = "_commit_files" if end == "before" else "_finish"

                def die(*_: Any) -> None:
                    raise Killed

                patch.setattr(module, step, die)
            outdated = name != held and own_fence < fence
            try:
                put(lake, "t", mine, **options, actor=user(own_fence))
            except Superseded:
                assert outdated
                continue
            except Killed:
                assert name != held
            else:
                assert not outdated
        if name != held and end != "before":
            held, fence = name, own_fence

    others = [] if mode is WriteMode.REPLACE and held else [(100, "other")]
    mine_now = [(1, held), (ord(held), held)] if held else []
    assert sorted(rows_of(lake, "t")["p"]) == sorted(mine_now + others)
    final = put(
        lake, "t", segment("p", "final", {"k": [1], "v": ["end"]}, "batch"), **options, actor=user(10)
    )
    assert stored_record(lake, final.record.ref) == final.record
    assert verify_version(lake, final.record.ref) == []


def rival_first(monkeypatch: pytest.MonkeyPatch, rival: Callable[[], Any]) -> None:
    """Let ``rival`` commit in the moment before the next commit of this process."""
    original = module._commit_files
    waiting = [rival]

    def race(*arguments: Any) -> bool:
        if waiting:
            waiting.pop()()
        return original(*arguments)

    monkeypatch.setattr(module, "_commit_files", race)


def test_metadata_of_the_commit_hold_what_the_record_needs(lake: Lake) -> None:
    record = put(lake, "t", segment("p", "1", {"a": [1]}), actor=user(7)).record

    history = DeltaTable(lake.storage.table_uri("t")).history()[0]

    metadata = json.loads(history["xops"])
    assert metadata["fence"] == 7
    assert metadata["key"] == "test"
    assert metadata["segments"][0]["digest"] == record.partition_digests[0]
