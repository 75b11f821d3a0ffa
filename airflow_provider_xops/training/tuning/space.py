"""What may be searched: named parameters, each a range of numbers or a choice of values.

For :mod:`airflow_provider_xops.training.tuning.study` and the operator. A space is plain JSON, so that it can
stand in a DAG, in a record and in a fingerprint::

    {"max_iter": {"int": [50, 500], "log": true}, "learning_rate": {"float": [0.01, 0.3], "log": true},
     "class_weight": {"choice": [null, "balanced"]}}
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_xops.errors import ArgumentError

__all__ = ["Choice", "Number", "Space", "space_from"]

KINDS = ("int", "float", "choice")
MAX_GRID = 10_000


@dataclass(frozen=True, kw_only=True)
class Number:
    """A range of numbers, both ends included.

    :param whole: whether only whole numbers are meant.
    :param log: small and large orders of magnitude are tried equally often; needs ``low`` above 0.
    :param step: only ``low``, ``low + step``, ... are tried; not together with ``log``.
    """

    whole: bool
    low: float
    high: float
    log: bool = False
    step: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The form that :func:`space_from` reads."""
        more = {"log": True} if self.log else {} if self.step is None else {"step": self.step}
        return {"int" if self.whole else "float": [self.low, self.high], **more}

    def distribution(self) -> Any:
        """Optuna's form of it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            step = 1 if self.step is None else int(self.step)
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def value(self, proposed: Any) -> Any:
        """The estimator's argument for what Optuna proposed."""
        return int(proposed) if self.whole else float(proposed)

    def values(self, name: str) -> list[Any]:
        """Every value, for a grid.

        :raises ArgumentError: ``argument.space``: a range of real numbers without a step has no end of them.
        """
        if self.step is None and not self.whole:
            raise _refused(name, "has no step, so a grid of it has no end", "give it a step, or a choice")
        step = 1 if self.step is None else self.step
        # The sum of many steps misses the end by rounding; a thousandth of a step is no step.
        count = math.floor((self.high - self.low) / step + 1e-3) + 1
        if count > MAX_GRID:
            raise _refused(name, f"has {count} values, a grid takes {MAX_GRID}", "give it a larger step")
        return [self.value(min(self.low + number * step, self.high)) for number in range(count)]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Some values, in no order. They may be anything JSON can hold, lists and mappings too."""

    options: tuple[Any, ...]

    def to_json(self) -> dict[str, Any]:
        """The form that :func:`space_from` reads."""
        return {"choice": list(self.options)}

    def distribution(self) -> Any:
        """Optuna's form of it: text, because Optuna takes 1, 1.0 and True for the same choice."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self._words())

    def value(self, proposed: Any) -> Any:
        """The estimator's argument for what Optuna proposed."""
        return self.options[self._words().index(proposed)]

    def values(self, name: str) -> list[Any]:
        """Every value, for a grid."""
        return list(self.options)

    def word(self, value: Any) -> str:
        """Optuna's name of one of the options."""
        if all(isinstance(option, str) for option in self.options):
            return str(value)
        return json.dumps(value, sort_keys=True)

    def _words(self) -> tuple[str, ...]:
        return tuple(self.word(option) for option in self.options)


