"""The record that the evidence holds, for one that was handed over.

For promotion and for asking gates. What travels between tasks can be edited on the way: the answers and
figures of an evaluation are no part of what identifies it, and a record made up by hand has an id like any
other. What counts is what was written when the work was done.
"""

from __future__ import annotations

from typing import TypeVar

from airflow_provider_xops.errors import ArgumentError, NotFoundError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.records import Record

__all__ = ["recorded"]

R = TypeVar("R", bound=Record)


def recorded(lake: Lake, given: R, *, argument: str) -> R:
    """What the evidence holds under the id of a record.

    :param argument: what the record was handed over as; ``argument.<argument>`` is the error's code.
    :raises ArgumentError: the evidence holds no such record.

    >>> recorded(lake, evaluation, argument="evaluation")  # doctest: +SKIP

    What it does not do: it cannot tell who wrote a record. Whoever may write to the lake may write one.
    """
    try:
        found = lake.evidence.get(given.kind, given.record_id)
    except NotFoundError:
        raise ArgumentError(
            f"the lake has no record {given.record_id} of kind {given.kind}",
            code=f"argument.{argument}",
            why="it was changed after it was written, made up, or written to another lake",
            todo=f"pass the output of the task that made the {argument.replace('_', ' ')}, or its record id",
        ) from None
    assert isinstance(found, type(given))
    return found
