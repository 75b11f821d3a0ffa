"""How much each training row counts: by a column, by its class, or both.

For training, cross-validation and streamed training. All weights reach an estimator as the ``sample_weight``
of its ``fit``, so one declaration works for every library that has one.

What it does not do: it does not weigh the figures. A model is judged on the holdout as it is.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from airflow_provider_xops.errors import ArgumentError, TrainingError

__all__ = [
    "BALANCED",
    "class_weights_from",
    "column_weights",
    "fit_keywords",
    "per_class",
    "row_weights",
    "weighted_by_class",
]

BALANCED = "balanced"


def class_weights_from(value: str | Mapping[Any, float] | None) -> str | dict[str, float] | None:
    """The weights of the classes as settings keep them: None, ``balanced``, or a number for each class.

    :param value: a mapping names classes as the target has them or as their text (JSON has no other keys).
    :raises ArgumentError: ``argument.class_weight``: another word, or a weight that is no positive number.

    >>> class_weights_from({0: 1, 1: 5})
    {'0': 1.0, '1': 5.0}
    """
    if value is None or value == BALANCED:
        return value  # type: ignore[return-value]
    if not isinstance(value, Mapping) or not value:
        raise _refused(f"a {type(value).__name__} is no class weight", "use 'balanced' or a mapping")
    try:
        weights = {_name(label): float(weight) for label, weight in value.items()}
    except (TypeError, ValueError):
        raise _refused("a class weight is not a number", "give a number for each class") from None
    if len(weights) < len(value):
        raise _refused("a class is given two weights", "name each class once, as the target spells it")
    if not all(math.isfinite(weight) and weight > 0 for weight in weights.values()):
        raise _refused("a class weight is not above zero", "give positive numbers; drop rows to ignore them")
    return weights


def per_class(class_weight: str | Mapping[str, float], classes: Any, counts: Any) -> dict[str, float]:
    """The weight of each class (by its text); ``balanced`` is rows / (classes * rows of the class).

    The formula is scikit-learn's (King and Zeng 2001). A class that a mapping does not name weighs 1.

    :param classes: the classes among the training rows. :param counts: how many rows each of them has.
    :raises ArgumentError: ``argument.class_weight``: the mapping names something that is no class.
    """
    names = _names(classes)
    if isinstance(class_weight, str):
        total = float(np.sum(counts))
        return {name: total / (len(names) * float(count)) for name, count in zip(names, counts, strict=True)}
    unknown = sorted(set(class_weight) - set(names))
    if unknown:
        raise _refused(
            f"the weights name {len(unknown)} class(es) that no training row has",
            f"the training rows have {len(names)} classes; name some of them as the target spells them",
        )
    return {name: class_weight.get(name, 1.0) for name in names}


def column_weights(rows: pa.Table | pa.RecordBatch, column: str, *, whole: bool = True) -> Any:
    """The weight of each row from a column of the dataset, as float64.

    :param whole: whether these are all rows; of a part of them all weights may be zero.
    :raises TrainingError: ``training.weights``: no such column, not numbers, a weight missing or negative, or
        all of them zero.
    """
    if column not in rows.schema.names:
        raise _unusable(f"there is no column {column!r}", "name a column of the dataset")
    kind = rows.schema.field(column).type
    if not (pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)):
        raise _unusable(f"column {column!r} is {kind}, not a number", "choose another column")
    values = np.asarray(pc.fill_null(rows.column(column).cast(pa.float64()), math.nan), dtype=np.float64)
    bad = int(np.sum(~np.isfinite(values) | (values < 0)))
    if bad:
        raise _unusable(
            f"{bad} of {len(values)} rows have no weight, or a negative one, in {column!r}",
            "give every row that has a target a weight of 0 or more",
        )
    if whole and len(values) and not np.any(values > 0):
        raise _unusable(f"all {len(values)} weights in {column!r} are 0", "choose another column")
    return values


def row_weights(truth: Any, weights: Any = None, class_weight: Any = None) -> Any:
    """One weight a row: the given ones times those of the classes; None where neither is asked for.

    :param truth: the target of each row. :param weights: from :func:`column_weights`, or None.
    :param class_weight: from :func:`class_weights_from`; ``balanced`` counts these rows.
    """
    if class_weight is None:
        return weights
    classes, counts = np.unique(truth, return_counts=True)
    return weighted_by_class(truth, weights, per_class(class_weight, classes, counts))


def weighted_by_class(truth: Any, weights: Any, by_class: Mapping[str, float] | None) -> Any:
    """The weights times what :func:`per_class` gave; for rows that are a part of those it has counted."""
    if by_class is None:
        return weights
    classes, codes = np.unique(truth, return_inverse=True)
    factors = np.array([by_class[name] for name in _names(classes)], dtype=np.float64)[codes]
    return factors if weights is None else weights * factors


def fit_keywords(model: Any, weights: Any, *, name: str, method: str = "fit") -> dict[str, Any]:
    """What ``fit`` (or ``partial_fit``) has to be called with so that the rows count by their weights.

    In a scikit-learn pipeline they go to its last step; in a vote to all of its members.

    :raises TrainingError: ``training.no_sample_weight``: the estimator takes none.
    """
    if weights is None:
        return {}
    keyword = _keyword(model, method)
    if keyword is None:
        raise TrainingError(
            f"{name} takes no sample weights", code="training.no_sample_weight",
            why=f"its {method} has no parameter sample_weight",
            todo="choose an estimator that has one, or leave out sample_weight and class_weight",
        )  # fmt: skip
    return {keyword: weights}


def _names(classes: Any) -> list[str]:
    return [_name(label) for label in np.asarray(classes).tolist()]


def _name(label: Any) -> str:
    """A class by its text; True is 1 and 1.0 is 1, because a target of booleans is learned as 0 and 1."""
    whole = isinstance(label, bool | float | np.bool_ | np.floating) and math.isfinite(label)
    return str(int(label)) if whole and label == int(label) else str(label)


def _keyword(model: Any, method: str) -> str | None:
    from sklearn.ensemble import VotingClassifier, VotingRegressor
    from sklearn.pipeline import Pipeline

    if isinstance(model, Pipeline):
        step, last = model.steps[-1]
        inner = _keyword(last, method)
        return inner and f"{step}__{inner}"
    if isinstance(model, VotingClassifier | VotingRegressor):
        members = [each for _, each in model.estimators if each != "drop"]
        return "sample_weight" if all(_keyword(each, method) == "sample_weight" for each in members) else None
    try:
        parameters = inspect.signature(getattr(model, method)).parameters
    except (AttributeError, TypeError, ValueError):
        return None
    return "sample_weight" if "sample_weight" in parameters else None


def _refused(what: str, todo: str) -> ArgumentError:
    return ArgumentError(what, code="argument.class_weight", todo=todo)


def _unusable(why: str, todo: str) -> TrainingError:
    return TrainingError("the rows cannot be weighted", code="training.weights", why=why, todo=todo)
