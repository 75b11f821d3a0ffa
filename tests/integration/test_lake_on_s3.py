"""A lake on a real S3 server (SeaweedFS): made once, raced, refused, folded, committed to."""

from __future__ import annotations

import itertools
import json
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import LakeError, NotFoundError, UnavailableError, XOpsError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.lineage import trace
from airflow_provider_xops.lake.maintenance import fold_evidence, vacuum
from airflow_provider_xops.lake.pins import pin
from airflow_provider_xops.lake.read import read_pandas
from airflow_provider_xops.lake.storage import open_storage
from airflow_provider_xops.lake.tables import head, open_table
from airflow_provider_xops.records import Actor
from airflow_provider_xops.settings import LakeSettings
from tests import servers
from tests.unit.lake.chain import Chain
from tests.unit.lake.processes import NOW, incident, pin_of, put_in_rounds, run_all

LATER = NOW + timedelta(days=1)
_PREFIXES = (f"evidence-{number}" for number in itertools.count())


@pytest.fixture
def where(seaweedfs: servers.S3Server) -> LakeSettings:
    """Settings of a lake that does not exist yet, on the running server."""
    return seaweedfs.lake_settings(next(_PREFIXES))


@pytest.fixture
def s3_lake(where: LakeSettings, actor: Actor, as_of: datetime) -> Lake:
    init_lake(where, actor=actor, as_of=as_of)
    return open_lake(where)


def test_a_lake_is_made_once_and_found_by_its_uuid(
    where: LakeSettings, actor: Actor, as_of: datetime
) -> None:
    with pytest.raises(LakeError) as caught:
        open_lake(where)
    assert caught.value.code == "lake.not_found"

    first = init_lake(where, actor=actor, as_of=as_of)
    second = init_lake(where, actor=actor, as_of=as_of)

    assert (first.created, second.created) == (True, False)
    assert open_lake(replace(where, expected_lake_id=first.lake_id)).lake_id == second.lake_id
    assert list(open_storage(where).list("")) == ["_xops/lake.json"]


def test_a_lake_with_another_uuid_is_refused(s3_lake: Lake, where: LakeSettings) -> None:
    with pytest.raises(LakeError) as caught:
        open_lake(replace(where, expected_lake_id="another"))

    assert caught.value.code == "lake.other_uuid"
    assert caught.value.context["lake_id"] == s3_lake.lake_id


def test_of_sixteen_writers_of_one_name_exactly_one_wins(where: LakeSettings) -> None:
    storages = [open_storage(where) for _ in range(16)]
    for each in range(3):
        start = threading.Barrier(16)

        def race(number: int, path: str = f"race/{each}", start: threading.Barrier = start) -> bool:
            start.wait(60)
            return storages[number].put_if_absent(path, str(number).encode())

        with ThreadPoolExecutor(16) as pool:
            won = [number for number, winner in enumerate(pool.map(race, range(16))) if winner]

        assert len(won) == 1
        assert storages[0].get(f"race/{each}") == str(won[0]).encode()


def test_processes_that_record_evidence_at_once_lose_nothing(s3_lake: Lake, where: LakeSettings) -> None:
    answers = run_all(put_in_rounds, 4, where, 5)

    winners = sorted(number for writer in answers for number, won, _own in writer if won)
    assert winners == list(range(5))
    assert len(list(s3_lake.evidence.all("incidents"))) == 5
    assert {each.record_id for each in s3_lake.evidence.all("pins")} == {
        pin_of(n).record_id for n in range(20)
    }


