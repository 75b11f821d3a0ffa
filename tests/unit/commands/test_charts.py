"""`xops metrics`, `xops charts` and `xops freshness` on a real lake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_xops.cli import main
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Incident, SpecialCauseNote
from tests.unit.quality.days import day, load, mean_chart, shifted, utc


@pytest.fixture
def cli(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("XOPS_LAKE_URI", lake.uri)
    load(lake, shifted(27, since=26, by=200), as_of=utc("2013-02-01"))
    return lake


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "charts.json"
    path.write_text(json.dumps([mean_chart()]))
    return str(path)


def test_metrics_are_measured_listed_and_printed(cli: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "t__raw"]) == 1
    assert "add --measure" in capsys.readouterr().err

    assert main(["metrics", "t__raw", "--measure"]) == 0
    assert "27 points of" in capsys.readouterr().out
    assert main(["metrics", "t__raw", "--metric", "mean:distance"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), lines[0]) == (27, f"{day(0)}  1000")
    assert main(["metrics", "t__raw", "--partition", day(26), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["row_count"] == 4


def test_check_exits_1_on_a_signal_and_0_once_it_is_explained(
    cli: Lake, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["charts", "check", "t__raw", "--plan", plan]) == 1
    said = capsys.readouterr().out
    assert f"t__raw, {day(26)}: failed" in said
    assert "mean:distance left its natural range: nelson_1" in said

    note = ["charts", "annotate", "t__raw", "--from", day(26), "--to", day(26), "--reason", "new planes"]
    assert main(note) == 0
    assert main(note) == 0
    assert len(list(cli.evidence.all(SpecialCauseNote.kind))) == 1
    assert main(["charts", "check", "t__raw", "--plan", plan, "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("[\n") :])[0]["outcome"] == "no_data"


def test_freshness_names_what_is_missing_and_records_it_when_asked(
    cli: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["freshness", "t__raw", "--every", "daily", "--grace", "999h", "--as-of"]
    assert main([*asked, "2013-02-02"]) == 0
    assert "fresh, newest partition" in capsys.readouterr().out

    late = ["freshness", "t__raw", "--as-of", "2013-01-29T00:00", "--start", day(0)]
    assert main(late) == 1
    assert main([*late, "--record", "--json"]) == 1
    assert len(list(cli.evidence.all(Incident.kind))) == 28  # nothing had arrived by then
    assert main([*asked, "2013-02-02", "--min-share", "2"]) == 1
    assert "volume" in capsys.readouterr().out
