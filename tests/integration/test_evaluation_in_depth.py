"""A whole evaluation against a real MLflow server: every part of the plan, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from airflow_provider_xops.errors import ArgumentError, LakeError
from airflow_provider_xops.evaluation import robustness
from airflow_provider_xops.evaluation.evaluate import LEAK_GATE, evaluate
from airflow_provider_xops.evaluation.gates import gates_from
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake, init_lake, open_lake
from airflow_provider_xops.records import (
    Actor,
    Evaluation,
    ModelVersion,
    Outcome,
    digest_of,
    record_from_json,
)
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.settings import LakeSettings
from airflow_provider_xops.training import selections
from airflow_provider_xops.training.fit import train
from airflow_provider_xops.training.frames import feature_frame
from tests import servers

DAYS = [f"2013-01-{day:02d}" for day in range(1, 16)]
ROWS = 120
module = importlib.import_module("airflow_provider_xops.evaluation.evaluate")
SECRET = "N328NB"
AS_OF = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
SMALL: dict[str, Any] = {"resamples": 100, "slices": {"find": False}, "explanation": {"repeats": 1}}
PLAN: dict[str, Any] = {
    "resamples": 300,
    "tests": [
        {"metric": "roc_auc"},
        {"metric": "accuracy", "hypothesis": "non_inferiority", "margin": 0.05},
    ],
    "candidates": 2,
    "slices": {
        "named": [{"name": "far", "where": "distance >= 1500"}],
        "by": ["origin"],
        "columns": ["origin"],
        "min_rows": 40,
    },
    "explanation": {"repeats": 2, "shap": True, "shap_rows": 20, "background": 20},
    "fairness": {"attributes": ["group"], "min_rows": 30},
    "robustness": {"levels": [0.2], "repeats": 1},
    "learning_curve": {"shares": [0.2, 1.0]},
    "costs": {"false_positive": 1, "false_negative": 4},
    "ranking": {"group": "route", "at": [5]},
    "skew": {"table": "flights", "partitions": 2},
}
GATES: list[dict[str, Any]] = [
    {"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.5, "bound": "lower"},
    {"gate": "better_than_champion", "metric": "roc_auc", "confidence": 0.95},
    {"gate": "smoke_tested"},
]


def pipeline(*, kind: str = "trees", seed: int = 0) -> Any:
    """Text and numbers with gaps, as the lake has them."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    prepare = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["carrier"]),
            ("numbers", SimpleImputer(), ["x", "distance"]),
        ]
    )
    model = (
        HistGradientBoostingClassifier(max_iter=20, max_depth=3, random_state=seed)
        if kind == "trees"
        else LogisticRegression(C=0.0001)
    )
    return make_pipeline(prepare, model)


def day(name: str) -> pa.Table:
    """Flights of a day: late by ``x`` and the carrier, but for UA's far flights, which nobody foresees."""
    rng = np.random.default_rng(DAYS.index(name))
    x, carrier = rng.normal(size=ROWS), rng.choice(["UA", "DL"], ROWS)
    distance = rng.integers(50, 3000, ROWS).astype(float)
    hopeless = (carrier == "UA") & (distance >= 1500)
    late = np.where(hopeless, rng.random(ROWS) < 0.5, x + (carrier == "DL") + rng.normal(size=ROWS) * 0.4 > 0)
    return pa.table(
        {
            "x": pa.array(x, mask=rng.random(ROWS) < 0.05),
            "distance": pa.array(distance),
            "carrier": pa.array(carrier),
            "origin": pa.array(rng.choice(["JFK", "EWR"], ROWS)),
            "group": pa.array(rng.choice(["a", "b"], ROWS)),
            "route": pa.array(rng.integers(0, 6, ROWS)),
            "plane": pa.array([SECRET] * ROWS),
            "late": pa.array(late.astype(np.int64)),
        }
    )


@pytest.fixture(scope="module")
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """One lake of all these tests: each asks a question of its own."""
    uri = str(tmp_path_factory.mktemp("evaluation") / "lake")
    settings = LakeSettings(uri=uri, storage_options={}, credentials=None)
    init_lake(settings, actor=_actor(1), as_of=AS_OF)
    return open_lake(settings)


