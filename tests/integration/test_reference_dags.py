"""The reference DAGs run by ``dag.test()`` against a real MLflow server, from files to a rollback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.examples.flights.landing import (
    break_file,
    deliver,
    landing_file,
    shift_file,
    soil_file,
)
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.lineage import render, trace
from airflow_provider_xops.lake.read import count_rows, partitions
from airflow_provider_xops.lake.tables import head
from airflow_provider_xops.records import (
    ControlChartReport,
    DatasetProfile,
    ModelVersion,
    PromotionOutcome,
    QuarantineReport,
    ScoringRun,
)
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.ledger import current, entries, verify_chain
from tests.servers import MlflowServer

pytestmark = [pytest.mark.usefixtures("airflow_db"), pytest.mark.timeout(600)]

DAGS = Path(__file__).parents[2] / "dags"
MODEL = "flights_late_arrival"
HISTORY = [f"2013-01-{day:02d}" for day in range(1, 21)]
NEW_DAY = "2013-01-21"


@pytest.fixture(scope="module")
def bag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(DAGS), bundle_name="dags-folder")


@pytest.fixture
def flights(
    lake: Lake, mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The landing folder; connections and the variable point at this test's lake, server and files."""
    landing = tmp_path / "landing"
    monkeypatch.setenv(
        "AIRFLOW_CONN_XOPS_LAKE_DEFAULT", json.dumps({"conn_type": "xops_lake", "extra": {"uri": lake.uri}})
    )
    monkeypatch.setenv(
        "AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT",
        json.dumps({"conn_type": "xops_mlflow", "host": mlflow_server.url}),
    )
    monkeypatch.setenv("AIRFLOW_VAR_XOPS_FLIGHTS_LANDING", str(landing))
    deliver(landing, [*HISTORY, NEW_DAY])
    yield landing
    # The server outlives this test's lake: an alias without its ledger is a mismatch to the next test.
    with RegistryClient(mlflow_server.settings()).session("cleaning up after a test") as client:
        client.delete_registered_model(MODEL)


