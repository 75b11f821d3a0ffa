"""How a plain mapping becomes a step.

Private to :mod:`airflow_provider_xops.data.preparation`, whose docstring is the grammar. Only the shape is
looked at here; whether the columns exist is known when there is a schema.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from airflow_provider_xops.data._preparation_steps import (
    AsOfJoin,
    Bin,
    Bounds,
    Cast,
    Clip,
    Deduplicate,
    Derive,
    Drop,
    Filter,
    Gap,
    Impute,
    Order,
    Rename,
    Select,
    Step,
    step_error,
)  # fmt: skip
from airflow_provider_xops.data.column_types import parse_type
from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.schema import PARTITION_COLUMN

__all__ = ["parse_step"]

STATISTICS = ("mean", "median", "most_frequent")
METHODS = (*STATISTICS, "forward_fill")
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(second|minute|hour|day|week)s?\s*")
_ORDER = re.compile(r"(?P<name>.*?)(?:\s+(?P<way>asc|desc))?", re.IGNORECASE | re.DOTALL)
_REQUIRED: Any = object()


def parse_step(number: int, given: Any) -> Step:
    """One step of its plain mapping.

    :raises ArgumentError: ``argument.step``.

    >>> parse_step(1, {"step": "drop", "columns": ["tailnum"]})
    Drop(number=1, columns=('tailnum',))
    """
    if not isinstance(given, Mapping):
        raise step_error(number, "?", f"a {type(given).__name__} is not a step", todo="write a mapping")
    kind = given.get("step")
    parse = _PARSERS.get(kind) if isinstance(kind, str) else None
    if parse is None:
        close = difflib.get_close_matches(str(kind), _PARSERS, 1)
        raise step_error(
            number, str(kind)[:40], "there is no such step",
            todo=f"write {close[0]!r}" if close else f"use one of {', '.join(_PARSERS)}",
        )  # fmt: skip
    reader = _Reader(number, str(kind), given)
    reader.take("step")
    reader.text("reason", None)
    step: Step = parse(reader)
    reader.end()
    return step


class _Reader:
    """Takes the keys of a mapping one by one; what is left at the end is a mistake."""

    def __init__(self, number: int, kind: str, given: Mapping[str, Any], where: str = "") -> None:
        self.number, self.kind, self.where = number, kind, where
        self._left, self._known = dict(given), list[str]()

    def error(self, what: str, *, why: str = "", todo: str = "") -> ArgumentError:
        return step_error(self.number, self.kind, what, why=why, todo=todo)

    def within(self, given: Any, where: str) -> _Reader:
        if not isinstance(given, Mapping):
            raise self.error(f"{where} is a {type(given).__name__}", todo="write a mapping")
        return _Reader(self.number, self.kind, given, f" of {where}")

    def take(self, key: str, default: Any = _REQUIRED) -> Any:
        self._known.append(key)
        if key in self._left:
            return self._left.pop(key)
        if default is _REQUIRED:
            raise self.error(f"{key!r}{self.where} is missing")
        return default

    def end(self) -> None:
        for key in self._left:
            close = difflib.get_close_matches(str(key), self._known, 1)
            raise self.error(
                f"{str(key)[:40]!r}{self.where} means nothing here",
                todo=f"write {close[0]!r}" if close else f"use {', '.join(map(repr, self._known))}",
            )

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        found = self.take(key, default)
        if found is not None and (not isinstance(found, str) or not found.strip()):
            raise self.error(f"{key!r}{self.where} is no text", todo="write a text that is not empty")
        return found

    def flag(self, key: str, default: bool) -> bool:
        found = self.take(key, default)
        if not isinstance(found, bool):
            raise self.error(f"{key!r}{self.where} is neither true nor false")
        return found

    def choice(self, key: str, among: Sequence[str]) -> str:
        """The first of ``among`` is the default. An unquoted null of YAML is the word."""
        found = self.take(key, among[0])
        found = "null" if found is None else found
        if found not in among:
            raise self.error(f"{key!r} is {str(found)[:40]!r}", todo=f"use {' or '.join(among)}")
        return str(found)

    def name(self, found: Any, key: str) -> str:
        if not isinstance(found, str) or not found or "\x00" in found:
            raise self.error(f"{str(found)[:40]!r} in {key!r}{self.where} is not the name of a column")
        if found.lower() == PARTITION_COLUMN:
            raise self.error(
                f"the column {PARTITION_COLUMN} is the lake's own", todo="use $partition in an expression"
            )
        return found

    def names(self, key: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        found = self.take(key, default)
        if found is default and default is not _REQUIRED:
            return default  # type: ignore[no-any-return]
        if isinstance(found, str):
            found = [found]
        if not isinstance(found, Sequence) or not found:
            raise self.error(f"{key!r}{self.where} names no columns", todo="write a list of names")
        names = tuple(self.name(item, key) for item in found)
        if len({name.lower() for name in names}) < len(names):
            raise self.error(f"{key!r}{self.where} names a column twice")
        return names

    def mapping(self, key: str) -> dict[str, Any]:
        found = self.take(key)
        if not isinstance(found, Mapping) or not found:
            raise self.error(f"{key!r} names no columns", todo="write a mapping from a column's name")
        return {self.name(name, key): item for name, item in found.items()}

    def pairs(self, key: str, default: Any = _REQUIRED) -> tuple[tuple[str, str], ...]:
        """Names that are the same on both sides, or a mapping from this side's to the other's."""
        found = self.take(key, default)
        if isinstance(found, str):
            found = [found]
        if isinstance(found, Mapping):
            return tuple((self.name(a, key), self.name(b, key)) for a, b in found.items())
        if not isinstance(found, Sequence):
            raise self.error(f"{key!r} is neither names nor a mapping of names")
        return tuple((self.name(item, key), item) for item in found)

    def order(self, key: str, default: Any = _REQUIRED) -> tuple[Order, ...]:
        found = self.take(key, default)
        found = [found] if isinstance(found, str) else found
        if not isinstance(found, Sequence) or (not found and default is _REQUIRED):
            raise self.error(f"{key!r}{self.where} names no columns", todo='write ["name desc", ...]')
        orders = []
        for item in found:
            match = _ORDER.fullmatch(item.strip()) if isinstance(item, str) else None
            name = self.name(match["name"] if match else item, key)
            orders.append(Order(name, bool(match and (match["way"] or "").lower() == "desc")))
        return tuple(orders)

    def literal(self, key: str, default: Any = _REQUIRED) -> Any:
        return self.plain(self.take(key, default), key)

    def plain(self, found: Any, key: str) -> Any:
        """A value as JSON has it; YAML's own dates become text."""
        if isinstance(found, datetime | date):
            return found.isoformat()
        if isinstance(found, Decimal):
            return str(found)
        if found is None or isinstance(found, str | bool | int):
            return found
        if isinstance(found, float) and math.isfinite(found):
            return found
        raise self.error(
            f"{key!r}{self.where} is no literal", why=f"it is a {type(found).__name__}"
            if not isinstance(found, float) else "it is not a finite number",
            todo="write a number, a text, true or false",
        )  # fmt: skip

    def share(self, found: Any, key: str) -> float:
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
            raise self.error(f"{key!r}{self.where} is not between 0 and 1")
        return float(found)

    def fit(self, needed: bool) -> str | None:
        name = self.text("fit", None)
        if needed and name is None:
            raise self.error(
                "it learns a figure and does not say from what",
                why="the rows at hand would give another figure in every partition, and leak",
                todo="write the figure (a profile suggests it), or name an input as 'fit'",
            )
        if name is not None and not needed:
            raise self.error("'fit' is given and nothing is learned", todo="leave it out")
        return None if name is None else str(name)


