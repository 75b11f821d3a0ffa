"""Lineage of predictions that a server gave: from the id to the sources, with or without the log's row."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import NotFoundError, UnavailableError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.evidence import evidence_path
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.lineage import render, trace
from airflow_provider_xops.records import ModelVersion, VariantRole
from airflow_provider_xops.serving.online import sessions
from airflow_provider_xops.serving.online.prediction_log import LoggedBatch
from tests.unit.lake.chain import START, Chain, source_of
from tests.unit.serving.online.log_cases import ACTOR, Caller, Clock, make_log

DAYS = ("2013-01-01", "2013-01-02")
SECONDS = 60.0


class Served(Chain):
    """Two days of training data, a promoted model, and a server that has loaded it."""

    def __init__(self, lake: Lake, *, log_table: str | None = "delay_log") -> None:
        super().__init__(lake)
        for day in DAYS:
            last = self.day(day)
        self.champion: ModelVersion = self.model(1, last.ref, DAYS)
        self.promote(self.champion)
        self.session = sessions.begin(
            lake, server="gate-1", model=self.champion, alias="champion", started_at=START,
            log_table=log_table, actor=ACTOR,
        )  # fmt: skip
        self.caller = Caller(self.session, Clock(START))

    def write(self, *batches: LoggedBatch) -> None:
        log = make_log(lambda: self.lake)
        for batch in batches:
            log.offer(batch)
        assert log.close(SECONDS) == 0

    def id_of(self, number: int) -> str:
        return f"{sessions.id_prefix(self.session)}-{number}"


@pytest.fixture
def served(lake: Lake) -> Served:
    return Served(lake)


def _kinds_to_a_source(served: Served, prediction: str) -> list[str]:
    found = trace(served.lake, prediction, decisions=served.decisions)
    kinds, node = [], found.nodes[found.root]
    wanted = ["prediction", "session", "model", "dataset"]
    while node.kind in wanted and node.kind not in kinds:
        kinds.append(node.kind)
        sources = [source for _edge, source in found.sources_of(node.id) if source.kind in wanted]
        node = sources[0] if sources else node
    return kinds


def test_an_online_prediction_leads_to_model_training_data_and_sources(served: Served) -> None:
    served.write(served.caller.request([0, 1], key="customer 7"))

    found = trace(served.lake, served.id_of(1), decisions=served.decisions)

    assert _kinds_to_a_source(served, served.id_of(1)) == ["prediction", "session", "model", "dataset"]
    assert {node.title for node in found.of_kind("source")} == {f"source file {day}.csv" for day in DAYS}
    assert not [node for node in found.nodes.values() if node.missing]
    facts = dict(found.nodes[found.root].facts)
    assert facts["stored in"] == "delay_log@0, partition 2026-01-15"
    assert (facts["answered"], facts["variant"]) == ("2026-01-15 12:00:00 UTC", "primary")


def test_the_text_says_which_server_gave_it_and_who_decided(served: Served) -> None:
    served.write(served.caller.request())

    text = render(trace(served.lake, served.id_of(0), decisions=served.decisions), full=True, width=300)

    short = text[text.index("IN SHORT") : text.index("WHERE IT CAME FROM")]
    assert "model delay v1, champion since" in short
    assert "by gate-1 as champion, loaded 2026-01-15 12:00:00 UTC" in short
    assert "given by: serving session" in text
    assert "served: model delay v1" in text
    assert source_of(DAYS[0]).sha256 in text


def test_a_prediction_that_is_not_in_the_log_is_traced_and_said_to_be_missing(served: Served) -> None:
    for written in (False, True):
        found = trace(served.lake, served.id_of(2), decisions=served.decisions)
        assert "not in delay_log" in found.nodes[found.root].missing
        assert "not written yet, dropped" in render(found)
        assert {node.title for node in found.of_kind("source")} == {f"source file {day}.csv" for day in DAYS}
        if not written:
            served.write(served.caller.request([0, 1]))


def test_a_log_that_was_removed_leaves_the_chain(served: Served) -> None:
    served.write(served.caller.request())
    shutil.rmtree(Path(served.lake.uri) / "delay_log")

    found = trace(served.lake, served.id_of(0))

    assert "not in delay_log" in found.nodes[found.root].missing
    assert len(found.of_kind("source")) == 2


def test_a_server_without_a_log_has_nothing_missing(lake: Lake) -> None:
    served = Served(lake, log_table=None)

    found = trace(lake, served.id_of(5))

    assert found.nodes[found.root].missing == ""
    assert dict(found.nodes[found.root].facts)["stored in"] == "nothing: its server kept no log"


def test_a_shadow_and_a_failed_request_say_what_they_are(served: Served) -> None:
    served.write(
        served.caller.request([1], variant=VariantRole.SHADOW, shadow_of=f"{'a' * 24}-7"),
        served.caller.request([1], predictions=None, scores=None, error="model.predict_failed"),
    )

    shadow = dict(trace(served.lake, served.id_of(0)).nodes[f"prediction:{served.id_of(0)}"].facts)
    failed = dict(trace(served.lake, served.id_of(1)).nodes[f"prediction:{served.id_of(1)}"].facts)

    assert (shadow["variant"], shadow["shadow of"]) == ("shadow", f"{'a' * 24}-7")
    assert failed["answer"] == "none: model.predict_failed"


def test_a_model_names_the_sessions_that_served_it(served: Served) -> None:
    found = trace(served.lake, "delay/1", decisions=served.decisions)

    ((edge, node),) = [each for each in found.products_of(found.root) if each[1].kind == "session"]
    assert edge.downstream == "served in"
    assert dict(node.facts)["log"] == "delay_log"
    assert node.record == served.session.to_json()


def test_a_session_whose_model_has_no_record_is_told(served: Served) -> None:
    served.lake.storage.delete(evidence_path("models", served.champion.record_id))

    found = trace(served.lake, served.id_of(0))

    (model,) = found.of_kind("model")
    assert (model.title, bool(model.missing)) == ("model delay v1", True)


def test_an_id_of_no_session_is_not_found(served: Served) -> None:
    with pytest.raises(NotFoundError) as caught:
        trace(served.lake, f"{'0' * 24}-1")

    assert caught.value.code == "not_found.prediction"
    assert "serving session" in caught.value.why


def test_a_storage_that_is_down_is_not_told_as_a_row_that_is_missing(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.write(served.caller.request())

    def down(*_: Any, **__: Any) -> Any:
        raise UnavailableError("the storage did not answer", code="unavailable.storage")

    monkeypatch.setattr(read, "scan", down)

    with pytest.raises(UnavailableError):
        trace(served.lake, served.id_of(0))


def test_no_value_of_the_row_is_in_a_trace(served: Served) -> None:
    # Twelve digits: four are in some digest of the trace now and then.
    served.write(served.caller.request([471_108_150_923], scores=[0.123456], columns={"carrier": ["secret"]}))

    found = trace(served.lake, served.id_of(0))
    text = render(found, full=True) + str(found.to_json())

    assert "471108150923" not in text
    assert "0.123456" not in text
