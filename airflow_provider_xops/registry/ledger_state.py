"""What a ledger says at one moment: its entries, its champion, what is unapplied and what is blocked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from airflow_provider_xops.records import PromotionDecision, PromotionOutcome

__all__ = ["CHAMPION_MAKING", "MOVING", "Draft", "LedgerState"]

CHAMPION_MAKING = (PromotionOutcome.PROMOTED, PromotionOutcome.ROLLED_BACK)
# What says where the alias points: to a champion, to a nominee, to nothing.
MOVING = (*CHAMPION_MAKING, PromotionOutcome.NOMINATED, PromotionOutcome.RETIRED)


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a decider wants to write; :func:`.ledger.append` numbers and chains it."""

    outcome: PromotionOutcome
    reason: str
    expected: int | None = None
    from_version: int | None = None
    to_version: int | None = None
    to_created_at_ms: int | None = None
    artifact_digest: str | None = None
    evidence: tuple[str, ...] = ()
    decides: int | None = None
    approved_by: tuple[str, ...] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True)
class LedgerState:
    """The ledger of one alias of one model at one moment."""

    model: str
    alias: str
    entries: tuple[PromotionDecision, ...]

    @property
    def head(self) -> PromotionDecision | None:
        """The last entry."""
        return self.entries[-1] if self.entries else None

    @cached_property
    def championships(self) -> tuple[PromotionDecision, ...]:
        """The entries that made a champion (promoted, rolled back), in order."""
        return tuple(entry for entry in self.entries if entry.outcome in CHAMPION_MAKING)

    @cached_property
    def standing(self) -> PromotionDecision | None:
        """The last entry that says where the alias points; one that retired it says: nowhere."""
        return next((entry for entry in reversed(self.entries) if entry.outcome in MOVING), None)

    @property
    def current(self) -> PromotionDecision | None:
        """The decision that the alias's present version rests on; None if it stands for nothing."""
        last = self.standing
        return None if last is None or last.outcome is PromotionOutcome.RETIRED else last

    @property
    def current_version(self) -> int | None:
        """The version that the alias stands for: the champion, or a nominee."""
        return self.current.to_version if self.current else None

    @property
    def unapplied(self) -> PromotionDecision | None:
        """The entry that says where the alias points, if MLflow has not been told yet."""
        decision = self.standing
        return None if decision is None or self.is_applied(decision) else decision

    def is_applied(self, decision: PromotionDecision) -> bool:
        """Whether an ``applied`` entry follows this decision."""
        return any(
            entry.outcome is PromotionOutcome.APPLIED and entry.decides == decision.sequence
            for entry in self.entries
        )

    @cached_property
    def blocked(self) -> frozenset[tuple[int, int | None]]:
        """Versions that were rolled back from and not released since: (version, created_at_ms)."""
        found: set[tuple[int, int | None]] = set()
        champion: tuple[int, int | None] | None = None
        for entry in self.entries:
            if entry.outcome is PromotionOutcome.RETIRED:
                champion = None
            if entry.to_version is None:
                continue
            target = (entry.to_version, entry.to_created_at_ms)
            if entry.outcome is PromotionOutcome.ROLLED_BACK and champion is not None and champion != target:
                found.add(champion)
            if entry.outcome is PromotionOutcome.RELEASED:
                found.discard(target)
            if entry.outcome in MOVING:
                champion = target
        return frozenset(found)

    def by_key(self, key: str, *outcomes: PromotionOutcome) -> Iterator[PromotionDecision]:
        """Entries that this piece of work has written, newest first."""
        return (
            entry
            for entry in reversed(self.entries)
            if entry.idempotency_key == key and (not outcomes or entry.outcome in outcomes)
        )
