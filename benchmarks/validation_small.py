"""A suite over a small table: the DuckDB engine against Great Expectations on pandas.

``python -m benchmarks.validation_small [--json]``. 10,000 rows of local Parquet, 41 expectations, loading
included, the library imported already. Budget: at most the time that Great Expectations takes on pandas.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from airflow_provider_xops.quality.engine import get_engine
from airflow_provider_xops.quality.frames import FileFrame
from benchmarks._harness import alternate, median, report
from benchmarks.validation import checks, on_pandas, write_table

ROWS = 10_000
BUDGET = 1.0


def main() -> None:
    """Measure both and report."""
    logging.disable(logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="xops-bench-"))
    try:
        path = folder / "rows.parquet"
        write_table(path, ROWS)
        suite = checks()
        ours, theirs = alternate(
            lambda: get_engine("duckdb").run(suite, FileFrame(path)),
            lambda: on_pandas(path, suite),
            n=7,
        )
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        report(
            "validation_small",
            ratio=median(ratios),
            budget=BUDGET,
            better="lower",
            samples=ratios,
            details={
                "rows": ROWS,
                "expectations": len(suite),
                "duckdb_engine_s": round(median(ours), 3),
                "great_expectations_s": round(median(theirs), 3),
            },
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
