"""Responsible checks on real mortgage applications and a real MLflow server: a gap closes the gate, a
prediction is explained by its id, and what scoring sees is compared with what training saw."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.cli import main
from airflow_provider_xops.errors import ArgumentError, DataError, LakeError, NotFoundError, XOpsError
from airflow_provider_xops.evaluation import _extras
from airflow_provider_xops.evaluation.evaluate import evaluate
from airflow_provider_xops.evaluation.gates import FairnessGap, MetricThreshold
from airflow_provider_xops.lake import read
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, DatasetRef, ModelVersion, Outcome, PromotionOutcome
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.loading import load_model
from airflow_provider_xops.registry.promote import promote
from airflow_provider_xops.serving.batch import ScoreResult, score
from airflow_provider_xops.serving.explain import explain
from airflow_provider_xops.training.fit import train
from airflow_provider_xops.training.frames import feature_frame
from tests import servers
from tests.unit.evaluation.scored_cases import mortgages

FEATURES = ["dir", "hir", "lvr", "ccs", "mcs", "pbcr", "dmi", "self", "single", "uria"]
FAIR = {"attributes": ["black"], "positive": "no"}
DAYS = ["1990-01", "1990-02", "1990-03"]


def lender() -> Any:
    """Numbers scaled, answers encoded, and a decision that takes denials as serious as grants."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    words = ["pbcr", "dmi", "self", "single"]
    prepare = ColumnTransformer(
        [
            ("words", OneHotEncoder(handle_unknown="ignore", drop="if_binary"), words),
            ("numbers", StandardScaler(), [name for name in FEATURES if name not in words]),
        ]
    )
    return make_pipeline(prepare, LogisticRegression(class_weight="balanced", max_iter=500))


@pytest.fixture
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def dataset(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime) -> DatasetRef:
    rows = mortgages()
    parts = np.array_split(np.random.default_rng(0).permutation(rows.num_rows), len(DAYS))
    segments = [
        Segment(day, "f", rows.take(pa.array(np.sort(part))).to_reader)
        for day, part in zip(DAYS, parts, strict=True)
    ]
    return commit(lake, "mortgages", segments, actor=make_actor(), as_of=as_of).record.ref


@pytest.fixture
def model(
    lake: Lake, client: RegistryClient, dataset: DatasetRef, make_actor: Callable[..., Actor], as_of: datetime
) -> ModelVersion:
    """It never sees the applicant's race."""
    return train(
        lake, client, dataset=dataset, estimator=f"{__name__}:lender", target="deny", features=FEATURES,
        split={"kind": "time", "holdout_partitions": 1}, model_name=f"deny-{uuid.uuid4().hex[:8]}",
        actor=make_actor(key="train"), as_of=as_of,
    )  # fmt: skip


@pytest.fixture
def scored(
    lake: Lake, client: RegistryClient, dataset: DatasetRef, model: ModelVersion,
    make_actor: Callable[..., Actor], as_of: datetime,
) -> ScoreResult:  # fmt: skip
    return score(
        lake, client, model=model, dataset=dataset, partitions=DAYS[2:], output_table="denials",
        actor=make_actor(key="score"), as_of=as_of,
    )  # fmt: skip


