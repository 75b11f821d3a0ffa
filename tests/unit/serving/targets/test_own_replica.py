"""A replica's counters, and what is made of them; requests to it, and what its answers mean."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError, NotFoundError, Superseded, UnavailableError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.ledger import Draft
from airflow_provider_xops.serving.targets._http import Http, base_url
from airflow_provider_xops.serving.targets._own_replica import Counted, Replica, difference, quantile
from airflow_provider_xops.serving.targets.own import OwnServers
from airflow_provider_xops.serving.traffic import last_split
from tests.unit.registry.builders import a_model, an_actor
from tests.unit.serving.targets.builders import a_deployment

BOUNDS = (0.001, 0.01, 0.1, 1.0, float("inf"))


def counted(requests: int, errors: int = 0, slots: tuple[int, ...] = (0, 0, 0, 0, 0)) -> Counted:
    within = dict(zip(BOUNDS, np.cumsum(slots).tolist(), strict=True))
    return Counted(requests=requests, errors=errors, within=within)


@given(st.lists(st.integers(0, 50), min_size=5, max_size=5), st.floats(0.01, 0.999))
def test_a_quantile_lies_in_the_bucket_that_holds_it(slots: list[int], share: float) -> None:
    within = counted(0, 0, tuple(slots)).within
    found = quantile(within, share)

    total = sum(slots)
    if total == 0:
        assert found is None
        return
    cumulative = np.cumsum(slots)
    place = int(np.argmax(cumulative >= share * total))
    assert found is not None
    assert (0.0, *BOUNDS)[place] <= found <= BOUNDS[place]


def test_what_was_counted_in_between_is_added_up_over_replicas() -> None:
    before = {"a": {1: counted(100, 5, (90, 5, 0, 0, 0))}, "b": {1: counted(10, 0, (10, 0, 0, 0, 0))}}
    now = {
        "a": {1: counted(150, 6, (130, 14, 0, 0, 0)), 2: counted(20, 4, (0, 0, 16, 0, 0))},
        "b": {1: counted(11, 0, (11, 0, 0, 0, 0))},
    }
    found = difference(before, now)

    assert (found[1].requests, found[1].errors) == (51, 1)
    assert (found[2].requests, found[2].errors) == (20, 4)
    assert found[2].p99_ms is not None
    assert 10 < found[2].p99_ms <= 100


def test_a_replica_that_was_started_again_counts_from_nothing() -> None:
    found = difference({"a": {1: counted(1000, 9)}}, {"a": {1: counted(7, 1, (6, 0, 0, 0, 0))}})

    assert (found[1].requests, found[1].errors) == (7, 1)


def test_beyond_the_last_bucket_no_figure_is_made_up() -> None:
    found = difference({}, {"a": {1: counted(10, 0, (0, 0, 0, 0, 10))}})

    assert found[1].p99_ms == float("inf")


class Script(BaseHTTPRequestHandler):
    """Answers what the test has put down for a path; notes what it was asked."""

    answers: dict[str, tuple[int, Any]] = {}  # noqa: RUF012
    asked: list[tuple[str, Any]] = []  # noqa: RUF012

    def _do(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        self.asked.append((self.path, body))
        status, content = self.answers.get(self.path, (404, {}))
        said = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = _do

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def script() -> Iterator[tuple[Replica, dict[str, tuple[int, Any]], list[tuple[str, Any]]]]:
    class Mine(Script):
        answers: dict[str, tuple[int, Any]] = {}  # noqa: RUF012
        asked: list[tuple[str, Any]] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield Replica(f"127.0.0.1:{server.server_address[1]}", timeout_s=5), Mine.answers, Mine.asked
    server.shutdown()
    server.server_close()
    thread.join(10)


STATUS = {
    "models": {
        "late@eu": {
            "model": "late", "alias": "eu",
            "fleet": {
                "serving": {"variants": [
                    {"version": 1, "role": "primary", "weight": 0.9},
                    {"version": 2, "role": "canary", "weight": 0.1},
                    {"version": 3, "role": "shadow", "weight": 0.5},
                    {"version": 4, "role": "standby", "weight": 0.0},
                ]},
                "loaded": [{"version": 1, "created_at_ms": 1001}, {"version": 2}, {"version": 3}],
                "failed": [{"version": 4, "code": "model.digest_mismatch"}],
            },
            "figures": {"1": {"requests": 3, "errors": 1, "within_seconds": {"0.1": 1, "inf": 2}}},
        }
    }
}  # fmt: skip


def test_a_status_is_read(script: Any) -> None:
    replica, answers, _ = script
    answers["/xops/status"] = (200, STATUS)

    status = replica.status("late", "eu")

    assert (status.name, status.shares, status.shadows) == ("late@eu", {1: 0.9, 2: 0.1}, {3: 0.5})
    assert (status.loaded, status.failed) == ({(1, 1001), (2, None), (3, None)}, {4: "model.digest_mismatch"})
    assert status.counted[1] == Counted(requests=3, errors=1, within={0.1: 1, float("inf"): 2})
    with pytest.raises(NotFoundError):
        replica.status("late", "champion")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((401, {}), ArgumentError),
        ((403, {}), ArgumentError),
        ((500, {}), UnavailableError),
        ((404, {}), UnavailableError),
        ((200, b"<html>"), UnavailableError),
        ((200, {"models": {"late": {"model": "late", "alias": "eu"}}}), UnavailableError),
    ],
)
def test_what_is_no_such_server_is_told_apart(
    script: Any, answer: tuple[int, Any], error: type[Exception]
) -> None:
    replica, answers, _ = script
    answers["/xops/status"] = answer

    with pytest.raises(error):
        replica.status("late", "eu")


def test_rows_are_sent_column_by_column_and_the_answer_is_read(script: Any) -> None:
    replica, answers, asked = script
    answers["/xops/status"] = (200, STATUS)
    answers["/v2/models/late%40eu/versions/2/infer"] = (
        200,
        {
            "model_version": "2",
            "outputs": [
                {"name": "predictions", "shape": [2], "datatype": "INT64", "data": [0, 1]},
                {"name": "probabilities", "shape": [2, 2], "datatype": "FP64", "data": [0.9, 0.1, 0.2, 0.8]},
            ],
        },
    )
    at = pd.Timestamp("2013-01-01T05:00:00", tz="Europe/Berlin")
    frame = pd.DataFrame({"x": [0.5, np.nan], "word": ["a", np.nan], "at": [at, pd.NaT]})

    answer = replica.ask("late", "eu", frame, version=2)

    assert (answer.status, answer.version, answer.predictions) == (200, 2, [0, 1])
    assert answer.scores == [[0.9, 0.1], [0.2, 0.8]]
    assert asked[-1][1]["inputs"] == [
        {"name": "x", "shape": [2], "datatype": "FP64", "data": [0.5, None]},
        {"name": "word", "shape": [2], "datatype": "BYTES", "data": ["a", None]},
        {"name": "at", "shape": [2], "datatype": "BYTES", "data": ["2013-01-01T04:00:00", None]},
    ]


def test_a_version_that_is_not_there_is_an_answer_and_a_busy_server_is_none(script: Any) -> None:
    replica, answers, _ = script
    answers["/xops/status"] = (200, STATUS)
    frame = pd.DataFrame({"x": [0.5]})

    assert replica.ask("late", "eu", frame, version=7).status == 404
    answers["/v2/models/late%40eu/infer"] = (503, {})
    with pytest.raises(UnavailableError):
        replica.ask("late", "eu", frame, version=None)


def test_nobody_there_is_a_typed_error_that_can_be_tried_again() -> None:
    with pytest.raises(UnavailableError) as raised:
        Http("127.0.0.1:1", headers={"Authorization": "Bearer secret-key"}, timeout_s=1).get("/")

    assert raised.value.retryable
    assert "secret-key" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "ftp://a:1", "http://", "http://user:secret@a:1", "http://a:1/?q=1", "http://a:port"]
)
def test_an_address_that_is_none_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        base_url(text)

    assert raised.value.code == "argument.server_url"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("key", ["secret-word\nX-Other: 1", "secret-w\u00f6rd", "secret-\u2026"])
def test_a_key_that_cannot_be_sent_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        Replica("127.0.0.1:1", api_key=key)

    assert raised.value.code == "argument.serving_key"
    assert "secret" not in str(raised.value)


def test_a_line_break_at_the_end_of_a_key_is_left_out() -> None:
    assert Http("a:1", headers={"Authorization": "Bearer secret-word\n"})._headers == {
        "Authorization": "Bearer secret-word"
    }


def test_a_replica_that_has_answered_more_since_its_restart_hides_no_errors() -> None:
    before = {"a": {1: counted(10, 8, (2, 0, 0, 0, 0))}, "b": {1: counted(0, 0)}}
    now = {"a": {1: counted(12, 0, (12, 0, 0, 0, 0))}, "b": {1: counted(5, 5)}}

    found = difference(before, now)

    assert (found[1].requests, found[1].errors) == (17, 5)


@pytest.mark.parametrize(("made", "ready"), [(1002, True), (900, False), (None, True)])
def test_a_namesake_of_a_model_that_was_made_again_is_not_the_version(
    script: Any, lake: Lake, as_of: datetime, made: int | None, ready: bool
) -> None:
    replica, answers, _ = script
    model = a_model(2, name="late", created_at_ms=1002)
    fleet = {
        "serving": {"variants": []}, "failed": [],
        "loaded": [{"version": 2, **({} if made is None else {"created_at_ms": made})}],
    }  # fmt: skip
    answers["/xops/status"] = (
        200, {"models": {"late": {"model": "late", "alias": "champion", "fleet": fleet, "figures": {}}}}
    )  # fmt: skip
    target = OwnServers(lake, [replica.url], actor=an_actor(), clock=lambda: as_of)

    found = target.ready(a_deployment(model, target="xops", endpoint=target.endpoint), model)

    assert (found.ready, found.replicas) == (ready, int(ready))


@pytest.mark.parametrize("outcome", [PromotionOutcome.ROLLED_BACK, PromotionOutcome.PROMOTED])
def test_a_trial_does_not_begin_again_beside_another_champion(
    script: Any, lake: Lake, as_of: datetime, outcome: PromotionOutcome
) -> None:
    def decide(outcome: PromotionOutcome, version: int) -> None:
        draft = Draft(
            outcome=outcome, reason="in a test", to_version=version, to_created_at_ms=1000 + version,
            artifact_digest=a_model(version).artifact_digest,
        )  # fmt: skip
        actor = an_actor(f"{outcome} {version}")
        ledger.append(lake, "late", "champion", lambda now: draft, actor=actor, as_of=as_of)

    replica, answers, _ = script
    answers["/xops/refresh"] = (202, {})
    model = a_model(2, name="late", created_at_ms=1002)
    for version in (1, 2, 3):
        lake.evidence.put(a_model(version, name="late", created_at_ms=1000 + version))
    decide(PromotionOutcome.PROMOTED, 3)
    decide(PromotionOutcome.PROMOTED, 1)
    target = OwnServers(lake, [replica.url], actor=an_actor(), clock=lambda: as_of)
    work = a_deployment(model, target="xops", endpoint=target.endpoint, settings={"decides": False})
    target.prepare(work, model)
    target.shift(work, model, 0.1)
    decide(outcome, 3)
    before = last_split(lake, "late", "champion")

    for act in (lambda: target.prepare(work, model), lambda: target.shift(work, model, 0.5)):
        with pytest.raises(Superseded) as ended:
            act()
        assert ended.value.code == "superseded.traffic"
    target.abort(work, model)

    assert last_split(lake, "late", "champion") == before
