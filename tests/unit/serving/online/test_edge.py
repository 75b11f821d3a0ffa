"""The application around the models: who may, how much, how long, and what it says of itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.serving.online.answers import Refusal
from airflow_provider_xops.serving.online.auth import Guard, KeyFile, keys_of
from airflow_provider_xops.serving.online.fleet import Fleet
from airflow_provider_xops.serving.online.follower import FollowerStatus
from airflow_provider_xops.serving.online.limits import Limits
from airflow_provider_xops.serving.online.metrics import Figures
from airflow_provider_xops.serving.online.scoring import Ask, Scorer
from airflow_provider_xops.serving.online.shadow import ShadowRunner
from tests.unit.registry.builders import AS_OF
from tests.unit.serving.online.edge_cases import Desk, Noted, Reply
from tests.unit.serving.online.fleet_cases import Shelf, canary, part, plan, primary

ROWS = {"inputs": [[1, 2]]}
TENSOR = {"inputs": [{"name": "rows", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}
SCORING, ADMIN = "a-key-for-scoring-1", "a-key-for-managing-1"


def metric(desk: Desk, name: str) -> dict[str, float]:
    """The samples of one metric: what stands between the braces to the value."""
    found = {}
    for line in desk.ask("/metrics").body.decode().splitlines():
        if line.startswith((f"{name}{{", f"{name} ")):
            labels, _, value = line.removeprefix(name).rpartition(" ")
            found[labels] = float(value)
    return found


def test_answers_name_model_version_and_role() -> None:
    desk = Desk(names=["späte Flüge"])
    reply = desk.ask("/invocations", ROWS)
    assert reply.headers["x-model-name"] == "sp%C3%A4te Fl%C3%BCge"
    assert (reply.headers["x-model-version"], reply.headers["x-variant"]) == ("1", "primary")
    assert int(reply.headers["content-length"]) == len(reply.body)


def test_a_key_sticks_to_a_version_and_versions_get_their_share() -> None:
    desk = Desk(versions=[primary(1, 0.5), canary(2, 0.5)])
    answered: dict[str, set[str]] = {}
    for _ in range(3):
        for key in map(str, range(40)):
            reply = desk.ask("/invocations", ROWS, headers={"X-Request-Key": key})
            answered.setdefault(key, set()).add(reply.headers["x-model-version"])
    assert {len(versions) for versions in answered.values()} == {1}
    assert {version for versions in answered.values() for version in versions} == {"1", "2"}
    long = desk.ask("/invocations", ROWS, headers={"X-Request-Key": "k" * 513})
    assert (long.status, long.json["code"]) == (400, "input.key")


def test_a_version_by_number_answers_from_memory_or_not_at_all() -> None:
    desk = Desk(versions=[primary(1), part(2, "standby")])
    for version, status in (("2", 200), ("1", 200), ("3", 404), ("x", 404), ("9" * 30, 404)):
        reply = desk.ask(f"/v2/models/late/versions/{version}/infer", TENSOR)
        assert reply.status == status
        if status == 200:
            assert reply.json["model_version"] == reply.headers["x-model-version"] == version
    assert desk.ask("/v2/models/late/versions/2/ready").status == 200
    assert desk.ask("/v2/models/late/versions/3/ready").status == 503


def test_several_models_are_asked_for_by_name() -> None:
    desk = Desk(names=["late", "early"])
    for path, headers, name in (
        ("/models/early/invocations", {}, "early"),
        ("/invocations", {"X-Model-Name": "late"}, "late"),
    ):
        assert desk.ask(path, ROWS, headers=headers).headers["x-model-name"] == name
    assert desk.ask("/v2/models/early/infer", TENSOR).json["model_name"] == "early"
    undecided = desk.ask("/invocations", ROWS)
    assert (undecided.status, undecided.json["code"]) == (400, "input.model")
    for path in ("/models/other/invocations", "/v2/models/other/infer"):
        unknown = desk.ask(path, ROWS)
        assert (unknown.status, unknown.json["code"]) == (404, "not_found.model")
        assert b"other" not in unknown.body
    with pytest.raises(ArgumentError):
        Desk(names=["late", "late"])


def test_before_a_model_is_loaded_nothing_is_ready_and_requests_are_told_to_wait() -> None:
    desk = Desk(ready=False)
    for path in ("/ping", "/health", "/v2/health/ready", "/v2/models/late/ready", "/v2/models/late"):
        assert desk.ask(path).status == 503
    assert desk.ask("/v2/health/live").status == 200
    reply = desk.ask("/invocations", ROWS)
    assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "unavailable.model", "2")
    assert reply.json["error_code"] == "TEMPORARILY_UNAVAILABLE"


def test_metadata_name_the_tensors() -> None:
    desk = Desk(versions=[primary(1), part(2, "standby")])
    content = desk.ask("/v2/models/late").json
    assert content["versions"] == ["1", "2"]
    assert content["inputs"] == [
        {"name": "a", "datatype": "FP64", "shape": [-1]}, {"name": "b", "datatype": "FP64", "shape": [-1]}
    ]  # fmt: skip
    assert content["outputs"][0] == {"name": "predictions", "datatype": "INT64", "shape": [-1]}
    assert desk.ask("/v2/models/late/versions/2").json["versions"] == ["2"]
    assert desk.ask("/v2/models/late/versions/7").status == 404
    assert desk.ask("/v2").json["name"] == "xops"
    index = desk.ask("/v2/repository/index", {}).json
    assert {(each["name"], each["version"], each["state"]) for each in index} == {
        ("late", "1", "READY"), ("late", "2", "READY")
    }  # fmt: skip


def test_what_is_served_cannot_be_changed_from_outside() -> None:
    desk = Desk()
    reply = desk.ask("/v2/repository/models/late/unload", {})
    assert (reply.status, reply.json["code"]) == (409, "conflict.desired_state")
    assert desk.ask("/v2/repository/models/late/load", {}).status == 200
    assert desk.ask("/invocations", ROWS).status == 200


def test_unknown_paths_and_methods_are_refused_without_repeating_them() -> None:
    desk = Desk()
    for path, body, status in (
        ("/secret-N328NB", None, 404), ("/invocations", None, 405), ("/metrics", {}, 405),
        ("/v2/secret-N328NB", None, 404), ("/docs", None, 404),
    ):  # fmt: skip
        reply = desk.ask(path, body)
        assert reply.status == status
        assert b"N328NB" not in reply.body
    assert desk.ask("/metrics", {}).headers["allow"] == "GET, HEAD"
    assert desk.ask("/xops/refresh").headers["allow"] == "POST"
    schema = desk.ask("/openapi.json").json
    assert "post" in schema["paths"]["/v2/models/{model}/infer"]
    assert "get" in schema["paths"]["/xops/status"]


@pytest.mark.parametrize("protocol", ["/invocations", "/v2/models/late/infer"])
def test_a_body_that_is_too_large_is_not_read_to_its_end(protocol: str) -> None:
    desk = Desk(limits=Limits(threads=1, body_bytes=1000, body_seconds=0.2))
    declared = desk.ask(protocol, b"{}", headers={"Content-Length": "1001"})
    assert (declared.status, declared.headers["connection"]) == (413, "close")
    chunked = desk.ask(protocol, chunks=[b"x" * 400, b"x" * 400, b"x" * 400, b"never read"])
    assert (chunked.status, chunked.json["code"]) == (413, "limit.body")
    assert desk.ask(protocol, chunks=[b"x" * 1001]).status == 413
    assert desk.ask("/invocations", chunks=[b'{"inputs"', b": [[1, 2]]}"]).status == 200


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    desk = Desk(limits=Limits(threads=1, body_seconds=0.05))
    reply = asyncio.run(_without_end(desk))
    assert (reply.status, reply.json["code"]) == (408, "limit.body_time")
    assert desk.ask("/invocations", chunks=[b"{"], gone=True).status == 0
    assert desk.ask("/invocations", ROWS).status == 200


async def _without_end(desk: Desk) -> Any:
    sent: list[Any] = []
    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        if pieces:
            return pieces.pop()
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/invocations", "method": "POST", "headers": [], "query_string": b""}
    await desk.app(scope, receive, send)
    return Reply(sent[0]["status"], {}, sent[1]["body"])


def held(desk: Desk) -> tuple[threading.Event, threading.Event]:
    """Let the model's next predictions wait: ``begun`` is set when one does, ``go`` lets them end."""
    begun, go = threading.Event(), threading.Event()

    def before() -> None:
        begun.set()
        assert go.wait(30)

    desk.estimator.before = before
    return begun, go


