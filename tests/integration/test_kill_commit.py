"""A worker is killed between the steps of a commit; the next attempt ends as if nobody had been."""

from __future__ import annotations

import importlib
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import Superseded
from airflow_provider_xops.lake.history import stored_record
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.read import partition_digests, verify_version
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import WriteMode
from airflow_provider_xops.settings import LakeSettings
from tests.processes import CONTEXT
from tests.unit.lake.helpers import AS_OF, put, rows_of, segment, user

TIMEOUT_S = 120

# Every step of a commit in its order, as (module, function, before or after it); "none" is a worker that
# lives.
COMMIT, FILES = "airflow_provider_xops.lake.commit", "airflow_provider_xops.lake._commit_files"
STEPS = [
    (COMMIT, "_read_state", "after"),
    (COMMIT, "_undone", "after"),
    (FILES, "write_segment", "after"),
    (FILES, "_upload", "after"),
    (COMMIT, "prepare", "after"),
    (COMMIT, "_commit_files", "after"),
    (COMMIT, "_locate", "after"),
    (COMMIT, "record_of", "after"),
    (COMMIT, "_put_evidence", "after"),
]
COMMITTED = {"_commit_files", "_locate", "record_of", "_put_evidence"}


def load(lake: Lake, mode: WriteMode, fence: int, version: int = 1) -> Any:
    """The work: one batch, with rows that a merge has to take from another batch."""
    rows = {"k": [3, 1, 2], "v": [f"v{version}"] * 3}
    keys = ["k"] if mode is WriteMode.MERGE else []
    batch = segment("2013-01-01", f"input {version}", rows, "load.csv")
    return put(lake, "t", batch, mode=mode, keys=keys, actor=user(fence))


def prepare_lake(uri: Path, mode: WriteMode, *, with_table: bool) -> Lake:
    """A lake whose table (if it is there) has another batch."""
    init_lake(LakeSettings(str(uri)), actor=user(), as_of=AS_OF)
    lake = open_lake(LakeSettings(str(uri)))
    if with_table:
        keys = ["k"] if mode is WriteMode.MERGE else []
        other = segment("2013-01-01", "other", {"k": [1, 9], "v": ["o", "o"]}, "other.csv")
        put(lake, "t", other, mode=mode, keys=keys, actor=user(1))
    return lake


def worker(uri: str, mode: str, module: str, step: str, when: str) -> None:
    """A worker process that kills itself at the named place."""
    owner = importlib.import_module(module)
    original: Callable[..., Any] = getattr(owner, step)

    def fatal(*arguments: Any, **options: Any) -> Any:
        if when == "after":
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, step, fatal)
    load(open_lake(LakeSettings(uri)), WriteMode(mode), fence=100)


def run_and_wait(target: Callable[..., None], *arguments: Any) -> int | None:
    """Run ``target`` in a new process; gives its exit code (-9: killed)."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    process.join(TIMEOUT_S)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


@pytest.mark.parametrize("with_table", [False, True], ids=["new table", "existing table"])
@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
def test_a_killed_commit_is_made_once_by_the_next_attempt(
    mode: WriteMode, with_table: bool, tmp_path: Path
) -> None:
    undisturbed = prepare_lake(tmp_path / "undisturbed", mode, with_table=with_table)
    load(undisturbed, mode, fence=200)
    expected_head = head(undisturbed, "t")

    # The plain modes differ from each other only in what is replaced: the whole sequence once, the others
    # where it matters.
    steps = (
        STEPS
        if mode is WriteMode.MERGE and with_table
        else [s for s in STEPS if s[1] in ("prepare", "_commit_files")]
    )
    for module, step, when in steps:
        lake = prepare_lake(tmp_path / step, mode, with_table=with_table)

        assert run_and_wait(worker, lake.uri, mode.value, module, step, when) == -signal.SIGKILL, step
        result = load(lake, mode, fence=200)

        ref = head(lake, "t")
        assert result.reused == (step in COMMITTED), step
        assert ref.version == expected_head.version, step
        assert rows_of(lake, "t") == rows_of(undisturbed, "t"), step
        assert partition_digests(lake, ref) == partition_digests(undisturbed, expected_head), step
        assert stored_record(lake, ref) == result.record, step
        assert verify_version(lake, ref) == [], step


def test_the_orphan_of_a_killed_worker_cannot_overwrite_its_successor(tmp_path: Path) -> None:
    lake = prepare_lake(tmp_path / "lake", WriteMode.REPLACE, with_table=True)
    assert run_and_wait(worker, lake.uri, "replace", COMMIT, "prepare", "after") == -signal.SIGKILL
    load(lake, WriteMode.REPLACE, fence=200, version=2)

    with pytest.raises(Superseded):
        load(lake, WriteMode.REPLACE, fence=100)

    assert {row[1] for row in rows_of(lake, "t")["2013-01-01"]} == {"v2"}


def busy_worker(uri: str, first: int, started: Any) -> None:
    """Commits one day after the other until it is killed."""
    lake = open_lake(LakeSettings(uri))
    started.set()
    for number in range(first, first + 10_000):
        put(lake, "t", segment(f"day {number:05d}", "input", {"a": [number]}), actor=user(number))


def kill_at_random(tmp_path: Path, rounds: int) -> None:
    lake = prepare_lake(tmp_path / "lake", WriteMode.REPLACE, with_table=False)
    moments = random.Random(rounds)
    first = 0
    for _ in range(rounds):
        started = CONTEXT.Event()
        process = CONTEXT.Process(target=busy_worker, args=(lake.uri, first, started))
        process.start()
        assert started.wait(TIMEOUT_S)
        process.join(moments.uniform(0.05, 0.6))
        assert process.exitcode is None, "the worker ended by itself"
        process.kill()
        process.join()
        done = set(rows_of(lake, "t")) if lake.storage.exists(f"t/_delta_log/{0:020d}.json") else set()
        assert done == {f"day {number:05d}" for number in range(len(done))}
        first = max(0, len(done) - 2)  # the next attempt repeats the last work, done or not
    for number in range(first, first + 4):
        put(lake, "t", segment(f"day {number:05d}", "input", {"a": [number]}), actor=user(number))
    count = first + 4
    ref = head(lake, "t")
    assert rows_of(lake, "t") == {f"day {number:05d}": [(number,)] for number in range(count)}
    assert ref.version == count - 1
    assert verify_version(lake, ref) == []
    recorded = {record.version for record in lake.evidence.all("versions")}
    assert recorded == set(range(count))


def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    kill_at_random(tmp_path, rounds=5)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_killed_at_any_moment_many_times(tmp_path: Path) -> None:
    kill_at_random(tmp_path, rounds=50)
