"""Files under a prefix: each once, by name and checksum; S3 is in the integration tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from airflow_provider_xops.data._spooling import Ingested
from airflow_provider_xops.data.declared_sources import PrefixSource
from airflow_provider_xops.data.source_prefix import LocalFolder, ObjectInfo, ingest_prefix
from airflow_provider_xops.errors import ArgumentError, SourceError, UnavailableError, XOpsError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.records import Actor

Load = Callable[..., Ingested]
Drop = Callable[..., Path]


@pytest.fixture
def drop(tmp_path: Path) -> Drop:
    """Puts a CSV file of flights into the folder, as old as the test's moment."""

    def drop(name: str, *flights: Any) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("flight\n" + "".join(f"{flight}\n" for flight in flights))
        return path

    return drop


@pytest.fixture
def source(tmp_path: Path) -> PrefixSource:
    return PrefixSource(uri=str(tmp_path / "in"), pattern="*.csv")


@pytest.fixture
def load(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime, source: PrefixSource) -> Load:
    """``ingest_prefix`` into the table ``flights``, each call by a later attempt."""

    def load(**changes: Any) -> Ingested:
        options = {
            name: changes.pop(name) for name in list(changes) if name in ("store", "partitions", "mode")
        }
        options = {"actor": make_actor(), "as_of": changes.pop("as_of", as_of), **options}
        schema = changes.pop("schema", None)
        declared = changes.pop("source", source)
        return ingest_prefix(lake, "flights", replace(declared, **changes), schema=schema, **options)

    return load


class CountingFolder(LocalFolder):
    """Counts the files that are opened."""

    opened: list[str]

    def open(self, found: ObjectInfo) -> BinaryIO:
        type(self).opened.append(found.name)
        return super().open(found)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(CountingFolder, "opened", names, raising=False)
    return names


def flights(lake: Lake) -> list[int]:
    found: list[int] = scan(lake, head(lake, "flights__raw")).read_all().column("flight").to_pylist()
    return sorted(found)


def test_new_files_are_loaded_once_in_one_commit(load: Load, lake: Lake, drop: Drop) -> None:
    drop("a.csv", 1)
    drop("sub/b.csv", 2)
    first, again = load(), load()
    drop("c.csv", 3)
    third = load()

    assert first.record is not None
    assert (first.record.version, first.record.batch_ids) == (0, ("a.csv", "sub/b.csv"))
    assert (again.reused, again.record) == (True, first.record)
    assert third.record is not None
    assert (third.reused, third.record.version, third.record.batch_ids) == (False, 1, ("c.csv",))
    assert third.notes == {"objects_listed": 3, "objects_left": 0, "objects_loaded": 1, "objects_bad": 0}
    assert flights(lake) == [1, 2, 3]


def test_what_was_loaded_is_not_even_opened_again(load: Load, drop: Drop, opened: list[str]) -> None:
    drop("a.csv", 1)
    load(store=CountingFolder)
    load(store=CountingFolder)
    drop("b.csv", 2)
    load(store=CountingFolder)
    assert opened == ["a.csv", "b.csv"]

    load(store=CountingFolder, recheck=True)
    assert opened[2:] == ["a.csv", "b.csv"]


def test_without_the_note_files_are_read_again_and_found_loaded(
    load: Load, lake: Lake, drop: Drop, opened: list[str]
) -> None:
    drop("a.csv", 1)
    load(store=CountingFolder)
    lake.storage.overwrite("_xops/prefixes/flights__raw.json", b"{broken")
    assert load(store=CountingFolder).reused
    assert load(store=CountingFolder).reused
    assert opened == ["a.csv", "a.csv"]


def test_a_note_is_not_believed_against_the_table(load: Load, lake: Lake, drop: Drop, tmp_path: Path) -> None:
    # given a note about a table that was made anew since
    drop("a.csv", 1)
    load()
    import shutil

    shutil.rmtree(tmp_path / "lake" / "flights__raw")
    assert not load().reused
    assert flights(lake) == [1]


def test_the_same_name_with_new_content_replaces_what_it_brought(load: Load, lake: Lake, drop: Drop) -> None:
    drop("a.csv", 1, 2)
    drop("b.csv", 3)
    load()
    drop("a.csv", 7)
    load()
    assert flights(lake) == [3, 7]


def test_a_file_that_was_touched_but_not_changed_is_not_loaded_again(load: Load, drop: Drop) -> None:
    path = drop("a.csv", 1)
    load()
    os.utime(path, (1, 1))
    assert load().reused


def test_what_a_deleted_file_brought_stays(load: Load, lake: Lake, drop: Drop) -> None:
    path = drop("a.csv", 1)
    load()
    path.unlink()
    result = load()
    assert (result.reused, flights(lake)) == (True, [1])


def test_young_files_wait(load: Load, lake: Lake, drop: Drop, as_of: datetime) -> None:
    for name, age in (("old.csv", 61), ("young.csv", 59)):
        moment = (as_of - timedelta(seconds=age)).timestamp()
        os.utime(drop(name, age), (moment, moment))
    load(min_age=60)
    assert flights(lake) == [61]
    load(min_age=timedelta(minutes=1), as_of=as_of + timedelta(seconds=1))
    assert flights(lake) == [59, 61]


