"""Ten hot swaps under load: what a request waits while another version is loaded and takes over.

``python -m benchmarks.swap [--json]``. One ``xops serve`` process, one load generator in a process of its own
that never rests, and ten promotions one after the other, each of a version that has to be brought from
MLflow, proved, read and asked before it takes over. The figure is the 99th percentile of the requests during
swaps (from the decision in the ledger to the first answer of the new version) over that of the requests
between them. The budget is 3; a request that fails breaks the benchmark.

The model is gradient boosting of 200 trees on ten columns, about 1 MiB on disk: reading it keeps the
interpreter busy, which is the worst for the requests beside it. ``details`` has the milliseconds, how long a
swap takes, how many times the lake was looked at, and the same for one row and for a hundred.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.records import ModelVersion
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.settings import LakeSettings
from benchmarks._harness import median, percentile, report
from benchmarks._load import Result, Sample, load
from tests import servers
from tests.integration.served_models import AS_OF, Registry, somebody

SWAPS = 10
VERSIONS = 4
COLUMNS = [f"x{number}" for number in range(10)]
SIZES = (1, 100)
CONNECTIONS = 2
POLL_S = 0.2
REST_S = 0.7
FIRST_S = 15.0
BUDGET = 3.0


def main() -> None:
    """Promote under load, and hold the requests of the swaps against the others."""
    folder = Path(tempfile.mkdtemp(prefix="xops-bench-"))
    try:
        with servers.mlflow() as mlflow:
            registry = Registry(_lake(folder), RegistryClient(mlflow.settings()))
            models = [_model(registry, number) for number in range(VERSIONS)]
            registry.promote(models[0])
            options = ["--poll-seconds", str(POLL_S), "--threads", "2"]
            with servers.xops_server(
                registry.name, lake=registry.lake.settings, mlflow_url=mlflow.url, options=options
            ) as server:
                rounds = {rows: _swaps(server, registry, models, rows) for rows in SIZES}
        ratios = [each["ratio"] for each in rounds.values()]
        report(
            "swap",
            ratio=max(ratios),
            budget=BUDGET,
            better="lower",
            samples=[each for one in rounds.values() for each in one.pop("swap_samples")],
            details={
                "unit": "p99 during swaps over p99 between them",
                "peer": "the same server between swaps",
                "model": "HistGradientBoostingClassifier, 200 trees, 10 columns",
                "connections": CONNECTIONS,
                "swaps": SWAPS,
                **{f"rows_{rows}": one for rows, one in rounds.items()},
            },
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swaps(
    server: servers.XopsServer, registry: Registry, models: Sequence[ModelVersion], rows: int
) -> dict[str, Any]:
    data = np.random.default_rng(rows).normal(size=(rows, len(COLUMNS))).round(4)
    body = orjson.dumps({"dataframe_split": {"columns": COLUMNS, "data": data.tolist()}})
    serving = server.ask("/xops/status")[2]["models"][registry.name]["fleet"]["serving"]["variants"]
    (served,) = (each["version"] for each in serving if each["weight"])
    first = next(number for number, model in enumerate(models) if model.version == served)
    parts: list[Result] = []
    decisions: list[tuple[float, int]] = []
    # A load has an end of its own: as long as the swap before, thrice over, is long enough for the next one.
    seconds = FIRST_S
    for number in range(1, SWAPS + 1):
        model = models[(first + number) % len(models)]
        with load(
            server.url, "/invocations", [body], connections=CONNECTIONS, seconds=seconds + 2 * REST_S
        ) as running:
            time.sleep(REST_S)
            decided = time.time()
            registry.promote(model)
            _wait(server, model.version, body)
            seconds = 3 * (time.time() - decided)
            parts.append(running.result())
            decisions.append((decided, model.version))
    return _figures(parts, decisions)


def _wait(server: servers.XopsServer, version: int, body: bytes) -> None:
    end = time.monotonic() + 60
    while server.ask("/invocations", body)[1]["x-model-version"] != str(version):
        if time.monotonic() > end:
            raise RuntimeError(f"v{version} was not served within a minute")
        time.sleep(0.1)


def _figures(parts: Sequence[Result], decisions: Sequence[tuple[float, int]]) -> dict[str, Any]:
    requests, failed = sum(part.requests for part in parts), sum(part.failures for part in parts)
    if failed:
        raise RuntimeError(f"{failed} of {requests} requests failed: {[part.statuses for part in parts]}")
    swaps, during, between = [], [], []
    for part, (begin, version) in zip(parts, decisions, strict=True):
        end = _taken_over(part.samples, begin, version)
        swaps.append(end - begin)
        for sample in part.samples:
            inside = sample.at <= end and sample.at + sample.seconds >= begin
            (during if inside else between).append(1000 * sample.seconds)
    steady, swapping = percentile(between, 99), percentile(during, 99)
    return {
        "ratio": round(swapping / steady, 2),
        "requests": requests,
        "failed": failed,
        "per_second": round(median([part.rate for part in parts])),
        "p50_ms": round(percentile(between, 50), 2),
        "p99_ms": round(steady, 2),
        "p50_ms_during_swaps": round(percentile(during, 50), 2),
        "p99_ms_during_swaps": round(swapping, 2),
        "slowest_ms_during_swaps": round(max(during), 1),
        "slowest_ms_between": round(max(between), 1),
        "requests_during_swaps": len(during),
        "swap_seconds": round(median(swaps), 2),
        "swap_samples": swaps,
    }


def _taken_over(samples: Sequence[Sample], since: float, version: int) -> float:
    """When the first answer of a version was there."""
    return min(each.at + each.seconds for each in samples if each.version == str(version) and each.at > since)


def _lake(folder: Path) -> Lake:
    settings = LakeSettings(str(folder / "lake"))
    init_lake(settings, actor=somebody("init"), as_of=AS_OF)
    lake = open_lake(settings)
    segments = [Segment(f"2013-01-0{day}", str(day), _rows(day).to_reader) for day in range(1, 5)]
    commit(lake, "flights", segments, actor=somebody("load"), as_of=AS_OF)
    return lake


def _rows(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(5_000, len(COLUMNS)))
    late = (values[:, 0] * values[:, 1] + values[:, 2] + rng.normal(size=len(values)) > 0).astype(np.int64)
    return pa.table({**dict(zip(COLUMNS, values.T, strict=True)), "late": late})


def _model(registry: Registry, number: int) -> ModelVersion:
    return registry.fit(
        "sklearn.ensemble:HistGradientBoostingClassifier",
        params={"max_iter": 200, "random_state": number, "early_stopping": False},
        target="late",
        features=COLUMNS,
    )


if __name__ == "__main__":
    main()
