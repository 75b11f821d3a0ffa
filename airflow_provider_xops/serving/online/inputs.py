"""From the rows of a request to the frame a model takes, checked column by column and told without values.

For both protocols. The frame is the one that training, evaluation and batch scoring make
(:func:`airflow_provider_xops.training.frames.feature_frame`): numbers and booleans are float64 with NaN
where missing, text is object with NaN where missing, moments are pandas times without a zone (UTC). Columns
may come in any order. Whether a value may be missing is the model's affair, as everywhere else.

What it does not do: it does not guess. Text that looks like a number is text, and a number is no text.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from airflow_provider_xops.serving.online.answers import Refusal
from airflow_provider_xops.serving.online.variants import Feature
from airflow_provider_xops.serving.online.variants import FeatureKind as Kind

__all__ = ["Columns", "Inputs", "Reader"]

Extra = Literal["refuse", "ignore"]

_NUMBERS = {int, float, bool, type(None)}
_TEXTS = {str, type(None)}
_SCALARS = {int, float, bool, str, type(None)}
_SHOWN = 20


_WORDS = {
    Kind.NUMBER: "a number",
    Kind.TEXT: "text",
    Kind.TIME: "an ISO 8601 time",
    Kind.ANY: "a number or text",
}


@dataclass(frozen=True)
class Columns:
    """The features of a model, in its order, and what each takes.

    >>> Columns(("distance", "carrier"), (Kind.NUMBER, Kind.TEXT)).told()
    'distance (number), carrier (text)'
    """

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    places: Mapping[str, int] = field(init=False, repr=False, compare=False)
    all_numbers: bool = field(init=False, repr=False, compare=False)
    index: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {name: place for place, name in enumerate(self.names)})
        object.__setattr__(self, "all_numbers", all(kind is Kind.NUMBER for kind in self.kinds))
        object.__setattr__(self, "index", pd.Index(list(self.names)))

    @classmethod
    def of(cls, features: Sequence[Feature]) -> Self:
        """The columns of a loaded model."""
        return cls(tuple(each.name for each in features), tuple(each.kind for each in features))

    def told(self, names: Sequence[str] | None = None) -> str:
        """The columns and their kinds, for a message; the first twenty."""
        chosen = self.names if names is None else names
        parts = [f"{name} ({self.kinds[self.places[name]]})" for name in chosen[:_SHOWN]]
        return ", ".join(parts) + (f" and {len(chosen) - _SHOWN} more" if len(chosen) > _SHOWN else "")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The checked rows of one request.

    :param kept: values of further columns that go into the prediction log, one a row.
    """

    frame: pd.DataFrame
    kept: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.frame)


