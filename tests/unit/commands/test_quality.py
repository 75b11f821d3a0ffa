"""`xops validate` on a real lake and on a real database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from airflow_provider_xops.cli import main
from airflow_provider_xops.lake.lake import Lake
from tests.unit.lake.helpers import put, segment
from tests.unit.quality import sql_tables

SECRET = "Jane-Secretdottir"


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "names.json"
    known = {"column": "name", "value_set": ["a"]}
    expectations = [{"type": "expect_column_values_to_be_in_set", "kwargs": known, "severity": "warning"}]
    path.write_text(json.dumps({"name": "names", "expectations": expectations}))
    return str(path)


@pytest.fixture(autouse=True)
def environment(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XOPS_LAKE_URI", lake.uri)


def test_a_version_is_validated_with_the_engine_and_the_samples_asked_for(
    lake: Lake, suite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(lake, "people__raw", segment("all", "1", {"name": ["a", SECRET]}))

    asked = ["validate", "people__raw", "--suite", suite, "--engine", "pandas", "--samples", "full"]
    assert main([*asked, "--no-data-docs"]) == 1

    said = capsys.readouterr().out
    assert "people__raw@0: failed (1 failed)" in said
    assert "failed  warning  expect_column_values_to_be_in_set name" in said
    page = said.rpartition("report: ")[2].strip()
    assert SECRET in Path(page.removeprefix("file://")).read_text()
    assert SECRET not in said
    assert not list(lake.storage.list(f"{page.partition(lake.uri)[2].strip('/')}.data_docs"))


def test_a_table_of_a_database_is_validated_where_it_is(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    engine = sa.create_engine(url)
    sql_tables.create(engine)
    engine.dispose()
    monkeypatch.setenv("XOPS_SQL_URL", url)

    assert main(["validate", "orders", "--sql", "--suite", suite, "--json"]) == 1

    report = json.loads(capsys.readouterr().out)
    assert report["dataset"]["table"] == "sqlite:orders"
    assert report["counts"]["failed"] == 1


@pytest.mark.parametrize(
    ("url", "more", "code"),
    [
        (None, [], "argument.sql_url"),
        ("no-dialect-of-that-name://user:hunter2@host/db", [], "argument.sql_url"),
        ("sqlite://", ["--partition", "2013-01-01"], "argument.partition"),
    ],
)
def test_a_database_that_is_not_named_well_is_refused_without_its_password(
    suite: str, url: str | None, more: list[str], code: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if url is not None:
        monkeypatch.setenv("XOPS_SQL_URL", url)
    assert main(["validate", "orders", "--sql", "--suite", suite, *more]) == 1
    said = capsys.readouterr().err
    assert f"[{code}]" in said
    assert "hunter2" not in said
