"""A whole profile against DuckDB's own ``SUMMARIZE`` of the same Parquet file.

``python -m benchmarks.profile [--json]``. Budget: a profile takes at most three times as long as
``SUMMARIZE`` (both from alternating runs). It gives more for it:

* ``SUMMARIZE``: count, share of nulls, minimum, maximum, mean, standard deviation, three quantiles and the
  number of distinct values, the last two approximate.
* the profile: all of that with seven quantiles, and exact distinct values, values that occur once, the 50
  most frequent values, a histogram, outliers, NaN and infinities, lengths and shapes of texts, candidate keys
  (proved), duplicate rows, Pearson's and Spearman's correlations and the coverage of time.

Each column is read about four times (moments, groups, quantiles, histogram) where ``SUMMARIZE`` reads it
once, but exact groups cost less than its sketches of every column: three leaves room for both. ``details``
has the peak memory of both, with DuckDB held to 1 GB.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from airflow_provider_xops.quality.frames import FileFrame
from airflow_provider_xops.quality.profiling.compute import profile_frame
from benchmarks._harness import alternate, median, peak_memory, report
from benchmarks.digest import twenty_columns

ROWS = 2_000_000
BUDGET = 3.0


def ours(path: str, folder: str) -> None:
    """The profile."""
    profile_frame(FileFrame(path), folder=Path(folder))


def summarize(path: str, folder: str) -> None:
    """DuckDB's summary."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET memory_limit = '1GB'")
        connection.execute(f"SET temp_directory = '{folder}'")
        connection.sql(f"SUMMARIZE SELECT * FROM read_parquet('{path}')").fetchall()


def main() -> None:
    """Measure both and report."""
    folder = tempfile.mkdtemp(prefix="xops-bench-")
    try:
        path = f"{folder}/rows.parquet"
        table = twenty_columns(ROWS)
        pq.write_table(table, path)
        size, columns = Path(path).stat().st_size, table.num_columns
        del table
        mine, theirs = alternate(lambda: ours(path, folder), lambda: summarize(path, folder), n=5)
        ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
        report(
            "profile",
            ratio=median(ratios),
            budget=BUDGET,
            better="lower",
            samples=ratios,
            details={
                "rows": ROWS,
                "columns": columns,
                "bytes": size,
                "profile_seconds": round(median(mine), 3),
                "summarize_seconds": round(median(theirs), 3),
                "profile_peak_mib": round(peak_memory(ours, path, folder)),
                "summarize_peak_mib": round(peak_memory(summarize, path, folder)),
                "duckdb": duckdb.__version__,
            },
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
