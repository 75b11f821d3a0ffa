"""Documents on a real MLflow server: attached once, described without harm, and written by a DAG's task."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_xops.errors import UnavailableError
from airflow_provider_xops.evaluation import report
from airflow_provider_xops.evaluation._document import without_links
from airflow_provider_xops.evaluation.card import write_card
from airflow_provider_xops.evaluation.evaluate import evaluate
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor, Evaluation, ModelCard, ModelVersion
from airflow_provider_xops.registry import documents
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.registry.documents import BEGIN, END
from airflow_provider_xops.settings import MlflowSettings
from airflow_provider_xops.training.fit import train
from tests import servers
from tests.integration.dag_runs import Run, tries, xcoms

DAYS = [f"2013-01-{day:02d}" for day in range(1, 7)]
PLAN = {"resamples": 200, "slices": {"find": False}, "explanation": {"repeats": 1}}
LIMITS = "Nothing is known about other airports."


@pytest.fixture
def client(mlflow_server: servers.MlflowServer) -> RegistryClient:
    return RegistryClient(mlflow_server.settings())


@pytest.fixture
def model(
    lake: Lake, client: RegistryClient, make_actor: Callable[..., Actor], as_of: datetime
) -> ModelVersion:
    rng = np.random.default_rng(0)

    def day() -> Any:
        x = rng.normal(size=60)
        return pa.table({"x": x, "late": (x + rng.normal(size=60) > 0).astype(np.int64)}).to_reader

    segments = [Segment(name, name, day()) for name in DAYS]
    dataset = commit(lake, "flights", segments, actor=make_actor(), as_of=as_of).record.ref
    return train(
        lake, client, dataset=dataset, estimator="sklearn.linear_model:LogisticRegression", params={},
        target="late", split={"kind": "time", "holdout_partitions": 2}, features=["x"],
        model_name=f"late-{uuid.uuid4().hex[:8]}", actor=make_actor(key="train"), as_of=as_of,
    )  # fmt: skip


@pytest.fixture
def evaluation(
    lake: Lake, client: RegistryClient, model: ModelVersion, make_actor: Callable[..., Actor], as_of: datetime
) -> Evaluation:
    return evaluate(
        lake, client, challenger=model, champion=None, plan=PLAN,
        gates=[{"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.5}],
        actor=make_actor(key="judge"), as_of=as_of,
    )  # fmt: skip


def artifacts(client: RegistryClient, model: ModelVersion, folder: str = "xops") -> dict[str, int]:
    with client.session("listing artifacts in a test") as mlflow:
        return {one.path: one.file_size for one in mlflow.list_artifacts(model.run_id, folder)}


def history(client: RegistryClient, model: ModelVersion, metric: str) -> list[Any]:
    with client.session("reading a metric in a test") as mlflow:
        return list(mlflow.get_metric_history(model.run_id, metric))


def description(client: RegistryClient, model: ModelVersion) -> str:
    return str(client.get_version(model.name, model.version).description or "")


def describe_by_hand(client: RegistryClient, model: ModelVersion, text: str) -> None:
    with client.session("describing in a test") as mlflow:
        mlflow.update_model_version(model.name, str(model.version), text)


def test_report_of_an_evaluation_is_in_the_lake_and_on_the_run_once(
    lake: Lake, client: RegistryClient, model: ModelVersion, evaluation: Evaluation
) -> None:
    assert evaluation.report_uri is not None
    page = lake.storage.get(f"_xops/reports/evaluations/{evaluation.record_id}.html") or b""
    assert b"ROC curve" in page

    for _ in range(2):
        assert report.attach(client, model, lake, evaluation) is True

    found = artifacts(client, model)
    assert set(found) >= {"xops/evaluation.html", "xops/evaluation.json"}
    assert found["xops/evaluation.html"] == len(without_links(page))
    figure = next(one for one in evaluation.figures if one.metric == "roc_auc")
    for name, value in (("", figure.value), ("_lower", figure.lower), ("_upper", figure.upper)):
        (logged,) = history(client, model, f"eval.roc_auc{name}")
        assert logged.value == value


def test_run_that_was_deleted_or_never_was_is_no_error(
    lake: Lake, client: RegistryClient, model: ModelVersion, evaluation: Evaluation
) -> None:
    with client.session("deleting a run in a test") as mlflow:
        mlflow.delete_run(model.run_id)
    stranger = dataclasses.replace(model, run_id=uuid.uuid4().hex)

    assert report.attach(client, model, lake, evaluation) is False
    assert report.attach(client, stranger, lake, evaluation) is False


def test_server_that_is_down_is_retried_later_and_changes_nothing_in_the_lake(
    lake: Lake, model: ModelVersion, make_actor: Callable[..., Actor], as_of: datetime
) -> None:
    down = RegistryClient(
        MlflowSettings(tracking_uri=f"http://127.0.0.1:{servers.free_ports(1)[0]}", max_retries=0)
    )

    with pytest.raises(UnavailableError) as error:
        write_card(lake, down, model, actor=make_actor(), as_of=as_of)

    assert error.value.retryable
    (card,) = lake.evidence.all(ModelCard.kind)
    assert write_card(lake, None, model, actor=make_actor(), as_of=as_of) == card


def test_card_is_in_the_lake_on_the_run_and_in_the_description_beside_what_people_wrote(
    lake: Lake, client: RegistryClient, model: ModelVersion, evaluation: Evaluation,
    make_actor: Callable[..., Actor], as_of: datetime,
) -> None:  # fmt: skip
    describe_by_hand(client, model, "Ask Ann before you use this.")

    card = write_card(lake, client, model, limits=LIMITS, actor=make_actor(), as_of=as_of)

    assert evaluation.record_id in card.made_from
    assert set(artifacts(client, model)) >= {"xops/model_card.md", "xops/model_card.html"}
    told = description(client, model)
    assert told.startswith("Ask Ann before you use this.")
    assert LIMITS in told
    assert "| roc_auc |" in told
    assert card.report_uri is not None
    assert card.report_uri in told

    # when somebody adds to it and the card is written again, with other words
    describe_by_hand(client, model, f"{told}\n\nSeen by Bo.")
    write_card(lake, client, model, limits="None.", actor=make_actor(), as_of=as_of + timedelta(days=1))

    again = description(client, model)
    assert again.startswith("Ask Ann before you use this.")
    assert again.endswith("Seen by Bo.")
    assert LIMITS not in again
    assert again.count(BEGIN) == again.count(END) == 1


def test_longest_description_that_we_write_is_taken_by_the_server(
    client: RegistryClient, model: ModelVersion
) -> None:
    long = "\n".join(f"| gate {number} | **failed** ü |" for number in range(2000))

    assert documents.describe(client, model, long) is True

    kept = description(client, model)
    assert documents.DESCRIPTION_LIMIT - 60 < len(kept) <= documents.DESCRIPTION_LIMIT
    assert documents.describe(client, model, long) is False


def test_version_that_was_made_anew_is_not_described(
    client: RegistryClient, model: ModelVersion, caplog: pytest.LogCaptureFixture
) -> None:
    older = dataclasses.replace(model, created_at_ms=model.created_at_ms - 1, record_id="")

    with caplog.at_level(logging.WARNING):
        assert documents.describe(client, older, "# card") is False

    assert description(client, model) == ""
    assert "left alone" in caplog.text


@pytest.mark.usefixtures("airflow_db")
def test_task_writes_the_card_of_what_the_task_before_it_handed_over(
    lake_connection: Lake, mlflow_connection: servers.MlflowServer, client: RegistryClient,
    model: ModelVersion, evaluation: Evaluation, run: Run, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from airflow.sdk import DAG

    from airflow_provider_xops.operators.model import PromoteModelOperator, WriteModelCardOperator

    with DAG(dag_id="writes_cards", schedule=None, params={"limits": LIMITS}) as dag:
        promote = PromoteModelOperator(task_id="promote", evaluation=evaluation.record_id)
        after = WriteModelCardOperator(
            task_id="card", model=promote.output, limits="{{ params.limits }}", contacts='["ann@example.org"]'
        )
        WriteModelCardOperator(task_id="by_record", model=model.record_id) << after
        WriteModelCardOperator(task_id="of_evaluation", model=evaluation.to_json()) << after

    dag_run = run(dag)

    assert tries(dag_run) == dict.fromkeys(("promote", "card", "by_record", "of_evaluation"), ("success", 1))
    told = xcoms(dag_run, "card")
    card = lake_connection.evidence.get(ModelCard.kind, told["return_value"]["record_id"])
    assert isinstance(card, ModelCard)
    assert card.model == model.ref
    assert card.produced_by.dag_id == "writes_cards"
    page = (lake_connection.storage.get(f"_xops/reports/cards/{card.record_id}.html") or b"").decode()
    assert "In use: champion since" in page
    assert LIMITS in page
    assert "ann@example.org" in page
    assert told["_link_ModelCardLink"].endswith(f"/reports/cards/{card.record_id}.html")
    assert told["_link_EvidenceLink"].endswith(f"/evidence/model_cards/{card.record_id}")
    assert f"/versions/{model.version}" in told["_link_MlflowModelVersionLink"]
    same = [xcoms(dag_run, task)["return_value"]["record_id"] for task in ("by_record", "of_evaluation")]
    assert same[0] == same[1] != card.record_id
    assert "hunter2-secret" not in "".join(capfd.readouterr())
