"""A suite of 41 expectations over 20 columns of local Parquet, against Great Expectations on pandas.

``python -m benchmarks.validation [--json]``, with ``--rows=1000000`` (or another number) for that size alone.
Each run is a fresh interpreter; time and peak memory include loading the rows, the time leaves the import of
the libraries out, which is the same for both. The floor is hand-written DuckDB SQL for the same figures.

Budgets: at least 3 times faster than on pandas, at most a third of its peak memory (at least 4 times and at
most a quarter without exact quantiles), at most 1.2 of the hand-written SQL's time; the same results.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_xops.quality.suites import Check
from benchmarks._harness import _own_peak_mib, median, report

SIZES = {1_000_000: 5, 10_000_000: 3}
FASTER, MEMORY, FLOOR = 3.0, 1 / 3, 1.2
CHUNK = 500_000
QUANTILES = [0.05, 0.25, 0.5, 0.75, 0.95]
WORDS = 1_000


def write_table(path: Path, rows: int) -> None:
    """20 columns, a chunk at a time: floats (some missing), whole numbers, words, times, dates, Booleans."""
    random = np.random.default_rng(0)
    words = np.char.add("carrier ", np.arange(WORDS).astype(str))
    writer = None
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        columns: dict[str, Any] = {"id": np.arange(start, start + count)}
        columns |= {f"measure_{i}": random.normal(size=count) for i in range(6)}
        columns |= {
            f"sparse_{i}": pa.array(random.normal(size=count), mask=random.random(count) > 0.9)
            for i in range(2)
        }
        columns |= {f"key_{i}": random.integers(0, 10_000, count) for i in range(4)}
        columns |= {f"word_{i}": pa.array(words[random.integers(0, WORDS, count)]) for i in range(3)}
        columns["moment"] = pa.array(random.integers(0, 10**15, count), pa.timestamp("us", "UTC"))
        columns["day"] = pa.array(random.integers(0, 20_000, count).astype(np.int32), pa.date32())
        columns |= {f"flag_{i}": random.random(count) > 0.5 for i in range(2)}
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=CHUNK // 4)
    if writer is not None:
        writer.close()


def _check(kind: str, **kwargs: Any) -> Check:
    return Check(type=f"expect_{kind}", kwargs=kwargs)


def checks(*, quantiles: bool = True) -> list[Check]:
    """41 expectations (36 of them without exact quantiles)."""
    found = [
        *(_check("column_values_to_not_be_null", column=f"measure_{i}") for i in range(6)),
        *(_check("column_values_to_not_be_null", column=f"sparse_{i}", mostly=0.8) for i in range(2)),
        *(
            _check("column_values_to_be_between", column=f"measure_{i}", min_value=-4, max_value=4)
            for i in range(6)
        ),
        *(
            _check("column_mean_to_be_between", column=f"measure_{i}", min_value=-1, max_value=1)
            for i in range(4)
        ),
        *(
            _check("column_stdev_to_be_between", column=f"measure_{i}", min_value=0.5, max_value=2)
            for i in range(2)
        ),
        *(_check("column_min_to_be_between", column=f"key_{i}", min_value=0) for i in range(2)),
        *(_check("column_max_to_be_between", column=f"key_{i}", max_value=10_000) for i in range(2)),
        _check("column_sum_to_be_between", column="key_3", min_value=0),
        _check("column_values_to_be_unique", column="id"),
        _check("column_unique_value_count_to_be_between", column="key_0", min_value=1),
        _check(
            "column_distinct_values_to_be_in_set",
            column="word_0",
            value_set=[f"carrier {i}" for i in range(WORDS)],
        ),
        *(
            _check(
                "column_values_to_be_in_set",
                column=f"word_{i}",
                value_set=[f"carrier {n}" for n in range(990)],
                mostly=0.9,
            )
            for i in (1, 2)
        ),
        _check("column_values_to_match_regex", column="word_0", regex=r"^carrier [0-9]+"),
        _check("column_value_lengths_to_be_between", column="word_1", min_value=9, max_value=11),
        _check(
            "column_values_to_be_between",
            column="key_1",
            max_value=9_000,
            mostly=0.8,
            row_condition="key_2 > 5000",
            condition_parser="pandas",
        ),
        _check("column_pair_values_a_to_be_greater_than_b", column_A="key_0", column_B="key_1", mostly=0.3),
        _check("table_row_count_to_be_between", min_value=1),
        _check("column_to_exist", column="moment"),
    ]
    if quantiles:
        found += [
            _check(
                "column_quantile_values_to_be_between",
                column=f"measure_{i}",
                quantile_ranges={"quantiles": QUANTILES, "value_ranges": [[-9, 9]] * len(QUANTILES)},
            )
            for i in range(3)
        ]
        found += [_check("column_median_to_be_between", column=f"measure_{i}", min_value=-1) for i in (3, 4)]
    return found


def hand_written(path: Path, *, quantiles: bool = True) -> dict[str, Any]:
    """The same figures, as somebody who knows the suite would ask DuckDB for them."""
    import duckdb

    words = ", ".join(f"'carrier {n}'" for n in range(990))
    every = ", ".join(f"'carrier {n}'" for n in range(WORDS))
    parts = ["count(*)"]
    parts += [f"count(measure_{i})" for i in range(6)] + [f"count(sparse_{i})" for i in range(2)]
    parts += [f"count(*) FILTER (WHERE NOT measure_{i} BETWEEN -4 AND 4)" for i in range(6)]
    parts += [f"avg(measure_{i})" for i in range(4)] + [f"stddev_samp(measure_{i})" for i in range(2)]
    parts += [f"min(key_{i}), max(key_{i})" for i in range(2)] + ["sum(key_3)"]
    parts += [f"count(*) FILTER (WHERE word_{i} NOT IN (SELECT unnest([{words}])))" for i in (1, 2)]
    parts += [f"count(word_{i})" for i in range(3)]
    parts += ["count(*) FILTER (WHERE NOT regexp_matches(word_0, '^carrier [0-9]+'))"]
    parts += ["count(*) FILTER (WHERE NOT length(word_1) BETWEEN 9 AND 11)"]
    parts += ["count(*) FILTER (WHERE key_2 > 5000 AND key_1 > 9000)", "count(*) FILTER (WHERE key_2 > 5000)"]
    parts += ["count(*) FILTER (WHERE NOT key_0 > key_1)"]
    if quantiles:
        parts += [f"quantile_disc(measure_{i}, {QUANTILES})" for i in range(3)]
        parts += [f"median(measure_{i})" for i in (3, 4)]
    with duckdb.connect() as connection:
        rows = f"read_parquet('{path}')"
        figures = connection.execute(f"SELECT {', '.join(parts)} FROM {rows}").fetchone()
        twice = connection.execute(
            f"SELECT coalesce(sum(n) FILTER (n > 1), 0) FROM (SELECT count(*) n FROM {rows} GROUP BY id)"
        ).fetchone()
        different = connection.execute(f"SELECT count(*) FROM (SELECT DISTINCT key_0 FROM {rows})").fetchone()
        outside = connection.execute(
            f"SELECT count(*) FROM (SELECT DISTINCT word_0 FROM {rows}) WHERE word_0 NOT IN ({every})"
        ).fetchone()
    return {"figures": [str(one) for one in (figures, twice, different, outside)]}


def on_pandas(path: Path, suite: list[Check]) -> list[Any]:
    """Great Expectations as its documentation uses it: a data frame, a context, a suite, ``validate``."""
    import great_expectations as gx
    import pandas as pd
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    data = pd.read_parquet(path)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    source = context.data_sources.add_pandas("rows")
    batch = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("rows")
    expectations = gx.ExpectationSuite(name="suite")
    for place, check in enumerate(suite):
        configuration = ExpectationConfiguration(
            type=check.type, kwargs=dict(check.kwargs), meta={"place": place}
        )
        expectations.add_expectation(configuration.to_domain_obj())
    validated = batch.get_batch({"dataframe": data}).validate(expectations)
    return sorted(validated.results, key=lambda one: int(one.expectation_config.meta["place"]))


def _figures(success: bool, unexpected: Any, observed: Any) -> list[Any]:
    number = isinstance(observed, Real) and not isinstance(observed, bool)
    return [bool(success), unexpected, float(f"{observed:.9g}") if number else None]


def _one_run(engine: str, path: Path, quantiles: bool) -> dict[str, Any]:
    """In an interpreter of its own: seconds, peak memory and the results."""
    logging.disable(logging.WARNING)
    if engine == "sql":
        import duckdb  # noqa: F401

        started = time.perf_counter()
        hand_written(path, quantiles=quantiles)
        return {"seconds": time.perf_counter() - started, "peak_mib": _own_peak_mib(), "results": None}
    from airflow_provider_xops.quality._great_expectations import great_expectations
    from airflow_provider_xops.quality.engine import get_engine
    from airflow_provider_xops.quality.frames import FileFrame

    great_expectations()
    suite = checks(quantiles=quantiles)
    if engine == "duckdb":
        import airflow_provider_xops.quality.duckdb_engine.execution  # noqa: F401
    before = _own_peak_mib()
    started = time.perf_counter()
    notes: tuple[str, ...] = ()
    if engine == "duckdb":
        run = get_engine("duckdb").run(suite, FileFrame(path))
        seconds, notes = time.perf_counter() - started, run.notes
        results = [
            _figures(one.outcome.value == "passed", one.unexpected_count, one.observed) for one in run.results
        ]
    else:
        items = on_pandas(path, suite)
        seconds = time.perf_counter() - started
        results = [
            _figures(one.success, one.result.get("unexpected_count"), one.result.get("observed_value"))
            for one in items
        ]
    return {
        "seconds": seconds,
        "peak_mib": _own_peak_mib(),
        "imported_mib": before,
        "results": results,
        "fell_back": len(notes),
    }


def _measured(engine: str, path: Path, quantiles: bool) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.validation", f"--one={engine}", f"--path={path}"]
    command += [] if quantiles else ["--no-quantiles"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _of(runs: list[dict[str, Any]], key: str) -> float:
    return median([run[key] for run in runs])


def _compare(path: Path, rows: int, repeats: int, *, quantiles: bool) -> tuple[list[float], dict[str, Any]]:
    runs: dict[str, list[dict[str, Any]]] = {"duckdb": [], "pandas": [], "sql": []}
    for _ in range(repeats):
        for engine, done in runs.items():
            done.append(_measured(engine, path, quantiles))
    ours, theirs, floor = runs["duckdb"], runs["pandas"], runs["sql"]
    ratios = [other["seconds"] / mine["seconds"] for mine, other in zip(ours, theirs, strict=True)]
    return ratios, {
        "expectations": len(checks(quantiles=quantiles)),
        "times_faster": round(median(ratios), 2),
        "memory_share": round(_of(ours, "peak_mib") / _of(theirs, "peak_mib"), 3),
        "memory_share_above_libraries": round(
            (_of(ours, "peak_mib") - _of(ours, "imported_mib"))
            / (_of(theirs, "peak_mib") - _of(theirs, "imported_mib")),
            3,
        ),
        "of_hand_written_sql": round(
            median([mine["seconds"] / other["seconds"] for mine, other in zip(ours, floor, strict=True)]), 3
        ),
        "same_results": all(
            mine["results"] == other["results"] for mine, other in zip(ours, theirs, strict=True)
        ),
        "fell_back": ours[0]["fell_back"],
        "n": repeats,
        "duckdb_engine": {"s": round(_of(ours, "seconds"), 2), "mib": round(_of(ours, "peak_mib"))},
        "pandas_engine": {"s": round(_of(theirs, "seconds"), 2), "mib": round(_of(theirs, "peak_mib"))},
        "sql": {"s": round(_of(floor, "seconds"), 2), "mib": round(_of(floor, "peak_mib"))},
        "libraries_mib": round(_of(ours, "imported_mib")),
        "rows": rows,
    }


def main() -> None:
    """Measure every size, with and without exact quantiles, and report the largest."""
    options = dict(each[2:].partition("=")[::2] for each in sys.argv[1:] if each.startswith("--"))
    if "one" in options:
        print(json.dumps(_one_run(options["one"], Path(options["path"]), "no-quantiles" not in options)))
        return
    sizes = {int(options["rows"]): 5} if "rows" in options else SIZES
    folder = Path(tempfile.mkdtemp(prefix="xops-bench-"))
    try:
        details: dict[str, Any] = {}
        samples: list[float] = []
        for rows, repeats in sizes.items():
            path = folder / f"{rows}.parquet"
            write_table(path, rows)
            samples, details[f"{rows}"] = _compare(path, rows, repeats, quantiles=True)
            _, details[f"{rows}_without_quantiles"] = _compare(path, rows, repeats, quantiles=False)
            path.unlink()
        report(
            "validation",
            ratio=median(samples),
            budget=FASTER,
            better="higher",
            samples=samples,
            details={**details, "budgets": {"memory_share": MEMORY, "of_hand_written_sql": FLOOR}},
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