@pytest.fixture(scope="module")
def models(lake: Lake, client: RegistryClient) -> tuple[ModelVersion, ModelVersion]:
    """A good model and a poor one, trained on the same rows."""
    segments = [Segment(each, each, day(each).to_reader) for each in DAYS]
    dataset = commit(lake, "flights", segments, actor=_actor(2), as_of=AS_OF).record.ref
    name = f"late-{uuid.uuid4().hex[:8]}"
    good, poor = (
        train(
            lake, client, dataset=dataset, estimator=f"{__name__}:pipeline", params={"kind": kind},
            target="late", features=["x", "distance", "carrier"],
            split={"kind": "time", "holdout_partitions": 10}, model_name=name,
            actor=Actor.user("tester", key=f"train {kind}", fence=3), as_of=AS_OF,
        )
        for kind in ("trees", "line")
    )  # fmt: skip
    return good, poor


def _actor(fence: int) -> Actor:
    return Actor.user("tester", key="test", fence=fence)


@pytest.fixture
def model(models: tuple[ModelVersion, ModelVersion]) -> ModelVersion:
    return models[0]


@pytest.fixture
def judge(lake: Lake, client: RegistryClient) -> Callable[..., Evaluation]:
    def judge(challenger: ModelVersion, champion: ModelVersion | None = None, **changes: Any) -> Evaluation:
        arguments = {"gates": GATES, "plan": PLAN, "actor": _actor(9), "as_of": AS_OF, **changes}
        return evaluate(lake, client, challenger=challenger, champion=champion, **arguments)

    return judge


def artifacts_of(client: RegistryClient, model: ModelVersion, folder: str) -> set[str]:
    with client.session("reading artifacts in a test") as mlflow:
        return {each.path for each in mlflow.list_artifacts(model.run_id, folder)}


