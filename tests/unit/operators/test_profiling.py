"""The profile operator: what it records, returns, links to, and when it stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.links.evidence import EvidenceLink, ProfileLink
from airflow_provider_xops.operators.data import ProfileDatasetOperator
from airflow_provider_xops.version_compat import AirflowFailException
from tests.unit.lake.helpers import put, segment
from tests.unit.quality.profiling.frames import flights

Context = Callable[..., dict[str, Any]]


@pytest.fixture
def versions(lake: Lake) -> None:
    """A table, and another one whose columns changed."""
    put(lake, "flights", segment("2013-01", "a", flights(100)))
    put(lake, "changed", segment("2013-01", "b", flights(100).drop_columns(["late"])))


def test_the_profile_is_returned_small_and_linked(
    versions: None, context: dict[str, Any], lake: Lake
) -> None:
    operator = ProfileDatasetOperator(task_id="profile", dataset="flights@0", suggest_suite="1")

    returned = operator.execute(context)

    assert returned["kind"] == "profiles"
    assert len(json.dumps(returned)) <= 16_384
    assert "AA" not in json.dumps(returned)
    record = lake.evidence.get("profiles", returned["record_id"])
    assert getattr(record, "rows", None) == 100
    page = ProfileLink().get_link(operator, ti_key=None)
    assert page == f"/xops/lakes/xops_lake_default/reports/profiles/{returned['record_id']}.html"
    assert EvidenceLink().get_link(operator, ti_key=None).endswith(returned["record_id"])
    suite = Path(returned["suggestion_uri"].removeprefix("file://"))
    assert suite.suffix == ".yaml"
    assert "expectations:" in suite.read_text()


def test_a_removed_column_stops_the_task_after_the_profile_is_recorded(
    versions: None, context: dict[str, Any], lake: Lake
) -> None:
    operator = ProfileDatasetOperator(task_id="profile", dataset="changed", compare_with="flights@0")

    with pytest.raises(AirflowFailException, match="late removed"):
        operator.execute(context)

    assert len(list(lake.evidence.all("profiles"))) == 1
    assert ProfileLink().get_link(operator, ti_key=None)


def test_openlineage_is_told_of_every_column(versions: None, context: dict[str, Any]) -> None:
    pytest.importorskip("airflow.providers.openlineage")
    operator = ProfileDatasetOperator(task_id="profile", dataset="flights")
    assert operator.get_openlineage_facets_on_failure(None) is None
    operator.execute(context)

    (dataset,) = operator.get_openlineage_facets_on_complete(None).inputs

    metrics = dataset.inputFacets["dataQualityMetrics"]
    assert metrics.rowCount == 100
    assert metrics.columnMetrics["carrier"].distinctCount == 3
    assert metrics.columnMetrics["seats"].nullCount == 0


def test_a_policy_lets_it_go_on_with_a_warning(
    versions: None, context: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    operator = ProfileDatasetOperator(
        task_id="profile", dataset="changed", compare_with="flights@0", schema_policy='{"removed": "warn"}'
    )

    returned = operator.execute(context)

    assert [one["verdict"] for one in returned["schema_changes"]] == ["warn"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"partition": ""}, "argument.empty"),
        ({"compare_with": ""}, "argument.empty"),
        ({"values": "some"}, "argument.samples"),
        ({"schema_policy": {"added": "maybe"}}, "argument.schema_policy"),
        ({"suggest_suite": -1}, "argument.suggest_suite"),
        ({"dataset": ""}, "argument.empty"),
    ],
)
def test_an_argument_that_says_nothing_or_nonsense_fails_without_retry(
    versions: None, context: dict[str, Any], arguments: dict[str, Any], code: str
) -> None:
    operator = ProfileDatasetOperator(**{"task_id": "profile", "dataset": "flights", **arguments})

    with pytest.raises(AirflowFailException, match=code):
        operator.execute(context)
