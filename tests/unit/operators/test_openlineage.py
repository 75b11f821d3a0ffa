"""What OpenLineage is told of a validation and of a profile, and that nothing is told without it."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_xops.operators._openlineage import dataset_name, profile_lineage, validation_lineage
from airflow_provider_xops.operators.data import ValidateDatasetOperator
from airflow_provider_xops.records import (
    ActorKind,
    CheckSummary,
    DatasetProfile,
    DatasetRef,
    Outcome,
    Producer,
    Severity,
    ValidationReport,
)
from airflow_provider_xops.version_compat import AirflowFailException

REF = DatasetRef(lake_id="l", table="flights__raw", table_uuid="u", version=3)
COMMON: dict[str, Any] = {
    "recorded_at": datetime(2026, 1, 1, tzinfo=UTC),
    "produced_by": Producer(kind=ActorKind.USER, id="tester"),
    "content_digest": "d",
}


def check(outcome: Outcome, severity: Severity = Severity.CRITICAL, **figures: Any) -> CheckSummary:
    return CheckSummary(
        check="expect_column_mean_to_be_between", column="n", outcome=outcome, severity=severity, **figures
    )


def report(*checks: CheckSummary, ref: DatasetRef = REF) -> ValidationReport:
    return ValidationReport(
        **COMMON, dataset=ref, partitions=None, partition_digests=("d",), suite="s", suite_digest="s",
        engine="duckdb/1", outcome=Outcome.FAILED, severity=Severity.CRITICAL, counts={}, rows=10,
        checks=checks, report_uri="s3://bucket/lake/_xops/reports/validations/1.html",
    )  # fmt: skip


def plain(lineage: Any) -> dict[str, Any]:
    """The one input as it is sent."""
    from openlineage.client.serde import Serde

    (dataset,) = json.loads(Serde.to_json(lineage))["inputs"]
    return dict(dataset)


def test_every_check_that_ran_is_an_assertion_with_its_severity() -> None:
    sent = plain(
        validation_lineage(
            report(
                check(Outcome.PASSED, Severity.INFO, observed=2.5),
                check(Outcome.FAILED, Severity.WARNING, unexpected_count=3, unexpected_percent=30.0),
                check(Outcome.ERRORED, message="TypeError: unhashable type"),
                check(Outcome.NO_DATA),
            )
        )
    )
    assert (sent["namespace"], sent["name"]) == ("s3://bucket", "lake/flights__raw")
    assert sent["facets"]["version"]["datasetVersion"] == "3"
    told = sent["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert [(one["success"], one["severity"], one["column"]) for one in told] == [
        (True, "info", "n"),
        (False, "warn", "n"),
        (False, "error", "n"),
    ]
    assert told[0]["actual"] == "2.5"
    assert told[1]["params"] == {"outcome": "failed", "unexpected_count": 3, "unexpected_percent": 30.0}
    assert sent["inputFacets"]["dataQualityMetrics"]["rowCount"] == 10


def test_a_profile_is_the_metrics_of_its_columns() -> None:
    columns: tuple[dict[str, Any], ...] = (
        {
            "name": "n", "nulls": 1, "distinct": {"value": 8, "exact": True}, "min": 1, "max": 9.5,
            "quantiles": {"25": 2.0, "50": 5}, "sd": 3.0,
        },
        {"name": "day", "nulls": 0, "min": "2013-01-01", "quantiles": {"50": "2013-02-01"}},
        {"name": "nested"},
    )  # fmt: skip
    profile = DatasetProfile(
        **COMMON, dataset=REF, partitions=None, settings_digest="s", rows=10, columns=columns, table_facts={}
    )
    metrics = plain(profile_lineage(profile))["inputFacets"]["dataQualityMetrics"]
    assert metrics["rowCount"] == 10
    sent = metrics["columnMetrics"]
    assert sent["n"]["quantiles"] == {"0.25": 2.0, "0.5": 5.0}
    assert {key: sent["n"][key] for key in ("nullCount", "distinctCount", "count", "min", "max")} == {
        "nullCount": 1, "distinctCount": 8, "count": 9.0, "min": 1, "max": 9.5,
    }  # fmt: skip
    assert sent["day"]["nullCount"] == 0
    assert "min" not in sent["day"]  # a date is no number
    assert set(sent) == {"n", "day", "nested"}


def test_a_table_of_a_database_has_no_version_and_no_address() -> None:
    ref = DatasetRef(lake_id="l", table="warehouse:public.orders", table_uuid="u", version=0)
    sent = plain(validation_lineage(report(check(Outcome.PASSED), ref=ref)))
    assert (sent["namespace"], sent["name"]) == ("airflow://warehouse", "public.orders")
    assert "version" not in sent["facets"]


def test_a_lake_whose_address_is_unknown_is_named_by_its_connection() -> None:
    assert dataset_name(REF, None, "xops_lake_default") == ("xops://xops_lake_default", "flights__raw")


def test_without_openlineage_or_a_report_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert validation_lineage(None) is None
    assert profile_lineage(None) is None
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if "openlineage" in name:
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert validation_lineage(report(check(Outcome.PASSED))) is None


def test_an_older_client_gets_the_fields_it_has() -> None:
    import attr

    from airflow_provider_xops.operators._openlineage import _assertion, _known_fields

    old = attr.make_class("Assertion", ["assertion", "success", "column"])
    made = _known_fields(old, _assertion(check(Outcome.PASSED, observed=1)))
    assert (made.assertion, made.success, made.column) == ("expect_column_mean_to_be_between", True, "n")


def test_a_task_tells_of_its_validation_also_when_it_failed(
    make_context: Callable[..., dict[str, Any]], csv: Callable[..., Any], lake: Any
) -> None:
    from airflow_provider_xops.operators.data import IngestDatasetOperator

    source = str(csv("d1", "id,n", "1,-5"))
    raw = IngestDatasetOperator(
        task_id="i", table="t", source=source, schema={"id": "int64", "n": "int64"}
    ).execute(make_context())
    operator = ValidateDatasetOperator(task_id="v", dataset=raw, suite="tests.unit.operators.suites:positive")
    assert operator.get_openlineage_facets_on_failure(None) is None

    with pytest.raises(AirflowFailException):
        operator.execute(make_context())

    sent = plain(operator.get_openlineage_facets_on_failure(None))
    assert (sent["namespace"], sent["name"]) == ("file", f"{lake.uri}/t__raw")
    assert sent == plain(operator.get_openlineage_facets_on_complete(None))