def test_every_part_of_a_plan_is_measured_recorded_reported_and_logged_once(
    lake: Lake,
    client: RegistryClient,
    models: tuple[ModelVersion, ModelVersion],
    judge: Callable[..., Evaluation],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    challenger, champion = models
    assert challenger.holdout is not None
    with caplog.at_level(logging.INFO):
        evaluation = judge(challenger, champion)

    # the figures are scikit-learn's on the same rows, with intervals around them
    rows = selections.materialize(
        lake, challenger.holdout, columns=[*challenger.features, "late", "origin", "group"]
    )
    truth = np.asarray(rows["late"])
    estimator = load_model(client, lake, challenger)
    scores = estimator.predict_proba(feature_frame(rows, challenger.features))[:, 1]
    figures = {each.metric: each for each in evaluation.figures}
    assert figures["roc_auc"].value == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-12)
    assert figures["roc_auc"].lower < figures["roc_auc"].value < figures["roc_auc"].upper
    assert evaluation.metrics["roc_auc"] == figures["roc_auc"].value
    assert {"ndcg@5", "roc_auc", "log_loss"} <= set(evaluation.metrics)
    assert set(evaluation.champion_metrics) == set(evaluation.metrics)
    assert evaluation.task == "classification"

    # both statements were tested, corrected for two tests and two candidates
    tested = {each.metric: each for each in evaluation.comparisons if each.hypothesis}
    assert set(tested) == {"roc_auc", "accuracy"}
    assert tested["roc_auc"].comparisons == 4
    assert tested["roc_auc"].significant
    theirs = load_model(client, lake, champion).predict_proba(feature_frame(rows, champion.features))[:, 1]
    ahead = sk.roc_auc_score(truth, scores) - sk.roc_auc_score(truth, theirs)
    assert tested["roc_auc"].difference == pytest.approx(ahead, abs=1e-12)
    assert tested["roc_auc"].p_value < tested["roc_auc"].adjusted_p_value <= 0.05

    # the planted weak slice was found, the named ones are there, each with the champion's difference
    found = [each for each in evaluation.slices if each.found]
    assert [each for each in found if "carrier = 'UA'" in each.conditions and "distance" in each.conditions]
    assert {"far", "origin = EWR", "origin = JFK"} <= {each.name for each in evaluation.slices}
    assert all(each.champion_difference_lower is not None for each in evaluation.slices)

    # every other room has measured its part
    assert evaluation.calibration is not None
    assert evaluation.threshold is not None
    assert 0 < evaluation.threshold.threshold < 0.5
    assert {each.attribute for each in evaluation.fairness} == {"group"}
    assert {each.method for each in evaluation.importances} >= {"permutation", "shap"}
    assert {each.perturbation for each in evaluation.robustness} == {"noise", "missing", "typos", "shift"}
    assert {each.feature for each in evaluation.skew} >= set(challenger.features)
    assert [each.rows for each in evaluation.learning_curve] == [
        round(0.2 * challenger.training.rows), challenger.training.rows
    ]  # fmt: skip
    assert evaluation.learning_curve[-1].value == evaluation.metrics["roc_auc"]
    assert [note for note in evaluation.notes if "not measured" in note] == []

    # gates about figures are answered, the one that needs a smoke test waits
    assert {gate.gate: gate.outcome for gate in evaluation.gates} == {
        "metric_threshold:roc_auc": Outcome.PASSED,
        "better_than_champion:roc_auc": Outcome.PASSED,
        LEAK_GATE: Outcome.PASSED,
    }
    assert [gate["gate"] for gate in evaluation.deferred_gates] == ["smoke_tested"]

    # the record is in the evidence as it was returned, its report in the lake and on the model's run
    assert lake.evidence.get(Evaluation.kind, evaluation.record_id) == evaluation
    assert record_from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation
    page = lake.storage.get(evaluation.report_uri.partition(f"{lake.uri}/")[2])
    assert page is not None
    assert b"<svg" in page
    for text in (page.decode(), caplog.text, json.dumps(evaluation.to_json())):
        assert SECRET not in text
    assert artifacts_of(client, challenger, "xops")
    with client.session("reading a run in a test") as mlflow:
        logged = mlflow.get_run(challenger.run_id).data.metrics
    assert logged["eval.roc_auc"] == pytest.approx(evaluation.metrics["roc_auc"])

    # asked again: the same record, and nothing is loaded or measured a second time
    monkeypatch.setattr("airflow_provider_xops.evaluation.evaluate.load_model", None)
    assert judge(challenger, champion) == evaluation


def test_another_plan_is_another_question(model: ModelVersion, judge: Callable[..., Evaluation]) -> None:
    first = judge(model, plan=SMALL)
    assert first.plan["resamples"] == 100
    assert first.gates_digest == digest_of([[gate.to_json() for gate in gates_from(GATES)], first.plan])
    assert judge(model, plan=SMALL).record_id == first.record_id
    assert judge(model, plan={**SMALL, "seed": 1}).record_id != first.record_id
    assert judge(model, plan=SMALL, gates=GATES[:1]).record_id != first.record_id


