"""Setting 1 % of a million rows x 20 columns aside, against what anybody would have to do for it by hand.

``python -m benchmarks.quarantine [--json]``. Ours is ``quarantine()``: find the bad rows, part the raw
version with digests and reasons, commit both tables exactly once, validate the accepted rows, record it. The
floor is the same by hand, with nothing that makes it safe to run twice: run the same suite once, read the
rows, and write the two parts with ``write_deltalake``.

Budget: at most 1.5 times the floor. Ours reads the raw rows twice (once a table, so that memory does not grow
with them), hashes them on the way in and out, and asks the suite of the rows that are left.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import write_deltalake

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import init_lake, open_lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.quality.engine import get_engine
from airflow_provider_xops.quality.frames import LakeFrame
from airflow_provider_xops.quality.quarantine import quarantine
from airflow_provider_xops.quality.suites import load_suite
from airflow_provider_xops.quality.validate import validate
from airflow_provider_xops.records import Actor
from airflow_provider_xops.settings import LakeSettings
from benchmarks._harness import alternate, median, report

ROWS = 1_000_000
BAD_SHARE = 0.01
BUDGET = 1.5
ENGINE = "duckdb"
DAY = "2013-01-01"
AS_OF = datetime(2026, 1, 15, tzinfo=UTC)


def main() -> None:
    """Part the same version in turn, ours and by hand, each into new tables."""
    folder = Path(tempfile.mkdtemp(prefix="xops-bench-"))
    try:
        settings = LakeSettings(str(folder / "lake"))
        actor = Actor.user("benchmark", key="benchmark", fence=1)
        init_lake(settings, actor=actor, as_of=AS_OF)
        lake = open_lake(settings)
        rows = _rows()
        raw = commit(
            lake, "t__raw", [Segment(DAY, "file", rows.to_reader)], actor=actor, as_of=AS_OF
        ).record.ref
        suite = str(folder / "suite.json")
        Path(suite).write_text(json.dumps({"name": "bench", "expectations": _expectations()}))
        given = validate(
            lake, raw, suite=suite, partitions=[DAY], engine=ENGINE, data_docs=False, actor=actor, as_of=AS_OF
        )
        checks = load_suite(suite).checks
        engine = get_engine(ENGINE)
        bad = int(ROWS * BAD_SHARE)

        def ours() -> None:
            for name in ("t__accepted", "t__quarantine"):
                shutil.rmtree(folder / "lake" / name, ignore_errors=True)
            record = quarantine(
                lake, given, suite=suite, engine=ENGINE, max_share=0.05, actor=actor, as_of=AS_OF
            ).record
            assert record is not None
            assert (record.accepted_rows, record.quarantined_rows) == (ROWS - bad, bad)

        def by_hand() -> None:
            for name in ("good", "bad"):
                shutil.rmtree(folder / name, ignore_errors=True)
            engine.run(checks, LakeFrame(lake, raw, [DAY]))
            table = scan(lake, raw, partitions=[DAY]).read_all()
            good = pc.and_kleene(pc.is_valid(table.column("s0")), pc.greater_equal(table.column("i0"), 0))
            write_deltalake(str(folder / "good"), table.filter(good))
            write_deltalake(str(folder / "bad"), table.filter(pc.invert(good)))

        mine, theirs = alternate(ours, by_hand, 5)
        report(
            "quarantine",
            ratio=median(mine) / median(theirs),
            budget=BUDGET,
            better="lower",
            samples=[seconds / median(theirs) for seconds in mine],
            details={
                "rows": ROWS,
                "columns": rows.num_columns,
                "bad": bad,
                "checks": len(checks),
                "engine": f"{engine.name} {engine.version}",
                "ours_s": round(median(mine), 2),
                "by_hand_s": round(median(theirs), 2),
            },
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rows() -> pa.Table:
    """Ten columns of floats, six of whole numbers, four of text; every hundredth row is bad."""
    random = np.random.default_rng(7)
    columns: dict[str, pa.Array] = {f"f{n}": pa.array(random.normal(size=ROWS)) for n in range(10)}
    columns |= {f"i{n}": pa.array(random.integers(0, 10_000, ROWS)) for n in range(6)}
    words = pa.array([f"word {n}" for n in range(1_000)])
    columns |= {f"s{n}": words.take(pa.array(random.integers(0, 1_000, ROWS))) for n in range(4)}
    broken = np.zeros(ROWS, dtype=bool)
    broken[:: int(1 / BAD_SHARE)] = True
    half = np.zeros(ROWS, dtype=bool)
    half[:: int(2 / BAD_SHARE)] = True
    columns["s0"] = pc.if_else(pa.array(half), pa.scalar(None, pa.string()), columns["s0"])
    columns["i0"] = pc.if_else(pa.array(broken & ~half), pa.scalar(-1, pa.int64()), columns["i0"])
    return pa.table(columns)


def _expectations() -> list[dict[str, object]]:
    """Something about every column; two of them are broken."""
    found: list[dict[str, object]] = [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": f"f{n}", "min_value": -100, "max_value": 100},
        }
        for n in range(10)
    ]
    found += [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": f"i{n}", "min_value": 0}}
        for n in range(6)
    ]
    return found + [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": f"s{n}"}} for n in range(4)
    ]


if __name__ == "__main__":
    main()
