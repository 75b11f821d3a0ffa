"""Train, evaluate and score against a real MLflow server: the middle of the loop, and what stops it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from airflow_provider_xops.errors import ModelError, TrainingError, XOpsError
from airflow_provider_xops.evaluation.evaluate import LEAK_GATE, evaluate
from airflow_provider_xops.evaluation.gates import BetterThanChampion, MetricThreshold
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.evidence import evidence_path
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.records import (
    Actor,
    DatasetRef,
    Evaluation,
    ModelVersion,
    Outcome,
    PromotionDecision,
    PromotionOutcome,
    ScoringRun,
)
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.serving.batch import ScoreResult, score
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.fit import train
from airflow_provider_xops.training.frames import feature_frame
from tests import servers

FOREST = "sklearn.ensemble:HistGradientBoostingClassifier"
DAYS = [f"2013-01-{day:02d}" for day in range(1, 9)]
ROWS = 60
SECRET = "N328NB"
GATES = [MetricThreshold(metric="roc_auc", minimum=0.5), BetterThanChampion(metric="roc_auc")]


def pipeline(*, depth: int = 2) -> Any:
    """Text and numbers with gaps, as the lake has them."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    prepare = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["carrier"]),
            ("rest", "passthrough", ["x", "n"]),
        ]
    )
    return make_pipeline(prepare, HistGradientBoostingClassifier(max_depth=depth, max_iter=10))


class Raises:
    """An estimator whose fit raises, with a value of the data in its message."""

    def fit(self, rows: Any, target: Any) -> None:
        raise ValueError(f"cannot digest {rows['plane'].iloc[0]} nor 'JFK' in 17 rows\nand more of {SECRET}")

    def predict(self, rows: Any) -> Any:
        return np.zeros(len(rows))


class PredictsNothing:
    """An estimator whose every prediction is NaN."""

    def fit(self, rows: Any, target: Any) -> None:
        self.rows_ = len(rows)

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), np.nan)


class PredictsThenRaises:
    """An estimator that meets a value it cannot take once the first rows are done."""

    def fit(self, rows: Any, target: Any) -> None:
        self.rows_ = len(rows)

    def predict(self, rows: Any) -> Any:
        if (rows["x"] > 900).any():
            raise ValueError(f"plane {rows['plane'].iloc[0]} is unknown")
        return np.zeros(len(rows))


def day(name: str, *, seed: int = 0, rows: int = ROWS) -> pa.Table:
    rng = np.random.default_rng([DAYS.index(name), seed])
    x = rng.normal(size=rows)
    late = (x + rng.normal(size=rows) > 0).astype(np.int64)
    missing = rng.random(rows) < 0.1
    return pa.table(
        {
            "id": pa.array(np.arange(rows) + 1000 * DAYS.index(name)),
            "x": pa.array(x, mask=missing),
            "n": pa.array(rng.integers(0, 9, rows), mask=~missing),
            "carrier": pa.array(np.where(missing, None, rng.choice(["UA", "DL"], rows)), pa.string()),
            "plane": pa.array([SECRET] * rows),
            "late": pa.array(late),
            "delay": pa.array(x * 10),
        }
    )


@pytest.fixture
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def name() -> str:
    """A model name of this test's own on the shared server."""
    return f"late-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def load(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> Callable[..., DatasetRef]:
    def load(days: list[str] = DAYS, *, seed: int = 0, rows: int = ROWS) -> DatasetRef:
        segments = [
            Segment(each, f"{each}/{seed}/{rows}", day(each, seed=seed, rows=rows).to_reader) for each in days
        ]
        return commit(lake, "flights", segments, actor=make_actor(), as_of=as_of).record.ref

    return load


@pytest.fixture
def dataset(load: Callable[..., DatasetRef]) -> DatasetRef:
    return load()


@pytest.fixture
def fit(
    lake: Lake,
    client: RegistryClient,
    make_actor: Callable[..., Actor],
    as_of: datetime,
    name: str,
    dataset: DatasetRef,
) -> Callable[..., ModelVersion]:
    def fit(**changes: Any) -> ModelVersion:
        arguments = {
            "dataset": dataset,
            "estimator": FOREST,
            "params": {"max_iter": 10},
            "target": "late",
            "features": ["x", "n"],
            "split": {"kind": "time", "holdout_partitions": 2, "gap": 1},
            "model_name": name,
            "actor": make_actor(key="train"),
            "as_of": as_of,
            **changes,
        }
        return train(lake, client, **arguments)

    return fit