def test_what_cannot_be_measured_is_a_note_and_the_rest_stands(
    model: ModelVersion, judge: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(robustness, "curves", broken)
    plan = {**PLAN, "explanation": {"repeats": 1}, "slices": {"find": False}}
    evaluation = judge(
        dataclasses.replace(model, settings={}),
        plan=plan,
        gates=[
            *GATES[:1],
            {"gate": "robustness_loss", "perturbation": "noise", "level": 0.2, "maximum": 0.2},
        ],
    )

    assert evaluation.robustness == ()
    assert evaluation.learning_curve == ()
    assert "robustness: not measured: it raised a ZeroDivisionError" in evaluation.notes
    assert any(note.startswith("learning curve: not measured: ") for note in evaluation.notes)
    assert SECRET not in str(evaluation.notes)
    outcomes = {gate.gate.partition(":")[0]: gate.outcome for gate in evaluation.gates}
    assert outcomes["robustness_loss"] is Outcome.NO_DATA
    assert outcomes["metric_threshold"] is Outcome.PASSED
    assert evaluation.figures


def test_what_may_work_next_time_is_not_recorded_as_unmeasurable(
    lake: Lake,
    model: ModelVersion,
    judge: Callable[..., Evaluation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise LakeError("the storage did not answer", code="lake.unavailable", retryable=True)

    plan = {**SMALL, "seed": 2, "robustness": {"levels": [0.2], "repeats": 1}}
    before = recorded(lake)
    with monkeypatch.context() as patch:
        patch.setattr(robustness, "curves", unreachable)
        with pytest.raises(LakeError):
            judge(model, plan=plan)
    assert recorded(lake) == before
    assert judge(model, plan=plan).robustness
    assert recorded(lake) == before + 1


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"cluster": "tail"}, "the plan's cluster names tail"),
        ({"fairness": {"attributes": ["race"]}}, "the plan's fairness.attributes names race"),
        ({"ranking": {"group": "user"}}, "the plan's ranking.group names user"),
        ({"slices": {"by": ["airport"]}}, "the slices' columns airport"),
        ({"slices": {"named": [{"name": "a", "where": "orgin = 'JFK'"}]}}, "the condition of slice 'a'"),
        ({"resampels": 100}, "resampels"),
    ],
)
def test_a_plan_about_columns_that_are_not_there_is_refused(
    lake: Lake,
    model: ModelVersion,
    judge: Callable[..., Evaluation],
    plan: dict[str, Any],
    said: str,
) -> None:
    before = recorded(lake)
    with pytest.raises(ArgumentError, match=said) as caught:
        judge(model, plan=plan)
    assert caught.value.code == "argument.plan"
    assert recorded(lake) == before


def test_days_as_clusters_make_the_intervals_wider(
    model: ModelVersion, judge: Callable[..., Evaluation]
) -> None:
    """Where whole days are late together, a day is one observation and not many."""
    widths = {}
    for cluster in (None, "__partition__", "route"):
        figure = next(
            each
            for each in judge(model, plan={**SMALL, "cluster": cluster}, gates=()).figures
            if each.metric == "accuracy"
        )
        assert figure.value is not None
        widths[cluster] = None if figure.lower is None else figure.upper - figure.lower
    assert widths[None] is not None
    assert widths["__partition__"] is not None
    assert widths["__partition__"] != widths[None]
    assert widths["route"] is None  # six routes are too few for an interval


def test_of_two_tasks_with_one_question_the_first_record_stays_and_both_return_it(
    model: ModelVersion, judge: Callable[..., Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {**SMALL, "seed": 3}
    first = judge(model, plan=plan)
    # the second looked before the first had written
    looked: list[Any] = []
    known = module._known

    def late(*question: Any) -> Any:
        looked.append(question)
        return None if len(looked) == 1 else known(*question)

    monkeypatch.setattr(module, "_known", late)
    assert judge(model, plan=plan, as_of=AS_OF + timedelta(hours=1)) == first
    assert len(looked) == 2


def test_a_leak_that_is_known_closes_the_gate_whatever_is_not_known_of_the_other_model(
    lake: Lake, models: tuple[ModelVersion, ModelVersion], judge: Callable[..., Evaluation]
) -> None:
    challenger, champion = models
    adopted = dataclasses.replace(champion, training=None)
    assert challenger.training is not None
    leaky = judge(challenger, adopted, plan={**SMALL, "seed": 4}, holdout=challenger.training)
    (gate,) = [each for each in leaky.gates if each.gate == LEAK_GATE]
    assert (gate.outcome, gate.observed) == (Outcome.FAILED, challenger.training.rows)

    clean = judge(challenger, adopted, plan={**SMALL, "seed": 4})
    assert [each.outcome for each in clean.gates if each.gate == LEAK_GATE] == [Outcome.PASSED]

    unknown = judge(dataclasses.replace(challenger, training=None), plan={**SMALL, "seed": 5})
    assert LEAK_GATE not in {each.gate for each in unknown.gates}
    assert f"{LEAK_GATE}: not asked: the challenger's training rows are not known" in unknown.notes


def recorded(lake: Lake) -> int:
    return sum(1 for _ in lake.evidence.all(Evaluation.kind))
