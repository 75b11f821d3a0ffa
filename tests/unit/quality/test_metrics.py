"""What is measured of a partition: the figures, their names, and that each is measured once."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.quality.metrics import MetricPlan, load_metric_plan, measure
from airflow_provider_xops.quality.validate import validate
from airflow_provider_xops.records import DatasetRef, QualityMetrics
from tests.unit.lake.helpers import put, segment, user
from tests.unit.quality.days import AS_OF, day, load

TIMES = [datetime(2013, 1, 1, hour, tzinfo=UTC) for hour in (1, 2, 3, 4)]
MIXED = pa.table(
    {
        "x": pa.array([1.0, math.nan, None, 3.0]),
        "n": pa.array([1, 2, 3, 4]),
        "flag": pa.array([True, False, True, True]),
        "name": pa.array(["a", "b", "a", None]),
        "inf": pa.array([math.inf, 1.0, 2.0, 3.0]),
        "at": pa.array(TIMES, pa.timestamp("us", tz="UTC")),
        "day": pa.array([date(2013, 1, 1)] * 4),
    }
)


@pytest.fixture
def ref(lake: Lake) -> DatasetRef:
    put(lake, "t__raw", segment("2013-01-01", "f1", MIXED), segment("2013-01-02", "f2", MIXED.slice(0, 0)))
    return head(lake, "t__raw")


def figures(
    lake: Lake, ref: DatasetRef, plan: MetricPlan | None = None, partition: str = "2013-01-01"
) -> dict:
    (record,) = measure(lake, ref, partitions=[partition], plan=plan, actor=user(), as_of=AS_OF)
    return record.metrics


def test_default_plan_measures_every_column_by_its_type(lake: Lake, ref: DatasetRef) -> None:
    assert figures(lake, ref) == {
        "row_count": 4,
        "null_rate:x": 0.5,  # NaN is missing too
        "mean:x": 2.0,
        "quantile_0.5:x": 2.0,
        "null_rate:n": 0.0,
        "mean:n": 2.5,
        "quantile_0.5:n": 2.5,
        "null_rate:flag": 0.0,
        "mean:flag": 0.75,
        "null_rate:name": 0.25,
        "distinct_count:name": 2,
        "null_rate:inf": 0.0,
        "mean:inf": None,
        "quantile_0.5:inf": 2.5,
        "null_rate:at": 0.0,
        "null_rate:day": 0.0,
    }


def test_named_statistics_agree_with_numpy(lake: Lake) -> None:
    values = [3.5, -1.25, 8.0, 2.0, 2.0, 100.0, 7.125]
    put(lake, "t__raw", segment("d", "f", {"v": values}))
    names = ["sd", "min", "max", "median", "quantile_0.9", "distinct_count", "mean"]

    found = figures(lake, head(lake, "t__raw"), MetricPlan(columns={"v": names}), "d")

    expected = {
        "sd:v": np.std(values, ddof=1), "min:v": -1.25, "max:v": 100.0, "quantile_0.5:v": np.median(values),
        "quantile_0.9:v": np.quantile(values, 0.9), "distinct_count:v": 6, "mean:v": np.mean(values),
        "row_count": 7,
    }  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-12)


def test_nothing_to_compute_from_is_none_and_not_zero(lake: Lake, ref: DatasetRef) -> None:
    found = figures(
        lake, ref, MetricPlan(columns={"x": ["mean", "null_rate", "sd"]}, freshness="at"), "2013-01-02"
    )

    assert found == {
        "row_count": 0, "mean:x": None, "null_rate:x": None, "sd:x": None, "freshness_seconds": None,
    }  # fmt: skip


def test_sql_gives_one_number_of_the_partition(lake: Lake, ref: DatasetRef) -> None:
    plan = MetricPlan(columns={}, sql={"late": "SELECT avg(CAST(n > 2 AS INTEGER)) FROM dataset"})

    assert figures(lake, ref, plan)["sql:late"] == 0.5
    assert figures(lake, ref, plan, "2013-01-02")["sql:late"] is None


@pytest.mark.parametrize(
    "sql",
    ["SELECT n FROM dataset", "SELECT 1, 2", "SELECT name FROM dataset LIMIT 1", "SELECT * FROM other",
     "SELECT count(*) FROM read_csv('/etc/passwd')"],
)  # fmt: skip
def test_sql_that_is_no_figure_of_the_partition_is_refused(lake: Lake, ref: DatasetRef, sql: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        figures(lake, ref, MetricPlan(columns={}, sql={"bad": sql}))

    assert caught.value.code == "argument.sql"


def test_freshness_is_the_age_of_the_newest_row_when_it_arrived(lake: Lake, ref: DatasetRef) -> None:
    found = figures(lake, ref, MetricPlan(columns={}, freshness="at"))

    assert found["freshness_seconds"] == (AS_OF - TIMES[-1]).total_seconds()


def test_freshness_needs_a_column_of_times(lake: Lake, ref: DatasetRef) -> None:
    with pytest.raises(ArgumentError, match="use one of at, day"):
        figures(lake, ref, MetricPlan(columns={}, freshness="name"))


def test_measuring_twice_is_one_record_and_later_content_another(lake: Lake) -> None:
    first = load(lake, [(day(0), 1.0)])
    (one,) = measure(lake, first, actor=user(), as_of=AS_OF)
    (again,) = measure(lake, first, actor=user(), as_of=AS_OF + timedelta(days=1))
    second = load(lake, [(day(0), 2.0)])
    (other,) = measure(lake, second, actor=user(), as_of=AS_OF)

    assert again == one
    assert one.event_time == datetime(2013, 1, 1, tzinfo=UTC)
    assert other.record_id != one.record_id
    assert len(list(lake.evidence.all(QualityMetrics.kind))) == 2


def test_failed_check_rate_is_of_the_newest_report_on_this_content(lake: Lake) -> None:
    # given a partition that was measured before it was validated
    ref = load(lake, [(day(0), 1.0)])
    plan = MetricPlan(columns={}, suites=True)
    assert figures(lake, ref, plan, day(0)) == {"row_count": 4.0}

    # when one of two checks has failed on it
    suite = "tests.unit.quality.days_suites:half"
    validate(lake, ref, suite=suite, partitions=[day(0)], engine="pandas", actor=user(), as_of=AS_OF)

    found = figures(lake, ref, plan, day(0))
    assert (found["failed_check_rate:half"], found["check_count:half"]) == (0.5, 2)


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        (MetricPlan(columns={"nope": ["mean"]}), "argument.column"),
        (MetricPlan(columns=["nope"]), "argument.column"),
        (MetricPlan(columns={"tail": ["mean"]}), "argument.metric"),
    ],
)
def test_plan_that_does_not_fit_the_table_is_refused(lake: Lake, plan: MetricPlan, code: str) -> None:
    ref = load(lake, [(day(0), 1.0)])

    with pytest.raises(ArgumentError) as caught:
        measure(lake, ref, plan=plan, actor=user(), as_of=AS_OF)

    assert caught.value.code == code


@pytest.mark.parametrize(
    "data",
    [
        {"colums": []},
        {"columns": "x"},
        {"sql": ["SELECT 1"]},
        {"columns": {"x": ["avg"]}},
        {"sql": {"a": "DROP"}},
    ],
)
def test_unusable_plan_is_refused_when_it_is_read(data: dict) -> None:
    with pytest.raises(ArgumentError):
        MetricPlan.from_json(data)


def test_plan_survives_json_and_spellings_share_a_digest() -> None:
    plan = MetricPlan(columns={"x": ["median", "mean"]}, sql={"a": "SELECT 1"}, freshness="at", suites=True)

    assert MetricPlan.from_json(plan.to_json()).digest == plan.digest
    assert (
        MetricPlan(columns={"x": ["mean", "quantile_.5", "mean"]}).digest
        == MetricPlan(columns={"x": ["quantile_0.5", "mean"]}).digest
    )
    assert load_metric_plan(None).digest == MetricPlan(columns={"*": ["default"]}).digest


def test_missing_partition_is_refused(lake: Lake, ref: DatasetRef) -> None:
    with pytest.raises(NotFoundError, match="no partition"):
        measure(lake, ref, partitions=["2014-01-01"], actor=user(), as_of=AS_OF)