@pytest.fixture
def predict(
    lake: Lake, client: RegistryClient, make_actor: Callable[..., Actor], as_of: datetime, dataset: DatasetRef
) -> Callable[..., ScoreResult]:
    def predict(model: ModelVersion, **changes: Any) -> ScoreResult:
        arguments = {
            "dataset": dataset, "partitions": DAYS[6:], "output_table": "predictions", "keep_columns": ["id"],
            "batch_rows": 25, "actor": make_actor(key="score"), "as_of": as_of, **changes,
        }  # fmt: skip
        return score(lake, client, model=model, **arguments)

    return predict


def runs_of(client: RegistryClient, experiment: str) -> list[Any]:
    with client.session("reading runs in a test") as mlflow:
        found = mlflow.get_experiment_by_name(experiment)
        return [] if found is None else list(mlflow.search_runs([found.experiment_id]))


def versions_of(client: RegistryClient, name: str) -> list[Any]:
    with client.session("reading versions in a test") as mlflow:
        return list(mlflow.search_model_versions(f"name = '{name}'"))


def files_under(client: RegistryClient, model: ModelVersion, folder: Path) -> Iterator[Path]:
    from airflow_provider_xops.registry.artifacts import download

    return (path for path in download(client, model.source_uri, folder / "m").rglob("*") if path.is_file())


