"""The prediction log under fire: many servers at once, killed servers, storages that lose answers."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.compaction import compact
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.read import verify_version
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.serving.online import prediction_log as module
from airflow_provider_xops.serving.online.sessions import id_prefix, number_of
from airflow_provider_xops.settings import LakeSettings
from tests import servers
from tests.integration.log_writer import Told, start
from tests.integration.lossy_proxy import LossyProxy, lossy_proxy
from tests.unit.lake.helpers import AS_OF, user
from tests.unit.serving.online.log_cases import ACTOR, Caller, logged, make_log, session_of

SECONDS = 300.0
_PREFIXES = (f"logs-{os.getpid()}-{number}" for number in itertools.count())


@pytest.fixture
def local(tmp_path: Path) -> LakeSettings:
    settings = LakeSettings(uri=str(tmp_path / "lake"))
    init_lake(settings, actor=user(), as_of=AS_OF)
    return settings


@pytest.fixture
def on_s3(seaweedfs: servers.S3Server) -> LakeSettings:
    settings = seaweedfs.lake_settings(next(_PREFIXES))
    init_lake(settings, actor=user(), as_of=AS_OF)
    return settings


@pytest.fixture(params=["local", "on_s3"])
def settings(request: pytest.FixtureRequest) -> LakeSettings:
    found: LakeSettings = request.getfixturevalue(request.param)
    return found


def numbers_of(lake: Lake) -> dict[str, list[int]]:
    """The numbers of the logged predictions by session, sorted."""
    found: dict[str, list[int]] = {}
    for text in logged(lake, "prediction_id"):
        found.setdefault(text.rpartition("-")[0], []).append(number_of(text))
    return {prefix: sorted(numbers) for prefix, numbers in found.items()}


def race(settings: LakeSettings, *, count: int, requests: int, rows: int, flush_rows: int) -> list[Told]:
    """Several servers append at once; gives what each has told."""
    told = [Told() for _ in range(count)]
    processes = [
        start(
            settings, each, server=f"gate-{number}", requests=requests, rows=rows, flush_rows=flush_rows,
            pause=0.01,
        )
        for number, each in enumerate(told)
    ]  # fmt: skip
    for process in processes:
        process.join(SECONDS * 5)
        assert process.exitcode == 0
    return told


def check_race(settings: LakeSettings, told: list[Told], *, each: int) -> None:
    lake = open_lake(settings)
    assert [one.left.value for one in told] == [0] * len(told)
    assert numbers_of(lake) == {one.prefix.value.decode(): list(range(each)) for one in told}
    ref = head(lake, "delay_log")
    assert all(one.flushes.value > 1 for one in told)
    assert ref.version + 1 == sum(one.flushes.value for one in told)
    assert verify_version(lake, ref) == []


def test_many_servers_append_at_once_and_none_loses_or_doubles_a_row(settings: LakeSettings) -> None:
    told = race(settings, count=2, requests=40, rows=3, flush_rows=6)

    check_race(settings, told, each=120)


def kill_rounds(settings: LakeSettings, *, rounds: int, count: int, seed: int) -> tuple[int, int, int]:
    """Kill ``count`` servers a round at random instants; gives rows told, rows logged and the most lost at
    once."""
    chance, offered, most_lost, told_all = random.Random(seed), 0, 0, []
    for _ in range(rounds):
        told = [Told() for _ in range(count)]
        processes = [
            start(
                settings, each, server="gate", requests=100_000, rows=2, flush_rows=8, flush_seconds=0.1,
                pause=0.002,
            )
            for each in told
        ]  # fmt: skip
        for each, process in zip(told, processes, strict=True):
            enough, rows = chance.randrange(4), chance.randrange(300)
            wait_until(lambda: each.flushes.value >= enough and each.offered.value >= rows)  # noqa: B023
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
            process.join(SECONDS)
            assert process.exitcode == -9
        told_all += told
    found = numbers_of(open_lake(settings))
    for each in told_all:
        there = found.pop(each.prefix.value.decode(), [])
        # The rows of a session are written in their order: what is there is an unbroken beginning.
        assert there == list(range(len(there)))
        lost = each.offered.value - len(there)
        assert lost <= each.queued.value
        offered, most_lost = offered + each.offered.value, max(most_lost, lost)
    assert found == {}
    lake = open_lake(settings)
    assert verify_version(lake, head(lake, "delay_log")) == []
    return offered, read.count_rows(lake, head(lake, "delay_log")), most_lost


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_killed_server_loses_at_most_what_was_in_its_queue(local: LakeSettings) -> None:
    seed = int(os.environ.get("XOPS_TEST_SEED", "20261121"))

    offered, there, _most_lost = kill_rounds(local, rounds=2, count=2, seed=seed)

    assert there > 0
    assert offered > 0


def test_a_storage_that_loses_an_answer_gets_no_row_twice(
    on_s3: LakeSettings, seaweedfs: servers.S3Server
) -> None:
    address = urlsplit(seaweedfs.endpoint)
    caller = Caller(session_of())
    with lossy_proxy(address.hostname or "", address.port or 0) as proxy:
        far = replace(on_s3, **through(on_s3, proxy))
        log = make_log(lambda: open_lake(far))
        log.offer(caller.request())
        assert log.flush(SECONDS)
        for number in (1, 2):
            proxy.lose = f"_delta_log/{number:020d}.json"
            log.offer(caller.request())
            assert log.flush(SECONDS)
        assert log.close(SECONDS) == 0

    assert len(proxy.lost) == 2
    assert numbers_of(open_lake(on_s3)) == {id_prefix(caller.session): list(range(6))}


class Gate(LossyProxy):
    """A proxy that can be shut: then every connection is cut."""

    shut = False

    def _one(self, client: object) -> None:
        if self.shut:
            client.close()  # type: ignore[attr-defined]
        else:
            super()._one(client)  # type: ignore[arg-type]


@pytest.fixture
def gate(seaweedfs: servers.S3Server) -> Iterator[Gate]:
    address = urlsplit(seaweedfs.endpoint)
    with lossy_proxy(address.hostname or "", address.port or 0) as proxy:
        proxy.__class__ = Gate
        yield proxy  # type: ignore[misc]


def through(settings: LakeSettings, proxy: LossyProxy) -> dict[str, object]:
    options = {**settings.storage_options}
    (name,) = [key for key in options if "endpoint" in key.lower()]
    return {"storage_options": {**options, name: f"http://127.0.0.1:{proxy.port}"}, "timeout_s": 3}


def test_a_storage_that_is_down_fills_the_queue_then_everything_taken_is_written_once(
    on_s3: LakeSettings, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT_SECONDS", 0.5)
    far, caller = replace(on_s3, **through(on_s3, gate)), Caller(session_of())
    log = make_log(lambda: open_lake(far), max_rows=20, flush_rows=4)
    log.offer(caller.request())
    assert log.flush(SECONDS)

    gate.shut = True
    taken = [log.offer(caller.request()) for _ in range(15)]
    with log._changed:
        assert log._changed.wait_for(lambda: log._failed > 0, SECONDS)
    during = log.stats()
    gate.shut = False

    assert (taken.count(True), during.dropped, during.queued) == (10, 10, 20)
    assert "[unavailable." in (during.last_error or "")
    assert log.close(SECONDS) == 0
    assert numbers_of(open_lake(on_s3)) == {id_prefix(caller.session): list(range(22))}


def test_servers_append_while_their_log_is_compacted(local: LakeSettings) -> None:
    lake, stop, made = open_lake(local), threading.Event(), []

    def compact_all_the_time() -> None:
        while not stop.is_set():
            if lake.storage.exists("delay_log/_delta_log/00000000000000000000.json"):
                made.append(compact(lake, "delay_log", least_files=2, actor=ACTOR, as_of=AS_OF))
            stop.wait(0.02)

    beside = threading.Thread(target=compact_all_the_time)
    beside.start()
    told = race(local, count=2, requests=60, rows=2, flush_rows=4)
    stop.set()
    beside.join(SECONDS)
    made.append(compact(lake, "delay_log", least_files=2, actor=ACTOR, as_of=AS_OF))

    assert numbers_of(lake) == {one.prefix.value.decode(): list(range(120)) for one in told}
    assert Counter(one.left.value for one in told) == {0: 2}
    assert sum(each.files_removed for each in made) > 0
    assert verify_version(lake, head(lake, "delay_log")) == []


@pytest.mark.soak
def test_servers_are_killed_many_times(settings: LakeSettings) -> None:
    seed = int(os.environ.get("XOPS_TEST_SEED", str(time.time_ns() % 10**6)))

    offered, there, most_lost = kill_rounds(settings, rounds=12, count=4, seed=seed)

    print(
        f"\nseed {seed}: 48 servers killed on {settings.uri.split(':')[0]}, {offered} rows told, {there} in"
        f" the log, none doubled; the most that one lost: {most_lost} rows"
    )


@pytest.mark.soak
def test_eight_servers_append_for_long(settings: LakeSettings) -> None:
    begun = time.monotonic()
    told = race(settings, count=8, requests=600, rows=5, flush_rows=50)

    check_race(settings, told, each=3_000)
    print(
        f"\n8 servers, {8 * 3_000} rows in {sum(one.flushes.value for one in told)} flushes on"
        f" {settings.uri.split(':')[0]}: {time.monotonic() - begun:.1f} s, none lost, none doubled"
    )
