"""The evaluation's page and JSON: whole, honest about what is missing, and safe to open."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.evaluation import curves, interval_plots, plots, report
from airflow_provider_xops.evaluation._document import (
    Items,
    Link,
    Section,
    Table,
    Text,
    to_html,
    to_markdown,
    without_links,
)
from airflow_provider_xops.evaluation._frame import BLUE, EDGE, width_of
from airflow_provider_xops.evaluation._report_more import missing_of
from airflow_provider_xops.evaluation._report_parts import headline, lead_of
from airflow_provider_xops.evaluation._words import estimate, signed
from airflow_provider_xops.evaluation.curves import curves_of
from airflow_provider_xops.evaluation.interval_plots import Estimate
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import (
    Evaluation,
    FairnessFigure,
    FeatureImportance,
    GroupFigure,
    Outcome,
)
from airflow_provider_xops.training.metrics import Task
from tests.unit.evaluation import report_samples as samples

TASKS = [
    (Task.CLASSIFICATION, (0, 1)),
    (Task.CLASSIFICATION, ("no", "yes")),
    (Task.CLASSIFICATION, ("a", "b", "c", "d")),
    (Task.REGRESSION, ()),
]


class Page(HTMLParser):
    """What a browser would see: texts, tags, and whatever it would fetch or run."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.fetched += [
            f"{name}={value}"
            for name, value in attrs
            if name in ("src", "srcset") or name.startswith("on") or (value or "").startswith("javascript:")
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes what was not open"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def page_of(evaluation: Evaluation, rows: Any) -> Page:
    champion = rows.champion.model if rows.champion else None
    content = report.report_html(evaluation, curves_of(rows), model=rows.challenger.model, champion=champion)
    page = Page(content)
    assert page.open == []
    for drawing in re.findall(r"<svg.*?</svg>", content.decode(), re.DOTALL):
        for node in ElementTree.fromstring(drawing).iter():  # well-formed, or this raises
            assert not [value for value in node.attrib.values() if "nan" in value or "inf" in value]
    return page


@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_page_shows_everything_that_was_measured(task: Task, classes: tuple[Any, ...]) -> None:
    evaluation, rows = samples.full(task, classes=classes)

    page = page_of(evaluation, rows)

    for one in (*evaluation.figures, *evaluation.champion_figures):
        assert estimate(one.value, one.lower, one.upper) in page.text
    for compared in evaluation.comparisons:
        assert signed(compared.difference, compared.lower, compared.upper) in page.text
    for words in (
        "better_than_champion:x", "latency_budget (maximum_ms 50)", "income < -1 and ratio >= 0.5",
        "weak (found)", "demographic parity", "0.12 [0.02, 0.22]", "Too few rows to be compared: west",
        "Permutation importance", "SHAP values", "noise, in standard deviations", "Learning curve",
        "0.31", "threshold: not measured: it needs costs", "3" * 64, evaluation.record_id, "9" * 64,
    ):  # fmt: skip
        assert words in page.text, words


def test_page_of_two_classes_has_their_plots() -> None:
    page = page_of(*samples.full())

    for title in ("ROC curve", "Precision and recall", "Confusion matrix", "Scores", "Calibration"):
        assert title in page.texts
    assert f"challenger, area {samples.full()[0].metrics['roc_auc']:.4g}" in page.text


def test_failed_gate_leads_and_comes_first() -> None:
    page = page_of(*samples.full())

    lead = page.text[: page.text.index("Overview")]
    assert "1 failed, 1 no data, 1 passed" in lead
    assert "better_than_champion:x, calibration_error" in lead
    gates = page.text[page.text.index("Remark") :]
    assert gates.index("better_than_champion:x") < gates.index("metric_threshold:x")


def test_evaluation_in_which_nothing_was_measured_says_so_and_shows_no_zero() -> None:
    evaluation = samples.bare()
    rows = samples.scored(rows=0)
    rows = dataclasses.replace(rows, champion=None)

    page = page_of(evaluation, rows)

    assert "No gate was asked" in page.text
    assert "No metric could be measured" in page.text
    assert "roc_auc not measured" in " ".join(page.text.split())
    missing = " ".join(missing_of(evaluation))
    for part in (
        "comparison",
        "intervals",
        "fairness",
        "importances",
        "robustness",
        "learning curve",
        "skew",
    ):
        assert part in missing
    assert " 0 " not in page.text.partition("Figures")[2].partition("Not measured")[0]


