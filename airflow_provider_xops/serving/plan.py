"""What the servers of an alias are to serve: one pure rule over the ledger and the last traffic split.

For whoever serves or watches a server. The ledger says who the champion is, a
:class:`~airflow_provider_xops.records.TrafficSplit` how requests are shared for the time being; a server that
starts, and each of ten replicas, comes to the same plan from the same two. A split counts for the champion it
was decided about and no longer, so a rollback wins at once, over any canary.

What it does not do: it reads nothing, and it does not know whether a version can be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from airflow_provider_xops.records import (
    ModelVersion,
    PromotionDecision,
    PromotionOutcome,
    TrafficSplit,
    Variant,
    VariantRole,
    digest_of,
)
from airflow_provider_xops.registry.ledger_state import MOVING, LedgerState

__all__ = ["ANSWERING", "ServingPlan", "basis_of", "pinned_plan", "plan_of", "stands_for"]

ANSWERING = (VariantRole.PRIMARY, VariantRole.CANARY)


@dataclass(frozen=True, kw_only=True)
class ServingPlan:
    """What to serve for one alias of one model.

    :param variants: the versions and their parts; empty where there is nothing to serve.
    :param champion: the ledger entry that made the champion; None: there is none, or the version is pinned.
    :param split: the split that is in force; None: the champion answers everything.
    :param standby: one more version to keep loaded: where a rollback would go. None where that is among
        ``variants`` already, or nowhere.
    :param basis: what a split that is decided now counts for; see :func:`basis_of`.
    """

    model: str
    alias: str
    variants: tuple[Variant, ...]
    champion: PromotionDecision | None = None
    split: TrafficSplit | None = None
    standby: Variant | None = None
    basis: int = 0

    @property
    def answering(self) -> tuple[Variant, ...]:
        """The variants that answer requests: those with a share."""
        return tuple(each for each in self.variants if each.role in ANSWERING and each.weight > 0)

    @property
    def shadows(self) -> tuple[Variant, ...]:
        """The variants that are asked beside the one that answers."""
        return tuple(each for each in self.variants if each.role is VariantRole.SHADOW and each.weight > 0)

    @property
    def wanted(self) -> tuple[Variant, ...]:
        """Everything to have loaded, what answers first."""
        others = tuple(each for each in self.variants if each not in self.answering)
        return (*self.answering, *others, *((self.standby,) if self.standby else ()))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what is served; of two plans with the same one nothing need be changed."""
        return digest_of(
            [self.model, self.alias, [[*_identity(each), each.role, each.weight] for each in self.wanted]]
        )


def plan_of(state: LedgerState, split: TrafficSplit | None) -> ServingPlan:
    """The plan that a ledger and the split with the highest number make.

    The split is in force if it was decided about the present champion; or if it brings a candidate in
    (``rollout``), that candidate has been promoted, and nobody else was champion in between. Else the
    champion answers everything. The version that a rollback would go to is kept loaded beside them.

    :param split: of the same model and alias; None: there never was one.

    >>> plan_of(LedgerState("late", "champion", ()), None).variants
    ()
    """
    champion, basis = state.current, basis_of(state)
    variants: tuple[Variant, ...] = ()
    if split is not None and _has_shares(split) and _in_force(split, state, basis):
        variants = split.variants
    else:
        split = None
        if champion is not None and champion.to_version is not None:
            variants = (_variant(champion, VariantRole.PRIMARY, 1.0),)
    back = _way_back(state)
    standby = None
    if back is not None and not any(stands_for(back, each) for each in variants):
        standby = _variant(back, VariantRole.STANDBY, 0.0)
    return ServingPlan(
        model=state.model, alias=state.alias, variants=variants, champion=champion, split=split,
        standby=standby, basis=basis,
    )  # fmt: skip


def pinned_plan(record: ModelVersion, *, alias: str) -> ServingPlan:
    """The plan of a server that serves one version by number, whatever the ledger says."""
    pinned = Variant(
        version=record.version, created_at_ms=record.created_at_ms, role=VariantRole.PRIMARY, weight=1.0
    )
    return ServingPlan(model=record.name, alias=alias, variants=(pinned,))


def basis_of(state: LedgerState) -> int:
    """Number of the ledger entry that a split decided now is about: the last that moved the alias, or 0."""
    return state.standing.sequence if state.standing is not None else 0


def stands_for(entry: PromotionDecision, variant: Variant) -> bool:
    """Whether a ledger entry and a variant name one version (old entries do not say when it was made)."""
    made = entry.to_created_at_ms
    return entry.to_version == variant.version and (made is None or made == variant.created_at_ms)


def _has_shares(split: TrafficSplit) -> bool:
    """Whether its shares are shares: of one that was written past :func:`.traffic.split_traffic` a primary of
    NaN would leave every request to the canary."""
    return all(isinstance(each.weight, int | float) and 0 <= each.weight <= 1 for each in split.variants)


def _in_force(split: TrafficSplit, state: LedgerState, basis: int) -> bool:
    if split.basis == basis:
        return True
    champion = state.current
    if not split.rollout or champion is None or champion.outcome is not PromotionOutcome.PROMOTED:
        return False
    between = any(
        split.basis < entry.sequence < champion.sequence and entry.outcome in MOVING
        for entry in state.entries
    )
    brought_in = any(stands_for(champion, each) for each in split.variants)
    return split.basis < champion.sequence and brought_in and not between


def _way_back(state: LedgerState) -> PromotionDecision | None:
    """What a rollback would go back to: the last former champion that is not blocked."""
    now = state.current
    for entry in reversed(state.championships):
        if entry.to_version is None or now is None or _target(entry) == _target(now):
            continue
        if (entry.to_version, entry.to_created_at_ms) not in state.blocked:
            return entry
    return None


def _variant(entry: PromotionDecision, role: VariantRole, weight: float) -> Variant:
    return Variant(
        version=entry.to_version or 0, created_at_ms=entry.to_created_at_ms or 0, role=role, weight=weight
    )


def _target(entry: PromotionDecision) -> tuple[int | None, int | None]:
    return entry.to_version, entry.to_created_at_ms


def _identity(variant: Variant) -> tuple[int, int]:
    return variant.version, variant.created_at_ms
