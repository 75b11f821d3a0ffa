"""Aliases of registered models: which names there are, and which of them only gates may move.

For promotion and nomination. ``champion`` answers; ``champion-eu`` answers in a region or for a segment, with
a ledger sequence of its own; ``challenger`` and ``shadow`` answer nobody. What has been promoted to once is
gated for good: a nomination asks no gates, so it must not be a way around them.

What it does not do: it does not ask MLflow, whose rules it repeats so that a name is refused before anything
is decided.
"""

from __future__ import annotations

import re

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.registry.ledger_state import LedgerState

__all__ = ["CHALLENGER", "CHAMPION", "alias_option", "check_alias", "is_gated"]

CHAMPION = "champion"
CHALLENGER = "challenger"
# mlflow/utils/validation.py of 3.17: the pattern, the two reserved forms and the length.
_ALLOWED = re.compile(r"[\w-]+")
_VERSION = re.compile(r"[vV]\d+")
_RESERVED = "latest"
_LONGEST = 255


def check_alias(alias: str) -> str:
    """``alias``, if MLflow accepts it as the name of an alias.

    :raises ArgumentError: ``argument.alias``.

    >>> check_alias("champion-eu")
    'champion-eu'
    """
    if not _ALLOWED.fullmatch(alias):
        why = "it holds something else than letters, digits, _ and -" if alias.strip() else "it is empty"
    elif alias.lower() == _RESERVED or _VERSION.fullmatch(alias):
        why = "MLflow reserves it"
    elif len(alias) > _LONGEST:
        why = f"it has more than {_LONGEST} characters"
    else:
        return alias
    raise ArgumentError(
        f"{alias[:80]!r} cannot be an alias",
        code="argument.alias",
        why=why,
        todo="use a name such as champion, champion-eu, challenger or shadow",
    )


def alias_option(alias: str) -> str:
    """What a command needs beside a model's name to be about ``alias``.

    >>> alias_option("champion-eu"), alias_option("champion")
    (' --alias champion-eu', '')
    """
    return "" if alias == CHAMPION else f" --alias {alias}"


def is_gated(alias: str, now: LedgerState) -> bool:
    """Whether only a promotion or a rollback may move an alias: by its name, or because one has before.

    >>> is_gated("champion-eu", LedgerState("late", "champion-eu", ()))
    True
    """
    return alias.casefold().startswith(CHAMPION) or bool(now.championships)
