"""Sixteen long-lived processes commit at the same moment: one commit for each batch, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import Superseded
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.read import verify_version
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import WriteMode
from airflow_provider_xops.settings import LakeSettings
from tests.processes import CONTEXT
from tests.unit.lake.helpers import AS_OF, put, rows_of, segment, user

RACERS = 16
TIMEOUT_S = 180


def same_batch(lake: Lake, number: int, me: int) -> str:
    """Everybody has the same input for a new table: one commits, the others find it."""
    return outcome(lake, f"same{number}", segment("p", "input", {"a": [1, 2]}), fence=me)


def same_batch_other_input(lake: Lake, number: int, me: int) -> str:
    """Everybody has an input of its own for the same partition: the newest attempt stands."""
    return outcome(lake, f"rivals{number}", segment("p", f"input {me}", {"a": [me]}), fence=me)


def other_batches(lake: Lake, number: int, me: int) -> str:
    """Everybody appends a batch of its own to one table."""
    mine = segment(f"p{me % 3}", "input", {"a": [number * RACERS + me]}, f"batch {number}/{me}")
    return outcome(lake, "batches", mine, fence=me, mode=WriteMode.APPEND)


def merging(lake: Lake, number: int, me: int) -> str:
    """Everybody merges into one partition: a key of its own and one that all have."""
    mine = segment("p", "input", {"k": [-1, me], "v": [me, me]}, f"batch {me}")
    return outcome(lake, f"merged{number}", mine, fence=me, mode=WriteMode.MERGE, keys=["k"])


def half_merging(lake: Lake, number: int, me: int) -> str:
    """Half of them merge: each time somebody is first and all others merge anew, so that costs a quarter."""
    return merging(lake, number, me) if me < RACERS // 2 else "idle"


def outcome(lake: Lake, table: str, *segments: Any, fence: int, **options: Any) -> str:
    try:
        return "reused" if put(lake, table, *segments, actor=user(fence), **options).reused else "committed"
    except Superseded:
        return "superseded"


def racer(uri: str, me: int, barrier: Any, channel: Any) -> None:
    """One long-lived process: waits for all others before each commit, answers with what happened."""
    lake = open_lake(LakeSettings(uri))
    while (order := channel.recv()) is not None:
        what, number = order
        barrier.wait(TIMEOUT_S)
        try:
            channel.send(what(lake, number, me))
        except Exception as error:
            channel.send(repr(error))


@contextmanager
def racers(uri: str) -> Iterator[list[Any]]:
    """Their channels; all processes are gone at the end."""
    barrier, channels, processes = CONTEXT.Barrier(RACERS), [], []
    try:
        for me in range(RACERS):
            here, there = CONTEXT.Pipe()
            process = CONTEXT.Process(target=racer, args=(uri, me, barrier, there), daemon=True)
            process.start()
            channels.append(here)
            processes.append(process)
        yield channels
    finally:
        for channel in channels:
            channel.send(None)
        barrier.abort()
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def race(channels: list[Any], what: Any, number: int) -> Counter[str]:
    for channel in channels:
        channel.send((what, number))
    answers = []
    for channel in channels:
        assert channel.poll(TIMEOUT_S), f"no answer from a racer in {what.__name__}"
        answers.append(channel.recv())
    return Counter(answers)


def run_races(tmp_path: Path, rounds: int, *, whole: bool) -> None:
    settings = LakeSettings(str(tmp_path / "lake"))
    init_lake(settings, actor=user(), as_of=AS_OF)
    lake = open_lake(settings)
    with racers(lake.uri) as channels:
        for number in range(rounds):
            assert race(channels, same_batch, number) == {"committed": 1, "reused": RACERS - 1}
            assert head(lake, f"same{number}").version == 0
            assert rows_of(lake, f"same{number}") == {"p": [(1,), (2,)]}

            rivals = race(channels, same_batch_other_input, number)
            assert rivals["committed"] >= 1
            assert rivals["committed"] + rivals["superseded"] == RACERS
            assert head(lake, f"rivals{number}").version == rivals["committed"] - 1
            assert rows_of(lake, f"rivals{number}") == {"p": [(RACERS - 1,)]}

            assert race(channels, other_batches, number) == {"committed": RACERS}
            found = sorted(row[0] for rows in rows_of(lake, "batches").values() for row in rows)
            assert found == list(range((number + 1) * RACERS))
            assert head(lake, "batches").version == (number + 1) * RACERS - 1

            if number and not whole:
                continue
            mergers = RACERS if whole else RACERS // 2
            answers = race(channels, merging if whole else half_merging, number)
            assert answers == Counter(committed=mergers, idle=RACERS - mergers)
            merged = dict(rows_of(lake, f"merged{number}")["p"])
            assert merged.pop(-1) in range(mergers)
            assert merged == {me: me for me in range(mergers)}
            assert len(rows_of(lake, f"merged{number}")["p"]) == mergers + 1
            assert verify_version(lake, head(lake, f"merged{number}")) == []
    versions = [record for record in lake.evidence.all("versions") if record.table == "batches"]  # type: ignore[attr-defined]
    assert len(versions) == rounds * RACERS


@pytest.mark.timeout(900)
def test_sixteen_processes_make_one_commit_for_each_batch(tmp_path: Path) -> None:
    run_races(tmp_path, rounds=5, whole=False)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_sixteen_processes_for_a_long_time(tmp_path: Path) -> None:
    run_races(tmp_path, rounds=50, whole=True)