def test_a_file_that_grows_while_it_is_read_waits(load: Load, lake: Lake, drop: Drop) -> None:
    class Growing(LocalFolder):
        def look(self, found: ObjectInfo) -> ObjectInfo | None:
            if found.name == "b.csv":
                drop("b.csv", 2, 3)
            if found.name == "c.csv":
                (self.root / "c.csv").unlink()
            return super().look(found)

    for name in ("a.csv", "b.csv", "c.csv"):
        drop(name, 1)
    result = load(store=Growing)
    assert flights(lake) == [1]
    assert result.notes["objects_left"] == 2
    load()
    assert flights(lake) == [1, 2, 3]


def test_hidden_files_and_other_names_are_left_out(load: Load, lake: Lake, drop: Drop) -> None:
    for name in ("a.csv", ".b.csv", "_tmp/c.csv", "d.txt"):
        drop(name, 1)
    load()
    assert flights(lake) == [1]


def test_so_many_files_a_run_until_all_are_loaded(load: Load, lake: Lake, drop: Drop) -> None:
    for number in range(5):
        drop(f"{number}.csv", number)
    left = [load(max_objects=2).notes["objects_left"] for _ in range(4)]
    assert left == [3, 1, 0, 0]
    assert flights(lake) == [0, 1, 2, 3, 4]


def test_the_name_may_say_the_partition(load: Load, lake: Lake, drop: Drop) -> None:
    drop("flights-2013-01-01.csv", 1)
    drop("flights-2013-01-02.csv", 2)
    result = load(partition_from=r"flights-(\d{4}-\d\d-\d\d)")
    assert result.record is not None
    assert result.record.partitions == ("2013-01-01", "2013-01-02")
    drop("other.csv", 3)
    with pytest.raises(SourceError, match=r"source\.partition_name.*other\.csv"):
        load(partition_from=r"flights-(\d{4}-\d\d-\d\d)")


def test_each_partition_has_a_folder(load: Load, lake: Lake, drop: Drop, tmp_path: Path) -> None:
    drop("d1/a.csv", 1)
    drop("d2/a.csv", 2)
    by_day = PrefixSource(uri=f"{tmp_path}/in/{{partition}}")
    result = load(source=by_day, partitions=["d1", "d2", "d3"])
    assert result.record is not None
    assert result.record.partitions == ("d1", "d2")
    assert flights(lake) == [1, 2]


def test_a_bad_file_stops_all_and_every_bad_one_is_named(load: Load, lake: Lake, drop: Drop) -> None:
    drop("a.csv", 1)
    load()
    drop("b.csv", 2)
    drop("c.csv", "secret-value")
    drop("d.csv", 4).write_text("other\n1\n")
    with pytest.raises(SourceError, match=r"source\.bad_objects\] 2 of 3 new files") as caught:
        load()
    assert caught.value.context["names"] == ["c.csv", "d.csv"]
    assert "c.csv, line 2: column 'flight'" in str(caught.value)
    assert "secret-value" not in str(caught.value)
    assert flights(lake) == [1]


def test_bad_files_may_be_skipped_and_are_loaded_when_they_are_good(
    load: Load, lake: Lake, drop: Drop, caplog: pytest.LogCaptureFixture
) -> None:
    drop("a.csv", 1)
    load()
    drop("b.csv", 2)
    drop("c.csv", "x")
    result = load(on_bad_object="skip")
    assert (flights(lake), result.notes["objects_bad"]) == ([1, 2], 1)
    assert "Skipped, to be tried again by the next run: c.csv" in caplog.text
    drop("c.csv", 3)
    load(on_bad_object="skip")
    assert flights(lake) == [1, 2, 3]


def test_nothing_yet_makes_no_table(load: Load, lake: Lake) -> None:
    result = load()
    assert (result.record, result.reused) == (None, True)
    assert not table_exists(lake, "flights__raw")


def test_a_namesake_from_another_prefix_is_refused_until_it_has_a_name(
    load: Load, lake: Lake, drop: Drop, tmp_path: Path
) -> None:
    drop("a.csv", 1)
    load()
    drop("../more/a.csv", 2)
    more = PrefixSource(uri=str(tmp_path / "more"))
    with pytest.raises(ArgumentError, match=r"argument\.source.*from another place"):
        load(source=more)
    load(source=more, name="more")
    assert flights(lake) == [1, 2]


