"""The links on a task's page."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_xops.links.evidence import (
    ControlChartsLink,
    DataDocsLink,
    EvaluationReportLink,
    EvidenceLink,
    ModelCardLink,
    ProfileLink,
    QuarantineReportLink,
    ValidationReportLink,
)
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_provider_xops.links.serving import ServingLink
from airflow_provider_xops.operators._base import RegistryOperator
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.settings import MlflowSettings

LINKS = [
    EvidenceLink,
    ValidationReportLink,
    DataDocsLink,
    QuarantineReportLink,
    ProfileLink,
    ControlChartsLink,
    EvaluationReportLink,
    ModelCardLink,
    MlflowRunLink,
    MlflowModelVersionLink,
    ServingLink,
]


@pytest.mark.parametrize("link", LINKS, ids=lambda cls: cls.__name__)
def test_task_that_died_early_has_an_empty_link_and_no_error(link: type) -> None:
    assert link().get_link(RegistryOperator(task_id="t"), ti_key=None) == ""


def test_names_and_keys_are_distinct() -> None:
    assert {link().name for link in LINKS} == {
        "XOps evidence",
        "Validation report",
        "Data Docs",
        "Quarantine report",
        "Profile",
        "Control charts",
        "Evaluation report",
        "Model card",
        "MLflow run",
        "MLflow model version",
        "What serves now",
    }
    assert len({link().xcom_key for link in LINKS}) == len(LINKS)


@pytest.mark.parametrize("lake", ["/data/lake", "s3://bucket/lake"])
def test_links_into_the_lake_lead_to_pages_of_this_airflow(lake: str) -> None:
    operator = SimpleNamespace(
        lake_conn_id="my lake",
        evidence_uri=f"{lake}/_xops/evidence/versions/abc.json",
        report_uri=f"{lake}/_xops/reports/validations/abc.html",
        data_docs_uri=f"{lake}/_xops/reports/validations/abc.data_docs.html",
        quarantine_uri=f"{lake}/_xops/reports/quarantines/abc.html",
    )

    assert EvidenceLink().get_link(operator, ti_key=None) == "/xops/lakes/my%20lake/evidence/versions/abc"
    report = ValidationReportLink().get_link(operator, ti_key=None)
    assert report == "/xops/lakes/my%20lake/reports/validations/abc.html"
    docs = DataDocsLink().get_link(operator, ti_key=None)
    assert docs == "/xops/lakes/my%20lake/reports/validations/abc.data_docs.html"
    aside = QuarantineReportLink().get_link(operator, ti_key=None)
    assert aside == "/xops/lakes/my%20lake/reports/quarantines/abc.html"


def test_links_follow_an_airflow_that_is_served_under_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.com/team-a/airflow/")
    operator = SimpleNamespace(lake_conn_id="x", evidence_uri="/lake/_xops/evidence/pins/abc.json")

    link = EvidenceLink().get_link(operator, ti_key=None)

    assert link == "/team-a/airflow/xops/lakes/x/evidence/pins/abc"
    operator = SimpleNamespace(serving_conn_id="models/eu", served=("late flights", "champion-eu"))
    link = ServingLink().get_link(operator, ti_key=None)
    assert link == "/team-a/airflow/xops/serving/models%2Feu/late%20flights/champion-eu"


def test_a_decision_has_no_evidence_page_because_the_ledger_holds_it() -> None:
    operator = SimpleNamespace(lake_conn_id="x", evidence_uri="/lake/_xops/evidence/decisions/abc.json")

    assert EvidenceLink().get_link(operator, ti_key=None) == ""


def test_mlflow_links_lead_to_the_ui_address_without_credentials() -> None:
    settings = MlflowSettings(
        tracking_uri="http://user:hunter2@mlflow:5000", ui_url="https://ui.example.com/", token="hunter2"
    )
    operator = RegistryOperator(task_id="t")
    operator.link_model(RegistryClient(settings), "late flights", 3, run_id="abc", experiment_id="7")

    assert (
        MlflowRunLink().get_link(operator, ti_key=None) == "https://ui.example.com/#/experiments/7/runs/abc"
    )
    version = MlflowModelVersionLink().get_link(operator, ti_key=None)
    assert version == "https://ui.example.com/#/models/late%20flights/versions/3"


def test_links_of_a_model_without_a_run_are_empty() -> None:
    operator = RegistryOperator(task_id="t")
    operator.link_model(RegistryClient(MlflowSettings(tracking_uri="http://mlflow")), "m", 1)

    assert MlflowRunLink().get_link(operator, ti_key=None) == ""