def test_more_requests_than_the_queue_holds_are_refused_at_once() -> None:
    desk = Desk(limits=Limits(threads=1, queue=2, request_seconds=30))
    begun, go = held(desk)

    async def together() -> list[Any]:
        asks = [asyncio.create_task(desk.asked("/invocations", ROWS)) for _ in range(3)]
        while not begun.is_set():
            await asyncio.sleep(0.01)
        refused = await desk.asked("/invocations", ROWS)
        go.set()
        return [refused, *await asyncio.gather(*asks)]

    refused, *answered = asyncio.run(together())
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert refused.json["error_code"] == "RESOURCE_EXHAUSTED"
    assert [each.status for each in answered] == [200, 200, 200]
    assert desk.workers.inflight == 0


def test_a_request_that_takes_too_long_is_answered_and_its_place_stays_taken() -> None:
    desk = Desk(limits=Limits(threads=1, queue=5, request_seconds=0.2))
    begun, go = held(desk)

    async def story() -> list[Any]:
        first = asyncio.create_task(desk.asked("/invocations", ROWS))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        waited = await desk.asked("/invocations", ROWS)
        late = await first
        stuck = (desk.workers.stuck, desk.workers.inflight)
        go.set()
        while desk.workers.inflight:
            await asyncio.sleep(0.01)
        desk.estimator.before = None
        return [late, waited, stuck, await desk.asked("/invocations", ROWS)]

    late, waited, stuck, after = asyncio.run(story())
    assert (late.status, late.json["code"]) == (504, "limit.time")
    assert (waited.status, waited.headers["retry-after"]) == (503, "1")
    # The one that is computed and the one that nobody waits for any more, until the thread has seen it.
    assert stuck == (1, 2)
    assert desk.workers.stuck == 0
    assert after.status == 200
    # What was never begun has not been computed either.
    assert len(desk.estimator.frames) == 2


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in (
        {"queue": -1}, {"rows": 0}, {"request_seconds": 0.0}, {"body_bytes": 0}, {"bodies_bytes": 1000},
        {"request_seconds": math.nan}, {"shutdown_seconds": math.inf},
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match="too small"):
            Limits(**wrong)
    assert Limits().threads >= 1
    assert Limits().bodies_bytes >= 4 * Limits().body_bytes
    assert Limits(body_bytes=10**9).bodies_bytes == 4 * 10**9


