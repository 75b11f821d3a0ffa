"""Evidence: nothing lost, nothing written twice, found by whatever a task hands over."""

from __future__ import annotations

import json
import logging
from collections import Counter

import pytest

from airflow_provider_xops.errors import ArgumentError, DataError, NotFoundError
from airflow_provider_xops.lake.evidence import EvidenceStore, evidence_path
from airflow_provider_xops.lake.lake import Lake, open_lake
from airflow_provider_xops.records import (
    DatasetRef,
    ModelRef,
    Outcome,
    PerformanceReport,
    Selection,
    compact,
)
from airflow_provider_xops.settings import LakeSettings
from tests.unit.lake.processes import NOW, incident, pin_of, put_in_rounds, run_all
from tests.unit.test_records import dataset_version

WRITERS, ROUNDS = 16, 50
SELECTION = Selection(
    dataset=DatasetRef(lake_id="lake", table="flights", table_uuid="uuid", version=1),
    partitions=("all",),
    rows=1,
    digest="d",
)


@pytest.fixture
def evidence(lake: Lake) -> EvidenceStore:
    return lake.evidence


def test_a_record_is_kept_whole_at_a_name_made_of_its_identity(lake: Lake) -> None:
    record = dataset_version(3_000)

    assert lake.evidence.put(record) is True

    raw = lake.storage.get(f"_xops/evidence/versions/{record.record_id}.json")
    assert json.loads(raw or b"") == record.to_json()
    assert lake.evidence.get("versions", record.record_id) == record
    assert lake.evidence.uri(record) == f"{lake.uri}/_xops/evidence/versions/{record.record_id}.json"


def test_the_first_record_of_an_identity_stays(evidence: EvidenceStore) -> None:
    assert evidence.put(incident("a", "first")) is True
    assert evidence.put(incident("a", "second")) is False

    assert list(evidence.all("incidents")) == [incident("a", "first")]


def test_sixteen_processes_lose_nothing_and_of_one_name_one_wins(
    lake: Lake, lake_settings: LakeSettings
) -> None:
    answers = run_all(put_in_rounds, WRITERS, lake_settings, ROUNDS)

    winners = Counter(number for writer in answers for number, won, _own in writer if won)
    assert winners == Counter(range(ROUNDS))
    assert all(own for writer in answers for _number, _won, own in writer)
    told = {
        f"round {number}": f"writer {writer}"
        for writer, rounds in enumerate(answers)
        for number, won, _own in rounds
        if won
    }
    stored = {each.to_json()["subject"]: each.to_json()["message"] for each in lake.evidence.all("incidents")}
    assert stored == told
    assert {each.record_id for each in lake.evidence.all("pins")} == {
        pin_of(number).record_id for number in range(WRITERS * ROUNDS)
    }


def test_all_gives_each_record_once_in_the_order_of_the_ids(evidence: EvidenceStore) -> None:
    records = [pin_of(number) for number in range(20)]
    for record in records:
        evidence.put(record)

    assert list(evidence.all("pins")) == sorted(records, key=lambda record: record.record_id)
    assert list(evidence.all("models")) == []


def test_a_record_that_is_not_there_is_a_typed_error(evidence: EvidenceStore) -> None:
    with pytest.raises(NotFoundError) as caught:
        evidence.get("pins", "0" * 32)

    assert caught.value.code == "not_found.record"
    assert caught.value.context == {"kind": "pins", "record_id": "0" * 32}


def test_records_are_found_by_the_beginning_of_their_id(evidence: EvidenceStore) -> None:
    record = pin_of(1)
    evidence.put(record)
    evidence.put(pin_of(2))

    assert evidence.find("pins", record.record_id[:8]) == [record]
    assert evidence.find("pins", "f" * 31) == []


