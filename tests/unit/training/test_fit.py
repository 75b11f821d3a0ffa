"""What training refuses before it reads a row or opens a run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Actor
from airflow_provider_xops.registry.client import RegistryClient
from airflow_provider_xops.settings import MlflowSettings
from airflow_provider_xops.training.fit import build, train

LOGISTIC = "sklearn.linear_model:LogisticRegression"


def make_pipeline_with_seed(*, seed: int, depth: int = 2) -> Any:
    """A factory that takes the seed."""
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier

    assert seed == 7
    return make_pipeline(DecisionTreeClassifier(max_depth=depth))


def make_nothing() -> Any:
    """A factory that is none."""
    return {"not": "an estimator"}


def fails_to_make(*, airport: str) -> Any:
    raise RuntimeError(f"no such airport: '{airport}'")


def test_a_factory_gets_the_seed_and_open_random_states_are_set() -> None:
    model = build(f"{__name__}:make_pipeline_with_seed", {"depth": 3}, 7)
    assert model.get_params()["decisiontreeclassifier__random_state"] == 7
    assert model.get_params()["decisiontreeclassifier__max_depth"] == 3


def test_a_random_state_that_was_given_stays() -> None:
    assert build(LOGISTIC, {"random_state": 3}, 7).random_state == 3
    assert build(LOGISTIC, {}, 7).random_state == 7


@pytest.mark.parametrize(
    ("change", "code", "hint"),
    [
        (
            {"estimator": "sklearn.linear_model:LogistcRegression"},
            "user_code.not_found",
            "LogisticRegression",
        ),
        ({"estimator": "my_model"}, "user_code.malformed", "package.module:function"),
        ({"estimator": f"{__name__}:make_nothing"}, "training.estimator", "fit and predict"),
        (
            {"estimator": f"{__name__}:fails_to_make", "params": {"airport": "JFK"}},
            "training.estimator",
            "RuntimeError",
        ),
        ({"params": {"C": object()}}, "argument.params", "C"),
        ({"params": {"C": float("nan")}}, "argument.params", "C"),
        ({"params": {"depth": 3}}, "training.estimator", "depth"),
        ({"features": ["x", "late"]}, "argument.features", "late"),
        ({"features": []}, "argument.features", "at least one"),
        ({"drop": ["x"]}, "argument.features", "at least one"),
        ({"split": {"kind": "shuffle"}}, "argument.split", "random"),
        ({"partitions": ["d9"]}, "not_found.partition", "d9"),
    ],
)
def test_training_refuses_what_it_cannot_do_before_it_asks_mlflow(
    lake: Lake,
    make_actor: Callable[..., Actor],
    as_of: datetime,
    change: dict[str, Any],
    code: str,
    hint: str,
) -> None:
    # given: a registry that nobody answers at; none of this may need it
    nobody = RegistryClient(MlflowSettings(tracking_uri="http://127.0.0.1:9", max_retries=0, timeout_s=1))
    table = pa.table({"x": [1.0, 2.0], "late": [0, 1]})
    ref = commit(lake, "t", [Segment("d1", "f", table.to_reader)], actor=make_actor(), as_of=as_of).record.ref
    arguments: dict[str, Any] = {"estimator": LOGISTIC, "split": {"kind": "random"}, **change}
    with pytest.raises(XOpsError) as caught:
        train(
            lake,
            nobody,
            dataset=ref,
            target="late",
            model_name="m",
            actor=make_actor(),
            as_of=as_of,
            **arguments,
        )
    assert caught.value.code == code
    assert hint in str(caught.value)
    assert "JFK" not in str(caught.value)
    assert not caught.value.retryable