def test_search_that_found_nothing_is_a_finding_and_a_failed_one_is_missing() -> None:
    evaluation, rows = samples.full()
    nothing = dataclasses.replace(evaluation, slices=())
    failed = dataclasses.replace(nothing, notes=("slices: not measured: it raised a ValueError",))

    assert "none is worse than the rest beyond chance" in page_of(nothing, rows).text
    assert not [each for each in missing_of(nothing) if each.startswith("slices")]
    assert "none is worse" not in page_of(failed, rows).text
    assert "slices: not measured: it raised a ValueError" in missing_of(failed)


def test_page_needs_and_runs_nothing() -> None:
    evaluation, rows = samples.full()
    groups = (GroupFigure(group=samples.EVIL, rows=80, value=0.5),)
    fairness = (
        FairnessFigure(attribute=samples.EVIL, metric="accuracy", criterion="", groups=groups, gap=None),
    )
    slices = (dataclasses.replace(evaluation.slices[0], conditions=samples.EVIL),)

    page = page_of(
        dataclasses.replace(evaluation, fairness=fairness, slices=slices, notes=(samples.EVIL,)), rows
    )

    assert samples.EVIL in page.text
    assert not page.fetched
    assert not {"script", "link", "img", "iframe", "object", "embed", "image", "use"} & set(page.tags)


def test_every_picture_has_words_for_who_does_not_see_it() -> None:
    evaluation, rows = samples.full()
    content = report.report_html(
        evaluation, curves_of(rows), model=rows.challenger.model, champion=None
    ).decode()

    drawings = re.findall(r"<svg.*?</svg>", content, re.DOTALL)
    assert len(drawings) >= 10
    for drawing in drawings:
        assert 'role="img"' in drawing
        assert re.search(r"<title>[^<]+</title>", drawing)


def test_documents_are_written_once_under_the_record(lake: Lake) -> None:
    evaluation, rows = samples.full()

    first = report.write_report(lake, evaluation, rows)
    page = lake.storage.get(f"_xops/reports/evaluations/{evaluation.record_id}.html")
    later = dataclasses.replace(evaluation, recorded_at=samples.NOW.replace(year=2027))
    again = report.write_report(lake, later, rows)

    assert first == again
    assert first["report"].endswith(f"/_xops/reports/evaluations/{evaluation.record_id}.html")
    assert page == lake.storage.get(f"_xops/reports/evaluations/{evaluation.record_id}.html")
    content = json.loads(lake.storage.get(f"_xops/reports/evaluations/{evaluation.record_id}.json") or b"")
    assert Evaluation.from_json(content["evaluation"]) == evaluation
    assert len(content["curves"]["roc"]["challenger"]) == 101


@pytest.mark.parametrize("task", list(Task))
def test_no_value_of_a_row_is_in_the_documents(task: Task) -> None:
    evaluation, rows = samples.full(task)
    curves = curves_of(rows)
    told = report.report_json(evaluation, curves).decode()
    told += report.report_html(evaluation, curves, model=rows.challenger.model, champion=None).decode()

    values = [*rows.table["income"].to_pylist(), *rows.table["ratio"].to_pylist()]
    values += list(rows.truth if task is Task.REGRESSION else rows.challenger.said.scores)

    assert not [value for value in values if f"{float(value):.9g}" in told]


numbers = st.one_of(st.none(), st.floats(-1e9, 1e9), st.sampled_from([0.0, 1.0, float("nan"), float("inf")]))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=60), numbers, numbers, numbers), max_size=8), numbers)
def test_forest_plot_draws_whatever_figures_there_are(rows: list[Any], reference: float | None) -> None:
    # given figures as bad as they come: missing, endless, not ordered, named with anything XML allows
    named = [(re.sub(r"[^\x20-\ud7ff]", "", name), *ends) for name, *ends in rows]
    estimates = [Estimate(label=n, value=v, lower=low, upper=up) for n, v, low, up in named]
    line = reference if reference is not None and np.isfinite(reference) else None

    drawing = ElementTree.fromstring(interval_plots.forest(estimates, title="t", x_name="x", reference=line))

    for node in drawing.iter():
        for name in ("x", "y", "cx", "cy", "x1", "x2", "y1", "y2", "width", "height"):
            assert np.isfinite(float(node.get(name, "0")))
    measured = sum(one.value is not None and bool(np.isfinite(one.value)) for one in estimates)
    assert len([node for node in drawing.iter() if node.tag.endswith("circle")]) == measured


def test_forest_plot_puts_values_where_they_belong() -> None:
    estimates = [
        Estimate(label=str(value), value=value, lower=value - 1, upper=value + 1) for value in (1.0, 2.0, 4.0)
    ]

    drawing = ElementTree.fromstring(interval_plots.forest(estimates, title="t", x_name="x"))

    x = [float(node.get("cx", "")) for node in drawing.iter() if node.tag.endswith("circle")]
    assert x[0] < x[1] < x[2]
    assert (x[2] - x[1]) == pytest.approx(2 * (x[1] - x[0]), abs=0.2)


