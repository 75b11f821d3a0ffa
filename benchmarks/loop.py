"""What each task of ours costs over a task that does nothing: lake commits, MLflow calls, seconds.

One small DAG with every step of the loop runs in this process (``dag.test()``) on a local lake and a local
MLflow server, with a few hundred rows a day, so that compute hardly counts; the first run pays for the
imports and is not counted. The ratio is the slowest task's median seconds over the no-op's, by the budget of
one second; commits and MLflow calls are in the details, each beside its own budget. An MLflow call is a
request to its tracking or registry interface; the files of a model are counted apart, one request a file.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks._harness import report

COMMITS_A_TASK = 2
MLFLOW_CALLS_A_TASK = 6
SECONDS_OVER_NOOP = 1.0
ROWS_A_DAY = 300
SUITE = {
    "name": "loop",
    "expectations": [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "label"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 0}},
    ],
}

Costs = dict[str, list[dict[str, float]]]


def measure_tasks(folder: Path, tracking_uri: str, *, days: int) -> Costs:
    """Run the loop for ``days`` days after one that is not counted; the costs of each task, one entry a day.

    Airflow's home must be a private one: its database is made there.
    """
    lake = folder / "lake"
    os.environ["AIRFLOW_CONN_XOPS_LAKE_DEFAULT"] = json.dumps({"conn_type": "xops_lake", "host": str(lake)})
    os.environ["AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT"] = json.dumps(
        {"conn_type": "xops_mlflow", "host": tracking_uri}
    )
    _make_lake(lake)
    (folder / "suite.json").write_text(json.dumps(SUITE))
    (folder / "landing").mkdir()
    costs: Costs = defaultdict(list)
    first = date(2020, 1, 1)
    with _calls_counted() as calls:
        dag = _loop(folder, _Meter(lake, calls, costs))
        _serialize(dag)
        names = [(first + timedelta(days=number)).isoformat() for number in range(days + 2)]
        for number, name in enumerate(names):
            _write_day(folder / "landing" / f"{name}.csv", seed=number)
        # The first run loads two days, so that one can be held out.
        for asked in [f"{names[0]}..{names[1]}", *names[2:]]:
            run = dag.test(run_conf={"day": asked})
            if str(run.state) != "success":
                raise RuntimeError(f"the loop's run of {asked} ended as {run.state}")
    return {task: entries[1:] for task, entries in costs.items()}


class _Meter:
    """Reads the meters before and after each task's ``execute``."""

    def __init__(self, lake: Path, calls: dict[str, int], costs: Costs) -> None:
        self.lake, self.calls, self.costs = lake, calls, costs
        self.before: dict[str, float] = {}

    def read(self) -> dict[str, float]:
        commits = sum(1 for _ in self.lake.glob("**/_delta_log/*.json"))
        return {"lake_commits": commits, **self.calls, "seconds": time.perf_counter()}

    def start(self, context: Any) -> None:
        self.before = self.read()

    def stop(self, context: Any, result: Any) -> None:
        # The clock first: reading the other meters is not the task's.
        now = time.perf_counter()
        after = self.read() | {"seconds": now}
        self.costs[context["ti"].task_id].append({name: after[name] - self.before[name] for name in after})


def _loop(folder: Path, meter: _Meter) -> Any:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, Param

    from airflow_provider_xops.operators.data import (
        IngestDatasetOperator,
        PublishDatasetOperator,
        TransformDatasetOperator,
        ValidateDatasetOperator,
    )
    from airflow_provider_xops.operators.model import (
        EvaluateModelOperator,
        PromoteModelOperator,
        ScoreDatasetOperator,
        TrainModelOperator,
    )

    day = "{{ params.day }}"
    measured: dict[str, Any] = {"pre_execute": meter.start, "post_execute": meter.stop}
    params = {"day": Param("", type="string")}
    with DAG("xops_benchmark_loop", schedule=None, params=params) as dag:
        noop = EmptyOperator(task_id="noop", **measured)
        ingest = IngestDatasetOperator(
            task_id="ingest", table="rows", source=f"{folder}/landing/{{partition}}.csv", partition=day,
            schema={"x": "float64", "y": "float64", "label": "int64"}, **measured,
        )  # fmt: skip
        transform = TransformDatasetOperator(
            task_id="transform", table="features", inputs={"rows": ingest.output}, partition=day,
            sql="SELECT x, y, x * y AS xy, label FROM rows", **measured,
        )  # fmt: skip
        validate = ValidateDatasetOperator(
            task_id="validate", dataset=transform.output, suite=str(folder / "suite.json"), **measured
        )
        publish = PublishDatasetOperator(task_id="publish", report=validate.output, **measured)
        train = TrainModelOperator(
            task_id="train", dataset=publish.output, model_name="benchmark_loop", target="label",
            estimator="sklearn.linear_model:LogisticRegression",
            split={"kind": "time", "holdout_partitions": 1}, **measured,
        )  # fmt: skip
        evaluate = EvaluateModelOperator(
            task_id="evaluate", model=train.output,
            gates=[{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.1}], **measured,
        )  # fmt: skip
        promote = PromoteModelOperator(task_id="promote", evaluation=evaluate.output, **measured)
        score = ScoreDatasetOperator(
            task_id="score",
            dataset=publish.output,
            model_name="benchmark_loop",
            output_table="scores",
            **measured,
        )
        noop >> ingest
        promote >> score
    return dag


