"""A worker is killed while it loads from a database or a folder; the next attempt loads each row once."""

from __future__ import annotations

import importlib
import os
import signal
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.data.declared_sources import PrefixSource, SqlSource
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.read import scan, verify_version
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.settings import LakeSettings
from tests.processes import CONTEXT
from tests.unit.lake.helpers import AS_OF, user

TIMEOUT_S = 120
COMMIT = "airflow_provider_xops.lake.commit"
PREFIX = "airflow_provider_xops.data.source_prefix"
STEPS = [
    ("sql", COMMIT, "prepare"),
    ("sql", COMMIT, "_commit_files"),
    ("sql", COMMIT, "_put_evidence"),
    ("prefix", PREFIX, "_copied"),
    ("prefix", COMMIT, "_commit_files"),
    ("prefix", PREFIX, "load_segments"),
]


def load(kind: str, lake: Lake, folder: Path, fence: int) -> Any:
    """What a task does: whatever is new."""
    options: dict[str, Any] = {"mode": "append", "actor": user(fence), "as_of": AS_OF}
    if kind == "prefix":
        from airflow_provider_xops.data.source_prefix import ingest_prefix

        return ingest_prefix(lake, "t", PrefixSource(uri=str(folder / "in")), **options)
    import sqlalchemy as sa

    from airflow_provider_xops.data.source_sql import ingest_sql

    engine = sa.create_engine(f"sqlite:///{folder / 'shop.db'}")
    try:
        source = SqlSource(conn_id="shop", table="t", watermark="id")
        return ingest_sql(lake, "t", source, engine=engine, **options)
    finally:
        engine.dispose()


def arrive(kind: str, folder: Path, number: int) -> None:
    """One more row at the source."""
    if kind == "prefix":
        (folder / "in").mkdir(exist_ok=True)
        (folder / "in" / f"{number}.csv").write_text(f"id\n{number}\n")
        return
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER)")
        connection.execute("INSERT INTO t VALUES (?)", (number,))
    connection.close()


def worker(kind: str, uri: str, folder: str, module: str, step: str) -> None:
    """A worker process that kills itself after the named step."""
    owner = importlib.import_module(module)
    original: Callable[..., Any] = getattr(owner, step)

    def fatal(*arguments: Any, **options: Any) -> Any:
        original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, step, fatal)
    load(kind, open_lake(LakeSettings(uri)), Path(folder), fence=100)


@pytest.mark.parametrize(("kind", "module", "step"), STEPS, ids=[f"{kind} {step}" for kind, _, step in STEPS])
def test_no_row_is_lost_and_none_is_there_twice(kind: str, module: str, step: str, tmp_path: Path) -> None:
    # given a table with one batch, a new row, and a worker that dies on it
    uri = tmp_path / "lake"
    init_lake(LakeSettings(str(uri)), actor=user(), as_of=AS_OF)
    lake = open_lake(LakeSettings(str(uri)))
    arrive(kind, tmp_path, 1)
    load(kind, lake, tmp_path, fence=1)
    arrive(kind, tmp_path, 2)
    process = CONTEXT.Process(target=worker, args=(kind, lake.uri, str(tmp_path), module, step))
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode == -signal.SIGKILL

    # when its successor runs, with one more row that has come meanwhile, and once more
    arrive(kind, tmp_path, 3)
    result = load(kind, lake, tmp_path, fence=200)
    again = load(kind, lake, tmp_path, fence=300)

    ref = head(lake, "t__raw")
    assert sorted(scan(lake, ref).read_all().column("id").to_pylist()) == [1, 2, 3]
    assert (result.reused, again.reused, again.record) == (False, True, result.record)
    assert verify_version(lake, ref) == []


@pytest.mark.parametrize("kind", ["sql", "prefix"])
def test_many_runs_at_once_load_each_row_once(kind: str, tmp_path: Path) -> None:
    # given four loaders that run all the time, while rows arrive
    uri = tmp_path / "lake"
    init_lake(LakeSettings(str(uri)), actor=user(), as_of=AS_OF)
    arrive(kind, tmp_path, 0)
    load(kind, open_lake(LakeSettings(str(uri))), tmp_path, fence=1)

    def loader(number: int) -> None:
        lake = open_lake(LakeSettings(str(uri)))
        for turn in range(6):
            load(kind, lake, tmp_path, fence=10 * turn + number + 2)

    with ThreadPoolExecutor(4) as pool:
        loaders = [pool.submit(loader, number) for number in range(4)]
        for row in range(1, 30):
            arrive(kind, tmp_path, row)
        for done in loaders:
            done.result()
    lake = open_lake(LakeSettings(str(uri)))
    load(kind, lake, tmp_path, fence=1000)

    assert sorted(scan(lake, head(lake, "t__raw")).read_all().column("id").to_pylist()) == list(range(30))
