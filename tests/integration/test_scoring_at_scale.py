"""Many tasks score one dataset into one table at once: none lost, none twice, whoever is killed."""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.evidence import evidence_path
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.records import Actor, DatasetRef, ModelVersion, PromotionOutcome, ScoringRun
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.serving.batch import score
from airflow_provider_xops.training.fit import train
from tests.integration.dag_runs import Run, xcoms
from tests.integration.scoring_worker import work
from tests.processes import CONTEXT
from tests.servers import MlflowServer, S3Server

AS_OF = datetime(2026, 1, 15, tzinfo=UTC)


def an_actor(key: str = "t", fence: int = 1) -> Actor:
    return Actor.user("tester", key=key, fence=fence)


def days_of(count: int) -> list[str]:
    return [f"2013-01-{number + 1:02d}" for number in range(count)]


def fill(lake: Lake, days: list[str], rows: int, table: str = "flights") -> DatasetRef:
    rng = np.random.default_rng(3)

    def day(name: str) -> pa.Table:
        x = rng.normal(size=rows)
        return pa.table(
            {
                "id": [f"{name}/{n}" for n in range(rows)], "x": x, "n": rng.normal(size=rows),
                "late": (x > 0).astype(np.int64),
            }
        )  # fmt: skip

    segments = [Segment(name, f"{name}/{rows}", day(name).to_reader) for name in days]
    return commit(lake, table, segments, actor=an_actor(), as_of=AS_OF).record.ref


def a_model(lake: Lake, server: MlflowServer, dataset: DatasetRef, name: str = "") -> ModelVersion:
    return train(
        lake, RegistryClient(server.settings()), dataset=dataset, partitions=days_of(2),
        estimator="sklearn.tree:DecisionTreeClassifier", params={"max_depth": 3}, target="late",
        features=["x", "n"], split={"kind": "random"}, model_name=name or f"m-{uuid.uuid4().hex[:8]}",
        actor=an_actor("train"), as_of=AS_OF,
    )  # fmt: skip


class Worker:
    """One scoring process, waiting for its start."""

    def __init__(self, lake: Lake, server: MlflowServer, given: dict[str, Any]) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(
            target=work, args=(theirs, lake.settings, server.url, given), daemon=True
        )
        self.process.start()
        theirs.close()

    def wait_for(self, word: str) -> None:
        assert self.pipe.poll(300), f"a worker did not say {word}"
        assert self.pipe.recv() == word

    def go(self) -> None:
        self.pipe.send("go")

    def end(self) -> int:
        self.process.join(300)
        self.pipe.close()
        code: int = self.process.exitcode
        return code


@contextlib.contextmanager
def workers(
    shares: list[list[str]], lake: Lake, server: MlflowServer, *, held: int, **given: Any
) -> Iterator[list[Worker]]:
    """A process for each share; the first ``held`` of them stop within their work."""
    found = [
        Worker(lake, server, {"partitions": share, "fence": number + 1, "hold": number < held, **given})
        for number, share in enumerate(shares)
    ]
    try:
        for worker in found:
            worker.wait_for("ready")
        yield found
    finally:
        for worker in found:
            if worker.process.is_alive():
                worker.process.kill()
            worker.end()


def check_exactly_once(lake: Lake, table: str, days: list[str], rows: int, models: int = 1) -> None:
    found = read.scan(lake, head(lake, table), columns=["prediction_id", "id", "input_partition"]).read_all()
    ids = found["prediction_id"].to_pylist()
    assert len(set(ids)) == len(ids) == rows * len(days) * models
    assert Counter(found["input_partition"].to_pylist()) == dict.fromkeys(days, rows * models)
    assert Counter(found["id"].to_pylist()) == {
        f"{day}/{number}": models for day in days for number in range(rows)
    }
    known = {run.record_id for run in lake.evidence.all(ScoringRun.kind) if isinstance(run, ScoringRun)}
    runs = {each.rpartition("-")[0] for each in ids}
    assert len(runs) == len(days) * models
    assert all(any(record.startswith(run) for record in known) for run in runs)
    assert read.verify_version(lake, head(lake, table)) == []


def race(
    lake: Lake, server: MlflowServer, model: ModelVersion, *, count: int, rows: int, table: str, reasons: int,
    rng: random.Random, kills: int, held: int = 0,
) -> int:  # fmt: skip
    """``count`` processes score at once; some are killed: ``held`` of them for certain between two batches,
    ``kills`` at a random instant. Then all is scored again. Gives how many were killed before they ended."""
    days = days_of(count)
    given = {"model": model.record_id, "dataset": "flights", "output": table, "reasons": reasons}
    with workers([[day] for day in days], lake, server, held=held, **given) as found:
        for worker in found:
            worker.go()
        for victim in found[:held]:
            victim.wait_for("batch")
            victim.process.kill()
        for victim in rng.sample(found[held:], kills):
            time.sleep(rng.uniform(0, 0.4))
            victim.process.kill()
        codes = [worker.end() for worker in found]
    killed = codes.count(-9)
    assert codes[:held] == [-9] * held
    assert codes.count(0) == count - killed
    if not kills:  # whoever lived has done its work before anybody does it again
        check_exactly_once(lake, table, days[held:], rows)
    # the retry of every task, killed or not
    client = RegistryClient(server.settings())
    for day in days:
        score(
            lake, client, model=model, dataset=head(lake, "flights"), partitions=[day], output_table=table,
            keep_columns=["id"], batch_rows=200, reasons=reasons, actor=an_actor(fence=100), as_of=AS_OF,
        )  # fmt: skip
    check_exactly_once(lake, table, days, rows)
    return killed