class Reader:
    """Makes :class:`Inputs` for one model.

    :param keep: columns beside the features that a request may bring for the prediction log.
    :param extra: what happens with any other column: ``refuse`` finds a misspelled one, ``ignore`` drops it.
    :param most: rows of one request at most.
    """

    def __init__(
        self, columns: Columns, *, keep: Sequence[str] = (), extra: Extra = "refuse", most: int
    ) -> None:
        self.columns = columns
        self.keep = tuple(name for name in keep if name not in columns.places)
        self.extra = extra
        self.most = most
        self._names = list(columns.names)

    def rows(self, names: Any, data: Any) -> Inputs:
        """Rows as lists, with the names of their columns.

        :raises Refusal: 400 for what is wrong with the columns, 413 for too many rows.
        """
        if type(data) is not list or set(map(type, data)) - {list}:
            raise _shape("the data are not a list of rows, each a list")
        self._check_count(len(data))
        if type(names) is not list or set(map(type, names)) - {str}:
            raise _shape("the columns are not a list of names")
        if set(map(len, data)) != {len(names)}:
            raise _shape("a row has another number of values than there are columns")
        if self.columns.all_numbers and names == self._names:
            flat = list(itertools.chain.from_iterable(data))
            if set(map(type, flat)) <= _NUMBERS:
                values = np.array(flat, dtype=np.float64).reshape(len(data), len(names))
                return Inputs(pd.DataFrame(values, columns=self.columns.index, copy=False))
        return self._by_column(names, list(zip(*data, strict=True)))

    def unnamed(self, data: Any) -> Inputs:
        """Rows as lists, in the order of the model's features.

        :raises Refusal: like :meth:`rows`.
        """
        return self.rows(self._names, data)

    def records(self, records: Any) -> Inputs:
        """Rows as objects. One that does not name a feature is refused, not taken for missing.

        :raises Refusal: like :meth:`rows`.
        """
        if type(records) is not list or set(map(type, records)) - {dict}:
            raise _shape("the records are not a list of objects")
        self._check_count(len(records))
        given: dict[str, Any] = dict.fromkeys(itertools.chain.from_iterable(records))
        short = [name for name in self._names if any(name not in each for each in records)]
        if short:
            raise self._missing(short)
        self._check_unknown(given)
        # Of each record only what is needed: a million other names in ten thousand records would be columns
        # that no memory holds.
        names = [*self._names, *(name for name in self.keep if name in given)]
        return self._by_column(names, [[record.get(name) for record in records] for name in names])

    def by_name(self, columns: Any) -> Inputs:
        """Columns as lists, by name.

        :raises Refusal: like :meth:`rows`.
        """
        if type(columns) is not dict or set(map(type, columns.values())) - {list}:
            raise _shape("the inputs are not lists by column name")
        lengths = set(map(len, columns.values()))
        if len(lengths) > 1:
            raise _shape("the columns have different lengths")
        self._check_count(lengths.pop() if lengths else 0)
        return self._by_column(list(columns), list(columns.values()))

    def matrix(self, values: Any) -> Inputs:
        """A NumPy array of numbers, one row a row, in the order of the model's features.

        :raises Refusal: like :meth:`rows`.
        """
        if values.ndim != 2 or values.shape[1] != len(self._names):
            raise _shape(f"the model takes {len(self._names)} columns: {self.columns.told()}")
        self._check_count(len(values))
        if self.columns.all_numbers:
            return Inputs(pd.DataFrame(values, columns=self.columns.index, copy=False))
        return self._by_column(self._names, [values[:, place].tolist() for place in range(values.shape[1])])

    def _by_column(self, names: list[str], columns: Sequence[Sequence[Any]]) -> Inputs:
        given = dict(zip(names, columns, strict=True))
        if len(given) < len(names):
            raise _shape("a column is named twice")
        missing = [name for name in self._names if name not in given]
        if missing:
            raise self._missing(missing)
        self._check_unknown(given)
        wrong, made = [], {}
        for name, kind in zip(self._names, self.columns.kinds, strict=True):
            values = _MAKE[kind](given[name])
            if values is None:
                wrong.append(name)
            else:
                made[name] = values
        if wrong:
            told = ", ".join(f"{name} takes {_WORDS[self._kind(name)]}" for name in wrong[:_SHOWN])
            raise Refusal(
                400, "input.columns_type", f"values of another kind in {len(wrong)} column(s): {told}"
            )
        kept = {name: given[name] for name in self.keep if name in given}
        unfit = [name for name, values in kept.items() if set(map(type, values)) - _SCALARS]
        if unfit:
            raise Refusal(
                400, "input.columns_type", f"{', '.join(unfit)} takes one number, text or null a row"
            )
        return Inputs(pd.DataFrame(made, columns=self.columns.index, copy=False), kept)

    def _check_unknown(self, given: Mapping[str, Any]) -> None:
        """Of columns among which no feature is missing."""
        count = len(given) - len(self._names) - sum(name in given for name in self.keep)
        if count and self.extra == "refuse":
            raise Refusal(
                400,
                "input.columns_unknown",
                f"{count} column(s) are not the model's, which takes {self.columns.told()}",
            )

    def _kind(self, name: str) -> Kind:
        return self.columns.kinds[self.columns.places[name]]

    def _missing(self, names: list[str]) -> Refusal:
        return Refusal(400, "input.columns_missing", f"columns are missing: {self.columns.told(names)}")

    def _check_count(self, rows: int) -> None:
        if rows > self.most:
            raise Refusal(413, "limit.rows", f"at most {self.most} rows are answered at a time")
        if rows == 0:
            raise _shape("there are no rows")


def _numbers(values: Sequence[Any]) -> Any:
    if not set(map(type, values)) <= _NUMBERS:
        return None
    # A whole number beyond 64 bits cannot come from JSON; from elsewhere it must not raise with its digits.
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        return None


def _texts(values: Sequence[Any]) -> Any:
    if not set(map(type, values)) <= _TEXTS:
        return None
    array = np.empty(len(values), dtype=object)
    array[:] = [math.nan if value is None else value for value in values]
    return pd.Series(array, dtype=object, copy=False)


def _times(values: Sequence[Any]) -> Any:
    if not set(map(type, values)) <= _TEXTS:
        return None
    try:
        moments = [None if value is None else _moment(value) for value in values]
    except (ValueError, OverflowError):
        return None
    return pd.Series(np.array(moments, dtype="datetime64[us]"))


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        offset = moment.utcoffset()
        moment = moment.replace(tzinfo=None) - (offset if offset is not None else moment - moment)
    return moment


def _anything(values: Sequence[Any]) -> Any:
    numbers = _numbers(values)
    return _texts(values) if numbers is None else numbers


_MAKE: Mapping[Kind, Callable[[Sequence[Any]], Any]] = {
    Kind.NUMBER: _numbers,
    Kind.TEXT: _texts,
    Kind.TIME: _times,
    Kind.ANY: _anything,
}


def _shape(message: str) -> Refusal:
    return Refusal(400, "input.shape", message)
