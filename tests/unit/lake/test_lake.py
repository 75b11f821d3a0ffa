"""A lake is made on purpose, has one UUID, and is never made by opening it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import DataError, LakeError
from airflow_provider_xops.lake.lake import (
    LAKE_FILE,
    LAYOUT_VERSION,
    Lake,
    init_lake,
    migrate_lake,
    open_lake,
)
from airflow_provider_xops.lake.maintenance import fold_evidence
from airflow_provider_xops.lake.pins import pin
from airflow_provider_xops.lake.tables import ensure_table
from airflow_provider_xops.records import Actor, WriteMode
from airflow_provider_xops.settings import LakeSettings
from tests.unit.lake.helpers import put, rows_of, segment
from tests.unit.lake.processes import NOW, run_all, try_as_nobody


def lake_file(settings: LakeSettings) -> Path:
    return Path(settings.uri) / LAKE_FILE


def write_lake_file(settings: LakeSettings, content: Any) -> None:
    lake_file(settings).parent.mkdir(parents=True, exist_ok=True)
    lake_file(settings).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user may look into (pytest's own are private)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_made_lake_can_be_opened_and_says_who_made_it(
    lake_settings: LakeSettings, actor: Actor, as_of: datetime
) -> None:
    info = init_lake(lake_settings, actor=actor, as_of=as_of)

    lake = open_lake(lake_settings)
    assert info.created is True
    assert lake.lake_id == info.lake_id
    assert lake.uri == lake_settings.uri
    assert lake.info == replace(info, created=False)
    assert (info.layout_version, info.created_by) == (LAYOUT_VERSION, actor.producer.id)
    assert info.created_at == as_of.isoformat()


def test_making_a_lake_again_returns_the_existing_one_unchanged(
    lake_settings: LakeSettings, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    first = init_lake(lake_settings, actor=make_actor(), as_of=as_of)
    before = lake_file(lake_settings).read_bytes()

    second = init_lake(lake_settings, actor=make_actor(name="other"), as_of=as_of.replace(year=2027))

    assert second == replace(first, created=False)
    assert lake_file(lake_settings).read_bytes() == before


def test_two_lakes_have_two_uuids(tmp_path: Path, actor: Actor, as_of: datetime) -> None:
    made = [init_lake(LakeSettings(str(tmp_path / name)), actor=actor, as_of=as_of).lake_id for name in "ab"]

    assert made[0] != made[1]


def test_opening_never_makes_a_lake_and_says_how_to(lake_settings: LakeSettings) -> None:
    with pytest.raises(LakeError) as caught:
        open_lake(lake_settings)

    assert caught.value.code == "lake.not_found"
    assert f"xops lake init {lake_settings.uri}" in caught.value.todo
    assert not Path(lake_settings.uri).exists()


def test_a_lake_with_another_uuid_is_refused(
    lake_settings: LakeSettings, actor: Actor, as_of: datetime
) -> None:
    found = init_lake(lake_settings, actor=actor, as_of=as_of).lake_id
    other = replace(lake_settings, expected_lake_id="another")

    for action in (
        lambda: open_lake(other),
        lambda: init_lake(other, actor=actor, as_of=as_of),
        lambda: migrate_lake(other, actor=actor, as_of=as_of),
    ):
        with pytest.raises(LakeError) as caught:
            action()
        assert caught.value.code == "lake.other_uuid"
        assert caught.value.context == {"lake_id": found, "expected": "another"}
    assert open_lake(replace(lake_settings, expected_lake_id=found)).lake_id == found


def test_no_twin_is_made_where_a_certain_lake_is_expected(
    lake_settings: LakeSettings, actor: Actor, as_of: datetime
) -> None:
    with pytest.raises(LakeError) as caught:
        init_lake(replace(lake_settings, expected_lake_id="expected"), actor=actor, as_of=as_of)

    assert caught.value.code == "lake.other_uuid"
    assert not Path(lake_settings.uri).exists()


def test_a_newer_layout_asks_for_an_upgrade(
    lake_settings: LakeSettings, actor: Actor, as_of: datetime
) -> None:
    write_lake_file(lake_settings, {"lake_id": "x", "layout_version": LAYOUT_VERSION + 1})

    for action in (
        lambda: open_lake(lake_settings),
        lambda: migrate_lake(lake_settings, actor=actor, as_of=as_of),
    ):
        with pytest.raises(LakeError) as caught:
            action()
        assert caught.value.code == "lake.layout_newer"


def test_an_older_layout_is_migrated_once_and_keeps_its_identity(
    lake_settings: LakeSettings, actor: Actor, as_of: datetime
) -> None:
    old = {"lake_id": "from-before", "created_at": "2020-01-01T00:00:00+00:00", "created_by": "founder"}
    write_lake_file(lake_settings, old)
    with pytest.raises(LakeError) as caught:
        init_lake(lake_settings, actor=actor, as_of=as_of)
    assert caught.value.code == "lake.layout_older"
    assert "xops lake migrate" in caught.value.todo

    migrate_lake(lake_settings, actor=actor, as_of=as_of)
    after_once = lake_file(lake_settings).read_bytes()
    migrate_lake(lake_settings, actor=actor, as_of=as_of.replace(year=2027))

    lake = open_lake(lake_settings)
    assert (lake.lake_id, lake.info.created_by) == ("from-before", "founder")
    assert lake_file(lake_settings).read_bytes() == after_once
    assert json.loads(lake.storage.get("_xops/lake.layout-0.json") or b"") == old


def test_migrating_where_there_is_no_lake_makes_none(
    lake_settings: LakeSettings, actor: Actor, as_of: datetime
) -> None:
    with pytest.raises(LakeError) as caught:
        migrate_lake(lake_settings, actor=actor, as_of=as_of)

    assert caught.value.code == "lake.not_found"
    assert not Path(lake_settings.uri).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"lake_id": 3}'])
def test_a_damaged_lake_file_is_never_replaced(
    lake_settings: LakeSettings, actor: Actor, as_of: datetime, content: str
) -> None:
    write_lake_file(lake_settings, content)

    for action in (
        lambda: open_lake(lake_settings),
        lambda: init_lake(lake_settings, actor=actor, as_of=as_of),
    ):
        with pytest.raises(LakeError) as caught:
            action()
        assert caught.value.code == "lake.unreadable"
    assert lake_file(lake_settings).read_text() == content


def test_a_lake_needs_a_time_with_a_zone(lake_settings: LakeSettings, actor: Actor) -> None:
    with pytest.raises(DataError) as caught:
        init_lake(lake_settings, actor=actor, as_of=NOW.replace(tzinfo=None))

    assert caught.value.code == "data.naive_timestamp"


def test_a_lake_below_a_file_is_not_writable(tmp_path: Path, actor: Actor, as_of: datetime) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(LakeError) as caught:
        init_lake(LakeSettings(str(tmp_path / "file" / "lake")), actor=actor, as_of=as_of)

    assert caught.value.code == "lake.not_writable"


def test_a_user_without_permission_is_told_so(shared_folder: Path, actor: Actor, as_of: datetime) -> None:
    empty, readable, private = (
        LakeSettings(str(shared_folder / name)) for name in ("empty", "readable", "private")
    )
    Path(empty.uri).mkdir(mode=0o755)
    for settings, mode in ((readable, 0o555), (private, 0o000)):
        init_lake(settings, actor=actor, as_of=as_of)
        for folder in sorted(Path(settings.uri).rglob("*/"), reverse=True):
            folder.chmod(mode)
        Path(settings.uri).chmod(mode)
    Path(empty.uri).chmod(0o555)

    assert run_all(try_as_nobody, 1, empty, ["init", "open"]) == [["lake.not_writable", "lake.not_found"]]
    assert run_all(try_as_nobody, 1, readable, ["open", "init", "put"]) == [["", "", "lake.not_writable"]]
    assert run_all(try_as_nobody, 1, private, ["open", "init"]) == [["lake.forbidden", "lake.forbidden"]]


def test_of_many_who_make_a_lake_at_once_all_get_the_same_one(lake_settings: LakeSettings) -> None:
    made = run_all(make_lake, 8, lake_settings)

    assert len({lake_id for lake_id, _created in made}) == 1
    assert sum(created for _lake_id, created in made) == 1


def make_lake(barrier: Any, number: int, settings: LakeSettings) -> tuple[str, bool]:
    barrier.wait(60)
    info = init_lake(settings, actor=Actor.user(f"user{number}", key="k", fence=1), as_of=NOW)
    return info.lake_id, info.created


def test_opening_a_local_lake_loads_no_heavy_library(lake: Lake) -> None:
    code = (
        "import sys\n"
        "from airflow_provider_xops.lake.lake import open_lake\n"
        "from airflow_provider_xops.settings import LakeSettings\n"
        "open_lake(LakeSettings(sys.argv[1])).evidence.uri\n"
        "print(sorted({'pandas', 'numpy', 'pyarrow', 'deltalake', 'boto3', 'airflow'} & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", code, lake.uri], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_an_older_layout_is_read_and_not_written(
    lake: Lake, lake_settings: LakeSettings, actor: Actor, as_of: datetime
) -> None:
    # given: a lake with data, from before layouts were numbered
    record = put(lake, "t", segment("p", "1", {"a": [1]})).record
    write_lake_file(lake_settings, {"lake_id": lake.lake_id})
    before = {path: lake.storage.get(path) for path in lake.storage.list("")}
    older = open_lake(lake_settings)
    # then: data and evidence are there
    assert older.info.layout_version == 0
    assert rows_of(older, "t") == {"p": [(1,)]}
    assert older.evidence.get("versions", record.record_id) == record
    assert put(older, "t", segment("p", "1", {"a": [1]})).reused
    # and: nothing can be written, by any way
    writes: list[Callable[[], object]] = [
        lambda: put(older, "t", segment("q", "1", {"a": [1]})),
        lambda: put(older, "new", segment("q", "1", {"a": [1]})),
        lambda: ensure_table(
            older, "new", pa.schema([("a", pa.int64())]), mode=WriteMode.REPLACE, actor=actor
        ),
        lambda: pin(older, record.ref, reason="hold", holder="case 1", actor=actor, as_of=as_of),
        lambda: older.evidence.put_report("r.json", b"{}", content_type="application/json"),
        lambda: fold_evidence(older, "versions", older_than=as_of, actor=actor, as_of=as_of),
        lambda: older.storage.delete("_xops/lake.json"),
        lambda: older.storage.check_put_if_absent(),
    ]
    for write in writes:
        with pytest.raises(LakeError) as caught:
            write()
        assert caught.value.code == "lake.layout_older"
        assert "xops lake migrate" in caught.value.todo
    assert {path: lake.storage.get(path) for path in lake.storage.list("")} == before
    # and: migrated, it can
    migrate_lake(lake_settings, actor=actor, as_of=as_of)
    assert not put(open_lake(lake_settings), "t", segment("q", "1", {"a": [1]})).reused