def test_a_commit_elsewhere_is_no_reason_to_train_again_and_a_changed_source_is(
    fit: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_xops.training.fit.code_version", lambda _: "git:1")
    first = fit()
    monkeypatch.setattr("airflow_provider_xops.training.fit.code_version", lambda _: "git:2")
    assert fit() == first
    assert first.code_version == "git:1"

    monkeypatch.setattr("airflow_provider_xops.training.fit.source_digest", lambda _: "sha256:changed")
    assert (fit().version, fit().code_version) == (first.version + 1, "git:2")


def test_a_run_names_its_data_code_parameters_figures_and_environment(
    client: RegistryClient, fit: Callable[..., ModelVersion], dataset: DatasetRef, name: str
) -> None:
    model = fit()
    assert model.training is not None
    assert model.holdout is not None
    (run,) = runs_of(client, name)
    assert run.info.status == "FINISHED"
    assert run.info.run_id == model.run_id
    assert run.data.params["max_iter"] == "10"
    assert run.data.params["xops.estimator"] == FOREST
    assert run.data.params["xops.features"] == "x, n"
    assert run.data.params["random_state"] == "0"
    assert run.data.tags["xops.code_version"] == model.code_version
    assert run.data.tags["xops.dataset"] == str(dataset)
    assert run.data.tags["xops.dataset_digest"] == model.training.digest
    assert {"xops.env.python", "xops.env.scikit-learn", "xops.key"} <= set(run.data.tags)
    assert run.data.metrics["roc_auc"] == model.metrics["roc_auc"]
    assert run.data.metrics["training_rows"] == model.training.rows == 5 * ROWS
    inputs = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert {context: entry.name for context, entry in inputs.items()} == {
        "training": "flights",
        "holdout": "flights",
    }
    assert all(len(entry.digest) <= 36 for entry in inputs.values())
    assert model.training.digest.startswith(inputs["training"].digest.partition("-")[2])
    assert model.training.partitions == tuple(DAYS[:5])
    assert model.holdout.partitions == tuple(DAYS[6:])


def test_the_registered_model_is_the_fitted_one_and_its_figures_are_scikit_learns(
    lake: Lake, client: RegistryClient, fit: Callable[..., ModelVersion]
) -> None:
    model = fit()
    assert model.holdout is not None
    rows = selections.materialize(lake, model.holdout, columns=["x", "n", "late"])
    frame, truth = feature_frame(rows, ["x", "n"]), np.asarray(rows["late"])
    estimator = load_model(client, lake, model)
    scores = estimator.predict_proba(frame)[:, 1]
    assert model.metrics["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-12)
    assert model.metrics["accuracy"] == pytest.approx(
        sk.accuracy_score(truth, estimator.predict(frame)), abs=1e-12
    )


def test_the_model_files_have_a_signature_and_no_row(
    client: RegistryClient, fit: Callable[..., ModelVersion], tmp_path: Path
) -> None:
    model = fit(estimator=f"{__name__}:PredictsNothing", params={}, target="delay", features=["plane", "x"])
    files = {path.name: path.read_bytes() for path in files_under(client, model, tmp_path)}
    assert b"double" in files["MLmodel"]
    assert b"string" in files["MLmodel"]
    assert not any(SECRET.encode() in content for content in files.values())
    assert not [file for file in files if "example" in file]


def test_the_same_work_twice_is_one_run_and_one_version(
    client: RegistryClient, fit: Callable[..., ModelVersion], name: str
) -> None:
    first, second = fit(), fit()
    assert second == first
    assert len(runs_of(client, name)) == len(versions_of(client, name)) == 1


def test_cleared_with_changed_data_it_is_other_work(
    client: RegistryClient,
    fit: Callable[..., ModelVersion],
    load: Callable[..., DatasetRef],
    dataset: DatasetRef,
    name: str,
) -> None:
    first = fit()
    # a new version with the same content is the same work; another content, parameter or seed is not
    assert fit(dataset=load([DAYS[7]], seed=0)) == first
    assert fit(dataset=load([DAYS[7]], seed=1)).version == 2
    assert fit(params={"max_iter": 11}).version == 3
    assert fit(seed=1).version == 4
    assert fit() == first


def test_text_and_gaps_go_through_a_pipeline_and_default_features_leave_the_target_out(
    fit: Callable[..., ModelVersion], predict: Callable[..., ScoreResult]
) -> None:
    model = fit(estimator=f"{__name__}:pipeline", params={}, features=None, drop=["plane", "id", "delay"])
    assert model.features == ("x", "n", "carrier")
    assert sum(run.rows for run in predict(model).runs) == 2 * ROWS


def test_a_fit_that_raises_closes_its_run_registers_nothing_and_tells_no_value(
    client: RegistryClient, fit: Callable[..., ModelVersion], name: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        fit(estimator=f"{__name__}:Raises", params={}, target="delay", features=["plane", "x"])
    error = caught.value
    assert (error.code, error.retryable) == ("training.fit_failed", False)
    assert "ValueError" in str(error)
    assert "test_train_evaluate_score.py" in str(error)
    for value in (SECRET, "JFK", "17"):
        assert value not in error.why
    assert error.__suppress_context__
    (run,) = runs_of(client, name)
    assert run.info.status == "FAILED"
    assert versions_of(client, name) == []
    # and the same work, repaired by nothing, fails the same way without leaving a run open
    with pytest.raises(TrainingError):
        fit(estimator=f"{__name__}:Raises", params={}, target="delay", features=["plane", "x"])
    assert {run.info.status for run in runs_of(client, name)} == {"FAILED"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"split": {"kind": "time", "holdout_partitions": 8}}, "training.empty"),
        ({"target": "missing"}, "training.no_target"),
        ({"target": "plane", "features": ["x"]}, "training.one_class"),
        ({"features": ["missing"]}, "data.columns_missing"),
        ({"split": {"kind": "time", "column": "plane", "fraction": 0.5}}, "training.split"),
    ],
)
def test_a_bad_split_opens_no_run(
    client: RegistryClient, fit: Callable[..., ModelVersion], name: str, change: dict[str, Any], code: str
) -> None:
    with pytest.raises(XOpsError) as caught:
        fit(**change)
    assert caught.value.code == code
    assert caught.value.todo
    assert runs_of(client, name) == []
    assert versions_of(client, name) == []