def test_keys_open_what_they_are_for_and_nothing_else(tmp_path: Path) -> None:
    scoring, admin = tmp_path / "scoring", tmp_path / "admin"
    digest = hashlib.sha256(b"known-by-its-digest").hexdigest()
    scoring.write_text(f"# website\n{SCORING}  # until June\n\nsha256:{digest}\n")
    admin.write_text(ADMIN)
    desk = Desk(guard=Guard({"scoring": scoring, "admin": admin}, environ={}))

    def status(path: str, key: str | None, body: Any = None, *, name: str = "Authorization") -> int:
        value = f"Bearer {key}" if name == "Authorization" else key
        return desk.ask(path, body, headers={} if key is None else {name: str(value)}).status

    for path in ("/ping", "/v2/health/live", "/v2/health/ready", "/metrics", "/version"):
        assert status(path, None) == 200
    for key in (SCORING, ADMIN, "known-by-its-digest"):
        assert status("/invocations", key, ROWS) == 200
        assert status("/invocations", key, ROWS, name="X-API-Key") == 200
        assert status("/v2/models/late", key) == 200
    for key in (None, "", "another-key-altogether", SCORING[:-1], f"sha256:{digest}", "ä"):
        assert status("/invocations", key, ROWS) == 401
        assert status("/v2/models/late/infer", key, TENSOR) == 401
        assert status("/xops/status", key) == 401
        assert status("/v2/models/late", key) == 401
        assert status("/nowhere", key) == 401
    for path, body in (("/xops/status", None), ("/xops/refresh", {}), ("/v2/repository/index", {})):
        assert status(path, SCORING, body) == 403
        assert status(path, ADMIN, body) == 200
    refused = desk.ask("/invocations", ROWS, headers={"Authorization": "Bearer not-the-right-key"})
    assert refused.headers["www-authenticate"] == "Bearer"
    assert b"not-the-right" not in refused.body
    assert desk.ask("/invocations", ROWS, headers={"Authorization": f"Basic {SCORING}"}).status == 401