def _cast(reader: _Reader) -> Step:
    kinds = {}
    for name, text in reader.mapping("columns").items():
        kinds[name] = parse_type(str(text), column=name)
        if kinds[name].nested or kinds[name].text == "binary":
            raise reader.error(f"column {name!r} cannot be cast to {kinds[name].text}", todo="use derive")
    return Cast(reader.number, tuple(kinds.items()), reader.choice("on_error", ("fail", "null")) == "null")


def _deduplicate(reader: _Reader) -> Step:
    keys = reader.names("keys", None)
    return Deduplicate(
        reader.number,
        keys,
        reader.order("order_by", ()),
        reader.choice("keep", ("first", "last")) == "last",
        reader.choice("null_keys", ("same", "keep")) == "keep",
    )


def _impute(reader: _Reader) -> Step:
    gaps = []
    for name, given in reader.mapping("columns").items():
        inner = reader.within(given, f"column {name!r}")
        method = inner.text("method", None)
        if method == "constant":
            method = None
        if method is None:
            value = inner.literal("value")
            if value is None:
                raise reader.error(f"column {name!r} would be imputed by nothing", todo="write a value")
            gaps.append(Gap(name, None, value))
        elif method == "forward_fill":
            gaps.append(Gap(name, method, None, inner.order("order_by"), inner.names("group_by", ())))
        elif method in STATISTICS:
            gaps.append(Gap(name, method))
        else:
            raise reader.error(f"there is no method {str(method)[:40]!r}", todo=f"use {', '.join(METHODS)}")
        inner.end()
    indicator = reader.take("indicator", False)
    if isinstance(indicator, bool):
        indicator = "_missing" if indicator else None
    elif not isinstance(indicator, str) or not indicator:
        raise reader.error("'indicator' is neither true, false nor a suffix")
    return Impute(
        reader.number, tuple(gaps), reader.fit(any(g.method in STATISTICS for g in gaps)), indicator
    )


