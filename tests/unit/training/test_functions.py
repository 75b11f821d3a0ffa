"""A function that trains, in the place of an estimator."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from airflow_provider_xops.errors import XOpsError
from airflow_provider_xops.training.facts import environment_of, logged_params
from airflow_provider_xops.training.fitting import fitted
from airflow_provider_xops.training.functions import (
    GIVEN,
    FunctionEstimator,
    TrainingFunction,
    recorded_function,
)
from airflow_provider_xops.training.metrics import Task
from tests.unit.training import learners

FRAME = pd.DataFrame({"x": [1.0, 2.0, 3.0], "plane": ["N1", "N2", "N3"]})
NUMBERS = FRAME[["x"]]
TRUTH = np.array([0, 1, 1])


def trained(function: Callable[..., Any], frame: Any = NUMBERS, weights: Any = None, **arguments: Any) -> Any:
    estimator = FunctionEstimator(TrainingFunction(function=function, arguments=arguments), 7)
    return fitted(estimator, frame, TRUTH, name="train", weights=weights)


def test_it_is_passed_what_it_names() -> None:
    assert trained(learners.ridge, strength=3.0).coef_ == Ridge(alpha=3.0).fit(NUMBERS, TRUTH).coef_
    weights = np.array([1.0, 2.0, 1.0])
    model = trained(learners.tree, weights=weights, depth=1)
    assert (model.random_state, model.max_depth) == (7, 1)
    assert model.weights_seen_ is weights
    assert trained(learners.everything, extra=1).given == {"seed": 7, "sample_weight": None, "extra": 1}


@pytest.mark.parametrize(
    ("function", "frame", "weights", "code", "hint"),
    [
        (learners.forgets_to_return, NUMBERS, None, "training.estimator", "return the fitted estimator"),
        (learners.raises, FRAME, None, "training.fit_failed", "ValueError"),
        (learners.ridge, NUMBERS, np.ones(3), "training.no_sample_weight", "ridge"),
    ],
)
def test_what_goes_wrong_in_it_is_told_without_data(
    function: Any, frame: Any, weights: Any, code: str, hint: str
) -> None:
    with pytest.raises(XOpsError) as caught:
        trained(function, frame, weights)
    assert caught.value.code == code
    assert hint in str(caught.value)
    assert "N1" not in str(caught.value)


def test_a_function_that_cannot_be_called_so_is_refused() -> None:
    for function, arguments in [
        (learners.no_target, {}),
        (learners.ridge, {"target": 1}),
        (learners.ridge, {"seed": 1}),
    ]:
        with pytest.raises(XOpsError) as caught:
            TrainingFunction(function=function, arguments=arguments)
        assert caught.value.code == "argument.function"


def make(folder: Path, name: str, text: str) -> Callable[..., Any]:
    """A function of a file of its own."""
    import importlib.util

    file = folder / f"{name}.py"
    file.write_text(textwrap.dedent(text))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Any] = module.train
    return found


def test_the_digest_is_of_the_functions_text_alone(tmp_path: Path) -> None:
    body = "def train(features, target):\n    return 1\n"
    plain = make(tmp_path, "plain", body)
    digest = TrainingFunction(function=plain).source_digest()
    assert digest.startswith("sha256:")
    # The same text elsewhere in another file, decorated over two lines, with trailing blanks.
    decorated = make(
        tmp_path, "decorated",
        "import functools\nother = 1\n\n@functools.lru_cache(\n    None)\n" + body.replace("1\n", "1   \n"),
    )  # fmt: skip
    assert TrainingFunction(function=decorated.__wrapped__).source_digest() == digest  # type: ignore[attr-defined]
    changed = make(tmp_path, "changed", body.replace("1", "2"))
    assert TrainingFunction(function=changed).source_digest() != digest


def test_a_function_without_text_is_refused() -> None:
    space: dict[str, Any] = {"__name__": "made"}
    exec("def train(features, target): return 1", space)
    with pytest.raises(XOpsError) as caught:
        TrainingFunction(function=space["train"]).source_digest()
    assert caught.value.code == "user_code.no_source"


def test_a_function_of_a_module_is_found_again_and_one_of_a_dag_file_is_not(tmp_path: Path) -> None:
    settings = TrainingFunction(function=learners.ridge).to_settings()
    assert settings["reference"] == "tests.unit.training.learners:ridge"
    again = recorded_function("ridge", settings, {"strength": 2})
    assert again.function is learners.ridge
    assert again.arguments == {"strength": 2}
    # given: a function as Airflow loads it from a DAG file
    of_dag = make(tmp_path, "unusual_prefix_0a1b2c_daily", "def train(features, target):\n    return 1\n")
    function = TrainingFunction(function=of_dag)
    assert function.name == "daily:train"
    assert set(function.to_settings()) == {"source_digest"}
    with pytest.raises(XOpsError) as caught:
        recorded_function(function.name, function.to_settings(), {})
    assert caught.value.code == "training.not_repeatable"


def test_the_decorator_leaves_out_of_the_call_what_training_passes() -> None:
    # The module of the decorator is parsed with the DAG file and cannot import this one.
    from airflow_provider_xops.decorators import train_model

    assert train_model._GIVEN == GIVEN


def test_a_model_with_an_idea_of_its_own_of_parameters_is_logged_without_them() -> None:
    class Odd:
        def get_params(self) -> dict[str, Any]:  # no `deep`, as scikit-learn's has
            raise AssertionError

        def predict(self, frame: Any) -> Any:
            raise NotImplementedError

    settings = {
        "estimator": "m:f", "target": "y", "sample": None, "seed": 0, "params": {"a": 1}, "features": [],
    }  # fmt: skip
    shown = logged_params(Odd(), settings, Task.REGRESSION)
    assert shown["a"] == 1
    assert "python" in environment_of("m:f", Odd())
