"""`xops card` without MLflow: printed or written, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_xops.cli import main
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import ModelCard, ModelVersion
from tests.unit.evaluation import report_samples as samples


@pytest.fixture
def model(lake: Lake) -> ModelVersion:
    made = samples.model(training=None)
    lake.evidence.put(made)
    lake.evidence.put(samples.full()[0])
    return made


def cards(lake: Lake) -> list[ModelCard]:
    return [one for one in lake.evidence.all(ModelCard.kind) if isinstance(one, ModelCard)]


def test_printed_card_writes_nothing(
    lake: Lake, model: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", "loan", "3", "--markdown", "--lake", lake.uri, "--limits", "Boston."]) == 0
    printed = capsys.readouterr().out
    assert main(["card", "loan", "3", "--html", "--lake", lake.uri]) == 0
    page = capsys.readouterr().out

    assert printed.startswith("# Model card of loan v3\n")
    assert "Boston." in printed
    assert page.startswith("<!doctype html>")
    assert cards(lake) == []
    assert not list(lake.storage.list("_xops/reports/cards"))


def test_written_card_is_named_and_found_again(
    lake: Lake, model: ModelVersion, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = tmp_path / "use.txt"
    text.write_text("A second look.\n\nNot for refusals.")
    args = ["card", "loan", "3", "--lake-only", "--lake", lake.uri, "--intended-use", f"@{text}"]

    assert main([*args, "--contact", "ann", "--contact", "bo"]) == 0

    (record,) = cards(lake)
    out = capsys.readouterr().out
    assert record.record_id in out
    assert record.documents["html"] in out
    assert record.documents["markdown"] in out
    written = lake.storage.get(f"_xops/reports/cards/{record.record_id}.md") or b""
    assert b"Not for refusals." in written
    assert b"ann, bo" in written


def test_json_is_the_record(lake: Lake, model: ModelVersion, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "loan", "3", "--lake-only", "--json", "--lake", lake.uri]) == 0

    assert ModelCard.from_json(json.loads(capsys.readouterr().out)) == cards(lake)[0]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["card", "loan", "4", "--markdown"], "not_found.model_record"),
        (["card", "loan", "3", "--markdown", "--limits", "@/nowhere/limits.txt"], "argument.file"),
    ],
)
def test_what_is_not_there_is_said(
    lake: Lake, model: ModelVersion, args: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*args, "--lake", lake.uri]) == 1
    assert code in capsys.readouterr().err