def test_a_version_of_before_is_announced_again_after_a_crash(
    load: Load, lake: Lake, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a run that died between its commit and the evidence of it
    from airflow_provider_xops.lake import commit

    drop("a.csv", 1)

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(commit, "_put_evidence", dies)
        with pytest.raises(KeyboardInterrupt):
            load()
    assert list(lake.evidence.all("versions")) == []

    result = load()
    assert result.reused
    assert list(lake.evidence.all("versions")) == [result.record]
    assert flights(lake) == [1]


@pytest.mark.parametrize(
    "note",
    [b"[]", b"null", b"\xff", b"{", b'{"KEY": 5}', b'{"KEY": {"a.csv": 5}}', b'{"KEY": {"a.csv": []}}'],
)
def test_a_note_that_is_none_is_written_anew(
    load: Load, lake: Lake, drop: Drop, source: PrefixSource, opened: list[str], note: bytes
) -> None:
    drop("a.csv", 1)
    load()
    (path,) = lake.storage.list("_xops/prefixes")
    key = json.dumps(next(iter(json.loads(lake.storage.get(path) or b""))))
    lake.storage.overwrite(path, note.replace(b'"KEY"', key.encode()))
    assert load(store=CountingFolder).reused
    assert load(store=CountingFolder).reused
    assert opened == ["a.csv"]


def test_two_sources_of_one_prefix_do_not_forget_what_the_other_noted(
    load: Load, drop: Drop, opened: list[str]
) -> None:
    drop("a.csv", 1)
    drop("b.csv", 2)
    for pattern in ("a*", "b*", "a*", "b*"):
        load(pattern=pattern, store=CountingFolder)
    assert opened == ["a.csv", "b.csv"]


def test_bad_and_unsteady_files_take_nobody_s_place(load: Load, lake: Lake, drop: Drop) -> None:
    # given the first names are bad, and a run takes one file
    drop("a.csv", "x")
    drop("b.csv", "y")
    drop("c.csv", 3)
    drop("d.csv", 4)
    options = {"max_objects": 1, "on_bad_object": "skip", "schema": {"flight": "int64"}}
    first = load(**options)
    second, third = load(**options), load(**options)
    assert (first.notes["objects_loaded"], first.notes["objects_left"]) == (1, 1)
    assert (second.reused, third.reused) == (False, True)
    assert flights(lake) == [3, 4]


def test_a_bad_file_may_be_skipped_at_the_first_load_too(
    load: Load, lake: Lake, drop: Drop, caplog: pytest.LogCaptureFixture
) -> None:
    drop("a.csv").write_bytes(b"\xff\xfe")
    drop("b.csv", 1)
    with pytest.raises(SourceError, match=r"source\.bad_objects.*a\.csv"):
        load()
    load(on_bad_object="skip")
    assert flights(lake) == [1]
    assert "a.csv" in caplog.text


def test_a_pipe_is_no_file(load: Load, lake: Lake, drop: Drop) -> None:
    os.mkfifo(drop("a.csv", 1).with_name("b.csv"))
    load()
    assert flights(lake) == [1]


def test_names_of_any_letters_are_loaded_and_a_name_that_is_no_text_is_refused(
    load: Load, lake: Lake, drop: Drop, source: PrefixSource
) -> None:
    for number, name in enumerate(["a b.csv", "\u20ac.csv", "n\nl.csv", "#?%&@.csv"]):
        drop(name, number)
    load()
    assert load().reused
    assert flights(lake) == [0, 1, 2, 3]
    with open(os.fsencode(source.uri) + b"/\xff.csv", "wb") as file:
        file.write(b"flight\n1\n")
    with pytest.raises(SourceError, match=r"source\.encoding"):
        load()


def test_keys_in_an_address_are_in_no_log_no_error_and_no_note(
    load: Load, lake: Lake, drop: Drop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    drop("a.csv", 1)

    def store(uri: str) -> LocalFolder:
        assert "hunter2" in uri
        return LocalFolder(str(tmp_path / "in"))

    address = "s3://key:hunter2-secret@landing/in/"
    load(uri=address, store=store)
    drop("b.csv", "x")
    with pytest.raises(SourceError, match="s3://landing/in/") as caught:
        load(uri=address, store=store)
    kept = b"".join(path.read_bytes() for path in Path(lake.uri).rglob("*") if path.is_file())
    assert b"hunter2" not in kept
    assert "hunter2" not in caplog.text + str(caught.value)


class Broken(LocalFolder):
    error: type[OSError] = OSError

    def list(self) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"), [(ConnectionError, UnavailableError), (PermissionError, SourceError)]
)
def test_storage_that_fails_is_a_typed_error(
    load: Load, error: type[OSError], expected: type[XOpsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "error", error)
    with pytest.raises(expected):
        load(store=Broken)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mode": "replace"}, "argument.source"),
        ({"uri": " "}, "argument.source"),
        ({"max_objects": 0}, "argument.source"),
        ({"partitions": ["a", "b"]}, "argument.source"),
        ({"partition_from": "("}, "argument.partition_from"),
        ({"on_bad_object": "x"}, "argument.on_bad_object"),
        ({"min_age": "60"}, "argument.source"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    load: Load, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        load(**changes)
    assert caught.value.code == code


def test_a_storage_without_times_takes_no_min_age(load: Load, drop: Drop) -> None:
    class Timeless(LocalFolder):
        def _info(self, path: Path) -> ObjectInfo | None:
            info = super()._info(path)
            return None if info is None else replace(info, modified=None)

    drop("a.csv", 1)
    with pytest.raises(ArgumentError, match=r"argument\.min_age"):
        load(store=Timeless, min_age=1)
    assert not load(store=Timeless).reused
    assert load(store=Timeless, as_of=datetime(2027, 1, 1, tzinfo=UTC)).reused