def _clip(reader: _Reader) -> Step:
    found = []
    for name, given in reader.mapping("columns").items():
        inner = reader.within(given, f"column {name!r}")
        shares = [inner.take(key, None) for key in ("lower_quantile", "upper_quantile")]
        low, high = (
            None if share is None else inner.share(share, key)
            for share, key in zip(shares, ("lower_quantile", "upper_quantile"), strict=True)
        )
        bounds = Bounds(name, inner.literal("lower", None), inner.literal("upper", None), low, high)
        inner.end()
        for side, literal, share in (
            ("lower", bounds.lower, bounds.lower_quantile), ("upper", bounds.upper, bounds.upper_quantile)
        ):  # fmt: skip
            if literal is not None and share is not None:
                raise reader.error(f"column {name!r} has two {side} bounds")
        if low is not None and high is not None and low > high:
            raise reader.error(f"the quantiles of column {name!r} are the wrong way round")
        if bounds == Bounds(name):
            raise reader.error(f"column {name!r} has no bounds", todo="write lower, upper or both")
        found.append(bounds)
    learned = any(b.lower_quantile is not None or b.upper_quantile is not None for b in found)
    return Clip(reader.number, tuple(found), reader.fit(learned))


def _bin(reader: _Reader) -> Step:
    column = reader.name(reader.text("column"), "column")
    edges, quantiles = reader.take("edges", None), reader.take("quantiles", None)
    if (edges is None) == (quantiles is None):
        raise reader.error("it has both edges and quantiles" if edges is not None else "it has no edges")
    given = edges if edges is not None else quantiles
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) < 2:
        raise reader.error("a bin needs two edges", todo="write a list of rising numbers")
    if quantiles is not None:
        quantiles = tuple(reader.share(item, "quantiles") for item in quantiles)
        if list(quantiles) != sorted(set(quantiles)):
            raise reader.error("the quantiles do not rise")
    else:
        last = len(given) - 1
        opened = [i in (0, last) and isinstance(e, float) and math.isinf(e) for i, e in enumerate(given)]
        edges = tuple(None if o else reader.plain(e, "edges") for e, o in zip(given, opened, strict=True))
        if any(edge is None for edge in edges[1:-1]):
            raise reader.error("an edge within is missing", todo="only the first and the last may be null")
    right = reader.flag("right", True)
    labels = _labels(reader, edges, len(given) - 1, right)
    into = reader.name(reader.text("into", f"{column}_bin"), "into")
    lowest = reader.flag("include_lowest", quantiles is not None)
    return Bin(
        reader.number,
        column,
        edges,
        quantiles,
        reader.fit(quantiles is not None),
        into,
        right,
        lowest,
        labels,
    )


