"""Policies are read strictly: what is not understood is refused with its place, and nothing is guessed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from airflow_provider_xops.errors import ArgumentError, UserCodeError
from airflow_provider_xops.evaluation.gates import (
    GATES,
    MetricThreshold,
    SmokeTested,
    gates_from,
    gates_schema,
    policy_from,
)
from tests.unit.evaluation.gates import example_policies
from tests.unit.evaluation.gates.cases import SMALLEST

MODULE = "tests.unit.evaluation.gates.example_policies"
AUC = {"gate": "metric_threshold", "metric": "roc_auc", "minimum": 0.6}


def written(tmp_path: Path, text: str, name: str = "production.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(value: Any) -> ArgumentError:
    with pytest.raises(ArgumentError) as caught:
        policy_from(value)
    return caught.value


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ([{"gate": "beter_than_champion", "metric": "roc_auc"}], "did you mean better_than_champion?"),
        ([{"metric": "roc_auc"}], "metric_threshold"),
        (["roc_auc"], "metric_threshold"),
        ([None], "metric_threshold"),
        (
            [AUC, AUC | {"metric": "roc_auk"}],
            "gate 2: gate metric_threshold names an unknown metric 'roc_auk'",
        ),
        ([{"gate": "metric_threshold", "minimum": 1}], "names no metric"),
        ([{"gate": "metric_threshold", "metric": "roc_auc"}], "minimum"),
        ([AUC | {"minimum": "0.5"}], "minimum: Input should be a valid number"),
        ([AUC | {"minimum": True}], "minimum"),
        ([AUC | {"minimum": math.nan}], "no plain value"),
        ([AUC | {"maximum": 0.1}], "never pass"),
        ([AUC | {"minimun": 0.9}], "did you mean minimum?"),
        ([AUC | {"bound": "lowr"}], "'value', 'lower' or 'upper'"),
        ([{"gate": "better_than_champion", "metric": "roc_auc", "margin": None}], "margin"),
        (
            [{"gate": "better_than_champion", "metric": "roc_auc", "margin": -1, "confidence": 0.9}],
            "not_worse",
        ),
        ([{"gate": "better_than_champion", "metric": "roc_auc", "confidence": 95}], "0.95"),
        ([{"gate": "not_worse_than_champion", "metric": "roc_auc"}], "names no margin"),
        ([{"gate": "approved", "roles": "risk"}], "roles"),
        ([{"gate": "no_worse_slice", "named": [{"name": "n"}]}], "named.0.where"),
        (AUC, "list"),
        (7, "list"),
    ],
)
def test_an_unusable_gate_is_refused_and_the_known_ones_are_listed(value: Any, hint: str) -> None:
    error = refused(value)
    assert error.code == "argument.gate"
    assert hint in str(error)


def test_a_policy_of_a_yaml_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "name: strict\ngates:\n  - {gate: metric_threshold, metric: roc_auc, minimum: 1}\n"
        "  - gate: smoke_tested\n",
    )
    policy = policy_from(path)
    assert (policy.name, policy.gates) == (
        "strict", (MetricThreshold(metric="roc_auc", minimum=1), SmokeTested()),
    )  # fmt: skip
    assert policy_from(f" {path} ") == policy


def test_a_policy_without_a_name_is_called_after_its_file_or_function(tmp_path: Path) -> None:
    assert policy_from(written(tmp_path, json.dumps([AUC]), "nightly.json")).name == "nightly"
    assert policy_from(f"{MODULE}:as_list").name == "as_list"
    assert policy_from(f"{MODULE}:as_mapping").name == "mine"
    assert policy_from(example_policies.as_mapping).name == "mine"
    assert policy_from([AUC]).name == "gates"


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("gates:\n  - gate: smoke_testd\n", "argument.gate", "gate 1: unknown gate 'smoke_testd'"),
        ("gates: [\n", "argument.policy", "line 2"),
        (
            "gates:\n  - {gate: size_budget, maximum_mib: 1, maximum_mib: 99}\n",
            "argument.policy",
            "is there twice",
        ),
        ("gates: []\ngates: []\n", "argument.policy", "is there twice"),
        ("gates:\n  - {gate: size_budget, ? [a, b] : 3}\n", "argument.policy", "a key is no text"),
        ("gates:\n  - {gate: [smoke_tested]}\n", "argument.gate", "unknown gate"),
        ("gate: smoke_tested\n", "argument.gate", "a list"),
        ("name: x\n", "argument.policy", "no list of gates"),
        ("name: 7\ngates: []\n", "argument.policy", "no text"),
        ("gates: []\ngate_s: []\n", "argument.policy", "did you mean gates?"),
        ("gates: smoke_tested\n", "argument.gate", "a list"),
        ("just a text", "argument.gate", "a list"),
        ("", "argument.gate", "a list"),
        ("gates:\n  - !!python/object/apply:os.system ['true']\n", "argument.policy", "python/object"),
        ("gates:\n  - {gate: data_fresh, maximum_days: 2026-01-01}\n", "argument.gate", "no plain value"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_place(
    tmp_path: Path, text: str, code: str, hint: str
) -> None:
    path = written(tmp_path, text)
    error = refused(path)
    assert error.code == code
    assert str(path) in str(error)
    assert hint in str(error)


def test_a_json_file_that_is_none(tmp_path: Path) -> None:
    assert refused(written(tmp_path, "{", "p.json")).code == "argument.policy"
    assert refused(tmp_path / "nothing.yaml").code == "argument.policy_missing"
    assert refused("  ").code == "argument.empty"


def test_a_function_that_cannot_be_called_or_misspells(tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match=r"user_code\.raised"):
        policy_from(f"{MODULE}:broken")
    with pytest.raises(UserCodeError, match=r"user_code\.not_found"):
        policy_from(f"{MODULE}:nobody")
    with pytest.raises(UserCodeError, match=r"user_code\.malformed"):
        policy_from("metric_threshold")
    assert f"{MODULE}:misspelled: gate 1" in str(refused(f"{MODULE}:misspelled"))


def test_the_digest_is_of_the_gates_and_not_of_the_name() -> None:
    one, other = policy_from([AUC], name="one"), policy_from([AUC], name="other")
    assert one.digest == other.digest
    assert one.digest != policy_from([AUC | {"minimum": 0.7}]).digest
    assert one.digest != policy_from([AUC, {"gate": "smoke_tested"}]).digest
    assert policy_from(one) is one
    assert gates_from(one) == one.gates


@pytest.mark.parametrize("kind", GATES)
def test_the_schema_accepts_what_is_read(kind: str) -> None:
    validator = jsonschema.Draft202012Validator(gates_schema())
    validator.check_schema(validator.schema)
    smallest = {"gate": kind, **SMALLEST.get(kind, {})}
    (gate,) = gates_from([smallest])
    assert validator.is_valid({"gates": [smallest]})
    assert validator.is_valid({"name": "x", "gates": [gate.to_json()]})
    assert not validator.is_valid({"gates": [smallest | {"unheard_of": 1}]})


@pytest.mark.parametrize(
    "document",
    [
        {"gates": []},
        {"gates": [{"gate": "unheard_of"}]},
        {"gates": [AUC | {"metric": "auc"}]},
        {"gates": [AUC | {"minimum": "0.5"}]},
        {"gates": [AUC], "other": 1},
        {"gates": [{"gate": "no_worse_slice", "named": [{"name": "n"}]}]},
        {},
    ],
)
def test_the_schema_refuses_what_is_refused(document: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(gates_schema()).is_valid(document)


def test_the_reference_flows_policy_is_one() -> None:
    from airflow_provider_xops.examples.flights import gates

    policy = policy_from(gates.POLICY)
    assert policy.name == "flights_late_arrival"
    text = Path(gates.__file__).with_name("gates.yaml").read_text(encoding="utf-8")
    jsonschema.Draft202012Validator(gates_schema()).validate(yaml.safe_load(text))


def test_a_key_that_is_there_twice_is_a_mistake_in_json_too(tmp_path: Path) -> None:
    text = '{"gates": [{"gate": "size_budget", "maximum_mib": 1, "maximum_mib": 900}]}'
    error = refused(written(tmp_path, text, "policy.json"))
    assert error.code == "argument.policy"
    assert "'maximum_mib' is there twice" in str(error)