def test_keys_of_the_environment_and_closed_metrics() -> None:
    environ = {"XOPS_SERVE_KEYS": f"{SCORING},another-key-for-scoring"}
    desk = Desk(guard=Guard(environ=environ, open_metrics=False))
    assert desk.ask("/metrics").status == 401
    for key in (SCORING, "another-key-for-scoring"):
        assert desk.ask("/metrics", headers={"X-API-Key": key}).status == 200
    # There is no key for managing: nobody may.
    assert desk.ask("/xops/status", headers={"X-API-Key": SCORING}).status == 403


def test_a_key_file_is_read_again_when_it_changes_and_kept_when_it_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(SCORING)
    guard = Guard({"scoring": path}, environ={})
    desk = Desk(guard=guard)

    def status(key: str) -> int:
        return desk.ask("/invocations", ROWS, headers={"X-API-Key": key}).status

    assert (status(SCORING), status("the-next-key-in-line")) == (200, 401)
    path.write_text(f"{SCORING}\nthe-next-key-in-line\n")
    guard.refresh()
    assert (status(SCORING), status("the-next-key-in-line")) == (200, 200)
    path.write_text("short")
    guard.refresh()
    assert (status(SCORING), status("the-next-key-in-line")) == (200, 200)
    path.unlink()
    guard.refresh()
    assert status(SCORING) == 200


def test_keys_that_could_be_guessed_or_read_wrongly_are_refused(tmp_path: Path) -> None:
    for lines in (["short"], ["a key with blanks in it"], ["pässwörter-sind-lang"], ["# only words"], []):
        with pytest.raises(ArgumentError) as caught:
            keys_of(lines, where="keys.txt")
        assert caught.value.code == "argument.key"
        assert not any(line in str(caught.value) for line in lines if line)
    with pytest.raises(ArgumentError) as missing:
        KeyFile(tmp_path / "none")
    assert missing.value.code == "argument.key_file"


def test_figures_count_requests_by_route_version_and_status() -> None:
    desk = Desk(versions=[primary(1), part(2, "standby")])
    for _ in range(3):
        desk.ask("/invocations", {"inputs": [[1, 2], [3, 4]]})
    desk.ask("/invocations", {"inputs": "x"})
    desk.ask("/v2/models/late/versions/2/infer", TENSOR)
    desk.ask("/models/unknown-N328NB/invocations", ROWS)
    desk.estimator.raises = RuntimeError("no")
    desk.ask("/invocations", ROWS)
    labels = 'model="late",route="/invocations",status="{}",variant="{}",version="{}"'
    requests = metric(desk, "xops_requests_total")
    assert requests["{" + labels.format(200, "primary", 1) + "}"] == 3
    # Refused by the columns of the version that was to answer.
    assert requests["{" + labels.format(400, "primary", 1) + "}"] == 1
    assert requests["{" + labels.format(500, "primary", 1) + "}"] == 1
    assert not any("N328NB" in each for each in requests)
    assert metric(desk, "xops_rows_total") == {
        '{model="late",variant="primary",version="1"}': 6, '{model="late",variant="standby",version="2"}': 1
    }  # fmt: skip
    assert metric(desk, "xops_ready") == {'{model="late"}': 1}
    assert metric(desk, "xops_inflight_requests") == {"": 0}
    assert metric(desk, "xops_swaps_total") == {'{model="late"}': 1}
    figures = desk.ask("/xops/status").json["models"]["late"]["figures"]
    assert (figures["1"]["requests"], figures["1"]["errors"], figures["1"]["within_seconds"]["inf"]) == (
        5,
        1,
        3,
    )
    assert figures["2"]["requests"] == 1


def test_the_log_gets_every_answer_and_can_refuse_to_let_one_be_made() -> None:
    noted = Noted(overflow="refuse")
    desk = Desk(log=noted)
    reply = desk.ask("/invocations", {"inputs": [[1, 2], [-1, 2]]}, headers={"X-Request-Key": "customer 7"})
    (entry,) = noted.entries
    assert f"{entry.session.record_id[:24]}-{entry.first}" == reply.headers["x-prediction-id"]
    assert (entry.rows, entry.key, entry.weight) == (2, "customer 7", 1.0)
    assert entry.predictions.tolist() == reply.json["predictions"]
    noted.room = False
    refused = desk.ask("/invocations", ROWS)
    assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (
        503,
        "unavailable.log",
        "5",
    )
    assert len(desk.estimator.frames) == 1