def _serialize(dag: Any) -> None:
    """``dag.test()`` wants the DAG in Airflow's database."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    initdb()
    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
    bag = DagBag(dag_folder=os.devnull, bundle_name="dags-folder")
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


def _make_lake(path: Path) -> None:
    from datetime import UTC, datetime

    from airflow_provider_xops.lake.lake import init_lake
    from airflow_provider_xops.records import Actor
    from airflow_provider_xops.settings import LakeSettings

    init_lake(
        LakeSettings(str(path)), actor=Actor.user("benchmark", key="init", fence=1), as_of=datetime.now(UTC)
    )


def _write_day(path: Path, *, seed: int) -> None:
    numbers = random.Random(seed)
    lines = ["x,y,label"]
    for _ in range(ROWS_A_DAY):
        x, y = numbers.random(), numbers.random()
        lines.append(f"{x:.6f},{y:.6f},{int(x + 0.3 * numbers.random() > 0.6)}")
    path.write_text("\n".join(lines) + "\n")


@contextmanager
def _calls_counted() -> Iterator[dict[str, int]]:
    """Count the requests that leave through ``requests``, which is all that MLflow's client uses."""
    import requests

    counts = {"mlflow_calls": 0, "artifact_files": 0}
    original: Callable[..., Any] = requests.Session.send

    def send(session: Any, request: Any, **kwargs: Any) -> Any:
        if "/mlflow-artifacts/" in request.url:
            counts["artifact_files"] += 1
        elif "/mlflow/" in request.url:
            counts["mlflow_calls"] += 1
        return original(session, request, **kwargs)

    requests.Session.send = send  # type: ignore[method-assign, assignment]
    try:
        yield counts
    finally:
        requests.Session.send = original  # type: ignore[method-assign]


def main(days: int = 5) -> None:
    """Measure and report."""
    # The servers are the tests': started on a free port, stopped whatever happens.
    from tests import servers

    with tempfile.TemporaryDirectory(prefix="xops-benchmark-") as name, servers.mlflow() as server:
        folder = Path(name)
        os.environ |= {
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "airflow" / "dags"),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "GX_ANALYTICS_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        (folder / "airflow" / "dags").mkdir(parents=True)
        stdout = os.dup(1)
        os.dup2(2, 1)  # Airflow's task logs are no part of the result
        try:
            costs = measure_tasks(folder, server.url, days=days)
        finally:
            sys.stdout.flush()
            os.dup2(stdout, 1)
    noop = statistics.median(entry["seconds"] for entry in costs["noop"])
    tasks = {
        task: {
            "seconds_over_noop": round(statistics.median(entry["seconds"] for entry in entries) - noop, 3),
            **{
                name: int(max(entry[name] for entry in entries))
                for name in ("lake_commits", "mlflow_calls", "artifact_files")
            },
        }
        for task, entries in costs.items()
        if task != "noop"
    }
    slowest = max(tasks, key=lambda task: float(tasks[task]["seconds_over_noop"]))
    report(
        "loop",
        ratio=float(tasks[slowest]["seconds_over_noop"]) / SECONDS_OVER_NOOP,
        budget=1.0,
        better="lower",
        samples=[entry["seconds"] for entry in costs[slowest]],
        details={
            "slowest": slowest,
            "rows_a_day": ROWS_A_DAY,
            "budget_lake_commits": COMMITS_A_TASK,
            "budget_mlflow_calls": MLFLOW_CALLS_A_TASK,
            "within_structural_budgets": all(
                each["lake_commits"] <= COMMITS_A_TASK and each["mlflow_calls"] <= MLFLOW_CALLS_A_TASK
                for each in tasks.values()
            ),
            **tasks,
        },
    )


if __name__ == "__main__":
    main()
