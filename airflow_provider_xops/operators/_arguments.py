"""Arguments as templates leave them: a text where a number, a list or a mapping is meant, or nothing at all.

For the operators. Airflow renders templates to text unless a DAG asks for native objects, so ``"{{
params.days }}"`` arrives as ``"['2013-01-01']"``; the output of a mapped task arrives as a lazy sequence.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_xops.errors import ArgumentError

__all__ = ["is_empty", "list_of", "mapping_of", "number", "one_of", "optional", "whole_number"]


def is_empty(value: Any) -> bool:
    """Whether an argument holds nothing: None, no characters, no entries, or a None turned to text.

    >>> is_empty("  "), is_empty("None"), is_empty(0)
    (True, True, False)
    """
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip() in ("", "None")
    return isinstance(value, Mapping | list | tuple | set) and not value


def optional(value: Any) -> Any:
    """An optional argument, or None where it holds nothing."""
    return None if is_empty(value) else value


def whole_number(value: Any, *, argument: str) -> int | None:
    """An optional whole number that a template may have made text.

    :raises ArgumentError: it is something else (``argument.number``).
    """
    if is_empty(value):
        return None
    try:
        return int(str(value).strip())
    except ValueError:
        raise ArgumentError(
            f"{argument} is {str(value)[:80]!r}", code="argument.number", todo="give a whole number"
        ) from None


def number(value: Any, *, argument: str) -> float | None:
    """An optional number that a template may have made text; whole ones stay whole.

    :raises ArgumentError: it is something else, or not finite (``argument.number``).
    """
    if is_empty(value):
        return None
    try:
        found = float(str(value).strip())
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ArgumentError(
            f"{argument} is {str(value)[:80]!r}", code="argument.number", todo="give a number"
        )
    return int(found) if found.is_integer() else found


def mapping_of(given: Any, *, argument: str) -> Mapping[str, Any]:
    """A mapping, or the JSON or Python text of one (what a template, or a task in another language, gives).

    :raises ArgumentError: it is neither (``argument.json``); the text is not repeated.
    """
    found = _parsed(given)
    if not isinstance(found, Mapping):
        raise ArgumentError(
            f"{argument} is not a JSON object", code="argument.json", todo="give a mapping or its JSON text"
        )
    return found


def list_of(given: Any, *, argument: str) -> list[Any] | None:
    """The entries of a list, of its JSON or Python text, or of one entry alone; None where nothing was given.

    :raises ArgumentError: an entry is empty (``argument.empty``), or it is no list (``argument.list``).

    >>> list_of("['a', 'b']", argument="keys"), list_of("a", argument="keys"), list_of("", argument="keys")
    (['a', 'b'], ['a'], None)
    """
    if is_empty(given):
        return None
    found = _parsed(given)
    if isinstance(found, str):
        return [found.strip()]
    if isinstance(found, Mapping) or not isinstance(found, Iterable):
        raise ArgumentError(
            f"{argument} is a {type(found).__name__}, not a list",
            code="argument.list",
            todo="give a list, or the text of one",
        )
    # By number: Airflow's lazy sequence of a mapped task's outputs logs an error when it is read to its end.
    entries = [found[i] for i in range(len(found))] if isinstance(found, Sequence) else list(found)
    if any(is_empty(entry) for entry in entries):
        raise ArgumentError(
            f"an entry of {argument} is empty",
            code="argument.empty",
            why="its template rendered to nothing, or the task it comes from was skipped",
            todo="look at the task's rendered templates",
        )
    return entries or None


def one_of(given: Any, allowed: tuple[str, ...], *, argument: str) -> str:
    """One of several words.

    :raises ArgumentError: it is none of them (``argument.<argument>``).
    """
    if given not in allowed:
        raise ArgumentError(
            f"{argument} is {str(given)[:80]!r}",
            code=f"argument.{argument}",
            todo=f"use one of {', '.join(allowed)}",
        )
    return str(given)


def _parsed(given: Any) -> Any:
    """The list or mapping that a text is the JSON or Python form of; anything else unchanged."""
    if not isinstance(given, str) or given.strip()[:1] not in ("[", "{", "("):
        return given
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            found = parse(given.strip())
            if isinstance(found, Mapping | list | tuple):
                return found
    return given
