"""What Airflow does to a task x write modes; docs/exactly-once.md is this file as a page.

Every cell tells a story of attempts with the keys, fences, run ids and map indexes that Airflow gives them,
and ends with the same question: is the table what one undisturbed run of the last input would have left,
without doubles, with its evidence, and with its neighbors untouched?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import Superseded
from airflow_provider_xops.lake import commit as module
from airflow_provider_xops.lake.commit import CommitResult, Segment
from airflow_provider_xops.lake.history import stored_record
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import verify_version
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import Actor, WriteMode
from tests.unit.lake.helpers import attempt, put, rows_of, segment, user

DAY = "2013-01-01"
FILES = {
    "as delivered": {"k": [1, 2], "v": ["a", "b"]},
    "corrected": {"k": [2, 3], "v": ["B", "c"]},
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@dataclass
class World:
    """One table with neighbors, and a task that loads the file of one day into it."""

    lake: Lake
    mode: WriteMode
    monkeypatch: pytest.MonkeyPatch
    table: str = "flights__raw"

    def __post_init__(self) -> None:
        neighbors = [segment("2012-12-31", "n", {"k": [1], "v": ["neighbor"]}, "other.csv")]
        if self.mode is not WriteMode.REPLACE:
            neighbors.append(segment(DAY, "n", {"k": [100], "v": ["neighbor"]}, "another.csv"))
        self.commit(neighbors, user(0))
        self.versions_before = head(self.lake, self.table).version

    def commit(self, segments: list[Segment], actor: Actor) -> CommitResult:
        keys = ["k"] if self.mode is WriteMode.MERGE else []
        return put(self.lake, self.table, *segments, mode=self.mode, keys=keys, actor=actor)

    def load(self, actor: Actor, file: str, *, read: bool = True) -> CommitResult:
        """What the task does. The batch is named after the file, the fingerprint after its bytes."""

        def data() -> pa.RecordBatchReader:
            assert read, "the file was read although the table holds it"
            return pa.table(FILES[file]).to_reader()

        return self.commit([Segment(DAY, f"sha256 of {file}", data, "flights-2013-01-01.csv")], actor)

    def load_killed(self, actor: Actor, file: str, *, at: str) -> None:
        with self.monkeypatch.context() as patch:
            patch.setattr(module, at, _die)
            with pytest.raises(Killed):
                self.load(actor, file)

    def check(self, file: str, *, commits: int) -> None:
        """The table is as if ``file`` had been loaded once, after ``commits`` commits, with its evidence."""
        rows = list(zip(*FILES[file].values(), strict=True))
        others = [] if self.mode is WriteMode.REPLACE else [(100, "neighbor")]
        found = rows_of(self.lake, self.table)
        assert sorted(found[DAY]) == sorted(rows + others)
        assert found["2012-12-31"] == [(1, "neighbor")]
        ref = head(self.lake, self.table)
        assert ref.version - self.versions_before == commits
        assert stored_record(self.lake, ref) is not None
        assert verify_version(self.lake, ref) == []


def _die(*_: Any) -> None:
    raise Killed


def retry(world: World) -> None:
    """The worker dies after the commit, before its evidence; Airflow starts the next try."""
    world.load_killed(attempt(try_number=1, started=100), "as delivered", at="_put_evidence")
    again = world.load(attempt(try_number=2, started=200), "as delivered", read=False)
    assert again.reused
    assert stored_record(world.lake, again.record.ref) == again.record
    world.check("as delivered", commits=1)


def retry_before_commit(world: World) -> None:
    """The worker dies when its files are uploaded but not committed."""
    world.load_killed(attempt(try_number=1, started=100), "as delivered", at="_commit_files")
    assert not world.load(attempt(try_number=2, started=200), "as delivered").reused
    world.check("as delivered", commits=1)


def retry_with_an_orphan(world: World) -> None:
    """The first attempt, taken for dead, wakes up after the second has loaded the corrected file."""
    assert not world.load(attempt(try_number=2, started=200), "corrected").reused
    with pytest.raises(Superseded):
        world.load(attempt(try_number=1, started=100), "as delivered", read=False)
    world.check("corrected", commits=1)


def clear_same(world: World) -> None:
    """Somebody clears the task; the file is the same."""
    first = world.load(attempt(try_number=1, started=100), "as delivered")
    again = world.load(attempt(try_number=2, started=200), "as delivered", read=False)
    assert (again.reused, again.record) == (True, first.record)
    world.check("as delivered", commits=1)


def clear_changed(world: World) -> None:
    """Somebody corrects the file and clears the task."""
    world.load(attempt(try_number=1, started=100), "as delivered")
    again = world.load(attempt(try_number=2, started=200), "corrected")
    assert not again.reused
    world.check("corrected", commits=2)


def backfill(world: World) -> None:
    """The day is part of a backfill: another run, hence another key, of the same date."""
    first = world.load(attempt(run="scheduled__2013-01-01", started=100), "as delivered")
    again = world.load(attempt(run="backfill__2013-01-01", started=200), "as delivered", read=False)
    assert (again.reused, again.record) == (True, first.record)
    world.check("as delivered", commits=1)


def backfill_changed(world: World) -> None:
    """The backfill finds a corrected file."""
    world.load(attempt(run="scheduled__2013-01-01", started=100), "as delivered")
    world.load(attempt(run="backfill__2013-01-01", started=200), "corrected")
    world.check("corrected", commits=2)


def manual_same_date(world: World) -> None:
    """A hand-started run of the same date, while the scheduled one is still at work."""
    manual = world.load(attempt(run="manual__2013-01-01T07:00", started=200), "as delivered")
    scheduled = world.load(attempt(run="scheduled__2013-01-01", started=100), "as delivered", read=False)
    assert (scheduled.reused, scheduled.record) == (True, manual.record)
    world.check("as delivered", commits=1)


def manual_same_date_changed(world: World) -> None:
    """The same, and the scheduled run had read the file before it was corrected: the later start stands."""
    world.load(attempt(run="manual__2013-01-01T07:00", started=200), "corrected")
    with pytest.raises(Superseded):
        world.load(attempt(run="scheduled__2013-01-01", started=100), "as delivered", read=False)
    world.check("corrected", commits=1)


def delete_and_rerun(world: World) -> None:
    """Somebody deletes the run and Airflow makes it again: try numbers restart, start times do not."""
    first = world.load(attempt(try_number=3, started=100), "as delivered")
    again = world.load(attempt(try_number=1, started=200), "as delivered", read=False)
    assert (again.reused, again.record) == (True, first.record)
    world.check("as delivered", commits=1)


def delete_and_rerun_changed(world: World) -> None:
    """The same with a corrected file; a try number as fence would be refused here."""
    world.load(attempt(try_number=3, started=100), "as delivered")
    assert not world.load(attempt(try_number=1, started=200), "corrected").reused
    world.check("corrected", commits=2)


def remapped(world: World) -> None:
    """The list the task is mapped over has changed: the day has another map index, hence another key."""
    first = world.load(attempt(map_index=4, started=100), "as delivered")
    again = world.load(attempt(map_index=0, started=200), "as delivered", read=False)
    assert (again.reused, again.record) == (True, first.record)
    world.check("as delivered", commits=1)


def remapped_changed(world: World) -> None:
    """The same with a corrected file."""
    world.load(attempt(map_index=4, started=100), "as delivered")
    world.load(attempt(map_index=0, started=200), "corrected")
    world.check("corrected", commits=2)


STORIES = [
    retry,
    retry_before_commit,
    retry_with_an_orphan,
    clear_same,
    clear_changed,
    backfill,
    backfill_changed,
    manual_same_date,
    manual_same_date_changed,
    delete_and_rerun,
    delete_and_rerun_changed,
    remapped,
    remapped_changed,
]


@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_matrix(
    story: Callable[[World], None], mode: WriteMode, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    story(World(lake, mode, monkeypatch))


@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_matrix_on_a_new_table(
    story: Callable[[World], None], mode: WriteMode, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where the day is the table's first: the commit that makes the table is one of them."""

    class Fresh(World):
        def __post_init__(self) -> None:
            self.versions_before = -1

        def check(self, file: str, *, commits: int) -> None:
            ref = head(self.lake, self.table)
            assert sorted(rows_of(self.lake, self.table)[DAY]) == sorted(
                zip(*FILES[file].values(), strict=True)
            )
            assert ref.version == commits - 1
            assert stored_record(self.lake, ref) is not None
            assert verify_version(self.lake, ref) == []

    story(Fresh(lake, mode, monkeypatch))


def test_merge_cannot_undo_what_an_earlier_batch_overwrote(lake: Lake) -> None:
    """Rows that a batch replaced do not come back when that batch is corrected."""
    keys: dict[str, Any] = {"mode": WriteMode.MERGE, "keys": ["k"]}
    put(lake, "t", segment("all", "1", {"k": [1, 2], "v": ["first", "first"]}, "one"), **keys, actor=user(1))
    put(lake, "t", segment("all", "1", {"k": [2], "v": ["second"]}, "two"), **keys, actor=user(2))

    put(lake, "t", segment("all", "2", {"k": [3], "v": ["second"]}, "two"), **keys, actor=user(3))

    assert sorted(rows_of(lake, "t")["all"]) == [(1, "first"), (3, "second")]
