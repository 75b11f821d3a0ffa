"""Commits, reads and adoption on a real S3 endpoint: what is promised on a local disk holds there."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from airflow_provider_xops.errors import LakeError, NotFoundError, Superseded, XOpsError
from airflow_provider_xops.lake.adopt import adopt_table
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.read import scan, verify_version
from airflow_provider_xops.lake.tables import head, list_tables
from airflow_provider_xops.records import WriteMode
from tests import servers
from tests.integration.lossy_proxy import lossy_proxy
from tests.unit.lake.helpers import AS_OF, put, rows_of, segment, untouchable, user

RACERS = 8
_PREFIXES = (f"commits-{number}" for number in itertools.count())


@pytest.fixture
def s3_lake(seaweedfs: servers.S3Server) -> Lake:
    """A fresh lake in the bucket."""
    settings = seaweedfs.lake_settings(next(_PREFIXES))
    init_lake(settings, actor=user(), as_of=AS_OF)
    return open_lake(settings)


@pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
def test_a_batch_is_committed_once_replaced_when_changed_and_fenced(s3_lake: Lake, mode: WriteMode) -> None:
    keys = ["k"] if mode is WriteMode.MERGE else []

    def load(fence: int, rows: dict[str, list[int]], fingerprint: str) -> bool:
        batch = segment("ü 2013/01", fingerprint, rows, "batch")
        return put(s3_lake, "t", batch, mode=mode, keys=keys, actor=user(fence)).reused

    put(s3_lake, "t", segment("other", "1", {"k": [7]}, "other"), mode=mode, keys=keys)
    assert not load(10, {"k": [1, 2]}, "A")
    assert load(20, {"k": [1, 2]}, "A")
    assert not load(30, {"k": [3]}, "B")
    with pytest.raises(Superseded):
        load(20, {"k": [1, 2]}, "A")

    assert rows_of(s3_lake, "t") == {"other": [(7,)], "ü 2013/01": [(3,)]}
    ref = head(s3_lake, "t")
    assert ref.version == 2
    assert verify_version(s3_lake, ref) == []
    assert list_tables(s3_lake) == ["t"]


def test_a_merge_takes_keys_from_other_batches(s3_lake: Lake) -> None:
    for batch, keys in (("one", [1, 2, 3]), ("two", [2])):
        rows = {"k": keys, "v": [batch] * len(keys)}
        put(s3_lake, "t", segment("all", "1", rows, batch), mode=WriteMode.MERGE, keys=["k"])

    assert sorted(rows_of(s3_lake, "t")["all"]) == [(1, "one"), (2, "two"), (3, "one")]
    assert verify_version(s3_lake, head(s3_lake, "t")) == []


def test_of_racing_writers_one_makes_the_table(s3_lake: Lake) -> None:
    barrier = Barrier(RACERS)

    def write(number: int) -> str:
        barrier.wait(60)
        try:
            result = put(s3_lake, "t", segment("p", "same", {"a": [1]}), actor=user(number))
        except Superseded:  # pragma: no cover
            return "superseded"
        return "reused" if result.reused else "committed"

    with ThreadPoolExecutor(RACERS) as pool:
        outcomes = Counter(pool.map(write, range(RACERS)))

    assert outcomes == {"committed": 1, "reused": RACERS - 1}
    assert head(s3_lake, "t").version == 0
    assert rows_of(s3_lake, "t") == {"p": [(1,)]}


def test_racing_batches_are_all_committed(s3_lake: Lake) -> None:
    barrier = Barrier(RACERS)

    def write(number: int) -> bool:
        barrier.wait(60)
        batch = segment("p", "1", {"a": [number]}, f"batch {number}")
        return put(s3_lake, "t", batch, mode=WriteMode.APPEND, actor=user(number)).reused

    with ThreadPoolExecutor(RACERS) as pool:
        assert list(pool.map(write, range(RACERS))) == [False] * RACERS

    assert sorted(rows_of(s3_lake, "t")["p"]) == [(number,) for number in range(RACERS)]
    assert head(s3_lake, "t").version == RACERS - 1


def test_a_table_beside_the_lake_is_adopted(s3_lake: Lake) -> None:
    uri = f"{s3_lake.uri}-warehouse/orders"
    write_deltalake(uri, pa.table({"n": [1, 2]}), storage_options=s3_lake.storage.delta_options())

    record = adopt_table(s3_lake, uri, table="orders", actor=user(), as_of=AS_OF)

    assert scan(s3_lake, record.ref).read_all()["n"].to_pylist() == [1, 2]
    assert verify_version(s3_lake, record.ref) == []
    with pytest.raises(LakeError):
        put(s3_lake, "orders", untouchable("p", "1"))


def test_a_missing_table_is_not_found(s3_lake: Lake) -> None:
    with pytest.raises(NotFoundError):
        head(s3_lake, "nothing")


@pytest.mark.parametrize("version", [0, 1])
def test_a_commit_whose_answer_the_network_lost_is_found_and_keeps_its_files(
    seaweedfs: servers.S3Server, version: int
) -> None:
    # given: a table (or none yet), and a network that loses the answer to the PUT of the commit
    settings = seaweedfs.lake_settings(next(_PREFIXES))
    init_lake(settings, actor=user(), as_of=AS_OF)
    if version:
        put(open_lake(settings), "t", segment("p", "1", {"a": [1]}))
    address = urlsplit(settings.storage_options["AWS_ENDPOINT_URL"])
    with lossy_proxy(str(address.hostname), int(address.port or 80)) as proxy:
        options = {**settings.storage_options, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        lake = open_lake(replace(settings, storage_options=options))
        proxy.lose = f"t/_delta_log/{version:020d}.json"
        # when: the client notices, or its own retry finds the name taken
        with contextlib.suppress(XOpsError):
            assert put(lake, "t", segment("p", "2", {"a": [2]}), actor=user(2)).record.version == version
        assert proxy.lost
        again = put(lake, "t", untouchable("p", "2"), actor=user(3))
    # then
    assert again.record.ref == head(open_lake(settings), "t")
    assert (again.reused, again.record.version) == (True, version)
    assert verify_version(open_lake(settings), again.record.ref) == []
    assert rows_of(open_lake(settings), "t") == {"p": [(2,)]}
