"""The search for parameters against a real MLflow server: what is recorded, and what a retry goes on with."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.errors import ArgumentError, Superseded, TrainingError, UnavailableError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, TuningStudy
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.training.tuning.logbook import Logbook
from airflow_provider_xops.training.tuning.study import tune
from airflow_provider_xops.training.tuning.trials import Board, Ended
from tests import servers

TREE = "sklearn.tree:DecisionTreeClassifier"
SPACE = {"max_depth": {"int": [1, 6]}, "min_samples_leaf": {"int": [1, 40], "log": True}}
CLOSED = {"FINISHED", "FAILED", "KILLED"}


def day(number: int, rows: int = 60) -> pa.Table:
    rng = np.random.default_rng(number)
    x, z = rng.normal(size=rows), rng.normal(size=rows)
    late = ((x > 0) ^ (z > 0.3)).astype(np.int64)
    noisy = np.where(rng.random(rows) < 0.15, 1 - late, late)
    return pa.table({"x": x, "z": z, "late": pa.array(noisy), "delay": x * 3 + z + rng.normal(size=rows) / 5})


def make_dataset(lake: Lake, actor: Actor, as_of: datetime, days: int = 8) -> DatasetRef:
    segments = [
        Segment(f"2013-01-{number:02d}", f"{number}", day(number).to_reader) for number in range(1, days + 1)
    ]
    return commit(lake, "flights", segments, actor=actor, as_of=as_of).record.ref


@pytest.fixture
def dataset(lake: Lake, actor: Actor, as_of: datetime) -> DatasetRef:
    return make_dataset(lake, actor, as_of)


@pytest.fixture
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def name() -> str:
    return f"tuned-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def search(
    lake: Lake,
    client: RegistryClient,
    make_actor: Callable[..., Actor],
    as_of: datetime,
    name: str,
    dataset: DatasetRef,
) -> Callable[..., TuningStudy]:
    def search(**changes: Any) -> TuningStudy:
        arguments: dict[str, Any] = {
            "dataset": dataset, "estimator": TREE, "target": "late", "features": ["x", "z"],
            "split": {"kind": "time", "holdout_partitions": 2}, "model_name": name, "space": SPACE,
            "metric": "roc_auc", "trials": 6, "cross_validation": {"kind": "k_fold", "folds": 3},
            "seed": 3, "actor": make_actor(key="tune"), "as_of": as_of, **changes,
        }  # fmt: skip
        return tune(lake, client, **arguments)

    return search


def runs_of(client: RegistryClient, experiment: str) -> tuple[list[Any], list[Any]]:
    """The parent runs and the trials' runs of an experiment."""
    with client.session("reading runs in a test") as mlflow:
        found = mlflow.get_experiment_by_name(experiment)
        everything = [] if found is None else list(mlflow.search_runs([found.experiment_id]))
    parents = [each for each in everything if "mlflow.parentRunId" not in each.data.tags]
    return parents, [each for each in everything if each not in parents]


def tried(children: list[Any]) -> list[dict[str, Any]]:
    """The parameters of every trial that counts, by its place in the search."""
    counted = [each for each in children if each.data.tags.get("xops.trial_state")]
    ordered = sorted(counted, key=lambda each: int(each.data.tags["xops.slot"]))
    return [json.loads(each.data.tags["xops.trial_params"]) for each in ordered]


def test_a_study_is_recorded_with_a_nested_run_for_each_trial(
    search: Callable[..., TuningStudy], client: RegistryClient, name: str, lake: Lake
) -> None:
    study = search()

    parents, children = runs_of(client, name)
    assert sum(study.trials.values()) == 6
    assert len(parents) == 1
    assert len(children) == 6
    assert {each.info.status for each in [*parents, *children]} == {"FINISHED"}
    assert study.parent_run_id == parents[0].info.run_id
    best = next(each for each in children if int(each.data.tags["xops.trial"]) == study.best_trial)
    assert best.data.metrics["roc_auc_mean"] == pytest.approx(study.best_value, abs=0)
    assert study.best_value == max(
        each.data.metrics["roc_auc_mean"]
        for each in children
        if each.data.tags["xops.trial_state"] == "complete"
    )
    assert {name: str(value) for name, value in study.best_params.items()} == best.data.params
    assert [each.dataset.name for each in parents[0].inputs.dataset_inputs] == ["flights"]
    assert lake.evidence.get(TuningStudy.kind, study.record_id) == study


