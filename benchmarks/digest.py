"""The digest of a million rows against writing them as Parquet; a whole commit against deltalake's.

``python -m benchmarks.digest [--json]``. Budgets: the digest takes at most 0.6 of a plain Parquet write;
reading, hashing, writing and committing at most 1.5 of a plain ``write_deltalake`` of the same table (in
``details``).
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.digest import SegmentDigest
from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.records import Actor
from airflow_provider_xops.settings import LakeSettings
from benchmarks._harness import alternate, median, report

ROWS = 1_000_000
BUDGET = 0.6
COMMIT_BUDGET = 1.5
AS_OF = datetime(2026, 1, 15, tzinfo=UTC)


def twenty_columns(rows: int = ROWS, *, seed: int = 0) -> pa.Table:
    """Floats (some missing), whole numbers, words, timestamps, dates and booleans, as in a fact table."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {f"measure_{i}": random.normal(size=rows) for i in range(6)}
    columns |= {
        f"sparse_{i}": pa.array(random.normal(size=rows), mask=random.random(rows) > 0.9) for i in range(2)
    }
    columns |= {f"key_{i}": random.integers(0, 10_000, rows) for i in range(5)}
    words = np.char.add("carrier ", np.arange(5_000).astype(str))
    columns |= {f"word_{i}": pa.array(words[random.integers(0, 5_000, rows)]) for i in range(3)}
    columns["moment"] = pa.array(random.integers(0, 10**15, rows), pa.timestamp("us", "UTC"))
    columns["day"] = pa.array(random.integers(0, 20_000, rows).astype(np.int32), pa.date32())
    columns |= {f"flag_{i}": random.random(rows) > 0.5 for i in range(2)}
    return pa.table(columns)


def main() -> None:
    """Measure both and report."""
    table = twenty_columns()
    folder = Path(tempfile.mkdtemp(prefix="xops-bench-"))
    try:
        settings = LakeSettings(str(folder / "lake"))
        actor = Actor.user("benchmark", key="benchmark", fence=1)
        init_lake(settings, actor=actor, as_of=AS_OF)
        lake, number = open_lake(settings), count()

        def hash_all() -> None:
            digest = SegmentDigest(table.schema)
            for batch in table.to_batches(max_chunksize=131_072):
                digest.update(batch)
            digest.hexdigest()

        def write_parquet() -> None:
            pq.write_table(table, folder / "plain.parquet")

        def commit_ours() -> None:
            segment = Segment("all", "input", table.to_reader)
            commit(lake, f"t{next(number)}", [segment], actor=actor, as_of=AS_OF)

        def commit_plain() -> None:
            deltalake.write_deltalake(folder / f"plain{next(number)}", table)

        digests, writes = alternate(hash_all, write_parquet, n=9)
        ours, plain = alternate(commit_ours, commit_plain, n=5)
        whole = median([mine / other for mine, other in zip(ours, plain, strict=True)])
        ratios = [mine / other for mine, other in zip(digests, writes, strict=True)]
        report(
            "digest",
            ratio=median(ratios),
            budget=BUDGET,
            better="lower",
            samples=ratios,
            details={
                "rows": table.num_rows,
                "columns": table.num_columns,
                "bytes": table.nbytes,
                "digest_s": round(median(digests), 4),
                "parquet_write_s": round(median(writes), 4),
                "hash_write_commit": {
                    "ratio": round(whole, 3),
                    "budget": COMMIT_BUDGET,
                    "within_budget": whole <= COMMIT_BUDGET,
                    "n": len(ours),
                    "ours_s": round(median(ours), 3),
                    "write_deltalake_s": round(median(plain), 3),
                },
                "deltalake": deltalake.__version__,
                "pyarrow": pa.__version__,
            },
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
