"""A worker is killed while a table gets a column; the next attempt ends as if nobody had been."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.read import partition_digests, verify_version
from airflow_provider_xops.lake.tables import head, resolve_ref
from airflow_provider_xops.records import WriteMode
from airflow_provider_xops.settings import LakeSettings
from tests.integration.test_kill_commit import COMMIT, run_and_wait
from tests.unit.lake.helpers import AS_OF, put, rows_of, segment, user

# (function, how often it is let through, before or after it): the two commits, and what is between them.
STEPS = [("prepare", 0), ("_add_columns", 0), ("_read_state", 1), ("prepare", 1), ("_commit_files", 0)]


def load(lake: Lake, mode: WriteMode, fence: int) -> Any:
    """A batch with a column that the table does not have, and a row that a merge takes from another batch."""
    keys = ["k"] if mode is WriteMode.MERGE else []
    rows = {"k": [3, 1], "v": ["v"] * 2, "new": [30, 10]}
    batch = segment("2013-01-01", "mine", rows, "load.csv")
    return put(lake, "t", batch, mode=mode, keys=keys, evolve={"added": "evolve"}, actor=user(fence))


def prepare_lake(uri: Path, mode: WriteMode) -> Lake:
    init_lake(LakeSettings(str(uri)), actor=user(), as_of=AS_OF)
    lake = open_lake(LakeSettings(str(uri)))
    keys = ["k"] if mode is WriteMode.MERGE else []
    put(
        lake,
        "t",
        segment("2013-01-01", "other", {"k": [1, 9], "v": ["o"] * 2}, "other.csv"),
        mode=mode,
        keys=keys,
    )
    return lake


def worker(uri: str, mode: str, step: str, passes: int) -> None:
    """A worker process that kills itself after the named step."""
    owner = importlib.import_module(COMMIT)
    original = getattr(owner, step)
    calls: list[int] = []

    def fatal(*arguments: Any) -> Any:
        found = original(*arguments)
        calls.append(1)
        if len(calls) > passes:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, step, fatal)
    load(open_lake(LakeSettings(uri)), WriteMode(mode), fence=100)


@pytest.mark.parametrize("mode", [WriteMode.REPLACE, WriteMode.MERGE], ids=lambda mode: mode.value)
def test_a_killed_change_of_columns_is_finished_by_the_next_attempt(mode: WriteMode, tmp_path: Path) -> None:
    undisturbed = prepare_lake(tmp_path / "undisturbed", mode)
    load(undisturbed, mode, fence=200)
    expected = head(undisturbed, "t")
    for number, (step, passes) in enumerate(STEPS):
        lake = prepare_lake(tmp_path / str(number), mode)

        assert run_and_wait(worker, lake.uri, mode.value, step, passes) == -signal.SIGKILL, step
        result = load(lake, mode, fence=200)

        ref = head(lake, "t")
        assert result.reused == (step == "_commit_files"), step
        assert ref.version == expected.version, step
        assert rows_of(lake, "t") == rows_of(undisturbed, "t"), step
        assert partition_digests(lake, ref) == partition_digests(undisturbed, expected), step
        for version in range(ref.version + 1):
            assert verify_version(lake, resolve_ref(lake, "t", version)) == [], step