def test_a_search_says_what_cross_validation_says_of_its_best(
    search: Callable[..., TuningStudy], lake: Lake, dataset: DatasetRef
) -> None:
    # given
    from airflow_provider_xops.training import selections
    from airflow_provider_xops.training.cross_validation import cross_validate
    from airflow_provider_xops.training.fitting import build
    from airflow_provider_xops.training.metrics import Task
    from airflow_provider_xops.training.splits import TimeSplit

    study = search()

    # when the best is judged again on the training rows alone
    chosen = selections.choose(
        lake, dataset=dataset, partitions=None, columns=["x", "z", "late"], target="late",
        split=TimeSplit(holdout_partitions=2), seed=3,
    )  # fmt: skip
    again = cross_validate(
        lambda: build(TREE, study.best_params, 3), chosen.training_rows, columns=["x", "z"], target="late",
        task=Task.CLASSIFICATION, folds={"kind": "k_fold", "folds": 3},
    )  # fmt: skip

    assert again.mean["roc_auc"] == pytest.approx(study.best_value, abs=1e-12)


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_retry_goes_on_and_ends_as_if_never_interrupted(
    search: Callable[..., TuningStudy], client: RegistryClient, name: str, sampler: str
) -> None:
    # given what an uninterrupted study tries
    space = {"max_depth": {"int": [1, 4]}, "min_samples_leaf": {"int": [1, 31], "step": 10}}
    whole = search(sampler=sampler, space=space, trials=12, experiment=f"{name}-whole", study="whole")
    expected = tried(runs_of(client, f"{name}-whole")[1])

    # when one is interrupted in one of its trials
    interrupted = Interruption(after_folds=3 * 3 + 1)
    with pytest.raises(KeyboardInterrupt):
        search(sampler=sampler, space=space, trials=12, clock=interrupted)
    parents, children = runs_of(client, name)
    assert {each.info.status for each in [*parents, *children]} <= CLOSED
    kept = {each.info.run_id for each in children if each.data.tags.get("xops.trial_state")}
    assert kept
    study = search(sampler=sampler, space=space, trials=12)

    # then it goes on where it was, and nothing is tried twice
    parents, children = runs_of(client, name)
    assert len(parents) == 1
    assert {each.info.status for each in [*parents, *children]} <= CLOSED
    assert kept < {each.info.run_id for each in children if each.data.tags.get("xops.trial_state")}
    assert tried(children) == expected
    assert (study.best_value, study.best_params, study.trials) == (
        whole.best_value, whole.best_params, whole.trials,
    )  # fmt: skip


class Interruption:
    """A clock that interrupts its reader, as Ctrl-C does, at a given reading."""

    def __init__(self, after_folds: int) -> None:
        self.readings, self.last = 0, after_folds

    def __call__(self) -> float:
        self.readings += 1
        if self.readings > self.last:
            raise KeyboardInterrupt
        return 0.0


def test_a_finished_study_is_found_and_nothing_is_read_or_tried(
    search: Callable[..., TuningStudy],
    client: RegistryClient,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    make_actor: Callable[..., Actor],
) -> None:
    first = search()
    before = runs_of(client, name)
    monkeypatch.setattr("airflow_provider_xops.training.selections.choose", refuse)

    again = search(actor=make_actor(key="tune"))

    assert again == first
    after = runs_of(client, name)
    assert [len(each) for each in after] == [len(each) for each in before]
    assert after[0][0].info.end_time == before[0][0].info.end_time


