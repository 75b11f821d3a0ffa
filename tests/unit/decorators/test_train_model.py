"""The decorator while a DAG file is parsed: what it binds, refuses and leaves to training."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_xops.decorators.train_model import TrainModelDecoratedOperator, train_model_task
from airflow_provider_xops.errors import ArgumentError

GIVEN: dict[str, Any] = {"table": "t", "target": "late", "split": {"kind": "random"}, "model_name": "m"}


def learn(features: Any, target: Any, sample_weight: Any, seed: int, rate: float, *, depth: int = 2) -> Any:
    """Learns."""


def more(features: Any, target: Any, **more: Any) -> Any:
    """Takes everything."""


def operator(function: Any = learn, *args: Any, default_args: Any = None, **kwargs: Any) -> Any:
    from airflow.sdk import DAG

    with DAG("d", schedule=None, default_args=default_args or {}):
        given = {name: value for name, value in GIVEN.items() if name not in (default_args or {})}
        return train_model_task(function, **given)(*args, **kwargs).operator


def test_the_call_in_the_dag_gives_only_the_functions_own_parameters() -> None:
    task = operator(learn, 0.1, depth=3)
    assert isinstance(task, TrainModelDecoratedOperator)
    assert task.task_id == "learn"
    assert task.doc_md == "Learns."
    function = task.learner(None)["estimator"]
    assert function.function is learn
    assert function.arguments == {"rate": 0.1, "depth": 3}
    assert operator(more, a=1, b=2).learner(None)["estimator"].arguments == {"a": 1, "b": 2}


def test_the_functions_arguments_and_the_trainings_are_templates() -> None:
    task = operator(learn, 0.1)
    assert {"op_args", "op_kwargs", "dataset", "table", "split", "lake_conn_id"} <= set(task.template_fields)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((0.1, 2), {}), ((0.1,), {"width": 3}), ((0.1,), {"target": "late"})]
)
def test_a_call_that_does_not_fit_is_refused_while_parsing(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        operator(learn, *args, **kwargs)


def test_what_training_passes_cannot_be_given_by_the_call() -> None:
    with pytest.raises(ArgumentError) as caught:
        operator(more, target="late").learner(None)
    assert caught.value.code == "argument.function"


def test_what_is_in_airflows_context_is_not_passed_and_says_so() -> None:
    def dated(features: Any, target: Any, ds: str) -> Any:
        return None

    with pytest.raises(ArgumentError, match="'ds'") as caught:
        operator(dated).learner(None)
    assert caught.value.code == "argument.function"
    assert operator(dated, ds="2026-01-01").learner(None)["estimator"].arguments == {"ds": "2026-01-01"}


def test_default_arguments_of_the_dag_are_the_tasks_and_the_functions_own() -> None:
    task = operator(learn, default_args={"target": "delay", "seed": 3, "rate": 0.5, "model_name": "other"})
    assert (task.target, task.seed, task.model_name) == ("delay", 3, "other")
    assert task.learner(None)["estimator"].arguments == {"rate": 0.5}


def test_what_belongs_to_a_named_estimator_is_refused() -> None:
    with pytest.raises(TypeError, match="batch_rows"):
        train_model_task(learn, **GIVEN, batch_rows=10)(0.1)
