"""Serving sessions: recorded before the first prediction, never shared, with ids that are given once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_xops.errors import ArgumentError, ConflictError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ServingSession
from airflow_provider_xops.serving.online import sessions
from tests.unit.serving.online.log_cases import ACTOR, NOON, model_version, session_of


def _begin(lake: Lake, server: str = "gate-1") -> ServingSession:
    return sessions.begin(
        lake, server=server, model=model_version(), alias="champion", started_at=NOON, log_table="delay_log",
        actor=ACTOR,
    )  # fmt: skip


def test_a_session_is_in_the_lake_when_it_begins(lake: Lake) -> None:
    session = _begin(lake)

    assert lake.evidence.get(ServingSession.kind, session.record_id) == session
    assert (session.server, session.model, session.log_table) == ("gate-1", model_version().ref, "delay_log")


def test_two_processes_of_one_name_that_begin_at_one_moment_have_two_sessions(lake: Lake) -> None:
    with ThreadPoolExecutor(4) as pool:
        begun = list(pool.map(lambda _: _begin(lake), range(4)))

    assert len({sessions.id_prefix(session) for session in begun}) == 4
    assert {each.record_id for each in lake.evidence.all(ServingSession.kind)} == {
        session.record_id for session in begun
    }


def test_too_many_sessions_of_one_name_and_moment_are_refused(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "ATTEMPTS", 2)
    _begin(lake)
    _begin(lake)

    with pytest.raises(ConflictError) as caught:
        _begin(lake)

    assert caught.value.code == "conflict.session"


def test_ids_are_given_once_to_any_number_of_threads() -> None:
    ids = sessions.PredictionIds(session_of())

    with ThreadPoolExecutor(8) as pool:
        given = [each for several in pool.map(lambda _: ids.texts(7), range(200)) for each in several]

    assert len(set(given)) == 1400
    assert {sessions.number_of(each) for each in given} == set(range(1400))
    assert ids.take(1) == 1400


@pytest.mark.parametrize(
    "text", ["", "4f0c-1", "4f0c0ffee4f0c0ffee4f0c0f", "4f0c0ffee4f0c0ffee4f0c0f-x", "-1"]
)
def test_what_is_no_prediction_id_has_no_number(text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        sessions.number_of(text)

    assert caught.value.code == "argument.prediction_id"


def test_a_key_is_the_same_on_every_server_of_a_lake_and_another_in_another() -> None:
    assert sessions.key_digest("lake-1", "customer 7") == sessions.key_digest("lake-1", "customer 7")
    assert sessions.key_digest("lake-1", "customer 7") != sessions.key_digest("lake-2", "customer 7")
    assert "customer" not in sessions.key_digest("lake-1", "customer 7")
