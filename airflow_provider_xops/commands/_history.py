"""A promotion ledger as a table for people: what was decided, by whom, and what it comes to now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_xops.records import PromotionDecision, PromotionOutcome

if TYPE_CHECKING:
    from airflow_provider_xops.registry.ledger_state import LedgerState

__all__ = ["table_of"]

_HEAD = ("when (UTC)", "alias", "#", "decision", "version", "by", "approved by", "reason")


def table_of(model: str, entries: Sequence[PromotionDecision], *, as_of: datetime) -> str:
    """The entries of one model, oldest first within each alias; below, what each alias stands for now.

    ``applied`` entries have no line of their own: a decision that MLflow does not follow yet says so.
    """
    from airflow_provider_xops.registry.ledger_state import LedgerState

    states = {
        alias: LedgerState(model, alias, tuple(each for each in entries if each.alias == alias))
        for alias in dict.fromkeys(each.alias for each in entries)
    }
    rows = [
        _row(entry, states[entry.alias]) for entry in entries if entry.outcome is not PromotionOutcome.APPLIED
    ]
    return "\n".join([*_aligned([_HEAD, *rows]), "", *(_now(state, as_of) for state in states.values())])


def _row(entry: PromotionDecision, state: LedgerState) -> tuple[str, ...]:
    said = entry.outcome.value.replace("_", " ")
    if entry == state.unapplied:
        said += " (not applied)"
    reason = entry.reason
    if entry.expires_at is not None:
        reason += f" (until {entry.expires_at:%F %T})"
    return (
        f"{entry.recorded_at:%F %T}",
        entry.alias,
        str(entry.sequence),
        said,
        f"{_v(entry.from_version)} -> {_v(entry.to_version)}",
        entry.produced_by.id,
        ", ".join(entry.approved_by) or "-",
        reason,
    )


def _now(state: LedgerState, as_of: datetime) -> str:
    current = state.current
    said = f"{state.model}@{state.alias}: "
    if current is None:
        said += "stands for nothing"
    else:
        said += f"v{current.to_version} since {current.recorded_at:%F %T} (entry {current.sequence})"
        if current.expires_at is not None and current.expires_at <= as_of:
            said += "; its time is over, `xops reconcile` retires it"
    if state.unapplied is not None:
        said += "; MLflow does not know it yet, `xops reconcile` tells it"
    blocked = sorted(number for number, _ in state.blocked)
    if blocked:
        said += f"; blocked: {', '.join(f'v{number}' for number in blocked)}"
    return said


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    rows = [tuple(_shown(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _shown(text: str) -> str:
    """One line of visible characters: people write reasons, and a terminal obeys what it is told to hide."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _v(version: int | None) -> str:
    return "-" if version is None else f"v{version}"
