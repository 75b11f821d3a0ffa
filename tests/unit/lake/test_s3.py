"""S3 storage against a server that misbehaves: what is refused, what is retried, what is told."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_xops.errors import LakeError, UnavailableError, XOpsError
from airflow_provider_xops.lake._s3 import RETRIES
from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.lake.storage import open_storage
from airflow_provider_xops.records import Actor
from airflow_provider_xops.settings import LakeSettings
from tests.unit.lake.fake_s3 import fake_s3

SECRET = "s3cr3t-value"


def keys(name: str) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": SECRET}


def test_a_server_that_honors_conditional_writes_gets_a_lake(actor: Actor, as_of: datetime) -> None:
    with fake_s3() as server:
        info = init_lake(server.settings(), actor=actor, as_of=as_of)

        assert open_lake(server.settings()).lake_id == info.lake_id
        assert sorted(server.objects) == ["lake/_xops/lake.json"]


@pytest.mark.parametrize("conditional", [False, None])
def test_a_server_without_conditional_writes_is_refused_and_left_empty(
    conditional: bool | None, actor: Actor, as_of: datetime
) -> None:
    with fake_s3(conditional=conditional) as server:
        with pytest.raises(LakeError) as caught:
            init_lake(server.settings(), actor=actor, as_of=as_of)

        assert caught.value.code == "lake.unsafe_storage"
        assert "If-None-Match" in caught.value.todo
        assert server.objects == {}


def test_a_write_whose_answer_was_lost_is_still_known_as_ours() -> None:
    with fake_s3(script=["lost"]) as server:
        storage = open_storage(server.settings())

        assert storage.put_if_absent("a", b"mine") is True
        assert storage.get("a") == b"mine"
        assert storage.put_if_absent("a", b"other") is False


def test_a_lost_answer_does_not_make_another_writers_object_ours() -> None:
    with fake_s3() as server:
        storage = open_storage(server.settings())
        storage.put_if_absent("a", b"theirs")
        server.script = ["500"]

        assert storage.put_if_absent("a", b"mine") is False
        assert storage.get("a") == b"theirs"


def test_a_conflict_of_two_conditional_writes_is_tried_again() -> None:
    with fake_s3(script=["conflict"]) as server:
        assert open_storage(server.settings()).put_if_absent("a", b"1") is True


def test_conflicts_without_end_are_an_outage_not_a_verdict() -> None:
    with fake_s3(script=["conflict"] * 20) as server:
        with pytest.raises(UnavailableError) as caught:
            open_storage(server.settings()).put_if_absent("a", b"1")

        assert caught.value.retryable is True
        assert server.objects == {}


@pytest.mark.parametrize("script", [["503"] * 20, ["500"] * 20])
def test_a_server_in_trouble_is_asked_a_few_times_and_is_then_retryable(script: list[str]) -> None:
    with fake_s3(script=script) as server:
        with pytest.raises(UnavailableError) as caught:
            open_storage(server.settings()).put_if_absent("a", b"1")

        assert caught.value.code == "unavailable.storage"
        assert len(server.requests) == RETRIES


def test_a_server_that_never_answers_is_given_up_after_the_timeouts() -> None:
    with fake_s3(script=["silent"] * 20) as server:
        with pytest.raises(UnavailableError) as caught:
            open_storage(server.settings(timeout_s=0.2)).put_if_absent("a", b"1")

        assert caught.value.retryable is True
        assert len(server.requests) == RETRIES


def test_nobody_listening_is_an_outage() -> None:
    with fake_s3() as server:
        settings = server.settings()

    with pytest.raises(UnavailableError) as caught:
        open_storage(settings).get("a")

    assert caught.value.code == "unavailable.storage"


@pytest.mark.parametrize("action", ["get", "put", "list", "delete", "exists", "init", "open"])
def test_a_refusal_is_typed_and_repeats_no_secret(
    action: str, actor: Actor, as_of: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    with fake_s3(refused=frozenset({"key-one"})) as server, caplog.at_level(logging.INFO):
        storage = open_storage(server.settings())
        with pytest.raises(LakeError) as caught:
            {
                "get": lambda: storage.get("a"),
                "put": lambda: storage.put_if_absent("a", b"1"),
                "list": lambda: storage.list("a"),
                "delete": lambda: storage.delete("a"),
                "exists": lambda: storage.exists("a"),
                "init": lambda: init_lake(server.settings(), actor=actor, as_of=as_of),
                "open": lambda: open_lake(server.settings()),
            }[action]()

    assert caught.value.code == "lake.forbidden"
    assert caught.value.retryable is False
    assert caught.value.todo
    assert SECRET not in f"{caught.value}{caught.value.to_json()}{caught.value!r}{caplog.text}{storage!r}"


def test_expired_credentials_are_fetched_again_in_the_middle_of_the_work() -> None:
    answers = iter([keys("key-one"), keys("key-two"), keys("key-three")])

    with fake_s3(refusal=(400, "ExpiredToken")) as server:
        storage = open_storage(server.settings(credentials=lambda: next(answers)))
        storage.put_if_absent("a", b"1")
        server.refused = frozenset({"key-one"})

        assert storage.get("a") == b"1"
        assert server.keys_used() == ["key-one", "key-one", "key-two"]


def test_credentials_that_stay_expired_are_refused_after_one_more_try() -> None:
    with fake_s3(refused=frozenset({"key-one"}), refusal=(400, "ExpiredToken")) as server:
        with pytest.raises(LakeError) as caught:
            open_storage(server.settings(credentials=lambda: keys("key-one"))).get("a")

        assert caught.value.code == "lake.forbidden"
        assert server.keys_used() == ["key-one", "key-one"]


def test_every_table_that_is_opened_gets_fresh_credentials() -> None:
    answers = iter([keys("key-one"), keys("key-two")])

    with fake_s3() as server:
        storage = open_storage(server.settings(credentials=lambda: next(answers)))
        opened = [storage.delta_options()["AWS_ACCESS_KEY_ID"] for _ in range(2)]
        storage.exists("a")

        assert opened == ["key-one", "key-two"]
        assert server.keys_used() == ["key-two"]


def test_deltalake_gets_the_same_endpoint_and_bounds() -> None:
    with fake_s3() as server:
        options = open_storage(server.settings(timeout_s=7)).delta_options()

    assert options["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{server.port}"
    assert options["AWS_ALLOW_HTTP"] == "true"
    assert (options["timeout"], options["retry_timeout"], options["max_retries"]) == (
        "7s",
        "7s",
        str(RETRIES),
    )


def test_credentials_of_the_environment_reach_boto3_and_deltalake(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_s3() as server:
        endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_REGION": "us-east-1"}
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-env")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        storage = open_storage(server.settings(storage_options=endpoint))
        storage.exists("a")

        assert storage.delta_options()["AWS_ACCESS_KEY_ID"] == "key-of-env"
        assert server.keys_used() == ["key-of-env"]


def test_no_credentials_at_all_say_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with fake_s3() as server:
        options = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_REGION": "us-east-1"}
        with pytest.raises(LakeError) as caught:
            open_storage(server.settings(storage_options=options)).get("a")

        assert caught.value.code == "lake.forbidden"
        assert "credentials" in caught.value.why
        assert server.requests == []


def test_an_anonymous_lake_signs_nothing() -> None:
    with fake_s3() as server:
        options = server.settings().storage_options | {"AWS_SKIP_SIGNATURE": "true"}  # type: ignore[operator]
        open_storage(server.settings(storage_options=options)).exists("a")

        assert server.keys_used() == [""]


@pytest.mark.parametrize(
    ("uri", "error"),
    [("s3://bucket/lake?x=1", LakeError), ("s3://", LakeError), ("s3://B!/lake", XOpsError)],
)
def test_a_uri_that_names_no_bucket_is_refused(uri: str, error: type[XOpsError]) -> None:
    with fake_s3() as server, pytest.raises(error):
        open_storage(server.settings(uri=uri)).get("a")


def test_names_are_relative_to_the_prefix() -> None:
    with fake_s3() as server:
        below, whole = open_storage(server.settings()), open_storage(server.settings(uri="s3://bucket/"))
        below.put_if_absent("a/1", b"")
        whole.put_if_absent("b", b"")

        assert (below.uri, whole.uri) == ("s3://bucket/lake", "s3://bucket")
        assert sorted(server.objects) == ["b", "lake/a/1"]
        assert list(below.list("a/")) == ["a/1"]
        assert list(whole.list("")) == ["b", "lake/a/1"]


def test_the_settings_of_a_lake_never_show_the_secret(lake_settings: LakeSettings) -> None:
    with fake_s3() as server:
        shown: list[Any] = [server.settings(), open_storage(server.settings()), lake_settings]

    assert SECRET not in "".join(f"{each!r}{each!s}" for each in shown)
