"""What all records have in common: identity, canonical digest, JSON in and out.

Private to :mod:`airflow_provider_xops.records`, which gives it to everybody.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self

from airflow_provider_xops._record_values import Producer
from airflow_provider_xops.errors import DataError

__all__ = ["Record", "adapter_of", "digest_of"]


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON-serializable value in canonical form (sorted keys, no spaces).

    >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_json_default, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of every record.

    Subclasses name their ``kind`` (the evidence folder) and ``identity`` (the fields the id is computed
    from).

    :param recorded_at: when it was written, UTC.
    :param produced_by: the task attempt or person that wrote it.
    :param event_time: when it happened in the data, UTC; None where the data carry no time.
    """

    kind: ClassVar[str]
    identity: ClassVar[tuple[str, ...]]
    #: fields that came later and tell records apart only where they hold something
    identity_if_set: ClassVar[tuple[str, ...]] = ()
    current_schema_version: ClassVar[int] = 1

    recorded_at: datetime
    produced_by: Producer
    event_time: datetime | None = None
    schema_version: int = 1
    record_id: str = field(default="")

    def __post_init__(self) -> None:
        for name in ("recorded_at", "event_time"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise DataError(
                    f"{type(self).__name__}.{name} has no time zone",
                    code="data.naive_timestamp",
                    todo="pass a timezone-aware UTC datetime",
                )
        for made in dataclasses.fields(self):
            # 2 and 2.0 are one number but two texts: read back from JSON the record would have another id.
            value = getattr(self, made.name)
            if made.type in ("float", "float | None") and isinstance(value, int):
                object.__setattr__(self, made.name, float(value))
            elif made.type == "dict[str, float]":
                plain = {key: float(each) for key, each in value.items()}
                object.__setattr__(self, made.name, plain)
        told = [_plain(getattr(self, name)) for name in self.identity]
        told += [{name: found} for name in self.identity_if_set if (found := _plain(getattr(self, name)))]
        identity = digest_of([self.kind, *told])[:32]
        if self.record_id and self.record_id != identity:
            raise DataError(
                f"{type(self).__name__} carries record_id {self.record_id}, its content says {identity}",
                code="data.record_id_mismatch",
                why="the record was changed after it was written",
                todo="read it again from the lake's evidence",
            )
        object.__setattr__(self, "record_id", identity)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON types, with its ``kind``."""
        plain: dict[str, Any] = _plain(self)
        return {"kind": self.kind, **plain}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; unknown fields of a newer writer are ignored.

        :raises DataError: a field is missing or has the wrong type, or a list was shortened for XCom
            (``data.record_shortened``): read the whole record from the lake by its ``record_id``.
        """
        for name, value in data.items():
            if isinstance(value, Mapping) and value.get("shortened") is True:
                raise DataError(
                    f"{cls.__name__} {data.get('record_id')} was shortened for XCom: field {name!r} has"
                    f" {value.get('count')} entries",
                    code="data.record_shortened",
                    todo=f"read it whole from the lake's evidence ({value.get('uri', 'by its record_id')})",
                )
        try:
            record: Self = adapter_of(cls).validate_python({k: v for k, v in data.items() if k != "kind"})
        except ValueError as error:
            raise DataError(
                f"this is not a {cls.__name__}",
                code="data.record_unreadable",
                why=_first_problem(error),
                todo=f"pass a record as `xops schema {cls.kind}` describes it",
            ) from None
        return record


_ADAPTERS: dict[type[Record], Any] = {}


def adapter_of(cls: type[Record]) -> Any:
    if cls not in _ADAPTERS:
        from pydantic import TypeAdapter

        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _first_problem(error: ValueError) -> str:
    problems = getattr(error, "errors", None)
    if problems is None:
        return type(error).__name__
    first = problems(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'record'}: {first['msg']}"


def _json_default(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return value
