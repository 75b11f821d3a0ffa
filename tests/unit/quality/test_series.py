"""Series of points: ordered by time, of the content that a version has, each partition once."""

from __future__ import annotations

import pyarrow as pa

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.quality.metrics import MetricPlan, measure
from airflow_provider_xops.quality.series import History, series
from airflow_provider_xops.records import DatasetRef
from tests.unit.lake.helpers import put, segment, user
from tests.unit.quality.days import AS_OF, day, load, utc

PLAN = MetricPlan(columns={"distance": ["mean"]})


def measured(lake: Lake, ref: DatasetRef, **options: object) -> None:
    measure(lake, ref, plan=PLAN, actor=user(), as_of=AS_OF, **options)  # type: ignore[arg-type]


def values(lake: Lake, ref: DatasetRef, **options: object) -> list[tuple[str, float | None]]:
    points = series(lake, ref, "mean:distance", **options)  # type: ignore[arg-type]
    return [(point.label, point.value) for point in points]


def test_points_are_ordered_by_the_time_they_stand_for(lake: Lake) -> None:
    load(lake, [(day(2), 3.0)])
    ref = load(lake, [(day(0), 1.0), (day(1), 2.0)])
    measured(lake, ref)

    points = series(lake, "t__raw", "mean:distance")

    assert [(one.label, one.value, one.size) for one in points] == [
        (day(0), 1.0, 4.0), (day(1), 2.0, 4.0), (day(2), 3.0, 4.0),
    ]  # fmt: skip
    assert points[0].time == utc("2013-01-01")
    assert values(lake, ref, until=day(1)) == [(day(0), 1.0), (day(1), 2.0)]


def test_late_correction_counts_from_its_version_on(lake: Lake) -> None:
    # given a day that is corrected after the next one came, and later set back
    first = load(lake, [(day(0), 1.0), (day(1), 2.0)])
    measured(lake, first)
    second = load(lake, [(day(0), 9.0)])
    measured(lake, second)
    third = load(lake, [(day(0), 1.0)])

    assert values(lake, second) == [(day(0), 9.0), (day(1), 2.0)]
    assert values(lake, first) == [(day(0), 1.0), (day(1), 2.0)]
    assert values(lake, third) == [(day(0), 1.0), (day(1), 2.0)]


def test_partition_that_the_version_does_not_have_keeps_its_last_content(lake: Lake) -> None:
    # given a newer version's partition, and an older version to judge
    first = load(lake, [(day(0), 1.0)])
    second = load(lake, [(day(1), 2.0)])
    measured(lake, second)

    assert values(lake, first) == [(day(0), 1.0)]


def test_figure_that_does_not_exist_is_a_gap(lake: Lake) -> None:
    put(lake, "t__raw", segment(day(0), "f", {"distance": pa.array([None], pa.float64())}))
    ref = head(lake, "t__raw")
    measured(lake, ref)

    assert values(lake, ref) == [(day(0), None)]
    assert series(lake, ref, "mean:nothing") == []


def test_table_without_partitions_gives_a_point_a_version(lake: Lake) -> None:
    for value in (1.0, 2.0, 1.0):
        measured(lake, load(lake, [("all", value)]))

    assert [value for _, value in values(lake, head(lake, "t__raw"))] == [1.0, 2.0, 1.0]
    assert values(lake, head(lake, "t__raw"))[-1][0] == "@2"


def test_another_tables_points_are_not_mixed_in(lake: Lake) -> None:
    raw = load(lake, [(day(0), 1.0)])
    published = load(lake, [(day(0), 1.0), (day(1), 5.0)], table="t")
    measured(lake, raw)
    measured(lake, published)

    assert values(lake, raw) == [(day(0), 1.0)]
    assert History.read(lake, published).metrics == ("mean:distance", "row_count")
