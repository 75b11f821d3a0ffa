"""Hypothesis strategies for every kind of record, from the types of its fields."""

from __future__ import annotations

import dataclasses
import types
import typing
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from hypothesis import strategies as st

from airflow_provider_xops.records import RECORD_TYPES, Record

__all__ = ["any_record", "records_of"]

_COMPUTED = {"record_id", "schema_version"}
_JSON = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=12),
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    type(None): st.none(),
    Any: _JSON,
    datetime: st.datetimes(timezones=st.just(UTC)),
}


def records_of(kind: str) -> st.SearchStrategy[Record]:
    """Records of one kind with arbitrary content."""
    return _build(RECORD_TYPES[kind])


def any_record() -> st.SearchStrategy[Record]:
    """Records of every kind."""
    return st.sampled_from(sorted(RECORD_TYPES)).flatmap(records_of)


def field_strategies(cls: type[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """A strategy for each field of a record that its writer sets."""
    hints = typing.get_type_hints(cls)
    return {f.name: _of(hints[f.name]) for f in dataclasses.fields(cls) if f.name not in _COMPUTED}


def _build(cls: type[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(field_strategies(cls)).map(lambda values: cls(**values))


def _of(hint: Any) -> st.SearchStrategy[Any]:
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([_of(each) for each in arguments])
    if origin is tuple:
        return st.lists(_of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(st.text(max_size=8), _of(arguments[1]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    assert dataclasses.is_dataclass(hint), f"no strategy for {hint}"
    return _build(typing.cast("type[Any]", hint))
