"""`xops profile` and `xops suggest` at a shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from airflow_provider_xops.cli import main
from airflow_provider_xops.lake.lake import Lake
from tests.unit.lake.helpers import put, segment
from tests.unit.quality.profiling.frames import flights


@pytest.fixture
def uri(lake: Lake) -> str:
    """A lake with two versions of a table."""
    put(lake, "flights", segment("2013-01-01", "a", flights(100)))
    put(lake, "flights", segment("2013-01-02", "b", flights(120)))
    return lake.uri


def test_a_profile_is_shown_as_lines_and_as_json(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "flights", "--lake", uri]) == 0
    text = capsys.readouterr().out
    assert main(["profile", "flights@0", "--partition", "2013-01-01", "--json", "--lake", uri]) == 0
    record = json.loads(capsys.readouterr().out)

    assert "flights@1: 220 rows, 9 columns" in text
    assert "carrier (string): none missing, 3 distinct" in text
    assert "UA" not in text
    assert (record["kind"], record["rows"]) == ("profiles", 100)


def test_a_suite_is_suggested_to_a_file_that_is_never_written_over(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "flights.yaml"
    command = [
        "suggest",
        "flights",
        "--values",
        "full",
        "--profiles",
        "2",
        "--output",
        str(file),
        "--lake",
        uri,
    ]

    assert main(command) == 0
    assert "expectations to" in capsys.readouterr().out
    suite = yaml.safe_load(file.read_text())
    assert {"AA", "UA", "DL"} in [set(one["kwargs"].get("value_set", ())) for one in suite["expectations"]]
    assert main(command) == 1
    assert "argument.output" in capsys.readouterr().err


def test_steps_are_suggested_as_yaml(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suggest", "flights", "--steps", "--lake", uri]) == 0

    steps = yaml.safe_load(capsys.readouterr().out)
    assert {"drop", "impute"} <= {step["step"] for step in steps}


def test_a_suite_for_daily_runs_is_learned_from_each_day_by_itself(
    uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suggest", "flights", "--lake", uri]) == 0
    whole = {one["type"] for one in yaml.safe_load(capsys.readouterr().out)["expectations"]}
    assert main(["suggest", "flights", "--by-partition", "--lake", uri]) == 0
    text = capsys.readouterr().out
    suite = yaml.safe_load(text)

    kind = "expect_table_row_count_to_be_between"
    (rows,) = (one for one in suite["expectations"] if one["type"] == kind)
    assert rows["kwargs"] == {"min_value": 50, "max_value": 240}
    assert kind not in whole
    assert "flights@1: 100 rows, 2013-01-01" in text
