"""`xops gates`, `approve` and `refuse`: what a person and a CI step see, and which exit code they get."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops import cli
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Approval, Evaluation, GateReport, ModelVersion
from tests.unit.registry.builders import AS_OF, a_model, an_actor, an_evaluation

POLICY = """
name: production
gates:
  - {gate: metric_threshold, metric: roc_auc, minimum: 0.6}
  - {gate: approved}
"""


@pytest.fixture
def model(lake: Lake) -> ModelVersion:
    made = a_model()
    lake.evidence.put(made)
    return made


@pytest.fixture
def evaluation(lake: Lake, model: ModelVersion) -> Evaluation:
    made = an_evaluation(model)
    lake.evidence.put(made)
    return made


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY, encoding="utf-8")
    return str(path)


def xops(lake: Lake, *words: str) -> int:
    return cli.main([*words, "--lake", lake.uri])


def test_a_ci_step_passes_once_figures_and_a_person_say_so(
    lake: Lake, evaluation: Evaluation, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert xops(lake, "gates", "check", "late", "1", "--policy", policy) == 1
    said = capsys.readouterr().out
    assert "production for late v1: no_data" in said
    assert "passed   metric_threshold:roc_auc" in said

    assert xops(lake, "approve", "late", "1", "--reason", "reviewed", "--role", "risk") == 0
    assert xops(lake, "gates", "check", "late", "1", "--policy", policy, "--json") == 0

    out = capsys.readouterr().out
    report = json.loads(out[out.index("{") :])
    assert (report["outcome"], report["evaluation"]) == ("passed", evaluation.record_id)
    assert lake.evidence.get(GateReport.kind, report["record_id"]).to_json() == report


def test_a_refusal_closes_and_names_who_said_it(
    lake: Lake, evaluation: Evaluation, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    xops(lake, "approve", "late", "1", "--reason", "reviewed")
    assert xops(lake, "refuse", "late", "1", "--reason", "the label is wrong") == 0
    assert xops(lake, "gates", "check", "late", "1", "--policy", policy) == 1
    assert f"refused by {getpass.getuser()}" in capsys.readouterr().out


def test_an_approval_keeps_what_the_person_gave(lake: Lake, model: ModelVersion) -> None:
    words = [
        "approve",
        "late",
        "1",
        "--reason",
        "ok",
        "--role",
        "risk",
        "--evidence",
        "abc",
        "--expires-in-days",
        "2",
    ]
    assert xops(lake, *words) == 0
    (word,) = lake.evidence.all(Approval.kind)
    assert isinstance(word, Approval)
    assert (word.person, word.role, word.evidence, word.model) == (
        getpass.getuser(),
        "risk",
        ("abc",),
        model.ref,
    )
    assert word.expires_at is not None
    assert (word.expires_at - word.recorded_at).days == 2
    assert xops(lake, "approve", "late", "1", "--reason", "ok", "--expires-in-days", "-1") == 1


def test_nobody_speaks_for_another_by_the_environment(
    lake: Lake, model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = pwd.getpwuid(os.getuid()).pw_name
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody_else")
    assert xops(lake, "approve", "late", "1", "--reason", "ok") == 0
    (word,) = lake.evidence.all(Approval.kind)
    assert isinstance(word, Approval)
    assert (word.person, word.produced_by.id) == (account, account)


def test_without_an_evaluation_gates_about_figures_have_no_data(
    lake: Lake, model: ModelVersion, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert xops(lake, "gates", "check", "late", "1", "--policy", policy) == 1
    assert "there is no evaluation of this version" in capsys.readouterr().out


def test_a_policy_is_read_without_a_lake(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gates", "show", policy]) == 0
    said = capsys.readouterr().out
    assert "production: 2 gates" in said
    assert "approved (people=1, roles=[], trainer_counts=False), asked before promotion" in said
    assert cli.main(["gates", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Policy"


def test_a_policy_with_a_mistake_fails_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("gates:\n  - gate: smoke_testd\n", encoding="utf-8")
    assert cli.main(["gates", "show", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"{path}: gate 1: unknown gate 'smoke_testd'" in error
    assert "did you mean smoke_tested?" in error


def test_a_dry_run_of_promotion_names_what_is_still_to_be_asked(
    lake: Lake, model: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    deferring = dataclasses.replace(an_evaluation(model), deferred_gates=({"gate": "smoke_tested"},))
    lake.evidence.put(deferring)
    assert xops(lake, "promote", "late", "1", "--dry-run") == 0
    assert "1 of 1 gates passed; still to be asked: smoke_tested" in capsys.readouterr().out


def test_the_newest_evaluation_counts_unless_one_is_named(
    lake: Lake, evaluation: Evaluation, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import datetime

    newer: Any = dataclasses.replace(
        evaluation, record_id="", gates_digest="others", metrics={"roc_auc": 0.1},
        recorded_at=AS_OF + datetime.timedelta(days=1), produced_by=an_actor("later").producer,
    )  # fmt: skip
    lake.evidence.put(newer)
    xops(lake, "gates", "check", "late", "1", "--policy", policy)
    assert "failed   metric_threshold:roc_auc" in capsys.readouterr().out
    xops(lake, "gates", "check", "late", "1", "--policy", policy, "--evaluation", evaluation.record_id[:8])
    assert "passed   metric_threshold:roc_auc" in capsys.readouterr().out