@dataclass(frozen=True, kw_only=True)
class Space:
    """The parameters of a search, by name."""

    parameters: Mapping[str, Number | Choice]

    def to_json(self) -> dict[str, Any]:
        """The form that :func:`space_from` reads: reading it again gives an equal space."""
        return {name: parameter.to_json() for name, parameter in self.parameters.items()}

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The arguments that an Optuna trial proposes."""
        return {
            name: parameter.value(_suggested(trial, name, parameter))
            for name, parameter in self.parameters.items()
        }

    def arguments(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The estimator's arguments for the parameters of a finished Optuna trial."""
        return {name: self.parameters[name].value(value) for name, value in params.items()}

    def words(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's parameters for some arguments: the reverse of :meth:`arguments`."""
        return {
            name: parameter.word(arguments[name]) if isinstance(parameter, Choice) else arguments[name]
            for name, parameter in self.parameters.items()
        }

    def distributions(self) -> dict[str, Any]:
        """Optuna's form of the space."""
        return {name: parameter.distribution() for name, parameter in self.parameters.items()}

    def grid(self) -> list[dict[str, Any]]:
        """Every combination, the last parameter changing fastest.

        :raises ArgumentError: ``argument.space``: there is no end of them, or there are more than 10,000.

        >>> space_from({"depth": {"int": [1, 5], "step": 2}, "kind": {"choice": ["a"]}}).grid()
        [{'depth': 1, 'kind': 'a'}, {'depth': 3, 'kind': 'a'}, {'depth': 5, 'kind': 'a'}]
        """
        values = {name: parameter.values(name) for name, parameter in self.parameters.items()}
        size = math.prod(len(each) for each in values.values())
        if size > MAX_GRID:
            raise ArgumentError(
                f"the grid has {size} combinations", code="argument.space",
                why=f"a grid takes {MAX_GRID}", todo="give larger steps, or search at random or by TPE",
            )  # fmt: skip
        return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def space_from(value: Space | Mapping[str, Any]) -> Space:
    """A space from its JSON form, or the space itself.

    Each parameter is ``{"int": [low, high]}`` or ``{"float": [low, high]}``, with ``"log": true`` or a
    ``"step"``, or ``{"choice": [...]}``. The names are keyword arguments of the estimator.

    :raises ArgumentError: ``argument.space``; it names the parameter, what is wrong, and what it takes.

    >>> space_from({"alpha": {"float": [0.1, 10], "log": True}}).to_json()
    {'alpha': {'float': [0.1, 10.0], 'log': True}}

    What it does not do: no parameter can depend on the value of another one.
    """
    if isinstance(value, Space):
        return value
    if not isinstance(value, Mapping) or not value:
        raise ArgumentError(
            "the space to search is empty" if not value else "the space to search is no mapping",
            code="argument.space",
            todo='give each parameter its range: {"max_iter": {"int": [50, 500]}}',
        )
    return Space(parameters={str(name): _parameter(str(name), given) for name, given in value.items()})


def _parameter(name: str, given: Any) -> Number | Choice:
    known = f'one of {{"int": [low, high]}}, {{"float": [low, high]}}, {{"choice": [...]}} for {name!r}'
    if not isinstance(given, Mapping):
        raise _refused(name, "is no mapping", f"give {known}")
    kinds = [kind for kind in KINDS if kind in given]
    if len(kinds) != 1:
        near = [word for key in given for word in difflib.get_close_matches(str(key), KINDS, n=1)]
        todo = f"did you mean {near[0]!r}? " if near and not kinds else ""
        raise _refused(
            name, f"is {'no' if not kinds else 'more than one'} kind of range", f"{todo}Give {known}"
        )
    kind = kinds[0]
    allowed = {kind} if kind == "choice" else {kind, "log", "step"}
    unknown = sorted(str(key) for key in given if key not in allowed)
    if unknown:
        raise _refused(name, f"has no {', '.join(unknown)}", f"it takes {', '.join(sorted(allowed))}")
    return _choice(name, given[kind]) if kind == "choice" else _number(name, given, whole=kind == "int")


def _choice(name: str, options: Any) -> Choice:
    if not isinstance(options, Sequence) or isinstance(options, str) or not options:
        raise _refused(name, "has no list of values", "give at least one value in a list")
    try:
        words = [json.dumps(option, sort_keys=True, allow_nan=False) for option in options]
    except (TypeError, ValueError):
        raise _refused(
            name, "has a value that is not JSON", "give numbers, text, booleans, null, lists, mappings"
        ) from None
    if len(set(words)) < len(words):
        raise _refused(name, "has a value twice", "name each value once")
    # Through JSON, as a record keeps them: a tuple would come back as a list, and the search as another one.
    return Choice(options=tuple(json.loads(word) for word in words))


def _number(name: str, given: Mapping[str, Any], *, whole: bool) -> Number:
    ends = given["int" if whole else "float"]
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2:
        raise _refused(name, "has no two ends", "give [low, high]")
    low, high = (_end(name, end, whole=whole) for end in ends)
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise _refused(name, "has a log that is neither true nor false", "give true, or leave it out")
    step = None if given.get("step") is None else _end(name, given["step"], whole=whole)
    if low > high:
        raise _refused(name, "begins above its end", "give [low, high]")
    if log and low <= 0:
        raise _refused(name, "is logarithmic and begins at or below 0", "begin above 0, or take log away")
    if step is not None and (log or step <= 0):
        raise _refused(name, "has an unusable step", "give a step above 0 and no log, or leave it out")
    return Number(whole=whole, low=low, high=high, log=log, step=step)


def _end(name: str, value: Any, *, whole: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refused(name, "has a bound that is no finite number", "give numbers")
    if whole:
        if value != int(value):
            raise _refused(
                name, "has a bound that is no whole number", "give whole numbers, or a float range"
            )
        return int(value)
    return float(value)


def _suggested(trial: Any, name: str, parameter: Number | Choice) -> Any:
    if isinstance(parameter, Choice):
        return trial.suggest_categorical(name, parameter.distribution().choices)
    if parameter.whole:
        step = 1 if parameter.step is None else int(parameter.step)
        return trial.suggest_int(name, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
    return trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def _refused(name: str, why: str, todo: str) -> ArgumentError:
    return ArgumentError(
        f"the parameter {name!r} of the space cannot be searched",
        code="argument.space",
        why=f"it {why}",
        todo=todo,
    )
