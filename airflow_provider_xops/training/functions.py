"""A function that trains: given the features and the target, it gives a fitted estimator.

For the ``@task.train_model`` decorator and notebooks. Such a function may do what no constructor's arguments
express: early stopping on a part of its own, two models in one, a library without ``fit``. What it learns
from, how it is judged and where it is registered are the same as for a named estimator.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from airflow_provider_xops.errors import ArgumentError, TrainingError, UserCodeError
from airflow_provider_xops.usercode import reference_of, resolve_callable

__all__ = ["GIVEN", "FunctionEstimator", "TrainingFunction", "recorded_function"]

# What training itself passes, under these names, where the function has them.
GIVEN = ("features", "target", "sample_weight", "seed")
# Airflow imports DAG files as modules of this made-up name, followed by the file's own.
DAG_FILE = re.compile(r"unusual_prefix_[0-9a-f]+_")


@dataclass(frozen=True, kw_only=True)
class TrainingFunction:
    """A function ``(features, target, ...) -> fitted estimator`` and the further arguments of this training.

    :param function: it takes ``features`` (a data frame), ``target`` (an array) and, where it names them,
        ``sample_weight`` and ``seed``.
    :param arguments: further keyword arguments, JSON-able.
    """

    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        taken = sorted(set(self.arguments) & set(GIVEN))
        if taken:
            raise ArgumentError(
                f"{self.name} was given {', '.join(taken)}", code="argument.function",
                why="training passes them itself", todo="rename the function's own parameters",
            )  # fmt: skip
        missing = [name for name in GIVEN[:2] if not self.takes(name)]
        if missing:
            raise ArgumentError(
                f"{self.name} has no parameter {' and '.join(missing)}", code="argument.function",
                why="it is called with the features and the target of the training rows",
                todo="def train(features, target, ...): return a fitted estimator",
            )  # fmt: skip

    @property
    def name(self) -> str:
        """``module:function``; of a function in a DAG file, the file's name and its own."""
        module = DAG_FILE.sub("", self.function.__module__ or "")
        return f"{module}:{self.function.__qualname__}"

    def takes(self, argument: str) -> bool:
        """Whether the function can be called with a keyword argument of this name."""
        parameters = inspect.signature(self.function).parameters
        if argument in parameters:
            return parameters[argument].kind is not inspect.Parameter.POSITIONAL_ONLY
        return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())

    def source_digest(self) -> str:
        """``sha256:<hash>`` of the function's text, without its decorators.

        What it does not see: other functions that it calls, whether in its file or imported.

        :raises UserCodeError: ``user_code.no_source``: it has no text (made by ``exec``, or in C).
        """
        try:
            lines = textwrap.dedent(inspect.getsource(self.function)).splitlines()
        except (OSError, TypeError):
            raise UserCodeError(
                f"the source of {self.name} is unknown", code="user_code.no_source",
                why="there is no file that has it", todo="write it as a function of a file",
            ) from None  # fmt: skip
        start = next((n for n, line in enumerate(lines) if line.startswith(("def ", "class "))), 0)
        text = "\n".join(line.rstrip() for line in lines[start:])
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def to_settings(self) -> dict[str, Any]:
        """What a model version's settings say of the function.

        ``reference`` is missing for a function that no other process can import by name (of a DAG file).
        """
        return {
            "source_digest": self.source_digest(),
            **({"reference": ref} if (ref := self._reference()) else {}),
        }

    def _reference(self) -> str | None:
        try:
            return reference_of(self.function)
        except UserCodeError:
            # A decorator has replaced the function in its module; it is still found behind that.
            reference = f"{self.function.__module__}:{self.function.__qualname__}"
            try:
                found = inspect.unwrap(resolve_callable(reference))
            except (UserCodeError, ValueError):
                return None
            return reference if found is self.function else None


def recorded_function(
    name: str, recorded: Mapping[str, Any], arguments: Mapping[str, Any]
) -> TrainingFunction:
    """The function that a model version's settings tell of.

    :raises TrainingError: ``training.not_repeatable``: it is in a DAG file, which cannot be imported here.
    :raises UserCodeError: it is not there any more.
    """
    reference = recorded.get("reference")
    if reference is None:
        raise TrainingError(
            f"{name} cannot be called again", code="training.not_repeatable",
            why="it stands in a DAG file, which no other process can import",
            todo="move it into a module beside the DAG and train again",
        )  # fmt: skip
    return TrainingFunction(function=inspect.unwrap(resolve_callable(reference)), arguments=arguments)


class FunctionEstimator:
    """A training function in the place of an estimator: ``train`` gives what ``fit`` would have made."""

    def __init__(self, function: TrainingFunction, seed: int) -> None:
        self.function, self.seed = function, seed

    def train(self, frame: pd.DataFrame, truth: Any, weights: Any = None) -> Any:
        """The fitted estimator.

        :raises TrainingError: ``training.no_sample_weight``; ``training.estimator``: it gave no estimator.
        """
        function = self.function
        given = {"features": frame, "target": truth, "seed": self.seed, "sample_weight": weights}
        if weights is not None and not function.takes("sample_weight"):
            raise TrainingError(
                f"{function.name} takes no sample weights", code="training.no_sample_weight",
                why="it has no parameter sample_weight",
                todo="give it one, or leave out sample_weight and class_weight",
            )  # fmt: skip
        passed = {name: value for name, value in given.items() if function.takes(name)}
        model = function.function(**passed, **function.arguments)
        if not callable(getattr(model, "predict", None)):
            raise TrainingError(
                f"{function.name} gave a {type(model).__name__}, which is no estimator",
                code="training.estimator", why="it has no predict", todo="return the fitted estimator",
            )  # fmt: skip
        return model
