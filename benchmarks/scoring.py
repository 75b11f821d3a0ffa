"""Batch scoring against the same work written by hand, and its memory at ten times the rows.

Ours is :func:`airflow_provider_xops.serving.batch.score` whole: the model fetched from MLflow and its digest
verified, every row predicted, digests computed, an exactly-once commit, the records written. The peer is one
process that loads the same model from a file, reads the same Parquet files, predicts, makes ids and writes a
Delta table with ``write_deltalake``. Model: the gradient boosting of the reference DAGs; rows: synthetic
flights with its features, of which one in five is late.

The ratio is ours over the peer's throughput. Beside it stands what three reasons a row cost, which the peer
does not have: the model's trees are taken apart exactly, the set-up included but for compiling, which the
first scoring of a process does. Memory is measured in processes of their own, because a process keeps what it
once had.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_xops.examples.flights.features import FEATURES, LABEL
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.tables import head, open_table
from airflow_provider_xops.records import Actor, DatasetRef, ModelVersion, WriteMode
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.batch import score
from airflow_provider_xops.settings import LakeSettings, MlflowSettings
from airflow_provider_xops.training.fit import train
from benchmarks import _harness
from tests import servers

BUDGET = 0.8
MEMORY_BUDGET = 1.2
ROWS = 1_000_000
MEMORY_ROWS = 200_000
REASON_ROWS = 20_000
BATCH_ROWS = 50_000
TRAINING_ROWS = 20_000
ROUNDS = 5
AS_OF = datetime(2026, 1, 15, tzinfo=UTC)
MODEL = "airflow_provider_xops.examples.flights.models:gradient_boosting"


def main() -> None:
    """Measure and report."""
    logging.getLogger("airflow_provider_xops").setLevel(logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="xops-bench-"))
    try:
        with servers.mlflow() as server:
            _report(folder, server.settings())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _report(folder: Path, mlflow: MlflowSettings) -> None:
    lake = _lake(folder)
    client = RegistryClient(mlflow)
    model = _model(lake, client)
    dataset = _fill(lake, "flights", ROWS)
    file = _as_file(lake, client, model, folder)
    counter = iter(range(1_000))

    def ours() -> None:
        score(
            lake, client, model=model, dataset=dataset, partitions=None, output_table=f"ours{next(counter)}",
            keep_columns=["carrier"], batch_rows=BATCH_ROWS, actor=_actor(), as_of=AS_OF,
        )  # fmt: skip

    def by_hand() -> None:
        _by_hand(open_table(lake, "flights").file_uris(), file, f"{folder}/hand{next(counter)}")

    few = _fill(lake, "few", REASON_ROWS)

    def with_reasons() -> None:
        score(
            lake, client, model=model, dataset=few, partitions=None, output_table=f"why{next(counter)}",
            batch_rows=BATCH_ROWS, reasons=3, actor=_actor(), as_of=AS_OF,
        )  # fmt: skip

    mine, theirs = _harness.alternate(ours, by_hand, ROUNDS)
    explained = _harness.median(_harness.measure(with_reasons, 3, warmup=1))
    small, large = (_memory(lake, client, model, rows) for rows in (MEMORY_ROWS, 10 * MEMORY_ROWS))
    _harness.report(
        "scoring",
        ratio=_harness.median(theirs) / _harness.median(mine),
        budget=BUDGET,
        better="higher",
        samples=[hand / our for our, hand in zip(mine, theirs, strict=True)],
        details={
            "rows": ROWS,
            "batch_rows": BATCH_ROWS,
            "ours_seconds": round(_harness.median(mine), 3),
            "by_hand_seconds": round(_harness.median(theirs), 3),
            "ours_rows_per_second": round(ROWS / _harness.median(mine)),
            "reasons": 3,
            "reasons_rows_per_second": round(REASON_ROWS / explained),
            "memory_rows": [MEMORY_ROWS, 10 * MEMORY_ROWS],
            "memory_peak_mib": [round(small), round(large)],
            "memory_ratio": round(large / small, 3),
            "memory_budget": MEMORY_BUDGET,
            "memory_within_budget": large / small <= MEMORY_BUDGET,
        },
    )


def _memory(lake: Lake, client: RegistryClient, model: ModelVersion, rows: int) -> float:
    table = f"memory{rows}"
    _fill(lake, table, rows)
    address = client.settings.tracking_uri
    return _harness.peak_memory(_score_once, lake.uri, address, model.to_json(), table)


def _score_once(lake_uri: str, mlflow_uri: str, model: dict[str, Any], table: str) -> None:
    """What one scoring task does, in a process of its own."""
    lake = open_lake(LakeSettings(uri=lake_uri))
    score(
        lake,
        RegistryClient(MlflowSettings(tracking_uri=mlflow_uri)),
        model=ModelVersion.from_json(model),
        dataset=head(lake, table),
        partitions=None,
        output_table=f"{table}_predictions",
        keep_columns=["carrier"],
        batch_rows=BATCH_ROWS,
        actor=_actor(),
        as_of=AS_OF,
    )


def _by_hand(files: list[str], model_file: Path, target: str) -> None:
    """Read Parquet, predict, make ids, write Delta: as one would write it, streaming in the same batches."""
    import joblib
    import pyarrow.dataset as ds
    from deltalake import write_deltalake

    estimator = joblib.load(model_file)
    schema = pa.schema(
        [
            ("prediction_id", pa.string()),
            ("carrier", pa.string()),
            ("prediction", pa.int64()),
            ("score", pa.float64()),
            ("model_name", pa.string()),
            ("model_version", pa.int64()),
            ("input_table", pa.string()),
            ("input_version", pa.int64()),
            ("input_partition", pa.string()),
        ]
    )

    def batches() -> Iterator[pa.RecordBatch]:
        first = 0
        scanner = ds.dataset(files).scanner(columns=list(FEATURES), batch_size=BATCH_ROWS)
        for batch in scanner.to_batches():
            frame = batch.to_pandas()
            scores = estimator.predict_proba(frame)[:, 1]
            count = len(frame)
            numbers = pa.array(np.arange(first, first + count)).cast(pa.string())
            yield pa.record_batch(
                [
                    pc.binary_join_element_wise("0123456789abcdef01234567", numbers, "-"),
                    batch.column("carrier"),
                    pa.array((scores > 0.5).astype(np.int64)),
                    pa.array(scores),
                    pa.repeat("late", count),
                    pa.repeat(pa.scalar(1, pa.int64()), count),
                    pa.repeat("flights", count),
                    pa.repeat(pa.scalar(0, pa.int64()), count),
                    pa.repeat("all", count),
                ],
                schema=schema,
            )
            first += count

    write_deltalake(target, pa.RecordBatchReader.from_batches(schema, batches()))


def _lake(folder: Path) -> Lake:
    settings = LakeSettings(uri=str(folder / "lake"))
    init_lake(settings, actor=_actor(), as_of=AS_OF)
    return open_lake(settings)


def _model(lake: Lake, client: RegistryClient) -> ModelVersion:
    return train(
        lake, client, dataset=_fill(lake, "training", TRAINING_ROWS), estimator=MODEL, target=LABEL,
        features=FEATURES, split={"kind": "random"}, model_name="late", actor=_actor(), as_of=AS_OF,
    )  # fmt: skip


def _as_file(lake: Lake, client: RegistryClient, model: ModelVersion, folder: Path) -> Path:
    import joblib

    from airflow_provider_xops.registry.loading import load_model

    joblib.dump(load_model(client, lake, model), folder / "model.joblib")
    return folder / "model.joblib"


def _fill(lake: Lake, table: str, rows: int) -> DatasetRef:
    segment = Segment("all", f"{table}/{rows}", lambda: _rows(rows))
    return commit(lake, table, [segment], mode=WriteMode.REPLACE, actor=_actor(), as_of=AS_OF).record.ref


def _rows(rows: int) -> pa.RecordBatchReader:
    """Synthetic flights: carriers and airports as text, the rest numbers of which some are missing."""
    texts = {"carrier": 16, "origin": 3, "dest": 105}
    rng = np.random.default_rng(11)

    def batch(count: int) -> pa.RecordBatch:
        columns: dict[str, Any] = {
            name: pa.array(rng.integers(0, kinds, count)).cast(pa.string()) for name, kinds in texts.items()
        }
        for name in FEATURES:
            if name not in columns:
                columns[name] = pa.array(rng.normal(size=count), mask=rng.random(count) < 0.05)
        # A label that the features explain in part, so that the model grows as large as it does on real
        # flights.
        push = np.nan_to_num(sum(np.asarray(columns[name]) for name in ("temp", "departure_hour", "humid")))
        columns[LABEL] = pa.array((push + 2 * rng.normal(size=count) > 2).astype(np.int64))
        return pa.record_batch(columns)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, rows, 100_000):
            yield batch(min(100_000, rows - start))

    return pa.RecordBatchReader.from_batches(batch(0).schema, batches())


def _actor() -> Actor:
    return Actor.user("benchmark", key="benchmark", fence=1)


if __name__ == "__main__":
    main()
