"""``@task.train_model``: a function of the DAG file that trains, and a task that does everything around it.

For DAG files::

    @task.train_model(table="daily", target="late", split={"kind": "random"}, model_name="late")
    def train(features, target, seed, *, rate=0.1):
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(learning_rate=rate, random_state=seed).fit(features, target)

    model = train(rate=0.05)

The function is given the training rows of the split and returns a fitted estimator; never does it see the
holdout. The task does the rest as :class:`~airflow_provider_xops.operators.model.TrainModelOperator` does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DecoratedOperator, task_decorator_factory

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.operators._model_writing import TrainingOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import TaskDecorator

    from airflow_provider_xops.lake.lake import Lake

__all__ = ["train_model_task"]

# What training passes by itself; as in `training.functions`, which costs too much to import while parsing.
_GIVEN = ("features", "target", "sample_weight", "seed")


class TrainModelDecoratedOperator(DecoratedOperator, TrainingOperator):
    """The task behind ``@task.train_model``: the decorated function learns, training does the rest.

    :param python_callable: the function. :param op_args: what it was called with in the DAG, by position.
    :param op_kwargs: and by name. Neither may name what training passes: ``features``, ``target``,
        ``sample_weight``, ``seed``.
    """

    template_fields = ("op_args", "op_kwargs", *TrainingOperator.template_fields)
    template_fields_renderers = DecoratedOperator.template_fields_renderers
    custom_operator_name: str = "@task.train_model"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # Airflow binds the call against the signature; what training passes is no part of the call.
        super().__init__(
            python_callable=_without_given(python_callable), op_args=op_args, op_kwargs=op_kwargs, **kwargs
        )
        self.python_callable = python_callable

    def _hook_apply_defaults(self, *args: Any, **kwargs: Any) -> Any:
        # Airflow fills a function's parameters from default_args; `target` and `seed` there are the task's.
        if "python_callable" in kwargs:
            shown = {**kwargs, "python_callable": _without_given(kwargs["python_callable"])}
            args, filled = super()._hook_apply_defaults(*args, **shown)  # type: ignore[no-untyped-call]
            kwargs = {**filled, "python_callable": kwargs["python_callable"]}
        return args, kwargs

    def learner(self, lake: Lake) -> dict[str, Any]:
        """The decorated function, with the arguments of its call."""
        from airflow_provider_xops.training.functions import TrainingFunction

        signature = inspect.signature(_without_given(self.python_callable))
        try:
            bound = signature.bind(*self.op_args, **self.op_kwargs)
        except TypeError as error:
            # While parsing, Airflow lets a parameter pass that has the name of something in its context.
            raise ArgumentError(
                f"{self.python_callable.__name__} cannot be called: {error}", code="argument.function",
                why="Airflow's context is not passed to a function that trains",
                todo="give the argument in the call, for example ds='{{ ds }}'",
            ) from None  # fmt: skip
        arguments: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                arguments |= value
            else:
                arguments[name] = value
        return {"estimator": TrainingFunction(function=self.python_callable, arguments=arguments)}


def train_model_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a training task of a function ``(features, target, ...) -> fitted estimator``.

    :param python_callable: the function. Of ``features`` (a data frame: one row a training row), ``target``
        (an array), ``sample_weight`` (an array, or None) and ``seed`` it is passed those it names; further
        parameters are passed by the call in the DAG and must be JSON-able.
    :param kwargs: as :class:`~airflow_provider_xops.operators.model.TrainModelOperator`: ``model_name``,
        ``table`` or ``dataset``, ``target``, ``split``, ``features``, ``sample_weight``, ``cross_validation``
        and so on. What is of a named estimator there (``estimator``, ``estimator_params``, ``batch_rows``,
        ``epochs``, ``tuning``) is not taken.
    :raises TrainingError: the function raised, or what it returned cannot predict: no version is made.

    The task returns the record of the model version. Its code version is the digest of the function's text:
    another text is other work, the same text with the same data is not trained twice.

    What it does not do: it does not see when a helper changes that the function calls; and a model of a
    function in a DAG file cannot be reproduced by ``xops reproduce``, because no other process can import it.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=False,
        decorated_operator_class=TrainModelDecoratedOperator,
        **kwargs,
    )


def _without_given(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a signature that lacks what training passes."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    signature = inspect.signature(function)
    left = [parameter for name, parameter in signature.parameters.items() if name not in _GIVEN]
    called.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    return called
