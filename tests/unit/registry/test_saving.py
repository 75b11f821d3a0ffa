"""Saving a model: which format, which trusted types, which digest, and the facts beside it."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from airflow_provider_xops.errors import ModelError
from airflow_provider_xops.registry.artifacts import artifact_digest
from airflow_provider_xops.registry.saving import (
    FACTS_FILE,
    ModelFacts,
    all_trustworthy,
    save_model,
    saved_facts,
)
from tests.unit.registry.builders import selection

FACTS = ModelFacts(
    training=selection("2013-01"),
    holdout=None,
    features=("a", "b"),
    target="y",
    task="classification",
    estimator="sklearn.linear_model:LogisticRegression",
    code_version="git:1",
    params_digest="p",
    metrics={"auc": 0.9},
)
X = pd.DataFrame({"a": np.linspace(0, 1, 20), "b": np.ones(20)})
Y = (X["a"] > 0.5).astype(int)


def secret_of_mine(values):
    return values * 2


def test_a_forest_is_saved_as_skops_with_the_types_a_load_must_trust(tmp_path: Path) -> None:
    saved = save_model(RandomForestClassifier(3).fit(X, Y), tmp_path / "m", facts=FACTS, sample=X.head(2))

    assert (saved.serialization, saved.trusted_types) == ("skops", ("sklearn.tree._tree.Tree",))
    described = yaml.safe_load((tmp_path / "m" / "MLmodel").read_text())
    assert described["flavors"]["sklearn"]["serialization_format"] == "skops"
    assert "scikit-learn==" in (tmp_path / "m" / "requirements.txt").read_text()


def test_a_linear_model_needs_no_trusted_types(tmp_path: Path) -> None:
    saved = save_model(LogisticRegression().fit(X, Y), tmp_path / "m", facts=FACTS)

    assert (saved.serialization, saved.trusted_types) == ("skops", ())


def test_an_estimator_with_a_function_of_the_users_is_saved_as_cloudpickle(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(secret_of_mine), LogisticRegression()).fit(X, Y)

    saved = save_model(model, tmp_path / "m", facts=FACTS)

    assert (saved.serialization, saved.trusted_types) == ("cloudpickle", ())
    assert "cloudpickle==" in (tmp_path / "m" / "requirements.txt").read_text()


def test_what_cannot_be_pickled_is_a_typed_error(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y)
    model.lock = threading.Lock()

    with pytest.raises(ModelError, match=r"model\.not_saved.*LogisticRegression"):
        save_model(model, tmp_path / "m", facts=FACTS)


def test_extra_requirements_replace_the_pinned_ones_of_the_same_name(tmp_path: Path) -> None:
    save_model(
        LogisticRegression().fit(X, Y),
        tmp_path / "m",
        facts=FACTS,
        extra_requirements=["numpy>=2", "mine==1"],
    )

    lines = (tmp_path / "m" / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith(("numpy", "mine"))] == ["numpy>=2", "mine==1"]


def test_the_facts_travel_with_the_model(tmp_path: Path) -> None:
    save_model(LogisticRegression().fit(X, Y), tmp_path / "m", facts=FACTS)

    assert saved_facts(tmp_path / "m" / FACTS_FILE) == FACTS


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 1}'])
def test_unreadable_facts_are_a_typed_error(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / FACTS_FILE
    if text is not None:
        file.write_text(text)

    with pytest.raises(ModelError, match=r"model\.no_facts"):
        saved_facts(file)


@pytest.mark.parametrize(
    ("types", "answer"),
    [
        ([], True),
        (["sklearn.tree._tree.Tree", "numpy.ndarray", "scipy.sparse._csr.csr_matrix"], True),
        (["builtins.eval"], False),
        (["numpy.load"], False),
        (["sklearnx.Evil"], False),
        (["sklearn.tree._tree.Tree", "os.system"], False),
    ],
)
def test_only_types_of_the_scientific_libraries_are_trustworthy(types: list[str], answer: bool) -> None:
    assert all_trustworthy(types) is answer


def test_the_digest_sees_names_and_bytes_and_nothing_else(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, bytes]) -> Path:
        for path, data in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(data)
        return tmp_path / name

    base = artifact_digest(folder("one", {"a/b": b"1", "c": b"2"}))

    assert artifact_digest(folder("two", {"c": b"2", "a/b": b"1"})) == base
    assert artifact_digest(folder("meta", {"a/b": b"1", "c": b"2", "registered_model_meta": b"x"})) == base
    others = [{"a/b": b"1", "c": b"3"}, {"a/c": b"1", "c": b"2"}, {"a/b": b"1"}, {"a/b": b"2", "c": b"1"}]
    digests = [artifact_digest(folder(f"other {number}", files)) for number, files in enumerate(others)]
    assert len({base, *digests}) == len(others) + 1


def test_a_model_without_files_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.no_artifacts"):
        artifact_digest(tmp_path)
