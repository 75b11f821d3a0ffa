"""The model operators on a real lake and a real MLflow server: from training to predictions and back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.tables import resolve_ref
from airflow_provider_xops.operators._training import selection_of
from airflow_provider_xops.operators.model import (
    AdoptModelOperator,
    EvaluateModelOperator,
    PromoteModelOperator,
    RecordTrainingOperator,
    RollbackModelOperator,
    ScoreDatasetOperator,
    TrainModelOperator,
)
from airflow_provider_xops.records import DatasetVersion, ModelVersion, TuningStudy, compact
from airflow_provider_xops.version_compat import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    Asset,
)
from tests.servers import MlflowServer

MakeContext = Callable[..., dict[str, Any]]
GATES = [{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.5}]
IMPOSSIBLE = [{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 1.1}]
DAYS = ("2013-01-01", "2013-01-02", "2013-01-03")


@pytest.fixture(autouse=True)
def mlflow_connection(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's MLflow server is the default connection's."""
    fields = {"conn_type": "xops_mlflow", "host": mlflow_server.url, "extra": {"timeout": 30}}
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(fields))


@pytest.fixture
def name() -> str:
    """A model of the test's own: the server is shared."""
    return f"m_{uuid.uuid4().hex[:10]}"


@pytest.fixture
def days(lake: Lake, make_actor: Any, as_of: datetime) -> list[DatasetVersion]:
    """Three published days of a table ``features`` whose label follows from ``x``."""
    import pyarrow as pa

    versions = []
    for day in DAYS:
        rows = pa.table(
            {"x": [float(i % 10) for i in range(40)], "late": [int(i % 10 > 4) for i in range(40)]}
        )
        segment = Segment(partition=day, fingerprint=day, data=lambda rows=rows: rows.to_reader())
        versions.append(commit(lake, "features", [segment], actor=make_actor(), as_of=as_of).record)
    return versions


@pytest.fixture
def train(make_context: MakeContext, days: list[DatasetVersion], name: str) -> Callable[..., dict[str, Any]]:
    def make(run_id: str = "run_1", **changes: Any) -> dict[str, Any]:
        given = {
            "table": "features",
            "model_name": name,
            "estimator": "sklearn.linear_model:LogisticRegression",
            "target": "late",
            "split": {"kind": "time", "holdout_partitions": 1},
        }
        operator = TrainModelOperator(task_id="train", **(given | changes))
        return operator.execute(make_context(task_id="train", run_id=run_id))

    return make


@pytest.fixture
def champion(train: Any, make_context: MakeContext) -> Callable[..., dict[str, Any]]:
    """Train, evaluate and promote; gives the decision."""

    def make(
        run_id: str = "run_1", gates: list[dict[str, Any]] | None = None, **policy: Any
    ) -> dict[str, Any]:
        trained = train(run_id)
        judged = EvaluateModelOperator(task_id="judge", model=trained, gates=gates or GATES).execute(
            make_context(task_id="judge", run_id=run_id)
        )
        return PromoteModelOperator(task_id="promote", evaluation=judged, **policy).execute(
            make_context(task_id="promote", run_id=run_id)
        )

    return make


def test_train_evaluate_promote_score_and_roll_back(
    lake: Lake, champion: Any, name: str, make_context: MakeContext
) -> None:
    # given two champions, one after the other
    first, second = champion("run_1"), champion("run_2")
    assert (first["outcome"], first["to_version"], first["applied"]) == ("promoted", 1, True)
    assert (second["expected"], second["to_version"]) == (1, 2)

    # when the present one scores
    score = ScoreDatasetOperator(
        task_id="score",
        table="features",
        model_name=name,
        output_table="predictions",
        keep_columns=["x"],
        outlets=[Asset("p")],
    )
    context = make_context(task_id="score")
    scored = score.execute(context)

    # then every row of every day has a prediction of it, and the event says so
    rows = read.scan(lake, resolve_ref(lake, "predictions", scored["version"])).read_all()
    assert (rows.num_rows, scored["scored_rows"], scored["reused"]) == (120, 120, False)
    assert set(rows["model_version"].to_pylist()) == {2}
    assert len(scored["scoring_runs"]) == 3
    assert context["outlet_events"][Asset("p")].extra["table"] == "predictions"

    # and a rollback returns to the first
    back = RollbackModelOperator(task_id="back", model_name=name, reason="worse in the afternoon").execute(
        make_context(task_id="back")
    )
    assert (back["outcome"], back["from_version"], back["to_version"], back["applied"]) == (
        "rolled_back",
        2,
        1,
        True,
    )