@pytest.fixture
def play(bag: Any) -> Callable[..., dict[str, str]]:
    """Run a reference DAG to its end; the state of each task."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils.session import create_session

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)

    def go(dag_id: str, **conf: Any) -> dict[str, str]:
        dag = bag.dags[dag_id]
        serialized = DagBag(dag_folder=os.devnull, bundle_name="dags-folder")
        serialized.bag_dag(dag)
        sync_bag_to_db(serialized, "dags-folder", None)
        run = dag.test(run_conf=conf)
        return {task.task_id: str(task.state) for task in run.get_task_instances()}

    return go


def test_every_dag_loads_without_errors_or_warnings_and_says_what_it_is_for(bag: Any) -> None:
    assert bag.import_errors == {}
    assert not bag.captured_warnings
    assert set(bag.dags) == {
        "flights_dataops",
        "flights_profile",
        "flights_release",
        "flights_training",
        "flights_scoring",
        "xops_rollback",
    }
    for dag in bag.dags.values():
        assert dag.doc_md.startswith(f"{dag.dag_id}: ")
        assert "xops" in dag.tags
        assert dag.max_active_tasks


def test_assets_join_the_dags(bag: Any) -> None:
    published = {outlet.name for task in bag.dags["flights_dataops"].tasks for outlet in task.outlets}
    (trigger,) = bag.dags["flights_scoring"].schedule
    assert trigger.name in published


def test_the_loop_from_files_to_a_rollback(
    lake: Lake, flights: Path, play: Callable[..., dict[str, str]], mlflow_server: MlflowServer
) -> None:
    # history, and a first champion
    states = play("flights_dataops", day=f"{HISTORY[0]}..{HISTORY[-1]}")
    assert set(states.values()) == {"success"}
    assert partitions(lake, head(lake, "flight_features")) == HISTORY
    assert set(play("flights_profile").values()) == {"success"}
    (profile,) = [found for found in lake.evidence.all("profiles") if isinstance(found, DatasetProfile)]
    assert profile.rows == sum(_rows(flights, day) for day in HISTORY)
    assert set(play("flights_scoring", day=HISTORY[-1]).values()) == {"skipped"}, "there is no champion yet"
    assert set(play("flights_training", candidates=["gradient_boosting"]).values()) == {"success"}
    first = current(lake, MODEL, "champion")
    assert first is not None
    assert first.outcome is PromotionOutcome.PROMOTED

    # a challenger meets it, on the same rows
    play("flights_training", candidates=["baseline"])
    models = [m for m in lake.evidence.all("models") if isinstance(m, ModelVersion)]
    weaker, challenger = sorted(models, key=lambda m: m.version)
    assert weaker.version == first.to_version
    assert weaker.holdout == challenger.holdout
    assert weaker.training is not None
    assert weaker.holdout is not None
    assert max(weaker.training.partitions) < min(weaker.holdout.partitions), "the holdout is later"

    # a few bad rows are set aside, the others go on
    soil_file(landing_file(flights, "flights", HISTORY[-1]))
    assert set(play("flights_dataops", day=HISTORY[-1]).values()) == {"success"}
    (aside,) = [
        q for q in lake.evidence.all("quarantines") if isinstance(q, QuarantineReport) and q.quarantined_rows
    ]
    assert aside.accepted_rows + aside.quarantined_rows == aside.rows == _rows(flights, HISTORY[-1])
    assert count_rows(lake, head(lake, "flights"), [HISTORY[-1]]) == aside.accepted_rows

    # a broken day is stopped
    break_file(landing_file(flights, "flights", NEW_DAY))
    states = play("flights_dataops", day=NEW_DAY)
    assert (states["ingest_flights"], states["validate_flights"]) == ("success", "failed")
    assert states["publish_flights"] == "upstream_failed"
    assert NEW_DAY not in partitions(lake, head(lake, "flights"))

    # values that are all plausible, in another unit: every rule passes, the chart holds the day back
    deliver(flights, [NEW_DAY])
    shift_file(landing_file(flights, "flights", NEW_DAY))
    states = play("flights_dataops", day=NEW_DAY)
    assert (states["validate_flights"], states["chart_flights"]) == ("success", "failed")
    assert states["publish_flights"] == "upstream_failed"
    (seen,) = [
        c for c in lake.evidence.all("control_charts") if isinstance(c, ControlChartReport) and c.signals
    ]
    assert [(signal.metric, signal.rule, signal.since) for signal in seen.signals] == [
        ("sql:ground_speed", "nelson_1", NEW_DAY)
    ]

    # the mended file goes through, and it is scored
    deliver(flights, [NEW_DAY])
    assert set(play("flights_dataops", day=NEW_DAY).values()) == {"success"}
    assert set(play("flights_scoring", day=NEW_DAY).values()) == {"success"}
    scored = head(lake, "flight_predictions")
    assert set(play("flights_scoring", day=NEW_DAY).values()) == {"success"}
    assert head(lake, "flight_predictions") == scored, "the same day a second time adds nothing"

    # one prediction is traced to the file it came from
    (scoring,) = [run for run in lake.evidence.all("scoring_runs") if isinstance(run, ScoringRun)]
    chain = render(trace(lake, f"{scoring.record_id[:24]}-0", decisions=entries(lake)))
    assert f"flights/{NEW_DAY}.csv" in chain
    assert "MISSING" not in chain

    # and the way back
    champion = current(lake, MODEL, "champion")
    assert champion is not None
    assert champion.to_version == challenger.version, "on six days of data the linear model is the better one"
    states = play("xops_rollback", model=MODEL, reason="a test of the way back")
    assert set(states.values()) == {"success"}
    back = current(lake, MODEL, "champion")
    assert back is not None
    assert (back.outcome, back.to_version) == (PromotionOutcome.ROLLED_BACK, weaker.version)
    registry = RegistryClient(mlflow_server.settings())
    assert registry.alias_target(MODEL, "champion") == weaker.version
    assert verify_chain(lake, MODEL) == []


def _rows(landing: Path, day: str) -> int:
    return len(landing_file(landing, "flights", day).read_text().splitlines()) - 1