def test_a_gap_between_groups_closes_the_gate_and_the_model_is_not_promoted(
    lake: Lake, client: RegistryClient, model: ModelVersion, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    gates = [
        MetricThreshold(metric="roc_auc", minimum=0.6),
        FairnessGap(attribute="black", metric="demographic_parity", maximum=0.1),
        FairnessGap(attribute="black", metric="equalized_odds", maximum=0.9),
        FairnessGap(attribute="black", metric="accuracy", maximum=1.0, bound="upper"),
    ]
    plan = {
        "resamples": 500, "fairness": FAIR, "slices": {"find": False},
        "robustness": {"levels": [0.2], "repeats": 2}, "skew": {"table": "mortgages", "partitions": 1},
        "explanation": {"repeats": 2, "shap": True, "shap_rows": 5, "background": 10},
    }  # fmt: skip
    result = evaluate(
        lake, client, challenger=model, champion=None, gates=gates, plan=plan, actor=make_actor(), as_of=as_of
    )
    answers = {gate.gate: gate.outcome for gate in result.gates}
    assert answers["fairness_gap:black:demographic_parity"] is Outcome.FAILED
    assert answers["fairness_gap:black:equalized_odds"] is Outcome.PASSED
    assert answers["fairness_gap:black:accuracy"] is Outcome.PASSED
    figure = next(each for each in result.fairness if each.criterion == "demographic_parity")
    assert figure.gap_lower is not None
    assert 0.1 < figure.gap_lower < figure.gap < figure.gap_upper
    assert {each.method for each in result.importances} == {"permutation", "shap"}
    assert {each.feature for each in result.importances} == set(FEATURES)
    assert {each.perturbation for each in result.robustness} == {"noise", "missing", "typos", "shift"}
    assert {each.feature for each in result.skew} == set(FEATURES)
    decision = promote(
        lake, client, model=model, alias="champion", expected=None, evaluation=result, actor=make_actor(),
        as_of=as_of,
    ).decision  # fmt: skip
    assert decision.outcome is PromotionOutcome.REJECTED


def test_a_prediction_is_explained_by_its_id(
    lake: Lake, client: RegistryClient, model: ModelVersion, scored: ScoreResult, dataset: DatasetRef
) -> None:
    written = read.scan(lake, scored.dataset_out.ref).read_all().to_pylist()[17]
    found = explain(lake, client, written["prediction_id"], background=20)

    assert (found.model, found.input, found.partition, found.row) == (model.ref, dataset, DAYS[2], 17)
    assert found.prediction == written["prediction"]
    assert found.output == "yes"
    assert found.answer == pytest.approx(written["score"], abs=1e-12)
    assert found.agrees is True
    assert found.base + sum(each.contribution for each in found.contributions) == pytest.approx(found.answer)
    row = (
        read.scan(lake, dataset, partitions=DAYS[2:], columns=FEATURES).read_all().slice(17, 1).to_pylist()[0]
    )
    assert {each.feature: each.value for each in found.contributions} == row
    sizes = [abs(each.contribution) for each in found.contributions]
    assert sizes == sorted(sizes, reverse=True)
    assert "training rows of mortgages" in found.background


def test_without_shap_each_feature_is_taken_away_in_turn(
    lake: Lake, client: RegistryClient, model: ModelVersion, scored: ScoreResult, dataset: DatasetRef,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(_extras.util, "find_spec", lambda _: None)
    found = explain(lake, client, f"{scored.runs[0].record_id[:24]}-0", background=2_000)
    assert (found.method, found.additive, found.agrees) == ("ablation", False, True)
    # By hand: the row with the ratio of each training row in turn.
    estimator = load_model(client, lake, model)
    training = feature_frame(read.scan(lake, dataset, partitions=DAYS[:2]).read_all(), FEATURES)
    row = feature_frame(read.scan(lake, dataset, partitions=DAYS[2:]).read_all(), FEATURES).head(1)
    without = row.loc[[0] * len(training)].reset_index(drop=True).assign(lvr=training["lvr"])
    by_hand = estimator.predict_proba(row)[0, 1] - estimator.predict_proba(without)[:, 1].mean()
    one = next(each for each in found.contributions if each.feature == "lvr")
    assert one.contribution == pytest.approx(by_hand, abs=1e-12)


def test_the_command_shows_the_row_and_no_log_has_it(
    lake: Lake, mlflow_server: servers.MlflowServer, scored: ScoreResult, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    digits = scored.runs[0].record_id[:24]
    where = ["--lake", lake.uri, "--mlflow", mlflow_server.url]
    with caplog.at_level(logging.DEBUG, logger="airflow_provider_xops"):
        assert main(["explain", f"{digits}-3", "--background", "15", *where]) == 0
        text = capsys.readouterr().out
        assert main(["explain", f"{digits}-3", "--background", "15", "--json", *where]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "probability of yes" in text
    assert "sum up to the answer" in text
    for each in found["contributions"]:
        assert f"{each['feature']} " in text
        assert f"(it is {each['value']})" in text
    numbers = [str(each["value"]) for each in found["contributions"] if len(str(each["value"])) > 4]
    assert numbers
    assert not any(number in caplog.text for number in numbers)
    assert main(["explain", f"{digits}-999999", *where]) == 1
    assert "not_found.prediction" in capsys.readouterr().err


@pytest.mark.parametrize(("column", "value"), [("score", 0.123), ("score", None), ("prediction", "maybe")])
def test_a_changed_prediction_is_told(
    lake: Lake, client: RegistryClient, scored: ScoreResult, monkeypatch: pytest.MonkeyPatch, column: str,
    value: Any,
) -> None:  # fmt: skip
    from airflow_provider_xops.serving import _explained_rows as room

    there = read.scan

    def forged(lake: Lake, ref: DatasetRef, **options: Any) -> Any:
        table = there(lake, ref, **options).read_all()
        if ref.table == "denials":
            place = table.column_names.index(column)
            table = table.set_column(
                place, column, pa.array([value] * table.num_rows, table.schema.types[place])
            )
        return table.to_reader()

    monkeypatch.setattr(room.read, "scan", forged)
    assert explain(lake, client, f"{scored.runs[0].record_id[:24]}-1", background=5).agrees is False


def test_a_table_of_predictions_that_is_gone_is_told_from_one_that_is_damaged(
    lake: Lake, client: RegistryClient, scored: ScoreResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_xops.serving import _explained_rows as room

    there = read.scan
    error: XOpsError = NotFoundError("gone", code="not_found.table", todo="")

    def broken(lake: Lake, ref: DatasetRef, **options: Any) -> Any:
        if ref.table == "denials":
            raise error
        return there(lake, ref, **options)

    monkeypatch.setattr(room.read, "scan", broken)
    prediction = f"{scored.runs[0].record_id[:24]}-1"
    assert explain(lake, client, prediction, background=5).agrees is None
    error = LakeError("cleaned up", code="lake.missing_file", todo="")
    assert explain(lake, client, prediction, background=5).agrees is None
    error = LakeError("damaged", code="lake.damaged_file", todo="")
    with pytest.raises(LakeError, match="damaged"):
        explain(lake, client, prediction, background=5)


def test_what_is_no_prediction_is_refused(lake: Lake, client: RegistryClient, scored: ScoreResult) -> None:
    digits = scored.runs[0].record_id[:24]
    for wrong in ("", "late/3", f"{digits}", f"{digits}-x", f"{digits[:20]}-1", f"{digits}-1; drop"):
        with pytest.raises(ArgumentError) as refused:
            explain(lake, client, wrong)
        assert refused.value.code == "argument.prediction_id"
    with pytest.raises(ArgumentError) as none:
        explain(lake, client, f"{digits}-1", background=0)
    assert none.value.code == "argument.background"
    with pytest.raises(NotFoundError) as unknown:
        explain(lake, client, f"{'0' * 24}-1")
    assert unknown.value.code == "not_found.prediction"


def test_another_content_than_was_scored_is_not_explained(
    lake: Lake, client: RegistryClient, scored: ScoreResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_xops.serving import _explained_rows as room

    monkeypatch.setattr(room.read, "partition_digests", lambda lake, ref: {DAYS[2]: "another"})
    with pytest.raises(DataError) as caught:
        explain(lake, client, f"{scored.runs[0].record_id[:24]}-1")
    assert caught.value.code == "data.partition_changed"


def test_skew_is_told_at_a_shell(
    lake: Lake, model: ModelVersion, scored: ScoreResult, make_actor: Callable[..., Actor], as_of: datetime,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = ["skew", model.name, str(model.version), "--lake", lake.uri]
    assert main(command) == 0
    assert "0 failed" in capsys.readouterr().out
    rows = mortgages()
    richer = rows.set_column(rows.column_names.index("dir"), "dir", pa.array(rows["dir"].to_numpy() / 2))
    segment = Segment("1991-01", "f", richer.drop_columns(["uria"]).to_reader)
    commit(lake, "later", [segment], actor=make_actor(), as_of=as_of)
    assert main([*command, "--table", "later", "--json"]) == 1
    figures = json.loads(capsys.readouterr().out)["figures"]
    failed = {(each["feature"], each["method"]) for each in figures if each["outcome"] == "failed"}
    assert failed == {("dir", "psi"), ("dir", "ks"), ("uria", "schema")}
    few = Segment("1992-01", "f", rows.slice(0, 20).to_reader)
    commit(lake, "small", [few], actor=make_actor(), as_of=as_of)
    assert main([*command, "--table", "small"]) == 1
    assert "0 failed, 16 without data" in capsys.readouterr().out
