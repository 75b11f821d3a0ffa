"""Promotion takes an evaluation only for the alias whose champion it met."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Evaluation, ModelVersion, PromotionOutcome
from airflow_provider_xops.registry import ledger
from airflow_provider_xops.registry.promote import PromotionResult, check_evaluation, promote
from tests.unit.registry.builders import AS_OF, a_model, a_recorded_evaluation, an_actor, an_evaluation
from tests.unit.registry.fake_registry import FakeRegistry, recorded_models


@pytest.fixture
def registry() -> Any:
    return FakeRegistry()


@pytest.fixture
def model(lake: Lake) -> ModelVersion:
    return recorded_models(lake, 1)[0]


def evaluated_for(lake: Lake, model: ModelVersion, alias: str) -> Evaluation:
    made = dataclasses.replace(an_evaluation(model), alias=alias, record_id="")
    lake.evidence.put(made)
    return made


def decided(
    lake: Lake, registry: Any, model: ModelVersion, evaluation: Evaluation, alias: str
) -> PromotionResult:
    return promote(
        lake, registry, model=model, alias=alias, expected=None, evaluation=evaluation,
        actor=an_actor(alias), as_of=AS_OF,
    )  # fmt: skip


def test_an_evaluation_for_another_alias_is_refused_though_the_champions_are_the_same(
    lake: Lake, registry: Any, model: ModelVersion
) -> None:
    evaluation = evaluated_for(lake, model, "champion-eu")

    with pytest.raises(ArgumentError, match="evaluated for champion-eu, asked about is champion") as raised:
        decided(lake, registry, model, evaluation, "champion")

    assert raised.value.code == "argument.evaluation"
    assert (registry.pointed, ledger.entries(lake)) == ({}, [])
    done = decided(lake, registry, model, evaluation, "champion-eu")
    assert (done.decision.outcome, registry.pointed) == (PromotionOutcome.PROMOTED, {"champion-eu": 1})


def test_to_change_the_alias_on_the_way_makes_another_record_which_nobody_has(
    lake: Lake, registry: Any, model: ModelVersion
) -> None:
    evaluation = evaluated_for(lake, model, "champion-eu")

    for alias in ("champion", ""):
        made_up = dataclasses.replace(evaluation, alias=alias, record_id="")
        with pytest.raises(ArgumentError, match="the lake has no record") as raised:
            decided(lake, registry, model, made_up, "champion")
        assert raised.value.code == "argument.evaluation"
    assert ledger.entries(lake) == []


def test_an_evaluation_that_does_not_say_serves_any_alias_with_that_champion(
    lake: Lake, registry: Any, model: ModelVersion
) -> None:
    evaluation = a_recorded_evaluation(lake, model)

    for alias in ("champion", "champion-eu"):
        assert decided(lake, registry, model, evaluation, alias).decision.outcome is PromotionOutcome.PROMOTED


def test_the_field_changes_no_id_that_was_given_before_there_was_one() -> None:
    plain = an_evaluation(a_model())

    assert plain.record_id == "f6ce26042f189a5dbcdfa4c0212a26db"
    assert {
        dataclasses.replace(plain, alias=alias, record_id="").record_id for alias in ("", "champion", "x")
    } > {plain.record_id}
    old = {name: value for name, value in plain.to_json().items() if name != "alias"}
    assert Evaluation.from_json(old) == plain


def test_an_evaluation_of_another_version_is_refused_first() -> None:
    with pytest.raises(ArgumentError, match="the evaluation is of late v2, not of late v1"):
        check_evaluation(an_evaluation(a_model(2)), a_model(1), "champion")
