"""Who is asked, and what came of a question: plain values that travel between the tasks of one request.

For :mod:`airflow_provider_xops.operators.approval`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.operators._arguments import is_empty, list_of, mapping_of

__all__ = ["Answer", "people_asked"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one question.

    :param word: record id of the word that the answer became; None: nobody's word.
    :param why: why there is none. :param round: the attempt that asked, so that a question asked again is
        another one.
    """

    word: str | None
    person: str | None
    approved: bool
    round: int
    why: str = ""

    @classmethod
    def of(cls, given: Any) -> Answer | None:
        """What an ask task returned; None where it returned nothing."""
        if is_empty(given):
            return None
        found = mapping_of(given, argument="answers")
        try:
            return cls(**{name: found[name] for name in ("word", "person", "approved", "round", "why")})
        except KeyError as error:
            raise ArgumentError(
                f"an answer has no {error}", code="argument.answers",
                why="it is not what a question's task has returned",
                todo="pass the outputs of AskApprovalOperator tasks",
            ) from None  # fmt: skip


def people_asked(approvers: Any) -> list[dict[str, str]]:
    """Airflow's users as the argument ``approvers`` names them, each once.

    :raises ArgumentError: one of them is nobody (``argument.approvers``).

    >>> people_asked(["ana", {"id": "7", "name": "Bob"}, "ana"])
    [{'id': 'ana', 'name': 'ana'}, {'id': '7', 'name': 'Bob'}]
    """
    found: dict[str, dict[str, str]] = {}
    for given in list_of(approvers, argument="approvers") or ():
        user = given if isinstance(given, Mapping) else {"id": given}
        name = str(user.get("id") or "").strip()
        if not name:
            raise ArgumentError(
                "an approver has no id", code="argument.approvers",
                todo="give ids of Airflow users, or mappings with id and name",
            )  # fmt: skip
        found.setdefault(name, {"id": name, "name": str(user.get("name") or name)})
    return list(found.values())