def _labels(reader: _Reader, edges: Any, bins: int, right: bool) -> tuple[str, ...] | None:
    labels = reader.take("labels", None)
    if labels is False:
        return None
    if labels is None:
        if edges is None:
            raise reader.error(
                "bins by quantiles have no labels", why="their edges are not known beforehand",
                todo="write labels, or false for the bins' numbers",
            )  # fmt: skip
        shown = ["-inf" if edges[0] is None else str(edges[0]), *map(str, edges[1:-1])]
        shown.append("inf" if edges[-1] is None else str(edges[-1]))
        left, end = ("(", "]") if right else ("[", ")")
        return tuple(f"{left}{a}, {b}{end}" for a, b in pairwise(shown))
    if not isinstance(labels, Sequence) or isinstance(labels, str) or len(labels) != bins:
        raise reader.error(f"{bins} bins need {bins} labels")
    if not all(isinstance(label, str) and "\x00" not in label for label in labels):
        raise reader.error("a label is no text", todo="write labels as text; quote numbers")
    return tuple(labels)


def _as_of_join(reader: _Reader) -> Step:
    name = str(reader.text("with"))
    on = reader.pairs("on")
    if len(on) != 1:
        raise reader.error(f"it joins on {len(on)} columns", todo="name one in 'on', the others in 'by'")
    direction = reader.take("direction", "backward")
    if direction != "backward":
        raise reader.error(
            f"the direction is {str(direction)[:40]!r}",
            why="a row would learn from what came after it", todo="use backward",
        )  # fmt: skip
    tolerance = reader.take("tolerance", None)
    is_duration = isinstance(tolerance, str)
    if is_duration:
        match = _DURATION.fullmatch(tolerance)
        if match is None:
            raise reader.error("the tolerance is no duration", todo="write '30 minutes' or '2 hours'")
        tolerance = float(match[1]) * _UNITS[match[2]]
    elif tolerance is not None and (
        isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf
    ):
        raise reader.error("the tolerance is neither a duration nor a number that is not negative")
    suffix = reader.take("suffix", "")
    if not isinstance(suffix, str) or "\x00" in suffix:
        raise reader.error("'suffix' is no text")
    by, columns = reader.pairs("by", ()), reader.names("columns", None)
    exact = reader.flag("allow_exact_matches", True)
    return AsOfJoin(reader.number, name, on[0], by, columns, tolerance, is_duration, exact, suffix)


def _filter(reader: _Reader) -> Step:
    return Filter(reader.number, str(reader.text("where")).strip())


def _derive(reader: _Reader) -> Step:
    found = reader.mapping("columns")
    for name, text in found.items():
        if not isinstance(text, str) or not text.strip():
            raise reader.error(f"column {name!r} has no expression", todo="write SQL as text")
    return Derive(reader.number, tuple((name, text.strip()) for name, text in found.items()))


def _rename(reader: _Reader) -> Step:
    found = reader.mapping("columns")
    pairs = tuple((old, reader.name(new, "columns")) for old, new in found.items())
    if len({new.lower() for _, new in pairs}) < len(pairs):
        raise reader.error("two columns would have one name")
    return Rename(reader.number, pairs)


_PARSERS: dict[str, Any] = {
    "cast": _cast,
    "deduplicate": _deduplicate,
    "impute": _impute,
    "clip": _clip,
    "bin": _bin,
    "as_of_join": _as_of_join,
    "filter": _filter,
    "derive": _derive,
    "rename": _rename,
    "select": lambda reader: Select(reader.number, reader.names("columns")),
    "drop": lambda reader: Drop(reader.number, reader.names("columns")),
}
