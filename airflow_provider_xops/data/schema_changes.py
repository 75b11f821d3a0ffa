"""What changed between two lists of columns, and what a policy says of each change.

For profiles, and for whoever accepts a new schema. Pure: names and types in, named changes out::

    compare_schemas([("id", "int32"), ("fare", "double")], [("id", "int64")], policy={"removed": "fail"})

A change is *added*, *removed*, *retyped*, *widened* (retyped, but every value of the old type is exactly one
of the new) or *renamed* (only where the caller says which name became which; whether a column was renamed
cannot be seen from names and types).

What it does not do: look at data, or change a table. The order of columns is not compared: the lake finds
columns by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.schema import type_name
from airflow_provider_xops.records import SchemaChange

__all__ = [
    "CHANGES",
    "DEFAULT_POLICY",
    "VERDICTS",
    "columns_of",
    "compare_schemas",
    "schema_policy",
    "widens",
]

CHANGES = ("added", "removed", "retyped", "widened", "renamed")
VERDICTS = ("allow", "warn", "fail")
DEFAULT_POLICY: Mapping[str, str] = MappingProxyType(
    {"added": "warn", "removed": "fail", "retyped": "fail", "widened": "warn", "renamed": "warn"}
)

# Whole numbers and the bits that a value needs: a float of m bits of mantissa holds those up to m bits.
_BITS = {
    "int8": 7, "int16": 15, "int32": 31, "int64": 63,
    "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64,
}  # fmt: skip
_MANTISSA = {"halffloat": 11, "float": 24, "double": 53}
_DIGITS = {
    "int8": 3,
    "int16": 5,
    "int32": 10,
    "int64": 19,
    "uint8": 3,
    "uint16": 5,
    "uint32": 10,
    "uint64": 20,
}
_DECIMAL = re.compile(r"decimal(?:128|256)?\((\d+), ?(\d+)\)")


def compare_schemas(
    before: Iterable[tuple[str, str]],
    after: Iterable[tuple[str, str]],
    *,
    policy: Mapping[str, str] | None = None,
    renames: Mapping[str, str] | None = None,
) -> tuple[SchemaChange, ...]:
    """The changes from ``before`` to ``after``: of columns that were there, in their order, then new ones.

    :param before: (name, type) of each column; types as :func:`columns_of` writes them.
    :param policy: see :func:`schema_policy`.
    :param renames: old name to new name; pairs that are not a removed and an added column are ignored.
    :raises ArgumentError: the policy is unusable.

    >>> [(c.change, c.column, c.verdict) for c in compare_schemas([("a", "int32")], [("a", "int64")])]
    [('widened', 'a', 'warn')]
    """
    verdicts = schema_policy(policy)
    old, new = dict(before), dict(after)
    renamed = {
        was: now
        for was, now in (renames or {}).items()
        if was in old and was not in new and now in new and now not in old
    }
    changes: list[SchemaChange] = []
    for name, kind in old.items():
        if name in renamed:
            now = renamed[name]
            changes.append(_change("renamed", now, name, now, verdicts, f"probably {name!r} before"))
            changes += _retyped(now, kind, new[now], verdicts)
        elif name not in new:
            changes.append(_change("removed", name, kind, None, verdicts, ""))
        else:
            changes += _retyped(name, kind, new[name], verdicts)
    taken = set(renamed.values())
    changes += [
        _change("added", name, None, kind, verdicts, "")
        for name, kind in new.items()
        if name not in old and name not in taken
    ]
    return tuple(changes)


def schema_policy(given: Mapping[str, str] | None) -> dict[str, str]:
    """The verdict of each change: ``given`` over :data:`DEFAULT_POLICY`.

    :param given: change (``added``, ``removed``, ``retyped``, ``widened``, ``renamed``) to ``allow``,
        ``warn`` or ``fail``.
    :raises ArgumentError: ``argument.schema_policy``.

    >>> schema_policy({"added": "allow"})["added"]
    'allow'
    """
    policy = dict(DEFAULT_POLICY)
    for change, verdict in dict(given or {}).items():
        if change not in CHANGES or verdict not in VERDICTS:
            raise ArgumentError(
                f"the schema policy says {str(change)[:40]!r}: {str(verdict)[:40]!r}",
                code="argument.schema_policy",
                todo=f"give some of {', '.join(CHANGES)}, each one of {', '.join(VERDICTS)}",
            )
        policy[change] = verdict
    return policy


def columns_of(schema: Any) -> list[tuple[str, str]]:
    """Names and types of an Arrow schema, in its order."""
    return [(field.name, type_name(field.type)) for field in schema]


def widens(before: str, after: str) -> bool:
    """Whether every value of the type ``before`` is exactly a value of the type ``after``.

    >>> widens("int32", "int64"), widens("int64", "double"), widens("float", "double")
    (True, False, True)
    """
    if before in _BITS and after in _BITS:
        signs = before.startswith("u") or not after.startswith("u")
        return signs and _BITS[before] < _BITS[after]
    if before in _BITS and after in _MANTISSA:
        return _BITS[before] <= _MANTISSA[after]
    if before in _MANTISSA and after in _MANTISSA:
        return _MANTISSA[before] < _MANTISSA[after]
    if (target := _DECIMAL.fullmatch(after)) is None:
        return before == "null" or (before, after) in {("string", "large_string"), ("binary", "large_binary")}
    whole, scale = int(target[1]) - int(target[2]), int(target[2])
    if before in _DIGITS:
        return _DIGITS[before] <= whole
    source = _DECIMAL.fullmatch(before)
    return source is not None and int(source[1]) - int(source[2]) <= whole and int(source[2]) <= scale


def _retyped(name: str, before: str, after: str, verdicts: Mapping[str, str]) -> Sequence[SchemaChange]:
    if before == after:
        return ()
    if widens(before, after):
        return (_change("widened", name, before, after, verdicts, f"every {before} is exactly a {after}"),)
    return (_change("retyped", name, before, after, verdicts, ""),)


def _change(
    change: str, column: str, before: str | None, after: str | None, verdicts: Mapping[str, str], message: str
) -> SchemaChange:
    return SchemaChange(
        change=change, column=column, before=before, after=after, verdict=verdicts[change], message=message
    )
