"""Compaction: fewer files, the same rows, whoever writes or compacts at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.cli import main
from airflow_provider_xops.errors import ArgumentError, ConflictError, LakeError, NotFoundError
from airflow_provider_xops.lake import compaction
from airflow_provider_xops.lake.adopt import adopt_table
from airflow_provider_xops.lake.commit import Segment
from airflow_provider_xops.lake.compaction import compact
from airflow_provider_xops.lake.history import stream_position, version_record
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.maintenance import vacuum
from airflow_provider_xops.lake.read import scan, verify_version
from airflow_provider_xops.lake.tables import head, open_table, segments_of
from airflow_provider_xops.records import WriteMode
from airflow_provider_xops.settings import LakeSettings
from tests.unit.lake.helpers import AS_OF, put, rows_of, segment, user

EVOLVE = {"added": "evolve", "removed": "fill_null"}


def flush(
    lake: Lake,
    number: int,
    rows: Mapping[str, Sequence[Any]] | None = None,
    *,
    day: str = "d",
    stream: str = "s",
) -> None:
    """One more batch of a stream."""
    table = pa.table(rows or {"n": [number]})
    batch = Segment(day, f"{stream}/{number}", table.to_reader, f"{stream}/{number}", stream=stream)
    put(lake, "log", batch, mode=WriteMode.APPEND, evolve=EVOLVE, actor=user(number), evidence=False)


def crunch(lake: Lake, **options: Any) -> compaction.Compacted:
    options.setdefault("least_files", 2)
    return compact(lake, "log", actor=user(), as_of=AS_OF, **options)


def files(lake: Lake) -> int:
    return len(segments_of(open_table(lake, "log")))


def test_many_files_become_one_with_the_same_rows_in_the_order_of_their_commits(lake: Lake) -> None:
    for number in range(1, 11):
        flush(lake, number, {"n": [number, -number]})

    made = crunch(lake)

    assert (made.files_removed, made.files_added, made.rows, made.partitions) == (10, 1, 20, ("d",))
    assert files(lake) == 1
    assert rows_of(lake, "log")["d"] == [(sign * n,) for n in range(1, 11) for sign in (1, -1)]
    assert verify_version(lake, head(lake, "log")) == []


def test_a_version_before_stays_readable_until_vacuum(lake: Lake) -> None:
    for number in range(1, 4):
        flush(lake, number)
    before = head(lake, "log")
    crunch(lake)

    assert sorted(scan(lake, before).read_all()["n"].to_pylist()) == [1, 2, 3]
    gone = vacuum(lake, "log", retention=timedelta(0), dry_run=False, actor=user(), as_of=AS_OF)
    assert len(gone.files) == 3
    assert rows_of(lake, "log") == {"d": [(1,), (2,), (3,)]}


def test_batches_that_may_come_again_keep_their_files(lake: Lake) -> None:
    for number in range(1, 4):
        flush(lake, number)
    for name in ("one", "two"):
        put(lake, "log", segment("d", "first", {"n": [100]}, name), mode=WriteMode.APPEND)

    assert crunch(lake).files_removed == 3
    put(lake, "log", segment("d", "again", {"n": [200]}, "one"), mode=WriteMode.APPEND, actor=user(2))

    assert sorted(rows_of(lake, "log")["d"]) == [(1,), (2,), (3,), (100,), (200,)]


def test_writing_goes_on_and_is_compacted_again(lake: Lake) -> None:
    for number in range(1, 4):
        flush(lake, number)
    crunch(lake)
    for number in range(4, 7):
        flush(lake, number)

    assert crunch(lake).files_removed == 4
    assert rows_of(lake, "log")["d"] == [(n,) for n in range(1, 7)]
    assert crunch(lake).files_removed == 0


def test_a_flush_that_is_asked_for_again_after_compaction_is_known_to_have_landed(lake: Lake) -> None:
    for number in range(1, 4):
        flush(lake, number)
    crunch(lake)

    assert stream_position(lake, "log", partition="d", stream="s") == 3
    assert stream_position(lake, "log", partition="d", stream="other") is None
    assert stream_position(lake, "log", partition="e", stream="s") is None


def test_of_two_compactions_at_once_no_row_is_doubled(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 6):
        flush(lake, number)
    barrier, first_two, real = Barrier(2), [1, 2], compaction._Attempt._upload

    def together(self: Any, *args: Any) -> Any:
        found = real(self, *args)
        if first_two:
            first_two.pop()
            barrier.wait(60)
        return found

    monkeypatch.setattr(compaction._Attempt, "_upload", together)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: crunch(lake), range(2)))

    assert sorted(each.files_removed for each in made) == [0, 5]
    assert rows_of(lake, "log")["d"] == [(n,) for n in range(1, 6)]
    assert len(list((Path(lake.uri) / "log").rglob("*.parquet"))) == 6


def test_a_flush_between_looking_and_committing_is_kept(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 4):
        flush(lake, number)
    real = compaction._Attempt._upload

    def late(self: Any, *args: Any) -> Any:
        flush(lake, 4)
        return real(self, *args)

    monkeypatch.setattr(compaction._Attempt, "_upload", late)

    assert crunch(lake).files_removed == 3
    assert sorted(rows_of(lake, "log")["d"]) == [(1,), (2,), (3,), (4,)]


def test_columns_that_came_later_are_missing_in_older_rows(lake: Lake) -> None:
    flush(lake, 1, {"n": [1]})
    flush(lake, 2, {"n": [2], "new": ["b"]})
    crunch(lake)

    assert rows_of(lake, "log")["d"] == [(1, None), (2, "b")]
    flush(lake, 3, {"n": [3], "newer": [0.5]})
    assert sorted(rows_of(lake, "log")["d"]) == [(1, None, None), (2, "b", None), (3, None, 0.5)]
    assert verify_version(lake, head(lake, "log")) == []


def test_columns_that_come_in_between_make_it_look_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 4):
        flush(lake, number)
    real, once = compaction._Attempt._upload, []

    def late(self: Any, *args: Any) -> Any:
        if not once:
            once.append(1)
            flush(lake, 4, {"n": [4], "new": ["x"]})
        return real(self, *args)

    monkeypatch.setattr(compaction._Attempt, "_upload", late)

    crunch(lake)

    assert sorted(rows_of(lake, "log")["d"]) == [(1, None), (2, None), (3, None), (4, "x")]
    assert verify_version(lake, head(lake, "log")) == []


def test_an_answer_that_was_lost_is_no_failure(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 4):
        flush(lake, number)
    real = DeltaTable.create_write_transaction

    def lost(self: Any, *args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(DeltaTable, "create_write_transaction", real)
        real(self, *args, **kwargs)
        raise CommitFailedError("a concurrent transaction has the same id")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lost)

    assert crunch(lake).files_removed == 3
    assert rows_of(lake, "log")["d"] == [(1,), (2,), (3,)]


def test_who_always_loses_says_so_and_leaves_no_file(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 4):
        flush(lake, number)

    def lost(self: Any, *args: Any, **kwargs: Any) -> None:
        raise CommitFailedError("somebody was faster")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lost)

    with pytest.raises(ConflictError):
        crunch(lake)
    assert len(list((Path(lake.uri) / "log").rglob("*.parquet"))) == 3


def test_only_named_partitions_and_crowded_ones(lake: Lake) -> None:
    for number in range(1, 4):
        flush(lake, number, day="a")
        flush(lake, number, day="b")
    flush(lake, 4, day="c")

    assert crunch(lake, partitions=["b", "c"]).partitions == ("b",)
    assert crunch(lake, least_files=4).partitions == ()
    assert crunch(lake).partitions == ("a",)


def test_files_of_their_size_are_left(lake: Lake) -> None:
    for number in range(1, 4):
        flush(lake, number)

    assert crunch(lake, small_bytes=10).files_removed == 0


def test_a_dry_run_changes_nothing(lake: Lake) -> None:
    for number in range(1, 4):
        flush(lake, number)

    made = crunch(lake, dry_run=True)

    assert (made.files_removed, made.files_added, made.rows, made.dry_run) == (3, 1, 3, True)
    assert (head(lake, "log").version, files(lake)) == (2, 3)


def test_the_version_says_what_it_is(lake: Lake) -> None:
    for number in range(1, 4):
        flush(lake, number)
    crunch(lake)

    record = version_record(lake, head(lake, "log"))

    assert (record.note, record.rows, record.partitions) == ("3 files put together", 3, ("d",))
    assert record.produced_by.id == "tester"


def test_what_cannot_be_compacted_is_refused(lake: Lake, tmp_path: Path) -> None:
    flush(lake, 1)
    with pytest.raises(ArgumentError) as few:
        crunch(lake, least_files=1)
    assert few.value.code == "argument.compaction"
    with pytest.raises(NotFoundError):
        compact(lake, "nowhere", actor=user(), as_of=AS_OF)
    uri = str(tmp_path / "orders")
    write_deltalake(uri, pa.table({"n": [1]}))
    adopt_table(lake, uri, table="orders", actor=user(), as_of=AS_OF)
    with pytest.raises(LakeError) as foreign:
        compact(lake, "orders", actor=user(), as_of=AS_OF)
    assert foreign.value.code == "lake.adopted"


def test_the_command_says_what_it_did(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1, 4):
        flush(lake, number)

    assert main(["compact", "log", "--least-files", "2", "--dry-run", "--lake", lake.uri]) == 0
    assert "3 files of 1 partitions would become 1, 3 rows" in capsys.readouterr().out
    assert main(["compact", "log", "--least-files", "2", "--lake", lake.uri]) == 0
    assert "3 files of 1 partitions became 1, 3 rows" in capsys.readouterr().out
    assert files(lake) == 1


@settings(max_examples=12)
@given(
    steps=st.lists(
        st.one_of(st.just("compact"), st.tuples(st.sampled_from("ab"), st.integers(0, 3))), max_size=14
    )
)
def test_any_mixture_of_flushes_and_compactions_keeps_every_row(
    steps: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = LakeSettings(uri=str(tmp_path_factory.mktemp("lakes") / "lake"))
    init_lake(home, actor=user(), as_of=AS_OF)
    lake, expected, number = open_lake(home), {}, 0
    for step in steps:
        if step == "compact":
            if number:
                crunch(lake)
            continue
        day, rows = step
        number += 1
        flush(lake, number, {"n": pa.array([number] * rows, pa.int64())}, day=day)
        expected.setdefault(day, []).extend([(number,)] * rows)
    if number:
        found = {day: sorted(rows) for day, rows in rows_of(lake, "log").items()}
        assert found == {day: rows for day, rows in expected.items() if rows}
        assert verify_version(lake, head(lake, "log")) == []
