"""The DuckDB engine over a lake on a real S3 server (SeaweedFS), where rows come through Arrow."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.quality.duckdb_engine import DuckDBEngine
from airflow_provider_xops.quality.frames import LakeFrame
from airflow_provider_xops.quality.pandas_engine import PandasEngine
from airflow_provider_xops.quality.suites import Check
from airflow_provider_xops.records import Actor
from tests import servers
from tests.unit.lake.helpers import put, segment


def check(kind: str, **kwargs: Any) -> Check:
    return Check(type=f"expect_column_{kind}", kwargs=kwargs)


def test_figures_and_positions_are_those_of_pandas_over_partitions_on_s3(
    seaweedfs: servers.S3Server, actor: Actor, as_of: datetime
) -> None:
    # given: two partitions of more than one batch each; every thousandth is wrong, and one is NaN
    settings = seaweedfs.lake_settings("engine")
    init_lake(settings, actor=actor, as_of=as_of)
    lake = open_lake(settings)
    number = np.arange(150_000)
    value = np.where(number % 1_000 == 7, -1.0, number)
    value[70_000] = math.nan
    parts = [
        segment(name, name, pa.table({"n": number[chosen], "x": value[chosen]}))
        for name, chosen in (("a", slice(0, 75_000)), ("b", slice(75_000, None)))
    ]
    ref = put(lake, "t__raw", *parts).record.ref
    checks = [
        check("values_to_be_between", column="x", min_value=0),
        check("values_to_not_be_null", column="x"),
        check("values_to_be_unique", column="x"),
        check("mean_to_be_between", column="x", min_value=0),
        check(
            "values_to_be_between", column="n", max_value=9, row_condition="x < 50", condition_parser="pandas"
        ),
    ]
    for partitions in (None, ["b"]):
        frame = LakeFrame(lake, ref, partitions)
        # when
        ours, theirs = (engine.run(checks, frame) for engine in (DuckDBEngine(), PandasEngine()))
        rows, expected = (
            engine.unexpected_rows(checks, frame) for engine in (DuckDBEngine(), PandasEngine())
        )
        # then
        assert ours.notes == ()
        assert [(one.outcome, one.unexpected_count, one.observed) for one in ours.results] == [
            (one.outcome, one.unexpected_count, one.observed) for one in theirs.results
        ]
        assert [one.tolist() for one in rows] == [one.tolist() for one in expected]
        assert len(rows[0]) == (150 if partitions is None else 75)