@pytest.mark.parametrize("option", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_keys_are_forbidden_and_never_shown(
    s3_lake: Lake, where: LakeSettings, option: str, actor: Actor, as_of: datetime
) -> None:
    wrong = replace(where, storage_options={**where.storage_options, option: "a-wrong-value-00000000"})
    storage = open_storage(wrong)

    for action in (
        lambda: open_lake(wrong),
        lambda: init_lake(wrong, actor=actor, as_of=as_of),
        lambda: storage.put_if_absent("a", b""),
        lambda: list(storage.list("")),
        lambda: storage.delete("a"),
    ):
        with pytest.raises(LakeError) as caught:
            action()
        assert caught.value.code == "lake.forbidden"
        assert not caught.value.retryable
        for secret in (where.storage_options["AWS_SECRET_ACCESS_KEY"], "a-wrong-value"):
            assert secret not in str(caught.value)


def test_wrong_keys_are_forbidden_in_delta_tables_too(s3_lake: Lake, where: LakeSettings) -> None:
    wrong = replace(
        where, storage_options={**where.storage_options, "AWS_SECRET_ACCESS_KEY": "a-wrong-value-00000000"}
    )
    outsider = Lake(s3_lake.info, wrong, open_storage(wrong), s3_lake.evidence)

    with pytest.raises(LakeError) as caught:
        open_table(outsider, "flights")

    assert caught.value.code == "lake.forbidden"


def test_a_bucket_that_does_not_exist_is_named(where: LakeSettings, actor: Actor, as_of: datetime) -> None:
    with pytest.raises(LakeError) as caught:
        init_lake(replace(where, uri="s3://no-such-bucket/lake"), actor=actor, as_of=as_of)

    assert caught.value.code == "lake.not_found"
    assert "no-such-bucket" in caught.value.why


def test_a_policy_that_denies_writing_is_told_as_forbidden(
    seaweedfs: servers.S3Server, s3_lake: Lake, where: LakeSettings
) -> None:
    prefix = where.uri.removeprefix("s3://")
    denied = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{prefix}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    bucket, client = seaweedfs.buckets[0], seaweedfs.client()
    client.put_bucket_policy(Bucket=bucket, Policy=policy)
    try:
        with pytest.raises(LakeError) as caught:
            s3_lake.evidence.put(pin_of(1))
    finally:
        client.delete_bucket_policy(Bucket=bucket)

    assert caught.value.code == "lake.forbidden"
    assert s3_lake.evidence.put(pin_of(1)) is True


def test_a_server_that_hangs_and_one_that_is_gone_are_retryable(actor: Actor, as_of: datetime) -> None:
    with servers.seaweedfs() as server:
        where = server.lake_settings("lake", timeout_s=1)
        init_lake(where, actor=actor, as_of=as_of)
        lake = open_lake(where)
        server.process.signal_group(signal.SIGSTOP)
        hung = unavailable(lake)
        server.process.signal_group(signal.SIGCONT)
        assert open_lake(where).lake_id == lake.lake_id
        server.process.stop()
        gone = unavailable(lake)

    assert hung == gone == {"unavailable.storage"}


def unavailable(lake: Lake) -> set[str]:
    codes = set()
    for action in (
        lambda: open_lake(lake.settings),
        lambda: lake.evidence.put(pin_of(1)),
        lambda: open_table(lake, "flights"),
    ):
        with pytest.raises(UnavailableError) as caught:
            action()
        codes.add(caught.value.code)
    return codes


def test_credentials_are_asked_for_at_every_open(where: LakeSettings, actor: Actor, as_of: datetime) -> None:
    right = {name: where.storage_options[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    wrong = right | {"AWS_SECRET_ACCESS_KEY": "a-wrong-value-00000000"}
    answers, calls = [right], []

    def credentials() -> dict[str, str]:
        calls.append(1)
        return answers[0]

    endpoint = {name: value for name, value in where.storage_options.items() if name not in right}
    renewed = replace(where, storage_options=endpoint, credentials=credentials)
    init_lake(renewed, actor=actor, as_of=as_of)
    lake = open_lake(renewed)
    load(lake, 1, actor, as_of)
    before = len(calls)
    open_table(lake, "flights")
    assert len(calls) == before + 1

    answers[0] = wrong
    for action in (lambda: open_table(lake, "flights"), lambda: open_lake(renewed)):
        with pytest.raises(XOpsError) as caught:
            action()
        assert caught.value.code == "lake.forbidden"
    answers[0] = right

    assert head(lake, "flights").version == 0
    assert open_lake(renewed).lake_id == lake.lake_id


def test_folded_evidence_and_objects_are_read_as_one(
    s3_lake: Lake, where: LakeSettings, actor: Actor, as_of: datetime
) -> None:
    old, young = [pin_of(number) for number in range(12)], pin_of(99, when=LATER)
    for record in (*old, young):
        s3_lake.evidence.put(record)

    first = fold_evidence(s3_lake, "pins", older_than=LATER, actor=actor, as_of=as_of)
    second = fold_evidence(s3_lake, "pins", older_than=LATER, actor=actor, as_of=as_of)

    assert (first.folded, first.removed, first.left) == (12, 12, 1)
    assert (second.folded, second.removed, second.left) == (0, 0, 1)
    fresh = open_lake(where).evidence
    assert list(fresh.all("pins")) == sorted([*old, young], key=lambda each: each.record_id)
    assert fresh.put(old[3]) is False
    assert fresh.find("pins", old[3].record_id[:10]) == [old[3]]
    assert s3_lake.evidence.get("pins", old[5].record_id) == old[5]
    with pytest.raises(NotFoundError):
        fresh.get("pins", "0" * 32)


def test_more_objects_than_one_listing_holds_are_all_found(s3_lake: Lake) -> None:
    with ThreadPoolExecutor(16) as pool:
        wrote = list(pool.map(lambda number: s3_lake.evidence.put(incident(f"{number}", "x")), range(1_050)))

    assert all(wrote)
    assert len(list(s3_lake.storage.list("_xops/evidence/incidents/"))) == 1_050
    assert len({each.record_id for each in s3_lake.evidence.all("incidents")}) == 1_050


def test_a_report_has_its_content_type(seaweedfs: servers.S3Server, s3_lake: Lake) -> None:
    uri = s3_lake.evidence.put_report("validations/x.html", b"<p>1</p>", content_type="text/html")

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    assert seaweedfs.client().head_object(Bucket=bucket, Key=key)["ContentType"] == "text/html"


def load(lake: Lake, value: int, actor: Actor, as_of: datetime) -> object:
    table = pa.table({"flight": [value]})
    segment = Segment(partition="2013-01-01", fingerprint=f"input {value}", data=table.to_reader)
    return commit(lake, "flights", [segment], actor=actor, as_of=as_of)


def test_commits_are_exactly_once_and_pinned_versions_survive_a_vacuum(
    s3_lake: Lake, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    load(s3_lake, 1, make_actor(), as_of)
    first = head(s3_lake, "flights")
    load(s3_lake, 1, make_actor(), as_of)
    assert head(s3_lake, "flights") == first
    load(s3_lake, 2, make_actor(), as_of)
    load(s3_lake, 3, make_actor(), as_of)
    pin(s3_lake, first, reason="training", holder="delay v1", actor=make_actor(), as_of=as_of)

    result = vacuum(
        s3_lake, "flights", retention=timedelta(0), dry_run=False, actor=make_actor(), as_of=as_of
    )

    assert len(result.files) == 1
    assert list(read_pandas(s3_lake, first)["flight"]) == [1]
    assert list(read_pandas(s3_lake, head(s3_lake, "flights"))["flight"]) == [3]


def test_a_prediction_is_traced_to_its_file(s3_lake: Lake) -> None:
    chain = Chain(s3_lake)
    day = chain.day("2013-01-01")
    model = chain.model(1, day.ref, ["2013-01-01"])
    chain.promote(model)
    run = chain.score(model, day, "2013-01-01")

    found = trace(s3_lake, f"{run.record_id[:24]}-0", decisions=chain.decisions)

    assert [node.title for node in found.of_kind("source")] == ["source file 2013-01-01.csv"]
    assert len(found.of_kind("decision")) == 1
    assert not [node for node in found.nodes.values() if node.missing]
