"""Declared sources in the ingest operator: rendering and refusals. Integration tests have the connections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.operators.data import IngestDatasetOperator
from airflow_provider_xops.operators.sources import HttpSource, PrefixSource, SqlSource
from airflow_provider_xops.version_compat import AirflowFailException, AirflowSkipException

MakeContext = Callable[..., dict[str, Any]]


def test_templates_of_a_source_are_rendered_and_the_declaration_stays(
    make_context: MakeContext, csv: Callable[..., Path]
) -> None:
    folder = csv("2013-01-01", "id", "1").parent
    source = PrefixSource(uri="{{ params.folder }}", pattern="{{ params.day }}.csv")
    operator = IngestDatasetOperator(task_id="i", table="t", source=source, mode="append")
    context = {"task": operator, "params": {"folder": str(folder), "day": "2013-01-01"}, **make_context()}
    context["params"] = {"folder": str(folder), "day": "2013-01-01"}

    operator.render_template_fields(context)
    returned = operator.execute(context)

    assert (returned["rows"], returned["batch_ids"]) == (1, ["2013-01-01.csv"])
    assert source.uri == "{{ params.folder }}"


def test_files_loaded_before_may_be_a_skip(make_context: MakeContext, csv: Callable[..., Path]) -> None:
    def load(run_id: str) -> dict[str, Any]:
        source = str(csv("d", "id", "1"))
        operator = IngestDatasetOperator(task_id="i", table="t", source=source, on_nothing="skip")
        return operator.execute(make_context(task_id="i", run_id=run_id))

    assert load("run_1")["reused"] is False
    assert load("run_1")["reused"] is True  # its own retry
    with pytest.raises(AirflowSkipException, match="nothing new for table t"):
        load("run_2")


def test_columns_of_files_may_evolve(make_context: MakeContext, csv: Callable[..., Path]) -> None:
    def load(day: str, *lines: str) -> dict[str, Any]:
        policy = "{'added': 'evolve'}"
        source = str(csv(day, *lines))
        options = {"source": source, "partition": day, "on_schema_change": policy}
        return IngestDatasetOperator(task_id="i", table="t", **options).execute(make_context())

    load("2013-01-01", "id", "1")
    assert load("2013-01-02", "id,n", "2,5")["rows"] == 1


@pytest.mark.parametrize(
    ("source", "options", "code"),
    [
        (SqlSource(conn_id="", table="t"), {}, "argument.empty"),
        (SqlSource(conn_id="xops_lake_default", table="t"), {}, "argument.sql_conn_id"),
        (SqlSource(conn_id="shop", table="t"), {"format": "csv"}, "argument.source"),
        (HttpSource(conn_id="api", endpoint="x"), {"delimiter": ";"}, "argument.source"),
        (PrefixSource(uri="/in"), {"mode": "append", "batch_id": "b"}, "argument.source"),
        (PrefixSource(uri="/in"), {}, "argument.source"),
        (PrefixSource(uri="/in"), {"on_schema_change": {"added": "evolve"}}, "argument.source"),
        (PrefixSource(uri="/in"), {"source_conn_id": "landing"}, "argument.source"),
        (PrefixSource(uri="gopher://in"), {"mode": "append"}, "argument.source_uri"),
        (PrefixSource(uri="/in"), {"on_nothing": "x"}, "argument.on_nothing"),
    ],
)
def test_what_cannot_be_loaded_is_refused(
    context: dict[str, Any], source: Any, options: dict[str, Any], code: str
) -> None:
    operator = IngestDatasetOperator(task_id="i", table="t", source=source, **options)
    with pytest.raises(AirflowFailException, match=code.replace(".", r"\.")):
        operator.execute(context)


def test_a_source_shows_no_headers_and_parameters() -> None:
    shown = repr(HttpSource(conn_id="a", endpoint="x", headers={"X": "secret"}, params={"k": "secret"}))
    assert "secret" not in shown
