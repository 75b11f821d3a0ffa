"""The data operators on a real lake: what they hand over, refuse and leave alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import list_tables, resolve_ref
from airflow_provider_xops.operators._loading import sources_by_partition
from airflow_provider_xops.operators.data import (
    AdoptDatasetOperator,
    IngestDatasetOperator,
    PublishDatasetOperator,
    TransformDatasetOperator,
    ValidateDatasetOperator,
)
from airflow_provider_xops.records import DatasetVersion, ValidationReport
from airflow_provider_xops.version_compat import AirflowFailException, AirflowSkipException, Asset

MakeContext = Callable[..., dict[str, Any]]
SUITES = "tests.unit.operators.suites"
SCHEMA = {"id": "int64", "n": "int64"}


@pytest.fixture
def ingest(make_context: MakeContext, csv: Callable[..., Path]) -> Callable[..., dict[str, Any]]:
    """Ingest lines of ``id,n`` as one partition of the table ``t``."""

    def make(*lines: str, partition: str = "d1", run_id: str = "run_1") -> dict[str, Any]:
        source = csv(partition, "id,n", *lines)
        operator = IngestDatasetOperator(
            task_id="ingest", table="t", source=str(source), partition=partition, schema=SCHEMA
        )
        return operator.execute(make_context(task_id="ingest", run_id=run_id))

    return make


@pytest.fixture
def validate(make_context: MakeContext) -> Callable[..., dict[str, Any]]:
    def make(dataset: Any, suite: str = f"{SUITES}:positive", **policy: Any) -> dict[str, Any]:
        operator = ValidateDatasetOperator(task_id="validate", dataset=dataset, suite=suite, **policy)
        return operator.execute(make_context(task_id="validate"))

    return make


def test_ingest_validate_publish_brings_the_rows_to_the_published_table(
    lake: Lake, ingest: Any, validate: Any, make_context: MakeContext
) -> None:
    # when a day goes through all three
    raw = ingest("1,5", "2,6")
    report = validate(raw)
    publish = PublishDatasetOperator(task_id="publish", report=report, outlets=[Asset("t")])
    context = make_context(task_id="publish")
    published = publish.execute(context)

    # then the published version holds it, with the report and the raw version as its parents
    assert (raw["table"], report["outcome"], published["table"]) == ("t__raw", "passed", "t")
    ref = resolve_ref(lake, "t", published["version"])
    assert read.scan(lake, ref).read_all().to_pydict() == {"id": [1, 2], "n": [5, 6]}
    assert published["parent_records"] == [report["record_id"]]
    assert context["outlet_events"][Asset("t")].extra["record_id"] == published["record_id"]
    assert DatasetVersion.from_json(published).ref == ref  # what travels is readable as a record


def test_same_files_again_are_reused_and_stay_silent(
    ingest: Any, validate: Any, make_context: MakeContext
) -> None:
    report = validate(ingest("1,5"))
    PublishDatasetOperator(task_id="publish", report=report).execute(make_context(task_id="publish"))

    again = ingest("1,5", run_id="run_2")
    publish = PublishDatasetOperator(task_id="publish", report=validate(again), outlets=[Asset("t")])
    published = publish.execute(make_context(task_id="publish", run_id="run_2"))

    assert (again["reused"], published["reused"]) == (True, True)
    assert publish.outlets == []


def test_validation_covers_what_the_ingest_was_asked_for_also_what_was_there_already(
    ingest: Any, make_context: MakeContext, csv: Callable[..., Path], validate: Any
) -> None:
    # given a first day that is loaded, but was never validated
    ingest("1,5", partition="2013-01-01")
    folder = csv("2013-01-02", "id,n", "2,6").parent

    # when a range is loaded that contains it
    operator = IngestDatasetOperator(
        task_id="ingest",
        table="t",
        source=f"{folder}/{{partition}}.csv",
        partition="2013-01-01..2013-01-02",
        schema=SCHEMA,
    )
    raw = operator.execute(make_context(task_id="ingest", run_id="run_2"))

    # then the commit wrote one day, and the report covers both
    assert raw["partitions"] == ["2013-01-02"]
    assert validate(raw)["partitions"] == ["2013-01-01", "2013-01-02"]

    # also where a template made text of the output
    assert validate(str(raw))["partitions"] == ["2013-01-01", "2013-01-02"]


def test_lists_and_mappings_may_be_text_that_a_template_rendered(
    context: dict[str, Any], csv: Callable[..., Path], lake: Lake
) -> None:
    folder = csv("d1", "id,n", "1,5").parent
    csv("d2", "id,n", "2,6")
    operator = IngestDatasetOperator(
        task_id="i",
        table="t",
        source=f"['{folder}/{{partition}}.csv']",
        partition="['d1', 'd2']",
        schema=str(SCHEMA),
        keys="id",
    )

    assert operator.execute(context)["partitions"] == ["d1", "d2"]


def test_validation_of_a_partition_that_renders_to_nothing_is_no_validation_of_all(
    ingest: Any, validate: Any
) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.empty\] partition"):
        validate(ingest("1,5"), partition="")


def test_transform_input_whose_partition_renders_to_nothing_is_not_read_whole(
    ingest: Any, validate: Any, make_context: MakeContext
) -> None:
    PublishDatasetOperator(task_id="p", report=validate(ingest("1,5"))).execute(make_context())
    inputs = {"t": {"dataset": "t", "partition": ""}}
    operator = TransformDatasetOperator(task_id="x", table="y", inputs=inputs, sql="SELECT * FROM t")

    with pytest.raises(AirflowFailException, match=r"argument\.empty\] the partition of inputs\['t'\]"):
        operator.execute(make_context())


def test_output_of_a_mapped_task_is_refused_with_the_way_out(ingest: Any, validate: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.record.*\.expand\(dataset=\.\.\.\)"):
        validate([ingest("1,5")])


@pytest.mark.parametrize("policy", [{"on_failure": "wran"}, {"on_error": "x"}, {"on_no_data": "x"}])
def test_policy_that_is_none_is_refused_before_anything_is_looked_at(
    ingest: Any, validate: Any, lake: Lake, policy: dict[str, str]
) -> None:
    with pytest.raises(AirflowFailException, match=rf"argument\.{next(iter(policy))}"):
        validate(ingest("1,5"), **policy)
    assert list(lake.evidence.all(ValidationReport.kind)) == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("id,m\n1,2\n", "source.columns"),
        ("id,n\n1,x\n", "source.types"),
        ("id,n\n1,\udcff\n", "source.encoding"),
    ],
)
def test_bad_file_fails_without_retry_and_leaves_nothing(
    lake: Lake, context: dict[str, Any], tmp_path: Path, content: str, code: str
) -> None:
    source = tmp_path / "bad.csv"
    source.write_bytes(content.encode("utf-8", "surrogateescape"))

    with pytest.raises(AirflowFailException, match=code.replace(".", r"\.")):
        IngestDatasetOperator(task_id="i", table="t", source=str(source), schema=SCHEMA).execute(context)

    assert list_tables(lake) == []


def test_missing_file_fails_without_retry(context: dict[str, Any], tmp_path: Path) -> None:
    operator = IngestDatasetOperator(task_id="i", table="t", source=str(tmp_path / "no.csv"), schema=SCHEMA)

    with pytest.raises(AirflowFailException, match=r"source\.missing"):
        operator.execute(context)


def test_object_storage_path_is_read_like_a_local_file(
    lake: Lake, context: dict[str, Any], csv: Callable[..., Path]
) -> None:
    # given a file behind fsspec (its in-process filesystem, so that no server is needed)
    from airflow.sdk.io import attach
    from fsspec.implementations.memory import MemoryFileSystem

    filesystem = MemoryFileSystem()
    attach("memory", fs=filesystem)
    filesystem.pipe("/landing/d.csv", csv("d", "id,n", "1,5").read_bytes())

    returned = IngestDatasetOperator(
        task_id="i", table="t", source="memory://landing/d.csv", schema=SCHEMA
    ).execute(context)

    assert returned["rows"] == 1
    assert returned["sources"][0]["uri"] == "memory://landing/d.csv"


def test_scheme_that_nothing_opens_is_a_typed_error(context: dict[str, Any]) -> None:
    operator = IngestDatasetOperator(task_id="i", table="t", source="gopher://host/d.csv", schema=SCHEMA)

    with pytest.raises(AirflowFailException, match=r"argument\.source_uri"):
        operator.execute(context)


def test_partition_template_that_renders_to_nothing_never_means_the_whole_table(
    lake: Lake, context: dict[str, Any], csv: Callable[..., Path]
) -> None:
    source = str(csv("d", "id,n", "1,5"))
    operator = IngestDatasetOperator(
        task_id="i", table="t", source=source, partition="{{ params.day or '' }}"
    )
    operator.render_template_fields({"params": {"day": None}})

    with pytest.raises(AirflowFailException, match=r"argument\.empty\] partition"):
        operator.execute(context)
    assert list_tables(lake) == []


def test_several_partitions_from_one_file_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"argument\.source"):
        sources_by_partition("/landing/all.csv", ["a", "b"])


def test_unknown_mode_names_the_known_ones(context: dict[str, Any], csv: Callable[..., Path]) -> None:
    source = str(csv("d", "id,n", "1,5"))

    with pytest.raises(AirflowFailException, match="replace, append or merge"):
        IngestDatasetOperator(task_id="i", table="t", source=source, mode="upsert").execute(context)


def test_failed_validation_fails_with_its_checks_and_keeps_the_report(
    lake: Lake, ingest: Any, make_context: MakeContext
) -> None:
    operator = ValidateDatasetOperator(task_id="v", dataset=ingest("1,-5", "2,7"), suite=f"{SUITES}:positive")

    with pytest.raises(
        AirflowFailException, match=r"validation\.failed.*expect_column_values_to_be_between on n"
    ):
        operator.execute(make_context())

    # the report is in the lake, and the task's links lead to it
    reports = list(lake.evidence.all(ValidationReport.kind))
    assert [report.outcome.value for report in reports if isinstance(report, ValidationReport)] == ["failed"]
    assert operator.report_uri
    assert operator.evidence_uri == lake.evidence.uri(reports[0])


def test_failed_validation_may_warn_and_publishing_still_refuses(
    ingest: Any, validate: Any, make_context: MakeContext
) -> None:
    report = validate(ingest("1,-5"), on_failure="warn")

    assert report["outcome"] == "failed"
    with pytest.raises(AirflowFailException, match=r"validation\.not_published"):
        PublishDatasetOperator(task_id="p", report=report).execute(make_context())


def test_failed_validation_may_skip_what_follows_and_its_log_says_why(
    ingest: Any, validate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AirflowSkipException):
        validate(ingest("1,-5"), on_failure="skip")
    assert "Skipping what follows: [validation.failed] suite positive" in capsys.readouterr().out


@pytest.mark.parametrize("mapping", [{"critical": "skip"}, '{"critical": "skip"}', "{'critical': 'skip'}"])
def test_policy_may_be_a_mapping_of_severities_or_the_text_a_template_made_of_it(
    ingest: Any, validate: Any, mapping: Any
) -> None:
    with pytest.raises(AirflowSkipException):
        validate(ingest("1,-5"), on_failure=mapping)


def test_a_task_looks_at_a_dataset_unless_it_names_a_table(validate: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.empty\] dataset"):
        validate(None)


def test_bad_rows_may_be_set_aside_and_the_rest_is_what_the_task_returns(
    ingest: Any, validate: Any, make_context: MakeContext
) -> None:
    raw = ingest("1,5", "2,6", "3,-7")

    returned = validate(raw, on_failure="quarantine", max_quarantined="0.4")

    assert (returned["outcome"], returned["dataset"]["table"]) == ("passed", "t__accepted")
    assert returned["quarantined"]["rows"] == 1
    published = PublishDatasetOperator(task_id="p", report=returned).execute(make_context())
    assert published["rows"] == 2


@pytest.mark.parametrize("policy", ["fail", "warn", "skip"])
def test_check_that_cannot_run_stops_under_every_policy(ingest: Any, validate: Any, policy: str) -> None:
    with pytest.raises(AirflowFailException, match=r"validation\.errored"):
        validate(ingest("1,5"), suite=f"{SUITES}:missing_column", on_failure=policy)


def test_no_data_is_not_a_failure(ingest: Any, validate: Any) -> None:
    empty = ingest()

    assert empty["rows"] == 0
    with pytest.raises(AirflowSkipException):
        validate(empty)
    assert validate(empty, on_no_data="continue")["outcome"] == "no_data"


@pytest.mark.parametrize("suite", ["nowhere.to:be", f"{SUITES}:nothing", "not a reference"])
def test_suite_that_cannot_be_named_is_a_typed_error(ingest: Any, validate: Any, suite: str) -> None:
    with pytest.raises(AirflowFailException, match=r"\[(user_code|argument)\."):
        validate(ingest("1,5"), suite=suite)


@pytest.mark.parametrize("form", ["record", "json", "python text", "id", "table", "version"])
def test_dataset_may_be_named_in_every_form(ingest: Any, validate: Any, form: str) -> None:
    raw = ingest("1,5")
    given = {
        "record": raw,
        "json": json.dumps(raw),
        "python text": str(raw),
        "id": raw["record_id"],
        "table": "t__raw",
        "version": f"t__raw@{raw['version']}",
    }[form]

    assert validate(given)["dataset"]["version"] == raw["version"]


def test_report_argument_refuses_another_kind_of_record(ingest: Any, make_context: MakeContext) -> None:
    with pytest.raises(AirflowFailException, match=r"data\.record_kind"):
        PublishDatasetOperator(task_id="p", report=ingest("1,5")).execute(make_context())


def test_transform_writes_a_raw_table_once(
    ingest: Any, validate: Any, make_context: MakeContext, lake: Lake
) -> None:
    published = PublishDatasetOperator(task_id="p", report=validate(ingest("1,5", "2,7"))).execute(
        make_context()
    )
    given = {
        "table": "sums",
        "inputs": {"t": published},
        "sql": "SELECT sum(n) AS total FROM t",
        "partition": "d1",
    }

    first = TransformDatasetOperator(task_id="x", **given).execute(make_context())
    again = TransformDatasetOperator(task_id="x", **given).execute(make_context(run_id="run_2"))

    assert (first["table"], first["reused"], again["reused"]) == ("sums__raw", False, True)
    ref = resolve_ref(lake, "sums__raw", first["version"], allow_raw=True)
    assert read.scan(lake, ref).read_all().to_pydict() == {"total": [12]}
    assert first["parents"][0]["table"] == "t"


def test_transform_by_a_lambda_is_refused_with_the_reason(
    ingest: Any, validate: Any, make_context: MakeContext
) -> None:
    published = PublishDatasetOperator(task_id="p", report=validate(ingest("1,5"))).execute(make_context())
    operator = TransformDatasetOperator(
        task_id="x", table="y", inputs={"t": published}, function=lambda tables: None
    )

    with pytest.raises(AirflowFailException, match=r"user_code\.lambda"):
        operator.execute(make_context())


def test_transform_input_may_choose_its_partitions(
    ingest: Any, validate: Any, make_context: MakeContext, lake: Lake
) -> None:
    for day, value in (("2013-01-01", 1), ("2013-01-02", 2), ("2013-01-03", 4)):
        report = validate(ingest(f"1,{value}", partition=day))
        PublishDatasetOperator(task_id="p", report=report).execute(make_context())

    returned = TransformDatasetOperator(
        task_id="x",
        table="window",
        inputs={"t": {"dataset": "t", "partition": "2013-01-01..2013-01-02"}},
        sql="SELECT sum(n) AS total FROM t",
        partition="2013-01-03",
    ).execute(make_context())

    ref = resolve_ref(lake, "window__raw", returned["version"], allow_raw=True)
    assert read.scan(lake, ref).read_all().to_pydict() == {"total": [3]}


def test_consumers_do_not_name_raw_tables(ingest: Any, make_context: MakeContext) -> None:
    ingest("1,5")
    operator = TransformDatasetOperator(task_id="x", table="y", inputs={"t": "t__raw"}, sql="SELECT * FROM t")

    with pytest.raises(AirflowFailException, match=r"argument\.raw_table"):
        operator.execute(make_context())


def test_adopt_takes_a_delta_table_in_place(lake: Lake, context: dict[str, Any]) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(f"{lake.uri}/old/customers", pa.table({"id": [1, 2]}))

    returned = AdoptDatasetOperator(task_id="a", uri="old/customers", table="customers").execute(context)

    assert (returned["table"], returned["rows"]) == ("customers", 2)
    assert resolve_ref(lake, "customers").table_uuid == returned["table_uuid"]


def test_lake_that_is_missing_fails_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch, context: dict[str, Any], tmp_path: Path
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_XOPS_LAKE_DEFAULT",
        json.dumps({"conn_type": "xops_lake", "host": str(tmp_path / "none")}),
    )

    with pytest.raises(AirflowFailException, match=r"lake\.not_found.*xops lake init"):
        IngestDatasetOperator(task_id="i", table="t", source="x.csv").execute(context)