def test_processes_append_to_one_new_table_at_once_and_a_killed_one_is_made_up_for(
    lake: Lake, mlflow_server: MlflowServer
) -> None:
    dataset = fill(lake, days_of(3), 600)
    model = a_model(lake, mlflow_server, dataset)
    race(
        lake, mlflow_server, model, count=3, rows=600, table="predictions", reasons=0,
        rng=random.Random(1), kills=0, held=1,
    )  # fmt: skip


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_soak_many_processes_and_kills(lake: Lake, mlflow_server: MlflowServer) -> None:
    seed = random.SystemRandom().randrange(10**6)
    rng, killed, rounds = random.Random(seed), 0, 4
    dataset = fill(lake, days_of(8), 3000)
    model = a_model(lake, mlflow_server, dataset)
    for number in range(rounds):
        killed += race(
            lake, mlflow_server, model, count=8, rows=3000, table=f"predictions{number}",
            reasons=2 * (number % 2), rng=rng, kills=3, held=1,
        )  # fmt: skip
        print(f"seed {seed}: {number + 1} rounds of 8 processes, {killed} killed, every row exactly once")


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_soak_many_processes_and_kills_on_s3(seaweedfs: S3Server, mlflow_server: MlflowServer) -> None:
    settings = seaweedfs.lake_settings(f"scoring-{uuid.uuid4().hex[:8]}")
    init_lake(settings, actor=an_actor(), as_of=AS_OF)
    lake = open_lake(settings)
    model = a_model(lake, mlflow_server, fill(lake, days_of(4), 600))
    killed = 0
    for number in range(2):
        killed += race(
            lake, mlflow_server, model, count=4, rows=600, table=f"predictions{number}", reasons=0,
            rng=random.Random(number), kills=number, held=1,
        )  # fmt: skip
        print(f"SeaweedFS: {number + 1} rounds of 4 processes, {killed} killed, every row exactly once")


def test_partitions_are_shared_out_scored_by_mapped_tasks_and_labeled(
    lake_connection: Lake, mlflow_connection: MlflowServer, run: Run
) -> None:
    # given: five days of unequal tasks, and a champion
    from airflow.sdk import DAG, Asset

    from airflow_provider_xops.operators.model import (
        JoinLabelsOperator,
        PartitionsToScoreOperator,
        ScoreDatasetOperator,
    )

    lake, days = lake_connection, days_of(5)
    name = f"m_{uuid.uuid4().hex[:8]}"
    dataset = fill(lake, days, 40)
    model = a_model(lake, mlflow_connection, dataset, name)
    draft = ledger.Draft(
        outcome=PromotionOutcome.PROMOTED, reason="test", to_version=model.version,
        to_created_at_ms=model.created_at_ms, artifact_digest=model.artifact_digest,
    )  # fmt: skip
    ledger.append(lake, name, "champion", lambda _: draft, actor=an_actor(), as_of=AS_OF)
    outcomes = read.scan(lake, dataset, partitions=days[:2], columns=["id", "late"]).read_all()
    for number, day in enumerate(days[:2]):
        part = outcomes.slice(40 * number, 40)
        commit(lake, "outcomes", [Segment(day, day, part.to_reader)], actor=an_actor(), as_of=AS_OF)

    with DAG(dag_id="scoring_at_scale", schedule=None) as dag:
        shares = PartitionsToScoreOperator(
            task_id="shares", table="flights", model_name=name, rows_per_task=100
        )
        scored = ScoreDatasetOperator.partial(
            task_id="score", output_table="predictions", keep_columns=["id"], reasons="{{ 1 + 1 }}",
            outlets=[Asset(name="p", uri="x-xops://lake/p")],
        ).expand_kwargs(shares.output)  # fmt: skip
        labels = JoinLabelsOperator(
            task_id="labels", predictions="predictions", labels="outcomes", label_column="late", on=["id"],
            output_table="labeled",
        )  # fmt: skip
        scored >> labels

    # when it is run twice
    first, second = run(dag), run(dag)

    # then
    assert (str(first.state), str(second.state)) == ("success", "success")
    planned = xcoms(first, "shares")["return_value"]
    assert [each["partition"] for each in planned] == [days[:2], days[2:4], days[4]]
    assert {each["model"] for each in planned} == {model.record_id}
    check_exactly_once(lake, "predictions", days, 40)
    records = [each for each in lake.evidence.all(ScoringRun.kind) if isinstance(each, ScoringRun)]
    assert {record.produced_by.map_index for record in records} == {0, 1, 2}
    rows = read.scan(lake, head(lake, "predictions"), columns=["reason_1", "reason_2"]).read_all()
    assert set(rows["reason_1"].to_pylist()) <= {"x", "n"}
    told = xcoms(first, "labels")["return_value"]
    assert (told["joined"], told["waiting"], told["unmatched"], told["reused"]) == (80, 120, 0, False)
    assert xcoms(second, "labels")["return_value"]["reused"] is True
    assert table_exists(lake, "labeled")
    assert len(told["label_joins"]) == 5
    for record_id in told["label_joins"]:
        assert lake.storage.exists(evidence_path("label_joins", record_id))
