"""The form that people are asked with: what the records say, readable, and no values of data."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_xops.evaluation.approval_form import BODY_LIMIT, Form, approval_form
from airflow_provider_xops.records import (
    Evaluation,
    GateReport,
    GateResult,
    MetricFigure,
    Outcome,
    SmokeTest,
)
from airflow_provider_xops.training.metrics import Task
from tests.unit.evaluation.report_samples import ACTOR, EVIL, NOW, bare, full, model


def form(evaluation: Evaluation | None = None, **changes: object) -> Form:
    chosen = evaluation or full()[0]
    champion = chosen.champion.version if chosen.champion else None
    values = {"model": model(chosen.model.version), "alias": "champion", "champion_now": champion, **changes}
    return approval_form(chosen, **values)  # type: ignore[arg-type]


def report(evaluation: Evaluation, *results: GateResult) -> GateReport:
    worst = Outcome.PASSED if all(one.outcome is Outcome.PASSED for one in results) else Outcome.FAILED
    return GateReport(
        recorded_at=NOW, produced_by=ACTOR.producer, model=evaluation.model, evaluation=evaluation.record_id,
        policy="strict", policy_digest="p", outcome=worst, results=results,
    )  # fmt: skip


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.REGRESSION])
def test_form_says_what_it_is_about_and_how_good_it_is(task: Task) -> None:
    evaluation = full(task)[0]
    shown = form(evaluation)

    assert shown.subject == "Promote loan v3 to champion (now v2)?"
    metric = "accuracy" if task is Task.CLASSIFICATION else "mae"
    assert f"{metric} is " in shown.body
    assert "against champion v2" in shown.body
    assert "Shown: " in shown.body
    assert "| Challenger v3 |" in shown.body.replace("---:", "")
    assert "better\\_than\\_champion" in shown.body or "better_than_champion" in shown.body
    assert "300 rows of loans@3" in shown.body
    assert evaluation.record_id in shown.body


def test_people_learn_what_their_answer_does() -> None:
    deadline = datetime(2026, 1, 16, 14, 30, tzinfo=timezone(timedelta(hours=2)))

    assert "2 different people must approve by 2026-01-16 12:30 UTC" in form(people=2, deadline=deadline).body
    assert "One person must approve; one no is a no, and so is silence" in form().body


def test_no_group_and_no_condition_of_a_slice_is_shown() -> None:
    body = form().body

    assert "Largest gap between groups of region: 0.12" in body
    assert "a slice that was searched for (13.3 % of the rows)" in body
    for value in ("north", "south", "west", "income < -1", "ratio >= 0.5"):
        assert value not in body


def test_what_was_not_measured_says_so() -> None:
    body = form(bare(), smoke_test=None).body

    assert "No metric could be measured." in body
    assert "No gate was asked" in body
    assert "These files were not smoke-tested." in body
    assert "Not measured: slices and gaps between groups" in body


def test_stale_evaluation_says_that_nothing_will_be_promoted() -> None:
    stale = form(champion_now=9).body
    assert stale.startswith("**The champion is another one by now:** champion stands for v9, this evaluation")
    assert "stands for nothing, this evaluation is against v2" in form(champion_now=None).body
    assert "by now" not in form().body


def test_gate_report_is_shown_instead_of_what_is_still_to_be_asked() -> None:
    evaluation = full()[0]
    deferred = "latency_budget (maximum_ms 50)"
    assert deferred in form(evaluation).body

    answered = report(
        evaluation,
        *evaluation.gates,
        GateResult(gate="latency_budget", outcome=Outcome.FAILED, message="80 ms"),
    )
    body = form(evaluation, gate_report=answered).body

    assert deferred not in body
    assert "The gates of strict: failed." in body
    assert "80 ms" in body
    # what the evaluation had said already stands there once
    assert body.count("| calibration_error") == 1


def test_smoke_test_is_told_with_its_latency() -> None:
    test = SmokeTest(
        recorded_at=NOW, produced_by=ACTOR.producer, model=model().ref, artifact_digest="3" * 64,
        environment="current", server="uvicorn", outcome=Outcome.FAILED, checks=(),
        figures={"latency_p50_ms": 3.21, "latency_p99_ms": 9.0}, settings_digest="s", requests=400,
        message="answers differ",
    )  # fmt: skip

    assert (
        "Smoke test of 2026-01-15 12:00 UTC: failed, 400 requests; latency: median 3.21 ms, 99th percentile"
        " 9 ms. answers differ." in form(smoke_test=test).body
    )


def test_only_addresses_of_the_web_become_links() -> None:
    links = [
        ("report", "https://airflow/xops/lakes/l/reports/a%20b.html"),
        ("card", "/xops/lakes/l/reports/c.html"),
        ("evil", "javascript:alert(1)"),
        ("broken", "https://a/> <script>"),
    ]
    body = form(links=links).body

    assert (
        "\n\n**Read on:** [report](<https://airflow/xops/lakes/l/reports/a%20b.html>) ·"
        " [card](</xops/lakes/l/reports/c.html>)\n\n### Figures" in body
    )
    assert "javascript" not in body


def test_text_from_elsewhere_is_text() -> None:
    gate = GateResult(gate=EVIL, outcome=Outcome.FAILED, message=EVIL)
    shown = form(dataclasses.replace(full()[0], gates=(gate,), record_id=""))

    assert "<script>" not in shown.body
    assert "[a](" not in shown.body


def test_a_long_form_keeps_the_question_and_the_links() -> None:
    evaluation = full()[0]
    many = tuple(
        MetricFigure(metric=f"metric_number_{n}", value=0.5, lower=0.4, upper=0.6, confidence=0.95)
        for n in range(400)
    )
    long = dataclasses.replace(
        evaluation, figures=many, metrics={one.metric: one.value for one in many}, record_id=""
    )

    body = form(long, links=[("report", "/r.html")]).body

    assert len(body) <= BODY_LIMIT
    assert "One person must approve" in body
    assert "*More is in the evaluation's report.*" in body
    assert "[report](</r.html>)" in body