def test_more_trials_continue_a_finished_study(
    search: Callable[..., TuningStudy], client: RegistryClient, name: str
) -> None:
    few = search(trials=3, sampler="random")

    more = search(trials=5, sampler="random")

    parents, children = runs_of(client, name)
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED"
    assert (few.trials["complete"] + few.trials["pruned"], len(children)) == (3, 5)
    assert sum(more.trials.values()) == 5
    assert more.study == few.study
    assert (more.best_value or 0) >= (few.best_value or 0)


def test_other_data_make_another_study(
    search: Callable[..., TuningStudy], lake: Lake, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    first = search(trials=1)
    segments = [Segment("2013-01-03", "again", day(99).to_reader)]
    changed = commit(lake, "flights", segments, actor=make_actor(), as_of=as_of).record.ref

    second = search(trials=1, dataset=changed)

    assert second.study != first.study


def test_the_holdout_takes_no_part(
    search: Callable[..., TuningStudy], monkeypatch: pytest.MonkeyPatch, lake: Lake, dataset: DatasetRef
) -> None:
    # given the rows that every fit and every judgement sees
    from airflow_provider_xops.lake import read
    from airflow_provider_xops.lake.schema import PARTITION_COLUMN
    from airflow_provider_xops.training import cross_validation

    seen: set[float] = set()
    original = cross_validation.feature_frame

    def watched(rows: pa.Table, columns: Any) -> Any:
        seen.update(rows.column("x").to_pylist())
        return original(rows, columns)

    monkeypatch.setattr(cross_validation, "feature_frame", watched)

    # when
    search(trials=2)

    # then they are the first six of eight days, the last two are held out
    table = read.scan(lake, dataset, columns=["x"], with_partition=True).read_all().to_pandas()
    held_out = table[PARTITION_COLUMN].isin(["2013-01-07", "2013-01-08"])
    assert seen == set(table["x"][~held_out])
    assert not seen & set(table["x"][held_out])


def test_a_hopeless_trial_is_pruned_and_says_after_how_many_folds(
    search: Callable[..., TuningStudy], client: RegistryClient, name: str
) -> None:
    # given combinations of which most are bad
    space = {"strategy": {"choice": ["mean", "quantile"]}, "quantile": {"float": [0.0, 1.0], "step": 0.02}}

    study = search(
        estimator="sklearn.dummy:DummyRegressor", target="delay", metric="mae", space=space, trials=15,
        sampler="random", cross_validation={"kind": "k_fold", "folds": 4},
    )  # fmt: skip

    assert study.trials["pruned"] > 0
    assert sum(study.trials.values()) == 15
    _, children = runs_of(client, name)
    pruned = [each for each in children if each.data.tags["xops.trial_state"] == "pruned"]
    assert len(pruned) == study.trials["pruned"]
    steps = [json.loads(each.data.tags["xops.trial_steps"]) for each in pruned]
    assert all(2 <= len(each) < 4 for each in steps)
    assert study.best_value is not None
    assert study.best_value < min(each[-1] for each in steps)


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_each_pruner_ends_a_study(search: Callable[..., TuningStudy], pruner: str) -> None:
    study = search(pruner=pruner, trials=6)

    assert sum(study.trials.values()) == 6
    assert study.trials["failed"] == 0
    assert pruner != "none" or study.trials["pruned"] == 0


def test_a_combination_that_the_estimator_refuses_fails_alone(
    search: Callable[..., TuningStudy], client: RegistryClient, name: str
) -> None:
    study = search(
        space={"criterion": {"choice": ["gini", "nonsense", "entropy"]}}, sampler="grid", trials=50
    )

    assert study.trials == {"complete": 2, "pruned": 0, "failed": 1}
    failed = next(each for each in runs_of(client, name)[1] if each.info.status == "FAILED")
    assert "training.fit_failed" in failed.data.tags["xops.trial_reason"]


def test_a_study_in_which_everything_fails_says_why_and_stops_early(
    search: Callable[..., TuningStudy], client: RegistryClient, name: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        search(space={"max_deepness": {"int": [1, 50]}}, trials=40)

    assert caught.value.code == "training.tuning_failed"
    assert "training.estimator" in caught.value.why
    parents, children = runs_of(client, name)
    assert [each.info.status for each in parents] == ["FAILED"]
    assert [each.info.status for each in children] == ["FAILED"] * 5


def test_a_metric_of_another_task_is_an_error_and_no_failed_trial(search: Callable[..., TuningStudy]) -> None:
    with pytest.raises(ArgumentError) as caught:
        search(metric="rmse")

    assert caught.value.code == "argument.metric"
    assert "roc_auc" in caught.value.todo


class Seconds:
    """A clock that moves on by one second at each reading."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_no_trial_begins_when_time_is_over(
    search: Callable[..., TuningStudy], client: RegistryClient, name: str
) -> None:
    study = search(trials=1000, timeout_seconds=25, clock=Seconds(), sampler="random", pruner="none")

    assert study.stopped == "time"
    assert 2 <= study.trials["complete"] < 10
    parents, children = runs_of(client, name)
    assert {each.info.status for each in [*parents, *children]} <= CLOSED
    # what an earlier attempt has used of the time does not come back
    again = search(trials=1000, timeout_seconds=25, clock=Seconds(), sampler="random", pruner="none")
    assert again.trials["complete"] <= study.trials["complete"] + 2
    assert len(runs_of(client, name)[0]) == 1


def test_time_that_is_over_before_a_trial_was_complete_is_an_error(
    search: Callable[..., TuningStudy],
) -> None:
    with pytest.raises(TrainingError) as caught:
        search(timeout_seconds=2, clock=Seconds())

    assert caught.value.code == "training.tuning_time"


def test_the_same_combination_is_not_fitted_twice(
    search: Callable[..., TuningStudy], client: RegistryClient, name: str
) -> None:
    study = search(space={"max_depth": {"choice": [2]}}, sampler="random", trials=3)

    assert study.trials["complete"] == 3
    _, children = runs_of(client, name)
    reasons = [each.data.tags.get("xops.trial_reason", "") for each in children]
    assert sum("not fitted again" in each for each in reasons) == 2


def test_an_older_attempt_gives_way_to_a_newer_one(
    search: Callable[..., TuningStudy], make_actor: Callable[..., Actor]
) -> None:
    search(trials=1, actor=make_actor(key="tune", fence=20))

    with pytest.raises(Superseded):
        search(trials=2, actor=make_actor(key="tune", fence=10))


def test_an_older_attempt_that_still_works_does_not_end_the_study_of_a_newer_one(
    search: Callable[..., TuningStudy],
    client: RegistryClient,
    name: str,
    make_actor: Callable[..., Actor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given an attempt that was given up, at its last trial when the next one begins
    original = Logbook.finish

    def finish(self: Logbook, *args: Any, **more: Any) -> None:
        with client.session("taking over in a test") as mlflow:
            mlflow.set_tag(self.run_id, "xops.fence", "20")
        original(self, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Logbook, "finish", finish)
        with pytest.raises(Superseded):
            search(trials=2, actor=make_actor(key="tune", fence=10))

    assert [each.info.status for each in runs_of(client, name)[0]] == ["RUNNING"]
    assert search(trials=2, actor=make_actor(key="tune", fence=20)).trials["complete"] == 2


def test_the_result_of_a_worker_that_was_taken_for_dead_counts_once(
    search: Callable[..., TuningStudy],
    client: RegistryClient,
    name: str,
    make_actor: Callable[..., Actor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from optuna.trial import TrialState

    # given a worker that is silent after its last fold, until others have ended the study
    url = f"sqlite:///{tmp_path / 'tuning.db'}"
    claim, end = Board.claim, Logbook.end
    taken: list[tuple[Board, Any]] = []
    others: list[TuningStudy] = []

    def claimed(self: Board, wanted: int) -> tuple[Any, bool]:
        found = claim(self, wanted)
        taken.append((self, found[0]))
        return found

    def late(self: Logbook, run_id: str, ended: Ended, **more: Any) -> None:
        monkeypatch.setattr(Logbook, "end", end)
        board, trial = taken[0]
        board.shelf.optuna_storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        others.append(search(trials=2, storage=url, study="s", actor=make_actor(key="other")))
        end(self, run_id, ended, **more)

    monkeypatch.setattr(Board, "claim", claimed)
    monkeypatch.setattr(Logbook, "end", late)

    study = search(trials=2, storage=url, study="s", actor=make_actor(key="silent"))

    assert [study.record_id] == [each.record_id for each in others]
    _, children = runs_of(client, name)
    assert len(tried(children)) == 2
    assert {each.info.status for each in children} <= CLOSED


@pytest.mark.parametrize("database", [False, True])
def test_mlflow_that_is_away_again_and_again_costs_no_trial(
    search: Callable[..., TuningStudy],
    make_actor: Callable[..., Actor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    database: bool,
) -> None:
    storage = f"sqlite:///{tmp_path / 'tuning.db'}" if database else None

    def away(*args: Any, **more: Any) -> None:
        raise UnavailableError("MLflow does not answer", code="unavailable.mlflow")

    for attempt in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(Logbook, "end", away)
            with pytest.raises(UnavailableError):
                search(trials=1, storage=storage, study="s", actor=make_actor(key="tune", fence=attempt + 1))

    study = search(trials=1, storage=storage, study="s", actor=make_actor(key="tune", fence=9))

    assert study.trials == {"complete": 1, "pruned": 0, "failed": 0}


def test_a_trial_takes_three_requests_to_mlflow(
    search: Callable[..., TuningStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    search(trials=1)  # makes the experiment
    counts = [
        requests_of(partial(search, trials=trials, study=f"s{trials}"), monkeypatch) for trials in (2, 6)
    ]

    assert counts[1] - counts[0] == 4 * 3
    assert counts[0] - 2 * 3 <= 14


def requests_of(work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    import requests

    sent: list[str] = []
    original = requests.Session.request

    def counted(self: Any, method: str, url: str, **more: Any) -> Any:
        sent.append(f"{method} {url}")
        return original(self, method, url, **more)

    with monkeypatch.context() as patch:
        patch.setattr(requests.Session, "request", counted)
        work()
    return len(sent)


def test_weights_take_part_in_the_search(search: Callable[..., TuningStudy]) -> None:
    plain, balanced = search(trials=2), search(trials=2, class_weight="balanced")

    assert plain.search_digest != balanced.search_digest
    assert balanced.search["class_weight"] == "balanced"


def test_a_model_is_trained_with_the_best_parameters_on_rows_of_the_same_split(
    search: Callable[..., TuningStudy],
    lake: Lake,
    client: RegistryClient,
    dataset: DatasetRef,
    make_actor: Callable[..., Actor],
    as_of: datetime,
    name: str,
) -> None:
    from airflow_provider_xops.registry.loading import load_model
    from airflow_provider_xops.training.fit import train

    study = search(params={"criterion": "entropy"})
    parent = runs_of(client, name)[0][0]

    model = train(
        lake, client, dataset=dataset, estimator=TREE, target="late", features=["x", "z"],
        split={"kind": "time", "holdout_partitions": 2}, model_name=name, seed=3, tuning=study,
        actor=make_actor(key="train"), as_of=as_of,
    )  # fmt: skip

    assert model.tuning == study.record_id
    assert study.best_params["criterion"] == "entropy"
    assert {name: model.settings["params"][name] for name in study.best_params} == study.best_params
    assert load_model(client, lake, model).get_params()["max_depth"] == study.best_params["max_depth"]
    # the rows of the search are the training rows, none of the holdout
    assert model.training is not None
    assert parent.data.tags["xops.training.digest"] == model.training.digest


def refuse(*args: Any, **more: Any) -> Any:
    raise AssertionError("this is not to be called")
