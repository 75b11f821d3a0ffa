"""The page of a report: what its tables look like."""

from __future__ import annotations

from airflow_provider_xops.quality.page import Html, cell, table


def test_a_column_of_numbers_has_its_name_above_them() -> None:
    drawn = table(("Name", "Rows", "Share"), [("a", 1, cell("2 %", "n")), ("b", 3, cell("4 %", "n"))])
    assert drawn.startswith('<table><thead><tr><th>Name</th><th class="n">Rows</th><th class="n">Share</th>')


def test_a_table_without_rows_has_its_head_and_text_is_escaped() -> None:
    assert table(("A",), []) == "<table><thead><tr><th>A</th></tr></thead><tbody></tbody></table>"
    assert "<td>&lt;b&gt;</td><td><b></td>" in table(("A", "B"), [("<b>", Html("<b>"))])
