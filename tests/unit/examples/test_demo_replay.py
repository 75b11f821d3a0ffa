"""What the demo prints of a task, and what it reads out of a log."""

from __future__ import annotations

import pytest

from airflow_provider_xops.examples.demo.replay import Story, _figures_of, _reason, days_between


def test_days_between_includes_both_ends_and_crosses_months() -> None:
    assert days_between("2013-02-27", "2013-03-02") == [
        "2013-02-27",
        "2013-02-28",
        "2013-03-01",
        "2013-03-02",
    ]


def test_the_default_story_plays_a_week_with_a_broken_day_in_it() -> None:
    week = days_between(*Story().week)
    assert len(week) == 7
    assert {Story().broken_day, Story().retrain_after} <= set(week)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"kind": "versions", "rows": 1200, "table": "t", "version": 3}, "1,200 rows -> t@3"),
        (
            {"kind": "versions", "rows": 1, "table": "t", "version": 3, "reused": True},
            "1 rows -> t@3 (already there)",
        ),
        (
            {"kind": "validations", "outcome": "failed", "counts": {"passed": 3, "failed": 1}},
            "failed: 3 of 4 checks passed",
        ),
        (
            {
                "kind": "validations",
                "outcome": "passed",
                "counts": {"passed": 4},
                "quarantined": {"rows": 7, "record_id": "r"},
            },
            "passed: 4 of 4 checks passed, 7 rows set aside",
        ),
        (
            {"kind": "control_charts", "outcome": "no_data", "signals": [], "charts": [{}, {}]},
            "no data: 0 signals on 2 charts",
        ),
        ({"kind": "profiles", "rows": 1200, "columns": [{}, {}, {}]}, "1,200 rows, 3 columns"),
        (
            {"kind": "models", "name": "m", "version": 2, "metrics": {"roc_auc": 0.7}},
            "m v2, holdout AUC 0.7000",
        ),
        ({"something": "else"}, ""),
    ],
)
def test_a_tasks_result_is_told_in_one_short_line(value: dict[str, object], text: str) -> None:
    assert _figures_of(value) == text


def test_the_reason_is_the_last_typed_error_of_the_log() -> None:
    log = "starting\nerror [validation.failed] 2 of 9 failed. Next step: look at the report.\nTask failed"
    assert _reason(log) == "[validation.failed] 2 of 9 failed. Next step: look at the report."


def test_a_reason_that_the_log_says_twice_is_told_once() -> None:
    log = "error [a.b] it is bad. Next step: mend it.; ValidationError: [a.b] it is bad. Next step: mend it."
    assert _reason(log) == "[a.b] it is bad. Next step: mend it."


def test_a_log_without_a_typed_error_gives_its_last_line() -> None:
    assert _reason("one\n\ntwo\n") == "two"
    assert _reason("") == "its log is empty"
