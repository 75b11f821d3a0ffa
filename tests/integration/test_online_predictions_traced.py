"""A prediction that a server gave leads back to its sources, is explained, and gets its label."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.cli import main
from airflow_provider_xops.errors import DataError, NotFoundError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.compaction import compact
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.lineage import trace
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import Actor, DatasetRef, ModelVersion, SourceFile, VariantRole
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.explain import explain
from airflow_provider_xops.serving.labels import join_labels
from airflow_provider_xops.serving.online.prediction_log import LoggedBatch, PredictionLog
from airflow_provider_xops.serving.online.shadow import ShadowRequest, ShadowRunner
from airflow_provider_xops.serving.online.variants import LoadedModel, load
from airflow_provider_xops.serving.variants_report import variants
from airflow_provider_xops.training.fit import train
from airflow_provider_xops.training.frames import feature_frame
from tests import servers

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
FEATURES = ("distance", "carrier", "booked", "score")
SECONDS = 60.0


def rows(count: int, seed: int) -> pa.Table:
    """Flights: a number, a text, a date, a feature that is called like a column of the log; and a label."""
    random = np.random.default_rng(seed)
    distance, carrier = random.integers(100, 3000, count), random.choice(["UA", "B6", "AA"], count)
    late = distance + np.where(carrier == "UA", 800, 0) + random.normal(0, 400, count) > 1700
    return pa.table(
        {
            "distance": distance.astype(float),
            "carrier": carrier,
            "booked": pa.array(
                [date(2026, 1, 1) + timedelta(days=int(n)) for n in random.integers(0, 90, count)]
            ),
            "score": random.random(count),
            "late": late.astype(np.int64),
        }
    )


def learner() -> Any:
    """Text encoded, the date left out, numbers scaled."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    prepare = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore"), ["carrier"]),
            ("number", StandardScaler(), ["distance", "score"]),
        ]
    )
    return make_pipeline(prepare, LogisticRegression(max_iter=500))


@pytest.fixture
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def model(
    lake: Lake, client: RegistryClient, make_actor: Callable[..., Actor], as_of: datetime
) -> ModelVersion:
    source = SourceFile(uri="s3://drop/flights.csv", name="flights.csv", sha256="5" * 64, size_bytes=9)
    segments = [
        Segment(f"2025-12-0{day}", f"f{day}", rows(120, day).to_reader, sources=(source,)) for day in (1, 2)
    ]
    ref: DatasetRef = commit(lake, "flights", segments, actor=make_actor(), as_of=as_of).record.ref
    return train(
        lake, client, dataset=ref, estimator=f"{__name__}:learner", target="late", features=list(FEATURES),
        split={"kind": "time", "holdout_partitions": 1}, model_name=f"late-{uuid.uuid4().hex[:8]}",
        actor=make_actor(key="train"), as_of=as_of,
    )  # fmt: skip


class Server:
    """What the online server does with its objects."""

    def __init__(
        self, lake: Lake, client: RegistryClient, model: ModelVersion, actor: Actor, **options: Any
    ) -> None:
        self.lake, self.actor = lake, actor
        self.loaded = self.load(client, model, "champion")
        self.log = PredictionLog(
            lambda: lake, "flights_log", server="gate-1", flush_seconds=3600, clock=lambda: NOW, actor=actor,
            **options,
        )  # fmt: skip

    def load(self, client: RegistryClient, model: ModelVersion, alias: str) -> LoadedModel:
        return load(
            self.lake, client, model.name, model.version, server="gate-1", alias=alias,
            log_table="flights_log", clock=lambda: NOW, actor=self.actor,
        )  # fmt: skip

    def answer(self, table: pa.Table) -> tuple[str, Any, Any]:
        frame = feature_frame(table, FEATURES)
        said = self.loaded.predict(frame)
        first = self.loaded.ids.take(len(frame))
        self.log.offer(
            LoggedBatch(
                session=self.loaded.session, variant=VariantRole.PRIMARY, first=first, rows=len(frame),
                at=NOW, predictions=said.labels, scores=said.scores, columns=frame, duration_ms=1.0,
            )
        )  # fmt: skip
        return self.loaded.ids.text(first), frame, said