def test_training_again_after_a_kill_finds_the_version(train: Any) -> None:
    first, again = train(), train()

    assert again["record_id"] == first["record_id"]


def test_training_works_on_the_highest_version_of_its_events(
    make_context: MakeContext, days: list[DatasetVersion], name: str
) -> None:
    operator = TrainModelOperator(
        task_id="train",
        table="features",
        model_name=name,
        estimator="sklearn.linear_model:LogisticRegression",
        target="late",
        split={"kind": "random", "fraction": 0.25},
    )
    events = [("features", compact(days[1])), ("features", compact(days[0]))]

    trained = operator.execute(make_context(events=events))

    assert trained["training"]["dataset"]["version"] == days[1].version
    assert operator.run_url
    assert operator.version_url


def test_scoring_works_on_the_partitions_of_its_events_once(
    lake: Lake, champion: Any, days: list[DatasetVersion], name: str, make_context: MakeContext
) -> None:
    # given a champion, and a run that two of three days started
    champion()
    given = {"table": "features", "model_name": name, "output_table": "predictions"}
    events = [("features", compact(version)) for version in days[:2]]

    scored = ScoreDatasetOperator(task_id="score", **given).execute(make_context(events=events))
    assert scored["partitions"] == list(DAYS[:2])

    # when the same versions start another run
    again = ScoreDatasetOperator(task_id="score", outlets=[Asset("p")], **given)
    returned = again.execute(make_context(run_id="run_2", events=events))

    # then nothing is written and nobody is told
    assert (returned["reused"], returned["version"]) == (True, scored["version"])
    assert again.outlets == []


def test_a_closed_gate_is_an_ordinary_outcome_that_emits_nothing(
    train: Any, make_context: MakeContext, lake: Lake
) -> None:
    judged = EvaluateModelOperator(task_id="judge", model=train(), gates=IMPOSSIBLE).execute(make_context())
    promote = PromoteModelOperator(task_id="promote", evaluation=judged, outlets=[Asset("m")])

    decision = promote.execute(make_context())

    assert decision["outcome"] == "rejected"
    assert promote.outlets == []


@pytest.mark.parametrize(
    ("on_held", "expected"), [("skip", AirflowSkipException), ("fail", AirflowFailException)]
)
def test_a_closed_gate_may_skip_or_fail(champion: Any, on_held: str, expected: type[Exception]) -> None:
    with pytest.raises(expected, match=r"roc_auc|gate"):
        champion(gates=IMPOSSIBLE, on_held=on_held)


def test_no_gates_is_held(train: Any, make_context: MakeContext) -> None:
    judged = EvaluateModelOperator(task_id="judge", model=train(), gates=[]).execute(make_context())

    decision = PromoteModelOperator(task_id="p", evaluation=judged).execute(make_context())

    assert (decision["outcome"], decision["reason"].partition(":")[0]) == ("held", "no gates")


def test_promoted_model_is_announced_with_the_decision(
    train: Any, make_context: MakeContext, name: str
) -> None:
    judged = EvaluateModelOperator(task_id="judge", model=train(), gates=GATES).execute(make_context())
    context = make_context(task_id="promote")
    PromoteModelOperator(task_id="promote", evaluation=judged, outlets=[Asset("m")]).execute(context)

    extra = context["outlet_events"][Asset("m")].extra
    assert (extra["kind"], extra["model"], extra["to_version"]) == ("decisions", name, 1)