def test_difference_of_a_loss_points_to_better_when_it_falls() -> None:
    evaluation, _ = samples.full(Task.REGRESSION)
    rmse = next(one for one in evaluation.comparisons if one.metric == "rmse")
    better = dataclasses.replace(rmse, difference=-0.5, lower=-0.6, upper=-0.4)

    drawing = ElementTree.fromstring(interval_plots.differences([better]))
    zero = next(node for node in drawing.iter() if node.get("stroke-dasharray") == "2 3")
    dot = next(node for node in drawing.iter() if node.tag.endswith("circle"))

    assert float(dot.get("cx", "")) > float(zero.get("x1", ""))


def test_confusion_of_names_that_are_markup_is_text() -> None:
    found = curves_of(samples.scored(classes=("<b>", "&amp;"))).confusion

    assert found is not None
    drawing = ElementTree.fromstring(plots.confusion_matrix(found))
    assert "<b>" in [node.text for node in drawing.iter()]


@given(st.text(max_size=200))
def test_text_of_people_changes_no_structure(words: str) -> None:
    sections = [Section("S", [Text(words), Table(("a", "b"), [(words, Outcome.PASSED)])])]

    markdown, html = to_markdown("T", sections), to_html("T", sections)

    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in table)
    assert "<" not in markdown
    assert not re.search(r"(?<!\\)\]\(", markdown)
    page = Page(html)
    assert page.open == []
    assert page.tags.count("td") == 2


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ((0.5, 0.5, 0.5), "0.5 [0.5, 0.5]"),
        ((float("nan"), 0.0, 1.0), "not measured"),
        ((0.00000123, 0.000001, 0.0000015), "0.00000123 [0.00000100, 0.00000150]"),
        ((123456.7, 120000.0, 130000.0), "123,457 [120,000, 130,000]"),
        ((-0.001, -0.5, 0.5), "0.0 [-0.5, 0.5]"),
        ((0.2, float("-inf"), 0.4), "0.2"),
    ],
)
def test_digits_follow_the_interval(given: tuple[float, float, float], shown: str) -> None:
    assert estimate(*given) == shown


SVG = "{http://www.w3.org/2000/svg}"


def outside(drawing: str) -> list[str]:
    """Words of a picture that begin or end beyond its edges, by the width of a wide font."""
    root = ElementTree.fromstring(drawing)
    found = []
    for node in root.iter(f"{SVG}text"):
        words, at = node.text or "", float(node.attrib["x"])
        wide = width_of(words, size=int(float(node.attrib["font-size"])))
        start = {"start": at, "middle": at - wide / 2, "end": at - wide}[
            node.attrib.get("text-anchor", "start")
        ]
        if start < 0 or start + wide > float(root.attrib["width"]):
            found.append(words)
    return found


LONG = "WIND_SPEED_MAXIMUM >= -0.8561 and WIND_SPEED_MAXIMUM < 0.8277 and distance_in_miles < 1193"


@pytest.mark.parametrize("value", [0.5, 12_345_678.9, -0.000012345])
def test_no_word_of_a_picture_is_cut_off(value: float) -> None:
    width = abs(value) * 1e-4
    ends = {"value": value, "lower": value - width, "upper": value + width}
    compared = samples.full()[0].comparisons[0]
    difference = dataclasses.replace(compared, difference=value, lower=ends["lower"], upper=ends["upper"])
    feature = FeatureImportance(feature=LONG, method="shap", **ends)
    matrix = curves.confusion(np.repeat([LONG, "b", "c"], 5), np.repeat(["c", LONG, "b"], 5))
    assert matrix is not None

    for drawing in (
        interval_plots.forest([Estimate(label=LONG, rows=1_000_000, **ends)], title="t", x_name="x"),
        interval_plots.forest([Estimate(label=LONG, **ends)], title="t", x_name="x", width=540.0, left=180.0),
        interval_plots.differences([difference]),
        interval_plots.importance_bars([feature], title="t", x_name="x"),
        plots.confusion_matrix(matrix),
        plots.roc({LONG: ((0.0, 0.0), (1.0, 1.0))}, {LONG: 0.5}),
    ):
        assert outside(drawing) == []


