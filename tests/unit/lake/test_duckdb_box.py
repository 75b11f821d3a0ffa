"""The one place that opens a DuckDB: NaN is counted, nothing outside is reached."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.duckdb_box import open_box
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import WHOLE
from airflow_provider_xops.records import Actor


def test_a_nan_in_a_parquet_file_is_seen_although_its_statistics_leave_it_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": [1.0, math.nan, 3.0]}), path)

    with open_box() as box:
        row = box.execute(
            f"SELECT count(*) FILTER (WHERE isnan(x)), avg(CASE WHEN isnan(x) THEN NULL ELSE x END)"
            f" FROM read_parquet('{path}')"
        ).fetchone()

    assert row == (1, 2.0)


def test_files_of_a_lake_carry_no_statistics_of_floats_so_a_filter_sees_every_row(
    lake: Lake, actor: Actor, as_of: datetime
) -> None:
    rows = pa.table({"x": [1.0, math.nan, 3.0], "n": [1, 2, 3]})
    made = commit(
        lake,
        "t",
        [Segment(partition=WHOLE, fingerprint="f", data=lambda: rows.to_reader())],
        actor=actor,
        as_of=as_of,
    )
    assert made.record.rows == 3
    (path,) = Path(lake.uri).glob("t/**/*.parquet")

    columns = pq.read_metadata(path).row_group(0)
    found = {columns.column(i).path_in_schema: columns.column(i).is_stats_set for i in range(2)}
    with open_box() as box:
        nans = box.execute(f"SELECT count(*) FROM read_parquet('{path}') WHERE isnan(x)").fetchone()

    assert found == {"x": False, "n": True}
    assert nans == (1,)


def test_a_variable_of_the_program_is_no_table(tmp_path: Path) -> None:
    secret = pa.table({"a": [1]})

    with open_box(folder=tmp_path, memory_limit="100MB") as box, pytest.raises(duckdb.Error):
        box.execute("SELECT * FROM secret")
    assert secret.num_rows == 1


def test_a_limit_that_is_none_is_refused() -> None:
    with pytest.raises(duckdb.Error):
        open_box(memory_limit="much")