def test_challenger_and_champion_are_scored_on_the_same_rows_once(
    lake: Lake, client: RegistryClient, fit: Callable[..., ModelVersion], actor: Actor, as_of: datetime
) -> None:
    champion = fit(features=["n"])
    challenger = fit()
    assert challenger.holdout is not None
    arguments: dict[str, Any] = {
        "challenger": challenger, "champion": champion, "gates": GATES, "actor": actor, "as_of": as_of,
    }  # fmt: skip
    evaluation = evaluate(lake, client, **arguments)
    rows = selections.materialize(lake, challenger.holdout, columns=["x", "n", "late"])
    truth = np.asarray(rows["late"])
    for model, figures in ((challenger, evaluation.metrics), (champion, evaluation.champion_metrics)):
        scores = load_model(client, lake, model).predict_proba(feature_frame(rows, model.features))[:, 1]
        assert figures["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-12)
        assert figures["log_loss"] == pytest.approx(sk.log_loss(truth, scores), abs=1e-12)
    (auc,) = [entry for entry in evaluation.comparisons if entry.metric == "roc_auc"]
    assert auc.difference == pytest.approx(auc.challenger - auc.champion)
    assert {gate.gate: gate.outcome for gate in evaluation.gates} == {
        "metric_threshold:roc_auc": Outcome.PASSED,
        "better_than_champion:roc_auc": Outcome.PASSED,
        LEAK_GATE: Outcome.PASSED,
    }
    # asked again, also by another actor later: the same record, other gates: another
    assert evaluate(lake, client, **arguments) == evaluation
    assert lake.evidence.get(Evaluation.kind, evaluation.record_id) == evaluation
    assert evaluate(lake, client, **{**arguments, "gates": []}).record_id != evaluation.record_id


def test_without_gates_nothing_is_asked(
    lake: Lake, client: RegistryClient, fit: Callable[..., ModelVersion], actor: Actor, as_of: datetime
) -> None:
    evaluation = evaluate(lake, client, challenger=fit(), champion=None, gates=[], actor=actor, as_of=as_of)
    assert evaluation.gates == ()
    assert evaluation.champion_metrics == {}


def test_a_holdout_that_a_model_was_trained_on_closes_the_leak_gate(
    lake: Lake,
    client: RegistryClient,
    fit: Callable[..., ModelVersion],
    dataset: DatasetRef,
    actor: Actor,
    as_of: datetime,
) -> None:
    # given: a champion that was trained up to day 5, and a challenger that holds days 4 and 5 out
    champion = fit()
    challenger = fit(partitions=DAYS[:5], seed=3)
    evaluation = evaluate(
        lake, client, challenger=challenger, champion=champion, gates=GATES, actor=actor, as_of=as_of
    )
    (leak,) = [gate for gate in evaluation.gates if gate.gate == LEAK_GATE]
    assert (leak.outcome, leak.observed) == (Outcome.FAILED, 2 * ROWS)
    assert str(champion.ref) in leak.message
    decision = promote(
        lake, client, model=challenger, expected=None, evaluation=evaluation, actor=actor, as_of=as_of
    ).decision
    assert decision.outcome is not PromotionOutcome.PROMOTED


def test_a_random_split_of_the_same_partitions_is_no_leak(
    lake: Lake, client: RegistryClient, fit: Callable[..., ModelVersion], actor: Actor, as_of: datetime
) -> None:
    model = fit(split={"kind": "random", "seed": 3, "stratify": "late"})
    evaluation = evaluate(
        lake, client, challenger=model, champion=None, gates=GATES, actor=actor, as_of=as_of
    )
    assert {gate.outcome for gate in evaluation.gates} == {Outcome.PASSED}
    decision = promote(
        lake, client, model=model, expected=None, evaluation=evaluation, actor=actor, as_of=as_of
    ).decision
    assert decision.outcome is PromotionOutcome.PROMOTED


@pytest.mark.parametrize(
    "split",
    [
        {"kind": "random", "seed": 3, "stratify": "late"},
        {"kind": "group", "column": "id", "seed": 3, "fraction": 0.2},
    ],
    ids=lambda split: str(split["kind"]),
)
def test_models_of_other_features_are_compared_on_the_same_held_out_rows(
    lake: Lake,
    client: RegistryClient,
    fit: Callable[..., ModelVersion],
    actor: Actor,
    as_of: datetime,
    split: dict[str, Any],
) -> None:
    champion, challenger = fit(split=split), fit(split=split, features=["x"])
    assert champion.holdout is not None
    assert challenger.holdout is not None
    assert champion.holdout.digest != challenger.holdout.digest
    assert champion.holdout.row_ids_digest == challenger.holdout.row_ids_digest

    def decided(model: ModelVersion, against: ModelVersion | None) -> PromotionDecision:
        gates = [MetricThreshold(metric="log_loss", maximum=99)]
        evaluation = evaluate(
            lake, client, challenger=model, champion=against, gates=gates, actor=actor, as_of=as_of
        )
        expected = against.version if against else None
        return promote(
            lake, client, model=model, expected=expected, evaluation=evaluation, allow_new_inputs=True,
            actor=actor, as_of=as_of,
        ).decision  # fmt: skip

    assert decided(champion, None).outcome is PromotionOutcome.PROMOTED
    second = decided(challenger, champion)
    assert second.outcome is PromotionOutcome.PROMOTED
    assert f"allowed: other inputs than v{champion.version}: it does not take " in second.reason

    # Of another random split some held out rows were trained on by the champion.
    other = fit(split={"kind": "random", "seed": 4}, features=["x"])
    held = decided(other, challenger)
    assert held.outcome is PromotionOutcome.HELD
    assert held.reason.startswith(f"leak: of {other.holdout.rows} holdout rows {challenger.ref} was trained")


def test_a_nan_figure_is_none_in_the_record_and_holds_the_promotion(
    lake: Lake, client: RegistryClient, fit: Callable[..., ModelVersion], actor: Actor, as_of: datetime
) -> None:
    model = fit(estimator=f"{__name__}:PredictsNothing", params={}, target="delay")
    assert model.metrics == {}
    evaluation = evaluate(
        lake, client, challenger=model, champion=None, gates=[MetricThreshold(metric="mae", maximum=1e9)],
        actor=actor, as_of=as_of,
    )  # fmt: skip
    assert evaluation.metrics["mae"] is None
    assert evaluation.gates[0].outcome is Outcome.NO_DATA
    decision = promote(
        lake, client, model=model, expected=None, evaluation=evaluation, actor=actor, as_of=as_of
    ).decision
    assert decision.outcome is PromotionOutcome.HELD
    assert client.alias_target(model.name, "champion") is None


def test_models_of_different_targets_are_not_compared(
    lake: Lake, client: RegistryClient, fit: Callable[..., ModelVersion], actor: Actor, as_of: datetime
) -> None:
    other = fit(estimator="sklearn.linear_model:LinearRegression", params={}, target="delay", features=["id"])
    with pytest.raises(ModelError) as caught:
        evaluate(lake, client, challenger=fit(), champion=other, gates=GATES, actor=actor, as_of=as_of)
    assert caught.value.code == "model.other_target"


def test_every_prediction_says_what_made_it_and_from_what(
    lake: Lake,
    client: RegistryClient,
    fit: Callable[..., ModelVersion],
    predict: Callable[..., ScoreResult],
    dataset: DatasetRef,
) -> None:
    model = fit()
    result = predict(model)
    rows = read.scan(lake, result.dataset_out.ref).read_all()
    assert rows.column_names == [
        "prediction_id",
        "id",
        "prediction",
        "score",
        "model_name",
        "model_version",
        "input_table",
        "input_version",
        "input_partition",
    ]
    source = read.scan(lake, dataset, partitions=DAYS[6:], columns=["id", "x", "n"]).read_all()
    assert rows["id"].to_pylist() == source["id"].to_pylist()
    estimator, frame = load_model(client, lake, model), feature_frame(source, ["x", "n"])
    np.testing.assert_array_equal(rows["prediction"].to_numpy(), estimator.predict(frame))
    np.testing.assert_array_equal(rows["score"].to_numpy(), estimator.predict_proba(frame)[:, 1])
    assert rows["prediction_id"].to_pylist() == [
        f"{run.record_id[:24]}-{row}" for run in result.runs for row in range(ROWS)
    ]
    assert set(rows["model_name"].to_pylist()) == {model.name}
    assert set(rows["model_version"].to_pylist()) == {1}
    assert set(rows["input_version"].to_pylist()) == {dataset.version}
    assert rows["input_partition"].to_pylist() == [name for name in DAYS[6:] for _ in range(ROWS)]
    assert [(run.partition, run.rows, run.dataset_out) for run in result.runs] == [
        (name, ROWS, result.dataset_out.ref) for name in DAYS[6:]
    ]


def test_scoring_again_commits_nothing_whatever_the_batches(
    lake: Lake, fit: Callable[..., ModelVersion], predict: Callable[..., ScoreResult]
) -> None:
    model = fit()
    first = predict(model)
    again = predict(model, batch_rows=7)
    assert (first.reused, again.reused) == (False, True)
    assert again.dataset_out.ref == first.dataset_out.ref == head(lake, "predictions")
    assert again.runs == first.runs
    # other batches give the same rows: a fresh table has the same content
    other = predict(model, output_table="other", batch_rows=7)
    columns = ["id", "prediction", "score", "model_version", "input_partition"]
    one, two = (read.scan(lake, out.dataset_out.ref, columns=columns).read_all() for out in (first, other))
    assert one.equals(two)


def test_a_crash_between_the_predictions_and_their_record_heals(
    lake: Lake, fit: Callable[..., ModelVersion], predict: Callable[..., ScoreResult]
) -> None:
    model = fit()
    first = predict(model)
    for run in first.runs:
        lake.storage.delete(evidence_path(ScoringRun.kind, run.record_id))
    healed = predict(model)
    assert healed.reused
    assert [lake.evidence.get(ScoringRun.kind, run.record_id) for run in first.runs] == list(first.runs)


def test_a_corrected_day_and_a_new_model_replace_only_their_own_rows(
    lake: Lake,
    fit: Callable[..., ModelVersion],
    predict: Callable[..., ScoreResult],
    load: Callable[..., DatasetRef],
) -> None:
    old, new = fit(), fit(seed=5)
    predict(old)
    predict(new)
    corrected = load([DAYS[7]], seed=9, rows=ROWS + 3)
    result = predict(old, dataset=corrected)
    rows = read.scan(lake, result.dataset_out.ref, columns=["model_version", "input_partition"]).read_all()
    counts = {
        (row["model_version"], row["input_partition"]): row["count"]
        for row in rows.append_column("one", pa.repeat(1, len(rows)))
        .group_by(["model_version", "input_partition"])
        .aggregate([("one", "count")])
        .rename_columns({"one_count": "count"})
        .to_pylist()
    }
    assert counts == {(1, DAYS[6]): ROWS, (1, DAYS[7]): ROWS + 3, (2, DAYS[6]): ROWS, (2, DAYS[7]): ROWS}
    assert not result.reused
    ids = (
        read.scan(lake, result.dataset_out.ref, columns=["prediction_id"])
        .read_all()["prediction_id"]
        .to_pylist()
    )
    assert len(set(ids)) == len(ids)


def test_an_empty_day_is_scored_as_no_rows(
    fit: Callable[..., ModelVersion], predict: Callable[..., ScoreResult], load: Callable[..., DatasetRef]
) -> None:
    model = fit()
    result = predict(model, dataset=load([DAYS[7]], rows=0))
    assert [run.rows for run in result.runs] == [ROWS, 0]


def test_a_model_that_raises_midway_leaves_no_predictions_and_tells_no_value(
    lake: Lake,
    fit: Callable[..., ModelVersion],
    predict: Callable[..., ScoreResult],
    actor: Actor,
    as_of: datetime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = fit(
        estimator=f"{__name__}:PredictsThenRaises", params={}, target="delay", features=["x", "plane"]
    )
    table = day(DAYS[6])
    table = table.set_column(1, "x", pa.array([*([0.0] * (ROWS - 1)), 999.0]))
    bad = commit(lake, "bad", [Segment("d", "f", table.to_reader)], actor=actor, as_of=as_of).record.ref
    with caplog.at_level(logging.INFO), pytest.raises(ModelError) as caught:
        predict(model, dataset=bad, partitions=None)
    assert caught.value.code == "model.predict_failed"
    assert "x, plane" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text
    assert not table_exists(lake, "predictions")
    assert not list(lake.evidence.all(ScoringRun.kind))


def test_a_dataset_without_the_models_columns_is_refused_by_name(
    lake: Lake,
    fit: Callable[..., ModelVersion],
    predict: Callable[..., ScoreResult],
    actor: Actor,
    as_of: datetime,
) -> None:
    other = commit(
        lake, "other", [Segment("d", "f", pa.table({"x": [1.0]}).to_reader)], actor=actor, as_of=as_of
    ).record.ref
    with pytest.raises(ModelError, match="the columns n are missing") as caught:
        predict(fit(), dataset=other, partitions=None, keep_columns=[])
    assert caught.value.code == "model.columns_missing"
    assert not table_exists(lake, "predictions")
