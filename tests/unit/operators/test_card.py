"""Which version the card operator writes about."""

from __future__ import annotations

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.operators._card import WriteModelCardOperator
from airflow_provider_xops.records import ModelVersion, PromotionDecision, PromotionOutcome, Record
from tests.unit.evaluation import report_samples as samples


def version_of(lake: Lake, given: Record) -> ModelVersion:
    return WriteModelCardOperator(task_id="card", model=given)._version(lake)


def decision(model: ModelVersion, version: int | None) -> PromotionDecision:
    return PromotionDecision(
        recorded_at=samples.NOW, produced_by=samples.ACTOR.producer, model=model.name, alias="champion",
        sequence=1, outcome=PromotionOutcome.ROLLED_BACK, reason="r", expected=None, from_version=None,
        to_version=version, to_created_at_ms=model.created_at_ms if version else None, artifact_digest=None,
        evidence=(), idempotency_key="k", previous_hash="", entry_hash="h",
    )  # fmt: skip


def test_every_output_that_names_a_version_is_taken(lake: Lake) -> None:
    model = samples.model(3)
    lake.evidence.put(model)

    for given in (model, samples.full()[0], decision(model, 3)):
        assert version_of(lake, given) == model


def test_a_decision_that_left_no_version_is_refused_by_name(lake: Lake) -> None:
    with pytest.raises(ArgumentError) as refused:
        version_of(lake, decision(samples.model(3), None))

    assert refused.value.code == "argument.model"
    assert "names no version" in str(refused.value)
