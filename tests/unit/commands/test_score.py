"""`xops score` and `xops join-labels` on a real lake; only MLflow is left out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_xops import cli
from airflow_provider_xops.commands import _common
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.records import ModelVersion, PromotionOutcome
from tests.unit.serving.scoring_cases import (
    AS_OF,
    DAYS,
    NAME,
    ROWS,
    an_actor,
    day,
    decide,
    fill,
    nobody,
    record_models,
    without_mlflow,
)


@pytest.fixture
def models(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> dict[int, ModelVersion]:
    without_mlflow(monkeypatch)
    monkeypatch.setattr(_common, "registry", lambda args: nobody())
    return record_models(lake, fill(lake))


def run(lake: Lake, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    code = cli.main([*words, "--lake", lake.uri, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else None, said.err


def scoring(*words: str) -> tuple[str, ...]:
    return ("score", NAME, "--table", "flights", "--output", "predictions", *words)


def test_a_past_range_is_scored_with_any_version_once(
    lake: Lake, models: dict[int, ModelVersion], capsys: pytest.CaptureFixture[str]
) -> None:
    words = scoring("--version", "2", "--range", f"{DAYS[0]}..{DAYS[1]}", "--keep", "id", "--reasons", "1")
    code, planned, _ = run(lake, capsys, *words, "--dry-run")
    assert (code, planned["plan"][0]["partitions"], planned["dry_run"]) == (0, 2, True)
    assert not table_exists(lake, "predictions")
    code, done, said = run(lake, capsys, *words)
    assert (code, done["rows"], done["reused"], done["purpose"]) == (0, 2 * ROWS, False, "back_scoring")
    assert "idempotency key" in said
    assert run(lake, capsys, *words)[1]["reused"] is True
    rows = read.scan(lake, head(lake, "predictions")).read_all()
    assert set(rows["purpose"].to_pylist()) == {"back_scoring"}
    assert rows["reason_1"].null_count < ROWS
    # to be used: they stand beside
    code, used, _ = run(lake, capsys, *words, "--production")
    assert (code, used["purpose"], used["reused"]) == (0, "production", False)
    assert read.count_rows(lake, head(lake, "predictions")) == 4 * ROWS


def test_the_champion_of_each_day(
    lake: Lake, models: dict[int, ModelVersion], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(lake, capsys, *scoring())
    assert (code, json.loads(error)["error"]["code"]) == (1, "not_found.champion")
    decide(lake, models[1], datetime(2025, 3, 2, 9, tzinfo=UTC), PromotionOutcome.PROMOTED)
    decide(lake, models[2], datetime(2025, 3, 4, 9, tzinfo=UTC), PromotionOutcome.PROMOTED)
    words = scoring("--champion-of-the-day")
    code, _, error = run(lake, capsys, *words)
    assert (code, json.loads(error)["error"]["code"]) == (1, "not_found.champion")
    code, done, _ = run(lake, capsys, *words, "--skip-days-without")
    assert (code, done["rows"], done["models"]) == (0, 3 * ROWS, [f"{NAME} v1", f"{NAME} v2"])
    assert done["without"] == [DAYS[0]]
    code, _, error = run(lake, capsys, *words, "--production")
    assert (code, json.loads(error)["error"]["code"]) == (1, "argument.purpose")


def test_labels_are_joined_from_a_shell(
    lake: Lake, models: dict[int, ModelVersion], capsys: pytest.CaptureFixture[str]
) -> None:
    run(lake, capsys, *scoring("--version", "1", "--keep", "id"))
    part = day(DAYS[0]).select(["id", "late"])
    commit(lake, "outcomes", [Segment(DAYS[0], "f", part.to_reader)], actor=an_actor(), as_of=AS_OF)
    words = (
        "join-labels", "predictions", "outcomes@0", "--label", "late", "--on", "id", "--output", "labeled",
    )  # fmt: skip
    code, done, _ = run(lake, capsys, *words)
    assert (code, done["joined"], done["waiting"], done["reused"]) == (0, ROWS, 3 * ROWS, False)
    assert run(lake, capsys, *words, "--any-partition")[0] == 0
    one = run(lake, capsys, *words, "--range", DAYS[0], "--any-partition")[1]
    assert (one["joined"], one["waiting"], one["unmatched"]) == (ROWS, 0, 0)
