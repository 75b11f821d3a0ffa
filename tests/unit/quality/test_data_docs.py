"""Great Expectations' page: theirs in content, ours in standing alone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from airflow_provider_xops.quality import data_docs
from airflow_provider_xops.quality.data_docs import data_docs_html
from airflow_provider_xops.quality.engine import EngineRun, get_engine
from airflow_provider_xops.quality.frames import frame_of
from airflow_provider_xops.quality.suites import Check

NASTY = "<img src=https://example.org/x.png onerror=alert(1)>"


def _check(kind: str, **kwargs: Any) -> Check:
    return Check(type=f"expect_{kind}", kwargs=kwargs)


CHECKS = [
    _check("column_values_to_be_in_set", column="carrier", value_set=["AA", NASTY]),
    _check("column_values_to_be_between", column="carrier", min_value=1),
    _check("column_values_to_be_between", column="flight", max_value=2),
    _check("column_mean_to_be_between", column="flight", max_value=1),
    _check("column_values_to_not_be_null", column="flight"),
    _check("column_values_to_not_be_null", column="gate"),
    _check("column_distinct_values_to_be_in_set", column="carrier", value_set=["AA"]),
    _check(
        "column_quantile_values_to_be_between",
        column="flight",
        quantile_ranges={"quantiles": [0.5], "value_ranges": [[0, 1]]},
    ),
    _check("table_row_count_to_be_between", min_value=10),
    _check("table_columns_to_match_set", column_set=["flight"]),
    _check("compound_columns_to_be_unique", column_list=["flight", "carrier"]),
    _check("column_pair_values_a_to_be_greater_than_b", column_A="flight", column_B="delay"),
]


@pytest.fixture(scope="module")
def run() -> EngineRun:
    rows = {"flight": [1, 2, 999], "carrier": ["secret-carrier", "AA", None], "delay": [1.0, 2.0, 3.0]}
    return get_engine("pandas").run(CHECKS, frame_of(pd.DataFrame(rows)))


def draw(run: EngineRun, **options: Any) -> str:
    assert run.document is not None
    named = {"suite": "flights", "dataset": "flights__raw@3", "recorded_at": "2026-01-15T12:00:00+00:00"}
    drawn = data_docs_html(run.document, **{**named, **options})
    assert drawn is not None
    return drawn.decode()


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in ("br", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_what_the_library_says_of_every_check(run: EngineRun) -> None:
    text = re.sub(r"<[^>]+>", " ", draw(run))
    text = " ".join(text.split())
    for said in (
        "Evaluated Expectations 12",
        "values must belong to this set",
        "unexpected values found",
        "mean must be less than or equal to",
        "Must have greater than or equal to 10 rows",
        "raised an exception",
        "flights__raw@3",
    ):
        assert said in text, said


def test_the_page_loads_nothing_and_runs_nothing(run: EngineRun) -> None:
    page = draw(run)
    found = _Elements()
    found.feed(page)
    assert found.open == []  # well formed
    assert not found.tags & {"script", "link", "img", "iframe", "object", "svg", "form", "input", "a"}
    assert found.attributes <= {"class", "lang", "charset", "name", "content"}
    assert "url(" not in page
    assert "@import" not in page
    # the one address in it is the nasty argument, as text
    assert re.findall(r"https?://[^\s&<]+", page) == ["https://example.org/x.png"] * page.count("example.org")


def test_the_page_shows_samples_as_they_are_given_and_no_value_else(run: EngineRun) -> None:
    assert "secret-carrier" not in draw(run)
    page = draw(run, samples=[["aaaaaa-aaaaaaa (text)"]], remarks=["Samples of bad rows: masked."])
    assert "aaaaaa-aaaaaaa (text)" in page
    assert "Samples of bad rows: masked." in page
    assert "secret-carrier" not in page


def test_a_page_the_library_cannot_draw_is_none_and_no_error(
    run: EngineRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> str:
        raise KeyError("secret-carrier")

    monkeypatch.setattr(data_docs, "_drawn", broken)
    assert run.document is not None
    assert data_docs_html(run.document, suite="s", dataset="d", recorded_at="r") is None
    assert "KeyError" in caplog.text
    assert "secret-carrier" not in caplog.text


def test_a_set_of_thousands_of_values_is_cut() -> None:
    check = _check("column_values_to_be_in_set", column="carrier", value_set=[f"v{n}" for n in range(1000)])
    longer = _check("column_values_to_match_regex", column="carrier", regex="x" * 5_000)
    frame = frame_of(pd.DataFrame({"carrier": ["AA"]}))

    drawn = draw(get_engine("pandas").run([check, longer], frame))

    assert len(drawn) < 25_000
    assert "and 900 more" in drawn