def test_weak_slices_are_drawn_however_many_others_there_are() -> None:
    evaluation, rows = samples.full()
    (weak,) = evaluation.slices
    fine = [dataclasses.replace(weak, name=f"s{at}", conditions=f"c{at}", weak=False) for at in range(100)]
    content = report.report_html(
        dataclasses.replace(evaluation, slices=(*fine, weak)), curves_of(rows), model=rows.challenger.model,
        champion=None,
    ).decode()  # fmt: skip

    drawing = next(one for one in re.findall(r"<svg.*?</svg>", content, re.DOTALL) if "by slice" in one)
    assert "income &lt; -1" in re.findall(r"<text.*", drawing)[0]
    assert "Shown are 24 of 101 slices, the weak ones first." in content
    assert len(re.findall(r"<td>c\d", content)) == 100


def test_of_many_groups_both_ends_of_the_gap_are_drawn() -> None:
    evaluation, rows = samples.full()
    groups = tuple(GroupFigure(group=f"g{at:02d}", rows=60, value=at / 100) for at in range(40))
    fairness = (dataclasses.replace(evaluation.fairness[0], groups=groups[20:] + groups[:20]),)

    text = page_of(dataclasses.replace(evaluation, fairness=fairness), rows).text

    assert "g00 (60)" in text
    assert "g39 (60)" in text
    assert "Shown are 24 of 40 groups, the lowest and the highest." in text


def test_gap_made_of_two_metrics_shows_no_values_of_one_under_its_name() -> None:
    evaluation, rows = samples.full()
    odds = dataclasses.replace(evaluation.fairness[0], metric="equalized_odds", criterion="equalized_odds")

    text = page_of(dataclasses.replace(evaluation, fairness=(odds,)), rows).text

    assert "equalized_odds" in text
    assert "equalized_odds by region" not in text
    assert "south: 0.53" not in text


def test_a_remark_about_slices_does_not_hide_that_none_is_weak() -> None:
    evaluation, rows = samples.full()
    remark = ("slices: rmse is no figure of a classification, so log_loss is shown",)
    nothing = dataclasses.replace(evaluation, slices=(), notes=remark)

    assert "none is worse than the rest beyond chance" in page_of(nothing, rows).text


@pytest.mark.parametrize(
    ("significant", "said"),
    [(True, "Shown: accuracy is better by more"), (False, "Not shown: accuracy"), (None, "Not testable: ")],
)
def test_lead_says_what_was_shown(significant: bool | None, said: str) -> None:
    evaluation, _ = samples.full()
    compared = tuple(
        dataclasses.replace(one, significant=significant) if one.hypothesis else one
        for one in evaluation.comparisons
    )

    assert any(said in line for line in lead_of(dataclasses.replace(evaluation, comparisons=compared)))


def test_metrics_of_other_tasks_are_named_apart_and_those_that_were_asked_for_are_missing() -> None:
    evaluation, rows = samples.full()
    asked = dataclasses.replace(evaluation, plan={**evaluation.plan, "metrics": ["roc_auc_ovr"]})

    text = " ".join(page_of(evaluation, rows).text.split())

    assert "Not defined for these rows and predictions: roc_auc_ovr." in text
    assert "roc_auc_ovr not measured" not in text
    assert "roc_auc_ovr not measured" in " ".join(page_of(asked, rows).text.split())


def test_metric_that_the_plan_names_first_stands_for_the_whole() -> None:
    evaluation, _ = samples.full()

    assert headline(dataclasses.replace(evaluation, plan={"metrics": ["brier", "roc_auc"]})) == "brier"
    assert headline(dataclasses.replace(evaluation, plan={})) == "roc_auc"


def test_positive_class_is_named() -> None:
    evaluation, rows = samples.full(classes=("no", "yes"))

    assert "The positive class is yes." in page_of(evaluation, rows).text


@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_one_row_has_a_page(task: Task, classes: tuple[Any, ...]) -> None:
    rows = dataclasses.replace(samples.scored(task, classes=classes or (0, 1), rows=1), champion=None)

    text = page_of(samples.bare(), rows).text

    assert ("No curves" in text) is (task is Task.REGRESSION)


def test_rare_classes_together_are_not_drawn_as_right() -> None:
    many = np.repeat(np.arange(40), np.arange(40, 0, -1))
    found = curves.confusion(many, np.roll(many, 1))
    assert found is not None

    cells = re.findall(
        r'<rect[^>]*fill="(#\w+)"[^>]*><title>true ([^,]*), predicted ([^:]*):', plots.confusion_matrix(found)
    )

    colors = {(true, told): color for color, true, told in cells}
    assert colors[("0", "0")] == BLUE
    assert colors[(curves.OTHER, curves.OTHER)] == EDGE


def test_copy_elsewhere_has_no_link_that_leads_nowhere() -> None:
    linked = to_html("t", [Section("s", [Items([Link("The report <b>", "../x.html")])])])

    copy = without_links(linked).decode()

    assert "<a " not in copy
    assert "<li>The report &lt;b&gt;</li>" in copy
