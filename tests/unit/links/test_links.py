"""The links on a task's page."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_xops.links.evidence import EvidenceLink, ValidationReportLink
from airflow_provider_xops.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_provider_xops.operators._base import RegistryOperator
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.settings import MlflowSettings

LINKS = [EvidenceLink, ValidationReportLink, MlflowRunLink, MlflowModelVersionLink]


@pytest.mark.parametrize("link", LINKS, ids=lambda cls: cls.__name__)
def test_task_that_died_early_has_an_empty_link_and_no_error(link: type) -> None:
    assert link().get_link(RegistryOperator(task_id="t"), ti_key=None) == ""


def test_names_and_keys_are_distinct() -> None:
    assert {link().name for link in LINKS} == {
        "XOps evidence",
        "Validation report",
        "MLflow run",
        "MLflow model version",
    }
    assert len({link().xcom_key for link in LINKS}) == len(LINKS)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/lake/_xops/evidence/a.json", "file:///lake/_xops/evidence/a.json"),
        ("s3://b/lake/a.json", "s3://b/lake/a.json"),
    ],
)
def test_evidence_link_is_a_uri(uri: str, expected: str) -> None:
    operator = SimpleNamespace(evidence_uri=uri, report_uri=uri)

    assert EvidenceLink().get_link(operator, ti_key=None) == expected
    assert ValidationReportLink().get_link(operator, ti_key=None) == expected


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