def test_shadows_are_asked_about_what_was_answered() -> None:
    noted = Noted()
    runner = ShadowRunner(noted)  # type: ignore[arg-type]
    desk = Desk(log=noted, shadows=runner, versions=[primary(1), part(2, "shadow", 1.0)])
    reply = desk.ask("/invocations", {"inputs": [[1, 2], [-1, 2]]})
    assert runner.wait(20)
    answered, shadow = noted.entries
    assert (answered.session.model.version, shadow.session.model.version) == (1, 2)
    assert shadow.shadow_of == reply.headers["x-prediction-id"]
    assert reply.headers["x-model-version"] == "1"
    assert metric(desk, "xops_shadow_total")['{model="late",state="agreed",version="2"}'] == 2
    runner.close(5)


def test_while_it_ends_it_is_not_ready_and_asks_clients_to_close() -> None:
    desk = Desk()
    assert "connection" not in desk.ask("/invocations", ROWS).headers
    desk.site.draining = True
    assert desk.ask("/v2/health/ready").status == 503
    assert desk.ask("/v2/health/live").headers["connection"] == "close"
    reply = desk.ask("/invocations", ROWS)
    assert (reply.status, reply.headers["connection"]) == (200, "close")


def test_a_defect_is_answered_without_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()

    def broken(ask: Any) -> Any:
        raise KeyError("N328NB")

    monkeypatch.setattr(desk.site.serving[0].scorer, "answer", broken)
    reply = desk.ask("/invocations", ROWS)
    assert (reply.status, reply.json["code"]) == (500, "server.error")
    assert b"N328NB" not in reply.body


def test_waiting_for_a_look_takes_a_number() -> None:
    desk = Desk()
    assert desk.ask("/xops/refresh", {}, query="wait=0.1").status == 200
    for wrong in ("wait=soon", "wait=-1", "wait=1e9", "wait=nan"):
        assert desk.ask("/xops/refresh", {}, query=wrong).status == 400


def test_figures_and_state_are_told_while_everybody_waits_for_the_lake() -> None:
    desk = Desk()
    told = threading.Event()
    waited: list[bool] = []

    class Waits:
        """A follower whose look ends when the figures have been told."""

        def refresh(self, timeout: float | None = None) -> None:
            waited.append(told.wait(timeout))

        def status(self) -> FollowerStatus:
            return FollowerStatus(
                model="late", alias="champion", version=None, looked_at=None, looks=0, failures=0, failing=0,
                last_error="", last_message="",
            )  # fmt: skip

    desk.site.serving[0].follower = Waits()  # type: ignore[assignment]

    async def look() -> None:
        await asyncio.sleep(0.2)
        assert (await desk.asked("/metrics")).status == (await desk.asked("/xops/status")).status == 200
        told.set()

    refreshes = [lambda: desk.asked("/xops/refresh", {}, query="wait=5") for _ in range(4)]
    desk.several(*refreshes, look)
    assert waited == [True] * 4


def test_versions_by_number_answer_exactly_while_others_come_and_go() -> None:
    fleet = Fleet(Shelf(), clock=lambda: AS_OF)
    fleet.apply(plan(primary(1), standby=2))
    figures = Figures()
    scorer = Scorer("late", fleet, figures, max_rows=10, clock=lambda: AS_OF)
    body = json.dumps(TENSOR).encode()
    ended = threading.Event()
    wrong: list[Any] = []
    seen: set[tuple[int | None, int]] = set()

    def ask(version: int | None) -> None:
        while not ended.is_set():
            try:
                answer = scorer.answer(Ask("v2", body, version=version))
            except Refusal as refusal:
                seen.add((version, refusal.status))
                continue
            content = json.loads(answer.body)
            named = {answer.version, content["model_version"], str(int(content["outputs"][0]["data"][0]))}
            named |= {dict(answer.headers)[b"x-model-version"].decode()}
            seen.add((version, 200))
            if len(named) != 1 or version not in (None, int(answer.version)):
                wrong.append((version, named))

    threads = [threading.Thread(target=ask, args=(version,)) for version in (None, 1, 2, 3)]
    for thread in threads:
        thread.start()
    for number in range(300):
        now, standby = ((1, 2), (2, 3), (3, 1))[number % 3]
        fleet.apply(plan(primary(now), standby=standby))
    ended.set()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    # Each was there at times and not at others, and what follows the plan was always answered.
    assert seen <= {(None, 200), *((version, status) for version in (1, 2, 3) for status in (200, 404))}
    assert (None, 200) in seen
