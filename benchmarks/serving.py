"""The scoring server against ``mlflow models serve``: the same model, one process each, the same load.

Ours is ``xops serve`` as it is by default, following a ledger: keys, limits and figures as in production. The
peer is MLflow's own server with one worker. Both answer the same bodies (MLflow's ``dataframe_split``, ten
columns, 1 and 100 rows) from the same load generator, in turn, a few seconds each; a request that fails ends
the benchmark. Models: a scaler and a logistic regression; gradient boosting with its default 100 trees.

The ratio is ours over the peer's requests a second, and the one reported is the smaller of the two sizes of
the linear pipeline. The boosting's ratio has a budget of its own, in the details.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.records import Actor, ModelVersion, WriteMode
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.settings import LakeSettings
from airflow_provider_xops.training.fit import train
from benchmarks import _harness, _load
from tests import servers
from tests.integration.serve_steps import put_in_force

BUDGET = 2.0
BOOSTING_BUDGET = 1.0
COLUMNS = [f"c{number}" for number in range(10)]
SIZES = (1, 100)
CONNECTIONS = 4
ROUNDS = 3
SECONDS = 3.0
TRAINING_ROWS = 20_000
AS_OF = datetime(2026, 1, 15, tzinfo=UTC)
MODELS = {"linear": "benchmarks._serving_models:linear", "boosting": "benchmarks._serving_models:boosting"}


def main() -> None:
    """Measure and report."""
    logging.getLogger("airflow_provider_xops").setLevel(logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="xops-bench-"))
    try:
        with servers.mlflow() as server:
            lake = _lake(folder)
            client = RegistryClient(server.settings())
            found = {
                name: _compare(lake, client, server, _model(lake, client, name), name) for name in MODELS
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _report(found)


def _report(found: dict[str, dict[int, dict[str, Any]]]) -> None:
    linear = {size: each["ratio"] for size, each in found["linear"].items()}
    boosting = {size: each["ratio"] for size, each in found["boosting"].items()}
    worst = min(linear, key=lambda size: linear[size])
    _harness.report(
        "serving",
        ratio=linear[worst],
        budget=BUDGET,
        better="higher",
        samples=found["linear"][worst]["ratios"],
        details={
            "connections": CONNECTIONS,
            "columns": len(COLUMNS),
            **{
                f"{name}_{size}_rows": {key: value for key, value in each.items() if key != "ratios"}
                for name, sizes in found.items()
                for size, each in sizes.items()
            },
            "boosting_ratio": min(boosting.values()),
            "boosting_budget": BOOSTING_BUDGET,
            "boosting_within_budget": min(boosting.values()) >= BOOSTING_BUDGET,
        },
    )


def _compare(
    lake: Lake, client: RegistryClient, server: servers.MlflowServer, model: ModelVersion, name: str
) -> dict[int, dict[str, Any]]:
    with (
        servers.xops_server(name, lake=lake.settings, mlflow_url=server.url) as ours,
        _mlflow_serve(server, model) as theirs,
    ):
        peers = (_Peer(ours.url, ours.process.pid), theirs)
        return {size: _one_size(*peers, size) for size in SIZES}


def _one_size(ours: _Peer, theirs: _Peer, size: int) -> dict[str, Any]:
    bodies = _bodies(size)
    runs: dict[_Peer, list[_load.Result]] = {ours: [], theirs: []}
    processor: dict[_Peer, list[float]] = {ours: [], theirs: []}
    for _ in range(ROUNDS):
        for peer in (ours, theirs):
            before = peer.processor_seconds()
            result = _load.measure(
                peer.url, "/invocations", bodies, connections=CONNECTIONS, seconds=SECONDS, warmup_seconds=0
            )
            if result.failures or not result.requests:
                raise RuntimeError(f"{result.failures} of {result.requests} requests failed")
            runs[peer].append(result)
            processor[peer].append((peer.processor_seconds() - before) / result.requests)
    ratios = [mine.rate / their.rate for mine, their in zip(runs[ours], runs[theirs], strict=True)]
    return {
        "ratio": round(_harness.median(ratios), 3),
        "ratios": ratios,
        "requests_per_second": [_middle(runs[ours], "rate"), _middle(runs[theirs], "rate")],
        "p50_ms": [_middle(runs[ours], 50), _middle(runs[theirs], 50)],
        "p99_ms": [_middle(runs[ours], 99), _middle(runs[theirs], 99)],
        "processor_ms_per_request": [
            round(1000 * _harness.median(processor[each]), 3) for each in (ours, theirs)
        ],
    }


@dataclass(frozen=True)
class _Peer:
    """A server: where it is, and the session of its processes."""

    url: str
    session: int

    def processor_seconds(self) -> float:
        """What its processes have used so far: a measure that a busy machine does not change."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.session:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _middle(results: list[_load.Result], what: str | int) -> float:
    values = [each.rate if what == "rate" else each.percentile_ms(float(what)) for each in results]
    return round(_harness.median(values), 2)


def _bodies(size: int) -> list[bytes]:
    rng = np.random.default_rng(5)
    return [
        json.dumps(
            {"dataframe_split": {"columns": COLUMNS, "data": rng.normal(size=(size, len(COLUMNS))).tolist()}}
        ).encode()
        for _ in range(16)
    ]


@contextlib.contextmanager
def _mlflow_serve(server: servers.MlflowServer, model: ModelVersion) -> Iterator[_Peer]:
    (port,) = servers.free_ports(1)
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{model.name}/{model.version}",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--env-manager", "local",
    ]  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="xops-bench-peer-"))
    # It starts `uvicorn` by its name, which is beside this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = servers.clean_environment({"MLFLOW_TRACKING_URI": server.url, "PATH": path})
    process = servers.ServerProcess("mlflow-serve", command, folder, environment)
    try:
        process.start()
        url = f"http://127.0.0.1:{port}"
        process.wait_ready(lambda: servers.answers(f"{url}/ping"))
        yield _Peer(url, process.pid)
    finally:
        process.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _lake(folder: Path) -> Lake:
    settings = LakeSettings(uri=str(folder / "lake"))
    init_lake(settings, actor=_actor("init"), as_of=AS_OF)
    lake = open_lake(settings)
    rng = np.random.default_rng(11)
    values = rng.normal(size=(TRAINING_ROWS, len(COLUMNS)))
    label = (values[:, :3].sum(axis=1) + rng.normal(size=TRAINING_ROWS) > 0.5).astype(np.int64)
    table = pa.table({name: values[:, place] for place, name in enumerate(COLUMNS)} | {"y": label})
    commit(
        lake, "rows", [Segment("all", "rows", table.to_reader)], mode=WriteMode.REPLACE, actor=_actor("rows"),
        as_of=AS_OF,
    )  # fmt: skip
    return lake


def _model(lake: Lake, client: RegistryClient, name: str) -> ModelVersion:
    from airflow_provider_xops.lake.tables import head

    model = train(
        lake, client, dataset=head(lake, "rows"), estimator=MODELS[name], target="y", features=COLUMNS,
        split={"kind": "random"}, model_name=name, actor=_actor(f"train {name}"), as_of=AS_OF,
    )  # fmt: skip
    put_in_force(lake, client, model, key=f"promote {name}")
    return model


def _actor(key: str) -> Actor:
    return Actor.user("benchmark", key=key, fence=1)


if __name__ == "__main__":
    main()
