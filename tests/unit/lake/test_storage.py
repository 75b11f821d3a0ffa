"""Storage on a local folder: put-if-absent, typed failures, and the proof that refuses other storage."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError, LakeError
from airflow_provider_xops.lake.storage import RACERS, SCRATCH, LocalStorage, open_storage
from airflow_provider_xops.settings import LakeSettings
from tests.unit.lake.processes import NOW

OTHER_FILE_SYSTEM = Path("/dev/shm")


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "lake")


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_first_writer_of_a_name_wins_and_what_it_wrote_stays(storage: LocalStorage) -> None:
    assert storage.put_if_absent("a/b.json", b"first") is True
    assert storage.put_if_absent("a/b.json", b"second") is False
    assert storage.get("a/b.json") == b"first"


def test_nothing_but_the_named_file_is_left_behind(storage: LocalStorage) -> None:
    storage.put_if_absent("a.json", b"1")
    storage.put_if_absent("a.json", b"2")
    storage.overwrite("b.json", b"3")

    assert files_below(storage.root) == {"a.json", "b.json"}


def test_a_written_file_can_be_read_by_others_as_the_umask_says(storage: LocalStorage) -> None:
    before = os.umask(0o027)
    try:
        storage.put_if_absent("a.json", b"1")
    finally:
        os.umask(before)

    assert (storage.root / "a.json").stat().st_mode & 0o777 == 0o640


def test_overwrite_replaces_and_delete_of_nothing_is_fine(storage: LocalStorage) -> None:
    storage.overwrite("a", b"1")
    storage.overwrite("a", b"2")
    storage.delete("none")

    assert storage.get("a") == b"2"
    storage.delete("a")
    assert storage.get("a") is None
    assert storage.exists("a") is False


def test_what_is_not_there_is_none_and_never_an_error(storage: LocalStorage) -> None:
    storage.put_if_absent("file", b"1")

    assert storage.get("none/at/all") is None
    assert storage.get("file/below") is None
    assert storage.exists("file/below") is False
    assert list(storage.list("none/")) == []
    assert dict(storage.get_many(["file", "none"])) == {"file": b"1", "none": None}


def test_a_listing_is_by_text_prefix_sorted_and_without_scratch_files(storage: LocalStorage) -> None:
    for path in ("e/b1", "e/a2", "e/a/x", "e/a1", "f/a"):
        storage.put_if_absent(path, b"")

    with storage.scratch() as folder:
        (folder / "half-written").write_bytes(b"")
        everything = list(storage.list(""))

    assert everything == ["e/a/x", "e/a1", "e/a2", "e/b1", "f/a"]
    assert list(storage.list("e/a")) == ["e/a/x", "e/a1", "e/a2"]
    assert list(storage.list("e/a/")) == ["e/a/x"]


@given(
    st.sets(
        st.text("abc/", min_size=1, max_size=6).map(lambda text: f"{text.replace('/', 'd/')}x"), max_size=8
    )
)
def test_a_listing_finds_exactly_the_names_with_the_prefix(
    tmp_path_factory: pytest.TempPathFactory, names: set[str]
) -> None:
    storage = LocalStorage(tmp_path_factory.mktemp("lake"))
    written = set()
    for name in sorted(names):
        if not any(other.startswith(f"{name}/") or name.startswith(f"{other}/") for other in written):
            storage.put_if_absent(name, b"")
            written.add(name)

    for prefix in ("", "a", "ad/", "ad/b"):
        assert list(storage.list(prefix)) == sorted(name for name in written if name.startswith(prefix))


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../out", "a/../../out", "a//b", "./a", "a\0b", "a\\b"])
def test_a_path_cannot_leave_the_lake(storage: LocalStorage, path: str) -> None:
    for action in (storage.get, storage.exists, storage.delete, storage.table_uri):
        with pytest.raises(ArgumentError) as caught:
            action(path)
        assert caught.value.code == "argument.path"


def test_an_upload_moves_a_whole_file_in(storage: LocalStorage) -> None:
    with storage.scratch() as folder:
        (folder / "part").write_bytes(b"rows")
        storage.upload(folder / "part", "flights/p/part.parquet")

    assert storage.get("flights/p/part.parquet") == b"rows"
    assert files_below(storage.root) == {"flights/p/part.parquet"}


@pytest.mark.skipif(not os.access(OTHER_FILE_SYSTEM, os.W_OK), reason="there is no second file system")
def test_an_upload_from_another_file_system_appears_whole(storage: LocalStorage) -> None:
    local = OTHER_FILE_SYSTEM / f"xops-test-{os.getpid()}"
    local.write_bytes(b"rows")
    try:
        storage.upload(local, "flights/part.parquet")
    finally:
        local.unlink(missing_ok=True)

    assert storage.get("flights/part.parquet") == b"rows"
    assert files_below(storage.root) == {"flights/part.parquet"}


def test_scratch_files_of_killed_processes_are_removed_by_age(storage: LocalStorage) -> None:
    old, young = storage.root / SCRATCH / "old", storage.root / SCRATCH / "young"
    for folder, when in ((old, NOW - timedelta(days=2)), (young, NOW)):
        folder.mkdir(parents=True)
        (folder / "part").write_bytes(b"")
        os.utime(folder, (when.timestamp(), when.timestamp()))

    assert storage.clean_scratch(older_than=NOW - timedelta(days=1)) == 1
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("/data/lake/", "/data/lake"),
        ("/data/x/../lake", "/data/lake"),
        ("file:///data/my%20lake", "/data/my lake"),
        ("file://localhost/data/lake", "/data/lake"),
    ],
)
def test_a_local_uri_becomes_an_absolute_path(uri: str, root: str) -> None:
    storage = open_storage(LakeSettings(uri))

    assert storage.uri == root
    assert storage.table_uri("flights") == f"{root}/flights"
    assert storage.delta_options() == {}


def test_a_relative_path_is_taken_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert open_storage(LakeSettings("lake")).uri == str(tmp_path / "lake")


@pytest.mark.parametrize(
    "uri", ["gs://bucket/lake", "hdfs://host/lake", "s3a://bucket", "file://other-host/lake", "s3:///x"]
)
def test_other_schemes_and_hosts_are_refused(uri: str) -> None:
    with pytest.raises(LakeError) as caught:
        open_storage(LakeSettings(uri))

    assert caught.value.code == "lake.scheme"
    assert caught.value.todo


def test_opening_a_storage_creates_nothing(tmp_path: Path) -> None:
    open_storage(LakeSettings(str(tmp_path / "lake")))

    assert list(tmp_path.iterdir()) == []


def test_a_folder_keeps_put_if_absent_and_the_proof_leaves_nothing(storage: LocalStorage) -> None:
    storage.check_put_if_absent()

    assert files_below(storage.root) == set()


class LastWriterWins(LocalStorage):
    """What a server that ignores If-None-Match does."""

    def put_if_absent(self, path: str, data: bytes, *, content_type: str | None = None) -> bool:
        self.overwrite(path, data)
        return True


class EverybodyLoses(LocalStorage):
    """Writes, and tells nobody that it did."""

    def put_if_absent(self, path: str, data: bytes, *, content_type: str | None = None) -> bool:
        super().put_if_absent(path, data)
        return False


class WinsOnlyInTurn(LocalStorage):
    """Looks first and writes then: right one after the other, wrong all at once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.racing = threading.Barrier(RACERS)

    def put_if_absent(self, path: str, data: bytes, *, content_type: str | None = None) -> bool:
        absent = not self.exists(path)
        if threading.current_thread() is not threading.main_thread():
            self.racing.wait()  # everybody has looked before anybody writes
        if absent:
            self.overwrite(path, data)
        return absent


@pytest.mark.parametrize("unsafe", [LastWriterWins, EverybodyLoses, WinsOnlyInTurn])
def test_storage_without_put_if_absent_is_refused(tmp_path: Path, unsafe: type[LocalStorage]) -> None:
    storage = unsafe(tmp_path / "lake")

    with pytest.raises(LakeError) as caught:
        storage.check_put_if_absent()

    assert caught.value.code == "lake.unsafe_storage"
    assert "If-None-Match" in caught.value.todo
    assert files_below(storage.root) == set()


def test_a_folder_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = LocalStorage(tmp_path / "file" / "lake")

    for write in (
        lambda: storage.put_if_absent("a", b""),
        lambda: storage.overwrite("a", b""),
        lambda: storage.upload(tmp_path / "none", "a"),
        lambda: storage.scratch().__enter__(),
    ):
        with pytest.raises(LakeError) as caught:
            write()
        assert caught.value.code == "lake.not_writable"
        assert caught.value.todo