def test_scoring_without_a_champion_fails_or_skips(
    days: list[DatasetVersion], name: str, make_context: MakeContext
) -> None:
    given = {"task_id": "s", "table": "features", "model_name": name, "output_table": "predictions"}

    with pytest.raises(AirflowFailException, match=r"not_found\.champion"):
        ScoreDatasetOperator(**given).execute(make_context())
    with pytest.raises(AirflowSkipException):
        ScoreDatasetOperator(**given, on_missing_model="skip").execute(make_context())


def test_rollback_without_history_fails_with_its_code(name: str, make_context: MakeContext) -> None:
    operator = RollbackModelOperator(task_id="b", model_name=name, reason="why not")

    with pytest.raises(AirflowFailException, match=r"\[(registry|not_found)\."):
        operator.execute(make_context())


def test_rollback_dry_run_says_and_changes_nothing(
    champion: Any, name: str, make_context: MakeContext
) -> None:
    champion("run_1")
    champion("run_2")
    operator = RollbackModelOperator(
        task_id="b", model_name=name, reason="test", dry_run=True, outlets=[Asset("m")]
    )

    said = operator.execute(make_context())

    assert said == {"dry_run": True, "from_version": 2, "to_version": 1}
    assert operator.outlets == []


def test_estimator_whose_fit_raises_fails_once_without_a_version(train: Any, lake: Lake) -> None:
    with pytest.raises(AirflowFailException, match=r"training\.fit_failed"):
        train(estimator_params={"C": -1.0})

    assert list(lake.evidence.all(ModelVersion.kind)) == []


