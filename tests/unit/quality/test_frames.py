"""Frames: the same rows in the same order, in three forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality.engine import Frame
from airflow_provider_xops.quality.frames import ArrowFrame, FileFrame, LakeFrame, PandasFrame, frame_of
from tests.unit.lake.helpers import put, segment

ROWS = pa.table({"n": pa.array([3, 1, None], pa.int64()), "a b": ["x", None, "z"]})


@pytest.fixture(params=["arrow", "pandas", "parquet", "csv", "lake"])
def frame(request: pytest.FixtureRequest, tmp_path: Path, lake: Lake) -> Frame:
    """The same rows from everywhere."""
    if request.param == "arrow":
        return ArrowFrame(ROWS)
    if request.param == "pandas":
        return PandasFrame(ROWS.to_pandas())
    if request.param == "parquet":
        pq.write_table(ROWS.slice(0, 2), tmp_path / "1.parquet")
        pq.write_table(ROWS.slice(2), tmp_path / "2.parquet")
        return FileFrame([tmp_path / "1.parquet", tmp_path / "2.parquet"])
    if request.param == "csv":
        (tmp_path / "rows.csv").write_text("n,a b\n3,x\n1,\n,z\n")
        return FileFrame(tmp_path / "rows.csv")
    return LakeFrame(lake, put(lake, "t__raw", segment("all", "1", ROWS)).record.ref, None)


def test_every_form_has_the_same_rows_in_the_same_order(frame: Frame) -> None:
    assert frame.rows == 3
    assert frame.schema.names == ["n", "a b"]
    assert frame.pandas()["a b"].fillna("-").tolist() == ["x", "-", "z"]
    assert pa.Table.from_batches(frame.batches(["a b"])).column(0).to_pylist() == ["x", None, "z"]
    with duckdb.connect() as connection:
        assert [row[1] for row in frame.relation(connection).fetchall()] == ["x", None, "z"]


def test_columns_are_chosen_by_name(frame: Frame) -> None:
    assert list(frame.pandas(["a b"]).columns) == ["a b"]


@pytest.mark.parametrize("names", [["a", "a"], ["a", "A"]])
def test_two_columns_of_one_name_are_refused(names: list[str]) -> None:
    with pytest.raises(ArgumentError) as caught:
        ArrowFrame(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=names))
    assert caught.value.code == "argument.columns"


def test_a_name_that_is_not_text_is_refused() -> None:
    with pytest.raises(ArgumentError):
        PandasFrame(pd.DataFrame({1: [1]}))


def test_a_column_of_mixed_types_exists_in_pandas_only() -> None:
    frame = PandasFrame(pd.DataFrame({"n": [1, 2], "mixed": np.array([1, "a"], dtype=object)}))
    assert frame.schema.field("mixed").metadata
    assert next(frame.batches()).schema.names == ["n"]
    assert frame.pandas(["mixed"])["mixed"].tolist() == [1, "a"]


def test_an_arrow_table_survives_its_conversion() -> None:
    frame = ArrowFrame(ROWS)
    assert frame.pandas().equals(frame.pandas())


@pytest.mark.parametrize("data", ["nothing.parquet", "nothing.txt", [], 7])
def test_what_is_no_frame_is_refused(data: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        frame_of(data)
    assert caught.value.code == "argument.frame"


def test_a_frame_is_found_for_what_a_notebook_has(tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    frames = [frame_of(one) for one in (ROWS, ROWS.to_pandas(), tmp_path / "rows.parquet")]
    assert [type(one) for one in frames] == [ArrowFrame, PandasFrame, FileFrame]
    assert frame_of(frames[0]) is frames[0]
