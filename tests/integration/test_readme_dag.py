"""The README's own example, run as it stands: only paths, servers and a shorter holdout are the test's."""

from __future__ import annotations

import json
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops import cli
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import read_pandas
from airflow_provider_xops.lake.tables import resolve_ref
from tests import servers
from tests.unit.test_docs import REPOSITORY, _blocks

README = REPOSITORY / "README.md"
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 3


def _write_orders(path: Path, *, seed: int) -> None:
    numbers = random.Random(seed)
    lines = ["order_id,amount,items,late"]
    for row in range(60):
        items = numbers.randint(1, 9)
        lines.append(f"{seed * 1000 + row},{numbers.uniform(1, 99):.2f},{items},{int(items > 5)}")
    path.write_text("\n".join(lines) + "\n")


def test_the_readmes_dag_takes_files_to_traced_predictions(
    lake: Lake, mlflow_server: servers.MlflowServer, airflow_db: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils.session import create_session

    monkeypatch.setenv(
        "AIRFLOW_CONN_XOPS_LAKE_DEFAULT", json.dumps({"conn_type": "xops_lake", "host": lake.uri})
    )
    monkeypatch.setenv(
        "AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT",
        json.dumps({"conn_type": "xops_mlflow", "host": mlflow_server.url}),
    )
    (code,), (suite, *_) = _blocks(README, "python"), _blocks(README, "yaml")
    landing, suites, dags = (tmp_path / name for name in ("landing/orders", "suites", "dags"))
    for folder in (landing, suites, dags):
        folder.mkdir(parents=True)
    (suites / "orders.yaml").write_text(suite)
    (dags / "orders.py").write_text(
        code.replace("/landing/", f"{tmp_path}/landing/")
        .replace("/suites/", f"{suites}/")
        .replace('"holdout_partitions": 7', '"holdout_partitions": 1')
    )
    bag = DagBag(dag_folder=str(dags), bundle_name="dags-folder")
    assert bag.import_errors == {}
    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
    sync_bag_to_db(bag, "dags-folder", None)

    def run(dag_id: str, **arguments: Any) -> None:
        assert str(bag.dags[dag_id].test(**arguments).state) == "success", dag_id

    for number in range(DAYS):
        day = FIRST_DAY + timedelta(days=number)
        _write_orders(landing / f"{day:%Y-%m-%d}.csv", seed=number)
        run("orders", logical_date=day)
    run("orders_model")
    run("orders_scoring")

    # then every order has a prediction, and the commands that the README names answer
    scores = read_pandas(lake, resolve_ref(lake, "order_scores"))
    assert len(scores) == DAYS * 60
    assert set(scores["model_version"]) == {1}
    monkeypatch.setitem(os.environ, "XOPS_LAKE_URI", lake.uri)
    capsys.readouterr()
    for subject, expected in (
        ("late_orders/1", "promoted"),
        ("orders@2", "2026-01-03.csv"),
        (str(scores["prediction_id"].iloc[0]), "2026-01-01.csv"),
    ):
        assert cli.main(["trace", subject]) == 0
        assert expected in capsys.readouterr().out
