"""`xops` on a real lake: what it prints, what it exits with, and that nothing happens twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_xops.cli import main
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import RECORD_TYPES
from airflow_provider_xops.registry import ledger
from tests.unit.lake.helpers import put, segment


@pytest.fixture
def cli(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The lake that the commands find in the environment, with one published table in it."""
    monkeypatch.setenv("XOPS_LAKE_URI", lake.uri)
    put(lake, "daily", segment("2013-01-01", "f1", {"id": [1, 2, 3]}))
    return lake


def test_a_lake_is_made_once_and_found_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = str(tmp_path / "made")

    assert main(["lake", "init", uri, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["lake", "init", uri, "--json"]) == 0
    second = json.loads(capsys.readouterr().out)

    assert (first["created"], second["created"]) == (True, False)
    assert first["lake_id"] == second["lake_id"]


def test_a_missing_lake_is_an_error_with_the_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "m", "--lake", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert "[lake.not_found]" in said
    assert "xops lake init" in said


def test_errors_are_json_when_json_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "m", "--json", "--lake", str(tmp_path / "none")]) == 1
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "lake.not_found"


def test_a_dataset_version_is_traced(cli: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "daily@0"]) == 0
    assert "daily@0" in capsys.readouterr().out
    assert main(["trace", "daily@0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"]


def test_something_unknown_is_not_traced(cli: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "daily@99"]) == 1
    assert main(["trace", "not a subject"]) == 1
    assert "[argument.trace]" in capsys.readouterr().err


def test_a_version_is_verified_against_its_digest(cli: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lake", "verify", "daily"]) == 0
    assert "every file matches" in capsys.readouterr().out


def test_a_changed_file_is_found(cli: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (data_file,) = (Path(cli.uri.removeprefix("file://")) / "daily").rglob("*.parquet")
    pq.write_table(pa.table({"id": pa.array([1, 2, 4], pa.int64())}), data_file)

    assert main(["lake", "verify", "daily@0"]) == 1
    assert "every file matches" not in capsys.readouterr().out


def test_a_malformed_version_is_a_typed_error(cli: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lake", "verify", "daily@latest"]) == 1
    assert "[argument.table]" in capsys.readouterr().err


def test_a_hold_is_listed_and_set_once(cli: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["lake", "hold", "daily@0", "--holder", "case 17"]) == 0
    capsys.readouterr()

    assert main(["lake", "pins", "daily", "--json"]) == 0

    (only,) = json.loads(capsys.readouterr().out)
    assert (only["reason"], only["holder"]) == ("legal hold", "case 17")


def test_a_mutating_command_prints_the_key_it_acted_under_and_takes_one(
    cli: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["lake", "hold", "daily@0", "--holder", "case 17"])
    assert "idempotency key: cli-" in capsys.readouterr().err
    main(["lake", "hold", "daily@0", "--holder", "case 17", "--key", "mine"])
    assert "idempotency key" not in capsys.readouterr().err


def test_a_model_without_decisions_has_an_empty_history(
    cli: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "nobody"]) == 0
    assert "no decisions" in capsys.readouterr().out
    assert ledger.entries(cli, "nobody") == []


@pytest.mark.parametrize("kind", sorted(RECORD_TYPES))
def test_every_record_kind_has_a_schema(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", kind]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["kind"] == {"const": kind}


def test_the_contract_of_an_external_training_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["training-schema"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"


def test_a_training_record_that_is_no_json_is_a_typed_error(
    cli: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "record.json"
    broken.write_text("{")
    assert main(["record-training", str(broken), "--mlflow", "http://127.0.0.1:9"]) == 1
    assert "[argument.payload]" in capsys.readouterr().err


def test_the_reference_dags_are_copied_and_never_overwritten_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "dags"
    assert main(["init", str(target)]) == 0
    names = {path.name for path in target.glob("*.py")}
    assert names == {path.name for path in (Path(__file__).parents[2] / "dags").glob("*.py")}
    assert "flights_dataops.py" in names

    (target / "xops_rollback.py").write_text("mine")
    assert main(["init", str(target)]) == 0
    assert (target / "xops_rollback.py").read_text() == "mine"
    assert main(["init", str(target), "--force"]) == 0
    assert (target / "xops_rollback.py").read_text() != "mine"


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys\nfrom airflow_provider_xops.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'pandas', 'pyarrow', 'duckdb', 'deltalake', 'great_expectations', 'sklearn', 'mlflow'}\n"
        "heavy.add('airflow')\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_is_no_error(cli: Lake) -> None:
    command = f"{sys.executable} -m airflow_provider_xops.cli schema versions | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{"
    assert done.stderr == ""
