"""The drawing: well-formed, nothing active or external in it, and all that the verdict says to be seen."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from airflow_provider_xops.quality.spc import Baseline, ChartSpec, SpecialCause, judge, svg
from tests.unit.quality.spc.helpers import day, points_of

ORDINARY = [10.0, 10.4, 9.7, 10.1, 9.9, 10.3, 9.8, 10.2, 9.6, 10.1] * 3
SPEC = ChartSpec(metric="null_rate:<delay>", min_points=10)
NAMESPACE = "{http://www.w3.org/2000/svg}"


def _words(drawn: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(drawn).iter(f"{NAMESPACE}text")]


@pytest.mark.parametrize("chart", ["individuals", "p", "ewma", "cusum"])
@pytest.mark.parametrize("count", [0, 1, 12, 31])
def test_every_chart_is_a_document_of_its_own(chart: str, count: int) -> None:
    values = [value / 100 for value in [*ORDINARY, 14.0]]
    verdict = judge(replace(SPEC, chart=chart), points_of(values, [100.0] * 31)[:count])
    root = ElementTree.fromstring(svg(verdict))
    assert root.tag == f"{NAMESPACE}svg"
    names = {element.tag.removeprefix(NAMESPACE) for element in root.iter()}
    assert names <= {"svg", "title", "desc", "rect", "text", "path", "circle", "line"}
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in attributes if name.startswith("on") or "href" in name}
    assert (root[0].text or "").startswith("null_rate:<delay>")
    assert verdict.phase.replace("_", " ") in (root[1].text or "")


def test_signals_limits_causes_and_dates_can_be_read() -> None:
    causes = [
        SpecialCause(start=day(5), end=day(6), reason="airport <closed>"),
        SpecialCause(start=day(2), reason="second source", action="step"),
    ]
    verdict = judge(SPEC, points_of([*ORDINARY, *ORDINARY[:3], 14.0]), causes)
    words = _words(svg(verdict))
    assert {"N1", "airport <closed>", "second source", "2026-02-03", "moving range"} <= set(words)
    assert any(word.startswith("UCL ") for word in words)
    assert any(word.startswith("LCL ") for word in words)
    assert "N1 = nelson_1 · hollow: not counted" in words


def test_only_the_sum_that_signals_is_marked() -> None:
    verdict = judge(replace(SPEC, chart="cusum"), points_of([*ORDINARY, 12.0, 12.0]))
    assert _words(svg(verdict)).count("CUSUM") == 1


def test_only_the_last_points_are_drawn() -> None:
    verdict = judge(replace(SPEC, baseline=Baseline(points=30)), points_of(ORDINARY * 10))
    short, long = svg(verdict, last=40), svg(verdict, last=400)
    # 40 values, and the 30 moving ranges between the baseline and the newest point
    assert short.count("<circle") == 70
    assert long.count("<circle") > 300


def test_a_wild_excluded_point_does_not_squeeze_the_picture() -> None:
    cause = [SpecialCause(start=day(5), end=day(5), reason="double load")]
    values = [*ORDINARY[:5], 1e9, *ORDINARY[6:], 10.0]
    assert "↑" in _words(svg(judge(SPEC, points_of(values), cause)))


def test_a_constant_series_can_be_drawn() -> None:
    assert "<circle" in svg(judge(SPEC, points_of([0.0] * 31)))


def test_the_title_is_escaped() -> None:
    assert "<b>" not in svg(judge(SPEC, points_of(ORDINARY)), title="<b>mine</b>")