def test_a_served_prediction_is_traced_explained_and_labeled(
    lake: Lake, client: RegistryClient, model: ModelVersion, make_actor: Callable[..., Actor],
    mlflow_server: servers.MlflowServer, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server = Server(lake, client, model, make_actor(), keep_columns=["*"])
    shadow, runner = server.load(client, model, "champion"), ShadowRunner(server.log)
    asked = rows(12, 9)
    first, frame, said = server.answer(asked)
    runner.offer(ShadowRequest(shadow=shadow, frame=frame, answered=said, answered_id=first, at=NOW))
    ids = [f"{first.rpartition('-')[0]}-{number}" for number in range(12)]

    # Before anything is written the chain is there already.
    before = trace(lake, ids[3])
    assert "not in flights_log" in before.nodes[before.root].missing
    assert [node.title for node in before.of_kind("source")] == ["source file flights.csv"]
    with pytest.raises(NotFoundError):
        explain(lake, client, ids[3])

    assert runner.close(SECONDS) == 0
    assert server.log.close(SECONDS) == 0
    for _ in range(2):
        found = trace(lake, ids[3])
        assert not [node for node in found.nodes.values() if node.missing]
        why = explain(lake, client, ids[3], background=20)
        assert (why.model, why.row, why.partition, why.agrees) == (model.ref, 3, "2026-01-15", True)
        assert why.answer == pytest.approx(said.scores[3])
        assert why.base + sum(each.contribution for each in why.contributions) == pytest.approx(why.answer)
        values = {each.feature: each.value for each in why.contributions}
        assert (values["distance"], values["carrier"]) == (
            asked["distance"][3].as_py(),
            asked["carrier"][3].as_py(),
        )
        assert values["score"] == pytest.approx(asked["score"][3].as_py())
        # Compacted, the log says the same.
        compact(lake, "flights_log", least_files=2, actor=make_actor(), as_of=NOW)
    beside = explain(lake, client, shadow.ids.text(3), background=20)
    assert (beside.agrees, beside.answer) == (True, pytest.approx(why.answer))

    where = ["--lake", lake.uri, "--mlflow", mlflow_server.url]
    assert main(["explain", ids[0], "--background", "10", *where]) == 0
    assert main(["trace", ids[0], *where]) == 0
    text = capsys.readouterr().out
    assert "sum up to the answer" in text
    assert "given by: serving session" in text

    labels = pa.table({"prediction_id": ids[:10], "late": asked["late"].slice(0, 10)})
    arrived = commit(
        lake, "outcomes", [Segment("2026-01-16", "l", labels.to_reader)], actor=make_actor(), as_of=NOW,
    )  # fmt: skip
    joined = join_labels(
        lake, predictions=head(lake, "flights_log"), labels=arrived.record.ref, label_column="late",
        output_table="labeled", actor=make_actor(), as_of=NOW,
    )  # fmt: skip
    assert joined is not None
    report = variants(lake, model=model.name, labeled="labeled", metrics=["accuracy"])
    by_role = {each.variant: each for each in report.variants}
    accuracy = float(np.mean(said.labels[:10] == asked["late"].to_numpy()[:10]))
    assert by_role[VariantRole.PRIMARY].metrics[0].value == pytest.approx(accuracy)
    assert by_role[VariantRole.PRIMARY].metrics[0].rows == 10
    assert by_role[VariantRole.SHADOW].metrics[0].value == pytest.approx(accuracy)
    assert by_role[VariantRole.SHADOW].agreement is not None
    assert by_role[VariantRole.SHADOW].agreement.value == 1.0
    assert scan(lake, head(lake, "flights_log")).read_all().num_rows == 24


def test_a_log_without_the_features_says_how_to_keep_them(
    lake: Lake, client: RegistryClient, model: ModelVersion, make_actor: Callable[..., Actor]
) -> None:
    server = Server(lake, client, model, make_actor(), keep_columns=["distance"])
    first, _frame, _said = server.answer(rows(3, 4))
    assert server.log.close(SECONDS) == 0

    with pytest.raises(DataError) as caught:
        explain(lake, client, first)

    assert caught.value.code == "data.features_not_kept"
    assert caught.value.context["missing"] == ["carrier", "booked", "score"]