@pytest.mark.parametrize("prefix", ["", "abc", "../..", "ABCDEF12", "x" * 12, "*" * 8])
def test_what_is_not_the_beginning_of_an_id_is_refused(evidence: EvidenceStore, prefix: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        evidence.find("pins", prefix)

    assert caught.value.code == "argument.record_id"


@pytest.mark.parametrize("bad", ["../../lake", "", "a/b"])
def test_an_id_cannot_name_another_file(evidence: EvidenceStore, bad: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        evidence.get("pins", bad)

    assert caught.value.code == "argument.record_id"


def test_an_unknown_kind_is_refused_everywhere(evidence: EvidenceStore) -> None:
    for action in (
        lambda: evidence.get("rows", "0" * 32),
        lambda: evidence.all("rows"),
        lambda: evidence.find("rows", "0" * 32),
        lambda: evidence.resolve({}, "rows"),
        lambda: evidence_path("rows", "0" * 32),
    ):
        with pytest.raises(DataError) as caught:
            action()
        assert caught.value.code == "data.record_kind"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_record_holding_a_figure_without_json_is_refused_and_leaves_nothing(
    lake: Lake, value: float
) -> None:
    report = PerformanceReport(
        recorded_at=NOW,
        produced_by=pin_of(1).produced_by,
        model=ModelRef(name="m", version=1, created_at_ms=1),
        predictions=SELECTION,
        labels=SELECTION,
        metrics={"roc_auc": value},
        outcome=Outcome.PASSED,
    )

    with pytest.raises(DataError) as caught:
        lake.evidence.put(report)

    assert caught.value.code == "data.record_not_json"
    assert list(lake.storage.list("_xops/evidence/")) == []


def test_a_damaged_record_says_which_one(lake: Lake) -> None:
    record = pin_of(1)
    lake.storage.put_if_absent(evidence_path("pins", record.record_id), b"{")

    with pytest.raises(DataError) as caught:
        lake.evidence.get("pins", record.record_id)

    assert caught.value.code == "data.record_unreadable"
    assert record.record_id in str(caught.value)


def test_reports_are_kept_once_at_their_uri(lake: Lake) -> None:
    first = lake.evidence.put_report("validations/x.html", b"<p>1</p>", content_type="text/html")
    again = lake.evidence.put_report("validations/x.html", b"<p>2</p>", content_type="text/html")

    assert first == again == f"{lake.uri}/_xops/reports/validations/x.html"
    assert lake.storage.get("_xops/reports/validations/x.html") == b"<p>1</p>"


def test_whatever_a_task_hands_over_becomes_the_record(evidence: EvidenceStore) -> None:
    record = dataset_version(3_000)
    evidence.put(record)
    xcom = compact(record, uri=evidence.uri(record)) | {"reused": True}

    assert xcom["partitions"]["shortened"] is True
    for handed in (
        record,
        record.to_json(),
        xcom,
        json.dumps(xcom),
        str(xcom),  # what a template renders
        f"  {record.record_id}\n",
        record.record_id[:10],
    ):
        assert evidence.resolve(handed, "versions") == record


def test_a_record_of_another_kind_is_refused(evidence: EvidenceStore) -> None:
    for handed in (pin_of(1), pin_of(1).to_json(), compact(pin_of(1)), str(pin_of(1).to_json())):
        with pytest.raises(DataError) as caught:
            evidence.resolve(handed, "versions")
        assert caught.value.code == "data.record_kind"


@pytest.mark.parametrize("text", ["", "None", "flights@3", "[1]", "{", "__import__('os')"])
def test_text_that_names_no_record_is_refused(evidence: EvidenceStore, text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        evidence.resolve(text, "versions")

    assert caught.value.code == "argument.record"


def test_an_id_that_nobody_wrote_or_that_is_not_enough_is_refused(lake: Lake) -> None:
    for record_id in ("abcdef01" + "0" * 24, "abcdef01" + "1" * 24):
        lake.storage.put_if_absent(evidence_path("pins", record_id), json.dumps(pin_of(1).to_json()).encode())

    with pytest.raises(NotFoundError):
        lake.evidence.resolve("f" * 32, "pins")
    with pytest.raises(NotFoundError):
        lake.evidence.resolve("f" * 10, "pins")
    with pytest.raises(ArgumentError) as caught:
        lake.evidence.resolve("abcdef01", "pins")
    assert "2 records" in str(caught.value)


def test_a_new_record_is_one_line_in_the_log(
    lake_settings: LakeSettings, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    record = pin_of(1)

    with caplog.at_level(logging.INFO):
        open_lake(lake_settings).evidence.put(record)
        open_lake(lake_settings).evidence.put(record)

    assert [message for message in caplog.messages if record.record_id in message] == [
        f"Recorded pins {record.record_id}."
    ]
