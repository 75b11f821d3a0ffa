"""Maintenance: a fold loses nothing whenever it is killed, a vacuum keeps what is pinned."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError, LakeError, NotFoundError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.evidence import evidence_path
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.maintenance import fold_evidence, vacuum
from airflow_provider_xops.lake.pins import pin
from airflow_provider_xops.lake.read import read_pandas
from airflow_provider_xops.lake.storage import SCRATCH, LocalStorage
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import Actor, DatasetVersion, Record
from airflow_provider_xops.settings import LakeSettings
from tests.unit.lake.processes import NOW, incident, pin_of, run_all

LATER = NOW + timedelta(days=1)
DAY = timedelta(days=1)


def ids(records: Any) -> list[str]:
    return [record.record_id for record in records]


def objects(lake: Lake, kind: str = "pins") -> list[str]:
    return list(lake.storage.list(f"_xops/evidence/{kind}/"))


@pytest.fixture
def fold(actor: Actor, as_of: datetime) -> Callable[..., Any]:
    def run(lake: Lake, kind: str = "pins", older_than: datetime = LATER) -> Any:
        return fold_evidence(lake, kind, older_than=older_than, actor=actor, as_of=as_of)

    return run


def test_folded_records_are_read_like_any_other(
    lake: Lake, lake_settings: LakeSettings, fold: Callable[..., Any]
) -> None:
    records = [pin_of(number) for number in range(10)]
    for record in records:
        lake.evidence.put(record)

    result = fold(lake)

    assert (result.folded, result.removed, result.left) == (10, 10, 0)
    assert objects(lake) == []
    for evidence in (lake.evidence, open_lake(lake_settings).evidence):
        assert list(evidence.all("pins")) == sorted(records, key=lambda each: each.record_id)
        assert evidence.get("pins", records[3].record_id) == records[3]
        assert evidence.find("pins", records[3].record_id[:12]) == [records[3]]
        assert evidence.resolve(records[3].record_id, "pins") == records[3]


def test_only_records_older_than_asked_are_folded(lake: Lake, fold: Callable[..., Any]) -> None:
    old, young = pin_of(1, when=NOW - DAY), pin_of(2, when=NOW)
    lake.evidence.put(old)
    lake.evidence.put(young)

    result = fold(lake, older_than=NOW)

    assert (result.folded, result.removed, result.left) == (1, 1, 1)
    assert objects(lake) == [evidence_path("pins", young.record_id)]
    assert sorted(ids(lake.evidence.all("pins"))) == sorted([old.record_id, young.record_id])


def test_a_folded_record_is_not_written_again(
    lake: Lake, lake_settings: LakeSettings, fold: Callable[..., Any]
) -> None:
    lake.evidence.put(incident("a", "first"))
    fold(lake, "incidents")

    assert open_lake(lake_settings).evidence.put(incident("a", "second")) is False
    assert list(lake.evidence.all("incidents")) == [incident("a", "first")]


def test_a_writer_that_did_not_see_the_fold_changes_nothing_for_readers(
    lake: Lake, fold: Callable[..., Any]
) -> None:
    lake.evidence.put(incident("a", "first"))
    fold(lake, "incidents")
    second = incident("a", "second")
    lake.storage.put_if_absent(evidence_path("incidents", second.record_id), b"{}")

    assert list(lake.evidence.all("incidents")) == [incident("a", "first")]
    result = fold(lake, "incidents")
    assert (result.folded, result.removed) == (0, 1)
    assert list(lake.evidence.all("incidents")) == [incident("a", "first")]


def test_folding_again_commits_nothing(lake: Lake, fold: Callable[..., Any]) -> None:
    lake.evidence.put(pin_of(1))
    fold(lake)
    version = DeltaTable(lake.storage.table_uri("_xops/folded/pins")).version()

    assert fold(lake).folded == 0
    assert DeltaTable(lake.storage.table_uri("_xops/folded/pins")).version() == version


def test_a_kind_without_records_gets_no_table(lake: Lake, fold: Callable[..., Any]) -> None:
    assert fold(lake, "models").folded == 0
    assert not lake.storage.exists("_xops/folded/models/_delta_log/00000000000000000000.json")


def test_an_unreadable_object_is_left_with_a_warning_and_the_rest_is_folded(
    lake: Lake, fold: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    lake.evidence.put(pin_of(1))
    broken = evidence_path("pins", "0" * 32)
    lake.storage.put_if_absent(broken, b"{")

    result = fold(lake)

    assert (result.folded, result.left) == (1, 1)
    assert objects(lake) == [broken]
    assert any(broken in message for message in caplog.messages)


class Killed(Exception):
    """The process ended here."""


@pytest.mark.parametrize("survived", range(4))
def test_a_fold_killed_between_two_removals_is_finished_by_the_next(
    lake: Lake, fold: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    for number in range(4):
        lake.evidence.put(pin_of(number))
    whole = ids(lake.evidence.all("pins"))
    delete, done = LocalStorage.delete, []

    def dying(storage: LocalStorage, path: str) -> None:
        if len(done) == survived:
            raise Killed
        done.append(path)
        delete(storage, path)

    monkeypatch.setattr(LocalStorage, "delete", dying)
    with pytest.raises(Killed):
        fold(lake)
    monkeypatch.setattr(LocalStorage, "delete", delete)
    between = ids(lake.evidence.all("pins"))
    result = fold(lake)

    assert between == whole == ids(lake.evidence.all("pins"))
    assert (result.folded, result.removed) == (0, 4 - survived)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=12))
def test_whatever_the_order_of_writing_and_folding_each_record_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]
) -> None:
    where = LakeSettings(str(tmp_path_factory.mktemp("lakes") / "lake"))
    actor = Actor.user("tester", key="k", fence=1)
    init_lake(where, actor=actor, as_of=NOW)
    expected: dict[str, Record] = {}
    for folding, number in steps:
        if folding:
            fold_evidence(open_lake(where), "pins", older_than=LATER, actor=actor, as_of=NOW)
        else:
            record = pin_of(number)
            assert open_lake(where).evidence.put(record) is (record.record_id not in expected)
            expected[record.record_id] = record

    assert list(open_lake(where).evidence.all("pins")) == [expected[key] for key in sorted(expected)]


def test_folds_at_once_beside_writers_lose_and_double_nothing(
    lake: Lake, lake_settings: LakeSettings
) -> None:
    run_all(write_and_fold, 4, lake_settings, 15)

    found = ids(lake.evidence.all("pins"))
    assert found == sorted(pin_of(number).record_id for number in range(4 * 15))
    rows = DeltaTable(lake.storage.table_uri("_xops/folded/pins")).to_pyarrow_table()["record_id"].to_pylist()
    assert len(rows) == len(set(rows))


def write_and_fold(barrier: Any, number: int, where: LakeSettings, count: int) -> None:
    lake = open_lake(where)
    barrier.wait(60)
    for each in range(count):
        lake.evidence.put(pin_of(number * count + each))
        if each % 5 == 4:
            fold_evidence(lake, "pins", older_than=LATER, actor=Actor.user("x", key="k", fence=1), as_of=NOW)


@pytest.fixture
def load(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> Callable[..., DatasetVersion]:
    def run(value: int, *, partition: str = "2013-01-01") -> DatasetVersion:
        table = pa.table({"flight": [value]})
        segment = Segment(partition=partition, fingerprint=f"input {value}", data=table.to_reader)
        return commit(lake, "flights", [segment], actor=make_actor(), as_of=as_of).record

    return run


def vacuum_now(lake: Lake, actor: Actor, as_of: datetime, *, dry_run: bool = False) -> Any:
    return vacuum(lake, "flights", retention=timedelta(0), dry_run=dry_run, actor=actor, as_of=as_of)


def rows_of(lake: Lake, version: DatasetVersion) -> list[int]:
    return list(read_pandas(lake, version.ref)["flight"])


def test_a_vacuum_keeps_pinned_versions_and_the_head_and_removes_the_rest(
    lake: Lake, load: Callable[..., DatasetVersion], actor: Actor, as_of: datetime
) -> None:
    first, second, third = load(1), load(2), load(3)
    pin(lake, first.ref, reason="training", holder="delay v1", actor=actor, as_of=as_of)

    told = vacuum_now(lake, actor, as_of, dry_run=True)
    before = rows_of(lake, second)
    done = vacuum_now(lake, actor, as_of)

    assert told.files == done.files
    assert len(done.files) == 1
    assert done.kept_versions == (first.version,)
    assert before == [2]
    assert (rows_of(lake, first), rows_of(lake, third)) == ([1], [3])
    assert not (Path(lake.uri) / "flights" / done.files[0]).exists()
    assert head(lake, "flights") == third.ref
    assert lake.evidence.get("versions", second.record_id) == second


def test_a_vacuum_keeps_every_version_younger_than_the_retention(
    lake: Lake, load: Callable[..., DatasetVersion], actor: Actor, as_of: datetime
) -> None:
    first = load(1)
    load(2)

    result = vacuum(lake, "flights", retention=timedelta(days=3650), dry_run=False, actor=actor, as_of=as_of)

    assert result.files == ()
    assert rows_of(lake, first) == [1]


def test_a_pin_of_a_namesake_does_not_count(
    lake: Lake, load: Callable[..., DatasetVersion], actor: Actor, as_of: datetime
) -> None:
    load(1)
    load(2)
    lake.evidence.put(pin_of(0))  # flights@0 of another table that had the name

    assert vacuum_now(lake, actor, as_of, dry_run=True).kept_versions == ()


def test_a_vacuum_removes_the_files_that_a_killed_writer_left(
    lake: Lake, load: Callable[..., DatasetVersion], actor: Actor, as_of: datetime
) -> None:
    load(1)
    written = next((Path(lake.uri) / "flights").rglob("*.parquet"))
    orphan = written.with_name(f"{written.stem[:-8]}deadbeef.parquet")
    orphan.write_bytes(written.read_bytes())

    result = vacuum_now(lake, actor, as_of)

    assert [Path(name).name for name in result.files] == [orphan.name]
    assert (written.exists(), orphan.exists()) == (True, False)


def test_a_vacuum_removes_old_scratch_files_too(
    lake: Lake, load: Callable[..., DatasetVersion], actor: Actor, as_of: datetime
) -> None:
    load(1)
    scratch = Path(lake.uri) / SCRATCH
    for name, when in (("old", as_of - 2 * DAY), ("young", as_of)):
        (scratch / name).mkdir()
        os.utime(scratch / name, (when.timestamp(), when.timestamp()))

    vacuum_now(lake, actor, as_of, dry_run=True)
    told_only = sorted(path.name for path in scratch.iterdir())
    vacuum_now(lake, actor, as_of)

    assert told_only == ["old", "young"]
    assert [path.name for path in scratch.iterdir()] == ["young"]


def test_a_negative_retention_is_refused(lake: Lake, actor: Actor, as_of: datetime) -> None:
    with pytest.raises(ArgumentError) as caught:
        vacuum(lake, "flights", retention=-DAY, dry_run=True, actor=actor, as_of=as_of)

    assert caught.value.code == "argument.retention"


def test_a_table_that_is_not_there_is_a_typed_error(lake: Lake, actor: Actor, as_of: datetime) -> None:
    with pytest.raises(NotFoundError) as caught:
        vacuum_now(lake, actor, as_of)

    assert caught.value.code == "not_found.table"


def test_an_adopted_table_is_left_to_its_owner(lake: Lake, actor: Actor, as_of: datetime) -> None:
    lake.storage.put_if_absent("_xops/adopted/flights.json", b'{"uri": "/elsewhere"}')

    with pytest.raises(LakeError) as caught:
        vacuum_now(lake, actor, as_of)

    assert caught.value.code == "lake.adopted"