def test_mlflow_that_is_down_is_retried_and_leaves_nothing(
    train: Any, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {
        "conn_type": "xops_mlflow",
        "host": "http://127.0.0.1:9",
        "extra": {"timeout": 1, "max_retries": 0},
    }
    monkeypatch.setenv("AIRFLOW_CONN_XOPS_MLFLOW_DEFAULT", json.dumps(fields))

    with pytest.raises(AirflowException, match=r"unavailable\.mlflow") as caught:
        train()

    assert not isinstance(caught.value, AirflowFailException)
    assert list(lake.evidence.all(ModelVersion.kind)) == []


def test_adopted_model_has_links_and_a_record(
    train: Any, name: str, make_context: MakeContext, lake: Lake
) -> None:
    trained = train()

    operator = AdoptModelOperator(
        task_id="adopt",
        model_name=f"{name}_adopted",
        run_id=trained["run_id"],
        target="late",
        task="classification",
    )
    adopted = operator.execute(make_context(task_id="adopt"))

    assert (adopted["origin"], adopted["name"]) == ("adopted", f"{name}_adopted")
    assert operator.version_url is not None
    assert operator.version_url.endswith(f"/models/{name}_adopted/versions/1")


@pytest.mark.parametrize("as_text", [False, True])
def test_training_that_ran_elsewhere_is_recorded_once_with_links_and_an_event(
    train: Any, days: list[DatasetVersion], name: str, make_context: MakeContext, as_text: bool
) -> None:
    # given what a job hands back whose model is the artifact of an MLflow run
    trained = train()
    payload = {
        "model": f"{name}_outside",
        "run_id": trained["run_id"],
        "artifact_digest": trained["artifact_digest"],
        "dataset": {"table": "features", "version": days[-1].version, "digest": days[-1].digest},
        "training": {"partitions": [DAYS[0]], "rows": 40, "digest": "as declared"},
        "features": ["x"],
        "target": "late",
        "task": "classification",
        "estimator": "spark",
        "code_version": "git:2",
        "metrics": {"roc_auc": 0.7},
    }
    given = json.dumps(payload) if as_text else payload
    context = make_context(task_id="record")

    operator = RecordTrainingOperator(task_id="record", training=given, outlets=[Asset("m")])
    recorded = operator.execute(context)
    again = RecordTrainingOperator(task_id="record", training=given).execute(make_context(task_id="record"))

    assert (recorded["origin"], recorded["name"], recorded["version"]) == ("external", f"{name}_outside", 1)
    assert again["record_id"] == recorded["record_id"]
    assert context["outlet_events"][Asset("m")].extra["record_id"] == recorded["record_id"]
    assert operator.version_url is not None
    assert operator.version_url.endswith(f"/models/{name}_outside/versions/1")


def test_lists_and_mappings_of_a_training_may_be_text_that_a_template_rendered(train: Any) -> None:
    trained = train(
        features="['x']",
        split="{'kind': 'time', 'holdout_partitions': 1}",
        estimator_params='{"C": 2.0}',
        drop="",
    )

    assert trained["features"] == ["x"]


def test_options_of_a_training_may_be_text_that_a_template_rendered(train: Any, lake: Lake) -> None:
    options: list[dict[str, Any]] = [
        {"class_weight": "balanced", "cross_validation": '{"kind": "k_fold", "folds": 2}'},
        {"class_weight": "{'1': 2.5}", "task": "classification", "sample_weight": ""},
        {"estimator": "sklearn.linear_model:SGDClassifier", "batch_rows": "16", "epochs": "2"},
    ]
    kept = []
    for given in options:
        record = lake.evidence.get(ModelVersion.kind, train(**given)["record_id"])
        assert isinstance(record, ModelVersion)
        kept.append({name: record.settings[name] for name in given if name in record.settings})
    assert kept == [
        {"class_weight": "balanced", "cross_validation": {"kind": "k_fold", "folds": 2, "seed": 0}},
        {"class_weight": {"1": 2.5}, "task": "classification"},
        {"estimator": "sklearn.linear_model:SGDClassifier", "batch_rows": 16, "epochs": 2},
    ]


def test_parameters_of_a_study_are_used_whoever_of_its_workers_gave_them(
    train: Any, lake: Lake, days: list[DatasetVersion], make_actor: Any, as_of: datetime
) -> None:
    logistic = "sklearn.linear_model:LogisticRegression"

    def worker(trials: int, best: float) -> dict[str, Any]:
        study = TuningStudy(
            recorded_at=as_of, produced_by=make_actor().producer, study="s", model_name="m",
            dataset=days[-1].ref,
            search={
                "estimator": logistic, "target": "late", "params": {"max_iter": 50},
                "split": {"kind": "time", "holdout_partitions": 1, "gap": 0},
            }, search_digest="d",
            metric="roc_auc", greater_is_better=True, trials={"complete": trials}, best_value=0.9,
            best_params={"C": best}, best_trial=0,
        )  # fmt: skip
        lake.evidence.put(study)
        return compact(study)

    records = [worker(2, 0.5), worker(7, 3.0)]
    trained = train(tuning=records)
    record = lake.evidence.get(ModelVersion.kind, trained["record_id"])
    assert isinstance(record, ModelVersion)
    assert record.settings["params"] == {"C": 3.0, "max_iter": 50}
    assert record.tuning == record.settings["tuning"] == records[1]["record_id"]
    assert train(tuning=records[1])["version"] == trained["version"]
    # a template makes text of the list
    assert train(tuning=str(records))["version"] == trained["version"]
    for nothing in ("", "None", []):
        with pytest.raises(AirflowFailException, match=r"argument\.empty"):
            train(tuning=nothing)


def test_no_epochs_are_refused_and_not_taken_for_one(train: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"argument\.batch_rows"):
        train(estimator="sklearn.linear_model:SGDClassifier", batch_rows=16, epochs=0)


def test_training_record_that_does_not_fit_is_a_typed_error(make_context: MakeContext) -> None:
    for payload in ({"model": "m"}, '{"model": "m"}', "not json"):
        with pytest.raises(AirflowFailException, match=r"\[argument\."):
            RecordTrainingOperator(task_id="r", training=payload).execute(make_context())


def test_selections_from_templates() -> None:
    assert selection_of("", argument="training") is None
    with pytest.raises(ArgumentError, match=r"argument\.selection.*dataset"):
        selection_of({"rows": 1}, argument="training")
