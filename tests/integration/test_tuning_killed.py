"""SIGKILL of tuning workers, alone and with others on one database: no trial is lost, doubled, left open."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, TuningStudy
from airflow_provider_xops.registry.client import RegistryClient
from tests import servers
from tests.integration.test_tuning import CLOSED, make_dataset, runs_of, tried
from tests.integration.tuning_worker import SLOW, start, wait_for_marker

FOLDS = 2
Start = Callable[..., Any]


@pytest.fixture
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def name() -> str:
    return f"killed-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def database(postgres: servers.PostgresServer, name: str) -> str:
    return postgres.create_database(name)


@pytest.fixture
def begin(
    lake: Lake, actor: Actor, as_of: datetime, mlflow_server: servers.MlflowServer, tmp_path: Path, name: str
) -> Start:
    """Starts a worker: ``begin(0, trials=8)``; a second attempt of it has ``fence=2``."""
    dataset = make_dataset(lake, actor, as_of, days=4)

    def begin(
        worker: int = 0, *, fence: int = 1, step: int = -1, seconds: float = 0.0, **changes: Any
    ) -> Any:
        arguments = {
            "dataset": dataclasses.asdict(dataset), "estimator": SLOW, "target": "delay",
            "task": "regression", "features": ["x"], "split": {"kind": "random"}, "model_name": name,
            "study": name,
            "space": {"x": {"float": [-1, 1]}}, "metric": "mae", "trials": 4, "sampler": "random",
            "params": {"folder": str(tmp_path), "seconds": seconds}, "heartbeat_seconds": 1,
            "cross_validation": {"kind": "k_fold", "folds": FOLDS}, **changes,
        }  # fmt: skip
        answer = tmp_path / f"answer-{worker}-{fence}.json"
        process = start(
            arguments, lake=lake.uri, mlflow=mlflow_server.url, worker=f"{name}/{worker}", fence=fence,
            answer=answer, step=step,
        )  # fmt: skip
        process.answer = answer
        return process

    return begin


def ended(process: Any, *, timeout_s: float = 90) -> TuningStudy:
    process.join(timeout_s)
    assert process.exitcode is not None, "the worker did not end"
    answer = json.loads(process.answer.read_text()) if process.answer.exists() else {}
    assert process.exitcode == 0, answer.get("error")
    return TuningStudy.from_json(answer["record"])


def trials_in(database: str, study: str) -> list[Any]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.load_study(study_name=study, storage=database).trials


def states(trials: list[Any]) -> Counter[str]:
    return Counter(each.state.name for each in trials)


def fits(folder: Path) -> Counter[str]:
    """How often each value was fitted."""
    return Counter(each.read_text() for each in folder.glob("*-*") if each.suffix != ".json")


def test_a_killed_study_without_a_database_goes_on_where_it_was(
    begin: Start, client: RegistryClient, name: str, tmp_path: Path
) -> None:
    # given a worker that is killed in its third trial
    process = begin(seconds=0.15)
    wait_for_marker(tmp_path, process, count=2 * FOLDS + 1)
    process.kill()
    process.join()
    _, children = runs_of(client, name)
    assert [each.info.status for each in children].count("RUNNING") == 1

    # when
    study = ended(begin(fence=2, seconds=0.15))

    # then
    parents, children = runs_of(client, name)
    assert study.trials == {"complete": 4, "pruned": 0, "failed": 0}
    assert [each.info.status for each in parents] == ["FINISHED"]
    assert Counter(each.info.status for each in children) == {"FINISHED": 4, "KILLED": 1}
    assert len(tried(children)) == 4
    counted = fits(tmp_path)
    assert len(counted) == 4
    assert sorted(counted.values())[:3] == [FOLDS] * 3  # only the killed trial was fitted again


def test_workers_share_a_study_and_none_tries_what_another_has_tried(
    begin: Start, client: RegistryClient, name: str, database: str, tmp_path: Path
) -> None:
    # when three workers begin at the same moment, on a database without tables
    workers = [begin(number, storage=database, trials=12, seconds=0.05) for number in range(3)]
    studies = [ended(each) for each in workers]

    # then each comes back with the same record of exactly so many trials
    assert {each.record_id for each in studies} == {studies[0].record_id}
    assert studies[0].trials == {"complete": 12, "pruned": 0, "failed": 0}
    trials = trials_in(database, studies[0].study)
    assert states(trials) == {"COMPLETE": 12}
    assert {each.number for each in trials} == set(range(12))
    assert len({each.params["x"] for each in trials}) == 12
    assert fits(tmp_path) == {str(each.params["x"]): FOLDS for each in trials}
    assert len({each.user_attrs["xops.worker"] for each in trials}) == 3
    parents, children = runs_of(client, name)
    assert [each.info.status for each in parents] == ["FINISHED"]
    assert Counter(each.info.status for each in children) == {"FINISHED": 12}
    assert len(tried(children)) == 12


def test_the_trial_of_a_killed_worker_is_tried_by_another(
    begin: Start, client: RegistryClient, name: str, database: str, tmp_path: Path
) -> None:
    # given two workers, of which one is killed in a trial
    victim, other = (begin(number, storage=database, trials=6, seconds=0.3) for number in range(2))
    wait_for_marker(tmp_path, victim, count=2)
    victim.kill()
    victim.join()

    # when
    study = ended(other)

    # then the other one has brought all to their end
    assert study.trials == {"complete": 6, "pruned": 0, "failed": 0}
    trials = trials_in(database, study.study)
    assert states(trials) == {"COMPLETE": 6, "FAIL": 1}
    lost = next(each for each in trials if each.state.name == "FAIL")
    again = [each for each in trials if each.user_attrs["xops.slot"] == lost.user_attrs["xops.slot"]]
    assert len(again) == 2
    assert again[1].params == again[0].params
    parents, children = runs_of(client, name)
    assert [each.info.status for each in parents] == ["FINISHED"]
    assert {each.info.status for each in children} <= CLOSED
    assert len(tried(children)) == 6


def test_a_second_attempt_takes_its_own_trial_up_at_once(
    begin: Start, name: str, database: str, tmp_path: Path
) -> None:
    # given a worker that was killed, and heartbeats that would be missed only after an hour
    process = begin(storage=database, trials=3, seconds=0.2, heartbeat_seconds=1200)
    wait_for_marker(tmp_path, process)
    process.kill()
    process.join()

    study = ended(begin(fence=2, storage=database, trials=3, seconds=0.2, heartbeat_seconds=1200))

    assert study.trials["complete"] == 3
    assert states(trials_in(database, study.study)) == {"COMPLETE": 3, "FAIL": 1}


@pytest.mark.soak
def test_workers_share_a_study_in_sqlite(begin: Start, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tuning.db'}"

    studies = [ended(each) for each in [begin(n, storage=url, trials=8, seconds=0.05) for n in range(2)]]

    assert {each.record_id for each in studies} == {studies[0].record_id}
    assert states(trials_in(url, studies[0].study)) == {"COMPLETE": 8}


@pytest.mark.soak
def test_a_combination_that_kills_its_worker_is_given_up_after_three_deaths(
    begin: Start, client: RegistryClient, name: str
) -> None:
    # given values above a half take their process with them
    fatal = {"space": {"x": {"choice": [0.1, 0.9]}}, "estimator": SLOW.replace("Slow", "Dies")}
    fatal |= {"sampler": "grid"}
    deaths = 0

    for fence in range(1, 6):
        process = begin(fence=fence, **fatal)
        process.join(60)
        if process.exitcode == 0:
            break
        deaths += 1

    study = ended(process)
    assert deaths == 3
    assert study.trials == {"complete": 1, "pruned": 0, "failed": 1}
    assert study.best_params["x"] == 0.1
    assert {each.info.status for part in runs_of(client, name) for each in part} <= CLOSED


def killed_everywhere(
    begin: Start, client: RegistryClient, name: str, steps: list[int], **given: Any
) -> None:
    for number, step in enumerate(steps):
        own = {**given, "study": f"{name}-{step}", "experiment": f"{name}-{step}", "trials": 2}
        first = begin(fence=10 * number + 1, step=step, **own)
        first.join(60)
        study = ended(begin(fence=10 * number + 2, **own))
        assert study.trials == {"complete": 2, "pruned": 0, "failed": 0}, f"killed before step {step}"
        parents, children = runs_of(client, f"{name}-{step}")
        assert [each.info.status for each in parents] == ["FINISHED"], f"killed before step {step}"
        assert {each.info.status for each in children} <= CLOSED, f"killed before step {step}"
        assert len(tried(children)) == 2, f"killed before step {step}"
        if "storage" in given:
            found = states(trials_in(given["storage"], study.study))
            assert found["COMPLETE"] == 2, f"killed before step {step}"
            assert set(found) <= {"COMPLETE", "FAIL"}, f"killed before step {step}"


def steps_of(begin: Start, **given: Any) -> int:
    process = begin(fence=1000, study="whole", trials=2, **given)
    ended(process)
    return len(json.loads(process.answer.read_text())["steps"])


@pytest.mark.soak
def test_killed_before_any_step_without_a_database(begin: Start, client: RegistryClient, name: str) -> None:
    killed_everywhere(begin, client, name, list(range(steps_of(begin))))


@pytest.mark.soak
def test_killed_before_any_step_with_a_database(
    begin: Start, client: RegistryClient, name: str, database: str
) -> None:
    killed_everywhere(begin, client, name, list(range(steps_of(begin, storage=database))), storage=database)
